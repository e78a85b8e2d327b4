//! Whole runs of pipes against a strict REST API: what arrives, and what the log tells.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_hub::Hub;
use tahini_hub::execution_log::{Summary, dataset_id};
use tahini_hub::pump::Request;
use tahini_hub::secrets::{MemorySecrets, Vault};
use tahini_store::{Limit, View};

use crate::api::{Api, CLIENT, FIRST_REFRESH, Fault};
use crate::runs::{configured, with_secrets};

fn hub(api: &Api, operations: Json, more: Json) -> Hub {
    let mut pipe = json!({"_id": "p", "type": "pipe"});
    for (name, value) in more.as_object().unwrap() {
        pipe[name] = value.clone();
    }
    let mut secrets = MemorySecrets::default();
    secrets.set(Some("crm"), "client-secret", CLIENT.1);
    secrets.set(Some("crm"), "refresh-token", FIRST_REFRESH);
    configured(vec![api.system(operations), pipe], secrets)
}

fn run(hub: &Hub) -> Summary {
    hub.run(&hub.pipe("p").unwrap(), &Request::default())
        .unwrap()
}

fn read(hub: &Hub, dataset: &str, fields: Fields) -> Vec<Json> {
    let dataset = hub.world.store.find(dataset).unwrap().unwrap();
    let view = View {
        history: false,
        deleted: false,
    };
    let limit = Limit {
        rows: 1000,
        bytes: usize::MAX,
    };
    let mut batch = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.changes(None, view, limit, &mut batch).unwrap();
    let text = batch.iter().map(|record| {
        let mut text = Vec::new();
        write_record(record, fields, &mut text);
        serde_json::from_slice(&text).unwrap()
    });
    text.collect()
}

/// The entities of a dataset that are not deleted.
pub fn read_dataset(hub: &Hub, dataset: &str) -> Vec<Json> {
    read(hub, dataset, Fields::CONTENT)
}

fn stored(hub: &Hub) -> Vec<Json> {
    read(hub, "p", Fields::CONTENT)
}

/// The entry of that id in the pipe's execution log.
fn entry(hub: &Hub, id: &str) -> Json {
    let entries = read(hub, &dataset_id("p"), Fields::CONTENT);
    let found = entries
        .into_iter()
        .find(|entry| entry["_id"].as_str().unwrap().starts_with(id));
    found.unwrap_or_else(|| panic!("no entry {id}"))
}

fn collects(operation: &str) -> Json {
    json!({"source": {
        "type": "rest", "system": "crm", "operation": operation, "trace": true,
    }})
}

/// The four ways in which lists are paged.
fn listing() -> Json {
    json!({
        "by-page": {
            "url": "contacts-by-page", "method": "GET", "payload_property": "results",
            "id_expression": "{{ id }}", "page_size": 10,
            "params": {"page": "{{ page + 1 }}", "limit": "{{ page_size }}"},
            "next_page_link": "{{ url }}",
            "next_page_termination_strategy": ["not-full-page"],
        },
        "by-offset": {
            "url": "contacts-by-offset", "method": "GET", "payload_property": "results",
            "id_expression": "{{ id }}",
            "headers": {
                "X-Page": "{% if previous_request_headers is defined and previous_request_headers['X-Page'] is defined %}{{ previous_request_headers['X-Page']|int + 1 }}{% else %}0{% endif %}"
            },
            "params": {
                "offset": "{% if previous_request_headers['X-Page'] is defined %}{{ 10|int*(headers['X-Page']|int) }}{% else %}0{% endif %}sesam:markjson",
                "limit": 10,
            },
            "next_page_link": "{{ url }}",
            "next_page_termination_strategy": ["same-next-page-request", "empty-result"],
        },
        "by-cursor": {
            "url": "contacts-by-cursor", "method": "GET", "payload_property": "results",
            "id_expression": "{{ id }}", "params": {"limit": 10},
            "next_page_link": "{{ body.paging.next.link.split('?')[0]~'?after='~body.paging.next.after }}",
            "error_expression": "{{ body.errors[0].message if body.errors is defined else '' }}",
        },
        "by-link": {
            "url": "contacts-by-link?limit=10", "method": "GET", "id_expression": "{{ entity.id }}",
            "next_page_link": "{%if (headers.link.next is defined)%}{{headers.link.next}}{%endif%}",
        },
    })
}

#[test]
fn every_way_of_paging_gives_every_entity_once() {
    for operation in ["by-page", "by-offset", "by-cursor", "by-link"] {
        let api = Api::with(25);
        let hub = hub(&api, listing(), collects(operation));
        let summary = run(&hub);
        assert!(summary.success(), "{operation}: {:?}", summary.failure);
        assert_eq!((summary.read, summary.changed), (25, 25), "{operation}");
        let stored = stored(&hub);
        assert_eq!(stored[24]["_id"], "25", "{operation}");
        assert_eq!(stored[24]["name"], "Contact 25", "{operation}");
        let pages = if operation == "by-offset" { 4 } else { 3 };
        assert_eq!(api.asked().len(), pages, "{operation}");
    }
}

#[test]
fn entities_that_pages_repeat_are_stored_once() {
    let api = Api::with(25);
    api.overlaps();
    let hub = hub(&api, listing(), collects("by-cursor"));
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!((summary.read, summary.changed), (27, 25));
    assert_eq!(stored(&hub).len(), 25);
}

#[test]
fn an_expired_token_is_refreshed_in_the_middle_of_a_run_and_the_rotated_one_is_used_next() {
    let api = Api::with(25);
    api.misbehaves([Fault::Slow(Duration::ZERO), Fault::Expired]);
    let hub = hub(&api, listing(), collects("by-cursor"));
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!(summary.changed, 25);
    let grants = api.grants();
    let used: Vec<&str> = grants
        .iter()
        .map(|form| form["refresh_token"].as_str())
        .collect();
    assert_eq!(used, [FIRST_REFRESH, "refresh-token-number-1"]);
    // The page that was refused, and the same again.
    let after: Vec<Option<String>> = api
        .asked()
        .iter()
        .map(|asked| asked.query.get("after").cloned())
        .collect();
    let after: Vec<Option<&str>> = after.iter().map(Option::as_deref).collect();
    assert_eq!(after, [None, Some("10"), Some("10"), Some("20")]);
}

#[test]
fn requests_that_come_too_fast_wait_as_long_as_the_server_says() {
    let api = Api::with(3);
    api.misbehaves([Fault::TooMany("0"), Fault::TooMany("0")]);
    let mut operations = listing();
    operations["by-cursor"]["rate_limiting_retries"] = 2.into();
    operations["by-cursor"]["rate_limiting_delay"] = 3600.into();
    let hub = hub(&api, operations, collects("by-cursor"));
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!(api.asked().len(), 3);
    // Every request is told, those that were refused too.
    let trace = entry(&hub, "pump-completed")["trace"].clone();
    let statuses: Vec<&Json> = trace
        .as_array()
        .unwrap()
        .iter()
        .map(|told| &told["response"]["status"])
        .collect();
    assert_eq!(statuses, [429, 429, 200]);
}

/// The words of the run that fails like this, after a look at what its log tells.
fn fails(fault: Fault, retries: u64) -> (String, Json) {
    let api = Api::with(25);
    // The first page is all right.
    api.misbehaves([Fault::Slow(Duration::ZERO), fault]);
    let mut pipe = collects("by-cursor");
    pipe["pump"] = json!({"max_read_retries": retries});
    let hub = hub(&api, listing(), pipe);
    let summary = run(&hub);
    if retries > 0 {
        assert!(summary.success(), "{:?}", summary.failure);
        assert_eq!(stored(&hub).len(), 25);
        let words = entry(&hub, "read-error:")["traceback"].clone();
        return (words.as_str().unwrap().to_owned(), Json::Null);
    }
    let failure = summary.failure.expect("the run fails");
    let failed = entry(&hub, "pump-failed");
    let log = failed.to_string();
    for secret in [
        CLIENT.1,
        FIRST_REFRESH,
        "access-token-number-1",
        &api.refresh_token(),
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert_eq!(failed["traceback"], failure.message.as_str());
    (failure.to_string(), failed["trace"].clone())
}

#[test]
fn a_failure_is_told_with_the_request_that_caused_it() {
    for (fault, words) in [
        (Fault::Broken, vec!["found 500", "something broke"]),
        (Fault::TooMany("7"), vec!["found 429", "slow down"]),
        (
            Fault::Truncated,
            vec!["expected the whole body", "broken off"],
        ),
        (Fault::HiddenError, vec!["by-cursor", "no such account"]),
        (
            Fault::Slow(Duration::from_secs(3)),
            vec!["expected an answer within 2 s"],
        ),
    ] {
        let (told, trace) = fails(fault, 0);
        assert!(told.contains("GET http://127.0.0.1:"), "{told}");
        assert!(told.contains("/contacts-by-cursor?after="), "{told}");
        for word in words {
            assert!(told.contains(word), "{word:?} in {told}");
        }
        let last = trace.as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["request"]["method"], "GET");
        // What the system adds to say who we are is not told at all.
        assert_eq!(last["request"]["headers"]["authorization"], Json::Null);
        let url = last["request"]["url"].as_str().unwrap();
        assert!(url.contains("after=10"), "{url}");
    }
}

#[test]
fn a_token_that_is_refused_although_it_is_new_fails_the_run_and_is_told() {
    let api = Api::with(25);
    api.misbehaves([Fault::Slow(Duration::ZERO), Fault::Expired, Fault::Expired]);
    let hub = hub(&api, listing(), collects("by-cursor"));
    let failure = run(&hub).failure.expect("the run fails").to_string();
    for word in [
        "GET http://127.0.0.1:",
        "/contacts-by-cursor?after=",
        "found 401",
        "a token that was fetched anew was refused, too",
    ] {
        assert!(failure.contains(word), "{word:?} in {failure}");
    }
    assert_eq!((api.grants().len(), api.asked().len()), (2, 3));
    let log = entry(&hub, "pump-failed").to_string();
    for number in 0..=2 {
        for kind in ["access", "refresh"] {
            let secret = format!("{kind}-token-number-{number}");
            assert!(!log.contains(&secret), "{secret} in {log}");
        }
    }
}

#[test]
fn a_lookup_that_fails_is_told_with_the_request_that_caused_it() {
    for (fault, words) in [
        (Fault::Broken, "found 500"),
        (Fault::Truncated, "expected the whole body"),
        (
            Fault::Slow(Duration::from_secs(3)),
            "expected an answer within 2 s",
        ),
    ] {
        let api = Api::with(3);
        api.misbehaves([fault; 3]);
        let pipe = json!({
            "source": {"type": "embedded", "entities": [{"_id": "1", "key": 1}]},
            "transform": [{"type": "rest", "system": "crm", "operation": "lookup", "trace": true}],
            "pump": {"batch_retries": 0},
        });
        let hub = hub(&api, sharing(), pipe);
        let failure = run(&hub).failure.expect("the run fails").to_string();
        let failed = entry(&hub, "pump-failed");
        let told = failed["traceback"].as_str().unwrap();
        assert!(failure.contains(words), "{words:?} in {failure}");
        for word in ["operation \"lookup\"", "GET http://", "/contact/1", words] {
            assert!(told.contains(word), "{word:?} in {told}");
        }
        let trace = failed["trace"].as_array().unwrap();
        let url = trace.last().unwrap()["request"]["url"].as_str().unwrap();
        assert!(url.ends_with("/contact/1"), "{url}");
        assert!(
            !failed.to_string().contains("access-token-number"),
            "{failed}"
        );
    }
}

#[test]
fn a_failed_read_is_begun_again_where_the_pump_says_so() {
    for fault in [Fault::Broken, Fault::Truncated, Fault::TooMany("0")] {
        let (told, _) = fails(fault, 1);
        assert!(told.contains("/contacts-by-cursor"), "{told}");
    }
}

#[test]
fn nobody_gets_in_with_a_refresh_token_that_is_worth_nothing() {
    let api = Api::with(1);
    let mut pipe = collects("by-cursor");
    pipe["_id"] = "p".into();
    pipe["type"] = "pipe".into();
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "client-secret", CLIENT.1);
    secrets.set(None, "refresh-token", "a-refresh-token-of-old");
    let hub = configured(vec![api.system(listing()), pipe], secrets);
    let failure = run(&hub).failure.unwrap().to_string();
    assert!(
        failure.contains("an access token was not given"),
        "{failure}"
    );
    assert!(failure.contains("/oauth/token"), "{failure}");
    assert!(failure.contains("invalid_grant"), "{failure}");
    assert!(!failure.contains("of-old"), "{failure}");
    assert!(api.asked().is_empty(), "nothing is asked without a token");
}

#[test]
fn a_rotated_refresh_token_outlives_the_process_and_one_of_the_configuration_takes_over() {
    let api = Api::with(1);
    let place = tempfile::tempdir().unwrap();
    let (data, key) = (place.path().join("data"), place.path().join("key"));
    let secrets = |refresh: &str| json!({"client-secret": CLIENT.1, "refresh-token": refresh});
    let run_in_a_new_process = |change: Option<&str>| {
        let vault = Vault::open(&data, &key).unwrap();
        if let Some(refresh) = change {
            let values = secrets(refresh);
            vault.put(None, values.as_object().unwrap(), true).unwrap();
        }
        let mut pipe = collects("by-cursor");
        pipe["_id"] = "p".into();
        pipe["type"] = "pipe".into();
        let hub = with_secrets(vec![api.system(listing()), pipe], Arc::new(vault));
        run(&hub)
    };
    assert!(run_in_a_new_process(Some(FIRST_REFRESH)).success());
    assert!(run_in_a_new_process(None).success());
    assert!(run_in_a_new_process(None).success());
    let text = std::fs::read_to_string(data.join("secrets.json")).unwrap();
    assert!(!text.contains(&api.refresh_token()));
    // The provider was asked for a new one by hand, which now stands in the configuration.
    api.issues("refresh-token-by-hand");
    assert!(run_in_a_new_process(Some("refresh-token-by-hand")).success());
    let grants = api.grants();
    let used: Vec<&str> = grants
        .iter()
        .map(|form| form["refresh_token"].as_str())
        .collect();
    assert_eq!(
        used,
        [
            FIRST_REFRESH,
            "refresh-token-number-1",
            "refresh-token-number-2",
            "refresh-token-by-hand"
        ]
    );
}

#[test]
fn a_source_goes_on_where_it_was() {
    for (location, name) in [("query", "since"), ("header", "x-since")] {
        let api = Api::with(25);
        let mut pipe = collects("by-cursor");
        pipe["source"]["supports_since"] = true.into();
        pipe["source"]["updated_expression"] = "{{ changed }}".into();
        pipe["source"]["since_property_location"] = location.into();
        pipe["source"]["since_property_name"] = name.into();
        let hub = hub(&api, listing(), pipe);
        assert_eq!(run(&hub).sync_type, "full");
        let first = api.asked().len();
        let summary = run(&hub);
        assert!(summary.success(), "{:?}", summary.failure);
        assert_eq!(summary.sync_type, "incremental");
        let again = api.asked()[first].clone();
        let sent = match location {
            "query" => again.query.get(name).cloned(),
            _ => again.header(name).map(str::to_owned),
        };
        assert_eq!(sent.as_deref(), Some("2024-05-26T00:00:00Z"), "{location}");
        assert_eq!(api.asked().len(), first + 1);
    }
}

fn sharing() -> Json {
    json!({
        "lookup": {"url": "contact/{{ entity.key }}", "method": "GET", "payload_property": "value"},
        "insert": {"url": "contact", "method": "POST", "payload_property": "value"},
        "update": {"url": "contact/{{ properties.key }}", "method": "PUT"},
        "delete": {"url": "contact/{{ key }}", "method": "DELETE"},
    })
}

#[test]
fn entities_are_inserted_updated_and_deleted_and_failures_belong_to_one_of_them() {
    let api = Api::with(3);
    let entities = json!([
        {"_id": "a", "operation": "update", "properties": {"key": 1}, "payload": {"name": "Ada"}},
        {"_id": "b", "operation": "update", "properties": {"key": 2}, "payload": {"name": ""}},
        {"_id": "c", "operation": "delete", "key": 3},
        {"_id": "d", "operation": "insert", "payload": {"name": "Dora"}},
        {"_id": "e", "operation": "inserts"},
    ]);
    let pipe = json!({
        "source": {"type": "embedded", "entities": entities},
        "sink": {"type": "rest", "system": "crm"},
        "pump": {
            "max_write_errors_in_retry_dataset": 10, "max_consecutive_write_errors": 10,
            "write_retry_delay": 0,
        },
    });
    let hub = hub(&api, sharing(), pipe);
    let summary = run(&hub);
    assert_eq!(
        (summary.changed, summary.failed),
        (3, 2),
        "{:?}",
        summary.failure
    );
    assert_eq!(api.contact(1).unwrap()["name"], "Ada");
    assert_eq!(api.contact(2).unwrap()["name"], "Contact 2");
    // 3 is gone, so its number was given away anew.
    assert_eq!(api.contact(3).unwrap()["name"], "Dora");
    let told = entry(&hub, "write-error:b");
    let words = told["traceback"].as_str().unwrap();
    assert!(
        words.contains("operation \"update\": PUT http://"),
        "{words}"
    );
    assert!(words.contains("found 422"), "{words}");
    assert!(
        told["original_error_message"]
            .as_str()
            .unwrap()
            .contains("a contact has a name")
    );
    let told = entry(&hub, "write-error:e");
    let words = told["traceback"].as_str().unwrap();
    assert!(words.contains("did you mean \"insert\"?"), "{words}");
}

#[test]
fn a_lookup_before_the_write_keeps_what_somebody_else_changed() {
    let api = Api::with(2);
    let entities = json!([
        {"_id": "1", "key": 1, "known": "Contact 1", "payload": {"name": "Ada"}},
        {"_id": "2", "key": 2, "known": "Contact of old", "payload": {"name": "Bob"}},
        {"_id": "9", "key": 9, "known": "", "payload": {"name": "Nobody"}},
    ]);
    let pipe = json!({
        "source": {"type": "embedded", "entities": entities},
        "transform": [
            {"type": "rest", "system": "crm", "operation": "lookup", "side_effects": false,
             "allowed_status_codes": "200,404", "response_status_property": "status"},
            {"type": "dtl", "rules": {"default": [
                ["copy", "*"],
                ["if", ["eq", "_S.response.name", "_S.known"],
                    ["add", "properties", ["dict", "key", "_S.key"]],
                    ["filter"]],
            ]}},
            {"type": "rest", "system": "crm", "operation": "update"},
        ],
        "batch_size": 1,
    });
    let hub = hub(&api, sharing(), pipe);
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!(api.contact(1).unwrap()["name"], "Ada");
    assert_eq!(api.contact(2).unwrap()["name"], "Contact 2");
    let stored = stored(&hub);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["response"]["value"]["name"], "Ada");
    assert_eq!(stored[0]["status"], 200);
}

#[test]
fn what_is_no_json_comes_as_it_is() {
    let api = Api::with(1);
    let operations = json!({"report": {
        "url": "report", "method": "GET", "response_property": "csv",
        "response_headers_property": "headers", "id_expression": "report-{{ body|length }}",
    }});
    let mut pipe = collects("report");
    pipe["source"]["response_include_content_type"] = true.into();
    let hub = hub(&api, operations, pipe);
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    let stored = stored(&hub);
    assert_eq!(stored[0]["_id"], "report-14");
    assert_eq!(stored[0]["csv"], "id;name\n1;Ada\n");
    assert_eq!(stored[0]["content-type"], "text/csv");
    assert_eq!(stored[0]["headers"]["content-length"], "14");
}

#[test]
fn a_sink_has_several_requests_under_way_where_the_operation_allows_it() {
    for (parallel, most) in [(1, 1), (3, 3)] {
        let api = Api::with(5);
        api.misbehaves([Fault::Slow(Duration::from_millis(300)); 6]);
        let entity = |id: u64, name: &str| json!({"_id": id.to_string(), "id": id, "payload": {"name": name}});
        let mut changes: Vec<Json> = (1..=5).map(|id| entity(id, "first")).collect();
        // The second version of an entity waits for the first.
        changes.insert(2, entity(1, "second"));
        let operations = json!({"update": {
            "url": "contact/{{ entity.id }}", "method": "PUT", "parallel_requests": parallel,
        }});
        let pipe = json!({
            "batch_size": 10,
            "source": {"type": "embedded", "entities": changes},
            "sink": {"type": "rest", "system": "crm", "operation": "update"},
        });
        let hub = hub(&api, operations, pipe);
        let summary = run(&hub);
        assert!(summary.success(), "{:?}", summary.failure);
        assert_eq!(summary.changed, 6);
        assert_eq!(api.contact(1).unwrap()["name"], "second");
        assert_eq!(api.contact(5).unwrap()["name"], "first");
        assert_eq!(api.asked().len(), 6);
        assert!(api.most_at_once() <= most, "{}", api.most_at_once());
        assert!(api.most_at_once() > most / 2, "{}", api.most_at_once());
    }
}

#[test]
fn of_requests_that_fail_together_none_is_taken_for_made() {
    let api = Api::with(3);
    let operations = json!({"update": {
        "url": "contact/{{ entity.id }}", "method": "PUT", "parallel_requests": 3,
    }});
    let pipe = json!({
        "batch_size": 10,
        "source": {"type": "embedded", "entities": [
            {"_id": "1", "id": 1, "payload": {"name": "A"}},
            {"_id": "2", "id": 2, "payload": {"name": ""}},
            {"_id": "3", "id": 3, "payload": {"name": "C"}},
        ]},
        "sink": {"type": "rest", "system": "crm", "operation": "update"},
        "pump": {"max_consecutive_write_errors": 5, "max_write_errors_in_retry_dataset": 5},
    });
    let hub = hub(&api, operations, pipe);
    let summary = run(&hub);
    assert_eq!(
        (summary.changed, summary.failed),
        (2, 1),
        "{:?}",
        summary.failure
    );
    assert_eq!(api.contact(1).unwrap()["name"], "A");
    assert_eq!(api.contact(2).unwrap()["name"], "Contact 2");
    assert_eq!(api.contact(3).unwrap()["name"], "C");
}
