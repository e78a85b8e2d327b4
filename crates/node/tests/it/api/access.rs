//! Who may ask for what.

use reqwest::Method;
use serde_json::json;
use tahini_node::cli::Role;

use super::{TestNode, embedded, token};

/// A node that demands tokens, with a token of each role.
fn guarded() -> (TestNode, String, String) {
    let mut tokens = Vec::new();
    let node = TestNode::with(|options, _| {
        options.listen = "0.0.0.0:0".parse().unwrap();
        tokens = [Role::Admin, Role::Reader]
            .map(|role| token(options, role))
            .into();
    });
    let reader = tokens.pop().unwrap();
    (node, tokens.pop().unwrap(), reader)
}

#[test]
fn beyond_loopback_a_node_needs_a_key() {
    let started = TestNode::try_with(|options, _| options.listen = "0.0.0.0:0".parse().unwrap());
    let error = started.err().unwrap().to_string();
    assert!(error.contains("tahini token create"), "{error}");
}

#[test]
fn beyond_loopback_every_request_needs_a_token() {
    let (mut node, admin, _) = guarded();
    for path in [
        "/api/pipes",
        "/api/config",
        "/api/metrics",
        "/api/",
        "/api/openapi.json",
    ] {
        let answer = node.get(path);
        answer.is_problem(401, "expected a bearer token, found none");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/api/health",
        "/api/ping",
        "/",
    ] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    node.token = Some(admin);
    assert_eq!(node.get("/api/pipes").status, 200);
    assert_eq!(
        node.put("/api/config", json!([embedded("a", &["1"])]))
            .status,
        200
    );
}

#[test]
fn the_proxy_has_a_permission_of_its_own() {
    let mut proxy = String::new();
    let mut node = TestNode::with(|options, _| {
        options.listen = "0.0.0.0:0".parse().unwrap();
        proxy = token(options, Role::Proxy);
    });
    node.token = Some(proxy);
    // It comes as far as the question which service is meant.
    for method in [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ] {
        let asked = node.request(method, "/api/systems/none/proxy/x");
        node.send(asked).is_problem(404, "none");
    }
    for path in [
        "/api/systems",
        "/api/pipes",
        "/api/config",
        "/api/systems/none/logs",
    ] {
        node.get(path).is_problem(403, "found proxy");
    }
    node.put("/api/config", json!([]))
        .is_problem(403, "found proxy");
}

#[test]
fn readers_look_and_change_nothing() {
    let (mut node, admin, reader) = guarded();
    node.token = Some(admin);
    node.put("/api/config", json!([embedded("a", &["1"])])).ok();
    node.token = Some(reader);
    for path in [
        "/api/pipes",
        "/api/pipes/a/pump",
        "/api/config",
        "/api/env",
        "/api/metrics",
    ] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    node.pump("a", &[("operation", "start")])
        .is_problem(403, "admin");
    for (method, path) in [
        (Method::PUT, "/api/config"),
        (Method::PUT, "/api/env"),
        (Method::POST, "/api/secrets"),
        (Method::DELETE, "/api/pipes/a"),
        (Method::POST, "/api/receivers/a/entities"),
        (Method::GET, "/api/systems/s/proxy/x"),
    ] {
        node.send_json(method, path, json!([]))
            .is_problem(403, "admin");
    }
    assert_eq!(node.get("/api/pipes/a").status, 200, "nothing was deleted");
}

#[test]
fn a_given_token_must_be_valid_even_where_none_is_needed() {
    let node = TestNode::new();
    assert_eq!(node.get("/api/pipes").status, 200);
    let with = |value: &str| {
        let request = node
            .request(Method::GET, "/api/pipes")
            .header("AUTHORIZATION", value);
        node.send(request)
    };
    with("Bearer a.b.c").is_problem(401, "no key");
    with("Basic YTpi").is_problem(401, "Bearer <token>");
    let (mut guarded, admin, _) = guarded();
    guarded.token = Some(format!("{admin}x"));
    guarded.get("/api/pipes").is_problem(401, "this node's key");
    let lower = guarded.url("/api/pipes");
    let request = reqwest::Client::new()
        .get(lower)
        .header("Authorization", format!("bearer {admin}"));
    assert_eq!(
        guarded.send(request).status,
        200,
        "the scheme's case does not matter"
    );
}

#[test]
fn foreign_pages_do_not_reach_a_node_on_loopback() {
    let node = TestNode::of(json!([embedded("a", &["1"])]));
    let with = |name: &str, value: &str| {
        node.send(
            node.request(Method::POST, "/api/pipes/a/pump")
                .header(name, value),
        )
    };
    with("Origin", "https://evil.example").is_problem(403, "own");
    with("Sec-Fetch-Site", "cross-site").is_problem(403, "own");
    with("Host", "evil.example:9042").is_problem(403, "localhost");
    let own = node.url("");
    let answer = with("Origin", &own);
    answer.is_problem(400, "`operation`");
    let port = node.running().address().port();
    assert_eq!(with("Host", &format!("localhost:{port}")).status, 400);
}

#[test]
fn what_is_done_is_logged_with_who_did_it() {
    let (mut node, admin, _) = guarded();
    node.token = Some(admin);
    node.put("/api/config", json!([embedded("a", &["1"])])).ok();
    node.pump("a", &[("operation", "disable"), ("comment", "holidays")])
        .ok();
    let log = node.json("/api/pipes/a/log");
    assert_eq!(log[0]["event_type"], "pump-disabled");
    assert_eq!(log[0]["comment"], "holidays");
    assert!(
        log[0]["user"]["user_id"]
            .as_str()
            .unwrap()
            .starts_with("admin-"),
        "{log}"
    );
    assert_eq!(log[0]["user"]["remote_addr"], "127.0.0.1");
}
