//! Circuit breakers: a run that changes more than it should is kept from everybody's sight until
//! somebody looked.
//!
//! A run under an armed breaker writes commits that its dataset holds back, and shows them all in
//! its last one. When the limit is passed, or the rules say `trip!`, what was written stays held
//! back with a record that says so: the pipe stands still until that is committed or rolled back.
//! A run that fails or breaks off for another reason leaves no record, and what it wrote is
//! rolled back.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_store::{Backend, Commit, Dataset, Head, Rule, Show, StateWrite};

use crate::config::Props;
use crate::execution_log::{ExecutionLog, User};
use crate::hub::{Hub, LivePipe, Refusal};
use crate::{Clock, Failure};

/// The space of the record, which is the dataset's own.
const SPACE: &str = "breaker";
const TRIPPED: &[u8] = b"tripped";

/// What a dataset sink says of its circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Breaker {
    factor: Option<f64>,
    count: Option<u64>,
}

impl Breaker {
    /// The breaker of a sink; `None` where neither its properties nor the pipe's rules have one.
    ///
    /// # Errors
    /// Config, for a property of the wrong kind.
    pub(crate) fn of(
        sink: Props<'_>,
        transforms: Option<&Json>,
    ) -> Result<Option<Breaker>, Failure> {
        let name = "circuit_breaker_threshold_factor";
        let factor = sink.get(name).map(|value| {
            let factor = value.as_f64().filter(|factor| *factor >= 0.0);
            factor.ok_or_else(|| sink.wrong(name, "a number of at least 0", Some(value)))
        });
        let name = "circuit_breaker_threshold_count";
        let count = sink.get(name).map(|value| {
            let wrong = || sink.wrong(name, "a whole number of at least 0", Some(value));
            value.as_u64().ok_or_else(wrong)
        });
        let breaker = Breaker {
            factor: factor.transpose()?,
            count: count.transpose()?,
        };
        let trips = || transforms.is_some_and(says_trip);
        let is_there = breaker.factor.is_some() || breaker.count.is_some() || trips();
        Ok(is_there.then_some(breaker))
    }

    /// The breaker of a pipe's effective configuration, if its sink is a dataset.
    pub(crate) fn of_pipe(effective: &Json) -> Option<Breaker> {
        let sink = effective["sink"].as_object()?;
        if effective["sink"]["type"] != "dataset" {
            return None;
        }
        let transforms = effective.get("transform");
        Breaker::of(Props::new("$.sink", sink), transforms).ok()?
    }

    /// How many entities a run may write to a dataset as it is now: the larger one of what the
    /// two properties say. `None` where only rules trip.
    pub(crate) fn limit(&self, head: &Head) -> Option<u64> {
        let ids = (head.live + head.deleted) as f64;
        // One part in 10^9 more, so that 0.1 of 30 is 3 and not a little less.
        let share = self
            .factor
            .map(|factor| (ids * factor * (1.0 + 1e-9)) as u64);
        share.max(self.count)
    }

    /// The failure of a run that wrote more.
    pub(crate) fn tripped(&self, dataset: &str, head: &Head, limit: u64) -> Failure {
        let ids = head.live + head.deleted;
        let factor = self
            .factor
            .map(|factor| format!("factor {factor} of {ids} entities"));
        let count = self.count.map(|count| format!("count {count}"));
        let said: Vec<String> = factor.into_iter().chain(count).collect();
        Failure::tripped(format!(
            "expected the run to write at most {limit} entities to dataset {dataset:?} (circuit \
             breaker, {}), found more: they are held back; look at them with the parameter \
             `uncommitted`, then commit or roll back the dataset's circuit breaker",
            said.join(" and ")
        ))
    }
}

/// Whether rules among the transforms say `trip!`.
fn says_trip(config: &Json) -> bool {
    match config {
        Json::Array(list) => {
            list.first().is_some_and(|first| first == "trip!") || list.iter().any(says_trip)
        }
        Json::Object(map) => map.values().any(says_trip),
        _ => false,
    }
}

/// What is known of a tripped breaker.
#[derive(Clone, Debug, PartialEq)]
pub struct Tripped {
    /// The pipe whose run it was.
    pub pipe: String,
    /// When it tripped.
    pub at: Timestamp,
    /// Why, in the words of the run's failure.
    pub message: String,
    /// How many versions are held back.
    pub versions: u64,
}

/// The record of a breaker that trips now.
pub(crate) fn record(pipe: &str, clock: &dyn Clock, why: &Failure) -> StateWrite {
    let text = json!({ "pipe": pipe, "at": clock.micros(), "message": why.message });
    StateWrite {
        space: SPACE.to_owned(),
        key: TRIPPED.to_vec(),
        value: Some(text.to_string().into_bytes()),
    }
}

fn no_record() -> StateWrite {
    StateWrite {
        space: SPACE.to_owned(),
        key: TRIPPED.to_vec(),
        value: None,
    }
}

/// What is known of a dataset's tripped breaker; `None` where it is not tripped.
///
/// # Errors
/// When the dataset cannot be read.
pub fn tripped(dataset: &dyn Dataset) -> Result<Option<Tripped>, Failure> {
    let visible = dataset.snapshot()?;
    if !visible.head().holds {
        return Ok(None);
    }
    let newest = dataset.uncommitted()?;
    let rows = newest.state(SPACE, TRIPPED)?;
    let Some((_, text)) = rows.into_iter().next() else {
        return Ok(None);
    };
    let told: Json = serde_json::from_slice(&text).unwrap_or_default();
    let words = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let at = told["at"].as_i64().unwrap_or_default();
    Ok(Some(Tripped {
        pipe: words("pipe"),
        at: Timestamp::from_microsecond(at).unwrap_or_default(),
        message: words("message"),
        versions: newest.head().next - visible.head().next,
    }))
}

/// Makes a dataset ready for a run: what an earlier one left behind that broke off is taken back.
///
/// # Errors
/// Waiting, when the breaker is tripped.
pub(crate) fn make_ready(dataset: &dyn Dataset) -> Result<(), Failure> {
    if !dataset.snapshot()?.head().holds {
        return Ok(());
    }
    match tripped(dataset)? {
        Some(tripped) => Err(Failure::waiting(stands_still(dataset.name(), &tripped))),
        None => Ok(dataset.roll_back()?),
    }
}

/// Why a pipe does not run.
pub(crate) fn stands_still(dataset: &str, tripped: &Tripped) -> String {
    format!(
        "the circuit breaker of dataset {dataset:?} is tripped; commit it or roll it back first. {}",
        tripped.message
    )
}

/// What is done about a tripped breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// What was held back is shown.
    Commit,
    /// What was held back is taken back.
    RollBack,
}

impl Reset {
    /// The kind of the entry in the execution log.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Reset::Commit => "circuit-breaker-commit",
            Reset::RollBack => "circuit-breaker-rollback",
        }
    }
}

/// Resets a tripped breaker.
///
/// # Errors
/// Config, when it is not tripped.
fn reset(dataset: &dyn Dataset, reset: Reset, clock: &dyn Clock) -> Result<Tripped, Failure> {
    let Some(known) = tripped(dataset)? else {
        return Err(Failure::config(format!(
            "expected the circuit breaker of dataset {:?} to be tripped, found it is not",
            dataset.name()
        )));
    };
    match reset {
        Reset::RollBack => dataset.roll_back()?,
        Reset::Commit => {
            let rows = tahini_entity::Batch::new();
            let commit = Commit {
                rows: &rows,
                rule: Rule::IfChanged,
                state: &[no_record()],
                populated: false,
                now: clock.micros(),
                show: Show::All,
                note: None,
            };
            dataset.commit(commit)?.1.wait()?;
        }
    }
    Ok(known)
}

impl LivePipe {
    /// Whether runs of the pipe may trip a circuit breaker.
    pub fn has_breaker(&self) -> bool {
        Breaker::of_pipe(&self.component.effective).is_some()
    }
}

impl Hub {
    /// The tripped breaker that keeps a pipe from running, if there is one.
    ///
    /// # Errors
    /// When the sink's dataset cannot be read.
    pub fn tripped(&self, live: &LivePipe) -> Result<Option<Tripped>, Failure> {
        let Some(name) = live.component.sink_dataset() else {
            return Ok(None);
        };
        match self.world.store.find(name)? {
            Some(dataset) => tripped(dataset.as_ref()),
            None => Ok(None),
        }
    }

    /// Resets a dataset's tripped breaker and tells the logs of the pipes that write to it.
    ///
    /// # Errors
    /// When such a pipe is running, or the breaker is not tripped.
    pub fn reset_breaker(&self, name: &str, how: Reset, user: &User) -> Result<(), Refusal> {
        let dataset = self.world.store.open(name, false)?;
        let writers = self.writers(name);
        let _held: Vec<_> = writers.iter().map(|live| live.hold_place()).collect();
        if let Some(live) = writers.iter().find(|live| live.state().running) {
            return Err(Refusal::Running(live.id().to_owned()));
        }
        let told: Vec<String> = writers.iter().map(|live| live.id().to_owned()).collect();
        Ok(reset_and_tell(
            &self.world.store,
            &dataset,
            how,
            user,
            (&told, &self.world.clock),
        )?)
    }
}

/// Resets a dataset's tripped breaker in a store that no node runs on, and tells the log of the
/// pipe whose run tripped it.
///
/// # Errors
/// When it is not tripped, or when there is no such dataset.
pub fn reset_stored(
    store: &Arc<dyn Backend>,
    name: &str,
    how: Reset,
    user: &User,
    clock: &Arc<dyn Clock>,
) -> Result<(), Failure> {
    let dataset = store.open(name, false)?;
    reset_and_tell(store, &dataset, how, user, (&[], clock))
}

fn reset_and_tell(
    store: &Arc<dyn Backend>,
    dataset: &Arc<dyn Dataset>,
    how: Reset,
    user: &User,
    (told, clock): (&[String], &Arc<dyn Clock>),
) -> Result<(), Failure> {
    let known = reset(dataset.as_ref(), how, clock.as_ref())?;
    let mut told: BTreeSet<&str> = told.iter().map(String::as_str).collect();
    told.insert(&known.pipe);
    for pipe in told {
        let log = ExecutionLog::open(store.as_ref(), pipe, clock.clone())?;
        let entry = log.breaker_reset(how.event(), dataset.name(), &known, user);
        log.append(vec![entry], &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(properties: Json, live: u64, deleted: u64) -> Option<Option<u64>> {
        let head = Head {
            name: "d".to_owned(),
            generation: uuid::Uuid::nil(),
            next: 0,
            live,
            deleted,
            populated: true,
            bytes: 0,
            last_ts: 0,
            holds: false,
            past: Vec::new(),
        };
        let props = Props::new("$.sink", properties.as_object().unwrap());
        let breaker = Breaker::of(
            props,
            Some(&json!([{"rules": {"default": [["copy", "*"]]}}])),
        );
        breaker.unwrap().map(|breaker| breaker.limit(&head))
    }

    #[test]
    fn the_larger_limit_counts() {
        let (factor, count) = (
            "circuit_breaker_threshold_factor",
            "circuit_breaker_threshold_count",
        );
        for (properties, live, deleted, expected) in [
            (json!({}), 100, 0, None),
            (json!({ factor: 0.5 }), 80, 20, Some(Some(50))),
            (json!({ factor: 0.1 }), 30, 0, Some(Some(3))),
            (json!({ factor: 1.5 }), 3, 0, Some(Some(4))),
            (json!({ count: 0 }), 100, 0, Some(Some(0))),
            (json!({ factor: 0.5, count: 60 }), 100, 0, Some(Some(60))),
            (json!({ factor: 0.5, count: 60 }), 1000, 0, Some(Some(500))),
        ] {
            assert_eq!(
                limit(properties.clone(), live, deleted),
                expected,
                "{properties}"
            );
        }
    }

    #[test]
    fn rules_that_trip_are_found_wherever_they_stand() {
        let deep = json!([{"type": "dtl", "rules": {"x": [
            ["if", ["gt", "_S.n", 3], [["trip!", "too many"]]]
        ]}}]);
        assert!(says_trip(&deep));
        assert!(!says_trip(
            &json!([{"rules": {"default": [["add", "a", "trip!"]]}}])
        ));
    }
}
