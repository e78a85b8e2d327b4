//! Stopping a run, and telling the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::Failure;

/// A request to stop, shared by everything that works for one run.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    set: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Cancel {
    /// One that is not requested yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Requests the stop and wakes whoever sleeps on it.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        let _guard = self
            .0
            .lock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        self.0.changed.notify_all();
    }

    /// Whether the stop was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// An error once the stop was requested.
    ///
    /// # Errors
    /// `Failure::cancelled`.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_cancelled() {
            Err(Failure::cancelled())
        } else {
            Ok(())
        }
    }

    /// Sleeps for `pause`, or less when the stop is requested.
    ///
    /// # Errors
    /// `Failure::cancelled`.
    pub fn sleep(&self, pause: Duration) -> Result<(), Failure> {
        let until = Instant::now() + pause;
        let mut guard = self
            .0
            .lock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        while !self.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            guard = match self.0.changed.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Err(Failure::cancelled())
    }
}

/// The wall clock, a parameter so that tests own the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> jiff::Timestamp;

    /// Microseconds since 1970 UTC.
    fn micros(&self) -> i64 {
        self.now().as_microsecond()
    }
}
