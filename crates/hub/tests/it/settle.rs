//! Running pipes until nothing changes.

use serde_json::{Value as Json, json};
use tahini_hub::execution_log::User;
use tahini_hub::settle::{Ending, Options, Rest, settle};
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
        let asleep = one
            .disabled
            .as_ref()
            .map(|comment| format!(" disabled: {comment}"));
        ran.push(format!(
            "{} {}{}",
            one.pass,
            one.pipe,
            asleep.unwrap_or_default()
        ));
    });
    (ran, rest.unwrap())
}

fn settled() -> Rest {
    Rest::default()
}

#[test]
fn writers_of_a_dataset_run_before_its_readers() {
    let mut world = World::new();
    world.pipe(copy("a-last", "b-middle"));
    world.pipe(copy("b-middle", "c-first"));
    world.pipe(json!({"_id": "c-first"}));
    world.records("c-first", records(&[("x", 1)]));
    let (ran, rest) = run(&world, &Options::default());
    assert_eq!(rest, settled());
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
    assert_eq!(rest, settled());
    assert_eq!(
        (world.living("pong"), world.version_count("ping")),
        (vec!["x".into(), "y".into()], 2)
    );
}

/// Two entities in a dataset, and a pipe that adds one to one of them whenever it runs.
fn restless() -> World {
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
    world
}

fn passes(max_passes: usize) -> Options {
    Options {
        max_passes,
        ..Options::default()
    }
}

#[test]
fn pipes_that_never_rest_are_named_with_their_entities() {
    let (ran, rest) = run(&restless(), &passes(7));
    let expected = Rest {
        ending: Ending::OutOfPasses,
        restless: vec![("more".into(), vec!["restless".into()])],
        ..settled()
    };
    assert_eq!(rest, expected);
    assert_eq!(ran.last().unwrap(), "7 more");
}

#[test]
fn what_is_sent_outside_again_and_again_is_named() {
    let mut world = restless();
    world.pipe(json!({
        "_id": "out", "source": {"type": "dataset", "dataset": "ping"}, "sink": {"type": "scripted"},
    }));
    world.pipe(json!({"_id": "calm", "sink": {"type": "scripted"}}));
    world.records("calm", records(&[("x", 1)]));
    let (_, rest) = run(&world, &passes(3));
    let of = |pipe: &str| (pipe.to_owned(), vec!["restless".to_owned()]);
    assert_eq!(rest.restless, [of("more"), of("out")]);
}

#[test]
fn as_many_passes_as_are_needed_are_enough() {
    // One pass in order does all there is to do.
    let mut world = World::new();
    world.pipe(copy("a-last", "b-first"));
    world.pipe(json!({"_id": "b-first"}));
    world.records("b-first", records(&[("x", 1)]));
    let (ran, rest) = run(&world, &passes(1));
    assert_eq!((ran.len(), rest), (2, settled()));

    // A cycle takes a second pass to see that nothing comes back.
    for (most, settles) in [(1, false), (2, true)] {
        let mut world = World::new();
        let sink = json!({"type": "dataset", "dataset": "ping", "deletion_tracking": false});
        world.pipe(json!({"_id": "a-seed", "sink": sink}));
        world.pipe(json!({
            "_id": "back", "source": {"type": "dataset", "dataset": "pong"}, "sink": sink,
        }));
        world.pipe(copy("pong", "ping"));
        world.records("a-seed", records(&[("x", 1)]));
        let (ran, rest) = run(&world, &passes(most));
        assert_eq!(
            rest.is_settled(),
            settles,
            "{most} passes: {ran:?} {rest:?}"
        );
        assert!(
            ran.iter()
                .all(|ran| ran[..1].parse::<usize>().unwrap() <= most)
        );
    }
}

/// A pipe that waits for a dataset which nothing writes.
fn waits() -> Json {
    let mut waits = copy("waits", "nowhere");
    waits["source"]["require_populated_input"] = json!(true);
    waits
}

#[test]
fn a_wait_that_nothing_ends_is_named_for_what() {
    let mut world = World::new();
    world.pipe(waits());
    let (ran, rest) = run(&world, &Options::default());
    assert_eq!(rest.ending, Ending::AtRest);
    let words = &rest.waits[0];
    assert!(
        words.contains("\"waits\"") && words.contains("\"nowhere\""),
        "{words:?}"
    );
    assert_eq!(ran, [""; 0]);
}

#[test]
fn a_wait_is_named_beside_a_failure() {
    let mut world = World::new();
    world.pipe(waits());
    world.pipe(json!({"_id": "bad"}));
    world.upstream("bad", |upstream| upstream.always_fails_at = Some(0));
    let (_, rest) = run(&world, &Options::default());
    assert_eq!(rest.failed, ["bad"]);
    assert!(rest.waits[0].contains("\"nowhere\""), "{rest:?}");
}

#[test]
fn a_disabled_pipe_is_told_and_is_no_failure() {
    let mut world = restless();
    world
        .hub()
        .switch("more", false, "not now", &User::default())
        .unwrap();
    world.pipe(copy("reader", "ping"));
    let (ran, rest) = run(&world, &Options::default());
    assert_eq!(rest, settled());
    assert_eq!(ran, ["1 more disabled: not now", "1 seed", "1 reader"]);
    assert_eq!(world.living("reader"), ["calm", "restless"]);
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
    assert_eq!(run(&world, &Options::default()).1, settled());
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
    assert_eq!(run(&world, &Options::default()).1.failed, ["bad"]);
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
    assert_eq!(rest.ending, Ending::Stopped);
}

#[test]
fn what_is_held_back_is_let_through_once_nothing_more_comes() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "posted", "source": {"type": "http_endpoint"}}));
    for (id, dataset) in [
        ("a", "in"),
        ("b", "a"),
        ("c", "b"),
        ("d", "posted"),
        ("e", "d"),
    ] {
        world.pipe(json!({
            "_id": id,
            "source": {"type": "dataset", "dataset": dataset, "completeness": true},
        }));
    }
    world.records("in", vec![json!({"_id": "x"})]);
    let live = world.live_pipe("posted");
    let push = tahini_hub::receiver::Push::default();
    tahini_hub::receiver::receive(world.hub(), &live, &push, &b"{\"_id\": \"y\"}"[..]).unwrap();
    let rest = settle(world.hub(), &Options::default(), &Cancel::new(), |_| {}).unwrap();
    assert!(rest.is_settled(), "{rest:?}");
    assert_eq!(
        (world.living("c"), world.living("e")),
        (vec!["x".to_owned()], vec!["y".to_owned()])
    );
}

#[test]
fn what_is_held_back_for_good_is_told() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "a", "source": {
        "type": "dataset", "dataset": "in", "initial_completeness": ["never"]
    }}));
    world.records("in", vec![json!({"_id": "x"})]);
    let rest = settle(world.hub(), &Options::default(), &Cancel::new(), |_| {}).unwrap();
    assert_eq!(rest.waits.len(), 1, "{rest:?}");
    assert!(rest.waits[0].contains("\"never\""), "{}", rest.waits[0]);
}
