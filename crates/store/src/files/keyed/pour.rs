//! Building an index of more rows than memory should hold: in sorted runs first, and from all of
//! them into the tree.

use super::rows::Row;
use super::runs::Runs;
use super::{Keyed, State, Work};
use crate::StoreError;
use crate::files::dataset::io_error;
use crate::files::snapshot::FileSnapshot;

/// Rows of all runs that are written in one transaction.
const POURED_AT_ONCE: usize = 200_000;

impl Keyed {
    /// Puts the rows of indexes that are being built into a run.
    pub(super) fn spill(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<(), StoreError> {
        let mut state = self.write();
        let State { known, fresh } = &mut *state;
        let building = |number: u32| {
            let of = known.iter().find(|known| known.saved.number == number);
            of.is_some_and(|known| !known.saved.ready)
        };
        let rows = fresh.iter().filter(|(row, _)| building(row.number));
        let added = work
            .runs
            .add(snapshot.dir(), rows.map(|(row, left)| (*row, *left)));
        added.map_err(|source| io_error("building an index in", snapshot.dir(), source))?;
        fresh.retain(|row, _| !building(row.number));
        for known in known.iter_mut().filter(|known| !known.saved.ready) {
            known.spilled = Some(known.saved.next);
        }
        Ok(())
    }

    /// Writes the next rows of the runs, which hold all of the indexes that are being built; after
    /// the last one they are on disk.
    pub(super) fn pour(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<(), StoreError> {
        if !work.runs.is_merging() {
            self.spill(work, snapshot)?;
        }
        let poured = self.pour_some(work, snapshot);
        if poured.is_err() {
            // What was taken from the runs and did not get there is known to nobody.
            self.build_anew(work);
        }
        if !poured? {
            return Ok(());
        }
        work.runs = Runs::default();
        for known in &mut self.write().known {
            if let Some(until) = known.spilled.take() {
                known.base = until;
            }
        }
        self.flush(work, snapshot)
    }

    /// Whether those were the last ones.
    fn pour_some(&self, work: &mut Work, snapshot: &FileSnapshot) -> Result<bool, StoreError> {
        let rows = work.runs.take(POURED_AT_ONCE);
        let mut rows =
            rows.map_err(|source| io_error("building an index in", snapshot.dir(), source))?;
        if rows.is_empty() {
            return Ok(true);
        }
        let state = self.read();
        let spilled = state.known.iter().filter(|known| known.spilled.is_some());
        let spilled: Vec<u32> = spilled.map(|known| known.saved.number).collect();
        drop(state);
        // Some may have been dropped meanwhile.
        rows.retain(|(row, _)| spilled.contains(&row.number));
        self.index.update(&mut |tables, txn| {
            for (row, left) in &rows {
                tables.keys.put(txn, &row.bytes(), &[u8::from(*left)])?;
            }
            Ok(())
        })?;
        Ok(false)
    }

    /// Begins with the first version again what is in runs.
    pub(super) fn build_anew(&self, work: &mut Work) {
        work.runs = Runs::default();
        let mut state = self.write();
        for at in 0..state.known.len() {
            if state.known[at].spilled.is_some() {
                let number = state.known[at].saved.number;
                state.forget(number);
                state.known[at] = work.anew(state.known[at].def.clone());
                work.dropped.push(number);
            }
        }
    }
}

impl State {
    /// The rows in memory that are written as they are; those of indexes with runs wait for them.
    pub(super) fn to_write(&self) -> impl Iterator<Item = (&Row, &bool)> {
        let waits = |number: u32| {
            let mut known = self.known.iter();
            known.any(|known| known.saved.number == number && known.spilled.is_some())
        };
        let any = self.known.iter().any(|known| known.spilled.is_some());
        let rows = self.fresh.iter();
        rows.filter(move |(row, _)| !any || !waits(row.number))
    }

    pub(super) fn written_rows(&self) -> usize {
        match self.known.iter().any(|known| known.spilled.is_some()) {
            true => self.to_write().count(),
            false => self.fresh.len(),
        }
    }

    /// They are on disk.
    pub(super) fn written(&mut self) {
        let State { known, fresh } = self;
        let waiting = known.iter().filter(|known| known.spilled.is_some());
        let waiting: Vec<u32> = waiting.map(|known| known.saved.number).collect();
        match waiting.is_empty() {
            true => fresh.clear(),
            false => fresh.retain(|row, _| waiting.contains(&row.number)),
        }
        for known in known.iter_mut().filter(|known| known.spilled.is_none()) {
            known.base = known.saved.next;
            known.noted = known.saved;
        }
    }
}
