//! Saving a store while it is written to, and opening what was saved.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tahini_store::{
    Backend, Commit, Compaction, Dataset, Files, Memory, Options, StateWrite, StoreError, Verified,
};

use crate::contract::compaction::thorough;
use crate::contract::tiny;
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::rows::*;

fn copy(from: &Path, to: &Path) {
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

/// Opens a copy of the backup, so that the backup stays one.
fn restore(backup: &Path, to: &Path) -> Files {
    let _ = fs::remove_dir_all(to);
    copy(backup, to);
    Files::open(to, tiny()).unwrap()
}

fn all(files: &Files, name: &str) -> Vec<Short> {
    let dataset = files.open(name, false).unwrap();
    changes(&*dataset.snapshot().unwrap(), HISTORY, ALL)
}

#[test]
fn what_was_saved_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (root, saved, back) = (
        dir.path().join("store"),
        dir.path().join("saved"),
        dir.path().join("back"),
    );
    let files = Files::open(&root, tiny()).unwrap();
    let (one, two) = (
        files.open("one", true).unwrap(),
        files.open("two\nlines", true).unwrap(),
    );
    files.open("gone", true).unwrap();
    for round in 0..40 {
        write(&one, [entity("a", round), entity(&format!("b{round}"), 1)]);
    }
    write_state(&two, &[set("s", b"key", b"value")]);
    let first = files.backup(&saved).unwrap();
    assert_eq!((first.datasets, first.kept_bytes), (3, 0));
    assert!(first.skipped.is_empty());
    let again = files.backup(&saved).unwrap();
    assert_eq!(
        (again.copied_bytes, again.kept_bytes),
        (0, first.copied_bytes),
        "nothing is new"
    );

    let before = all(&files, "one");
    files.remove("gone").unwrap();
    write(&one, [entity("a", 99)]);
    let third = files.backup(&saved).unwrap();
    assert!(
        third.copied_bytes > 0 && third.copied_bytes < first.copied_bytes / 2,
        "only the newest segment is copied again: {third:?}"
    );
    let restored = restore(&saved, &back);
    let names: Vec<String> = restored
        .list()
        .unwrap()
        .into_iter()
        .map(|head| head.name)
        .collect();
    assert_eq!(names, ["one", "two\nlines"]);
    assert_eq!(all(&restored, "one")[..before.len()], before);
    assert_eq!(all(&restored, "one"), all(&files, "one"));
    let two = restored.open("two\nlines", false).unwrap();
    let state = two.snapshot().unwrap().state("s", b"").unwrap();
    assert_eq!(state, [(b"key".to_vec(), b"value".to_vec())]);
    write(&restored.open("one", false).unwrap(), [entity("a", 100)]);
}

#[test]
fn a_restored_dataset_is_another_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (saved, back) = (dir.path().join("saved"), dir.path().join("back"));
    let files = Files::open(&dir.path().join("store"), tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, (0..10).map(|at| entity(&format!("i{at}"), 1)));
    files.backup(&saved).unwrap();
    write(&dataset, (0..10).map(|at| entity(&format!("i{at}"), 2)));
    let origin = dataset.snapshot().unwrap().head().generation;

    let mut generations = vec![origin];
    for _ in 0..2 {
        let restored = restore(&saved, &back);
        let dataset = restored.open("d", false).unwrap();
        let head = dataset.snapshot().unwrap().head().clone();
        assert_eq!(head.next, 10);
        assert!(
            !generations.contains(&head.generation),
            "each restoring goes its own way"
        );
        // Who has read what both share goes on; who has read further must not wait until the
        // numbers are reached again and miss what they stand for then.
        assert!(head.continues(origin, 9));
        assert!(!head.continues(origin, 10) && !head.continues(origin, 15));
        write(&dataset, (0..10).map(|at| entity(&format!("i{at}"), 3)));
        let head = dataset.snapshot().unwrap().head().clone();
        assert!(!head.continues(origin, 15) && head.continues(head.generation, 15));
        assert!(!head.continues(uuid::Uuid::from_u128(1), 0));
        generations.push(head.generation);
        drop((dataset, restored));
        let reopened = Files::open(&back, tiny()).unwrap();
        let dataset = reopened.open("d", false).unwrap();
        let again = dataset.snapshot().unwrap().head().clone();
        assert_eq!(
            (again.generation, &again.past),
            (head.generation, &head.past),
            "opening it again changes nothing"
        );
        drop(dataset);

        // A backup of what was restored, restored: places of both generations before are judged.
        let second = dir.path().join("second");
        let _ = fs::remove_dir_all(&second);
        reopened.backup(&second).unwrap();
        let twice = restore(&second, &dir.path().join("twice"));
        let twice = twice.open("d", false).unwrap();
        let twice = twice.snapshot().unwrap().head().clone();
        assert!(twice.continues(head.generation, 19) && !twice.continues(head.generation, 20));
        assert!(twice.continues(origin, 9) && !twice.continues(origin, 10));
    }
}

/// Two lives of one backup write as many bytes into the same segment, one after the other, and are
/// saved to the same folder.
#[test]
fn a_backup_tells_two_lives_of_a_restored_dataset_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (saved, daily) = (dir.path().join("saved"), dir.path().join("daily"));
    let files = Files::open(&dir.path().join("store"), tiny()).unwrap();
    write(&files.open("d", true).unwrap(), [entity("a", 1)]);
    files.backup(&saved).unwrap();
    for life in [2, 3] {
        let back = dir.path().join(format!("back{life}"));
        let restored = restore(&saved, &back);
        let dataset = restored.open("d", false).unwrap();
        write(&dataset, [entity("a", life)]);
        restored.backup(&daily).unwrap();
        let again = dir.path().join(format!("again{life}"));
        let again = restore(&daily, &again);
        assert_eq!(all(&again, "d"), all(&restored, "d"));
    }
}

#[test]
fn a_backup_goes_nowhere_where_it_does_harm() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let files = Files::open(&root, tiny()).unwrap();
    write(&files.open("d", true).unwrap(), [entity("a", 1)]);
    assert!(matches!(files.backup(&root), Err(StoreError::InUse { .. })));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "dear").unwrap();
    assert!(matches!(files.backup(&other), Err(StoreError::Refused(_))));
    let saved = dir.path().join("saved");
    files.backup(&saved).unwrap();
    drop(Files::open(&saved, tiny()).unwrap());
    assert!(
        matches!(files.backup(&saved), Err(StoreError::Refused(_))),
        "it was opened, and is a store now"
    );
    assert!(matches!(
        Memory::new().backup(&saved),
        Err(StoreError::Refused(_))
    ));
}

#[test]
fn a_damaged_dataset_is_named_and_its_older_copy_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (root, saved) = (dir.path().join("store"), dir.path().join("saved"));
    let files = Files::open(&root, tiny()).unwrap();
    write(&files.open("d", true).unwrap(), [entity("a", 1)]);
    files.backup(&saved).unwrap();
    drop(files);
    for dataset in fs::read_dir(root.join("datasets")).unwrap() {
        fs::write(dataset.unwrap().path().join("MANIFEST"), "scribble").unwrap();
    }
    let files = Files::open(&root, tiny()).unwrap();
    write(&files.open("other", true).unwrap(), [entity("x", 1)]);
    let done = files.backup(&saved).unwrap();
    assert_eq!((done.datasets, done.skipped), (1, vec!["d".to_owned()]));
    let restored = restore(&saved, &dir.path().join("back"));
    assert_eq!(all(&restored, "d"), [(0, "a".to_owned(), 1, false)]);
}

/// Writes to `source`, reads it and notes the place in `sink`, as pipes do.
fn work(source: &Arc<dyn Dataset>, sink: &Arc<dyn Dataset>, round: i64) {
    write(
        source,
        [
            entity("a", round),
            entity(&format!("b{}", round % 9), round),
        ],
    );
    let snapshot = source.snapshot().unwrap();
    let place = snapshot.head().next.to_le_bytes();
    let rows = batch([entity("copy", round)]);
    let state: [StateWrite; 1] = [set("pipe", b"since", &place)];
    run(
        sink,
        Commit {
            state: &state,
            ..commit(&rows)
        },
    )
    .unwrap();
}

#[test]
fn a_backup_beside_writers_is_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let files = Files::open(&dir.path().join("store"), tiny()).unwrap();
    // The source comes first by name: one after the other, the sink would be saved with places in
    // it that the source was saved without.
    let (source, sink) = (
        files.open("a-source", true).unwrap(),
        files.open("z-sink", true).unwrap(),
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !over.load(Ordering::Acquire) {
                work(&source, &sink, round);
                round += 1;
                if round % 10 == 0 {
                    let rules = Compaction {
                        keep_versions: Some(1),
                        ..thorough()
                    };
                    source.compact(&rules).unwrap();
                }
            }
        });
        // A check that fails ends the writer, too.
        let _end = Ends(&over);
        for at in 0..12 {
            files.backup(&saved).unwrap();
            let restored = restore(&saved, &dir.path().join(format!("back{at}")));
            let head = |name: &str| {
                let dataset = restored.open(name, true).unwrap();
                dataset.snapshot().unwrap()
            };
            let place = head("z-sink").state("pipe", b"since").unwrap();
            let place = place.first().map_or(0, |(_, place)| {
                u64::from_le_bytes(place.as_slice().try_into().unwrap())
            });
            let source = head("a-source");
            assert!(
                place <= source.head().next,
                "the sink knows {place} versions of {}",
                source.head().next
            );
            let rows = changes(&*source, LATEST, ALL);
            assert_eq!(rows.len() as u64, source.head().live);
            let newest = rows.iter().map(|row| row.0).max();
            assert_eq!(newest, source.head().next.checked_sub(1));
        }
    });
}

/// Says that the work is over when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn power_goes_in_a_backup() {
    let mut moment = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble::default());
        let options = |disk: &LyingDisk| Options {
            disk: Arc::new(disk.clone()),
            ..tiny()
        };
        let files = Files::open(&root, options(&disk)).unwrap();
        let dataset = files.open("d", true).unwrap();
        let saved = root.join("saved");
        for round in 0..12 {
            write(
                &dataset,
                [entity("a", round), entity(&format!("b{round}"), 1)],
            );
        }
        files.backup(&saved).unwrap();
        let first = all(&files, "d");
        let rules = Compaction {
            keep_versions: Some(1),
            ..thorough()
        };
        dataset.compact(&rules).unwrap();
        for round in 0..6 {
            write(
                &dataset,
                [entity("c", round), entity(&format!("d{round}"), 1)],
            );
        }
        write(&files.open("e", true).unwrap(), [entity("x", 1)]);
        let second = all(&files, "d");
        disk.trouble(Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        });
        let done = files.backup(&saved).is_ok();
        let off = disk.is_off();
        drop((dataset, files));
        for loss in [Loss::Everything, Loss::Nothing, Loss::Some(moment)] {
            let disk = disk.reboot(loss);
            let files = Files::open(&saved, options(&disk)).unwrap();
            let found = all(&files, "d");
            let context = format!("power off at {moment}, losing {loss:?}");
            assert!(found == second || (!done && found == first), "{context}");
            let other = files.find("e").unwrap();
            assert!(other.is_some() || !done, "{context}");
            if let Some(other) = other {
                let rows = changes(&*other.snapshot().unwrap(), HISTORY, ALL);
                assert_eq!(rows.len(), 1, "{context}");
            }
            write(&files.open("d", false).unwrap(), [entity("new", 1)]);
            drop(files);
            let _ = fs::remove_dir_all(saved.join("datasets"));
        }
        if !off {
            assert!(done && moment > 10);
            return;
        }
        moment += 1;
    }
}

/// All files below a folder with what is in them.
fn contents(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

#[test]
fn a_whole_backup_reads_through_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let files = Files::open(&dir.path().join("store"), tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    for round in 0..40 {
        write(
            &dataset,
            [entity("a", round), entity(&format!("b{round}"), 1)],
        );
    }
    let rules = Compaction {
        keep_versions: Some(1),
        ..thorough()
    };
    assert!(dataset.compact(&rules).unwrap().versions > 0);
    for round in 0..20 {
        write(&dataset, [entity(&format!("c{round}"), round)]);
    }
    write_state(
        &files.open("two", true).unwrap(),
        &[set("s", b"key", b"value")],
    );
    files.backup(&saved).unwrap();
    let before = contents(&saved);
    assert!(before.len() > 8, "several segments");
    let found = Verified::of(&saved).unwrap();
    assert_eq!((found.datasets, found.versions), (2, 100));
    assert!(found.damaged.is_empty(), "{found:?}");
    assert_eq!(contents(&saved), before);

    let logs: Vec<_> = before
        .keys()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    for log in logs {
        fs::remove_file(log).unwrap();
        let found = Verified::of(&saved).unwrap();
        let shown = log.display().to_string();
        assert!(
            matches!(&found.damaged[..], [(_, why)] if why.contains(&shown)),
            "{shown} is missing: {found:?}"
        );
        fs::write(log, &before[log]).unwrap();
    }
    assert!(matches!(
        Verified::of(dir.path()),
        Err(StoreError::Io { .. })
    ));
}

#[test]
fn every_changed_byte_of_a_backup_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let files = Files::open(&dir.path().join("store"), Options::default()).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, (0..20).map(|at| entity(&format!("i{at}"), at)));
    write_state(&dataset, &[set("s", b"key", b"value")]);
    write(&files.open("whole", true).unwrap(), [entity("a", 1)]);
    files.backup(&saved).unwrap();
    let own = |path: &Path| {
        let manifest = fs::read_to_string(path.parent().unwrap().join("MANIFEST"));
        manifest.is_ok_and(|text| text.contains("\nname d\n"))
    };
    let before = contents(&saved);
    let damaged = before.iter().filter(|(path, _)| own(path));
    let mut checked = 0;
    for (path, bytes) in damaged {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            // The line's end behind the manifest's sum says nothing.
            if at + 1 == bytes.len() && path.ends_with("MANIFEST") {
                continue;
            }
            fs::write(path, changed).unwrap();
            let found = Verified::of(&saved).unwrap();
            assert_eq!(found.damaged.len(), 1, "byte {at} of {}", path.display());
            assert_eq!(found.datasets, 1, "the other one is whole");
            checked += 1;
        }
        for end in [0, 1, bytes.len() / 2, bytes.len() - 2] {
            fs::write(path, &bytes[..end]).unwrap();
            let found = Verified::of(&saved).unwrap();
            assert_eq!(found.damaged.len(), 1, "{} cut at {end}", path.display());
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(checked > 500, "only {checked} bytes");
}
