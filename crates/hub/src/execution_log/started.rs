//! That a run began: held in memory until something is worth telling, or ten seconds have gone.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tahini_entity::Value;
use tahini_store::Seq;

use super::values::{iso, user_value};
use super::{ExecutionLog, Summary, User};
use crate::Failure;
use crate::sink::RunKind;

/// A run that goes on for so long stands in the log, though it changed nothing yet.
const REVEALED_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// How often runs that are in the middle of something are looked at.
const GLANCE: Duration = Duration::from_millis(500);

/// What is told of a run when it is told that it began.
pub(super) struct Started {
    log: ExecutionLog,
    pub kind: RunKind,
    pub at: Timestamp,
    /// It goes on beside others of its pipe.
    pub beside: bool,
    /// It ended without being told.
    pub over: bool,
    user: Option<User>,
    /// Where it stands in the log.
    revealed: Option<Option<Seq>>,
}

impl Started {
    pub fn now(log: ExecutionLog, kind: RunKind, user: Option<User>) -> Started {
        Started {
            kind,
            at: log.clock.now(),
            beside: false,
            over: false,
            user,
            revealed: None,
            log,
        }
    }

    pub fn is_revealed(&self) -> bool {
        self.revealed.is_some()
    }

    pub fn location(&self) -> Option<Seq> {
        self.revealed.flatten()
    }

    /// Whether it goes on for so long that it is worth telling.
    pub fn lasts(&self) -> bool {
        self.log.clock.now().duration_since(self.at) >= REVEALED_AFTER
    }

    /// Writes `pump-started`, unless it is there.
    pub fn reveal(&mut self) -> Result<(), Failure> {
        if self.is_revealed() {
            return Ok(());
        }
        let mut properties = self.common();
        // It stands before everything that the run did.
        properties.push(("metrics", Summary::default().metrics()));
        if let Some(user) = &self.user {
            properties.push(("user", user_value(user)));
        }
        let entry = self.log.entry("pump-started", "pump-started", properties);
        self.revealed = Some(self.log.tell(entry)?);
        Ok(())
    }

    /// What all entries of the run have in common.
    pub fn common(&self) -> Vec<(&'static str, Value)> {
        let mut properties = vec![
            (
                "pump_definition",
                Value::string(format!("pump:{}", self.log.pipe)),
            ),
            ("start_time", iso(self.at)),
            ("sync_type", Value::string(self.kind.sync_type())),
        ];
        if self.beside {
            properties.push(("background_rescan", Value::Bool(true)));
        }
        properties
    }
}

/// The runs that are not told yet, and whoever looks at them.
struct Watch {
    runs: Mutex<Vec<Weak<Mutex<Started>>>>,
    more: Condvar,
}

static WATCH: LazyLock<Watch> = LazyLock::new(|| {
    let spawned = std::thread::Builder::new()
        .name("long runs".to_owned())
        .spawn(|| {
            loop {
                WATCH.look();
            }
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "runs in the middle of something are not told to be under way");
    }
    Watch {
        runs: Mutex::default(),
        more: Condvar::new(),
    }
});

/// Tells that a run is under way when it lasts, whatever it is in the middle of.
pub(super) fn watch(run: &Arc<Mutex<Started>>) {
    let mut runs = WATCH.lock();
    runs.push(Arc::downgrade(run));
    if runs.len() == 1 {
        WATCH.more.notify_one();
    }
}

/// Ends the watch over a run.
pub(super) fn leave(run: &Arc<Mutex<Started>>) {
    let known = Arc::downgrade(run);
    WATCH.lock().retain(|other| !other.ptr_eq(&known));
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Mutex<Started>>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are runs, and looks at each once. Nobody ends a run meanwhile: after its
    /// end nothing here holds its log.
    fn look(&self) {
        let mut runs = self.lock();
        while runs.is_empty() {
            runs = self.more.wait(runs).unwrap_or_else(PoisonError::into_inner);
        }
        runs.retain(|run| {
            let Some(run) = run.upgrade() else {
                return false;
            };
            let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
            if !run.over && !run.is_revealed() && run.lasts() {
                // The run's own next entry meets the same and reports it.
                let _ = run.reveal();
            }
            !run.over && !run.is_revealed()
        });
        let _ = self.more.wait_timeout(runs, GLANCE);
    }
}
