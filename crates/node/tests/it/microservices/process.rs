//! What local processes add: a clean environment, ports, and an end with their node.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tahini_node::microservices::{ServiceSpec, State, Stream};

use super::place::{LIMIT, Place, SCRIPT, TestHost, until};
use super::served::{Served, write_project};

fn spec(process: Value) -> ServiceSpec {
    ServiceSpec::from_config("one", &json!({"process": process}), Path::new("/")).unwrap()
}

fn start_error(process: Value) -> String {
    let node = TestHost::new();
    node.host.apply(vec![spec(process)]);
    let message = node.try_url("one").unwrap_err();
    assert!(
        message.starts_with("microservice one is failed: "),
        "{message}"
    );
    message
}

#[test]
fn it_sees_little_of_the_nodes_environment() {
    let node = TestHost::new();
    // A program that prints its environment and ends: by then all of it is in the log.
    node.host.apply(vec![spec(
        json!({"command": ["env"], "environment": {"HOME": "/somewhere"}}),
    )]);
    node.until("one", |snapshot| snapshot.restarts >= 1);
    let lines = node.host.log("one").unwrap().lines(None);
    let printed = lines.iter().filter(|line| line.stream == Stream::Stdout);
    let seen: BTreeMap<&str, &str> = printed
        .filter_map(|line| line.text.split_once('='))
        .collect();
    let port = node.host.snapshot("one").unwrap().port.to_string();
    assert_eq!((seen["PORT"], seen["port"]), (port.as_str(), port.as_str()));
    assert_eq!(seen["PATH"], std::env::var("PATH").unwrap());
    assert_eq!(seen["HOME"], "/somewhere", "the configuration wins");
    let known = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "PYTHONUNBUFFERED",
        "TAHINI_URL",
        "SYSTEM_ONE_URL",
        "PORT",
        "port",
    ];
    let of_the_node = std::env::vars().filter(|(name, _)| !known.contains(&name.as_str()));
    assert_ne!(of_the_node.count(), 0, "there is nothing to keep away");
    for name in seen.keys() {
        assert!(known.contains(name), "{name} came from the node");
    }
}

#[test]
fn it_runs_in_its_folder_with_programs_from_there() {
    let project = tempfile::tempdir().unwrap();
    let service = project.path().join("service");
    std::fs::create_dir(&service).unwrap();
    std::fs::write(service.join("app.py"), SCRIPT).unwrap();
    std::fs::write(service.join("run.sh"), "pwd; exec python3 \"$@\"\n").unwrap();
    let make = Command::new("chmod")
        .arg("+x")
        .arg(service.join("run.sh"))
        .status()
        .unwrap();
    assert!(make.success());
    std::fs::write(
        service.join("run.sh"),
        "#!/bin/sh\npwd; exec python3 \"$@\"\n",
    )
    .unwrap();
    let config = json!({"process": {"command": ["./run.sh", "app.py"], "cwd": "service"}});
    let node = TestHost::new();
    node.host.apply(vec![
        ServiceSpec::from_config("one", &config, project.path()).unwrap(),
    ]);
    node.url("one");
    let folder = service.canonicalize().unwrap();
    node.until_logged("one", &format!("{}\n", folder.display()));
}

#[test]
fn a_port_that_is_given_is_used() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let node = TestHost::new();
    node.host.apply(vec![spec(
        json!({"command": ["python3", "-c", SCRIPT], "port": free}),
    )]);
    assert_eq!(node.url("one"), format!("http://127.0.0.1:{free}"));
}

#[test]
fn a_given_port_that_is_taken_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let message = start_error(json!({"command": ["python3", "-c", SCRIPT], "port": port}));
    assert!(
        message.contains(&format!("port {port}")) && message.contains("process.port"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_started_says_why() {
    let message = start_error(json!({"command": ["no-such-program-here"]}));
    assert!(
        message.contains("process.command") && message.contains("no-such-program-here"),
        "{message}"
    );
    let message = start_error(json!({"command": ["true"], "cwd": "/no/such/folder"}));
    assert!(
        message.contains("process.cwd") && message.contains("/no/such/folder"),
        "{message}"
    );
    let message = start_error(json!({"command": ["/etc/passwd"]}));
    assert!(message.contains("chmod +x"), "{message}");
}

#[test]
fn what_it_started_ends_with_it() {
    let mut lines = Lifelines::new();
    let node = TestHost::new();
    node.host.apply(vec![
        Place::Process.spec("one", json!({"LIFELINE": lines.port})),
    ]);
    let (mut service, mut grandchild) = lines.accept();
    node.url("one");
    // The grandchild ignores SIGTERM; the service does not.
    node.host.apply(vec![]);
    ends(&mut service);
    ends(&mut grandchild);
}

#[test]
fn what_a_crashed_service_started_ends_with_it() {
    let mut lines = Lifelines::new();
    let node = TestHost::new();
    node.host.apply(vec![
        Place::Process.spec("one", json!({"LIFELINE": lines.port})),
    ]);
    let (_, mut grandchild) = lines.accept();
    super::place::try_get(&node.url("one"), "/kill");
    ends(&mut grandchild);
    lines.accept();
    node.until("one", |snapshot| snapshot.state == State::Running);
}

/// Without its watcher a service would outlive the node, so it does not stay without one.
#[test]
fn one_whose_watcher_was_killed_is_started_anew() {
    let mut lines = Lifelines::new();
    let node = TestHost::new();
    node.host.apply(vec![
        Place::Process.spec("one", json!({"LIFELINE": lines.port})),
    ]);
    let (mut service, mut grandchild) = lines.accept();
    let watcher = node.get("one", "/group").to_string();
    let killed = Command::new("kill").args(["-9", &watcher]).status();
    assert!(killed.unwrap().success());
    ends(&mut service);
    ends(&mut grandchild);
    lines.accept();
    node.until("one", |snapshot| snapshot.restarts == 1);
}

/// Whether a process of that number runs, and is no zombie.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| state != 'Z')
}

fn signal(name: &str, pid: &str) {
    let sent = Command::new("kill").args(["-s", name, pid]).status();
    assert!(sent.unwrap().success());
}

/// Node and watcher are killed together, so that nobody ends the service: the next node does, by
/// its number and the moment of its start, and nobody else's.
#[test]
fn one_that_outlived_its_node_is_found_and_ended_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let system = |id: &str| {
        json!({"_id": id, "type": "system:microservice",
            "process": {"command": ["python3", "-c", SCRIPT]}})
    };
    write_project(folder.path(), &[system("kept"), system("dropped")]);
    let mut node = Served::start(folder.path());
    let pid = |status: &Value| status["pid"].to_string();
    let (kept, dropped) = (node.running("kept"), node.running("dropped"));
    let watchers = ["kept", "dropped"].map(|id| node.ask(id, "/group").to_string());
    // A node that stands still does not notice that its watchers go.
    signal("STOP", &node.pid().to_string());
    watchers.iter().for_each(|watcher| signal("KILL", watcher));
    node.kill();
    assert!(runs(&pid(&kept)) && runs(&pid(&dropped)));

    write_project(folder.path(), &[system("kept")]);
    let node = Served::start_on(folder.path(), node.port);
    let now = node.running("kept");
    assert_ne!(now["pid"], kept["pid"]);
    assert_eq!(now["port"], kept["port"], "the others know it");
    assert!(!runs(&pid(&kept)));
    until("the end of what nobody wants", || {
        (!runs(&pid(&dropped))).then_some(())
    });
}

#[test]
fn it_does_not_outlive_a_node_that_was_killed() {
    let mut lines = Lifelines::new();
    // This test binary once more, as a node that does nothing but run the service.
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "microservices::process::a_node_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("TEST_LIFELINE", lines.port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut service, mut grandchild) = lines.accept();
    node.kill().unwrap();
    node.wait().unwrap();
    ends(&mut service);
    ends(&mut grandchild);
}

#[test]
#[ignore = "not a test: the node that another test kills"]
fn a_node_to_be_killed() {
    let Ok(port) = std::env::var("TEST_LIFELINE") else {
        return;
    };
    let node = TestHost::new();
    node.host
        .apply(vec![Place::Process.spec("one", json!({"LIFELINE": port}))]);
    node.url("one");
    loop {
        std::thread::park();
    }
}

/// Connections that services hold for as long as they live.
struct Lifelines {
    listener: TcpListener,
    port: u16,
}

impl Lifelines {
    fn new() -> Lifelines {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        Lifelines { listener, port }
    }

    /// The lines of a service and of the process that it started.
    fn accept(&mut self) -> (TcpStream, TcpStream) {
        let (mut service, mut grandchild) = (None, None);
        while service.is_none() || grandchild.is_none() {
            let (mut line, _) = until("a service to call", || self.listener.accept().ok());
            line.set_nonblocking(false).unwrap();
            line.set_read_timeout(Some(LIMIT)).unwrap();
            let mut name = [0];
            line.read_exact(&mut name).unwrap();
            match &name {
                b"s" => service = Some(line),
                _ => grandchild = Some(line),
            }
        }
        (service.unwrap(), grandchild.unwrap())
    }
}

/// The process at the other end is gone: the kernel closed its connection.
fn ends(line: &mut TcpStream) {
    let read = line.read(&mut [0]);
    let gone = match &read {
        Ok(count) => *count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(gone, "still alive: {read:?}");
}
