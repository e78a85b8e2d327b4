//! What a sink demands of entities, and what its bugs may do.

use serde_json::json;
use tahini_entity::json::Fields;
use tahini_hub::Class;

use crate::script::records;
use crate::world::{BEGINNING, World};

#[test]
fn an_entity_without_an_id_is_an_error_that_names_pipe_position_and_entity() {
    for sink in ["dataset", "scripted"] {
        let mut world = World::new();
        world.pipe(json!({"_id": "p", "sink": {"type": sink}, "batch_size": 2}));
        let mut rows = records(&[("a", 1), ("b", 2)]);
        rows.push(json!({"name": "nobody"}));
        world.records("p", rows);
        let failure = world.run("p").failure.unwrap();
        assert_eq!(failure.class, Class::Entity);
        for part in ["\"p\"", "`_id`", "position 2"] {
            assert!(
                failure.message.contains(part),
                "{part} in {}",
                failure.message
            );
        }
        let at_fault = failure.entity.unwrap();
        assert_eq!(
            at_fault.properties.get("name").unwrap().as_str(),
            Some("nobody")
        );
        let log = world.log("p");
        assert_eq!(
            log.last().unwrap()["exception_entity"],
            json!({"name": "nobody"})
        );
    }
}

#[test]
fn a_transform_may_add_the_missing_id() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p",
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "*"],
            ["add", "_id", ["string", "_S.number"]],
        ]}},
    }));
    world.records("p", vec![json!({"number": 7})]);
    world.succeed("p");
    assert_eq!(
        world.versions("p", true, Fields::CONTENT),
        [json!({"number": 7, "_id": "7"})]
    );
}

#[test]
fn a_panic_fails_the_run_and_the_next_run_works() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "p"}));
        world.records("p", records(&[("a", 1), ("b", 2)]));
        world.target("p", |target| target.panics_at = Some("b".to_owned()));
        let words = world.fail("p");
        assert!(words.contains("a bug met b"), "{words}");
        let last = world.log("p").pop().unwrap();
        assert_eq!(last["event_type"], "pump-failed");
        assert!(!world.live_pipe("p").state().running);
        world.target("p", |target| target.panics_at = None);
        world.succeed("p");
        assert_eq!(world.living("p"), ["a", "b"]);
    }
}

#[test]
fn reserved_names_are_not_stored_and_do_not_count_as_a_change() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p"}));
    world.records(
        "p",
        vec![json!({"_id": "a", "v": 1, "_mine": 1, "$keep": true})],
    );
    world.succeed("p");
    world.records(
        "p",
        vec![json!({"_id": "a", "v": 1, "_mine": 2, "$keep": true})],
    );
    assert_eq!(world.succeed("p").changed, 0);
    let stored = world.versions("p", true, Fields::CONTENT);
    assert_eq!(stored, [json!({"_id": "a", "v": 1, "$keep": true})]);
}

#[test]
fn timestamps_rise_by_a_microsecond_at_least_whatever_the_clock_does() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "p", "sink": {"type": "dataset", "deletion_tracking": false}}));
        let stamps = |world: &World| -> Vec<i64> {
            let only = Fields {
                ts: true,
                ..Fields::CONTENT
            };
            let versions = world.versions("p", true, only);
            versions
                .iter()
                .map(|entity| entity["_ts"].as_i64().unwrap())
                .collect()
        };
        world.records("p", records(&[("a", 1), ("b", 1), ("c", 1)]));
        world.succeed("p");
        let first = stamps(&world);
        assert!(first[0] >= BEGINNING, "{first:?}");
        assert_eq!([first[1], first[2]], [first[0] + 1, first[0] + 2]);
        // An hour back: the dataset goes on where it was.
        world.clock.set(BEGINNING - 3_600_000_000);
        world.records("p", records(&[("d", 1), ("e", 1)]));
        world.succeed("p");
        assert_eq!(stamps(&world)[3..], [first[2] + 1, first[2] + 2]);
        world.clock.set(BEGINNING + 5_000_000);
        world.records("p", records(&[("f", 1)]));
        world.succeed("p");
        assert!(stamps(&world)[5] >= BEGINNING + 5_000_000);
    }
}

#[test]
fn rules_see_one_moment_in_all_entities_of_a_batch() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p",
        "batch_size": 3,
        "transform": {"type": "dtl", "rules": {"default": [["add", "at", ["now"]]]}},
    }));
    let row = |at: i64| json!({"_id": at.to_string()});
    world.records("p", (0..6).map(row).collect());
    world.succeed("p");
    let versions = world.versions("p", true, Fields::CONTENT);
    let moments: Vec<String> = versions.iter().map(|one| one["at"].to_string()).collect();
    let (first, second) = moments.split_at(3);
    // The clock goes on whenever it is read.
    assert!(
        first.iter().all(|moment| *moment == first[0]),
        "{moments:?}"
    );
    assert!(
        second.iter().all(|moment| *moment == second[0]),
        "{moments:?}"
    );
    assert!(first[0].contains("2026-01-02T03:04:05"), "{moments:?}");
}
