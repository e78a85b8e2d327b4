//! What was merged and then joined: runs that follow what changed in joined datasets, and a run over
//! everything, come to the same, whatever is written, deleted, brought back or given to others.
//! `TAHINI_SEED` repeats a failure, `TAHINI_ROUNDS` asks for more.

use rand::rngs::StdRng;
use rand::{Rng, seq::IndexedRandom};
use serde_json::{Value as Json, json};

use crate::dependencies::put;
use crate::dependencies_at_random::{Twins, edit_of, number};
use crate::world::World;

const ROUNDS: usize = 160;
const TO_MISS: usize = 400;

/// Rules that add what is joined.
fn hops(specs: Json) -> Json {
    let mut call = vec![json!("hops")];
    call.extend(specs.as_array().unwrap().iter().cloned());
    json!({"default": [["copy", ["list", "_id", "v"]], ["add", "x", ["sorted", ["map", "_.v", call]]]]})
}

fn by(one: Json, two: Json) -> Json {
    hops(json!([{"datasets": ["b b"], "where": ["eq", one, two]}]))
}

/// Rules that join by one property, item by item.
fn item_by_item() -> Vec<(&'static str, Json, Json)> {
    let default = json!({});
    vec![
        (
            "by what is made of each value",
            by(
                json!(["map", ["upper", "_."], "_S.k"]),
                json!(["upper", "b.k"]),
            ),
            default.clone(),
        ),
        (
            "by some of the values",
            by(json!(["filter", ["neq", "_.", "k"], "_S.k"]), json!("b.k")),
            json!({"strategy": "compact"}),
        ),
        (
            "by each value once",
            by(json!(["distinct", "_S.p"]), json!("b.p")),
            default.clone(),
        ),
        (
            "by what is made of some of the values",
            by(
                json!([
                    "map",
                    ["concat", "x", "_."],
                    ["filter", ["is-not-null", "_."], "_S.k"]
                ]),
                json!(["concat", "x", "b.k"]),
            ),
            default.clone(),
        ),
    ]
}

/// Rules by a name for messages, and how the source says who is who.
fn shapes() -> Vec<(&'static str, Json, Json)> {
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
            "by several properties together",
            by(
                json!(["tuples", "_S.k", "_S.p"]),
                json!(["tuples", "b.k", "b.p"]),
            ),
            json!({"strategy": "compact"}),
        ),
        (
            "by several properties, one of which takes part as a whole",
            by(
                json!(["tuples", ["count", "_S.k"], ["upper", "_S.k"], "_S.p"]),
                json!(["tuples", 1, ["upper", "b.k"], "b.p"]),
            ),
            default.clone(),
        ),
        (
            "by several properties, one after the other",
            hops(
                json!([{"datasets": ["b b"], "where": [["eq", "_S.k", "b.k"], ["eq", "_S.p", "b.p"]]}]),
            ),
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

/// What `p` and `q` were when they first were not the same, if ever; and how many entities came once
/// more.
fn compare(
    (name, rules, more): &(&'static str, Json, Json),
    lost: Option<usize>,
    rounds: usize,
    seed: u64,
) -> (Option<String>, u64) {
    let twins = Twins {
        name,
        world: || world(rules, more),
        edit: |world: &World, random: &mut StdRng| {
            for _ in 0..random.random_range(1..4) {
                let dataset = *["s", "a", "b", "b", "c"].choose(random).unwrap();
                put(world, dataset, edit_of(random));
            }
        },
        lost,
    };
    twins.compare(rounds, seed)
}

#[test]
fn what_was_merged_follows_what_it_is_joined_with() {
    let seed = number("TAHINI_SEED", rand::random());
    let rounds = number("TAHINI_ROUNDS", ROUNDS as u64) as usize;
    for shape in shapes().into_iter().chain(item_by_item()) {
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
    for shape in shapes().into_iter().chain(item_by_item()) {
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
