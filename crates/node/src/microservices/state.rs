//! How a microservice is doing, and its JSON in the API.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::runtime::{Exit, Instance, Pulled, Vitals};
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
    /// How far the pull of its image is, while there is one.
    pub(super) pulled: Arc<Mutex<Option<Pulled>>>,
    /// Which wish this answers.
    pub(super) turn: u64,
    pub(super) instance: Option<Arc<dyn Instance>>,
}

/// Two looks closer together than this say nothing about the share of the processor.
const USAGE_APART: Duration = Duration::from_millis(500);

/// The share of a processor that a service takes: since the last look, at first since its start.
#[derive(Default)]
pub(super) struct Usage {
    started: Option<Timestamp>,
    last: Option<(Instant, f64)>,
    percent: Option<f64>,
}

impl Usage {
    /// The share in percent of one core, when the place tells what the service has used.
    pub fn percent(&mut self, started: Option<Timestamp>, vitals: &Vitals) -> Option<f64> {
        let used = vitals.cpu_seconds?;
        let now = Instant::now();
        if self.started != started {
            *self = Usage {
                started,
                ..Usage::default()
            };
        }
        let seconds = match self.last {
            Some((then, _)) if now - then < USAGE_APART => return self.percent,
            Some((then, _)) => (now - then).as_secs_f64(),
            None => Timestamp::now().duration_since(started?).as_secs_f64(),
        };
        let before = self.last.map_or(0.0, |(_, used)| used);
        self.last = Some((now, used));
        // A tenth of a percent is as exact as the clocks of processes are.
        let percent = (used - before).max(0.0) / seconds.max(0.001) * 100.0;
        self.percent = Some((percent * 10.0).round() / 10.0);
        self.percent
    }
}

/// The status as JSON; of a service that runs, the message is what its place does not tell. Names that Docker's `inspect` has in lower case are kept where they fit.
pub(super) fn to_json(
    spec: &ServiceSpec,
    runtime: &str,
    snapshot: &Snapshot,
    vitals: &Vitals,
    cpu_percent: Option<f64>,
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
    let pull = *snapshot
        .pulled
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let pull = pull.map(|pull| {
        json!({
            "layers": pull.layers,
            "layers_here": pull.layers_here,
            "bytes": pull.bytes,
            "total_bytes": pull.total_bytes,
        })
    });
    json!({
        "id": spec.id,
        "runtime": runtime,
        "state": snapshot.state.name(),
        "running": snapshot.state == State::Running,
        "message": snapshot.message.as_ref().or(vitals.trouble.as_ref()),
        "url": snapshot.url,
        "port": snapshot.port,
        "pid": vitals.pid,
        "image": spec.docker.as_ref().filter(|_| runtime == "docker").map(|docker| &docker.image),
        "image_id": vitals.image_id,
        "digest": vitals.digest,
        "pull": pull,
        "container_id": vitals.container,
        "started": snapshot.started.map(|at| at.to_string()),
        "restarts": snapshot.restarts,
        "next_start": snapshot.next_start.map(|at| at.to_string()),
        "memory_bytes": vitals.memory_bytes,
        "memory_limit_bytes": vitals.memory_limit_bytes,
        "cpu_seconds": vitals.cpu_seconds,
        "cpu_percent": cpu_percent,
        "cpu_limit_percent": vitals.cpu_limit_percent,
        "last_exit": exit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_processor_is_that_since_the_last_look() {
        let vitals = |cpu_seconds| Vitals {
            cpu_seconds: Some(cpu_seconds),
            ..Vitals::default()
        };
        let ago = |seconds| Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1.0;
        let (mut usage, started) = (Usage::default(), Some(ago(100)));
        assert!(near(usage.percent(started, &vitals(20.0)), 20.0));
        // Too soon to know more.
        assert!(near(usage.percent(started, &vitals(21.0)), 20.0));
        usage.last = Some((Instant::now() - Duration::from_secs(10), 20.0));
        assert!(near(usage.percent(started, &vitals(25.0)), 50.0));
        // Another life begins with nothing.
        assert!(near(usage.percent(Some(ago(10)), &vitals(1.0)), 10.0));
        assert_eq!(usage.percent(None, &Vitals::default()), None);
    }
}
