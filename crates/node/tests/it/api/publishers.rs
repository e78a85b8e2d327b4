//! Publishing what a pipe gives.

use serde_json::{Value, json};

use super::{TestNode, embedded, ids};

fn published(id: &str, dataset: &str, more: Value) -> Value {
    let mut pipe = json!({
        "_id": id, "type": "pipe", "source": {"type": "dataset", "dataset": dataset},
        "sink": {"type": "http_endpoint"}
    });
    for (name, value) in more.as_object().unwrap() {
        pipe[name] = value.clone();
    }
    pipe
}

fn letters() -> TestNode {
    let rules = json!({"type": "dtl", "rules": {"default": [["copy", "_id"]]}});
    let node = TestNode::of(json!([
        embedded("letters", &["A", "B", "C", "D", "E"]),
        published("plain", "letters", json!({})),
        published("ruled", "letters", json!({"transform": rules})),
        published("early", "nothing-yet", json!({})),
        published(
            "file",
            "letters",
            json!({"sink": {
                "type": "http_endpoint", "filename": "all \"letters\".json",
                "content_disposition": "attachment"
            }})
        ),
    ]));
    node.run("letters");
    node
}

#[test]
fn a_dataset_is_pulled_in_parts() {
    let node = letters();
    let pull = |query: &str| ids(&node.json(&format!("/api/publishers/plain/entities{query}")));
    assert_eq!(pull(""), ["A", "B", "C", "D", "E"]);
    assert_eq!(pull("?since=2"), ["D", "E"]);
    assert_eq!(pull("?since=0&limit=2"), ["B", "C"]);
    assert_eq!(pull("?since=4"), Vec::<String>::new());
    let first = node.json("/api/publishers/plain/entities?limit=1")[0].clone();
    assert_eq!(
        (&first["_updated"], &first["_previous"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(
        (&first["_deleted"], &first["_id"]),
        (&json!(false), &json!("A"))
    );
    assert!(
        first["_ts"].is_u64() && first["_hash"].is_string(),
        "{first}"
    );
    node.get("/api/publishers/plain/entities?since=x")
        .is_problem(400, "whole number");
}

#[test]
fn headers_tell_what_is_published() {
    let node = letters();
    let plain = node.get("/api/publishers/plain/entities");
    assert_eq!(plain.header("x-dataset-populated"), "true");
    assert_eq!(plain.header("x-dataset-max-updated"), "4");
    assert_eq!(plain.header("x-dataset-filtered"), "");
    let generation = node.json("/api/datasets/letters")["runtime"]["generation"].clone();
    assert_eq!(
        plain.header("x-dataset-generation"),
        generation.as_str().unwrap()
    );
    let ruled = node.get("/api/publishers/ruled/entities");
    assert_eq!(ruled.header("x-dataset-filtered"), "true");
    assert!(ruled.value()[0].get("name").is_none(), "{}", ruled.text);
    let early = node.get("/api/publishers/early/entities");
    assert_eq!(early.ok(), json!([]));
    assert_eq!(early.header("x-dataset-generation"), "");
}

#[test]
fn a_file_name_is_suggested() {
    let node = letters();
    let file = node.get("/api/publishers/file/entities");
    assert_eq!(
        file.header("content-disposition"),
        "attachment; filename=\"all letters.json\""
    );
    let named = node.get("/api/publishers/plain/entities/mine.json");
    assert_eq!(
        named.header("content-disposition"),
        "inline; filename=\"mine.json\""
    );
    assert_eq!(ids(&named.ok()).len(), 5);
}

#[test]
fn only_an_endpoint_publishes() {
    let node = letters();
    node.get("/api/publishers/letters/entities")
        .is_problem(404, "publishes nothing");
    node.get("/api/publishers/none/entities")
        .is_problem(404, "none");
}

#[test]
fn another_node_can_read_it() {
    let origin = letters();
    let reader = TestNode::of(json!([
        {"_id": "origin", "type": "system:url", "url_pattern": origin.url("/api/publishers/%s")},
        {"_id": "copy", "type": "pipe", "source": {
            "type": "json", "system": "origin", "url": "plain/entities",
            "supports_since": true, "is_chronological": true
        }}
    ]));
    assert_eq!(reader.run("copy"), (5, 5));
    assert_eq!(reader.run("copy"), (0, 0));
    assert_eq!(reader.runtime("copy")["last-seen"], 4);
}
