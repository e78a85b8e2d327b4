//! Flows that feed themselves through a system outside are named; normal synchronization is not.

use serde_json::{Value as Json, json};
use tahini_hub::rounds::{Loop, ROUNDS};

use crate::script::records;
use crate::world::World;

/// What is shared with a system is collected from it, and shared again.
fn world() -> World {
    let mut world = World::new();
    world.system(json!({"_id": "peer", "type": "system:scripted"}));
    world.pipe(json!({"_id": "collect", "source": {"type": "scripted", "system": "peer"}}));
    world.pipe(json!({"_id": "other"}));
    world.pipe(json!({
        "_id": "global",
        "source": {"type": "union_datasets", "datasets": ["collect", "other"], "prefix_ids": false},
    }));
    world.pipe(json!({
        "_id": "share",
        "source": {"type": "dataset", "dataset": "global"},
        "sink": {"type": "scripted", "system": "peer"},
    }));
    world
}

fn told(world: &World) -> Option<Loop> {
    world.live_pipe("share").state().feeds_itself
}

/// A round: the system has made `version` of what it was given.
fn turn(world: &World, version: i64) {
    world.records("collect", records(&[("1", version)]));
    for pipe in ["collect", "global", "share"] {
        world.succeed(pipe);
    }
}

#[test]
fn an_entity_that_goes_round_without_end_is_named_with_its_pipes() {
    let world = world();
    let mut first = None;
    for version in 1..=30 {
        turn(&world, version);
        if told(&world).is_some() && first.is_none() {
            first = Some(version);
        }
    }
    let found = told(&world).expect("it is told");
    assert_eq!(found.pipes, ["collect", "global", "share"]);
    assert_eq!(
        (found.systems, found.entities),
        (vec!["peer".to_owned()], vec!["1".to_owned()])
    );
    // The first run is no round: nothing was written before it.
    let rounds = i64::try_from(ROUNDS).unwrap();
    assert!(
        first.is_some_and(|first| (rounds..rounds + 3).contains(&first)),
        "{first:?}"
    );
    let log: Vec<Json> = world
        .log("share")
        .into_iter()
        .filter(|entry| entry["event_type"] == "pump-feeds-itself")
        .collect();
    let told: Vec<&Json> = log.iter().map(|entry| &entry["rounds"]).collect();
    assert_eq!(told, [10, 20]);
    assert_eq!(log[0]["pipes"], json!(["collect", "global", "share"]));
    // It is told no longer once something else comes in.
    world.records("other", records(&[("2", 1)]));
    world.succeed("other");
    turn(&world, 31);
    assert_eq!(self::told(&world), None);
}

#[test]
fn what_comes_in_from_elsewhere_is_no_loop() {
    let world = world();
    for version in 1..=40 {
        // The echo is a change of what was collected, each time.
        world.records("other", records(&[("2", version)]));
        world.succeed("other");
        turn(&world, version);
    }
    assert_eq!(told(&world), None);
}

#[test]
fn other_entities_each_time_are_no_loop() {
    let world = world();
    for version in 1..=40 {
        let id = format!("n{version}");
        world.records("collect", records(&[(&id, version)]));
        for pipe in ["collect", "global", "share"] {
            world.succeed(pipe);
        }
    }
    assert_eq!(told(&world), None);
}

#[test]
fn an_echo_that_changes_nothing_ends() {
    let world = world();
    turn(&world, 1);
    for _ in 0..40 {
        for pipe in ["collect", "global", "share"] {
            world.succeed(pipe);
        }
    }
    assert_eq!(told(&world), None);
    assert!(
        !world
            .log_kinds("share")
            .contains(&"pump-feeds-itself".to_owned())
    );
}
