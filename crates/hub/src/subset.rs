//! Reading a subset of a dataset as if it were a dataset of its own.
//!
//! An entity that is changed so that it is no longer in the subset is deleted there: readers that
//! saw it are given it once more, as deleted. Where the store has the subset's index, only what is
//! or was in the subset is looked at; else every version since the reader's offset. Both ways give
//! the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;
use tahini_dtl::{Index, Subset, subset};
use tahini_entity::{Batch, Record};
use tahini_store::{Ask, Hit, Limit, Seq, Snapshot, StoreError, View};

use crate::Hub;
use crate::config::dtl_options;
use crate::indexes;
use crate::lookup::version_of;
use crate::places::seq_of;
use crate::seen::push_deleted;

/// The subset `expression` of `dataset`, if a pipe wants its index: the one that writes the dataset
/// among its `indexes`, or one that reads a subset by it or joins by it.
pub fn declared(hub: &Hub, dataset: &str, expression: &Json) -> Option<Subset> {
    let pipes = hub.pipes();
    let mut subsets = pipes.iter().filter_map(|live| {
        let pipe = live.pipe.as_ref().ok()?;
        let of_it = |index: &&Arc<Index>| index.dataset() == dataset;
        let mut own = live.indexes.iter().filter(of_it).peekable();
        own.peek()?;
        let options = dtl_options(pipe.effective.as_object()?, &Default::default());
        let subset = Subset::compile(dataset, expression, &options).ok()?;
        own.any(|index| index.fingerprint() == subset.index().fingerprint())
            .then_some(subset)
    });
    subset::sides(expression)?;
    subsets.next()
}

/// How many versions are read at a time.
const AT_ONCE: usize = 256;
/// Versions that left a subset which are remembered while it is read.
const MOST_LEFT: usize = 100_000;

/// A subset, for somebody who has read up to and with a sequence.
#[derive(Debug)]
pub struct Part {
    subset: Subset,
    fingerprint: String,
    since: Option<Seq>,
    way: Option<Way>,
}

/// How the subset's versions are found.
#[derive(Debug)]
enum Way {
    /// By looking at all.
    Scan,
    /// By the index. What left the subset and changed again stands here, where it is now.
    Index(BTreeSet<Seq>),
}

impl Part {
    /// The subset for a reader that has read up to and with `since`; nothing by default.
    pub fn new(subset: Subset, since: Option<Seq>) -> Part {
        let fingerprint = indexes::fingerprint(subset.index(), None);
        Part {
            subset,
            fingerprint,
            since,
            way: None,
        }
    }

    /// Reads as `Snapshot::changes` does; a call may append nothing and still not be at the end.
    /// All calls are about the same snapshot and view.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn changes(
        &mut self,
        snapshot: &dyn Snapshot,
        after: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        if self.way.is_none() {
            self.way = Some(self.find_way(snapshot, view)?);
        }
        if let Some(Way::Index(later)) = &self.way {
            let ask = Ask {
                history: view.history,
                left: self.tells_of_leaving(view),
                from: after,
                reversed: false,
                limit: limit.rows.max(1),
            };
            let mut hits = Vec::new();
            if snapshot.find(&self.fingerprint, &[self.subset.key()], &ask, &mut hits)? {
                let until = hits.last().map(|last| last.seq);
                let until = until.filter(|_| hits.len() >= ask.limit);
                let first = after.map_or(0, |after| after.saturating_add(1));
                let mut places: BTreeSet<Seq> = hits.iter().map(|hit| hit.seq).collect();
                // What changed again is told of only where it is now.
                places.extend(later.range(first..=until.unwrap_or(Seq::MAX)));
                return self.take(snapshot, &places, until, view, limit, out);
            }
            self.way = Some(Way::Scan);
        }
        let mut all = Batch::new();
        let next = snapshot.changes(after, view, limit, &mut all)?;
        for record in all.iter() {
            self.put(snapshot, record, view, out)?;
        }
        Ok(next)
    }

    /// Whether a version is in the subset.
    pub(crate) fn holds(&self, record: Record<'_>) -> bool {
        self.subset.holds(&record.to_entity())
    }

    /// The same, newest first. Whoever reads backwards keeps nothing that would have to be deleted.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn changes_reversed(
        &mut self,
        snapshot: &dyn Snapshot,
        before: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let ask = Ask {
            history: view.history,
            left: false,
            from: before,
            reversed: true,
            limit: limit.rows.max(1),
        };
        let (mut hits, mut all) = (Vec::new(), Batch::new());
        let next = match snapshot.find(&self.fingerprint, &[self.subset.key()], &ask, &mut hits)? {
            true => {
                let seqs: Vec<Seq> = hits.iter().map(|hit| hit.seq).collect();
                snapshot.at(&seqs, &mut all)?;
                seqs.last().copied().filter(|_| seqs.len() >= ask.limit)
            }
            false => snapshot.changes_reversed(before, view, limit, &mut all)?,
        };
        let inside = all.iter().filter(|record| {
            (view.deleted || !record.meta.deleted) && self.subset.holds(&record.to_entity())
        });
        inside.for_each(|record| out.push(record));
        Ok(next)
    }

    /// Without history, one that reads from the start has seen nothing that could leave.
    fn tells_of_leaving(&self, view: View) -> bool {
        view.deleted && (view.history || self.since.is_some())
    }

    fn find_way(&self, snapshot: &dyn Snapshot, view: View) -> Result<Way, StoreError> {
        let mut later = BTreeSet::new();
        let all = Ask {
            history: true,
            left: true,
            from: self.since,
            reversed: false,
            limit: MOST_LEFT,
        };
        let ask = match self.tells_of_leaving(view) && !view.history {
            true => all,
            false => Ask {
                left: self.tells_of_leaving(view),
                limit: 1,
                ..all
            },
        };
        let mut hits = Vec::new();
        if !snapshot.find(&self.fingerprint, &[self.subset.key()], &ask, &mut hits)? {
            return Ok(Way::Scan);
        }
        if ask.limit == 1 {
            return Ok(Way::Index(later));
        }
        // So many are not remembered: the versions since are looked at one after the other.
        if hits.len() >= MOST_LEFT {
            return Ok(Way::Scan);
        }
        let gone = hits.into_iter().filter(|hit| hit.left && hit.superseded);
        let gone: Vec<Hit> = gone.collect();
        for some in gone.chunks(AT_ONCE) {
            let seqs: Vec<Seq> = some.iter().map(|hit| hit.seq).collect();
            let mut versions = Batch::new();
            snapshot.at(&seqs, &mut versions)?;
            let ids: Vec<&str> = versions.iter().filter_map(|record| record.id).collect();
            let mut latest = Batch::new();
            snapshot.latest(&ids, &mut latest)?;
            later.extend(latest.iter().filter_map(|record| seq_of(&record)));
        }
        Ok(Way::Index(later))
    }

    /// Takes the versions at `places`, up to the limit; where to go on is `until` or before it.
    fn take(
        &self,
        snapshot: &dyn Snapshot,
        places: &BTreeSet<Seq>,
        until: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let (rows, bytes) = (out.len(), out.bytes());
        let places: Vec<Seq> = places.iter().copied().collect();
        let mut last = None;
        for some in places.chunks(AT_ONCE) {
            let mut versions = Batch::new();
            snapshot.at(some, &mut versions)?;
            for record in versions.iter() {
                let enough = out.len() - rows >= limit.rows.max(1)
                    || out.bytes() - bytes >= limit.bytes.max(1);
                if enough && last.is_some() {
                    return Ok(last);
                }
                if view.deleted || !record.meta.deleted {
                    self.put(snapshot, record, view, out)?;
                }
                last = seq_of(&record);
            }
        }
        Ok(until)
    }

    /// Appends a version that is in the subset, or a deletion where its entity has left it.
    fn put(
        &self,
        snapshot: &dyn Snapshot,
        record: Record<'_>,
        view: View,
        out: &mut Batch,
    ) -> Result<(), StoreError> {
        if self.subset.holds(&record.to_entity()) {
            out.push(record);
        } else if view.deleted && self.left(snapshot, record, view)? {
            push_deleted(out, record);
        }
        Ok(())
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
