//! How services in containers reach the node, and what it demands of them.

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use serde_json::{Value, json};
use tahini_node::cli::Role;

use super::super::place::{
    CONTAINER_PORT, Place, SCRIPT, TestHost, engine_is_there, image, on_engine,
};
use crate::api::{TestNode, token, until};

/// A node on loopback with two services in containers and one beside them, and a token of each role.
fn node_with_both() -> (TestNode, [String; 2]) {
    let mut tokens = [String::new(), String::new()];
    let node = TestNode::with(|options, folder| {
        let systems = [
            json!({"_id": "inside", "type": "system:microservice", "docker": {
                "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "cpu_quota": 100}}),
            json!({"_id": "other-one", "type": "system:microservice", "docker": {
                "image": image(), "port": CONTAINER_PORT, "skip_pull": true, "cpu_quota": 100}}),
            json!({"_id": "beside", "type": "system:microservice",
                "process": {"command": ["python3", "-c", SCRIPT]}}),
        ];
        super::super::served::write_project(folder, &systems);
        options.projects = vec![folder.join("project")];
        tokens = [Role::Reader, Role::Proxy].map(|role| token(options, role));
    });
    for id in ["inside", "other-one", "beside"] {
        until(id, || {
            let status = node.json(&format!("/api/systems/{id}/status"));
            (status["running"] == true).then_some(())
        });
    }
    (node, tokens)
}

/// What the service in the container hears from the node.
fn asks(node: &TestNode, query: &str) -> (Value, String) {
    let answer = node.json(&format!("/api/systems/inside/proxy/node?{query}"));
    let text = answer[1].as_str().unwrap_or_default().to_owned();
    (answer[0].clone(), text)
}

#[test]
fn the_node_is_reached_by_its_names_and_with_a_token_only() {
    if !engine_is_there() {
        return;
    }
    let (node, [reader, proxy]) = node_with_both();
    for name in ["tahini", "sesam-node"] {
        let (status, text) = asks(&node, &format!("path=/api/pipes&as={name}"));
        assert_eq!(status, 401, "{text}");
        let (status, text) = asks(&node, &format!("path=/api/pipes&as={name}&token={reader}"));
        assert_eq!((status, text.as_str()), (json!(200), "[]"));
    }
    // Whether anybody is there, everybody may ask.
    assert_eq!(asks(&node, "path=/readyz").0, 200);
    assert_eq!(
        asks(&node, &format!("path=/api/pipes&token={proxy}")).0,
        403
    );

    // A process listens on loopback: the way there leads through the node.
    let beside = "base=SYSTEM_BESIDE_URL&path=/born";
    assert_eq!(asks(&node, beside).0, 401);
    assert_eq!(asks(&node, &format!("{beside}&token={reader}")).0, 403);
    let (status, born) = asks(&node, &format!("{beside}&token={proxy}"));
    assert_eq!(status, 200, "{born}");
    let born: Value = serde_json::from_str(&born).unwrap();
    assert_eq!(born, node.json("/api/systems/beside/proxy/born"));

    // Two in containers call each other without a detour, by their ids.
    for (caller, variable, called) in [
        ("inside", "SYSTEM_OTHER_ONE_URL", "other-one"),
        ("other-one", "SYSTEM_INSIDE_URL", "inside"),
    ] {
        let born = node.json(&format!("/api/systems/{called}/proxy/born"));
        let peer = format!("/api/systems/{caller}/proxy/peer?variable={variable}");
        assert_eq!(node.json(&peer), born, "{caller} calls {called}");
        let variables = node.json(&format!("/api/systems/{caller}/proxy/env"));
        assert_eq!(
            variables[variable],
            format!("http://{called}:{CONTAINER_PORT}")
        );
        assert_eq!(variables["HOSTNAME"], caller);
    }

    // The other way there is no detour.
    let variables = node.json("/api/systems/beside/proxy/env");
    let inside = node.json("/api/systems/inside/status")["url"].clone();
    assert_eq!(variables["SYSTEM_INSIDE_URL"], inside);
}

#[test]
fn a_network_that_is_given_is_used_and_stays() {
    if !engine_is_there() {
        return;
    }
    let name = format!("given-{}", uuid::Uuid::new_v4());
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        ..NetworkCreateRequest::default()
    };
    on_engine(async |docker: Docker| docker.create_network(request).await.unwrap());
    let node = TestHost::with(|options| options.docker_network = Some(name.clone()));
    node.host.apply(vec![
        Place::Docker.spec("caller", json!({})),
        Place::Docker.spec("called", json!({})),
    ]);
    let born = node.get("called", "/born");
    let peer = "/peer?variable=SYSTEM_CALLED_URL";
    assert_eq!(
        node.get("caller", peer),
        born,
        "they find each other by name"
    );
    assert!(node.host.gateway().borrow().is_some());
    node.shutdown();
    on_engine(async |docker: Docker| docker.remove_network(&name).await.unwrap());
}

/// The engine's own bridge knows no names, and no more does a mode without a network of its own.
#[test]
fn without_names_the_way_leads_through_the_node() {
    if !engine_is_there() {
        return;
    }
    let node = TestHost::with(|options| options.docker_network = Some("bridge".to_owned()));
    node.host.apply(vec![
        Place::Docker.spec("caller", json!({})),
        Place::Docker.spec("called", json!({})),
    ]);
    let variables = node.get("caller", "/env");
    let way = "http://tahini:9042/api/systems/called/proxy";
    assert_eq!(variables["SYSTEM_CALLED_URL"], way);
    assert!(node.get("called", "/born").is_string());
}
