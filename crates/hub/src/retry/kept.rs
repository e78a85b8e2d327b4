//! How failed entities are kept: state records of the execution log's dataset.
//!
//! Each is one record under its place, its state and its id, and the numbers of all are one more,
//! so that nobody has to look at what does not concern him.

use tahini_entity::{Offset, Str};
use tahini_store::{Snapshot, StateWrite, StoreError};

use super::{At, Failed};
use crate::progress;

/// Records that are read together.
pub(super) const PAGE: usize = 1_000;
const COUNTS: &[u8] = b"counts";
const BURIED: u8 = 1;
const OVERTAKEN: u8 = 2;

/// The space of the records of `pipe`.
pub(super) fn space(pipe: &str) -> String {
    format!("failed:{pipe}")
}

/// The prefix of the records of one place and state. No prefix begins another.
pub(super) fn prefix(at: At, dead: bool) -> &'static [u8] {
    match (at, dead) {
        (At::Transforms, false) => b"waiting/transforms/",
        (At::Transforms, true) => b"dead/transforms/",
        (At::Sink, false) => b"waiting/sink/",
        (At::Sink, true) => b"dead/sink/",
    }
}

/// The same for the names of those that were overtaken, which stand there once more.
fn overtaken_prefix(at: At) -> &'static [u8] {
    match at {
        At::Transforms => b"overtaken/transforms/",
        At::Sink => b"overtaken/sink/",
    }
}

/// How many entities failed, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    waiting: [u64; 2],
    dead: [u64; 2],
}

impl Counts {
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.iter().sum()
    }

    pub(super) fn all(&self) -> u64 {
        self.waiting() + self.dead.iter().sum::<u64>()
    }

    pub(super) fn at(&self, at: At) -> u64 {
        self.waiting[at as usize] + self.dead[at as usize]
    }

    fn of(&mut self, at: At, dead: bool) -> &mut u64 {
        match dead {
            true => &mut self.dead[at as usize],
            false => &mut self.waiting[at as usize],
        }
    }

    /// One entity goes from one state to another; `None` is not being there.
    pub(super) fn moved(&mut self, at: At, before: Option<bool>, after: Option<bool>) {
        if let Some(dead) = before {
            let count = self.of(at, dead);
            *count = count.saturating_sub(1);
        }
        if let Some(dead) = after {
            *self.of(at, dead) += 1;
        }
    }

    pub(super) fn load(snapshot: &dyn Snapshot, pipe: &str) -> Result<Option<Counts>, StoreError> {
        let found = value_of(snapshot, &space(pipe), COUNTS)?;
        Ok(found.and_then(|bytes| {
            let (numbers, _) = bytes.as_chunks::<8>();
            let numbers: Vec<u64> = numbers.iter().map(|one| u64::from_le_bytes(*one)).collect();
            let [a, b, c, d] = numbers[..] else {
                return None;
            };
            Some(Counts {
                waiting: [a, b],
                dead: [c, d],
            })
        }))
    }

    pub(super) fn write(&self, pipe: &str) -> StateWrite {
        let numbers = self.waiting.iter().chain(&self.dead);
        write(
            pipe,
            COUNTS.to_vec(),
            Some(numbers.flat_map(|number| number.to_le_bytes()).collect()),
        )
    }
}

/// The record of one entity.
pub(super) fn record(pipe: &str, at: At, id: &str, entry: &Failed) -> StateWrite {
    write(pipe, key(at, entry.dead, id), Some(encode(entry)))
}

/// The write that removes it.
pub(super) fn no_record(pipe: &str, at: At, dead: bool, id: &str) -> StateWrite {
    write(pipe, key(at, dead, id), None)
}

/// The write that names an overtaken entity, or does so no more.
pub(super) fn overtaken(pipe: &str, at: At, id: &str, is: bool) -> StateWrite {
    let key = [overtaken_prefix(at), id.as_bytes()].concat();
    write(pipe, key, is.then(|| vec![1]))
}

/// Some names of overtaken entities behind `after`, and where to go on.
pub(super) fn overtaken_page(
    snapshot: &dyn Snapshot,
    pipe: &str,
    at: At,
    after: Option<&[u8]>,
) -> Result<(Vec<Str>, Option<Vec<u8>>), StoreError> {
    let prefix = overtaken_prefix(at);
    let (rows, next) = snapshot.state_page(&space(pipe), prefix, after, PAGE)?;
    let ids = rows.iter();
    let ids =
        ids.filter_map(|(key, _)| Some(std::str::from_utf8(&key[prefix.len()..]).ok()?.into()));
    Ok((ids.collect(), next))
}

fn write(pipe: &str, key: Vec<u8>, value: Option<Vec<u8>>) -> StateWrite {
    StateWrite {
        space: space(pipe),
        key,
        value,
    }
}

fn key(at: At, dead: bool, id: &str) -> Vec<u8> {
    [prefix(at, dead), id.as_bytes()].concat()
}

/// What is kept of one entity.
pub(super) fn find(
    snapshot: &dyn Snapshot,
    pipe: &str,
    at: At,
    id: &str,
) -> Result<Option<Failed>, StoreError> {
    for dead in [false, true] {
        let found = value_of(snapshot, &space(pipe), &key(at, dead, id))?;
        if let Some(entry) = found.and_then(|bytes| decode(dead, &bytes)) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Some entities of one place and state, in the order of their ids, and where to go on.
pub(super) type Several = (Vec<(Str, Failed)>, Option<Vec<u8>>);

/// Reads them behind `after`.
pub(super) fn page(
    snapshot: &dyn Snapshot,
    pipe: &str,
    (at, dead): (At, bool),
    after: Option<&[u8]>,
) -> Result<Several, StoreError> {
    let prefix = prefix(at, dead);
    let (rows, next) = snapshot.state_page(&space(pipe), prefix, after, PAGE)?;
    let rows = rows.into_iter().filter_map(|(key, value)| {
        let id = std::str::from_utf8(&key[prefix.len()..]).ok()?;
        Some((id.into(), decode(dead, &value)?))
    });
    Ok((rows.collect(), next))
}

/// What stands under `key` itself.
fn value_of(
    snapshot: &dyn Snapshot,
    space: &str,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let (rows, _) = snapshot.state_page(space, key, None, 1)?;
    let found = rows.into_iter().find(|(found, _)| found == key);
    Ok(found.map(|(_, value)| value))
}

fn encode(entry: &Failed) -> Vec<u8> {
    let mut flags = if entry.buried { BURIED } else { 0 };
    flags |= if entry.overtaken { OVERTAKEN } else { 0 };
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&entry.attempts.to_le_bytes());
    bytes.extend_from_slice(&entry.hash.to_le_bytes());
    bytes.extend_from_slice(&entry.run.to_le_bytes());
    bytes.extend_from_slice(&entry.tried.to_le_bytes());
    if let Some(updated) = entry.updated {
        bytes.extend_from_slice(&updated.to_le_bytes());
    }
    bytes
}

fn decode(dead: bool, bytes: &[u8]) -> Option<Failed> {
    let (flags, rest) = bytes.split_first()?;
    let (attempts, rest) = rest.split_first_chunk::<8>()?;
    let (hash, rest) = rest.split_first_chunk::<16>()?;
    let (run, rest) = rest.split_first_chunk::<8>()?;
    let (tried, rest) = rest.split_first_chunk::<8>()?;
    Some(Failed {
        attempts: u64::from_le_bytes(*attempts),
        dead,
        buried: flags & BURIED != 0,
        hash: u128::from_le_bytes(*hash),
        run: i64::from_le_bytes(*run),
        tried: i64::from_le_bytes(*tried),
        overtaken: flags & OVERTAKEN != 0,
        updated: rest.first_chunk::<8>().map(|one| i64::from_le_bytes(*one)),
    })
}

/// The number that tells versions of equal content apart, where the source gives one.
pub(super) fn number_of(updated: Option<&Offset>) -> Option<i64> {
    match updated {
        Some(Offset::Int(number)) => Some(*number),
        _ => None,
    }
}

/// Takes over some of what was kept among the pipe's own records, without numbers: the writes, and
/// where to go on.
pub(super) fn adopt(
    snapshot: &dyn Snapshot,
    pipe: &str,
    at: At,
    after: Option<&[u8]>,
) -> Result<(Vec<StateWrite>, Option<Vec<u8>>), StoreError> {
    let prefix: &[u8] = match at {
        At::Transforms => b"waiting-at-transforms/",
        At::Sink => b"waiting/",
    };
    let (rows, next) = snapshot.state_page(&progress::space(pipe), prefix, after, PAGE)?;
    let mut writes = Vec::new();
    for (key, value) in rows {
        let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        writes.push(progress::write(pipe, &key, None));
        if let Some(entry) = decode_alone(&value) {
            writes.push(record(pipe, at, &id, &entry));
        }
    }
    Ok((writes, next))
}

fn decode_alone(bytes: &[u8]) -> Option<Failed> {
    let (attempts, rest) = bytes.split_first_chunk::<8>()?;
    let (dead, rest) = rest.split_first()?;
    let (hash, rest) = rest.split_first_chunk::<16>()?;
    Some(Failed {
        attempts: u64::from_le_bytes(*attempts),
        dead: *dead != 0,
        buried: *dead != 0,
        hash: u128::from_le_bytes(*hash),
        // The oldest records end before it.
        run: rest.try_into().map(i64::from_le_bytes).unwrap_or_default(),
        tried: 0,
        overtaken: false,
        updated: None,
    })
}
