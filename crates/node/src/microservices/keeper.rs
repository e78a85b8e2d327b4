//! One task a service: starts it, waits until it listens, starts it again when it ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::due::{image_is_due, was_due};
use super::host::Inner;
use super::listening::{complaint, until_it_listens};
use super::logs::Log;
use super::runtime::{Exit, Instance, StartError};
use super::spec::ServiceSpec;
use super::state::{Snapshot, State};

/// So many ports are tried when others take them first.
const PORT_ATTEMPTS: usize = 5;
/// What stands between a message and the service's last lines.
const TAIL: &str = "; its last lines:";
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

/// When the registry is asked for the image: once for every wish and whenever the schedule says so,
/// not at every crash.
struct Asking {
    /// At the next start.
    is_due: bool,
    /// The last time.
    last: Timestamp,
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
        // The last spec that nothing was started of: an earlier life of the node may have.
        let mut untouched: Option<Arc<ServiceSpec>> = None;
        loop {
            let now = wish.borrow_and_update().clone();
            self.show(|snapshot| snapshot.turn = now.turn);
            match now.spec {
                Some(spec) if now.on => {
                    untouched = None;
                    self.keep(spec, now.turn, &mut wish).await;
                }
                left => {
                    self.show_stopped();
                    if left.is_none()
                        && let Some(spec) = untouched.take()
                    {
                        self.clear(&spec).await;
                    }
                    untouched = left.clone().or(untouched);
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
        let mut asking = Asking {
            is_due: true,
            last: Timestamp::now(),
        };
        loop {
            let now = Timestamp::now();
            asking.is_due |= was_due(wish.borrow().spec.as_deref(), asking.last, now);
            let life = self.life(&spec, turn, &mut asking, wish).await;
            let (state, message, exit, ran) = match life {
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
            self.log.note(&format!(
                "{}; started again in {} s",
                headline(&message),
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
        asking: &mut Asking,
        wish: &mut watch::Receiver<Wish>,
    ) -> Over {
        // Why it failed the last time stays in sight until it runs.
        self.show(|snapshot| {
            snapshot.state = State::Starting;
            snapshot.next_start = None;
        });
        let started = tokio::select! {
            started = self.start(spec, asking.is_due) => started,
            () = another(wish, turn) => {
                self.clear(spec).await;
                return Over::Replaced;
            }
        };
        let instance = match started {
            Ok(instance) => instance,
            Err(error) => return failed(State::Failed, error.message, None, Duration::ZERO),
        };
        if std::mem::take(&mut asking.is_due) {
            asking.last = Timestamp::now();
        }
        let since = Instant::now();
        self.show(|snapshot| {
            snapshot.started = Some(instance.adopted().unwrap_or_else(Timestamp::now));
            snapshot.instance = Some(instance.clone());
        });
        let mut listens = false;
        loop {
            let mut due = wish.clone();
            tokio::select! {
                exit = instance.exited() => {
                    let (when, ran) = match listens {
                        true => ("while it ran", since.elapsed()),
                        false => ("before it listened", Duration::ZERO),
                    };
                    let message = self.ended_message(&exit, since.elapsed(), when);
                    return failed(State::Crashed, message, Some(exit), ran);
                }
                () = self.listening(spec, &instance), if !listens => {
                    listens = true;
                    self.show_running(spec, &instance, since.elapsed());
                    continue;
                }
                () = another(wish, turn) => return self.stop(&instance, Over::Replaced).await,
                () = image_is_due(&mut due) => {}
            }
            asking.last = Timestamp::now();
            let renewed = tokio::select! {
                renewed = self.renew(spec, &instance) => renewed,
                () = another(wish, turn) => return self.stop(&instance, Over::Replaced).await,
            };
            if renewed {
                return self.stop(&instance, Over::Renewed).await;
            }
        }
    }

    fn show_running(&self, spec: &ServiceSpec, instance: &Arc<dyn Instance>, after: Duration) {
        self.log
            .note(&format!("listens after {} ms", after.as_millis()));
        self.show(|snapshot| {
            snapshot.state = State::Running;
            snapshot.message = None;
            snapshot.failures = 0;
            snapshot.url = Some(format!("{}://{}", spec.scheme(), instance.address()));
        });
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
        let look = until_it_listens(instance.as_ref());
        tokio::pin!(look);
        if timeout(self.pace.start_limit, &mut look).await.is_ok() {
            return;
        }
        let message = complaint(spec, instance.as_ref(), self.pace.start_limit).await;
        let message = self.with_tail(message);
        self.log.note(headline(&message));
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
        let exit = Exit {
            asked: true,
            ..instance.stop(self.pace.stop_grace).await
        };
        self.log.note(&exit.reason());
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
        let whole = format!("{message}{TAIL}\n{tail}");
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

/// A message without the service's last lines, which the log has anyway.
fn headline(message: &str) -> &str {
    let first = message.lines().next().unwrap_or_default();
    first.strip_suffix(TAIL).unwrap_or(first)
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

#[cfg(test)]
mod tests {
    use super::*;

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
