//! What containers add: limits, names, images, a network, and what a killed node leaves behind.

mod adoption;
mod away;
mod foreign;
mod images;
mod network;
mod runs;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use serde_json::{Value, json};
use tahini_node::microservices::{HostOptions, ServiceSpec, State};

use super::place::{
    CONTAINER_PORT, Place, TestHost, engine_is_there, image, on_engine, try_get, until,
};

fn spec(docker: Value) -> ServiceSpec {
    ServiceSpec::from_config("one", &json!({"docker": docker}), Path::new("/")).unwrap()
}

/// The containers that carry the node's label, running or not.
fn containers_of(node_id: &str) -> Vec<String> {
    let label = format!("io.tahini.node={node_id}");
    on_engine(|docker: Docker| async move {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let found = docker.list_containers(Some(options)).await.unwrap();
        found
            .into_iter()
            .filter_map(|container| container.id)
            .collect()
    })
}

#[test]
fn no_engine_is_an_error_that_helps() {
    let node = TestHost::with(|options: &mut HostOptions| {
        options.docker_host = Some("unix:///no/such/engine.sock".into());
    });
    node.host
        .apply(vec![spec(json!({"image": "some/image", "port": 80}))]);
    let message = node.try_url("one").unwrap_err();
    for part in ["unix:///no/such/engine.sock", "DOCKER_HOST", "\"process\""] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn the_container_is_made_as_configured() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::new();
    node.host.apply(vec![spec(json!({
        "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "memory": 96, "cpu_quota": 50,
        "cpuset_cpus": "0", "cpu_period": 50, "hosts": {"db.example.org": "10.1.2.3"}
    }))]);
    assert_eq!(node.get("one", "/resolve?host=db.example.org"), "10.1.2.3");
    let status = node.status("one");
    assert_eq!(status["memory_limit_bytes"], 96 << 20);
    // Fifty thousandths of a second in every fifty: a whole core.
    assert_eq!(
        (&status["cpu_limit_percent"], &status["runtime"]),
        (&json!(100), &json!("docker"))
    );
    assert_eq!(status["image"], image());
    assert!(
        status["image_id"].as_str().unwrap().starts_with("sha256:"),
        "{status}"
    );

    let id = status["container_id"].as_str().unwrap().to_owned();
    let found: ContainerInspectResponse = on_engine(|docker: Docker| async move {
        docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await
            .unwrap()
    });
    let limits = found.host_config.unwrap();
    assert_eq!(
        (limits.memory, limits.memory_swap),
        (Some(96 << 20), Some(96 << 20))
    );
    assert_eq!(
        (limits.cpu_quota, limits.cpu_period),
        (Some(50_000), Some(50_000))
    );
    assert_eq!(
        (limits.cpuset_cpus.as_deref(), limits.init),
        (Some("0"), Some(true))
    );
    let published = limits.port_bindings.unwrap()[&format!("{CONTAINER_PORT}/tcp")]
        .clone()
        .unwrap();
    assert_eq!(
        published[0].host_ip.as_deref(),
        Some("127.0.0.1"),
        "never for the whole world"
    );
}

#[test]
fn one_that_listens_within_its_container_only_is_told_so() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::with(|options| options.pace.start_limit = Duration::from_secs(3));
    node.host
        .apply(vec![Place::Docker.spec("one", json!({"MODE": "inside"}))]);
    let message = node.try_url("one").unwrap_err();
    for part in [
        "listening on 127.0.0.1:5000",
        "nobody outside its container",
        "listen on 0.0.0.0",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

/// Its container is there, and nobody has asked for it yet: it goes with its system.
#[test]
fn what_is_replaced_while_it_starts_leaves_nothing() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::new();
    for n in 0..20 {
        node.host
            .apply(vec![Place::Docker.spec("one", json!({"MODE": "deaf"}))]);
        node.until("one", |snapshot| snapshot.state == State::Starting);
        // A little later each time, so that every step of a start is cut off once.
        let pause = Duration::from_millis(n * 15);
        std::thread::sleep(pause);
        node.host.apply(vec![]);
    }
    until("the end of all of them", || {
        containers_of(&node.node_id).is_empty().then_some(())
    });
}

#[test]
fn one_that_takes_too_much_memory_says_so() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::new();
    node.host.apply(vec![spec(json!({
        "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "memory": 48, "cpu_quota": 100
    }))]);
    try_get(&node.url("one"), "/eat");
    node.until("one", |snapshot| {
        snapshot.restarts == 1 && snapshot.state == State::Running
    });
    let exit = node.status("one")["last_exit"].clone();
    assert_eq!(
        (&exit["oom_killed"], &exit["code"]),
        (&json!(true), &json!(137)),
        "{exit}"
    );
    assert!(node.log("one").contains("more memory than its limit"));
}

#[test]
fn nothing_is_left_after_the_end() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::new();
    node.host.apply(vec![Place::Docker.spec("one", json!({}))]);
    node.url("one");
    assert_eq!(containers_of(&node.node_id).len(), 1);
    node.shutdown();
    assert!(containers_of(&node.node_id).is_empty());
    let network = format!("tahini-{}", node.node_id);
    let networks = on_engine(|docker: Docker| async move {
        docker
            .list_networks(None::<bollard::query_parameters::ListNetworksOptions>)
            .await
            .unwrap()
    });
    assert!(
        networks
            .iter()
            .all(|found| found.name.as_deref() != Some(network.as_str()))
    );
}
