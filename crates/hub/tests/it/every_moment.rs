//! The power goes at every moment of short stories, on a disk that keeps only what was synced: at
//! every write, sync and change of a folder, once with all unsynced bytes lost, once with some
//! lost and the last write torn, and where that matters once with none lost, as when the process is
//! killed.
//!
//! A story is a row: pipes, and steps that runs, posters and people make one after the other. It is
//! told once without a cut. Then it is told again for every moment: the power goes, the node starts
//! again, and the step that was under way is made again, as a schedule, a poster or a person would.
//! Every entity must have the same versions in the end, each once, and places, breakers, populated
//! flags, dead letters and completeness must be the same. Right after the cut nothing may be gone
//! that was acknowledged before, and nothing may be there that the step does not bring.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::completeness;
use tahini_hub::pump::Request;
use tahini_store::Memory;

use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::power::files;
use crate::world::{BEGINNING, World};

/// What somebody does; in the words of what went wrong where the power went meanwhile.
pub type Step = fn(&mut World) -> Result<(), String>;

/// What happens, and what is looked at.
#[derive(Clone)]
pub struct Story {
    pub set_up: fn(&mut World),
    pub steps: &'static [Step],
    /// The datasets whose versions must be the same in the end.
    pub datasets: &'static [&'static str],
    /// Of these only the latest versions: which ones stand between depends on where steps of a run
    /// end, or old ones are removed.
    pub latest_only: &'static [&'static str],
    /// From this step on readers see all that a step does, or nothing.
    pub whole_from: usize,
    /// What was acknowledged is there, also where nobody waited for it.
    pub is_durable: bool,
    /// The process is killed at every moment, too, and nothing is lost that it wrote.
    pub is_killed_too: bool,
}

impl Default for Story {
    fn default() -> Story {
        Story {
            set_up: |_| {},
            steps: &[],
            datasets: &["p"],
            latest_only: &[],
            whole_from: usize::MAX,
            is_durable: true,
            is_killed_too: false,
        }
    }
}

/// The versions of each id of a dataset, oldest first.
type Versions = BTreeMap<String, Vec<String>>;

/// What a world looks like.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    datasets: BTreeMap<String, Versions>,
    latest: BTreeMap<String, Versions>,
    /// By dataset: whether it is populated, whether it holds something back, and how complete it
    /// is, in seconds since the beginning.
    heads: BTreeMap<String, (bool, bool, Option<i64>)>,
    /// By pipe: its offset, how it stands, and what it has still to follow.
    places: BTreeMap<String, Json>,
    /// By pipe and entry: what the log says last of an entity that failed.
    errors: BTreeMap<String, Json>,
    /// By pipe: the entities that the outside was given.
    given: BTreeMap<String, BTreeSet<String>>,
}

impl Story {
    /// Tells the story with the power going at every moment.
    pub fn survives(&self) {
        let states = self.undisturbed();
        let mut losses: Vec<fn(u64) -> Loss> = vec![|_| Loss::Everything, Loss::Some];
        if self.is_killed_too {
            losses.push(|_| Loss::Nothing);
        }
        for loss in losses {
            let mut moment = 0;
            while self.pull_the_plug(moment, loss(moment), &states) {
                moment += 1;
                assert!(moment < 2_000, "the story comes to its end");
            }
            assert!(moment >= 20, "the story has many moments, found {moment}");
        }
    }

    /// How things stand before the first step and after each.
    fn undisturbed(&self) -> Vec<State> {
        let dir = folder();
        let disk = LyingDisk::new(Trouble::default());
        let mut world = self.world(&dir.path().join("store.root"), &disk);
        let mut states = vec![self.look(&world)];
        for at in 0..self.steps.len() {
            self.step(&mut world, at)
                .unwrap_or_else(|why| panic!("step {at}: {why}"));
            states.push(self.look(&world));
        }
        states
    }

    fn world(&self, root: &Path, disk: &LyingDisk) -> World {
        let mut world = World::on_store(Arc::new(files(root, disk)));
        (self.set_up)(&mut world);
        world
    }

    /// Every step has an hour of its own, whatever happened before.
    fn step(&self, world: &mut World, at: usize) -> Result<(), String> {
        world.clock.set(BEGINNING + (at as i64 + 1) * 3_600_000_000);
        self.steps[at](world)
    }

    /// Makes the steps from `first` on; where it stopped, and why, if it did.
    fn go_on(&self, world: &mut World, first: usize) -> (usize, Option<String>) {
        for at in first..self.steps.len() {
            if let Err(why) = self.step(world, at) {
                return (at, Some(why));
            }
        }
        (self.steps.len(), None)
    }

    /// Pulls the plug at one moment; whether the story came that far.
    fn pull_the_plug(&self, moment: u64, loss: Loss, states: &[State]) -> bool {
        let dir = folder();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble::default());
        let mut world = self.world(&root, &disk);
        let off_at = |moment| Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        };
        disk.trouble(off_at(moment));
        let (at, why) = self.go_on(&mut world, 0);
        let words = why.as_deref().unwrap_or("nothing");
        let context = format!("power off at {moment}, in step {at} ({words}), losing {loss:?}");
        assert!(why.is_none() || disk.is_off(), "{context}");
        // Where it came to its end the power goes then.
        disk.trouble(off_at(0));
        let back = disk.reboot(loss);
        // The hub and its store go before the folder is opened again.
        world.forget_meanwhile();
        world.start_over(Arc::new(Memory::new())).unwrap();
        world.start_over(Arc::new(files(&root, &back))).unwrap();
        let next = (at + 1).min(self.steps.len());
        self.check_between(&states[at], &self.look(&world), &states[next], at, &context);
        // Where nobody waited for the disk, who comes again begins with what he did last.
        let first = match self.is_durable {
            true => at,
            false => at.min(self.steps.len() - 1),
        };
        let (at, again) = self.go_on(&mut world, first);
        if let Some(again) = again {
            panic!("{context}: step {at}, made again: {again}");
        }
        let (found, expected) = (self.look(&world), states.last().unwrap());
        assert_eq!(&found, expected, "{context}");
        why.is_some()
    }

    /// Everything from before the step is there, and nothing that does not come with it.
    fn check_between(&self, before: &State, now: &State, after: &State, at: usize, context: &str) {
        for (dataset, versions) in &now.datasets {
            let (old, new) = (&before.datasets[dataset], &after.datasets[dataset]);
            if at >= self.whole_from {
                let whole = versions == old || versions == new;
                assert!(
                    whole,
                    "{context}: {dataset} is {versions:?}, {old:?} before"
                );
            }
            let none = Vec::new();
            for id in old.keys().chain(versions.keys()) {
                let of = |versions: &'_ Versions| versions.get(id).unwrap_or(&none).clone();
                let (old, found, new) = (of(old), of(versions), of(new));
                let kept = !self.is_durable || found.starts_with(&old);
                assert!(kept, "{context}: {dataset}/{id} is {found:?}, was {old:?}");
                let comes = new.starts_with(&found);
                assert!(
                    comes,
                    "{context}: {dataset}/{id} is {found:?}, and comes to {new:?}"
                );
            }
        }
        for (dataset, (populated, _, complete)) in &now.heads {
            let (will_be, _, most) = after.heads[dataset];
            let early = *populated && !will_be;
            assert!(!early, "{context}: {dataset} is populated");
            // What somebody commits by hand is known to be complete when the node starts again.
            let too_much = *complete > most && at < self.whole_from;
            assert!(
                !too_much,
                "{context}: {dataset} is complete to {complete:?}"
            );
        }
    }

    fn look(&self, world: &World) -> State {
        let mut state = State::default();
        for dataset in self.datasets {
            let (name, hub) = ((*dataset).to_owned(), &world.hub().world);
            let content = match self.latest_only.contains(dataset) {
                true => &mut state.latest,
                false => &mut state.datasets,
            };
            let history = !self.latest_only.contains(dataset);
            content.insert(name.clone(), versions(world, dataset, history));
            let found = hub.store.find(dataset).unwrap();
            let head = found.map(|it| it.snapshot().unwrap().head().clone());
            let value = completeness::value(hub.store.as_ref(), &hub.known, dataset, dataset);
            let seconds = |micros: i64| (micros - BEGINNING).div_euclid(1_000_000);
            let complete = value.unwrap().map(seconds);
            let of = head.map_or((false, false, complete), |head| {
                (head.populated, head.holds, complete)
            });
            state.heads.insert(name, of);
        }
        for live in world.hub().pipes() {
            let id = live.id().to_owned();
            let place = world.hub().place(live.usable().unwrap()).unwrap();
            let tripped = world.hub().tripped(&live).unwrap().is_some();
            let unfollowed = world.hub().unfollowed(&live).unwrap();
            let unfinished = format!("{:?}", place.unfinished);
            let told = json!([world.offset(&id), unfinished, tripped, unfollowed]);
            state.places.insert(id.clone(), told);
            for entry in world.log(&id) {
                if entry["event_type"] == "write-error" {
                    let key = format!("{id} {}", entry["_id"].as_str().unwrap());
                    let told = json!([entry["retryable"], entry["resolved"], entry["dead"]]);
                    state.errors.insert(key, told);
                }
            }
            let given = world.taken(&id).concat().into_iter().collect();
            state.given.insert(id, given);
        }
        state
    }
}

/// Where the indexes are: in memory where that is possible, since only the log has to survive.
pub fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn versions(world: &World, dataset: &str, history: bool) -> Versions {
    let mut all = Versions::new();
    for mut entity in world.versions(dataset, history, Fields::CONTENT) {
        let id = entity["_id"].as_str().unwrap().to_owned();
        entity.as_object_mut().unwrap().remove("_id");
        all.entry(id).or_default().push(entity.to_string());
    }
    all
}

/// Runs a pipe; a run that fails is the step's failure.
pub fn run(world: &World, pipe: &str) -> Result<(), String> {
    run_as(world, pipe, &Request::default())
}

/// Rescans a pipe.
pub fn rescan(world: &World, pipe: &str) -> Result<(), String> {
    let request = Request {
        rescan: true,
        ..Request::default()
    };
    run_as(world, pipe, &request)
}

fn run_as(world: &World, pipe: &str, request: &Request) -> Result<(), String> {
    let summary = world.try_run(pipe, request);
    let summary = summary.map_err(|refusal| format!("{pipe}: {refusal}"))?;
    match summary.failure {
        Some(failure) => Err(format!("{pipe}: {failure}")),
        None => Ok(()),
    }
}
