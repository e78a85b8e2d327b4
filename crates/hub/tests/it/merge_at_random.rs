//! Merging at random: whatever is written, deleted, brought back or given to others, what
//! incremental runs leave is what a full run gives, and both are what the rules say. Which ids are
//! gone, and which of them were replaced, only the rules say: a full run knows no ids that came and
//! went meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::merge::Back;

use crate::merge::{golden, write};
use crate::world::World;

/// Sequences of edits, and runs in each; every run is compared with a full one.
const SEQUENCES: usize = 260;
const RUNS: usize = 12;
/// Of so many sequences one is on disk.
const ON_DISK: usize = 20;
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
/// The entities that are the same, by the `_id` of what they become; ids may clash.
type Groups = Vec<(String, Vec<(usize, String)>)>;

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

/// Writes something somewhere, once in the datasets and once in the model; what lived and was
/// deleted is told.
fn edit(world: &World, model: &mut Model, random: &mut StdRng) -> Vec<(usize, String)> {
    let dataset = random.random_range(0..3);
    let (mut entities, mut deleted) = (Map::new(), Vec::new());
    for _ in 0..random.random_range(1..3) {
        let id = format!("{}", random.random_range(0..IDS));
        if entities.contains_key(&id) {
            continue;
        }
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
            Json::Null => {
                let at = (dataset, id.clone());
                deleted.extend(model.remove(&at).map(|_| at));
            }
            entity => drop(model.insert((dataset, id.clone()), entity.clone())),
        }
        entities.insert(id, entity);
    }
    write(world, DATASETS[dataset], &entities);
    deleted
}

/// The `_id` of what these become.
fn identity(members: &[(usize, String)], by_first: bool) -> String {
    if by_first {
        return members[0].1.clone();
    }
    let named = members
        .iter()
        .map(|(dataset, id)| format!("{dataset}|{id}"));
    named.collect::<Vec<_>>().join("|")
}

/// What the model's entities become, by the rules and nothing else.
fn expected(model: &Model, by_first: bool) -> Groups {
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
    let mut groups = Groups::new();
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
        let members: Vec<_> = group.into_iter().map(|at| all[at].0.clone()).collect();
        groups.push((identity(&members, by_first), members));
    }
    groups
}

fn ids_of(groups: &Groups) -> BTreeSet<String> {
    groups.iter().map(|(id, _)| id.clone()).collect()
}

/// The ids that are gone, and whether each was replaced.
fn gone(world: &World, pipe: &str) -> BTreeMap<String, bool> {
    let latest = world.versions(pipe, false, Fields::CONTENT).into_iter();
    let deleted = latest.filter(|entity| entity["_deleted"] == true);
    let named = deleted.map(|entity| {
        let id = entity["_id"].as_str().unwrap().to_owned();
        (id, entity["$replaced"] == true)
    });
    named.collect()
}

/// What a run in one step takes away: `$replaced` where somebody lives on under another id.
fn take_away(
    gone: &mut BTreeMap<String, bool>,
    (before, now): (&Groups, &Groups),
    deleted: &[(usize, String)],
    model: &Model,
    by_first: bool,
) {
    let known = ids_of(now);
    gone.retain(|id, _| !known.contains(id));
    let mut replaced = BTreeSet::new();
    for (id, members) in before.iter().filter(|(id, _)| !known.contains(id)) {
        if members.iter().any(|member| model.contains_key(member)) {
            replaced.insert(id.clone());
        }
        gone.insert(id.clone(), replaced.contains(id));
    }
    // Who was deleted is told by the own id, too; of an id that nobody knows nothing is kept.
    for one in deleted.iter().filter(|one| !model.contains_key(one)) {
        let id = identity(std::slice::from_ref(one), by_first);
        if let Some(was) = gone.get_mut(&id).filter(|_| !replaced.contains(&id)) {
            *was = false;
        }
    }
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
    let by_first = source["identity"] == "first";
    let mut pipe = golden(&source);
    // Steps of a few versions: a run takes several, and stands between any two of them. Or one.
    let in_one = random.random_bool(0.5);
    if !in_one {
        pipe["batch_size"] = json!(random.random_range(2..8));
        pipe["checkpoint_interval"] = json!(random.random_range(1..3));
    }
    let mut full = golden(&source);
    full["_id"] = json!("full");
    world.pipe(pipe);
    world.pipe(full);
    if let Some(step) = lost {
        world.hub().world.known.lose(step);
    }
    let (mut model, mut before) = (Model::new(), Groups::new());
    let (mut away, mut ever) = (BTreeMap::new(), BTreeSet::new());
    for run in 0..RUNS {
        let mut deleted = Vec::new();
        for _ in 0..random.random_range(1..8) {
            deleted.extend(edit(&world, &mut model, &mut random));
        }
        world.succeed("golden");
        let told = || format!("seed {seed}, run {run}, {source}, {model:?}");
        let groups = expected(&model, by_first);
        let (found, wanted) = (world.entities("golden"), ids_of(&groups));
        let ids: BTreeSet<String> = found.keys().cloned().collect();
        if ids != wanted {
            return Some(format!("{}: found {ids:?}, expected {wanted:?}", told()));
        }
        world.rescan("full");
        let full = world.entities("full");
        if found != full {
            return Some(format!("{}: found {found:?}, in full {full:?}", told()));
        }
        ever.extend(wanted.iter().cloned());
        let lost: BTreeMap<String, bool> = ever
            .difference(&wanted)
            .map(|id| (id.clone(), false))
            .collect();
        let by_full = gone(&world, "full");
        if by_full != lost {
            return Some(format!(
                "{}: full has gone {by_full:?}, expected {lost:?}",
                told()
            ));
        }
        // The first run is a full one.
        if run > 0 {
            take_away(&mut away, (&before, &groups), &deleted, &model, by_first);
        }
        let by_golden = gone(&world, "golden");
        let holds = match in_one {
            true => by_golden == away,
            // Ids may come and go within a run.
            false => lost.keys().all(|id| by_golden.contains_key(id)),
        };
        if !holds {
            return Some(format!("{}: gone {by_golden:?}, expected {away:?}", told()));
        }
        before = groups;
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
                let run = move || assert_eq!(sequence(*seed, at % ON_DISK == 0, None), None);
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
