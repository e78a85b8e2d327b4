//! What stands in `system:pump_execution:<pipe>`.

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::Failure;
use tahini_hub::execution_log::User;
use tahini_hub::pump::Request;

use crate::script::records;
use crate::world::World;

fn pipe(pump: Json) -> Json {
    json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true},
        "sink": {"type": "scripted"},
        "pump": pump,
    })
}

fn world(pump: Json) -> World {
    let mut world = World::new();
    world.pipe(pipe(pump));
    world.records("p", records(&[("a", 3), ("b", 4)]));
    world
}

fn names(entry: &Json) -> Vec<&str> {
    let mut names: Vec<&str> = entry
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

/// The first entry of a kind, without its volatile times.
fn entry(world: &World, kind: &str) -> Json {
    let log = world.log("p");
    log.into_iter()
        .find(|entry| entry["event_type"] == kind)
        .unwrap_or_else(|| panic!("{kind} in the log"))
}

fn is_time(value: &Json) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == "2026-01-02T03:04:05.678901Z".len()
        && text.starts_with("2026-01-02T03:04:0")
        && text.ends_with('Z')
}

fn ada() -> User {
    User {
        user_id: "ada".to_owned(),
        remote_addr: "127.0.0.1".to_owned(),
    }
}

#[test]
fn a_completed_run_is_told_with_every_documented_property() {
    let world = world(json!({}));
    let request = Request {
        user: Some(ada()),
        next_interval: Some(12.5),
        ..Request::default()
    };
    assert!(world.try_run("p", &request).unwrap().success());
    assert_eq!(world.log_kinds("p"), ["pump-started", "pump-completed"]);
    let started = entry(&world, "pump-started");
    assert_eq!(started["_id"], "pump-started");
    assert_eq!(started["pipe"], "p");
    assert_eq!(started["pump_definition"], "pump:p");
    assert_eq!(started["sync_type"], "full");
    assert_eq!(
        started["user"],
        json!({"user_id": "ada", "remote_addr": "127.0.0.1"})
    );
    assert!(is_time(&started["start_time"]), "{started}");
    let done = entry(&world, "pump-completed");
    for (name, expected) in [
        ("_id", json!("pump-completed")),
        ("pipe", json!("p")),
        ("pump_definition", json!("pump:p")),
        ("sync_type", json!("full")),
        ("next_interval", json!(12.5)),
        ("pump_started_location", json!(0)),
        ("retry_entities_exist", json!(false)),
        ("entities_succeeded", json!(2)),
        ("entities_failed", json!(0)),
        ("processed_last_run", json!(2)),
        ("pipe_offset", json!(4)),
        ("start_time", started["start_time"].clone()),
    ] {
        assert_eq!(done[name], expected, "{name}");
    }
    assert!(is_time(&done["end_time"]) && done["end_time"].as_str() > done["start_time"].as_str());
    assert!(done["total_time"].as_f64().unwrap() > 0.0);
    let metrics = &done["metrics"]["entities"];
    assert_eq!(
        (&metrics["changes_last_run"], &metrics["entities_last_run"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (
            &metrics["read_errors_last_run"],
            &metrics["write_errors_last_run"]
        ),
        (&json!(0), &json!(0))
    );
    for time in ["source_time", "transform_time", "sink_time"] {
        assert!(metrics[time].is_number(), "{time}");
    }
}

#[test]
fn a_failed_run_is_told_with_every_documented_property() {
    let world = world(json!({"batch_retries": 0}));
    world.target("p", |target| target.refuses.extend(["b".to_owned()]));
    world.fail("p");
    let failed = entry(&world, "pump-failed");
    for name in [
        "_id",
        "end_time",
        "entities_failed",
        "entities_succeeded",
        "event_type",
        "exception_entity",
        "metrics",
        "node_build_info",
        "original_error_message",
        "original_traceback",
        "pipe",
        "pump_definition",
        "pump_started_location",
        "reason_why_stopped",
        "retry_entities_exist",
        "start_time",
        "sync_type",
        "total_time",
        "traceback",
    ] {
        assert!(names(&failed).contains(&name), "{name} in {failed}");
    }
    assert_eq!(failed["exception_entity"], json!({"_id": "b", "v": 4}));
    assert_eq!(
        (&failed["entities_succeeded"], &failed["entities_failed"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(failed["original_error_message"], "the target's own words");
    assert!(
        failed["reason_why_stopped"]
            .as_str()
            .unwrap()
            .contains("refused b")
    );
    assert_eq!(failed["pipe_offset"], Json::Null);
}

#[test]
fn a_read_error_is_told_as_documented() {
    let world = world(json!({}));
    let unreachable =
        Failure::transient("expected an answer, found none").with_original("connection refused");
    world.upstream("p", |upstream| {
        upstream.failures.push_back((0, unreachable.clone()))
    });
    world.fail("p");
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, unreachable.with_status(500)))
    });
    world.fail("p");
    let log = world.log("p");
    let errors: Vec<&Json> = log
        .iter()
        .filter(|entry| entry["event_type"] == "read-error")
        .collect();
    let id = errors[0]["_id"]
        .as_str()
        .unwrap()
        .strip_prefix("read-error:")
        .unwrap();
    assert_eq!(id.len(), 36);
    assert_ne!(errors[0]["_id"], errors[1]["_id"]);
    assert_eq!(
        [&errors[0]["error_code"], &errors[1]["error_code"]],
        [&json!(0), &json!(1)]
    );
    assert!(is_time(&errors[0]["event_time"]));
    assert_eq!(errors[0]["traceback"], "expected an answer, found none");
    assert_eq!(errors[0]["original_error_message"], "connection refused");
    assert_eq!(errors[0]["original_traceback"], "connection refused");
}

#[test]
fn a_failure_without_other_words_has_its_own_as_the_original() {
    let world = world(json!({}));
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")))
    });
    world.fail("p");
    let error = entry(&world, "read-error");
    assert_eq!(error["original_error_message"], "broke off");
    assert_eq!(error["original_traceback"], "broke off");
}

#[test]
fn a_write_error_is_told_as_documented() {
    let world = world(json!({
        "batch_retries": 0,
        "max_write_errors_in_retry_dataset": 5,
        "max_consecutive_write_errors": 5,
    }));
    world.target("p", |target| target.refuses.extend(["b".to_owned()]));
    world.succeed("p");
    let error = entry(&world, "write-error");
    for (name, expected) in [
        ("_id", json!("write-error:b")),
        ("pipe", json!("p")),
        ("error_code", json!(1)),
        ("retry_attempts", json!(0)),
        ("retryable", json!(true)),
        ("resolved", json!(false)),
        ("dead", json!(false)),
        ("entity", json!({"_id": "b", "v": 4})),
        ("traceback", json!("refused b")),
        ("original_traceback", json!("the target's own words")),
        ("original_error_message", json!("the target's own words")),
    ] {
        assert_eq!(error[name], expected, "{name}");
    }
    assert!(is_time(&error["event_time"]));
    assert_eq!(
        entry(&world, "pump-completed")["retry_entities_exist"],
        true
    );
}

#[test]
fn an_offset_set_by_hand_is_told_with_the_one_before() {
    let world = world(json!({}));
    world.succeed("p");
    world
        .hub()
        .set_offset("p", Some(Offset::Int(1)), &ada())
        .unwrap();
    world.hub().set_offset("p", None, &ada()).unwrap();
    let log = world.log("p");
    let set: Vec<&Json> = log
        .iter()
        .filter(|entry| entry["_id"] == "pump-offset-set")
        .collect();
    let told = set
        .iter()
        .map(|e| json!([e["original_pipe_offset"], e["pipe_offset"], e["is_reset"]]));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [json!(["4", "1", false]), json!(["1", "", true])]
    );
    for entry in set {
        assert_eq!(
            (&entry["event_type"], &entry["pipe"]),
            (&json!("pump-offset-set"), &json!("p"))
        );
        assert_eq!(entry["user"]["user_id"], "ada");
        assert!(is_time(&entry["event_time"]));
    }
}

#[test]
fn switching_a_pump_off_and_on_is_told_and_lasts() {
    let mut world = World::on_disk();
    world.pipe(pipe(json!({})));
    world.records("p", records(&[("a", 1)]));
    world
        .hub()
        .switch("p", false, "the target moves", &ada())
        .unwrap();
    world.restart();
    let refusal = world
        .try_run("p", &Request::default())
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("is disabled: the target moves"),
        "{refusal}"
    );
    world.hub().switch("p", true, "", &ada()).unwrap();
    world.succeed("p");
    let kinds = world.log_kinds("p");
    assert_eq!(kinds[..2], ["pump-disabled", "pump-enabled"]);
    assert_eq!(world.log("p")[0]["comment"], "the target moves");
}

#[test]
fn runs_that_do_nothing_leave_no_trace() {
    for mut world in World::both() {
        let mut pipe = pipe(json!({}));
        pipe["sink"] = json!({"type": "dataset"});
        world.pipe(pipe);
        world.succeed("p");
        assert_eq!(world.log("p"), Vec::<Json>::new());
        world.records("p", records(&[("a", 1)]));
        world.succeed("p");
        let entries = world.log("p").len();
        for _ in 0..3 {
            world.succeed("p");
        }
        // Entities that change nothing are nothing to tell either.
        world.rescan("p");
        assert_eq!(world.log("p").len(), entries);
    }
}

#[test]
fn runs_that_do_nothing_are_told_when_that_is_asked_for() {
    let world = world(json!({"log_events_noop_runs": true}));
    for _ in 0..3 {
        world.succeed("p");
    }
    assert_eq!(world.log_kinds("p").len(), 6);
    let log = world.log("p");
    assert_eq!(log[5]["pump_started_location"], log[4]["_updated"]);
    assert_eq!(
        (&log[5]["processed_last_run"], &log[5]["pipe_offset"]),
        (&json!(0), &json!(4))
    );
}

#[test]
fn what_the_source_gave_counts_as_something_where_that_is_asked_for() {
    for (changes_only, entries) in [(true, 2), (false, 4)] {
        let mut world = World::new();
        let pump = json!({"log_events_noop_runs_changes_only": changes_only});
        world.pipe(json!({"_id": "p", "pump": pump}));
        world.records("p", records(&[("a", 1)]));
        world.succeed("p");
        world.succeed("p");
        assert_eq!(
            world.log("p").len(),
            entries,
            "changes only: {changes_only}"
        );
        world.records("p", Vec::new());
        world.succeed("p");
        let quiet = world.log("p").len();
        world.succeed("p");
        assert_eq!(world.log("p").len(), quiet, "neither read nor changed");
    }
}

#[test]
fn every_end_points_at_its_own_beginning() {
    let world = world(json!({"max_read_retries": 1}));
    world.succeed("p");
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")))
    });
    world.records("p", records(&[("c", 9)]));
    world.succeed("p");
    world.records("p", records(&[("d", 10)]));
    world.succeed("p");
    let log = world.log("p");
    let ends: Vec<&Json> = log
        .iter()
        .filter(|entry| entry["event_type"] == "pump-completed")
        .collect();
    assert_eq!(ends.len(), 3);
    for end in ends {
        let at = usize::try_from(end["pump_started_location"].as_u64().unwrap()).unwrap();
        assert_eq!(
            (&log[at]["event_type"], &log[at]["start_time"]),
            (&json!("pump-started"), &end["start_time"])
        );
        assert_eq!(log[at]["_updated"], json!(at));
    }
}
