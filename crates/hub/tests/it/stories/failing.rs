//! Entities that cannot be written.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_store::Memory;

use super::{chronological, first_six, pipe, run_p, six};
use crate::every_moment::{Step, Story, folder, run};
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::power::files;
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

/// Runs come to where the power goes in the middle of giving `b` up; then the outside takes it.
fn given_up_and_taken(retries: u64, loss: fn(u64) -> Loss) {
    let mut both = [0, 0];
    for moment in 0..2_000 {
        let dir = folder();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble::default());
        let mut world = World::on_store(Arc::new(files(&root, &disk)));
        let (sink, mut pump) = (json!({"type": "scripted"}), retrying("letters"));
        pump["max_retries_per_entity"] = json!(retries);
        pipe(
            &mut world,
            json!({"_id": "p", "source": chronological(), "sink": sink, "pump": pump}),
        );
        refuse(&world, &["b"]);
        world.records("p", six());
        for _ in 0..retries {
            world.succeed("p");
        }
        disk.trouble(Trouble {
            power_off_at: Some(moment),
            ..Trouble::default()
        });
        let ended = run(&world, "p").is_ok();
        disk.trouble(Trouble {
            power_off_at: Some(0),
            ..Trouble::default()
        });
        let back = disk.reboot(loss(moment));
        world.start_over(Arc::new(Memory::new())).unwrap();
        world.start_over(Arc::new(files(&root, &back))).unwrap();
        refuse(&world, &[]);
        world.succeed("p");
        let errors: Vec<Json> = world
            .log("p")
            .into_iter()
            .filter(|entry| entry["_id"] == "write-error:b")
            .collect();
        let given_up = errors.last().is_some_and(|entry| entry["dead"] == true);
        let letters = world.living("letters");
        assert_eq!(
            letters.contains(&"b".to_owned()),
            given_up,
            "power off at {moment}, {retries} retries: {letters:?}, and the log says {errors:?}"
        );
        let taken = world.taken("p").concat().contains(&"b".to_owned());
        assert_ne!(taken, given_up, "power off at {moment}: taken or given up");
        both[usize::from(given_up)] += 1;
        if ended {
            // Cut before, and after.
            assert!(both[0] > 3 && both[1] > 0, "{both:?}");
            return;
        }
    }
    panic!("the run comes to its end");
}

#[test]
fn a_letter_stays_only_where_the_log_knows_of_it() {
    for retries in [0, 1, 2] {
        let losses: [fn(u64) -> Loss; 3] = [|_| Loss::Nothing, |_| Loss::Everything, Loss::Some];
        for loss in losses {
            given_up_and_taken(retries, loss);
        }
    }
}
