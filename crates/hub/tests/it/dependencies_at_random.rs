//! Runs that follow what changed, and a run over everything: after any edits both come to the same.
//!
//! Edits write, change, delete and bring back entities of three datasets, with keys that are null,
//! lists, and numbers that are equal and written in another way. `TAHINI_SEED` repeats a failure,
//! `TAHINI_ROUNDS` asks for more.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use crate::dependencies::put;
use crate::world::World;

/// Ids of each dataset; few, so that much is joined and ids come again.
const IDS: u64 = 5;
/// A world begins anew after so many rounds: its history grows.
const OF_A_WORLD: usize = 40;
/// Rounds of each shape of rules.
const ROUNDS: usize = 200;
/// Rounds after which a way back that is lost must have been missed.
const TO_MISS: usize = 400;

/// Rules by a name for messages.
fn shapes() -> Vec<(&'static str, Json)> {
    let hops = |specs: Json| {
        let mut call = vec![json!("hops")];
        call.extend(specs.as_array().unwrap().iter().cloned());
        json!({"default": [["copy", ["list", "_id", "v"]], ["add", "x", call]]})
    };
    vec![
        (
            "by a key",
            hops(json!([{"datasets": ["a a"], "where": ["eq", "_S.k", "a.k"]}])),
        ),
        (
            "by ids",
            hops(json!([{"datasets": ["a a"], "where": ["eq", "_S.p", "a._id"]}])),
        ),
        (
            "the other way round",
            hops(json!([
                {"datasets": ["a a"], "where": [["eq", "_S._id", "a.p"], ["neq", "a.v", 1]]}
            ])),
        ),
        (
            "through another alias",
            hops(json!([
                {"datasets": ["b b", "a a"], "where": [["eq", "a.p", "b._id"], ["eq", "_S.k", "a.k"]],
                 "return": ["list", "a.v", "b.v"]}
            ])),
        ),
        (
            "a chain",
            hops(json!([
                {"datasets": ["a a"], "where": ["eq", "_S.k", "a.k"]},
                {"datasets": ["b b"], "where": ["eq", "_S._id", "b.p"], "subsets": {"b": ["eq", "_S.v", 2]}}
            ])),
        ),
        (
            "itself, again and again",
            hops(json!([
                {"datasets": ["s x"], "where": ["eq", "_S.p", "x._id"], "recurse": true}
            ])),
        ),
        (
            "recursion and on",
            hops(json!([
                {"datasets": ["a a"], "where": ["eq", "_S.p", "a._id"], "recurse": true,
                 "exclude_root": true, "max_depth": 3},
                {"datasets": ["b b"], "where": ["eq", ["tuples", "_S.k", "_S.v"], ["tuples", "b.k", "b.v"]],
                 "return": "b.v"}
            ])),
        ),
        (
            "inside what is returned",
            hops(json!([
                {"datasets": ["a a"], "where": ["eq", "_S.k", "a.k"],
                 "return": ["hops", {"datasets": ["b b"], "where": ["eq", "a.p", "b._id"], "return": "b.v"}]}
            ])),
        ),
        (
            "applied rules",
            json!({
                "default": [["copy", "_id"], ["add", "x", ["apply-hops", "r",
                    {"datasets": ["a a"], "where": ["eq", "_S.p", "a._id"]}]]],
                "r": [["copy", "v"], ["add", "y", ["apply-hops", "t",
                    {"datasets": ["b b"], "where": [["eq", "_P._S.k", "b.k"], ["neq", "_S.v", "b.v"]]}]]],
                "t": [["add", "z", ["hops", {"datasets": ["a c"], "where": ["eq", "_S.p", "c._id"],
                    "return": "c.v"}]]]
            }),
        ),
        (
            "by the identifiers that entities have of themselves",
            hops(json!([
                {"datasets": ["a a"], "return": ["list", "a._id", "a.p"],
                 "where": ["eq", "_S.$ids", ["map", ["ni", "own", "_."], "a.p"]]}
            ])),
        ),
        (
            "three in a row, to itself",
            hops(json!([
                {"datasets": ["a a", "b b", "s s"],
                 "where": [["eq", "_S.k", "a.k"], ["eq", "b._id", "a.p"], ["eq", "b.p", "s._id"]],
                 "return": ["list", "a._id", "b._id", "s.v"]}
            ])),
        ),
    ]
}

/// The same pipe twice: `p` goes on from where it stands, `q` reads everything each time.
fn world(rules: &Json, behind: bool) -> World {
    let mut world = World::new();
    let namespaced = rules.to_string().contains("$ids");
    for id in ["p", "q"] {
        let rules = json!({"type": "dtl", "rules": rules});
        let first = json!({"type": "dtl", "rules": {"default": [
            ["copy", "*"], ["add", "k", ["list", "_S.k", "_S.v"]], ["remove", "v"]
        ]}});
        world.pipe(json!({
            "_id": id, "source": {"type": "dataset", "dataset": "s"},
            "transform": if behind { json!([first, rules]) } else { rules },
            "batch_size": 3, "namespaced_identifiers": namespaced,
            "namespaces": {"identity": "own", "property": "own"},
        }));
    }
    world
}

fn edit(world: &World, random: &mut StdRng) {
    let dataset = *["s", "a", "a", "b", "b"].choose(random).unwrap();
    put(world, dataset, edit_of(random));
}

/// A version of some entity.
pub fn edit_of(random: &mut StdRng) -> Json {
    let id = random.random_range(0..IDS).to_string();
    if random.random_bool(0.25) {
        return json!({"_id": id, "_deleted": true});
    }
    let keys = [
        json!(null),
        json!("k"),
        json!("l"),
        json!(1),
        json!(1.0),
        json!(2),
        json!([]),
        json!(["k", null]),
        json!(["l", 1]),
        json!(["k", "k", 2]),
    ];
    let mut parents = Vec::new();
    for _ in 0..random.random_range(0..3) {
        parents.push(json!(random.random_range(0..IDS).to_string()));
    }
    let p = match parents.len() {
        1 => parents.remove(0),
        _ => json!(parents),
    };
    let k = keys.choose(random).unwrap();
    let v = random.random_range(0..3);
    json!({"_id": id, "k": k, "p": p, "v": v})
}

/// Two pipes that do the same: `p` goes on from where it stands, `q` reads everything each time.
pub struct Twins<W: Fn() -> World, E: Fn(&World, &mut StdRng)> {
    /// For messages.
    pub name: &'static str,
    /// A world with both.
    pub world: W,
    /// What happens before each round.
    pub edit: E,
    /// The place whose way back is taken away.
    pub lost: Option<usize>,
}

impl<W: Fn() -> World, E: Fn(&World, &mut StdRng)> Twins<W, E> {
    /// What `p` and `q` were when they first were not the same, if ever; and how many entities came
    /// once more.
    pub fn compare(&self, rounds: usize, seed: u64) -> (Option<String>, u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = (self.world)();
        let mut again = 0;
        for round in 0..rounds {
            if round % OF_A_WORLD == 0 {
                world = (self.world)();
            }
            if let Some(place) = self.lost {
                world.live_pipe("p").ways.lose(place);
            }
            (self.edit)(&world, &mut random);
            again += world.succeed("p").reprocessed();
            let summary = world.rescan("q");
            assert!(summary.success(), "{:?}", summary.failure);
            let (found, expected) = (world.entities("p"), world.entities("q"));
            if found != expected {
                let seen = format!(
                    "{}, seed {seed}, round {round}: found {found:?}, expected {expected:?}",
                    self.name
                );
                return (Some(seen), again);
            }
        }
        (None, again)
    }
}

/// The round after which `p` was not what `q` is, if there was one, and what they were.
fn compare(
    (name, rules): &(&'static str, Json),
    behind: bool,
    lost: Option<usize>,
    rounds: usize,
    seed: u64,
) -> Option<String> {
    let twins = Twins {
        name,
        world: || world(rules, behind),
        edit: |world: &World, random: &mut StdRng| {
            for _ in 0..random.random_range(1..5) {
                edit(world, random);
            }
        },
        lost,
    };
    twins.compare(rounds, seed).0
}

pub fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap())
}

fn at_random(behind: bool) {
    let seed = number("TAHINI_SEED", rand::random());
    let rounds = number("TAHINI_ROUNDS", ROUNDS as u64) as usize;
    for shape in shapes() {
        let difference = compare(&shape, behind, None, rounds, seed);
        assert_eq!(difference, None, "TAHINI_SEED={seed}");
    }
}

#[test]
fn following_changes_comes_to_the_same_as_reading_everything() {
    at_random(false);
}

#[test]
fn so_it_does_behind_another_transform() {
    at_random(true);
}

/// The comparison would notice: without the way back of any one alias it fails.
#[test]
fn every_way_back_is_needed() {
    for shape in shapes() {
        let places =
            (0..).take_while(|place| world(&shape.1, false).live_pipe("p").ways.lose(*place));
        for place in places {
            let missed = compare(&shape, false, Some(place), TO_MISS, 7);
            assert!(
                missed.is_some(),
                "{}: nobody misses the way back of place {place}",
                shape.0
            );
        }
    }
}
