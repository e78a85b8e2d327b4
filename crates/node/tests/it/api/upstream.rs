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
