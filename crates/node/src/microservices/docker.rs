//! The container engine: Docker or Podman, through the Docker Engine API.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerState, ContainerStatsResponse};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, LogsOptions,
    RemoveContainerOptions, StartContainerOptions, StatsOptions, StopContainerOptions,
    WaitContainerOptions,
};
use futures_util::StreamExt;
use tokio::sync::{Mutex, watch};

use super::container;
use super::image::{self, Resolved, status_of};
use super::logs::{LineSplitter, Log, Stream};
use super::network::{self, Network};
use super::process::port_is_free;
use super::runtime::{Exit, Instance, Launch, Runtime, StartError, Task, Vitals};

/// The label with the identity of the node that a container belongs to.
pub(super) const NODE_LABEL: &str = "io.tahini.node";
/// The label with the id of the system that a container runs.
pub(super) const SYSTEM_LABEL: &str = "io.tahini.system";
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// How long the last output is read on after a container has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Pause before an engine that does not answer is asked again.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// Runs services as containers. The engine is reached with the first start.
pub struct DockerRuntime {
    host: Option<String>,
    node_id: String,
    network: Option<String>,
    engine: Mutex<Option<Arc<Engine>>>,
}

struct Engine {
    docker: Docker,
    /// The address on which ports are published and reached.
    address: IpAddr,
    network: Network,
}

impl DockerRuntime {
    /// A runtime for the engine at `host` (as in `DOCKER_HOST`; `None` takes the environment's or
    /// the usual socket), with a node's identity and a network mode (`None`: a bridge of its own).
    pub fn new(host: Option<String>, node_id: String, network: Option<String>) -> DockerRuntime {
        DockerRuntime {
            host,
            node_id,
            network,
            engine: Mutex::new(None),
        }
    }

    /// The engine; connects, and cleans up after an earlier node, when that has not happened yet.
    async fn engine(&self) -> Result<Arc<Engine>, StartError> {
        let mut engine = self.engine.lock().await;
        if let Some(engine) = &*engine {
            return Ok(engine.clone());
        }
        let from_environment = || {
            ["TAHINI_DOCKER_HOST", "DOCKER_HOST"]
                .iter()
                .find_map(|name| std::env::var(name).ok())
        };
        let host = self
            .host
            .clone()
            .or_else(from_environment)
            .unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let connected = Arc::new(self.connect(&host).await?);
        *engine = Some(connected.clone());
        Ok(connected)
    }

    async fn connect(&self, host: &str) -> Result<Engine, StartError> {
        let help = |error: &dyn std::fmt::Display| {
            StartError::new(format!(
                "expected a container engine at {host}, found: {error}; start Docker or Podman, set \
                 DOCKER_HOST, or give the system a \"process\""
            ))
        };
        let remote = host
            .split_once("://")
            .filter(|(scheme, _)| *scheme != "unix");
        if remote.is_some()
            && std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|set| !set.is_empty())
        {
            return Err(help(
                &"DOCKER_TLS_VERIFY is set, and engines behind TLS are not supported yet",
            ));
        }
        let address = match remote {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some((_, authority)) => {
                let mut found = tokio::net::lookup_host(authority)
                    .await
                    .map_err(|error| help(&error))?;
                found.next().ok_or_else(|| help(&"no address"))?.ip()
            }
        };
        let docker = Docker::connect_with_host(host).map_err(|error| help(&error))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|error| help(&error))?;
        self.sweep(&docker).await.map_err(|error| help(&error))?;
        let network = match &self.network {
            Some(mode) => Network::named(mode),
            None => network::own(&docker, &self.node_id).await?,
        };
        Ok(Engine {
            docker,
            address,
            network,
        })
    }

    /// Removes the containers that an earlier life of this node left behind, and no others.
    async fn sweep(&self, docker: &Docker) -> Result<(), Error> {
        let label = format!("{NODE_LABEL}={}", self.node_id);
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        for found in docker.list_containers(Some(options)).await? {
            if let Some(id) = found.id {
                tracing::info!(
                    container = id,
                    "removing a container that an earlier node left"
                );
                remove(docker, &id).await;
            }
        }
        Ok(())
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
        let docker = &engine.docker;
        let image = image::ensure(docker, spec, launch.pull, &launch.log).await?;
        let name = self.container_name(&launch.spec.id);
        self.remove_own(docker, &name).await;
        if engine.address.is_loopback() && !port_is_free(launch.port) {
            return Err(port_taken(launch.port, "another program listens on it"));
        }
        let body =
            container::describe(launch, spec, &self.node_id, engine.address, &engine.network);
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..CreateContainerOptions::default()
        };
        let created = docker
            .create_container(Some(options), body)
            .await
            .map_err(|error| {
                StartError::new(format!(
                    "expected the engine to create container {name}, found: {error}"
                ))
            })?;
        for warning in &created.warnings {
            launch.log.note(&format!("the engine warns: {warning}"));
        }
        if let Err(error) = docker
            .start_container(&created.id, None::<StartContainerOptions>)
            .await
        {
            remove(docker, &created.id).await;
            let text = error.to_string();
            if text.contains("port is already allocated") || text.contains("address already in use")
            {
                return Err(port_taken(launch.port, &text));
            }
            return Err(StartError::new(format!(
                "expected the engine to start container {name}, found: {text}"
            )));
        }
        launch
            .log
            .note(&format!("started {}, container {name}", spec.image));
        let (tell, ended) = watch::channel(None);
        tokio::spawn(watch_container(
            docker.clone(),
            created.id.clone(),
            launch.log.clone(),
            tell,
        ));
        let address = format!("{}:{}", bracketed(engine.address), launch.port);
        Ok(Container {
            docker: docker.clone(),
            id: created.id,
            address,
            image,
            cpu_quota_percent: spec.cpu_quota_percent,
            ended,
        })
    }

    /// Removes the container of this name if it is this node's.
    async fn remove_own(&self, docker: &Docker, name: &str) {
        let Ok(found) = docker
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
        else {
            return;
        };
        let labels = found
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        if labels.get(NODE_LABEL) == Some(&self.node_id) {
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

    fn clear<'a>(&'a self, id: &'a str) -> Task<'a, ()> {
        Box::pin(async move {
            let engine = self.engine.lock().await.clone();
            if let Some(engine) = engine {
                self.remove_own(&engine.docker, &self.container_name(id))
                    .await;
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            if let Some(engine) = self.engine.lock().await.take() {
                engine.network.remove(&engine.docker).await;
            }
        })
    }
}

/// One running container.
struct Container {
    docker: Docker,
    id: String,
    address: String,
    image: Resolved,
    cpu_quota_percent: u64,
    ended: watch::Receiver<Option<Exit>>,
}

impl Container {
    async fn wait(&self) -> Exit {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| Exit::now(None, None)),
            Err(_) => Exit::now(None, None),
        }
    }

    async fn read_vitals(&self) -> Vitals {
        let inspect = self
            .docker
            .inspect_container(&self.id, None::<InspectContainerOptions>)
            .await;
        let options = StatsOptions {
            stream: false,
            one_shot: true,
        };
        let stats = self.docker.stats(&self.id, Some(options)).next().await;
        let stats = stats.and_then(Result::ok).unwrap_or_default();
        let pid = inspect.ok().and_then(|found| found.state?.pid);
        Vitals {
            pid: pid.filter(|pid| *pid > 0),
            container: Some(self.id.clone()),
            image_id: self.image.id.clone(),
            digest: self.image.digest.clone(),
            memory_bytes: memory_in_use(&stats),
            memory_limit_bytes: stats.memory_stats.and_then(|memory| memory.limit),
            cpu_seconds: stats
                .cpu_stats
                .and_then(|cpu| Some(cpu.cpu_usage?.total_usage? as f64 / 1e9)),
            cpu_limit_percent: Some(self.cpu_quota_percent),
        }
    }
}

impl Instance for Container {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn behind_proxy(&self) -> bool {
        true
    }

    fn exited(&self) -> Task<'_, Exit> {
        Box::pin(self.wait())
    }

    fn stop(&self, grace: Duration) -> Task<'_, Exit> {
        Box::pin(async move {
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptions {
                t: Some(seconds),
                ..StopContainerOptions::default()
            };
            if let Err(error) = self.docker.stop_container(&self.id, Some(options)).await {
                tracing::debug!(container = self.id, %error, "the engine did not stop a container");
                remove(&self.docker, &self.id).await;
            }
            self.wait().await
        })
    }

    fn vitals(&self) -> Task<'_, Vitals> {
        Box::pin(self.read_vitals())
    }
}

/// Follows a container's output until it has ended, tells how it ended and removes it.
async fn watch_container(
    docker: Docker,
    id: String,
    log: Arc<Log>,
    tell: watch::Sender<Option<Exit>>,
) {
    let output = tokio::spawn(follow(docker.clone(), id.clone(), log));
    let state = loop {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        // The answer's code is not used: the state says more, memory above all.
        let waited = docker.wait_container(&id, Some(options)).next().await;
        match docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await
        {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                if state.running != Some(true) {
                    break state;
                }
            }
            Err(error) if status_of(&error) == Some(404) => break ContainerState::default(),
            Err(error) => tracing::debug!(container = id, %error, "the engine does not answer"),
        }
        if !matches!(waited, Some(Ok(_))) {
            tokio::time::sleep(ENGINE_PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(LAST_OUTPUT, output).await;
    remove(&docker, &id).await;
    tell.send_replace(Some(exit_of(&state)));
}

async fn follow(docker: Docker, id: String, log: Arc<Log>) {
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        tail: "all".to_owned(),
        ..LogsOptions::default()
    };
    let mut stdout = LineSplitter::new(log.clone(), Stream::Stdout);
    let mut stderr = LineSplitter::new(log.clone(), Stream::Stderr);
    let chunks = docker.logs(&id, Some(options));
    tokio::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(LogOutput::StdErr { message }) => stderr.feed(&message),
            Ok(other) => stdout.feed(&other.into_bytes()),
            Err(error) => {
                log.note(&format!(
                    "the engine's log of the container broke off: {error}"
                ));
                break;
            }
        }
    }
    stdout.finish();
    stderr.finish();
}

/// A shell's way to tell a signal as an exit code, which the engine uses, too, is undone.
fn exit_of(state: &ContainerState) -> Exit {
    let code = state.exit_code;
    let signal = code
        .and_then(|code| i32::try_from(code - 128).ok())
        .filter(|n| (1..=64).contains(n));
    Exit {
        oom_killed: state.oom_killed == Some(true),
        ..Exit::now(code, signal)
    }
}

/// What the container really needs: files that the kernel merely keeps in memory are not counted.
fn memory_in_use(stats: &ContainerStatsResponse) -> Option<u64> {
    let memory = stats.memory_stats.as_ref()?;
    let kept = memory.stats.as_ref().and_then(|details| {
        details
            .get("inactive_file")
            .or_else(|| details.get("total_inactive_file"))
            .copied()
    });
    Some(memory.usage?.saturating_sub(kept.unwrap_or(0)))
}

async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match docker.remove_container(container, Some(options)).await {
        Ok(()) => {}
        // Gone already, or somebody is at it.
        Err(error) if matches!(status_of(&error), Some(404 | 409)) => {}
        Err(error) => tracing::warn!(container, %error, "a container could not be removed"),
    }
}

fn port_taken(port: u16, found: &str) -> StartError {
    StartError {
        message: format!("expected port {port} to be free for a container, found: {found}"),
        port_taken: true,
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
