//! The patterns that the reference's documentation prints for data synchronisation, with its
//! printed errors corrected (`docs/guide/patterns.md` lists them), in whole runs.

use serde_json::{Value as Json, json};
use tahini_hub::Hub;
use tahini_hub::pump::Request;
use tahini_hub::receiver::{Push, receive};
use tahini_hub::secrets::MemorySecrets;

use crate::api::{Api, CLIENT};
use crate::rest_runs::read_dataset;
use crate::runs::configured;

fn operations() -> Json {
    json!({
        "contact-list": {
            "url": "contacts-by-link?limit={{ page_size }}", "method": "GET", "page_size": 10,
            "id_expression": "{{ id }}",
            "next_page_link": "{%if (headers.link.next is defined)%}{{headers.link.next}}{%endif%}",
            "next_page_termination_strategy": ["next-page-link-empty"],
        },
        "contact-list-by-number": {
            "url": "contacts-by-page?limit={{ page_size }}", "method": "GET", "page_size": 10,
            "id_expression": "{{ id }}", "payload_property": "results",
            "next_page_link": "contacts-by-page?limit={{ page_size }}",
            "params": {
                "page": "{% if previous_params.page is not defined %}1{% else %}{{ previous_params.page|int+1|int }}{% endif %}",
            },
            "next_page_termination_strategy": ["empty-result"],
        },
        "contact-lookup": {"url": "contact/{{ entity.id }}", "method": "GET",
                           "payload_property": "value"},
        "contact-insert": {"url": "contact", "method": "POST", "payload_property": "value"},
        "contact-update": {"url": "contact/{{ entity.id }}", "method": "PUT"},
        "contact-delete": {"url": "contact/{{ entity.id }}", "method": "DELETE"},
    })
}

fn hub(api: &Api, pipes: &[Json]) -> Hub {
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "client-secret", CLIENT.1);
    secrets.set(None, "refresh-token", &api.refresh_token());
    let mut components = vec![api.system(operations())];
    for pipe in pipes {
        let mut pipe = pipe.clone();
        pipe["type"] = "pipe".into();
        pipe["namespaced_identifiers"] = false.into();
        components.push(pipe);
    }
    configured(components, secrets)
}

fn run(hub: &Hub, pipe: &str) {
    let live = hub.pipe(pipe).unwrap();
    let summary = hub.run(&live, &Request::default()).unwrap();
    assert!(summary.success(), "{pipe}: {:?}", summary.failure);
}

/// A pipe with these entities.
fn embedded(id: &str, entities: Json) -> Json {
    json!({"_id": id, "source": {"type": "embedded", "entities": entities}})
}

fn dataset(name: &str) -> Json {
    json!({"type": "dataset", "dataset": name})
}

/// The methods and paths of the requests that change something.
fn writes(api: &Api) -> Vec<String> {
    let asked = api.asked().into_iter();
    asked
        .filter(|asked| asked.method != "GET")
        .map(|asked| format!("{} {}", asked.method, asked.path))
        .collect()
}

#[test]
fn optimistic_locking() {
    let api = Api::with(2);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-contact-collect",
                json!([
                    {"_id": "1", "id": 1, "name": "Contact 1", "changed": "2024-05-02T00:00:00Z"},
                    {"_id": "2", "id": 2, "name": "Older", "changed": "2024-05-03T00:00:00Z"},
                ]),
            ),
            embedded(
                "crm-contact-transform",
                json!([
                    {"_id": "1", "id": 1, "payload": {"name": "Ours 1"}},
                    {"_id": "2", "id": 2, "payload": {"name": "Ours 2"}},
                ]),
            ),
            json!({
                "_id": "crm-contact-share-update",
                "source": dataset("crm-contact-transform"),
                "sink": {"type": "rest", "system": "crm", "operation": "contact-update"},
                "transform": [
                    {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
                    {"type": "rest", "system": "crm", "operation": "contact-lookup",
                     "side_effects": false},
                    {"type": "dtl", "rules": {
                        "default": [
                            ["add", "_old", ["first", ["hops", {
                                "datasets": ["crm-contact-collect a"],
                                "where": [["eq", "_S.id", "a.id"]],
                                "track-dependencies": false
                            }]]],
                            ["add", "_json_old",
                                ["json-transit", ["apply", "remove-under", "_T._old"]]],
                            ["add", "_json_new", ["first",
                                ["json-transit", ["apply", "remove-under", "_S.response"]]]],
                            ["add", "_hash_old", ["hash128", "murmur3", "_T._json_old"]],
                            ["add", "_hash_new", ["hash128", "murmur3", "_T._json_new"]],
                            ["if", ["eq", "_T._hash_old", "_T._hash_new"],
                                [["copy", "id"], ["add", "payload", "_S.payload"]],
                                [["discard"]]]
                        ],
                        "remove-under": [["copy", "*", "_*"]]
                    }},
                ],
            }),
        ],
    );
    for pipe in [
        "crm-contact-collect",
        "crm-contact-transform",
        "crm-contact-share-update",
    ] {
        run(&hub, pipe);
    }
    assert_eq!(writes(&api), ["PUT /contact/1"]);
    assert_eq!(api.contact(1).unwrap()["name"], "Ours 1");
    assert_eq!(api.contact(2).unwrap()["name"], "Contact 2");
}

#[test]
fn insert() {
    let api = Api::with(0);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-contact-transform",
                json!([
                    {"_id": "hr:1", "$ids": ["~:hr:1"], "payload": {"name": "New"}},
                    {"_id": "hr:2", "_deleted": true},
                ]),
            ),
            json!({
                "_id": "crm-contact-share-insert",
                "batch_size": 1,
                "metadata": {"durable": true},
                "source": dataset("crm-contact-transform"),
                "sink": {"set_initial_offset": "onload", "deletion_tracking": false},
                "transform": [
                    {"type": "dtl", "rules": {"default": [
                        ["discard", ["and",
                            ["neq", "_S._deleted", true],
                            ["is-empty", ["hops", {
                                "datasets": ["crm-contact-share-insert si"],
                                "where": [["eq", "_S._id", "si.$original_id"]],
                                "track-dependencies": false
                            }]]]],
                        ["copy", "*"]
                    ]}},
                    {"type": "rest", "system": "crm", "operation": "contact-insert",
                     "side_effects": true},
                    {"type": "dtl", "rules": {"default": [
                        ["add", "_id", ["string", "_S.response.id"]],
                        ["add", "$original_id", "_S._id"],
                        ["add", "original_ids", "_S.$ids"],
                        ["add", "audit_log", "_S.response"]
                    ]}},
                ],
            }),
            json!({
                "_id": "crm-contact-enrich",
                "source": {"type": "embedded", "entities": [{"_id": "1", "id": 1}]},
                "transform": {"type": "dtl", "rules": {"default": [
                    ["copy", "*"],
                    ["add", "sesam-id", ["flatten", ["hops", {
                        "datasets": ["crm-contact-share-insert i"],
                        "where": [["eq", ["string", "_S.id"], "i._id"]],
                        "return": "i.original_ids",
                        "track-dependencies": false
                    }]]]
                ]}},
            }),
        ],
    );
    run(&hub, "crm-contact-transform");
    run(&hub, "crm-contact-share-insert");
    // The pipe begins anew, and what was inserted is not inserted again.
    hub.set_offset("crm-contact-share-insert", None, &Default::default())
        .unwrap();
    run(&hub, "crm-contact-share-insert");
    assert_eq!(writes(&api), ["POST /contact"]);
    let kept = read_dataset(&hub, "crm-contact-share-insert");
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["_id"], "1");
    assert_eq!(kept[0]["audit_log"], json!({"id": 1, "name": "New"}));
    run(&hub, "crm-contact-enrich");
    let enriched = read_dataset(&hub, "crm-contact-enrich");
    assert_eq!(enriched[0]["sesam-id"], json!(["~:hr:1"]));
}

#[test]
fn delete() {
    let api = Api::with(3);
    let hub = hub(
        &api,
        &[json!({
            "_id": "crm-contact-share-delete",
            "source": {"type": "embedded", "entities": [
                {"_id": "1", "id": 1, "_deleted": true},
                {"_id": "2", "id": 2, "_deleted": true, "$replaced": true},
                {"_id": "3", "id": 3},
            ]},
            "transform": [
                {"type": "dtl", "rules": {"default": [
                    ["discard", ["and", ["eq", "_S._deleted", true], ["neq", "_S.$replaced", true]]],
                    ["copy", "id"],
                    ["add", "_deleted", true]
                ]}},
                {"type": "rest", "system": "crm", "operation": "contact-delete",
                 "side_effects": true, "response_status_property": "response_status"},
            ],
            "sink": {"deletion_tracking": false},
        })],
    );
    run(&hub, "crm-contact-share-delete");
    assert_eq!(writes(&api), ["DELETE /contact/1"]);
}

#[test]
fn capture_response() {
    let api = Api::with(1);
    let pipe = |entities: Json| {
        json!({
            "_id": "crm-contact-share", "batch_size": 1,
            "source": {"type": "embedded", "entities": entities},
            "transform": {"type": "chained", "transforms": [
                {"type": "dtl", "rules": {"default": [
                    ["copy", "_id"],
                    ["add", "payload", ["apply", "own", "_S."]],
                    ["if", ["all", ["is-null", "_."],
                            ["map", ["path", "_.", "_S."], ["list", "id"]]],
                        ["add", "$operation", "insert"]]
                ], "own": [["copy", "*", "_*"]]}},
                {"type": "rest", "system": "crm", "operation": "contact-insert",
                 "allowed_status_codes": "100-428,430-599", "replace_entity": false,
                 "response_property": "response_body",
                 "response_status_property": "response_status", "side_effects": true,
                 "trigger_on": {"key": "$operation", "value": "insert"}},
                {"type": "dtl", "rules": {"default": [
                    ["copy", "*"],
                    ["if", ["eq", "_S.$operation", "insert"],
                        ["if", ["not", ["in", "_S.response_status", ["list", 200, 201, 204]]],
                            ["add", "$error", "error-insert"],
                            [
                                ["add", "$generated_id", ["first", "_S.response_body.id"]],
                                ["if", ["is-null", "_T.$generated_id"],
                                    ["trip!", "Generated primary key is incomplete or not found"]]
                            ]]]
                ]}}
            ]},
        })
    };
    let entities = json!([{"_id": "a", "name": "New"}, {"_id": "b", "id": 1, "name": "Known"}]);
    let hub = hub(&api, &[pipe(entities)]);
    run(&hub, "crm-contact-share");
    assert_eq!(writes(&api), ["POST /contact"]);
    let kept = read_dataset(&hub, "crm-contact-share");
    assert_eq!(kept[0]["$generated_id"], 2);
    assert_eq!(kept[0]["response_body"], json!({"id": 2, "name": "New"}));
    assert_eq!(kept[1].get("$generated_id"), None);
}

#[test]
fn pagination() {
    for (operation, requests) in [("contact-list", 3), ("contact-list-by-number", 4)] {
        let api = Api::with(25);
        let hub = hub(
            &api,
            &[json!({
                "_id": "crm-contact-all",
                "source": {"type": "rest", "system": "crm", "operation": operation},
            })],
        );
        run(&hub, "crm-contact-all");
        assert_eq!(
            read_dataset(&hub, "crm-contact-all").len(),
            25,
            "{operation}"
        );
        assert_eq!(api.asked().len(), requests, "{operation}");
    }
}

#[test]
fn parameterised_datatypes() {
    let api = Api::with(3);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-account-collect",
                json!([
                    {"_id": "a", "contacts": [{"id": 1}, {"id": 2}]},
                    {"_id": "b", "contacts": [{"id": 3}]},
                ]),
            ),
            json!({
                "_id": "crm-contact-all",
                "source": dataset("crm-account-collect"),
                "transform": [{"type": "dtl", "rules": {
                    "create_rows": [
                        ["add", "_id", ["string", "_S.id"]],
                        ["add", "id", "_S.id"],
                        ["add", "$original_id", "_R._S._id"]
                    ],
                    "default": [["create-child", ["apply", "create_rows", "_S.contacts"]]]
                }}],
            }),
            json!({
                "_id": "crm-contact-all2",
                "source": dataset("crm-contact-all"),
                "transform": [{"type": "emit_children"}],
            }),
            json!({
                "_id": "crm-contact-collect",
                "exclude_completeness": ["crm-contact-share"],
                "source": dataset("crm-contact-all2"),
                "transform": [
                    {"type": "dtl", "rules": {"default": [
                        ["filter", ["neq", "_S._deleted", true]],
                        ["copy", "*"]
                    ]}},
                    {"type": "rest", "system": "crm", "operation": "contact-lookup",
                     "replace_entity": false, "side_effects": false},
                    {"type": "dtl", "rules": {"default": [
                        ["merge", "_S.response"],
                        ["add", "$last-modified",
                            ["datetime-parse", "%Y-%m-%dT%H:%M:%SZ", "_S.response.changed"]]
                    ]}},
                    {"type": "template", "template": "transform-collect-rest", "properties": {
                        "rest_system": "crm", "primary_key": "id",
                        "operation_lookup_delete": "contact-lookup",
                        "share_dataset": "crm-contact-share"
                    }},
                ],
            }),
            embedded("crm-contact-share", json!([])),
        ],
    );
    for pipe in [
        "crm-contact-share",
        "crm-account-collect",
        "crm-contact-all",
        "crm-contact-all2",
        "crm-contact-collect",
    ] {
        run(&hub, pipe);
    }
    let collected = read_dataset(&hub, "crm-contact-collect");
    let names: Vec<&Json> = collected.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["Contact 1", "Contact 2", "Contact 3"]);
    assert_eq!(collected[0]["$last-modified"], "~t2024-05-02T00:00:00Z");
    assert!(api.asked().iter().all(|asked| asked.method == "GET"));
}

#[test]
fn verified_deletes() {
    let api = Api::with(1);
    let hub = hub(
        &api,
        &[json!({
            "_id": "crm-contact-collect",
            "source": {"type": "embedded", "entities": [
                {"_id": "1", "id": 1, "_deleted": true}, {"_id": "2", "id": 2}
            ]},
            "transform": [
                {"type": "dtl", "rules": {"default": [
                    ["copy", "*"],
                    ["if", ["eq", "_S._deleted", true], ["add", "$operation", "lookup-delete"]]
                ]}},
                {"type": "rest", "system": "crm", "operation": "contact-lookup",
                 "allowed_status_codes": "200,404", "replace_entity": false,
                 "response_property": "response_body", "response_status_property": "response_status",
                 "side_effects": false,
                 "trigger_on": {"key": "$operation", "value": "lookup-delete"}},
                {"type": "dtl", "rules": {"default": [
                    ["copy", "*", ["list", "response_body", "response_status", "$operation"]],
                    ["if", ["and", ["eq", "_S.$operation", "lookup-delete"],
                                   ["eq", "_S.response_status", 200]],
                        ["add", "_deleted", false]]
                ]}},
            ],
        })],
    );
    run(&hub, "crm-contact-collect");
    assert_eq!(read_dataset(&hub, "crm-contact-collect").len(), 2);
}

#[test]
fn webhooks_are_registered_once() {
    let api = Api::with(2);
    let hub = hub(
        &api,
        &[json!({
            "_id": "crm-contact-registerwebhook",
            "sink": {"deletion_tracking": false, "set_initial_offset": "onload"},
            "source": {"type": "embedded", "supports_since": true, "entities": [{
                "_id": "contact-create", "_updated": 0,
                "properties": {"webhook": {
                    "address": "https://hub/api/receivers/crm-contact-event/entities",
                    "topic": "contact/create"
                }}
            }]},
            "transform": [
                {"type": "dtl", "rules": {"default": [
                    ["copy", "properties"],
                    ["add", "id", ["first", ["hops", {
                        "datasets": ["crm-contact-registerwebhook sink"],
                        "where": [["eq", "_S._id", "sink._id"]],
                        "return": "sink.insert_response.id",
                        "track-dependencies": false
                    }]]],
                    ["add", "$operation", ["if", ["is-not-null", "_T.id"], "lookup", "insert"]]
                ]}},
                {"type": "rest", "system": "crm", "operation": "contact-lookup",
                 "allowed_status_codes": "200,404", "replace_entity": false,
                 "response_property": "lookup_response",
                 "response_status_property": "lookup_status_code", "side_effects": false,
                 "trigger_on": {"key": "$operation", "value": "lookup"}},
                {"type": "dtl", "rules": {"default": [
                    ["add", "payload", ["dict", "webhook", "_S.properties.webhook"]],
                    ["copy", "*"],
                    ["discard", ["or",
                        ["eq", 404, "_T.lookup_status_code"],
                        ["eq", "_S.$operation", "insert"]]]
                ]}},
                {"type": "rest", "system": "crm", "operation": "contact-insert",
                 "allowed_status_codes": "200,201", "replace_entity": false,
                 "response_property": "insert_response",
                 "response_status_property": "insert_status_code", "side_effects": true},
            ],
        })],
    );
    run(&hub, "crm-contact-registerwebhook");
    hub.set_offset("crm-contact-registerwebhook", None, &Default::default())
        .unwrap();
    run(&hub, "crm-contact-registerwebhook");
    // It was there the second time, and was not registered again.
    assert_eq!(writes(&api), ["POST /contact"]);
    assert_eq!(
        api.contact(3).unwrap()["webhook"]["topic"],
        "contact/create"
    );
}

#[test]
fn events_are_looked_up_and_combined_with_what_is_listed() {
    let api = Api::with(2);
    let hub = hub(
        &api,
        &[
            json!({
                "_id": "crm-contact-event",
                "compaction": {"keep_versions": 1},
                "sink": {"set_initial_offset": "onload"},
                "source": {"type": "http_endpoint", "system": "crm"},
            }),
            json!({
                "_id": "crm-contact-event2",
                "sink": {"deletion_tracking": false, "set_initial_offset": "onload"},
                "source": {"type": "dataset", "dataset": "crm-contact-event", "subset":
                    ["eq", ["matches", "contact.*", ["list", "_S.topic"]], true]},
                "transform": [
                    {"type": "rest", "system": "crm", "operation": "contact-lookup",
                     "allowed_status_codes": "200,404", "replace_entity": false,
                     "response_status_property": "status"},
                    {"type": "dtl", "rules": {"default": [
                        ["if", ["eq", "contact.deletion", "_S.topic"], ["add", "_deleted", true]],
                        ["if", ["neq", 404, "_S.status"],
                            ["merge", "_S.response"],
                            ["discard", ["eq", "contact.deletion", "_S.topic"]]]
                    ]}},
                ],
            }),
            embedded(
                "crm-contact-all",
                json!([{"_id": "2", "id": 2, "name": "as listed"}]),
            ),
            json!({
                "_id": "crm-contact-collect",
                "source": {"type": "merge_datasets",
                           "datasets": ["crm-contact-all", "crm-contact-event2"]},
            }),
        ],
    );
    run(&hub, "crm-contact-all");
    let events = br#"[{"_id": "1", "id": 1, "topic": "contact.change"},
        {"_id": "9", "id": 9, "topic": "contact.change"},
        {"_id": "2", "id": 2, "topic": "invoice.change"}]"#;
    let live = hub.pipe("crm-contact-event").unwrap();
    receive(&hub, &live, &Push::default(), events.as_slice()).unwrap();
    run(&hub, "crm-contact-event2");
    run(&hub, "crm-contact-collect");
    let collected = read_dataset(&hub, "crm-contact-collect");
    let told: Vec<(&Json, &Json)> = collected
        .iter()
        .map(|row| (&row["_id"], &row["name"]))
        .collect();
    let (one, two) = (json!("1"), json!("2"));
    let (first, second) = (json!("Contact 1"), json!("as listed"));
    let mut told = told;
    told.sort_by_key(|(id, _)| id.as_str().unwrap().to_owned());
    assert_eq!(told, [(&one, &first), (&two, &second)]);
}

#[test]
fn an_origin_is_established_and_an_insert_not_repeated() {
    let api = Api::with(0);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-contact-share",
                json!([
                    {"_id": "hr:1", "$generated_id": 7, "$origin": "hr:1"}
                ]),
            ),
            json!({
                "_id": "crm-contact-collect",
                "source": {"type": "embedded", "entities": [{"_id": "7", "id": 7}, {"_id": "8", "id": 8}]},
                "transform": {"type": "dtl", "rules": {"default": [
                    ["copy", "*"],
                    ["merge-union", ["map", ["dict", "origin_entity", "_."], ["hops", {
                        "datasets": ["crm-contact-share st"],
                        "where": [["eq", "_S.id", "st.$generated_id"]],
                        "track-dependencies": false
                    }]]],
                    ["add-if", "$origin", ["first", "_T.origin_entity.$origin"]],
                    ["remove", "origin_entity"]
                ]}},
            }),
            json!({
                "_id": "blocked",
                "source": {"type": "embedded", "entities": [
                    {"_id": "a", "$ids": ["~:hr:1", "~:x:1"]}, {"_id": "b", "$ids": ["~:x:2"]}
                ]},
                "transform": {"type": "dtl", "rules": {"default": [
                    ["copy", "_id"],
                    ["if", ["is-not-empty", ["filter", ["is-not-null", "_."], ["hops", {
                            "datasets": ["crm-contact-share st"],
                            "where": [["eq", "_S.$ids", ["ni", "st._id"]]],
                            "return": "st.$generated_id",
                            "track-dependencies": false
                        }]]],
                        ["add", "$discard", "already-inserted"]]
                ]}},
            }),
        ],
    );
    for pipe in ["crm-contact-share", "crm-contact-collect", "blocked"] {
        run(&hub, pipe);
    }
    let collected = read_dataset(&hub, "crm-contact-collect");
    assert_eq!(collected[0]["$origin"], "hr:1");
    assert_eq!(collected[1].get("$origin"), None);
    let blocked = read_dataset(&hub, "blocked");
    assert_eq!(blocked[0]["$discard"], "already-inserted");
    assert_eq!(blocked[1].get("$discard"), None);
}

#[test]
fn webhooks_of_our_own_are_wiped_and_no_others() {
    let api = Api::with(3);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-contact-collect",
                json!([
                    {"_id": "1", "id": 1, "address": "https://abc.sesam.cloud/api/receivers/x"},
                    {"_id": "2", "id": 2, "address": "https://somebody.example/hook"},
                    {"_id": "3", "id": 3, "_deleted": true,
                     "address": "https://abc.sesam.cloud/api/receivers/y"},
                ]),
            ),
            json!({
                "_id": "crm-contact-wipe",
                "pump": {"mode": "manual", "run_at_startup_if_not_populated": true},
                "source": {"dataset": "crm-contact-collect", "type": "dataset"},
                "transform": [
                    {"rules": {"default": [
                        ["copy", "*"],
                        ["discard", ["matches", "https://*.sesam.cloud/*", "_S.address"]]
                    ]}, "type": "dtl"},
                    {"operation": "contact-delete", "response_status_property": "status_code",
                     "system": "crm", "trace": true,
                     "trigger_on": {"key": "_deleted", "value": false}, "type": "rest"},
                ],
            }),
        ],
    );
    run(&hub, "crm-contact-collect");
    run(&hub, "crm-contact-wipe");
    // What was deleted there already is not deleted again.
    assert_eq!(writes(&api), ["DELETE /contact/1"]);
    let wiped = read_dataset(&hub, "crm-contact-wipe");
    let told = |row: &Json| (row["_id"].clone(), row["status_code"].clone());
    let told: Vec<(Json, Json)> = wiped.iter().map(told).collect();
    assert_eq!(told, [(json!("1"), json!(204))]);
}

#[test]
fn continuation() {
    let api = Api::with(3);
    let mut components = vec![api.system(json!({"contact-list": {
        "method": "GET", "url": format!("{}/contacts-by-link", api.url()),
        "since_property_name": "since", "since_property_location": "query",
        "updated_expression": "{{ changed }}", "id_expression": "{{ id }}",
    }}))];
    components.push(json!({
        "_id": "crm-contact-all", "type": "pipe", "namespaced_identifiers": false,
        "pump": {"schedule_interval": 30, "rescan_cron_expression": "0 * * * *"},
        "source": {
            "operation": "contact-list", "initial_since_value": "2024-05-03T00:00:00Z",
            "supports_since": true, "system": "crm", "type": "rest",
        },
    }));
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "client-secret", CLIENT.1);
    secrets.set(None, "refresh-token", &api.refresh_token());
    let hub = configured(components, secrets);
    run(&hub, "crm-contact-all");
    run(&hub, "crm-contact-all");
    let since: Vec<Option<String>> = api
        .asked()
        .iter()
        .map(|asked| asked.query.get("since").cloned())
        .collect();
    let since: Vec<Option<&str>> = since.iter().map(Option::as_deref).collect();
    let (initial, newest) = ("2024-05-03T00:00:00Z", "2024-05-04T00:00:00Z");
    assert_eq!(since, [Some(initial), Some(newest)]);
    let rows = read_dataset(&hub, "crm-contact-all");
    let ids: Vec<&Json> = rows.iter().map(|row| &row["_id"]).collect();
    assert_eq!(ids, ["2", "3"]);
}

#[test]
fn synthetic_properties() {
    let api = Api::with(0);
    let hub = hub(
        &api,
        &[
            embedded(
                "crm-order-collect",
                json!([{"_id": "7", "id": 7, "lines": [{"number": 1, "text": "a"}, {"number": 2}]}]),
            ),
            json!({
                "_id": "crm-line-all",
                "source": {"dataset": "crm-order-collect", "type": "dataset"},
                "transform": {
                    "rules": {
                        "create-versions": [
                            ["copy", "*"],
                            ["add", "_id", ["string", "_S.number"]],
                            ["add", "sesam_id", "_R._S.id"]
                        ],
                        "default": [["create-child", ["apply", "create-versions", "_S.lines"]]]
                    },
                    "type": "dtl"
                },
            }),
            json!({
                "_id": "crm-line-all2",
                "source": {"dataset": "crm-line-all", "type": "dataset"},
                "transform": {"type": "emit_children"},
            }),
        ],
    );
    for pipe in ["crm-order-collect", "crm-line-all", "crm-line-all2"] {
        run(&hub, pipe);
    }
    let rows = read_dataset(&hub, "crm-line-all2");
    let told: Vec<Json> = rows
        .iter()
        .map(|row| json!([row["_id"], row["number"], row["text"], row["sesam_id"]]))
        .collect();
    assert_eq!(told, [json!(["1", 1, "a", 7]), json!(["2", 2, null, 7])]);
}

/// As it is printed; `global-contact` is merged before.
fn namespace_split(datatype: &str) -> Json {
    json!({
        "_id": format!("{datatype}-transform-split"), "type": "pipe",
        "source": {"type": "dataset", "dataset": "global-contact"},
        "transform": [{
            "type": "dtl",
            "rules": {
                "default": [
                    ["copy", "*"],
                    ["if",
                        ["in", datatype, ["map", ["ni-ns", "_."], "_S.$ids"]],
                        [["create", ["apply", "emit",
                            ["filter", ["eq", ["ni-ns", "_."], datatype], "_S.$ids"]]]],
                        [["create", ["apply", "emit-new", ["list", "_S.$ids"]]]]
                    ],
                    ["discard"]
                ],
                "emit": [
                    ["merge-union", "_R._T"],
                    ["add", "_id", ["string", "_S."]],
                    ["add", "$ids", "_R._S.$ids"],
                    ["add", format!("{datatype}:id"), ["ni-id", "_S."]],
                    ["add", "_deleted", "_R._S._deleted"]
                ],
                "emit-new": [
                    ["merge-union", "_R._T"],
                    ["add", "_id", "_R._S._id"],
                    ["add", "_deleted", "_R._S._deleted"]
                ]
            }
        }],
        "add_namespaces": false
    })
}

#[test]
fn a_merged_entity_is_split_by_namespace() {
    let merged = json!([
        {"_id": "hr-person:9", "$ids": ["~:hr-person:9", "~:crm-contact:1"], "name": "Ada"},
        {"_id": "hr-person:5", "$ids": ["~:hr-person:5"], "name": "Bob"},
        {"_id": "hr-person:6", "$ids": ["~:hr-person:6", "~:crm-contact:2", "~:crm-contact:3"],
         "name": "Twice"},
    ]);
    let hub = configured(
        vec![
            json!({"_id": "global-contact", "type": "pipe", "add_namespaces": false,
                   "source": {"type": "embedded", "entities": merged}}),
            namespace_split("crm-contact"),
        ],
        MemorySecrets::default(),
    );
    run(&hub, "global-contact");
    run(&hub, "crm-contact-transform-split");
    let rows = read_dataset(&hub, "crm-contact-transform-split");
    let mut told: Vec<(String, String, Json)> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("_id"), text("name"), row["crm-contact:id"].clone())
        })
        .collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let row = |id: &str, name: &str, own: Json| (id.to_owned(), name.to_owned(), own);
    // Each system gets its own id, and what it does not have yet comes under the merged one.
    assert_eq!(
        told,
        [
            row("crm-contact:1", "Ada", json!("1")),
            row("crm-contact:2", "Twice", json!("2")),
            row("crm-contact:3", "Twice", json!("3")),
            row("hr-person:5", "Bob", Json::Null),
        ]
    );
}
