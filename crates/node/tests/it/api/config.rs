//! The configuration: live, atomic, kept.

use std::io::{Cursor, Read as _, Write as _};

use reqwest::Method;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

use super::{Answered, TestNode, embedded, ids, reader};

fn nonsense(id: &str) -> Value {
    json!({"_id": id, "type": "pipe", "source": {"type": "nonsense"}})
}

fn send_as(node: &TestNode, path: &str, kind: &str, body: Vec<u8>) -> Answered {
    node.send(
        node.request(Method::PUT, path)
            .header("Content-Type", kind)
            .body(body),
    )
}

fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        archive
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn an_invalid_configuration_is_refused_whole() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let answer = node.put("/api/config", json!([embedded("b", &["1"]), nonsense("c")]));
    answer.is_problem(400, "nothing was changed");
    let items = answer.value()["validation_errors"].clone();
    assert_eq!(items.as_array().unwrap().len(), 1, "{items}");
    assert_eq!(items[0]["posted-config"], nonsense("c"));
    assert_eq!(items[0]["is-valid-config"], false);
    let error = &items[0]["config-errors"][0];
    assert_eq!(
        (&error["level"], &error["elements"]),
        (&json!("error"), &json!("$['source']['type']"))
    );
    assert!(error["msg"].as_str().unwrap().contains("nonsense"));
    assert_eq!(ids(&node.json("/api/config")), ["a"]);
    assert_eq!(ids(&node.json("/api/pipes")), ["a"]);
    assert_eq!(
        ids(&node.json("/api/datasets/system:config/entities")),
        ["a"]
    );
}

#[test]
fn what_has_no_id_is_refused_too() {
    let node = TestNode::new();
    let answer = node.put("/api/config", json!([{"type": "pipe"}, 5]));
    answer.is_problem(400, "_id");
    let items = answer.value()["validation_errors"].clone();
    assert_eq!(items.as_array().unwrap().len(), 2);
    assert!(items[0]["posted-config"].is_object(), "{items}");
    node.put("/api/config", json!("text"))
        .is_problem(400, "found text");
    send_as(&node, "/api/config", "application/json", b"[{".into()).is_problem(400, "JSON");
}

#[test]
fn force_marks_what_is_broken_and_runs_the_rest() {
    let node = TestNode::new();
    let answer = node.put(
        "/api/config?force=True",
        json!([embedded("a", &["1"]), nonsense("c")]),
    );
    assert_eq!(
        answer.ok()["validation_errors"][0]["posted-config"]["_id"],
        "c"
    );
    assert_eq!(node.runtime("c")["is-valid-config"], false);
    node.pump("c", &[("operation", "start")])
        .is_problem(409, "nonsense");
    assert_eq!(node.run("a"), (1, 1));
}

#[test]
fn unchanged_pipes_keep_their_offsets_and_what_is_known_of_them() {
    let mut node = TestNode::of(json!([embedded("a", &["1", "2"]), reader("b", "a")]));
    node.run("a");
    node.run("b");
    let before = node.runtime("b");
    let changed = embedded("a", &["1", "2", "3"]);
    node.put(
        "/api/config",
        json!([changed, reader("b", "a"), embedded("new", &[])]),
    )
    .ok();
    let after = node.runtime("b");
    for name in ["last-seen", "last-run", "last-run-summary", "state"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    node.restart();
    assert_eq!(node.runtime("b")["last-seen"], 1);
    node.run("a");
    assert_eq!(node.run("b"), (1, 1), "only what is new");
}

#[test]
fn the_configuration_survives_a_restart_as_it_was_written() {
    let text = r#"[{"_id":"a","type":"pipe","z":1.0,"a":12345678901234567890123,"comment":"æ~t",
        "source":{"type":"embedded","entities":[{"_id":"1","n":1.50}]},"$x":null,"_y":[]},
        {"_id":"node","type":"metadata","task_manager":{"disable_user_pipes":true}},
        {"_id":"s","type":"system:url","url_pattern":"http://x/%s"}]"#;
    let mut node = TestNode::new();
    let answer = send_as(&node, "/api/config", "application/json", text.into());
    assert_eq!(answer.status, 200, "{}", answer.text);
    let written: Value = serde_json::from_str(text).unwrap();
    let compact = written.to_string();
    assert_eq!(node.get("/api/config").text, compact);
    node.restart();
    assert_eq!(node.get("/api/config").text, compact);
    assert_eq!(
        node.json("/api/pipes/a")["config"]["original"].to_string(),
        written[0].to_string()
    );
}

#[test]
fn an_empty_configuration_takes_everything_away() {
    let node = TestNode::of(json!([embedded("a", &["1"]), embedded("b", &["1"])]));
    node.put("/api/config?force=true", json!([])).ok();
    assert_eq!(node.json("/api/pipes"), json!([]));
    assert_eq!(node.json("/api/config"), json!([]));
}

#[test]
fn a_zip_goes_out_and_comes_in() {
    let components = json!([
        {"_id": "node", "type": "metadata", "namespaces": {"default": {}}},
        embedded("a:b", &["1"]),
        {"_id": "s", "type": "system:url", "url_pattern": "http://x/%s"}
    ]);
    let node = TestNode::of(components.clone());
    let request = node
        .request(Method::GET, "/api/config")
        .header("ACCEPT", "application/zip");
    let answer = node.send(request);
    assert_eq!(answer.header("content-type"), "application/zip");
    let mut archive = zip::ZipArchive::new(Cursor::new(&answer.bytes)).unwrap();
    let mut names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "node-metadata.conf.json",
            "pipes/a:b.conf.json",
            "systems/s.conf.json"
        ]
    );
    let mut text = String::new();
    archive
        .by_name("pipes/a:b.conf.json")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), components[1]);
    let other = TestNode::new();
    send_as(
        &other,
        "/api/config?force=false",
        "application/zip",
        answer.bytes,
    )
    .ok();
    assert_eq!(ids(&other.json("/api/config")), ["node", "a:b", "s"]);
    // A client that takes anything gets JSON.
    let request = node
        .request(Method::GET, "/api/config")
        .header("Accept", "application/json,*/*");
    assert_eq!(node.send(request).ok(), components);
}

#[test]
fn multipart_forms_bring_a_zip_or_json() {
    let zip = zipped(&[(
        "pipes/x.conf.json",
        "\u{feff}{\"_id\":\"A\",\"type\":\"pipe\",\"source\":{\"type\":\"embedded\",\"entities\":[]}}",
    )]);
    let json = json!([embedded("J", &["1"])]).to_string().into_bytes();
    let node = TestNode::new();
    for (kind, file, id) in [
        ("application/zip", zip, "A"),
        ("application/json", json, "J"),
    ] {
        let head = format!(
            "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"config\"\r\n\
             Content-Type: {kind}\r\n\r\n"
        );
        let body = [head.as_bytes(), &file, b"\r\n--X--\r\n"].concat();
        let answer = send_as(
            &node,
            "/api/config?force=false",
            "multipart/form-data; boundary=X",
            body,
        );
        assert_eq!(answer.ok(), json!({"validation_errors": []}));
        assert!(!answer.header("content-type").is_empty());
        assert_eq!(ids(&node.json("/api/config")), [id]);
    }
}

#[test]
fn single_pipes_and_systems_come_and_go() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let added = node.post(
        "/api/pipes",
        json!([embedded("b", &["1"]), embedded("c", &["1"])]),
    );
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(ids(&added.value()), ["b", "c"]);
    node.post(
        "/api/pipes",
        json!([embedded("d", &[]), embedded("a", &[])]),
    )
    .is_problem(409, "\"a\"");
    node.post("/api/pipes", json!([nonsense("d")]))
        .is_problem(400, "nonsense");
    node.get("/api/pipes/d").is_problem(404, "\"d\"");
    let system = json!({"_id": "s", "type": "system:url", "url_pattern": "http://x/%s"});
    node.post("/api/pipes", json!([system]))
        .is_problem(400, "expected a pipe");
    assert_eq!(node.post("/api/systems", json!([system])).status, 201);
    assert_eq!(node.json("/api/systems/s/config"), system);
    node.delete("/api/systems/s/config").ok();
    node.get("/api/systems/s").is_problem(404, "\"s\"");
    let wider = embedded("b", &["1", "2"]);
    node.put("/api/pipes/b/config", wider.clone()).ok();
    assert_eq!(node.json("/api/pipes/b/config"), wider);
    node.put("/api/pipes/b/config", embedded("x", &[]))
        .is_problem(400, "as in the path");
    node.put("/api/pipes/b/config", nonsense("b"))
        .is_problem(400, "nonsense");
    assert_eq!(node.run("b"), (2, 2));
    node.delete("/api/pipes/b").ok();
    node.delete("/api/pipes/b").is_problem(404, "\"b\"");
    assert_eq!(ids(&node.json("/api/config")), ["a", "c"]);
}

#[test]
fn variables_are_replaced_or_added_and_keep_their_types() {
    let mut node = TestNode::new();
    node.put("/api/env", json!({"a": 5, "b": true, "c": "x"}))
        .ok();
    node.post("/api/env", json!({"c": 1.0, "d": {"e": []}}))
        .ok();
    let all = r#"{"a":5,"b":true,"c":1.0,"d":{"e":[]}}"#;
    assert_eq!(node.get("/api/env").text, all);
    node.restart();
    assert_eq!(node.get("/api/env").text, all);
    node.delete("/api/env/a").ok();
    node.delete("/api/env/a").is_problem(404, "\"a\"");
    assert_eq!(node.put("/api/env", json!({})).ok(), json!({}));
    assert_eq!(node.json("/api/env"), json!({}));
    node.put("/api/env", json!("x"))
        .is_problem(400, "found text");
}

#[test]
fn a_changed_variable_changes_the_pipes_that_use_it() {
    let node = TestNode::new();
    node.put("/api/env", json!({"size": 5})).ok();
    let mut pipe = embedded("a", &["1"]);
    pipe["batch_size"] = json!("$ENV(size)");
    node.put("/api/config", json!([pipe, embedded("b", &["1"])]))
        .ok();
    node.run("b");
    node.put("/api/env", json!({"size": 6})).ok();
    let shown = node.json("/api/pipes/a");
    assert_eq!(shown["config"]["effective"]["batch_size"], 6);
    assert_eq!(shown["config"]["original"]["batch_size"], "$ENV(size)");
    assert_eq!(
        node.runtime("b")["success"],
        true,
        "others keep what is known of them"
    );
    // Variables come before the configuration that goes with them: a missing one is marked only.
    node.put("/api/env", json!({})).ok();
    assert_eq!(node.runtime("a")["is-valid-config"], false);
}

#[test]
fn metadata_is_shown_whole_and_replaced() {
    let node = TestNode::new();
    let metadata = node.json("/api/metadata");
    assert_eq!(metadata["config"]["original"], Value::Null);
    assert!(metadata["config"]["effective"].is_object());
    let mut effective = metadata["config"]["effective"].clone();
    effective["global_defaults"]["infer_pipe_entity_types"] = json!(true);
    node.put("/api/metadata", effective).ok();
    let shown = node.json("/api/metadata");
    assert_eq!(
        shown["config"]["effective"]["global_defaults"]["infer_pipe_entity_types"],
        true
    );
    assert_eq!(ids(&node.json("/api/config")), ["node"]);
    node.delete("/api/metadata").ok();
    assert_eq!(node.json("/api/config"), json!([]));
}

#[test]
fn projects_are_loaded_over_what_is_kept() {
    let mut node = TestNode::with(|options, folder| {
        let project = folder.join("project");
        std::fs::create_dir_all(project.join("pipes")).unwrap();
        std::fs::write(
            project.join("pipes/own.conf.json"),
            embedded("own", &["1"]).to_string(),
        )
        .unwrap();
        std::fs::write(project.join("test-env.json"), r#"{"from": "project"}"#).unwrap();
        options.projects = vec![project];
    });
    assert_eq!(ids(&node.json("/api/config")), ["own"]);
    assert_eq!(node.json("/api/env"), json!({"from": "project"}));
    node.post("/api/pipes", json!([embedded("added", &["1"])]))
        .value();
    node.put("/api/pipes/own/config", embedded("own", &["1", "2"]))
        .ok();
    node.restart();
    assert_eq!(ids(&node.json("/api/config")), ["added", "own"]);
    assert_eq!(node.run("own"), (1, 1), "the folder's own word holds again");
}

/// A run that is under way when its pipe changes ends before the pipe runs anew.
#[test]
fn a_changed_pipe_never_runs_twice_at_a_time() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let hub = &node.running().node().assembly.hub;
    let old = hub.pipe("a").unwrap();
    let cancel = hub.begin(&old).unwrap();
    node.put("/api/pipes/a/config", embedded("a", &["1", "2"]))
        .ok();
    assert!(cancel.is_cancelled(), "the old run is asked to stop");
    assert_eq!(node.runtime("a")["is-running"], true);
    node.pump("a", &[("operation", "start")])
        .is_problem(409, "running");
    hub.finish(
        &old,
        old.pipe.as_ref().unwrap(),
        &Default::default(),
        &cancel,
    );
    assert_eq!(node.runtime("a")["is-running"], false);
    assert_eq!(node.run("a"), (2, 2));
}

/// The change is refused as a whole: what runs, what is kept and what a restart brings stay.
#[test]
fn a_change_that_cannot_be_applied_is_not_kept() {
    let mut node = TestNode::of(json!([embedded("a", &["1"])]));
    assert_eq!(node.run("a"), (1, 1));
    let datasets = node.options().data.join("datasets");
    let away = node.options().data.join("away");
    // The dataset of the receiver cannot be made while a file stands in the way.
    std::fs::rename(&datasets, &away).unwrap();
    std::fs::write(&datasets, "").unwrap();
    let receiver = json!({"_id": "r", "type": "pipe", "source": {"type": "http_endpoint"}});
    let answer = node.put("/api/config", json!([embedded("a", &["1", "2"]), receiver]));
    assert_eq!(answer.status, 500, "{}", answer.text);
    std::fs::remove_file(&datasets).unwrap();
    std::fs::rename(&away, &datasets).unwrap();
    for _ in 0..2 {
        assert_eq!(ids(&node.json("/api/config")), ["a"]);
        node.get("/api/pipes/r").is_problem(404, "\"r\"");
        assert_eq!(node.run("a"), (1, 0));
        node.restart();
    }
}

/// What is broken beside them concerns neither their runs nor their places.
#[test]
fn unchanged_pipes_run_on_whatever_breaks_beside_them() {
    let node = TestNode::of(json!([
        embedded("a", &["1", "2"]),
        reader("b", "a"),
        embedded("c", &["1"])
    ]));
    node.run("a");
    node.run("b");
    node.run("c");
    let hub = &node.running().node().assembly.hub;
    let (b, c) = (hub.pipe("b").unwrap(), hub.pipe("c").unwrap());
    let (run_b, run_c) = (hub.begin(&b).unwrap(), hub.begin(&c).unwrap());
    let broken = || json!([embedded("a", &["1", "2"]), reader("b", "a"), nonsense("c")]);
    node.put("/api/config", broken())
        .is_problem(400, "nothing was changed");
    assert!(
        !run_b.is_cancelled() && !run_c.is_cancelled(),
        "refused whole"
    );
    assert_eq!(node.runtime("c")["is-valid-config"], true);
    node.put("/api/config?force=true", broken()).ok();
    assert!(!run_b.is_cancelled(), "unchanged");
    assert!(run_c.is_cancelled(), "broken now");
    assert_eq!(node.runtime("b")["is-running"], true);
    let summary = hub.finish(&b, b.usable().unwrap(), &Default::default(), &run_b);
    assert!(
        summary.success() && summary.read == 0,
        "{:?}",
        summary.failure
    );
    hub.finish(&c, c.usable().unwrap(), &Default::default(), &run_c);
    assert_eq!(node.runtime("b")["last-seen"], 1);
    assert_eq!(node.runtime("c")["is-valid-config"], false);
    node.pump("c", &[("operation", "start")])
        .is_problem(409, "nonsense");
    // What was broken goes on where it was when it is mended.
    node.put("/api/pipes/c/config", embedded("c", &["1"])).ok();
    assert_eq!(node.run("c"), (1, 0));
}

#[test]
fn a_changed_variable_ends_the_runs_that_use_it_and_no_others() {
    let node = TestNode::new();
    node.put("/api/env", json!({"size": 5, "other": 1})).ok();
    let mut uses = embedded("uses", &["1"]);
    uses["batch_size"] = json!("$ENV(size)");
    node.put("/api/config", json!([uses, embedded("plain", &["1"])]))
        .ok();
    let hub = &node.running().node().assembly.hub;
    let begin = |id: &str| {
        let live = hub.pipe(id).unwrap();
        let cancel = hub.begin(&live).unwrap();
        (live, cancel)
    };
    let ((uses, run), (plain, run_on)) = (begin("uses"), begin("plain"));
    node.post("/api/env", json!({"other": 2})).ok();
    assert!(!run.is_cancelled(), "nobody uses that one");
    node.post("/api/env", json!({"size": 6})).ok();
    assert!(run.is_cancelled() && !run_on.is_cancelled());
    for (live, cancel) in [(uses, run), (plain, run_on)] {
        hub.finish(&live, live.usable().unwrap(), &Default::default(), &cancel);
    }
    assert_eq!(hub.pipe("uses").unwrap().usable().unwrap().batch_size, 6);
    assert_eq!(node.run("uses"), (1, 1));
}
