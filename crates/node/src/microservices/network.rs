//! The bridge network of a node's containers.

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};

use bollard::Docker;
use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::InspectNetworkOptions;

use super::docker::NODE_LABEL;
use super::image::status_of;
use super::runtime::StartError;

/// The engines' own bridges, in which no container is known by name.
const NAMELESS: [&str; 2] = ["bridge", "podman"];

/// The network that containers are started in.
pub(super) struct Network {
    /// The engine's network mode: a network's name, or a word such as `slirp4netns`.
    pub mode: String,
    /// The node's address for its containers, when it is one of this machine, or will be with the
    /// first container, so that the node can listen there.
    pub gateway: Option<IpAddr>,
    /// Containers find each other there by name.
    pub has_names: bool,
    /// It is this node's and ends with it.
    pub is_own: bool,
}

impl Network {
    /// A network that somebody else cares for, or another mode of the engine.
    pub async fn named(docker: &Docker, mode: &str, bridges_late: bool) -> Network {
        let inspect = docker.inspect_network(mode, None::<InspectNetworkOptions>);
        let found = inspect.await.unwrap_or_default();
        let is_bridge = found.driver.as_deref() == Some("bridge");
        Network {
            mode: mode.to_owned(),
            has_names: is_bridge && !NAMELESS.contains(&mode),
            gateway: gateway_of(found)
                .filter(|address| is_bridge && (bridges_late || is_here(*address))),
            is_own: false,
        }
    }

    /// Removes the network when it is the node's own; one that is still in use stays.
    pub async fn remove(&self, docker: &Docker) {
        if self.is_own
            && let Err(error) = docker.remove_network(&self.mode).await
        {
            tracing::debug!(network = self.mode, %error, "the network of the containers stays");
        }
    }
}

/// The node's own bridge network; made when it is not there.
pub(super) async fn own(
    docker: &Docker,
    node_id: &str,
    bridges_late: bool,
) -> Result<Network, StartError> {
    let name = format!("tahini-{}", for_name(node_id));
    let failed = |error: bollard::errors::Error| {
        StartError::new(format!(
            "expected the engine to have or make the bridge network {name}, found: {error}; a node \
             without rights to make networks can be given the name of one in TAHINI_DOCKER_NETWORK"
        ))
    };
    let inspect = || docker.inspect_network(&name, None::<InspectNetworkOptions>);
    let found = match inspect().await {
        Ok(found) => found,
        Err(error) if status_of(&error) == Some(404) => {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                labels: Some(HashMap::from([(NODE_LABEL.to_owned(), node_id.to_owned())])),
                ..NetworkCreateRequest::default()
            };
            docker.create_network(request).await.map_err(failed)?;
            inspect().await.map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Network {
        gateway: gateway_of(found).filter(|address| bridges_late || is_here(*address)),
        mode: name,
        has_names: true,
        is_own: true,
    })
}

fn gateway_of(network: NetworkInspect) -> Option<IpAddr> {
    network
        .ipam?
        .config?
        .into_iter()
        .find_map(|config| config.gateway?.parse().ok())
}

/// Whether this machine has the address. It has not where the engine runs in a machine of its own
/// and makes bridges there; the engine knows another way to the node then (`host-gateway`).
fn is_here(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

/// The node's identity as it may stand in the name of a container or network.
pub(super) fn for_name(node_id: &str) -> String {
    node_id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '-'
            }
        })
        .collect()
}
