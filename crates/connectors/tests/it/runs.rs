//! Whole runs of pipes whose transform or sink is at the other end of a connection.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tahini_connectors::{SINKS, SOURCES, SYSTEMS, TRANSFORMS};
use tahini_entity::Batch;
use tahini_hub::builtin;
use tahini_hub::config::Input;
use tahini_hub::execution_log::Summary;
use tahini_hub::pump::Request;
use tahini_hub::secrets::{MemorySecrets, SecretSource};
use tahini_hub::{Configuration, Hub, Registry};
use tahini_store::{Limit, Memory, View};

use crate::server::{Reply, Seen, Server};
use crate::world::{Noon, Running, content, url_system};

pub const REGISTRY: Registry = Registry {
    sources: &[builtin::SOURCES, SOURCES],
    sinks: &[builtin::SINKS, SINKS],
    transforms: &[builtin::TRANSFORMS, TRANSFORMS],
    systems: &[SYSTEMS],
    template: tahini_connectors::template,
};

/// A hub with the pipe `p` over two embedded entities and the system `s`.
fn hub(server: &Server, strategy: Json, more: Json) -> Hub {
    let mut system = url_system(&server.url());
    system["retry_strategy"] = strategy;
    let mut pipe = json!({
        "_id": "p",
        "type": "pipe",
        "source": {"type": "embedded", "entities": [{"_id": "a"}, {"_id": "b"}]},
    });
    for (name, value) in more.as_object().unwrap() {
        pipe[name] = value.clone();
    }
    configured([system, pipe].into(), MemorySecrets::default())
}

/// A hub with these components, which must be valid.
pub fn configured(components: Vec<Json>, secrets: MemorySecrets) -> Hub {
    with_secrets(components, Arc::new(secrets))
}

/// The same with secrets from anywhere.
pub fn with_secrets(components: Vec<Json>, secrets: Arc<dyn SecretSource>) -> Hub {
    let inputs = components.into_iter().map(Input::new).collect();
    let configuration = Configuration::build(inputs, &Map::new(), &REGISTRY);
    let errors = configuration
        .problems()
        .filter(|problem| problem.is_error());
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    assert_eq!(errors, [""; 0]);
    let hub = Hub::new(
        Arc::new(Memory::new()),
        Arc::new(Running::default()),
        Arc::new(Noon),
        secrets,
        REGISTRY,
    );
    hub.apply(configuration).unwrap();
    hub
}

fn run(hub: &Hub) -> Summary {
    let live = hub.pipe("p").unwrap();
    hub.run(&live, &Request::default()).unwrap()
}

/// What the dataset of the pipe holds.
fn stored(hub: &Hub) -> Vec<Json> {
    let dataset = hub.world.store.find("p").unwrap().unwrap();
    let view = View {
        history: false,
        deleted: false,
    };
    let limit = Limit {
        rows: 100,
        bytes: usize::MAX,
    };
    let mut batch = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.changes(None, view, limit, &mut batch).unwrap();
    content(&batch)
}

fn sent(server: &Server) -> Vec<Vec<String>> {
    server.seen().iter().map(Seen::ids).collect()
}

fn enriching() -> Json {
    json!({"transform": {"type": "http", "system": "s", "url": "enrich"}})
}

fn busy() -> Reply {
    Reply::status("429 Too Many Requests", "Retry-After: 0\r\n", "slow down")
}

#[test]
fn an_api_that_is_busy_is_asked_again_and_the_run_goes_on() {
    let server = Server::play([
        busy(),
        busy(),
        Reply::ok(r#"[{"_id": "a", "x": 1}, {"_id": "b", "x": 2}]"#),
    ]);
    let hub = hub(&server, json!({}), enriching());
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!(sent(&server), [["a", "b"]; 3]);
    assert_eq!(
        stored(&hub),
        [json!({"_id": "a", "x": 1}), json!({"_id": "b", "x": 2})]
    );
}

#[test]
fn a_systems_strategy_sets_the_entity_aside_that_its_transform_refuses() {
    let refusal = || Reply::status("422 Unprocessable", "", "b is poison");
    let server = Server::play([refusal(), Reply::ok(r#"[{"_id": "a", "x": 1}]"#), refusal()]);
    let strategy = json!({"400-428": {
        "batch_retries": 0,
        "max_write_errors_in_retry_dataset": 5,
        "max_consecutive_write_errors": 5,
        "max_retries_per_entity": 0,
    }});
    let mut more = enriching();
    more["pump"] = json!({"dead_letter_dataset": "letters"});
    let hub = hub(&server, strategy, more);
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    assert_eq!((summary.failed, summary.retryable), (1, 0));
    assert_eq!(sent(&server), [vec!["a", "b"], vec!["a"], vec!["b"]]);
    assert_eq!(stored(&hub), [json!({"_id": "a", "x": 1})]);
    let letters = hub.world.store.find("letters").unwrap();
    assert!(letters.is_some(), "given up at once");
}

#[test]
fn what_the_pump_writes_itself_goes_before_the_strategy() {
    let server = Server::play([busy(), busy(), busy()]);
    let strategy = json!({"429": {"batch_retries": 5, "max_consecutive_write_errors": 5}});
    let mut more = enriching();
    // Both are what a pump has by default.
    more["pump"] = json!({"batch_retries": 1, "max_consecutive_write_errors": 1});
    let hub = hub(&server, strategy, more);
    let failure = run(&hub).failure.unwrap();
    assert_eq!(failure.status, Some(429));
    assert_eq!(sent(&server), [vec!["a", "b"], vec!["a", "b"], vec!["a"]]);
}

#[test]
fn the_end_of_a_push_is_sent_again_under_its_id() {
    let server = Server::play([Reply::ok("{}"), busy(), Reply::ok("{}")]);
    let more = json!({"sink": {"type": "json", "system": "s", "url": "push"}});
    let hub = hub(&server, json!({}), more);
    let summary = run(&hub);
    assert!(summary.success(), "{:?}", summary.failure);
    let seen = server.seen();
    assert_eq!(seen[1].body, "[]");
    assert_eq!(seen[1].parameter("is_last"), Some("true"));
    assert_eq!(seen[1].target, seen[2].target);
}

#[test]
fn a_full_push_that_broke_off_starts_over_under_another_sequence() {
    let entities = r#"[{"_id": "a", "_updated": 1}, {"_id": "b", "_updated": 2}]"#;
    let server = Server::play([
        Reply::ok(entities),
        Reply::ok("{}"),
        Reply::status("409 Conflict", "", "no"),
        Reply::ok(entities),
        Reply::ok("{}"),
        Reply::ok("{}"),
        Reply::ok("{}"),
        Reply::ok("[]"),
        Reply::ok("{}"),
    ]);
    // A chronological source could go on in the middle; the chain of requests could not.
    let source = json!({
        "type": "json", "system": "s", "url": "pull", "supports_since": true,
        "is_chronological": true,
    });
    let more = json!({
        "source": source, "sink": {"type": "json", "system": "s", "url": "push"},
        "batch_size": 1, "checkpoint_interval": 1,
    });
    let hub = hub(&server, json!({}), more);
    assert_eq!(run(&hub).failure.unwrap().status, Some(409));
    assert_eq!(run(&hub).sync_type, "full");
    assert_eq!(run(&hub).sync_type, "incremental");
    let (pulls, pushes): (Vec<_>, Vec<_>) = server
        .seen()
        .into_iter()
        .partition(|seen| seen.method == "GET");
    let sinces: Vec<_> = pulls.iter().map(|seen| seen.parameter("since")).collect();
    assert_eq!(sinces, [None, None, Some("2")]);
    let flag = |seen: &Seen, name| seen.parameter(name).is_some();
    let told: Vec<_> = pushes
        .iter()
        .map(|seen| (seen.ids(), flag(seen, "is_first"), flag(seen, "is_last")))
        .collect();
    let one = |id: &str, first, last| (vec![id.to_owned()], first, last);
    assert_eq!(
        told,
        [
            one("a", true, false),
            one("b", false, false),
            one("a", true, false),
            one("b", false, false),
            (Vec::new(), false, true),
            (Vec::new(), false, false),
        ]
    );
    let sequence = |at: usize| pushes[at].parameter("sequence_id").unwrap();
    assert_eq!(sequence(0), sequence(1));
    assert_ne!(sequence(1), sequence(2));
    assert_eq!(sequence(2), sequence(4));
}
