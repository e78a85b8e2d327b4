//! Ctrl-C in the middle of a command.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Project;

/// A pipe that asks a server.
fn asks(server: &TcpListener, sink: Option<Value>) -> Project {
    let mut pipe = json!({
        "_id": "p", "type": "pipe", "source": {"type": "json", "system": "slow", "url": "x"},
    });
    if let Some(sink) = sink {
        pipe["sink"] = sink;
    }
    let project = Project::of(&[pipe]);
    let url = format!("http://{}/", server.local_addr().unwrap());
    let slow = json!({"_id": "slow", "type": "system:url", "base_url": url});
    project.write("systems/slow.conf.json", &slow.to_string());
    project.expect("p", &["x"]);
    project
}

/// Stops a command as soon as it has asked, and returns its code and what it said.
fn stopped(
    project: &Project,
    server: &TcpListener,
    args: &[&str],
) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .args(args)
        .current_dir(project.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = server.accept().unwrap();
    asked.read_exact(&mut [0; 3]).unwrap();
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(killed.success());
    // The answer never comes, so that only the signal can end it.
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    (child.wait().unwrap().code(), out, err)
}

#[test]
fn a_run_and_the_tests_end_when_they_are_asked_to() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    // A pipe that writes to the outside is not run by `test`, only looked at.
    let outside = json!({"type": "json", "system": "slow", "url": "y"});
    for (sink, args) in [
        (None, &["run", "."][..]),
        (None, &["test", "."]),
        (Some(outside), &["test", "."]),
    ] {
        let project = asks(&server, sink);
        let (code, out, err) = stopped(&project, &server, args);
        assert_eq!(code, Some(130), "{args:?}: {out}{err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with("stopped"), "{args:?}: {err}");
        assert!(
            !out.contains("FAILED p\n"),
            "a test that was not run to its end: {out}"
        );
    }
}

#[test]
fn tests_that_were_stopped_are_told_to_machines_too() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let project = asks(&server, None);
    let (code, out, err) = stopped(&project, &server, &["test", ".", "--json"]);
    assert_eq!(code, Some(130), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["tests"], json!([]));
    let problems = report["problems"].to_string();
    assert!(problems.contains("stopped"), "{report}");
}
