//! The execution log: what a pipe's runs did, as entities of `system:pump_execution:<pipe>`.
//!
//! A run's `pump-started` is held in memory until something is worth telling, so that runs
//! that do nothing cost no write; it is then written with the time at which the run began.

mod started;
mod summary;
mod values;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tahini_entity::{Batch, Dict, Entity, Offset, Value};
use tahini_store::{Backend, Commit, Dataset, Outcome, Rule, Seq, Show, StateWrite, Ticket};

use crate::breaker::Tripped;
use crate::populated::Missing;
use crate::retry::At;
use crate::rounds::Loop;
use crate::secrets::SecretSource;
use crate::sink::RunKind;
use crate::{Clock, Failure};

pub(crate) use summary::NAMED;
pub use summary::{Summary, failing_since, last_run, run_at};
pub use values::{entity_of, iso};

use started::Started;
use values::{build, count, failure_properties, round6, user_value};

/// What only tells of a run is on the disk so much later at the latest: what several runs tell is
/// synced together, and no run waits for the disk to tell of it.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

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

/// An entity that could not be written, as the log keeps it.
#[derive(Clone, Debug)]
pub struct WriteError<'a> {
    /// Where it failed.
    pub at: At,
    /// The entity as it was when it failed: as the source gave it, or as the sink was given it.
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
        let (outcome, ticket) = self.write(&rows(&entries)?, state, Duration::ZERO)?;
        ticket.wait()?;
        Ok(outcome.seqs.first().copied().flatten())
    }

    /// The same for entries that are rows already.
    pub(crate) fn append_rows(&self, entries: &Batch, state: &[StateWrite]) -> Result<(), Failure> {
        let (_, ticket) = self.write(entries, state, Duration::ZERO)?;
        Ok(ticket.wait()?)
    }

    /// Writes an entry that nothing else relies on, and returns its place. It survives the end of
    /// the process; a power cut may take the last second of such entries back. Whoever reads the
    /// log, and whatever is appended to it, makes them durable first.
    fn tell(&self, entry: Entity) -> Result<Option<Seq>, Failure> {
        let (outcome, _) = self.write(&rows(&[entry])?, &[], TOLD_WITHIN)?;
        Ok(outcome.seqs.first().copied().flatten())
    }

    fn write(
        &self,
        rows: &Batch,
        state: &[StateWrite],
        within: Duration,
    ) -> Result<(Outcome, Ticket), Failure> {
        let commit = Commit {
            rows,
            rule: Rule::IfChanged,
            state,
            populated: true,
            now: self.clock.micros(),
            show: Show::Now,
            note: None,
        };
        Ok(self.dataset.commit_within(commit, within)?)
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

    /// When the last run that reached its end did so, if the log tells.
    pub fn last_completed(&self) -> Result<Option<Timestamp>, Failure> {
        let snapshot = self.dataset.snapshot()?;
        let mut found = Batch::new();
        snapshot.latest(&["pump-completed"], &mut found)?;
        let entry = found.iter().next().map(|record| record.to_entity());
        let time = entry.and_then(|entry| entry.properties.get("end_time")?.as_str()?.parse().ok());
        Ok(time)
    }

    /// The entry for an offset set or reset by hand, with the metrics of the last run.
    pub fn offset_set(
        &self,
        old: Option<&Offset>,
        new: Option<&Offset>,
        last: Option<&Summary>,
        user: &User,
    ) -> Entity {
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
                ("metrics", last.cloned().unwrap_or_default().metrics()),
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

    /// The entry for a pipe that begins to wait for datasets: one for all runs that do not begin
    /// because of them.
    pub(crate) fn waiting(&self, failure: &Failure, datasets: &[Missing]) -> Entity {
        let names = datasets.iter();
        let names = names.map(|missing| Value::string(missing.dataset.as_str()));
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("reason", Value::string(failure.message.as_str())),
            ("datasets", Value::List(names.collect())),
        ];
        self.entry("pump-waiting", "pump-waiting", properties)
    }

    /// The entry for a pipe whose writes come back to it and make it write again, without end.
    pub(crate) fn feeds_itself(&self, found: &Loop) -> Entity {
        let texts = |all: &[String]| {
            let texts = all.iter().map(|text| Value::string(text.as_str()));
            Value::List(texts.collect())
        };
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("reason", Value::string(found.words())),
            ("pipes", texts(&found.pipes)),
            ("systems", texts(&found.systems)),
            ("entities", texts(&found.entities)),
            ("num_entities", count(found.all_entities)),
            ("rounds", count(found.rounds)),
            ("since", iso(found.since)),
        ];
        self.entry("pump-feeds-itself", "pump-feeds-itself", properties)
    }

    /// The entry for retries that were given up by hand.
    pub fn retries_discarded(&self, user: &User) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("user", user_value(user)),
        ];
        self.entry("pump-discard-retries", "pump-discard-retries", properties)
    }

    /// The entry for given-up entities that the next run tries again, because somebody asked.
    pub fn dead_letters_retried(&self, all: u64, user: &User) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("num_entities", count(all)),
            ("user", user_value(user)),
        ];
        let kind = "pump-retry-dead-letters";
        self.entry(kind, kind, properties)
    }

    /// The entry for a tripped circuit breaker that was committed or rolled back.
    pub fn breaker_reset(
        &self,
        event: &str,
        dataset: &str,
        tripped: &Tripped,
        user: &User,
    ) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("dataset", Value::string(dataset)),
            ("tripped_time", iso(tripped.at)),
            ("num_entities", count(tripped.versions)),
            ("user", user_value(user)),
        ];
        self.entry(event, event, properties)
    }

    /// The entry for inferred entity types that were discarded by hand.
    pub fn entity_types_discarded(&self, user: &User) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("user", user_value(user)),
        ];
        let kind = "pump-discard-inferred-schema";
        self.entry(kind, kind, properties)
    }

    /// The entry for entities that a person wrote to the dataset: the first ones, and how many there
    /// are in all.
    pub fn entities_reposted(&self, first: Vec<Value>, all: u64, user: &User) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            // Documented under both names.
            ("pipe_id", Value::string(self.pipe.as_str())),
            ("entities", Value::List(first.into_iter().collect())),
            ("num_entities", count(all)),
            ("user", user_value(user)),
        ];
        self.entry("entities-reposted", "entities-reposted", properties)
    }

    /// The entry for entities that a person removed for good.
    pub fn entities_erased(&self, all: u64, user: &User) -> Entity {
        let properties = vec![
            ("event_time", iso(self.clock.now())),
            ("num_entities", count(all)),
            ("user", user_value(user)),
        ];
        self.entry("entities-erased", "entities-erased", properties)
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
            ("entity", Value::Dict(error.entity.to_dict())),
        ];
        if let Some(resolved_by) = error.resolved_by {
            properties.push(("resolved_entity", Value::Dict(resolved_by.to_dict())));
        }
        if let Some(failure) = error.failure {
            properties.extend(failure_properties(&self.told(failure)));
        }
        // A later run puts it through the transforms again, which may look at its place.
        if let (At::Transforms, Some(updated)) = (error.at, &error.entity.updated) {
            properties.push(("source_updated", summary::offset_value(Some(updated))));
        }
        self.entry(&error.at.entry_id(id), "write-error", properties)
    }
}

fn rows(entries: &[Entity]) -> Result<Batch, Failure> {
    let mut rows = Batch::new();
    for entry in entries {
        rows.push_entity(entry)
            .map_err(|error| Failure::fatal(error.to_string()))?;
    }
    Ok(rows)
}

impl Drop for RunLog<'_> {
    fn drop(&mut self) {
        started::leave(&self.started);
    }
}

/// The part of the log that belongs to one run.
pub struct RunLog<'a> {
    log: &'a ExecutionLog,
    started: Arc<Mutex<Started>>,
    /// What the run did until now.
    so_far: Summary,
}

impl<'a> RunLog<'a> {
    /// Begins a run in memory; nothing is written yet. A run that goes on for long stands in the
    /// log also when it is in the middle of something.
    pub fn begin(log: &'a ExecutionLog, kind: RunKind, user: Option<User>) -> RunLog<'a> {
        let started = Arc::new(Mutex::new(Started::now(log.clone(), kind, user)));
        started::watch(&started);
        RunLog {
            log,
            started,
            so_far: Summary::default(),
        }
    }

    /// The same for something that began at that time.
    pub(crate) fn begin_at(
        log: &'a ExecutionLog,
        kind: RunKind,
        user: Option<User>,
        at: Timestamp,
    ) -> RunLog<'a> {
        let run = RunLog::begin(log, kind, user);
        run.lock().at = at;
        run
    }

    fn lock(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// When the run began.
    pub fn started(&self) -> Timestamp {
        self.lock().at
    }

    /// The run turned out to be of that kind.
    pub fn set_kind(&mut self, kind: RunKind) {
        self.lock().kind = kind;
    }

    /// The run goes on beside others of its pipe.
    pub fn set_beside(&mut self) {
        self.lock().beside = true;
    }

    /// The kind of the run.
    pub fn kind(&self) -> RunKind {
        self.lock().kind
    }

    /// Takes note of what the run did until now. The first change is worth telling that a run is
    /// under way, and so is one that takes its time.
    pub fn note(&mut self, so_far: &Summary) -> Result<(), Failure> {
        self.so_far.clone_from(so_far);
        let mut started = self.lock();
        if so_far.changed > 0 || started.lasts() {
            started.reveal()?;
        }
        Ok(())
    }

    /// Whether the log tells of the run: it does, or it is `worth` it. Otherwise nothing will be
    /// written any more.
    pub fn is_told(&mut self, worth: impl FnOnce() -> bool) -> bool {
        // Not under the lock: it may read the log.
        let worth = self.lock().is_revealed() || worth();
        let mut started = self.lock();
        let told = worth || started.is_revealed();
        started.over = !told;
        told
    }

    /// Writes the run's `pump-started`, dated back to its beginning, unless it is there.
    pub fn reveal(&mut self) -> Result<(), Failure> {
        self.lock().reveal()
    }

    /// Writes a failed read.
    pub fn read_error(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.reveal()?;
        let mut properties = vec![
            ("event_time", iso(self.log.clock.now())),
            ("metrics", self.so_far.metrics()),
        ];
        properties.extend(failure_properties(&self.log.told(failure)));
        let id = format!("read-error:{}", uuid::Uuid::new_v4());
        self.log
            .tell(self.log.entry(&id, "read-error", properties))?;
        Ok(())
    }

    /// An entry about an entity as one of this run, of which the log tells from then on.
    pub fn in_run(&mut self, mut entry: Entity) -> Result<Entity, Failure> {
        self.reveal()?;
        entry.properties.set("metrics", self.so_far.metrics());
        Ok(entry)
    }

    /// Writes the run's end.
    pub fn end(&mut self, summary: &Summary, next_interval: Option<f64>) -> Result<(), Failure> {
        self.reveal()?;
        let (mut properties, location) = {
            let started = self.lock();
            (started.common(), started.location())
        };
        if let Some(seconds) = next_interval {
            properties.push(("next_interval", Value::float(round6(seconds))));
        }
        if let Some(location) = location.and_then(|seq| i64::try_from(seq).ok()) {
            properties.push(("pump_started_location", Value::Int(location)));
        }
        properties.extend(summary.properties());
        let kind = match &summary.failure {
            None => "pump-completed",
            Some(failure) => {
                let failure = self.log.told(failure);
                properties.push(("reason_why_stopped", Value::string(failure.to_string())));
                properties.extend(failure_properties(&failure));
                if let Some(entity) = &failure.entity {
                    properties.push(("exception_entity", Value::Dict(entity.to_dict())));
                }
                properties.push(("node_build_info", build()));
                "pump-failed"
            }
        };
        self.log.tell(self.log.entry(kind, kind, properties))?;
        Ok(())
    }
}
