//! Indexes in which bytes changed: nothing of them is believed that is not so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Dataset, Files, Options, Snapshot, StoreError};

use crate::contract::indexes::{compare, declare};
use crate::model::Dice;
use crate::recovery::{copy, folder};
use crate::rows::*;

/// The index is written now and then, and not when the store is left as a kill would leave it.
fn options() -> Options {
    Options {
        overlay_keys: 300,
        idle_keys: usize::MAX,
        ..Options::default()
    }
}

fn open(root: &Path) -> (Files, Arc<dyn Dataset>) {
    let files = Files::open(root, options()).unwrap();
    let dataset = files.open("d", true).unwrap();
    (files, dataset)
}

/// A folder where syncs cost nothing, if the system has such: stores are opened a thousand times.
fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn flip(file: &fs::File, at: u64, mask: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

fn writable(path: &Path) -> fs::File {
    let mut options = fs::File::options();
    options.read(true).write(true).open(path).unwrap()
}

/// What was written.
#[derive(Default)]
struct Truth {
    latest: BTreeMap<String, Short>,
    versions: Vec<Short>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Truth {
    fn write(&mut self, dataset: &Arc<dyn Dataset>, round: u64, ids: impl Iterator<Item = u64>) {
        let name = |at: u64| match at % 97 {
            0 => format!("{}-{at}", "long".repeat(110)),
            _ => format!("person:{at:05}"),
        };
        let v = round as i64;
        let rows: Vec<_> = ids
            .map(|at| match at % 11 {
                3 if round > 3 => deleted(&name(at), v),
                _ => entity(&name(at), v),
            })
            .collect();
        let state = [
            set(
                "s",
                format!("offset:{round}").as_bytes(),
                &[round as u8; 30],
            ),
            set("s", b"large", &vec![round as u8; 9_000]),
        ];
        let batch = batch(rows.iter().cloned());
        let commit = Commit {
            state: &state,
            ..commit(&batch)
        };
        let outcome = run(dataset, commit).unwrap();
        for (row, seq) in rows.iter().zip(outcome.seqs) {
            let id = row.id.as_ref().unwrap().to_string();
            let version = (seq.unwrap(), id.clone(), v, row.deleted);
            self.versions.push(version.clone());
            self.latest.insert(id, version);
        }
        for write in state {
            self.state.insert(write.key, write.value.unwrap());
        }
    }

    /// Asks for everything that an index answers.
    fn check(&self, snapshot: &dyn Snapshot, context: &str) {
        let ids: Vec<&str> = self.latest.keys().map(String::as_str).collect();
        let mut out = Batch::new();
        let found = snapshot.latest(&ids, &mut out);
        assert_eq!(found.unwrap(), vec![true; ids.len()], "{context}");
        assert!(short(&out).iter().eq(self.latest.values()), "{context}");
        let found = snapshot.latest(&["person:", "person:00001x", "zz"], &mut out);
        assert_eq!(found.unwrap(), [false; 3], "{context}");
        let latest = changes(snapshot, LATEST, ALL);
        assert_eq!(latest.len(), self.latest.len(), "{context}");
        let state = self.state.clone().into_iter().collect::<Vec<_>>();
        assert_eq!(snapshot.state("s", b"").unwrap(), state, "{context}");
    }

    /// What is there already is no change.
    fn check_writes(&self, dataset: &Arc<dyn Dataset>, context: &str) {
        let rows = self.latest.values();
        let rows = rows.map(|(_, id, v, gone)| match gone {
            true => deleted(id, *v),
            false => entity(id, *v),
        });
        let outcome = write(dataset, rows);
        assert_eq!(outcome.unchanged, self.latest.len() as u64, "{context}");
    }
}

/// A store as a kill leaves it: the index is behind the log.
fn killed(dir: &Path) -> (PathBuf, Truth) {
    let (origin, root) = (dir.join("origin"), dir.join("killed"));
    let (_files, dataset) = open(&origin);
    let mut truth = Truth::default();
    for round in 0..6 {
        truth.write(&dataset, round, (0..200).map(|at| at * 3 + round % 3));
    }
    truth.write(&dataset, 6, 0..60);
    copy(&origin, &root);
    assert!(folder(&root, "d").join("index/data.mdb").exists());
    (root, truth)
}

/// Flips bytes all over a file of an index, and checks what is said after it is opened.
fn flips(root: &Path, table: &str, count: u64, with_sum: bool, check: &dyn Fn(&Path, &str)) {
    let again = root.with_extension("again");
    let file = |root: &Path| folder(root, "d").join(table).join("data.mdb");
    let size = fs::metadata(file(root)).unwrap().len();
    let mut dice = Dice(41);
    for _ in 0..count {
        let (at, mask) = (dice.roll(size), 1 + dice.roll(255) as u8);
        let _ = fs::remove_dir_all(&again);
        copy(root, &again);
        let sum = file(&again).with_file_name("SUM");
        assert!(
            sum.exists(),
            "a small index is summed whenever it is written"
        );
        if !with_sum {
            fs::remove_file(sum).unwrap();
        }
        flip(&writable(&file(&again)), at, mask);
        check(&again, &format!("byte {at} of {size} exclusive-or {mask}"));
    }
}

fn says_the_truth(root: &Path, truth: &Truth, context: &str) {
    let (_files, dataset) = open(root);
    truth.check(&*dataset.snapshot().unwrap(), context);
    truth.check_writes(&dataset, context);
}

#[test]
fn a_byte_that_changed_in_an_index_after_a_kill_hides_nothing() {
    let dir = folder_in_memory();
    let (root, truth) = killed(dir.path());
    let check = |root: &Path, context: &str| says_the_truth(root, &truth, context);
    check(&root, "as it was left");
    let (root, truth) = killed(&dir.path().join("second"));
    let check = |root: &Path, context: &str| says_the_truth(root, &truth, context);
    flips(&root, "index", 30, true, &check);
    flips(&root, "index", 320, false, &check);
}

#[test]
fn a_page_that_is_lost_or_was_another_one_hides_nothing() {
    let dir = folder_in_memory();
    let (root, truth) = killed(dir.path());
    let again = dir.path().join("again");
    let data = |root: &Path| folder(root, "d").join("index/data.mdb");
    let bytes = fs::read(data(&root)).unwrap();
    let pages = bytes.len() / 4_096;
    for page in 0..pages {
        let (this, other) = (page * 4_096, (page + 1) % pages * 4_096);
        let contents = [&[0; 4_096], &bytes[other..other + 4_096]];
        for content in &contents[..if page % 5 == 0 { 2 } else { 1 }] {
            let _ = fs::remove_dir_all(&again);
            copy(&root, &again);
            fs::remove_file(data(&again).with_file_name("SUM")).unwrap();
            let file = writable(&data(&again));
            file.write_all_at(content, this as u64).unwrap();
            says_the_truth(&again, &truth, &format!("page {page} of {pages}"));
        }
    }
}

#[test]
fn a_byte_that_changed_in_declared_indexes_after_a_kill_hides_nothing() {
    let dir = folder_in_memory();
    let origin = dir.path().join("origin");
    let small = || Options {
        overlay_keys: 60,
        idle_keys: 0,
        ..Options::default()
    };
    let reopen = |root: &Path| {
        let files = Files::open(root, small()).unwrap();
        declare(&files, "d", &["x"]);
        let dataset = files.open("d", true).unwrap();
        (files, dataset)
    };
    let (files, dataset) = reopen(&origin);
    for round in 0..5 {
        write(
            &dataset,
            (0..80).map(|at| entity(&format!("id{at}"), (round + at) % 5)),
        );
    }
    let versions = changes(&*dataset.snapshot().unwrap(), HISTORY, ALL);
    compare(&*dataset.snapshot().unwrap(), "x", &versions);
    drop((dataset, files));
    let check = |root: &Path, context: &str| {
        let (_files, dataset) = reopen(root);
        let snapshot = dataset.snapshot().unwrap();
        assert_eq!(changes(&*snapshot, HISTORY, ALL), versions, "{context}");
        compare(&*snapshot, "x", &versions);
    };
    flips(&origin, "keys", 20, true, &check);
    flips(&origin, "keys", 150, false, &check);
}

/// Right, or refused by name.
fn right_or_refused(asked: Result<bool, StoreError>, context: &str) -> bool {
    match asked {
        Ok(right) => {
            assert!(right, "{context}");
            true
        }
        Err(StoreError::Index { dataset, message }) => {
            assert_eq!(dataset, "d");
            assert!(message.contains("built anew"), "{message}");
            false
        }
        Err(other) => panic!("expected the index to be named, found {other}: {context}"),
    }
}

#[test]
fn a_byte_that_changes_under_an_open_index_hides_nothing() {
    let dir = folder_in_memory();
    let root = dir.path().join("store");
    let (files, dataset) = open(&root);
    let mut truth = Truth::default();
    truth.write(&dataset, 0, 0..700);
    truth.write(&dataset, 1, 0..1);
    let snapshot = dataset.snapshot().unwrap();
    truth.check(&*snapshot, "as it was written");
    let path = folder(&root, "d").join("index/data.mdb");
    let (bytes, file) = (fs::read(&path).unwrap(), writable(&path));
    let ids: Vec<&str> = truth.latest.keys().map(String::as_str).collect();
    let mut dice = Dice(5);
    let (mut wrong, mut asked) = (0, 0);
    for _ in 0..330 {
        let place = 2 + dice.roll(ids.len() as u64 - 4) as usize;
        let id = ids[place];
        // A key and its row stand in one piece; what stands around them LMDB believes.
        let key = &id.as_bytes()[..id.len().min(380)];
        let at = bytes
            .windows(key.len())
            .position(|bytes| bytes == key)
            .unwrap();
        let whole = if id.len() > 400 { 401 } else { id.len() };
        let at = at as u64 + dice.roll(whole as u64 + 17);
        let mask = 1 + dice.roll(255) as u8;
        flip(&file, at, mask);
        let context = format!("{id}, byte {at} exclusive-or {mask}");
        for other in ids[place - 2..=place + 2]
            .iter()
            .chain([&ids[20], &ids[600]])
        {
            let mut out = Batch::new();
            let found = snapshot.latest(&[other], &mut out);
            let right =
                found.map(|found| found == [true] && short(&out)[0] == truth.latest[*other]);
            wrong += u64::from(!right_or_refused(right, &context));
            asked += 1;
        }
        let (_, _, v, gone) = truth.latest[id];
        let rows = batch([if gone { deleted(id, v) } else { entity(id, v) }]);
        let unchanged = dataset
            .commit(commit(&rows))
            .map(|done| done.0.unchanged == 1);
        right_or_refused(unchanged, &context);
        flip(&file, at, mask);
    }
    assert!(
        wrong > 330 && wrong < asked,
        "{wrong} of {asked} were refused"
    );
    drop((snapshot, dataset, files));
    says_the_truth(&root, &truth, "opened again");
}
