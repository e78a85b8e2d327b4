//! The hub: the pipes of the running configuration, and everything one can ask of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use jiff::Timestamp;
use tahini_entity::Offset;
use tahini_store::{Backend, Commit, Dataset, Rule, StateWrite};

use crate::config::{Component, Configuration, diff};
use crate::execution_log::{ExecutionLog, Summary, User};
use crate::open_systems::OpenSystems;
use crate::pipe::{Pipe, World};
use crate::progress::{self, Place};
use crate::pump::{self, Request};
use crate::secrets::SecretSource;
use crate::{Cancel, Clock, Failure, Registry, Services};

/// Why something asked of a pipe was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such pipe.
    #[error("expected a pipe {0:?}, found none")]
    Missing(String),
    /// A run is under way.
    #[error("pipe {0:?} is running")]
    Running(String),
    /// The pipe was disabled.
    #[error("pipe {0:?} is disabled{1}")]
    Disabled(String, String),
    /// Its pump is in mode `off`, or it has none.
    #[error("pipe {0:?} has no pump that can run: {1}")]
    NoPump(String, String),
    /// Its configuration has errors, or needs what is not built yet.
    #[error("pipe {0:?} cannot run: {1}")]
    Unusable(String, String),
    /// `disable_set_last_seen` is set.
    #[error("pipe {0:?} is protected by `disable_set_last_seen`")]
    Protected(String),
    /// The operation failed.
    #[error("{0}")]
    Failed(#[from] Failure),
}

/// The running configuration.
pub struct Hub {
    /// What runs need from outside.
    pub world: World,
    systems: Arc<OpenSystems>,
    configuration: RwLock<Arc<Configuration>>,
    pipes: RwLock<BTreeMap<String, Arc<LivePipe>>>,
}

/// A pipe with what is known of its runs.
pub struct LivePipe {
    /// The component as configured.
    pub component: Component,
    /// Its settings; why not, where they cannot be read.
    pub pipe: Result<Pipe, String>,
    /// Shared with what the pipe becomes when its configuration changes: a run that is under way
    /// then still counts, and two runs of one pipe never meet.
    state: Arc<Mutex<LiveState>>,
    /// Posts to one pipe are taken in order.
    pub(crate) receiving: Arc<Mutex<()>>,
}

/// What is known of a pipe's runs since the node started.
#[derive(Clone, Default)]
pub struct LiveState {
    /// A run is under way.
    pub running: bool,
    /// The stop request of that run.
    pub cancel: Cancel,
    /// When it began.
    pub running_since: Option<Timestamp>,
    /// The last run's outcome.
    pub last: Option<Summary>,
    /// How many runs were made since the node started.
    pub runs: u64,
    /// When the schedule says the next one is.
    pub next: Option<Timestamp>,
    /// Something changed upstream during the run: one more run follows it.
    pub signalled: bool,
    /// That run is to be a rescan.
    pub rescan_pending: bool,
    /// Disabled by hand, with the comment.
    pub disabled: Option<String>,
}

const DISABLED: &[u8] = b"disabled";

impl LivePipe {
    /// The pipe's id.
    pub fn id(&self) -> &str {
        &self.component.id
    }

    /// A copy of what is known of its runs.
    pub fn state(&self) -> LiveState {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// Asks for one more run after the one that is under way; `false` when none is.
    pub(crate) fn ask_again(&self, rescan: bool) -> bool {
        let mut state = self.lock();
        if state.running {
            state.signalled = true;
            state.rescan_pending |= rescan;
        }
        state.running
    }

    /// The settings, if the pipe can run at all.
    pub fn usable(&self) -> Result<&Pipe, Refusal> {
        let id = self.id().to_owned();
        if !self.component.is_valid() {
            let first = self
                .component
                .problems
                .iter()
                .find(|problem| problem.is_error());
            let words = first.map_or("its configuration has errors".into(), ToString::to_string);
            return Err(Refusal::Unusable(id, words));
        }
        if let Some(why) = &self.component.unsupported {
            return Err(Refusal::Unusable(id, why.clone()));
        }
        self.pipe
            .as_ref()
            .map_err(|why| Refusal::Unusable(id, why.clone()))
    }

    /// The settings, if the pipe has a pump that may run.
    pub fn runnable(&self) -> Result<&Pipe, Refusal> {
        let pipe = self.usable()?;
        if self.component.is_endpoint() {
            let why = "entities flow when they are posted or asked for".to_owned();
            return Err(Refusal::NoPump(pipe.id.clone(), why));
        }
        if self
            .component
            .pump()
            .map()
            .get("mode")
            .is_some_and(|mode| mode == "off")
        {
            return Err(Refusal::NoPump(
                pipe.id.clone(),
                "its mode is \"off\"".to_owned(),
            ));
        }
        Ok(pipe)
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
            systems: systems.clone(),
            services,
            clock,
            secrets,
            registry,
        };
        Hub {
            world,
            systems,
            configuration: RwLock::default(),
            pipes: RwLock::default(),
        }
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
    /// When the store cannot be read.
    pub fn apply(&self, configuration: Configuration) -> Result<(), Failure> {
        let old = self.configuration();
        let changes = diff(&old, &configuration);
        self.systems.apply(&configuration);
        let mut pipes = self.pipes.write().unwrap_or_else(|lock| lock.into_inner());
        for id in changes.removed.iter().chain(&changes.changed) {
            if let Some(pipe) = pipes.get(id) {
                pipe.lock().cancel.cancel();
            }
        }
        let mut fresh = BTreeMap::new();
        for component in configuration.pipes() {
            let id = component.id.clone();
            let unchanged = !changes.changed.contains(&id);
            let live = match pipes.remove(&id) {
                Some(live) if unchanged && live.component.original == component.original => live,
                // The run that is ending and the next one share a state, so that they never meet.
                old => Arc::new(self.enliven(component, old.as_deref())?),
            };
            self.prepare(&live)?;
            fresh.insert(id, live);
        }
        *pipes = fresh;
        drop(pipes);
        *self
            .configuration
            .write()
            .unwrap_or_else(|lock| lock.into_inner()) = Arc::new(configuration);
        Ok(())
    }

    fn enliven(&self, component: &Component, old: Option<&LivePipe>) -> Result<LivePipe, Failure> {
        let registry = &self.world.registry;
        let folder = component.folder.clone();
        let pipe = Pipe::of(&component.id, &component.effective, folder, registry);
        let state = old.map(|old| old.state.clone()).unwrap_or_default();
        let receiving = old.map(|old| old.receiving.clone()).unwrap_or_default();
        let mut disabled = None;
        let log = crate::execution_log::dataset_id(&component.id);
        if let Some(dataset) = self.world.store.find(&log)? {
            let rows = dataset
                .snapshot()?
                .state(&progress::space(&component.id), DISABLED)?;
            let comment = rows.into_iter().next().map(|(_, comment)| comment);
            disabled = comment.map(|text| String::from_utf8_lossy(&text).into_owned());
        }
        let pipe = pipe.map_err(|failure| failure.to_string());
        let live = LivePipe {
            component: component.clone(),
            pipe,
            state,
            receiving,
        };
        live.lock().disabled = disabled;
        Ok(live)
    }

    /// The dataset behind a receiver exists, and counts as populated, before anything is posted.
    fn prepare(&self, live: &LivePipe) -> Result<(), Failure> {
        let source = live.component.source();
        let receives = source
            .map()
            .get("type")
            .is_some_and(|kind| kind == "http_endpoint");
        let populate = source.bool("auto_populate_dataset", true).unwrap_or(true);
        let Some(name) = live
            .component
            .sink_dataset()
            .filter(|_| receives && populate)
        else {
            return Ok(());
        };
        let dataset = self.world.store.open(name, true)?;
        if !dataset.snapshot()?.head().populated {
            commit_state(dataset.as_ref(), &[], true, self.world.clock.as_ref())?;
        }
        Ok(())
    }

    /// The pipes, by id.
    pub fn pipes(&self) -> Vec<Arc<LivePipe>> {
        let pipes = self.pipes.read().unwrap_or_else(|lock| lock.into_inner());
        pipes.values().cloned().collect()
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
    /// pipe stays still unless the caller enables it.
    pub fn run(&self, live: &LivePipe, request: &Request) -> Result<Summary, Refusal> {
        let pipe = live.runnable()?;
        let cancel = self.begin(live)?;
        Ok(self.finish(live, pipe, request, &cancel))
    }

    /// Marks a pipe as running, so that a caller can hand the run to another thread.
    pub fn begin(&self, live: &LivePipe) -> Result<Cancel, Refusal> {
        if let Some(comment) = &live.lock().disabled {
            let comment = if comment.is_empty() {
                String::new()
            } else {
                format!(": {comment}")
            };
            return Err(Refusal::Disabled(live.id().to_owned(), comment));
        }
        self.begin_by_hand(live)
    }

    /// The same for a person, who may run a disabled pipe, too.
    pub fn begin_by_hand(&self, live: &LivePipe) -> Result<Cancel, Refusal> {
        let mut state = live.lock();
        if state.running {
            return Err(Refusal::Running(live.id().to_owned()));
        }
        state.running = true;
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
        let summary = pump::run(pipe, &self.world, request, cancel);
        let mut state = live.lock();
        state.running = false;
        state.running_since = None;
        state.runs += 1;
        state.last = Some(summary.clone());
        summary
    }

    /// Asks the run that is under way to stop; `false` when none is.
    pub fn stop(&self, id: &str) -> Result<bool, Refusal> {
        let live = self.pipe(id)?;
        let state = live.lock();
        state.cancel.cancel();
        Ok(state.running)
    }

    /// Asks every run to stop.
    pub fn stop_all(&self) {
        self.pipes()
            .iter()
            .for_each(|live| live.lock().cancel.cancel());
    }

    /// The dataset that keeps a pipe's place.
    pub fn home(&self, pipe: &Pipe) -> Result<Arc<dyn Dataset>, Failure> {
        let name = match pipe.sink_dataset() {
            Some(dataset) => dataset.to_owned(),
            None => crate::execution_log::dataset_id(&pipe.id),
        };
        Ok(self.world.store.open(&name, true)?)
    }

    /// A pipe's place.
    pub fn place(&self, pipe: &Pipe) -> Result<Place, Failure> {
        Ok(Place::load(
            self.home(pipe)?.snapshot()?.as_ref(),
            &pipe.id,
        )?)
    }

    /// Sets a pipe's offset by hand; `None` resets it, and the next run is a full one.
    pub fn set_offset(&self, id: &str, offset: Option<Offset>, user: &User) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        if live
            .component
            .props()
            .bool("disable_set_last_seen", false)?
        {
            return Err(Refusal::Protected(id.to_owned()));
        }
        if live.state().running {
            return Err(Refusal::Running(id.to_owned()));
        }
        let home = self.home(pipe)?;
        let snapshot = home.snapshot().map_err(Failure::from)?;
        let old = Place::load(snapshot.as_ref(), id)
            .map_err(Failure::from)?
            .offset;
        let mut state = Vec::new();
        if pipe.sink_dataset().is_some() {
            state = progress::reset(snapshot.as_ref(), id).map_err(Failure::from)?;
        } else {
            state.push(progress::save_unfinished(id, None));
        }
        state.push(progress::write(id, progress::BOUNDARY, None));
        state.retain(|write| write.key != b"offset");
        state.push(progress::save_offset(id, offset.as_ref()));
        commit_state(home.as_ref(), &state, false, self.world.clock.as_ref())?;
        let log = self.log(id)?;
        log.append(
            vec![log.offset_set(old.as_ref(), offset.as_ref(), user)],
            &[],
        )?;
        Ok(())
    }

    /// Sets a pipe's offset to the end of its source dataset.
    pub fn set_offset_to_end(&self, id: &str, user: &User) -> Result<Option<Offset>, Refusal> {
        let live = self.pipe(id)?;
        let pipe = live.usable()?;
        let datasets = pipe.source_datasets();
        let ([name], "dataset") = (datasets.as_slice(), pipe.kind("source")) else {
            let words = format!(
                "the pump of pipe {id:?} doesn't support the operation \
                 \"set-last-seen-to-end\": only a dataset source knows its end"
            );
            return Err(Refusal::Failed(Failure::config(words)));
        };
        let head = match self.world.store.find(name).map_err(Failure::from)? {
            Some(dataset) => dataset.snapshot().map_err(Failure::from)?.head().next,
            None => 0,
        };
        let offset = head
            .checked_sub(1)
            .and_then(|seq| i64::try_from(seq).ok())
            .map(Offset::Int);
        self.set_offset(id, offset.clone(), user)?;
        Ok(offset)
    }

    /// Enables or disables a pipe, for good.
    pub fn switch(
        &self,
        id: &str,
        enabled: bool,
        comment: &str,
        user: &User,
    ) -> Result<(), Refusal> {
        let live = self.pipe(id)?;
        let log = self.log(id)?;
        let value = (!enabled).then(|| comment.as_bytes().to_vec());
        let state = [progress::write(id, DISABLED, value)];
        let words = Some(comment).filter(|text| !text.is_empty());
        log.append(vec![log.switched(enabled, words, user)], &state)?;
        live.lock().disabled = (!enabled).then(|| comment.to_owned());
        Ok(())
    }

    /// The execution log of a pipe.
    pub fn log(&self, id: &str) -> Result<ExecutionLog, Failure> {
        ExecutionLog::open(self.world.store.as_ref(), id, self.world.clock.clone())
    }
}

/// Commits state alone, durably.
pub(crate) fn commit_state(
    dataset: &dyn Dataset,
    state: &[StateWrite],
    populated: bool,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let rows = tahini_entity::Batch::new();
    let commit = Commit {
        rows: &rows,
        rule: Rule::IfChanged,
        state,
        populated,
        now: clock.micros(),
    };
    dataset.commit(commit)?.1.wait()?;
    Ok(())
}
