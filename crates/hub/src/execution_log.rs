//! The execution log: what a pipe's runs did, as entities of `system:pump_execution:<pipe>`.
//!
//! A run's `pump-started` is held in memory until something is worth telling, so that runs
//! that do nothing cost no write; it is then written with the time at which the run began.

use std::sync::Arc;

use jiff::Timestamp;
use tahini_entity::{Batch, Dict, Entity, Offset, Value};
use tahini_store::{Backend, Commit, Dataset, Rule, Seq, StateWrite};

use crate::secrets::SecretSource;
use crate::sink::RunKind;
use crate::{Clock, Failure};

/// The id of a pipe's execution log dataset.
pub fn dataset_id(pipe: &str) -> String {
    format!("system:pump_execution:{pipe}")
}

/// Who asked for a run or an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The subject of the token, `anonymous` without one.
    pub user_id: String,
    /// The caller's address.
    pub remote_addr: String,
}

/// A pipe's execution log.
#[derive(Clone)]
pub struct ExecutionLog {
    pipe: String,
    dataset: Arc<dyn Dataset>,
    clock: Arc<dyn Clock>,
    hidden: Option<Arc<dyn SecretSource>>,
}

/// The outcome of a run, as the log and the API tell it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// `full` or `incremental`.
    pub sync_type: String,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Entities that the source gave.
    pub read: u64,
    /// Entities that changed the sink.
    pub changed: u64,
    /// Of those, deletions.
    pub deleted: u64,
    /// Entities that the sink had already.
    pub unchanged: u64,
    /// Entities that could not be written.
    pub failed: u64,
    /// Failed reads.
    pub read_errors: u64,
    /// Seconds spent in source, transforms and sink.
    pub seconds: [f64; 3],
    /// The offset after the run, in its bare form.
    pub offset: Option<Offset>,
    /// Failed entities wait for a later run.
    pub waiting: bool,
    /// Why the run failed.
    pub failure: Option<Failure>,
    /// Things worth knowing that are no failure.
    pub warnings: Vec<String>,
}

impl Summary {
    /// Whether the run reached its end.
    pub fn success(&self) -> bool {
        self.failure.is_none()
    }

    /// How long the run took, in seconds.
    pub fn total_seconds(&self) -> f64 {
        (self.ended.as_microsecond() - self.started.as_microsecond()) as f64 / 1e6
    }
}

/// An entity that could not be written, as the log keeps it.
#[derive(Clone, Debug)]
pub struct WriteError<'a> {
    /// The entity as the sink was given it.
    pub entity: &'a Entity,
    /// What went wrong; `None` once it is resolved.
    pub failure: Option<&'a Failure>,
    /// How often it was retried.
    pub attempts: u64,
    /// A later run may retry it.
    pub retryable: bool,
    /// It got through in the end.
    pub resolved: bool,
    /// It was given up.
    pub dead: bool,
    /// The version that got through, where it is another one.
    pub resolved_by: Option<&'a Entity>,
}

impl ExecutionLog {
    /// The log of `pipe`, created where there is none.
    pub fn open(
        store: &dyn Backend,
        pipe: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<ExecutionLog, Failure> {
        let dataset = store.open(&dataset_id(pipe), true)?;
        Ok(ExecutionLog {
            pipe: pipe.to_owned(),
            dataset,
            clock,
            hidden: None,
        })
    }

    /// The same log, which writes failures without these secrets: an address, or what a peer
    /// said, may hold some.
    pub fn hiding(mut self, secrets: Arc<dyn SecretSource>) -> ExecutionLog {
        self.hidden = Some(secrets);
        self
    }

    /// A failure as it may be told.
    pub fn told(&self, failure: &Failure) -> Failure {
        match &self.hidden {
            Some(secrets) => failure.clone().hiding(secrets.as_ref()),
            None => failure.clone(),
        }
    }

    /// The dataset itself; pipes without a dataset sink keep their state in it.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// Writes entries and state in one step, durably, and returns the first entry's place.
    pub fn append(
        &self,
        entries: Vec<Entity>,
        state: &[StateWrite],
    ) -> Result<Option<Seq>, Failure> {
        let mut rows = Batch::new();
        for entry in &entries {
            rows.push_entity(entry)
                .map_err(|error| Failure::fatal(error.to_string()))?;
        }
        let now = self.clock.micros();
        let commit = Commit {
            rows: &rows,
            rule: Rule::IfChanged,
            state,
            populated: true,
            now,
        };
        let (outcome, ticket) = self.dataset.commit(commit)?;
        ticket.wait()?;
        Ok(outcome.seqs.first().copied().flatten())
    }

    /// An entry of `kind`; `id` is `kind` but for errors.
    fn entry(&self, id: &str, kind: &str, properties: Vec<(&str, Value)>) -> Entity {
        let mut dict = Dict::new();
        dict.push_new("event_type", Value::string(kind));
        dict.push_new("pipe", Value::string(self.pipe.as_str()));
        for (name, value) in properties {
            dict.set(name, value);
        }
        Entity {
            id: Some(id.into()),
            properties: dict,
            ..Entity::default()
        }
    }

    /// The entry for an offset set or reset by hand.
    pub fn offset_set(&self, old: Option<&Offset>, new: Option<&Offset>, user: &User) -> Entity {
        let text = |offset: Option<&Offset>| {
            Value::string(offset.map(ToString::to_string).unwrap_or_default())
        };
        self.entry(
            "pump-offset-set",
            "pump-offset-set",
            vec![
                ("event_time", iso(self.clock.now())),
                ("is_reset", Value::Bool(new.is_none())),
                ("original_pipe_offset", text(old)),
                ("pipe_offset", text(new)),
                ("user", user_value(user)),
            ],
        )
    }

    /// The entry for a pump that was enabled or disabled.
    pub fn switched(&self, enabled: bool, comment: Option<&str>, user: &User) -> Entity {
        let kind = if enabled {
            "pump-enabled"
        } else {
            "pump-disabled"
        };
        let mut properties = vec![
            ("event_time", iso(self.clock.now())),
            ("user", user_value(user)),
        ];
        if let Some(comment) = comment {
            properties.push(("comment", Value::string(comment)));
        }
        self.entry(kind, kind, properties)
    }

    /// The entry for an entity that could not be written, or that got through at last.
    pub fn write_error(&self, error: &WriteError<'_>) -> Entity {
        let id = error.entity.id.as_deref().unwrap_or_default();
        let mut properties = vec![
            ("event_time", iso(self.clock.now())),
            ("retry_attempts", count(error.attempts)),
            ("retryable", Value::Bool(error.retryable)),
            ("resolved", Value::Bool(error.resolved)),
            ("dead", Value::Bool(error.dead)),
            ("entity", Value::Dict(entity_value(error.entity))),
        ];
        if let Some(resolved_by) = error.resolved_by {
            properties.push(("resolved_entity", Value::Dict(entity_value(resolved_by))));
        }
        if let Some(failure) = error.failure {
            properties.extend(failure_properties(&self.told(failure)));
        }
        self.entry(&format!("write-error:{id}"), "write-error", properties)
    }
}

/// The part of the log that belongs to one run.
pub struct RunLog<'a> {
    log: &'a ExecutionLog,
    kind: RunKind,
    started: Timestamp,
    user: Option<User>,
    location: Option<Seq>,
    revealed: bool,
}

impl<'a> RunLog<'a> {
    /// Begins a run in memory; nothing is written yet.
    pub fn begin(log: &'a ExecutionLog, kind: RunKind, user: Option<User>) -> RunLog<'a> {
        let started = log.clock.now();
        RunLog {
            log,
            kind,
            started,
            user,
            location: None,
            revealed: false,
        }
    }

    /// When the run began.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Whether the run's `pump-started` stands in the log.
    pub fn revealed(&self) -> bool {
        self.revealed
    }

    /// Writes the run's `pump-started`, dated back to its beginning, unless it is there.
    pub fn reveal(&mut self) -> Result<(), Failure> {
        if self.revealed {
            return Ok(());
        }
        let mut properties = self.common();
        if let Some(user) = &self.user {
            properties.push(("user", user_value(user)));
        }
        let entry = self.log.entry("pump-started", "pump-started", properties);
        self.location = self.log.append(vec![entry], &[])?;
        self.revealed = true;
        Ok(())
    }

    fn common(&self) -> Vec<(&'static str, Value)> {
        vec![
            (
                "pump_definition",
                Value::string(format!("pump:{}", self.log.pipe)),
            ),
            ("start_time", iso(self.started)),
            ("sync_type", Value::string(self.kind.sync_type())),
        ]
    }

    /// Writes a failed read.
    pub fn read_error(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.reveal()?;
        let mut properties = vec![("event_time", iso(self.log.clock.now()))];
        properties.extend(failure_properties(&self.log.told(failure)));
        let id = format!("read-error:{}", uuid::Uuid::new_v4());
        self.log
            .append(vec![self.log.entry(&id, "read-error", properties)], &[])?;
        Ok(())
    }

    /// Writes failed entities with the state that remembers them, in one step.
    pub fn write_errors(
        &mut self,
        errors: Vec<Entity>,
        state: &[StateWrite],
    ) -> Result<(), Failure> {
        self.reveal()?;
        self.log.append(errors, state)?;
        Ok(())
    }

    /// Writes the run's end, with state that is saved in the same step.
    pub fn end(
        &mut self,
        summary: &Summary,
        next_interval: Option<f64>,
        state: &[StateWrite],
    ) -> Result<(), Failure> {
        self.reveal()?;
        let mut properties = self.common();
        properties.push(("end_time", iso(summary.ended)));
        properties.push(("total_time", Value::float(round6(summary.total_seconds()))));
        if let Some(seconds) = next_interval {
            properties.push(("next_interval", Value::float(round6(seconds))));
        }
        if let Some(location) = self.location.and_then(|seq| i64::try_from(seq).ok()) {
            properties.push(("pump_started_location", Value::Int(location)));
        }
        properties.push(("retry_entities_exist", Value::Bool(summary.waiting)));
        properties.push((
            "entities_succeeded",
            count(summary.changed + summary.unchanged),
        ));
        properties.push(("entities_failed", count(summary.failed)));
        properties.push(("processed_last_run", count(summary.read)));
        properties.push(("changes_last_run", count(summary.changed)));
        let offset = summary
            .offset
            .as_ref()
            .map_or(Value::Null, |offset| match offset {
                Offset::Int(number) => Value::Int(*number),
                Offset::Text(text) => Value::String(text.clone()),
            });
        properties.push(("pipe_offset", offset));
        properties.push(("metrics", metrics(summary)));
        if !summary.warnings.is_empty() {
            let warnings = summary
                .warnings
                .iter()
                .map(|text| Value::string(text.as_str()));
            properties.push(("warnings", Value::List(warnings.collect())));
        }
        let kind = match &summary.failure {
            None => "pump-completed",
            Some(failure) => {
                let failure = self.log.told(failure);
                properties.push(("reason_why_stopped", Value::string(failure.to_string())));
                properties.extend(failure_properties(&failure));
                if let Some(entity) = &failure.entity {
                    properties.push(("exception_entity", Value::Dict(entity_value(entity))));
                }
                properties.push(("node_build_info", build()));
                "pump-failed"
            }
        };
        self.log
            .append(vec![self.log.entry(kind, kind, properties)], state)?;
        Ok(())
    }
}

/// An entity embedded in an entry: its id, its deleted flag and its properties.
pub fn entity_value(entity: &Entity) -> Dict {
    let mut dict = Dict::new();
    if let Some(id) = &entity.id {
        dict.push_new("_id", Value::String(id.clone()));
    }
    if entity.deleted {
        dict.push_new("_deleted", Value::Bool(true));
    }
    for (name, value) in entity.properties.iter() {
        dict.set(name.clone(), value.clone());
    }
    dict
}

/// The entity back from `entity_value`.
pub fn entity_of(dict: &Dict) -> Entity {
    let mut properties = dict.clone();
    let id = properties
        .remove("_id")
        .and_then(|id| id.as_str().map(Into::into));
    let deleted = matches!(properties.remove("_deleted"), Some(Value::Bool(true)));
    Entity {
        id,
        deleted,
        properties,
        ..Entity::default()
    }
}

fn failure_properties(failure: &Failure) -> Vec<(&'static str, Value)> {
    vec![
        ("error_code", Value::Int(i64::from(failure.reached))),
        ("traceback", Value::string(failure.message.as_str())),
        ("original_error_message", Value::string(root_cause(failure))),
        ("original_traceback", Value::string(root_cause(failure))),
    ]
}

fn root_cause(failure: &Failure) -> &str {
    failure.original.as_deref().unwrap_or(&failure.message)
}

fn metrics(summary: &Summary) -> Value {
    let [source, transform, sink] = summary.seconds.map(|seconds| Value::float(round6(seconds)));
    let entities: Dict = [
        ("changes_last_run".into(), count(summary.changed)),
        ("entities_last_run".into(), count(summary.read)),
        ("deletes_last_run".into(), count(summary.deleted)),
        ("read_errors_last_run".into(), count(summary.read_errors)),
        ("write_errors_last_run".into(), count(summary.failed)),
        ("source_time".into(), source),
        ("transform_time".into(), transform),
        ("sink_time".into(), sink),
    ]
    .into_iter()
    .collect();
    Value::Dict(
        [("entities".into(), Value::Dict(entities))]
            .into_iter()
            .collect(),
    )
}

fn build() -> Value {
    let version = Value::string(env!("CARGO_PKG_VERSION"));
    Value::Dict([("version".into(), version)].into_iter().collect())
}

fn user_value(user: &User) -> Value {
    Value::Dict(
        [
            ("user_id".into(), Value::string(user.user_id.as_str())),
            (
                "remote_addr".into(),
                Value::string(user.remote_addr.as_str()),
            ),
        ]
        .into_iter()
        .collect(),
    )
}

fn count(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn round6(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// A moment as the log prints it: `2026-01-02T03:04:05.678901Z`.
pub fn iso(moment: Timestamp) -> Value {
    Value::string(format!("{moment:.6}"))
}
