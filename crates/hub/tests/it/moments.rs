//! What schedules and signals start by themselves: cron expressions of both kinds, chains of
//! datasets, and what switches all of it off.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::pump::Request;
use tahini_hub::scheduler::{Options, Scheduler};

use crate::scheduler::{
    AUTOMATIC, BY_HAND, DAY, NOON, end, guard, listening, open, still, until, wait_until_rest,
};
use crate::script::records;
use crate::world::World;

/// A pipe with a since, whose pump has this configuration.
fn pumped(id: &str, pump: Json) -> Json {
    json!({"_id": id, "source": {"type": "scripted", "supports_since": true}, "pump": pump})
}

fn asked(world: &World, pipe: &str) -> Vec<Option<Offset>> {
    let mut sinces = Vec::new();
    world.upstream(pipe, |upstream| sinces = upstream.asked.clone());
    sinces
}

fn next(world: &World, pipe: &str) -> i64 {
    world.live_pipe(pipe).state().next.unwrap().as_microsecond()
}

#[test]
fn a_rescan_expression_starts_a_rescan_and_another_expression_does_not() {
    let mut world = World::new();
    let noon = "0 12 * * *";
    world.pipe(pumped("plain", json!({"cron_expression": noon})));
    let pump = json!({"schedule_interval": 999_999, "rescan_cron_expression": noon});
    world.pipe(pumped("rescan", pump));
    for id in ["plain", "rescan"] {
        world.records(id, records(&[("a", 1), ("b", 2)]));
        world.succeed(id);
        world.records(id, records(&[("b", 2)]));
    }
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    for id in ["plain", "rescan"] {
        assert_eq!(next(&world, id), NOON, "{id}");
    }
    world.clock.set(NOON);
    for id in ["plain", "rescan"] {
        until(|| world.live_pipe(id).state().runs == 2);
        assert_eq!(next(&world, id), NOON + DAY, "{id}");
    }
    end(&scheduler);
    assert_eq!(asked(&world, "plain"), [None, Some(Offset::Int(2))]);
    assert_eq!(world.deleted("plain"), [""; 0]);
    assert_eq!(asked(&world, "rescan"), [None, None]);
    assert_eq!(world.deleted("rescan"), ["a"]);
    assert_eq!(world.offset("rescan"), 2);
}

#[test]
fn a_rescan_that_is_due_during_a_run_follows_it() {
    let mut world = World::new();
    let pump = json!({"schedule_interval": 999_999, "rescan_cron_expression": "0 12 * * *"});
    world.pipe(pumped("p", pump));
    world.records("p", records(&[("a", 1)]));
    world.succeed("p");
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    scheduler.start_run("p", Request::default()).unwrap();
    keeper.wait();
    world.clock.set(NOON);
    until(|| world.live_pipe("p").state().rescan_pending);
    open(&keeper);
    keeper.wait();
    open(&keeper);
    until(|| world.live_pipe("p").state().runs == 3);
    wait_until_rest(&world, &["p"]);
    end(&scheduler);
    assert_eq!(asked(&world, "p"), [None, Some(Offset::Int(1)), None]);
    assert!(keeper.reached.try_recv().is_err(), "one rescan, not more");
}

/// Noon of 2 January 2027.
const A_YEAR_LATER: i64 = NOON + 365 * DAY;

#[test]
fn a_sixth_field_is_the_year() {
    let mut world = World::new();
    // Whatever is due is started in the order of the ids.
    world.pipe(pumped("a", json!({"cron_expression": "0 12 2 1 * 2027"})));
    world.pipe(pumped("b", json!({"cron_expression": "0 12 2 1 *"})));
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    assert_eq!((next(&world, "a"), next(&world, "b")), (A_YEAR_LATER, NOON));
    world.clock.set(NOON);
    until(|| world.live_pipe("b").state().runs == 1);
    let a = world.live_pipe("a").state();
    assert!(a.runs == 0 && !a.running, "not in 2026");
    world.clock.set(A_YEAR_LATER);
    until(|| world.live_pipe("a").state().runs == 1);
    assert_eq!(world.live_pipe("a").state().next, None, "only in 2027");
    end(&scheduler);
}

/// A pipe from one dataset to its own, with nothing configured but that.
fn link(id: &str, from: &str) -> Json {
    json!({"_id": id, "source": {"type": "dataset", "dataset": from}})
}

/// The links ran just now, so that their interval of 30 seconds is not over before a test gives up
/// waiting: what runs, runs because it was signalled.
#[test]
fn a_change_goes_down_a_chain_by_signals_alone() {
    let mut world = World::new();
    world.pipe(still("in"));
    let links = ["one", "two", "three"];
    for (id, from) in links.into_iter().zip(["in", "one", "two"]) {
        world.pipe(link(id, from));
        let configured = world.hub().configuration();
        let effective = &configured.get(id).unwrap().effective;
        assert_eq!(effective["pump"]["schedule_interval"], 30);
        world.succeed(id);
    }
    let mut deaf = link("deaf", "two");
    deaf["source"]["supports_signalling"] = json!(false);
    world.pipe(deaf);
    world.succeed("deaf");
    world.records("in", records(&[("x", 1)]));
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    scheduler.start_run("in", Request::default()).unwrap();
    until(|| world.living("three") == ["x"]);
    wait_until_rest(&world, &links);
    end(&scheduler);
    for id in links {
        assert_eq!(
            world.live_pipe(id).state().runs,
            2,
            "{id}: one for the change"
        );
    }
    assert_eq!(
        world.live_pipe("deaf").state().runs,
        1,
        "no schedule came in between"
    );
}

/// Runs `in`, and then `after`: there is one place, so that this run begins when everything about
/// the one before was seen to.
fn run_then_after(world: &mut World) -> Arc<Scheduler> {
    world.pipe(still("after"));
    let options = Options {
        internal: 1,
        ..AUTOMATIC
    };
    let scheduler = Scheduler::start(world.hub().clone(), options);
    for id in ["in", "after"] {
        scheduler.start_run(id, Request::default()).unwrap();
    }
    until(|| world.live_pipe("after").state().runs == 1);
    scheduler
}

#[test]
fn a_run_that_changes_nothing_signals_nobody() {
    let mut world = World::new();
    world.pipe(still("in"));
    world.pipe(link("out", "in"));
    world.records("in", records(&[("x", 1)]));
    world.succeed("in");
    world.succeed("out");
    let scheduler = run_then_after(&mut world);
    let out = world.live_pipe("out").state();
    assert_eq!((out.runs, out.running), (1, false));
    end(&scheduler);
}

/// Readers are told when something is there for them, which is not so of a run that trips.
#[test]
fn a_run_that_trips_signals_nobody() {
    let mut world = World::new();
    let mut guarded = still("in");
    guarded["sink"] = json!({"type": "dataset", "circuit_breaker_threshold_count": 2});
    guarded["source"] =
        json!({"type": "scripted", "supports_since": true, "is_chronological": true});
    // The run writes something before it trips.
    guarded["batch_size"] = json!(1);
    guarded["checkpoint_interval"] = json!(1);
    world.pipe(guarded);
    world.pipe(link("out", "in"));
    world.records("in", records(&[("x", 1)]));
    world.succeed("in");
    world.succeed("out");
    world.records("in", records(&[("x", 2), ("y", 3), ("z", 4), ("w", 5)]));
    let scheduler = run_then_after(&mut world);
    let run = world.live_pipe("in").state().last.unwrap();
    assert!(run.changed > 0 && run.failure.is_some());
    assert!(
        world
            .hub()
            .tripped(&world.live_pipe("in"))
            .unwrap()
            .is_some()
    );
    let out = world.live_pipe("out").state();
    assert_eq!((out.runs, out.running), (1, false));
    end(&scheduler);
}

#[test]
fn the_nodes_metadata_switches_schedules_and_signals_off() {
    for switch in ["disable_pump_scheduler", "disable_user_pipes"] {
        let mut world = World::new();
        let mut tasks = json!({});
        tasks[switch] = json!(true);
        world.system(json!({"_id": "node", "type": "metadata", "task_manager": tasks}));
        world.pipe(pumped(
            "in",
            json!({"cron_expression": "0 12 * * *", "run_at_startup": true}),
        ));
        world.pipe(listening("out"));
        world.records("in", records(&[("x", 1)]));
        let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
        assert_eq!(next(&world, "in"), NOON);
        world.clock.set(NOON);
        until(|| next(&world, "in") == NOON + DAY);
        scheduler.start_run("in", Request::default()).unwrap();
        until(|| world.living("in") == ["x"]);
        wait_until_rest(&world, &["in"]);
        scheduler.signal("in");
        for (id, runs) in [("in", 1), ("out", 0)] {
            let state = world.live_pipe(id).state();
            assert_eq!((state.runs, state.running), (runs, false), "{switch} {id}");
        }
        world.remove("node");
        scheduler.reload(false);
        world.clock.set(NOON + DAY);
        until(|| world.live_pipe("in").state().runs == 2);
        scheduler.signal("in");
        until(|| world.living("out") == ["x"]);
        end(&scheduler);
    }
}

#[test]
fn a_system_bears_ten_runs_unless_it_says_otherwise() {
    let mut world = World::new();
    world.system(json!({"_id": "peer", "type": "system:scripted"}));
    let ids: Vec<String> = (0..11).map(|at| format!("p{at:02}")).collect();
    for id in &ids {
        let mut pipe = still(id);
        pipe["source"] = json!({"type": "scripted", "system": "peer"});
        world.pipe(pipe);
    }
    let keepers: Vec<_> = ids.iter().map(|id| guard(&world, id)).collect();
    let options = Options {
        outside: 20,
        ..BY_HAND
    };
    let scheduler = Scheduler::start(world.hub().clone(), options);
    for id in &ids {
        scheduler.start_run(id, Request::default()).unwrap();
    }
    keepers[..10].iter().for_each(|keeper| keeper.wait());
    assert!(keepers[10].stays_away());
    open(&keepers[3]);
    keepers[10].wait();
    keepers.iter().for_each(open);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    wait_until_rest(&world, &ids);
    end(&scheduler);
}
