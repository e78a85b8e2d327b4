//! What a node that was killed left is taken over, or removed; what is not its own is not touched.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};
use serde_json::{Value, json};

use super::super::place::{CONTAINER_PORT, engine_is_there, get, image, on_engine, try_get, until};
use super::super::served::{Served, write_project};
use super::containers_of;

fn system(id: &str, environment: Value) -> Value {
    json!({"_id": id, "type": "system:microservice", "docker": {
        "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "cpu_quota": 100,
        "environment": environment
    }})
}

/// The node as the engine knows it.
fn node_id(node: &Served) -> String {
    tahini_node::backup::hosting_id(&node.data).unwrap()
}

#[test]
fn a_node_that_was_killed_finds_its_own_again() {
    if !engine_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let both = [
        system("kept", json!({"A": "1"})),
        system("dropped", json!({})),
    ];
    write_project(folder.path(), &both);
    let mut node = Served::start(folder.path());
    let (before, _) = (node.running("kept"), node.running("dropped"));
    let born = node.ask("kept", "/born");
    assert_eq!(containers_of(&node_id(&node)).len(), 2);
    let foreign = leave_container("somebody-else");
    node.kill();
    let url = before["url"].as_str().unwrap();
    assert_eq!(get(url, "/born"), born, "it runs without its node");

    write_project(folder.path(), &both[..1]);
    let mut node = Served::start_on(folder.path(), node.port);
    let after = node.running("kept");
    assert_eq!(after["container_id"], before["container_id"]);
    assert_eq!(node.ask("kept", "/born"), born);
    assert_eq!(
        (&after["url"], &after["restarts"]),
        (&before["url"], &json!(0))
    );
    let moment = |status: &Value| -> jiff::Timestamp {
        status["started"].as_str().unwrap().parse().unwrap()
    };
    let apart = moment(&before).duration_since(moment(&after)).abs();
    assert!(apart.as_secs() < 10, "{before} {after}");
    let logs = node.get("/api/systems/kept/logs").unwrap();
    assert!(logs.contains("found it running since"), "{logs}");
    until("what it wrote before", || {
        let logs = node.get("/api/systems/kept/logs").unwrap();
        logs.contains("stdout at your service").then_some(())
    });
    until("the end of what nobody wants", || {
        (containers_of(&node_id(&node)).len() == 1).then_some(())
    });
    assert_eq!(
        containers_of("somebody-else"),
        std::slice::from_ref(&foreign)
    );
    remove(foreign);

    // It is kept like any other from here on.
    try_get(url, "/exit?code=4");
    until("the restart", || {
        let status = node.json("/api/systems/kept/status");
        (status["restarts"] == 1 && status["running"] == true).then_some(())
    });
    assert_ne!(node.ask("kept", "/born"), born);
    node.stop();
    assert!(containers_of(&node_id(&node)).is_empty());
}

#[test]
fn one_that_should_be_otherwise_by_now_is_replaced() {
    if !engine_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_project(
        folder.path(),
        &[
            system("changed", json!({"A": "1"})),
            system("ended", json!({})),
        ],
    );
    let mut node = Served::start(folder.path());
    let (changed, ended) = (node.running("changed"), node.running("ended"));
    node.kill();
    try_get(ended["url"].as_str().unwrap(), "/exit?code=5");
    write_project(
        folder.path(),
        &[
            system("changed", json!({"A": "2"})),
            system("ended", json!({})),
        ],
    );
    let mut node = Served::start_on(folder.path(), node.port);
    assert_ne!(
        node.running("changed")["container_id"],
        changed["container_id"]
    );
    assert_eq!(node.ask("changed", "/env")["A"], "2");
    assert_ne!(node.running("ended")["container_id"], ended["container_id"]);
    let logs = node.get("/api/systems/ended/logs").unwrap();
    assert!(
        logs.contains("while there was no node: exit code 5"),
        "{logs}"
    );
    assert_eq!(containers_of(&node_id(&node)).len(), 2);
    node.stop();
}

/// Two nodes with the same services on one engine, and a third over a copy of the first one's data,
/// as a backup that is restored beside it: none touches what is another one's.
#[test]
fn nodes_on_one_engine_leave_each_other_alone() {
    if !engine_is_there() {
        return;
    }
    let folders = ["first", "second", "copy"].map(|_| tempfile::tempdir().unwrap());
    let systems = [system("same", json!({}))];
    for folder in &folders {
        write_project(folder.path(), &systems);
    }
    let mut first = Served::start(folders[0].path());
    let second = Served::start(folders[1].path());
    let running = |node: &Served| (node.running("same"), node.ask("same", "/born"));
    let before = [running(&first), running(&second)];
    assert_ne!(before[0].1, before[1].1);

    let data = folders[2].path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(first.data.join("node-id"), data.join("node-id")).unwrap();
    let mut copy = Served::start(folders[2].path());
    let third = running(&copy);
    for (node, (status, born)) in [&first, &second].into_iter().zip(&before) {
        assert_eq!(node.ask("same", "/born"), *born);
        assert_ne!(status["container_id"], third.0["container_id"]);
    }
    copy.stop();
    first.stop();
    assert_eq!(running(&second).1, before[1].1);
    assert!(containers_of(&node_id(&first)).is_empty());
}

/// `tahini run` that was killed in the middle leaves a container, which the next one takes away.
#[test]
fn what_a_killed_command_left_is_removed_by_the_next() {
    if !engine_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_project(folder.path(), &[system("one", json!({}))]);
    let pipes = folder.path().join("project/pipes");
    std::fs::create_dir(&pipes).unwrap();
    let write_pipe = |url: &str| {
        let pipe = json!({"_id": "p", "type": "pipe", "pump": {"max_read_retries": 0},
            "source": {"type": "json", "system": "one", "url": url}});
        std::fs::write(pipes.join("p.conf.json"), pipe.to_string()).unwrap();
    };
    let data = folder.path().join("data");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tahini"));
        command
            .arg("run")
            .arg(folder.path().join("project"))
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    write_pipe("slow");
    let mut first = command().spawn().unwrap();
    let containers = || {
        // Without an identity yet there is no container, either.
        let is_known = data.join("node-id").exists();
        let id = is_known.then(|| tahini_node::backup::hosting_id(&data).unwrap())?;
        Some(containers_of(&id)).filter(|found| !found.is_empty())
    };
    let left = until("the container", containers);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(containers(), Some(left), "nobody took it away");
    write_pipe("nothing-there");
    command().status().unwrap();
    assert_eq!(containers(), None);
}

/// A container that carries a node's label and does nothing.
pub fn leave_container(node_id: &str) -> String {
    let labels = [("io.tahini.node", node_id), ("io.tahini.system", "kept")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = ContainerCreateBody {
        image: Some(image().to_owned()),
        labels: Some(HashMap::from(labels)),
        ..ContainerCreateBody::default()
    };
    on_engine(|docker: Docker| async move {
        docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .unwrap()
            .id
    })
}

fn remove(container: String) {
    on_engine(|docker: Docker| async move {
        docker
            .remove_container(&container, None::<RemoveContainerOptions>)
            .await
            .unwrap();
    });
}
