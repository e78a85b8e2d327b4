//! The json source: the pull protocol, and reads that must not pass for whole.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_entity::{Batch, Offset};
use tahini_hub::source::{From, Step};
use tahini_hub::{Class, Failure};

use crate::server::{Reply, Seen, Server};
use crate::world::{World, content, full, numbered, read_all, since, url_system};

fn config(more: Json) -> Json {
    let mut config = json!({ "type": "json", "system": "s", "url": "get" });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn text(entities: &[Json]) -> String {
    Json::Array(entities.to_vec()).to_string()
}

fn pull(script: Vec<Reply>, more: Json, from: From) -> (Vec<Seen>, Result<Batch, Failure>) {
    let server = Server::play(script);
    let world = World::at(&server.url());
    let read = world
        .source(config(more), from)
        .and_then(|mut source| read_all(&mut *source, 7));
    (server.seen(), read)
}

fn chronological(more: Json) -> Json {
    let mut all = json!({ "supports_since": true, "is_chronological": true });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

/// Entities whose `_updated` is their number.
fn updated(range: std::ops::Range<u64>) -> Vec<Json> {
    range
        .map(|n| json!({ "_id": n.to_string(), "_updated": n }))
        .collect()
}

#[test]
fn all_entities_of_an_array_arrive_in_order() {
    let entities = numbered(0..20);
    let (seen, read) = pull(vec![Reply::ok(&text(&entities))], json!({}), full());
    assert_eq!(content(&read.unwrap()), entities);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("GET", "/get")
    );
    assert_eq!(seen[0].header("accept"), Some("application/json"));
}

#[test]
fn an_entity_may_be_spread_over_chunks() {
    let all = text(&numbered(0..3));
    let (left, right) = all.split_at(17);
    let reply = Reply::chunked().chunk(left).chunk(right).last_chunk();
    assert_eq!(pull(vec![reply], json!({}), full()).1.unwrap().len(), 3);
}

#[test]
fn since_is_sent_encoded_where_the_source_supports_it() {
    let offset = || since(Offset::Text("2015-01-01T00:00:00+01:00 &x".into()));
    let reply = || vec![Reply::ok("[]")];
    let (seen, _) = pull(reply(), json!({ "supports_since": true }), offset());
    assert_eq!(
        seen[0].target,
        "/get?since=2015-01-01T00%3A00%3A00%2B01%3A00%20%26x"
    );
    let (seen, _) = pull(reply(), json!({}), offset());
    assert_eq!(seen[0].target, "/get");
    let (seen, _) = pull(
        reply(),
        json!({ "supports_since": true, "url": "get?a=1" }),
        since(Offset::Int(0)),
    );
    assert_eq!(seen[0].target, "/get?a=1&since=0");
    let (seen, _) = pull(reply(), json!({ "supports_since": true }), full());
    assert_eq!(seen[0].target, "/get");
}

#[test]
fn since_is_sent_by_the_name_and_in_the_place_that_the_source_gives() {
    let ask = |more: Json| {
        let mut all = json!({ "supports_since": true });
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        let (mut seen, read) = pull(vec![Reply::ok("[]")], all, since(Offset::Int(7)));
        read.unwrap();
        seen.remove(0)
    };
    let seen = ask(json!({ "since_property_name": "changedAfter" }));
    assert_eq!(seen.target, "/get?changedAfter=7");
    let seen = ask(json!({
        "since_property_name": "X-Since", "since_property_location": "header",
        "headers": { "X-A": "b" }
    }));
    assert_eq!(seen.target, "/get");
    assert_eq!(
        (seen.header("x-since"), seen.header("x-a")),
        (Some("7"), Some("b"))
    );
    let seen = ask(json!({ "since_property_location": "manual", "since_property_name": "x" }));
    assert_eq!((seen.target.as_str(), seen.header("x")), ("/get", None));
    let seen = ask(json!({ "supports_since": false, "since_property_location": "header" }));
    assert_eq!(seen.header("since"), None);
}

#[test]
fn headers_and_subset_are_sent() {
    let more = json!({ "headers": { "X-A": "b" }, "subset": ["eq", "_S.a", "x y"] });
    let (seen, read) = pull(vec![Reply::ok("[]")], more, full());
    read.unwrap();
    assert_eq!(seen[0].header("x-a"), Some("b"));
    let subset = "%5B%22eq%22%2C%22_S.a%22%2C%22x%20y%22%5D";
    assert_eq!(seen[0].parameter("subset"), Some(subset));
}

#[test]
fn a_short_content_length_is_a_failed_read() {
    let body = text(&numbered(0..20));
    let cut = &body[..body.len() - 30];
    let len = body.len();
    let reply = Reply::raw(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{cut}"
    ));
    let failure = pull(vec![reply], json!({}), full()).1.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    let counts = format!("after {} of {len} bytes", cut.len());
    assert!(failure.message.contains(&counts), "{failure}");
    assert!(
        failure
            .message
            .starts_with("pipe \"p\": GET http://127.0.0.1"),
        "{failure}"
    );
}

#[test]
fn a_missing_last_chunk_is_a_failed_read_even_behind_a_closed_array() {
    let reply = Reply::chunked().chunk(&text(&numbered(0..20)));
    let failure = pull(vec![reply], json!({}), full()).1.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("broken off after"), "{failure}");
}

#[test]
fn a_cut_array_is_a_failed_read_even_in_a_whole_body() {
    let body = text(&numbered(0..20));
    for cut in [body.len() - 1, body.len() - 5, 1, 0] {
        let failure = pull(vec![Reply::ok(&body[..cut])], json!({}), full())
            .1
            .unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{failure}");
        assert!(
            failure
                .message
                .starts_with("pipe \"p\": GET http://127.0.0.1"),
            "{failure}"
        );
        assert!(failure.reached);
    }
}

#[test]
fn nothing_of_a_step_that_failed_counts() {
    let body = text(&numbered(0..20));
    let server = Server::play([Reply::ok(&body[..body.len() - 1])]);
    let world = World::at(&server.url());
    let mut source = world.source(config(json!({})), full()).unwrap();
    let mut out = Batch::new();
    assert_eq!(source.next_batch(5, &mut out).unwrap(), Step::More);
    assert_eq!(out.len(), 5);
    source.next_batch(100, &mut out).unwrap_err();
    assert_eq!(out.len(), 5);
}

#[test]
fn an_answer_that_is_no_array_of_entities_is_a_failed_read_that_shows_it() {
    for (body, shown) in [
        ("{\"error\": \"no\"}", "error"),
        ("<html>", "<html>"),
        ("[1]", "1"),
        ("[{}] trailing", "trailing"),
    ] {
        let failure = pull(vec![Reply::ok(body)], json!({}), full())
            .1
            .unwrap_err();
        assert!(failure.message.contains(shown), "{body}: {failure}");
    }
}

#[test]
fn an_entity_with_a_wrong_field_is_named_by_its_position() {
    let body = r#"[{"_id": "a"}, {"_id": "b", "_updated": []}]"#;
    let failure = pull(vec![Reply::ok(body)], json!({}), full())
        .1
        .unwrap_err();
    assert_eq!(failure.class, Class::Entity);
    for words in ["pipe \"p\"", "/get", "position 1", "_updated"] {
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn an_entity_without_a_string_id_is_let_through() {
    for (body, kept) in [
        (r#"[{"a": 1}]"#, None),
        (r#"[{"_id": null}]"#, None),
        (r#"[{"_id": 2}]"#, Some("integer")),
    ] {
        let (_, read) = pull(vec![Reply::ok(body)], json!({}), full());
        let read = read.unwrap();
        let found = read.get(0).value("_id").map(|id| id.kind());
        assert_eq!((read.get(0).id, found), (None, kept), "{body}");
    }
}

#[test]
fn a_refusal_is_a_failed_read_that_may_be_tried_again() {
    for status in ["404 Not Found", "500 No", "429 Wait"] {
        let failure = pull(vec![Reply::status(status, "", "words")], json!({}), full())
            .1
            .unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{status}");
        assert_eq!(failure.status, status[..3].parse().ok());
        assert_eq!(failure.original.as_deref(), Some("words"));
    }
}

#[test]
fn nothing_is_a_natural_end() {
    assert_eq!(
        pull(vec![Reply::ok("[]")], json!({}), full())
            .1
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn pages_are_asked_for_until_one_is_empty() {
    let replies = vec![
        Reply::ok(&text(&updated(0..10))),
        Reply::ok(&text(&updated(10..20))),
        // A server may have a limit of its own: a short page is not the end.
        Reply::ok(&text(&updated(20..23))),
        Reply::ok("[]"),
    ];
    let (seen, read) = pull(replies, chronological(json!({ "page_size": 10 })), full());
    assert_eq!(content(&read.unwrap()).len(), 23);
    let targets: Vec<&str> = seen.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/get?limit=10",
            "/get?since=9&limit=10",
            "/get?since=19&limit=10",
            "/get?since=22&limit=10"
        ]
    );
}

#[test]
fn pages_end_when_a_server_only_repeats_its_last_entities() {
    let replies = vec![
        Reply::ok(&text(&updated(0..3))),
        Reply::ok(&text(&updated(2..3))),
    ];
    let (_, read) = pull(replies, chronological(json!({ "page_size": 3 })), full());
    assert_eq!(read.unwrap().len(), 4);
}

#[test]
fn a_page_that_cannot_be_passed_is_a_failure_and_no_endless_loop() {
    let same: Vec<Json> = (0..3)
        .map(|n| json!({ "_id": n.to_string(), "_updated": 5 }))
        .collect();
    let replies = vec![Reply::ok(&text(&same)), Reply::ok(&text(&same))];
    let (_, read) = pull(replies, chronological(json!({ "page_size": 3 })), full());
    let failure = read.unwrap_err();
    assert!(failure.message.contains("page_size"), "{failure}");
}

#[test]
fn pages_need_a_place_to_go_on_from() {
    let replies = vec![Reply::ok(&text(&numbered(0..3)))];
    let failure = pull(replies, chronological(json!({ "page_size": 3 })), full())
        .1
        .unwrap_err();
    assert!(failure.message.contains("_updated"), "{failure}");
    let failure = pull(vec![], json!({ "page_size": 3 }), full())
        .1
        .unwrap_err();
    assert_eq!(failure.class, Class::Config);
}

#[test]
fn a_second_page_that_is_cut_is_a_failed_read() {
    let body = text(&updated(10..20));
    let replies = vec![
        Reply::ok(&text(&updated(0..10))),
        Reply::ok(&body[..body.len() - 1]),
    ];
    let (_, read) = pull(replies, chronological(json!({ "page_size": 10 })), full());
    assert_eq!(read.unwrap_err().class, Class::Transient);
}

#[test]
fn the_server_can_say_that_its_dataset_is_not_populated() {
    for (header, expected) in [("X-Dataset-Populated: false\r\n", false), ("", true)] {
        let server = Server::play([Reply::status("200 OK", header, "[]")]);
        let world = World::at(&server.url());
        let mut source = world.source(config(json!({})), full()).unwrap();
        read_all(&mut *source, 10).unwrap();
        assert_eq!(source.populated(), expected, "{header}");
    }
}

fn with_strategy(server: &Server, strategy: Json) -> World {
    let mut system = url_system(&server.url());
    system["retry_strategy"] = strategy;
    World::with(system, None).unwrap()
}

#[test]
fn a_refusal_carries_what_the_systems_retry_strategy_says_about_its_status() {
    let strategy = json!({
        "500-599": { "max_read_retries": 2, "read_retry_delay": 30 },
        "default": { "max_read_retries": 1 },
    });
    for (status, retries) in [("500 No", 2), ("503 No", 2), ("429 Wait", 1)] {
        let server = Server::play([Reply::status(status, "Retry-After: 7\r\n", "")]);
        let world = with_strategy(&server, strategy.clone());
        let mut source = world.source(config(json!({})), full()).unwrap();
        let failure = read_all(&mut *source, 10).unwrap_err();
        assert_eq!(failure.class, Class::Transient);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
        let says = failure.retries.unwrap();
        assert_eq!(says.max_read_retries, Some(retries), "{status}");
    }
    // Where nobody answered there is no status to say anything about.
    let mut system = url_system(&Server::nowhere());
    system["retry_strategy"] = strategy;
    let world = World::with(system, None).unwrap();
    let mut source = world.source(config(json!({})), full()).unwrap();
    let failure = read_all(&mut *source, 10).unwrap_err();
    assert_eq!((failure.status, failure.retries), (None, None));
}

#[test]
fn a_system_that_is_missing_or_of_another_kind_is_a_config_failure() {
    let failure = World::empty()
        .source(config(json!({})), full())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(failure.class, Class::Config);
}
