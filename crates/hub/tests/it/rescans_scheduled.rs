//! Rescans beside runs as the scheduler starts and ends them.

use serde_json::json;
use tahini_entity::json::Fields;
use tahini_hub::pump::Request;
use tahini_hub::scheduler::Scheduler;

use crate::rescans::{asked, guard, pipe, rescan, six, unguard};
use crate::scheduler::{BY_HAND, end, until};
use crate::script::records;
use crate::world::World;

/// The pipe of a rescan behind a system that bears one run at a time.
fn behind_a_system(world: &mut World) {
    world.system(json!({"_id": "peer", "type": "system:scripted", "worker_threads": 1}));
    let mut pipe = pipe(true);
    pipe["source"]["system"] = json!("peer");
    pipe["pump"] = json!({"mode": "manual"});
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
}

#[test]
fn a_rescan_keeps_no_run_from_beginning_however_few_a_system_bears() {
    let mut world = World::new();
    behind_a_system(&mut world);
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    world.records("p", six()[1..].to_vec());
    scheduler.start_run("p", rescan()).unwrap();
    keeper.wait();
    let refusal = scheduler.start_run("p", rescan()).unwrap_err();
    assert!(refusal.to_string().contains("rescanning"), "{refusal}");
    world.records("p", records(&[("g", 7)]));
    scheduler.start_run("p", Request::default()).unwrap();
    // Both stand before their first batch.
    keeper.wait();
    unguard(&world, "p");
    for _ in 0..2 {
        keeper.open.send(()).unwrap();
    }
    until(|| !world.live_pipe("p").state().is_busy());
    end(&scheduler);
    let state = world.live_pipe("p").state();
    assert_eq!((state.runs, state.rescans), (2, 1));
    assert_eq!(world.deleted("p"), ["a"]);
    assert_eq!(world.living("p"), ["b", "c", "d", "e", "f", "g"]);
}

#[test]
fn a_changed_pipe_is_rescanned_as_it_is_now() {
    let mut world = World::new();
    behind_a_system(&mut world);
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", rescan()).unwrap();
    keeper.wait();
    unguard(&world, "p");
    let mut changed = pipe(true);
    changed["pump"] = json!({"mode": "manual"});
    changed["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"], ["add", "new", true],
    ]}});
    world.pipe(changed);
    until(|| world.live_pipe("p").state().rescans == 1);
    until(|| !world.live_pipe("p").state().is_busy());
    end(&scheduler);
    let all = world.versions("p", false, Fields::CONTENT);
    assert!(all.iter().all(|entity| entity["new"] == true), "{all:?}");
}

#[test]
fn a_rescan_that_the_node_s_end_cut_off_goes_on_with_the_first_run() {
    let mut world = World::on_disk();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[1..].to_vec());
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", rescan()).unwrap();
    keeper.wait();
    keeper.open.send(()).unwrap();
    keeper.wait();
    end(&scheduler);
    drop(scheduler);
    unguard(&world, "p");
    assert_eq!(world.living("p").len(), 6);
    world.restart();
    asked(&world);
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", Request::default()).unwrap();
    until(|| world.live_pipe("p").state().rescans == 1 && world.live_pipe("p").state().runs == 1);
    until(|| !world.live_pipe("p").state().is_busy());
    end(&scheduler);
    let mut asked = asked(&world);
    asked.sort();
    assert_eq!(asked, [Some(2), Some(6), Some(6)]);
    assert_eq!(world.deleted("p"), ["a"]);
}
