//! How a microservice is doing, and its JSON in the API.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::runtime::{Exit, Instance, Vitals};
use super::spec::ServiceSpec;

/// The state of a microservice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is not running, and is not supposed to.
    #[default]
    Stopped,
    /// It is being started, or does not listen yet.
    Starting,
    /// It accepts connections.
    Running,
    /// It is being stopped.
    Stopping,
    /// It ended by itself and will be started again after a pause.
    Crashed,
    /// It could not be started, or does not listen in time; it is tried again after a pause.
    Failed,
}

impl State {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Crashed => "crashed",
            State::Failed => "failed",
        }
    }
}

/// A microservice at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// What it is doing.
    pub state: State,
    /// Why it crashed or failed the last time, with its last lines, until it runs; redacted.
    pub message: Option<String>,
    /// Its base URL for the node, without a slash at the end; known once it runs.
    pub url: Option<String>,
    /// The port of this machine on which the node reaches it.
    pub port: u16,
    /// When it was started the last time.
    pub started: Option<Timestamp>,
    /// How often it was started again after its first start.
    pub restarts: u64,
    /// Failed starts and crashes in a row.
    pub failures: u32,
    /// When it will be tried again.
    pub next_start: Option<Timestamp>,
    /// How it ended the last time.
    pub last_exit: Option<Exit>,
    /// Which wish this answers.
    pub(super) turn: u64,
    pub(super) instance: Option<Arc<dyn Instance>>,
}

/// The status as JSON. Names that Docker's `inspect` has in lower case are kept where they fit.
pub(super) fn to_json(
    spec: &ServiceSpec,
    runtime: &str,
    snapshot: &Snapshot,
    vitals: &Vitals,
) -> Value {
    let exit = snapshot.last_exit.as_ref().map(|exit| {
        json!({
            "at": exit.at.to_string(),
            "reason": exit.reason(),
            "code": exit.code,
            "signal": exit.signal,
            "oom_killed": exit.oom_killed,
        })
    });
    json!({
        "id": spec.id,
        "runtime": runtime,
        "state": snapshot.state.name(),
        "running": snapshot.state == State::Running,
        "message": snapshot.message,
        "url": snapshot.url,
        "port": snapshot.port,
        "pid": vitals.pid,
        "image": spec.docker.as_ref().filter(|_| runtime == "docker").map(|docker| &docker.image),
        "image_id": vitals.image_id,
        "digest": vitals.digest,
        "container_id": vitals.container,
        "started": snapshot.started.map(|at| at.to_string()),
        "restarts": snapshot.restarts,
        "next_start": snapshot.next_start.map(|at| at.to_string()),
        "memory_bytes": vitals.memory_bytes,
        "memory_limit_bytes": vitals.memory_limit_bytes,
        "cpu_seconds": vitals.cpu_seconds,
        "cpu_limit_percent": vitals.cpu_limit_percent,
        "last_exit": exit,
    })
}
