//! Secrets: set, used, never seen again.

use reqwest::Method;
use serde_json::json;
use tahini_node::api::routes::ROUTES;

use super::{TestNode, embedded, files_below};

const VALUE: &str = "correct-horse-battery-staple";

#[test]
fn names_are_shown_and_values_are_not() {
    let node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": "http://x/%s"}, embedded("a", &["1"])
    ]));
    assert_eq!(
        node.put("/api/secrets", json!({"b": VALUE, "a": VALUE}))
            .ok(),
        json!(["a", "b"])
    );
    assert_eq!(
        node.post("/api/secrets", json!({"c": VALUE})).ok(),
        json!(["a", "b", "c"])
    );
    assert_eq!(
        node.put("/api/secrets", json!({"a": "other"})).ok(),
        json!(["a", "b", "c"])
    );
    let own = "/api/systems/s/secrets";
    node.put(
        &format!("{own}?encrypt=true"),
        json!({"x": VALUE, "y": VALUE}),
    )
    .ok();
    assert_eq!(
        node.put(own, json!({"z": VALUE})).ok(),
        json!(["z"]),
        "replaced altogether"
    );
    assert_eq!(node.post(own, json!({"w": VALUE})).ok(), json!(["w", "z"]));
    node.delete(&format!("{own}/w")).ok();
    assert_eq!(node.json(own), json!(["z"]));
    node.delete("/api/secrets/b").ok();
    node.delete("/api/secrets/b").is_problem(404, "\"b\"");
    assert_eq!(node.json("/api/secrets"), json!(["a", "c"]));
    node.get("/api/systems/none/secrets")
        .is_problem(404, "none");
    node.get("/api/systems/a/secrets").is_problem(404, "\"a\"");
    node.put("/api/secrets", json!(["x"]))
        .is_problem(400, "object");
    node.put("/api/secrets", json!({"a)b": "x"}))
        .is_problem(400, "$SECRET");
}

#[test]
fn a_secret_is_used_at_once_and_its_system_comes_first() {
    let peer = TestNode::of(json!([embedded("p", &["1"])]));
    let node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": peer.url("/api/%s/p/entities")},
        {"_id": "a", "type": "pipe", "source": {"type": "json", "system": "s", "url": "$SECRET(part)"}}
    ]));
    let hub = &node.running().node().assembly.hub;
    let failed = hub
        .run(&hub.pipe("a").unwrap(), &Default::default())
        .unwrap();
    let words = failed.failure.unwrap().to_string();
    assert!(
        words.contains("\"part\"") && words.contains("not set"),
        "{words}"
    );
    node.put("/api/secrets", json!({"part": "nowhere"})).ok();
    node.put("/api/systems/s/secrets", json!({"part": "pipes"}))
        .ok();
    assert_eq!(node.run("a"), (1, 1));
}

/// A system that is open keeps nothing of what was changed.
#[test]
fn a_changed_variable_or_secret_reaches_a_system_that_was_used_before() {
    let peer = TestNode::of(json!([embedded("p", &["1"])]));
    let node = TestNode::new();
    node.put("/api/env", json!({"peer": peer.url("")})).ok();
    node.put("/api/secrets", json!({"part": "pipes"})).ok();
    node.put(
        "/api/config",
        json!([
            {"_id": "s", "type": "system:url", "url_pattern": "$ENV(peer)/api/$SECRET(part)/%s"},
            {"_id": "a", "type": "pipe",
                "source": {"type": "json", "system": "s", "url": "p/entities"}}
        ]),
    )
    .ok();
    let hub = &node.running().node().assembly.hub;
    let fails = || {
        let live = hub.pipe("a").unwrap();
        let summary = hub.run(&live, &Default::default()).unwrap();
        summary.failure.is_some()
    };
    assert_eq!(node.run("a"), (1, 1));
    node.put("/api/secrets", json!({"part": "nowhere"})).ok();
    assert!(fails(), "the new secret is wrong");
    node.put("/api/secrets", json!({"part": "pipes"})).ok();
    assert_eq!(node.run("a"), (1, 0));
    node.put("/api/env", json!({"peer": "http://127.0.0.1:9"}))
        .ok();
    assert!(fails(), "nobody listens there");
    node.put("/api/env", json!({"peer": peer.url("")})).ok();
    assert_eq!(node.run("a"), (1, 0));
}

/// Asks for everything there is to see and looks for the value, in the data folder, too.
#[test]
fn no_answer_and_no_file_has_a_secret() {
    let mut node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:9/$SECRET(key)/%s",
         "password": "$SECRET(key)"},
        {"_id": "a", "type": "pipe", "source": {"type": "json", "system": "s", "url": "x",
         "headers": {"X-Key": "$SECRET(key)"}}, "pump": {"max_read_retries": 0}}
    ]));
    node.put("/api/secrets", json!({ "key": VALUE })).ok();
    node.put("/api/systems/s/secrets", json!({ "key": VALUE }))
        .ok();
    let hub = &node.running().node().assembly.hub;
    let failed = hub
        .run(&hub.pipe("a").unwrap(), &Default::default())
        .unwrap();
    assert!(!failed.success(), "nobody listens there");
    let log = node.get("/api/pipes/a/log").text;
    assert!(log.contains("http://127.0.0.1:9/***/x"), "{log}");
    let mut asked = 0;
    for route in ROUTES.iter().filter(|route| route.method.name() == "get") {
        let path = route
            .path
            .replace("{pipe_id}", "a")
            .replace("{system_id}", "s")
            .replace("{dataset_id}", "system:pump_execution:a")
            .replace("{filename}", "f")
            .replace("{*rest_of_path}", "x");
        let answer = node.send(node.request(Method::GET, &path));
        assert!(!answer.text.contains(VALUE), "{path}: {}", answer.text);
        assert!(!format!("{:?}", answer.headers).contains(VALUE), "{path}");
        asked += 1;
    }
    assert!(asked > 20, "{asked}");
    let request = node
        .request(Method::GET, "/api/config")
        .header("Accept", "application/zip");
    let zip = node.send(request).bytes;
    assert!(
        !zip.windows(VALUE.len())
            .any(|part| part == VALUE.as_bytes())
    );
    node.restart();
    let files = files_below(node.folder.path());
    assert!(
        files.iter().any(|file| file.ends_with("data/secrets.json")),
        "{files:?}"
    );
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes
            .windows(VALUE.len())
            .any(|part| part == VALUE.as_bytes());
        assert!(!found, "{} holds the secret", file.display());
    }
    assert_eq!(
        node.json("/api/secrets"),
        json!(["key"]),
        "it survived the restart"
    );
}

#[test]
fn the_key_must_not_lie_beside_what_it_protects() {
    let started = TestNode::try_with(|options, _| {
        options.master_key = options.data.join("master.key");
    });
    let error = started.err().unwrap().to_string();
    assert!(error.contains("must not be in the data folder"), "{error}");
}
