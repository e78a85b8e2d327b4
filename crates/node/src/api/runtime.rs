//! Pipes and pumps as the API shows them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::breaker::{self, Tripped};
use tahini_hub::config::{Problem, keeps_places};
use tahini_hub::execution_log::{self, Summary};
use tahini_hub::hub::{LivePipe, LiveState, shown};
use tahini_hub::reprocessing::{self, Reason};
use tahini_hub::{Class, Failure, completeness, populated, progress, rescan};
use tahini_store::{Snapshot, StoreError};

use super::Node;
use super::entities::Said;
use crate::commands::run::summary_json;

/// Which parts of a pipe's JSON are wanted (`fields`): `runtime,config` or `-graph`.
pub struct Parts<'a>(Option<&'a str>);

impl<'a> Parts<'a> {
    /// As the parameter says; all without one.
    pub fn of(fields: Option<&'a str>) -> Parts<'a> {
        Parts(fields.filter(|fields| !fields.is_empty()))
    }

    fn has(&self, name: &str) -> bool {
        let Some(fields) = self.0 else { return true };
        let mut names = fields.split(',').map(str::trim);
        if fields.starts_with('-') {
            names.all(|field| field.strip_prefix('-') != Some(name))
        } else {
            names.any(|field| field == name)
        }
    }
}

/// A pipe: its configuration, how it is doing, what it takes on disk.
pub fn pipe_json(node: &Node, live: &LivePipe, parts: &Parts<'_>) -> Json {
    let component = &live.component;
    let mut pipe = Map::new();
    pipe.insert("_id".to_owned(), json!(component.id));
    if parts.has("config") {
        let config = json!({
            "original": component.original,
            "effective": component.effective,
            "audit": {},
        });
        pipe.insert("config".to_owned(), config);
    }
    if parts.has("runtime") {
        pipe.insert("runtime".to_owned(), runtime_json(node, live));
    }
    if parts.has("storage") {
        let head = component
            .sink_dataset()
            .and_then(|name| node.head(name).ok().flatten());
        pipe.insert(
            "storage".to_owned(),
            json!(head.map_or(0, |head| head.bytes)),
        );
    }
    Json::Object(pipe)
}

/// The pump of a pipe.
pub fn pump_json(node: &Node, live: &LivePipe) -> Json {
    json!({ "_id": format!("pump:{}", live.id()), "runtime": runtime_json(node, live) })
}

/// How a pipe is doing. A place that cannot be read is told, and hides nothing else.
fn runtime_json(node: &Node, live: &LivePipe) -> Json {
    let state = live.state();
    let place = node.offset(live);
    let (offset, trouble) = match place {
        Ok(offset) => (offset, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut runtime = Map::new();
    let mut set = |name: &str, value: Json| {
        runtime.insert(name.to_owned(), value);
    };
    let last = state.last.as_ref();
    let failure = last.and_then(|summary| summary.failure.as_ref());
    set("state", json!(state_name(live, &state)));
    set("is-running", json!(state.running));
    set("rescan", rescan_json(node, live, &state));
    set("is-disabled", json!(state.disabled.is_some()));
    set("disabled-comment", json!(state.disabled));
    set(
        "last-started",
        moment(state.running_since.or(last.map(|summary| summary.started))),
    );
    set("last-run", moment(last.map(|summary| summary.ended)));
    set(
        "next-run",
        moment(
            state
                .next
                .filter(|_| node.automatic && state.disabled.is_none()),
        ),
    );
    set(
        "current-time",
        moment(Some(node.assembly.hub.world.clock.now())),
    );
    set(
        "success",
        last.map_or(Json::Null, |summary| json!(summary.success())),
    );
    set(
        "last-message",
        json!(trouble.or(failure.map(|failure| failure.message.clone()))),
    );
    set(
        "last-original-error-message",
        json!(failure.and_then(|failure| failure.original.clone())),
    );
    set("last-run-summary", last.map_or(Json::Null, summary_json));
    set("average-process-time", average(last));
    set("queues", queues_json(node, live));
    set("last-seen", offset.as_ref().map_or(Json::Null, offset_json));
    set("progress", progress_json(last));
    set(
        "execution-dataset",
        json!(execution_log::dataset_id(live.id())),
    );
    set("supported-operations", json!(operations(live)));
    set("dependencies", json!(joined(live)));
    set("origin", json!("user"));
    set("version", json!(1));
    let facts = config_facts(live).into_iter();
    let facts = facts.chain(flow_facts(node, live, last));
    for (name, value) in facts {
        set(name, value);
    }
    Json::Object(runtime)
}

/// The datasets that kept the last run from beginning, as far as they still would.
fn waits_for(node: &Node, live: &LivePipe, last: Option<&Summary>) -> Vec<String> {
    let failure = last.and_then(|summary| summary.failure.as_ref());
    let (Some(failure), Ok(pipe)) = (failure, &live.pipe) else {
        return Vec::new();
    };
    if failure.class != Class::Waiting {
        return Vec::new();
    }
    // A dataset that cannot be read is told by the next run.
    let missing = populated::missing(pipe, &node.assembly.hub.world).unwrap_or_default();
    missing.into_iter().map(|one| one.dataset).collect()
}

/// How many versions wait in the source, and in each dataset that is followed. A place that cannot be
/// read is told elsewhere.
fn queues_json(node: &Node, live: &LivePipe) -> Json {
    let waiting = queue(node, live).ok().flatten();
    let changed = node.assembly.hub.unfollowed(live).unwrap_or_default();
    json!({ "source": waiting, "dependencies": changed })
}

/// The rescan beside runs: whether it goes on, whether one waits to be gone on with, and how the
/// last one ended; `null` where rescans take the place of a run.
fn rescan_json(node: &Node, live: &LivePipe, state: &LiveState) -> Json {
    let beside = live.pipe.as_ref().is_ok_and(|pipe| pipe.background.is_ok());
    if !beside {
        return Json::Null;
    }
    // A place that cannot be read is told elsewhere.
    let home = node.home(live).ok().flatten();
    let unfinished = home.and_then(|home| rescan::is_unfinished(home.as_ref(), live.id()).ok());
    json!({
        "is-running": state.rescanning,
        "is-unfinished": unfinished.unwrap_or(false),
        "last-started": moment(state.rescanning_since.or(
            state.last_rescan.as_ref().map(|summary| summary.started)
        )),
        "last-run-summary": state.last_rescan.as_ref().map_or(Json::Null, summary_json),
    })
}

/// What flows, and what does not.
fn flow_facts(node: &Node, live: &LivePipe, last: Option<&Summary>) -> Vec<(&'static str, Json)> {
    let held = last.and_then(|summary| summary.held_back.as_deref());
    // A place that cannot be read is told elsewhere.
    let home = node.home(live).ok().flatten();
    let reasons = home.and_then(|home| reprocessing::reasons_in(home.as_ref(), live.id()).ok());
    let reasons = reasons.unwrap_or_default();
    let reasons = reasons.iter().map(Reason::to_json);
    let tripped = node.assembly.hub.tripped(live).ok().flatten();
    let has_breaker = tripped.is_some() || live.has_breaker();
    let turns = live.state().feeds_itself;
    vec![
        ("feeds-itself", json!(turns.map(|found| found.to_json()))),
        ("waits-for", json!(waits_for(node, live, last))),
        ("has-circuit-breaker", json!(has_breaker)),
        ("circuit-breaker", breaker_json(tripped.as_ref())),
        ("held-back", json!(held)),
        ("out-of-sync", Json::Array(reasons.collect())),
    ]
}

/// A circuit breaker: whether it is tripped and, if so, by which pipe, since when, why, and how
/// many versions are held back.
pub fn breaker_json(tripped: Option<&Tripped>) -> Json {
    match tripped {
        None => json!({ "tripped": false }),
        Some(tripped) => json!({
            "tripped": true,
            "pipe": tripped.pipe,
            "since": moment(Some(tripped.at)),
            "message": tripped.message,
            "uncommitted": tripped.versions,
        }),
    }
}

fn config_facts(live: &LivePipe) -> Vec<(&'static str, Json)> {
    let component = &live.component;
    let (mut errors, warnings) = by_level(&component.problems);
    if component.is_valid()
        && let Err(why) = &live.pipe
    {
        errors.push(json!({ "level": "error", "msg": why, "elements": "$" }));
    }
    let continuation = live.pipe.as_ref().ok().map(|pipe| pipe.continuation.name());
    let protected = component
        .props()
        .bool("disable_set_last_seen", false)
        .unwrap_or(false);
    vec![
        (
            "is-valid-config",
            json!(component.is_valid() && live.pipe.is_ok()),
        ),
        ("config-errors", Json::Array(errors)),
        ("config-warnings", Json::Array(warnings)),
        ("unsupported", json!(component.unsupported)),
        ("continuation", json!(continuation)),
        (
            "supports-since",
            json!(continuation.is_some_and(|name| name != "none")),
        ),
        ("disable-set-last-seen", json!(protected)),
    ]
}

/// The errors of a component, and its warnings: clients take a component for broken when they
/// find anything in `config-errors`, so that warnings have a list of their own.
pub fn by_level<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> (Vec<Json>, Vec<Json>) {
    let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
        problems.into_iter().partition(|problem| problem.is_error());
    let json = |problems: Vec<&Problem>| problems.into_iter().map(Problem::to_json).collect();
    (json(errors), json(warnings))
}

fn state_name(live: &LivePipe, state: &LiveState) -> Option<&'static str> {
    if live.component.is_endpoint() {
        None
    } else if state.running {
        Some("running")
    } else if state.disabled.is_some() {
        Some("disabled")
    } else if state.last.is_some() {
        Some("finished")
    } else {
        Some("stopped")
    }
}

/// What the pump of a pipe can be asked for.
pub fn operations(live: &LivePipe) -> Vec<&'static str> {
    if live.component.is_endpoint() {
        return vec!["enable", "disable", "discard-inferred-schema"];
    }
    let mut all = vec![
        "start",
        "start-rescan",
        "reset-rescan",
        "stop",
        "enable",
        "disable",
        "update-last-seen",
        "discard-retries",
        "retry-dead-letters",
        "discard-inferred-schema",
    ];
    if reads_datasets(live) {
        all.push("set-last-seen-to-end");
    }
    if !live.ways.datasets().is_empty() {
        all.extend(["reset-tracking", "set-tracking-to-start"]);
    }
    all
}

/// Whether the source is `dataset`, whose offsets are sequence numbers.
pub fn is_dataset_source(live: &LivePipe) -> bool {
    live.component
        .source()
        .map()
        .get("type")
        .is_some_and(|kind| kind == "dataset")
}

/// Whether the offsets of the source are sequence numbers of datasets.
fn reads_datasets(live: &LivePipe) -> bool {
    let kind = live.component.source().map().get("type");
    kind.and_then(Json::as_str).is_some_and(keeps_places)
}

/// How many versions wait in the source's datasets; `None` where nobody can know.
pub fn queue(node: &Node, live: &LivePipe) -> Result<Option<u64>, StoreError> {
    match live.component.is_endpoint() {
        true => Ok(None),
        false => node.assembly.hub.unread(live),
    }
}

/// The datasets that the pipe's rules read beside its source.
fn joined(live: &LivePipe) -> BTreeSet<&str> {
    let reads = live.pipe.iter().flat_map(|pipe| &pipe.reads);
    reads.map(|read| read.dataset.as_str()).collect()
}

fn average(last: Option<&Summary>) -> Json {
    match last {
        Some(summary) if summary.read > 0 => json!(summary.total_seconds() / summary.read as f64),
        _ => Json::Null,
    }
}

fn progress_json(last: Option<&Summary>) -> Json {
    let processed = last.map(|summary| summary.read);
    json!({ "processed": processed, "total-estimate": null, "remaining": null, "last-run": processed })
}

/// An offset in its bare form.
pub fn offset_json(offset: &Offset) -> Json {
    match offset {
        Offset::Int(number) => json!(number),
        Offset::Text(text) => json!(text.as_str()),
    }
}

/// A moment as the API prints it: ISO, microseconds, UTC.
pub fn moment(at: Option<Timestamp>) -> Json {
    at.map_or(Json::Null, |at| json!(format!("{at:.6}")))
}

impl Node {
    /// The completeness of a dataset, microseconds since 1970 UTC.
    pub fn completeness(&self, name: &str) -> Result<Option<i64>, Failure> {
        let known = &self.assembly.hub.world.known;
        completeness::value(self.store.as_ref(), known, name, name)
    }

    /// What the headers of the pull protocol say of a dataset, without making one.
    pub fn said(&self, name: &str) -> Result<Option<Said>, Failure> {
        let completeness = self.completeness(name)?;
        let head = self.head(name)?;
        Ok(head.map(|head| Said { head, completeness }))
    }

    /// The head of a dataset, without making one.
    pub fn head(&self, name: &str) -> Result<Option<tahini_store::Head>, StoreError> {
        match self.store.find(name)? {
            Some(dataset) => Ok(Some(dataset.snapshot()?.head().clone())),
            None => Ok(None),
        }
    }

    /// What is known of a dataset's tripped circuit breaker.
    pub fn tripped(&self, name: &str) -> Result<Option<Tripped>, tahini_hub::Failure> {
        match self.store.find(name)? {
            Some(dataset) => breaker::tripped(dataset.as_ref()),
            None => Ok(None),
        }
    }

    /// A pipe's offset, without making the dataset that keeps it.
    pub fn offset(&self, live: &LivePipe) -> Result<Option<Offset>, StoreError> {
        match self.home(live)? {
            Some(home) => progress::offset(home.as_ref(), live.id()),
            None => Ok(None),
        }
    }

    /// The dataset that keeps a pipe's place, where there is one.
    pub fn home(&self, live: &LivePipe) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        let home = match &live.pipe {
            Ok(pipe) => pipe.home(),
            Err(_) => execution_log::dataset_id(live.id()).into(),
        };
        shown(self.store.as_ref(), &home)
    }
}
