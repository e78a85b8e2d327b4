//! Posts of those who know nothing of tokens: events of webhooks.

use reqwest::Method;
use serde_json::{Value, json};
use tahini_node::auth::TokenKey;
use tahini_node::cli::Role;

use super::{Answered, TestNode, ids, until};

const BODY: &str = r#"[{"_id": "e1", "topic": "contact/update"}]"#;
/// HMAC-SHA256 of the body under the key `signing-key`, from Python's hmac and base64.
const SIGNATURE: &str = "ogXm2KSDa99UgU4rFyY3hjo07p+4gDhOVwZ+YCM/mdg=";
const SIGNED: &str = "{% if request_headers['X-Signature'] == \
                      b64encode(hmacsha256digest(secret('webhook_secret'), request_body)) %}\
                      {% else %}the signature is wrong{% endif %}";

/// A node beyond loopback, with a pipe that anybody may post to and one that nobody may.
fn node(expression: Option<&str>) -> TestNode {
    let mut admin = String::new();
    let mut node = TestNode::with(|options, _| {
        options.listen = "0.0.0.0:0".parse().unwrap();
        let key = TokenKey::open_or_create(&options.token_key).unwrap();
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        admin = key.issue(Role::Admin, 60, now).unwrap();
    });
    let open = json!([["allow", ["group:Anonymous"], ["write_data"]]]);
    let mut events = json!({
        "_id": "events", "type": "pipe", "permissions": open, "namespaced_identifiers": false,
        "source": {"type": "http_endpoint", "system": "s"},
    });
    if let Some(expression) = expression {
        events["source"]["validation_expression"] = expression.into();
    }
    let guarded = json!({
        "_id": "guarded", "type": "pipe", "source": {"type": "http_endpoint"},
        "permissions": [["allow", ["group:Anonymous"], ["read_data"]]],
    });
    let system = json!({"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:9/%s"});
    node.token = Some(admin);
    node.put("/api/config", json!([system, events, guarded]))
        .ok();
    let secret = json!({"webhook_secret": "signing-key", "webhook_token": "letmein"});
    node.put("/api/systems/s/secrets", secret).ok();
    node.token = None;
    node
}

fn post(node: &TestNode, pipe: &str, signature: &str) -> Answered {
    let request = node.request(Method::POST, &format!("/api/receivers/{pipe}/entities?x=1"));
    let request = request.header("content-type", "application/json");
    node.send(request.header("X-Signature", signature).body(BODY))
}

#[test]
fn only_what_is_signed_is_taken() {
    let mut node = node(Some(SIGNED));
    let refused = post(&node, "events", "nonsense");
    refused.is_problem(403, "the signature is wrong");
    post(&node, "events", SIGNATURE).ok();
    // A token is no way around it.
    let token = node.token.take();
    assert_eq!(token, None);
    post(&node, "guarded", SIGNATURE).is_problem(401, "expected a bearer token");
    let admin = TokenKey::open_or_create(&node.options().token_key).unwrap();
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    node.token = Some(admin.issue(Role::Admin, 60, now).unwrap());
    post(&node, "events", "nonsense").is_problem(403, "the signature is wrong");
    assert_eq!(ids(&node.json("/api/datasets/events/entities")), ["e1"]);
}

#[test]
fn an_expression_sees_the_whole_request() {
    let whole = "{{ '' if request_params.x == '1' and url.endswith('/entities?x=1') and \
                 request_headers['x-signature'] == 'y' and request_body|length == 42 \
                 else 'other' }}";
    let node = node(Some(whole));
    post(&node, "events", "y").ok();
    post(&node, "events", "z").is_problem(403, "other");
}

#[test]
fn an_expression_that_cannot_be_rendered_refuses_and_tells_nothing() {
    let node = node(Some("{{ '' if secret('gone') == 'x' else '' }}"));
    let answer = post(&node, "events", "y");
    answer.is_problem(403, "can judge");
    assert!(!answer.text.contains("gone"), "{}", answer.text);
}

#[test]
fn permissions_alone_let_anybody_post_and_do_nothing_else() {
    let node = node(None);
    post(&node, "events", "").ok();
    for path in [
        "/api/datasets/events/entities",
        "/api/pipes/events",
        "/api/config",
    ] {
        node.get(path).is_problem(401, "expected a bearer token");
    }
    post(&node, "nothing", "").is_problem(401, "expected a bearer token");
}

#[test]
fn a_webhook_starts_a_pump_for_those_who_know_its_token() {
    let node = TestNode::of(json!([
        {"_id": "s", "type": "system:url", "url_pattern": "http://127.0.0.1:9/%s"},
        {"_id": "p", "type": "pipe", "pump": {"schedule_interval": 86400},
         "source": {"type": "json", "system": "s", "url": "x"}},
        {"_id": "q", "type": "pipe", "pump": {"schedule_interval": 86400},
         "source": {"type": "embedded", "entities": [{"_id": "1"}]}},
    ]));
    let knock = |pipe: &str, body: Value| node.post(&format!("/api/pipes/{pipe}/webhook"), body);
    knock("q", json!({"token": "letmein"})).is_problem(404, "webhook");
    node.put("/api/secrets", json!({"webhook_token": "letmein"}))
        .ok();
    node.put("/api/systems/s/secrets", json!({"webhook_token": "own"}))
        .ok();
    for (pipe, body) in [
        ("q", json!({"token": "letmeout"})),
        ("q", json!({})),
        ("q", json!(["letmein"])),
        ("p", json!({"token": "letmein"})),
        ("gone", json!({"token": "letmein"})),
    ] {
        knock(pipe, body).is_problem(404, "webhook");
    }
    knock("q", json!({"token": "letmein"})).ok();
    until("the pump ran", || {
        let rows = node.get("/api/datasets/q/entities");
        (rows.status == 200 && ids(&rows.value()) == ["1"]).then_some(())
    });
    knock("p", json!({"token": "own"})).ok();
}
