//! What the engine is told about a container.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
    PortBinding,
};
use sha2::{Digest as _, Sha256};

use super::docker::{LAUNCH_LABEL, NODE_LABEL, SYSTEM_LABEL};
use super::environment::{NODE_NAMES, NODE_URL};
use super::image::Reference;
use super::network::Network;
use super::runtime::Launch;
use super::spec::DockerSpec;

/// The engine's own copy of a container's output is kept small: the node has the lines.
const ENGINE_LOG_SIZE: &str = "8m";

/// The container for one start of a service.
pub(super) fn describe(
    launch: &Launch,
    spec: &DockerSpec,
    node_id: &str,
    address: IpAddr,
    network: &Network,
) -> ContainerCreateBody {
    let id = &launch.spec.id;
    let inside = format!("{}/tcp", spec.port);
    let published = PortBinding {
        host_ip: Some(address.to_string()),
        host_port: Some(launch.port.to_string()),
    };
    let host_config = HostConfig {
        memory: i64::try_from(spec.memory_mb * 1024 * 1024).ok(),
        // As much in all as of memory alone: no swap, so that the limit means what it says.
        memory_swap: i64::try_from(spec.memory_mb * 1024 * 1024).ok(),
        cpu_period: microseconds(spec.cpu_period_ms),
        cpu_quota: microseconds(spec.cpu_quota_percent),
        cpuset_cpus: spec.cpuset_cpus.clone(),
        // A program that runs as process 1 and ignores SIGTERM would take the whole grace period.
        init: Some(true),
        extra_hosts: Some(extra_hosts(spec, network)),
        network_mode: Some(network.mode.clone()),
        port_bindings: Some(HashMap::from([(inside.clone(), Some(vec![published]))])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([(
                "max-size".to_owned(),
                ENGINE_LOG_SIZE.to_owned(),
            )])),
        }),
        ..HostConfig::default()
    };
    // The other services find this one by its id.
    let networking_config = network.has_names.then(|| NetworkingConfig {
        endpoints_config: Some(HashMap::from([(
            network.mode.clone(),
            EndpointSettings {
                aliases: Some(vec![id.clone()]),
                ..EndpointSettings::default()
            },
        )])),
    });
    let mut body = ContainerCreateBody {
        image: Some(Reference::parse(&spec.image).full()),
        hostname: Some(id.clone()),
        env: Some(environment(launch, network)),
        exposed_ports: Some(vec![inside]),
        host_config: Some(host_config),
        networking_config,
        ..ContainerCreateBody::default()
    };
    body.labels = Some(HashMap::from([
        (NODE_LABEL.to_owned(), node_id.to_owned()),
        (SYSTEM_LABEL.to_owned(), id.clone()),
        (LAUNCH_LABEL.to_owned(), fingerprint(&body, launch)),
    ]));
    body
}

/// What tells this description from every other. Where the other services are does not count: one
/// that comes or goes is no reason to restart this one, either. None of the maps has more than one
/// name, so that the same description is always the same text.
fn fingerprint(body: &ContainerCreateBody, launch: &Launch) -> String {
    let own = &launch.spec.environment;
    let of_others = |variable: &String| {
        let name = variable.split('=').next().unwrap_or_default();
        name != NODE_URL && own.iter().all(|(given, _)| given != name)
    };
    let mut told = body.clone();
    told.env
        .iter_mut()
        .for_each(|env| env.retain(|one| !of_others(one)));
    let text = serde_json::to_vec(&told).expect("a description is JSON");
    let hash = Sha256::digest(text);
    hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The documented unit is a thousandth of the engine's.
fn microseconds(value: u64) -> Option<i64> {
    i64::try_from(value.saturating_mul(1_000)).ok()
}

/// The node's variables, then the configuration's, which win.
fn environment(launch: &Launch, network: &Network) -> Vec<String> {
    let own = &launch.spec.environment;
    let nodes = match network.has_names {
        true => &launch.node_environment,
        false => &launch.nameless_environment,
    };
    let nodes = nodes
        .iter()
        .filter(|(name, _)| own.iter().all(|(given, _)| given != name));
    nodes
        .chain(own)
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The configured hosts and the node's names.
fn extra_hosts(spec: &DockerSpec, network: &Network) -> Vec<String> {
    let node = match network.gateway {
        Some(address) => address.to_string(),
        None => "host-gateway".to_owned(),
    };
    let configured = spec
        .hosts
        .iter()
        .map(|(host, address)| format!("{host}:{address}"));
    configured
        .chain(NODE_NAMES.iter().map(|name| format!("{name}:{node}")))
        .collect()
}
