//! The built-in templates of connectors, in whole runs against a strict REST API.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tahini_hub::Hub;
use tahini_hub::execution_log::Summary;
use tahini_hub::pump::Request;
use tahini_hub::secrets::MemorySecrets;

use crate::api::{Api, CLIENT};
use crate::rest_runs::read_dataset;
use crate::runs::configured;

fn operations() -> Json {
    json!({
        "lookup": {"url": "contact/{{ entity.id }}", "method": "GET", "payload_property": "value"},
        "insert": {"url": "contact", "method": "POST", "payload_property": "value"},
        "update": {"url": "contact/{{ entity['$source']['id'] }}", "method": "PUT",
                   "payload_property": "value"},
        "delete": {"url": "contact/{{ entity.id }}", "method": "DELETE"},
        "defaults": {"url": "contact/{{ properties.pattern }}", "method": "GET",
                     "payload_property": "value"},
    })
}

fn hub(api: &Api, operations: Json, pipes: Vec<Json>) -> Hub {
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "client-secret", CLIENT.1);
    secrets.set(None, "refresh-token", &api.refresh_token());
    let mut components = vec![api.system(operations)];
    components.extend(pipes);
    configured(components, secrets)
}

fn run(hub: &Hub, pipe: &str) -> Summary {
    hub.run(&hub.pipe(pipe).unwrap(), &Request::default())
        .unwrap()
}

fn succeeds(hub: &Hub, pipe: &str) -> Summary {
    let summary = run(hub, pipe);
    assert!(summary.success(), "{pipe}: {:?}", summary.failure);
    summary
}

/// A pipe that shares these entities by the template with these properties.
fn share(entities: Json, more: Json) -> Json {
    let mut properties = json!({
        "rest_system": "crm", "primary_key": "id", "share_dataset": "share",
    });
    for (name, value) in more.as_object().unwrap() {
        properties[name] = value.clone();
    }
    json!({
        "_id": "share", "type": "pipe", "batch_size": 1, "namespaced_identifiers": false,
        "source": {"type": "embedded", "entities": entities},
        "transform": {"type": "template", "template": "transform-share-rest",
                      "properties": properties},
        "sink": {"deletion_tracking": false, "set_initial_offset": "onload"},
    })
}

fn kept(hub: &Hub) -> BTreeMap<String, Json> {
    let rows = read_dataset(hub, "share").into_iter();
    rows.map(|row| (row["_id"].as_str().unwrap().to_owned(), row))
        .collect()
}

/// The methods and paths of the requests that change something.
fn writes(api: &Api) -> Vec<String> {
    let asked = api.asked().into_iter();
    asked
        .filter(|asked| asked.method != "GET")
        .map(|asked| format!("{} {}", asked.method, asked.path))
        .collect()
}

fn known(id: u64, name: &str, based_on: &str) -> Json {
    json!({
        "_id": format!("crm:{id}"), "id": id, "name": name, "sesam_note": "ours",
        "$based_on": {"id": id, "name": based_on, "changed": "whatever"},
        "$based_on_properties": ["name", "phone", "sesam_note"],
    })
}

#[test]
fn an_entity_is_shared_as_what_it_is_says() {
    let api = Api::with(6);
    let mut forced = known(4, "Forced", "Somebody else");
    forced["$unsafe_skip_optimistic_locking"] = true.into();
    let mut gone = known(99, "Gone", "Gone");
    gone["$origin"] = "x:99".into();
    let entities = json!([
        {"_id": "x:1", "$ids": ["~:x:1"], "$origin": "x:1", "name": "New", "_note": "", "$a": 1},
        known(1, "Renamed", "Contact 1"),
        known(2, "Contact 2", "Contact 2"),
        known(3, "Overwritten", "Older"),
        forced,
        {"_id": "crm:5", "id": 5, "_deleted": true},
        {"_id": "crm:6", "id": 6, "_deleted": true, "$replaced": true},
        {"_id": "x:7", "_deleted": true},
        gone,
        {"_id": "x:8", "name": "Held", "$discard": "too early"},
        {"_id": "crm:2b", "id": 2, "name": "Blind"},
    ]);
    let hub = hub(&api, operations(), vec![share(entities, json!({}))]);
    succeeds(&hub, "share");
    let kept = kept(&hub);
    let done: Vec<(&str, &str, &Json, &Json)> = kept
        .iter()
        .map(|(id, row)| {
            let operation = row["$last_operation"].as_str().unwrap();
            (id.as_str(), operation, &row["$success"], &row["$error"])
        })
        .collect();
    let (yes, no, none) = (&json!(true), &json!(false), &Json::Null);
    let failed = &json!("error-lookup");
    assert_eq!(
        done,
        [
            ("crm:1", "update", yes, none),
            ("crm:2", "discard-entity-not-changed", none, none),
            ("crm:2b", "discard-modified-in-system", none, none),
            ("crm:3", "discard-modified-in-system", none, none),
            ("crm:4", "update", yes, none),
            ("crm:5", "delete", yes, none),
            ("crm:6", "discard-replaced", none, none),
            ("crm:99", "lookup", no, failed),
            ("x:1", "insert", yes, none),
            ("x:7", "discard-delete-non-existent", none, none),
            ("x:8", "discard-by-connector", none, none),
        ]
    );
    assert_eq!(
        writes(&api),
        [
            "POST /contact",
            "PUT /contact/1",
            "PUT /contact/4",
            "DELETE /contact/5"
        ]
    );
    assert_eq!(api.contact(1).unwrap(), json!({"id": 1, "name": "Renamed"}));
    assert_eq!(api.contact(7).unwrap(), json!({"id": 7, "name": "New"}));
    assert!(api.contact(5).is_none());
    // What was inserted is found again by its key, with where it came from.
    assert_eq!(kept["x:1"]["$generated_id"], 7);
    assert_eq!(kept["x:1"]["$origin"], "x:1");
    assert_eq!(kept["x:8"]["$reason"], "too early");
    assert_eq!(kept["crm:5"]["$deleted"], true);
    let trace = &kept["crm:1"]["$trace_update"];
    assert_eq!(trace["response_status"], 200);
    assert_eq!(trace["$comparison"]["$result"], "needs-update");
    let trace = &kept["crm:3"]["$trace_lookup"];
    assert_eq!(trace["response_body"]["name"], "Contact 3");
}

#[test]
fn what_was_inserted_is_not_inserted_again() {
    let api = Api::with(0);
    let one = json!({"_id": "x:1", "$ids": ["~:x:1"], "$origin": "x:1", "name": "A"});
    // The same thing under another id, of which the first is among the ids.
    let same = json!({"_id": "y:1", "$ids": ["~:y:1", "~:x:1"], "$origin": "y:1", "name": "A"});
    let pipe = share(json!([one, same]), json!({}));
    let hub = hub(&api, operations(), vec![pipe]);
    succeeds(&hub, "share");
    succeeds(&hub, "share");
    assert_eq!(writes(&api), ["POST /contact"]);
    let kept = kept(&hub);
    assert_eq!(kept["y:1"]["$last_operation"], "discard-already-inserted");
    assert_eq!(kept["x:1"]["$last_operation"], "discard-already-inserted");
    assert_eq!(kept["x:1"]["$generated_id"], 1);
    assert_eq!(kept["x:1"]["$success"], true);
}

#[test]
fn an_insert_needs_an_origin_and_a_key_in_the_answer() {
    let api = Api::with(0);
    let nameless = json!([{"_id": "x:1", "$ids": ["~:x:1"], "name": "A"}]);
    let hub = hub(&api, operations(), vec![share(nameless, json!({}))]);
    let failure = run(&hub, "share").failure.unwrap().to_string();
    assert!(failure.contains("$origin"), "{failure}");
    assert!(writes(&api).is_empty());

    let entity = json!([{"_id": "x:1", "$ids": ["~:x:1"], "$origin": "x:1", "name": "A"}]);
    let pipe = share(entity, json!({"primary_key_insert": "number"}));
    let hub = self::hub(&api, operations(), vec![pipe]);
    succeeds(&hub, "share");
    let kept = kept(&hub);
    assert_eq!(kept["x:1"]["$error"], "error-insert");
    assert_eq!(kept["x:1"]["$success"], false);
    assert_eq!(kept["x:1"].get("$generated_id"), None);
}

#[test]
fn an_operation_of_the_usual_name_need_not_be_there_until_it_is_used() {
    let api = Api::with(2);
    let mut operations = operations();
    operations.as_object_mut().unwrap().remove("delete");
    let pipe = |entities| share(entities, json!({}));
    let updates = json!([known(1, "Renamed", "Contact 1")]);
    succeeds(&hub(&api, operations.clone(), vec![pipe(updates)]), "share");
    let deletes = json!([{"_id": "crm:2", "id": 2, "_deleted": true}]);
    let hub = hub(&api, operations.clone(), vec![pipe(deletes.clone())]);
    let failure = run(&hub, "share").failure.unwrap().to_string();
    assert!(failure.contains("\"delete\""), "{failure}");
    let off = share(deletes, json!({"enable_deletes": false}));
    let hub = self::hub(&api, operations, vec![off]);
    succeeds(&hub, "share");
    let operation = &kept(&hub)["crm:2"]["$last_operation"];
    assert_eq!(operation, "discard-deletes-not-enabled");
    assert!(api.contact(2).is_some());
}

#[test]
fn rules_of_the_connector_rewrite_what_is_sent_and_what_is_answered() {
    let api = Api::with(2);
    let rules = json!({
        "rewrite_rules_payload": {
            "rewrite_insert_payload": [
                ["add", "$payload", ["apply", "shout", "_S."]],
            ],
            "rewrite_update_payload ": [
                ["add", "$payload", ["apply", "shout", "_S.$source"]],
            ],
            "shout": [["add", "name", ["upper", "_S.name"]],
                      ["add", "from", ["path", "_id", "_R._T.$source"]]],
        },
        "rewrite_rules_lookup": {
            "rewrite_lookup": [
                ["add", "response_body", ["apply", "lower", "_S.response_body"]],
            ],
            "lower": [["add", "name", ["lower", "_S.name"]]],
        },
        "rewrite_rules_mutation": {
            "rewrite_insert": [["add", "response_body",
                ["dict", "id", ["concat", "n", ["string", "_S.response_body.id"]]]]],
        },
        "rules": {
            "lookup_rewrite_based_on": [["filter", ["eq", "_R._S.id", 1]],
                                        ["add", "name", ["concat", "~", "_S.name"]]],
        },
    });
    let mut based = known(1, "Renamed", "~contact 1");
    based["$payload"] = json!({"name": "never sent"});
    let entities = json!([
        based,
        {"_id": "x:1", "$ids": ["~:x:1"], "$origin": "x:1", "name": "new"},
    ]);
    let hub = hub(&api, operations(), vec![share(entities, rules)]);
    succeeds(&hub, "share");
    let kept = kept(&hub);
    assert_eq!(
        kept["crm:1"]["$last_operation"], "update",
        "{}",
        kept["crm:1"]
    );
    let expected = json!({"id": 1, "name": "RENAMED", "from": "crm:1"});
    assert_eq!(api.contact(1).unwrap(), expected);
    assert_eq!(api.contact(3).unwrap()["name"], "NEW");
    assert_eq!(api.contact(3).unwrap()["from"], "x:1");
    assert_eq!(kept["x:1"]["$generated_id"], "n3");
}

#[test]
fn a_patch_is_laid_over_what_was_found() {
    let api = Api::with(1);
    let hub = hub(
        &api,
        operations(),
        vec![share(
            json!([{
                "_id": "crm:1", "id": 1, "name": "Renamed",
                "address": {"city": "Oslo"}, "lines": [{"n": 1}, {"n": 2}],
                "$based_on": {"name": "Contact 1"},
            }]),
            json!({"client_side_patching": true, "rewrite_rules_payload": {
                "rewrite_update_payload_after_patch": [
                    ["add", "$payload", ["apply", "wrap", "_S._payload"]]],
                "wrap": [["copy", "*"], ["add", "was", "_R._S.$source._id"]],
            }}),
        )],
    );
    succeeds(&hub, "share");
    let expected = json!({
        "id": 1, "name": "Renamed", "changed": "2024-05-02T00:00:00Z",
        "address": {"city": "Oslo"}, "lines": [{"n": 1}, {"n": 2}], "was": "crm:1",
    });
    assert_eq!(api.contact(1).unwrap(), expected);
    // Again, over an address and lines that are there.
    let api = Api::with(0);
    let first = json!([{"_id": "x", "$ids": [], "$origin": "x", "name": "A",
        "address": {"city": "Oslo", "zip": "0150"}, "lines": [{"n": 1, "x": 1}, {"n": 2, "x": 2}]}]);
    succeeds(
        &self::hub(&api, operations(), vec![share(first, json!({}))]),
        "share",
    );
    let second = json!([{"_id": "crm:1", "id": 1, "address": {"city": "Bergen"},
        "lines": [{"n": 7}], "$based_on": {"name": "A"}, "$based_on_properties": ["address.city"]}]);
    let mut forced = second.clone();
    forced[0]["$unsafe_skip_optimistic_locking"] = true.into();
    let patching = json!({"client_side_patching": true});
    succeeds(
        &self::hub(&api, operations(), vec![share(forced, patching)]),
        "share",
    );
    let expected = json!({"id": 1, "name": "A", "address": {"city": "Bergen", "zip": "0150"},
        "lines": [{"n": 7, "x": 1}]});
    assert_eq!(api.contact(1).unwrap(), expected);
}

#[test]
fn keys_may_be_natural_and_of_several_parts() {
    let api = Api::with(1);
    let entities = json!([
        {"_id": "x:1", "id": 7, "name": "New", "$origin": "x:1"},
        {"_id": "crm:1", "id": 1, "name": "Contact 1", "$based_on": {"name": "Contact 1"}},
    ]);
    let natural = json!({"is_natural_key": true, "primary_key": ["id", "name"]});
    let mut collect = collecting(json!({"primary_key": ["_S.id", "_S.name"]}));
    collect["source"] = json!({"type": "embedded", "entities": [
        {"_id": "7", "id": 7, "name": "New"}, {"_id": "8", "id": 7, "name": "Other"}
    ]});
    let hub = hub(&api, operations(), vec![share(entities, natural), collect]);
    succeeds(&hub, "share");
    assert_eq!(writes(&api), ["POST /contact"]);
    let kept = kept(&hub);
    assert_eq!(kept["x:1"]["$generated_id"], json!([7, "New"]));
    assert_eq!(
        kept["crm:1"]["$last_operation"],
        "discard-entity-not-changed"
    );
    succeeds(&hub, "collect");
    let collected = read_dataset(&hub, "collect");
    assert_eq!(collected[0]["$origin"], "x:1");
    assert_eq!(collected[1].get("$origin"), None);
}

/// A pipe that collects by the template.
fn collecting(more: Json) -> Json {
    let mut properties = json!({
        "rest_system": "crm", "primary_key": "id", "share_dataset": "share",
    });
    for (name, value) in more.as_object().unwrap() {
        properties[name] = value.clone();
    }
    json!({
        "_id": "collect", "type": "pipe", "namespaced_identifiers": false,
        "source": {"type": "embedded", "entities": []},
        "transform": [{"type": "template", "template": "transform-collect-rest",
                       "properties": properties}],
    })
}

#[test]
fn what_is_collected_carries_the_origin_of_what_was_inserted() {
    let api = Api::with(1);
    let new = json!([{"_id": "x:1", "$ids": ["~:x:1"], "$origin": "x:1", "name": "A"}]);
    let mut collect = collecting(json!({}));
    collect["source"] = json!({"type": "embedded", "entities": [
        {"_id": "1", "id": 1}, {"_id": "2", "id": 2}
    ]});
    let hub = hub(&api, operations(), vec![share(new, json!({})), collect]);
    succeeds(&hub, "share");
    succeeds(&hub, "collect");
    let collected = read_dataset(&hub, "collect");
    assert_eq!(collected[0].get("$origin"), None);
    assert_eq!(collected[1]["$origin"], "x:1");
}

#[test]
fn deletions_are_verified_and_entities_looked_up() {
    let api = Api::with(2);
    let entities = json!([
        {"_id": "1", "id": 1, "name": "as it was", "_deleted": true},
        {"_id": "2", "id": 2, "name": "listed"},
        {"_id": "9", "id": 9, "name": "gone"},
    ]);
    let mut verifying = collecting(json!({"operation_lookup_delete": "lookup"}));
    verifying["source"]["entities"] = entities.clone();
    let share = share(json!([]), json!({}));
    let hub = hub(&api, operations(), vec![share.clone(), verifying]);
    succeeds(&hub, "share");
    succeeds(&hub, "collect");
    let collected = read_dataset(&hub, "collect");
    let alive: Vec<&Json> = collected.iter().map(|row| &row["_id"]).collect();
    assert_eq!(alive, ["1", "2", "9"]);
    assert_eq!(api.asked().len(), 1);

    let mut looking = collecting(json!({
        "operation_lookup": "lookup", "original_property": "original",
    }));
    looking["source"]["entities"] = entities;
    let hub = self::hub(&api, operations(), vec![share, looking]);
    succeeds(&hub, "share");
    succeeds(&hub, "collect");
    let collected = read_dataset(&hub, "collect");
    let names: Vec<&Json> = collected.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["Contact 2"]);
    assert_eq!(collected[0]["original"]["name"], "listed");
}

#[test]
fn new_entities_get_what_the_system_says_that_new_ones_have() {
    let api = Api::with(1);
    let pipe = json!({
        "_id": "with-defaults", "type": "pipe", "namespaced_identifiers": false,
        "source": {"type": "embedded", "entities": [
            {"_id": "a", "name": "Own", "changed": null},
            {"_id": "b", "id": 5, "name": "Known"},
            {"_id": "c", "_deleted": true},
        ]},
        "transform": {"type": "template", "template": "transform-defaults-rest", "properties": {
            "rest_system": "crm", "primary_key": "id", "operation_properties": {"pattern": 1},
        }},
    });
    let hub = hub(&api, operations(), vec![pipe]);
    succeeds(&hub, "with-defaults");
    let rows = read_dataset(&hub, "with-defaults");
    let expected = [
        json!({"_id": "a", "name": "Own", "changed": "2024-05-02T00:00:00Z"}),
        json!({"_id": "b", "id": 5, "name": "Known"}),
    ];
    for (row, expected) in rows.iter().zip(&expected) {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&row[name], value, "{row}");
        }
        assert_eq!(row.get("$template_new"), None);
        assert_eq!(row.get("id"), expected.get("id"));
    }
    assert_eq!(api.asked().len(), 1);
}
