//! Previews: an entity on its way through a pipe, without the pipe.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{TestNode, embedded, reader};

fn shouting() -> Value {
    json!({
        "_id": "shout", "type": "pipe",
        "source": {"type": "dataset", "dataset": "names"},
        "transform": [
            {"type": "dtl", "rules": {"default": [
                ["copy", "name"],
                ["create-child", ["dict", "_id", ["concat", "_S._id", "-child"]]],
                ["add", "loud", ["upper", "_S.name"]]
            ]}},
            {"type": "dtl", "rules": {"default": [["copy", "*"], ["filter", ["neq", "_S.name", "gone"]]]}}
        ]
    })
}

#[test]
fn a_preview_shows_every_transform_and_writes_nothing() {
    let node = TestNode::of(json!([embedded("names", &["1"]), shouting()]));
    let source = json!({"_id": "7", "name": "ada"});
    let found = node
        .post("/api/pipes/shout/preview", json!({"source": source}))
        .ok();
    let expected = json!({
        "_id": "7", "name": "ada", "$children": [{"_id": "7-child"}], "loud": "ADA"
    });
    assert_eq!(found["source"], json!([source]));
    assert_eq!(found["transformed"], json!([[expected], [expected]]));
    assert_eq!(found["sink"], json!([expected]));
    assert_eq!(found["children"], json!([{"_id": "7-child"}]));
    assert_eq!((found.get("trace"), found.get("ended")), (None, None));
    assert_eq!(node.get("/api/datasets/shout").status, 404);

    let gone = json!({"source": {"_id": "8", "name": "gone"}, "trace": true});
    let found = node.post("/api/pipes/shout/preview", gone).ok();
    assert_eq!(found["sink"], json!([]));
    assert_eq!(found["transformed"][1][0]["_filtered"], true);
    let steps = &found["trace"][1]["entities"][0]["steps"];
    assert_eq!(steps[1]["stopped"], "filtered");
    assert_eq!(steps[1]["steps"][0]["value"], false);
    let first = &found["trace"][0]["entities"][0]["steps"];
    assert_eq!(
        first[2]["changes"],
        json!([{"name": "loud", "value": "GONE"}])
    );
}

#[test]
fn rules_that_fail_say_so() {
    let mut pipe = reader("p", "names");
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [["fail!", "no luck"]]}});
    let node = TestNode::of(json!([pipe]));
    for trace in [false, true] {
        let asked = json!({"source": {"_id": "1"}, "trace": trace});
        let found = node.post("/api/pipes/p/preview", asked).ok();
        assert!(
            found["ended"].as_str().unwrap().contains("no luck"),
            "{found}"
        );
        assert_eq!(found["sink"], json!([]));
    }
}

#[test]
fn rules_look_into_the_node_or_into_given_datasets_at_a_given_time() {
    let mut pipe = reader("p", "x");
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["add", "found", ["path", "name", ["lookup-entity", "names", "_S.of"]]],
        ["add", "at", ["now"]]
    ]}});
    let node = TestNode::of(json!([embedded("names", &["1"]), pipe]));
    node.run("names");
    let asked = json!({"source": {"_id": "a", "of": "1"}, "now": "2020-01-01T00:00:00Z"});
    let found = node.post("/api/pipes/p/preview", asked).ok();
    let at = "~t2020-01-01T00:00:00Z";
    assert_eq!(found["sink"], json!([{"_id": "a", "found": "1", "at": at}]));
    let asked = json!({
        "source": {"_id": "a", "of": "1"}, "now": "2020-01-01T00:00:00Z",
        "datasets": {"names": [{"_id": "1", "name": "another"}]}
    });
    let found = node.post("/api/pipes/p/preview", asked).ok();
    assert_eq!(found["sink"][0]["found"], "another");
}

/// A form, as editors of the reference send it, with a configuration that is not the node's.
#[test]
fn a_form_brings_a_configuration_of_its_own() {
    let node = TestNode::of(json!([shouting()]));
    let mut other = shouting();
    other["transform"] =
        json!({"type": "dtl", "rules": {"default": [["add", "b", ["+", 1, "_S.n"]]]}});
    let config = other.to_string();
    let fields = [
        ("operation", "preview-pipe"),
        ("pipe-config", config.as_str()),
        ("source", r#"{"_id": "1", "n": 12345678901234567890}"#),
        ("trace", "true"),
    ];
    let mut url = reqwest::Url::parse("http://form/").unwrap();
    url.query_pairs_mut().extend_pairs(fields);
    let request = node
        .request(Method::POST, "/api/pipes/shout/preview")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(url.query().unwrap().to_owned());
    let answer = node.send(request);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer.text.contains("12345678901234567891"),
        "{}",
        answer.text
    );
    let original = &node.json("/api/pipes/shout")["config"]["original"];
    assert_eq!(original, &shouting());
}

#[test]
fn side_effects_happen_only_when_they_are_asked_for() {
    let system = json!({"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:1/%s"});
    let mut pipe = reader("p", "names");
    pipe["transform"] = json!([
        {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
        {"type": "http", "system": "s", "url": "x"},
        {"type": "dtl", "rules": {"default": [["copy", "*"]]}}
    ]);
    let node = TestNode::of(json!([system, pipe]));
    let found = node
        .post("/api/pipes/p/preview", json!({"source": {"_id": "1"}}))
        .ok();
    assert!(
        found["ended"].as_str().unwrap().contains("side_effects"),
        "{found}"
    );
    assert_eq!(found["transformed"], json!([[{"_id": "1"}]]));
    assert_eq!(found["sink"], json!([]));
    // Nobody listens there: that it fails shows that it was run.
    let asked = json!({"source": {"_id": "1"}, "side_effects": true});
    assert_eq!(node.post("/api/pipes/p/preview", asked).status, 503);
}

#[test]
fn what_cannot_be_looked_at_is_a_problem() {
    let node = TestNode::of(json!([shouting()]));
    let at = "/api/pipes/shout/preview";
    node.post(at, json!({"trace": true}))
        .is_problem(400, "expected the entity");
    node.post(at, json!({"source": 5}))
        .is_problem(400, "expected entities in source");
    node.post(at, json!({"source": {"_id": "1"}, "now": "noon"}))
        .is_problem(400, "expected now");
    let many: Vec<Value> = (0..101).map(|at| json!({"_id": at.to_string()})).collect();
    node.post(at, json!({"source": many}))
        .is_problem(400, "at most 100");
    let wrong = json!({"source": {"_id": "1"}, "pipe": {
        "source": {"type": "empty"}, "transform": {"type": "dtl", "rules": {"default": [["cpoy"]]}}
    }});
    let answer = node.post(at, wrong);
    answer.is_problem(400, "errors");
    assert!(answer.text.contains("did you mean"), "{}", answer.text);
    assert_eq!(
        node.post("/api/pipes/nix/preview", json!({"source": {}}))
            .status,
        404
    );
}

#[test]
fn the_functions_are_listed() {
    let node = TestNode::new();
    let all = node.json("/api/dtl/functions");
    assert!(all["functions"].as_array().unwrap().len() >= 163, "{all}");
    let one = node.json("/api/dtl/functions?name=upper");
    assert_eq!(one["functions"][0]["usage"], "[\"upper\", VALUES]");
    assert!(
        !one["functions"][0]["examples"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    node.get("/api/dtl/functions?name=uper")
        .is_problem(404, "did you mean \"upper\"?");
    let described = node.json("/api/openapi.json");
    assert!(described["paths"]["/api/pipes/{pipe_id}/preview"]["post"].is_object());
    assert!(described["paths"]["/api/dtl/functions"]["get"].is_object());
}

#[test]
fn the_requests_of_rest_transforms_are_shown_when_an_entity_asks() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{BufRead as _, Write as _};
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map(Result::unwrap) {
                if line.is_empty() {
                    break;
                }
            }
            let answer = "HTTP/1.1 404 X\r\nContent-Length: 7\r\nConnection: close\r\n\r\nno such";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let system = json!({
        "_id": "s", "type": "system:rest", "url_pattern": format!("http://{address}/%s"),
        "headers": {"X-Api-Key": "$SECRET(key)"},
        "operations": {"lookup": {"url": "contact/{{ id }}", "method": "GET"}},
    });
    let mut pipe = reader("p", "names");
    pipe["transform"] = json!([
        {"type": "rest", "system": "s", "operation": "lookup", "side_effects": false}
    ]);
    let node = TestNode::new();
    node.put("/api/secrets", json!({"key": "of-the-door"})).ok();
    node.put("/api/config", json!([system, pipe])).ok();
    let look = |entity: Value| node.post("/api/pipes/p/preview", json!({"source": entity}));
    let told = look(json!({"_id": "1", "id": 7, "_trace": true}));
    told.is_problem(400, "found 404");
    let requests = &told.value()["requests"];
    assert_eq!(requests.as_array().unwrap().len(), 1, "{requests}");
    let url = requests[0]["request"]["url"].as_str().unwrap();
    assert!(url.ends_with("/contact/7"), "{url}");
    assert_eq!(requests[0]["response"]["status"], 404);
    assert_eq!(requests[0]["response"]["body"], "no such");
    assert!(!told.text.contains("of-the-door"), "{}", told.text);
    // Nobody asked.
    let silent = look(json!({"_id": "1", "id": 7}));
    assert_eq!(silent.value()["requests"], Value::Null);
    server.join().unwrap();
}
