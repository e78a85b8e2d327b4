//! What opening does with logs, indexes and manifests that are not as they were left.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Dataset, Files, Options, StoreError};

use crate::contract::tiny;
use crate::model::{Dice, Model, random_commit};
use crate::rows::*;

/// Copies a store while it is open, as a kill would leave it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The folder of the store's only dataset, or of the one with this name.
pub fn folder(root: &Path, name: &str) -> PathBuf {
    let folders = fs::read_dir(root.join("datasets"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let manifest = |folder: &PathBuf| fs::read_to_string(folder.join("MANIFEST")).unwrap();
    folders
        .into_iter()
        .find(|folder| manifest(folder).contains(&format!("name {name}\n")))
        .unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn open(root: &Path) -> (Files, Arc<dyn Dataset>) {
    let files = Files::open(root, Options::default()).unwrap();
    let dataset = files.open("d", false).unwrap();
    (files, dataset)
}

fn versions(dataset: &Arc<dyn Dataset>) -> Vec<Short> {
    changes(&*dataset.remains().unwrap(), HISTORY, ALL)
}

fn is_damaged<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Damaged { .. }))
}

/// A store of three commits, copied before it was closed, and where each frame ends.
struct Three {
    dir: tempfile::TempDir,
    versions: Vec<Vec<Short>>,
    ends: Vec<u64>,
}

impl Three {
    fn new() -> Three {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("origin");
        let files = Files::open(&root, Options::default()).unwrap();
        let dataset = files.open("d", true).unwrap();
        let log = folder(&root, "d").join("000001.log");
        let (mut all, mut ends) = (vec![Vec::new()], vec![size(&log)]);
        for round in 0..3 {
            let rows = batch([entity("a", round), entity(&format!("b{round}"), 1)]);
            let state = [set("s", b"round", &[round as u8])];
            run(
                &dataset,
                Commit {
                    state: &state,
                    ..commit(&rows)
                },
            )
            .unwrap();
            all.push(versions(&dataset));
            ends.push(size(&log));
        }
        copy(&root, &dir.path().join("killed"));
        Three {
            dir,
            versions: all,
            ends,
        }
    }

    /// A fresh copy of the killed store, and its log.
    fn again(&self) -> (PathBuf, PathBuf) {
        let root = self.dir.path().join("again");
        let _ = fs::remove_dir_all(&root);
        copy(&self.dir.path().join("killed"), &root);
        let log = folder(&root, "d").join("000001.log");
        (root, log)
    }

    /// The store works, and holds `commits` of the three.
    fn holds(&self, root: &Path, commits: usize, context: &str) {
        let (files, dataset) = open(root);
        assert_eq!(versions(&dataset), self.versions[commits], "{context}");
        let state = dataset.snapshot().unwrap().state("s", b"").unwrap();
        let round = commits
            .checked_sub(1)
            .map(|round| (b"round".to_vec(), vec![round as u8]));
        assert_eq!(state, round.into_iter().collect::<Vec<_>>(), "{context}");
        let outcome = write(&dataset, [entity("a", 77)]);
        assert_eq!(
            outcome.seqs,
            [Some(self.versions[commits].len() as u64)],
            "{context}"
        );
        drop((dataset, files));
        let (_files, dataset) = open(root);
        assert_eq!(
            versions(&dataset).len(),
            self.versions[commits].len() + 1,
            "{context}"
        );
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    let three = Three::new();
    let (root, _) = three.again();
    three.holds(&root, 3, "as it was left");
}

#[test]
fn a_torn_end_is_cut_off_at_every_byte() {
    let three = Three::new();
    for (commit, pair) in three.ends.windows(2).enumerate() {
        for len in pair[0]..pair[1] {
            let (root, log) = three.again();
            fs::File::options()
                .write(true)
                .open(&log)
                .unwrap()
                .set_len(len)
                .unwrap();
            three.holds(&root, commit, &format!("cut at {len}"));
        }
    }
}

#[test]
fn a_flipped_byte_in_the_last_frame_is_a_torn_end() {
    let three = Three::new();
    for at in three.ends[2]..three.ends[3] {
        let (root, log) = three.again();
        flip(&log, at);
        three.holds(&root, 2, &format!("byte {at}"));
    }
}

#[test]
fn garbage_and_zeros_behind_the_last_frame_are_cut_off() {
    let three = Three::new();
    for tail in [vec![0; 5_000], b"TFR1".repeat(100), vec![0xA5; 70]] {
        let (root, log) = three.again();
        let file = fs::File::options().write(true).open(&log).unwrap();
        file.write_all_at(&tail, three.ends[3]).unwrap();
        three.holds(&root, 3, "with a tail");
    }
    // A frame of the same log, once more: its sum is good, its place in the chain is not.
    let (root, log) = three.again();
    let bytes = fs::read(&log).unwrap();
    let frame = &bytes[three.ends[1] as usize..three.ends[2] as usize];
    let file = fs::File::options().write(true).open(&log).unwrap();
    file.write_all_at(frame, three.ends[3]).unwrap();
    three.holds(&root, 3, "with a frame twice");
}

#[test]
fn a_frame_of_another_past_is_not_taken() {
    let three = Three::new();
    let continued = |values: [i64; 2]| {
        let (root, log) = three.again();
        let copied = three.dir.path().join(format!("past{}", values[0]));
        let (_files, dataset) = open(&root);
        for value in values {
            write(&dataset, [entity("a", value)]);
        }
        fs::copy(&log, &copied).unwrap();
        fs::read(&copied).unwrap()
    };
    let (one, two) = (continued([50, 51]), continued([60, 61]));
    assert_eq!(one.len(), two.len());
    // The fourth commit of one past and the fifth of the other: numbers fit, sums do not.
    let (root, log) = three.again();
    let fourth = three.ends[3] as usize;
    let fifth = fourth + (one.len() - fourth) / 2;
    fs::write(&log, [&one[..fifth], &two[fifth..]].concat()).unwrap();
    let (_files, dataset) = open(&root);
    assert_eq!(versions(&dataset).last().unwrap().2, 50);
}

#[test]
fn a_flipped_byte_before_durable_frames_is_damage() {
    let three = Three::new();
    for at in three.ends[0]..three.ends[2] {
        let readable = if at < three.ends[1] { 0 } else { 1 };
        let (root, log) = three.again();
        flip(&log, at);
        let files = Files::open(&root, Options::default()).unwrap();
        let other = files.open("other", true).unwrap();
        let dataset = files.open("d", true).unwrap();
        assert_eq!(versions(&dataset), three.versions[readable], "byte {at}");
        let mut out = Batch::new();
        assert!(is_damaged(dataset.snapshot()), "byte {at}");
        assert!(is_damaged(dataset.uncommitted()), "byte {at}");
        let found = dataset
            .remains()
            .unwrap()
            .latest(&["a", "b2"], &mut out)
            .unwrap();
        assert_eq!(found, [readable == 1, false]);
        let rows = batch([entity("a", 5)]);
        let refused = dataset.commit(commit(&rows)).map(|_| ());
        let StoreError::Damaged {
            dataset: name,
            found,
        } = refused.unwrap_err()
        else {
            panic!("expected damage at byte {at}");
        };
        assert_eq!(name, "d");
        assert!(found.contains("000001.log") && found.contains(&three.ends[readable].to_string()));
        write(&other, [entity("x", 1)]);
        drop((other, dataset, files));
        // Nothing was changed: with the byte as it was, all is there again.
        flip(&log, at);
        let (_files, dataset) = open(&root);
        assert_eq!(versions(&dataset), three.versions[3]);
    }
}

#[test]
fn after_closing_every_frame_is_known_to_be_durable() {
    let three = Three::new();
    let (root, log) = three.again();
    drop(open(&root));
    flip(&log, three.ends[2] + 20);
    let (_files, dataset) = open(&root);
    assert_eq!(versions(&dataset), three.versions[2]);
    let rows = batch([entity("a", 5)]);
    assert!(is_damaged(dataset.commit(commit(&rows))));
}

#[test]
fn opening_and_closing_leaves_the_log_as_it_is() {
    let three = Three::new();
    let (root, log) = three.again();
    drop(open(&root));
    let closed = fs::read(&log).unwrap();
    for _ in 0..3 {
        drop(open(&root));
        assert_eq!(fs::read(&log).unwrap().len(), closed.len());
    }
}

/// A store with several sealed segments and an index, closed.
fn sealed(dir: &Path) -> (PathBuf, Model) {
    let root = dir.join("sealed");
    let files = Files::open(&root, tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    let (mut dice, mut model) = (Dice(3), Model::default());
    for _ in 0..60 {
        let (entities, state) = random_commit(&mut dice);
        let rows = batch(entities.iter().cloned());
        run(
            &dataset,
            Commit {
                state: &state,
                ..commit(&rows)
            },
        )
        .unwrap();
        entities.iter().for_each(|entity| model.write(entity));
        model.write_state(&state);
    }
    files.close().unwrap();
    assert!(folder(&root, "d").join("000004.log").exists());
    (root, model)
}

fn fits(root: &Path, model: &Model) {
    let (_files, dataset) = open(root);
    model.check(&*dataset.snapshot().unwrap());
    write(&dataset, [entity("new", 1)]);
}

#[test]
fn an_index_that_is_lost_or_ruined_is_built_anew() {
    type Ruin = (&'static str, fn(&Path));
    let ruins: &[Ruin] = &[
        ("removed", |index| fs::remove_dir_all(index).unwrap()),
        ("emptied", |index| {
            fs::remove_file(index.join("data.mdb")).unwrap()
        }),
        ("no bytes", |index| {
            fs::write(index.join("data.mdb"), []).unwrap()
        }),
        ("garbage", |index| {
            fs::write(index.join("data.mdb"), [0x5A; 40_000]).unwrap()
        }),
        ("flipped bytes", |index| {
            // LMDB does not notice: it would say that these ids are unknown.
            let mut bytes = fs::read(index.join("data.mdb")).unwrap();
            let hits = |bytes: &[u8]| bytes.windows(3).position(|three| three == b"id3");
            assert!(hits(&bytes).is_some());
            while let Some(at) = hits(&bytes) {
                bytes[at] ^= 0x20;
            }
            fs::write(index.join("data.mdb"), bytes).unwrap();
        }),
        ("a ruined middle", |index| {
            let data = index.join("data.mdb");
            let file = fs::File::options().write(true).open(&data).unwrap();
            file.write_all_at(&[0x5A; 8_192], 8_192).unwrap();
        }),
        ("half", |index| {
            let data = index.join("data.mdb");
            let file = fs::File::options().write(true).open(&data).unwrap();
            file.set_len(size(&data) / 2 / 4_096 * 4_096).unwrap();
        }),
        ("lock garbage", |index| {
            fs::write(index.join("lock.mdb"), [0x5A; 9_000]).unwrap()
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (origin, model) = sealed(dir.path());
    for (what, ruin) in ruins {
        let root = dir.path().join(what);
        copy(&origin, &root);
        let index = folder(&root, "d").join("index");
        assert!(index.join("data.mdb").exists());
        ruin(&index);
        fits(&root, &model);
    }
}

#[test]
fn the_index_of_another_dataset_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, model) = sealed(dir.path());
    let (other, _) = sealed(&dir.path().join("second"));
    let index = folder(&root, "d").join("index");
    fs::remove_dir_all(&index).unwrap();
    copy(&folder(&other, "d").join("index"), &index);
    fits(&root, &model);
}

#[test]
fn an_older_index_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let (root, mut model) = sealed(dir.path());
    let index = folder(&root, "d").join("index");
    copy(&index, &dir.path().join("old"));
    let files = Files::open(&root, tiny()).unwrap();
    let dataset = files.open("d", false).unwrap();
    for at in 0..40 {
        let entities = [entity("late", at), deleted("id1", at)];
        entities.iter().for_each(|entity| model.write(entity));
        write(&dataset, entities);
    }
    drop((dataset, files));
    fs::remove_dir_all(&index).unwrap();
    copy(&dir.path().join("old"), &index);
    fits(&root, &model);
}

#[test]
fn an_index_that_knows_more_than_the_log_is_evidence_of_damage() {
    let three = Three::new();
    let (root, log) = three.again();
    let files = Files::open(&root, tiny()).unwrap();
    let dataset = files.open("d", false).unwrap();
    write(&dataset, (0..20).map(|at| entity(&format!("more{at}"), at)));
    drop((dataset, files));
    assert!(folder(&root, "d").join("index/data.mdb").exists());
    fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(three.ends[2])
        .unwrap();
    for _ in 0..2 {
        let (_files, dataset) = open(&root);
        assert_eq!(versions(&dataset), three.versions[2]);
        let rows = batch([entity("a", 5)]);
        let refused = dataset.commit(commit(&rows)).map(|_| ()).unwrap_err();
        assert!(
            refused.to_string().contains("its index has seen commit 4"),
            "{refused}"
        );
    }
    // Without the index and the note there is no evidence, and what is left is the dataset.
    fs::remove_dir_all(folder(&root, "d").join("index")).unwrap();
    fs::remove_file(folder(&root, "d").join("END")).unwrap();
    three.holds(&root, 2, "the index and the note removed by hand");
}

#[test]
fn damage_in_a_sealed_segment_is_found_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let (root, model) = sealed(dir.path());
    let folder = folder(&root, "d");
    fs::remove_dir_all(folder.join("index")).unwrap();
    flip(
        &folder.join("000002.log"),
        size(&folder.join("000002.log")) / 2,
    );
    let (_files, dataset) = open(&root);
    let readable = versions(&dataset);
    assert!(!readable.is_empty() && readable.len() < model.versions.len());
    assert_eq!(readable, model.versions[..readable.len()]);
    let rows = batch([entity("a", 5)]);
    let refused = dataset.commit(commit(&rows)).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("000002.log"), "{refused}");
}

#[test]
fn damage_in_a_sealed_segment_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (root, model) = sealed(dir.path());
    let log = folder(&root, "d").join("000002.log");
    let header = fs::read(&log)
        .unwrap()
        .windows(4)
        .position(|bytes| bytes == b"TFR1")
        .unwrap();
    flip(&log, header as u64 + 64 + 40);
    let (_files, dataset) = open(&root);
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(snapshot.head().next, model.versions.len() as u64);
    let mut out = Batch::new();
    let read = snapshot.changes(None, HISTORY, ALL, &mut out);
    assert!(
        matches!(&read, Err(StoreError::Damaged { found, .. }) if found.contains("000002.log"))
    );
    assert_eq!(
        short(&out),
        model.versions[..out.len()],
        "what stands before it came"
    );
    let rows = batch([entity("a", 5)]);
    assert!(
        is_damaged(dataset.commit(commit(&rows))),
        "nothing is written after that"
    );
}

#[test]
fn a_ruined_footer_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (origin, model) = sealed(dir.path());
    for (at, with_index) in [(1u64, true), (9, true), (30, true), (1, false), (30, false)] {
        let root = dir.path().join(format!("{at}{with_index}"));
        copy(&origin, &root);
        let folder = folder(&root, "d");
        flip(
            &folder.join("000002.log"),
            size(&folder.join("000002.log")) - at,
        );
        if !with_index {
            fs::remove_dir_all(folder.join("index")).unwrap();
        }
        fits(&root, &model);
    }
}

#[test]
fn a_missing_segment_is_damage() {
    for number in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (root, model) = sealed(dir.path());
        fs::remove_file(folder(&root, "d").join(format!("00000{number}.log"))).unwrap();
        let files = Files::open(&root, Options::default()).unwrap();
        assert!(files.list().unwrap().iter().any(|head| head.name == "d"));
        match files.open("d", true) {
            Ok(dataset) => {
                assert_eq!(
                    number, 2,
                    "without a first segment there is nothing to read"
                );
                let readable = versions(&dataset);
                assert_eq!(readable, model.versions[..readable.len()]);
                let rows = batch([entity("a", 5)]);
                assert!(is_damaged(dataset.commit(commit(&rows))));
            }
            Err(error) => assert!(is_damaged::<()>(Err(error))),
        }
    }
}

#[test]
fn a_lost_manifest_loses_no_name() {
    let three = Three::new();
    let (root, _) = three.again();
    let manifest = folder(&root, "d").join("MANIFEST");
    let text = fs::read_to_string(&manifest).unwrap();
    for ruined in [
        None,
        Some(text.replace("segments 1", "segments 7")),
        Some(String::new()),
    ] {
        match ruined {
            None => fs::remove_file(&manifest).unwrap(),
            Some(ruined) => fs::write(&manifest, ruined).unwrap(),
        }
        let files = Files::open(&root, Options::default()).unwrap();
        assert!(
            is_damaged(files.open("d", true)),
            "it is not made anew beside the old one"
        );
        write(&files.open("other", true).unwrap(), [entity("x", 1)]);
    }
    fs::write(&manifest, text).unwrap();
    three.holds(&root, 3, "the manifest restored");
}

#[test]
fn other_formats_are_refused_with_both_numbers() {
    let three = Three::new();
    let (root, _) = three.again();
    for (text, number) in [
        ("tahini store 4\n", 4),
        ("tahini store 0\n", 0),
        ("something else", 0),
    ] {
        fs::write(root.join("FORMAT"), text).unwrap();
        let refused = Files::open(&root, Options::default())
            .map(|_| ())
            .unwrap_err();
        let StoreError::Format {
            path,
            expected: 3,
            found,
        } = refused
        else {
            panic!("{refused}")
        };
        assert!(path.ends_with("FORMAT"));
        assert_eq!(found, number);
    }
    fs::remove_file(root.join("FORMAT")).unwrap();
    let refused = Files::open(&root, Options::default()).map(|_| ());
    assert!(matches!(refused, Err(StoreError::Format { found: 0, .. })));

    let (root, log) = three.again();
    let manifest = folder(&root, "d").join("MANIFEST");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("format 3", "format 9")).unwrap();
    let files = Files::open(&root, Options::default()).unwrap();
    let refused = files.open("d", true).map(|_| ());
    assert!(matches!(
        refused,
        Err(StoreError::Format {
            expected: 3,
            found: 9,
            ..
        })
    ));
    write(&files.open("other", true).unwrap(), [entity("x", 1)]);
    drop(files);

    fs::write(&manifest, text).unwrap();
    let file = fs::File::options().write(true).open(&log).unwrap();
    file.write_all_at(&4u32.to_le_bytes(), 8).unwrap();
    let files = Files::open(&root, Options::default()).unwrap();
    let refused = files.open("d", true).map(|_| ());
    assert!(matches!(
        refused,
        Err(StoreError::Format {
            expected: 3,
            found: 4,
            ..
        })
    ));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let second = Files::open(dir.path(), Options::default()).map(|_| ());
    assert!(matches!(second, Err(StoreError::InUse { .. })));
    let dataset = files.open("d", true).unwrap();
    write(&dataset, [entity("a", 1)]);
    drop(files);
    let second = Files::open(dir.path(), Options::default()).map(|_| ());
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "a dataset is still in use"
    );
    drop(dataset);
    assert_eq!(versions(&open(dir.path()).1).len(), 1);
}

#[test]
fn what_was_being_made_or_removed_is_cleared_away() {
    let three = Three::new();
    let (root, log) = three.again();
    let datasets = root.join("datasets");
    let name = |end: &str| datasets.join(format!("00000000-0000-4000-8000-00000000000a.{end}"));
    copy(&folder(&root, "d"), &name("new"));
    copy(&folder(&root, "d"), &name("removed"));
    fs::copy(&log, log.with_file_name("000002.log")).unwrap();
    three.holds(&root, 3, "with leftovers");
    assert_eq!(fs::read_dir(&datasets).unwrap().count(), 1);
    fs::write(datasets.join("notes.txt"), "somebody's").unwrap();
    fs::create_dir(datasets.join("lost+found")).unwrap();
    let files = Files::open(&root, Options::default()).unwrap();
    assert_eq!(files.list().unwrap().len(), 1);
    assert!(
        datasets.join("notes.txt").exists(),
        "what is not ours is left alone"
    );
}

#[test]
fn a_removed_dataset_is_gone_from_disk_and_old_readers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, [entity("a", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    files.remove("d").unwrap();
    assert_eq!(
        fs::read_dir(dir.path().join("datasets")).unwrap().count(),
        0
    );
    assert_eq!(changes(&*snapshot, HISTORY, ALL).len(), 1);
    assert!(matches!(
        dataset.snapshot().map(|_| ()),
        Err(StoreError::Missing(_))
    ));
    drop((snapshot, dataset, files));
    let files = Files::open(dir.path(), Options::default()).unwrap();
    assert!(files.find("d").unwrap().is_none());
}

#[test]
fn more_datasets_than_indexes_may_be_open() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        open_indexes: 3,
        ..tiny()
    };
    let files = Files::open(dir.path(), options()).unwrap();
    for round in 0..3 {
        for number in 0..12 {
            let dataset = files.open(&format!("d{number}"), true).unwrap();
            write(&dataset, (0..8).map(|at| entity(&format!("e{at}"), round)));
        }
    }
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let inside = |path: &PathBuf| path.starts_with(dir.path()) && path.ends_with("data.mdb");
    let indexes: std::collections::BTreeSet<PathBuf> = open.filter(inside).collect();
    assert!(
        (1..=3).contains(&indexes.len()),
        "found {} open",
        indexes.len()
    );
    for number in 0..12 {
        let dataset = files.open(&format!("d{number}"), false).unwrap();
        assert_eq!(changes(&*dataset.snapshot().unwrap(), LATEST, ALL).len(), 8);
    }
}

#[test]
fn an_index_outgrows_its_map() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        map_bytes: 128 << 10,
        overlay_keys: 500,
        ..Options::default()
    };
    let files = Files::open(dir.path(), options.clone()).unwrap();
    let dataset = files.open("d", true).unwrap();
    for round in 0..12 {
        write(
            &dataset,
            (0..1_000).map(|at| entity(&format!("entity-{round}-{at:05}"), at)),
        );
    }
    let check = |dataset: &Arc<dyn Dataset>| {
        let mut out = Batch::new();
        let ids = ["entity-0-00007", "entity-11-00999"];
        assert_eq!(
            dataset.snapshot().unwrap().latest(&ids, &mut out).unwrap(),
            [true, true]
        );
    };
    check(&dataset);
    drop((dataset, files));
    let files = Files::open(dir.path(), options).unwrap();
    check(&files.open("d", false).unwrap());
}
