//! Declared indexes on disk: an LMDB environment of their own, derived from the log, and the rows
//! that it does not hold yet.
//!
//! Nothing of it is part of a commit. Whoever asks an index has what was committed since taken in
//! first, with the same steps that build one from the start; between, a thread of the store does it.
//! Only what is durable is ever read, so that an index never knows more than its log.

mod build;
mod rows;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use heed::{RoTxn, WithoutTls};
use roaring::RoaringTreemap;

use super::index::Index;
use super::snapshot::FileSnapshot;
use super::tables::{Tables, bad_row, wrong_check};
use crate::indexes::{UNKNOWN, merge};
use crate::{Ask, Hit, IndexDef, IndexState, Seq, StoreError};
use rows::{ROW, Row, Saved};

/// An index that is not ready is finished by whoever asks where so few versions are missing.
const SOON: u64 = 20_000;

/// The declared indexes of a dataset.
pub(crate) struct Keyed {
    pub index: Arc<Index>,
    limits: Limits,
    /// What was declared and is not taken up yet.
    wanted: Mutex<Option<Vec<IndexDef>>>,
    state: RwLock<State>,
    /// Held by whoever reads on.
    work: Mutex<Work>,
}

/// When rows are written to disk.
#[derive(Clone, Copy)]
struct Limits {
    /// So many that are in memory only.
    keys: usize,
    /// So many of a dataset that has gone quiet.
    idle: usize,
}

/// What readers look at.
#[derive(Default)]
struct State {
    known: Vec<Known>,
    /// Rows that are not on disk; those of an index begin at its `base`.
    fresh: BTreeMap<Row, bool>,
}

/// A declared index.
#[derive(Clone)]
struct Known {
    def: IndexDef,
    saved: Saved,
    /// The versions before this sequence are on disk.
    base: Seq,
    /// What was noted of it when they were written.
    noted: Saved,
}

/// What only the one at work touches.
#[derive(Default)]
struct Work {
    /// What is on disk was looked at.
    loaded: bool,
    /// Indexes that nobody wants any more and whose rows are still there.
    dropped: Vec<u32>,
    /// The number that the next index gets.
    fresh: u32,
    /// Versions that compaction took, and whose rows may still be there.
    gone: RoaringTreemap,
    /// Something that has to be noted is not.
    unnoted: bool,
}

impl Keyed {
    pub fn new(index: Arc<Index>, keys: usize, idle: usize) -> Keyed {
        Keyed {
            index,
            limits: Limits { keys, idle },
            wanted: Mutex::default(),
            state: RwLock::default(),
            work: Mutex::default(),
        }
    }

    /// Replaces what is declared. It is taken up by whoever works next.
    pub fn declare(&self, defs: &[IndexDef]) {
        *self.wanted() = Some(defs.to_vec());
    }

    /// Whether there is anything to be done or undone here.
    pub fn concerns(&self) -> bool {
        self.index.exists() || self.wanted().is_some() || !self.read().known.is_empty()
    }

    /// Whether there are versions before `next` that an index does not have.
    pub fn is_behind(&self, next: Seq) -> bool {
        let state = self.read();
        state.known.iter().any(|known| known.saved.next < next)
    }

    /// Whether so much is in memory only that a dataset that has gone quiet writes it.
    fn is_worth_writing(&self) -> bool {
        self.read().fresh.len() >= self.limits.idle.max(1)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.index.bytes()
    }

    /// How far the indexes are.
    ///
    /// # Errors
    /// When what is on disk of former ones cannot be removed.
    pub fn states(&self, snapshot: &FileSnapshot) -> Result<Vec<IndexState>, StoreError> {
        self.adopt(&mut self.work(), snapshot)?;
        let state = self.read();
        let mut states: Vec<IndexState> = state.known.iter().map(Known::state).collect();
        states.sort_by_key(|state| state.number);
        Ok(states)
    }

    /// Appends what `keys` lead to in this view; `false` where the index cannot say.
    ///
    /// # Errors
    /// When the log cannot be read, or what is on disk of the index.
    pub fn find(
        &self,
        snapshot: &FileSnapshot,
        fingerprint: &str,
        keys: &[u128],
        ask: &Ask,
        out: &mut Vec<Hit>,
    ) -> Result<bool, StoreError> {
        let has = |state: &State| {
            let known = state.of(fingerprint)?;
            (known.saved.next >= snapshot.next()).then(|| known.clone())
        };
        // Another one may be throwing the index away between being asked and answering.
        loop {
            let known = has(&self.read()).filter(|_| self.wanted().is_none());
            if known.is_none() && !self.reach(snapshot, fingerprint)? {
                return Ok(false);
            }
            let state = self.read();
            let Some(known) = has(&state) else { continue };
            if ask
                .leaves_from()
                .is_some_and(|from| from < known.saved.gone_until)
            {
                return Ok(false);
            }
            let look = Look {
                snapshot,
                state: &state,
                known: &known,
                ask,
            };
            let before = out.len();
            let on_disk = known.base > 0;
            let found = match on_disk {
                true => self
                    .index
                    .read(|tables, txn| look.all(Some((tables, txn)), keys, out)),
                false => look
                    .all(None, keys, out)
                    .map(Some)
                    .map_err(|_| unreachable()),
            };
            return match found {
                Ok(_) => Ok(true),
                Err(StoreError::Index { .. }) if !self.index.is_retired() => {
                    drop(state);
                    out.truncate(before);
                    self.begin_anew(&mut self.work())?;
                    continue;
                }
                Err(error) => Err(error),
            };
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Option<Vec<IndexDef>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes sure that the row behind the place of `row` is what was written, and is behind it.
fn check_behind(tables: &Tables, txn: &RoTxn<'_, WithoutTls>, row: &[u8]) -> heed::Result<()> {
    let behind = tables.keys.get_greater_than_or_equal_to(txn, row)?;
    let whole =
        behind.is_none_or(|(other, left)| other >= row && tables.seal.mark(other, left).is_some());
    match whole {
        true => Ok(()),
        false => Err(wrong_check()),
    }
}

/// Rows in memory are read without anything that fails.
fn unreachable() -> StoreError {
    unreachable!("only the environment refuses")
}

impl State {
    fn of(&self, fingerprint: &str) -> Option<&Known> {
        let mut known = self.known.iter();
        known.find(|known| known.def.fingerprint == fingerprint)
    }
}

impl Known {
    fn state(&self) -> IndexState {
        IndexState {
            number: self.saved.number,
            fingerprint: self.def.fingerprint.clone(),
            ready: self.saved.ready,
            next: self.saved.next,
            entries: self.saved.entries,
        }
    }
}

/// One question to an index.
struct Look<'a> {
    snapshot: &'a FileSnapshot,
    state: &'a State,
    known: &'a Known,
    ask: &'a Ask,
}

type Reading<'a> = (&'a Tables, &'a RoTxn<'a, WithoutTls>);

impl Look<'_> {
    fn all(
        &self,
        disk: Option<Reading<'_>>,
        keys: &[u128],
        out: &mut Vec<Hit>,
    ) -> heed::Result<()> {
        let mut hits = Vec::new();
        for (of, key) in keys.iter().enumerate() {
            if !self.ask.left {
                self.key(disk, *key, of, out)?;
                continue;
            }
            self.key(disk, *key, of, &mut hits)?;
            self.key(disk, UNKNOWN, of, &mut hits)?;
            merge(&mut hits, self.ask);
            out.append(&mut hits);
        }
        Ok(())
    }

    /// The rows of one key: older ones from disk, the others from memory.
    fn key(
        &self,
        disk: Option<Reading<'_>>,
        key: u128,
        of: usize,
        out: &mut Vec<Hit>,
    ) -> heed::Result<()> {
        let (first, next) = match (self.ask.from, self.ask.reversed) {
            (None, _) => (0, self.snapshot.next()),
            (Some(from), false) => (from.saturating_add(1), self.snapshot.next()),
            (Some(from), true) => (0, from.min(self.snapshot.next())),
        };
        let row = |seq| Row {
            number: self.known.saved.number,
            key,
            seq,
        };
        let border = self.known.base.clamp(first, next.max(first));
        let full = out.len().saturating_add(self.ask.limit.max(1));
        let newer = self.state.fresh.range(row(border)..row(next.max(border)));
        let newer = newer.map(|(row, left)| (row.seq, *left));
        let (older, last) = (row(first).bytes(), row(border).bytes());
        let disk = disk.filter(|_| first < border);
        if self.ask.reversed {
            self.take(newer.rev(), of, full, out);
            if let Some((tables, txn)) = disk.filter(|_| out.len() < full) {
                check_behind(tables, txn, &last)?;
                let range = (Bound::Unbounded, Bound::Excluded(&last[..]));
                let rows = tables.keys.rev_range(txn, &range)?;
                self.take_read(tables, rows, |row| row >= &older[..], (of, full), out)?;
            }
            return Ok(());
        }
        if let Some((tables, txn)) = disk {
            if !tables.is_whole_before(txn, b"keys", tables.keys, &older)? {
                return Err(wrong_check());
            }
            let range = (Bound::Included(&older[..]), Bound::Unbounded);
            let rows = tables.keys.range(txn, &range)?;
            self.take_read(tables, rows, |row| row < &last[..], (of, full), out)?;
        }
        self.take(newer, of, full, out);
        Ok(())
    }

    /// Takes the rows that are `within`. The first one that is not is looked at as well: it may
    /// have been one of them.
    fn take_read<'t>(
        &self,
        tables: &Tables,
        rows: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
        within: impl Fn(&[u8]) -> bool,
        (of, full): (usize, usize),
        out: &mut Vec<Hit>,
    ) -> heed::Result<()> {
        for found in rows {
            let (row, left) = found?;
            let left = tables.seal.mark(row, left).ok_or_else(wrong_check)?;
            if !within(row) {
                break;
            }
            let seq = Row::seq(row).ok_or_else(|| {
                bad_row(format!("expected rows of {ROW} bytes in the table keys"))
            })?;
            self.take([(seq, left)], of, full, out);
            if out.len() >= full {
                break;
            }
        }
        Ok(())
    }

    fn take(
        &self,
        rows: impl IntoIterator<Item = (Seq, bool)>,
        of: usize,
        full: usize,
        out: &mut Vec<Hit>,
    ) {
        for (seq, left) in rows {
            if out.len() >= full {
                break;
            }
            let superseded = self.snapshot.is_superseded(seq);
            if (!left || self.ask.left) && (!superseded || self.ask.history) {
                out.push(Hit {
                    of,
                    seq,
                    left,
                    superseded,
                });
            }
        }
    }
}
