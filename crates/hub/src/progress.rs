//! A pipe's place: what is saved with its entities, and how the offset moves.

use std::collections::BTreeMap;

use tahini_entity::{Batch, Offset};
use tahini_store::{Snapshot, StateWrite, StoreError};

use crate::Failure;
use crate::dependency::Mark;
use crate::reprocessing::SYNC;
use crate::sink::RunKind;
use crate::source::Continuation;

/// The space of a pipe's state records in the dataset that keeps them.
pub fn space(pipe: &str) -> String {
    format!("pipe:{pipe}")
}

const OFFSET: &[u8] = b"offset";
/// The hashes of what was processed at the offset itself (see `boundary`).
pub(crate) const BOUNDARY: &[u8] = b"boundary";
const UNFINISHED: &[u8] = b"unfinished";
const RUNS: &[u8] = b"runs";
const PARTIALS: &[u8] = b"partials";
/// Prefix of the keys that hold the ids seen in an unfinished full run, as sequence bitmaps.
pub(crate) const SEEN: &[u8] = b"seen/";
/// Prefix of the keys that say how far joined datasets were followed.
pub(crate) const TRACKED: &[u8] = b"tracked/";
/// Prefix of the keys that belong to the source.
pub(crate) const SOURCE: &[u8] = b"source/";

/// What is known of a pipe's place when a run is planned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Where the next incremental run goes on.
    pub offset: Option<Offset>,
    /// A full run or rescan that began and did not finish.
    pub unfinished: Option<RunKind>,
    /// Completed runs since the last full run or rescan.
    pub runs: u64,
    /// Completed runs since the last partial or other rescan.
    pub partials: u64,
    /// What was processed at the offset itself, as saved.
    pub boundary: Vec<u8>,
    /// What the output was made of, as saved (see `reprocessing`).
    pub sync: Vec<u8>,
    /// How far each joined dataset was followed.
    pub tracked: BTreeMap<String, Mark>,
    /// State of the source, keys without their prefix.
    pub source: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Place {
    /// Reads the place of `pipe` from the dataset that keeps it.
    pub fn load(snapshot: &dyn Snapshot, pipe: &str) -> Result<Place, StoreError> {
        let mut place = Place::default();
        for (key, value) in snapshot.state(&space(pipe), b"")? {
            match key.as_slice() {
                OFFSET => place.offset = decode(&value),
                SYNC => place.sync = value,
                BOUNDARY => place.boundary = value,
                UNFINISHED => {
                    place.unfinished = match value.as_slice() {
                        b"full" => Some(RunKind::Full),
                        b"rescan" => Some(RunKind::Rescan),
                        _ => None,
                    };
                }
                RUNS => place.runs = counted(value),
                PARTIALS => place.partials = counted(value),
                key if key.starts_with(TRACKED) => {
                    let name = String::from_utf8_lossy(&key[TRACKED.len()..]);
                    let mark = Mark::read(&value).map(|mark| (name.into_owned(), mark));
                    place.tracked.extend(mark);
                }
                key if key.starts_with(SOURCE) => {
                    place.source.push((key[SOURCE.len()..].to_vec(), value));
                }
                _ => {}
            }
        }
        Ok(place)
    }
}

/// The offset of `pipe` alone, without what else is kept with it.
pub fn offset(snapshot: &dyn Snapshot, pipe: &str) -> Result<Option<Offset>, StoreError> {
    let rows = snapshot.state(&space(pipe), OFFSET)?;
    let found = rows.into_iter().find(|(key, _)| key == OFFSET);
    Ok(found.and_then(|(_, value)| decode(&value)))
}

/// How far `pipe` has followed a joined dataset.
pub(crate) fn tracked(
    snapshot: &dyn Snapshot,
    pipe: &str,
    dataset: &str,
) -> Result<Option<Mark>, StoreError> {
    let key = [TRACKED, dataset.as_bytes()].concat();
    let rows = snapshot.state(&space(pipe), &key)?;
    let found = rows.into_iter().find(|(known, _)| *known == key);
    Ok(found.and_then(|(_, value)| Mark::read(&value)))
}

/// How many versions of a dataset wait behind an offset in it, `next` being the next sequence
/// number.
pub fn unread(next: u64, offset: Option<&Offset>) -> u64 {
    let read = match offset {
        Some(Offset::Int(seq)) => u64::try_from(*seq).map_or(0, |seq| seq + 1),
        _ => 0,
    };
    next.saturating_sub(read)
}

/// The write that saves an offset; `None` removes it.
pub fn save_offset(pipe: &str, offset: Option<&Offset>) -> StateWrite {
    write(pipe, OFFSET, offset.map(encode))
}

/// The write that marks a full run as begun, or as finished with `None`.
pub fn save_unfinished(pipe: &str, kind: Option<RunKind>) -> StateWrite {
    let value = kind.map(|kind| match kind {
        RunKind::Rescan => b"rescan".to_vec(),
        RunKind::Full | RunKind::Partial | RunKind::Incremental => b"full".to_vec(),
    });
    write(pipe, UNFINISHED, value)
}

/// The write that saves how many runs completed since the last full one.
pub fn save_runs(pipe: &str, runs: u64) -> StateWrite {
    write(pipe, RUNS, Some(runs.to_le_bytes().to_vec()))
}

/// The write that saves how many runs completed since the last partial or other rescan.
pub fn save_partials(pipe: &str, runs: u64) -> StateWrite {
    write(pipe, PARTIALS, Some(runs.to_le_bytes().to_vec()))
}

fn counted(value: Vec<u8>) -> u64 {
    value.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

/// The writes that reset a pipe: the next run is a full one from the start.
pub fn reset(snapshot: &dyn Snapshot, pipe: &str) -> Result<Vec<StateWrite>, StoreError> {
    let keys = snapshot.state(&space(pipe), b"")?;
    Ok(keys
        .into_iter()
        .map(|(key, _)| write(pipe, &key, None))
        .collect())
}

/// Whether `write` would change nothing.
pub(crate) fn is_saved(snapshot: &dyn Snapshot, write: &StateWrite) -> bool {
    let rows = snapshot.state(&write.space, &write.key).unwrap_or_default();
    let found = rows.into_iter().find(|(key, _)| *key == write.key);
    found.map(|(_, value)| value) == write.value
}

/// A state record of `pipe`.
pub(crate) fn write(pipe: &str, key: &[u8], value: Option<Vec<u8>>) -> StateWrite {
    StateWrite {
        space: space(pipe),
        key: key.to_vec(),
        value,
    }
}

pub(crate) fn encode(offset: &Offset) -> Vec<u8> {
    match offset {
        Offset::Int(number) => format!("i{number}").into_bytes(),
        Offset::Text(text) => format!("s{text}").into_bytes(),
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Offset> {
    let text = std::str::from_utf8(bytes).ok()?;
    match text.split_at_checked(1)? {
        ("i", number) => number.parse().ok().map(Offset::Int),
        ("s", text) => Some(Offset::Text(text.into())),
        _ => None,
    }
}

/// The offset `delta` before this one: a number less, or seconds where it is a time. What it is
/// written like stays. `None` where it is neither.
pub(crate) fn moved_back(offset: &Offset, delta: u64) -> Option<Offset> {
    let text = match offset {
        Offset::Int(number) => {
            let moved = i128::from(*number) - i128::from(delta);
            return Some(Offset::Int(moved.max(0.min(i128::from(*number))) as i64));
        }
        Offset::Text(text) => text.as_str(),
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let moved = text.parse::<u128>().ok()?.saturating_sub(u128::from(delta));
        return Some(Offset::Text(
            format!("{moved:0width$}", width = text.len()).into(),
        ));
    }
    let (prefix, time) = match text.strip_prefix("~t") {
        Some(time) => ("~t", time),
        None => ("", text),
    };
    let (civil, zone) = time.split_at(zone_at(time));
    let parsed: jiff::civil::DateTime = civil.parse().ok()?;
    let delta = jiff::SignedDuration::from_secs(i64::try_from(delta).ok()?);
    let moved = parsed.checked_sub(delta).ok()?;
    let (date, clock) = match civil.find(['T', ' ', 't']) {
        Some(at) => (
            moved.date().to_string(),
            Some((&civil[at..=at], &civil[at + 1..])),
        ),
        None => (moved.date().to_string(), None),
    };
    let clock =
        clock.map(|(between, clock)| format!("{between}{}", as_long_as(moved.time(), clock)));
    let clock = clock.unwrap_or_default();
    Some(Offset::Text(format!("{prefix}{date}{clock}{zone}").into()))
}

/// Where the zone of a time begins.
fn zone_at(time: &str) -> usize {
    let clock = time.find(['T', ' ', 't']).map_or(time.len(), |at| at + 1);
    let zone = time[clock..].find(['Z', 'z', '+', '-']);
    zone.map_or(time.len(), |zone| clock + zone)
}

/// A time of day with as many digits as `like` has: 12:30, 12:30:00 or 12:30:00.000.
fn as_long_as(time: jiff::civil::Time, like: &str) -> String {
    let whole = time.strftime("%H:%M:%S").to_string();
    match like.find(['.', ',']) {
        Some(point) => {
            let nanos = format!("{:09}", time.subsec_nanosecond());
            let digits = (like.len() - point - 1).min(9);
            format!("{whole}{}{}", &like[point..=point], &nanos[..digits])
        }
        None => whole[..like.len().min(whole.len())].to_owned(),
    }
}

/// Moves a pipe's offset over the `_updated` values of what a run reads.
#[derive(Debug)]
pub struct Tracker {
    strategy: Continuation,
    /// The offset that the run started from.
    start: Option<Offset>,
    /// The highest (max) or last (chronological) value seen.
    last: Option<Offset>,
    /// Chronological: the last value before the group of equal values that `last` belongs to.
    below: Option<Offset>,
    /// Every entity has a value of its own (datasets), so that a group is never cut.
    distinct: bool,
    /// Two digit strings of unequal length were compared by byte.
    digits: Option<(String, String)>,
}

impl Tracker {
    /// A tracker for a run that starts at `start`.
    pub fn new(strategy: Continuation, start: Option<Offset>, distinct: bool) -> Tracker {
        Tracker {
            strategy,
            start,
            last: None,
            below: None,
            distinct,
            digits: None,
        }
    }

    /// Takes note of a batch as the source gave it.
    ///
    /// # Errors
    /// Entity, when a number and a string have to be compared.
    pub fn observe(&mut self, batch: &Batch) -> Result<(), Failure> {
        if self.strategy == Continuation::None {
            return Ok(());
        }
        for record in batch.iter() {
            let Some(updated) = &record.meta.updated else {
                continue;
            };
            match self.strategy {
                Continuation::Max => self.take_max(updated, record.id)?,
                _ => self.take_last(updated),
            }
        }
        Ok(())
    }

    fn take_max(&mut self, updated: &Offset, id: Option<&str>) -> Result<(), Failure> {
        let Some(known) = self.last.as_ref().or(self.start.as_ref()) else {
            self.last = Some(updated.clone());
            return Ok(());
        };
        match updated.compare(known) {
            Some(std::cmp::Ordering::Greater) => {
                self.note_digits(updated);
                self.last = Some(updated.clone());
            }
            Some(_) => self.note_digits(updated),
            None => {
                return Err(Failure::entity(format!(
                    "expected `_updated` values that can be compared (all numbers or all strings), \
                     found {} in entity {:?} after {}; set `is_since_comparable` to false if they \
                     have no order",
                    describe(updated),
                    id.unwrap_or("without _id"),
                    describe(known),
                )));
            }
        }
        Ok(())
    }

    /// Chronological: the order is the source's word; the value may even go down.
    fn take_last(&mut self, updated: &Offset) {
        if self.last.as_ref() != Some(updated) {
            self.below = self.last.replace(updated.clone());
        }
    }

    /// Digit strings compare by byte, so that "9" > "10": worth a warning, once.
    fn note_digits(&mut self, updated: &Offset) {
        let (Offset::Text(new), Some(Offset::Text(old))) =
            (updated, self.last.as_ref().or(self.start.as_ref()))
        else {
            return;
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if self.digits.is_none() && new.len() != old.len() && digits(new) && digits(old) {
            self.digits = Some((old.to_string(), new.to_string()));
        }
    }

    /// The offset that may be saved in the middle of a run with what was written so far.
    pub fn checkpoint(&self) -> Option<&Offset> {
        match self.strategy {
            Continuation::Chronological if self.distinct => self.last.as_ref(),
            // A checkpoint inside a group of equal values would skip the rest of the group.
            Continuation::Chronological => self.below.as_ref(),
            _ => None,
        }
    }

    /// The offset to save at the end of a successful run; `None` leaves the saved one.
    pub fn end(&self) -> Option<&Offset> {
        match self.strategy {
            Continuation::None => None,
            _ => self.last.as_ref(),
        }
    }

    /// A warning about the values, if there is one.
    pub fn warning(&self) -> Option<String> {
        self.digits.as_ref().map(|(old, new)| {
            format!(
                "`_updated` holds digit strings of unequal length ({old:?}, {new:?}), which are \
                 compared byte by byte: send numbers or pad with zeros"
            )
        })
    }
}

fn describe(offset: &Offset) -> String {
    match offset {
        Offset::Int(number) => format!("the number {number}"),
        Offset::Text(text) => format!("the string {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_back_and_look_the_same() {
        let text = |text: &str| Offset::Text(text.into());
        for (offset, delta, expected) in [
            (Offset::Int(12_637), 100, Some(Offset::Int(12_537))),
            (Offset::Int(5), 100, Some(Offset::Int(0))),
            (Offset::Int(-5), 100, Some(Offset::Int(-5))),
            (text("0012"), 5, Some(text("0007"))),
            (
                text("~t2018-04-27T15:46:40Z"),
                3600,
                Some(text("~t2018-04-27T14:46:40Z")),
            ),
            (
                text("2018-01-01T00:00:00.250Z"),
                1,
                Some(text("2017-12-31T23:59:59.250Z")),
            ),
            (
                text("2018-04-27T15:46:40.1234567+02:00"),
                60,
                Some(text("2018-04-27T15:45:40.1234567+02:00")),
            ),
            (
                text("2018-04-27 15:46:40"),
                1,
                Some(text("2018-04-27 15:46:39")),
            ),
            (text("2018-04-27T15:46"), 60, Some(text("2018-04-27T15:45"))),
            (text("2018-04-27"), 86_400, Some(text("2018-04-26"))),
            (text("opaque"), 1, None),
            (text(""), 1, None),
        ] {
            assert_eq!(moved_back(&offset, delta), expected, "{offset}");
        }
    }
}
