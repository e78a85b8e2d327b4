//! Entities that cannot be written.

use serde_json::{Value as Json, json};

use super::{chronological, first_six, pipe, run_p, six};
use crate::every_moment::{Step, Story, run};
use crate::script::records;
use crate::world::World;

/// What one pipe does with what it cannot write.
fn retrying(letters: &str) -> Json {
    json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 100,
        "max_retries_per_entity": 1,
        "batch_retries": 0,
        "dead_letter_dataset": letters,
        "track_dead_letters": true,
    })
}

fn refuse(world: &World, ids: &[&str]) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    world.target("p", |target| target.refuses = ids);
}

/// `b` fails, waits, is given up, and comes through with another version.
const FAILING: &[Step] = &[
    |world| {
        refuse(world, &["b", "e"]);
        first_six(world)
    },
    run_p,
    run_p,
    |world| {
        refuse(world, &["e"]);
        world.records("p", [six(), records(&[("b", 7)])].concat());
        run(world, "p")
    },
    run_p,
];

#[test]
fn entities_that_the_outside_does_not_take_are_set_aside_and_given_up_once() {
    Story {
        set_up: |world| {
            let sink = json!({"type": "scripted"});
            let pump = retrying("letters");
            pipe(
                world,
                json!({"_id": "p", "source": chronological(), "sink": sink, "pump": pump}),
            );
        },
        steps: FAILING,
        datasets: &["letters"],
        is_killed_too: true,
        ..Story::default()
    }
    .survives();
}

#[test]
fn entities_that_a_dataset_or_a_transform_does_not_take_are_set_aside_and_given_up_once() {
    Story {
        set_up: |world| {
            let pump = retrying("letters");
            let transform = json!({"type": "scripted"});
            pipe(
                world,
                json!({"_id": "p", "source": chronological(), "transform": transform, "pump": pump}),
            );
            let ids = ["c".to_owned()].into();
            world.middle("p", |middle| middle.refuses = ids);
        },
        steps: FAILING,
        datasets: &["p", "letters"],
        is_killed_too: true,
        ..Story::default()
    }
    .survives();
}

/// The first version of `b` waits when the second one gets through: it must never come after it.
const OVERTAKEN: &[Step] = &[
    |world| {
        world.target("p", |target| target.refuses_v = Some(2));
        world.records("in", six());
        run(world, "in")?;
        run(world, "p")
    },
    |world| {
        let more = records(&[("b", 7), ("a", 8), ("c", 9), ("d", 10), ("e", 11)]);
        world.records("in", [six(), more].concat());
        run(world, "in")?;
        run(world, "p")
    },
    |world| {
        world.target("p", |target| target.refuses_v = None);
        run(world, "p")
    },
];

#[test]
fn a_version_that_waited_never_comes_after_a_newer_one() {
    Story {
        set_up: |world| {
            let mut pump = retrying("letters");
            pump["max_retries_per_entity"] = json!(100);
            pipe(world, json!({"_id": "in", "source": chronological()}));
            let source = json!({"type": "dataset", "dataset": "in"});
            pipe(world, json!({"_id": "p", "source": source, "pump": pump}));
        },
        steps: OVERTAKEN,
        datasets: &["p", "letters"],
        is_killed_too: true,
        ..Story::default()
    }
    .survives();
}
