//! Secrets that are missing: who names one fails, and nobody else.

use serde_json::{Value as Json, json};
use tahini_hub::execution_log::Summary;
use tahini_hub::pump::Request;
use tahini_hub::secrets::MemorySecrets;
use tahini_hub::{Class, Hub};

use crate::runs::configured;
use crate::server::{Reply, Server};
use crate::world::url_system;

/// A url system at `url` that sends this header.
fn system(id: &str, url: &str, key: &str) -> Json {
    let mut system = url_system(url);
    system["_id"] = json!(id);
    system["headers"] = json!({"X-Key": key});
    system
}

fn reads(id: &str, system: &str, url: &str) -> Json {
    let source = json!({"type": "json", "system": system, "url": url});
    json!({"_id": id, "type": "pipe", "source": source})
}

fn run(hub: &Hub, pipe: &str) -> Summary {
    hub.run(&hub.pipe(pipe).unwrap(), &Request::default())
        .unwrap()
}

/// The words of a run that failed for want of a secret.
fn lacks(hub: &Hub, pipe: &str) -> String {
    let failure = run(hub, pipe).failure.expect("the secret is missing");
    assert_eq!(failure.class, Class::Config, "{failure}");
    failure.to_string()
}

#[test]
fn a_missing_secret_fails_the_pipe_or_system_that_names_it_and_no_other() {
    let mut secrets = MemorySecrets::default();
    secrets.set(None, "known", "value-of-known");
    secrets.set(Some("sound"), "own", "value-of-own");
    let server = Server::play([Reply::ok(r#"[{"_id": "1"}]"#), Reply::ok("[]")]);
    let url = server.url();
    let hub = configured(
        vec![
            system("sound", &url, "$SECRET(own)"),
            system("broken", &url, "$SECRET(absent)"),
            reads("a-through-broken", "broken", "a"),
            reads("b-names-absent", "sound", "$SECRET(absent-too)"),
            // The secret of one system is no secret of another.
            reads("c-names-own-of-another", "broken", "$SECRET(own)"),
            reads("d-sound", "sound", "$SECRET(known)"),
            reads("e-sound", "sound", "e"),
            json!({"_id": "f-inside", "type": "pipe",
                "source": {"type": "embedded", "entities": [{"_id": "1"}]}}),
        ],
        secrets,
    );
    let words = lacks(&hub, "a-through-broken");
    assert!(
        words.contains("\"broken\"") && words.contains("\"absent\""),
        "{words}"
    );
    let words = lacks(&hub, "b-names-absent");
    assert!(words.contains("\"absent-too\""), "{words}");
    let words = lacks(&hub, "c-names-own-of-another");
    assert!(words.contains("\"own\""), "{words}");
    for (pipe, changed) in [("d-sound", 1), ("e-sound", 0), ("f-inside", 1)] {
        let summary = run(&hub, pipe);
        assert!(summary.success(), "{pipe}: {:?}", summary.failure);
        assert_eq!(summary.changed, changed, "{pipe}");
    }
    let seen = server.seen();
    let asked: Vec<_> = seen
        .iter()
        .map(|seen| (seen.target.as_str(), seen.header("x-key")))
        .collect();
    let key = Some("value-of-own");
    assert_eq!(
        asked,
        [("/value-of-known", key), ("/e", key)],
        "nothing else was asked for"
    );
}
