//! When pipes run, and on which threads.
//!
//! One thread watches the clock. Runs have threads of their own, in bounded pools: runs that touch
//! a system never take a place of those that move data between datasets, and those of one system
//! take only so many, so that hung peers stop nobody else. Rescans beside runs, which take long and
//! may wait for those runs, have a pool of their own and count for no system.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tahini_store::{Snapshot, StateWrite};

use crate::hub::{Hub, LivePipe, Refusal, commit_state};
use crate::pump::Request;
use crate::schedule::timing::{KEPT_IN, Kept, Met, Timing};
use crate::{Cancel, Failure, Pipe};

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
    /// The threads that watch; each lets go of the store when it has ended.
    watching: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Inner {
    stopping: bool,
    suspended: usize,
    timings: BTreeMap<String, Timing>,
    /// Runs between datasets, runs that touch a system, rescans beside runs.
    pools: [Pool; 3],
    /// How many runs touch each system now.
    busy: BTreeMap<String, usize>,
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
    /// The systems that it touches, with how many runs each bears.
    systems: Vec<(String, usize)>,
}

/// A pipe whose time has come.
struct Due {
    id: String,
    rescan: bool,
    /// A cron expression named this moment.
    moment: bool,
}

/// How many runs a system bears at a time, unless its `worker_threads` says otherwise.
const WORKERS: usize = 10;
/// How many rescans go on beside runs at a time.
const RESCANS: usize = 4;
/// The longest that the watching thread sleeps.
const NAP: Duration = Duration::from_secs(1);
/// How often somebody looks whether receivers' datasets are to be compacted.
const COMPACTION: Duration = Duration::from_secs(60);

impl Scheduler {
    /// Starts watching the clock for `hub`.
    pub fn start(hub: Arc<Hub>, options: Options) -> Arc<Scheduler> {
        let scheduler = Arc::new_cyclic(|this| Scheduler {
            this: this.clone(),
            hub,
            options,
            inner: Mutex::default(),
            changed: Condvar::new(),
            watching: Mutex::default(),
        });
        scheduler.reload(true);
        if options.automatic {
            scheduler.watch("schedule", Scheduler::tick);
        }
        // Posts come without any schedule, too.
        let mut next = Instant::now() + COMPACTION;
        scheduler.watch("compaction", move |scheduler| scheduler.compact(&mut next));
        scheduler
    }

    /// Does something on a thread of its own, again and again, until it says `false` or the
    /// scheduler is gone.
    fn watch(
        self: &Arc<Scheduler>,
        name: &str,
        mut step: impl FnMut(&Scheduler) -> bool + Send + 'static,
    ) {
        let watched = Arc::downgrade(self);
        let watch = move || {
            while let Some(scheduler) = watched.upgrade() {
                if !step(&scheduler) {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(watch);
        match spawned {
            Ok(thread) => self.watching().push(thread),
            Err(error) => {
                tracing::error!(%error, name, "a thread of the scheduler could not be started");
            }
        }
    }

    /// Takes over the pipes of the running configuration; unchanged ones keep their times.
    pub fn reload(&self, starting: bool) {
        let now = self.hub.world.clock.now();
        let kept = self.kept();
        let mut inner = self.lock();
        let mut old = std::mem::take(&mut inner.timings);
        let pipes = self.hub.pipes();
        for live in &pipes {
            let Ok(pipe) = live.runnable() else { continue };
            let written = &live.component.effective["pump"];
            let known = old
                .remove(&pipe.id)
                .filter(|timing| timing.written == *written);
            let timing = match known {
                Some(timing) => Ok(timing),
                None => self
                    .met(live, starting, kept.as_deref())
                    .and_then(|met| Timing::of(&live.component, now, met)),
            };
            match timing {
                Ok(timing) => {
                    live.lock().due(timing.next(now));
                    inner.timings.insert(pipe.id.clone(), timing);
                }
                Err(failure) => {
                    tracing::warn!(pipe = %pipe.id, %failure, "the pipe has no schedule");
                }
            }
        }
        old.retain(|id, _| pipes.iter().all(|live| live.id() != id));
        let mut writes = Vec::new();
        for (id, gone) in &old {
            writes.extend(gone.forget(id));
        }
        for (id, timing) in &mut inner.timings {
            writes.extend(timing.keep(id, now));
        }
        drop(inner);
        self.save(&writes);
        self.changed.notify_all();
    }

    /// The moments that were kept; none where they cannot be read.
    fn kept(&self) -> Option<Box<dyn Snapshot>> {
        let found = self.hub.world.store.find(KEPT_IN);
        let snapshot = found.and_then(|found| found.map(|one| one.snapshot()).transpose());
        snapshot.unwrap_or_else(|error| {
            tracing::warn!(%error, "the schedule does not know which runs were missed");
            None
        })
    }

    fn met(
        &self,
        live: &LivePipe,
        starting: bool,
        kept: Option<&dyn Snapshot>,
    ) -> Result<Met, Failure> {
        let populated = match live.component.sink_dataset() {
            Some(name) => match self.hub.world.store.find(name)? {
                Some(dataset) => dataset.snapshot()?.head().populated,
                None => false,
            },
            None => false,
        };
        Ok(Met {
            starting,
            populated,
            news: starting && listens(live) && self.has_news(live)?,
            last: live.state().last.map(|last| last.ended),
            kept: match kept {
                Some(kept) => Kept::load(kept, live.id())?,
                None => Kept::default(),
            },
        })
    }

    /// Keeps the next moments of a pipe: those before were seen to.
    fn keep(&self, id: &str) {
        let now = self.hub.world.clock.now();
        let mut inner = self.lock();
        let writes = inner.timings.get_mut(id).map(|timing| timing.keep(id, now));
        drop(inner);
        self.save(&writes.unwrap_or_default());
    }

    fn save(&self, writes: &[StateWrite]) {
        if writes.is_empty() || !self.options.automatic {
            return;
        }
        let world = &self.hub.world;
        let saved = world
            .store
            .open(KEPT_IN, true)
            .and_then(|kept| commit_state(kept.as_ref(), writes, false, world.clock.as_ref()));
        if let Err(error) = saved {
            tracing::warn!(failure = %error, "the schedule could not keep when pipes are due");
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
        // The last one is what was asked for. It begins before the rest of a rescan, which takes
        // the turn of a run soon where little is left of it, and keeps nothing from beginning.
        let mut wanted = self.hub.wanted(&live, &request)?;
        let asked = wanted.pop().unwrap_or(request);
        let outcome = self.start_one(id, asked);
        for rest in wanted {
            let _ = self.start_one(id, rest);
        }
        outcome
    }

    fn start_one(&self, id: &str, request: Request) -> Result<(), Refusal> {
        let (live, cancel) = loop {
            let live = self.hub.pipe(id)?;
            live.runnable()?;
            let begun = match request.user {
                _ if request.beside => self.hub.begin_rescan(&live, &request),
                Some(_) => self.hub.begin_by_hand(&live),
                None => self.hub.begin(&live),
            };
            match begun {
                // Its configuration changed in between: the one that holds now is run.
                Err(Refusal::Missing(_)) if live.is_retired() => {}
                begun => break (live, begun?),
            }
        };
        let next = || self.next_seconds(id, self.hub.world.clock.now());
        self.dispatch(Job {
            systems: match request.beside {
                true => Vec::new(),
                false => self.systems_of(&live),
            },
            request: Request {
                next_interval: request.next_interval.or_else(next),
                ..request
            },
            live,
            cancel,
        });
        Ok(())
    }

    fn systems_of(&self, live: &LivePipe) -> Vec<(String, usize)> {
        let configuration = self.hub.configuration();
        let bears = |id: &str| {
            let workers = configuration.get(id)?.effective["worker_threads"].as_u64()?;
            usize::try_from(workers).ok()
        };
        let systems = live.pipe.as_ref().map(Pipe::systems).unwrap_or_default();
        let with_limit = |id: &str| (id.to_owned(), bears(id).unwrap_or(WORKERS).max(1));
        systems.into_iter().map(with_limit).collect()
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
        for job in inner.pools.iter_mut().flat_map(|pool| pool.queue.drain(..)) {
            self.hub.abandon(&job.live, &job.request);
        }
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
        drop(inner);
        let watching = std::mem::take(&mut *self.watching());
        // One that panicked said so when it did.
        watching.into_iter().for_each(|thread| drop(thread.join()));
        true
    }

    fn watching(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for what is due, then sleeps until something may be.
    fn tick(&self) -> bool {
        let now = self.hub.world.clock.now();
        for Due { id, rescan, moment } in self.due(now) {
            let request = Request {
                rescan,
                ..Request::default()
            };
            // A named moment is made up for after the run that is under way; an interval is not.
            let running = self.hub.pipe(&id).is_ok_and(|live| live.state().running);
            if moment || !running {
                self.start_or_follow(&id, request);
            }
            // A run that is under way keeps its moment when it ends.
            let running = self.hub.pipe(&id).is_ok_and(|live| live.state().running);
            if !running && !self.lock().stopping {
                self.keep(&id);
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

    /// Waits a moment, and compacts what was posted when it is time for that.
    fn compact(&self, next: &mut Instant) -> bool {
        if Instant::now() >= *next {
            self.hub.compact_in_background(&|| self.lock().stopping);
            *next = Instant::now() + COMPACTION;
        }
        let inner = self.lock();
        if inner.stopping {
            return false;
        }
        let nap = next.saturating_duration_since(Instant::now()).min(NAP);
        let waited = self.changed.wait_timeout(inner, nap);
        !waited
            .map_or_else(|lock| lock.into_inner().0, |(lock, _)| lock)
            .stopping
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
                live.lock().due(timing.next(now));
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
        let at = match job.request.beside {
            true => 2,
            false => usize::from(!job.systems.is_empty()),
        };
        self.lock().pools[at].queue.push_back(job);
        self.start_waiting(at);
    }

    /// Gives threads to the runs of a pool that may begin.
    fn start_waiting(&self, at: usize) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let limit = [self.options.internal, self.options.outside, RESCANS][at];
        loop {
            let Some(job) = self.lock().take(at, limit) else {
                return;
            };
            let (this, live, systems) = (this.clone(), job.live.clone(), job.systems.clone());
            let request = job.request.clone();
            let name = format!("pipe {}", live.id());
            let work = move || {
                this.work(&job);
                this.lock().give_back(at, &job.systems);
                this.changed.notify_all();
                this.start_waiting(at);
            };
            if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
                tracing::error!(%error, "a run's thread could not be started");
                self.hub.abandon(&live, &request);
                self.lock().give_back(at, &systems);
            }
        }
    }

    fn work(&self, job: &Job) {
        let Ok(pipe) = &job.live.pipe else { return };
        let run = job.live.state().runs + u64::from(!job.request.beside);
        let summary = self.hub.finish(&job.live, pipe, &job.request, &job.cancel);
        match &summary.failure {
            Some(failure) => tracing::warn!(pipe = %pipe.id, run, %failure, "the run failed"),
            None => tracing::info!(
                pipe = %pipe.id,
                run,
                kind = %summary.sync_type,
                beside = job.request.beside,
                read = summary.read,
                changed = summary.changed,
                deleted = summary.deleted,
                seconds = summary.total_seconds(),
                "the run completed"
            ),
        }
        // Of a run that trips, or fails under a breaker, nobody sees anything.
        let is_seen = summary.failure.is_none() || !job.live.has_breaker();
        if self.options.automatic
            && is_seen
            && summary.changed > 0
            && let Some(name) = pipe.sink_dataset()
        {
            self.signal(name);
        }
        // What the node's end cut off was not seen to, and is made up for.
        if !(job.cancel.is_cancelled() && self.lock().stopping) {
            self.keep(&pipe.id);
        }
        let mut state = job.live.lock();
        let again = std::mem::take(&mut state.signalled);
        let rescan = std::mem::take(&mut state.rescan_pending);
        drop(state);
        let retired = job.live.is_retired();
        // Who stopped a run wants no other; a new configuration hears what the old one was told.
        let stopped = job.cancel.is_cancelled() && !retired;
        if again && !stopped {
            let request = Request {
                rescan,
                ..Request::default()
            };
            self.start_or_follow(&pipe.id, request);
        }
        if job.request.beside && retired && job.cancel.is_cancelled() && !self.lock().stopping {
            let request = Request {
                rescan: true,
                ..Request::default()
            };
            self.start_or_follow(&pipe.id, request);
        }
    }

    /// Whether something waits in what a pipe reads or joins.
    fn has_news(&self, live: &LivePipe) -> Result<bool, Failure> {
        let own = live.component.sink_dataset();
        let joined = self.hub.unfollowed(live)?;
        let mut joined = joined.iter().filter(|(name, _)| own != Some(name.as_str()));
        let unread = self.hub.unread(live)?.is_some_and(|few| few > 0);
        Ok(unread || joined.any(|(_, few)| *few > 0))
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
            // What a pipe writes and joins itself is looked at when it runs for another reason:
            // it would never come to rest where each run makes something else of it.
            let own = live.component.sink_dataset() == Some(dataset);
            let reads = live.component.source_datasets().contains(&dataset)
                || (live.ways.datasets().contains(dataset) && !own);
            if reads && listens(&live) {
                self.start_or_follow(live.id(), Request::default());
            }
        }
    }

    /// Starts a run, or makes one follow the run that is under way.
    fn start_or_follow(&self, id: &str, request: Request) {
        loop {
            let rescan = request.rescan;
            let refusal = match self.start_run(id, request.clone()) {
                Ok(()) | Err(Refusal::Disabled(..) | Refusal::Tripped(..)) => return,
                Err(refusal) => refusal,
            };
            let running = matches!(refusal, Refusal::Running(_) | Refusal::Rescanning(_));
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

/// Whether a pipe runs when its source's dataset changes.
fn listens(live: &LivePipe) -> bool {
    let hears = live.component.source().bool("supports_signalling", false);
    let mode = live.component.pump().map().get("mode");
    hears.unwrap_or(false) && mode.is_none_or(|mode| mode == "scheduled")
}

impl Inner {
    /// The first run in a pool's queue that may begin; it counts from now on.
    fn take(&mut self, at: usize, limit: usize) -> Option<Job> {
        if self.stopping || self.pools[at].active >= limit {
            return None;
        }
        let free =
            |(id, bears): &(String, usize)| self.busy.get(id).is_none_or(|busy| busy < bears);
        let place = self.pools[at]
            .queue
            .iter()
            .position(|job| job.systems.iter().all(free))?;
        let job = self.pools[at].queue.remove(place)?;
        self.pools[at].active += 1;
        for (id, _) in &job.systems {
            *self.busy.entry(id.clone()).or_default() += 1;
        }
        Some(job)
    }

    /// A run that was taken ended.
    fn give_back(&mut self, at: usize, systems: &[(String, usize)]) {
        self.pools[at].active -= 1;
        for (id, _) in systems {
            if let Some(busy) = self.busy.get_mut(id) {
                *busy -= 1;
            }
        }
        self.busy.retain(|_, busy| *busy > 0);
    }
}
