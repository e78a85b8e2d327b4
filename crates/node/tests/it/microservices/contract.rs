//! What holds for a microservice wherever it runs.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tahini_hub::{Cancel, Class, Services};
use tahini_node::microservices::{Redactor, State};

use super::place::{LIMIT, Place, TestHost, engine_is_there, get, try_get, until};

/// Every rule is one function; each becomes a test in each place.
macro_rules! contract {
    ($($rule:ident),* $(,)?) => {
        mod process {
            $(#[test] fn $rule() { super::$rule(super::Place::Process); })*
        }
        mod docker {
            $(#[test] fn $rule() { if super::engine_is_there() { super::$rule(super::Place::Docker); } })*
        }
    };
}

contract! {
    gets_its_environment_and_answers,
    tells_its_status,
    keeps_running_when_nothing_changed,
    restarts_when_its_config_changed,
    is_started_again_after_a_crash,
    tells_by_which_signal_it_ended,
    that_dies_at_once_is_an_error_with_its_last_lines,
    that_does_not_listen_is_an_error_with_its_last_lines,
    that_listens_elsewhere_is_told_where,
    that_is_starting_is_replaced_by_what_is_wanted_by_then,
    that_floods_its_log_keeps_the_newest_lines,
    that_ignores_the_signal_is_stopped_all_the_same,
    that_is_not_eager_waits_for_the_first_pipe,
    that_is_no_longer_wanted_ends_and_may_come_back,
    never_shows_a_secret,
    reaches_the_other_services,
    is_reloaded,
    waiting_for_it_can_be_cancelled,
}

fn gets_its_environment_and_answers(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![
        place.spec(
            "one",
            json!({"text": "as is", "since-field": "x", "object": {"a": [1, "two"]}, "yes": true}),
        ),
        place.spec("t-2", json!({})),
    ]);
    let seen = node.get("one", "/env");
    assert_eq!(
        (&seen["text"], &seen["since-field"]),
        (&json!("as is"), &json!("x"))
    );
    assert_eq!(
        (&seen["object"], &seen["yes"]),
        (&json!(r#"{"a":[1,"two"]}"#), &json!("true"))
    );
    let node_url = if place == Place::Docker {
        "http://tahini:9042"
    } else {
        "http://127.0.0.1:9042"
    };
    assert_eq!(seen["TAHINI_URL"], node_url);
    for variable in ["SYSTEM_ONE_URL", "SYSTEM_T_2_URL"] {
        assert!(seen[variable].is_string(), "{variable} in {seen}");
    }
    let log = node.until_logged("one", "at your service");
    assert!(log.starts_with("started "), "{log}");
}

fn tells_its_status(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    let url = node.url("one");
    let status = node.status("one");
    assert_eq!(
        (&status["state"], &status["running"]),
        (&json!("running"), &json!(true))
    );
    assert_eq!(
        (&status["id"], &status["restarts"]),
        (&json!("one"), &json!(0))
    );
    assert_eq!(status["url"], url);
    assert_eq!(url, format!("http://127.0.0.1:{}", status["port"]));
    for number in ["pid", "memory_bytes"] {
        assert!(
            status[number].as_u64().is_some_and(|n| n > 0),
            "{number} in {status}"
        );
    }
    for number in ["cpu_seconds", "cpu_percent"] {
        assert!(status[number].is_f64(), "{number} in {status}");
    }
    let started: jiff::Timestamp = status["started"].as_str().unwrap().parse().unwrap();
    assert!(started.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    assert_eq!(node.host.ids(), ["one"]);
    assert!(node.try_url("other").unwrap_err().contains("\"other\""));
}

fn keeps_running_when_nothing_changed(place: Place) {
    let node = TestHost::new();
    let specs = || {
        vec![
            place.spec("one", json!({"a": 1})),
            place.spec("two", json!({})),
        ]
    };
    node.host.apply(specs());
    let (first, second) = (node.get("one", "/born"), node.get("two", "/born"));
    assert_ne!(first, second);
    node.host.apply(specs());
    assert_eq!(
        (node.get("one", "/born"), node.get("two", "/born")),
        (first, second)
    );
}

fn restarts_when_its_config_changed(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![
        place.spec("one", json!({"a": "1"})),
        place.spec("two", json!({})),
    ]);
    let (url, first, second) = (
        node.url("one"),
        node.get("one", "/born"),
        node.get("two", "/born"),
    );
    node.host.apply(vec![
        place.spec("one", json!({"a": "2"})),
        place.spec("two", json!({})),
    ]);
    // The next caller gets the new one, never what is about to end.
    assert_eq!(node.get("one", "/env")["a"], "2");
    assert_ne!(node.get("one", "/born"), first);
    assert_eq!(
        node.get("two", "/born"),
        second,
        "the other one is left alone"
    );
    assert_eq!(
        node.url("one"),
        url,
        "the address stays, since the others know it"
    );
}

fn is_started_again_after_a_crash(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    let first = node.get("one", "/born");
    try_get(&node.url("one"), "/exit?code=3");
    node.until("one", |snapshot| {
        snapshot.restarts == 1 && snapshot.state == State::Running
    });
    assert_ne!(node.get("one", "/born"), first);
    let status = node.status("one");
    assert_eq!(
        (&status["last_exit"]["code"], &status["last_exit"]["reason"]),
        (&json!(3), &json!("exit code 3"))
    );
    assert_eq!(status["last_exit"]["signal"], json!(null));
    let log = node.log("one");
    assert!(
        log.contains("leaving now") && log.contains("exit code 3"),
        "{log}"
    );
    // The log outlives the crash; some engines tell a moment later what was written.
    until("the lines of both lives", || {
        let count = node.log("one").matches("at your service").count();
        (count == 2).then_some(())
    });
}

fn tells_by_which_signal_it_ended(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    try_get(&node.url("one"), "/kill");
    node.until("one", |snapshot| snapshot.restarts == 1);
    let status = node.status("one");
    assert_eq!(
        (
            &status["last_exit"]["signal"],
            &status["last_exit"]["oom_killed"]
        ),
        (&json!(9), &json!(false))
    );
}

fn that_dies_at_once_is_an_error_with_its_last_lines(place: Place) {
    let node = TestHost::new();
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "dies"}))]);
    let message = node.try_url("one").unwrap_err();
    for part in [
        "one is crashed",
        "exit code 3",
        "cannot find my configuration",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(
        node.host.snapshot("one").unwrap().failures >= 3,
        "a first crash or two are waited out"
    );
    assert_eq!(node.status("one")["last_exit"]["code"], 3);
}

fn that_does_not_listen_is_an_error_with_its_last_lines(place: Place) {
    let node = TestHost::with(|options| options.pace.start_limit = Duration::from_secs(3));
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "deaf"}))]);
    let message = node.try_url("one").unwrap_err();
    for part in [
        "one is failed",
        "expected",
        "to listen on",
        "listening to nobody",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(node.status("one")["state"], "failed");
}

/// The most usual mistake: a service that does not look at the port it is given.
fn that_listens_elsewhere_is_told_where(place: Place) {
    let node = TestHost::with(|options| options.pace.start_limit = Duration::from_secs(3));
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "elsewhere"}))]);
    let message = node.try_url("one").unwrap_err();
    let log = node.until_logged("one", "at your service 0.0.0.0 ");
    let port = log.split("at your service 0.0.0.0 ").nth(1).unwrap();
    let port = port.lines().next().unwrap();
    let help = match place {
        Place::Process => "process.port",
        Place::Docker => "docker.port",
    };
    for part in [&format!("listening on 0.0.0.0:{port} instead"), help] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

fn that_is_starting_is_replaced_by_what_is_wanted_by_then(place: Place) {
    let node = TestHost::new();
    for _ in 0..3 {
        // Nobody waits: what begins is replaced while it is being made, or does not listen yet.
        node.host
            .apply(vec![place.spec("one", json!({"MODE": "deaf"}))]);
        node.host
            .apply(vec![place.spec("one", json!({"MODE": "dies"}))]);
    }
    node.until("one", |snapshot| snapshot.state == State::Starting);
    node.host
        .apply(vec![place.spec("one", json!({"a": "wanted"}))]);
    assert_eq!(node.get("one", "/env")["a"], "wanted");
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "deaf"}))]);
    node.until("one", |snapshot| snapshot.state == State::Starting);
    // It goes while it starts, and nothing of it stays: the next one gets its port and its name.
    node.host.apply(vec![]);
    node.host.apply(vec![place.spec("one", json!({"a": "2"}))]);
    assert_eq!(node.get("one", "/env")["a"], "2");
}

fn that_floods_its_log_keeps_the_newest_lines(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    let url = node.url("one");
    assert_eq!(
        try_get(&url, "/flood?bytes=20000000"),
        Some(json!("flooded"))
    );
    let log = node.until_logged("one", "all is written");
    assert!(log.lines().count() <= 1000, "{}", log.lines().count());
    assert!(log.contains(&"x".repeat(199)));
    assert_eq!(node.status("one")["restarts"], 0);
}

fn that_ignores_the_signal_is_stopped_all_the_same(place: Place) {
    let node = TestHost::with(|options| options.pace.stop_grace = Duration::from_secs(1));
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "stubborn"}))]);
    let url = node.url("one");
    let start = Instant::now();
    node.shutdown();
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "it was not given its second"
    );
    assert!(
        TcpStream::connect(url.strip_prefix("http://").unwrap()).is_err(),
        "it still listens"
    );
    node.host.apply(vec![place.spec("one", json!({}))]);
    assert!(node.host.ids().is_empty(), "nothing starts after the end");
}

fn that_is_not_eager_waits_for_the_first_pipe(place: Place) {
    let node = TestHost::with(|options| options.eager_by_default = false);
    node.host.apply(vec![
        place.spec("lazy", json!({})),
        place.spec_with("eager", json!({}), json!({"eager_load": true})),
    ]);
    node.until("eager", |snapshot| snapshot.state == State::Running);
    assert_eq!(
        (node.status("lazy")["state"].clone(), node.log("lazy")),
        (json!("stopped"), String::new())
    );
    let born = node.get("lazy", "/born");
    // It is in use now: the same config leaves it running.
    node.host.apply(vec![place.spec("lazy", json!({}))]);
    assert_eq!(node.get("lazy", "/born"), born);
}

fn that_is_no_longer_wanted_ends_and_may_come_back(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    let (url, born) = (node.url("one"), node.get("one", "/born"));
    node.host.apply(vec![]);
    assert!(node.host.ids().is_empty() && node.try_url("one").is_err());
    // At once, while the old one may still be ending.
    node.host.apply(vec![place.spec("one", json!({}))]);
    assert_ne!(node.get("one", "/born"), born);
    node.shutdown();
    assert_eq!(try_get(&url, "/born"), None);
}

fn never_shows_a_secret(place: Place) {
    let node = TestHost::new();
    node.host
        .set_redactor(Redactor::new(["p@ss word".to_owned()]));
    node.host
        .apply(vec![place.spec("one", json!({"key": "p@ss word"}))]);
    assert_eq!(node.get("one", "/env")["key"], "p@ss word");
    for (path, expected) in [
        ("/say?line=key+p%40ss+word+ends", "key *** ends"),
        ("/say?err=1&line=url+p%2540ss%2520word+ends", "url *** ends"),
        ("/say?line=basic+cEBzcyB3b3Jk+ends", "basic *** ends"),
    ] {
        node.get("one", path);
        let log = node.until_logged("one", expected);
        assert!(
            !log.contains("p@ss") && !log.contains("cEBzcyB3b3Jk"),
            "{log}"
        );
    }
    assert!(!node.status("one").to_string().contains("p@ss"));
}

fn reaches_the_other_services(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![
        place.spec("caller", json!({})),
        place.spec("called-one", json!({})),
    ]);
    let born = node.get("called-one", "/born");
    assert_eq!(
        node.get("caller", "/peer?variable=SYSTEM_CALLED_ONE_URL"),
        born
    );
}

fn is_reloaded(place: Place) {
    let node = TestHost::new();
    node.host.apply(vec![place.spec("one", json!({}))]);
    let born = node.get("one", "/born");
    assert!(node.host.reload("one") && !node.host.reload("other"));
    assert_ne!(get(&node.url("one"), "/born"), born);
    let last = node.status("one")["last_exit"]["reason"].clone();
    let last = last.as_str().unwrap();
    assert!(last.starts_with("stopped by the node"), "{last}");
}

fn waiting_for_it_can_be_cancelled(place: Place) {
    let node = TestHost::new();
    node.host
        .apply(vec![place.spec("one", json!({"MODE": "deaf"}))]);
    let message = node.host.ready_url("one", LIMIT, &|| true).unwrap_err();
    assert!(message.contains("cancelled"), "{message}");
    let message = node
        .host
        .ready_url("one", Duration::from_millis(100), &|| false)
        .unwrap_err();
    assert!(
        message.contains("within 0.1 s, found it starting"),
        "{message}"
    );
    // The same as a pipe sees it.
    let url = |wait, cancel: &Cancel| Services::url(&node.host, "one", wait, cancel).unwrap_err();
    let cancel = Cancel::new();
    assert_eq!(url(Duration::ZERO, &cancel).class, Class::Transient);
    cancel.cancel();
    assert_eq!(url(LIMIT, &cancel).class, Class::Cancelled);
}
