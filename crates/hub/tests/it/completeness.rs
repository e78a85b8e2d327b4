//! Up to when datasets are complete, and sources that wait for it.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::completeness;
use tahini_hub::receiver::{Push, receive};

use crate::script::{gate, records};
use crate::world::{BEGINNING, World};

const SECOND: i64 = 1_000_000;

/// The completeness of `of` that `via` knows, in seconds since the beginning.
fn known(world: &World, via: &str, of: &str) -> Option<i64> {
    let world = &world.hub().world;
    let value = completeness::value(world.store.as_ref(), &world.known, via, of).unwrap();
    value.map(|value| (value - BEGINNING).div_euclid(SECOND))
}

/// Sets the clock to so many seconds after the beginning.
fn at(world: &World, seconds: i64) {
    world.clock.set(BEGINNING + seconds * SECOND);
}

fn run_at(world: &World, seconds: i64, pipe: &str) {
    at(world, seconds);
    world.succeed(pipe);
}

/// Rules that look something up in `dataset`.
fn joining(dataset: &str) -> Json {
    let lookup = json!(["lookup-entity", dataset, "x"]);
    json!({"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "x", lookup]]}})
}

/// Two inbound pipes, `orders` with what `people` has joined to it, and `out` behind.
fn joined(more: Json) -> World {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "orders-in"}));
    world.pipe(json!({"_id": "people"}));
    let mut orders = json!({
        "_id": "orders",
        "source": {"type": "dataset", "dataset": "orders-in"},
        "transform": joining("people"),
    });
    for (name, value) in more.as_object().unwrap() {
        orders[name] = value.clone();
    }
    world.pipe(orders);
    world.pipe(json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "orders", "completeness": true},
        "sink": {"type": "scripted"},
    }));
    world.records("people", records(&[("x", 1)]));
    world
}

#[test]
fn an_inbound_pipe_gives_the_time_at_which_its_run_began() {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "in"}));
    assert_eq!(known(&world, "in", "in"), None);
    world.records("in", records(&[("a", 1)]));
    let (gate, keeper) = gate();
    world.upstream("in", |upstream| upstream.gate = Some(gate));
    at(&world, 10);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.succeed("in"));
        keeper.wait();
        at(&world, 20);
        assert_eq!(known(&world, "in", "in"), None, "before the run is over");
        keeper.open.send(()).unwrap();
        run.join().unwrap();
    });
    assert_eq!(known(&world, "in", "in"), Some(10));
    world.upstream("in", |upstream| upstream.gate = None);

    // A run that changes nothing moves it, too, and writes nothing for that.
    let dataset = world.hub().world.store.find("in").unwrap().unwrap();
    let before = dataset.snapshot().unwrap().head().clone();
    run_at(&world, 30, "in");
    assert_eq!(known(&world, "in", "in"), Some(30));
    assert_eq!(dataset.snapshot().unwrap().head().bytes, before.bytes);
    drop(dataset);

    // What was written last is there after a restart; it never promises too much.
    world.restart();
    assert_eq!(known(&world, "in", "in"), Some(10));
    run_at(&world, 30 + 600, "in");
    world.restart();
    assert_eq!(known(&world, "in", "in"), Some(630));
}

#[test]
fn a_failed_run_promises_nothing() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.records("in", records(&[("a", 1)]));
    run_at(&world, 10, "in");
    world.upstream("in", |upstream| upstream.always_fails_at = Some(1));
    at(&world, 20);
    world.fail("in");
    assert_eq!(known(&world, "in", "in"), Some(10));
}

#[test]
fn a_dataset_inherits_the_smallest_value_of_what_its_pipe_reads() {
    let world = joined(json!({}));
    run_at(&world, 10, "people");
    run_at(&world, 20, "orders-in");
    run_at(&world, 30, "orders");
    assert_eq!(known(&world, "orders", "orders"), Some(10));
    assert_eq!(known(&world, "orders", "people"), Some(10));
    assert_eq!(known(&world, "orders", "orders-in"), Some(20));
    run_at(&world, 40, "people");
    // It has not come through yet.
    assert_eq!(known(&world, "orders", "people"), Some(10));
    run_at(&world, 50, "orders");
    assert_eq!(known(&world, "orders", "orders"), Some(20));
    assert_eq!(known(&world, "orders", "people"), Some(40));
    // Who has not heard of a dataset knows nothing of it.
    assert_eq!(known(&world, "people", "orders"), None);
}

#[test]
fn datasets_are_left_out_or_chosen() {
    for (more, expected) in [
        (json!({"exclude_completeness": ["people"]}), 20),
        (json!({"exclude_completeness": ["orders-in"]}), 10),
        (json!({"include_completeness": ["orders-in"]}), 20),
        (
            json!({"include_completeness": ["people", "orders-in"],
                   "exclude_completeness": ["people"]}),
            20,
        ),
        // Nothing is left: the pipe makes a value of its own.
        (json!({"exclude_completeness": ["people", "orders-in"]}), 30),
    ] {
        let world = joined(more.clone());
        run_at(&world, 10, "people");
        run_at(&world, 20, "orders-in");
        run_at(&world, 30, "orders");
        assert_eq!(known(&world, "orders", "orders"), Some(expected), "{more}");
    }
}

#[test]
fn an_input_that_says_nothing_holds_everything_back() {
    let world = joined(json!({}));
    world.records("orders-in", records(&[("o", 1)]));
    run_at(&world, 20, "orders-in");
    // `people` is populated by hand, as it were: nothing ever promised anything of it.
    world.commit("people", &tahini_entity::Batch::new(), BEGINNING);
    run_at(&world, 30, "orders");
    assert_eq!(known(&world, "orders", "orders"), None);
    let summary = world.succeed("out");
    assert_eq!((summary.read, world.offset("out")), (0, Json::Null));
    let why = summary.held_back.unwrap();
    assert!(why.contains("\"orders\" has no completeness yet"), "{why}");
}

#[test]
fn a_source_stops_before_what_is_newer_and_goes_on_there() {
    let world = joined(json!({}));
    run_at(&world, 10, "people");
    world.records("orders-in", records(&[("a", 1)]));
    run_at(&world, 20, "orders-in");
    run_at(&world, 30, "orders");
    // `a` was written at 30, and only what was before 10 is complete.
    let summary = world.succeed("out");
    assert_eq!((summary.read, world.offset("out")), (0, Json::Null));
    assert!(summary.held_back.is_some());

    run_at(&world, 40, "people");
    run_at(&world, 41, "orders-in");
    world.records("orders-in", records(&[("a", 1), ("b", 1)]));
    run_at(&world, 50, "orders-in");
    run_at(&world, 60, "orders");
    // `orders` is complete up to 40 now: `a` goes out, `b` of 60 waits.
    let summary = world.succeed("out");
    assert_eq!(world.taken("out").concat(), ["a"]);
    assert_eq!((summary.read, world.offset("out")), (1, json!(0)));
    assert!(summary.held_back.unwrap().contains("held back"));

    run_at(&world, 70, "people");
    run_at(&world, 71, "orders-in");
    run_at(&world, 72, "orders");
    let summary = world.succeed("out");
    assert_eq!(world.taken("out").concat(), ["a", "b"]);
    assert_eq!(summary.held_back, None);
    assert_eq!(world.offset("out"), json!(1));
}

#[test]
fn what_is_held_back_is_neither_skipped_by_a_subset_nor_by_replaced_entities() {
    for more in [
        json!({"include_replaced": false}),
        json!({"subset": ["eq", "_S.kind", "k"]}),
    ] {
        let mut world = World::new();
        world.pipe(json!({"_id": "in"}));
        let mut source = json!({"type": "dataset", "dataset": "in", "completeness": true});
        for (name, value) in more.as_object().unwrap() {
            source[name] = value.clone();
        }
        world.pipe(json!({"_id": "out", "source": source, "sink": {"type": "scripted"}}));
        let kind = |id: &str| json!({"_id": id, "kind": "k"});
        world.records("in", vec![kind("a")]);
        run_at(&world, 10, "in");
        run_at(&world, 20, "in");
        world.records("in", vec![kind("a"), kind("b")]);
        run_at(&world, 30, "in");
        let summary = world.succeed("out");
        assert_eq!(world.taken("out").concat(), ["a"], "{more}");
        assert_eq!(world.offset("out"), json!(0), "{more}");
        assert!(summary.held_back.is_some());
        run_at(&world, 40, "in");
        world.succeed("out");
        assert_eq!(world.taken("out").concat(), ["a", "b"], "{more}");
    }
}

#[test]
fn a_run_that_holds_back_deletes_nothing() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "in", "completeness": true},
    }));
    world.records("in", records(&[("a", 1), ("b", 1)]));
    run_at(&world, 10, "in");
    run_at(&world, 20, "in");
    world.succeed("out");
    assert_eq!(world.living("out"), ["a", "b"]);
    // `a` changed and is held back: a rescan does not come to it, and leaves it as it is.
    world.records("in", records(&[("a", 2), ("b", 1)]));
    run_at(&world, 30, "in");
    let summary = world.rescan("out");
    assert!(summary.success() && summary.held_back.is_some());
    assert_eq!(world.living("out"), ["a", "b"]);
    // When all is let through, a rescan deletes as ever.
    run_at(&world, 40, "in");
    world.succeed("out");
    let latest = world.versions("out", false, Fields::CONTENT);
    assert_eq!(latest[1]["v"], 2);
}

#[test]
fn a_source_can_wait_for_datasets_further_up() {
    for (wanted, read) in [(json!(["people"]), 0), (json!(["orders-in"]), 1)] {
        let mut world = joined(json!({}));
        world.pipe(json!({
            "_id": "out",
            "source": {"type": "dataset", "dataset": "orders", "completeness": wanted},
            "sink": {"type": "scripted"},
        }));
        run_at(&world, 10, "people");
        world.records("orders-in", records(&[("a", 1)]));
        run_at(&world, 20, "orders-in");
        run_at(&world, 30, "orders");
        run_at(&world, 40, "orders-in");
        run_at(&world, 50, "orders");
        assert_eq!(world.succeed("out").read, read, "{wanted}");
    }
}

#[test]
fn an_expression_says_how_far_a_source_reads() {
    let ten_seconds_ago = json!(["datetime-plus", "second", -10, ["now"]]);
    let both = json!(["min", ["list", ["completeness", "in", "in"], ["now"]]]);
    for (expression, at_15, at_25) in [
        (ten_seconds_ago, 0, 1),
        // The dataset was complete at 12 when its entity of 12 came a little later.
        (both, 0, 0),
        (json!("no datetime"), 0, 0),
    ] {
        let mut world = World::new();
        world.pipe(json!({"_id": "in"}));
        let says = json!({"expression": expression});
        world.pipe(json!({
            "_id": "out",
            "source": {"type": "dataset", "dataset": "in", "completeness": says},
            "sink": {"type": "scripted"},
        }));
        world.records("in", records(&[("a", 1)]));
        run_at(&world, 12, "in");
        at(&world, 15);
        assert_eq!(world.succeed("out").read, at_15, "{says}");
        at(&world, 25);
        assert_eq!(world.succeed("out").read, at_25, "{says}");
        let summary = world.succeed("out");
        assert_eq!(summary.held_back.is_some(), at_25 == 0, "{says}");
    }
}

#[test]
fn the_first_completeness_of_other_datasets_opens_a_source() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "other"}));
    world.pipe(json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "in", "initial_completeness": ["other"]},
    }));
    world.records("in", records(&[("a", 1)]));
    world.succeed("in");
    let summary = world.succeed("out");
    assert!(summary.held_back.unwrap().contains("\"other\""));
    let out = world.hub().world.store.find("out").unwrap().unwrap();
    assert!(!out.snapshot().unwrap().head().populated);
    world.succeed("other");
    assert_eq!(world.succeed("out").read, 1);
    assert!(out.snapshot().unwrap().head().populated);
}

fn post(world: &World, push: &Push, id: &str) {
    let body = json!({"_id": id}).to_string();
    receive(
        world.hub(),
        &world.live_pipe("posted"),
        push,
        body.as_bytes(),
    )
    .unwrap();
}

#[test]
fn posts_bring_a_completeness_or_the_time_at_which_they_came() {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "posted", "source": {"type": "http_endpoint"}}));
    world.pipe(json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "posted", "completeness": true},
        "sink": {"type": "scripted"},
    }));
    at(&world, 10);
    post(&world, &Push::default(), "a");
    assert_eq!(known(&world, "posted", "posted"), Some(10));
    assert_eq!(world.succeed("out").read, 1, "all that was posted is in");

    let said = Push {
        completeness: Some(BEGINNING + 5 * SECOND),
        ..Push::default()
    };
    at(&world, 20);
    post(&world, &said, "b");
    assert_eq!(known(&world, "posted", "posted"), Some(5));
    assert_eq!(world.succeed("out").read, 0);
    world.restart();
    assert_eq!(known(&world, "posted", "posted"), Some(5));

    // A full sequence says nothing before its last request.
    let part = |request: &str, before: Option<&str>, is_last: bool| Push {
        sequence_id: Some("s".to_owned()),
        is_full: true,
        request_id: Some(request.to_owned()),
        previous_request_id: before.map(str::to_owned),
        is_first: before.is_none(),
        is_last,
        completeness: None,
    };
    at(&world, 30);
    post(&world, &part("1", None, false), "a");
    assert_eq!(known(&world, "posted", "posted"), Some(5));
    at(&world, 40);
    post(&world, &part("2", Some("1"), true), "b");
    assert_eq!(known(&world, "posted", "posted"), Some(40));
}

#[test]
fn rules_see_the_completeness_of_datasets() {
    let world = joined(json!({}));
    run_at(&world, 10, "people");
    run_at(&world, 20, "orders-in");
    run_at(&world, 30, "orders");
    run_at(&world, 40, "people");
    let mut world = world;
    let asks = [
        ("people", "people"),
        ("orders", "people"),
        ("people", "orders"),
        ("gone", "x"),
    ];
    let adds = asks
        .iter()
        .enumerate()
        .map(|(at, (via, of))| json!(["add", at.to_string(), ["completeness", via, of]]));
    world.pipe(json!({
        "_id": "seen",
        "transform": {"type": "dtl", "rules": {"default": adds.collect::<Vec<Json>>()}},
    }));
    world.records("seen", vec![json!({"_id": "s"})]);
    world.succeed("seen");
    let seen = &world.versions("seen", false, Fields::CONTENT)[0];
    let start = |value: &Json| value.as_str().unwrap_or_default()[..21].to_owned();
    assert_eq!(start(&seen["0"]), "~t2026-01-02T03:04:45");
    assert_eq!(start(&seen["1"]), "~t2026-01-02T03:04:15");
    assert_eq!((&seen["2"], &seen["3"]), (&Json::Null, &Json::Null));
}

fn is_populated(world: &World, dataset: &str) -> bool {
    let found = world.hub().world.store.find(dataset).unwrap();
    found.is_some_and(|dataset| dataset.snapshot().unwrap().head().populated)
}

/// A pipe `kept` that lets through what is complete of `in`, and one that joins what that has.
fn kept() -> World {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({
        "_id": "kept",
        "source": {"type": "dataset", "dataset": "in", "completeness": true},
    }));
    world.pipe(json!({"_id": "joins", "transform": joining("kept")}));
    world.records("joins", records(&[("j", 1)]));
    world
}

/// Who joins a dataset into which nothing was let through yet would find nothing, and take that
/// for an answer.
#[test]
fn what_is_held_back_altogether_populates_nothing() {
    let mut world = kept();
    world.records("in", records(&[("a", 1), ("x", 1)]));
    run_at(&world, 10, "in");
    at(&world, 20);
    for _ in 0..2 {
        let summary = world.succeed("kept");
        assert!(summary.held_back.is_some());
        assert!(!is_populated(&world, "kept"));
        assert!(world.fail("joins").contains("not populated"));
        world.restart();
    }
    run_at(&world, 30, "in");
    world.succeed("kept");
    assert!(is_populated(&world, "kept"));
    world.succeed("joins");
    let joined = &world.versions("joins", false, Fields::CONTENT)[0];
    assert_eq!(joined["x"]["_id"], "x");
}

/// There is always something that is too new, and what was there at first comes through all the
/// same.
#[test]
fn a_flow_that_is_always_busy_is_populated_when_its_beginning_came_through() {
    let mut world = kept();
    world.records("in", records(&[("a", 1), ("x", 1)]));
    run_at(&world, 10, "in");
    run_at(&world, 11, "kept");
    let populated: Vec<bool> = (2..6)
        .map(|round| {
            let rows = records(&[("a", round), ("x", 1), ("b", round)]);
            world.records("in", rows);
            run_at(&world, round * 10, "in");
            world.restart();
            let summary = world.succeed("kept");
            assert!(summary.held_back.is_some(), "{round}");
            is_populated(&world, "kept")
        })
        .collect();
    assert_eq!(populated, [true; 4], "x came through, a and b change");
    assert_eq!(world.living("kept"), ["x"]);
}

/// All of it changes again before it may be read, so that nothing ever comes through.
#[test]
fn a_beginning_of_which_nothing_came_through_populates_nothing() {
    let world = kept();
    for round in 1..5 {
        world.records("in", records(&[("a", round), ("x", round)]));
        run_at(&world, round * 10, "in");
        world.succeed("kept");
        assert_eq!(world.living("kept"), [""; 0]);
        assert!(!is_populated(&world, "kept"), "{round}");
    }
}
