//! Looking at what passes through a pipe, and renewing its types.
//!
//! What a run saw is added to what was known. A complete full run saw everything, so that what it
//! saw takes the place of what was known, and what it did not see is gone.

use std::sync::Arc;

use jiff::Timestamp;
use tahini_entity::Batch;
use tahini_store::{Dataset, Snapshot, StateWrite};

use super::kept::REMEMBERED;
use super::{Change, Kept, Observer, Side, drift};
use crate::Failure;

/// A look at one run of a pipe, or at all that is posted to it.
pub(crate) struct Watch {
    pipe: String,
    home: Arc<dyn Dataset>,
    source: Observer,
    /// `None` where nothing stands between source and sink, so that both are the same.
    sink: Option<Observer>,
    /// What was known before; read when it is needed first.
    before: Option<Kept>,
    /// What the last `finish` gave; what was known before until then.
    told: Kept,
    /// The news and the entities when the types were saved last.
    saved: (u64, u64),
}

impl Watch {
    /// A watch on `pipe`, whose place is kept in `home`; `changed` says whether something stands
    /// between source and sink.
    pub(crate) fn new(pipe: &str, home: Arc<dyn Dataset>, changed: bool) -> Watch {
        Watch {
            pipe: pipe.to_owned(),
            home,
            source: Observer::default(),
            sink: changed.then(Observer::default),
            before: None,
            told: Kept::default(),
            saved: (0, 0),
        }
    }

    /// Where the types are kept.
    pub(crate) fn home(&self) -> &Arc<dyn Dataset> {
        &self.home
    }

    /// Begins to look at another post: all of what comes first is looked at again.
    pub(crate) fn begin(&mut self) {
        self.source.begin();
        if let Some(sink) = &mut self.sink {
            sink.begin();
        }
    }

    /// Looks at what the source gave.
    pub(crate) fn source(&mut self, batch: &Batch) {
        self.source.observe(batch);
    }

    /// Looks at what became of it.
    pub(crate) fn sink(&mut self, batch: &Batch) {
        if let Some(sink) = &mut self.sink {
            sink.observe(batch);
        }
    }

    fn entities(&self) -> u64 {
        self.source.entities()
    }

    fn news(&self) -> u64 {
        self.source.news() + self.sink.as_ref().map_or(0, Observer::news)
    }

    /// Whether something came that was not there when the types were saved last, or many more
    /// entities.
    pub(crate) fn is_worth_saving(&self) -> bool {
        let (news, entities) = self.saved;
        self.news() > news || self.entities() > 2 * entities
    }

    /// What to save in the middle of a run, so that a crash loses counts at most.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub(crate) fn so_far(&mut self) -> Result<Vec<StateWrite>, Failure> {
        if self.news() == self.saved.0 {
            return Ok(Vec::new());
        }
        self.saved = (self.news(), self.entities());
        let snapshot = self.home.snapshot()?;
        let kept = self.renewed(snapshot.as_ref(), false)?;
        Ok(kept.writes(snapshot.as_ref(), &self.pipe))
    }

    /// What to save at the end of a run, and what it showed that was not so before. `complete`
    /// says that the run saw everything.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub(crate) fn finish(
        &mut self,
        complete: bool,
        at: Timestamp,
    ) -> Result<(Vec<StateWrite>, Vec<Change>), Failure> {
        // A source without entities tells nothing of what they look like.
        if self.entities() == 0 {
            return Ok(Default::default());
        }
        self.saved = (self.news(), self.entities());
        let snapshot = self.home.snapshot()?;
        let mut kept = self.renewed(snapshot.as_ref(), complete)?;
        let mut changes = Vec::new();
        for side in Side::BOTH {
            if let (Some(before), Some(after)) = (self.told.side(side), kept.side(side)) {
                changes.extend(drift::compare(before, after, (side, at)));
            }
        }
        kept.changes.extend(changes.iter().cloned());
        let surplus = kept.changes.len().saturating_sub(REMEMBERED);
        kept.changes.drain(..surplus);
        let writes = kept.writes(snapshot.as_ref(), &self.pipe);
        self.told = kept;
        Ok((writes, changes))
    }

    /// What is known now.
    fn renewed(&mut self, home: &dyn Snapshot, complete: bool) -> Result<Kept, Failure> {
        let before = match self.before.take() {
            Some(before) => before,
            None => {
                let before = Kept::load(home, &self.pipe)?;
                self.told = before.clone();
                before
            }
        };
        let mut kept = Kept {
            changes: self.told.changes.clone(),
            ..before.clone()
        };
        for side in Side::BOTH {
            let seen = match (side, &mut self.sink) {
                (Side::Sink, Some(sink)) => sink.seen(),
                _ => self.source.seen(),
            };
            if seen.entities() == 0 {
                continue;
            }
            match kept.side_mut(side) {
                Some(known) if !complete => known.absorb(seen),
                known => *known = Some(seen.clone()),
            }
        }
        self.before = Some(before);
        Ok(kept)
    }
}
