//! A log that ends with a whole frame, and earlier than it once did.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Dataset, Files, Options, Show, StoreError, Verified};

use crate::contract::tiny;
use crate::recovery::{copy, folder};
use crate::rows::*;

fn open(root: &Path, options: Options) -> (Files, Arc<dyn Dataset>) {
    let files = Files::open(root, options).unwrap();
    let dataset = files.open("d", true).unwrap();
    (files, dataset)
}

fn cut(log: &Path, size: u64) {
    let file = fs::File::options().write(true).open(log).unwrap();
    file.set_len(size).unwrap();
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// A dataset of five commits, too small for an index, closed; where each frame ends.
fn closed(root: &Path) -> (PathBuf, Vec<u64>) {
    let (files, dataset) = open(root, Options::default());
    let log = folder(root, "d").join("000001.log");
    let mut ends = vec![size(&log)];
    for round in 0..5 {
        write(&dataset, [entity(&format!("id{round}"), round)]);
        ends.push(size(&log));
    }
    files.close().unwrap();
    drop((dataset, files));
    assert!(!folder(root, "d").join("index").exists());
    (log, ends)
}

/// What the dataset answers to whoever asks for all of it and to whoever writes.
fn refusals(root: &Path) -> [String; 2] {
    let (_files, dataset) = open(root, Options::default());
    let read = dataset.snapshot().map(|_| ());
    let rows = batch([entity("more", 1)]);
    let written = dataset.commit(commit(&rows)).map(|_| ());
    [read, written].map(|result| match result {
        Err(StoreError::Damaged { dataset, found }) if dataset == "d" => found,
        other => panic!("expected damage, found {other:?}"),
    })
}

#[test]
fn a_log_that_is_cut_between_frames_after_it_was_closed_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("origin");
    let (log, ends) = closed(&root);
    let whole = fs::read(&log).unwrap();
    for (commits, end) in ends.iter().enumerate() {
        cut(&log, *end);
        for found in refusals(&root) {
            assert!(
                found.contains(&format!("ends at commit {commits},")) && found.contains("closed"),
                "{found}"
            );
        }
        let (files, dataset) = open(&root, Options::default());
        let left = changes(&*dataset.remains().unwrap(), HISTORY, ALL);
        assert_eq!(left.len(), commits, "what stands before can be read");
        let damaged = files.damaged();
        assert_eq!(damaged.len(), 1);
        assert_eq!(files.damage("d").as_ref(), Some(&damaged[0].1));
        assert_eq!(files.damage("another"), None);
        drop((dataset, files));
        assert_eq!(size(&log), *end, "nothing is changed");
        assert_eq!(Verified::of(&root).unwrap().damaged.len(), 1);
        fs::write(&log, &whole).unwrap();
    }
    // Cut within a frame the rest stays, since it is no torn end.
    cut(&log, ends[4] + 10);
    for found in refusals(&root) {
        assert!(found.contains(&ends[4].to_string()), "{found}");
    }
    assert_eq!(size(&log), ends[4] + 10);
    fs::write(&log, &whole).unwrap();
    assert!(Verified::of(&root).unwrap().damaged.is_empty());
    let (_files, dataset) = open(&root, Options::default());
    assert_eq!(
        changes(&*dataset.snapshot().unwrap(), HISTORY, ALL).len(),
        5
    );
}

#[test]
fn what_was_there_when_it_was_closed_is_the_least_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("origin");
    let (log, ends) = closed(&root);
    let end = size(&log);
    let (files, dataset) = open(&root, Options::default());
    write(&dataset, [entity("late", 1)]);
    let killed = dir.path().join("killed");
    copy(&root, &killed);
    drop((dataset, files));
    let log = folder(&killed, "d").join(log.file_name().unwrap());
    // What came after the note may be missing, what came before may not.
    cut(&log, end);
    let (files, dataset) = open(&killed, Options::default());
    assert_eq!(
        changes(&*dataset.snapshot().unwrap(), HISTORY, ALL).len(),
        5
    );
    drop((dataset, files));
    cut(&log, ends[3]);
    refusals(&killed);
}

#[test]
fn changes_behind_the_last_index_are_missed_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        overlay_keys: 30,
        ..Options::default()
    };
    let (files, dataset) = open(dir.path(), options());
    for round in 0..40 {
        write(&dataset, [entity(&format!("id{round}"), round)]);
    }
    let log = folder(dir.path(), "d").join("000001.log");
    let end = size(&log);
    write(&dataset, [entity("last", 1)]);
    drop((dataset, files));
    assert!(folder(dir.path(), "d").join("index").exists());
    cut(&log, end);
    let (_files, dataset) = open(dir.path(), options());
    assert!(matches!(
        dataset.snapshot().map(|_| ()),
        Err(StoreError::Damaged { .. })
    ));
    let left = dataset.remains().unwrap();
    let (mut out, ids) = (Batch::new(), ["id7", "id39", "last"]);
    assert_eq!(left.latest(&ids, &mut out).unwrap(), [true, true, false]);
}

#[test]
fn an_older_manifest_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let (files, dataset) = open(dir.path(), tiny());
    write(&dataset, [entity("first", 1)]);
    let manifest = folder(dir.path(), "d").join("MANIFEST");
    let older = fs::read(&manifest).unwrap();
    for round in 0..60 {
        write(&dataset, [entity(&format!("id{round}"), round)]);
    }
    drop((dataset, files));
    let folder = folder(dir.path(), "d");
    fs::remove_dir_all(folder.join("index")).unwrap();
    let newer = fs::read(&manifest).unwrap();
    let logs = ["000001.log", "000002.log"].map(|name| folder.join(name));
    let before = logs.clone().map(|log| fs::read(log).unwrap());
    fs::write(&manifest, older).unwrap();
    refusals(dir.path());
    assert_eq!(logs.map(|log| fs::read(log).unwrap()), before);
    fs::write(&manifest, newer).unwrap();
    let (_files, dataset) = open(dir.path(), tiny());
    assert_eq!(dataset.snapshot().unwrap().head().live, 61);
}

#[test]
fn what_was_held_back_when_it_was_closed_may_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (files, dataset) = open(dir.path(), Options::default());
    write(&dataset, [entity("seen", 1)]);
    for round in 0..3 {
        let rows = batch([entity(&format!("held{round}"), 1)]);
        let held = Commit {
            show: Show::Later,
            ..commit(&rows)
        };
        run(&dataset, held).unwrap();
    }
    drop((dataset, files));
    let (files, dataset) = open(dir.path(), Options::default());
    dataset.roll_back().unwrap();
    // As a kill would leave it.
    let killed = dir.path().with_extension("killed");
    copy(dir.path(), &killed);
    drop((dataset, files));
    for root in [&killed, &dir.path().to_owned()] {
        let (_files, dataset) = open(root, Options::default());
        assert_eq!(
            changes(&*dataset.snapshot().unwrap(), HISTORY, ALL).len(),
            1
        );
        write(&dataset, [entity("more", 1)]);
    }
    fs::remove_dir_all(killed).unwrap();
}

#[test]
fn a_note_that_is_lost_torn_or_anothers_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("origin");
    let (log, ends) = closed(&root);
    let note = folder(&root, "d").join("END");
    let text = fs::read_to_string(&note).unwrap();
    let (other, _) = closed(&dir.path().join("other"));
    let other = fs::read_to_string(other.with_file_name("END")).unwrap();
    cut(&log, ends[2]);
    refusals(&root);
    for wrong in [&text[..text.len() / 2], "", &other] {
        let again = dir.path().join("again");
        copy(&root, &again);
        fs::write(folder(&again, "d").join("END"), wrong).unwrap();
        let (files, dataset) = open(&again, Options::default());
        assert_eq!(dataset.snapshot().unwrap().head().next, 2);
        drop((dataset, files));
        fs::remove_dir_all(again).unwrap();
    }
}
