//! Pipes and their pumps.

use serde_json::{Value, json};

use super::{TestNode, embedded, ids, reader, until};

#[test]
fn a_pipe_shows_its_configuration_and_how_it_is_doing() {
    let written = embedded("a", &["1", "2"]);
    let node = TestNode::of(json!([written, reader("b", "a")]));
    let all = node.json("/api/pipes");
    assert_eq!(ids(&all), ["a", "b"]);
    let pipe = node.json("/api/pipes/a");
    assert_eq!(pipe["config"]["original"], written);
    let sink = &pipe["config"]["effective"]["sink"];
    assert_eq!(
        (&sink["type"], &sink["dataset"]),
        (&json!("dataset"), &json!("a"))
    );
    let runtime = &pipe["runtime"];
    for (name, expected) in [
        ("state", json!("stopped")),
        ("is-running", json!(false)),
        ("is-disabled", json!(false)),
        ("is-valid-config", json!(true)),
        ("config-errors", json!([])),
        ("last-run", Value::Null),
        ("last-run-summary", Value::Null),
        ("success", Value::Null),
        ("last-seen", Value::Null),
        ("execution-dataset", json!("system:pump_execution:a")),
        ("origin", json!("user")),
    ] {
        assert_eq!(runtime[name], expected, "{name}");
    }
}

#[test]
fn looking_makes_no_datasets() {
    let node = TestNode::of(json!([embedded("a", &["1"]), reader("b", "a")]));
    node.json("/api/pipes");
    node.json("/api/pipes/b/pump");
    node.get("/api/metrics");
    assert_eq!(ids(&node.json("/api/datasets")), ["system:config"]);
}

#[test]
fn fields_choose_the_parts() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let parts = |fields: &str| -> Vec<String> {
        let pipe = node.json(&format!("/api/pipes?fields={fields}"))[0].clone();
        pipe.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(parts("runtime"), ["_id", "runtime"]);
    assert_eq!(parts("runtime,config"), ["_id", "config", "runtime"]);
    assert_eq!(parts("-config,-storage"), ["_id", "runtime"]);
    assert_eq!(parts(""), ["_id", "config", "runtime", "storage"]);
}

#[test]
fn ids_come_encoded_and_raw() {
    let id = "Sør:øst 1";
    let node = TestNode::of(json!([embedded(id, &["1"]), embedded("x:y", &["1"])]));
    let encoded = node.json("/api/pipes/S%C3%B8r%3A%C3%B8st%201");
    assert_eq!(encoded["_id"], id);
    for path in [
        "/api/pipes/x:y/entities",
        "/api/pipes/x%3Ay/entities",
        "/api/pipes/x:y",
    ] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    node.get("/api/pipes/X:Y").is_problem(404, "X:Y");
}

#[test]
fn start_runs_the_pipe_and_tells_what_it_did() {
    let node = TestNode::of(json!([embedded("a", &["1", "2", "3"])]));
    let pump = node.pump("a", &[("operation", "start")]).ok();
    assert_eq!(pump["_id"], "pump:a");
    let runtime = until("the run's end", || {
        let runtime = node.json("/api/pipes/a/pump")["runtime"].clone();
        (runtime["is-running"] == false && !runtime["last-run"].is_null()).then_some(runtime)
    });
    let summary = &runtime["last-run-summary"];
    for (name, expected) in [
        ("sync_type", json!("full")),
        ("entities_read", json!(3)),
        ("changed", json!(3)),
        ("deleted", json!(0)),
        ("failed", json!(0)),
        ("success", json!(true)),
        ("message", Value::Null),
    ] {
        assert_eq!(summary[name], expected, "{name}");
    }
    assert!(summary["total_time"].is_number());
    assert_eq!(
        (&runtime["state"], &runtime["success"]),
        (&json!("finished"), &json!(true))
    );
}

#[test]
fn lag_and_offset_follow_the_source() {
    let node = TestNode::of(json!([embedded("a", &["1", "2", "3"]), reader("b", "a")]));
    node.run("a");
    assert_eq!(node.runtime("b")["queues"]["source"], 3);
    assert_eq!(node.run("b"), (3, 3));
    let runtime = node.runtime("b");
    assert_eq!(
        (&runtime["queues"]["source"], &runtime["last-seen"]),
        (&json!(0), &json!(2))
    );
    let pump = node
        .pump(
            "b",
            &[("operation", "update-last-seen"), ("last-seen", "0")],
        )
        .ok();
    assert_eq!(pump["runtime"]["last-seen"], 0);
    assert_eq!(node.run("b"), (2, 0), "read again, and nothing written");
    node.pump("b", &[("operation", "update-last-seen"), ("last-seen", "")])
        .ok();
    assert_eq!(node.runtime("b")["last-seen"], Value::Null);
    assert_eq!(node.run("b"), (3, 0));
    node.pump(
        "b",
        &[("operation", "update-last-seen"), ("last-seen", "x")],
    )
    .is_problem(400, "whole number");
    node.pump("b", &[("operation", "update-last-seen")])
        .is_problem(400, "`last-seen`");
    node.pump(
        "b",
        &[("operation", "update-last-seen"), ("last-seen", "0")],
    )
    .ok();
    let pump = node
        .pump("b", &[("operation", "set-last-seen-to-end")])
        .ok();
    assert_eq!(pump["runtime"]["last-seen"], 2);
}

#[test]
fn retries_are_discarded_on_request() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let pump = node.pump("a", &[("operation", "discard-retries")]).ok();
    let known = pump["runtime"]["supported-operations"].as_array().unwrap();
    assert!(known.contains(&json!("discard-retries")));
    let log = node.json("/api/pipes/a/log");
    let told = log.as_array().unwrap().last().unwrap();
    assert_eq!(told["event_type"], "pump-discard-retries");
}

#[test]
fn a_rescan_in_the_background_is_asked_for_shown_and_reset() {
    let mut beside = reader("b", "a");
    beside["enable_background_rescan"] = json!(true);
    let node = TestNode::of(json!([embedded("a", &["1", "2"]), beside]));
    node.run("a");
    node.run("b");
    assert_eq!(node.runtime("a")["rescan"], Value::Null);
    let shown = node.runtime("b")["rescan"].clone();
    assert_eq!(
        (
            &shown["is-running"],
            &shown["is-unfinished"],
            &shown["last-run-summary"]
        ),
        (&json!(false), &json!(false), &Value::Null)
    );
    node.pump("b", &[("operation", "reset-rescan")]).ok();
    node.pump("b", &[("operation", "start-rescan")]).ok();
    let ended = |node: &TestNode| {
        let shown = &node.runtime("b")["rescan"];
        shown["is-running"] == false && shown["last-run-summary"] != Value::Null
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !ended(&node) {
        assert!(std::time::Instant::now() < until, "the rescan ends");
        std::thread::yield_now();
    }
    let summary = node.runtime("b")["rescan"]["last-run-summary"].clone();
    assert_eq!(
        (&summary["sync_type"], &summary["entities_read"]),
        (&json!("full"), &json!(2))
    );
    let text = node.get("/api/metrics").text;
    assert!(
        text.contains("tahini_pipe_rescanning{pipe=\"b\"} 0"),
        "{text}"
    );
}

#[test]
fn what_a_pump_cannot_do_is_refused() {
    let receiver = json!({"_id": "r", "type": "pipe", "source": {"type": "http_endpoint"}});
    let node = TestNode::of(json!([embedded("a", &["1"]), receiver]));
    for operation in [
        "reset-tracking",
        "set-tracking-to-start",
        "nonsense",
        "set-last-seen-to-end",
    ] {
        let answer = node.pump("a", &[("operation", operation)]);
        answer.is_problem(400, "doesn't support the operation");
        assert!(answer.text.contains(operation));
    }
    node.pump("r", &[("operation", "start")])
        .is_problem(400, "doesn't support the operation");
    node.pump("a", &[]).is_problem(400, "`operation`");
    node.pump("none", &[("operation", "start")])
        .is_problem(404, "none");
    let pump = node.json("/api/pipes/r/pump");
    assert_eq!(
        pump["runtime"]["supported-operations"],
        json!(["enable", "disable", "discard-inferred-schema"])
    );
    assert_eq!(pump["runtime"]["state"], Value::Null);
}

#[test]
fn a_protected_place_stays_where_it_is() {
    let mut protected = reader("b", "a");
    protected["disable_set_last_seen"] = json!(true);
    let node = TestNode::of(json!([embedded("a", &["1", "2"]), protected]));
    node.run("a");
    node.run("b");
    for fields in [
        &[("operation", "update-last-seen"), ("last-seen", "")][..],
        &[("operation", "update-last-seen"), ("last-seen", "0")],
        &[("operation", "set-last-seen-to-end")],
    ] {
        let answer = node.pump("b", fields);
        assert!((400..500).contains(&answer.status), "{}", answer.text);
    }
    let runtime = node.runtime("b");
    assert_eq!(
        (&runtime["last-seen"], &runtime["disable-set-last-seen"]),
        (&json!(1), &json!(true))
    );
}

#[test]
fn a_disabled_pipe_runs_only_by_hand() {
    let mut node = TestNode::of(json!([embedded("a", &["1"])]));
    let fields = [("operation", "disable"), ("comment", "because")];
    let pump = node.pump("a", &fields).ok();
    assert_eq!(pump["runtime"]["is-disabled"], true);
    node.restart();
    let runtime = node.runtime("a");
    assert_eq!(runtime["is-disabled"], true, "a restart does not enable it");
    assert_eq!(runtime["disabled-comment"], "because");
    let hub = &node.running().node().assembly.hub;
    let refused = hub
        .run(&hub.pipe("a").unwrap(), &Default::default())
        .unwrap_err();
    assert!(
        refused.to_string().contains("disabled: because"),
        "{refused}"
    );
    node.pump("a", &[("operation", "start")]).ok();
    until("the run", || {
        (node.runtime("a")["success"] == true).then_some(())
    });
    assert_eq!(
        node.pump("a", &[("operation", "enable")]).ok()["runtime"]["is-disabled"],
        false
    );
}

#[test]
fn forms_may_come_in_parts() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let body = "--X\r\nContent-Disposition: form-data; name=\"operation\"\r\n\r\ndisable\r\n\
                --X\r\nContent-Disposition: form-data; name=\"comment\"\r\n\r\na & b\r\n--X--\r\n";
    let request = node
        .request(reqwest::Method::POST, "/api/pipes/a/pump")
        .header("Content-Type", "multipart/form-data; boundary=X")
        .body(body);
    assert_eq!(
        node.send(request).ok()["runtime"]["disabled-comment"],
        "a & b"
    );
}

#[test]
fn entities_show_what_would_enter_the_sink_and_touch_nothing() {
    let mut pipe = embedded("a", &["1", "2", "3"]);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "_id"], ["add", "upper", ["upper", "_S.name"]], ["filter", ["neq", "_S._id", "2"]]
    ]}});
    pipe["sink"] = json!({"type": "null"});
    let node = TestNode::of(json!([pipe]));
    let sink = node.json("/api/pipes/a/entities");
    assert_eq!(ids(&sink), ["1", "3"]);
    assert!(
        sink[0]["upper"] == "1" && sink[0].get("name").is_none(),
        "{sink}"
    );
    for stage in ["source", "before-transforms", "before-transform"] {
        let source = node.json(&format!("/api/pipes/a/entities?stage={stage}"));
        assert_eq!(ids(&source), ["1", "2", "3"], "{stage}");
        assert_eq!(source[0]["name"], "1", "{stage}");
    }
    assert_eq!(ids(&node.json("/api/pipes/a/entities?limit=1")), ["1"]);
    assert_eq!(node.json("/api/pipes/a/entities?limit=0"), json!([]));
    node.get("/api/pipes/a/entities?stage=middle")
        .is_problem(400, "after-transforms");
    assert_eq!(node.runtime("a")["last-run"], Value::Null);
}

#[test]
fn a_pipe_with_errors_says_so() {
    let node = TestNode::new();
    let config = json!([{"_id": "p", "type": "pipe", "source": {"type": "nonsense"}}]);
    node.put("/api/config?force=true", config).ok();
    let runtime = node.runtime("p");
    assert_eq!(runtime["is-valid-config"], false);
    let error = &runtime["config-errors"][0];
    assert_eq!(error["level"], "error");
    assert_eq!(error["elements"], "$['source']['type']");
    node.get("/api/pipes/p/entities")
        .is_problem(409, "cannot run");
}

#[test]
fn a_pipe_with_warnings_is_not_taken_for_broken() {
    let source = json!({"type": "dataset", "dataset": "poeple"});
    let node = TestNode::of(json!([{"_id": "people", "type": "pipe", "source": source}]));
    let runtime = node.runtime("people");
    assert_eq!(runtime["is-valid-config"], true);
    assert_eq!(runtime["config-errors"], json!([]));
    let warning = &runtime["config-warnings"][0];
    assert_eq!(warning["level"], "warning");
    assert_eq!(warning["elements"], "$['source']['dataset']");
}

#[test]
fn the_log_is_there_before_anything_was_logged() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    assert_eq!(node.json("/api/pipes/a/log"), json!([]));
    node.get("/api/pipes/none/log").is_problem(404, "none");
    node.run("a");
    let log = node.json("/api/pipes/a/log?reverse=true&limit=1");
    assert_eq!(log[0]["event_type"], "pump-completed");
    assert_eq!(log[0]["processed_last_run"], 1);
}

#[test]
fn who_asks_why_too_many_are_the_same_is_told_by_which_value() {
    let merge = json!({"_id": "m", "type": "pipe", "source": {
        "type": "merge", "version": 2, "datasets": ["a a", "b b"],
        "equality": [["eq", ["substring", 0, 1, "a._id"], ["substring", 0, 1, "b._id"]]],
        "max_merged": 2,
    }});
    let node = TestNode::of(json!([
        embedded("a", &["1a", "2a"]),
        embedded("b", &["1b", "2b", "2c"]),
        merge
    ]));
    node.run("a");
    node.run("b");
    let told = |id: &str| node.get(&format!("/api/pipes/m/merge-explain?entity_id={id}"));
    assert_eq!(told("1a").ok()["_id"], "0|1a|1|1b");
    for id in ["2a", "2b"] {
        told(id).is_problem(409, "at most 2 entities");
        told(id).is_problem(409, "_id\"] = \"2\"");
    }
    told("3").is_problem(404, "\"3\"");
    node.get("/api/pipes/a/merge-explain?entity_id=1a")
        .is_problem(409, "merge source");
}
