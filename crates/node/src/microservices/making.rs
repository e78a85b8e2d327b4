//! One container that is being made.

use std::sync::Arc;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};

use super::engine::met;
use super::logs::Log;
use super::running::remove;
use super::runtime::StartError;

/// A container that is being made.
pub(super) struct Making {
    pub docker: Docker,
    pub body: ContainerCreateBody,
    pub name: String,
    /// The port of this machine on which it is published.
    pub port: u16,
    pub log: Arc<Log>,
}

impl Making {
    /// Creates and starts it; gives its id.
    pub async fn run(self) -> Result<String, StartError> {
        let Making {
            docker, body, name, ..
        } = &self;
        let create = async |body: ContainerCreateBody| {
            let options = CreateContainerOptions {
                name: Some(name.clone()),
                ..CreateContainerOptions::default()
            };
            docker.create_container(Some(options), body).await
        };
        let created = match create(body.clone()).await {
            Err(error) if has_no_init(&error) => {
                self.log.note(&format!(
                    "the engine has no init process, and the service takes its place, so that it \
                     may end late when it is asked to: {}",
                    met(&error)
                ));
                create(without_init(body)).await
            }
            created => created,
        };
        let created = created.map_err(|error| {
            StartError::new(format!(
                "expected the engine to create container {name}, found: {}",
                met(&error)
            ))
        })?;
        for warning in &created.warnings {
            self.log.note(&format!("the engine warns: {warning}"));
        }
        let started = docker
            .start_container(&created.id, None::<StartContainerOptions>)
            .await;
        let Err(error) = started else {
            return Ok(created.id);
        };
        remove(docker, &created.id).await;
        let text = met(&error);
        if text.contains("port is already allocated") || text.contains("address already in use") {
            return Err(port_taken(self.port, &text));
        }
        Err(StartError::new(format!(
            "expected the engine to start container {name}, found: {text}"
        )))
    }
}

/// Podman's init process is a program beside it that may not be installed.
fn has_no_init(error: &Error) -> bool {
    let text = met(error);
    text.contains("init") && text.contains("not found")
}

fn without_init(body: &ContainerCreateBody) -> ContainerCreateBody {
    let mut body = body.clone();
    if let Some(config) = &mut body.host_config {
        config.init = Some(false);
    }
    body
}

/// The engine does not know the network that a container was to be in.
pub(super) fn is_network_gone(error: &StartError) -> bool {
    let text = error.message.to_lowercase();
    text.contains("network") && text.contains("not found")
}

/// The port is somebody else's, so that another one may be tried.
pub(super) fn port_taken(port: u16, found: &str) -> StartError {
    StartError {
        message: format!("expected port {port} to be free for a container, found: {found}"),
        port_taken: true,
    }
}
