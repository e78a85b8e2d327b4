//! One node that reads from another: what the headers of the pull protocol say, and what follows.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{Answered, TestNode, ids};

/// A node with a receiver `d` and a pipe that publishes it.
fn upstream() -> TestNode {
    TestNode::of(json!([
        {"_id": "d", "type": "pipe", "source": {"type": "http_endpoint"}},
        {"_id": "published", "type": "pipe", "source": {"type": "dataset", "dataset": "d"},
         "sink": {"type": "http_endpoint"}}
    ]))
}

fn post(node: &TestNode, ids: &[&str], completeness: Option<&str>) -> Answered {
    let entities: Vec<Value> = ids.iter().map(|id| json!({"_id": id})).collect();
    let request = node
        .request(Method::POST, "/api/receivers/d/entities")
        .header(CONTENT_TYPE, "application/json")
        .body(json!(entities).to_string());
    node.send(match completeness {
        Some(value) => request.header("X-Dataset-Completeness", value),
        None => request,
    })
}

/// A node that reads `url` of the other by a pipe `in` and holds back in `out` what is not complete.
fn downstream(upstream: &TestNode, url: &str) -> TestNode {
    TestNode::of(json!([
        {"_id": "other", "type": "system:url", "url_pattern": upstream.url("/api/%s")},
        {"_id": "in", "type": "pipe", "source": {
            "type": "json", "system": "other", "url": url, "supports_since": true,
            "is_chronological": true
        }},
        {"_id": "out", "type": "pipe", "source": {
            "type": "dataset", "dataset": "in", "completeness": true
        }}
    ]))
}

fn live(node: &TestNode, dataset: &str) -> Vec<String> {
    let path = format!("/api/datasets/{dataset}/entities?history=false&deleted=false");
    ids(&node.json(&path))
}

#[test]
fn completeness_is_told_in_headers_and_of_datasets() {
    let node = upstream();
    for path in [
        "/api/datasets/d/entities",
        "/api/publishers/published/entities",
    ] {
        assert_eq!(
            node.get(path).header("x-dataset-completeness"),
            "",
            "{path}"
        );
    }
    assert_eq!(post(&node, &["a"], Some("1633934725921188")).status, 200);
    for path in [
        "/api/datasets/d/entities",
        "/api/publishers/published/entities",
    ] {
        let answer = node.get(path);
        assert_eq!(
            answer.header("x-dataset-completeness"),
            "1633934725921188",
            "{path}"
        );
        assert_eq!(answer.header("x-dataset-restore-uuid"), "", "{path}");
    }
    let shown = node.json("/api/datasets/d")["runtime"]["completeness"].clone();
    assert_eq!(shown, json!(1_633_934_725_921_188_i64));
    post(&node, &["b"], Some("-1")).is_problem(400, "X-Dataset-Completeness");
    post(&node, &["b"], Some("soon")).is_problem(400, "X-Dataset-Completeness");
    assert_eq!(live(&node, "d"), ["a"]);
    // Without a word of the poster it is the time.
    assert_eq!(post(&node, &["b"], None).status, 200);
    let now = node.json("/api/datasets/d")["runtime"]["completeness"].clone();
    let newest = node.json("/api/datasets/d/entities")[1]["_ts"].clone();
    assert!(now.as_i64() >= newest.as_i64(), "{now} {newest}");
}

#[test]
fn the_completeness_of_the_other_node_bounds_this_one() {
    let there = upstream();
    post(&there, &["a"], Some("1633934725921188"));
    let here = downstream(&there, "publishers/published/entities");
    here.run("in");
    let known = here.json("/api/datasets/in")["runtime"]["completeness"].clone();
    assert_eq!(known, json!(1_633_934_725_921_188_i64));
    assert_eq!(here.run("out").0, 0);
    let held = here.runtime("out")["held-back"].clone();
    assert!(held.as_str().unwrap().contains("\"in\""), "{held}");
    // Far in the future it is: from then on, the other node is complete for all that is here.
    post(&there, &["b"], Some("4102444800000000"));
    here.run("in");
    here.run("in");
    assert_eq!(here.run("out").0, 2);
    assert_eq!(here.runtime("out")["held-back"], Value::Null);
}

#[test]
fn a_dataset_that_was_made_anew_is_read_from_its_start() {
    for url in [
        "publishers/published/entities",
        "datasets/d/entities?history=false",
    ] {
        let there = upstream();
        post(&there, &["a", "b", "c"], None);
        let here = downstream(&there, url);
        assert_eq!(here.run("in"), (3, 3), "{url}");
        assert_eq!(here.runtime("in")["last-seen"], json!(2), "{url}");
        assert_eq!(here.run("in"), (0, 0), "{url}");

        there.delete("/api/datasets/d").ok();
        assert_eq!(post(&there, &["b", "x"], None).status, 200);
        // All is read, so that what is gone is deleted here, too.
        assert_eq!(here.run("in"), (2, 3), "{url}");
        assert_eq!(live(&here, "in"), ["b", "x"], "{url}");
        assert_eq!(here.runtime("in")["last-seen"], json!(1), "{url}");
        post(&there, &["y"], None);
        assert_eq!(here.run("in"), (1, 1), "{url}");
    }
}

/// A node that reads `url` of the other by a binary source.
fn binary(upstream: &TestNode, url: &str, more: Value) -> TestNode {
    let mut source = json!({"type": "binary", "system": "other", "url": url});
    for (name, value) in more.as_object().unwrap() {
        source[name] = value.clone();
    }
    TestNode::of(json!([
        {"_id": "other", "type": "system:url", "url_pattern": upstream.url("/api/%s")},
        {"_id": "in", "type": "pipe", "source": source}
    ]))
}

#[test]
fn a_binary_source_reads_what_the_other_node_has_value_by_value() {
    let there = upstream();
    let values = json!({
        "decimal": 1.50, "big": 123_456_789_012_345_678_901_234_567_890_u128.to_string(),
        "at": "~t2015-12-31T00:00:00.123456789Z", "ni": "~:a:b", "list": [1, null, {"x": [true]}]
    });
    let mut first = values.clone();
    first["_id"] = json!("a");
    assert_eq!(
        there
            .post("/api/receivers/d/entities", json!([first]))
            .status,
        200
    );
    for more in [json!({}), json!({"page_size": 2})] {
        for url in [
            "datasets/d/entities?history=false",
            "publishers/published/entities",
        ] {
            let here = binary(&there, url, more.clone());
            let all = there.json("/api/datasets/d/entities?history=false");
            let count = all.as_array().unwrap().len() as u64;
            assert_eq!(here.run("in"), (count, count), "{url} {more}");
            let mine = here.json("/api/datasets/in/entities");
            for (mine, theirs) in mine.as_array().unwrap().iter().zip(all.as_array().unwrap()) {
                assert_eq!(mine["_hash"], theirs["_hash"]);
                assert_eq!(mine["at"], theirs["at"]);
            }
            assert_eq!(here.run("in"), (0, 0), "{url} {more}");
            let more_ids: Vec<String> = (0..5).map(|n| format!("{url}{more}{n}")).collect();
            let more_ids: Vec<&str> = more_ids.iter().map(String::as_str).collect();
            post(&there, &more_ids, None);
            assert_eq!(here.run("in"), (5, 5), "{url} {more}");
            there.delete("/api/datasets/d").ok();
            assert_eq!(
                there
                    .post("/api/receivers/d/entities", json!([first]))
                    .status,
                200
            );
            assert_eq!(here.run("in").0, 1, "{url} {more}");
            assert_eq!(live(&here, "in"), ["a"], "{url} {more}");
        }
    }
}

#[test]
fn packed_entities_are_given_to_who_asks_for_them() {
    let there = upstream();
    post(&there, &["a"], None);
    for path in [
        "/api/datasets/d/entities",
        "/api/publishers/published/entities",
    ] {
        let request = there.request(Method::GET, path);
        let answer = there.send(request.header("Accept", "application/vnd.tahini.entities"));
        assert_eq!(
            answer.header("content-type"),
            "application/vnd.tahini.entities",
            "{path}"
        );
        assert!(answer.bytes.starts_with(b"TAHINIE\x01"), "{path}");
        assert_ne!(answer.header("x-dataset-generation"), "", "{path}");
        assert_eq!(
            there.get(path).header("content-type"),
            "application/json",
            "{path}"
        );
    }
}

#[test]
fn a_binary_source_says_when_the_other_side_is_no_such_node() {
    let there = upstream();
    // An answer of the right status that is no list of entities.
    let here = binary(&there, "status", json!({}));
    let hub = &here.running().node().assembly.hub;
    let pipe = hub.pipe("in").unwrap();
    let summary = hub
        .run(&pipe, &tahini_hub::pump::Request::default())
        .unwrap();
    let words = summary.failure.unwrap().to_string();
    assert!(words.contains("which only a Tahini node gives"), "{words}");
}
