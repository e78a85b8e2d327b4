//! What pipes say of services that end under their hands.

use serde_json::json;

use super::super::place::{CONTAINER_PORT, engine_is_there, image};
use crate::api::{TestNode, embedded, until};

/// The first request of the run is answered by nobody: the service is killed while it works on it.
#[test]
fn a_run_says_that_its_service_was_killed_for_memory() {
    if !engine_is_there() {
        return;
    }
    let node = TestNode::of(json!([
        {"_id": "one", "type": "system:microservice", "docker": {
            "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "memory": 48,
            "cpu_quota": 100}},
        {"_id": "p", "type": "pipe", "source": {"type": "json", "system": "one", "url": "eat"},
            "pump": {"max_read_retries": 0}},
    ]));
    let hub = &node.running().node().assembly.hub;
    let summary = hub
        .run(&hub.pipe("p").unwrap(), &Default::default())
        .unwrap();
    let words = summary.failure.unwrap().to_string();
    assert!(words.contains("more memory than its limit"), "{words}");
    let log = node
        .get("/api/datasets/system:pump_execution:p/entities")
        .text;
    assert!(log.contains("more memory than its limit"), "{log}");
    let status = node.json("/api/systems/one/status");
    assert_eq!(status["last_exit"]["oom_killed"], true, "{status}");
    let logs = node.get("/api/systems/one/logs").text;
    assert!(logs.contains("more memory than its limit"), "{logs}");
}

/// Whatever a pipe does with its service at that moment: it waits for the answer's rest, or for what
/// becomes of what it sent.
#[test]
fn every_kind_of_run_says_so_and_the_proxy_too() {
    if !engine_is_there() {
        return;
    }
    let service = |name: &str| json!({"type": "json", "system": "one", "url": name});
    let http = json!({"type": "http", "system": "one", "url": "eat"});
    let node = TestNode::of(json!([
        {"_id": "one", "type": "system:microservice", "docker": {
            "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "memory": 48,
            "cpu_quota": 100}},
        embedded("given", &["1"]),
        {"_id": "half", "type": "pipe", "source": service("half"),
            "pump": {"max_read_retries": 0}},
        {"_id": "sent", "type": "pipe", "source": {"type": "dataset", "dataset": "given"},
            "sink": service("eat")},
        {"_id": "asked", "type": "pipe", "source": {"type": "dataset", "dataset": "given"},
            "transform": http},
    ]));
    node.run("given");
    let hub = &node.running().node().assembly.hub;
    for pipe in ["half", "sent", "asked"] {
        until("the service", || {
            (node.json("/api/systems/one/status")["running"] == true).then_some(())
        });
        let summary = hub.run(&hub.pipe(pipe).unwrap(), &Default::default());
        let log = format!("/api/datasets/system:pump_execution:{pipe}/entities");
        let log = node.get(&log).text;
        assert!(
            log.contains("more memory than its limit"),
            "{pipe}: {:?} {log}",
            summary.unwrap().failure
        );
    }
    until("the service", || {
        (node.json("/api/systems/one/status")["running"] == true).then_some(())
    });
    node.get("/api/systems/one/proxy/eat")
        .is_problem(502, "more memory than its limit");
}
