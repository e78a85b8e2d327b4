//! The container engine: Docker or Podman, through the Docker Engine API.

use std::net::IpAddr;
use std::sync::Arc;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use tokio::sync::{Mutex, RwLock, watch};

use super::container;
use super::engine::{Engine, Place};
use super::host::HostOptions;
use super::image;
use super::making::{Making, is_network_gone, port_taken};
use super::network::{self, Network};
use super::output::inspect;
use super::process::port_is_free;
use super::running::{Container, exit_of, remove};
use super::runtime::{Instance, Launch, Runtime, StartError, Task};
use super::spec::DockerSpec;

/// The label with the identity of the node that a container belongs to.
pub(super) const NODE_LABEL: &str = "io.tahini.node";
/// The label with the id of the system that a container runs.
pub(super) const SYSTEM_LABEL: &str = "io.tahini.system";
/// The label that tells one way to run a service from every other: a hash of everything that the
/// engine was told.
pub(super) const LAUNCH_LABEL: &str = "io.tahini.launch";

/// Runs services as containers. The engine is reached with the first start.
pub struct DockerRuntime {
    place: Place,
    node_id: String,
    network: Option<String>,
    gateway: watch::Sender<Option<IpAddr>>,
    engine: Mutex<Option<Arc<Engine>>>,
    /// Held, many at a time, while containers are made; whoever clears away waits until they are.
    making: Arc<RwLock<()>>,
}

impl DockerRuntime {
    /// A runtime for the engine of the options, under the node's identity; tells the node's address
    /// in the network of its containers once there is one.
    pub fn new(options: &HostOptions, gateway: watch::Sender<Option<IpAddr>>) -> DockerRuntime {
        let variable = |name: &str| std::env::var(name).ok();
        let (host, certificates) = (&options.docker_host, &options.docker_certificates);
        let place = Place::of(host.clone(), certificates.clone(), variable);
        DockerRuntime {
            place,
            node_id: options.node_id.clone(),
            network: options
                .docker_network
                .clone()
                .or_else(|| variable("TAHINI_DOCKER_NETWORK"))
                .filter(|mode| !mode.is_empty()),
            gateway,
            engine: Mutex::new(None),
            making: Arc::default(),
        }
    }

    /// The engine; connects when that has not happened yet.
    async fn engine(&self) -> Result<Arc<Engine>, StartError> {
        let mut engine = self.engine.lock().await;
        if let Some(engine) = &*engine {
            return Ok(engine.clone());
        }
        let found = self.place.connect(&self.node_id).await?;
        let network = self.network(&found.docker, found.bridges_late).await?;
        let connected = Arc::new(Engine::new(found, network));
        *engine = Some(connected.clone());
        Ok(connected)
    }

    /// The network of the containers; tells the node's address there.
    async fn network(&self, docker: &Docker, bridges_late: bool) -> Result<Network, StartError> {
        let network = match &self.network {
            Some(mode) => Network::named(docker, mode, bridges_late).await,
            None => network::own(docker, &self.node_id, bridges_late).await?,
        };
        self.gateway.send_if_modified(|gateway| {
            let differs = *gateway != network.gateway;
            *gateway = network.gateway;
            differs
        });
        Ok(network)
    }

    /// The network in the place of one that is gone; made once, whoever notices first.
    async fn network_after(
        &self,
        engine: &Engine,
        gone: &Arc<Network>,
    ) -> Result<Arc<Network>, StartError> {
        let _one_at_a_time = self.engine.lock().await;
        if Arc::ptr_eq(&engine.network(), gone) {
            let network = self.network(&engine.docker, engine.bridges_late).await?;
            engine.set_network(network);
        }
        Ok(engine.network())
    }

    fn container_name(&self, id: &str) -> String {
        format!("tahini-{}-{id}", network::for_name(&self.node_id))
    }

    async fn start_container(&self, launch: &Launch) -> Result<Container, StartError> {
        let Some(spec) = &launch.spec.docker else {
            return Err(StartError::new(
                "expected \"docker\" in the system's config, found none",
            ));
        };
        let engine = self.engine().await?;
        for left in engine.left.take(&launch.spec.id) {
            if let Some(adopted) = self.adopt(&engine, &left, launch, spec).await {
                return Ok(adopted);
            }
            remove(&engine.docker, &left).await;
        }
        let (asks, pulled) = (launch.pull, &launch.pulled);
        let image = image::ensure(&engine.docker, spec, asks, pulled, &launch.log).await?;
        let foreign = engine.foreign(&image);
        if let Some(foreign) = &foreign {
            launch.log.note(foreign);
        }
        let name = self.container_name(&launch.spec.id);
        self.remove_own(&engine.docker, &name).await;
        if engine.address.is_loopback() && !port_is_free(launch.port) {
            return Err(port_taken(launch.port, "another program listens on it"));
        }
        let network = engine.network();
        let made = self.make(&engine, &network, launch, spec, &name).await;
        let id = match made {
            Err(error) if is_network_gone(&error) && network.is_own => {
                // The engine has lost it, or somebody has removed it.
                launch
                    .log
                    .note("the network of the containers is gone: making it anew");
                let network = self.network_after(&engine, &network).await?;
                self.make(&engine, &network, launch, spec, &name).await
            }
            made => made,
        };
        let id = id.map_err(|error| match &foreign {
            Some(foreign) => StartError::new(format!("{error}; {foreign}")),
            None => error,
        })?;
        launch
            .log
            .note(&format!("started {}, container {name}", spec.image));
        Ok(Container::watched(&engine, id, launch, spec, image, None).await)
    }

    /// Creates and starts a container; gives its id. Once begun it comes to its end, even if nobody
    /// waits for it any more: what is half made could not be cleared away.
    async fn make(
        &self,
        engine: &Engine,
        network: &Network,
        launch: &Launch,
        spec: &DockerSpec,
        name: &str,
    ) -> Result<String, StartError> {
        let making = Making {
            docker: engine.docker.clone(),
            body: container::describe(launch, spec, &self.node_id, engine.address, network),
            name: name.to_owned(),
            port: launch.port,
            log: launch.log.clone(),
        };
        let held = self.making.clone().read_owned().await;
        let made = tokio::spawn(async move {
            let made = making.run().await;
            drop(held);
            made
        });
        let broken = |error| Err(StartError::new(format!("making a container: {error}")));
        made.await.unwrap_or_else(broken)
    }

    /// The container that an earlier life of this node left, when it still runs, and as the launch
    /// would run it.
    async fn adopt(
        &self,
        engine: &Engine,
        id: &str,
        launch: &Launch,
        spec: &DockerSpec,
    ) -> Option<Container> {
        let found = inspect(&engine.docker, id).await.ok()?;
        let network = engine.network();
        let wanted = container::describe(launch, spec, &self.node_id, engine.address, &network);
        let wanted = wanted.labels?.remove(LAUNCH_LABEL)?;
        if label(&found, LAUNCH_LABEL) != Some(&wanted) {
            let words =
                "a container that an earlier node left is not as it should be now: replacing it";
            launch.log.note(words);
            return None;
        }
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            let reason = exit_of(&state).reason();
            launch
                .log
                .note(&format!("it ended while there was no node: {reason}"));
            return None;
        }
        let image = image::resolved(&engine.docker, found.image.as_deref()?).await?;
        let started = state.started_at.unwrap_or_default();
        launch.log.note(&format!(
            "found it running since {started}, in a container that an earlier node left; the last \
             that it wrote follows"
        ));
        let started = started.parse().ok();
        Some(Container::watched(engine, id.to_owned(), launch, spec, image, started).await)
    }

    async fn is_newer(&self, launch: &Launch, running: &dyn Instance) -> Result<bool, StartError> {
        let Some(spec) = launch.spec.docker.as_ref().filter(|spec| !spec.skip_pull) else {
            return Ok(false);
        };
        let engine = self.engine().await?;
        let here = image::pull(&engine.docker, spec, &launch.pulled, &launch.log).await?;
        Ok(running
            .image_id()
            .is_some_and(|runs| here.id.as_deref() != Some(runs)))
    }

    /// Removes the container of this name if it is this node's.
    async fn remove_own(&self, docker: &Docker, name: &str) {
        if let Ok(found) = inspect(docker, name).await
            && label(&found, NODE_LABEL) == Some(&self.node_id)
        {
            remove(docker, name).await;
        }
    }
}

impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async move {
            let container = self.start_container(launch).await?;
            Ok(Arc::new(container) as Arc<dyn Instance>)
        })
    }

    fn renew<'a>(
        &'a self,
        launch: &'a Launch,
        running: &'a dyn Instance,
    ) -> Task<'a, Result<bool, StartError>> {
        Box::pin(self.is_newer(launch, running))
    }

    fn clear<'a>(&'a self, id: &'a str) -> Task<'a, ()> {
        Box::pin(async move {
            let engine = self.engine.lock().await.clone();
            if let Some(engine) = engine {
                drop(self.making.write().await);
                for left in engine.left.take(id) {
                    remove(&engine.docker, &left).await;
                }
                self.remove_own(&engine.docker, &self.container_name(id))
                    .await;
            }
        })
    }

    fn tidy<'a>(&'a self, wanted: &'a [String]) -> Task<'a, bool> {
        Box::pin(async move {
            let engine = match self.engine().await {
                Ok(engine) => engine,
                Err(error) => {
                    // Who needs the engine says so; who does not, need not know.
                    tracing::debug!(%error, "no engine to tidy up");
                    return false;
                }
            };
            for id in engine.left.take_beside(wanted) {
                tracing::info!(
                    container = id,
                    "removing a container that an earlier node left and nobody wants"
                );
                remove(&engine.docker, &id).await;
            }
            true
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            if let Some(engine) = self.engine.lock().await.take() {
                // What was left and never asked for ends with the services that were.
                for id in engine.left.take_beside(&[]) {
                    remove(&engine.docker, &id).await;
                }
                engine.network().remove(&engine.docker).await;
            }
        })
    }
}

fn label<'a>(found: &'a ContainerInspectResponse, name: &str) -> Option<&'a String> {
    found.config.as_ref()?.labels.as_ref()?.get(name)
}
