//! Flows that feed themselves through a system outside are named; normal synchronization is not.

use serde_json::{Value as Json, json};
use tahini_hub::pump::Request;
use tahini_hub::rounds::{Loop, RESTS, ROUNDS};

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

#[test]
fn what_comes_back_before_a_run_is_at_its_end_goes_with_its_round() {
    let world = world();
    for version in (1..=30).step_by(3) {
        turn(&world, version);
        // Then one whose echo is there before its end, and one that brings that echo.
        let hub = world.hub().clone();
        let echo = move || {
            for pipe in ["collect", "global"] {
                let run = hub.run(&hub.pipe(pipe).unwrap(), &Request::default());
                assert!(run.unwrap().success());
            }
        };
        world.records("collect", records(&[("1", version + 1)]));
        echo();
        world.records("collect", records(&[("1", version + 2)]));
        world.target("share", |it| it.meanwhile = Some(Box::new(echo)));
        world.succeed("share");
        world.succeed("share");
    }
    let found = told(&world).expect("it is told");
    assert_eq!(found.pipes, ["collect", "global", "share"]);
}

/// The pipes run, and nothing is new to them.
fn rest(world: &World, pipes: &[&str], runs: u64) {
    for _ in 0..runs {
        pipes.iter().for_each(|pipe| drop(world.succeed(pipe)));
    }
}

#[test]
fn what_people_change_in_a_system_is_no_loop() {
    let world = world();
    for version in 1..=40 {
        // It comes back as it was sent, and the system is looked at in vain before the next change.
        turn(&world, version);
        rest(&world, &["collect"], RESTS);
    }
    assert_eq!(told(&world), None);
}

#[test]
fn a_flow_that_came_to_rest_is_told_no_longer() {
    let world = world();
    (1..=20).for_each(|version| turn(&world, version));
    assert!(told(&world).is_some());
    rest(&world, &["collect"], RESTS - 1);
    assert!(told(&world).is_some());
    rest(&world, &["collect"], 1);
    assert_eq!(told(&world), None);
}

#[test]
fn what_waits_for_a_slow_pipe_has_not_come_to_rest() {
    let world = world();
    for version in 1..=20 {
        world.records("collect", records(&[("1", version)]));
        for pipe in ["collect", "global", "share"] {
            world.succeed(pipe);
            if pipe != "share" {
                rest(&world, &["collect"], RESTS);
            }
        }
    }
    assert!(told(&world).is_some());
    // Nobody is going to read it.
    world.records("collect", records(&[("1", 21)]));
    world.succeed("collect");
    rest(&world, &["collect"], RESTS);
    assert!(told(&world).is_some());
    world
        .hub()
        .switch("global", false, "", &Default::default())
        .unwrap();
    rest(&world, &["collect"], 1);
    assert_eq!(told(&world), None);
}

/// Two systems, and what one of them has is sent to the other as a whole with every run.
fn exchange() -> World {
    let mut world = World::new();
    for system in ["a", "b"] {
        world.system(json!({"_id": system, "type": "system:scripted"}));
    }
    for (from, to) in [("a", "b"), ("b", "a")] {
        world.pipe(json!({
            "_id": format!("{from}-to-{to}"),
            "source": {"type": "scripted", "system": from},
            "sink": {"type": "scripted", "system": to},
        }));
        world.upstream(&format!("{from}-to-{to}"), |it| it.ignores_since = true);
    }
    world
}

#[test]
fn what_is_sent_again_as_it_was_is_no_loop() {
    let world = exchange();
    let pipes = ["a-to-b", "b-to-a"];
    for pipe in pipes {
        world.records(pipe, records(&[("1", 1), ("2", 1)]));
    }
    rest(&world, &pipes, 40);
    for pipe in pipes {
        assert_eq!(world.live_pipe(pipe).state().feeds_itself, None);
    }
}

#[test]
fn what_two_systems_make_of_each_other_is_named_by_what_changes_of_it() {
    let world = exchange();
    for version in 1..=30 {
        for pipe in ["a-to-b", "b-to-a"] {
            world.records(pipe, records(&[("same", 1), ("restless", version)]));
            // One of them is asked more often than the other answers.
            rest(&world, &[pipe], RESTS + 1);
        }
    }
    let state = world.live_pipe("b-to-a").state();
    let found = state.feeds_itself.expect("it is told");
    assert_eq!(found.pipes, ["a-to-b", "b-to-a"]);
    assert_eq!(found.systems, ["a", "b"]);
    assert_eq!(found.entities, ["restless"]);
    assert_eq!(found.all_entities, 1);
}
