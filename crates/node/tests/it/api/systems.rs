//! Systems and the services behind them.

use reqwest::Method;
use serde_json::{Value, json};
use tahini_connectors::http::runtime;

use super::{TestNode, ids, until, until_running};

const SCRIPT: &str = include_str!("echo.py");

fn service(environment: Value) -> Value {
    json!({"_id": "one", "type": "system:microservice",
        "process": {"command": ["python3", "-c", SCRIPT], "environment": environment}})
}

/// A node with a project on disk that has the test's service.
fn with_project(environment: Value) -> TestNode {
    TestNode::with(|options, folder| {
        let systems = folder.join("project/systems");
        std::fs::create_dir_all(&systems).unwrap();
        let file = systems.join("one.conf.json");
        std::fs::write(file, service(environment).to_string()).unwrap();
        options.projects = vec![folder.join("project")];
    })
}

#[test]
fn a_system_shows_its_configuration() {
    let url = json!({"_id": "s", "type": "system:url", "url_pattern": "http://x/%s", "password": "$SECRET(p)"});
    let node = TestNode::of(json!([url]));
    assert_eq!(ids(&node.json("/api/systems")), ["s"]);
    let system = node.json("/api/systems/s");
    assert_eq!(system["config"]["original"], url);
    assert_eq!(system["config"]["effective"]["password"], "$SECRET(p)");
    assert_eq!(system["runtime"]["is-valid-config"], true);
    assert_eq!(node.json("/api/systems/s/status")["running"], Value::Null);
    node.get("/api/systems/s/logs")
        .is_problem(404, "no service");
    node.get("/api/systems/s/proxy/x")
        .is_problem(400, "no microservice");
    node.get("/api/systems/none").is_problem(404, "none");
    node.send(node.request(Method::POST, "/api/systems/s/reload"))
        .is_problem(400, "no service");
}

#[test]
fn a_service_of_a_project_runs_and_can_be_reached() {
    let node = with_project(json!({"GREETING": "hello"}));
    let status = until_running(&node);
    assert_eq!(
        (&status["state"], &status["runtime"]),
        (&json!("running"), &json!("process"))
    );
    node.json("/api/systems/one/proxy/hello");
    let text = until("the service's line", || {
        let text = node.get("/api/systems/one/logs").text;
        text.contains("asked for /hello").then_some(text)
    });
    let (moment, line) = text.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(line, "stdout asked for /hello");
    assert_eq!(
        node.get(&format!("/api/systems/one/logs?since={moment}"))
            .text,
        ""
    );
    node.get("/api/systems/one/logs?since=noon")
        .is_problem(400, "a moment");
    let answer = node.send(node.request(Method::POST, "/api/systems/one/reload"));
    assert_eq!(
        (answer.status, answer.value()),
        (202, json!({"status": "restarting"}))
    );
    let reloaded = until("the restart", || {
        let now = node.json("/api/systems/one/status");
        (now["running"] == true && now["pid"] != status["pid"]).then_some(now)
    });
    assert_ne!(reloaded["pid"], status["pid"]);
}

#[test]
fn a_log_can_be_cut_short_and_followed() {
    let node = with_project(json!({}));
    until_running(&node);
    for n in 0..5 {
        node.json(&format!("/api/systems/one/proxy/n{n}"));
    }
    until("the fifth line", || {
        let text = node.get("/api/systems/one/logs").text;
        text.contains("asked for /n4").then_some(())
    });
    let texts = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_once(' ').unwrap().1);
        lines.map(str::to_owned).collect()
    };
    let two = node.get("/api/systems/one/logs?last=2").text;
    assert_eq!(
        texts(&two),
        ["stdout asked for /n3", "stdout asked for /n4"]
    );
    assert_eq!(node.get("/api/systems/one/logs?last=0").text, "");
    node.get("/api/systems/one/logs?last=few")
        .is_problem(400, "whole number");
    node.get("/api/systems/one/logs?follow=maybe")
        .is_problem(400, "true or false");

    let path = "/api/systems/one/logs?last=1&follow=true";
    let follow = node.request(Method::GET, path);
    runtime().block_on(async {
        let mut answer = follow.send().await.unwrap();
        let mut read = String::new();
        for (path, seen) in [("later", "n4"), ("last", "later"), ("", "last")] {
            while !read.contains(&format!("asked for /{seen}\n")) {
                let chunk = answer.chunk().await.unwrap().unwrap();
                read.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            let url = format!("/api/systems/one/proxy/{path}");
            let asked = node.request(Method::GET, &url).send().await.unwrap();
            assert_eq!(asked.status(), 200);
        }
        let expected = [
            "stdout asked for /n4",
            "stdout asked for /later",
            "stdout asked for /last",
        ];
        assert_eq!(texts(&read)[..3], expected, "every line once, in order");
        // The service goes, and with it the stream.
        let gone = node.request(Method::DELETE, "/api/systems/one");
        assert_eq!(gone.send().await.unwrap().status(), 200);
        while answer.chunk().await.unwrap().is_some() {}
    });
}

#[test]
fn a_node_that_stops_does_not_wait_for_those_who_follow() {
    let mut node = with_project(json!({}));
    until_running(&node);
    let follow = node.request(Method::GET, "/api/systems/one/logs?follow=true");
    let mut answer = runtime().block_on(follow.send()).unwrap();
    let begun = std::time::Instant::now();
    node.restart();
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    runtime().block_on(async { while let Ok(Some(_)) = answer.chunk().await {} });
}

#[test]
fn requests_pass_through_as_they_are() {
    let node = with_project(json!({}));
    let echo = |method: Method, path: &str, body: &'static str| {
        let request = node
            .request(method, &format!("/api/systems/one/proxy/{path}"))
            .header("X-Own", "kept")
            .header("Cookie", "secret=1")
            .body(body);
        node.send(request)
    };
    for method in [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::GET,
    ] {
        let answer = echo(method.clone(), "echo/a%2Fb?x=1&y=%20", "content");
        let value = answer.ok();
        assert_eq!(value["method"], method.as_str());
        assert_eq!(value["path"], "/echo/a%2Fb?x=1&y=%20");
        assert_eq!(value["body"], "content");
        assert_eq!(value["headers"]["x-own"], "kept");
        assert_eq!(value["headers"]["cookie"], Value::Null);
        assert_eq!(value["headers"]["authorization"], Value::Null);
    }
    let refused = echo(Method::GET, "status/418", "");
    assert_eq!(refused.status, 418, "the service's own status comes back");
    assert_eq!(
        refused.header("set-cookie"),
        "",
        "a service sets no cookies for the node"
    );
    assert_eq!(echo(Method::GET, "", "").ok()["path"], "/");
}

#[test]
fn answers_are_passed_on_as_they_come() {
    let node = with_project(json!({}));
    let stream = node.request(Method::GET, "/api/systems/one/proxy/stream");
    runtime().block_on(async {
        let mut answer = stream.send().await.unwrap();
        // The service says the rest only after it was told to go on.
        let first = answer.chunk().await.unwrap().unwrap();
        assert_eq!(&first[..], b"first");
        let go = node
            .request(Method::GET, "/api/systems/one/proxy/go")
            .send()
            .await
            .unwrap();
        assert_eq!(go.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "second");
    });
}

#[test]
fn processes_are_not_accepted_from_afar() {
    let node = TestNode::of(json!([service(json!({}))]));
    let system = node.json("/api/systems/one");
    assert_eq!(system["runtime"]["is-valid-config"], false);
    let words = system["runtime"]["config-errors"][0]["msg"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(words.contains("--allow-process"), "{words}");
    let status = node.json("/api/systems/one/status");
    assert_eq!(status["running"], false);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("--allow-process")
    );
    assert!(node.running().node().assembly.host.ids().is_empty());
    let willing = TestNode::with(|options, _| options.allow_process = true);
    willing.put("/api/config", json!([service(json!({}))])).ok();
    until_running(&willing);
}

#[test]
fn a_projects_process_that_comes_back_unchanged_is_still_the_projects() {
    let node = with_project(json!({}));
    let before = until_running(&node);
    let all = node.json("/api/config");
    node.put("/api/config", all).ok();
    assert_eq!(
        until_running(&node)["pid"],
        before["pid"],
        "it was left alone"
    );
    node.put("/api/config", json!([service(json!({"CHANGED": "yes"}))]))
        .ok();
    assert_eq!(
        node.json("/api/systems/one")["runtime"]["is-valid-config"],
        false
    );
    until("the end of the process", || {
        node.running()
            .node()
            .assembly
            .host
            .ids()
            .is_empty()
            .then_some(())
    });
}

#[test]
fn a_service_gets_its_secrets_and_does_not_tell_them() {
    let node = with_project(json!({"TOKEN": "$SECRET(token)"}));
    let words = node.json("/api/systems/one/status")["message"].to_string();
    assert!(words.contains("token"), "{words}");
    node.put(
        "/api/systems/one/secrets",
        json!({"token": "open-sesame-1"}),
    )
    .ok();
    until_running(&node);
    let environment = node.json("/api/systems/one/proxy/environment");
    assert_eq!(environment["TOKEN"], "open-sesame-1");
    let logs = node.get("/api/systems/one/logs").text;
    assert!(!logs.contains("open-sesame-1"), "{logs}");
}

/// The process and the environment of a service that runs.
fn process_of(node: &TestNode, id: &str) -> Option<(Value, Value)> {
    let status = node.json(&format!("/api/systems/{id}/status"));
    if status["running"] != true {
        return None;
    }
    let environment = node.get(&format!("/api/systems/{id}/proxy/environment"));
    (environment.status == 200).then(|| (status["pid"].clone(), environment.value()))
}

#[test]
fn a_changed_variable_or_secret_restarts_the_service_that_uses_it() {
    let node = TestNode::with(|options, folder| {
        let project = folder.join("project");
        std::fs::create_dir_all(project.join("systems")).unwrap();
        let own = json!({"GREETING": "$ENV(greeting)", "TOKEN": "$SECRET(token)"});
        for (id, environment) in [("one", own), ("two", json!({}))] {
            let mut system = service(environment);
            system["_id"] = json!(id);
            let file = project.join(format!("systems/{id}.conf.json"));
            std::fs::write(file, system.to_string()).unwrap();
        }
        std::fs::write(project.join("test-env.json"), r#"{"greeting": "hello"}"#).unwrap();
        options.projects = vec![project];
    });
    node.put("/api/secrets", json!({"token": "first-of-all"}))
        .ok();
    let (mut before, _) = until("the service", || process_of(&node, "one"));
    let (beside, _) = until("the other", || process_of(&node, "two"));
    for (path, body, name, value) in [
        (
            "/api/env",
            json!({"greeting": "welcome"}),
            "GREETING",
            "welcome",
        ),
        (
            "/api/secrets",
            json!({"token": "second-one"}),
            "TOKEN",
            "second-one",
        ),
    ] {
        node.post(path, body).ok();
        let (pid, environment) = until("another process", || {
            process_of(&node, "one").filter(|(pid, _)| *pid != before)
        });
        assert_eq!(environment[name], value);
        before = pid;
    }
    node.post("/api/env", json!({"unused": 1})).ok();
    node.post("/api/secrets", json!({"unused": "nobody"})).ok();
    assert_eq!(process_of(&node, "one").unwrap().0, before);
    assert_eq!(process_of(&node, "two").unwrap().0, beside);
}

#[test]
fn a_services_page_does_not_act_as_one_of_the_nodes() {
    let node = with_project(json!({}));
    let answer = node.get("/api/systems/one/proxy/x");
    let all = |name: &str| -> Vec<&str> {
        let values = answer.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    };
    assert_eq!(all("content-security-policy"), ["sandbox"]);
    assert_eq!(all("x-content-type-options"), ["nosniff"]);
    assert_eq!(all("clear-site-data"), [""; 0]);
}

/// A node with a project on disk whose service is started by a command of variables and secrets.
fn with_command(process: Value, env: Value, allow: bool) -> TestNode {
    TestNode::with(|options, folder| {
        let project = folder.join("project");
        std::fs::create_dir_all(project.join("systems")).unwrap();
        let system = json!({"_id": "one", "type": "system:microservice", "process": process});
        std::fs::write(project.join("systems/one.conf.json"), system.to_string()).unwrap();
        std::fs::write(project.join("test-env.json"), env.to_string()).unwrap();
        options.projects = vec![project];
        options.allow_process = allow;
    })
}

#[test]
fn a_variable_does_not_choose_a_program() {
    let process = json!({
        "command": ["$ENV(program)", "-c", SCRIPT], "cwd": "$ENV(folder)",
        "environment": {"GREETING": "$ENV(greeting)", "PATH": "$ENV(path)"}
    });
    let env = json!({
        "program": "python3", "folder": ".", "greeting": "hello", "path": std::env::var("PATH").unwrap(),
    });
    let node = with_command(process.clone(), env.clone(), false);
    let before = until_running(&node);
    for change in [
        json!({"program": "/bin/sh"}),
        json!({"folder": "/tmp"}),
        json!({"path": "/tmp"}),
    ] {
        for path in ["/api/env", "/api/env?force=true"] {
            node.post(path, change.clone())
                .is_problem(400, "--allow-process");
        }
    }
    assert_eq!(node.json("/api/env"), env, "nothing was changed");
    assert_eq!(until_running(&node)["pid"], before["pid"]);
    // What the program is told is no matter of this.
    node.post("/api/env", json!({"greeting": "good day"})).ok();
    until("the restart", || {
        let now = node.json("/api/systems/one/status");
        (now["running"] == true && now["pid"] != before["pid"]).then_some(())
    });
    let environment = node.json("/api/systems/one/proxy/environment");
    assert_eq!(environment["GREETING"], "good day");

    let willing = with_command(process, env, true);
    willing
        .post("/api/env", json!({"program": "no-such-program"}))
        .ok();
    until("the failed start", || {
        let status = willing.json("/api/systems/one/status");
        let message = status["message"].as_str().unwrap_or_default();
        message.contains("no-such-program").then_some(())
    });
}

#[test]
fn a_secret_does_not_choose_a_program() {
    let node = with_command(json!({"command": ["$SECRET(program)"]}), json!({}), false);
    for path in ["/api/secrets", "/api/systems/one/secrets"] {
        node.put(path, json!({"program": "/bin/sh"}))
            .is_problem(400, "--allow-process");
        assert_eq!(node.json(path), json!([]), "nothing was kept");
    }
    assert!(node.running().node().assembly.host.ids().is_empty());
}

#[test]
fn a_variable_that_was_kept_does_not_choose_a_program_after_a_restart() {
    let process = json!({"command": ["$ENV(program)"]});
    let mut node = with_command(process, json!({}), true);
    node.put("/api/env", json!({"program": "true"})).ok();
    node.change_options(|options| options.allow_process = false);
    node.restart();
    let status = node.json("/api/systems/one/status");
    assert_eq!(status["state"], "failed");
    assert!(
        status["message"].to_string().contains("--allow-process"),
        "{status}"
    );
    assert!(node.running().node().assembly.host.ids().is_empty());
}

/// A pipe that reads from the service `one`.
fn reads_one() -> Value {
    json!({"_id": "p", "type": "pipe", "source": {"type": "json", "system": "one", "url": "x"}})
}

#[test]
fn a_service_that_cannot_start_says_so_and_ends_the_runs_that_need_it() {
    let node = with_command(json!({"command": ["no-such-program"]}), json!({}), false);
    node.put("/api/pipes/p/config", reads_one()).ok();
    let hub = &node.running().node().assembly.hub;
    let summary = hub
        .run(&hub.pipe("p").unwrap(), &Default::default())
        .unwrap();
    let words = summary.failure.unwrap().to_string();
    assert!(words.contains("no-such-program"), "{words}");
    assert_eq!(node.runtime("p")["is-running"], false);
    // However often it is tried again, the status says why.
    until("the next try", || {
        let status = node.json("/api/systems/one/status");
        assert_eq!(status["running"], false);
        assert!(
            status["message"].to_string().contains("no-such-program"),
            "{status}"
        );
        (status["restarts"] == 1).then_some(())
    });
}

#[test]
fn a_run_that_needs_a_refused_service_says_why_it_was_refused() {
    let node = with_command(json!({"command": ["x", "$SECRET(gone)"]}), json!({}), false);
    node.put("/api/pipes/p/config", reads_one()).ok();
    let hub = &node.running().node().assembly.hub;
    let summary = hub
        .run(&hub.pipe("p").unwrap(), &Default::default())
        .unwrap();
    let words = summary.failure.unwrap().to_string();
    assert!(words.contains("\"gone\""), "{words}");
}
