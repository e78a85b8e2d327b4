//! A consistent view of a dataset on disk.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use roaring::RoaringTreemap;
use tahini_entity::Batch;

use super::block::Stored;
use super::dataset::OpenDataset;
use super::durable::View as Published;
use super::fetch::{Fetch, Room, look_up};
use super::segment::Segment;
use super::state::{Part, without_space};
use crate::keys::{index_key, is_cut, key_order, state_key};
use crate::rule::rolled_back;
use crate::{Ask, Head, Hit, Limit, Seq, Snapshot, StateRows, StoreError, View};

/// A view of what was durable when it was taken. The index may be newer: a version that it names
/// and this view does not know leads back, by `_previous`, to the one that was the latest then.
pub(crate) struct FileSnapshot {
    dataset: Arc<OpenDataset>,
    view: Arc<Published>,
    /// The segments with the versions of this view. Those that compaction replaced meanwhile stay
    /// on disk for as long.
    segments: Arc<Vec<Arc<Segment>>>,
    /// In a view with what is held back: how often that had been taken back before.
    cuts: Option<u64>,
    /// What the last reading of single versions read into.
    room: Cell<Option<Room>>,
}

impl Drop for FileSnapshot {
    fn drop(&mut self) {
        self.dataset.durable.leave(self.view.commit);
    }
}

fn reading(dataset: &OpenDataset) -> RwLockReadGuard<'_, ()> {
    let cutting = dataset.cutting.read();
    cutting.unwrap_or_else(PoisonError::into_inner)
}

/// Counts what a reader has taken.
struct Taken {
    limit: Limit,
    rows: usize,
    bytes: usize,
}

impl Taken {
    fn new(limit: Limit, out: &Batch) -> Taken {
        Taken {
            limit,
            rows: out.len(),
            bytes: out.bytes(),
        }
    }

    fn enough(&self, out: &Batch) -> bool {
        out.len() - self.rows >= self.limit.rows.max(1)
            || out.bytes() - self.bytes >= self.limit.bytes.max(1)
    }
}

impl FileSnapshot {
    /// Takes a view that includes every commit that returned before.
    ///
    /// # Errors
    /// When those could not be made durable.
    pub fn take(dataset: &Arc<OpenDataset>, uncommitted: bool) -> Result<FileSnapshot, StoreError> {
        dataset.check_present()?;
        dataset.durable.reach_all()?;
        Ok(FileSnapshot::standing(dataset, uncommitted))
    }

    /// Takes a view of what is durable already: nothing is synced for its sake.
    ///
    /// # Errors
    /// When the dataset was removed.
    pub fn durable(dataset: &Arc<OpenDataset>) -> Result<FileSnapshot, StoreError> {
        dataset.check_present()?;
        Ok(FileSnapshot::standing(dataset, false))
    }

    fn standing(dataset: &Arc<OpenDataset>, uncommitted: bool) -> FileSnapshot {
        let _whole = reading(dataset);
        // The segments after the view: from now on no compaction takes what the view needs.
        let view = dataset.durable.enter(uncommitted);
        FileSnapshot {
            dataset: Arc::clone(dataset),
            cuts: (uncommitted && view.head.holds).then(|| dataset.cuts.load(Ordering::Acquire)),
            view,
            segments: dataset.all_segments(),
            room: Cell::default(),
        }
    }

    /// Keeps what is held back from being taken out of the log during one call.
    fn reading(&self) -> Result<RwLockReadGuard<'_, ()>, StoreError> {
        let reading = reading(&self.dataset);
        match self.cuts {
            Some(cuts) if cuts != self.dataset.cuts.load(Ordering::Acquire) => {
                Err(rolled_back(&self.dataset.name))
            }
            _ => Ok(reading),
        }
    }

    /// The first sequence that this view does not know.
    pub fn next(&self) -> Seq {
        self.view.head.next
    }

    /// Whether a newer version of its id was there.
    pub fn is_superseded(&self, seq: Seq) -> bool {
        self.view.superseded.contains(seq)
    }

    fn wanted(&self, row: &Stored<'_>, view: View) -> bool {
        (view.deleted || !row.deleted) && (view.history || !self.view.superseded.contains(row.seq))
    }

    /// The version of each id that was the latest in this view.
    fn seqs(&self, ids: &[&str]) -> Result<Vec<Option<Seq>>, StoreError> {
        let keys: Vec<Cow<'_, [u8]>> = ids.iter().map(|id| index_key(id.as_bytes())).collect();
        let priors = look_up(
            &self.dataset,
            &keys,
            &key_order(keys.len(), |at| keys[at].as_ref()),
            &self.view.superseded,
        )?;
        let mut newer = None;
        let mut seqs = Vec::with_capacity(ids.len());
        for prior in priors {
            seqs.push(match prior {
                Some(prior) => self.as_of(prior.seq, &mut newer)?,
                None => None,
            });
        }
        Ok(seqs)
    }

    /// Reads what this view knows.
    fn fetch(&self) -> Fetch<'_> {
        Fetch::over(&self.dataset, Arc::clone(&self.segments))
    }

    /// The same, where the last one read. Where this one does, too, it is to be left there.
    fn fetch_some(&self) -> Fetch<'_> {
        self.fetch().within(self.room.take().unwrap_or_default())
    }

    /// The newest version that this view knows in the chain that begins at `seq`. `newer` reads
    /// versions that it does not know.
    fn as_of<'s>(
        &'s self,
        mut seq: Seq,
        newer: &mut Option<Fetch<'s>>,
    ) -> Result<Option<Seq>, StoreError> {
        while seq >= self.next() {
            let fetch = newer.get_or_insert_with(|| Fetch::new(&self.dataset));
            // A version that is gone by now belonged to an id that was removed as a whole.
            match fetch.find(seq, |row, _| row.previous)?.flatten() {
                Some((previous, _)) => seq = previous,
                None => return Ok(None),
            }
        }
        Ok(Some(seq))
    }

    /// Appends version `seq` if it is a version of `id`; a cut key may have led to another one.
    fn push_of(
        &self,
        fetch: &mut Fetch<'_>,
        seq: Seq,
        id: &str,
        out: &mut Batch,
    ) -> Result<bool, StoreError> {
        let pushed = fetch.with(seq, |row, shapes| {
            if row.id == id {
                row.push_to(shapes, out).map(|()| true)
            } else {
                Ok(false)
            }
        })?;
        let pushed = pushed.map_err(|found| fetch.malformed(&found))?;
        if pushed || is_cut(&index_key(id.as_bytes())) {
            return Ok(pushed);
        }
        let found = format!("expected version {seq} to be one of {id:?}");
        Err(self.dataset.index.doubt(&found))
    }

    /// Appends the versions from `from` on that `wanted` wants, in order; where to go on after,
    /// `None` at the end. Blocks all of whose versions `passed` knows are not read.
    fn walk(
        &self,
        from: Seq,
        limit: Limit,
        out: &mut Batch,
        mut passed: impl FnMut(Range<Seq>) -> bool,
        wanted: impl Fn(&Stored<'_>) -> bool,
    ) -> Result<Option<Seq>, StoreError> {
        let taken = Taken::new(limit, out);
        let mut fetch = self.fetch();
        let mut last = None;
        if from >= self.next() {
            return Ok(None);
        }
        let Some((first, mut number)) = fetch.place(from) else {
            return Ok(None);
        };
        for segment in first..fetch.segments.len() {
            while let Some(span) = fetch.segments[segment].span(number) {
                let span = span.start.max(from)..span.end.min(self.next());
                if span.is_empty() {
                    return Ok(None);
                }
                if passed(span.clone()) {
                    last = Some(span.end - 1);
                    number += 1;
                    continue;
                }
                // The next block may be large.
                if taken.enough(out) {
                    return Ok(last);
                }
                if !fetch.load(segment, number)? {
                    break;
                }
                let mut rows = fetch.block().rows();
                while let Some(row) = rows.next().map_err(|found| fetch.malformed(&found))? {
                    if row.seq < from {
                        continue;
                    }
                    if row.seq >= self.next() {
                        return Ok(None);
                    }
                    if taken.enough(out) {
                        return Ok(last);
                    }
                    if wanted(&row) {
                        let pushed = row.push_to(fetch.shapes(), out);
                        pushed.map_err(|found| fetch.malformed(&found))?;
                    }
                    last = Some(row.seq);
                }
                number += 1;
            }
            number = 0;
        }
        Ok(None)
    }
}

impl Snapshot for FileSnapshot {
    fn head(&self) -> &Head {
        &self.view.head
    }

    fn latest(&self, ids: &[&str], out: &mut Batch) -> Result<Vec<bool>, StoreError> {
        let _reading = self.reading()?;
        let seqs = self.seqs(ids)?;
        let mut fetch = self.fetch_some();
        let mut found = vec![false; ids.len()];
        let mut by_seq: Vec<usize> = (0..ids.len()).filter(|at| seqs[*at].is_some()).collect();
        let in_order = by_seq.is_sorted_by_key(|at| seqs[*at]);
        if in_order {
            for at in by_seq {
                let seq = seqs[at].unwrap_or_default();
                found[at] = self.push_of(&mut fetch, seq, ids[at], out)?;
            }
            self.room.set(fetch.leave());
            return Ok(found);
        }
        // Each block is read once, in the order of the log; the rows go out in the order of ids.
        by_seq.sort_by_key(|at| seqs[*at]);
        let mut rows = Batch::new();
        let mut places = vec![0; ids.len()];
        for at in by_seq {
            let seq = seqs[at].unwrap_or_default();
            places[at] = rows.len();
            found[at] = self.push_of(&mut fetch, seq, ids[at], &mut rows)?;
        }
        self.room.set(fetch.leave());
        for at in (0..ids.len()).filter(|at| found[*at]) {
            out.push(rows.get(places[at]));
        }
        Ok(found)
    }

    fn changes(
        &self,
        after: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let _reading = self.reading()?;
        let from = after.map_or(0, |after| after.saturating_add(1));
        let wanted = |row: &Stored<'_>| self.wanted(row, view);
        self.walk(from, limit, out, |_| false, wanted)
    }

    fn changes_reversed(
        &self,
        before: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let _reading = self.reading()?;
        let until = before.unwrap_or(Seq::MAX).min(self.next());
        let taken = Taken::new(limit, out);
        let mut fetch = self.fetch();
        let mut last = None;
        let Some(newest) = until.checked_sub(1) else {
            return Ok(None);
        };
        let Some((from, number)) = fetch.place(newest) else {
            return Ok(None);
        };
        for segment in (0..=from).rev() {
            let blocks = if segment == from {
                number + 1
            } else {
                fetch.segments[segment].blocks()
            };
            for number in (0..blocks).rev() {
                if taken.enough(out) {
                    return Ok(last);
                }
                if !fetch.load(segment, number)? {
                    continue;
                }
                let mut walk = fetch.block().rows();
                let mut rows = Vec::new();
                while let Some(row) = walk.next().map_err(|found| fetch.malformed(&found))? {
                    rows.push(row);
                }
                for row in rows.iter().rev().filter(|row| row.seq < until) {
                    if taken.enough(out) {
                        return Ok(last);
                    }
                    if self.wanted(row, view) {
                        let pushed = row.push_to(fetch.shapes(), out);
                        pushed.map_err(|found| fetch.malformed(&found))?;
                    }
                    last = Some(row.seq);
                }
            }
        }
        Ok(None)
    }

    fn versions(&self, id: &str, out: &mut Batch) -> Result<(), StoreError> {
        let _reading = self.reading()?;
        let (seqs, mut fetch) = (self.seqs(&[id])?, self.fetch());
        let mut chain = Vec::new();
        let mut at = seqs[0];
        while let Some(seq) = at {
            // Older ones that are missing were compacted away.
            let Some(previous) = fetch.find(seq, |row, _| row.previous)? else {
                break;
            };
            chain.push(seq);
            at = previous.map(|(previous, _)| previous);
        }
        for seq in chain.into_iter().rev() {
            self.push_of(&mut fetch, seq, id, out)?;
        }
        Ok(())
    }

    fn unseen(
        &self,
        seen: &RoaringTreemap,
        after: Option<Seq>,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let _reading = self.reading()?;
        let from = after.map_or(0, |after| after.saturating_add(1));
        let superseded = &self.view.superseded;
        // After a run that saw everything this passes over every block without a look at it.
        let passed = |span: Range<Seq>| {
            span.end - span.start == seen.range_cardinality(span.clone())
                || span
                    .into_iter()
                    .all(|seq| superseded.contains(seq) || seen.contains(seq))
        };
        let latest = View {
            history: false,
            deleted: false,
        };
        let wanted = |row: &Stored<'_>| self.wanted(row, latest) && !seen.contains(row.seq);
        self.walk(from, limit, out, passed, wanted)
    }

    fn at(&self, seqs: &[Seq], out: &mut Batch) -> Result<Vec<bool>, StoreError> {
        let mut fetch = self.fetch_some();
        let mut found = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let pushed = match *seq < self.next() {
                true => fetch.find(*seq, |row, shapes| row.push_to(shapes, out))?,
                false => None,
            };
            found.push(pushed.is_some());
            pushed
                .transpose()
                .map_err(|found| fetch.malformed(&found))?;
        }
        self.room.set(fetch.leave());
        Ok(found)
    }

    fn find(
        &self,
        fingerprint: &str,
        keys: &[u128],
        ask: &Ask,
        out: &mut Vec<Hit>,
    ) -> Result<bool, StoreError> {
        let keyed = &self.dataset.keyed;
        keyed.find(self, fingerprint, keys, ask, out)
    }

    fn state(&self, space: &str, prefix: &[u8]) -> Result<StateRows, StoreError> {
        Ok(self.state_page(space, prefix, None, usize::MAX)?.0)
    }

    fn state_page(
        &self,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<(StateRows, Option<Vec<u8>>), StoreError> {
        let _reading = self.reading()?;
        let behind = after.map(|after| state_key(space, after));
        let part = Part {
            start: &state_key(space, prefix),
            behind: behind.as_deref(),
            most: most.max(1),
        };
        let (rows, last) = part.read(&self.dataset, self.view.commit)?;
        let last = last.map(|group| group[space.len() + 1..].to_vec());
        Ok((without_space(rows, space), last))
    }
}
