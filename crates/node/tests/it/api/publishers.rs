//! Publishing what a pipe gives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        published(
            "shown",
            "letters",
            json!({"sink": {
                "type": "http_endpoint", "filename": "skærm.json", "content_disposition": "inline"
            }})
        ),
        published(
            "nameless",
            "letters",
            json!({"sink": {"type": "http_endpoint", "content_disposition": "attachment"}})
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
        "attachment; filename=\"mine.json\""
    );
    assert_eq!(ids(&named.ok()).len(), 5);
    for (path, expected) in [
        ("plain/entities", ""),
        ("shown/entities", "inline; filename=\"sk_rm.json\""),
        ("shown/entities/b.json", "inline; filename=\"b.json\""),
        ("shown/entities/%22", "inline"),
        ("nameless/entities", ""),
    ] {
        let answer = node.get(&format!("/api/publishers/{path}"));
        assert_eq!(answer.header("content-disposition"), expected, "{path}");
    }
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

/// A server that answers with what is posted to it, and counts; its address.
fn mirror() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).unwrap() > 2 {
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let answer = [head.as_bytes(), &body].concat();
            stream.get_mut().write_all(&answer).unwrap();
        }
    });
    (address, count)
}

#[test]
fn publishing_runs_what_looking_does_not() {
    let (address, count) = mirror();
    let http = json!({"type": "http", "system": "mirror", "url": "x"});
    let mut harmless = http.clone();
    harmless["side_effects"] = json!(false);
    let node = TestNode::of(json!([
        {"_id": "mirror", "type": "system:url", "base_url": address},
        embedded("letters", &["A", "B"]),
        published("called", "letters", json!({"transform": http})),
        published("harmless", "letters", json!({"transform": harmless})),
    ]));
    node.run("letters");
    let looked = node.get("/api/pipes/called/entities");
    looked.is_problem(409, "side_effects");
    let before = node.json("/api/pipes/called/entities?stage=before-transforms");
    assert_eq!(ids(&before), ["A", "B"]);
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was called");
    assert_eq!(
        ids(&node.json("/api/publishers/called/entities")),
        ["A", "B"]
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(ids(&node.json("/api/pipes/harmless/entities")), ["A", "B"]);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}
