//! Circuit breakers: what a run that changes too much leaves behind, and what is done about it.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::breaker::Reset;
use tahini_hub::execution_log::User;
use tahini_hub::hub::Refusal;
use tahini_hub::pump::Request;
use tahini_hub::{Class, Failure};
use tahini_store::{Commit, Compaction, Dataset, Rule, Show};

use crate::script::{gate, records};
use crate::world::World;

/// A pipe whose runs may write so many entities once the dataset is populated.
fn guarded(limits: Json) -> Json {
    let mut sink = limits;
    sink["type"] = json!("dataset");
    json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "sink": sink,
        "batch_size": 2,
        "checkpoint_interval": 1,
    })
}

fn count(count: u64) -> Json {
    guarded(json!({"circuit_breaker_threshold_count": count}))
}

fn ten(from: i64) -> Vec<Json> {
    let ids: Vec<String> = (from..from + 10).map(|n| format!("e{n}")).collect();
    let rows: Vec<(&str, i64)> = ids.iter().map(String::as_str).zip(from..).collect();
    records(&rows)
}

fn dataset(world: &World) -> Arc<dyn Dataset> {
    world.hub().world.store.open("p", false).unwrap()
}

fn user() -> User {
    User {
        user_id: "ada".to_owned(),
        remote_addr: "::1".to_owned(),
    }
}

fn reset(world: &World, how: Reset) {
    world.hub().reset_breaker("p", how, &user()).unwrap();
}

fn uncommitted(world: &World) -> u64 {
    let newest = dataset(world).uncommitted().unwrap().head().next;
    newest - dataset(world).snapshot().unwrap().head().next
}

fn refused(world: &World) -> String {
    match world.try_run("p", &Request::default()) {
        Err(refusal @ Refusal::Tripped(..)) => refusal.to_string(),
        other => panic!("expected a tripped breaker, found {other:?}"),
    }
}

#[test]
fn the_first_load_trips_nothing_and_a_run_within_the_limit_is_shown_at_its_end() {
    for mut world in World::both() {
        world.pipe(count(3));
        world.records("p", ten(1));
        assert_eq!(world.succeed("p").changed, 10, "it is not populated before");
        let (gate, keeper) = gate();
        world.records("p", records(&[("e1", 11), ("e2", 12), ("new", 13)]));
        world.upstream("p", |upstream| {
            upstream.gate = Some(gate);
            upstream.gate_at_every_batch = true;
        });
        let summary = std::thread::scope(|scope| {
            let run = scope.spawn(|| world.run("p"));
            keeper.wait();
            keeper.open.send(()).unwrap();
            keeper.wait();
            // The first batch is written, with its place.
            assert_eq!(uncommitted(&world), 2);
            assert_eq!(world.version_count("p"), 10, "nobody sees it yet");
            assert_eq!(world.offset("p"), 10);
            keeper.open.send(()).unwrap();
            run.join().unwrap()
        });
        assert!(summary.success(), "{:?}", summary.failure);
        assert_eq!(summary.changed, 3, "as many as it may");
        assert_eq!(world.version_count("p"), 13);
        assert_eq!(world.offset("p"), 13);
        assert!(!dataset(&world).snapshot().unwrap().head().holds);
    }
}

#[test]
fn a_run_that_changes_too_much_is_never_seen_and_stops_the_pipe() {
    for mut world in World::both() {
        world.pipe(count(3));
        world.records("p", ten(1));
        world.succeed("p");
        world.records("p", ten(11));
        let words = world.fail("p");
        assert!(
            words.contains("at most 3 entities") && words.contains("count 3"),
            "{words}"
        );
        for _ in 0..2 {
            assert_eq!(world.version_count("p"), 10);
            assert_eq!(world.offset("p"), 10);
            assert!(uncommitted(&world) > 3);
            let refusal = refused(&world);
            assert!(
                refusal.contains("tripped") && refusal.contains("at most 3"),
                "{refusal}"
            );
            let known = world.hub().tripped(&world.live_pipe("p")).unwrap().unwrap();
            assert_eq!(
                (known.pipe.as_str(), known.versions),
                ("p", uncommitted(&world))
            );
            world.restart_if_on_disk();
        }
        assert_eq!(
            world.log_kinds("p"),
            [
                "pump-started",
                "pump-completed",
                "pump-started",
                "pump-failed"
            ]
        );
        let set = world.hub().set_offset("p", None, &user());
        assert!(set.unwrap_err().to_string().contains("tripped"));
    }
}

#[test]
fn rolled_back_it_is_as_before_the_run() {
    for mut world in World::both() {
        world.pipe(count(3));
        world.records("p", ten(1));
        world.succeed("p");
        let before = world.versions("p", true, Fields::ALL);
        world.records("p", ten(11));
        world.fail("p");
        world.restart_if_on_disk();
        reset(&world, Reset::RollBack);
        world.restart_if_on_disk();
        assert_eq!(world.versions("p", true, Fields::ALL), before);
        assert_eq!(uncommitted(&world), 0);
        assert_eq!(world.offset("p"), 10);
        world.records("p", records(&[("e1", 11)]));
        assert_eq!(world.succeed("p").changed, 1);
        let log = world.log("p");
        let entry = log
            .iter()
            .find(|entry| entry["event_type"] == "circuit-breaker-rollback");
        let entry = entry.expect("an entry of the roll-back");
        assert_eq!(
            (&entry["dataset"], &entry["user"]["user_id"]),
            (&json!("p"), &json!("ada"))
        );
        let again = world.hub().reset_breaker("p", Reset::RollBack, &user());
        assert!(again.unwrap_err().to_string().contains("it is not"));
    }
}

#[test]
fn committed_it_is_there_and_the_pipe_goes_on_behind_it() {
    for mut world in World::both() {
        world.pipe(count(3));
        world.records("p", ten(1));
        world.succeed("p");
        world.records("p", ten(11));
        world.fail("p");
        let held = uncommitted(&world);
        world.restart_if_on_disk();
        reset(&world, Reset::Commit);
        world.restart_if_on_disk();
        assert_eq!(world.version_count("p") as u64, 10 + held);
        assert_eq!(world.offset("p"), 13, "the last save before it tripped");
        assert!(
            world
                .log_kinds("p")
                .contains(&"circuit-breaker-commit".to_owned())
        );
        world.fail("p");
        reset(&world, Reset::Commit);
        assert_eq!(world.succeed("p").failed, 0);
        assert_eq!(world.living("p").len(), 20);
    }
}

#[test]
fn deletions_count_so_that_an_empty_answer_empties_nothing() {
    for mut world in World::both() {
        let mut pipe = guarded(json!({"circuit_breaker_threshold_factor": 0.5}));
        pipe["source"] = json!({"type": "scripted"});
        world.pipe(pipe);
        world.records("p", ten(1));
        world.succeed("p");
        world.records("p", ten(1)[..5].to_vec());
        assert_eq!(
            world.succeed("p").deleted,
            5,
            "half of them is not more than half"
        );
        world.records("p", Vec::new());
        let summary = world.succeed("p");
        assert_eq!(summary.deleted, 5, "the factor counts deleted ids, too");
        world.records("p", ten(1));
        let words = world.fail("p");
        assert!(words.contains("factor 0.5 of 10 entities"), "{words}");
        assert_eq!(world.living("p"), [""; 0]);
    }
}

#[test]
fn a_run_that_fails_or_is_stopped_leaves_nothing_and_its_place_is_the_old_one() {
    for mut world in World::both() {
        world.pipe(count(8));
        world.records("p", ten(1));
        world.succeed("p");
        world.records("p", ten(11)[..6].to_vec());
        world.upstream("p", |upstream| {
            upstream
                .failures
                .push_back((5, Failure::transient("broke off")));
        });
        world.fail("p");
        assert_eq!(
            (world.version_count("p"), world.offset("p")),
            (10, json!(10))
        );
        assert_eq!(uncommitted(&world), 0);
        let (gate, keeper) = gate();
        world.upstream("p", |upstream| {
            upstream.gate = Some(gate);
            upstream.gate_at_every_batch = true;
        });
        let summary = std::thread::scope(|scope| {
            let run = scope.spawn(|| world.run("p"));
            for _ in 0..2 {
                keeper.wait();
                keeper.open.send(()).unwrap();
            }
            keeper.wait();
            world.hub().stop("p").unwrap();
            run.join().unwrap()
        });
        assert_eq!(summary.failure.unwrap().class, Class::Cancelled);
        assert_eq!((world.version_count("p"), uncommitted(&world)), (10, 0));
        world.upstream("p", |upstream| upstream.gate = None);
        assert_eq!(world.succeed("p").changed, 6);
        assert_eq!(world.version_count("p"), 16);
    }
}

#[test]
fn what_a_node_that_was_killed_left_behind_is_taken_back() {
    for mut world in World::both() {
        world.pipe(count(3));
        world.records("p", ten(1));
        world.succeed("p");
        let mut rows = tahini_entity::Batch::new();
        let mut parser = tahini_entity::json::Parser::new(Default::default());
        parser
            .push_json(&mut rows, br#"{"_id": "half", "v": 1}"#)
            .unwrap();
        let half = Commit {
            rows: &rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: false,
            now: 0,
            show: Show::Later,
            note: None,
        };
        dataset(&world).commit(half).unwrap().1.wait().unwrap();
        world.restart_if_on_disk();
        assert_eq!(world.hub().tripped(&world.live_pipe("p")).unwrap(), None);
        world.records("p", records(&[("e1", 11)]));
        assert_eq!(world.succeed("p").changed, 1);
        assert_eq!(world.version_count("p"), 11);
        assert!(!world.living("p").contains(&"half".to_owned()));
    }
}

#[test]
fn rules_may_trip_it() {
    for populated in [true, false] {
        let mut world = World::on_disk();
        let mut pipe = guarded(json!({}));
        pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
            ["copy", "*"],
            ["if", ["eq", "_S._id", "bad"], [["trip!", "look at this one"]]]
        ]}});
        world.pipe(pipe);
        if populated {
            world.records("p", ten(1));
            world.succeed("p");
        }
        let before = world.version_count("p");
        world.records(
            "p",
            records(&[("e1", 21), ("e2", 22), ("e3", 23), ("bad", 24)]),
        );
        let words = world.fail("p");
        assert!(words.contains("look at this one"), "{words}");
        assert!(refused(&world).contains("look at this one"));
        world.restart();
        assert!(refused(&world).contains("look at this one"));
        if populated {
            assert_eq!(world.version_count("p"), before);
            assert_eq!(uncommitted(&world), 2, "the batch before it");
        }
        reset(&world, Reset::RollBack);
        world.records("p", records(&[("e1", 21)]));
        world.succeed("p");
    }
}

#[test]
fn what_waited_for_a_retry_waits_on_when_its_run_is_taken_back() {
    let mut world = World::on_disk();
    let mut pipe = count(2);
    pipe["pump"] =
        json!({"max_write_errors_in_retry_dataset": 10, "max_consecutive_write_errors": 10});
    world.pipe(pipe);
    world.records("p", ten(1));
    world.target("p", |target| target.refuses = ["e3".to_owned()].into());
    world.succeed("p");
    world.target("p", |target| target.refuses.clear());
    world.records("p", ten(11));
    world.fail("p");
    assert_eq!(world.living("p").len(), 9);
    reset(&world, Reset::RollBack);
    world.records("p", records(&[("e1", 11)]));
    world.succeed("p");
    assert_eq!(world.living("p").len(), 10, "e3 came in the end");
    let errors = world.log("p");
    let last = errors
        .iter()
        .rfind(|entry| entry["event_type"] == "write-error");
    assert_eq!(last.unwrap()["resolved"], true);
}

#[test]
fn a_tripped_dataset_is_not_compacted() {
    let mut world = World::on_disk();
    world.pipe(count(3));
    world.records("p", ten(1));
    world.succeed("p");
    world.records("p", ten(11));
    world.fail("p");
    let rules = Compaction {
        keep_versions: Some(1),
        ..Compaction::default()
    };
    let refused = dataset(&world).compact(&rules).unwrap_err();
    assert!(refused.to_string().contains("circuit breaker"), "{refused}");
}

#[test]
fn tracked_deletions_are_marked_where_the_sink_says_so() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p",
        "sink": {"type": "dataset", "mark_deletion_tracked": true},
    }));
    world.records("p", records(&[("a", 1), ("b", 2)]));
    world.succeed("p");
    let mut gone = records(&[("a", 1), ("b", 2)]);
    gone[0]["_deleted"] = json!(true);
    world.records("p", gone[..1].to_vec());
    assert_eq!(world.succeed("p").deleted, 2);
    let latest = world.versions("p", false, Fields::CONTENT);
    let of = |id: &str| latest.iter().find(|entity| entity["_id"] == id).unwrap();
    assert_eq!(of("b")["$deletion_tracked"], true);
    assert_eq!(
        of("a")["$deletion_tracked"],
        Json::Null,
        "its source says so"
    );
    assert_eq!(world.succeed("p").changed, 0);
    world.records("p", records(&[("b", 2)]));
    world.succeed("p");
    let latest = world.versions("p", false, Fields::CONTENT);
    let back = latest.iter().find(|entity| entity["_id"] == "b").unwrap();
    assert_eq!(back["$deletion_tracked"], Json::Null);
}
