//! Declared indexes on disk: lost, ruined, foreign, left behind, and killed while they are built.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tahini_store::{Ask, Backend, Dataset, Files, IndexState, Options};

use crate::contract::indexes::{compare, declare, expected};
use crate::contract::tiny;
use crate::recovery::{copy, folder};
use crate::rows::*;

/// Small enough that every step of a build is written.
fn small() -> Options {
    Options {
        overlay_keys: 100,
        idle_keys: 0,
        ..Options::default()
    }
}

fn open(root: &Path, options: Options) -> (Files, Arc<dyn Dataset>) {
    let files = Files::open(root, options).unwrap();
    declare(&files, "d", &["x"]);
    let dataset = files.open("d", true).unwrap();
    (files, dataset)
}

/// Waits for the index without asking it anything.
fn wait(dataset: &Arc<dyn Dataset>, mut done: impl FnMut(&IndexState) -> bool) -> IndexState {
    let begun = Instant::now();
    loop {
        if let [index] = dataset.indexes().unwrap().as_slice()
            && done(index)
        {
            return index.clone();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the index is not built"
        );
        std::thread::yield_now();
    }
}

/// A closed store with an index on disk, and its versions.
fn indexed(dir: &Path) -> (PathBuf, Vec<Short>) {
    let root = dir.join("indexed");
    let (files, dataset) = open(&root, small());
    for round in 0..4 {
        write(
            &dataset,
            (0..90).map(|at| entity(&format!("id{at}"), (round + at) % 3)),
        );
    }
    let versions = changes(&*dataset.snapshot().unwrap(), HISTORY, ALL);
    compare(&*dataset.snapshot().unwrap(), "x", &versions);
    files.close().unwrap();
    assert!(keys(&root).join("data.mdb").exists());
    (root, versions)
}

fn keys(root: &Path) -> PathBuf {
    folder(root, "d").join("keys")
}

fn fits(root: &Path, versions: &[Short]) {
    let (_files, dataset) = open(root, small());
    compare(&*dataset.snapshot().unwrap(), "x", versions);
    write(&dataset, [entity("new", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    compare(&*snapshot, "x", &changes(&*snapshot, HISTORY, ALL));
}

#[test]
fn declared_indexes_that_are_lost_or_ruined_are_built_anew() {
    type Ruin = (&'static str, fn(&Path));
    let ruins: &[Ruin] = &[
        ("removed", |keys| fs::remove_dir_all(keys).unwrap()),
        ("emptied", |keys| {
            fs::remove_file(keys.join("data.mdb")).unwrap()
        }),
        ("no bytes", |keys| {
            fs::write(keys.join("data.mdb"), []).unwrap()
        }),
        ("garbage", |keys| {
            fs::write(keys.join("data.mdb"), [0x5A; 40_000]).unwrap();
        }),
        ("a flipped byte", |keys| {
            let data = keys.join("data.mdb");
            let len = fs::metadata(&data).unwrap().len();
            let file = fs::File::options()
                .read(true)
                .write(true)
                .open(&data)
                .unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, len - 20).unwrap();
            file.write_all_at(&[byte[0] ^ 1], len - 20).unwrap();
        }),
        ("half", |keys| {
            let data = keys.join("data.mdb");
            let file = fs::File::options().write(true).open(&data).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len / 2 / 4_096 * 4_096).unwrap();
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (origin, versions) = indexed(dir.path());
    for (what, ruin) in ruins {
        let root = dir.path().join(what);
        copy(&origin, &root);
        ruin(&keys(&root));
        fits(&root, &versions);
    }
    fits(&origin, &versions);
}

#[test]
fn an_index_that_is_whole_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (root, versions) = indexed(dir.path());
    let (_files, dataset) = open(&root, small());
    // Before any version was read again.
    let index = dataset.indexes().unwrap().remove(0);
    assert_eq!((index.number, index.next), (1, versions.len() as u64));
    assert!(index.ready);
}

#[test]
fn an_index_of_another_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, versions) = indexed(dir.path());
    // The same dataset, which went another way from its beginning on.
    let other = dir.path().join("other");
    copy(&root, &other);
    for log in ["index", "keys"] {
        fs::remove_dir_all(folder(&other, "d").join(log)).unwrap();
    }
    let (files, dataset) = open(&other, small());
    write(
        &dataset,
        (0..50).map(|at| entity(&format!("other{at}"), at)),
    );
    wait(&dataset, |index| {
        index.ready && index.next == versions.len() as u64 + 50
    });
    files.close().unwrap();
    drop((dataset, files));
    fs::remove_dir_all(keys(&root)).unwrap();
    copy(&keys(&other), &keys(&root));
    // It knows more than this log has.
    fits(&root, &versions);

    // Now this log has as many, and others.
    fs::remove_dir_all(keys(&root)).unwrap();
    let (files, dataset) = open(&root, small());
    write(
        &dataset,
        (0..60).map(|at| entity(&format!("own{at}"), at % 2)),
    );
    let versions = changes(&*dataset.snapshot().unwrap(), HISTORY, ALL);
    files.close().unwrap();
    drop((dataset, files));
    fs::remove_dir_all(keys(&root)).unwrap();
    copy(&keys(&other), &keys(&root));
    fits(&root, &versions);
}

#[test]
fn what_nobody_declares_any_more_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, versions) = indexed(dir.path());
    {
        // Somebody who only looks removes nothing.
        let files = Files::open(&root, small()).unwrap();
        assert_eq!(files.open("d", false).unwrap().indexes().unwrap(), []);
    }
    assert!(keys(&root).exists());
    let (files, dataset) = open(&root, small());
    declare(&files, "d", &["y"]);
    let index = wait(&dataset, |index| index.ready);
    assert_eq!((index.fingerprint.as_str(), index.number), ("y", 2));
    compare(&*dataset.snapshot().unwrap(), "y", &versions);
    files.declare(BTreeMap::new());
    assert_eq!(dataset.indexes().unwrap(), []);
    assert!(!keys(&root).exists());
}

#[test]
fn an_index_is_built_while_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, (0..500).map(|at| entity(&format!("id{at}"), at)));
    declare(&files, "d", &["x"]);
    wait(&dataset, |index| index.ready && index.next == 500);
    // What comes later is taken in when the dataset has gone quiet.
    write(&dataset, [entity("late", 0)]);
    wait(&dataset, |index| index.next == 501);
}

const CHILD: &str = "TAHINI_TEST_BUILDER";
const VERSIONS: usize = 40_000;

/// Not a test of its own: the process that is killed while it builds.
#[test]
fn builder() {
    let Ok(root) = std::env::var(CHILD) else {
        return;
    };
    let (_files, dataset) = open(Path::new(&root), small());
    let mut told = 0;
    wait(&dataset, |index| {
        if index.next > told {
            told = index.next;
            #[allow(clippy::print_stdout)]
            {
                println!("{told}");
            }
        }
        false
    });
}

#[test]
fn a_build_that_is_killed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let files = Files::open(&root, Options::default()).unwrap();
    let dataset = files.open("d", true).unwrap();
    for part in 0..4 {
        let ids = (0..VERSIONS / 4).map(|at| format!("id{}", (part * 7 + at) % 30_000));
        write(&dataset, ids.map(|id| entity(&id, part as i64)));
    }
    let versions = changes(&*dataset.snapshot().unwrap(), HISTORY, ALL);
    files.close().unwrap();
    drop((dataset, files));
    let mut known = 0;
    for kill in 1..=2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keyed::builder", "--nocapture"])
            .env(CHILD, &root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u64>().ok());
        let told: Vec<u64> = numbers.take(kill).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(told[0] >= known, "it began before {known}: {told:?}");
        let (_files, dataset) = open(&root, small());
        known = dataset.indexes().unwrap()[0].next;
        assert!(known > 0, "nothing of {told:?} was kept");
    }
    let (_files, dataset) = open(&root, small());
    wait(&dataset, |index| index.ready);
    let snapshot = dataset.snapshot().unwrap();
    for key in [1, 101] {
        let mut hits = Vec::new();
        let all = Ask {
            history: true,
            left: true,
            ..Ask::LATEST
        };
        assert!(snapshot.find("x", &[key], &all, &mut hits).unwrap());
        let found = hits.iter().map(|hit| (hit.seq, hit.left, hit.superseded));
        assert!(found.eq(expected(&versions, key)));
    }
}
