//! Writing what waits into the index: in one transaction, or piece by piece where that is large.

use std::collections::BTreeSet;
use std::slice::Chunks;
use std::sync::Arc;

use super::index::Index;
use super::overlay::Overlay;
use super::superseded::Superseded;
use super::tables::Applied;
use crate::StoreError;

/// So many bytes of an index may be changed by one transaction, which keeps their pages in memory
/// until it is done.
const AT_ONCE: u64 = 96 << 20;
/// What a row changes where no other one is near.
const PAGE: u64 = 4096;

/// Parts rows, which are in the order of their keys, into those that are to be written in one
/// transaction each, and the last ones. Each part changes the pages of one part of an index of so
/// many bytes, each page once.
pub(super) fn pieces<T>(bytes: u64, rows: &[T]) -> (Chunks<'_, T>, &[T]) {
    let changed = bytes.min(rows.len() as u64 * PAGE);
    let count = changed.div_ceil(AT_ONCE).max(1) as usize;
    let len = rows.len().div_ceil(count).max(1);
    let last = rows.len().saturating_sub(1) / len * len;
    (rows[..last].chunks(len), &rows[last..])
}

/// How many of `all` ids may wait for the index: what can be written `whole` only has to be small
/// where the index is large.
pub(super) fn most_waiting(all: usize, whole: bool, index: &Index) -> usize {
    match whole && index.bytes() > AT_ONCE {
        true => all / 16,
        false => all,
    }
}

/// What the index is to hold from now on.
pub(crate) struct Flush<'a> {
    pub overlay: &'a Overlay,
    pub superseded: &'a Superseded,
    /// The chunks of `superseded` that changed.
    pub dirty: &'a BTreeSet<u32>,
    /// `None` while the index is being built: one that does not come to its end knows nothing.
    pub applied: Option<&'a Applied>,
}

impl Flush<'_> {
    /// Writes it. Where that ends in the middle, what the index knows is what it knew before, and
    /// reading the log from there on finds the same again.
    ///
    /// # Errors
    /// When the index refuses; nothing is lost by it.
    pub fn write(&self, index: &Arc<Index>) -> Result<(), StoreError> {
        let order = self.overlay.latest.order();
        let (mut pieces, last) = match self.may_be_parted() {
            true => pieces(index.bytes(), &order),
            false => (order[..0].chunks(1), &order[..]),
        };
        pieces.try_for_each(|piece| self.piece(index, piece))?;
        self.end(index, last)?;
        index.rest(self.overlay.len());
        Ok(())
    }

    /// Whether rows may be in the index that it does not know of. Reading the log again asks the
    /// index what a removed id was, and what is held back may be taken out of the log.
    fn may_be_parted(&self) -> bool {
        // Without a note nothing of it counts after a crash.
        let Some(applied) = self.applied else {
            return true;
        };
        !applied.held && !self.overlay.removes
    }

    /// Writes the entries in `order`, and no more than a note of where they are from.
    fn piece(&self, index: &Arc<Index>, order: &[u32]) -> Result<(), StoreError> {
        index.update(&mut |tables, txn| {
            if let Some(applied) = self.applied {
                tables.write_ahead(txn, applied)?;
            }
            tables.write_latest(txn, self.overlay.latest.rows(order))
        })
    }

    /// Writes the last entries and everything else.
    fn end(&self, index: &Arc<Index>, order: &[u32]) -> Result<(), StoreError> {
        index.update(&mut |tables, txn| {
            tables.write_latest(txn, self.overlay.latest.rows(order))?;
            for (key, value) in &self.overlay.state {
                tables.write_state(txn, key, value.as_deref())?;
            }
            for number in self.dirty {
                tables.write_chunk(txn, self.superseded, *number)?;
            }
            tables.write_applied(txn, self.applied, self.superseded)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use tahini_entity::{Batch, Entity, Value};

    use super::super::{Files, Options};
    use super::*;
    use crate::{Backend, Commit, Dataset, Limit, Rule, Show, View};

    /// Living ids with their value.
    type Truth = BTreeMap<String, i64>;

    fn write(dataset: &dyn Dataset, truth: &mut Truth, changes: &[(String, Option<i64>)]) {
        let mut rows = Batch::new();
        for (id, value) in changes {
            let mut entity = Entity {
                id: Some(id.as_str().into()),
                deleted: value.is_none(),
                ..Entity::default()
            };
            let value = match value {
                Some(value) => {
                    truth.insert(id.clone(), *value);
                    *value
                }
                None => truth.remove(id).unwrap_or_default(),
            };
            entity.properties.set("v", Value::Int(value));
            rows.push_entity(&entity).unwrap();
        }
        let commit = Commit {
            rows: &rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: false,
            now: 1_000,
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit).unwrap().1.wait().unwrap();
    }

    /// What every way of reading says.
    fn check(files: &Files, truth: &Truth, deleted: u64) {
        let snapshot = files.open("d", false).unwrap().snapshot().unwrap();
        let head = snapshot.head();
        assert_eq!((head.live, head.deleted), (truth.len() as u64, deleted));
        let living = |batch: &Batch| -> Truth {
            let rows = batch.iter().filter(|record| !record.meta.deleted);
            let value = |entity: &Entity| match entity.properties.get("v") {
                Some(Value::Int(value)) => *value,
                other => panic!("expected an integer, found {other:?}"),
            };
            let row = |entity: Entity| (entity.id.clone().unwrap().to_string(), value(&entity));
            rows.map(|record| row(record.to_entity())).collect()
        };
        let (mut latest, view) = (
            Batch::new(),
            View {
                history: false,
                deleted: true,
            },
        );
        let all = Limit {
            rows: usize::MAX,
            bytes: usize::MAX,
        };
        assert_eq!(
            snapshot.changes(None, view, all, &mut latest).unwrap(),
            None
        );
        assert_eq!(living(&latest), *truth);
        let ids: Vec<String> = (0..4_000).map(|at| format!("id{at}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut found = Batch::new();
        snapshot.latest(&ids, &mut found).unwrap();
        assert_eq!(living(&found), *truth);
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
            match path.is_dir() {
                true => copy(&path, &to.join(name)),
                false => drop(fs::copy(&path, to.join(name)).unwrap()),
            }
        }
    }

    /// A store whose index was being written in pieces when a copy of it was made, the log's length
    /// before the commits that were being written, and what is true of it.
    fn interrupted(dir: &Path) -> (u64, Truth) {
        let files = Files::open(&dir.join("own"), Options::default()).unwrap();
        let dataset = files.open("d", true).unwrap();
        let mut truth = Truth::new();
        let some = |ids: std::ops::Range<i64>, value: Option<i64>| -> Vec<_> {
            ids.map(|at| (format!("id{at}"), value)).collect()
        };
        write(&*dataset, &mut truth, &some(0..3_000, Some(1)));
        let open = files.opened("d", &files.slot("d").unwrap()).unwrap();
        open.write_index(&mut open.writer()).unwrap();
        let log = open.dir.join("000001.log");
        let before = fs::metadata(&log).unwrap().len();
        write(&*dataset, &mut truth, &some(100..900, Some(2)));
        write(&*dataset, &mut truth, &some(2_900..3_400, Some(3)));
        write(&*dataset, &mut truth, &some(500..700, None));
        let writer = open.writer();
        open.durable.reach(writer.commit).unwrap();
        let overlay = open.overlay.read().unwrap();
        let flush = Flush {
            overlay: &overlay,
            superseded: &writer.superseded,
            dirty: &BTreeSet::new(),
            applied: Some(&writer.applied()),
        };
        assert!(flush.may_be_parted());
        let order = overlay.latest.order();
        flush.piece(&open.index, &order[..300]).unwrap();
        flush.piece(&open.index, &order[300..900]).unwrap();
        copy(&dir.join("own"), &dir.join("copy"));
        (before, truth)
    }

    #[test]
    fn an_index_that_was_written_in_part_is_brought_to_what_the_log_says() {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut truth) = interrupted(dir.path());
        let open = || Files::open(&dir.path().join("copy"), Options::default()).unwrap();
        let files = open();
        check(&files, &truth, 200);
        let dataset = files.open("d", false).unwrap();
        let back: Vec<_> = (600..650).map(|at| (format!("id{at}"), Some(4))).collect();
        write(&*dataset, &mut truth, &back);
        files.close().unwrap();
        drop((dataset, files));
        check(&open(), &truth, 150);
    }

    #[test]
    fn no_transaction_changes_more_than_it_may_and_none_is_smaller_than_it_has_to_be() {
        let rows: Vec<u32> = (0..1_000_000).collect();
        let lens = |bytes: u64, count: usize| -> Vec<usize> {
            let (pieces, last) = pieces(bytes, &rows[..count]);
            let all: Vec<u32> = pieces.clone().flatten().chain(last).copied().collect();
            assert_eq!(all, rows[..count], "all of them, in order");
            pieces.map(<[u32]>::len).chain([last.len()]).collect()
        };
        assert_eq!(lens(0, 1_000_000), [1_000_000], "an empty index");
        assert_eq!(lens(AT_ONCE, 1_000_000), [1_000_000]);
        assert_eq!(lens(AT_ONCE + 1, 1_000_000), [500_000, 500_000]);
        assert_eq!(lens(1 << 40, 24_576), [24_576], "a page each is as much");
        assert_eq!(lens(1 << 40, 65_536), [21_846, 21_846, 21_844]);
        let many = lens(2 << 30, 1_000_000);
        assert_eq!(many.len(), 22);
        assert!(many[..21].iter().all(|len| *len == 45_455));
        assert_eq!((lens(1 << 40, 1), lens(1 << 40, 0)), (vec![1], vec![0]));
    }

    #[test]
    fn a_log_that_is_shorter_than_what_was_being_written_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (before, _) = interrupted(dir.path());
        let copy = dir.path().join("copy");
        let mut folders = fs::read_dir(copy.join("datasets")).unwrap();
        let log = folders.next().unwrap().unwrap().path().join("000001.log");
        let log = fs::OpenOptions::new().write(true).open(log).unwrap();
        log.set_len(before).unwrap();
        let files = Files::open(&copy, Options::default()).unwrap();
        let damaged = files.damaged();
        assert!(damaged[0].1.contains("its index has seen"), "{damaged:?}");
    }
}
