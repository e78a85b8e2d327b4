//! Failed entities in numbers: they are looked up, not remembered, and given another chance.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::execution_log::User;

use crate::refusals::{errors, pipe, retrying, sent};
use crate::script::records;
use crate::world::{BEGINNING, World};

/// More than are known in memory.
const MANY: usize = 10_200;

fn name(at: usize) -> String {
    format!("e{at:05}")
}

fn versions(version: i64) -> Vec<Json> {
    let row = |at| {
        let updated = version * 100_000 + at as i64;
        json!({"_id": name(at), "_updated": updated, "v": version})
    };
    (0..MANY).map(row).collect()
}

fn refuse(world: &World, ids: impl IntoIterator<Item = usize>) {
    let ids = ids.into_iter().map(name).collect();
    world.target("p", |target| target.refuses = ids);
}

fn world(pump: &[(&str, u64)]) -> World {
    let mut all = retrying();
    all["max_consecutive_write_errors"] = json!(1_000_000);
    for (name, value) in pump {
        all[*name] = json!(value);
    }
    let mut pipe = pipe(all);
    pipe["batch_size"] = json!(1_000);
    let mut world = World::new();
    world.pipe(pipe);
    world.records("p", versions(1));
    world
}

fn revive(world: &World, ids: &[&str]) -> u64 {
    let user = User::default();
    world.hub().retry_dead_letters("p", ids, &user).unwrap()
}

#[test]
fn many_that_were_given_up_are_left_alone_until_somebody_asks() {
    let world = world(&[("max_retries_per_entity", 0)]);
    refuse(&world, 0..MANY);
    assert_eq!(world.succeed("p").failed, MANY as u64);
    sent(&world);
    assert!(world.rescan("p").success());
    assert_eq!(sent(&world), [""; 0], "each is known");
    refuse(&world, []);
    let mut changed = versions(1);
    changed[5] = json!({"_id": name(5), "_updated": 900_000, "v": 2});
    world.records("p", changed);
    world.succeed("p");
    assert_eq!(sent(&world), [name(5)]);
    assert_eq!(revive(&world, &[&name(7), "nobody", &name(5)]), 1);
    assert_eq!(world.succeed("p").retryable, 0);
    assert_eq!(sent(&world), [name(7)]);
    assert_eq!(revive(&world, &[]), MANY as u64 - 2);
    let last = world.log("p").pop().unwrap();
    assert_eq!(last["event_type"], "pump-retry-dead-letters");
    assert_eq!(last["num_entities"], MANY as u64 - 2);
    let waiting = world.live_pipe("p").state().last.unwrap().retryable;
    assert_eq!(waiting, MANY as u64 - 2);
    assert_eq!(world.succeed("p").retryable, 0);
    assert_eq!(sent(&world).len(), MANY - 2);
    let open = errors(&world)
        .iter()
        .filter(|told| told[3] == false)
        .count();
    assert_eq!(open, MANY, "each was told once, and resolved once");
    assert_eq!(errors(&world).len(), 2 * MANY);
}

#[test]
fn many_that_wait_are_tried_once_a_run_and_can_be_discarded() {
    let limits = [("max_write_errors_in_retry_dataset", 100_000)];
    let world = world(&limits);
    refuse(&world, 0..MANY);
    let summary = world.succeed("p");
    assert_eq!(
        (summary.failed, summary.retryable),
        (MANY as u64, MANY as u64)
    );
    sent(&world);
    refuse(&world, (0..MANY).filter(|at| at % 100 != 0));
    // The source gives all of them again in the run that has retried them.
    let summary = world.rescan("p");
    assert!(summary.success(), "{:?}", summary.failure);
    let got_through = (0..MANY).step_by(100).count();
    assert_eq!(summary.retryable, (MANY - got_through) as u64);
    let tried = sent(&world);
    let alone = tried.iter().filter(|ids| ids.len() <= 7).count();
    assert_eq!(alone, MANY, "each was tried once");
    world.hub().discard_retries("p", &User::default()).unwrap();
    assert_eq!(world.succeed("p").retryable, 0);
    assert_eq!(sent(&world), [""; 0]);
}

/// A person puts an entity once more into the dataset that the pipe reads: it has the same content
/// and another number.
#[test]
fn what_the_source_numbers_anew_is_tried_again() {
    let mut pump = retrying();
    pump["max_retries_per_entity"] = json!(0);
    pump["dead_letter_dataset"] = json!("letters");
    pump["track_dead_letters"] = json!(true);
    let mut world = World::new();
    world.pipe(pipe(pump));
    let letters = world.hub().world.store.find("letters").unwrap().unwrap();
    assert!(
        letters.snapshot().unwrap().head().populated,
        "before there are any"
    );
    world.records("p", records(&[("a", 1), ("b", 2)]));
    world.target("p", |target| target.refuses = [String::from("b")].into());
    world.succeed("p");
    assert_eq!(world.living("letters"), ["b"]);
    sent(&world);
    let again = json!([{"_id": "a", "_updated": 1, "v": 1}, {"_id": "b", "_updated": 7, "v": 2}]);
    world.records("p", again.as_array().unwrap().clone());
    world.target("p", |target| target.refuses.clear());
    world.succeed("p");
    assert_eq!(sent(&world), ["b"]);
    assert_eq!(world.deleted("letters"), ["b"]);
}

#[test]
fn a_resolved_dead_letter_tells_which_other_version_got_through() {
    let mut pump = retrying();
    pump["max_retries_per_entity"] = json!(0);
    pump["dead_letter_dataset"] = json!("letters");
    pump["track_dead_letters"] = json!(true);
    for (revived, resolved_by) in [(false, json!(9)), (true, Json::Null)] {
        let mut world = World::new();
        world.pipe(pipe(pump.clone()));
        world.records("p", records(&[("b", 2)]));
        world.target("p", |target| target.refuses = [String::from("b")].into());
        world.succeed("p");
        assert_eq!(world.living("letters"), ["b"]);
        world.target("p", |target| target.refuses.clear());
        match revived {
            // It waits, and is a dead letter still: it goes when the entity gets through.
            true => assert_eq!(revive(&world, &[]), 1),
            false => world.records("p", records(&[("b", 9)])),
        }
        world.succeed("p");
        let last = world.versions("letters", true, Fields::ALL).pop().unwrap();
        assert_eq!((&last["_deleted"], &last["v"]), (&json!(true), &json!(2)));
        assert_eq!(last["resolved_entity"]["v"], resolved_by, "{last}");
    }
}

const DAY: i64 = 24 * 3_600_000_000;

/// What the log says last of each entity that failed: its entry, and whether it got through.
fn open_errors(world: &World) -> Vec<String> {
    let log = tahini_hub::execution_log::dataset_id("p");
    let latest = world.versions(&log, false, Fields::CONTENT);
    let errors = latest
        .iter()
        .filter(|entry| entry["event_type"] == "write-error");
    let mut told: Vec<String> = errors
        .map(|entry| format!("{} {}", entry["_id"].as_str().unwrap(), entry["resolved"]))
        .collect();
    told.sort();
    told
}

fn fails(world: &World, ids: &[&str]) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    world.target("p", |target| target.refuses = ids);
}

/// Failures that are over leave the log with its other old entries, and dead letters that got
/// through leave their dataset; what is still open stays, and can still be tried again.
#[test]
fn failures_that_are_over_are_forgotten_by_age() {
    let mut pump = retrying();
    pump["max_retries_per_entity"] = json!(1);
    pump["dead_letter_dataset"] = json!("letters");
    pump["track_dead_letters"] = json!(true);
    for mut world in World::both() {
        let mut pump = pump.clone();
        world.pipe(pipe(pump.clone()));
        let rows = |version: i64| {
            let row = |(at, id): (i64, &str)| json!({"_id": id, "_updated": version * 10 + at, "v": version});
            (0..)
                .zip(["dead", "lived", "soon"])
                .map(row)
                .collect::<Vec<Json>>()
        };
        world.records("p", rows(1));
        fails(&world, &["dead", "lived", "soon"]);
        world.succeed("p");
        // `soon` gets through, the others are given up.
        fails(&world, &["dead", "lived"]);
        world.succeed("p");
        // A later version of one that was given up gets through; others wait.
        let mut later = rows(1);
        later[1] = json!({"_id": "lived", "_updated": 30, "v": 2});
        later.extend(records(&[("w1", 31), ("w2", 32)]));
        world.records("p", later);
        fails(&world, &["dead", "w1", "w2"]);
        world.succeed("p");
        assert_eq!(
            (world.living("letters"), world.deleted("letters")),
            (vec!["dead".into()], vec!["lived".into()])
        );
        let told = |ids: &[&str]| -> Vec<String> {
            let of = |id: &&str| format!("write-error:{id} {}", ["lived", "soon"].contains(id));
            ids.iter().map(of).collect()
        };
        // Nobody is there, and what waits is left for later after the first failure.
        world.target("p", |target| target.is_down = true);
        pump["max_consecutive_write_errors"] = json!(1);
        pump["max_retries_per_entity"] = json!(100);
        let open = ["dead", "w1", "w2"];
        let all = ["dead", "lived", "soon", "w1", "w2"];
        for (days, errors, gone) in [(29, told(&all), false), (32, told(&open), true)] {
            world.clock.set(BEGINNING + days * DAY);
            world.restart_if_on_disk();
            world.pipe(pipe(pump.clone()));
            world.succeed("p");
            assert_eq!(open_errors(&world), errors, "after {days} days");
            assert_eq!(
                world.deleted("letters").is_empty(),
                gone,
                "after {days} days"
            );
            assert_eq!(world.living("letters"), ["dead"]);
        }
        fails(&world, &[]);
        sent(&world);
        assert_eq!(revive(&world, &[]), 1);
        world.succeed("p");
        let mut tried = sent(&world);
        tried.sort();
        assert_eq!(tried, open, "each is known as it failed");
    }
}

/// How many bytes of the process are its own.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

/// What a run costs that has nothing to do with them must not follow their number: neither a run
/// that brings a little nor one that brings nothing looks at them all.
#[test]
fn fifty_thousand_dead_letters_make_a_run_neither_slow_nor_large() {
    const LETTERS: usize = 50_000;
    let mut pump = retrying();
    pump["max_consecutive_write_errors"] = json!(1_000_000);
    pump["max_retries_per_entity"] = json!(0);
    pump["dead_letter_dataset"] = json!("letters");
    let mut world = World::new();
    let mut pipe = pipe(pump);
    pipe["batch_size"] = json!(1_000);
    world.pipe(pipe);
    let ids: Vec<String> = (0..LETTERS).map(|at| format!("e{at:05}")).collect();
    let rows: Vec<(&str, i64)> = ids.iter().map(String::as_str).zip(1..).collect();
    world.records("p", records(&rows));
    world.target("p", |target| target.refuses = ids.iter().cloned().collect());
    assert_eq!(world.succeed("p").failed, LETTERS as u64);
    world.target("p", |target| target.refuses.clear());
    world.records("p", Vec::new());
    sent(&world);
    let (before, begun) = (own_bytes(), std::time::Instant::now());
    for round in 0..20 {
        let name = format!("new{round}");
        world.records("p", records(&[(&name, 100_000 + round)]));
        world.succeed("p");
        world.succeed("p");
    }
    // Forty runs of a moment each, on a machine that does other things, too.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let grown = own_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(sent(&world).len(), 20);
    assert_eq!(revive(&world, &["e00007"]), 1);
    world.succeed("p");
    assert_eq!(sent(&world), ["e00007"]);
}

/// More than are remembered until the end of a run that nobody sees before.
#[test]
fn many_that_are_overtaken_in_a_run_under_a_breaker_are_all_told_as_resolved() {
    let mut pump = retrying();
    pump["max_consecutive_write_errors"] = json!(1_000_000);
    pump["max_write_errors_in_retry_dataset"] = json!(1_000_000);
    pump["max_retries_per_entity"] = json!(100);
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "batch_size": 1_000, "pump": pump,
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "transform": {"type": "scripted"},
        "sink": {"type": "dataset", "circuit_breaker_threshold_count": 1_000_000},
    }));
    world.records("p", records(&[("first", 1)]));
    world.succeed("p");
    world.middle("p", |middle| middle.refuses_v = Some(1));
    world.records("p", versions(1));
    assert_eq!(world.succeed("p").retryable, MANY as u64);
    world.records("p", versions(2));
    let summary = world.succeed("p");
    assert!(summary.changed == MANY as u64, "{}", summary.changed);
    assert_eq!(summary.retryable, 0);
    world.middle("p", |middle| {
        middle.refuses_v = None;
        middle.attempts.clear();
    });
    assert_eq!(world.succeed("p").read, 0);
    let tried = world.middle("p", |middle| middle.attempts.len());
    assert_eq!(tried, 0, "the first versions are gone");
}
