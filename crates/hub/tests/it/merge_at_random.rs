//! Merging at random: whatever is written, deleted, brought back or given to others, what
//! incremental runs leave is what a full run gives, and both are what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value as Json, json};
use tahini_hub::merge::Back;

use crate::merge::{golden, write};
use crate::world::World;

/// Sequences of edits, and runs in each.
const SEQUENCES: usize = 120;
const RUNS: usize = 12;
const IDS: usize = 6;
const VALUES: i64 = 7;
const DATASETS: [&str; 3] = ["A", "B", "C"];
/// Sets of expressions, by dataset and property.
const SETS: [&[(usize, &str)]; 2] = [
    &[(0, "x"), (1, "x"), (2, "y")],
    &[(1, "z"), (2, "z"), (0, "z")],
];

/// What the datasets hold: living entities by dataset and id.
type Model = BTreeMap<(usize, String), Json>;

fn source(random: &mut StdRng) -> Json {
    let side = |(dataset, property): &(usize, &str)| {
        let alias = ["a", "b", "c"][*dataset];
        format!("{alias}.{property}")
    };
    let mut sets: Vec<Vec<String>> = SETS.map(|set| set.iter().map(side).collect()).to_vec();
    let mut source = json!({"datasets": ["A a", "B b", "C c"]});
    if random.random_bool(0.5) {
        let last = sets.pop().unwrap();
        let pairs = last.windows(2).map(|pair| json!(["eq", pair[0], pair[1]]));
        source["equality"] = pairs.collect();
    }
    source["equality_sets"] = json!(sets);
    source["strategy"] = json!(["default", "compact", "list"][random.random_range(0..3)]);
    // The datasets share their ids, so that what is not the same often clashes.
    source["identity"] = json!(["composite", "first"][random.random_range(0..2)]);
    source
}

fn value(random: &mut StdRng) -> Json {
    match random.random_range(0..10) {
        0 => Json::Null,
        1 => json!([]),
        2 | 3 => {
            let items = (0..random.random_range(1..4)).map(|_| random.random_range(0..VALUES));
            json!(items.collect::<Vec<_>>())
        }
        _ => json!(random.random_range(0..VALUES * 2)),
    }
}

/// Writes something somewhere, once in the datasets and once in the model.
fn edit(world: &World, model: &mut Model, random: &mut StdRng) {
    let dataset = random.random_range(0..3);
    let mut entities = Map::new();
    for _ in 0..random.random_range(1..3) {
        let id = format!("{}", random.random_range(0..IDS));
        let entity = match random.random_bool(0.25) {
            true => Json::Null,
            false => {
                let mut entity = json!({"n": random.random_range(0..3)});
                for property in ["x", "y", "z"] {
                    if random.random_bool(0.7) {
                        entity[property] = value(random);
                    }
                }
                entity
            }
        };
        match &entity {
            Json::Null => drop(model.remove(&(dataset, id.clone()))),
            entity => drop(model.insert((dataset, id.clone()), entity.clone())),
        }
        entities.insert(id, entity);
    }
    write(world, DATASETS[dataset], &entities);
}

/// The ids of what the model's entities become, by the rules and nothing else.
fn expected(model: &Model, by_first: bool) -> BTreeSet<String> {
    let all: Vec<(&(usize, String), &Json)> = model.iter().collect();
    let values = |at: usize, set: &[(usize, &str)]| -> Vec<Json> {
        let ((dataset, _), entity) = all[at];
        let of = set.iter().find(|(of, _)| of == dataset);
        match of.map(|(_, property)| &entity[*property]) {
            Some(Json::Array(items)) => items.clone(),
            Some(Json::Null) | None => Vec::new(),
            Some(one) => vec![one.clone()],
        }
    };
    let same = |one: usize, two: usize| {
        let shares = |set: &&[(usize, &str)]| {
            let theirs = values(two, set);
            values(one, set).iter().any(|value| theirs.contains(value))
        };
        SETS.iter().any(shares)
    };
    let mut left: BTreeSet<usize> = (0..all.len()).collect();
    let mut ids = BTreeSet::new();
    while let Some(first) = left.pop_first() {
        let (mut group, mut at) = (vec![first], 0);
        while at < group.len() {
            let found: Vec<usize> = left
                .iter()
                .copied()
                .filter(|two| same(group[at], *two))
                .collect();
            left.retain(|one| !found.contains(one));
            group.extend(found);
            at += 1;
        }
        group.sort_unstable();
        if by_first {
            ids.insert(all[group[0]].0.1.clone());
            continue;
        }
        let named = group
            .iter()
            .map(|at| format!("{}|{}", all[*at].0.0, all[*at].0.1));
        ids.insert(named.collect::<Vec<_>>().join("|"));
    }
    ids
}

/// Where what runs left was not what it has to be, if anywhere.
fn sequence(seed: u64, on_disk: bool, lost: Option<Back>) -> Option<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = if on_disk {
        World::on_disk()
    } else {
        World::new()
    };
    let source = source(&mut random);
    let mut pipe = golden(&source);
    // Steps of a few versions: a run takes several, and stands between any two of them.
    pipe["batch_size"] = json!(random.random_range(2..8));
    pipe["checkpoint_interval"] = json!(random.random_range(1..3));
    let mut full = golden(&source);
    full["_id"] = json!("full");
    world.pipe(pipe);
    world.pipe(full);
    if let Some(step) = lost {
        world.hub().world.known.lose(step);
    }
    let mut model = Model::new();
    for run in 0..RUNS {
        for _ in 0..random.random_range(1..8) {
            edit(&world, &mut model, &mut random);
        }
        world.succeed("golden");
        let found = world.entities("golden");
        let ids: BTreeSet<String> = found.keys().cloned().collect();
        let told = || format!("seed {seed}, run {run}, {source}, {model:?}");
        let wanted = expected(&model, source["identity"] == "first");
        if ids != wanted {
            return Some(format!("{}: found {ids:?}, expected {wanted:?}", told()));
        }
        if run % 4 == 3 {
            world.rescan("full");
            let full = world.entities("full");
            if found != full {
                return Some(format!("{}: found {found:?}, in full {full:?}", told()));
            }
        }
        if on_disk && random.random_bool(0.1) {
            world.restart();
        }
    }
    None
}

#[test]
fn incremental_runs_leave_what_a_full_run_gives() {
    let first = match std::env::var("TAHINI_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::rng().random::<u64>() >> 16,
    };
    let seeds: Vec<(usize, u64)> = (0..SEQUENCES).zip(first..).collect();
    for some in seeds.chunks(4) {
        std::thread::scope(|scope| {
            for (at, seed) in some {
                // A panic tells the thread's name: TAHINI_SEED=… begins with that sequence.
                let thread = std::thread::Builder::new().name(format!("seed {seed}"));
                let run = move || assert_eq!(sequence(*seed, at % 10 == 0, None), None);
                thread.spawn_scoped(scope, run).unwrap();
            }
        });
    }
}

/// The comparison would notice: without any one step back it fails.
#[test]
fn every_step_back_is_needed() {
    for step in [Back::Before, Back::Further, Back::Given] {
        let mut missed = (0..SEQUENCES as u64).map(|seed| sequence(seed, false, Some(step)));
        let missed = missed.find_map(|difference| difference);
        assert!(missed.is_some(), "nobody misses {step:?}");
    }
}
