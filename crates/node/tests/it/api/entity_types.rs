//! Inferred entity types, and columns for tables.

use serde_json::{Value, json};

use super::{TestNode, embedded, reader};

/// A node with an embedded pipe `in` and a pipe `out` behind it, both run.
fn ran() -> TestNode {
    let node = TestNode::of(json!([embedded("in", &["a", "b"]), reader("out", "in")]));
    node.run("in");
    node.run("out");
    node
}

#[test]
fn both_sides_of_a_pipe_have_a_schema() {
    let node = ran();
    for side in ["source", "sink"] {
        let path = format!("/api/pipes/out/entity-types/{side}");
        let schema = node.json(&path);
        assert_eq!(schema["$id"], path);
        assert_eq!(schema["$schema"], "http://json-schema.org/schema#");
        assert_eq!(schema["properties"]["name"]["type"], "string");
        assert_eq!(schema["properties"]["_updated"]["type"], "integer");
        assert_eq!(node.json("/api/pipes/out/entity-types")[side], schema);
    }
    // What a dataset gives its own entities is no property of a source outside.
    let source = node.json("/api/pipes/in/entity-types/source");
    assert!(source["properties"].get("_updated").is_none(), "{source}");
}

#[test]
fn what_nobody_knows_is_missing_and_nothing_is_empty() {
    let node = TestNode::of(json!([
        embedded("in", &["a"]),
        embedded("nothing", &[]),
        {"_id": "off", "type": "pipe", "infer_pipe_entity_types": false,
         "source": {"type": "embedded", "entities": [{"_id": "a"}]}}
    ]));
    let path = |pipe: &str| format!("/api/pipes/{pipe}/entity-types/sink");
    node.get(&path("none")).is_problem(404, "none");
    node.get(&path("in")).is_problem(404, "not run yet");
    node.run("off");
    node.get(&path("off"))
        .is_problem(404, "infer_pipe_entity_types");
    node.run("nothing");
    assert_eq!(node.json(&path("nothing")), json!({}));
}

#[test]
fn a_change_is_told_everywhere() {
    let node = ran();
    let mut pipe = embedded("in", &["a"]);
    pipe["source"]["entities"] = json!([{"_id": "a", "name": 1}]);
    node.put("/api/pipes/in/config", pipe).ok();
    node.run("in");
    let changes = node.json("/api/pipes/in/entity-types")["changes"].clone();
    let first = &changes[0];
    assert!(first["time"].as_str().unwrap().ends_with('Z'), "{first}");
    assert_eq!(
        (
            &first["path"],
            &first["change"],
            &first["was"],
            &first["is"]
        ),
        (
            &json!("name"),
            &json!("type-changed"),
            &json!("string"),
            &json!("integer")
        )
    );
    assert_eq!(first["side"], "source");
    let summary = &node.runtime("in")["last-run-summary"];
    assert_eq!(summary["entity_type_changes"], 2);
    let words = "source: name changed from string to integer";
    assert_eq!(summary["entity_type_changes_first"][0], words);
    let metrics = node.get("/api/metrics").text;
    assert!(
        metrics.contains("tahini_pipe_entity_type_changes_total{pipe=\"in\"} 2"),
        "{metrics}"
    );
}

#[test]
fn types_can_be_discarded() {
    let node = ran();
    let operation = [("operation", "discard-inferred-schema")];
    node.pump("out", &operation).ok();
    let types = node.json("/api/pipes/out/entity-types");
    assert_eq!(
        (&types["source"], &types["sink"]),
        (&Value::Null, &Value::Null)
    );
    let log = node.json("/api/pipes/out/log");
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(last["event_type"], "pump-discard-inferred-schema");
    assert_eq!(last["user"]["user_id"], "anonymous");
}

#[test]
fn what_is_posted_is_looked_at_too() {
    let mut node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "transform": {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "x", 1]]}},
        "sink": {"type": "dataset", "dataset": "d"}
    }]));
    let post = |node: &TestNode, body: Value| node.post("/api/receivers/r/entities", body).ok();
    let schema =
        |node: &TestNode, side: &str| node.json(&format!("/api/pipes/r/entity-types/{side}"));
    post(&node, json!([{"_id": "1", "n": 1}]));
    assert_eq!(
        schema(&node, "source")["properties"]["n"]["type"],
        "integer"
    );
    assert_eq!(schema(&node, "sink")["properties"]["x"]["type"], "integer");
    post(&node, json!([{"_id": "1", "n": "x"}]));
    assert_eq!(schema(&node, "source")["metadata"]["count"], 2);
    let changes = |node: &TestNode| {
        node.json("/api/pipes/r/entity-types")["changes"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(changes(&node), 2);
    // Nothing new: it is counted, and written once there is more of it.
    for n in 0..10 {
        post(&node, json!([{"_id": n.to_string(), "n": n}]));
    }
    let count = schema(&node, "source")["metadata"]["count"]
        .as_u64()
        .unwrap();
    assert!((6..=12).contains(&count), "{count}");
    node.restart();
    post(&node, json!([{"_id": "1", "n": 5}]));
    assert_eq!(schema(&node, "source")["metadata"]["count"], count + 1);
    assert_eq!(changes(&node), 2);
    node.pump("r", &[("operation", "discard-inferred-schema")])
        .ok();
    post(&node, json!([{"_id": "1", "m": 1}]));
    let properties = schema(&node, "source")["properties"].clone();
    assert!(properties.get("n").is_none(), "{properties}");
}

#[test]
fn tables_are_defined_by_a_sample() {
    let entities = json!([
        {"_id": "1", "key": "1", "n": 7, "d": "~f1.25", "at": "~t2020-01-01T00:00:00Z", "s": "abc",
         "mixed": 1, "b": true, "_own": 1},
        {"_id": "2", "key": "2", "n": -300, "d": "~f100.5", "s": "abcdef", "mixed": "text"},
        {"_id": "3", "key": "3", "n": null, "deep": {"a": 1}}
    ]);
    let node = TestNode::of(json!([
        {"_id": "in", "type": "pipe", "source": {"type": "embedded", "entities": entities}}
    ]));
    node.run("in");
    for path in ["/api/pipes/in", "/api/datasets/in"] {
        let path = format!("{path}/generate-schema-definition");
        let columns = node.json(&path);
        let column = |name: &str| {
            let all = columns.as_array().unwrap();
            all.iter()
                .find(|column| column["name"] == name)
                .unwrap()
                .clone()
        };
        assert_eq!(
            column("n"),
            json!({"source_property": "n", "name": "n", "type": "integer", "min_value": -300,
                "max_value": 7, "allow_null": true, "primary_key": false, "index": false})
        );
        assert_eq!(
            column("key"),
            json!({"source_property": "key", "name": "key", "type": "string", "min_size": 1,
                "max_size": 1, "allow_null": false, "primary_key": true, "index": false})
        );
        let decimal = column("d");
        assert_eq!(
            (&decimal["precision"], &decimal["scale"]),
            (&json!(5), &json!(2))
        );
        for (name, kind) in [
            ("_id", "string"),
            ("at", "datetime"),
            ("b", "boolean"),
            ("mixed", "string"),
            ("deep", "string"),
        ] {
            assert_eq!(column(name)["type"], kind, "{name}");
        }
        assert_eq!(column("mixed")["max_size"], 4);
        let keys = node.json(&format!("{path}?keys_only=true&sample_size=2"));
        assert_eq!(
            keys,
            json!(["_id", "key", "n", "d", "at", "s", "mixed", "b"])
        );
        assert_eq!(node.json(&format!("{path}?sample_size=0")), json!([]));
    }
    node.get("/api/datasets/none/generate-schema-definition")
        .is_problem(404, "none");
}
