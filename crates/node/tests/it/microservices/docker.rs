//! What containers add: images, limits, names, and what a killed node leaves behind.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, PushImageOptions,
    RemoveContainerOptions, RemoveImageOptions, TagImageOptions,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tahini_node::microservices::{HostOptions, ServiceSpec, State};

use super::place::{CONTAINER_PORT, Place, TestHost, engine_is_there, image, on_engine, try_get};

fn spec(docker: Value) -> ServiceSpec {
    ServiceSpec::from_config("one", &json!({"docker": docker}), Path::new("/")).unwrap()
}

fn start_error(docker: Value) -> String {
    let node = TestHost::new();
    node.host.apply(vec![spec(docker)]);
    let message = node.try_url("one").unwrap_err();
    assert!(
        message.starts_with("microservice one is failed: "),
        "{message}"
    );
    message
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
        "cpuset_cpus": "0", "hosts": {"db.example.org": "10.1.2.3"}
    }))]);
    assert_eq!(node.get("one", "/resolve?host=db.example.org"), "10.1.2.3");
    let status = node.status("one");
    assert_eq!(status["memory_limit_bytes"], 96 << 20);
    assert_eq!(
        (&status["cpu_limit_percent"], &status["runtime"]),
        (&json!(50), &json!("docker"))
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
        (Some(50_000), Some(100_000))
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

#[test]
fn what_a_killed_node_left_is_removed_and_nothing_else() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::new();
    let ours = leave_container(&node.node_id);
    let foreign = leave_container("somebody-else");
    node.host.apply(vec![Place::Docker.spec("one", json!({}))]);
    node.url("one");
    let left = containers_of(&node.node_id);
    assert!(left.len() == 1 && !left.contains(&ours), "{left:?}");
    assert_eq!(
        containers_of("somebody-else"),
        std::slice::from_ref(&foreign)
    );
    on_engine(|docker: Docker| async move {
        docker
            .remove_container(&foreign, None::<RemoveContainerOptions>)
            .await
            .unwrap();
    });
}

fn leave_container(node_id: &str) -> String {
    let body = ContainerCreateBody {
        image: Some(image().to_owned()),
        labels: Some(HashMap::from([(
            "io.tahini.node".to_owned(),
            node_id.to_owned(),
        )])),
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

#[test]
fn an_image_is_pulled_from_its_registry() {
    if !engine_is_there() {
        return;
    }
    let Ok(registry) = std::env::var("TEST_REGISTRY") else {
        panic!("expected TEST_REGISTRY beside TEST_IMAGE, found none")
    };
    let repo = format!("{registry}/pulled-{}", uuid::Uuid::new_v4());
    let remote = format!("{repo}:1");
    publish(&repo, &remote);
    let config = json!({"image": remote, "port": CONTAINER_PORT, "cpu_quota": 100});

    // Without pulling there is nothing.
    let mut without = config.clone();
    without["skip_pull"] = json!(true);
    let message = start_error(without);
    assert!(
        message.contains("skip_pull") && message.contains(&remote),
        "{message}"
    );

    let node = TestHost::new();
    node.host.apply(vec![spec(config)]);
    node.url("one");
    let status = node.status("one");
    let digest = status["digest"].as_str().unwrap();
    assert!(digest.starts_with(&format!("{repo}@sha256:")), "{digest}");
    let log = node.log("one");
    assert!(log.contains(&format!("pulling {remote}")), "{log}");
    // A crash is no reason to ask the registry again.
    try_get(&node.url("one"), "/exit?code=1");
    node.until("one", |snapshot| {
        snapshot.restarts == 1 && snapshot.state == State::Running
    });
    assert_eq!(node.log("one").matches("pulling ").count(), 1);
}

/// Puts the test's image into the registry under another name and takes it out of the engine.
fn publish(repo: &str, remote: &str) {
    on_engine(|docker: Docker| async move {
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some("1".to_owned()),
        };
        docker.tag_image(image(), Some(options)).await.unwrap();
        let options = PushImageOptions {
            tag: Some("1".to_owned()),
            ..PushImageOptions::default()
        };
        let mut steps = docker.push_image(repo, Some(options), None).boxed_local();
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
        docker
            .remove_image(remote, None::<RemoveImageOptions>, None)
            .await
            .unwrap();
    });
}

#[test]
fn an_image_that_cannot_be_pulled_says_why() {
    if !engine_is_there() {
        return;
    }
    let registry = std::env::var("TEST_REGISTRY").unwrap();
    let missing = format!("{registry}/ms-python:no-such-tag");
    let message = start_error(json!({"image": missing, "port": 80}));
    assert!(
        message.contains(&missing) && message.contains("docker.image"),
        "{message}"
    );
    let message = start_error(json!({"image": "127.0.0.1:1/no/registry:1", "port": 80}));
    assert!(message.contains("can reach the registry"), "{message}");
}
