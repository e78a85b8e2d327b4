//! What stands in `system:pump_execution:<pipe>`.

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::Failure;
use tahini_hub::execution_log::{RunLog, Summary, User};
use tahini_hub::pump::Request;
use tahini_hub::sink::RunKind;

use crate::rescans;
use crate::script::records;
use crate::world::{BEGINNING, World};

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
        json!({"email": null, "user_id": "ada", "remote_addr": "127.0.0.1"})
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
    let seconds: f64 = done["total_time"].as_str().unwrap().parse().unwrap();
    assert!(seconds > 0.0);
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

/// The reference's documentation of the log, property by property.
fn documented() -> Json {
    serde_json::from_str(include_str!("../data/execution-log.json")).unwrap()
}

/// That every property of a kind is there, with the documented type, in at least one of the
/// entries: some have nothing to tell.
fn compare(name: &str, properties: &Json, entries: &[&Json]) {
    for (property, kind) in properties.as_object().unwrap() {
        let found: Vec<&Json> = entries
            .iter()
            .filter_map(|entry| entry.get(property))
            .collect();
        assert!(
            !found.is_empty(),
            "{name}: {property} is missing in {entries:?}"
        );
        for value in found {
            let fits = match kind.as_str().unwrap() {
                "String" => value.is_string(),
                "Integer" => value.is_i64(),
                "Decimal" | "Number" => value.is_number(),
                "Boolean" => value.is_boolean(),
                "Dict" | "Object" => value.is_object(),
                "Any" => true,
                other => panic!("no type {other}"),
            };
            assert!(fits, "{name}: expected {property} as {kind}, found {value}");
        }
    }
}

#[test]
fn every_documented_property_is_there_with_its_type() {
    let mut world = world(json!({
        "batch_retries": 0,
        "max_read_retries": 1,
        "max_write_errors_in_retry_dataset": 5,
        "max_retries_per_entity": 5,
    }));
    let mail = User {
        user_id: "ada@example.org".to_owned(),
        ..ada()
    };
    let request = Request {
        user: Some(mail.clone()),
        next_interval: Some(12.5),
        ..Request::default()
    };
    let run = |world: &World| world.try_run("p", &request).unwrap();
    assert!(run(&world).success());
    // A read error, a failed entity, and a version that resolves it.
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")))
    });
    world.target("p", |target| target.refuses_v = Some(5));
    world.records("p", vec![json!({"_id": "c", "_updated": 5, "v": 5})]);
    run(&world);
    let error = entry(&world, "write-error");
    assert_eq!(error["metrics"]["entities"]["entities_last_run"], 1);
    world.records("p", vec![json!({"_id": "c", "_updated": 6, "v": 6})]);
    assert!(run(&world).success());
    world.hub().set_offset("p", None, &mail).unwrap();
    // Without retries a failed entity ends the run.
    world.pipe(pipe(json!({"batch_retries": 0})));
    world.target("p", |target| target.refuses.extend(["c".to_owned()]));
    assert!(!run(&world).success());
    let log = world.log("p");
    let documented = documented();
    for kind in [
        "pump-started",
        "pump-completed",
        "pump-failed",
        "read-error",
        "write-error",
        "pump-offset-set",
    ] {
        let entries: Vec<&Json> = log.iter().filter(|one| one["event_type"] == kind).collect();
        compare(kind, &documented[kind], &entries);
    }
    let parts = |name: &str| -> Vec<&Json> { log.iter().filter_map(|one| one.get(name)).collect() };
    compare("user", &documented["user"], &parts("user"));
    let info = parts("node_build_info");
    compare("node_build_info", &documented["node_build_info"], &info);
    for part in ["entities", "memory"] {
        let found: Vec<&Json> = parts("metrics")
            .iter()
            .map(|metrics| &metrics[part])
            .collect();
        compare(part, &documented[format!("metrics.{part}")], &found);
    }
    let completed = log.iter().find(|one| one["event_type"] == "pump-completed");
    let memory = &completed.unwrap()["metrics"]["memory"];
    assert!(memory["batch-max-mem-size"].as_u64() > Some(0), "{memory}");
    assert!(memory["total-peak"].as_u64() >= memory["batch-max-mem-size"].as_u64());
}

#[test]
fn errors_are_told_with_what_the_run_did_until_then() {
    let world = world(json!({"max_read_retries": 1}));
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")))
    });
    world.succeed("p");
    let error = entry(&world, "read-error");
    assert_eq!(error["metrics"]["entities"]["read_errors_last_run"], 1);
    assert_eq!(error["metrics"]["entities"]["entities_last_run"], 0);
    world.hub().set_offset("p", None, &ada()).unwrap();
    let set = entry(&world, "pump-offset-set");
    assert_eq!(set["metrics"]["entities"]["entities_last_run"], 2);
}

#[test]
fn a_run_that_cannot_be_planned_is_told() {
    let store = std::sync::Arc::new(crate::faulty::Faulty::default());
    let mut world = World::on_store(store.clone());
    world.pipe(json!({"_id": "p"}));
    store.refuse(Some("p"));
    let words = world.fail("p");
    assert!(words.contains("p is out of reach"), "{words}");
    assert_eq!(world.log_kinds("p"), ["pump-started", "pump-failed"]);
    let failed = entry(&world, "pump-failed");
    assert_eq!(
        (&failed["sync_type"], &failed["traceback"]),
        (&json!("full"), &json!(words))
    );
}

#[test]
fn a_run_that_waits_after_something_was_told_has_an_end() {
    let world = world(json!({"max_read_retries": 1}));
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::waiting("not yet")));
    });
    world.fail("p");
    assert_eq!(
        world.log("p"),
        Vec::<Json>::new(),
        "a wait alone is nothing to tell"
    );
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((0, Failure::transient("broke off")));
        upstream
            .failures
            .push_back((0, Failure::waiting("not yet")));
    });
    world.fail("p");
    assert_eq!(
        world.log_kinds("p"),
        ["pump-started", "read-error", "pump-failed"]
    );
}

#[test]
fn a_run_is_told_while_it_goes_on() {
    let world = world(json!({}));
    let hub = world.hub();
    let log = hub.log("p").unwrap();
    let mut run = RunLog::begin(&log, RunKind::Full, None);
    run.note(&Summary::default()).unwrap();
    assert_eq!(world.log_kinds("p"), [""; 0]);
    let changed = Summary {
        changed: 1,
        ..Summary::default()
    };
    run.note(&changed).unwrap();
    assert_eq!(world.log_kinds("p"), ["pump-started"]);
    let mut long = RunLog::begin(&log, RunKind::Full, None);
    world.clock.set(BEGINNING + 20_000_000);
    long.note(&Summary::default()).unwrap();
    assert_eq!(world.log_kinds("p").len(), 2);
    long.note(&changed).unwrap();
    assert_eq!(world.log_kinds("p").len(), 2, "once");
}

#[test]
fn a_silence_that_lasts_too_long_is_broken() {
    let world = world(json!({"notification_granularity": 900}));
    world.succeed("p");
    let entries = world.log("p").len();
    for (seconds, more) in [(100, 0), (800, 0), (902, 2), (1_000, 2), (1_805, 4)] {
        world.clock.set(BEGINNING + seconds * 1_000_000);
        world.succeed("p");
        assert_eq!(world.log("p").len(), entries + more, "after {seconds} s");
    }
}

#[test]
fn what_a_source_warns_of_is_told_once_by_the_run_that_it_was_given_in() {
    let mut world = World::new();
    world.pipe(rescans::pipe(true));
    world.records("p", rescans::six());
    world.upstream("p", |upstream| upstream.warns_of = Some("c".to_owned()));
    assert_eq!(world.succeed("p").warnings, ["c was given"]);
    assert_eq!(world.succeed("p").warnings, [""; 0]);
    // Beside runs a rescan reads twice: everything, and what came since.
    let summary = world.rescan("p");
    assert_eq!(world.live_pipe("p").state().rescans, 1);
    assert_eq!(summary.warnings, ["c was given"]);
}
