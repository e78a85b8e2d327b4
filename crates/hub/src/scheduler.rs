//! When pipes run, and on which threads.
//!
//! One thread watches the clock. Runs have threads of their own, in two bounded pools: runs that
//! touch a system never take a place of those that move data between datasets, so that hung
//! peers stop nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value as Json;

use crate::hub::{Hub, LivePipe, Refusal};
use crate::pump::Request;
use crate::schedule::{Mode, Schedule};
use crate::{Cancel, Failure};

/// How many runs may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Runs between datasets.
    pub internal: usize,
    /// Runs that touch a system.
    pub outside: usize,
    /// Whether schedules and signals start runs; otherwise only requests do.
    pub automatic: bool,
}

impl Default for Options {
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Options {
            internal: 2 * cores,
            outside: 128,
            automatic: true,
        }
    }
}

/// Starts runs when they are due, signalled or asked for.
pub struct Scheduler {
    this: Weak<Scheduler>,
    hub: Arc<Hub>,
    options: Options,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    stopping: bool,
    suspended: usize,
    timings: BTreeMap<String, Timing>,
    pools: [Pool; 2],
}

#[derive(Default)]
struct Pool {
    active: usize,
    queue: VecDeque<Job>,
}

struct Job {
    live: Arc<LivePipe>,
    request: Request,
    cancel: Cancel,
}

/// What is known of a pipe when the schedule meets it.
#[derive(Clone, Copy)]
struct Met {
    /// The node starts.
    starting: bool,
    ran_before: bool,
    populated: bool,
}

/// A pipe whose time has come.
struct Due {
    id: String,
    rescan: bool,
    /// A cron expression named this moment.
    moment: bool,
}

/// When a pipe is due; intervals count on the monotonic clock, cron on the wall clock.
struct Timing {
    schedule: Schedule,
    written: Json,
    interval: Option<Instant>,
    cron: Option<Timestamp>,
    rescan: Option<Timestamp>,
    at_once: bool,
}

/// A share of the interval by which runs are spread, both ways.
const JITTER: f64 = 0.05;
/// The longest that a pipe which the schedule meets for the first time waits for its first run.
const FIRST: Duration = Duration::from_secs(5);
/// The longest that the watching thread sleeps.
const NAP: Duration = Duration::from_secs(1);

impl Scheduler {
    /// Starts watching the clock for `hub`.
    pub fn start(hub: Arc<Hub>, options: Options) -> Arc<Scheduler> {
        let scheduler = Arc::new_cyclic(|this| Scheduler {
            this: this.clone(),
            hub,
            options,
            inner: Mutex::default(),
            changed: Condvar::new(),
        });
        scheduler.reload(true);
        if options.automatic {
            let watched = Arc::downgrade(&scheduler);
            let watch = move || {
                while let Some(scheduler) = watched.upgrade() {
                    if !scheduler.tick() {
                        return;
                    }
                }
            };
            let spawned = std::thread::Builder::new()
                .name("schedule".to_owned())
                .spawn(watch);
            if let Err(error) = spawned {
                tracing::error!(%error, "the schedule's thread could not be started");
            }
        }
        scheduler
    }

    /// Takes over the pipes of the running configuration; unchanged ones keep their times.
    pub fn reload(&self, starting: bool) {
        let mut inner = self.lock();
        let mut old = std::mem::take(&mut inner.timings);
        let now = self.hub.world.clock.now();
        for live in self.hub.pipes() {
            let Ok(pipe) = live.runnable() else { continue };
            let written = live.component.effective["pump"].clone();
            let kept = old
                .remove(&pipe.id)
                .filter(|timing| timing.written == written);
            let timing = match kept {
                Some(timing) => timing,
                None => match Timing::of(&live, now, self.met(&live, starting)) {
                    Ok(timing) => timing,
                    Err(failure) => {
                        tracing::warn!(pipe = %pipe.id, %failure, "the pipe has no schedule");
                        continue;
                    }
                },
            };
            live.lock().next = timing.next(now);
            inner.timings.insert(pipe.id.clone(), timing);
        }
        self.changed.notify_all();
    }

    fn met(&self, live: &LivePipe, starting: bool) -> Met {
        let store = &self.hub.world.store;
        let head = |name: &str| {
            let dataset = store.find(name).ok().flatten()?;
            Some(dataset.snapshot().ok()?.head().clone())
        };
        let log = head(&crate::execution_log::dataset_id(live.id()));
        let sink = live.component.sink_dataset().and_then(head);
        Met {
            starting,
            ran_before: log.is_some_and(|head| head.next > 0),
            populated: sink.is_some_and(|head| head.populated),
        }
    }

    /// Starts a run now. A user may start a disabled pipe, too.
    ///
    /// # Errors
    /// When the pipe is running, disabled, or cannot run.
    pub fn start_run(&self, id: &str, request: Request) -> Result<(), Refusal> {
        if self.lock().stopping {
            return Err(Refusal::Failed(Failure::cancelled()));
        }
        let live = self.hub.pipe(id)?;
        live.runnable()?;
        let cancel = match request.user {
            Some(_) => self.hub.begin_by_hand(&live)?,
            None => self.hub.begin(&live)?,
        };
        self.dispatch(Job {
            live,
            request,
            cancel,
        });
        Ok(())
    }

    /// Keeps schedules and signals from starting runs until `resume` was called as often.
    pub fn suspend(&self) {
        self.lock().suspended += 1;
    }

    /// Ends one `suspend`.
    pub fn resume(&self) {
        let mut inner = self.lock();
        inner.suspended = inner.suspended.saturating_sub(1);
    }

    /// Stops all runs and waits for them, at most `deadline`; `false` when some did not end.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let mut inner = self.lock();
        inner.stopping = true;
        inner.pools.iter_mut().for_each(|pool| pool.queue.clear());
        self.hub.stop_all();
        self.changed.notify_all();
        while inner.pools.iter().any(|pool| pool.active > 0) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(inner, left);
            inner = waited.map_or_else(|lock| lock.into_inner().0, |(lock, _)| lock);
        }
        true
    }

    /// Looks for what is due, then sleeps until something may be.
    fn tick(&self) -> bool {
        let now = self.hub.world.clock.now();
        for Due { id, rescan, moment } in self.due(now) {
            let request = Request {
                rescan,
                next_interval: self.next_seconds(&id, now),
                user: None,
            };
            // A named moment is made up for after the run that is under way; an interval is not.
            let running = self.hub.pipe(&id).is_ok_and(|live| live.state().running);
            if moment || !running {
                self.start_or_follow(&id, request);
            }
        }
        let inner = self.lock();
        if inner.stopping {
            return false;
        }
        let monotonic = Instant::now();
        let soonest = inner
            .timings
            .values()
            .filter_map(|timing| timing.interval)
            .min();
        let nap = soonest.map_or(NAP, |at| at.saturating_duration_since(monotonic).min(NAP));
        let _ = self
            .changed
            .wait_timeout(inner, nap.max(Duration::from_millis(5)));
        true
    }

    fn due(&self, now: Timestamp) -> Vec<Due> {
        let mut inner = self.lock();
        if inner.suspended > 0 || inner.stopping {
            return Vec::new();
        }
        let monotonic = Instant::now();
        let disabled = self.disables_user_pipes();
        let mut due = Vec::new();
        for (id, timing) in &mut inner.timings {
            let rescan = timing.rescan.is_some_and(|at| at <= now);
            if !(timing.is_due(monotonic, now) || rescan) {
                continue;
            }
            let moment = rescan || timing.cron.is_some_and(|at| at <= now);
            timing.advance(now);
            if let Ok(live) = self.hub.pipe(id) {
                live.lock().next = timing.next(now);
            }
            if !disabled {
                let id = id.clone();
                due.push(Due { id, rescan, moment });
            }
        }
        due
    }

    fn next_seconds(&self, id: &str, now: Timestamp) -> Option<f64> {
        let next = self.lock().timings.get(id)?.next(now)?;
        Some((next.as_microsecond() - now.as_microsecond()).max(0) as f64 / 1e6)
    }

    /// Test clients switch the schedules of all pipes off in the metadata.
    fn disables_user_pipes(&self) -> bool {
        let configuration = self.hub.configuration();
        let tasks = configuration.metadata().get("task_manager");
        tasks.is_some_and(|tasks| {
            tasks["disable_user_pipes"] == true || tasks["disable_pump_scheduler"] == true
        })
    }

    fn dispatch(&self, job: Job) {
        let at = usize::from(
            job.live
                .pipe
                .as_ref()
                .is_ok_and(|pipe| pipe.touches_the_outside()),
        );
        let limit = [self.options.internal, self.options.outside][at];
        let mut inner = self.lock();
        if inner.pools[at].active >= limit {
            inner.pools[at].queue.push_back(job);
            return;
        }
        inner.pools[at].active += 1;
        drop(inner);
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let name = format!("pipe {}", job.live.id());
        let work = move || {
            let mut next = Some(job);
            while let Some(job) = next {
                this.work(&job);
                let mut inner = this.lock();
                next = inner.pools[at].queue.pop_front();
                if next.is_none() {
                    inner.pools[at].active -= 1;
                    this.changed.notify_all();
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::error!(%error, "a run's thread could not be started");
            self.lock().pools[at].active -= 1;
        }
    }

    fn work(&self, job: &Job) {
        let Ok(pipe) = &job.live.pipe else { return };
        let run = job.live.state().runs + 1;
        let summary = self.hub.finish(&job.live, pipe, &job.request, &job.cancel);
        match &summary.failure {
            Some(failure) => tracing::warn!(pipe = %pipe.id, run, %failure, "the run failed"),
            None => tracing::info!(
                pipe = %pipe.id,
                run,
                kind = %summary.sync_type,
                read = summary.read,
                changed = summary.changed,
                deleted = summary.deleted,
                seconds = summary.total_seconds(),
                "the run completed"
            ),
        }
        if self.options.automatic
            && summary.changed > 0
            && let Some(name) = pipe.sink_dataset()
        {
            self.signal(name);
        }
        let mut state = job.live.lock();
        let again = std::mem::take(&mut state.signalled);
        let rescan = std::mem::take(&mut state.rescan_pending);
        drop(state);
        if again && !job.cancel.is_cancelled() {
            let request = Request {
                rescan,
                ..Request::default()
            };
            let _ = self.start_run(&pipe.id, request);
        }
    }

    /// Tells the readers of a dataset that it changed; one that is running runs once more after.
    pub fn signal(&self, dataset: &str) {
        let inner = self.lock();
        let still = inner.suspended > 0 || inner.stopping || !self.options.automatic;
        drop(inner);
        if still || self.disables_user_pipes() {
            return;
        }
        for live in self.hub.pipes() {
            let reads = live.component.source_datasets().contains(&dataset);
            let listens = live.component.source().bool("supports_signalling", false);
            if !reads || !listens.unwrap_or(false) {
                continue;
            }
            let mode = live.component.pump().map().get("mode");
            if mode.is_some_and(|mode| mode != "scheduled") {
                continue;
            }
            self.start_or_follow(live.id(), Request::default());
        }
    }

    /// Starts a run, or makes one follow the run that is under way.
    fn start_or_follow(&self, id: &str, request: Request) {
        loop {
            let rescan = request.rescan;
            let refusal = match self.start_run(id, request.clone()) {
                Ok(()) | Err(Refusal::Disabled(..)) => return,
                Err(refusal) => refusal,
            };
            let running = matches!(refusal, Refusal::Running(_));
            let follows = running && self.hub.pipe(id).is_ok_and(|live| live.ask_again(rescan));
            if follows {
                return;
            }
            if !running {
                tracing::warn!(pipe = %id, %refusal, "the pipe was not started");
                return;
            }
            // The run ended in between: it can be started now.
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}

impl Timing {
    fn of(live: &LivePipe, now: Timestamp, met: Met) -> Result<Timing, Failure> {
        let pump = live.component.pump().map();
        let schedule = Schedule::of(pump).map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::config(words.join("; "))
        })?;
        let mut timing = Timing {
            written: live.component.effective["pump"].clone(),
            interval: None,
            cron: None,
            rescan: None,
            at_once: met.starting
                && (schedule.run_at_startup
                    || schedule.run_at_startup_if_not_populated && !met.populated),
            schedule,
        };
        timing.advance_from(now, Some(met.ran_before));
        Ok(timing)
    }

    fn is_due(&self, monotonic: Instant, now: Timestamp) -> bool {
        let scheduled = self.schedule.mode == Mode::Scheduled;
        let interval = self.interval.is_some_and(|at| at <= monotonic);
        scheduled && (self.at_once || interval || self.cron.is_some_and(|at| at <= now))
    }

    fn advance(&mut self, now: Timestamp) {
        self.at_once = false;
        self.advance_from(now, None);
    }

    /// The first interval of a pipe that never ran is short, so that it has something to show
    /// soon; pipes that ran before are spread over their interval when the node starts.
    fn advance_from(&mut self, now: Timestamp, first: Option<bool>) {
        if self.schedule.mode != Mode::Scheduled {
            return;
        }
        self.interval = self
            .schedule
            .every
            .filter(|_| self.schedule.cron.is_none())
            .map(|every| {
                let part = rand::rng().random_range(0.0..1.0);
                let pause = match first {
                    Some(false) => every.min(FIRST).mul_f64(part),
                    Some(true) => every.mul_f64(part),
                    None => every.mul_f64(1.0 - JITTER + 2.0 * JITTER * part),
                };
                Instant::now() + pause
            });
        self.cron = self
            .schedule
            .cron
            .as_ref()
            .and_then(|cron| cron.next_after(now));
        self.rescan = self
            .schedule
            .rescan_cron
            .as_ref()
            .and_then(|cron| cron.next_after(now));
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let interval = self.interval.and_then(|at| {
            let left = at.saturating_duration_since(Instant::now());
            let micros = i64::try_from(left.as_micros()).ok()?;
            Timestamp::from_microsecond(now.as_microsecond().checked_add(micros)?).ok()
        });
        [interval, self.cron, self.rescan]
            .into_iter()
            .flatten()
            .min()
    }
}
