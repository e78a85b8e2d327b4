//! When `pump-started` appears in the log: with the first change or error, or after ten seconds,
//! and dated back to the beginning of the run either way.

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::Failure;

use crate::script::{GateKeeper, gate, records};
use crate::world::{BEGINNING, World};

const SECOND: i64 = 1_000_000;

/// Three entities in batches of one; the run waits before each of them.
fn world(more: Json) -> (World, GateKeeper) {
    let mut world = World::new();
    let mut pipe = json!({"_id": "p", "sink": {"type": "scripted"}, "batch_size": 1});
    for (name, value) in more.as_object().unwrap() {
        pipe[name] = value.clone();
    }
    world.pipe(pipe);
    world.records("p", records(&[("a", 1), ("b", 2), ("c", 3)]));
    let (gate, keeper) = gate();
    world.upstream("p", |upstream| {
        upstream.gate = Some(gate);
        upstream.gate_at_every_batch = true;
    });
    (world, keeper)
}

/// Ends the run of a test that fails, for it would wait at its gate for ever.
struct Leaving<'a>(&'a World);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.hub().stop("p");
        }
    }
}

/// Runs the pipe while the test stands at its gates.
fn meanwhile(world: &World, test: impl FnOnce()) {
    std::thread::scope(|scope| {
        let _leaving = Leaving(world);
        let run = scope.spawn(|| world.succeed("p"));
        test();
        run.join().unwrap();
    });
}

/// Seconds from the beginning of the world to the moment that an entry tells.
fn seconds(entry: &Json, name: &str) -> i64 {
    let moment: Timestamp = entry[name].as_str().unwrap().parse().unwrap();
    (moment.as_microsecond() - BEGINNING).div_euclid(SECOND)
}

/// When the first entry of the log was written, in seconds from the beginning.
fn written(world: &World) -> i64 {
    let log = world.versions("system:pump_execution:p", true, Fields::ALL);
    (log[0]["_ts"].as_i64().unwrap() - BEGINNING).div_euclid(SECOND)
}

#[test]
fn the_first_change_tells_that_the_run_began_before_it() {
    let (world, keeper) = world(json!({}));
    meanwhile(&world, || {
        keeper.wait();
        assert_eq!(world.log("p"), [Json::Null; 0], "nothing changed yet");
        world.clock.set(BEGINNING + 5 * SECOND);
        keeper.open.send(()).unwrap();
        keeper.wait();
        assert_eq!(world.log_kinds("p"), ["pump-started"]);
        assert_eq!(
            (seconds(&world.log("p")[0], "start_time"), written(&world)),
            (0, 5)
        );
        world.clock.set(BEGINNING + 7 * SECOND);
        (0..2).for_each(|_| keeper.open.send(()).unwrap());
    });
    let log = world.log("p");
    assert_eq!(world.log_kinds("p"), ["pump-started", "pump-completed"]);
    assert_eq!(log[0]["start_time"], log[1]["start_time"]);
    assert_eq!(seconds(&log[1], "end_time"), 7);
}

#[test]
fn a_run_that_changes_nothing_is_told_of_after_ten_seconds() {
    let (world, keeper) = world(json!({"transform": {"type": "scripted"}}));
    let all = ["a", "b", "c"].map(str::to_owned);
    world.middle("p", |middle| middle.discards.extend(all));
    meanwhile(&world, || {
        keeper.wait();
        world.clock.set(BEGINNING + 9 * SECOND);
        keeper.open.send(()).unwrap();
        keeper.wait();
        assert_eq!(world.log("p"), [Json::Null; 0], "not long enough");
        world.clock.set(BEGINNING + 11 * SECOND);
        keeper.open.send(()).unwrap();
        keeper.wait();
        assert_eq!(world.log_kinds("p"), ["pump-started"]);
        assert_eq!(
            (seconds(&world.log("p")[0], "start_time"), written(&world)),
            (0, 11)
        );
        keeper.open.send(()).unwrap();
    });
    assert_eq!(
        world.log_kinds("p"),
        ["pump-started", "pump-completed"],
        "no longer a secret"
    );
}

#[test]
fn an_error_tells_that_the_run_began_before_it() {
    let (world, keeper) = world(json!({"pump": {"max_read_retries": 1}}));
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")));
    });
    meanwhile(&world, || {
        keeper.wait();
        world.clock.set(BEGINNING + 3 * SECOND);
        keeper.open.send(()).unwrap();
        keeper.wait();
        assert_eq!(world.log_kinds("p"), ["pump-started", "read-error"]);
        let log = world.log("p");
        assert_eq!(
            (
                seconds(&log[0], "start_time"),
                seconds(&log[1], "event_time")
            ),
            (0, 3)
        );
        (0..3).for_each(|_| keeper.open.send(()).unwrap());
    });
}

#[test]
fn a_run_in_the_middle_of_a_read_is_told_of_after_ten_seconds() {
    let (world, keeper) = world(json!({}));
    meanwhile(&world, || {
        keeper.wait();
        assert_eq!(world.log("p"), [Json::Null; 0]);
        world.clock.set(BEGINNING + 12 * SECOND);
        let patience = std::time::Instant::now() + crate::script::PATIENCE;
        while world.log("p").is_empty() {
            assert!(std::time::Instant::now() < patience, "nobody tells of it");
            std::thread::yield_now();
        }
        assert_eq!(world.log_kinds("p"), ["pump-started"]);
        assert_eq!(
            (seconds(&world.log("p")[0], "start_time"), written(&world)),
            (0, 12)
        );
        (0..3).for_each(|_| keeper.open.send(()).unwrap());
    });
    assert_eq!(world.log_kinds("p"), ["pump-started", "pump-completed"]);
}
