//! When one pipe is due next.
//!
//! Intervals count on the monotonic clock, cron on the wall clock. What is far away survives the
//! node: the moments of cron expressions and of long intervals are kept in the state of one
//! dataset, and what was missed while the node was down is made up for once.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value as Json;
use tahini_store::{Snapshot, StateWrite, StoreError};

use super::{Mode, Schedule};
use crate::Failure;
use crate::config::Component;

/// The dataset whose state keeps moments.
pub(crate) const KEPT_IN: &str = "system:schedule";
/// A share of the interval by which runs are spread, both ways.
const JITTER: f64 = 0.05;
/// The longest that a pipe which never ran waits for its first run.
const FIRST: Duration = Duration::from_secs(5);
/// The longest that a pipe waits whose run is overdue when the schedule meets it: many are when a
/// node comes back, and need not come all at once.
const OVERDUE: Duration = Duration::from_secs(30);
/// The next run of a longer interval is kept.
const LONG: Duration = Duration::from_secs(3600);

/// What is known of a pipe when the schedule meets it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Met {
    /// The node starts.
    pub(crate) starting: bool,
    /// Its sink is populated.
    pub(crate) populated: bool,
    /// It listens to a dataset that has versions which it did not read.
    pub(crate) news: bool,
    /// When its last run ended, as far as is known.
    pub(crate) last: Option<Timestamp>,
    /// The moments that were kept.
    pub(crate) kept: Kept,
}

/// A moment with what it was derived from.
type Moment = (Timestamp, String);

/// Moments to come, as they are kept. A moment of another expression than the one that
/// holds now means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    run: Option<Moment>,
    rescan: Option<Moment>,
}

/// When a pipe is due.
pub(crate) struct Timing {
    /// What it does then.
    pub(crate) schedule: Schedule,
    /// The pump's configuration that says so.
    pub(crate) written: Json,
    pub(crate) interval: Option<Instant>,
    pub(crate) cron: Option<Timestamp>,
    pub(crate) rescan: Option<Timestamp>,
    at_once: bool,
    /// What stands in the dataset.
    pub(crate) kept: Kept,
}

impl Timing {
    pub(crate) fn of(component: &Component, now: Timestamp, met: Met) -> Result<Timing, Failure> {
        let schedule = Schedule::of(component.pump().map()).map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::config(words.join("; "))
        })?;
        let mut timing = Timing {
            written: component.effective["pump"].clone(),
            interval: None,
            cron: None,
            rescan: None,
            at_once: met.starting
                && (schedule.run_at_startup
                    || schedule.run_at_startup_if_not_populated && !met.populated
                    || met.news),
            schedule,
            kept: met.kept.clone(),
        };
        timing.advance_cron(now);
        timing.resume(now, &met);
        Ok(timing)
    }

    /// Goes on from what was kept, or from the last run.
    fn resume(&mut self, now: Timestamp, met: &Met) {
        if self.schedule.mode != Mode::Scheduled {
            return;
        }
        let of = |kept: &Option<Moment>, source: Option<String>| {
            let (moment, known) = kept.as_ref()?;
            (Some(known) == source.as_ref()).then_some(*moment)
        };
        let run = of(&met.kept.run, self.source());
        if self.cron.is_some() {
            self.cron = run.or(self.cron);
        }
        if self.rescan.is_some() {
            self.rescan = of(&met.kept.rescan, self.rescan_source()).or(self.rescan);
        }
        let Some(every) = self.every() else { return };
        let after_last = met.last.and_then(|last| last.checked_add(every).ok());
        let part = rand::rng().random_range(0.0..1.0);
        let pause = match run.or(after_last) {
            Some(next) if next > now => next.duration_since(now).unsigned_abs(),
            Some(_) => every.min(OVERDUE).mul_f64(part),
            None => every.min(FIRST).mul_f64(part),
        };
        self.interval = Instant::now().checked_add(pause);
    }

    pub(crate) fn is_due(&self, monotonic: Instant, now: Timestamp) -> bool {
        let scheduled = self.schedule.mode == Mode::Scheduled;
        let interval = self.interval.is_some_and(|at| at <= monotonic);
        scheduled && (self.at_once || interval || self.cron.is_some_and(|at| at <= now))
    }

    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.at_once = false;
        self.advance_cron(now);
        self.interval = self.every().and_then(|every| {
            let part = rand::rng().random_range(0.0..1.0);
            let pause = every.mul_f64(1.0 - JITTER + 2.0 * JITTER * part);
            Instant::now().checked_add(pause)
        });
    }

    fn advance_cron(&mut self, now: Timestamp) {
        if self.schedule.mode != Mode::Scheduled {
            return;
        }
        let next = |cron: &Option<crate::cron::Cron>| cron.as_ref()?.next_after(now);
        self.cron = next(&self.schedule.cron);
        self.rescan = next(&self.schedule.rescan_cron);
    }

    /// The interval, where that is what the pipe runs by.
    fn every(&self) -> Option<Duration> {
        let scheduled = self.schedule.mode == Mode::Scheduled && self.schedule.cron.is_none();
        self.schedule.every.filter(|_| scheduled)
    }

    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        [self.interval_moment(now), self.cron, self.rescan]
            .into_iter()
            .flatten()
            .min()
    }

    fn interval_moment(&self, now: Timestamp) -> Option<Timestamp> {
        let left = self.interval?.saturating_duration_since(Instant::now());
        let micros = i64::try_from(left.as_micros()).ok()?;
        Timestamp::from_microsecond(now.as_microsecond().checked_add(micros)?).ok()
    }

    /// What the moment of the next run is derived from; `None` where it is not kept.
    fn source(&self) -> Option<String> {
        match (&self.schedule.cron, self.every()) {
            (Some(cron), _) => Some(cron.to_string()),
            (None, Some(every)) if every > LONG => Some(every.as_secs_f64().to_string()),
            _ => None,
        }
    }

    fn rescan_source(&self) -> Option<String> {
        self.schedule.rescan_cron.as_ref().map(ToString::to_string)
    }

    /// The writes after which nothing is kept for a pipe that is gone.
    pub(crate) fn forget(&self, pipe: &str) -> Vec<StateWrite> {
        let kept = [(RUN, &self.kept.run), (RESCAN, &self.kept.rescan)];
        let written = kept.into_iter().filter(|(_, kept)| kept.is_some());
        written.map(|(key, _)| write(pipe, key, &None)).collect()
    }

    /// The writes that keep what is not kept yet; afterwards it counts as kept.
    pub(crate) fn keep(&mut self, pipe: &str, now: Timestamp) -> Vec<StateWrite> {
        let run = self.cron.or_else(|| self.interval_moment(now));
        let fresh = Kept {
            run: run.zip(self.source()),
            rescan: self.rescan.zip(self.rescan_source()),
        };
        // An interval is measured, so that the same moment comes out a little different.
        let same = |a: &Option<Moment>, b: &Option<Moment>| match (a, b) {
            (Some((a, of)), Some((b, by))) => of == by && a.duration_since(*b).abs() < SLACK,
            (a, b) => a == b,
        };
        let mut writes = Vec::new();
        if !same(&fresh.run, &self.kept.run) {
            writes.push(write(pipe, RUN, &fresh.run));
        }
        if !same(&fresh.rescan, &self.kept.rescan) {
            writes.push(write(pipe, RESCAN, &fresh.rescan));
        }
        if !writes.is_empty() {
            self.kept = fresh;
        }
        writes
    }
}

const RUN: &[u8] = b"run";
const RESCAN: &[u8] = b"rescan";
const SLACK: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

fn space(pipe: &str) -> String {
    format!("pump:{pipe}")
}

fn write(pipe: &str, key: &[u8], kept: &Option<Moment>) -> StateWrite {
    let text = |(moment, source): &Moment| format!("{} {source}", moment.as_microsecond());
    StateWrite {
        space: space(pipe),
        key: key.to_vec(),
        value: kept.as_ref().map(|kept| text(kept).into_bytes()),
    }
}

impl Kept {
    /// Reads what was kept for a pipe.
    pub(crate) fn load(snapshot: &dyn Snapshot, pipe: &str) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        for (key, value) in snapshot.state(&space(pipe), b"")? {
            let text = String::from_utf8_lossy(&value);
            let Some((micros, source)) = text.split_once(' ') else {
                continue;
            };
            let moment = micros.parse().ok();
            let moment = moment.and_then(|micros| Timestamp::from_microsecond(micros).ok());
            let known = moment.map(|moment| (moment, source.to_owned()));
            match key.as_slice() {
                RUN => kept.run = known,
                RESCAN => kept.rescan = known,
                _ => {}
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests;
