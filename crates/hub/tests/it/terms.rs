//! What the properties of a dataset sink demand of entities.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::Class;
use tahini_hub::receiver::{PostError, Posted, Push, receive};

use crate::script::records;
use crate::world::World;

fn world(sink: Json) -> World {
    let mut world = World::new();
    let mut all = json!({"type": "dataset"});
    for (name, value) in sink.as_object().unwrap() {
        all[name] = value.clone();
    }
    world.pipe(json!({
        "_id": "p",
        "sink": all,
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "*"], ["if", ["eq", "_S.drop", true], ["filter"]],
        ]}},
        "pump": {
            "max_consecutive_write_errors": 5, "max_write_errors_in_retry_dataset": 5,
            "schedule_interval": 900
        },
    }));
    world
}

fn content(world: &World) -> Vec<Json> {
    world.versions("p", true, Fields::CONTENT)
}

#[test]
fn an_entity_that_is_too_large_is_a_write_error_with_its_id_and_sizes() {
    let world = world(json!({"max_entity_bytes_size": 100}));
    let long = json!({"_id": "long", "text": "x".repeat(200)});
    world.records("p", vec![json!({"_id": "a"}), long, json!({"_id": "b"})]);
    let summary = world.succeed("p");
    assert_eq!((summary.changed, summary.failed), (2, 1));
    assert_eq!(world.living("p"), ["a", "b"]);
    let log = world.log("p");
    let error = log
        .iter()
        .find(|entry| entry["event_type"] == "write-error");
    let words = error.unwrap()["original_error_message"].as_str();
    let words = words.or(error.unwrap()["error_message"].as_str()).unwrap();
    for part in ["\"long\"", "100 bytes", "max_entity_bytes_size", "found 2"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    assert_eq!(error.unwrap()["entity"]["_id"], "long");
}

#[test]
fn the_node_may_say_how_large_an_entity_may_be() {
    let pipe = json!({"_id": "p", "type": "pipe", "source": {"type": "scripted"}});
    let metadata = json!({
        "_id": "node", "type": "metadata", "global_defaults": {"max_entity_bytes_size": 77}
    });
    let inputs = [pipe, metadata]
        .map(tahini_hub::config::Input::new)
        .to_vec();
    let registry = &crate::script::REGISTRY;
    let built = tahini_hub::Configuration::build(inputs, &Default::default(), registry);
    let pipe = built.pipes().next().unwrap();
    assert_eq!(pipe.effective["sink"]["max_entity_bytes_size"], 77);
}

#[test]
fn a_second_version_fails_the_run_or_is_passed_over() {
    for (value, fails) in [
        (json!(true), true),
        (json!("ignore"), false),
        (json!(false), false),
    ] {
        let world = world(json!({"prevent_multiple_versions": value}));
        world.records("p", records(&[("a", 1), ("b", 1)]));
        world.succeed("p");
        // What did not change is no second version.
        world.succeed("p");
        world.records("p", records(&[("a", 2), ("b", 1), ("c", 1)]));
        let summary = world.run("p");
        assert_eq!(summary.success(), !fails, "{value}");
        if let Some(failure) = summary.failure {
            assert_eq!(failure.class, Class::Fatal);
            assert!(failure.message.contains("\"a\""), "{failure}");
            assert!(
                failure.message.contains("prevent_multiple_versions"),
                "{failure}"
            );
        }
        let versions = content(&world);
        let of_a = versions
            .iter()
            .filter(|entity| entity["_id"] == "a")
            .count();
        let ids = world.living("p");
        match value.as_str() {
            Some(_) => assert_eq!((of_a, ids.len()), (1, 3)),
            None if fails => assert_eq!((of_a, ids.len()), (1, 2)),
            None => assert_eq!((of_a, ids.len()), (2, 3)),
        }
    }
}

#[test]
fn filtered_entities_are_deleted_unless_they_are_suppressed() {
    for (suppress, deleted) in [(false, vec!["a"]), (true, vec![])] {
        let world = world(json!({"suppress_filtered": suppress, "deletion_tracking": false}));
        world.records("p", vec![json!({"_id": "a"}), json!({"_id": "b"})]);
        world.succeed("p");
        world.records(
            "p",
            vec![json!({"_id": "a", "drop": true}), json!({"_id": "b"})],
        );
        world.succeed("p");
        assert_eq!(world.deleted("p"), deleted, "{suppress}");
    }
}

fn locked() -> World {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "enable_optimistic_locking": true},
    }));
    world
}

fn post(world: &World, body: Json) -> Result<Posted, PostError> {
    let body = body.to_string();
    let push = Push::default();
    receive(world.hub(), &world.live_pipe("p"), &push, body.as_bytes())
}

#[test]
fn who_posts_an_outdated_version_is_told_and_nothing_is_written() {
    let world = locked();
    let posted = post(&world, json!([{"_id": "a", "n": 1}, {"_id": "b", "n": 1}])).unwrap();
    let written = crate::script::shown(&posted.written.unwrap(), Fields::ALL);
    let told: Vec<Json> = written
        .iter()
        .map(|e| json!([e["_id"], e["_updated"]]))
        .collect();
    assert_eq!(json!(told), json!([["a", 0], ["b", 1]]));

    let one = json!({"_id": "a", "n": 2, "_updated": 0});
    let posted = post(&world, one.clone()).unwrap();
    let written = crate::script::shown(&posted.written.unwrap(), Fields::ALL);
    assert_eq!(
        (&written[0]["n"], &written[0]["_updated"]),
        (&json!(2), &json!(2))
    );

    // The other process knew the version before.
    let other = json!({"_id": "a", "n": 3, "_updated": 0});
    let new = json!({"_id": "c", "n": 1});
    for body in [json!([new, other]), json!([{"_id": "a", "n": 3}])] {
        match post(&world, body) {
            Err(PostError::Outdated(words, stale)) => {
                let stale = stale.unwrap();
                let shown = |batch| crate::script::shown(batch, Fields::ALL)[0].clone();
                assert_eq!(shown(&stale.input)["n"], 3);
                assert_eq!(shown(&stale.existing)["n"], 2);
                assert!(
                    words.contains("\"a\"") && words.contains("found version 2"),
                    "{words}"
                );
            }
            answer => panic!("expected to be refused, found {answer:?}"),
        }
    }
    assert_eq!(world.version_count("p"), 3);
}

/// Both are made from the latest version there is, and only one can be.
#[test]
fn an_id_that_is_posted_twice_is_told_with_what_can_be_merged() {
    let world = locked();
    post(&world, json!([{"_id": "a", "n": 1}, {"_id": "b", "n": 1}])).unwrap();
    let of = |id: &str, n: i64, updated: i64| json!({"_id": id, "n": n, "_updated": updated});
    let new = |n: i64| json!({"_id": "c", "n": n});
    for (body, existing) in [
        (
            json!([of("b", 1, 1), of("a", 2, 0), of("a", 3, 0)]),
            vec![1],
        ),
        (json!([new(2), new(3)]), vec![]),
        (json!([of("a", 2, 0), of("a", 3, 7)]), vec![1]),
    ] {
        match post(&world, body.clone()) {
            Err(PostError::Outdated(words, stale)) => {
                let stale = stale.unwrap();
                let ns = |batch| {
                    let shown = crate::script::shown(batch, Fields::ALL);
                    shown
                        .iter()
                        .map(|e| e["n"].as_i64().unwrap())
                        .collect::<Vec<i64>>()
                };
                assert_eq!(
                    (ns(&stale.input), ns(&stale.existing)),
                    (vec![3], existing),
                    "{body}"
                );
                assert!(words.contains("in a request"), "{words}");
            }
            answer => panic!("expected to be refused, found {answer:?}"),
        }
    }
    assert_eq!(world.version_count("p"), 2);
    // The first one changes nothing, and the second is made from what is there.
    post(&world, json!([of("a", 1, 0), of("a", 2, 0)])).unwrap();
    assert_eq!(world.version_count("p"), 3);
    // Who knows which number the first one gets may go on from it, and the stale one is another.
    match post(&world, json!([of("a", 3, 2), of("a", 4, 3), of("b", 3, 7)])) {
        Err(PostError::Outdated(words, stale)) => {
            let shown = crate::script::shown(&stale.unwrap().input, Fields::ALL);
            assert_eq!(shown[0]["_id"], "b", "{words}");
        }
        answer => panic!("expected to be refused, found {answer:?}"),
    }
}

#[test]
fn a_pump_writes_nothing_of_a_batch_with_an_outdated_version() {
    let world = world(json!({"enable_optimistic_locking": true}));
    world.records("p", vec![json!({"_id": "a", "n": 1})]);
    world.succeed("p");
    world.records(
        "p",
        vec![
            json!({"_id": "b"}),
            json!({"_id": "a", "n": 2, "_updated": 7}),
        ],
    );
    let words = world.fail("p");
    assert!(words.contains("enable_optimistic_locking"), "{words}");
    assert_eq!(world.version_count("p"), 1);
}

#[test]
fn one_cannot_ask_for_the_latest_and_for_only_one_version() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "sink": {
        "type": "dataset", "enable_optimistic_locking": true, "prevent_multiple_versions": true
    }}));
    assert!(world.fail("p").contains("found both"));
    world.pipe(json!({"_id": "p", "sink": {
        "type": "dataset", "prevent_multiple_versions": "sometimes"
    }}));
    assert!(world.fail("p").contains("\"ignore\""));
}
