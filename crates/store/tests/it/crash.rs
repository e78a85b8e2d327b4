//! What is left after the power went, a sync failed or the disk was full: every acknowledged
//! commit, and of the others a prefix.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tahini_entity::Batch;
use tahini_store::{Ask, Backend, Commit, Dataset, Files, Options, StoreError, Ticket};

use crate::contract::indexes::declare;
use crate::contract::tiny;
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::model::{Dice, Model, random_commit};
use crate::rows::*;

const COMMITS: usize = 14;

/// A store on a disk that fails, and what it must and may hold.
struct Crash {
    root: PathBuf,
    /// The model after each commit that was tried, from none on.
    tried: Vec<Model>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    /// Whether the dataset itself was acknowledged.
    made: bool,
    overlay_keys: usize,
}

fn options(disk: &LyingDisk) -> Options {
    // Larger than the contract's, so that most commits do not write the index.
    Options {
        disk: Arc::new(disk.clone()),
        overlay_keys: 25,
        ..tiny()
    }
}

impl Crash {
    fn new(dir: &Path) -> Crash {
        let root = dir.join("store.root");
        Crash {
            root,
            tried: vec![Model::default()],
            acknowledged: 0,
            made: false,
            overlay_keys: 25,
        }
    }

    fn options(&self, disk: &LyingDisk) -> Options {
        Options {
            overlay_keys: self.overlay_keys,
            ..options(disk)
        }
    }

    /// Works until the end or the first error.
    fn work(&mut self, disk: &LyingDisk, seed: u64) -> Result<(), StoreError> {
        let files = Files::open(&self.root, self.options(disk))?;
        declare(&files, "d", &["x"]);
        let dataset = files.open("d", true)?;
        self.made = true;
        let mut dice = Dice(seed);
        for _ in 0..COMMITS {
            self.commit(&dataset, &mut dice)?;
        }
        files.close()?;
        self.acknowledged = self.tried.len() - 1;
        Ok(())
    }

    /// Commits, and leaves it to others when that becomes durable.
    fn begin(
        &mut self,
        dataset: &Arc<dyn Dataset>,
        dice: &mut Dice,
        delay: Duration,
    ) -> Result<Ticket, StoreError> {
        let (entities, state) = random_commit(dice);
        let mut model = self.tried.last().unwrap().clone();
        entities.iter().for_each(|entity| model.write(entity));
        model.write_state(&state);
        self.tried.push(model);
        let rows = batch(entities);
        let commit = Commit {
            state: &state,
            ..commit(&rows)
        };
        Ok(dataset.commit_within(commit, delay)?.1)
    }

    fn commit(&mut self, dataset: &Arc<dyn Dataset>, dice: &mut Dice) -> Result<(), StoreError> {
        let ticket = self.begin(dataset, dice, Duration::ZERO)?;
        if dice.roll(3) > 0 {
            ticket.wait()?;
            // The index takes in what is durable, and is to know no more than that.
            let snapshot = dataset.snapshot()?;
            assert!(snapshot.find("x", &[], &Ask::LATEST, &mut Vec::new())?);
            self.acknowledged = self.tried.len() - 1;
        }
        Ok(())
    }

    /// Opens the store on what is left, checks it, and goes on working on it.
    fn check(&self, disk: &LyingDisk, context: &str) {
        let files = Files::open(&self.root, self.options(disk)).unwrap();
        declare(&files, "d", &["x"]);
        let Some(dataset) = files.find("d").unwrap() else {
            assert!(
                !self.made,
                "the dataset was acknowledged and is gone: {context}"
            );
            return;
        };
        let snapshot = dataset.snapshot().unwrap();
        let versions = changes(&*snapshot, HISTORY, ALL);
        let state: std::collections::BTreeMap<_, _> =
            snapshot.state("s", b"").unwrap().into_iter().collect();
        let fits = |model: &&Model| model.versions == versions && model.state == state;
        let found = self.tried[self.acknowledged..].iter().find(fits);
        let Some(found) = found else {
            panic!(
                "expected one of the commits {}..={}, found {} versions: {context}",
                self.acknowledged,
                self.tried.len() - 1,
                versions.len()
            );
        };
        found.check(&*snapshot);
        drop(snapshot);
        let mut after = Crash {
            tried: vec![found.clone()],
            ..Crash::new(Path::new(""))
        };
        let mut dice = Dice(99);
        for _ in 0..4 {
            if let Err(error) = after.commit(&dataset, &mut dice) {
                panic!("{error}: {context}");
            }
        }
        drop((dataset, files));
        let files = Files::open(&self.root, self.options(disk)).unwrap();
        let dataset = files.open("d", false).unwrap();
        after
            .tried
            .last()
            .unwrap()
            .check(&*dataset.snapshot().unwrap());
    }
}

/// Pulls the plug at every operation of the work.
fn pull_the_plug(overlay_keys: usize, loss: impl Fn(u64) -> Loss) {
    let mut moment = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash {
            overlay_keys,
            ..Crash::new(dir.path())
        };
        let trouble = Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        };
        let disk = LyingDisk::new(trouble);
        let worked = crash.work(&disk, 1);
        assert_eq!(
            worked.is_err(),
            disk.is_off() && crash.acknowledged < COMMITS
        );
        let loss = loss(moment);
        crash.check(
            &disk.reboot(loss),
            &format!("power off at {moment}, losing {loss:?}"),
        );
        if !disk.is_off() {
            assert!(moment > 50, "the work has many moments");
            return;
        }
        moment += 1;
    }
}

#[test]
fn power_goes_and_unsynced_bytes_are_lost() {
    pull_the_plug(25, |_| Loss::Everything);
}

#[test]
fn power_goes_and_the_index_does_not_know_more_than_the_log() {
    pull_the_plug(1, |_| Loss::Everything);
}

/// The process ends, and then the power goes while another one looks at what the page cache kept.
#[test]
fn power_goes_in_an_opening_and_the_index_does_not_know_more_than_the_log() {
    for moment in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash {
            made: true,
            ..Crash::new(dir.path())
        };
        let disk = LyingDisk::new(Trouble::default());
        let one_segment = |overlay_keys: usize, disk: &LyingDisk| Options {
            segment_bytes: 1 << 20,
            overlay_keys,
            overlay_state_bytes: 1 << 20,
            ..options(disk)
        };
        let open = || {
            let files = Files::open(&crash.root, one_segment(10_000, &disk)).unwrap();
            declare(&files, "d", &["x"]);
            let dataset = files.open("d", true).unwrap();
            (files, dataset)
        };
        // There is an index already, so that it knows a place in the log.
        open().0.close().unwrap();
        let (files, dataset) = open();
        let syncs = disk.counts().0;
        let mut dice = Dice(3);
        for _ in 0..COMMITS {
            let hour = Duration::from_secs(3600);
            drop(crash.begin(&dataset, &mut dice, hour).unwrap());
        }
        assert_eq!(disk.counts().0, syncs, "an hour is not over");
        let left = disk.left();
        drop((dataset, files));
        left.trouble(Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        });
        let opened = Files::open(&crash.root, one_segment(5, &left));
        let opened = opened.and_then(|files| {
            declare(&files, "d", &["x"]);
            files.find("d").map(drop)
        });
        let off = left.is_off();
        drop(opened);
        let back = left.reboot(Loss::Everything);
        crash.check(&back, &format!("power off at {moment}"));
        if !off {
            assert!(moment > 2, "the opening has moments");
            return;
        }
    }
}

#[test]
fn power_goes_and_unsynced_bytes_are_there() {
    pull_the_plug(25, |_| Loss::Nothing);
}

#[test]
fn power_goes_and_unsynced_bytes_are_torn() {
    for seed in [3, 17] {
        pull_the_plug(25, |moment| Loss::Some(seed * 1_000 + moment));
    }
}

#[test]
fn a_failed_sync_loses_nothing_that_was_acknowledged() {
    let undisturbed = LyingDisk::new(Trouble::default());
    let dir = tempfile::tempdir().unwrap();
    Crash::new(dir.path()).work(&undisturbed, 2).unwrap();
    for at in 0..undisturbed.counts().0 {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash::new(dir.path());
        let disk = LyingDisk::new(Trouble {
            sync_fails_at: Some(at),
            ..Trouble::default()
        });
        assert!(crash.work(&disk, 2).is_err() || crash.acknowledged == COMMITS);
        for loss in [Loss::Everything, Loss::Nothing, Loss::Some(at)] {
            // Each check works on; the power goes again after it.
            crash.check(
                &disk.reboot(loss),
                &format!("sync {at} failed, then losing {loss:?}"),
            );
            let _ = std::fs::remove_dir_all(&crash.root);
        }
    }
}

#[test]
fn after_a_failed_sync_the_dataset_is_closed_until_it_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store.root");
    let disk = LyingDisk::new(Trouble::default());
    let files = Files::open(&root, options(&disk)).unwrap();
    let other = files.open("other", true).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, [entity("a", 1)]);
    let before = disk.counts().0;
    drop((dataset, other, files));

    let disk = disk.reboot(Loss::Everything);
    assert!(before > 0);
    let files = Files::open(&root, options(&disk)).unwrap();
    let other = files.open("other", false).unwrap();
    let dataset = files.open("d", false).unwrap();
    disk.fail_next_sync();
    let rows = batch([entity("a", 2)]);
    let (_, ticket) = dataset.commit(commit(&rows)).unwrap();
    let failed = ticket.wait().unwrap_err();
    assert!(
        matches!(&failed, StoreError::Io { source, .. } if source.to_string().contains("gave up"))
    );
    let again = batch([entity("b", 1)]);
    assert!(matches!(
        dataset.commit(commit(&again)),
        Err(StoreError::Io { .. })
    ));
    assert!(dataset.snapshot().is_err());
    assert_eq!(disk.counts().0, 1, "a failed sync is never tried again");
    write(&other, [entity("x", 1)]);

    let anew = files.open("d", false).unwrap();
    let snapshot = anew.snapshot().unwrap();
    assert_eq!(
        changes(&*snapshot, HISTORY, ALL),
        [(0, "a".to_owned(), 1, false)]
    );
    write(&anew, [entity("a", 3)]);
    assert!(
        dataset.commit(commit(&again)).is_err(),
        "the old handle stays closed"
    );
    drop((snapshot, anew, dataset, other, files));

    let disk = disk.reboot(Loss::Everything);
    let files = Files::open(&root, options(&disk)).unwrap();
    let dataset = files.open("d", false).unwrap();
    let expected = [(0, "a".to_owned(), 1, false), (1, "a".to_owned(), 3, false)];
    assert_eq!(
        changes(&*dataset.snapshot().unwrap(), HISTORY, ALL),
        expected
    );
}

#[test]
fn a_full_disk_refuses_a_commit_and_goes_on() {
    let undisturbed = LyingDisk::new(Trouble::default());
    let dir = tempfile::tempdir().unwrap();
    Crash::new(dir.path()).work(&undisturbed, 5).unwrap();
    for at in 0..undisturbed.counts().1 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble {
            full_at: Some(at),
            ..Trouble::default()
        });
        let Ok(files) = Files::open(&root, options(&disk)) else {
            continue;
        };
        let Ok(dataset) = files.open("d", true) else {
            files.open("d", true).unwrap();
            continue;
        };
        let (mut dice, mut model) = (Dice(5), Model::default());
        for _ in 0..COMMITS {
            let (entities, state) = random_commit(&mut dice);
            let rows = batch(entities.iter().cloned());
            let write = || Commit {
                state: &state,
                ..commit(&rows)
            };
            match run(&dataset, write()) {
                Ok(_) => {}
                Err(StoreError::Io { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                    model.check(&*dataset.snapshot().unwrap());
                    run(&dataset, write()).unwrap();
                }
                Err(other) => panic!("{other}"),
            }
            entities.iter().for_each(|entity| model.write(entity));
            model.write_state(&state);
        }
        drop((dataset, files));
        let disk = disk.reboot(Loss::Everything);
        let files = Files::open(&root, options(&disk)).unwrap();
        model.check(&*files.open("d", false).unwrap().snapshot().unwrap());
    }
}

/// An id that no compression makes much shorter.
fn noise(seed: u64) -> String {
    let mut dice = Dice(seed);
    let letters = (0..300).map(|_| char::from(b'!' + dice.roll(90) as u8));
    letters.collect()
}

/// Commits until the disk is full; returns the model of what was taken, and the one refused.
fn fill(
    dataset: &Arc<dyn Dataset>,
    dice: &mut Dice,
) -> Option<(Model, Vec<tahini_entity::Entity>)> {
    let mut model = Model::default();
    for _ in 0..COMMITS {
        let (entities, state) = random_commit(dice);
        let rows = batch(entities.iter().cloned());
        let done = run(
            dataset,
            Commit {
                state: &state,
                ..commit(&rows)
            },
        );
        match done {
            Ok(_) => {
                entities.iter().for_each(|entity| model.write(entity));
                model.write_state(&state);
            }
            Err(StoreError::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                return Some((model, entities));
            }
            Err(other) => panic!("{other}"),
        }
    }
    None
}

#[test]
fn a_disk_that_stays_full_is_readable_and_writable_again_when_there_is_room() {
    let mut room = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble::default());
        let files = Files::open(&root, options(&disk)).unwrap();
        let dataset = files.open("d", true).unwrap();
        disk.trouble(Trouble {
            room: Some(room),
            ..Trouble::default()
        });
        let Some((mut model, refused)) = fill(&dataset, &mut Dice(5)) else {
            assert!(room > 500, "everything fits into {room} bytes");
            return;
        };
        let context = format!("room for {room} bytes");
        let large = batch((0..9).map(|at| entity(&noise(at), 1)));
        let still = run(&dataset, commit(&large));
        assert!(matches!(still, Err(StoreError::Io { .. })), "{context}");
        model.check(&*dataset.snapshot().unwrap());
        // Closing may find no room for what it would like to write; nothing depends on it.
        drop((dataset, files));
        let disk = disk.reboot(Loss::Everything);
        disk.trouble(Trouble {
            room: Some(0),
            ..Trouble::default()
        });
        let files = Files::open(&root, options(&disk)).unwrap();
        let dataset = files.open("d", false).unwrap();
        model.check(&*dataset.snapshot().unwrap());
        assert!(run(&dataset, commit(&large)).is_err(), "{context}");
        disk.trouble(Trouble::default());
        run(&dataset, commit(&batch(refused.iter().cloned()))).unwrap();
        refused.iter().for_each(|entity| model.write(entity));
        model.check(&*dataset.snapshot().unwrap());
        drop((dataset, files));
        let disk = disk.reboot(Loss::Everything);
        let files = Files::open(&root, options(&disk)).unwrap();
        model.check(&*files.open("d", false).unwrap().snapshot().unwrap());
        room += 61;
    }
}

#[test]
fn a_commit_that_nobody_waits_for_is_synced_with_others_and_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store.root");
    let disk = LyingDisk::new(Trouble::default());
    let files = Files::open(&root, options(&disk)).unwrap();
    let dataset = files.open("d", true).unwrap();
    let hour = Duration::from_secs(3600);
    let put = |id: &str, delay: Duration| {
        let rows = batch([entity(id, 1)]);
        drop(dataset.commit_within(commit(&rows), delay).unwrap());
    };
    let before = disk.counts().0;
    (0..5).for_each(|at| put(&format!("lazy{at}"), hour));
    assert_eq!(disk.counts().0, before, "an hour is not over");
    assert_eq!(dataset.snapshot().unwrap().head().next, 5);
    assert_eq!(disk.counts().0, before + 1, "one sync for whoever looks");

    put("soon", Duration::from_millis(30));
    let begun = Instant::now();
    while disk.counts().0 == before + 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "never synced");
        std::thread::yield_now();
    }
    assert!(begun.elapsed() >= Duration::from_millis(15), "not at once");
    let back = disk.reboot(Loss::Everything);
    drop((dataset, files));
    let files = Files::open(&root, options(&back)).unwrap();
    let dataset = files.open("d", false).unwrap();
    assert_eq!(dataset.snapshot().unwrap().head().next, 6);
}

#[test]
fn a_disk_that_lies_leaves_a_prefix_or_a_damaged_dataset() {
    for moment in (40..110).step_by(3) {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash::new(dir.path());
        let honest = LyingDisk::new(Trouble::default());
        crash.work(&honest, 7).unwrap();
        let disk = honest.reboot(Loss::Nothing);
        disk.trouble(Trouble {
            power_off_at: Some(moment),
            lies: true,
            ..Trouble::default()
        });
        let before = crash.tried.len() - 1;
        let _ = crash.work(&disk, 8);
        let disk = disk.reboot(Loss::Some(moment));
        let files = Files::open(&crash.root, options(&disk)).unwrap();
        let Ok(Some(dataset)) = files.find("d") else {
            continue;
        };
        let snapshot = dataset.remains().unwrap();
        let mut out = Batch::new();
        let read = snapshot.changes(None, HISTORY, ALL, &mut out);
        let versions = short(&out);
        let fits = |model: &&Model| model.versions == versions;
        match (read, crash.tried.iter().find(fits)) {
            (Ok(None), Some(model)) => {
                assert!(versions.len() >= crash.tried[before].versions.len());
                for id in model.versions.iter().map(|version| version.1.as_str()) {
                    out.clear();
                    snapshot.latest(&[id], &mut out).unwrap();
                    assert_eq!(short(&out).first(), model.latest(id));
                }
            }
            // A lost block of a sealed segment is found when it is read.
            (Err(StoreError::Damaged { .. }), _) => {
                let all = &crash.tried.last().unwrap().versions;
                assert_eq!(versions, all[..versions.len()]);
            }
            (read, _) => panic!("expected a prefix or damage, found {read:?} and {versions:?}"),
        }
    }
}
