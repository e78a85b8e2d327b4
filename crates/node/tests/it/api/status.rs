//! The node itself: health, status, the page, what is not there.

use reqwest::Method;
use serde_json::json;

use super::{TestNode, embedded};

#[test]
fn clients_find_a_developers_node() {
    let node = TestNode::new();
    for path in ["/api", "/api/"] {
        assert_eq!(node.json(path)["status"]["developer_mode"], true, "{path}");
    }
}

#[test]
fn the_start_time_differs_after_every_restart() {
    let mut node = TestNode::new();
    let before = node.json("/api/status")["node_start_time"].clone();
    let text = before.as_str().unwrap();
    assert!(
        text.len() == "2026-01-02T03:04:05.678901Z".len() && text.ends_with('Z'),
        "{text}"
    );
    node.restart();
    assert_ne!(node.json("/api/status")["node_start_time"], before);
}

#[test]
fn health_is_good_even_when_a_pipe_is_not() {
    let node = TestNode::new();
    let broken = json!([{"_id": "p", "type": "pipe", "source": {"type": "nonsense"}}]);
    assert_eq!(node.put("/api/config?force=true", broken).status, 200);
    for path in ["/livez", "/readyz", "/healthz", "/api/health", "/api/ping"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    assert_eq!(node.json("/readyz?verbose")["pipes"], 1);
}

#[test]
fn a_stopping_node_is_alive_and_not_ready() {
    let node = TestNode::new();
    let stopping = &node.running().node().stopping;
    stopping.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(node.get("/livez").status, 200);
    for path in ["/readyz", "/healthz", "/api/health"] {
        node.get(path).is_problem(503, "shutting down");
    }
}

#[test]
fn what_is_not_there_is_a_problem_with_help() {
    let node = TestNode::new();
    node.get("/api/nonsense")
        .is_problem(404, "/api/openapi.json");
    node.get("/api/api/pipes")
        .is_problem(404, "ends with /api, given once");
    node.send(node.request(Method::POST, "/api/status"))
        .is_problem(405, "POST");
    node.get("/api/pipes/none").is_problem(404, "\"none\"");
    node.get("/api/datasets/none").is_problem(404, "\"none\"");
}

#[test]
fn a_request_keeps_its_id() {
    let node = TestNode::new();
    let answer = node.send(
        node.request(Method::GET, "/api/ping")
            .header("X-Request-Id", "r-1"),
    );
    assert_eq!(answer.header("x-request-id"), "r-1");
    let (one, two) = (node.get("/api/ping"), node.get("/api/ping"));
    assert!(!one.header("x-request-id").is_empty());
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[test]
fn the_page_runs_its_own_scripts_only() {
    let node = TestNode::new();
    let (one, two) = (node.get("/"), node.get("/"));
    assert_eq!(one.status, 200);
    assert_eq!(one.header("content-type"), "text/html; charset=utf-8");
    let policy = one.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'nonce-"),
        "{policy}"
    );
    let nonce = policy
        .split("script-src 'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert!(one.text.contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(!one.text.contains("TAHINI_NONCE"));
    assert_ne!(
        policy,
        two.header("content-security-policy"),
        "a nonce is used once"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[test]
fn metrics_count_runs_lag_entities_and_sizes() {
    let node = TestNode::with(|options, _| {
        options.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    });
    let config = json!([embedded("a", &["1", "2", "3"]), super::reader("b", "a")]);
    node.put("/api/config", config).ok();
    node.run("a");
    let answer = node.get("/api/metrics");
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "tahini_pipe_runs_total{pipe=\"a\"} 1",
        "tahini_pipe_runs_total{pipe=\"b\"} 0",
        "tahini_pipe_last_run_entities{pipe=\"a\",outcome=\"read\"} 3",
        "tahini_pipe_lag_versions{pipe=\"b\"} 3",
        "tahini_dataset_entities{dataset=\"a\",state=\"live\"} 3",
    ] {
        assert!(
            answer.text.lines().any(|found| found == line),
            "{line} in {}",
            answer.text
        );
    }
    assert!(answer.text.contains("tahini_dataset_bytes{dataset=\"a\"} "));
    node.run("b");
    let text = node.get("/api/metrics").text;
    assert!(
        text.contains("tahini_pipe_lag_versions{pipe=\"b\"} 0\n"),
        "{text}"
    );
}

/// Gauges tell of the last run; counters and histograms of all of them.
#[test]
fn metrics_add_up_what_runs_did() {
    let node = TestNode::of(json!([
        embedded("a", &["1", "2", "3"]),
        {"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:9/%s"},
        {"_id": "broken", "type": "pipe", "source": {"type": "json", "system": "s", "url": "x"}},
    ]));
    node.run("a");
    node.run("a");
    let hub = &node.running().node().assembly.hub;
    let broken = hub.pipe("broken").unwrap();
    assert!(!hub.run(&broken, &Default::default()).unwrap().success());
    let text = node.get("/api/metrics").text;
    for line in [
        "tahini_pipe_runs_total{pipe=\"a\"} 2",
        "tahini_pipe_entities_total{pipe=\"a\",stage=\"read\"} 6",
        "tahini_pipe_entities_total{pipe=\"a\",stage=\"changed\"} 3",
        "tahini_pipe_entities_total{pipe=\"a\",stage=\"unchanged\"} 3",
        "tahini_pipe_entities_total{pipe=\"a\",stage=\"deleted\"} 0",
        "tahini_pipe_entities_total{pipe=\"a\",stage=\"failed\"} 0",
        "tahini_pipe_errors_total{pipe=\"a\",kind=\"run\"} 0",
        "tahini_pipe_compacted_versions_total{pipe=\"a\"} 0",
        "tahini_pipe_errors_total{pipe=\"broken\",kind=\"run\"} 1",
        "tahini_pipe_errors_total{pipe=\"broken\",kind=\"read\"} 1",
        "# TYPE tahini_pipe_run_duration_seconds histogram",
        "tahini_pipe_run_duration_seconds_bucket{pipe=\"a\",le=\"7200\"} 2",
        "tahini_pipe_run_duration_seconds_bucket{pipe=\"a\",le=\"+Inf\"} 2",
        "tahini_pipe_run_duration_seconds_count{pipe=\"a\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let sum = "tahini_pipe_run_duration_seconds_sum{pipe=\"a\"} ";
    let sum = text
        .lines()
        .find_map(|line| line.strip_prefix(sum))
        .unwrap();
    assert!(sum.parse::<f64>().unwrap() > 0.0);
    let fresh =
        |pipe: &str| text.contains(&format!("tahini_pipe_freshness_seconds{{pipe={pipe:?}}} "));
    assert!(fresh("a") && !fresh("broken"), "{text}");
}

/// What a pipe did last is known after a restart, too.
#[test]
fn the_last_run_survives_a_restart() {
    let mut node = TestNode::of(json!([embedded("a", &["1", "2"])]));
    node.run("a");
    let before = node.runtime("a");
    node.restart();
    let after = node.runtime("a");
    assert_eq!(before["last-run-summary"]["entities_read"], 2);
    for name in [
        "last-run-summary",
        "last-run",
        "last-started",
        "success",
        "state",
    ] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

#[test]
fn two_nodes_do_not_share_a_folder() {
    let first = TestNode::new();
    let data = first.options().data.clone();
    let second = TestNode::try_with(|options, _| options.data = data);
    let error = format!("{:#}", second.err().unwrap());
    assert!(error.contains("in use by another process"), "{error}");
}

/// A run that waits for a peer that never answers ends when the node stops.
#[test]
fn a_node_stops_although_a_peer_hangs() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": format!("http://{address}/%s")},
        {"_id": "a", "type": "pipe", "source": {"type": "json", "system": "s", "url": "x"}}
    ]));
    node.pump("a", &[("operation", "start")]).ok();
    let (_peer, _) = silent.accept().unwrap();
    assert_eq!(node.runtime("a")["is-running"], true);
    let begun = std::time::Instant::now();
    drop(node);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn stop_ends_a_run_that_waits() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": format!("http://{address}/%s")},
        {"_id": "a", "type": "pipe", "source": {"type": "json", "system": "s", "url": "x"}}
    ]));
    node.pump("a", &[("operation", "start")]).ok();
    node.pump("a", &[("operation", "start")])
        .is_problem(409, "running");
    node.pump("a", &[("operation", "update-last-seen"), ("last-seen", "")])
        .is_problem(409, "running");
    node.pump("a", &[("operation", "stop")]).ok();
    let runtime = super::until("the end of the run", || {
        let runtime = node.runtime("a");
        (runtime["is-running"] == false).then_some(runtime)
    });
    assert_eq!(runtime["success"], false);
    assert!(
        runtime["last-message"]
            .as_str()
            .unwrap()
            .contains("stopped on request"),
        "{runtime}"
    );
}

/// A hundred entities, each of which the rules work on for a good part of a second, are one batch.
#[test]
fn stop_ends_a_run_in_the_middle_of_its_rules() {
    let ids: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut busy = embedded("a", &ids);
    let long = json!(["count", ["map", ["+", "_.", 1], ["range", 0, 900_000]]]);
    let rules = json!({"default": [["add", "n", long.clone()], ["add", "m", long]]});
    busy["transform"] = json!({"type": "dtl", "rules": rules});
    let node = TestNode::of(json!([busy]));
    node.pump("a", &[("operation", "start")]).ok();
    super::until("the start of the run", || {
        (node.runtime("a")["is-running"] == true).then_some(())
    });
    node.pump("a", &[("operation", "stop")]).ok();
    let runtime = super::until("the end of the run", || {
        let runtime = node.runtime("a");
        (runtime["is-running"] == false).then_some(runtime)
    });
    assert_eq!(runtime["success"], false);
    let message = runtime["last-message"].as_str().unwrap();
    assert!(message.contains("stopped"), "{runtime}");
}

/// The reference's names, for dashboards that know them.
#[test]
fn documented_metrics_have_their_names() {
    let mut node = TestNode::of(json!([
        {
            "_id": "a", "type": "pipe",
            "source": {"type": "embedded", "entities": [{"_id": "1"}, {"_id": "2"}]},
            "pump": {"schedule_interval": 3600, "dead_letter_dataset": "letters",
                "max_write_errors_in_retry_dataset": 5},
        },
        super::reader("b", "a"),
        {"_id": "hand", "type": "pipe", "source": {"type": "empty"}, "pump": {"mode": "manual"}},
    ]));
    node.run("a");
    node.put(
        "/api/pipes/a/config",
        json!({
            "_id": "a", "type": "pipe", "source": {"type": "embedded", "entities": [{"_id": "1"}]},
            "pump": {"schedule_interval": 3600, "dead_letter_dataset": "letters",
                "max_write_errors_in_retry_dataset": 5},
        }),
    )
    .ok();
    node.run("a");
    node.run("a");
    let text = node.get("/api/metrics").text;
    for line in [
        "sesam_health{sesam_health=\"healthy\"} 1",
        "sesam_health{sesam_health=\"unhealthy\"} 0",
        "sesam_backup_health{sesam_backup_health=\"unknown\"} 1",
        "sesam_service_restarts 0",
        "sesam_pipe_enabled{pipe=\"a\"} 1",
        "sesam_pipe_config{pipe=\"a\",config_group=\"default\",leaf=\"0\"} 1",
        "sesam_pipe_config{pipe=\"b\",config_group=\"default\",leaf=\"1\"} 1",
        "sesam_pipe_queue_source{pipe=\"b\"} 3",
        "sesam_pipe_sink_dataset_count_index_exists{pipe=\"a\"} 1",
        "sesam_pipe_sink_dataset_count_index_deleted{pipe=\"a\"} 1",
        "sesam_pipe_dead_letter_dataset_count_index_exists{pipe=\"a\"} 0",
        "sesam_pump_successful{pipe=\"a\"} 1",
        "sesam_pump_successful{pipe=\"b\"} 0",
        "sesam_pump_started_total{pipe=\"a\"} 2",
        "sesam_pump_completed_total{pipe=\"a\"} 2",
        "sesam_pump_failed_total{pipe=\"a\"} 0",
        "sesam_pump_interrupted_total{pipe=\"a\"} 0",
        "sesam_pump_entities_changes_total{pipe=\"a\"} 3",
        "sesam_pump_entities_seen_total{pipe=\"a\"} 4",
        "sesam_pump_entities_retryable{pipe=\"a\"} 0",
        "sesam_pump_entities_deletion_tracked_total{pipe=\"a\"} 1",
        "tahini_pipe_out_of_sync{pipe=\"a\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    for name in [
        "sesam_pipe_usage",
        "sesam_pump_last_completed_time",
        "sesam_pump_started_created",
    ] {
        assert!(
            text.contains(&format!("{name}{{pipe=\"a\"}} ")),
            "{name} in {text}"
        );
    }
    assert!(
        !text.contains("sesam_pump_started_total{pipe=\"hand\"}"),
        "{text}"
    );
    node.restart();
    let text = node.get("/api/metrics").text;
    assert!(text.contains("sesam_service_restarts 1\n"), "{text}");
}
