//! Taking what is posted.

use serde_json::{Value, json};

use super::{Answered, TestNode, ids};

fn node() -> TestNode {
    TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "dataset": "d"}
    }]))
}

fn post(node: &TestNode, query: &str, ids: &[&str]) -> Answered {
    let body: Vec<Value> = ids.iter().map(|id| json!({"_id": id})).collect();
    node.post(&format!("/api/receivers/r/entities{query}"), json!(body))
}

fn live(node: &TestNode) -> Vec<String> {
    ids(&node.json("/api/datasets/d/entities?history=false&deleted=false"))
}

#[test]
fn a_list_or_a_single_object_is_taken() {
    let node = node();
    let answer = post(&node, "", &["1", "2"]);
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    let single = node.post("/api/receivers/r/entities", json!({"_id": "3"}));
    assert_eq!((single.status, single.text.as_str()), (200, "{}"));
    assert_eq!(live(&node), ["1", "2", "3"]);
}

#[test]
fn who_locks_optimistically_is_answered_with_what_was_written() {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "enable_optimistic_locking": true}
    }]));
    let post = |body: Value| node.post("/api/receivers/r/entities", body);
    let read = |answer: Answered| serde_json::from_str::<Value>(&answer.text).unwrap();
    let one = read(post(json!([{"_id": "a", "n": 1}])))["updated_entity"].clone();
    assert_eq!((&one["n"], &one["_updated"]), (&json!(1), &json!(0)));
    let one = read(post(json!({"_id": "a", "n": 2, "_updated": 0})))["updated_entity"].clone();
    assert_eq!(
        (&one["n"], &one["_updated"], &one["_previous"]),
        (&json!(2), &json!(1), &json!(0))
    );
    let stale = post(json!([{"_id": "new"}, {"_id": "a", "n": 3, "_updated": 0}]));
    stale.is_problem(412, "version 1");
    // What the poster needs to merge the two.
    let told = stale.value();
    let number = |name: &str| told[name]["n"].clone();
    assert_eq!(
        ["input_entity", "existing_entity", "common_ancestor_entity"].map(number),
        [json!(3), json!(2), json!(1)]
    );
    let unknown = post(json!({"_id": "b", "_updated": 0})).value();
    assert_eq!(unknown["input_entity"]["_id"], "b");
    assert!(unknown.get("existing_entity").is_none(), "{unknown}");
    assert!(
        unknown.get("common_ancestor_entity").is_none(),
        "another entity's version"
    );
    let all = node.json("/api/datasets/r/entities");
    assert_eq!(all.as_array().unwrap().len(), 2);
    let several = post(json!([{"_id": "x"}, {"_id": "y"}])).ok();
    assert_eq!(super::ids(&several["updated_entities"]), ["x", "y"]);
}

/// Nothing but a person's decision lets a poster in again; it is told to come again.
#[test]
fn a_tripped_breaker_answers_posts_with_503() {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "circuit_breaker_threshold_count": 1}
    }]));
    let post = |body: Value| node.post("/api/receivers/r/entities", body);
    post(json!([{"_id": "a"}, {"_id": "b"}])).ok();
    let many = json!([{"_id": "a", "n": 1}, {"_id": "b", "n": 1}]);
    let answer = post(many.clone());
    answer.is_problem(503, "at most 1 entities");
    assert_eq!(answer.header("retry-after"), "10");
    post(json!([{"_id": "c"}])).is_problem(503, "tripped");
    node.post("/api/datasets/r/entities", json!([{"_id": "c"}]))
        .is_problem(409, "holds something back");
    let breaker = &node.json("/api/datasets/r")["runtime"]["circuit-breaker"];
    assert_eq!(
        (&breaker["tripped"], &breaker["uncommitted"]),
        (&json!(true), &json!(2))
    );
    let held = node.json("/api/datasets/r/entities?uncommitted=true&history=false");
    assert_eq!(held[0]["n"], 1);
    node.form(
        "/api/datasets/r",
        &[("operation", "commit-circuit-breaker")],
    )
    .ok();
    // The poster that comes again finds its entities there.
    post(many).ok();
    assert_eq!(
        node.json("/api/datasets/r/entities")
            .as_array()
            .unwrap()
            .len(),
        4
    );
    node.post("/api/datasets/r/entities", json!([{"_id": "c"}]))
        .ok();
}

#[test]
fn the_dataset_exists_before_anything_is_posted() {
    let node = node();
    assert_eq!(node.json("/api/datasets/d")["runtime"]["populated"], true);
}

#[test]
fn numbers_keep_their_digits() {
    let node = node();
    let request = node
        .request(reqwest::Method::POST, "/api/receivers/r/entities")
        .header("Content-Type", "application/json")
        .body(r#"[{"_id":"1","big":12345678901234567890123,"dec":1.10,"whole":2.0}]"#);
    node.send(request).ok();
    let text = node.get("/api/datasets/d/entities").text;
    assert!(text.contains(r#""big":12345678901234567890123"#), "{text}");
    assert!(text.contains(r#""dec":"~f1.10""#), "{text}");
    assert!(text.contains(r#""whole":2"#), "{text}");
}

#[test]
fn a_full_sequence_deletes_what_it_did_not_bring() {
    let node = node();
    post(&node, "", &["1", "2", "3"]).ok();
    let first = "?is_full=true&sequence_id=s&request_id=a&is_first=true";
    post(&node, first, &["1"]).ok();
    assert_eq!(
        live(&node),
        ["1", "2", "3"],
        "nothing is deleted before the end"
    );
    let last = "?is_full=true&sequence_id=s&request_id=b&previous_request_id=a&is_last=true";
    post(&node, last, &["4"]).ok();
    assert_eq!(live(&node), ["1", "4"]);
}

#[test]
fn a_broken_sequence_is_a_conflict() {
    let node = node();
    let first = "?is_full=true&sequence_id=s&request_id=a&is_first=true";
    post(&node, first, &["1"]).ok();
    let wrong = "?is_full=true&sequence_id=s&request_id=c&previous_request_id=x";
    post(&node, wrong, &["2"]).is_problem(409, "previous_request_id");
    let again = "?is_full=true&sequence_id=s&request_id=d&is_first=true";
    post(&node, again, &["2"]).is_problem(409, "is_first");
    let stranger = "?is_full=true&sequence_id=other&request_id=e&previous_request_id=a";
    post(&node, stranger, &["2"]).is_problem(409, "not active");
    assert_eq!(live(&node), ["1"], "a refused request writes nothing");
    let fresh = "?is_full=true&sequence_id=new&request_id=f&is_first=true&is_last=true";
    post(&node, fresh, &["5"]).ok();
    assert_eq!(live(&node), ["5"]);
}

#[test]
fn an_incremental_request_ignores_the_parameters() {
    let node = node();
    post(
        &node,
        "?is_full=true&sequence_id=s&request_id=a&is_first=true",
        &["1"],
    )
    .ok();
    let odd = "?is_full=False&sequence_id=s&request_id=z&previous_request_id=never&is_first=true";
    post(&node, odd, &["2"]).ok();
    let last = "?is_full=true&sequence_id=s&request_id=b&previous_request_id=a&is_last=true";
    post(&node, last, &[]).ok();
    assert_eq!(live(&node), ["1", "2"], "what came in the middle stays");
}

#[test]
fn a_repeated_request_has_no_effect() {
    let node = node();
    let first = "?is_full=true&sequence_id=s&request_id=a&is_first=true";
    post(&node, first, &["1"]).ok();
    post(&node, first, &["1"]).ok();
    let last = "?is_full=true&sequence_id=s&request_id=b&previous_request_id=a&is_last=true";
    post(&node, last, &[]).ok();
    post(&node, last, &[]).ok();
    assert_eq!(live(&node), ["1"]);
}

#[test]
fn what_is_no_entity_is_refused_whole() {
    let node = node();
    for body in [
        json!([{"_id": "1"}, {"name": "x"}]),
        json!([{"_id": 5}]),
        json!([1]),
        json!("x"),
    ] {
        let answer = node.post("/api/receivers/r/entities", body.clone());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    }
    let request = node
        .request(reqwest::Method::POST, "/api/receivers/r/entities")
        .body(r#"[{"_id":"1"},{"_id":"#);
    assert_eq!(node.send(request).status, 400);
    assert_eq!(live(&node), Vec::<String>::new());
}

#[test]
fn only_a_receiver_receives() {
    let node = TestNode::of(json!([super::embedded("a", &["1"])]));
    node.post("/api/receivers/a/entities", json!([]))
        .is_problem(400, "http_endpoint");
    node.post("/api/receivers/none/entities", json!([]))
        .is_problem(404, "none");
}

#[test]
fn transforms_run_before_the_answer() {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "transform": {"type": "dtl", "rules": {"default": [["add", "_id", ["upper", "_S.key"]]]}},
        "sink": {"type": "dataset", "dataset": "d"}
    }]));
    node.post("/api/receivers/r/entities", json!([{"key": "ab"}]))
        .ok();
    assert_eq!(live(&node), ["AB"]);
}

#[test]
fn many_posters_at_once_lose_nothing() {
    let node = TestNode::of(json!(
        (0..4)
            .map(|n| json!({
                "_id": format!("r{n}"), "type": "pipe", "source": {"type": "http_endpoint"},
                "sink": {"type": "dataset", "dataset": format!("d{n}")}
            }))
            .collect::<Vec<_>>()
    ));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let node = &node;
            scope.spawn(move || {
                for at in 0..5 {
                    let path = format!("/api/receivers/r{}/entities", n % 4);
                    node.post(&path, json!([{"_id": format!("{n}-{at}")}])).ok();
                }
            });
        }
    });
    for n in 0..4 {
        let dataset = node.json(&format!("/api/datasets/d{n}"));
        assert_eq!(dataset["runtime"]["count-index-exists"], 10);
    }
}

/// What bodies take together has a limit; who meets it comes again, and nobody waits for long.
#[test]
fn bodies_share_the_memory_that_there_is_for_them() {
    let node = node();
    let bodies = &node.running().node().bodies;
    let all = bodies.available_permits();
    let taken = bodies
        .try_acquire_many(u32::try_from(all).unwrap() - 1)
        .unwrap();
    let large = json!([{"_id": "large", "text": "x".repeat(100_000)}]);
    let post = |body: &Value| node.post("/api/receivers/r/entities", body.clone());
    let answer = post(&large);
    answer.is_problem(503, "other bodies");
    assert_eq!(answer.header("retry-after"), "1");
    post(&json!([{"_id": "small"}])).ok();
    node.put("/api/env", json!({"text": "x".repeat(100_000)}))
        .is_problem(503, "other bodies");
    drop(taken);
    post(&large).ok();
    assert_eq!(bodies.available_permits(), all, "all of it is given back");
}
