//! Heads of answers: statuses, redirects, refused connections, silence.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;
use tahini_connectors::http::{Ask, Response};
use tahini_hub::{Class, Failure};

use crate::body::get;
use crate::server::{Reply, Server};
use crate::world::{World, url_system};

fn refusal(reply: Reply) -> Failure {
    let server = Server::play([reply]);
    get(&World::at(&server.url()))
        .map(|response| response.status)
        .unwrap_err()
}

fn post(world: &World) -> Result<Response, Failure> {
    let headers = HeaderMap::new();
    let ask = Ask {
        method: Method::POST,
        url: "a",
        parameters: Vec::new(),
        headers: &headers,
        body: Bytes::from_static(b"[]"),
    };
    world.system().ask(ask, &world.cancel)
}

#[test]
fn a_status_gives_a_failure_its_class() {
    for (status, class) in [
        ("400 Bad Request", Class::Entity),
        ("401 Unauthorized", Class::Entity),
        ("404 Not Found", Class::Entity),
        ("408 Request Timeout", Class::Transient),
        ("429 Too Many Requests", Class::Transient),
        ("500 Internal Server Error", Class::Transient),
        ("503 Service Unavailable", Class::Transient),
    ] {
        let failure = refusal(Reply::status(status, "", "the server's words"));
        assert_eq!(failure.class, class, "{status}");
        assert_eq!(failure.status, status[..3].parse().ok());
        assert!(failure.reached);
        assert!(failure.message.contains(status), "{failure}");
        assert_eq!(failure.original.as_deref(), Some("the server's words"));
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let reply = |header: &str| Reply::status("429 Too Many Requests", header, "");
    let seconds = refusal(reply("Retry-After: 7\r\n")).retry_after;
    assert_eq!(seconds, Some(Duration::from_secs(7)));
    // The clock of these tests stands still at noon.
    let date = refusal(reply("Retry-After: Wed, 01 May 2024 12:00:30 GMT\r\n")).retry_after;
    assert_eq!(date, Some(Duration::from_secs(30)));
    assert_eq!(refusal(reply("")).retry_after, None);
}

#[test]
fn of_a_long_refusal_only_the_beginning_is_kept() {
    let words = "no ".repeat(10_000);
    let original = refusal(Reply::status("500 No", "", &words))
        .original
        .unwrap();
    assert!(
        original.len() <= 2048 && original.len() > 2000,
        "{}",
        original.len()
    );
}

#[test]
fn a_refusal_whose_body_is_cut_still_has_its_status() {
    let failure = refusal(Reply::raw(
        "HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\nhal",
    ));
    assert_eq!(failure.status, Some(503));
}

#[test]
fn an_address_where_nobody_listens_is_a_transient_failure_that_was_not_reached() {
    let world = World::at(&Server::nowhere());
    let failure = get(&world).map(|response| response.status).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(!failure.reached);
    assert_eq!(failure.status, None);
    assert!(
        failure.message.contains("expected a connection"),
        "{failure}"
    );
    assert!(
        failure.message.to_lowercase().contains("refused"),
        "{failure}"
    );
}

#[test]
fn a_server_that_hangs_up_without_an_answer_is_a_transient_failure() {
    let failure = refusal(Reply::raw(""));
    assert_eq!(failure.class, Class::Transient);
    assert!(!failure.reached);
    assert!(failure.message.contains("expected an answer"), "{failure}");
}

#[test]
fn silence_before_the_head_ends_the_request_and_closes_the_socket() {
    let server = Server::play([Reply::default().hang()]);
    let mut config = url_system(&server.url());
    config["read_timeout"] = 0.2.into();
    let world = World::with(config, None).unwrap();
    let failure = get(&world).map(|response| response.status).unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("within 0.2 s"), "{failure}");
    server.hung_up(Duration::from_secs(5));
}

#[test]
fn a_stopped_run_stops_waiting_within_a_second_and_closes_the_socket() {
    let server = Server::play([Reply::default().hang()]);
    let world = World::at(&server.url());
    let cancel = world.cancel.clone();
    let (asked, elapsed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| get(&world).map(|response| response.status).unwrap_err());
        // The request is at the server before the run is stopped.
        while server.seen().is_empty() {
            std::thread::yield_now();
        }
        let stopped = Instant::now();
        cancel.cancel();
        (asking.join().unwrap(), stopped.elapsed())
    });
    assert_eq!(asked.class, Class::Cancelled);
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    server.hung_up(Duration::from_secs(5));
}

#[test]
fn a_run_that_was_stopped_before_gets_no_answer() {
    let server = Server::play([]);
    let world = World::at(&server.url());
    world.cancel.cancel();
    let failure = get(&world).map(|response| response.status).unwrap_err();
    assert_eq!(failure.class, Class::Cancelled);
}

#[test]
fn get_follows_redirects_and_keeps_its_headers_on_the_same_host() {
    let server = Server::play([
        Reply::status("302 Found", "Location: /b?c=1\r\n", ""),
        Reply::ok("there"),
    ]);
    let mut config = url_system(&server.url());
    config["headers"] = json!({ "X-Api-Key": "hush-hush" });
    let world = World::with(config, None).unwrap();
    assert_eq!(get(&world).unwrap().body.read_up_to(100).unwrap(), b"there");
    let seen = server.seen();
    assert_eq!(seen[1].target, "/b?c=1");
    assert_eq!(seen[1].header("x-api-key"), Some("hush-hush"));
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let other = Server::play([Reply::ok("there")]);
    let location = format!("Location: {}/b\r\n", other.url());
    let server = Server::play([Reply::status("307 Temporary Redirect", &location, "")]);
    let mut config = url_system(&server.url());
    config["headers"] = json!({ "X-Api-Key": "hush-hush" });
    config["authentication"] = "basic".into();
    config["username"] = "u".into();
    config["password"] = "secret".into();
    let world = World::with(config, None).unwrap();
    get(&world).unwrap();
    assert!(server.seen()[0].header("authorization").is_some());
    let seen = &other.seen()[0];
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-api-key"), None);
    assert_eq!(seen.header("accept"), Some("application/json"));
}

#[test]
fn redirects_without_end_are_a_failure() {
    let server = Server::play((0..11).map(|_| Reply::status("302 Found", "Location: /a\r\n", "")));
    let failure = get(&World::at(&server.url()))
        .map(|response| response.status)
        .unwrap_err();
    assert!(failure.message.contains("10 redirects"), "{failure}");
    assert_eq!(server.seen().len(), 11);
}

#[test]
fn post_follows_no_redirect_and_says_where_it_led() {
    let server = Server::play([Reply::status(
        "308 Permanent Redirect",
        "Location: http://127.0.0.1:1/a/?key=hush\r\n",
        "",
    )]);
    let failure = post(&World::at(&server.url()))
        .map(|response| response.status)
        .unwrap_err();
    assert_eq!(failure.status, Some(308));
    assert!(
        failure.message.contains("http://127.0.0.1:1/a/"),
        "{failure}"
    );
    assert!(!failure.message.contains("hush"), "{failure}");
}

#[test]
fn no_message_shows_a_secret() {
    let body = "bad password secret-word for key hush-hush";
    let server = Server::play([Reply::status("401 Unauthorized", "", body)]);
    let mut config = url_system(&server.url());
    config["url_pattern"] = format!("{}/%s?token=query-secret", server.url()).into();
    config["headers"] = json!({ "X-Api-Key": "hush-hush", "X-Plain": "password" });
    config["authentication"] = "basic".into();
    config["username"] = "u".into();
    config["password"] = "secret-word".into();
    let world = World::with(config, None).unwrap();
    let failure = get(&world).map(|response| response.status).unwrap_err();
    let words = failure.to_string();
    for secret in ["secret-word", "hush-hush", "query-secret"] {
        assert!(!words.contains(secret), "{secret} in {words}");
    }
    assert!(words.contains("bad password *** for key ***"), "{words}");
}
