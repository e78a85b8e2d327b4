//! Held-back commits: random work against models, power cuts at every moment, and what the files
//! are like.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tahini_store::{Backend, Commit, Dataset, Files, Memory, Options, Show, Snapshot, StoreError};

use crate::contract::tiny;
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::model::{Dice, Model, random_commit};
use crate::rows::*;

/// What readers see, and what there is.
#[derive(Clone, Default)]
struct Two {
    visible: Model,
    newest: Model,
    holds: bool,
}

impl Two {
    fn check(&self, dataset: &dyn Dataset) {
        let visible = dataset.snapshot().unwrap();
        assert_eq!(visible.head().holds, self.holds);
        self.visible.check(&*visible);
        self.newest.check(&*dataset.uncommitted().unwrap());
    }

    fn fits(&self, dataset: &dyn Dataset) -> bool {
        let same = |model: &Model, snapshot: &dyn Snapshot| {
            let state = snapshot.state("s", b"").unwrap();
            model.versions == changes(snapshot, HISTORY, ALL)
                && model.state.clone().into_iter().eq(state)
        };
        same(&self.visible, &*dataset.snapshot().unwrap())
            && same(&self.newest, &*dataset.uncommitted().unwrap())
    }
}

/// What comes next.
enum Step {
    Commit(Show),
    RollBack,
}

fn step(dice: &mut Dice, holds: bool) -> Step {
    match dice.roll(8) {
        0 if holds => Step::RollBack,
        1 if holds => Step::Commit(Show::All),
        _ if holds => Step::Commit(Show::Later),
        0..3 => Step::Commit(Show::Later),
        3 => Step::Commit(Show::All),
        _ => Step::Commit(Show::Now),
    }
}

fn random_work(dataset: &Arc<dyn Dataset>, dice: &mut Dice, two: &mut Two, rounds: u32) {
    let mut kept: Vec<(Box<dyn Snapshot>, Model)> = Vec::new();
    for _ in 0..rounds {
        match step(dice, two.holds) {
            Step::RollBack => {
                dataset.roll_back().unwrap();
                two.newest = two.visible.clone();
                two.holds = false;
                two.check(&**dataset);
            }
            Step::Commit(show) => {
                let (entities, state) = random_commit(dice);
                let rows = batch(entities.iter().cloned());
                let write = Commit {
                    state: &state,
                    show,
                    ..commit(&rows)
                };
                dataset.commit(write).unwrap();
                let before = two.newest.versions.len();
                entities.iter().for_each(|entity| two.newest.write(entity));
                two.newest.write_state(&state);
                let changed = before < two.newest.versions.len() || !state.is_empty();
                match show {
                    Show::Later => two.holds |= changed,
                    Show::Now | Show::All => {
                        two.visible = two.newest.clone();
                        two.holds = false;
                    }
                }
            }
        }
        if dice.roll(6) == 0 {
            kept.push((dataset.snapshot().unwrap(), two.visible.clone()));
            two.check(&**dataset);
        }
        if !kept.is_empty() && dice.roll(8) == 0 {
            let (snapshot, then) = kept.swap_remove(dice.roll(kept.len() as u64) as usize);
            then.check(&*snapshot);
        }
    }
    two.check(&**dataset);
    kept.iter()
        .for_each(|(snapshot, then)| then.check(&**snapshot));
}

#[test]
fn memory_holds_back_what_the_model_does() {
    for seed in 0..6 {
        let dataset = Memory::new().open("d", true).unwrap();
        random_work(&dataset, &mut Dice(seed), &mut Two::default(), 150);
    }
}

#[test]
fn files_hold_back_what_the_model_does_across_restarts() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let (mut dice, mut two) = (Dice(seed), Two::default());
        for _ in 0..6 {
            let options = Options {
                overlay_keys: [5, 40, 100_000][dice.roll(3) as usize],
                ..tiny()
            };
            let files = Files::open(dir.path(), options).unwrap();
            let dataset = files.open("d", true).unwrap();
            two.check(&*dataset);
            random_work(&dataset, &mut dice, &mut two, 40);
            if dice.roll(2) == 0 {
                files.close().unwrap();
            }
        }
    }
}

/// Work on a disk that fails, and what may be left of it.
struct Crash {
    root: PathBuf,
    tried: Vec<Two>,
    acknowledged: usize,
    made: bool,
}

const STEPS: usize = 22;

fn options(disk: &LyingDisk, overlay_keys: usize) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        overlay_keys,
        ..tiny()
    }
}

impl Crash {
    fn new(dir: &Path) -> Crash {
        Crash {
            root: dir.join("store.root"),
            tried: vec![Two::default()],
            acknowledged: 0,
            made: false,
        }
    }

    fn work(&mut self, options: Options, seed: u64) -> Result<(), StoreError> {
        let files = Files::open(&self.root, options)?;
        let dataset = files.open("d", true)?;
        self.made = true;
        let mut dice = Dice(seed);
        // What was held back, commit by commit: a roll-back that is cut short leaves some of it.
        let mut held: Vec<Two> = Vec::new();
        for _ in 0..STEPS {
            let mut two = self.tried.last().unwrap().clone();
            match step(&mut dice, two.holds) {
                Step::RollBack => {
                    self.tried.append(&mut held);
                    two.newest = two.visible.clone();
                    two.holds = false;
                    self.tried.push(two);
                    dataset.roll_back()?;
                    self.acknowledged = self.tried.len() - 1;
                }
                Step::Commit(show) => {
                    let (entities, state) = random_commit(&mut dice);
                    entities.iter().for_each(|entity| two.newest.write(entity));
                    two.newest.write_state(&state);
                    two.holds |= show == Show::Later;
                    if show != Show::Later {
                        two.visible = two.newest.clone();
                        two.holds = false;
                        held.clear();
                    } else {
                        held.push(two.clone());
                    }
                    self.tried.push(two);
                    let rows = batch(entities);
                    let (_, ticket) = dataset.commit(Commit {
                        state: &state,
                        show,
                        ..commit(&rows)
                    })?;
                    if dice.roll(3) > 0 {
                        ticket.wait()?;
                        self.acknowledged = self.tried.len() - 1;
                    }
                }
            }
        }
        files.close()?;
        self.acknowledged = self.tried.len() - 1;
        Ok(())
    }

    fn check(&self, options: impl Fn() -> Options, context: &str) {
        let files = Files::open(&self.root, options()).unwrap();
        let Some(dataset) = files.find("d").unwrap() else {
            assert!(!self.made, "an acknowledged dataset is gone: {context}");
            return;
        };
        let tried = &self.tried[self.acknowledged..];
        let found = tried.iter().find(|two| two.fits(&*dataset));
        let found = found.unwrap_or_else(|| {
            panic!(
                "expected one of the states {}..={}, found none: {context}",
                self.acknowledged,
                self.tried.len() - 1
            )
        });
        let mut found = found.clone();
        found.holds = dataset.snapshot().unwrap().head().holds;
        found.check(&*dataset);
        random_work(&dataset, &mut Dice(99), &mut found, 12);
        drop((dataset, files));
        let files = Files::open(&self.root, options()).unwrap();
        found.check(&*files.open("d", false).unwrap());
    }
}

fn pull_the_plug(overlay_keys: usize, seed: u64, loss: impl Fn(u64) -> Loss) {
    let mut moment = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash::new(dir.path());
        let disk = LyingDisk::new(Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        });
        let _ = crash.work(options(&disk, overlay_keys), seed);
        let off = disk.is_off();
        let loss = loss(moment);
        let left = disk.reboot(loss);
        crash.check(
            || options(&left, overlay_keys),
            &format!("power off at {moment}, losing {loss:?}, seed {seed}"),
        );
        if !off {
            assert!(moment > 60, "the work has many moments");
            return;
        }
        moment += 1;
    }
}

#[test]
fn power_goes_while_something_is_held_back_or_taken_back() {
    pull_the_plug(25, 1, |_| Loss::Everything);
    pull_the_plug(3, 4, |_| Loss::Everything);
    pull_the_plug(25, 4, Loss::Some);
}

#[test]
fn a_failed_sync_leaves_what_was_acknowledged() {
    let undisturbed = LyingDisk::new(Trouble::default());
    let dir = tempfile::tempdir().unwrap();
    Crash::new(dir.path())
        .work(options(&undisturbed, 25), 4)
        .unwrap();
    for at in 0..undisturbed.counts().0 {
        let dir = tempfile::tempdir().unwrap();
        let mut crash = Crash::new(dir.path());
        let disk = LyingDisk::new(Trouble {
            sync_fails_at: Some(at),
            ..Trouble::default()
        });
        let _ = crash.work(options(&disk, 25), 4);
        let left = disk.reboot(Loss::Some(at));
        crash.check(|| options(&left, 25), &format!("sync {at} failed"));
    }
}

#[test]
fn a_backup_holds_what_readers_see() {
    let dir = tempfile::tempdir().unwrap();
    let (root, saved) = (dir.path().join("store"), dir.path().join("saved"));
    let files = Files::open(&root, tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    let (mut dice, mut two) = (Dice(11), Two::default());
    for _ in 0..12 {
        random_work(&dataset, &mut dice, &mut two, 9);
        files.backup(&saved).unwrap();
        let copy = dir.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        copy_folder(&saved, &copy);
        let restored = Files::open(&copy, tiny()).unwrap();
        let restored = restored.open("d", false).unwrap();
        let snapshot = restored.snapshot().unwrap();
        two.visible.check(&*snapshot);
        assert!(!snapshot.head().holds);
        write(&restored, [entity("new", 1)]);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
