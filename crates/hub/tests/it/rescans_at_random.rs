//! Rescans and incremental runs at the same time, with stops and power cuts in between: whatever
//! the order, nothing that was always there is ever deleted, and in the end the dataset is what one
//! run over the source would make of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::pump::Request;
use tahini_store::{Files, Memory, Options};

use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::world::World;

/// Ids that are always there, and ids that come and go.
const ALWAYS: u64 = 10;
const ALL: u64 = 25;
const ROUNDS: usize = 25;

/// Where pipe `p` reads from.
#[derive(Clone, Copy, Debug)]
enum Reads {
    /// The latest versions in a dataset.
    Dataset,
    /// All versions in a dataset.
    History,
    /// A source in order, which does not tell what is gone.
    Chronological,
    /// A source without order, which does not tell either.
    Max,
}

fn set_up(world: &mut World, reads: Reads) {
    world.pipe(json!({"_id": "in"}));
    let source = match reads {
        Reads::Dataset => json!({"type": "dataset", "dataset": "in"}),
        Reads::History => {
            json!({"type": "dataset", "dataset": "in", "include_previous_versions": true})
        }
        Reads::Chronological | Reads::Max => json!({
            "type": "scripted", "supports_since": true,
            "is_chronological": matches!(reads, Reads::Chronological),
        }),
    };
    world.pipe(json!({
        "_id": "p", "source": source, "enable_background_rescan": true,
        "batch_size": 3, "checkpoint_interval": 1,
    }));
}

/// What upstream has; every change gets a new `_updated`.
#[derive(Default)]
struct Upstream {
    rows: BTreeMap<u64, (i64, i64)>,
    clock: i64,
}

impl Upstream {
    fn change(&mut self, random: &mut StdRng) {
        for _ in 0..random.random_range(1..6) {
            let id = random.random_range(0..ALL);
            self.clock += 1;
            match id >= ALWAYS && random.random_bool(0.4) {
                true => drop(self.rows.remove(&id)),
                false => drop(self.rows.insert(id, (self.clock, self.clock))),
            }
        }
    }

    fn give(&self, world: &World, reads: Reads) -> Result<(), String> {
        let mut rows: Vec<(&u64, &(i64, i64))> = self.rows.iter().collect();
        rows.sort_by_key(|(_, (updated, _))| *updated);
        let rows: Vec<Json> = rows
            .into_iter()
            .map(|(id, (updated, v))| json!({"_id": id.to_string(), "_updated": updated, "v": v}))
            .collect();
        match reads {
            Reads::Chronological | Reads::Max => world.records("p", rows),
            Reads::Dataset | Reads::History => {
                world.records("in", rows);
                run(world, "in", false)?;
            }
        }
        Ok(())
    }
}

fn run(world: &World, pipe: &str, rescan: bool) -> Result<(), String> {
    let request = Request {
        rescan,
        ..Request::default()
    };
    let summary = world
        .try_run(pipe, &request)
        .map_err(|refusal| refusal.to_string())?;
    summary.failure.map_or(Ok(()), |why| Err(why.to_string()))
}

/// Changes what is upstream and runs `p`, while another thread rescans again and again.
fn work(world: &World, reads: Reads, upstream: &mut Upstream, random: &mut StdRng) {
    let over = AtomicBool::new(false);
    let mut last = Ok(());
    std::thread::scope(|scope| {
        let rescans = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = run(world, "p", true);
            }
        });
        for _ in 0..ROUNDS {
            upstream.change(random);
            last = upstream.give(world, reads);
            // It may be refused in the rescan's turn, stopped, or without a disk.
            let _ = run(world, "p", false);
            if random.random_bool(0.2) {
                let _ = world.hub().stop("p");
            }
        }
        over.store(true, Ordering::SeqCst);
        rescans.join().unwrap();
    });
    drop(last);
}

/// Brings everything to its end, and compares.
fn check(world: &World, reads: Reads, upstream: &Upstream, context: &str) {
    upstream.give(world, reads).unwrap();
    // What was there when an interrupted rescan came to it, and is gone since, is the next one's.
    for rescan in [false, true, true, false] {
        run(world, "p", rescan).unwrap_or_else(|why| panic!("{context}: {why}"));
    }
    let expected: BTreeMap<String, i64> = upstream
        .rows
        .iter()
        .map(|(id, (_, v))| (id.to_string(), *v))
        .collect();
    let found: BTreeMap<String, i64> = world
        .versions("p", false, Fields::CONTENT)
        .iter()
        .filter(|entity| entity["_deleted"] != true)
        .map(|entity| {
            let id = entity["_id"].as_str().unwrap().to_owned();
            (id, entity["v"].as_i64().unwrap())
        })
        .collect();
    assert_eq!(found, expected, "{context}");
    let always = |entity: &&Json| entity["_id"].as_str().unwrap().parse::<u64>().unwrap() < ALWAYS;
    let all = world.versions("p", true, Fields::CONTENT);
    let gone = all
        .iter()
        .filter(always)
        .find(|entity| entity["_deleted"] == true);
    assert_eq!(gone, None, "{context}");
    let home = world.hub().world.store.find("p").unwrap().unwrap();
    let left = home.snapshot().unwrap().state("rescan:p", b"").unwrap();
    assert!(
        left.is_empty(),
        "{context}: {} records are left",
        left.len()
    );
}

const READS: [Reads; 4] = [
    Reads::Dataset,
    Reads::History,
    Reads::Chronological,
    Reads::Max,
];

#[test]
fn whatever_the_order_of_runs_and_rescans_the_end_is_the_same() {
    for reads in READS {
        for seed in 0..8 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut world = World::new();
            set_up(&mut world, reads);
            let mut upstream = Upstream::default();
            upstream.rows.extend((0..ALWAYS).map(|id| (id, (0, 0))));
            upstream.give(&world, reads).unwrap();
            run(&world, "p", false).unwrap();
            work(&world, reads, &mut upstream, &mut random);
            check(&world, reads, &upstream, &format!("{reads:?}, seed {seed}"));
        }
    }
}

fn files(root: &Path, disk: &LyingDisk) -> Files {
    let options = Options {
        segment_bytes: 2048,
        overlay_keys: 25,
        idle_keys: 1,
        disk: Arc::new(disk.clone()),
        ..Options::default()
    };
    Files::open(root, options).unwrap()
}

#[test]
fn power_cuts_between_runs_and_rescans_change_nothing_about_the_end() {
    for reads in READS {
        for seed in 0..6 {
            let mut random = StdRng::seed_from_u64(seed);
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store.root");
            let disk = LyingDisk::new(Trouble::default());
            let mut world = World::on_store(Arc::new(files(&root, &disk)));
            set_up(&mut world, reads);
            let mut upstream = Upstream::default();
            upstream.rows.extend((0..ALWAYS).map(|id| (id, (0, 0))));
            upstream.give(&world, reads).unwrap();
            run(&world, "p", false).unwrap();
            disk.trouble(Trouble {
                power_off_at: Some(random.random_range(1..400)),
                ..Trouble::default()
            });
            work(&world, reads, &mut upstream, &mut random);
            disk.trouble(Trouble {
                power_off_at: Some(0),
                ..Trouble::default()
            });
            let back = disk.reboot(Loss::Everything);
            world.start_over(Arc::new(Memory::new())).unwrap();
            world.start_over(Arc::new(files(&root, &back))).unwrap();
            let context = format!("{reads:?}, seed {seed}");
            check(&world, reads, &upstream, &context);
        }
    }
}
