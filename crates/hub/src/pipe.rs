//! A pipe as its configuration says it, ready to be opened for runs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Program, Read, compile};
use tahini_entity::Offset;
use tahini_store::Backend;

use crate::builtin::namespaces;
use crate::config::{Component, Moves, Props, dtl_options, resolve_secrets, without_secrets};
use crate::dependency::Limits;
use crate::policy::Policy;
use crate::progress::Place;
use crate::registry::ContinuationDef;
use crate::rescan;
use crate::secrets::SecretSource;
use crate::source::{Continuation, From};
use crate::{
    Cancel, Clock, Ctx, Failure, Known, Registry, Services, Sink, Source, Systems, Traced,
    Transform, execution_log,
};

/// Everything outside a pipe that its runs need.
#[derive(Clone)]
pub struct World {
    /// The datasets.
    pub store: Arc<dyn Backend>,
    /// What is known of datasets beside what the store holds.
    pub known: Arc<Known>,
    /// The open systems.
    pub systems: Arc<dyn Systems>,
    /// The hosted services.
    pub services: Arc<dyn Services>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// What is told of the requests of a run.
    pub traced: Arc<Traced>,
    /// The component types.
    pub registry: Registry,
}

/// A pipe's settings, read once from its effective configuration.
#[derive(Clone, Debug)]
pub struct Pipe {
    /// The pipe's id.
    pub id: String,
    /// The effective configuration; secrets are not filled in.
    pub effective: Json,
    /// Where parts of it were written.
    moves: Moves,
    /// The folder of its project.
    pub folder: Option<PathBuf>,
    /// The datasets that its rules read.
    pub reads: Vec<Read>,
    /// How failures are answered.
    pub policy: Policy,
    /// Source entities a batch.
    pub batch_size: usize,
    /// Batches between two saves of the offset.
    pub checkpoint_interval: u64,
    /// How the place is kept.
    pub continuation: Continuation,
    /// The first run's since, where the configuration gives one.
    pub initial_since: Option<Offset>,
    /// Whether rescans go on beside incremental runs; why not, where they do not.
    pub background: Result<(), &'static str>,
    /// How many entities a run may process again because of what they are joined with.
    pub tracking: Limits,
    /// Every n-th run is a rescan.
    pub rescan_run_count: Option<u64>,
    /// Every how many runs is a partial rescan, and how far it goes back.
    pub partial_rescan: Option<(u64, u64)>,
    /// An empty source is a failure.
    pub fail_if_empty: bool,
    /// Runs that do nothing are logged too.
    pub log_noop: bool,
    /// Runs that do nothing are logged when the log tells of no completed run for so long.
    pub notification_granularity: Option<Duration>,
    /// Types are inferred from the entities (`infer_pipe_entity_types`).
    pub infers: bool,
    /// A run that changed nothing in the sink does nothing, even when the source gave entities.
    pub noop_by_changes: bool,
}

/// The entities that a checkpoint holds unless the configuration says otherwise.
const CHECKPOINT_ENTITIES: u64 = 10_000;
const BATCH_SIZE: i64 = 100;
/// A century: the default of `notification_granularity` means that and is longer.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Pipe {
    /// Reads a pipe's settings.
    ///
    /// # Errors
    /// Config, with the path of the property.
    pub fn of(component: &Component, registry: &Registry) -> Result<Pipe, Failure> {
        let (id, effective) = (component.id.as_str(), &component.effective);
        let empty = Map::new();
        let part = |name: &str| {
            effective
                .get(name)
                .and_then(Json::as_object)
                .unwrap_or(&empty)
        };
        let root = effective.as_object().unwrap_or(&empty);
        let (source, pump) = (part("source"), part("pump"));
        let (whole, source) = (Props::new("$", root), Props::new("$.source", source));
        let pump = Props::new("$.pump", pump);
        let kind = source.str("type")?;
        let def = registry.source(kind).ok_or_else(|| {
            Failure::config(format!(
                "$.source.type: expected a known source, found {kind:?}"
            ))
        })?;
        let batch_size = whole.int("batch_size", BATCH_SIZE)?.max(1);
        let batch_size = usize::try_from(batch_size).unwrap_or(usize::MAX);
        let interval = match whole.opt_int("checkpoint_interval")? {
            Some(interval) => interval.max(1).unsigned_abs(),
            None if batch_size == 1 => 1,
            None => (CHECKPOINT_ENTITIES / batch_size as u64).max(1),
        };
        // A cron expression goes first.
        let rescans = match pump.get("rescan_cron_expression") {
            Some(_) => None,
            None => pump.opt_int("rescan_run_count")?,
        };
        let continuation = continuation(source, def.continuation)?;
        let background = match whole.bool("enable_background_rescan", false)? {
            true => rescan::obstacle(continuation, effective).map_or(Ok(()), Err),
            false => Err("`enable_background_rescan` is not set"),
        };
        Ok(Pipe {
            id: id.to_owned(),
            effective: effective.clone(),
            moves: component.moves.clone(),
            folder: component.folder.clone(),
            reads: component.reads.clone(),
            policy: Policy::of(id, pump, &component.original["pump"])?,
            batch_size,
            checkpoint_interval: interval,
            continuation,
            background,
            initial_since: initial_since(source)?,
            tracking: Limits::of_pipe(whole)?,
            rescan_run_count: rescans.map(|count| count.max(1).unsigned_abs()),
            partial_rescan: partial_rescan(pump)?,
            fail_if_empty: source.opt_str("if_source_empty")? == Some("fail"),
            infers: whole.bool("infer_pipe_entity_types", true)?,
            log_noop: pump.bool("log_events_noop_runs", false)?,
            notification_granularity: pump
                .opt_int("notification_granularity")?
                .map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()))
                .filter(|longest| *longest < NEVER),
            noop_by_changes: pump.bool("log_events_noop_runs_changes_only", true)?,
        })
    }

    /// Whether the next run has to be a rescan, as the number of runs since the last one says.
    pub(crate) fn rescan_is_due(&self, place: &Place) -> bool {
        let every = self.rescan_run_count;
        every.is_some_and(|every| place.runs + 1 >= every)
    }

    /// The `type` of the source or sink (`part`).
    pub fn kind(&self, part: &str) -> &str {
        self.effective[part]["type"].as_str().unwrap_or_default()
    }

    /// The dataset that the sink writes, if it is a dataset sink.
    pub fn sink_dataset(&self) -> Option<&str> {
        (self.kind("sink") == "dataset").then(|| self.effective["sink"]["dataset"].as_str())?
    }

    /// The dataset that keeps the pipe's place: the one that it writes, or its execution log.
    pub fn home(&self) -> Cow<'_, str> {
        match self.sink_dataset() {
            Some(dataset) => dataset.into(),
            None => execution_log::dataset_id(&self.id).into(),
        }
    }

    /// The datasets that the source reads.
    pub fn source_datasets(&self) -> Vec<&str> {
        let source = &self.effective["source"];
        let many = source["datasets"].as_array().into_iter().flatten();
        let names = many
            .chain(Some(&source["dataset"]))
            .filter_map(Json::as_str);
        names
            .map(|name| {
                name.rsplit_once(' ')
                    .map_or(name, |(dataset, _alias)| dataset)
            })
            .collect()
    }

    /// Whether the source may hold newer entities back (`completeness`).
    pub(crate) fn bounds_source(&self) -> bool {
        let bound = &self.effective["source"]["completeness"];
        !(bound.is_null() || *bound == false)
    }

    /// The datasets that the source and the rules read.
    pub fn inputs(&self) -> BTreeSet<String> {
        let sources = self.source_datasets().into_iter().map(str::to_owned);
        let joined = self.reads.iter().map(|read| read.dataset.clone());
        sources.chain(joined).collect()
    }

    /// The systems that runs of this pipe touch, each once; none when they stay in the store.
    pub fn systems(&self) -> Vec<&str> {
        let ends = [&self.effective["source"], &self.effective["sink"]];
        let parts = ends.into_iter().chain(self.transforms());
        let mut ids: Vec<&str> = parts.filter_map(|part| part["system"].as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The transforms as a flat list of configurations; the older `chained` form is unfolded.
    pub fn transforms(&self) -> Vec<&Json> {
        self.unfolded()
            .into_iter()
            .map(|(_, config, _)| config)
            .collect()
    }

    /// The same list, each with its rules, if it has some that compile. What secrets stand for is
    /// not in them: they can be looked at, and are not for runs.
    pub(crate) fn programs(&self) -> Vec<(&Json, Option<Program>)> {
        let nothing = Map::new();
        let map = self.effective.as_object().unwrap_or(&nothing);
        let program = |transform: &Json| {
            let rules = Some(&transform["rules"]).filter(|rules| rules.is_object());
            let rules = rules.filter(|_| transform["type"] == "dtl")?;
            let options = dtl_options(map, transform.as_object()?);
            compile(&without_secrets(rules), &options).ok()
        };
        let transforms = self.transforms().into_iter();
        transforms
            .map(|transform| (transform, program(transform)))
            .collect()
    }

    /// The transforms, each with its place in the configuration as that was written.
    pub(crate) fn placed_transforms(&self) -> Vec<(JsonPath, &Json)> {
        let unfolded = self.unfolded().into_iter();
        unfolded
            .map(|(path, config, _)| (self.moves.written(&path), config))
            .collect()
    }

    /// The first transform that changes something outside when it runs (`side_effects`): its
    /// position in [`Pipe::transforms`].
    pub fn first_side_effect(&self) -> Option<usize> {
        self.unfolded().iter().position(|(.., touches)| *touches)
    }

    /// The flat list, each with its place, and with whether it has side effects, itself or by the
    /// list it stands in.
    fn unfolded(&self) -> Vec<(JsonPath, &Json, bool)> {
        type Flat<'a> = Vec<(JsonPath, &'a Json, bool)>;
        fn unfold<'a>(path: JsonPath, config: &'a Json, outer: bool, out: &mut Flat<'a>) {
            let touches = outer || config["side_effects"] == true;
            match config {
                Json::Array(list) => {
                    let items = list.iter().enumerate();
                    items.for_each(|(at, item)| unfold(path.at(at), item, outer, out));
                }
                Json::Object(map) if map.get("type").is_some_and(|kind| kind == "chained") => {
                    let inner = map.get("transforms").into_iter();
                    inner.for_each(|item| unfold(path.name("transforms"), item, touches, out));
                }
                Json::Object(_) => out.push((path, config, touches)),
                _ => {}
            }
        }
        let mut out = Vec::new();
        let path = JsonPath::default().name("transform");
        unfold(path, &self.effective["transform"], false, &mut out);
        out
    }

    /// Opens the source for a run.
    pub fn open_source(
        &self,
        world: &World,
        cancel: &Cancel,
        from: From,
    ) -> Result<Box<dyn Source>, Failure> {
        let kind = self.kind("source");
        let def = world
            .registry
            .source(kind)
            .ok_or_else(|| unknown("source", kind))?;
        let place = self.moves.written(&JsonPath::default().name("source"));
        let config = &self.effective["source"];
        self.with(world, cancel, (&place, config), |ctx| (def.open)(ctx, from))
    }

    /// Opens the sink for a run.
    pub fn open_sink(&self, world: &World, cancel: &Cancel) -> Result<Box<dyn Sink>, Failure> {
        let kind = self.kind("sink");
        let def = world
            .registry
            .sink(kind)
            .ok_or_else(|| unknown("sink", kind))?;
        let place = self.moves.written(&JsonPath::default().name("sink"));
        let config = &self.effective["sink"];
        self.with(world, cancel, (&place, config), |ctx| (def.open)(ctx))
    }

    /// Opens the transforms for a run, in order.
    pub fn open_transforms(
        &self,
        world: &World,
        cancel: &Cancel,
    ) -> Result<Vec<Box<dyn Transform>>, Failure> {
        let mut open = Vec::new();
        for (place, config) in self.placed_transforms() {
            let kind = config["type"].as_str().unwrap_or_default();
            let def = world
                .registry
                .transform(kind)
                .ok_or_else(|| unknown("transform", kind))?;
            open.push(self.with(world, cancel, (&place, config), |ctx| (def.open)(ctx))?);
        }
        Ok(open)
    }

    /// Opens everything between source and sink, in order: what adds namespaces, the transforms,
    /// what removes namespaces.
    pub fn open_way(
        &self,
        world: &World,
        cancel: &Cancel,
    ) -> Result<Vec<Box<dyn Transform>>, Failure> {
        let mut way: Vec<Box<dyn Transform>> = Vec::new();
        way.extend(self.adding_namespaces());
        way.extend(self.open_transforms(world, cancel)?);
        way.extend(self.removing_namespaces());
        Ok(way)
    }

    /// Whether anything stands between source and sink.
    pub(crate) fn changes_entities(&self) -> bool {
        let flag = |name: &str| self.effective[name] == true;
        flag("add_namespaces") || flag("remove_namespaces") || !self.transforms().is_empty()
    }

    /// What stands before the first transform when `add_namespaces` is set.
    pub fn adding_namespaces(&self) -> Option<Box<dyn Transform>> {
        let pipe = self.effective.as_object()?;
        (pipe.get("add_namespaces") == Some(&Json::Bool(true))).then(|| namespaces::adding(pipe))
    }

    /// What stands behind the last transform when `remove_namespaces` is set.
    pub fn removing_namespaces(&self) -> Option<Box<dyn Transform>> {
        (self.effective["remove_namespaces"] == true).then(namespaces::removing)
    }

    /// Opens a part of the pipe: `open` gets its configuration with secrets filled in.
    pub(crate) fn with<T>(
        &self,
        world: &World,
        cancel: &Cancel,
        (place, config): (&JsonPath, &Json),
        open: impl FnOnce(&Ctx<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let system = config["system"].as_str();
        let filled = resolve_secrets(config, world.secrets.as_ref(), system)?;
        let (empty, path) = (Map::new(), place.to_string());
        let ctx = Ctx {
            owner: &self.id,
            place,
            props: Props::new(&path, filled.as_object().unwrap_or(&empty)),
            whole: Props::new("$", self.effective.as_object().unwrap_or(&empty)),
            store: &world.store,
            known: &world.known,
            joined: &self.reads,
            systems: &world.systems,
            services: &world.services,
            clock: &world.clock,
            secrets: &world.secrets,
            traced: &world.traced,
            cancel,
            folder: self.folder.as_ref(),
            registry: &world.registry,
        };
        open(&ctx)
    }
}

fn unknown(role: &str, kind: &str) -> Failure {
    Failure::config(format!(
        "$.{role}.type: expected a known {role}, found {kind:?}"
    ))
}

pub(crate) fn continuation(
    source: Props<'_>,
    def: ContinuationDef,
) -> Result<Continuation, Failure> {
    let flag = |name: &str, default: bool| {
        if def.configurable {
            source.bool(name, default)
        } else {
            Ok(default)
        }
    };
    Ok(Continuation::of(
        flag("supports_since", def.supports_since)?,
        flag("is_since_comparable", def.is_since_comparable)?,
        flag("is_chronological", def.is_chronological)?,
    ))
}

fn partial_rescan(pump: Props<'_>) -> Result<Option<(u64, u64)>, Failure> {
    let runs = pump.opt_int("partial_rescan_run_count")?;
    let delta = pump.opt_int("partial_rescan_delta")?;
    let at_least_1 = |number: i64| number.max(1).unsigned_abs();
    Ok(runs.map(at_least_1).zip(delta.map(at_least_1)))
}

fn initial_since(source: Props<'_>) -> Result<Option<Offset>, Failure> {
    match source.get("initial_since_value") {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(Offset::Text(text.as_str().into()))),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(Offset::Int(number))),
            None => Err(source.wrong("initial_since_value", "text or a whole number", Some(value))),
        },
    }
}
