//! When runs start, and how many at a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_hub::pump::Request;
use tahini_hub::scheduler::{Options, Scheduler};

use crate::script::{GateKeeper, PATIENCE, gate, records};
use crate::world::World;

pub const BY_HAND: Options = Options {
    internal: 4,
    outside: 4,
    automatic: false,
};

pub const AUTOMATIC: Options = Options {
    automatic: true,
    ..BY_HAND
};

/// A pipe from the scripted source that nothing starts by itself.
pub fn still(id: &str) -> Json {
    json!({"_id": id, "pump": {"mode": "manual"}})
}

/// A pipe that reads dataset `in` and runs when that changes; its schedule is far away.
pub fn listening(id: &str) -> Json {
    json!({
        "_id": id,
        "source": {"type": "dataset", "dataset": "in", "supports_signalling": true},
        "pump": {"cron_expression": "0 0 1 1 *"},
    })
}

/// Puts a gate into the source of `pipe`.
pub fn guard(world: &World, pipe: &str) -> GateKeeper {
    let (gate, keeper) = gate();
    world.upstream(pipe, |upstream| upstream.gate = Some(gate));
    keeper
}

/// Lets `keeper`'s run through.
pub fn open(keeper: &GateKeeper) {
    keeper.open.send(()).unwrap();
}

/// Ends all runs that are under way, by asking for none.
pub fn end(scheduler: &Arc<Scheduler>) {
    assert!(scheduler.shutdown(PATIENCE));
}

#[test]
fn a_run_that_is_asked_for_starts_and_a_second_one_is_refused() {
    let mut world = World::new();
    world.pipe(still("p"));
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", Request::default()).unwrap();
    keeper.wait();
    let refusal = scheduler.start_run("p", Request::default()).unwrap_err();
    assert!(refusal.to_string().contains("is running"), "{refusal}");
    open(&keeper);
    end(&scheduler);
}

#[test]
fn off_and_disabled_pipes_do_not_start() {
    let mut world = World::new();
    world.pipe(json!({"_id": "off", "pump": {"mode": "off"}}));
    world.pipe(still("disabled"));
    world
        .hub()
        .switch("disabled", false, "", &Default::default())
        .unwrap();
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    for id in ["off", "disabled", "missing"] {
        let refusal = scheduler.start_run(id, Request::default()).unwrap_err();
        assert!(refusal.to_string().contains(id), "{refusal}");
    }
    world
        .hub()
        .switch("disabled", true, "", &Default::default())
        .unwrap();
    scheduler.start_run("disabled", Request::default()).unwrap();
    end(&scheduler);
}

#[test]
fn a_pool_runs_no_more_than_its_limit_at_a_time() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.pipe(still(id));
    }
    let keepers = ["a", "b", "c"].map(|id| guard(&world, id));
    let options = Options {
        internal: 2,
        ..BY_HAND
    };
    let scheduler = Scheduler::start(world.hub().clone(), options);
    for id in ["a", "b", "c"] {
        scheduler.start_run(id, Request::default()).unwrap();
    }
    keepers[0].wait();
    keepers[1].wait();
    // The third stands in the queue: it reaches its gate only when one of the others is through.
    assert!(keepers[2].stays_away());
    open(&keepers[0]);
    keepers[2].wait();
    open(&keepers[1]);
    open(&keepers[2]);
    wait_until_rest(&world, &["a", "b", "c"]);
    end(&scheduler);
}

/// Waits until none of the pipes runs.
pub fn wait_until_rest(world: &World, pipes: &[&str]) {
    let until = std::time::Instant::now() + PATIENCE;
    while pipes.iter().any(|id| world.live_pipe(id).state().running) {
        assert!(std::time::Instant::now() < until, "the runs end");
        std::thread::yield_now();
    }
}

#[test]
fn hung_peers_do_not_stop_runs_between_datasets() {
    let mut world = World::new();
    world.system(json!({"_id": "peer", "type": "system:scripted"}));
    let mut outside = still("outside");
    outside["source"] = json!({"type": "scripted", "system": "peer"});
    world.pipe(outside);
    world.pipe(still("inside"));
    let (hung, inside) = (guard(&world, "outside"), guard(&world, "inside"));
    let options = Options {
        internal: 1,
        outside: 1,
        ..BY_HAND
    };
    let scheduler = Scheduler::start(world.hub().clone(), options);
    scheduler.start_run("outside", Request::default()).unwrap();
    hung.wait();
    scheduler.start_run("inside", Request::default()).unwrap();
    inside.wait();
    open(&inside);
    end(&scheduler);
}

#[test]
fn a_change_starts_the_readers_of_the_dataset() {
    let mut world = World::new();
    world.pipe(still("in"));
    world.pipe(listening("out"));
    let (mut deaf, mut manual) = (listening("deaf"), listening("manual"));
    deaf["source"]["supports_signalling"] = json!(false);
    manual["pump"] = json!({"mode": "manual"});
    world.pipe(deaf);
    world.pipe(manual);
    world.records("in", records(&[("x", 1)]));
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    scheduler.start_run("in", Request::default()).unwrap();
    until(|| world.living("out") == ["x"]);
    end(&scheduler);
    for id in ["deaf", "manual"] {
        assert_eq!(world.live_pipe(id).state().runs, 0, "{id}");
    }
}

/// Waits for what another thread brings about.
pub fn until(done: impl Fn() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < until, "it comes about");
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_during_a_run_causes_one_more_run_after_it() {
    let mut world = World::new();
    world.pipe(listening("out"));
    let keeper = guard(&world, "out");
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    scheduler.start_run("out", Request::default()).unwrap();
    keeper.wait();
    for _ in 0..3 {
        scheduler.signal("in");
    }
    open(&keeper);
    keeper.wait();
    open(&keeper);
    until(|| world.live_pipe("out").state().runs == 2);
    wait_until_rest(&world, &["out"]);
    assert!(
        keeper.reached.try_recv().is_err(),
        "one more run, not three"
    );
    end(&scheduler);
}

#[test]
fn a_suspended_schedule_hears_no_signals() {
    let mut world = World::new();
    world.pipe(listening("out"));
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    scheduler.suspend();
    scheduler.signal("in");
    assert!(!world.live_pipe("out").state().running);
    assert_eq!(world.live_pipe("out").state().runs, 0);
    scheduler.resume();
    let keeper = guard(&world, "out");
    scheduler.signal("in");
    keeper.wait();
    open(&keeper);
    end(&scheduler);
}

#[test]
fn a_scheduled_pipe_runs_by_itself_and_a_manual_one_does_not() {
    let mut world = World::new();
    world.pipe(json!({"_id": "scheduled", "pump": {"run_at_startup": true, "cron_expression": "0 0 1 1 *"}}));
    world.pipe(still("manual"));
    let keeper = guard(&world, "scheduled");
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    keeper.wait();
    open(&keeper);
    until(|| world.live_pipe("scheduled").state().runs == 1);
    assert_eq!(world.live_pipe("manual").state().runs, 0);
    assert!(world.live_pipe("scheduled").state().next.is_some());
    assert!(world.live_pipe("manual").state().next.is_none());
    end(&scheduler);
}

#[test]
fn cron_follows_the_wall_clock() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "pump": {"cron_expression": "0 12 * * *"}}));
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    assert_eq!(
        world.live_pipe("p").state().next.unwrap().to_string(),
        "2026-01-02T12:00:00Z"
    );
    world.clock.set(1_767_355_200_000_000);
    keeper.wait();
    assert_eq!(
        world.live_pipe("p").state().next.unwrap().to_string(),
        "2026-01-03T12:00:00Z"
    );
    open(&keeper);
    end(&scheduler);
}

#[test]
fn a_shutdown_stops_what_runs_and_leaves_its_place() {
    let mut world = World::new();
    world.pipe(still("p"));
    world.records("p", records(&[("a", 1)]));
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", Request::default()).unwrap();
    keeper.wait();
    assert!(
        scheduler.shutdown(PATIENCE),
        "the run hears that it should stop"
    );
    assert!(!world.live_pipe("p").state().running);
    assert_eq!(world.living("p"), [""; 0]);
}

#[test]
fn a_shutdown_does_not_wait_longer_than_its_deadline() {
    let mut world = World::new();
    world.pipe(still("p"));
    world.upstream("p", |upstream| upstream.deaf = true);
    let keeper = guard(&world, "p");
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    scheduler.start_run("p", Request::default()).unwrap();
    keeper.wait();
    assert!(!scheduler.shutdown(Duration::from_millis(20)));
    open(&keeper);
}

#[test]
fn a_system_bears_so_many_runs_at_a_time() {
    let mut world = World::new();
    world.system(json!({"_id": "peer", "type": "system:scripted", "worker_threads": 2}));
    world.system(json!({"_id": "other", "type": "system:scripted"}));
    for (id, system) in [("a", "peer"), ("b", "peer"), ("c", "peer"), ("d", "other")] {
        let mut pipe = still(id);
        pipe["source"] = json!({"type": "scripted", "system": system});
        world.pipe(pipe);
    }
    let keepers = ["a", "b", "c", "d"].map(|id| guard(&world, id));
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    for id in ["a", "b", "c", "d"] {
        scheduler.start_run(id, Request::default()).unwrap();
    }
    // There is a place in the pool for all four; the third of the peer waits all the same, and
    // holds up nobody behind it.
    [0, 1, 3].into_iter().for_each(|at| keepers[at].wait());
    assert!(keepers[2].stays_away());
    open(&keepers[0]);
    keepers[2].wait();
    [1, 2, 3].into_iter().for_each(|at| open(&keepers[at]));
    wait_until_rest(&world, &["a", "b", "c", "d"]);
    end(&scheduler);
}

#[test]
fn a_run_by_hand_tells_when_the_next_one_is() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "pump": {"cron_expression": "0 12 * * *"}}));
    world.records("p", records(&[("a", 1)]));
    let scheduler = Scheduler::start(world.hub().clone(), BY_HAND);
    let request = Request {
        user: Some(Default::default()),
        ..Request::default()
    };
    scheduler.start_run("p", request).unwrap();
    until(|| world.live_pipe("p").state().runs == 1);
    end(&scheduler);
    let log = world.log("p");
    let seconds = log[1]["next_interval"].as_f64().unwrap();
    // From 03:04:05 to noon, less what the clock went on meanwhile.
    assert!((32_154.0..=32_155.0).contains(&seconds), "{seconds}");
}

pub const NOON: i64 = 1_767_355_200_000_000;
pub const DAY: i64 = 86_400_000_000;

/// Ends scheduler and node and starts both again at `now`.
fn come_back(world: &mut World, scheduler: Arc<Scheduler>, now: i64) -> Arc<Scheduler> {
    end(&scheduler);
    until(|| Arc::strong_count(&scheduler) == 1);
    drop(scheduler);
    world.restart();
    world.clock.set(now);
    Scheduler::start(world.hub().clone(), AUTOMATIC)
}

#[test]
fn a_moment_missed_while_the_node_was_down_is_made_up_for_once() {
    for expression in ["cron_expression", "rescan_cron_expression"] {
        let mut world = World::on_disk();
        let mut pump = json!({"schedule_interval": 999_999, expression: "0 12 * * *"});
        if expression == "cron_expression" {
            pump.as_object_mut().unwrap().remove("schedule_interval");
        }
        world.pipe(json!({"_id": "p", "pump": pump}));
        world.records("p", records(&[("a", 1)]));
        world.succeed("p");
        let next = |world: &World| world.live_pipe("p").state().next.unwrap().as_microsecond();
        let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
        assert_eq!(next(&world), NOON, "{expression}");
        let scheduler = come_back(&mut world, scheduler, NOON + 2 * DAY + 1);
        until(|| world.live_pipe("p").state().runs == 1);
        wait_until_rest(&world, &["p"]);
        assert_eq!(next(&world), NOON + 3 * DAY, "{expression}");
        let scheduler = come_back(&mut world, scheduler, NOON + 2 * DAY + 100_000_000);
        assert_eq!(next(&world), NOON + 3 * DAY, "{expression}: not again");
        end(&scheduler);
    }
}

#[test]
fn a_moment_of_another_expression_is_not_made_up_for() {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "p", "pump": {"cron_expression": "0 12 * * *"}}));
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    end(&scheduler);
    world.pipe(json!({"_id": "p", "pump": {"cron_expression": "0 18 * * *"}}));
    let scheduler = come_back(&mut world, scheduler, NOON + 1);
    let next = world.live_pipe("p").state().next.unwrap();
    assert_eq!(next.to_string(), "2026-01-02T18:00:00Z");
    end(&scheduler);
}

#[test]
fn a_signal_that_a_stop_swallowed_is_made_up_for() {
    let mut world = World::on_disk();
    world.pipe(still("in"));
    world.pipe(listening("out"));
    let mut deaf = listening("deaf");
    deaf["source"]["supports_signalling"] = json!(false);
    world.pipe(deaf);
    world.records("in", records(&[("x", 1)]));
    world.succeed("in");
    world.restart();
    let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
    until(|| world.living("out") == ["x"]);
    wait_until_rest(&world, &["out"]);
    assert_eq!(world.live_pipe("deaf").state().runs, 0);
    let now = NOON;
    let scheduler = come_back(&mut world, scheduler, now);
    let next = world.live_pipe("out").state().next.unwrap();
    assert_eq!(next.to_string(), "2027-01-01T00:00:00Z", "nothing is new");
    end(&scheduler);
}
