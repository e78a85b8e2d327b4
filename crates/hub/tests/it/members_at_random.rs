//! What was merged and then joined: runs that follow what changed in joined datasets, and a run over
//! everything, come to the same, whatever is written, deleted, brought back or given to others.
//! `TAHINI_SEED` repeats a failure, `TAHINI_ROUNDS` asks for more.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::{Rng, seq::IndexedRandom};
use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;

use crate::dependencies::put;
use crate::dependencies_at_random::{edit_of, number};
use crate::world::World;

const OF_A_WORLD: usize = 40;
const ROUNDS: usize = 160;
const TO_MISS: usize = 400;

/// Rules by a name for messages, and how the source says who is who.
fn shapes() -> Vec<(&'static str, Json, Json)> {
    let hops = |specs: Json| {
        let mut call = vec![json!("hops")];
        call.extend(specs.as_array().unwrap().iter().cloned());
        json!({"default": [["copy", ["list", "_id", "v"]], ["add", "x", ["sorted", ["map", "_.v", call]]]]})
    };
    let by = |one: Json, two: Json| hops(json!([{"datasets": ["b b"], "where": ["eq", one, two]}]));
    let default = json!({});
    vec![
        (
            "by a property",
            by(json!("_S.p"), json!("b._id")),
            default.clone(),
        ),
        (
            "by a property whose values are put together",
            by(json!("_S.p"), json!("b.p")),
            json!({"strategy": "compact"}),
        ),
        (
            "by what a function makes of each value",
            by(json!(["upper", "_S.k"]), json!(["upper", "b.k"])),
            default.clone(),
        ),
        (
            "by the ids",
            by(json!("_S.$ids"), json!("b.p")),
            default.clone(),
        ),
        (
            "by the ids of members",
            by(json!("_S.$ids"), json!("b.p")),
            json!({"strategy": "list"}),
        ),
        (
            "by the first id",
            by(json!("_S._id"), json!("b.p")),
            json!({"identity": "first"}),
        ),
        (
            "by the id that was put together",
            by(
                json!("_S._id"),
                json!(["map", ["concat", "0|", "_."], "b.p"]),
            ),
            default.clone(),
        ),
        (
            "a chain",
            hops(json!([
                {"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]},
                {"datasets": ["c c"], "where": ["eq", "_S.k", "c.k"]}
            ])),
            default.clone(),
        ),
        (
            "a dataset that is merged, too",
            hops(json!([{"datasets": ["a x"], "where": ["eq", "_S.p", "x.p"]}])),
            default.clone(),
        ),
        (
            "applied rules",
            json!({
                "default": [["copy", "_id"], ["add", "x", ["apply-hops", "r",
                    {"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]}]]],
                "r": [["copy", "v"], ["add", "y", ["hops",
                    {"datasets": ["c c"], "where": ["eq", "_P._S.k", "c.k"], "return": "c.v"}]]]
            }),
            default,
        ),
    ]
}

/// The same pipe twice: `p` goes on from where it stands, `q` reads everything each time.
fn world(rules: &Json, more: &Json) -> World {
    let mut world = World::new();
    for id in ["p", "q"] {
        let mut source = json!({
            "type": "merge", "version": 2, "datasets": ["s s", "a a"],
            "equality": [["eq", "s.k", "a.k"]],
        });
        for (name, value) in more.as_object().unwrap() {
            source[name] = value.clone();
        }
        world.pipe(json!({
            "_id": id, "source": source, "transform": {"type": "dtl", "rules": rules},
            "batch_size": 3,
        }));
    }
    world
}

/// What a pipe has written that is not deleted.
fn living(world: &World, pipe: &str) -> BTreeMap<String, Json> {
    let all = world.versions(pipe, false, Fields::CONTENT).into_iter();
    let living = all.filter(|entity| entity["_deleted"] != true);
    living
        .map(|entity| (entity["_id"].to_string(), entity))
        .collect()
}

/// What `p` and `q` were when they first were not the same, if ever; and how many entities came once
/// more.
fn compare(
    (name, rules, more): &(&'static str, Json, Json),
    lost: Option<usize>,
    rounds: usize,
    seed: u64,
) -> (Option<String>, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = self::world(rules, more);
    let mut again = 0;
    for round in 0..rounds {
        if round % OF_A_WORLD == 0 {
            world = self::world(rules, more);
        }
        if let Some(place) = lost {
            world.live_pipe("p").ways.lose(place);
        }
        for _ in 0..random.random_range(1..4) {
            let dataset = *["s", "a", "b", "b", "c"].choose(&mut random).unwrap();
            let mut entity = edit_of(&mut random);
            if dataset == "a" && more["identity"] == "first" {
                // Two that are not the same must not have one id then.
                entity["_id"] = json!(format!("a{}", entity["_id"].as_str().unwrap()));
            }
            put(&world, dataset, entity);
        }
        again += world.succeed("p").reprocessed();
        let summary = world.rescan("q");
        assert!(summary.success(), "{:?}", summary.failure);
        let (found, expected) = (living(&world, "p"), living(&world, "q"));
        if found != expected {
            let seen = format!(
                "{name}, seed {seed}, round {round}: found {found:?}, expected {expected:?}"
            );
            return (Some(seen), again);
        }
    }
    (None, again)
}

#[test]
fn what_was_merged_follows_what_it_is_joined_with() {
    let seed = number("TAHINI_SEED", rand::random());
    let rounds = number("TAHINI_ROUNDS", ROUNDS as u64) as usize;
    for shape in shapes() {
        let (difference, again) = compare(&shape, None, rounds, seed);
        assert_eq!(difference, None, "TAHINI_SEED={seed}");
        assert!(
            again > 0,
            "{}: nothing came again, TAHINI_SEED={seed}",
            shape.0
        );
    }
}

/// The comparison would notice: without the way back of any one alias it fails.
#[test]
fn every_way_back_to_members_is_needed() {
    for shape in shapes() {
        let places = (0..).take_while(|place| {
            let world = world(&shape.1, &shape.2);
            world.live_pipe("p").ways.lose(*place)
        });
        for place in places {
            let (missed, _) = compare(&shape, Some(place), TO_MISS, 7);
            assert!(
                missed.is_some(),
                "{}: nobody misses the way back of place {place}",
                shape.0
            );
        }
    }
}
