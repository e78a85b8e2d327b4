//! A hub with a store, a clock and scripted outsides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::Fields;
use tahini_hub::config::Input;
use tahini_hub::execution_log::Summary;
use tahini_hub::hub::{Hub, LivePipe, Refusal};
use tahini_hub::pump::Request;
use tahini_hub::secrets::MemorySecrets;
use tahini_hub::{Cancel, Clock, Configuration, Failure, Services};
use tahini_store::{Backend, Commit, Files, Limit, Memory, Options, Rule, Show, View};

use crate::middle::Middle;
use crate::script::{REGISTRY, Script, Target, Upstream, WORLDS};

/// A clock that a test owns; it goes on by a microsecond whenever it is read.
pub struct TestClock(AtomicI64);

/// Where every test's clock begins: 2026-01-02T03:04:05Z.
pub const BEGINNING: i64 = 1_767_323_045_000_000;

impl TestClock {
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.fetch_add(1, Ordering::SeqCst)).unwrap()
    }
}

struct NoServices;

impl Services for NoServices {
    fn url(&self, system: &str, _: Duration, _: &Cancel) -> Result<String, Failure> {
        Err(Failure::config(format!("no service {system:?} here")))
    }
}

pub struct World {
    hub: Option<Arc<Hub>>,
    folder: Option<tempfile::TempDir>,
    pub clock: Arc<TestClock>,
    pub script: Arc<Script>,
    key: String,
    components: Vec<Json>,
    secrets: Arc<MemorySecrets>,
}

impl World {
    /// On a store in memory.
    pub fn new() -> World {
        World::on(None)
    }

    /// Once in memory and once on disk.
    pub fn both() -> [World; 2] {
        [World::new(), World::on_disk()]
    }

    /// On a store on disk.
    pub fn on_disk() -> World {
        World::on(Some(tempfile::tempdir().unwrap()))
    }

    fn on(folder: Option<tempfile::TempDir>) -> World {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let key = format!("world {}", COUNT.fetch_add(1, Ordering::SeqCst));
        let script = Arc::new(Script::default());
        WORLDS
            .lock()
            .unwrap()
            .insert(key.clone(), Arc::clone(&script));
        let mut world = World {
            hub: None,
            folder,
            clock: Arc::new(TestClock(AtomicI64::new(BEGINNING))),
            script,
            key,
            components: Vec::new(),
            secrets: Arc::default(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let store: Arc<dyn Backend> = match &self.folder {
            Some(folder) => Arc::new(open_files(folder.path())),
            None => Arc::new(Memory::new()),
        };
        self.start(store);
    }

    /// On a store that the test brings.
    pub fn on_store(store: Arc<dyn Backend>) -> World {
        let mut world = World::new();
        world.start(store);
        world
    }

    /// On a store in memory, with global secrets.
    pub fn with_secrets(secrets: &[(&str, &str)]) -> World {
        let mut memory = MemorySecrets::default();
        for (name, secret) in secrets {
            memory.set(None, name, secret);
        }
        let mut world = World::new();
        world.secrets = Arc::new(memory);
        world.open();
        world
    }

    fn start(&mut self, store: Arc<dyn Backend>) {
        self.hub = Some(Arc::new(Hub::new(
            store,
            Arc::new(NoServices),
            self.clock.clone(),
            self.secrets.clone(),
            REGISTRY,
        )));
    }

    /// Ends the hub and its store and starts both again from disk.
    pub fn restart(&mut self) {
        let hub = self.hub.take().unwrap();
        hub.world.store.close().unwrap();
        drop(hub);
        self.open();
        self.apply().unwrap();
    }

    /// Drops the hub as it is, as a power cut does, and starts another on `store`.
    pub fn start_over(&mut self, store: Arc<dyn Backend>) -> Result<(), Failure> {
        self.hub = None;
        self.start(store);
        self.apply()
    }

    /// The same for worlds on disk; those in memory would lose everything.
    pub fn restart_if_on_disk(&mut self) {
        if self.folder.is_some() {
            self.restart();
        }
    }

    pub fn hub(&self) -> &Arc<Hub> {
        self.hub.as_ref().unwrap()
    }

    /// Adds a pipe, or replaces the one of that id, and applies the configuration.
    pub fn pipe(&mut self, pipe: Json) {
        self.try_pipe(pipe).unwrap();
    }

    /// The same for one that may not be applied.
    pub fn try_pipe(&mut self, mut pipe: Json) -> Result<(), Failure> {
        pipe["type"] = json!("pipe");
        if pipe["source"].is_null() {
            pipe["source"] = json!({"type": "scripted"});
        }
        if pipe["sink"].is_null() {
            pipe["sink"] = json!({"type": "dataset"});
        }
        for part in ["source", "sink"] {
            pipe[part]["world"] = json!(self.key);
        }
        self.components.retain(|known| known["_id"] != pipe["_id"]);
        self.components.push(pipe);
        self.apply()
    }

    /// Takes a pipe away.
    pub fn remove(&mut self, pipe: &str) {
        self.components.retain(|known| known["_id"] != pipe);
        self.apply().unwrap();
    }

    /// Adds a system; a pipe that names it must come after.
    pub fn system(&mut self, system: Json) {
        self.components.push(system);
        self.apply().unwrap();
    }

    /// Applies the configuration as it was last put together.
    pub fn apply(&self) -> Result<(), Failure> {
        let inputs = self.components.iter().cloned().map(Input::new).collect();
        let configuration = Configuration::build(inputs, &Map::new(), &REGISTRY);
        let errors: Vec<String> = configuration
            .problems()
            .filter(|problem| problem.is_error())
            .map(ToString::to_string)
            .collect();
        assert_eq!(errors, [""; 0]);
        self.hub().apply(configuration)
    }

    /// Commits versions to a dataset that counts as populated from then on, at `now`.
    pub fn commit(&self, dataset: &str, rows: &Batch, now: i64) {
        let dataset = self.hub().world.store.open(dataset, true).unwrap();
        let commit = Commit {
            rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: true,
            now,
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit).unwrap().1.wait().unwrap();
    }

    /// Changes what the source of `pipe` has or does.
    pub fn upstream(&self, pipe: &str, change: impl FnOnce(&mut Upstream)) {
        change(
            self.script
                .sources
                .lock()
                .unwrap()
                .entry(pipe.to_owned())
                .or_default(),
        );
    }

    /// Sets the records of the source of `pipe`.
    pub fn records(&self, pipe: &str, records: Vec<Json>) {
        self.upstream(pipe, |upstream| upstream.records = records);
    }

    /// Changes what the sink of `pipe` does, or looks at what it was given.
    pub fn target<T>(&self, pipe: &str, look: impl FnOnce(&mut Target) -> T) -> T {
        let mut sinks: MutexGuard<'_, _> = self.script.sinks.lock().unwrap();
        look(sinks.entry(pipe.to_owned()).or_default())
    }

    /// Changes what the transform of `pipe` does, or looks at what it was given.
    pub fn middle<T>(&self, pipe: &str, look: impl FnOnce(&mut Middle) -> T) -> T {
        let mut transforms = self.script.transforms.lock().unwrap();
        look(transforms.entry(pipe.to_owned()).or_default())
    }

    pub fn live_pipe(&self, pipe: &str) -> Arc<LivePipe> {
        self.hub().pipe(pipe).unwrap()
    }

    pub fn try_run(&self, pipe: &str, request: &Request) -> Result<Summary, Refusal> {
        self.hub().run(&self.live_pipe(pipe), request)
    }

    /// Forgets what was to happen in the middle of something.
    pub fn forget_meanwhile(&self) {
        let mut sources = self.script.sources.lock().unwrap();
        let mut gone = Vec::new();
        gone.extend(
            sources
                .values_mut()
                .filter_map(|it| it.meanwhile.take())
                .map(|it| it.1),
        );
        drop(sources);
        let mut transforms = self.script.transforms.lock().unwrap();
        gone.extend(
            transforms
                .values_mut()
                .filter_map(|it| it.meanwhile.take())
                .map(|it| it.1),
        );
    }

    /// Runs a pipe, whatever comes of it.
    pub fn run(&self, pipe: &str) -> Summary {
        self.try_run(pipe, &Request::default()).unwrap()
    }

    /// Runs a pipe that must succeed.
    pub fn succeed(&self, pipe: &str) -> Summary {
        let summary = self.run(pipe);
        assert!(summary.success(), "{:?}", summary.failure);
        summary
    }

    /// Runs a pipe that must fail, and gives the words.
    pub fn fail(&self, pipe: &str) -> String {
        let summary = self.run(pipe);
        summary.failure.expect("the run fails").to_string()
    }

    pub fn rescan(&self, pipe: &str) -> Summary {
        let request = Request {
            rescan: true,
            ..Request::default()
        };
        self.try_run(pipe, &request).unwrap()
    }

    /// The offset of a pipe as JSON.
    pub fn offset(&self, pipe: &str) -> Json {
        let live = self.live_pipe(pipe);
        let place = self.hub().place(live.usable().unwrap()).unwrap();
        match place.offset {
            None => Json::Null,
            Some(tahini_entity::Offset::Int(number)) => json!(number),
            Some(tahini_entity::Offset::Text(text)) => json!(text.as_str()),
        }
    }

    /// The versions of a dataset in order, with `fields`.
    pub fn versions(&self, dataset: &str, history: bool, fields: Fields) -> Vec<Json> {
        let Some(dataset) = self.hub().world.store.find(dataset).unwrap() else {
            return Vec::new();
        };
        let view = View {
            history,
            deleted: true,
        };
        let limit = Limit {
            rows: usize::MAX,
            bytes: usize::MAX,
        };
        let mut batch = Batch::new();
        let snapshot = dataset.snapshot().unwrap();
        snapshot.changes(None, view, limit, &mut batch).unwrap();
        crate::script::shown(&batch, fields)
    }

    /// How many versions a dataset ever had.
    pub fn version_count(&self, dataset: &str) -> usize {
        self.versions(dataset, true, Fields::CONTENT).len()
    }

    /// The entities of a dataset that are not deleted, by id.
    pub fn entities(&self, dataset: &str) -> BTreeMap<String, Json> {
        let latest = self.versions(dataset, false, Fields::CONTENT).into_iter();
        let living = latest.filter(|entity| entity["_deleted"] != true);
        living
            .map(|entity| (entity["_id"].as_str().unwrap().to_owned(), entity))
            .collect()
    }

    /// The ids of a dataset that are not deleted, sorted.
    pub fn living(&self, dataset: &str) -> Vec<String> {
        self.ids(dataset, false)
    }

    /// The ids of a dataset that are deleted, sorted.
    pub fn deleted(&self, dataset: &str) -> Vec<String> {
        self.ids(dataset, true)
    }

    fn ids(&self, dataset: &str, deleted: bool) -> Vec<String> {
        let latest = self.versions(dataset, false, Fields::CONTENT);
        let wanted = latest
            .iter()
            .filter(|entity| (entity["_deleted"] == true) == deleted);
        let mut ids: Vec<String> = wanted
            .map(|entity| entity["_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    }

    /// The execution log of a pipe, oldest entry first.
    pub fn log(&self, pipe: &str) -> Vec<Json> {
        let dataset = tahini_hub::execution_log::dataset_id(pipe);
        self.versions(
            &dataset,
            true,
            Fields {
                updated: true,
                ..Fields::CONTENT
            },
        )
    }

    /// The kinds of the entries of a pipe's log.
    pub fn log_kinds(&self, pipe: &str) -> Vec<String> {
        let log = self.log(pipe);
        log.iter()
            .map(|entry| entry["event_type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// What the sink of a pipe took, write by write.
    pub fn taken(&self, pipe: &str) -> Vec<Vec<String>> {
        self.target(pipe, |target| {
            let taken = target.attempts.iter().filter(|(_, taken)| *taken);
            taken.map(|(ids, _)| ids.clone()).collect()
        })
    }
}

fn open_files(folder: &Path) -> Files {
    Files::open(folder, Options::default()).unwrap()
}
