//! Failures in the transforms: answered as write errors are, with the source's entity kept.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::policy::Retries;
use tahini_hub::{Class, Failure};

use crate::refusals::{self, errors, retrying, sent, told, world_of};
use crate::script::records;
use crate::world::World;

fn pipe(pump: Json) -> Json {
    let mut pipe = refusals::pipe(pump);
    pipe["transform"] = json!({"type": "scripted"});
    pipe
}

fn world(pump: Json) -> World {
    world_of(pipe(pump))
}

fn refuse(world: &World, ids: &[&str]) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    world.middle("p", |middle| middle.refuses = ids);
}

/// What the transform was given since the last look.
fn attempts(world: &World) -> Vec<String> {
    told(world.middle("p", |middle| std::mem::take(&mut middle.attempts)))
}

#[test]
fn a_batch_that_a_peer_refused_is_put_through_again() {
    let world = world(json!({"batch_retries": 1}));
    world.middle("p", |middle| {
        let mut failure = Failure::transient("slow down").with_status(429);
        failure.retry_after = Some(Duration::from_millis(30));
        middle.failure = Some(failure);
        middle.failing_batches = 1;
    });
    let started = std::time::Instant::now();
    let summary = world.succeed("p");
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(attempts(&world), ["abc!", "abc", "d"]);
    assert_eq!(sent(&world), ["abc", "d"]);
    assert_eq!((summary.read, summary.failed), (4, 0));
}

#[test]
fn what_failed_of_itself_is_not_put_through_again_as_a_batch() {
    let mut pump = retrying();
    pump["batch_retries"] = json!(3);
    let world = world(pump);
    refuse(&world, &["b"]);
    world.middle("p", |middle| {
        middle.failure = Some(Failure::entity("too deep"))
    });
    world.succeed("p");
    assert_eq!(attempts(&world), ["abc!", "a", "b!", "c", "d"]);
}

#[test]
fn a_failing_entity_is_set_aside_as_the_source_gave_it() {
    for mut world in World::both() {
        world.pipe(pipe(retrying()));
        world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
        refuse(&world, &["b"]);
        let summary = world.succeed("p");
        assert_eq!(attempts(&world), ["abc!", "a", "b!", "c", "d"]);
        assert_eq!(sent(&world), ["a", "c", "d"]);
        assert_eq!(
            (summary.changed, summary.failed, summary.retryable),
            (3, 1, 1)
        );
        let expected = json!(["transform-error:b", 0, true, false, false]);
        assert_eq!(errors(&world), [expected]);
        let log = world.log("p");
        let entry = log
            .iter()
            .find(|entry| entry["event_type"] == "write-error")
            .unwrap();
        assert_eq!(entry["entity"], json!({"_id": "b", "v": 2}));
        let words = entry["traceback"].as_str().unwrap();
        assert!(words.contains("position 1 of the source"), "{words}");
        assert_eq!(world.offset("p"), 4);
        // A later run puts it through the transform again.
        world.restart_if_on_disk();
        refuse(&world, &[]);
        let summary = world.succeed("p");
        assert_eq!(attempts(&world), ["b"]);
        assert_eq!(sent(&world), ["b"]);
        assert!(summary.retryable == 0);
        let last = errors(&world).pop().unwrap();
        assert_eq!(last, json!(["transform-error:b", 0, false, true, false]));
        world.succeed("p");
        assert_eq!(attempts(&world), [""; 0], "resolved once");
    }
}

#[test]
fn by_default_the_first_failing_entity_ends_the_run() {
    let world = world(json!({"batch_retries": 0}));
    refuse(&world, &["b"]);
    let summary = world.run("p");
    assert_eq!(attempts(&world), ["abc!", "a", "b!"]);
    assert_eq!((summary.changed, summary.failed), (1, 1));
    let failure = summary.failure.unwrap();
    assert_eq!(failure.entity.unwrap().id.as_deref(), Some("b"));
    assert_eq!(world.offset("p"), Json::Null);
    assert_eq!(errors(&world), Vec::<Json>::new());
    let ends = world.target("p", |target| target.ends.clone());
    assert_eq!(ends, [false], "the run is aborted, not ended");
}

#[test]
fn without_the_fallback_a_failing_batch_ends_the_run() {
    let world =
        world(json!({"batch_retries": 0, "fallback_to_single_entities_on_batch_fail": false}));
    refuse(&world, &["b"]);
    assert_eq!(world.run("p").failed, 3);
    assert_eq!(attempts(&world), ["abc!"]);
}

#[test]
fn a_configuration_that_is_wrong_is_not_tried_again() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    world.middle("p", |middle| {
        middle.failure = Some(Failure::config("no such system"))
    });
    world.fail("p");
    assert_eq!(attempts(&world), ["abc!"]);
}

#[test]
fn the_dead_letter_is_the_entity_of_the_source() {
    let mut pump = retrying();
    pump["dead_letter_dataset"] = json!("letters");
    let world = world(pump);
    refuse(&world, &["b"]);
    for _ in 0..3 {
        world.succeed("p");
    }
    let letters = world.versions("letters", true, Fields::CONTENT);
    assert_eq!(letters, [json!({"_id": "b", "v": 2})]);
    assert_eq!(
        errors(&world).pop().unwrap(),
        json!(["transform-error:b", 2, false, false, true])
    );
    attempts(&world);
    assert_eq!(world.succeed("p").retryable, 0);
    assert!(world.rescan("p").success());
    assert_eq!(attempts(&world), ["ac", "d"], "a dead one is left alone");
    // Another version is tried, and resolves it.
    world.records("p", records(&[("b", 9)]));
    refuse(&world, &[]);
    world.succeed("p");
    assert_eq!(attempts(&world), ["b"]);
    let log = world.log("p");
    let last = log
        .iter()
        .rfind(|entry| entry["event_type"] == "write-error")
        .unwrap();
    assert_eq!(
        (&last["resolved"], &last["dead"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(last["resolved_entity"], json!({"_id": "b", "v": 9}));
}

#[test]
fn an_entity_without_an_id_cannot_be_set_aside_and_its_position_is_told() {
    let world = world(retrying());
    world.records(
        "p",
        vec![
            json!({"_id": "a", "_updated": 1}),
            json!({"n": 1, "_updated": 2}),
        ],
    );
    refuse(&world, &["?"]);
    let words = world.fail("p");
    assert!(words.contains("position 1 of the source"), "{words}");
    assert!(words.contains("without `_id`"), "{words}");
    assert_eq!(errors(&world), Vec::<Json>::new());
}

#[test]
fn an_output_without_an_id_is_told_by_the_entity_that_it_came_from() {
    let world = world(json!({}));
    world.middle("p", |middle| {
        middle.discards.insert("a".to_owned());
        middle.nameless.insert("c".to_owned());
    });
    let words = world.fail("p");
    assert!(words.contains("position 2 of the source"), "{words}");
    assert!(words.contains("`_id` \"c\""), "{words}");
}

#[test]
fn the_same_id_may_wait_at_both_places() {
    let world = world(retrying());
    world.records("p", records(&[("a", 1)]));
    world.target("p", |target| target.refuses.insert("a".to_owned()));
    world.succeed("p");
    world.records("p", records(&[("a", 2)]));
    refuse(&world, &["a"]);
    world.succeed("p");
    let ids: Vec<Json> = errors(&world)
        .iter()
        .map(|error| error[0].clone())
        .collect();
    assert_eq!(ids, ["write-error:a", "write-error:a", "transform-error:a"]);
    // The older version at the sink goes first, so that the newer one wins.
    world.target("p", |target| target.refuses.clear());
    refuse(&world, &[]);
    sent(&world);
    attempts(&world);
    let summary = world.succeed("p");
    assert_eq!(attempts(&world), ["a"]);
    assert_eq!(sent(&world), ["a", "a"]);
    assert!(summary.retryable == 0);
}

#[test]
fn a_version_that_gets_through_the_transforms_resolves_them_even_if_the_sink_refuses_it() {
    let world = world(retrying());
    world.records("p", records(&[("a", 1)]));
    refuse(&world, &["a"]);
    world.succeed("p");
    refuse(&world, &[]);
    world.middle("p", |middle| middle.refuses_v = Some(1));
    world.target("p", |target| target.refuses.insert("a".to_owned()));
    world.records("p", records(&[("a", 2)]));
    world.succeed("p");
    let told: Vec<Json> = errors(&world);
    let last = |id: &str| told.iter().rfind(|error| error[0] == id).unwrap().clone();
    assert_eq!(last("transform-error:a")[3], true);
    assert_eq!(last("write-error:a")[3], false);
    world.target("p", |target| target.refuses.clear());
    sent(&world);
    attempts(&world);
    world.succeed("p");
    assert_eq!(attempts(&world), [""; 0]);
    assert_eq!(sent(&world), ["a"]);
}

#[test]
fn a_full_run_in_which_an_entity_failed_deletes_nothing() {
    for mut world in World::both() {
        let mut config = pipe(retrying());
        config["sink"] = json!({"type": "dataset"});
        world.pipe(config);
        // What becomes of an entity does not show its origin.
        world.middle("p", |middle| middle.prefix = "new:".to_owned());
        world.records("p", records(&[("a", 1), ("b", 2), ("c", 3)]));
        world.succeed("p");
        world.records("p", records(&[("a", 1), ("b", 4)]));
        refuse(&world, &["b"]);
        let summary = world.rescan("p");
        assert!(summary.success());
        assert_eq!(summary.warnings.len(), 1, "{:?}", summary.warnings);
        assert_eq!(world.living("p"), ["new:a", "new:b", "new:c"]);
        // Nor does one that only leaves it out because it is known to fail.
        assert!(world.rescan("p").success());
        assert_eq!(world.living("p"), ["new:a", "new:b", "new:c"]);
        refuse(&world, &[]);
        assert!(world.rescan("p").success());
        assert_eq!(world.living("p"), ["new:a", "new:b"]);
    }
}

#[test]
fn a_full_push_in_which_an_entity_failed_is_not_complete() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    world.succeed("p");
    world.rescan("p");
    refuse(&world, &[]);
    world.rescan("p");
    let complete = world.target("p", |target| target.complete.clone());
    assert_eq!(complete, [false, false, true]);
}

#[test]
fn rules_that_say_fail_end_the_run_whatever_the_policy() {
    let mut world = World::new();
    let mut config = pipe(retrying());
    config["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["if", ["eq", "_S.v", 2], ["fail!", "Processing stopped because of invalid input."]],
    ]}});
    world.pipe(config);
    world.records("p", records(&[("a", 1), ("b", 2), ("c", 3)]));
    let summary = world.run("p");
    let failure = summary.failure.unwrap();
    assert_eq!(failure.class, Class::Fatal);
    assert_eq!(sent(&world), [""; 0]);
    assert_eq!(errors(&world), Vec::<Json>::new());
    let last = world.log("p").pop().unwrap();
    assert_eq!(last["event_type"], "pump-failed");
    let why = last["reason_why_stopped"].as_str().unwrap();
    assert!(
        why.contains("Processing stopped because of invalid input."),
        "{why}"
    );
    assert_eq!(last["exception_entity"]["_id"], "b");
}

#[test]
fn a_system_says_how_failures_of_its_transform_are_answered() {
    let world = world(json!({}));
    refuse(&world, &["b"]);
    world.middle("p", |middle| {
        let mut failure = Failure::transient("busy").with_status(503);
        failure.retries = Some(Arc::new(Retries {
            batch_retries: Some(1),
            max_write_errors_in_retry_dataset: Some(5),
            max_consecutive_write_errors: Some(5),
            max_retries_per_entity: Some(1),
            ..Retries::default()
        }));
        middle.failure = Some(failure);
    });
    world.succeed("p");
    assert_eq!(attempts(&world), ["abc!", "abc!", "a", "b!", "c", "d"]);
    // What was set aside on the system's word is retried, and given up, on its word too.
    world.succeed("p");
    assert_eq!(attempts(&world), ["b!"]);
    let last = errors(&world).pop().unwrap();
    assert_eq!(last, json!(["transform-error:b", 1, false, false, true]));
}

#[test]
fn transforms_that_are_too_slow_fail_the_run_with_the_first_entity_of_the_batch() {
    for (seconds, fails) in [(json!(0), true), (json!(3600), false)] {
        let mut world = World::new();
        world.pipe(json!({
            "_id": "p", "batch_size": 2, "pump": {"max_seconds_per_entity": seconds},
            "transform": {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
        }));
        world.records("p", records(&[("a", 1), ("b", 2), ("c", 3)]));
        let summary = world.run("p");
        assert_eq!(summary.success(), !fails, "{seconds}");
        if fails {
            let words = summary.failure.unwrap().message;
            assert!(words.contains("max_seconds_per_entity"), "{words}");
            let last = world.log("p").pop().unwrap();
            assert_eq!(last["event_type"], "pump-failed");
            assert_eq!(last["exception_entity"]["_id"], "a");
            assert_eq!(world.living("p"), [""; 0]);
        }
    }
}
