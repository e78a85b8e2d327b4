//! Reading a subset of a dataset as if it were a dataset of its own.
//!
//! An entity that is changed so that it is no longer in the subset is deleted there: readers that
//! saw it are given it once more, as deleted.

use serde_json::Value as Json;
use tahini_dtl::{Subset, subset};
use tahini_entity::{Batch, Record};
use tahini_store::{Limit, Seq, Snapshot, StoreError, View};

use crate::config::dtl_options;
use crate::lookup::version_of;
use crate::seen::push_deleted;
use crate::{Hub, Pipe};

/// The subset `expression` of `dataset`, if a pipe declares its index: the one that writes the
/// dataset among its `indexes`, or one that reads a subset by it.
pub fn declared(hub: &Hub, dataset: &str, expression: &Json) -> Option<Subset> {
    let (index, _) = subset::sides(expression)?;
    let pipes = hub.pipes();
    let mut pipes = pipes.iter().filter_map(|live| live.pipe.as_ref().ok());
    let pipe = pipes.find(|pipe| declares(pipe, dataset, index))?;
    let options = dtl_options(pipe.effective.as_object()?, &Default::default());
    Subset::compile(dataset, expression, &options).ok()
}

fn declares(pipe: &Pipe, dataset: &str, index: &Json) -> bool {
    let (source, sink) = (&pipe.effective["source"], &pipe.effective["sink"]);
    let written = pipe.sink_dataset() == Some(dataset);
    let indexes = sink["indexes"].as_array().filter(|_| written);
    let read = source["dataset"] == dataset;
    let mut own = subset::sides(&source["subset"])
        .filter(|_| read)
        .into_iter();
    indexes.is_some_and(|indexes| indexes.contains(index)) || own.any(|(own, _)| own == index)
}

/// A subset, for somebody who has read up to and with `since`.
pub struct Part<'a> {
    /// Which entities.
    pub subset: &'a Subset,
    /// What the reader has read of the dataset; nothing yet by default.
    pub since: Option<Seq>,
}

impl Part<'_> {
    /// Reads as `Snapshot::changes` does; a call may append nothing and still not be at the end.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn changes(
        &self,
        snapshot: &dyn Snapshot,
        after: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let mut all = Batch::new();
        let next = snapshot.changes(after, view, limit, &mut all)?;
        for record in all.iter() {
            if self.subset.holds(&record.to_entity()) {
                out.push(record);
            } else if view.deleted && self.left(snapshot, record, view)? {
                push_deleted(out, record);
            }
        }
        Ok(next)
    }

    /// The same, newest first. Whoever reads backwards keeps nothing that would have to be deleted.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn changes_reversed(
        &self,
        snapshot: &dyn Snapshot,
        before: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let mut all = Batch::new();
        let next = snapshot.changes_reversed(before, view, limit, &mut all)?;
        let inside = all
            .iter()
            .filter(|record| self.subset.holds(&record.to_entity()));
        inside.for_each(|record| out.push(record));
        Ok(next)
    }

    /// Whether the version of this entity that the reader saw last was in the subset.
    fn left(
        &self,
        snapshot: &dyn Snapshot,
        record: Record<'_>,
        view: View,
    ) -> Result<bool, StoreError> {
        let Some(id) = record.id else {
            return Ok(false);
        };
        // Without history, one that reads from the start has seen nothing.
        let seen = match view.history {
            true => Some(Seq::MAX),
            false => self.since,
        };
        let mut at = record.meta.previous.filter(|_| seen.is_some());
        while let Some(seq) = at {
            let Some(version) = version_of(snapshot, id, seq)? else {
                // Compaction took it; nobody knows, and deleting what is not there harms nobody.
                return Ok(true);
            };
            if seen.is_some_and(|seen| seq <= seen) {
                return Ok(!version.deleted && self.subset.holds(&version));
            }
            at = version.previous;
        }
        Ok(false)
    }
}
