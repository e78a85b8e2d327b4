//! Reading on: the one way in which versions come into an index, from the first one to the newest.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Offset, Record};

use super::rows::{GONE, NOTES, Notes, Row, Saved};
use super::{Keyed, Known, SOON, State, Work};
use crate::files::dataset::OpenDataset;
use crate::files::flush::pieces;
use crate::files::snapshot::FileSnapshot;
use crate::files::tables::bad_row;
use crate::indexes::{Before, marks};
use crate::rule;
use crate::{IndexDef, Limit, Seq, Snapshot, StoreError, View};

/// Versions that are taken in at a time.
const STEP: Limit = Limit {
    rows: 8_192,
    bytes: 8 << 20,
};
const EVERY: View = View {
    history: true,
    deleted: true,
};
/// While an index is built, so many times as many rows are gathered: the more of them are sorted at
/// a time, the less of the tree is written again and again.
const BUILDING: usize = 8;
/// Rows that are removed in one transaction.
const REMOVED_AT_ONCE: usize = 50_000;
/// Rows that are looked at in one transaction.
const LOOKED_AT_AT_ONCE: usize = 1_000_000;
/// Rows of versions that are gone are removed when they may be this part of all.
const WORTH_REMOVING: u64 = 4;

impl Keyed {
    /// Takes in what this view knows, if that is soon done or was done before.
    pub(super) fn reach(
        &self,
        snapshot: &FileSnapshot,
        fingerprint: &str,
    ) -> Result<bool, StoreError> {
        loop {
            let mut work = self.work();
            self.adopt(&mut work, snapshot)?;
            let Some(saved) = self.read().of(fingerprint).map(|known| known.saved) else {
                return Ok(false);
            };
            if saved.next >= snapshot.next() {
                return Ok(true);
            }
            if !saved.ready && snapshot.next() - saved.next > SOON {
                return Ok(false);
            }
            // Not for one that is being built: that takes long.
            self.step(&mut work, snapshot, Some(fingerprint))?;
        }
    }

    /// Does the next part of what is to be done; `false` when nothing is. Of a `quiet` dataset what
    /// is in memory only is written, too, where that is worth it.
    ///
    /// # Errors
    /// When the dataset or the disk refuses; the next call tries again.
    pub fn advance(&self, dataset: &Arc<OpenDataset>, quiet: bool) -> Result<bool, StoreError> {
        // Posts that share a sync later are not synced for the sake of an index.
        let snapshot = FileSnapshot::durable(dataset)?;
        let mut work = self.work();
        self.adopt(&mut work, &snapshot)?;
        match self.do_one(&mut work, &snapshot, quiet) {
            Err(StoreError::Index { .. }) if !self.index.is_retired() => {
                self.begin_anew(&mut work)?;
                Ok(true)
            }
            done => done,
        }
    }

    fn do_one(
        &self,
        work: &mut Work,
        snapshot: &FileSnapshot,
        quiet: bool,
    ) -> Result<bool, StoreError> {
        if let Some(number) = work.dropped.first().copied() {
            let of_it = |row: &[u8]| Row::number(row) == Some(number);
            if self.remove_rows(of_it, number, &None)?.is_none() {
                work.dropped.remove(0);
                work.unnoted = true;
            }
            return Ok(true);
        }
        if self.step(work, snapshot, None)? {
            return Ok(true);
        }
        if quiet && (self.is_worth_writing() || work.unnoted) {
            self.flush(work, snapshot)?;
            // Building leaves half-empty pages; one that has hardly grown since is left alone.
            self.index.condense(false)?;
            self.index.note_sum();
        }
        Ok(false)
    }

    /// Writes what is worth it and notes the file's sum; called when the dataset is closed.
    pub fn close(&self, dataset: &Arc<OpenDataset>) -> Result<(), StoreError> {
        let mut work = self.work();
        if work.loaded && (self.is_worth_writing() || work.unnoted) {
            self.flush(&mut work, &FileSnapshot::take(dataset, false)?)?;
        }
        self.index.close_summed();
        Ok(())
    }

    /// Takes up what was declared since.
    pub(super) fn adopt(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<(), StoreError> {
        let Some(defs) = self.wanted().take() else {
            return Ok(());
        };
        let adopted = self.adopt_these(work, snapshot, &defs);
        if adopted.is_err() {
            self.wanted().get_or_insert(defs);
        }
        adopted
    }

    fn adopt_these(
        &self,
        work: &mut Work,
        snapshot: &FileSnapshot,
        defs: &[IndexDef],
    ) -> Result<(), StoreError> {
        if !work.loaded {
            // What cannot be used is as good as nothing: it is built anew.
            let notes = self.load(work, snapshot).ok().flatten();
            match notes {
                Some(notes) => self.take_notes(work, notes),
                None => self.discard(work)?,
            }
            work.loaded = true;
        }
        let mut state = self.write();
        let mut old = std::mem::take(&mut state.known);
        for def in defs {
            let same = |known: &Known| known.def.fingerprint == def.fingerprint;
            if state.known.iter().any(same) {
                continue;
            }
            let known = match old.iter().position(same) {
                Some(at) => Known {
                    def: def.clone(),
                    ..old.swap_remove(at)
                },
                None => work.anew(def.clone()),
            };
            state.known.push(known);
        }
        for unwanted in old {
            state.forget(unwanted.saved.number);
            work.dropped.push(unwanted.saved.number);
            work.unnoted = true;
        }
        if state.known.is_empty() {
            drop(state);
            self.discard(work)?;
        }
        Ok(())
    }

    /// What is on disk, if it is of this log.
    fn load(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<Option<Notes>, StoreError> {
        self.index.clear();
        self.index.check()?;
        let found = self.index.read(|tables, txn| {
            let notes = tables.get_closed(txn, tables.meta, NOTES)?;
            let notes = notes.and_then(Notes::decode);
            let gone = tables.get_closed(txn, tables.meta, GONE)?;
            let gone = gone.map(RoaringTreemap::deserialize_from);
            Ok((notes, gone.transpose().map_err(bad_row)?))
        })?;
        let Some((Some(notes), gone)) = found else {
            return Ok(None);
        };
        let head = snapshot.head();
        let newest: Vec<(Seq, u64)> = notes
            .saved
            .iter()
            .filter_map(|(_, saved)| saved.newest)
            .collect();
        let fits = notes.generation == head.generation
            && notes.saved.iter().all(|(_, saved)| saved.next <= head.next);
        if !fits {
            return Ok(None);
        }
        for (seq, known) in newest {
            let mut version = Batch::new();
            snapshot.at(&[seq], &mut version)?;
            if version.iter().any(|version| mark(&version) != known) {
                return Ok(None);
            }
        }
        work.gone = gone.unwrap_or_default();
        Ok(Some(notes))
    }

    fn take_notes(&self, work: &mut Work, notes: Notes) {
        work.fresh = notes.fresh;
        work.dropped = notes.dropped;
        let known = notes.saved.into_iter().map(|(fingerprint, saved)| Known {
            // Nobody asks for one that is not declared again.
            def: IndexDef {
                fingerprint,
                keys: Arc::new(|_, _| {}),
            },
            saved,
            base: saved.next,
            noted: saved,
        });
        self.write().known = known.collect();
    }

    fn discard(&self, work: &mut Work) -> Result<(), StoreError> {
        work.dropped.clear();
        work.gone.clear();
        work.unnoted = false;
        self.index.discard()
    }

    /// Throws away what is on disk, which cannot be read, and begins with the first version.
    pub(super) fn begin_anew(&self, work: &mut Work) -> Result<(), StoreError> {
        let mut state = self.write();
        state.fresh.clear();
        for known in &mut state.known {
            *known = work.anew(known.def.clone());
        }
        drop(state);
        self.discard(work)
    }

    /// Builds one index anew; `false` where there is none of this number.
    pub fn rebuild(&self, snapshot: &FileSnapshot, number: u32) -> Result<bool, StoreError> {
        let mut work = self.work();
        self.adopt(&mut work, snapshot)?;
        let mut state = self.write();
        let Some(at) = state
            .known
            .iter()
            .position(|known| known.saved.number == number)
        else {
            return Ok(false);
        };
        state.forget(number);
        state.known[at] = work.anew(state.known[at].def.clone());
        work.dropped.push(number);
        work.unnoted = true;
        Ok(true)
    }

    /// Takes in the next versions for the indexes that are furthest behind, or for `only` one and
    /// those that are as far; `false` when all of them know what the view knows.
    fn step(
        &self,
        work: &mut Work,
        snapshot: &FileSnapshot,
        only: Option<&str>,
    ) -> Result<bool, StoreError> {
        let head = snapshot.head().next;
        let known = self.read().known.clone();
        let wanted = |known: &&Known| only.is_none_or(|only| known.def.fingerprint == only);
        let from = known.iter().filter(wanted);
        let from = from.map(|known| known.saved.next).min();
        let Some(from) = from.filter(|from| *from < head) else {
            self.mark_ready(head);
            return Ok(false);
        };
        let others = known.iter().map(|known| known.saved.next);
        let until = others
            .filter(|next| *next > from)
            .min()
            .map_or(head, |next| next.min(head));
        let mut versions = Batch::new();
        let reached = snapshot.changes(from.checked_sub(1), EVERY, STEP, &mut versions)?;
        let next = reached.map_or(until, |last| until.min(last + 1));
        let within = (0..versions.len()).take_while(|at| seq_of(&versions.get(*at)) < next);
        versions.truncate(within.count());
        let before = Earlier::of(&versions, snapshot)?;
        let mut rows = Vec::new();
        for one in known.iter().filter(|known| known.saved.next == from) {
            before.rows(&versions, one, &mut rows);
        }
        let newest = versions
            .iter()
            .last()
            .map(|record| (seq_of(&record), mark(&record)));
        self.take_in(rows, from, next, newest);
        let building = self.mark_ready(head);
        let full = self.limits.keys * if building { BUILDING } else { 1 };
        if self.read().fresh.len() >= full {
            self.flush(work, snapshot)?;
        }
        Ok(true)
    }

    fn take_in(&self, rows: Vec<(Row, bool)>, from: Seq, next: Seq, newest: Option<(Seq, u64)>) {
        let mut state = self.write();
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for (row, _) in &rows {
            *counts.entry(row.number).or_default() += 1;
        }
        state.fresh.extend(rows);
        for known in state
            .known
            .iter_mut()
            .filter(|known| known.saved.next == from)
        {
            known.saved.next = next;
            known.saved.entries += counts.get(&known.saved.number).copied().unwrap_or(0);
            known.saved.newest = newest.or(known.saved.newest);
        }
    }

    /// Whether an index is still being built.
    fn mark_ready(&self, head: Seq) -> bool {
        if self.read().known.iter().all(|known| known.saved.ready) {
            return false;
        }
        let mut state = self.write();
        for known in &mut state.known {
            known.saved.ready |= known.saved.next >= head;
        }
        state.known.iter().any(|known| !known.saved.ready)
    }

    /// Writes what is in memory only. One that the disk refuses stays there.
    fn flush(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<(), StoreError> {
        let written = {
            let state = self.read();
            if state.known.is_empty() {
                return Ok(());
            }
            let notes = |saved: fn(&Known) -> (String, Saved)| Notes {
                generation: snapshot.head().generation,
                fresh: work.fresh,
                saved: state.known.iter().map(saved).collect(),
                dropped: work.dropped.clone(),
            };
            let mut gone = Vec::new();
            work.gone
                .serialize_into(&mut gone)
                .expect("a vector takes every write");
            let (before, after) = (notes(Known::noted).encode(), notes(Known::note).encode());
            let rows: Vec<(&Row, &bool)> = state.fresh.iter().collect();
            let (mut pieces, last) = pieces(self.index.bytes(), &rows);
            let put = |piece: &[(&Row, &bool)], notes: &[u8]| {
                self.index.update(&mut |tables, txn| {
                    for (row, left) in piece {
                        let row = row.bytes();
                        let left = tables.seal.close_mark(&row, **left);
                        tables.keys.put(txn, &row, &left)?;
                    }
                    tables.put_closed(txn, tables.meta, GONE, gone.clone())?;
                    tables.put_closed(txn, tables.meta, NOTES, notes.to_vec())
                })
            };
            // What is cut off between them is taken in again.
            let written = pieces.try_for_each(|piece| put(piece, &before));
            let written = written.and_then(|()| put(last, &after));
            self.index.rest(rows.len());
            written
        };
        match written {
            Ok(()) => {}
            Err(StoreError::Index { .. }) if !self.index.is_retired() => {
                return self.begin_anew(work);
            }
            Err(error) => return Err(error),
        }
        let mut state = self.write();
        state.fresh.clear();
        for known in &mut state.known {
            known.base = known.saved.next;
            known.noted = known.saved;
        }
        work.unnoted = false;
        Ok(())
    }

    /// Notes, durably, that compaction is about to take these versions from the log.
    ///
    /// # Errors
    /// When the disk refuses; nothing may be taken then.
    pub fn note_going<'a>(
        &self,
        dataset: &Arc<OpenDataset>,
        going: impl Iterator<Item = &'a RoaringTreemap>,
    ) -> Result<(), StoreError> {
        let Some(newest) = going.filter_map(RoaringTreemap::max).max() else {
            return Ok(());
        };
        let snapshot = FileSnapshot::take(dataset, false)?;
        let mut work = self.work();
        self.adopt(&mut work, &snapshot)?;
        if !work.loaded {
            // Nobody has declared anything yet, and what is there would not know of it.
            return self.discard(&mut work);
        }
        for known in &mut self.write().known {
            let until = known.saved.next.min(newest + 1);
            known.saved.gone_until = known.saved.gone_until.max(until);
        }
        match self.index.exists() {
            true => self.flush(&mut work, &snapshot),
            false => Ok(()),
        }
    }

    /// Notes versions that compaction took from the log.
    pub fn note_gone<'a>(&self, gone: impl Iterator<Item = &'a RoaringTreemap>) {
        let mut work = self.work();
        if work.loaded && !self.read().known.is_empty() {
            gone.for_each(|gone| work.gone |= gone);
            work.unnoted = true;
        }
    }

    /// Removes the rows of versions that are gone, where they are worth it, and the room that
    /// others left.
    ///
    /// # Errors
    /// When the disk refuses; the next call goes on.
    pub fn tidy(&self, must: bool) -> Result<(), StoreError> {
        let mut work = self.work();
        let entries: u64 = self
            .read()
            .known
            .iter()
            .map(|known| known.saved.entries)
            .sum();
        let worth = work.gone.len() >= (entries / WORTH_REMOVING).max(1);
        if work.gone.is_empty() || !(worth || must) {
            return Ok(());
        }
        let gone = std::mem::take(&mut work.gone);
        self.write().forget_versions(&gone);
        let is_gone = |row: &[u8]| Row::seq(row).is_some_and(|seq| gone.contains(seq));
        let mut from = None;
        while let Some(next) = self.remove_rows(is_gone, 0, &from)? {
            from = Some(next);
        }
        work.unnoted = true;
        self.index.condense(must)?;
        Ok(())
    }

    /// Removes some rows from disk, those of index `least` or of it and all later ones, behind
    /// `from`; where to go on, `None` at the end.
    fn remove_rows(
        &self,
        unwanted: impl Fn(&[u8]) -> bool,
        least: u32,
        from: &Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.index.exists() {
            return Ok(None);
        }
        let mut removed: HashMap<u32, u64> = HashMap::new();
        let mut last = None;
        self.index.update(&mut |tables, txn| {
            (removed, last) = (HashMap::new(), None);
            let first = Row::first_of(least);
            let start = match from {
                Some(from) => Bound::Excluded(from.as_slice()),
                None => Bound::Included(&first[..]),
            };
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut looked = 0;
            for found in tables.keys.range(txn, &(start, Bound::Unbounded))? {
                let (key, _) = found?;
                looked += 1;
                let unwanted = unwanted(key);
                if unwanted {
                    keys.push(key.to_vec());
                }
                let over = least > 0 && !unwanted;
                if keys.len() >= REMOVED_AT_ONCE || looked >= LOOKED_AT_AT_ONCE && !over {
                    last = Some(key.to_vec());
                }
                if over || last.is_some() {
                    break;
                }
            }
            for key in &keys {
                tables.keys.delete(txn, key)?;
                *removed
                    .entry(Row::number(key).unwrap_or_default())
                    .or_default() += 1;
            }
            Ok(())
        })?;
        self.write().uncount(&removed);
        Ok(last)
    }
}

impl Work {
    fn anew(&mut self, def: IndexDef) -> Known {
        self.fresh += 1;
        self.unnoted = true;
        let saved = Saved {
            number: self.fresh,
            ..Saved::default()
        };
        Known {
            def,
            saved,
            base: 0,
            noted: saved,
        }
    }
}

impl State {
    /// Drops the rows in memory of versions that are gone.
    fn forget_versions(&mut self, gone: &RoaringTreemap) {
        let mut removed: HashMap<u32, u64> = HashMap::new();
        self.fresh.retain(|row, _| {
            let stays = !gone.contains(row.seq);
            *removed.entry(row.number).or_default() += u64::from(!stays);
            stays
        });
        self.uncount(&removed);
    }

    fn uncount(&mut self, removed: &HashMap<u32, u64>) {
        for known in &mut self.known {
            let count = removed.get(&known.saved.number).copied().unwrap_or(0);
            known.saved.entries = known.saved.entries.saturating_sub(count);
        }
    }

    fn forget(&mut self, number: u32) {
        self.fresh.retain(|row, _| row.number != number);
    }
}

impl Known {
    fn note(&self) -> (String, Saved) {
        (self.def.fingerprint.clone(), self.saved)
    }

    /// What is noted already, without the rows that are in memory only.
    fn noted(&self) -> (String, Saved) {
        let saved = Saved {
            gone_until: self.saved.gone_until,
            ..self.noted
        };
        (self.def.fingerprint.clone(), saved)
    }

    fn keys(&self, version: Record<'_>) -> Vec<u128> {
        let mut keys = Vec::new();
        (self.def.keys)(version, &mut keys);
        keys
    }
}

/// The versions that some versions name as the ones before them.
struct Earlier {
    versions: Batch,
    /// By sequence, where in `versions`.
    places: HashMap<Seq, usize>,
}

impl Earlier {
    fn of(versions: &Batch, snapshot: &FileSnapshot) -> Result<Earlier, StoreError> {
        let previous = versions.iter().filter_map(|record| record.meta.previous);
        let mut seqs: Vec<Seq> = previous.collect();
        seqs.sort_unstable();
        let mut earlier = Batch::new();
        let found = snapshot.at(&seqs, &mut earlier)?;
        let found = seqs.into_iter().zip(found).filter(|(_, found)| *found);
        Ok(Earlier {
            versions: earlier,
            places: found.zip(0..).map(|((seq, _), at)| (seq, at)).collect(),
        })
    }

    /// The rows of `versions` in one index.
    fn rows(&self, versions: &Batch, known: &Known, out: &mut Vec<(Row, bool)>) {
        let number = known.saved.number;
        for record in versions.iter() {
            let seq = seq_of(&record);
            let place = record.meta.previous.map(|seq| self.places.get(&seq));
            let old;
            let before = match place {
                None => Before::Nothing,
                Some(None) => Before::Gone,
                Some(Some(at)) => {
                    old = known.keys(self.versions.get(*at));
                    Before::Keys(&old)
                }
            };
            marks(&mut known.keys(record), before, |key, left| {
                out.push((Row { number, key, seq }, left));
            });
        }
    }
}

/// What a version is told by.
fn mark(record: &Record<'_>) -> u64 {
    rule::half(record.hash()) ^ record.meta.ts.unsigned_abs()
}

fn seq_of(record: &Record<'_>) -> Seq {
    match record.meta.updated {
        Some(Offset::Int(seq)) => seq.unsigned_abs(),
        _ => 0,
    }
}
