//! Where a pipe's entities come from.

use tahini_entity::{Batch, Offset};
use tahini_store::{Seq, Snapshot, StateWrite};

use crate::Failure;

/// How a source's place can be kept (documentation: continuation support).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// Nothing is saved; every run reads everything.
    None,
    /// The highest `_updated` of a successful run becomes the offset.
    Max,
    /// Entities come in order; the last one's `_updated` is the offset at any moment.
    Chronological,
}

impl Continuation {
    /// The strategy that the three documented properties choose.
    pub fn of(supports_since: bool, is_since_comparable: bool, is_chronological: bool) -> Self {
        match (supports_since, is_chronological, is_since_comparable) {
            (true, true, _) => Continuation::Chronological,
            (true, false, true) => Continuation::Max,
            _ => Continuation::None,
        }
    }

    /// The name in a pipe's `runtime.continuation`.
    pub fn name(self) -> &'static str {
        match self {
            Continuation::None => "none",
            Continuation::Max => "max",
            Continuation::Chronological => "chronological",
        }
    }
}

/// What a run asks of its source.
#[derive(Clone, Debug, Default)]
pub struct From {
    /// Entities after this place; `None` reads from the start.
    pub since: Option<Offset>,
    /// The run wants everything, for deletion tracking.
    pub full: bool,
    /// State that the source committed in earlier steps of this pipe, by key.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From {
    /// Entities after a place, or all of them without one; nothing was committed before.
    pub fn since(since: Option<Offset>) -> From {
        From {
            full: since.is_none(),
            since,
            state: Vec::new(),
        }
    }
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more.
    More,
    /// The source came to its natural end: what was read is everything.
    End,
}

/// An open source in the middle of a run. A retry of a failed read opens it anew.
pub trait Source: Send {
    /// Appends at most `limit` entities to `out`. A slow source may return fewer, or none with
    /// `More`. Entities may lack an `_id` until the sink.
    ///
    /// # Errors
    /// Transient when reading again may help; then nothing of this step counts.
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure>;

    /// State to commit with what was read so far.
    fn state(&mut self) -> Vec<StateWrite> {
        Vec::new()
    }

    /// Whether the offset that the run started from still means something; a dataset that was
    /// deleted and created again answers no, and the run becomes a full one.
    fn continues(&self) -> bool {
        true
    }

    /// Whether no two entities ever have the same `_updated` (datasets).
    fn distinct(&self) -> bool {
        false
    }

    /// Whether what was given since the last place counts only together with the next one: then
    /// every batch ends at a place, and both go into one commit where the sink is a dataset.
    fn whole(&self) -> bool {
        false
    }

    /// Whether what the source reads from is populated: its first load has finished.
    fn populated(&self) -> bool {
        true
    }

    /// What the source itself says of its place at the end of a run, where `_updated` of the
    /// entities does not tell (for example a dataset source that skipped deleted versions).
    fn offset(&self) -> Option<Offset> {
        None
    }

    /// Why entities that are there were not given, if the source holds some back: the run did not
    /// see everything then.
    fn held_back(&self) -> Option<String> {
        None
    }

    /// What the log is to tell of what was given, though it is no failure.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The view in which a dataset is read, where its entities can be asked for once more, and the
    /// first sequence in it that is not given yet.
    fn view(&self, _dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        None
    }

    /// Appends once more what became of these versions of a dataset, in order; nothing of deleted
    /// ones, and of those that the source leaves out.
    ///
    /// # Errors
    /// As `next_batch`.
    fn again(&mut self, _dataset: &str, _seqs: &[Seq], _out: &mut Batch) -> Result<(), Failure> {
        Ok(())
    }

    /// What the peer says of its own completeness, microseconds since 1970 UTC.
    fn completeness(&self) -> Option<i64> {
        None
    }

    /// How many entities are known to be left, for progress.
    fn remaining(&self) -> Option<u64> {
        None
    }
}
