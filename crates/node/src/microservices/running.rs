//! One container that runs: its output, its end, what it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStatsResponse};
use bollard::query_parameters::{
    InspectContainerOptions, LogsOptions, RemoveContainerOptions, StatsOptions,
    StopContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;

use super::engine::Engine;
use super::image::{Resolved, status_of};
use super::logs::{LineSplitter, Log, Stream};
use super::runtime::{Exit, Instance, Launch, Task, Vitals};
use super::spec::DockerSpec;

/// How long the last output is read on after a container has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Pause before an engine that does not answer is asked again.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);
/// So many lines of what a container wrote before are read when it is taken over.
const LINES_BEFORE: usize = 1_000;

/// One running container.
pub(super) struct Container {
    docker: Docker,
    id: String,
    address: String,
    door: Option<SocketAddr>,
    adopted: Option<Timestamp>,
    image: Resolved,
    cpu_quota_percent: u64,
    has_ended: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Exit>>,
}

impl Container {
    /// The container of that id, which has been started, now or, when `adopted`, in an earlier life
    /// of the node.
    pub async fn watched(
        engine: &Engine,
        id: String,
        launch: &Launch,
        spec: &DockerSpec,
        image: Resolved,
        adopted: Option<Timestamp>,
    ) -> Container {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (tell, ended) = watch::channel(None);
        tokio::spawn(watch_container(
            engine.docker.clone(),
            id.clone(),
            launch.log.clone(),
            adopted.map_or("all".to_owned(), |_| LINES_BEFORE.to_string()),
            has_ended.clone(),
            tell,
        ));
        let inspect = engine
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await;
        let near = engine.address.is_loopback();
        let inside = inspect.ok().and_then(own_address).filter(|_| near);
        Container {
            docker: engine.docker.clone(),
            id,
            address: SocketAddr::new(engine.address, launch.port).to_string(),
            door: inside.map(|address| SocketAddr::new(address, spec.port)),
            adopted,
            image,
            cpu_quota_percent: spec.cpu_quota_percent,
            has_ended,
            ended,
        }
    }

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

    fn door(&self) -> Option<SocketAddr> {
        self.door
    }

    fn adopted(&self) -> Option<Timestamp> {
        self.adopted
    }

    fn image_id(&self) -> Option<&str> {
        self.image.id.as_deref()
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
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
    tail: String,
    has_ended: Arc<AtomicBool>,
    tell: watch::Sender<Option<Exit>>,
) {
    let output = tokio::spawn(follow(docker.clone(), id.clone(), log, tail));
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
    has_ended.store(true, Ordering::SeqCst);
    let _ = tokio::time::timeout(LAST_OUTPUT, output).await;
    remove(&docker, &id).await;
    tell.send_replace(Some(exit_of(&state)));
}

async fn follow(docker: Docker, id: String, log: Arc<Log>, tail: String) {
    let options = LogsOptions {
        follow: true,
        stdout: true,
        stderr: true,
        tail,
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
pub(super) fn exit_of(state: &ContainerState) -> Exit {
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

/// Removes a container, running or not.
pub(super) async fn remove(docker: &Docker, container: &str) {
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

/// The container's address in its own network.
fn own_address(found: ContainerInspectResponse) -> Option<IpAddr> {
    let networks = found.network_settings?.networks?;
    networks
        .into_values()
        .find_map(|network| network.ip_address?.parse().ok())
}
