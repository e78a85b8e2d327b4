//! The commands that need no running node, as a person or a script calls them.

mod build_script;
mod entities;
mod interrupt;
mod microservice;
mod published;
mod trace;
mod transform;
mod usage;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tahini_hub::execution_log::User;
use tahini_hub::secrets::MemorySecrets;
use tahini_node::assembly::{Assembly, Loaded};
use tahini_node::commands::open_store;
use tahini_node::microservices::HostOptions;
use tahini_node::programs::Programs;
use tempfile::TempDir;

/// A project on disk.
struct Project(TempDir);

/// How a command ended and what it printed.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Project {
    fn of(pipes: &[Value]) -> Project {
        let project = Project(tempfile::tempdir().unwrap());
        for pipe in pipes {
            let id = pipe["_id"].as_str().unwrap();
            project.write(&format!("pipes/{id}.conf.json"), &pipe.to_string());
        }
        project
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.0.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// A test of a pipe that expects entities of these ids.
    fn expect(&self, pipe: &str, ids: &[&str]) {
        let all: Vec<Value> = ids.iter().map(|id| json!({"_id": id})).collect();
        self.write(&format!("expected/{pipe}.test.json"), "{}");
        self.write(&format!("expected/{pipe}.json"), &json!(all).to_string());
    }

    /// Calls the program in the project's folder.
    fn call(&self, args: &[&str]) -> Said {
        self.call_with(args, "", &[])
    }

    /// Calls it with text on stdin and variables.
    fn call_with(&self, args: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tahini"))
            .args(args)
            .envs(variables.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that ends before it has read everything closes its end.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// All of stdout as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {:?}, {}", self.out, self.err))
    }
}

fn embedded(id: &str, entity: &str) -> Value {
    json!({"_id": id, "type": "pipe", "source": {"type": "embedded", "entities": [{"_id": entity}]}})
}

fn copy(id: &str, dataset: &str) -> Value {
    json!({"_id": id, "type": "pipe", "source": {"type": "dataset", "dataset": dataset}})
}

/// A pipe that posts to a server that is not there: calling it would fail.
fn calls(id: &str, side_effects: Option<bool>) -> Value {
    let mut pipe = embedded(id, "x");
    let rules =
        json!({"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "seen", true]]}});
    let mut http = json!({"type": "http", "system": "away", "url": "x"});
    if let Some(value) = side_effects {
        http["side_effects"] = json!(value);
    }
    pipe["transform"] = json!([rules, http, rules]);
    pipe
}

fn with_calls(side_effects: Option<bool>) -> Project {
    let project = Project::of(&[calls("p", side_effects)]);
    let away = json!({"_id": "away", "type": "system:url", "base_url": "http://127.0.0.1:9/"});
    project.write("systems/away.conf.json", &away.to_string());
    project
}

fn test_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let tests = report["tests"].as_array().unwrap();
    tests.iter().find(|test| test["name"] == name).unwrap()
}

#[test]
fn a_broken_pipe_fails_its_own_tests_and_no_others() {
    let mut broken = embedded("broken", "x");
    broken["batch_size"] = json!("many");
    let project = Project::of(&[embedded("sound", "x"), broken]);
    project.write("pipes/unread.conf.json", "{\"_id\": \"unread\", ");
    for pipe in ["sound", "broken", "unread"] {
        project.expect(pipe, &["x"]);
    }
    let said = project.call(&["test", ".", "--json"]);
    assert_eq!(said.code, 3, "{}", said.err);
    let report = said.json();
    assert_eq!(test_of(&report, "sound")["passed"], true, "{report}");
    for (name, why) in [("broken", "batch_size"), ("unread", "unread.conf.json")] {
        let test = test_of(&report, name);
        assert_eq!(test["passed"], false, "{report}");
        assert!(test["message"].as_str().unwrap().contains(why), "{test}");
    }
    assert_ne!(report["problems"], json!([]));

    let said = project.call(&["test", "."]);
    assert_eq!(said.code, 3);
    for line in ["ok     sound", "FAILED broken", "1 passed, 2 failed"] {
        assert!(said.out.contains(line), "{line:?} in {}", said.out);
    }
}

#[test]
fn json_is_printed_whatever_happens() {
    let project = Project::of(&[embedded("p", "x")]);
    let said = project.call(&["test", "nowhere", "--json"]);
    assert_eq!((said.code, said.json()["tests"].clone()), (1, json!([])));
    assert!(
        said.json()["problems"][0]
            .as_str()
            .unwrap()
            .contains("nowhere")
    );

    project.write("testdata/p.json", "[]");
    project.expect("p", &["x"]);
    let said = project.call(&["test", ".", "--json"]);
    assert_eq!(said.code, 1, "test data that nobody takes is no success");
    assert_eq!(test_of(&said.json(), "p")["passed"], true);
    assert!(
        said.json()["problems"][0]
            .as_str()
            .unwrap()
            .contains("testdata")
    );
}

#[test]
fn a_sound_project_has_no_problems() {
    let project = Project::of(&[embedded("p", "x")]);
    project.expect("p", &["x"]);
    let said = project.call(&["test", ".", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let expected = json!({"tests": [{"name": "p", "passed": true, "message": ""}], "problems": []});
    assert_eq!(said.json(), expected);
}

#[test]
fn a_trace_ends_before_what_changes_something_outside() {
    let project = with_calls(None);
    let said = project.call(&["trace", "p", "x", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let steps = said.json()["steps"].clone();
    let names: Vec<&str> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["source", "transform 1 (dtl)", "transform 2 (http)"]);
    assert_eq!(steps[1]["entities"][0]["seen"], true);
    let words = steps[2]["message"].as_str().unwrap();
    assert!(
        words.contains("not run") && words.contains("side_effects"),
        "{words}"
    );
    // Told that it is harmless, the trace calls it, and finds nobody there.
    let said = with_calls(Some(false)).call(&["trace", "p", "x"]);
    assert!(
        said.out.contains("transform 2 (http):\n  failed: "),
        "{}",
        said.out
    );
}

#[test]
fn entities_are_not_shown_behind_what_changes_something_outside() {
    let project = with_calls(None);
    let said = project.call(&["entities", "p", "--project", "."]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("side_effects"), "{}", said.err);
    let said = project.call(&[
        "entities",
        "p",
        "--project",
        ".",
        "--stage",
        "before-transforms",
    ]);
    assert_eq!(
        (said.code, said.out.lines().count()),
        (0, 1),
        "{}",
        said.err
    );
}

#[test]
fn a_disabled_pipe_is_shown_and_is_no_failure() {
    let project = Project::of(&[embedded("one", "x"), embedded("two", "x")]);
    disable(project.0.path(), "two", "being repaired");
    let said = project.call(&["run", ".", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let report = said.json();
    assert_eq!(report["status"], "settled");
    let two = &report["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["pipe"] == "two")
        .unwrap();
    assert_eq!(
        (&two["disabled"], &two["success"]),
        (&json!("being repaired"), &Value::Null)
    );
    let said = project.call(&["run", "."]);
    let row = said
        .out
        .lines()
        .find(|line| line.starts_with("two "))
        .unwrap();
    assert!(row.ends_with("disabled"), "{row}");
    assert!(said.err.contains("being repaired"), "{}", said.err);
}

/// Disables a pipe of the project in the store that `run` uses.
fn disable(folder: &Path, pipe: &str, comment: &str) {
    let store = open_store(&folder.join("tahini-data")).unwrap();
    let secrets = Arc::new(MemorySecrets::default());
    let assembly = Assembly::new(
        store.clone(),
        secrets,
        HostOptions::default(),
        Programs::Any,
    );
    let loaded = Loaded::read(&[folder.to_owned()], "test").unwrap();
    assembly.apply(loaded.configure()).unwrap();
    assembly
        .hub
        .switch(pipe, false, comment, &User::default())
        .unwrap();
    assembly.close();
    store.close().unwrap();
}

#[test]
fn one_pass_is_enough_where_one_pass_does_all() {
    let project = Project::of(&[embedded("one", "x"), copy("two", "one")]);
    let said = project.call(&["run", ".", "--json", "--max-passes", "1"]);
    assert_eq!(
        (said.code, &said.json()["status"]),
        (0, &json!("settled")),
        "{}",
        said.err
    );
}

#[test]
fn a_wait_that_nothing_ends_is_told_beside_a_failure() {
    let mut waits = copy("waits", "nowhere");
    waits["source"]["require_populated_input"] = json!(true);
    let project = with_calls(None);
    project.write("pipes/waits.conf.json", &waits.to_string());
    let said = project.call(&["run", "."]);
    assert_eq!(said.code, 1);
    for words in ["pipe \"p\" failed", "can never end", "\"nowhere\""] {
        assert!(said.err.contains(words), "{words} in {}", said.err);
    }
    let report = project.call(&["run", ".", "--json"]).json();
    assert_eq!(
        (&report["status"], &report["failed"]),
        (&json!("failed"), &json!(["p"]))
    );
    assert!(
        report["waits"][0].as_str().unwrap().contains("\"nowhere\""),
        "{report}"
    );
}
