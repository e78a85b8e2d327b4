//! Running pipes until nothing changes.

use serde_json::{Value as Json, json};
use tahini_hub::settle::{Options, Rest, settle};
use tahini_hub::{Cancel, Failure};

use crate::script::records;
use crate::world::World;

/// Reads `from` and writes the pipe's own dataset.
fn copy(id: &str, from: &str) -> Json {
    json!({"_id": id, "source": {"type": "dataset", "dataset": from}})
}

/// The pipes that ran, as pass and id, and how it ended.
fn run(world: &World, options: &Options) -> (Vec<String>, Rest) {
    let mut ran = Vec::new();
    let rest = settle(world.hub(), options, &Cancel::new(), |one| {
        ran.push(format!("{} {}", one.pass, one.pipe));
    });
    (ran, rest.unwrap())
}

#[test]
fn writers_of_a_dataset_run_before_its_readers() {
    let mut world = World::new();
    world.pipe(copy("a-last", "b-middle"));
    world.pipe(copy("b-middle", "c-first"));
    world.pipe(json!({"_id": "c-first"}));
    world.records("c-first", records(&[("x", 1)]));
    let (ran, rest) = run(&world, &Options::default());
    assert_eq!(rest, Rest::Settled);
    assert_eq!(ran[..3], ["1 c-first", "1 b-middle", "1 a-last"]);
    assert_eq!(world.living("a-last"), ["x"]);
}

#[test]
fn pipes_that_read_from_outside_run_in_the_first_pass_only() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(copy("out", "in"));
    world.records("in", records(&[("x", 1)]));
    let (ran, _) = run(&world, &Options::default());
    assert_eq!(
        ran.iter().filter(|ran| ran.ends_with(" in")).count(),
        1,
        "{ran:?}"
    );
    let mut asked = 0;
    world.upstream("in", |upstream| asked = upstream.asked.len());
    assert_eq!(asked, 1);
}

#[test]
fn a_cycle_comes_to_rest() {
    let mut world = World::new();
    let seed = json!({"_id": "seed", "sink": {"type": "dataset", "dataset": "ping", "deletion_tracking": false}});
    world.pipe(seed);
    world.pipe(json!({
        "_id": "pong", "source": {"type": "dataset", "dataset": "ping"},
    }));
    world.pipe(json!({
        "_id": "back", "source": {"type": "dataset", "dataset": "pong"},
        "sink": {"type": "dataset", "dataset": "ping", "deletion_tracking": false},
    }));
    world.records("seed", records(&[("x", 1), ("y", 2)]));
    let (_, rest) = run(&world, &Options::default());
    assert_eq!(rest, Rest::Settled);
    assert_eq!(
        (world.living("pong"), world.version_count("ping")),
        (vec!["x".into(), "y".into()], 2)
    );
}

#[test]
fn pipes_that_never_rest_are_named_with_their_entities() {
    let mut world = World::new();
    world.pipe(json!({"_id": "seed", "sink": {"type": "dataset", "dataset": "ping", "deletion_tracking": false}}));
    world.records(
        "seed",
        vec![
            json!({"_id": "calm", "n": 0, "still": true}),
            json!({"_id": "restless", "n": 0}),
        ],
    );
    let rules = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["if", ["neq", "_S.still", true], ["add", "n", ["plus", 1, "_S.n"]]],
    ]}});
    world.pipe(json!({
        "_id": "more", "source": {"type": "dataset", "dataset": "ping"}, "transform": rules,
        "sink": {"type": "dataset", "dataset": "ping", "deletion_tracking": false},
    }));
    let options = Options {
        max_passes: 7,
        ..Options::default()
    };
    let (ran, rest) = run(&world, &options);
    assert_eq!(
        rest,
        Rest::Restless(vec![("more".into(), vec!["restless".into()])])
    );
    assert_eq!(ran.last().unwrap(), "7 more");
}

#[test]
fn a_wait_that_nothing_ends_is_named_for_what() {
    let mut world = World::new();
    let mut waits = copy("waits", "nowhere");
    waits["source"]["require_populated_input"] = json!(true);
    world.pipe(waits);
    let (ran, rest) = run(&world, &Options::default());
    let Rest::Stuck(words) = rest else {
        panic!("{rest:?}")
    };
    assert!(
        words[0].contains("\"waits\"") && words[0].contains("\"nowhere\""),
        "{words:?}"
    );
    assert_eq!(ran, [""; 0]);
}

#[test]
fn a_wait_that_another_pipe_ends_is_none() {
    let mut world = World::new();
    // The ids put the waiting one first in every order that looks at ids alone.
    let mut waits = copy("a-waits", "b-late");
    waits["source"]["require_populated_input"] = json!(true);
    world.pipe(waits);
    world.pipe(copy("b-late", "c"));
    world.pipe(json!({"_id": "c"}));
    world.records("c", records(&[("x", 1)]));
    assert_eq!(run(&world, &Options::default()).1, Rest::Settled);
    assert_eq!(world.living("a-waits"), ["x"]);
}

#[test]
fn a_failing_pipe_is_named_and_the_others_come_to_rest() {
    let mut world = World::new();
    for id in ["bad", "good"] {
        world.pipe(json!({"_id": id}));
        world.records(id, records(&[("x", 1)]));
    }
    world.upstream("bad", |upstream| {
        upstream.failures.push_back((0, Failure::transient("down")))
    });
    assert_eq!(
        run(&world, &Options::default()).1,
        Rest::Failed(vec!["bad".into()])
    );
    assert_eq!(world.living("good"), ["x"]);
}

#[test]
fn only_the_chosen_pipes_run() {
    let mut world = World::new();
    for id in ["one", "two"] {
        world.pipe(json!({"_id": id}));
    }
    let options = Options {
        only: vec!["two".into()],
        ..Options::default()
    };
    assert_eq!(run(&world, &options).0, ["1 two"]);
}

#[test]
fn pipes_to_the_outside_stay_still_where_outputs_are_off() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "out", "source": {"type": "dataset", "dataset": "in"}, "sink": {"type": "scripted"}}));
    world.records("in", records(&[("x", 1)]));
    let options = Options {
        outputs: false,
        ..Options::default()
    };
    assert_eq!(run(&world, &options).0, ["1 in"]);
    assert_eq!(world.taken("out"), [[""; 0]; 0]);
    run(&world, &Options::default());
    assert_eq!(world.taken("out"), [["x"]]);
}

#[test]
fn a_stopped_settle_says_so() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    let cancel = Cancel::new();
    cancel.cancel();
    let rest = settle(world.hub(), &Options::default(), &cancel, |_| {}).unwrap();
    assert_eq!(rest, Rest::Stopped);
}
