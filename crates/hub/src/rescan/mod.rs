//! Rescans in the background: everything is read again beside incremental runs of the same pipe.
//!
//! A rescan has a place of its own beside that of the runs: how far it has read, the ids that came
//! out of it, and the ids that runs were given meanwhile, all of it saved in the sink's dataset
//! with the rows that it is about, so that a rescan goes on after a restart. Which of the two has
//! the last word about an entity is decided when it begins (`Wins`).
//!
//! It reads in three steps. First everything, beside runs. Then, in the turn of a run, what came
//! since, so that between the two nothing is missing. Then it deletes what neither of them saw,
//! beside runs again.

mod shared;

use serde_json::{Value as Json, json};
use tahini_entity::{Batch, Offset};
use tahini_store::{Snapshot, StateWrite, StoreError};

use crate::breaker::Breaker;
use crate::progress::{self, SOURCE};
use crate::source::Continuation;

pub use shared::Shared;
pub(crate) use shared::{Both, Joined, Role};

/// Sources that make their output from several datasets by rules of their own: after a change of
/// those, what runs make of the newest entities need not be right before everything was read again.
const MERGING: &[&str] = &["diff_datasets", "merge", "merge_datasets"];

const RECORD: &[u8] = b"record";
const OFFSET: &[u8] = b"offset";
/// Prefix of the keys that hold the ids that runs were given beside the rescan.
pub(crate) const TOUCHED: &[u8] = b"touched/";

/// The space of a rescan's state records in the sink's dataset.
pub(crate) fn space(pipe: &str) -> String {
    format!("rescan:{pipe}")
}

/// Whose version of an entity stays where a run and the rescan both have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wins {
    /// That of the run: it is newer.
    Run,
    /// That of the rescan: runs still work from what another configuration of the source left.
    Rescan,
}

/// What a rescan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It reads everything, beside runs.
    Reading,
    /// It reads what came since, in the turn of a run.
    CatchingUp,
    /// It deletes what did not come, beside runs.
    Deleting,
}

/// What is kept of a rescan that began and is not finished.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Whose version stays.
    pub(crate) wins: Wins,
    /// What it does.
    pub(crate) phase: Phase,
    /// The pipe's offset when it began: runs read what is behind it.
    pub(crate) until: Option<Offset>,
    /// What the output is made of; a rescan of something else begins anew.
    pub(crate) basis: String,
    /// What runs that began at this moment or later set aside is newer than what the rescan reads;
    /// microseconds since 1970 UTC.
    pub(crate) newer_from: i64,
}

/// What a run of a pipe with background rescans tells its sink.
#[derive(Clone)]
pub struct Beside {
    pub(crate) shared: std::sync::Arc<Shared>,
    /// The rescan that it is; `None` for an incremental run.
    pub(crate) record: Option<Record>,
    /// When the run began, microseconds since 1970 UTC.
    pub(crate) started: i64,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// Everything that is kept of an unfinished rescan but for the ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) record: Option<Record>,
    /// How far it has read.
    pub(crate) offset: Option<Offset>,
    /// State of the source at that place, keys without their prefix.
    pub(crate) source: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Kept {
    /// What is kept of the rescan of `pipe`.
    pub(crate) fn load(snapshot: &dyn Snapshot, pipe: &str) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        let space = space(pipe);
        for (_, value) in snapshot.state(&space, RECORD)? {
            kept.record = Record::of_bytes(&value);
        }
        for (_, value) in snapshot.state(&space, OFFSET)? {
            kept.offset = progress::decode(&value);
        }
        for (key, value) in snapshot.state(&space, SOURCE)? {
            kept.source.push((key[SOURCE.len()..].to_vec(), value));
        }
        Ok(kept)
    }
}

/// Whether a rescan of `pipe` began and did not finish, as the dataset that keeps its place knows.
///
/// # Errors
/// When the dataset cannot be read.
pub fn is_unfinished(home: &dyn Snapshot, pipe: &str) -> Result<bool, StoreError> {
    Ok(!home.state(&space(pipe), RECORD)?.is_empty())
}

impl Record {
    fn of_bytes(bytes: &[u8]) -> Option<Record> {
        let json: Json = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| json[name].as_str();
        Some(Record {
            wins: match text("wins")? {
                "rescan" => Wins::Rescan,
                _ => Wins::Run,
            },
            phase: match text("phase")? {
                "catching up" => Phase::CatchingUp,
                "deleting" => Phase::Deleting,
                _ => Phase::Reading,
            },
            until: text("until").and_then(|text| progress::decode(text.as_bytes())),
            basis: text("basis")?.to_owned(),
            newer_from: json["newer_from"].as_i64()?,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let until = self.until.as_ref().map(progress::encode);
        let until = until.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let json = json!({
            "wins": match self.wins {
                Wins::Run => "run",
                Wins::Rescan => "rescan",
            },
            "phase": match self.phase {
                Phase::Reading => "reading",
                Phase::CatchingUp => "catching up",
                Phase::Deleting => "deleting",
            },
            "until": until,
            "basis": self.basis,
            "newer_from": self.newer_from,
        });
        json.to_string().into_bytes()
    }

    /// The write that keeps it.
    pub(crate) fn write(&self, pipe: &str) -> StateWrite {
        write(pipe, RECORD, Some(self.to_bytes()))
    }
}

/// The write that saves how far a rescan has read; `None` removes it.
pub(crate) fn save_offset(pipe: &str, offset: Option<&Offset>) -> StateWrite {
    write(pipe, OFFSET, offset.map(progress::encode))
}

/// The writes that save the state of a rescan's source.
pub(crate) fn save_source(pipe: &str, state: Vec<StateWrite>) -> Vec<StateWrite> {
    let prefixed = |one: StateWrite| write(pipe, &[SOURCE, &one.key].concat(), one.value);
    state.into_iter().map(prefixed).collect()
}

/// The writes after which nothing is known of a rescan.
pub(crate) fn forget(snapshot: &dyn Snapshot, pipe: &str) -> Result<Vec<StateWrite>, StoreError> {
    let rows = snapshot.state(&space(pipe), b"")?;
    let keys = rows.into_iter().map(|(key, _)| key);
    Ok(keys.map(|key| write(pipe, &key, None)).collect())
}

/// The write that remembers that a rescan was asked for, so that one which never began is made up
/// for; `None` where one is unfinished.
pub(crate) fn asked(snapshot: &dyn Snapshot, pipe: &str) -> Result<Option<StateWrite>, StoreError> {
    let nothing = Record {
        wins: Wins::Run,
        phase: Phase::Reading,
        until: None,
        basis: String::new(),
        newer_from: 0,
    };
    let unfinished = is_unfinished(snapshot, pipe)?;
    Ok((!unfinished).then(|| nothing.write(pipe)))
}

/// The writes after which an unfinished rescan begins anew.
pub(crate) fn begin_anew(
    snapshot: &dyn Snapshot,
    pipe: &str,
) -> Result<Vec<StateWrite>, StoreError> {
    let mut writes = forget(snapshot, pipe)?;
    if let Some(record) = Kept::load(snapshot, pipe)?.record {
        // No output is made of nothing, so that nobody goes on with this.
        let basis = String::new();
        writes.retain(|write| write.key != RECORD);
        writes.push(Record { basis, ..record }.write(pipe));
    }
    Ok(writes)
}

fn write(pipe: &str, key: &[u8], value: Option<Vec<u8>>) -> StateWrite {
    StateWrite {
        space: space(pipe),
        key: key.to_vec(),
        value,
    }
}

/// Whose version stays in a rescan that begins now: the rescan's only where the source merges
/// datasets and was another when everything was read last.
pub(crate) fn wins(source: &str, is_another: bool) -> Wins {
    match MERGING.contains(&source) && is_another {
        true => Wins::Rescan,
        false => Wins::Run,
    }
}

/// Why rescans of a pipe with this effective configuration do not run beside its runs, though it
/// wants that.
pub(crate) fn obstacle(continuation: Continuation, effective: &Json) -> Option<&'static str> {
    let sink = &effective["sink"];
    if sink["type"] != "dataset" {
        return Some("only a dataset sink knows what a run wrote meanwhile");
    }
    if continuation == Continuation::None {
        return Some("every run reads everything, since the source keeps no place");
    }
    if effective["source"]["type"] == "merge" {
        return Some("what a merge source gives follows from its place, and runs share it");
    }
    if Breaker::of_pipe(effective).is_some() {
        return Some("a circuit breaker holds back what one run writes");
    }
    if sink["enable_optimistic_locking"] == true || sink["prevent_multiple_versions"] == true {
        return Some("the sink refuses versions that it does not expect");
    }
    None
}

/// Where the rescan of a dataset leaves the rest to runs: the number of rows in `batch` before
/// the first that is behind `until`, if one is.
pub(crate) fn ends_at(batch: &Batch, until: &Offset) -> Option<usize> {
    let Offset::Int(until) = until else {
        return None;
    };
    batch
        .iter()
        .position(|record| matches!(&record.meta.updated, Some(Offset::Int(seq)) if seq > until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (wins, phase, until) in [
            (Wins::Run, Phase::Reading, Some(Offset::Int(-7))),
            (
                Wins::Rescan,
                Phase::CatchingUp,
                Some(Offset::Text("ø\"{".into())),
            ),
            (Wins::Run, Phase::Deleting, None),
        ] {
            let record = Record {
                wins,
                phase,
                until,
                basis: "b".to_owned(),
                newer_from: -1,
            };
            assert_eq!(Record::of_bytes(&record.to_bytes()), Some(record));
        }
        assert_eq!(Record::of_bytes(b"{}"), None);
    }

    #[test]
    fn a_rescan_has_the_last_word_only_about_a_merged_source_that_changed() {
        assert_eq!(wins("merge_datasets", true), Wins::Rescan);
        assert_eq!(wins("merge", true), Wins::Rescan);
        assert_eq!(wins("merge_datasets", false), Wins::Run);
        assert_eq!(wins("dataset", true), Wins::Run);
    }
}
