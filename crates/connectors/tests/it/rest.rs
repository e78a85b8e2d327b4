//! The parts of REST one by one, against servers that follow a script.

use serde_json::{Value as Json, json};
use tahini_entity::{Batch, Offset};
use tahini_hub::sink::RunKind;
use tahini_hub::{Class, Failure};

use crate::server::{Reply, Seen, Server};
use crate::world::{World, batch, content, full, read_all, run, since};

fn reply(body: Json) -> Reply {
    Reply::status(
        "200 OK",
        "Content-Type: application/json\r\n",
        &body.to_string(),
    )
}

/// A world with the rest system `s` of these operations and more properties.
fn world(server: &Server, operations: Json, more: Json) -> Result<World, Failure> {
    let mut system = json!({
        "_id": "s", "type": "system:rest", "url_pattern": format!("{}/%s", server.url()),
        "connect_timeout": 5, "read_timeout": 5, "operations": operations,
    });
    for (name, value) in more.as_object().unwrap() {
        system[name] = value.clone();
    }
    World::with(system, None)
}

fn part(more: Json) -> Json {
    let mut config = json!({"type": "rest", "system": "s", "operation": "op"});
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

struct Outcome {
    seen: Vec<Seen>,
    result: Result<Vec<Json>, Failure>,
}

impl Outcome {
    fn words(self) -> String {
        self.result.unwrap_err().to_string()
    }
}

/// What a source with the operation `op` reads.
fn reads(script: Vec<Reply>, operation: Json, source: Json) -> Outcome {
    let server = Server::play(script);
    let result = world(&server, json!({"op": operation}), json!({}))
        .and_then(|world| world.source(part(source), full()))
        .and_then(|mut source| read_all(source.as_mut(), 2));
    Outcome {
        seen: server.seen(),
        result: result.map(|batch| content(&batch)),
    }
}

/// What a transform with the operation `op` makes of these entities.
fn transforms(script: Vec<Reply>, operation: Json, transform: Json, input: &[Json]) -> Outcome {
    let server = Server::play(script);
    let world = world(&server, json!({"op": operation}), json!({})).unwrap();
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let result = world.transform(part(transform)).and_then(|mut transform| {
        transform.apply(&batch(input), &mut out, &mut origins)?;
        transform.end()
    });
    Outcome {
        seen: server.seen(),
        result: result.map(|()| content(&out)),
    }
}

fn ids(entities: &[Json]) -> Vec<&str> {
    entities
        .iter()
        .map(|one| one["_id"].as_str().unwrap_or("-"))
        .collect()
}

#[test]
fn the_list_is_where_payload_property_says() {
    let nested = json!({"a": {"b": [{"_id": "1"}]}, "a.c": [{"_id": "2"}], "one": {"_id": "3"}});
    for (property, expected) in [
        ("a.b", vec!["1"]),
        ("a.c", vec!["2"]),
        ("one", vec!["3"]),
        ("nothing.here", vec![]),
    ] {
        let operation = json!({"url": "x", "method": "GET", "payload_property": "never"});
        let outcome = reads(
            vec![reply(nested.clone())],
            operation,
            json!({"payload_property": property}),
        );
        assert_eq!(ids(&outcome.result.unwrap()), expected, "{property}");
    }
}

#[test]
fn an_id_of_the_answer_goes_before_the_expression() {
    let answer = json!([{"id": 7}, {"_id": "own", "id": 8}, {"_id": null, "id": 9}]);
    let operation = json!({"url": "x", "method": "GET", "id_expression": "n-{{ id }}"});
    let outcome = reads(vec![reply(answer)], operation, json!({}));
    assert_eq!(ids(&outcome.result.unwrap()), ["n-7", "own", "n-9"]);
}

#[test]
fn templates_make_address_headers_parameters_and_payload() {
    let operation = json!({
        "url": "men/{{ properties.group }}", "method": "POST",
        "headers": {"X-Url": "{{ url.split('/')[-1] }}", "X-Group": "{{ properties.group }}"},
        "params": {"q": "{{ headers['X-Group'] }} {{ page_size }}", "l": ["a", "b"], "gone": null},
        "payload": {"p": "{{ params.q }}", "n": "{{ page_size }}sesam:markjson"},
        "page_size": 5,
    });
    let source = json!({"properties": {"group": "blue"}});
    let outcome = reads(vec![reply(json!([]))], operation, source);
    outcome.result.unwrap();
    let seen = &outcome.seen[0];
    assert_eq!(seen.target, "/men/blue?q=blue%205&l=a&l=b");
    assert_eq!(seen.header("x-url"), Some("blue"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.body, "{\"p\":\"blue 5\",\"n\":5}");
}

#[test]
fn headers_of_the_system_are_overridden_by_name_in_any_case() {
    let server = Server::play([reply(json!([]))]);
    let operation = json!({"url": "x", "method": "GET", "headers": {"x-a": "mine"}});
    let more = json!({"headers": {"X-A": "system", "X-B": "kept"}});
    let world = world(&server, json!({"op": operation}), more).unwrap();
    let mut source = world.source(part(json!({})), full()).unwrap();
    read_all(source.as_mut(), 10).unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.header("x-a"), seen.header("x-b")),
        (Some("mine"), Some("kept"))
    );
}

#[test]
fn operations_say_who_we_are_as_the_system_does() {
    for (more, expected) in [
        (
            json!({"authentication": "basic", "username": "Aladdin", "password": "open sesame"}),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (
            json!({"authentication": "jwt", "jwt_token": "a.b.c", "headers": {"Authorization": "x"}}),
            "Bearer a.b.c",
        ),
        (json!({"headers": {"Authorization": "mine"}}), "mine"),
    ] {
        let server = Server::play([reply(json!([]))]);
        let operation = json!({"url": "x", "method": "GET"});
        let world = world(&server, json!({"op": operation}), more).unwrap();
        let mut source = world.source(part(json!({})), full()).unwrap();
        read_all(source.as_mut(), 10).unwrap();
        assert_eq!(server.seen()[0].header("authorization"), Some(expected));
    }
}

#[test]
fn an_offset_that_a_template_asks_for_is_not_added_again() {
    for (operation, target) in [
        (
            json!({"url": "x?from={{ since }}", "method": "GET"}),
            "/x?from=7",
        ),
        (json!({"url": "x", "method": "GET"}), "/x?since=7"),
        (
            json!({"url": "x", "method": "GET", "since_property_location": "manual",
                   "params": {"f": "(d gt {{ since }})"}}),
            "/x?f=%28d%20gt%207%29",
        ),
    ] {
        let server = Server::play([reply(json!([]))]);
        let world = world(&server, json!({"op": operation}), json!({})).unwrap();
        let config = part(json!({"supports_since": true}));
        let mut source = world.source(config, since(Offset::Int(7))).unwrap();
        read_all(source.as_mut(), 10).unwrap();
        assert_eq!(server.seen()[0].target, target);
    }
    let operation = json!({"url": "x", "method": "GET",
        "params": {"f": "{% if since is defined and since is not none %}{{ since }}{% else %}1970{% endif %}"}});
    let outcome = reads(
        vec![reply(json!([]))],
        operation,
        json!({"supports_since": true}),
    );
    assert_eq!(outcome.seen[0].target, "/x?f=1970");
}

#[test]
fn paging_ends_as_the_strategy_says() {
    let page = |n: u64| reply(json!({"next": "x?page=2", "list": [{"_id": n.to_string()}]}));
    let empty = || reply(json!({"next": "x?page=2", "list": []}));
    for (strategy, script, read) in [
        // The third request would be the second again.
        (json!("same-next-page-request"), vec![page(1), page(2)], 2),
        (json!("same-next-page-link"), vec![page(1), page(2)], 2),
        (json!(["same-response"]), vec![page(1), page(2), page(2)], 2),
        (
            json!("empty-result"),
            vec![page(1), page(2), page(3), empty()],
            3,
        ),
        (json!(["not-full-page"]), vec![page(1), empty()], 1),
        // By default the first of three.
        (Json::Null, vec![page(1), page(2)], 2),
    ] {
        let operation = json!({
            "url": "x", "method": "GET", "payload_property": "list", "page_size": 1,
            "next_page_link": "{{ body.next }}", "next_page_termination_strategy": strategy,
        });
        let outcome = reads(script, operation, json!({}));
        assert_eq!(outcome.result.unwrap().len(), read, "{strategy}");
    }
}

#[test]
fn a_link_that_is_null_missing_or_empty_ends_paging() {
    for last in [
        json!({"next": null}),
        json!({}),
        json!({"next": ""}),
        json!({"next": {"no": 1}}),
    ] {
        let operation = json!({
            "url": "x", "method": "GET", "payload_property": "list",
            "next_page_link": "{{ body.next.link }}",
        });
        let first = json!({"list": [{"_id": "1"}], "next": {"link": "/y"}});
        let outcome = reads(
            vec![reply(first), reply(last.clone())],
            operation,
            json!({}),
        );
        assert_eq!(outcome.result.unwrap().len(), 1, "{last}");
        assert_eq!(outcome.seen[1].target, "/y");
    }
}

#[test]
fn paging_that_goes_in_a_circle_is_told() {
    let to = |page: u64| reply(json!({"next": format!("x?page={page}"), "list": [{"_id": "1"}]}));
    let operation = json!({
        "url": "x?page=1", "method": "GET", "payload_property": "list",
        "next_page_link": "{{ body.next }}", "next_page_termination_strategy": "empty-result",
    });
    let outcome = reads(vec![to(2), to(1), to(2)], operation, json!({}));
    let failure = outcome.result.unwrap_err();
    assert_eq!(failure.class, Class::Fatal);
    assert!(
        failure.message.contains("asked for and answered before"),
        "{failure}"
    );
    assert!(failure.message.contains("/x?page="), "{failure}");
}

#[test]
fn another_server_does_not_learn_our_credentials() {
    let other = Server::play([reply(json!({"list": []}))]);
    let link = format!("{}/x", other.url());
    let server = Server::play([reply(json!({"list": [{"_id": "1"}], "next": link}))]);
    let operation = json!({
        "url": "x", "method": "GET", "payload_property": "list",
        "next_page_link": "{{ body.next }}", "headers": {"X-Api-Key": "hush-hush"},
    });
    let more = json!({"authentication": "jwt", "jwt_token": "a.b.c"});
    let world = world(&server, json!({"op": operation}), more).unwrap();
    let mut source = world.source(part(json!({})), full()).unwrap();
    read_all(source.as_mut(), 10).unwrap();
    assert_eq!(server.seen()[0].header("x-api-key"), Some("hush-hush"));
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some("Bearer a.b.c")
    );
    let seen = &other.seen()[0];
    assert_eq!(
        (seen.header("authorization"), seen.header("x-api-key")),
        (None, None)
    );
}

#[test]
fn an_answer_is_json_where_its_type_says_so() {
    let typed = |kind: &str, body: &str| {
        Reply::status("200 OK", &format!("Content-Type: {kind}\r\n"), body)
    };
    let operation = || json!({"url": "x", "method": "GET"});
    let outcome = reads(vec![typed("text/plain", "[{}]")], operation(), json!({}));
    assert_eq!(outcome.result.unwrap(), [json!({"response": "[{}]"})]);
    let outcome = reads(
        vec![typed("application/json", "[{")],
        operation(),
        json!({}),
    );
    let words = outcome.words();
    assert!(
        words.contains("expected JSON, as its Content-Type says"),
        "{words}"
    );
    let server = Server::play([typed("application/JSONish; v=1", "[{\"_id\": \"1\"}]")]);
    let more = json!({"json_content_types": ["application/jsonish"]});
    let world = world(&server, json!({"op": operation()}), more).unwrap();
    let mut source = world.source(part(json!({})), full()).unwrap();
    assert_eq!(read_all(source.as_mut(), 10).unwrap().len(), 1);
}

#[test]
fn a_transform_adds_what_the_answer_says() {
    let operation = json!({
        "url": "{{ _id }}", "method": "GET", "payload_property": "value",
        "id_expression": "x-{{ id }}-{{ source_entity._id }}",
        "response_headers_property": "h", "response_status_property": "status",
    });
    let input = [json!({"_id": "a", "n": 1, "payload": "is not sent with GET"})];
    let outcome = transforms(
        vec![reply(json!({"value": {"id": 7}}))],
        operation,
        json!({}),
        &input,
    );
    let result = outcome.result.unwrap();
    assert_eq!(outcome.seen[0].target, "/a");
    assert_eq!(outcome.seen[0].body, "");
    assert_eq!(
        (&result[0]["_id"], &result[0]["n"]),
        (&json!("a"), &json!(1))
    );
    assert_eq!(result[0]["response"], json!({"id": 7, "_id": "x-7-a"}));
    assert_eq!(result[0]["status"], 200);
    assert_eq!(result[0]["h"]["content-type"], "application/json");
}

#[test]
fn the_pages_of_a_lookup_are_one_list() {
    let operation = json!({
        "url": "{{ _id }}", "method": "GET", "payload_property": "list",
        "next_page_link": "{{ body.next }}",
    });
    let script = vec![
        reply(json!({"list": [1, 2], "next": "?page=2"})),
        reply(json!({"list": [3]})),
    ];
    let input = [json!({"_id": "a"})];
    let outcome = transforms(
        script,
        operation,
        json!({"response_property": "all"}),
        &input,
    );
    assert_eq!(outcome.result.unwrap()[0]["all"], json!([1, 2, 3]));
    assert_eq!(outcome.seen[1].target, "/a?page=2");
}

#[test]
fn an_answer_may_take_the_entitys_place() {
    let operation = || json!({"url": "{{ _id }}", "method": "POST"});
    let input = [json!({"_id": "a", "payload": {"x": 1}})];
    let replaced = || json!({"replace_entity": true});
    let script = vec![reply(json!([{"_id": "b"}, {"_id": "c"}]))];
    let outcome = transforms(script, operation(), replaced(), &input);
    assert_eq!(outcome.seen[0].body, "{\"x\":1}");
    assert_eq!(ids(&outcome.result.unwrap()), ["b", "c"]);
    let outcome = transforms(vec![Reply::ok("text")], operation(), replaced(), &input);
    assert_eq!(
        outcome.result.unwrap(),
        [json!({"_id": "a", "response": "text"})]
    );
    let outcome = transforms(vec![reply(json!([1]))], operation(), replaced(), &input);
    assert!(outcome.words().contains("found a integer"));
}

#[test]
fn statuses_are_passed_on_left_out_or_failures() {
    let operation = || json!({"url": "{{ _id }}", "method": "GET"});
    let refusal = || Reply::status("404 Not Found", "", "nobody");
    let input = [json!({"_id": "a"})];
    let failure = transforms(vec![refusal()], operation(), json!({}), &input);
    let failure = failure.result.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Entity, Some(404)));
    assert_eq!(failure.entity.unwrap().id.as_deref(), Some("a"));
    let allowed = json!({"allowed_status_codes": "200,404", "response_status_property": "s"});
    let outcome = transforms(vec![refusal()], operation(), allowed, &input);
    assert_eq!(
        outcome.result.unwrap(),
        [json!({"_id": "a", "response": "nobody", "s": 404})]
    );
    let ignored = json!({"ignored_status_codes": "400-404"});
    let outcome = transforms(vec![refusal()], operation(), ignored.clone(), &input);
    assert_eq!(outcome.result.unwrap(), [] as [Json; 0]);
    let mut fails = ignored;
    fails["if_transform_empty"] = "fail".into();
    let words = transforms(vec![refusal()], operation(), fails, &input).words();
    assert!(words.contains("if_transform_empty"), "{words}");
}

#[test]
fn entities_that_the_trigger_does_not_fit_pass() {
    let operation = json!({"url": "{{ _id }}", "method": "GET"});
    let input = [
        json!({"_id": "a"}),
        json!({"_id": "b", "$operation": "insert-it"}),
    ];
    let transform = json!({"trigger_on": {"key": "$operation", "value": "insert*"}});
    let outcome = transforms(vec![reply(json!(1))], operation, transform, &input);
    assert_eq!(outcome.seen[0].target, "/b");
    let result = outcome.result.unwrap();
    assert_eq!(
        (result[0].get("response"), &result[1]["response"]),
        (None, &json!(1))
    );
}

#[test]
fn an_operation_that_cannot_be_meant_is_a_config_failure() {
    for (operation, word) in [
        (json!({"method": "GET"}), "$.operations.op.url"),
        (json!({"url": "x"}), "$.operations.op.method"),
        (json!({"url": "x", "method": "get"}), "GET, POST"),
        (
            json!({"url": "{{ x", "method": "GET"}),
            "expected a Jinja template",
        ),
        (
            json!({"url": "x", "method": "GET", "payload-type": "xml"}),
            "multipart-form",
        ),
        (
            json!({"url": "x", "method": "GET", "next_page_termination_strategy": "never"}),
            "not-full-page",
        ),
        (
            json!({"url": "x", "method": "GET", "next_page_termination_strategy": "not-full-page"}),
            "page_size",
        ),
    ] {
        let outcome = reads(vec![], operation, json!({}));
        let failure = outcome.result.unwrap_err();
        assert_eq!(failure.class, Class::Config, "{failure}");
        assert!(failure.message.contains(word), "{word:?} in {failure}");
    }
    let outcome = reads(
        vec![],
        json!({"url": "x", "method": "GET"}),
        json!({"operation": "oq"}),
    );
    assert!(outcome.words().contains("did you mean \"op\"?"));
}

#[test]
fn an_operation_of_the_pipe_goes_before_that_of_the_system() {
    let own = json!({"operations": {"op": {"url": "own", "method": "GET"}}});
    let outcome = reads(
        vec![reply(json!([]))],
        json!({"url": "x", "method": "GET"}),
        own,
    );
    assert_eq!(outcome.seen[0].target, "/own");
}

/// A system that fetches its tokens itself.
fn custom(server: &Server, auth: Json, operations: Json) -> World {
    let more = json!({
        "custom_auth": auth,
        "headers": {"Authorization": "Bearer {{ token.access_token }}", "X-Still": "here"},
    });
    world(server, operations, more).unwrap()
}

#[test]
fn operations_fetch_tokens_and_a_refused_one_is_fetched_again() {
    let server = Server::play([
        reply(json!({"value": {"access_token": "first-token", "ExpiresIn": 3600}})),
        reply(json!([])),
        Reply::status("401 No", "", ""),
        reply(json!({"value": {"access_token": "second-token", "ExpiresIn": 3600}})),
        reply(json!([])),
    ]);
    let auth =
        json!({"get_token_operation": "login", "expires_in_expression": "{{ token.ExpiresIn }}"});
    let operations = json!({
        "login": {"url": "login", "method": "POST", "payload": {"code": "hush"}, "payload_property": "value"},
        "op": {"url": "x", "method": "GET"},
    });
    let world = custom(&server, auth, operations);
    for _ in 0..2 {
        let mut source = world.source(part(json!({})), full()).unwrap();
        read_all(source.as_mut(), 10).unwrap();
    }
    let seen = server.seen();
    let asked: Vec<_> = seen
        .iter()
        .map(|seen| (seen.target.as_str(), seen.header("authorization")))
        .collect();
    let (first, second) = (Some("Bearer first-token"), Some("Bearer second-token"));
    assert_eq!(
        asked,
        [
            ("/login", None),
            ("/x", first),
            ("/x", first),
            ("/login", None),
            ("/x", second)
        ]
    );
    assert_eq!(seen[0].header("x-still"), Some("here"));
    assert_eq!(seen[0].body, "{\"code\":\"hush\"}");
}

#[test]
fn a_token_that_expires_at_a_date_is_fetched_again_and_a_refresh_token_before_it() {
    // The clock stands at noon of 2024-05-01.
    let server = Server::play([
        reply(json!({"WCToken": "first"})),
        reply(json!({"access_token": "one", "until": "2024-05-01T12:00:20Z"})),
        reply(json!([])),
        reply(json!({"access_token": "two", "until": "2024-05-02"})),
        reply(json!([])),
    ]);
    let auth = json!({
        "get_token_operation": "login", "expires_at_expression": "{{ token.until }}",
        "get_refresh_token_operation": "identify",
        "refresh_token_expires_in_expression": "{{ 600 }}",
    });
    let operations = json!({
        "identify": {"url": "identify", "method": "POST"},
        "login": {"url": "login", "method": "POST", "headers": {"WCToken": "{{ token.WCToken }}"}},
        "op": {"url": "x/{{ token.expires_at }}", "method": "GET"},
    });
    let world = custom(&server, auth, operations);
    for _ in 0..2 {
        let mut source = world.source(part(json!({})), full()).unwrap();
        read_all(source.as_mut(), 10).unwrap();
    }
    let seen = server.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/identify",
            "/login",
            "/x/1714564820",
            "/login",
            "/x/1714608000"
        ]
    );
    assert_eq!(seen[1].header("wctoken"), Some("first"));
}

#[test]
fn a_sink_sends_again_only_what_was_not_accepted() {
    let server = Server::play([
        Reply::ok("1"),
        Reply::status("503 Busy", "", "later"),
        Reply::ok("2"),
    ]);
    let operation = json!({"url": "{{ _id }}", "method": "PUT", "payload-type": "form"});
    let world = world(&server, json!({"op": operation}), json!({})).unwrap();
    let mut sink = world
        .sink(part(json!({"payload": {"n": "{{ n }}"}})))
        .unwrap();
    sink.begin(&run(RunKind::Full)).unwrap();
    let input = batch(&[
        json!({"_id": "a", "n": 1}),
        json!({"_id": "b", "payload": {"own": 1}}),
    ]);
    let failure = sink.write(&input, None).unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Entity, Some(503)));
    assert_eq!(sink.write(&input, None).unwrap().changed, 2);
    let seen = server.seen();
    let sent: Vec<_> = seen
        .iter()
        .map(|seen| (seen.target.as_str(), seen.body.as_str()))
        .collect();
    assert_eq!(sent, [("/a", "n=1"), ("/b", "own=1"), ("/b", "own=1")]);
    assert_eq!(
        seen[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
}

/// The script of a login that gives this token.
fn login(token: &str) -> Reply {
    reply(json!({"access_token": token, "ExpiresIn": 3600}))
}

fn refused() -> Reply {
    Reply::status("401 No", "", "the token is not valid")
}

fn logs_in() -> Json {
    json!({"get_token_operation": "login", "expires_in_expression": "{{ token.ExpiresIn }}"})
}

fn targets(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|seen| seen.target).collect()
}

#[test]
fn a_token_that_is_refused_while_reading_ahead_is_fetched_once_and_the_page_asked_for_once_more() {
    let server = Server::play([
        login("first-token"),
        reply(json!({"items": [{"_id": "a"}], "next": "x?page=2"})),
        refused(),
        login("second-token"),
        reply(json!({"items": [{"_id": "b"}]})),
    ]);
    let operations = json!({
        "login": {"url": "login", "method": "POST"},
        "op": {"url": "x", "method": "GET", "payload_property": "items",
               "next_page_link": "{{ body.next }}"},
    });
    let world = custom(&server, logs_in(), operations);
    let mut source = world.source(part(json!({})), full()).unwrap();
    let read = read_all(source.as_mut(), 10).unwrap();
    assert_eq!(ids(&content(&read)), ["a", "b"]);
    assert_eq!(
        targets(&server),
        ["/login", "/x", "/x?page=2", "/login", "/x?page=2"]
    );
}

#[test]
fn requests_that_are_refused_together_fetch_one_token() {
    let server = Server::play([
        login("first-token"),
        refused(),
        refused(),
        refused(),
        login("second-token"),
        Reply::ok("1"),
        Reply::ok("2"),
        Reply::ok("3"),
    ]);
    let operations = json!({
        "login": {"url": "login", "method": "POST"},
        "op": {"url": "{{ _id }}", "method": "PUT", "payload": {"n": 1}, "parallel_requests": 3},
    });
    let world = custom(&server, logs_in(), operations);
    let mut sink = world.sink(part(json!({}))).unwrap();
    sink.begin(&run(RunKind::Full)).unwrap();
    let input = batch(&[
        json!({"_id": "a"}),
        json!({"_id": "b"}),
        json!({"_id": "c"}),
    ]);
    assert_eq!(sink.write(&input, None).unwrap().changed, 3);
    let seen = server.seen();
    let with = |token: &str| {
        let bearer = format!("Bearer {token}");
        let mut targets: Vec<&str> = seen
            .iter()
            .filter(|seen| seen.header("authorization") == Some(&bearer))
            .map(|seen| seen.target.as_str())
            .collect();
        targets.sort_unstable();
        targets
    };
    assert_eq!(with("first-token"), ["/a", "/b", "/c"]);
    assert_eq!(with("second-token"), ["/a", "/b", "/c"]);
    assert_eq!(seen.len(), 8);
}

#[test]
fn another_server_that_refuses_is_not_said_to_have_refused_a_token() {
    let other = Server::play([refused()]);
    let link = format!("{}/x", other.url());
    let page = json!({"list": [{"_id": "1"}], "next": link});
    let server = Server::play([login("first-token"), reply(page)]);
    let operations = json!({
        "login": {"url": "login", "method": "POST"},
        "op": {
            "url": "x", "method": "GET", "payload_property": "list",
            "next_page_link": "{{ body.next }}",
        },
    });
    let world = custom(&server, logs_in(), operations);
    let mut source = world.source(part(json!({})), full()).unwrap();
    let failure = read_all(source.as_mut(), 10).unwrap_err().to_string();
    assert!(failure.contains("found 401"), "{failure}");
    assert!(!failure.contains("fetched anew"), "{failure}");
    assert_eq!(targets(&server), ["/login", "/x"]);
    assert_eq!(other.seen().len(), 1);
}

#[test]
fn a_token_that_is_refused_although_it_is_new_is_told() {
    let server = Server::play([
        login("first-token"),
        refused(),
        login("second-token"),
        refused(),
    ]);
    let operations = json!({
        "login": {"url": "login", "method": "POST"},
        "op": {"url": "x", "method": "GET"},
    });
    let world = custom(&server, logs_in(), operations);
    let mut source = world.source(part(json!({})), full()).unwrap();
    let failure = read_all(source.as_mut(), 10).unwrap_err().to_string();
    for word in [
        "operation \"op\"",
        "GET http://",
        "found 401",
        "fetched anew was refused, too",
    ] {
        assert!(failure.contains(word), "{word:?} in {failure}");
    }
    assert!(!failure.contains("second-token"), "{failure}");
}
