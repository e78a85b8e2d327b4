//! One task a service: starts it, waits until it listens, starts it again when it ends.

use std::io::ErrorKind;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tahini_hub::cron::Cron;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::host::Inner;
use super::logs::Log;
use super::runtime::{Exit, Instance, StartError};
use super::spec::ServiceSpec;
use super::state::{Snapshot, State};

/// The first pause between two looks whether a service listens yet; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// The longest pause between two looks.
const LAST_LOOK: Duration = Duration::from_millis(100);
/// A service's own door that does not answer for so long is out of the node's reach.
const DOOR_LIMIT: Duration = Duration::from_millis(250);
/// A connection through an engine's proxy that stays open for so long has reached the service.
const PROXY_SETTLES: Duration = Duration::from_millis(150);
/// A connection that takes longer is tried anew.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// So many ports are tried when others take them first.
const PORT_ATTEMPTS: usize = 5;
/// The longest sleep until an image is due: a clock that was set is noticed within it.
const DUE_LOOK: Duration = Duration::from_secs(300);
/// So many lines of the service's output stand in a message.
const LINES_IN_MESSAGE: usize = 5;

/// How patient the node is with its services.
#[derive(Clone, Debug)]
pub struct Pace {
    /// After so long a service that does not listen has failed; it is looked at on.
    pub start_limit: Duration,
    /// Between asking a service to end and forcing it.
    pub stop_grace: Duration,
    /// Pause before the first restart; it doubles from one to the next.
    pub first_pause: Duration,
    /// The longest pause before a restart.
    pub last_pause: Duration,
    /// A service that has run for so long begins with the first pause again.
    pub steady_after: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            start_limit: Duration::from_secs(60),
            stop_grace: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            last_pause: Duration::from_secs(60),
            steady_after: Duration::from_secs(60),
        }
    }
}

impl Pace {
    /// The pause after so many failures in a row (from 1).
    fn pause(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause
            .saturating_mul(doubled)
            .min(self.last_pause)
    }
}

/// What the host wants of a service now.
#[derive(Clone, Default)]
pub(super) struct Wish {
    /// What to run; `None` when it is to leave.
    pub spec: Option<Arc<ServiceSpec>>,
    /// It is to run now; one that is not eager waits for the first pipe that asks.
    pub on: bool,
    /// Rises with every change, so that a snapshot can say which wish it answers.
    pub turn: u64,
}

/// Why one life of a service is over.
enum Over {
    /// The host wants something else.
    Replaced,
    /// There is a newer image.
    Renewed,
    /// It ended by itself or did not start; with how long it had run.
    Failed {
        state: State,
        message: String,
        exit: Option<Exit>,
        ran: Duration,
    },
}

pub(super) struct Keeper {
    pub id: String,
    pub host: Weak<Inner>,
    pub shown: watch::Sender<Snapshot>,
    pub log: Arc<Log>,
    pub pace: Pace,
}

impl Keeper {
    /// Does what the wish says until the service is to leave, or the host is gone.
    pub async fn run(self, mut wish: watch::Receiver<Wish>) {
        loop {
            let now = wish.borrow_and_update().clone();
            self.show(|snapshot| snapshot.turn = now.turn);
            match now.spec {
                Some(spec) if now.on => self.keep(spec, now.turn, &mut wish).await,
                left => {
                    self.show_stopped();
                    let Some(host) = self.host.upgrade() else {
                        return;
                    };
                    if left.is_none() && host.forget(&self.id, now.turn) {
                        return;
                    }
                    drop(host);
                    let _ = wish.changed().await;
                }
            }
            if wish.has_changed().is_err() {
                // The host is gone, and with it the other end of the wish.
                return self.show_stopped();
            }
        }
    }

    /// Life after life, with growing pauses, until the wish changes.
    async fn keep(&self, spec: Arc<ServiceSpec>, turn: u64, wish: &mut watch::Receiver<Wish>) {
        let mut failures = 0;
        self.show(|snapshot| {
            snapshot.message = None;
            snapshot.failures = 0;
        });
        // The registry is asked once for every wish, not at every crash.
        let mut pull = true;
        loop {
            let (state, message, exit, ran) = match self.life(&spec, turn, &mut pull, wish).await {
                Over::Replaced => return,
                Over::Renewed => {
                    self.show(|snapshot| snapshot.restarts += 1);
                    continue;
                }
                Over::Failed {
                    state,
                    message,
                    exit,
                    ran,
                } => (state, message, exit, ran),
            };
            failures = if ran >= self.pace.steady_after {
                1
            } else {
                failures + 1
            };
            let pause = self.pace.pause(failures);
            let headline = message.lines().next().unwrap_or_default();
            self.log.note(&format!(
                "{headline} Started again in {} s.",
                pause.as_secs_f64()
            ));
            tracing::warn!(system = self.id, "{}", self.log.redactor().redact(&message));
            self.show(|snapshot| {
                snapshot.state = state;
                snapshot.message = Some(self.log.redactor().redact(&message).into_owned());
                snapshot.failures = failures;
                snapshot.next_start = Timestamp::now().checked_add(pause).ok();
                snapshot.last_exit = exit.or(snapshot.last_exit.take());
                snapshot.instance = None;
                snapshot.url = None;
            });
            tokio::select! {
                () = sleep(pause) => self.show(|snapshot| snapshot.restarts += 1),
                () = another(wish, turn) => return,
            }
        }
    }

    /// One life: start, listen, run, end.
    async fn life(
        &self,
        spec: &Arc<ServiceSpec>,
        turn: u64,
        pull: &mut bool,
        wish: &mut watch::Receiver<Wish>,
    ) -> Over {
        // Why it failed the last time stays in sight until it runs.
        self.show(|snapshot| {
            snapshot.state = State::Starting;
            snapshot.next_start = None;
        });
        let started = tokio::select! {
            started = self.start(spec, *pull) => started,
            () = another(wish, turn) => {
                self.clear(spec).await;
                return Over::Replaced;
            }
        };
        let instance = match started {
            Ok(instance) => instance,
            Err(error) => return failed(State::Failed, error.message, None, Duration::ZERO),
        };
        *pull = false;
        let since = Instant::now();
        self.show(|snapshot| {
            snapshot.started = Some(instance.adopted().unwrap_or_else(Timestamp::now));
            snapshot.instance = Some(instance.clone());
        });
        tokio::select! {
            exit = instance.exited() => {
                let message = self.ended_message(&exit, since.elapsed(), "before it listened");
                return failed(State::Crashed, message, Some(exit), Duration::ZERO);
            }
            () = self.listening(spec, &instance) => {}
            () = another(wish, turn) => return self.stop(&instance, Over::Replaced).await,
        }
        self.log
            .note(&format!("listens after {} ms", since.elapsed().as_millis()));
        self.show(|snapshot| {
            snapshot.state = State::Running;
            snapshot.message = None;
            snapshot.failures = 0;
            snapshot.url = Some(format!("{}://{}", spec.scheme(), instance.address()));
        });
        loop {
            let mut due = wish.clone();
            tokio::select! {
                exit = instance.exited() => {
                    let message = self.ended_message(&exit, since.elapsed(), "while it ran");
                    return failed(State::Crashed, message, Some(exit), since.elapsed());
                }
                () = another(wish, turn) => return self.stop(&instance, Over::Replaced).await,
                () = image_is_due(&mut due) => {}
            }
            let renewed = tokio::select! {
                renewed = self.renew(spec, &instance) => renewed,
                () = another(wish, turn) => return self.stop(&instance, Over::Replaced).await,
            };
            if renewed {
                return self.stop(&instance, Over::Renewed).await;
            }
        }
    }

    /// Looks for a newer image; a registry that does not answer is no reason to stop anything.
    async fn renew(&self, spec: &Arc<ServiceSpec>, instance: &Arc<dyn Instance>) -> bool {
        let host = self.host.upgrade();
        let Some((runtime, launch)) = host.map(|host| host.launch(spec, true, &self.log)) else {
            return false;
        };
        match runtime.renew(&launch, instance.as_ref()).await {
            Ok(true) => {
                self.log.note("there is a newer image: restarting with it");
                true
            }
            Ok(false) => {
                self.log.note("looked for a newer image and found none");
                false
            }
            Err(error) => {
                let words = format!("looked for a newer image; what runs stays: {error}");
                self.log.note(&words);
                tracing::warn!(system = self.id, "{}", self.log.redactor().redact(&words));
                false
            }
        }
    }

    async fn start(
        &self,
        spec: &Arc<ServiceSpec>,
        pull: bool,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let mut attempt = 1;
        loop {
            let Some((runtime, launch)) = self
                .host
                .upgrade()
                .map(|host| host.launch(spec, pull, &self.log))
            else {
                return Err(StartError::new("the node is ending"));
            };
            self.show(|snapshot| {
                snapshot.port = launch.port;
                snapshot.pulled = launch.pulled.clone();
            });
            match runtime.start(&launch).await {
                Err(error) if error.port_taken && attempt < PORT_ATTEMPTS => {
                    let moved = self.host.upgrade().is_some_and(|host| host.move_port(spec));
                    if !moved {
                        return Err(error);
                    }
                    attempt += 1;
                }
                started => return started,
            }
        }
    }

    /// Returns when the service accepts connections. When it takes too long, the state says so
    /// while it is looked at on: a slow service is better late than killed again and again.
    async fn listening(&self, spec: &ServiceSpec, instance: &Arc<dyn Instance>) {
        let look = async {
            let mut pause = FIRST_LOOK;
            while !listens(instance.as_ref()).await {
                sleep(pause).await;
                pause = (pause * 2).min(LAST_LOOK);
            }
        };
        tokio::pin!(look);
        if timeout(self.pace.start_limit, &mut look).await.is_ok() {
            return;
        }
        let expected = match (&spec.docker, instance.behind_proxy()) {
            (Some(docker), true) => format!("port {} of its container", docker.port),
            _ => format!("{} (the variable PORT)", instance.address()),
        };
        let message = self.with_tail(format!(
            "expected microservice {} to listen on {expected}, found nothing there after {} s",
            self.id,
            self.pace.start_limit.as_secs_f64()
        ));
        self.log.note(message.lines().next().unwrap_or_default());
        tracing::warn!(system = self.id, "{message}");
        self.show(|snapshot| {
            snapshot.state = State::Failed;
            snapshot.message = Some(message);
        });
        look.await;
    }

    async fn stop(&self, instance: &Arc<dyn Instance>, over: Over) -> Over {
        self.show(|snapshot| {
            snapshot.state = State::Stopping;
            snapshot.url = None;
        });
        let exit = instance.stop(self.pace.stop_grace).await;
        self.log.note(&format!("stopped: {}", exit.reason()));
        self.show(|snapshot| {
            snapshot.last_exit = Some(exit);
            snapshot.instance = None;
        });
        over
    }

    async fn clear(&self, spec: &ServiceSpec) {
        let runtime = self.host.upgrade().map(|host| host.runtime(spec));
        if let Some(runtime) = runtime {
            runtime.clear(&self.id).await;
        }
    }

    fn ended_message(&self, exit: &Exit, ran: Duration, when: &str) -> String {
        self.with_tail(format!(
            "expected microservice {} to run on, found it ended {when}, after {:.1} s: {}",
            self.id,
            ran.as_secs_f64(),
            exit.reason()
        ))
    }

    /// The message with the service's last lines, which usually hold the reason; redacted.
    fn with_tail(&self, message: String) -> String {
        let tail = self.log.tail(LINES_IN_MESSAGE);
        if tail.is_empty() {
            return format!("{message}; it wrote nothing");
        }
        let whole = format!("{message}; its last lines:\n{tail}");
        self.log.redactor().redact(&whole).into_owned()
    }

    fn show(&self, change: impl FnOnce(&mut Snapshot)) {
        self.shown.send_modify(change);
    }

    fn show_stopped(&self) {
        self.show(|snapshot| {
            *snapshot = Snapshot {
                turn: snapshot.turn,
                last_exit: snapshot.last_exit.take(),
                restarts: snapshot.restarts,
                port: snapshot.port,
                ..Snapshot::default()
            };
        });
    }
}

fn failed(state: State, message: String, exit: Option<Exit>, ran: Duration) -> Over {
    Over::Failed {
        state,
        message,
        exit,
        ran,
    }
}

/// Returns when the host wants something else than it did in this turn, or is gone.
async fn another(wish: &mut watch::Receiver<Wish>, turn: u64) {
    // An error says that nobody can want anything any more.
    let _ = wish.wait_for(|wish| wish.turn != turn).await;
}

/// Returns at the next moment at which the image is to be looked at, as the spec says that is
/// wanted now; never, when there is none.
async fn image_is_due(wish: &mut watch::Receiver<Wish>) {
    loop {
        let due = next_look(wish.borrow_and_update().spec.as_deref(), Timestamp::now());
        let Some(due) = due else {
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            continue;
        };
        // The clock of the wall may be set while this waits.
        loop {
            let left = Duration::try_from(due.duration_since(Timestamp::now()));
            let Ok(left) = left.map(|left| left.min(DUE_LOOK)) else {
                return;
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                changed = wish.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }
}

/// When the image is to be looked at next; never, when it is never pulled.
fn next_look(spec: Option<&ServiceSpec>, now: Timestamp) -> Option<Timestamp> {
    let docker = spec?.docker.as_ref().filter(|docker| !docker.skip_pull)?;
    let text = docker.pull_image_cron_expression.as_deref()?;
    Cron::parse(text).ok()?.next_after(now)
}

/// Whether a connection is accepted, and by the service itself.
async fn listens(instance: &dyn Instance) -> bool {
    if let Some(door) = instance.door() {
        match timeout(DOOR_LIMIT, TcpStream::connect(door)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return false,
            // Out of reach from here, as on a machine whose containers live in another one.
            _ => {}
        }
    }
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(instance.address())).await;
    let Ok(Ok(mut connection)) = connected else {
        return false;
    };
    if !instance.behind_proxy() {
        return true;
    }
    // An engine's proxy accepts always and hangs up when the service is not there yet.
    let mut byte = [0];
    match timeout(PROXY_SETTLES, connection.read(&mut byte)).await {
        Err(_) => true,
        Ok(read) => matches!(read, Ok(1..)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_looked_at_when_its_schedule_says_so() {
        let now: Timestamp = "2024-05-01T11:59:30Z".parse().unwrap();
        let next = |more: &str| {
            let text = format!(r#"{{"docker": {{"image": "a", "port": 1{more}}}}}"#);
            let config = serde_json::from_str(&text).unwrap();
            let spec = ServiceSpec::from_config("one", &config, std::path::Path::new("/"));
            next_look(Some(&spec.unwrap()), now).map(|at| at.to_string())
        };
        let daily = r#", "pull_image_cron_expression": "0 12 * * *""#;
        assert_eq!(next(daily).as_deref(), Some("2024-05-01T12:00:00Z"));
        assert_eq!(next(""), None);
        assert_eq!(next(&format!(r#"{daily}, "skip_pull": true"#)), None);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let pace = Pace::default();
        let pauses: Vec<u64> = (1..=8)
            .map(|failures| pace.pause(failures).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.pause(u32::MAX).as_secs(), 60);
    }
}
