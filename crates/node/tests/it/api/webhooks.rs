//! Posts of those who know nothing of tokens: events of webhooks.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tahini_node::cli::Role;

use super::{Answered, TestNode, ids, token, until};

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
        admin = token(options, Role::Admin);
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
    assert_eq!(node.token, None);
    post(&node, "guarded", SIGNATURE).is_problem(401, "expected a bearer token");
    node.token = Some(token(node.options(), Role::Admin));
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

/// The head of a post, sent by itself; what follows is the test's business.
fn begin(node: &TestNode, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", node.running().address().port())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n"
    )
    .unwrap();
    stream
}

/// The status of the answer, which may come before the request is whole.
fn status(stream: &mut TcpStream) -> String {
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[test]
fn a_stranger_brings_little_and_is_told_so_before_it_is_sent() {
    let mut node = node(Some(SIGNED));
    let path = "/api/receivers/events/entities";
    let mut large = begin(&node, path, "Content-Length: 65537\r\n");
    assert_eq!(status(&mut large), "413");
    let mut hidden = begin(&node, path, "Transfer-Encoding: chunked\r\n");
    let mut sent = 0;
    while sent < 70_000 {
        // The node may have hung up already.
        if write!(hidden, "1000\r\n{}\r\n", "x".repeat(4096)).is_err() {
            break;
        }
        sent += 4096;
    }
    assert_eq!(status(&mut hidden), "413");
    let mut knock = begin(
        &node,
        "/api/pipes/events/webhook",
        "Content-Length: 65537\r\n",
    );
    assert_eq!(status(&mut knock), "413");
    // Who shows a token may bring more; it is judged all the same.
    node.token = Some(token(node.options(), Role::Admin));
    let post = node.request(Method::POST, path);
    let post = post.header("X-Signature", "nonsense");
    let body = format!("[{{\"_id\": \"{}\"}}]", "x".repeat(200_000));
    node.send(post.body(body))
        .is_problem(403, "the signature is wrong");
}

#[test]
fn slow_strangers_keep_nobody_out() {
    let node = node(Some(SIGNED));
    let mut slow = Vec::new();
    for at in 0..200 {
        let path = match at % 2 {
            0 => "/api/receivers/events/entities",
            _ => "/api/pipes/events/webhook",
        };
        let mut stream = begin(&node, path, "Content-Length: 1000\r\n");
        stream.write_all(b"[").unwrap();
        slow.push(stream);
    }
    post(&node, "events", SIGNATURE).ok();
    let knock = json!({"token": "letmein"});
    let knocked = node.post("/api/pipes/events/webhook", knock);
    assert_ne!(knocked.status, 503, "{}", knocked.text);
    // The first ones made room.
    assert_eq!(status(&mut slow[0]), "503");
}

#[test]
fn what_needs_no_body_is_judged_before_one_is_read() {
    let by_header = "{{ '' if request_headers['X-Key'] == secret('webhook_secret') else 'no' }}";
    let node = node(Some(by_header));
    let path = "/api/receivers/events/entities";
    let mut wrong = begin(&node, path, "Content-Length: 1000\r\nX-Key: guess\r\n");
    assert_eq!(status(&mut wrong), "403");
    // Who knows the secret is no stranger.
    let body = format!(
        "[{{\"_id\": \"e1\", \"text\": \"{}\"}}]",
        "x".repeat(200_000)
    );
    let request = node.request(Method::POST, path);
    let request = request.header("content-type", "application/json");
    let large = request.header("X-Key", "signing-key").body(body.clone());
    node.send(large).ok();
    // Who only got past an expression is one still.
    let node = self::node(Some(
        "{{ '' if request_headers['X-Key'] == 'guess' else 'no' }}",
    ));
    let request = node.request(Method::POST, path);
    let request = request.header("content-type", "application/json");
    let answer = node.send(request.header("X-Key", "guess").body(body));
    answer.is_problem(413, "65536 bytes");
}

#[test]
fn a_pipe_may_take_more_of_strangers() {
    let open = json!([["allow", ["group:Anonymous"], ["write_data"]]]);
    let mut node = node(None);
    node.token = Some(token(node.options(), Role::Admin));
    let pipe = json!([{
        "_id": "events", "type": "pipe", "permissions": open,
        "source": {"type": "http_endpoint", "anonymous_body_maxsize": 100},
    }]);
    node.put("/api/config", pipe).ok();
    node.token = None;
    post(&node, "events", "").ok();
    let request = node.request(Method::POST, "/api/receivers/events/entities");
    let answer = node.send(request.body(format!("[{}]", " ".repeat(100))));
    answer.is_problem(413, "100 bytes");
}

#[test]
fn a_webhooks_token_may_stand_before_the_body() {
    let mut node = TestNode::of(json!([
        {"_id": "q", "type": "pipe", "pump": {"schedule_interval": 86400},
         "source": {"type": "embedded", "entities": [{"_id": "1"}]}},
    ]));
    node.put("/api/secrets", json!({"webhook_token": "letmein"}))
        .ok();
    node.token = None;
    let path = "/api/pipes/q/webhook";
    let endless = "Content-Length: 1000000000\r\n";
    let mut wrong = begin(&node, &format!("{path}?token=letmeout"), endless);
    assert_eq!(status(&mut wrong), "404");
    let mut header = begin(
        &node,
        path,
        &format!("{endless}X-Webhook-Token: letmein\r\n"),
    );
    assert_eq!(status(&mut header), "200");
    node.post(&format!("{path}?token=letmein"), json!(null))
        .ok();
    until("the pump ran", || {
        let rows = node.get("/api/datasets/q/entities");
        (rows.status == 200 && ids(&rows.value()) == ["1"]).then_some(())
    });
}

#[test]
fn an_expression_that_is_no_template_is_told_with_its_place() {
    let node = TestNode::new();
    let pipe = json!([{
        "_id": "events", "type": "pipe",
        "source": {"type": "http_endpoint", "validation_expression": "{% if request_params.x %}"},
    }]);
    let answer = node.put("/api/config", pipe);
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(
        answer.text.contains("validation_expression"),
        "{}",
        answer.text
    );
    assert!(
        answer.text.contains("expected a Jinja template"),
        "{}",
        answer.text
    );
}

#[test]
fn a_trace_tells_of_every_post_without_secrets() {
    let node = TestNode::of(json!([{
        "_id": "events", "type": "pipe",
        "source": {"type": "http_endpoint", "trace": {"log_request_body_maxsize": 20}},
    }]));
    node.put("/api/secrets", json!({"webhook_secret": "signing-key"}))
        .ok();
    let path = "/api/receivers/events/entities?key=signing-key&x=1";
    let request = |body: &'static str| {
        let request = node.request(Method::POST, path);
        let request = request.header("content-type", "application/json");
        node.send(request.header("X-Signature", "abcdef").body(body))
    };
    request(r#"[{"_id": "e1", "text": "a long one"}]"#).ok();
    request(r#"[{"text": "no id"}]"#).is_problem(400, "_id");
    let log = node.json("/api/pipes/events/log");
    let log = log.as_array().unwrap();
    let kinds: Vec<&str> = log
        .iter()
        .map(|entry| entry["event_type"].as_str().unwrap())
        .collect();
    let started = "pump-started";
    assert_eq!(kinds, [started, "pump-completed", started, "pump-failed"]);
    let told = &log[1]["trace"][0];
    assert_eq!(told["request"]["method"], "POST");
    assert_eq!(told["request"]["body"], r#"[{"_id": "e1", "text"#);
    assert_eq!(told["request"]["headers"]["x-signature"], "***");
    let url = told["request"]["url"].as_str().unwrap();
    assert!(url.ends_with("/entities?key=***&x=1"), "{url}");
    assert_eq!(
        (&told["response"]["status"], &told["response"]["body"]),
        (&json!(200), &json!("{}"))
    );
    assert_eq!(
        (&log[1]["processed_last_run"], &log[1]["changes_last_run"]),
        (&json!(1), &json!(1))
    );
    let failed = &log[3];
    assert!(
        failed["trace"][0]["error"]
            .as_str()
            .unwrap()
            .contains("_id"),
        "{failed}"
    );
    assert!(
        failed["traceback"].as_str().unwrap().contains("_id"),
        "{failed}"
    );
    assert!(
        !node
            .get("/api/pipes/events/log")
            .text
            .contains("signing-key")
    );
}

/// Somebody who is told of news: the bodies that came, answered with these statuses.
fn listener(statuses: &'static [u16]) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/api/pipes/p/webhook",
        listener.local_addr().unwrap()
    );
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for status in statuses {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            let mut part = [0; 1024];
            while !text.ends_with(b"}") {
                let read = stream.read(&mut part).unwrap();
                assert_ne!(read, 0, "{}", String::from_utf8_lossy(&text));
                text.extend_from_slice(&part[..read]);
            }
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            tell.send(String::from_utf8(text).unwrap()).unwrap();
        }
    });
    (url, told)
}

#[test]
fn whoever_registered_is_told_of_news_until_they_want_no_more() {
    let node = TestNode::of(json!([
        {"_id": "events", "type": "pipe", "source": {"type": "http_endpoint"}},
    ]));
    let (url, told) = listener(&[500, 200, 404]);
    let post = |id: &str| {
        node.post("/api/receivers/events/entities", json!([{"_id": id}]))
            .ok()
    };
    post("a");
    let mut query = reqwest::Url::parse("http://q/").unwrap();
    query.query_pairs_mut().append_pair("webhook", &url);
    let query = query.query().unwrap().to_owned();
    let ask = |more: &str| {
        let path = format!("/api/datasets/events/entities?{query}{more}");
        node.send(node.request(Method::OPTIONS, &path))
    };
    ask("").is_problem(400, "`token`");
    assert_eq!(ask("&token=t1").status, 200);
    let within = Duration::from_secs(20);
    post("b");
    // Whoever does not listen is told again.
    for _ in 0..2 {
        let message = told.recv_timeout(within).unwrap();
        assert!(
            message.starts_with("POST /api/pipes/p/webhook HTTP/1.1"),
            "{message}"
        );
        assert!(message.ends_with("{\"token\":\"t1\"}"), "{message}");
    }
    post("c");
    told.recv_timeout(within).unwrap();
    // Nobody listens there any more, and nobody is told.
    post("d");
    let subscribers = &node.running().node().subscribers;
    until("the registration is forgotten", || {
        (subscribers.count() == 0).then_some(())
    });
}

#[test]
fn only_admins_register_webhooks() {
    let mut node = node(None);
    node.token = Some(token(node.options(), Role::Reader));
    let path = "/api/datasets/events/entities?webhook=http%3A%2F%2Fx%2F&token=t";
    let answer = node.send(node.request(Method::OPTIONS, path));
    answer.is_problem(403, "admin");
    node.token = Some(token(node.options(), Role::Admin));
    let not_http = "/api/datasets/events/entities?webhook=file%3A%2F%2Fx%2F&token=t";
    let answer = node.send(node.request(Method::OPTIONS, not_http));
    answer.is_problem(400, "http or https");
    assert_eq!(node.send(node.request(Method::OPTIONS, path)).status, 200);
}
