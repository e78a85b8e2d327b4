//! The hub: the pipes of the running configuration, and everything one can ask of them.

mod live;
mod place;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

use tahini_store::{Backend, Commit, Dataset, Rule, Show, StateWrite, StoreError};

use crate::config::{Component, Configuration, diff};
use crate::dependency::Ways;
use crate::execution_log::{self, Summary};
use crate::open_systems::OpenSystems;
use crate::pipe::{Pipe, World};
use crate::progress::{self, Place};
use crate::pump::{self, Request};
use crate::rounds::{self, Rounds};
use crate::secrets::SecretSource;
use crate::{Cancel, Clock, Failure, Registry, Services, breaker, compaction, indexes, rescan};

pub(crate) use live::lock;
pub use live::{LivePipe, LiveState, Refusal};
pub(crate) use place::Input;
pub use place::shown;

use live::Shared;

/// The running configuration.
pub struct Hub {
    /// What runs need from outside.
    pub world: World,
    systems: Arc<OpenSystems>,
    configuration: RwLock<Arc<Configuration>>,
    pipes: RwLock<BTreeMap<String, Arc<LivePipe>>>,
    /// What is known of pipes, also of those that were taken away while somebody still works with
    /// them.
    shared: Mutex<BTreeMap<String, Weak<Shared>>>,
    /// Which pipe's writes reach which pipes, and what has come round until now.
    ways: RwLock<Arc<rounds::Ways>>,
    rounds: Mutex<Rounds>,
}

/// A configuration that is ready to be taken over: everything that could fail did not.
pub struct Prepared {
    configuration: Configuration,
    pipes: BTreeMap<String, Arc<LivePipe>>,
    /// Pipes that are gone or are others now.
    ended: Vec<String>,
}

impl Prepared {
    /// The configuration.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }
}

impl Hub {
    /// A hub without any configuration yet.
    pub fn new(
        store: Arc<dyn Backend>,
        services: Arc<dyn Services>,
        clock: Arc<dyn Clock>,
        secrets: Arc<dyn SecretSource>,
        registry: Registry,
    ) -> Hub {
        let systems = OpenSystems::new(
            store.clone(),
            services.clone(),
            clock.clone(),
            secrets.clone(),
            registry,
        );
        let world = World {
            store,
            known: Arc::default(),
            systems: systems.clone(),
            services,
            clock,
            secrets,
            traced: Arc::default(),
            registry,
        };
        Hub {
            world,
            systems,
            configuration: RwLock::default(),
            pipes: RwLock::default(),
            shared: Mutex::default(),
            ways: RwLock::default(),
            rounds: Mutex::default(),
        }
    }

    pub(crate) fn ways(&self) -> Arc<rounds::Ways> {
        let ways = self.ways.read().unwrap_or_else(|lock| lock.into_inner());
        ways.clone()
    }

    pub(crate) fn rounds(&self) -> MutexGuard<'_, Rounds> {
        live::lock(&self.rounds)
    }

    /// The configuration that holds now.
    pub fn configuration(&self) -> Arc<Configuration> {
        self.configuration
            .read()
            .unwrap_or_else(|lock| lock.into_inner())
            .clone()
    }

    /// Takes over a configuration. Unchanged pipes keep running and keep what is known of them;
    /// changed and removed ones are stopped.
    ///
    /// # Errors
    /// When the store cannot be read or written; the old configuration holds then as before.
    pub fn apply(&self, configuration: Configuration) -> Result<(), Failure> {
        let prepared = self.prepare(configuration)?;
        self.take_over(prepared);
        Ok(())
    }

    /// The first half of `apply`: does what can fail, and changes nothing that runs. Callers
    /// prepare and take over one configuration at a time.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prepare(&self, configuration: Configuration) -> Result<Prepared, Failure> {
        let changes = diff(&self.configuration(), &configuration);
        let old = self.pipes.read().unwrap_or_else(|lock| lock.into_inner());
        let old = old.clone();
        let mut pipes = BTreeMap::new();
        for component in configuration.pipes() {
            let id = component.id.clone();
            let same = |live: &&Arc<LivePipe>| {
                !changes.changed.contains(&id) && live.component.original == component.original
            };
            let live = match old.get(&id).filter(same) {
                Some(live) => live.clone(),
                None => Arc::new(self.enliven(component)?),
            };
            contained(&id, self.populate(&live))?;
            pipes.insert(id, live);
        }
        let ended = changes.removed.into_iter().chain(changes.changed);
        Ok(Prepared {
            configuration,
            pipes,
            ended: ended.collect(),
        })
    }

    /// The second half of `apply`, which cannot fail.
    pub fn take_over(&self, prepared: Prepared) {
        let mut pipes = self.pipes.write().unwrap_or_else(|lock| lock.into_inner());
        let ended = prepared.ended.iter().filter_map(|id| pipes.get(id));
        ended.for_each(|live| live.retire());
        self.systems.apply(&prepared.configuration);
        let written = prepared.configuration.pipes();
        let written = written.filter_map(|pipe| pipe.sink_dataset().map(str::to_owned));
        self.world.known.set_written(written);
        let ways = rounds::Ways::of(prepared.pipes.values().map(Arc::as_ref));
        for live in prepared.pipes.values() {
            live.lock().feeds_itself = None;
            *live::lock(live.given()) = ways.watched(live.id());
        }
        *self.ways.write().unwrap_or_else(|lock| lock.into_inner()) = Arc::new(ways);
        // Pipes stand elsewhere among the others now, and may do other things. What a run notes by
        // the ways before is not kept.
        *self.rounds() = Rounds::default();
        *pipes = prepared.pipes;
        drop(pipes);
        *self
            .configuration
            .write()
            .unwrap_or_else(|lock| lock.into_inner()) = Arc::new(prepared.configuration);
        indexes::declare(self);
    }

    fn enliven(&self, component: &Component) -> Result<LivePipe, Failure> {
        let registry = &self.world.registry;
        let pipe = Pipe::of(component, registry);
        let (shared, fresh) = self.shared(&component.id);
        if fresh {
            contained(&component.id, self.remember(&component.id, &shared))?;
        }
        let (mut ways, mut wanted) = (Ways::default(), Vec::new());
        if let Ok(pipe) = &pipe {
            let programs = pipe.programs();
            ways = Ways::of(pipe, &programs);
            wanted = indexes::of_pipe(pipe, &ways, &programs);
        }
        Ok(LivePipe {
            component: component.clone(),
            indexes: wanted,
            ways,
            pipe: pipe.map_err(|failure| failure.to_string()),
            receiving: shared.receiving.clone(),
            shared,
            retired: Default::default(),
        })
    }

    /// What is known of a pipe, and whether nothing was until now.
    fn shared(&self, id: &str) -> (Arc<Shared>, bool) {
        let mut known = live::lock(&self.shared);
        known.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = known.get(id).and_then(Weak::upgrade) {
            return (shared, false);
        }
        let shared = Arc::<Shared>::default();
        known.insert(id.to_owned(), Arc::downgrade(&shared));
        (shared, true)
    }

    /// What the execution log knows of the time before the node started.
    fn remember(&self, id: &str, shared: &Shared) -> Result<(), StoreError> {
        let Some(dataset) = self.world.store.find(&execution_log::dataset_id(id))? else {
            return Ok(());
        };
        let snapshot = dataset.snapshot()?;
        let rows = snapshot.state(&progress::space(id), place::DISABLED)?;
        let comment = rows.into_iter().next().map(|(_, comment)| comment);
        let mut state = live::lock(&shared.state);
        state.disabled = comment.map(|text| String::from_utf8_lossy(&text).into_owned());
        state.last = execution_log::last_run(snapshot.as_ref())?;
        Ok(())
    }

    /// The dataset behind a receiver exists, and counts as populated, before anything is posted;
    /// so does that of a sink that wants it (`set_initial_offset`), and that of dead letters.
    fn populate(&self, live: &LivePipe) -> Result<(), StoreError> {
        let policy = live.pipe.as_ref().ok().map(|pipe| &pipe.policy);
        if let Some(letters) = policy.and_then(|policy| policy.dead_letter_dataset.as_deref()) {
            self.make_populated(letters)?;
        }
        match live.component.sink_dataset() {
            Some(name) if live.is_populated_at_once() => self.make_populated(name),
            _ => Ok(()),
        }
    }

    pub(crate) fn make_populated(&self, name: &str) -> Result<(), StoreError> {
        let dataset = self.world.store.open(name, true)?;
        let head = dataset.snapshot()?.head().clone();
        if !head.populated && !head.holds {
            commit_state(dataset.as_ref(), &[], true, self.world.clock.as_ref())?;
        }
        Ok(())
    }

    /// The pipes, by id.
    pub fn pipes(&self) -> Vec<Arc<LivePipe>> {
        let pipes = self.pipes.read().unwrap_or_else(|lock| lock.into_inner());
        pipes.values().cloned().collect()
    }

    /// The pipes that write a dataset, by id.
    pub fn writers(&self, dataset: &str) -> Vec<Arc<LivePipe>> {
        let pipes = self.pipes.read().unwrap_or_else(|lock| lock.into_inner());
        let writes = |live: &&Arc<LivePipe>| live.component.sink_dataset() == Some(dataset);
        pipes.values().filter(writes).cloned().collect()
    }

    /// The pipe of that id.
    pub fn pipe(&self, id: &str) -> Result<Arc<LivePipe>, Refusal> {
        let pipes = self.pipes.read().unwrap_or_else(|lock| lock.into_inner());
        pipes
            .get(id)
            .cloned()
            .ok_or_else(|| Refusal::Missing(id.to_owned()))
    }

    /// Makes systems read their secrets anew.
    pub fn secrets_changed(&self) {
        self.systems.forget();
    }

    /// Runs a pipe now, on this thread. `by_hand` overrides nothing but the schedule: a disabled
    /// pipe stays still unless the caller enables it. What a request begins is done one after the
    /// other, and the last outcome is told, or the first failure.
    pub fn run(&self, live: &LivePipe, request: &Request) -> Result<Summary, Refusal> {
        let pipe = live.runnable()?;
        let mut last = None;
        for request in self.wanted(live, request)? {
            let cancel = match request.beside {
                true => self.begin_rescan(live, &request)?,
                false => self.begin(live)?,
            };
            let summary = self.finish(live, pipe, &request, &cancel);
            let failed = !summary.success();
            last = Some(summary);
            if failed {
                break;
            }
        }
        last.ok_or_else(|| Refusal::Running(live.id().to_owned()))
    }

    /// The runs that a request means: one run, a rescan beside runs in its place, or a run and
    /// the rest of a rescan that was interrupted, which comes first.
    ///
    /// # Errors
    /// When the pipe cannot run.
    pub fn wanted(&self, live: &LivePipe, request: &Request) -> Result<Vec<Request>, Refusal> {
        let alone = vec![request.clone()];
        let pipe = live.runnable()?;
        if pipe.background.is_err() || request.beside {
            return Ok(alone);
        }
        // A dataset that cannot be read is the run's to tell.
        let Ok((place, left)) = self.place_beside(pipe) else {
            return Ok(alone);
        };
        // Without an offset, and after a full run that broke off, a run reads everything anyway.
        if place.offset.is_none() || place.unfinished.is_some() {
            return Ok(alone);
        }
        let rescan = Request {
            rescan: true,
            beside: true,
            ..request.clone()
        };
        if request.rescan {
            return Ok(vec![rescan]);
        }
        let state = live.state();
        if state.rescanning || state.reads_everything {
            return Ok(alone);
        }
        if pipe.rescan_is_due(&place) {
            return Ok(vec![rescan]);
        }
        Ok(match left && !state.rescan_is_held {
            true => vec![rescan, request.clone()],
            false => alone,
        })
    }

    /// A pipe's place, and whether a rescan beside its runs is unfinished.
    fn place_beside(&self, pipe: &Pipe) -> Result<(Place, bool), Failure> {
        let home = self.home(pipe)?;
        let snapshot = home.snapshot()?;
        let place = Place::load(snapshot.as_ref(), &pipe.id)?;
        Ok((place, rescan::is_unfinished(snapshot.as_ref(), &pipe.id)?))
    }

    /// Marks a pipe as rescanning, so that a caller can hand the rescan to another thread.
    ///
    /// # Errors
    /// When the pipe is disabled and nobody asked by hand, or is rescanning already, or a run that
    /// reads everything is under way.
    pub fn begin_rescan(&self, live: &LivePipe, request: &Request) -> Result<Cancel, Refusal> {
        if request.user.is_none() {
            self.check_enabled(live)?;
        }
        let _held = live.hold_place();
        let mut state = live.lock();
        if live.is_retired() {
            return Err(Refusal::Missing(live.id().to_owned()));
        }
        if state.rescanning {
            return Err(Refusal::Rescanning(live.id().to_owned()));
        }
        if state.reads_everything {
            return Err(Refusal::Running(live.id().to_owned()));
        }
        state.rescanning = true;
        state.rescan_is_held = false;
        state.rescanning_since = Some(self.world.clock.now());
        state.rescan_cancel = Cancel::new();
        let cancel = state.rescan_cancel.clone();
        drop(state);
        if let Err(failure) = self.remember_rescan(live) {
            self.abandon(live, request);
            return Err(failure.into());
        }
        Ok(cancel)
    }

    /// The node may end before a rescan that stands in a queue begins.
    fn remember_rescan(&self, live: &LivePipe) -> Result<(), Failure> {
        let Ok(pipe) = &live.pipe else { return Ok(()) };
        let home = self.home(pipe)?;
        if let Some(write) = rescan::asked(home.snapshot()?.as_ref(), &pipe.id)? {
            commit_state(home.as_ref(), &[write], false, self.world.clock.as_ref())?;
        }
        Ok(())
    }

    fn check_enabled(&self, live: &LivePipe) -> Result<(), Refusal> {
        let Some(comment) = &live.lock().disabled else {
            return Ok(());
        };
        let comment = match comment.is_empty() {
            true => String::new(),
            false => format!(": {comment}"),
        };
        Err(Refusal::Disabled(live.id().to_owned(), comment))
    }

    /// Marks a pipe as running, so that a caller can hand the run to another thread.
    pub fn begin(&self, live: &LivePipe) -> Result<Cancel, Refusal> {
        self.check_enabled(live)?;
        self.begin_by_hand(live)
    }

    /// The same for a person, who may run a disabled pipe, too.
    pub fn begin_by_hand(&self, live: &LivePipe) -> Result<Cancel, Refusal> {
        // Whoever sets the place by hand is let finish first.
        let _held = live.hold_place();
        // A dataset that cannot be read is the run's to tell.
        if let (Some(name), Ok(Some(tripped))) = (live.component.sink_dataset(), self.tripped(live))
        {
            let words = breaker::stands_still(name, &tripped);
            return Err(Refusal::Tripped(live.id().to_owned(), words));
        }
        let mut state = live.lock();
        if live.is_retired() {
            return Err(Refusal::Missing(live.id().to_owned()));
        }
        if state.running || state.turn_is_wanted {
            return Err(Refusal::Running(live.id().to_owned()));
        }
        state.running = true;
        state.reads_everything = false;
        state.signalled = false;
        state.running_since = Some(self.world.clock.now());
        state.cancel = Cancel::new();
        Ok(state.cancel.clone())
    }

    /// The second half of a run that was begun.
    pub fn finish(
        &self,
        live: &LivePipe,
        pipe: &Pipe,
        request: &Request,
        cancel: &Cancel,
    ) -> Summary {
        let tidy = |summary: &mut Summary| match request.beside {
            // Runs beside it do that.
            true => {}
            false => compaction::after_run(self, live, pipe, cancel, summary),
        };
        let summary = pump::run(live, pipe, &self.world, request, cancel, &tidy);
        let mut state = live.lock();
        state.totals.add(&summary);
        match request.beside {
            true => state.last_rescan = Some(summary.clone()),
            false => {
                state.runs += 1;
                state.last = Some(summary.clone());
            }
        }
        drop(state);
        if !request.beside {
            self.tell_loop(live, &summary);
        }
        self.abandon(live, request);
        summary
    }

    /// Tells of a flow that feeds itself, once it has gone round often enough.
    fn tell_loop(&self, live: &LivePipe, summary: &Summary) {
        // A dataset that cannot be read is told by whoever has to read it.
        let Ok(Some(found)) = self.note_round(live, summary) else {
            return;
        };
        tracing::warn!(pipe = live.id(), "{}", found.words());
        let told = self.log(live.id());
        let told = told.and_then(|log| log.append(vec![log.feeds_itself(&found)], &[]));
        if let Err(failure) = told {
            tracing::warn!(pipe = live.id(), %failure, "the log does not tell of the loop");
        }
        live.lock().feeds_itself = Some(found);
    }

    /// Takes back that a run was begun.
    pub(crate) fn abandon(&self, live: &LivePipe, request: &Request) {
        let mut state = live.lock();
        match request.beside {
            true => {
                state.rescanning = false;
                state.rescanning_since = None;
            }
            false => {
                state.running = false;
                state.running_since = None;
                state.reads_everything = false;
            }
        }
        drop(state);
        live.shared.ended.notify_all();
    }

    /// Removes old versions of what is posted, and of what grows old between runs, where it is
    /// time; nothing waits for it.
    pub fn compact_in_background(&self, stop: &dyn Fn() -> bool) {
        compaction::in_background(self, stop);
    }

    /// Asks the run and the rescan that are under way to stop; `false` when none is. A rescan that
    /// was stopped goes on when another is asked for.
    pub fn stop(&self, id: &str) -> Result<bool, Refusal> {
        let live = self.pipe(id)?;
        let mut state = live.lock();
        state.cancel.cancel();
        state.rescan_cancel.cancel();
        state.rescan_is_held |= state.rescanning;
        Ok(state.is_busy())
    }

    /// Asks every run to stop.
    pub fn stop_all(&self) {
        for live in self.pipes() {
            let state = live.lock();
            state.cancel.cancel();
            state.rescan_cancel.cancel();
        }
    }
}

/// One damaged dataset keeps neither the node nor another pipe from its work: whoever reads or
/// writes it fails, and says why.
fn contained(pipe: &str, done: Result<(), StoreError>) -> Result<(), Failure> {
    match done {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(pipe, "{error}");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Commits state alone, durably.
pub(crate) fn commit_state(
    dataset: &dyn Dataset,
    state: &[StateWrite],
    populated: bool,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let rows = tahini_entity::Batch::new();
    let commit = Commit {
        rows: &rows,
        rule: Rule::IfChanged,
        state,
        populated,
        now: clock.micros(),
        show: Show::Now,
        note: None,
    };
    dataset.commit(commit)?.1.wait()?;
    Ok(())
}
