//! Why a pipe is idle: what keeps it from running, or why there is nothing for it to do, back to the
//! pipes where that begins.
//!
//! Nothing is kept for this. Every answer is what the configuration, the datasets and the last runs
//! say at the moment of the question, so that it cannot be out of date.

mod upstream;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::breaker;
use crate::hub::{Hub, Input, LivePipe, LiveState, Refusal, shown};
use crate::populated::Missing;
use crate::{Class, Failure, Pipe, execution_log};

use upstream::Search;

/// What can be said of a pipe that does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A run or a rescan is under way: it is not idle.
    Running,
    /// Its configuration has errors, or needs what is not there.
    Configuration,
    /// It has no pump: entities flow when they are posted or asked for.
    NoPump,
    /// Its pump's `mode` is `off`, or it is `manual`.
    NoSchedule,
    /// Somebody disabled it.
    Disabled,
    /// The circuit breaker of the dataset that it writes is tripped.
    CircuitBreaker,
    /// A dataset that it reads is not populated yet.
    WaitingForDataset,
    /// Its last run failed.
    Failed,
    /// The node starts no runs by itself.
    SchedulesOff,
    /// Its source holds newer entities back (`completeness`).
    HeldBack,
    /// There is something to do, or nobody knows before the next run.
    Scheduled,
    /// It read everything that there is.
    NothingNew,
    /// Its source is not populated, so that what it writes does not count as populated either.
    SourceNotPopulated,
    /// A pipe waits for itself, by way of others.
    Cycle,
    /// There are more pipes than are told.
    More,
}

/// How each kind is called where it is printed, and whether it keeps entities from flowing.
const KINDS: &[(Kind, &str, bool)] = &[
    (Kind::Running, "running", false),
    (Kind::Configuration, "configuration", true),
    (Kind::NoPump, "no-pump", false),
    (Kind::NoSchedule, "no-schedule", true),
    (Kind::Disabled, "disabled", true),
    (Kind::CircuitBreaker, "circuit-breaker", true),
    (Kind::WaitingForDataset, "waiting-for-dataset", true),
    (Kind::Failed, "failed", true),
    (Kind::SchedulesOff, "schedules-off", true),
    (Kind::HeldBack, "held-back", false),
    (Kind::Scheduled, "scheduled", false),
    (Kind::NothingNew, "nothing-new", false),
    (Kind::SourceNotPopulated, "source-not-populated", true),
    (Kind::Cycle, "cycle", true),
    (Kind::More, "more", false),
];

impl Kind {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        let row = KINDS.iter().find(|(kind, ..)| *kind == self);
        row.map_or("", |(_, name, _)| name)
    }

    /// Whether it keeps entities from flowing until something changes.
    fn stops(self) -> bool {
        KINDS.iter().any(|(kind, _, stops)| *kind == self && *stops)
    }
}

/// One thing that is to be said of a pipe.
#[derive(Clone, Debug)]
pub struct Reason {
    /// What it is.
    pub kind: Kind,
    /// The same in words.
    pub message: String,
    /// What belongs to it, by name: a dataset, a moment, a count.
    pub facts: Map<String, Json>,
    /// The pipes that this comes from.
    pub because: Vec<Idle>,
}

/// What is to be said of one pipe.
#[derive(Clone, Debug)]
pub struct Idle {
    /// The pipe's id.
    pub pipe: String,
    /// Why it is idle, the first thing first; never empty.
    pub reasons: Vec<Reason>,
    /// When the schedule starts its next run.
    pub next: Option<Timestamp>,
}

impl Reason {
    fn new(kind: Kind, message: impl Into<String>) -> Reason {
        Reason {
            kind,
            message: message.into(),
            facts: Map::new(),
            because: Vec::new(),
        }
    }

    fn with(mut self, name: &str, fact: impl Into<Json>) -> Reason {
        self.facts.insert(name.to_owned(), fact.into());
        self
    }

    fn to_json(&self) -> Json {
        let mut all = self.facts.clone();
        all.insert("reason".to_owned(), json!(self.kind.name()));
        all.insert("message".to_owned(), json!(self.message));
        if !self.because.is_empty() {
            let because = self.because.iter().map(Idle::to_json);
            all.insert("because".to_owned(), because.collect());
        }
        Json::Object(all)
    }
}

impl Idle {
    /// Whether no run is under way.
    pub fn is_idle(&self) -> bool {
        self.reasons.iter().all(|one| one.kind != Kind::Running)
    }

    /// Whether something here, or further up, keeps entities from flowing.
    fn is_stopped(&self) -> bool {
        let mut all = self.reasons.iter();
        all.any(|one| one.kind.stops() || one.because.iter().any(Idle::is_stopped))
    }

    /// Where it begins: the reasons behind which there is no other, each with its pipe.
    pub fn roots(&self) -> Vec<(&str, &Reason)> {
        let mut roots = Vec::new();
        self.collect(&mut roots);
        roots
    }

    fn collect<'a>(&'a self, roots: &mut Vec<(&'a str, &'a Reason)>) {
        for reason in &self.reasons {
            let same = |(pipe, known): &(&str, &Reason)| {
                *pipe == self.pipe && known.message == reason.message
            };
            if !reason.because.is_empty() {
                reason.because.iter().for_each(|one| one.collect(roots));
            } else if !roots.iter().any(same) {
                roots.push((&self.pipe, reason));
            }
        }
    }

    /// The answer as JSON: `pipe`, `reasons` with what is behind each of them, `next-run`.
    pub fn to_json(&self) -> Json {
        let reasons: Vec<Json> = self.reasons.iter().map(Reason::to_json).collect();
        json!({
            "pipe": self.pipe,
            "idle": self.is_idle(),
            "reasons": reasons,
            "next-run": self.next.map(moment),
        })
    }
}

/// A moment as answers show it.
fn moment(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Says why a pipe is idle. `automatic`: schedules start runs on this node.
///
/// # Errors
/// When there is no such pipe, or a dataset cannot be read.
pub fn why(hub: &Hub, id: &str, automatic: bool) -> Result<Idle, Refusal> {
    let live = hub.pipe(id)?;
    Ok(Search::new(hub, automatic).of(&live)?)
}

/// What keeps a pipe from running, as far as it is told by the pipe alone.
fn obstacles(hub: &Hub, live: &LivePipe, state: &LiveState) -> Result<Vec<Reason>, Failure> {
    if let Some(running) = running(state) {
        return Ok(vec![running]);
    }
    let refused = match live.usable() {
        Ok(_) if live.component.is_endpoint() => Some(no_pump(live)),
        Ok(_) => unscheduled(live),
        Err(refusal) => Some(Reason::new(Kind::Configuration, refusal.to_string())),
    };
    let stops = |reason: &Reason| reason.kind != Kind::NoSchedule;
    if let Some(reason) = refused.as_ref().filter(|one| stops(one)) {
        return Ok(vec![reason.clone()]);
    }
    let mut all: Vec<Reason> = refused.into_iter().collect();
    all.extend(disabled(live, state));
    all.extend(tripped(hub, live)?);
    Ok(all)
}

fn running(state: &LiveState) -> Option<Reason> {
    let (words, since) = match (state.running, state.rescanning) {
        (true, _) => ("a run is under way", state.running_since),
        (false, true) => ("a rescan is under way", state.rescanning_since),
        (false, false) => return None,
    };
    let reason = Reason::new(Kind::Running, words);
    Some(match since {
        Some(since) => reason.with("since", moment(since)),
        None => reason,
    })
}

fn no_pump(live: &LivePipe) -> Reason {
    let posted = live.component.source().map().get("type");
    Reason::new(
        Kind::NoPump,
        match posted.is_some_and(|kind| kind == "http_endpoint") {
            true => "it has no pump: entities flow when somebody posts them",
            false => "it has no pump: entities flow when somebody asks for them",
        },
    )
}

fn unscheduled(live: &LivePipe) -> Option<Reason> {
    let mode = live.component.pump().map().get("mode")?.as_str()?;
    let words = match mode {
        "off" => "its pump's mode is \"off\": it never runs",
        "manual" => "its pump's mode is \"manual\": it runs when somebody starts it",
        _ => return None,
    };
    Some(Reason::new(Kind::NoSchedule, words).with("mode", mode))
}

fn disabled(live: &LivePipe, state: &LiveState) -> Option<Reason> {
    let comment = state.disabled.as_ref()?;
    let words = match comment.is_empty() {
        true => "it is disabled".to_owned(),
        false => format!("it is disabled: {comment}"),
    };
    let help = format!("{words}; enable the pump of pipe {:?} again", live.id());
    Some(Reason::new(Kind::Disabled, help).with("comment", comment.as_str()))
}

fn tripped(hub: &Hub, live: &LivePipe) -> Result<Option<Reason>, Failure> {
    let Some(name) = live.component.sink_dataset() else {
        return Ok(None);
    };
    Ok(hub.tripped(live)?.map(|tripped| {
        Reason::new(Kind::CircuitBreaker, breaker::stands_still(name, &tripped))
            .with("dataset", name)
            .with("since", moment(tripped.at))
            .with("uncommitted", tripped.versions)
    }))
}

/// Why the last run failed, since when runs do, and when the next one is.
fn failed(hub: &Hub, live: &LivePipe, state: &LiveState) -> Result<Option<Reason>, Failure> {
    let Some(last) = &state.last else {
        return Ok(None);
    };
    let failure = match &last.failure {
        Some(failure) if failure.class != Class::Waiting => failure,
        _ => return Ok(None),
    };
    let log = execution_log::dataset_id(live.id());
    let since = match shown(hub.world.store.as_ref(), &log)? {
        Some(log) => execution_log::failing_since(log.as_ref())?,
        None => None,
    };
    let since = since.unwrap_or(last.started);
    let words = format!(
        "its runs have failed since {}; the last one, at {}: {}",
        moment(since),
        moment(last.ended),
        failure.message
    );
    let reason = Reason::new(Kind::Failed, words)
        .with("since", moment(since))
        .with("last-run", moment(last.ended))
        .with("error", failure.message.as_str());
    Ok(Some(match &failure.original {
        Some(original) => reason.with("original-error", original.as_str()),
        None => reason,
    }))
}

/// The reason for a dataset that is waited for.
fn waits(missing: &Missing) -> Reason {
    let dataset = &missing.dataset;
    let why = match missing.by_rules {
        true => "its rules read",
        false => "its source reads (`require_populated_input`)",
    };
    let words =
        format!("it waits for dataset {dataset:?}, which {why} and which is not populated yet");
    Reason::new(Kind::WaitingForDataset, words).with("dataset", dataset.as_str())
}

/// What waits to be read, and how far everything was read.
fn queue(hub: &Hub, live: &LivePipe, pipe: &Pipe) -> Result<(Option<u64>, Vec<Json>), Failure> {
    let Some(inputs) = hub.read_and_last(pipe)? else {
        return Ok((None, Vec::new()));
    };
    let joined: u64 = hub.unfollowed(live)?.values().sum();
    let unread: u64 = inputs.iter().map(Input::unread).sum();
    let told =
        |one: &Input<'_>| json!({"dataset": one.dataset, "last": one.last, "read": one.read});
    Ok((Some(unread + joined), inputs.iter().map(told).collect()))
}
