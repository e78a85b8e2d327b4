//! Declared indexes on disk: lost, ruined, foreign, left behind, and killed while they are built.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tahini_store::{Ask, Backend, Compaction, Dataset, Files, IndexState, Options};

use crate::contract::indexes::{compare, declare, expected, keys_of};
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

/// So small that an index of a few thousand rows is built in dozens of runs.
fn in_runs() -> Options {
    Options {
        overlay_keys: 10,
        ..small()
    }
}

#[test]
fn an_index_of_more_rows_than_memory_holds_is_built_in_runs() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("built");
    let files = Files::open(&root, in_runs()).unwrap();
    let dataset = files.open("d", true).unwrap();
    let mut views = Vec::new();
    for round in 0..30 {
        let entities = (0..90).map(|at| entity(&format!("id{at}"), (round * 7 + at) % 11));
        write(&dataset, entities);
        if round % 10 == 3 {
            views.push(dataset.snapshot().unwrap());
        }
    }
    views.push(dataset.snapshot().unwrap());
    declare(&files, "d", &["x"]);
    // Whatever has been built by now, every view gets the answer that is right for it.
    for view in &views {
        compare(&**view, "x", &changes(&**view, HISTORY, ALL));
    }
    write(&dataset, [entity("new", 1), deleted("id3", 1)]);
    let view = dataset.snapshot().unwrap();
    compare(&*view, "x", &changes(&*view, HISTORY, ALL));
    let index = wait(&dataset, |index| index.ready);
    assert_eq!(index.next, view.head().next);
    let names = fs::read_dir(folder(&root, "d")).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with("building")));
    // Another one is built beside it, and compaction takes versions that runs know.
    declare(&files, "d", &["x", "y"]);
    let compaction = Compaction {
        keep_versions: Some(1),
        least_dead: 0.0,
        ..Compaction::default()
    };
    dataset.compact(&compaction).unwrap();
    for name in ["x", "y"] {
        leads(&dataset, name);
    }
    drop((views, view, dataset));
    files.close().unwrap();
    drop(files);
    let (_files, dataset) = open(&root, in_runs());
    leads(&dataset, "x");
}

/// The index leads to the latest versions that have a key, and to no others.
fn leads(dataset: &Arc<dyn Dataset>, fingerprint: &str) {
    let view = dataset.snapshot().unwrap();
    let latest = changes(&*view, LATEST, ALL);
    for key in 0..11 {
        let mut hits = Vec::new();
        let keys = [u128::try_from(key).unwrap()];
        assert!(
            view.find(fingerprint, &keys, &Ask::LATEST, &mut hits)
                .unwrap()
        );
        let found: Vec<u64> = hits.iter().map(|hit| hit.seq).collect();
        let wanted = latest.iter();
        let wanted = wanted.filter(|(_, id, v, _)| keys_of(id, *v).contains(&keys[0]));
        let wanted: Vec<u64> = wanted.map(|(seq, ..)| *seq).collect();
        assert_eq!(found, wanted, "{fingerprint} {key}");
    }
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
