//! Datasets and what they hold.

use serde_json::{Value, json};

use super::{TestNode, embedded, ids, reader};

/// A node with the dataset `d`: 1, 2, 3, then 2 changed and 3 deleted.
fn filled() -> TestNode {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "dataset": "d"}
    }]));
    for body in [
        json!([{"_id": "1", "n": 1}, {"_id": "2", "n": 2}, {"_id": "3", "n": 3}]),
        json!([{"_id": "2", "n": 22}, {"_id": "3", "n": 3, "_deleted": true}]),
    ] {
        node.post("/api/receivers/r/entities", body).ok();
    }
    node
}

fn offsets(entities: &Value) -> Vec<u64> {
    entities
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["_updated"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_dataset_tells_its_size() {
    let node = filled();
    let dataset = node.json("/api/datasets/d");
    assert_eq!(dataset["_id"], "d");
    let runtime = &dataset["runtime"];
    assert_eq!(runtime["count-index-exists"], 2);
    assert_eq!(runtime["count-index-deleted"], 1);
    assert_eq!(runtime["populated"], true);
    assert_eq!(runtime["origin"], "user");
    assert!(runtime["last-modified"].as_str().unwrap().ends_with('Z'));
    assert!(dataset["storage"].as_u64().unwrap() > 0);
    let names = ids(&node.json("/api/datasets"));
    assert!(names.contains(&"d".to_owned()), "{names:?}");
}

#[test]
fn entities_are_all_versions_unless_asked_otherwise() {
    let node = filled();
    let read = |query: &str| offsets(&node.json(&format!("/api/datasets/d/entities{query}")));
    for (query, expected) in [
        ("", vec![0, 1, 2, 3, 4]),
        ("?history=false", vec![0, 3, 4]),
        ("?history=False&deleted=False", vec![0, 3]),
        ("?history=true&deleted=false", vec![0, 1, 2, 3, 4]),
        ("?since=1", vec![2, 3, 4]),
        ("?since=4", vec![]),
        ("?limit=2", vec![0, 1]),
        ("?limit=2&since=0", vec![1, 2]),
        ("?limit=0", vec![]),
        ("?reverse=true", vec![4, 3, 2, 1, 0]),
        ("?reverse=True&limit=2", vec![4, 3]),
        ("?reverse=true&history=false&deleted=false", vec![3, 0]),
    ] {
        assert_eq!(read(query), expected, "{query}");
    }
    node.get("/api/datasets/d/entities?limit=x")
        .is_problem(400, "whole number");
    node.get("/api/datasets/d/entities?history=maybe")
        .is_problem(400, "true or false");
    node.get("/api/datasets/d/entities?subset=%5B%22eq%22%5D")
        .is_problem(404, "subset");
    node.get("/api/datasets/none/entities")
        .is_problem(404, "none");
}

/// What the documentation's example of a subset tells: vowels among letters.
#[test]
fn a_declared_subset_is_read_like_a_dataset() {
    let node = TestNode::of(json!([{
        "_id": "letters", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "indexes": ["_S.vowel"]}
    }]));
    let letters = json!([
        {"_id": "A", "vowel": true}, {"_id": "B"}, {"_id": "E", "vowel": true},
        {"_id": "Y", "vowel": true}
    ]);
    node.post("/api/receivers/letters/entities", letters).ok();
    node.post("/api/receivers/letters/entities", json!([{"_id": "Y"}]))
        .ok();
    let at = "/api/datasets/letters/entities?subset=";
    let vowels = "%5B%22eq%22%2C+%22_S.vowel%22%2C+true%5D";
    let read = |more: &str| node.json(&format!("{at}{vowels}{more}"));
    let all = read("&history=false");
    assert_eq!(ids(&all), ["A", "E"]);
    assert_eq!(offsets(&all), [0, 2]);
    assert_eq!(offsets(&read("&limit=1&since=0")), [2]);
    assert_eq!(offsets(&read("&reverse=true")), [3, 2, 0]);
    // Whoever had read up to offset 3 knew Y as a vowel.
    let left = read("&since=3");
    assert_eq!(
        (ids(&left), &left[0]["_deleted"]),
        (vec!["Y".to_owned()], &json!(true))
    );
    let other = "%5B%22eq%22%2C+%22_S.consonant%22%2C+true%5D";
    node.get(&format!("{at}{other}"))
        .is_problem(404, "consonant");
}

/// What a dataset is looked up by is listed, told in its runtime, built anew on demand, and gone
/// with the last pipe that wants it.
#[test]
fn indexes_are_listed_and_built_anew() {
    let pipe = |indexes: Value| {
        json!({
            "_id": "letters", "type": "pipe", "source": {"type": "http_endpoint"},
            "sink": {"type": "dataset", "indexes": indexes}
        })
    };
    let node = TestNode::of(json!([pipe(json!(["_S.vowel", ["upper", "_S.name"]]))]));
    let letters = json!([{"_id": "A", "vowel": true, "name": "a"}, {"_id": "B"}]);
    node.post("/api/receivers/letters/entities", letters).ok();
    let at = "/api/datasets/letters/indexes";
    let vowels = "?subset=%5B%22eq%22%2C+%22_S.vowel%22%2C+true%5D";
    // Asked, an index has all versions.
    let subset = node.json(&format!("/api/datasets/letters/entities{vowels}"));
    assert_eq!(ids(&subset), ["A"]);
    let all = node.json(at);
    let vowel = &all[0];
    assert_eq!(vowel["index-expression"], "\"_.vowel\"");
    assert_eq!(vowel["pipes"], json!(["letters"]));
    assert_eq!(
        (&vowel["ready"], &vowel["versions-indexed"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(
        (&vowel["versions-total"], &vowel["entries"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(all[1]["index-expression"], "[\"upper\",\"_.name\"]");
    let runtime = &node.json("/api/datasets/letters")["runtime"];
    assert_eq!(runtime["indexes"].as_array().unwrap().len(), 2);

    let number = vowel["index-int-id"].clone();
    node.delete(&format!("{at}/{number}")).ok();
    node.delete(&format!("{at}/{number}"))
        .is_problem(404, "index");
    node.delete(&format!("{at}/x")).is_problem(404, "index");
    let subset = node.json(&format!("/api/datasets/letters/entities{vowels}"));
    assert_eq!(ids(&subset), ["A"]);
    node.get("/api/datasets/none/indexes")
        .is_problem(404, "none");

    node.put("/api/pipes/letters/config", pipe(json!([]))).ok();
    assert_eq!(node.json(at), json!([]));
    node.get(&format!("/api/datasets/letters/entities{vowels}"))
        .is_problem(404, "subset");
}

#[test]
fn one_entity_can_be_asked_for_within_a_subset() {
    let node = TestNode::of(json!([{
        "_id": "letters", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "indexes": ["_S.vowel"]}
    }]));
    let letters = json!([{"_id": "A", "vowel": true}, {"_id": "B"}]);
    node.post("/api/receivers/letters/entities", letters).ok();
    let vowels = "subset=%5B%22eq%22%2C+%22_S.vowel%22%2C+true%5D";
    let at = "/api/datasets/letters/entity?entity_id=";
    assert_eq!(node.json(&format!("{at}A&{vowels}"))["_id"], "A");
    node.get(&format!("{at}B&{vowels}")).is_problem(404, "B");
    node.get(&format!("{at}A&subset=%5B%5D"))
        .is_problem(404, "subset");
}

#[test]
fn entities_have_all_reserved_fields() {
    let node = filled();
    let all = node.json("/api/datasets/d/entities");
    let changed = &all[3];
    assert_eq!((&changed["_id"], &changed["n"]), (&json!("2"), &json!(22)));
    assert_eq!(
        (&changed["_updated"], &changed["_previous"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(changed["_deleted"], false);
    assert_eq!(changed["_hash"].as_str().unwrap().len(), 32);
    assert!(changed["_ts"].as_u64().unwrap() > 1_600_000_000_000_000);
    assert_eq!(all[0]["_previous"], Value::Null);
    assert_eq!(all[4]["_deleted"], true);
}

#[test]
fn headers_tell_how_far_the_dataset_goes() {
    let node = filled();
    let answer = node.get("/api/datasets/d/entities?limit=1");
    assert_eq!(answer.header("x-dataset-populated"), "true");
    assert_eq!(answer.header("x-dataset-max-updated"), "4");
    let generation = node.json("/api/datasets/d")["runtime"]["generation"].clone();
    assert_eq!(
        answer.header("x-dataset-generation"),
        generation.as_str().unwrap()
    );
    assert!(!answer.headers.contains_key("content-encoding"));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[test]
fn one_entity_and_its_versions() {
    let node = filled();
    let entity = |query: &str| node.get(&format!("/api/datasets/d/entity?{query}"));
    assert_eq!(entity("entity_id=2").ok()["n"], 22);
    assert_eq!(entity("entity_id=2&offset=1").ok()["n"], 2);
    assert_eq!(entity("entity_id=1&offset=0").ok()["n"], 1);
    assert_eq!(entity("entity_id=3").ok()["_deleted"], true);
    entity("entity_id=2&offset=0").is_problem(404, "\"2\"");
    entity("entity_id=2&offset=2").is_problem(404, "\"2\"");
    entity("entity_id=9").is_problem(404, "\"9\"");
    entity("").is_problem(400, "`entity_id`");
    assert_eq!(offsets(&entity("entity_id=2&history=true").ok()), [1, 3]);
    assert_eq!(
        offsets(&entity("entity_id=2&history=true&limit=1").ok()),
        [3]
    );
    assert_eq!(
        offsets(&entity("entity_id=2&history=true&limit=0").ok()),
        [0; 0]
    );
    entity("entity_id=9&history=true").is_problem(404, "\"9\"");
    assert_eq!(node.json("/api/datasets/d/entities/2")["n"], 22);
    node.get("/api/datasets/d/entities/9")
        .is_problem(404, "\"9\"");
}

#[test]
fn ids_in_a_path_may_hold_anything() {
    let node = filled();
    let id = "http://x/a b?c#d";
    node.post("/api/receivers/r/entities", json!([{"_id": id}]))
        .ok();
    let path = "/api/datasets/d/entities/http%3A%2F%2Fx%2Fa%20b%3Fc%23d";
    assert_eq!(node.json(path)["_id"], id);
    assert_eq!(
        node.json("/api/datasets/d/entities/http://x/a%20b%3Fc%23d")["_id"],
        id
    );
}

#[test]
fn a_verbose_list_says_who_writes_and_reads() {
    let node = TestNode::of(json!([
        embedded("in", &["a"]),
        reader("out", "in"),
        reader("other", "in")
    ]));
    node.run("in");
    let find = |path: &str| {
        let all = node.json(path);
        let found = all
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["_id"] == "in");
        found.unwrap().clone()
    };
    let verbose = find("/api/datasets?verbose=true");
    assert_eq!(verbose["writers"], json!(["in"]));
    assert_eq!(verbose["readers"], json!(["other", "out"]));
    assert!(find("/api/datasets").get("writers").is_none());
}

/// What the documentation's example of the log's entry shows.
#[test]
fn entities_are_posted_to_a_dataset_by_hand() {
    let node = filled();
    let path = "/api/datasets/d/entities";
    let same = json!([
        {"_id": "1", "n": 1, "_updated": 0}, {"_id": "3", "n": 3, "_updated": 4, "_deleted": true}
    ]);
    assert_eq!(
        node.post(path, same.clone()).ok(),
        json!({"entities": 2, "written": 0})
    );
    let forced = format!("{path}?force=true");
    assert_eq!(
        node.post(&forced, same).ok(),
        json!({"entities": 2, "written": 2})
    );
    assert_eq!(offsets(&node.json(&format!("{path}?since=4"))), [5, 6]);
    let log = node.json("/api/pipes/r/log?history=false");
    let entry = log
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["_id"] == "entities-reposted");
    let entry = entry.unwrap();
    assert_eq!(
        entry["entities"],
        json!([
            {"_id": "1", "_deleted": false, "_updated": 0},
            {"_id": "3", "_deleted": true, "_updated": 4}
        ])
    );
    assert_eq!(
        (&entry["event_type"], &entry["num_entities"]),
        (&json!("entities-reposted"), &json!(2))
    );
    assert_eq!(
        (&entry["pipe_id"], &entry["user"]["user_id"]),
        (&json!("r"), &json!("anonymous"))
    );
    // One entity alone is taken, too; what is wrong is refused as a whole.
    let one = json!({"_id": "4", "$x": 1, "_own": 2});
    assert_eq!(node.post(path, one).ok()["written"], 1);
    assert!(
        node.json("/api/datasets/d/entity?entity_id=4")
            .get("_own")
            .is_none()
    );
    let wrong = json!([{"_id": "5"}, {"n": 1}]);
    node.post(path, wrong)
        .is_problem(400, "entity 1: expected a string `_id`");
    node.get("/api/datasets/d/entity?entity_id=5")
        .is_problem(404, "\"5\"");
    node.post("/api/datasets/none/entities", json!([]))
        .is_problem(404, "none");
    node.post("/api/datasets/system:config/entities", json!([]))
        .is_problem(409, "node itself");
}

#[test]
fn what_is_posted_by_hand_meets_the_demands_of_the_sink() {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "dataset": "d", "max_entity_bytes_size": 20}
    }]));
    let path = "/api/datasets/d/entities?force=true";
    node.post(path, json!([{"_id": "1", "n": "x"}])).ok();
    let large = json!([{"_id": "2"}, {"_id": "1", "n": "x".repeat(20)}]);
    node.post(path, large)
        .is_problem(400, "max_entity_bytes_size");
    assert_eq!(offsets(&node.json("/api/datasets/d/entities")), [0]);
}

#[test]
fn the_limit_of_an_entity_may_stand_in_the_metadata() {
    let node = TestNode::of(json!([
        {"_id": "node", "type": "metadata", "global_defaults": {"max_entity_bytes_size": 20}},
        {"_id": "r", "type": "pipe", "source": {"type": "http_endpoint"},
         "sink": {"type": "dataset", "dataset": "d"}}
    ]));
    let post = |text: String| {
        node.post(
            "/api/receivers/r/entities",
            json!([{"_id": "1", "n": text}]),
        )
    };
    post("x".to_owned()).ok();
    post("x".repeat(20)).is_problem(400, "max_entity_bytes_size");
}

#[test]
fn erased_entities_are_gone_with_all_their_versions() {
    let node = filled();
    let path = "/api/datasets/d/entity";
    let done = node
        .delete(&format!("{path}?entity_id=2&entity_id=3&entity_id=9"))
        .ok();
    assert_eq!(
        (&done["entities"], &done["finished"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(offsets(&node.json("/api/datasets/d/entities")), [0]);
    node.get(&format!("{path}?entity_id=2"))
        .is_problem(404, "\"2\"");
    let log = node.json("/api/pipes/r/log?history=false");
    let entry = log
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["_id"] == "entities-erased");
    assert_eq!(entry.unwrap()["num_entities"], 2);
    assert!(!log.to_string().contains("\"3\""), "{log}");
    node.delete(path).is_problem(400, "`entity_id`");
    node.delete("/api/datasets/none/entity?entity_id=1")
        .is_problem(404, "none");
    // The node's own datasets are none of this.
    node.delete("/api/datasets/system:config/entity?entity_id=r")
        .is_problem(409, "node itself");
    // The id can come again, as a new one.
    node.post("/api/receivers/r/entities", json!([{"_id": "2", "n": 1}]))
        .ok();
    assert_eq!(
        node.json(&format!("{path}?entity_id=2"))["_previous"],
        Value::Null
    );
}

#[test]
fn large_answers_are_streamed_whole() {
    let node = filled();
    let many: Vec<Value> = (0..5_000)
        .map(|n| json!({"_id": format!("n{n:05}"), "text": "x".repeat(400)}))
        .collect();
    node.post("/api/receivers/r/entities", json!(many)).ok();
    let all = node.json("/api/datasets/d/entities?history=false&deleted=false");
    assert_eq!(all.as_array().unwrap().len(), 5_002);
    let backwards = node.json("/api/datasets/d/entities?history=false&reverse=true&limit=4000");
    assert_eq!(backwards.as_array().unwrap().len(), 4_000);
    assert_eq!(backwards[0]["_id"], "n04999");
}

#[test]
fn a_deleted_dataset_is_gone_and_the_configuration_stays() {
    let node = filled();
    node.delete("/api/datasets/d").ok();
    node.get("/api/datasets/d").is_problem(404, "\"d\"");
    node.delete("/api/datasets/d").is_problem(404, "\"d\"");
    node.delete("/api/datasets/system:config")
        .is_problem(409, "configuration");
    node.post("/api/receivers/r/entities", json!([{"_id": "again"}]))
        .ok();
    assert_eq!(offsets(&node.json("/api/datasets/d/entities")), [0]);
}

#[test]
fn populated_asks_for_a_complete_dataset() {
    let node = TestNode::of(json!([{
        "_id": "r", "type": "pipe",
        "source": {"type": "http_endpoint", "auto_populate_dataset": false},
        "sink": {"type": "dataset", "dataset": "d"}
    }]));
    node.post("/api/receivers/r/entities", json!([{"_id": "1"}]))
        .ok();
    let path = "/api/datasets/d/entities";
    assert_eq!(node.get(path).header("x-dataset-populated"), "false");
    node.get(&format!("{path}?populated=true"))
        .is_problem(404, "not populated");
}

/// A node whose pipe `a` changed more than it may: two of its three entities.
fn tripped() -> TestNode {
    let mut pipe = super::embedded("a", &["1", "2", "3"]);
    pipe["sink"] = json!({"type": "dataset", "circuit_breaker_threshold_count": 1});
    let node = TestNode::of(json!([pipe]));
    assert!(succeeds(&node));
    pipe["source"]["entities"][0]["name"] = json!("one");
    pipe["source"]["entities"][1]["name"] = json!("two");
    node.put("/api/config", json!([pipe])).ok();
    assert!(!succeeds(&node));
    node
}

/// Runs the pipe `a`.
fn succeeds(node: &TestNode) -> bool {
    let hub = &node.running().node().assembly.hub;
    let live = hub.pipe("a").unwrap();
    hub.run(&live, &Default::default()).unwrap().success()
}

const COMMIT: &[(&str, &str)] = &[("operation", "commit-circuit-breaker")];
const ROLL_BACK: &[(&str, &str)] = &[("operation", "rollback-circuit-breaker")];

#[test]
fn a_tripped_circuit_breaker_is_shown_and_committed() {
    let mut node = tripped();
    node.restart();
    let names = |query: &str| {
        let all = node.json(&format!("/api/datasets/a/entities?history=false{query}"));
        let all = all.as_array().unwrap().clone();
        let mut names: Vec<String> = all
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["1", "2", "3"]);
    assert_eq!(names("&uncommitted=true"), ["3", "one", "two"]);
    let entity = node.json("/api/datasets/a/entity?entity_id=1&uncommitted=true");
    assert_eq!(entity["name"], "one");
    let runtime = node.json("/api/pipes/a")["runtime"].clone();
    assert_eq!(runtime["has-circuit-breaker"], true);
    assert_eq!(runtime["circuit-breaker"]["tripped"], true);
    assert_eq!(runtime["circuit-breaker"]["uncommitted"], 2);
    assert_eq!(
        node.json("/api/datasets/a")["runtime"]["circuit-breaker"]["pipe"],
        "a"
    );
    let metric = "sesam_pipe_circuit_breaker_tripped{pipe=\"a\"}";
    assert!(
        node.get("/api/metrics")
            .text
            .contains(&format!("{metric} 1"))
    );
    node.pump("a", &[("operation", "start")])
        .is_problem(409, "circuit breaker");
    // Nobody resets a pipe under what is held back: that is decided first.
    for operation in [
        &[("operation", "update-last-seen"), ("last-seen", "")][..],
        &[("operation", "discard-inferred-schema")],
    ] {
        node.pump("a", operation).is_problem(409, "is tripped");
    }
    node.form("/api/datasets/a", &[("operation", "explode")])
        .is_problem(400, "explode");
    node.form("/api/datasets/nowhere", COMMIT)
        .is_problem(404, "nowhere");

    let shown = node.form("/api/datasets/a", COMMIT).ok();
    assert_eq!(
        shown["runtime"]["circuit-breaker"],
        json!({"tripped": false})
    );
    assert_eq!(names(""), ["3", "one", "two"]);
    assert!(
        node.get("/api/metrics")
            .text
            .contains(&format!("{metric} 0"))
    );
    node.form("/api/datasets/a", COMMIT)
        .is_problem(409, "is not");
    assert!(succeeds(&node));
}

#[test]
fn a_tripped_circuit_breaker_is_rolled_back() {
    let node = tripped();
    node.form("/api/datasets/a", ROLL_BACK).ok();
    let all = node.json("/api/datasets/a/entities");
    assert_eq!(offsets(&all), [0, 1, 2]);
    assert_eq!(node.json("/api/datasets/a/entities?uncommitted=true"), all);
    let log = node.json("/api/pipes/a/log?reverse=true&limit=1");
    assert_eq!(log[0]["event_type"], "circuit-breaker-rollback");
    assert!(!succeeds(&node), "its source is as it was");
}

/// As the data browser does, where the sink has the index: by `_id`, else by `$ids`.
#[test]
fn an_entity_is_found_by_its_other_ids() {
    let pipe = |indexes: Value| {
        json!({
            "_id": "g", "type": "pipe", "source": {"type": "http_endpoint"},
            "sink": {"type": "dataset", "indexes": indexes}
        })
    };
    let node = TestNode::of(json!([pipe(json!("$ids"))]));
    let entities = json!([
        {"_id": "gone", "$ids": ["a-1"], "_deleted": false},
        {"_id": "one", "$ids": ["a-1", "b-1", "~:ns:c"]}, {"_id": "b-1", "own": true}
    ]);
    node.post("/api/receivers/g/entities", entities).ok();
    node.post(
        "/api/receivers/g/entities",
        json!([{"_id": "gone", "_deleted": true}]),
    )
    .ok();
    let at = "/api/datasets/g/entity?entity_id=";
    assert_eq!(node.json(&format!("{at}a-1"))["_id"], "one");
    assert_eq!(node.json(&format!("{at}~:ns:c"))["_id"], "one");
    assert_eq!(node.json("/api/datasets/g/entities/a-1")["_id"], "one");
    assert_eq!(
        node.json(&format!("{at}b-1"))["own"],
        true,
        "its own id goes first"
    );
    node.get(&format!("{at}a-1&offset=0"))
        .is_problem(404, "a-1");
    node.get(&format!("{at}nobody")).is_problem(404, "nobody");
    node.put("/api/pipes/g/config", pipe(json!([]))).ok();
    node.get(&format!("{at}a-1")).is_problem(404, "a-1");
}

/// Other methods are refused with the ones that there are; OPTIONS tells them, and how far the
/// dataset goes.
#[test]
fn options_tell_what_can_be_done() {
    let node = filled();
    let ask = |path: &str| node.send(node.request(reqwest::Method::OPTIONS, path));
    let told = ask("/api/datasets/d/entities?history=true");
    assert_eq!((told.status, told.text.as_str()), (200, ""));
    assert_eq!(told.header("allow"), "GET, HEAD, OPTIONS, POST");
    assert_eq!(told.header("x-dataset-max-updated"), "4");
    assert!(told.header("content-type").starts_with("text/plain"));
    ask("/api/datasets/none/entities").is_problem(404, "none");
    ask("/api/datasets/d/entities?subset=%5B%5D").is_problem(404, "subset");
    assert_eq!(
        ask("/api/pipes/r/log").header("allow"),
        "GET, HEAD, OPTIONS"
    );
    ask("/api/pipes/none/log").is_problem(404, "none");
    let other = ask("/api/datasets/d");
    assert_eq!(
        (other.status, other.header("allow")),
        (200, "DELETE, GET, HEAD, OPTIONS, POST")
    );
    let refused = node.put("/api/datasets/d/entities", json!([]));
    refused.is_problem(405, "PUT");
    assert_eq!(refused.header("allow"), "GET, HEAD, OPTIONS, POST");
}
