//! Where a pipe's entities go.

use tahini_entity::Batch;
use tahini_store::StateWrite;

use crate::Failure;
use crate::rescan::Beside;

/// The kind of a run, as the execution log's `sync_type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// Everything is read because no offset is kept or it was reset.
    Full,
    /// Only what came after the offset is read.
    Incremental,
    /// What came after a place before the offset is read, some of it again.
    Partial,
    /// Everything is read again on schedule or request; the offset goes on from there.
    Rescan,
}

impl RunKind {
    /// The name in the execution log.
    pub fn sync_type(self) -> &'static str {
        match self {
            RunKind::Full | RunKind::Rescan => "full",
            RunKind::Incremental => "incremental",
            RunKind::Partial => "partial",
        }
    }

    /// Whether the run sees everything that the source has.
    pub fn reads_everything(self) -> bool {
        matches!(self, RunKind::Full | RunKind::Rescan)
    }
}

/// What a sink is told when a run begins.
#[derive(Clone, Debug)]
pub struct Run {
    /// The pipe's id.
    pub pipe: String,
    /// The kind of the run.
    pub kind: RunKind,
    /// Whether the run goes on where an interrupted one of the same kind stopped.
    pub resumed: bool,
    /// What it shares with a rescan in the background, or a rescan with runs.
    pub beside: Option<Beside>,
}

/// What belongs to one step of a pipe and must be saved with it: offset, seen set, source state.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Keyed records; opaque to the sink.
    pub state: Vec<StateWrite>,
}

/// What a sink did with a batch.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Entities that changed the target (for sinks outside: that were accepted).
    pub changed: u64,
    /// Of those, deletions.
    pub deleted: u64,
    /// Of those, deletions of what came no more.
    pub tracked: u64,
    /// Entities that the target had already.
    pub unchanged: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Written) {
        self.changed += other.changed;
        self.deleted += other.deleted;
        self.tracked += other.tracked;
        self.unchanged += other.unchanged;
    }
}

/// How a run ended, told to the sink before the last progress is saved.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The source came to its end and nothing was cut: the sink may delete what it did not see.
    pub complete: bool,
    /// What the source reads from has finished its own first load.
    pub populated: bool,
    /// The last progress of the run.
    pub progress: Progress,
    /// What goes along in the last commit of a run that changed something, and causes none where
    /// nothing did.
    pub along: Vec<StateWrite>,
}

/// An open sink in the middle of a run.
pub trait Sink: Send {
    /// Called once before anything is written.
    fn begin(&mut self, run: &Run) -> Result<(), Failure>;

    /// Writes a batch in one go, all or nothing where the target allows it. `progress` is there
    /// at a checkpoint: a sink that keeps state commits it in the same atomic step.
    ///
    /// # Errors
    /// The pump retries, then falls back to single entities, as the policy says.
    fn write(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<Written, Failure>;

    /// Ends a run that was read to its end: the final empty push, deletion tracking, the last
    /// progress. `ids_set_aside` count as seen.
    fn finish(&mut self, end: &End) -> Result<Written, Failure>;

    /// Ends a run that failed.
    fn abort(&mut self, why: &Failure);

    /// Counts ids as seen that were not written, because they were set aside or failed:
    /// an error must never delete.
    fn seen(&mut self, ids: &[&str]) -> Result<(), Failure> {
        let _ = ids;
        Ok(())
    }

    /// Whether `write` commits the progress itself; otherwise the pump saves it after `write`.
    fn keeps_progress(&self) -> bool {
        false
    }

    /// Whether the place may be saved in the middle of a run of this kind. A sequence that a
    /// receiver must see from its start (a full push) may not.
    fn takes_checkpoints(&self, kind: RunKind) -> bool {
        let _ = kind;
        true
    }

    /// Whether nobody sees what this run writes before `finish`, and after `abort` nobody ever does.
    fn shows_at_end(&self) -> bool {
        false
    }

    /// Whether filtered entities (`_filtered`) mean something here; otherwise they are dropped.
    fn takes_filtered(&self) -> bool {
        false
    }

    /// Whether batches of more than one entity help; otherwise the pump writes single entities.
    fn takes_batches(&self) -> bool {
        true
    }
}
