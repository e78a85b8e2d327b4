//! What pipes say of services that end under their hands.

use serde_json::json;

use super::super::place::{CONTAINER_PORT, engine_is_there, image};
use crate::api::TestNode;

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
