//! Why a pipe is idle, back to where that begins.

use serde_json::{Value as Json, json};
use tahini_hub::idle::why;

use crate::script::records;
use crate::world::World;

fn reads(id: &str, dataset: &str) -> Json {
    json!({"_id": id, "source": {"type": "dataset", "dataset": dataset}})
}

/// A pipe whose rules look into a dataset.
fn joins(id: &str, dataset: &str) -> Json {
    let hops = json!({"datasets": [format!("{dataset} d")], "where": ["eq", "_S.d", "d._id"]});
    json!({
        "_id": id,
        "transform": {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "d", ["hops", hops]]]}},
    })
}

fn told(world: &World, pipe: &str) -> Json {
    why(world.hub(), pipe, true).unwrap().to_json()
}

fn kinds(told: &Json) -> Vec<&str> {
    let reasons = told["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|one| one["reason"].as_str().unwrap())
        .collect()
}

fn roots(world: &World, pipe: &str) -> Vec<String> {
    let idle = why(world.hub(), pipe, true).unwrap();
    let roots = idle.roots().into_iter();
    roots
        .map(|(pipe, reason)| format!("{pipe}: {}", reason.kind.name()))
        .collect()
}

#[test]
fn nothing_new_says_how_far_everything_was_read() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(reads("b", "a"));
    world.records("a", records(&[("1", 1), ("2", 2)]));
    world.succeed("a");
    assert_eq!(kinds(&told(&world, "b")), ["scheduled"]);
    assert_eq!(told(&world, "b")["reasons"][0]["waiting"], 2);
    world.succeed("b");
    let idle = told(&world, "b");
    assert_eq!(kinds(&idle), ["nothing-new"]);
    assert_eq!(
        idle["reasons"][0]["datasets"],
        json!([{"dataset": "a", "last": 1, "read": 1}])
    );
    assert_eq!(idle["idle"], true);
}

#[test]
fn a_dataset_that_is_not_there_and_that_nobody_writes_is_no_cause() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(reads("b", "a"));
    world.upstream("a", |upstream| upstream.always_fails_at = Some(0));
    world.fail("a");
    world.succeed("b");
    assert_eq!(
        kinds(&told(&world, "b")),
        ["nothing-new", "source-not-populated"]
    );
    // The next run counts as populated.
    world.remove("a");
    world.hub().world.store.remove("a").unwrap();
    assert_eq!(kinds(&told(&world, "b")), ["nothing-new"]);
}

#[test]
fn a_dataset_that_is_waited_for_leads_to_the_pipe_that_failed() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(reads("b", "a"));
    world.pipe(joins("c", "b"));
    world.upstream("a", |upstream| upstream.always_fails_at = Some(0));
    world.fail("a");
    world.succeed("b");
    let words = world.fail("c");
    assert!(words.contains("waits for dataset \"b\""), "{words}");
    let idle = told(&world, "c");
    assert_eq!(kinds(&idle), ["waiting-for-dataset"]);
    let reason = &idle["reasons"][0];
    assert_eq!(
        (&reason["dataset"], &reason["filled-by"]),
        (&json!("b"), &json!(["b"]))
    );
    let behind = &reason["because"][0];
    assert_eq!(kinds(behind), ["nothing-new", "source-not-populated"]);
    assert_eq!(roots(&world, "c"), ["a: failed"]);
    // What failed is told with its words and its first time.
    let failed = told(&world, "a")["reasons"][0].clone();
    assert_eq!(failed["reason"], "failed");
    let first = failed["since"].clone();
    world
        .clock
        .set(world.hub().world.clock.micros() + 1_000_000);
    world.fail("a");
    let failed = told(&world, "a")["reasons"][0].clone();
    assert_eq!(failed["since"], first);
    assert_ne!(failed["last-run"], first);
    assert!(
        failed["error"]
            .as_str()
            .is_some_and(|words| !words.is_empty())
    );
    // When it is mended, nothing of that is left.
    world.upstream("a", |upstream| upstream.always_fails_at = None);
    for pipe in ["a", "b", "c"] {
        world.succeed(pipe);
    }
    assert_eq!(kinds(&told(&world, "a")), ["scheduled"]);
    assert!(
        roots(&world, "c")
            .iter()
            .all(|root| root.starts_with("c: "))
    );
}

#[test]
fn the_log_says_once_what_a_pipe_waits_for() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(joins("c", "a"));
    for _ in 0..3 {
        world.fail("c");
    }
    let waiting = |world: &World| -> Vec<Json> {
        let log = world.log("c").into_iter();
        log.filter(|entry| entry["event_type"] == "pump-waiting")
            .collect()
    };
    let told = waiting(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["datasets"], json!(["a"]));
    assert!(
        told[0]["reason"]
            .as_str()
            .unwrap()
            .contains("waits for dataset \"a\"")
    );
    assert_eq!(world.log_kinds("c"), ["pump-waiting"]);
    world.succeed("a");
    world.succeed("c");
    assert_eq!(waiting(&world).len(), 1);
}

#[test]
fn what_stops_pipes_further_up_is_told_of_one_that_has_nothing_to_do() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(reads("b", "a"));
    world.pipe(reads("c", "b"));
    for pipe in ["a", "b", "c"] {
        world.succeed(pipe);
    }
    assert_eq!(roots(&world, "c"), ["c: nothing-new"]);
    world
        .hub()
        .switch("a", false, "moving house", &Default::default())
        .unwrap();
    assert_eq!(kinds(&told(&world, "c")), ["nothing-new"]);
    assert_eq!(roots(&world, "c"), ["a: disabled"]);
    let message = told(&world, "a")["reasons"][0]["message"].clone();
    assert!(
        message.as_str().unwrap().contains("moving house"),
        "{message}"
    );
}

#[test]
fn a_tripped_breaker_and_switched_off_pumps_are_told() {
    let mut world = World::new();
    world.pipe(
        json!({"_id": "a", "sink": {"type": "dataset", "circuit_breaker_threshold_count": 1}}),
    );
    world.records("a", records(&[("1", 1)]));
    world.succeed("a");
    world.records("a", records(&[("1", 1), ("2", 2), ("3", 3)]));
    world.fail("a");
    let idle = told(&world, "a");
    assert_eq!(kinds(&idle), ["circuit-breaker", "failed"]);
    assert_eq!(idle["reasons"][0]["uncommitted"], 2);
    world.pipe(json!({"_id": "off", "pump": {"mode": "off"}}));
    assert_eq!(kinds(&told(&world, "off")), ["no-schedule"]);
    world.pipe(json!({"_id": "posts", "source": {"type": "http_endpoint"}}));
    assert_eq!(kinds(&told(&world, "posts")), ["no-pump"]);
    assert!(why(world.hub(), "nobody", true).is_err());
    world.pipe(json!({"_id": "n"}));
    let idle = why(world.hub(), "n", false).unwrap().to_json();
    assert_eq!(kinds(&idle), ["schedules-off"]);
}

#[test]
fn pipes_that_wait_for_each_other_are_named() {
    let mut world = World::new();
    world.pipe(joins("a", "b"));
    world.pipe(joins("b", "a"));
    world.fail("a");
    world.fail("b");
    let idle = why(world.hub(), "a", true).unwrap();
    let roots = idle.roots();
    assert_eq!(roots.len(), 1);
    assert_eq!(roots[0].1.kind.name(), "cycle");
    assert!(
        roots[0].1.message.contains("a → b → a"),
        "{}",
        roots[0].1.message
    );
}

#[test]
fn a_source_that_wants_populated_input_names_what_is_missing() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a"}));
    world.pipe(json!({"_id": "m", "source": {
        "type": "union_datasets", "datasets": ["a", "nowhere"], "require_populated_input": true
    }}));
    let words = world.fail("m");
    assert!(
        words.contains("waits for dataset \"a\", which is"),
        "{words}"
    );
    let idle = told(&world, "m");
    assert_eq!(kinds(&idle), ["waiting-for-dataset"]);
    assert_eq!(idle["reasons"][0]["dataset"], "a");
    world.succeed("a");
    world.succeed("m");
}
