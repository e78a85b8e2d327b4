//! One container that runs: its output, its end, what it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStatsResponse};
use bollard::query_parameters::{
    RemoveContainerOptions, StatsOptions, StopContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;

use super::engine::{Engine, met};
use super::image::{Resolved, status_of};
use super::logs::Log;
use super::output::{ENGINE_PAUSE, Follower, inspect, state_of};
use super::runtime::{Exit, Instance, Launch, Task, Vitals};
use super::sockets;
use super::spec::DockerSpec;

/// How long the last output is read on after a container has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a removal that somebody else began may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it is done.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);
/// What is said of a service that Podman ended by force, perhaps for memory: old ones do not tell.
const PERHAPS_MEMORY: &str =
    "as when a service takes more memory than its limit, which this engine does not tell";
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
    cpu_limit_percent: u64,
    has_ended: watch::Receiver<bool>,
    ended: watch::Receiver<Option<Exit>>,
}

/// Looks after one container until it has ended.
struct Watch {
    docker: Docker,
    id: String,
    log: Arc<Log>,
    /// How many of the lines that are there already are read.
    tail: String,
    /// What is to be said of an end that nobody asked for.
    hint: Option<String>,
    is_podman: bool,
    has_ended: watch::Sender<bool>,
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
        let (end, has_ended) = watch::channel(false);
        let (tell, ended) = watch::channel(None);
        let watch = Watch {
            docker: engine.docker.clone(),
            id: id.clone(),
            log: launch.log.clone(),
            tail: adopted.map_or("all".to_owned(), |_| LINES_BEFORE.to_string()),
            hint: engine.foreign(&image),
            is_podman: engine.is_podman,
            has_ended: end,
        };
        tokio::spawn(async move {
            let exit = watch.run().await;
            tell.send_replace(Some(exit));
        });
        let found = inspect(&engine.docker, &id).await;
        let near = engine.address.is_loopback();
        let inside = found.ok().and_then(own_address).filter(|_| near);
        Container {
            docker: engine.docker.clone(),
            id,
            address: SocketAddr::new(engine.address, launch.port).to_string(),
            door: inside.map(|address| SocketAddr::new(address, spec.port)),
            adopted,
            image,
            cpu_limit_percent: spec.cpu_quota_percent * 100 / spec.cpu_period_ms.max(1),
            has_ended,
            ended,
        }
    }

    async fn read_vitals(&self) -> Vitals {
        let found = inspect(&self.docker, &self.id).await;
        let options = StatsOptions {
            stream: false,
            one_shot: true,
        };
        let stats = self.docker.stats(&self.id, Some(options)).next().await;
        let stats = stats.and_then(Result::ok).unwrap_or_default();
        let trouble = found.as_ref().err().map(no_answer);
        Vitals {
            pid: found.ok().and_then(pid_of),
            trouble,
            container: Some(self.id.clone()),
            image_id: self.image.id.clone(),
            digest: self.image.digest.clone(),
            memory_bytes: memory_in_use(&stats),
            memory_limit_bytes: stats.memory_stats.and_then(|memory| memory.limit),
            cpu_seconds: stats
                .cpu_stats
                .and_then(|cpu| Some(cpu.cpu_usage?.total_usage? as f64 / 1e9)),
            cpu_limit_percent: Some(self.cpu_limit_percent),
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
        *self.has_ended.borrow()
    }

    fn exited(&self) -> Task<'_, Exit> {
        Box::pin(Exit::of(&self.ended))
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
            Exit::of(&self.ended).await
        })
    }

    fn vitals(&self) -> Task<'_, Vitals> {
        Box::pin(self.read_vitals())
    }

    fn listens_on(&self) -> Task<'_, Vec<SocketAddr>> {
        Box::pin(async move {
            let found = inspect(&self.docker, &self.id).await;
            let pid = found.ok().and_then(pid_of);
            pid.map_or(Vec::new(), |pid| sockets::in_container(pid, &self.id))
        })
    }
}

fn pid_of(found: ContainerInspectResponse) -> Option<i64> {
    found.state?.pid.filter(|pid| *pid > 0)
}

fn no_answer(error: &Error) -> String {
    let found = met(error);
    format!("the engine does not answer, so that nobody knows how the service is: {found}")
}

impl Watch {
    /// Follows the output until the container has ended, removes it, and gives how it ended.
    async fn run(self) -> Exit {
        let follower = Follower {
            docker: self.docker.clone(),
            id: self.id.clone(),
            log: self.log.clone(),
            has_ended: self.has_ended.subscribe(),
        };
        let output = tokio::spawn(follower.run(self.tail.clone()));
        let state = self.until_ended().await;
        self.has_ended.send_replace(true);
        let _ = tokio::time::timeout(LAST_OUTPUT, output).await;
        remove(&self.docker, &self.id).await;
        let exit = exit_of(&state);
        let hint = match exit.signal {
            Some(libc::SIGKILL) if self.is_podman => Some(PERHAPS_MEMORY.to_owned()),
            _ => self.hint,
        };
        Exit { hint, ..exit }
    }

    /// Waits for the end, also through times at which the engine does not answer.
    async fn until_ended(&self) -> ContainerState {
        let mut is_away = false;
        loop {
            let options = WaitContainerOptions {
                condition: "not-running".to_owned(),
            };
            // The answer's code is not used: the state says more, memory above all. An engine that
            // is away is asked for the state alone, so that its return is noticed.
            let waited = match is_away {
                true => None,
                false => {
                    let waiting = self.docker.wait_container(&self.id, Some(options));
                    waiting.boxed().next().await
                }
            };
            match state_of(&self.docker, &self.id).await {
                Ok(state) => {
                    if std::mem::take(&mut is_away) {
                        self.log.note("the engine answers again");
                    }
                    if state.running != Some(true) {
                        return state;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        let words = no_answer(&error);
                        self.log.note(&words);
                        tracing::warn!(container = self.id, "{words}");
                    }
                }
            }
            if !matches!(waited, Some(Ok(_))) {
                tokio::time::sleep(ENGINE_PAUSE).await;
            }
        }
    }
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

/// Removes a container, running or not, and waits until its name is free.
pub(super) async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match docker.remove_container(container, Some(options)).await {
        Ok(()) => {}
        Err(error) if status_of(&error) == Some(404) => {}
        // Somebody is at it.
        Err(error) if status_of(&error) == Some(409) => {
            let gone = async {
                while inspect(docker, container).await.is_ok() {
                    tokio::time::sleep(REMOVAL_LOOK).await;
                }
            };
            if tokio::time::timeout(REMOVAL_LIMIT, gone).await.is_err() {
                tracing::warn!(container, "a container is not removed after a while");
            }
        }
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
