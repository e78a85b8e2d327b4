//! How a pipe answers failures: one pure function turns class and policy into what to do.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::config::Props;
use crate::{Class, Failure};

/// Retry properties where they are set: by a pump itself, or by a system for an HTTP status
/// (`retry_strategy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// How many times a failing read is begun again.
    pub max_read_retries: Option<u64>,
    /// The pause before a read is begun again.
    pub read_retry_delay: Option<Duration>,
    /// The pause after a write error.
    pub write_retry_delay: Option<Duration>,
    /// How many times a failing batch is sent again.
    pub batch_retries: Option<u64>,
    /// How many write errors in a row end the run.
    pub max_consecutive_write_errors: Option<u64>,
    /// How many failed entities may wait in the execution log.
    pub max_write_errors_in_retry_dataset: Option<u64>,
    /// How many times an entity is retried before it is given up.
    pub max_retries_per_entity: Option<u64>,
}

impl Retries {
    /// The retry properties among `props`.
    ///
    /// # Errors
    /// Config, naming the property that is no number of at least 0.
    pub fn of(props: Props<'_>) -> Result<Retries, Failure> {
        let count = |name: &str| -> Result<Option<u64>, Failure> {
            let wrong = || props.wrong(name, "a whole number of at least 0", props.get(name));
            let number = props.opt_int(name)?;
            number
                .map(|number| u64::try_from(number).map_err(|_| wrong()))
                .transpose()
        };
        Ok(Retries {
            max_read_retries: count("max_read_retries")?,
            read_retry_delay: props.opt_seconds("read_retry_delay")?,
            write_retry_delay: props.opt_seconds("write_retry_delay")?,
            batch_retries: count("batch_retries")?,
            max_consecutive_write_errors: count("max_consecutive_write_errors")?,
            max_write_errors_in_retry_dataset: count("max_write_errors_in_retry_dataset")?,
            max_retries_per_entity: count("max_retries_per_entity")?,
        })
    }
}

/// The retry properties of a pump, with their documented defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How many times a failing read is begun again.
    pub max_read_retries: u64,
    /// The pause before a read is begun again.
    pub read_retry_delay: Duration,
    /// The pause after a write error.
    pub write_retry_delay: Duration,
    /// How many times a failing batch is sent again before its entities are sent alone.
    pub batch_retries: u64,
    /// Whether a failing batch is split into single entities.
    pub fallback_to_single_entities: bool,
    /// How many write errors in a row end the run.
    pub max_consecutive_write_errors: u64,
    /// How many failed entities may wait in the execution log; 0 switches retries off.
    pub max_write_errors_in_retry_dataset: u64,
    /// How many times an entity is retried before it is given up.
    pub max_retries_per_entity: u64,
    /// Where given-up entities go.
    pub dead_letter_dataset: Option<String>,
    /// Whether a dead letter is deleted when a later version gets through.
    pub track_dead_letters: bool,
    /// How long the transforms may take for an entity, as the average of a batch.
    pub max_time_per_entity: Option<Duration>,
    /// What the pump's configuration sets itself: it goes before a system's `retry_strategy`.
    pub own: Retries,
}

/// The documented defaults of the retry properties.
const READ_RETRIES: u64 = 0;
const BATCH_RETRIES: u64 = 3;
const CONSECUTIVE_WRITE_ERRORS: u64 = 1;
const WRITE_ERRORS_IN_RETRY_DATASET: u64 = 0;
const RETRIES_PER_ENTITY: u64 = 5;

impl Policy {
    /// The policy of a pump: its effective configuration, and what was written of it.
    ///
    /// # Errors
    /// Config, for a property of the wrong kind.
    pub fn of(pipe: &str, pump: Props<'_>, written: &Json) -> Result<Policy, Failure> {
        let dead_letter_dataset = match pump.opt_str("dead_letter_dataset")? {
            Some(name) => Some(name.to_owned()),
            None if pump.bool("use_dead_letter_dataset", false)? => {
                Some(format!("system:dead-letter:{pipe}"))
            }
            None => None,
        };
        let all = Retries::of(pump)?;
        let consecutive = all.max_consecutive_write_errors;
        let waiting = all.max_write_errors_in_retry_dataset;
        let per_entity = all.max_retries_per_entity;
        Ok(Policy {
            max_read_retries: all.max_read_retries.unwrap_or(READ_RETRIES),
            read_retry_delay: all.read_retry_delay.unwrap_or_default(),
            write_retry_delay: all.write_retry_delay.unwrap_or_default(),
            batch_retries: all.batch_retries.unwrap_or(BATCH_RETRIES),
            fallback_to_single_entities: pump
                .bool("fallback_to_single_entities_on_batch_fail", true)?,
            max_consecutive_write_errors: consecutive.unwrap_or(CONSECUTIVE_WRITE_ERRORS).max(1),
            max_write_errors_in_retry_dataset: waiting.unwrap_or(WRITE_ERRORS_IN_RETRY_DATASET),
            max_retries_per_entity: per_entity.unwrap_or(RETRIES_PER_ENTITY),
            dead_letter_dataset,
            track_dead_letters: pump.bool("track_dead_letters", false)?,
            max_time_per_entity: pump.opt_seconds("max_seconds_per_entity")?,
            own: own(all, written),
        })
    }

    /// The policy for `failure`: what the system behind it says about its status (its
    /// `retry_strategy`) stands where the pump says nothing itself.
    pub fn under(&self, failure: &Failure) -> Cow<'_, Policy> {
        let Some(says) = failure.retries.as_deref() else {
            return Cow::Borrowed(self);
        };
        fn give<T: Copy>(value: &mut T, own: Option<T>, says: Option<T>) {
            if let (None, Some(says)) = (own, says) {
                *value = says;
            }
        }
        let (mut policy, own) = (self.clone(), &self.own);
        give(
            &mut policy.max_read_retries,
            own.max_read_retries,
            says.max_read_retries,
        );
        give(
            &mut policy.read_retry_delay,
            own.read_retry_delay,
            says.read_retry_delay,
        );
        give(
            &mut policy.write_retry_delay,
            own.write_retry_delay,
            says.write_retry_delay,
        );
        give(
            &mut policy.batch_retries,
            own.batch_retries,
            says.batch_retries,
        );
        give(
            &mut policy.max_consecutive_write_errors,
            own.max_consecutive_write_errors,
            says.max_consecutive_write_errors.map(|count| count.max(1)),
        );
        give(
            &mut policy.max_write_errors_in_retry_dataset,
            own.max_write_errors_in_retry_dataset,
            says.max_write_errors_in_retry_dataset,
        );
        give(
            &mut policy.max_retries_per_entity,
            own.max_retries_per_entity,
            says.max_retries_per_entity,
        );
        Cow::Owned(policy)
    }

    /// The pause after a write error: the pump's own, or as long as the peer asked, up to a limit.
    pub fn write_pause(&self, failure: &Failure) -> Duration {
        let policy = self.under(failure);
        policy.write_retry_delay.max(asked(failure))
    }

    /// Whether failed entities of earlier runs are retried: also those that were set aside
    /// because a system's `retry_strategy` said so, unless the pump switches retries off.
    pub fn retries_are_on(&self) -> bool {
        self.own.max_write_errors_in_retry_dataset != Some(0)
    }
}

/// Of the effective values those that were written, as they are or through a variable for the
/// whole pump, which shows where a value is not the default.
fn own(all: Retries, written: &Json) -> Retries {
    let empty = Map::new();
    let map = written.as_object().unwrap_or(&empty);
    let is_written = |name: &str| map.get(name).is_some_and(|value| !value.is_null());
    let count = |name: &str, value: Option<u64>, default: u64| {
        value.filter(|value| is_written(name) || *value != default)
    };
    let delay = |name: &str, value: Option<Duration>| {
        value.filter(|value| is_written(name) || !value.is_zero())
    };
    Retries {
        max_read_retries: count("max_read_retries", all.max_read_retries, READ_RETRIES),
        read_retry_delay: delay("read_retry_delay", all.read_retry_delay),
        write_retry_delay: delay("write_retry_delay", all.write_retry_delay),
        batch_retries: count("batch_retries", all.batch_retries, BATCH_RETRIES),
        max_consecutive_write_errors: count(
            "max_consecutive_write_errors",
            all.max_consecutive_write_errors,
            CONSECUTIVE_WRITE_ERRORS,
        ),
        max_write_errors_in_retry_dataset: count(
            "max_write_errors_in_retry_dataset",
            all.max_write_errors_in_retry_dataset,
            WRITE_ERRORS_IN_RETRY_DATASET,
        ),
        max_retries_per_entity: count(
            "max_retries_per_entity",
            all.max_retries_per_entity,
            RETRIES_PER_ENTITY,
        ),
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Reading from the source.
    Read,
    /// Putting a batch through the transforms.
    Transform,
    /// Writing a batch of several entities.
    WriteBatch,
    /// Writing one entity, or putting it through the transforms.
    WriteOne,
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait this long and do the same again.
    Retry(Duration),
    /// Send the entities of the batch one by one.
    Split,
    /// Keep the entity for later runs, wait this long and go on.
    SetAside(Duration),
    /// End the run.
    Stop,
}

/// How things stand when a failure is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How often the same thing was tried again already.
    pub attempt: u64,
    /// Write errors in a row, this one counted.
    pub consecutive: u64,
    /// Failed entities that wait in the execution log, this one not counted.
    pub waiting: u64,
}

/// The most that a peer's `Retry-After` can make a run wait.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Decides what to do about `failure`.
pub fn verdict(failure: &Failure, doing: Doing, standing: Standing, policy: &Policy) -> Verdict {
    if matches!(
        failure.class,
        Class::Config | Class::Fatal | Class::Cancelled | Class::Waiting | Class::Tripped
    ) {
        return Verdict::Stop;
    }
    let policy = &*policy.under(failure);
    let read_pause = policy.read_retry_delay.max(asked(failure));
    let write_pause = policy.write_retry_delay.max(asked(failure));
    // What no peer had a part in comes out the same the next time.
    let is_fixed = failure.class == Class::Entity && failure.status.is_none();
    match doing {
        Doing::Read if failure.class == Class::Entity => Verdict::Stop,
        Doing::Read if standing.attempt < policy.max_read_retries => Verdict::Retry(read_pause),
        Doing::Read => Verdict::Stop,
        Doing::Transform if is_fixed => split(policy),
        Doing::Transform | Doing::WriteBatch if standing.attempt < policy.batch_retries => {
            Verdict::Retry(write_pause)
        }
        Doing::Transform | Doing::WriteBatch => split(policy),
        Doing::WriteOne => write_one(standing, policy, write_pause),
    }
}

/// How long the peer asked us to wait, up to the limit.
fn asked(failure: &Failure) -> Duration {
    failure.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)
}

fn split(policy: &Policy) -> Verdict {
    match policy.fallback_to_single_entities {
        true => Verdict::Split,
        false => Verdict::Stop,
    }
}

/// With a retry dataset a failing entity is set aside and the next one is tried; without one
/// there is nowhere to keep it, so it is tried again until the run ends: nothing is lost.
fn write_one(standing: Standing, policy: &Policy, pause: Duration) -> Verdict {
    let retries_are_on = policy.max_write_errors_in_retry_dataset > 0;
    if retries_are_on && standing.waiting >= policy.max_write_errors_in_retry_dataset {
        return Verdict::Stop;
    }
    if retries_are_on {
        return Verdict::SetAside(pause);
    }
    if standing.consecutive < policy.max_consecutive_write_errors {
        Verdict::Retry(pause)
    } else {
        Verdict::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_consecutive: u64, retry_dataset: u64) -> Policy {
        let map = serde_json::Map::new();
        let mut policy = Policy::of("p", Props::new("$.pump", &map), &Json::Null).unwrap();
        policy.max_consecutive_write_errors = max_consecutive;
        policy.max_write_errors_in_retry_dataset = retry_dataset;
        policy
    }

    fn standing(attempt: u64, consecutive: u64, waiting: u64) -> Standing {
        Standing {
            attempt,
            consecutive,
            waiting,
        }
    }

    #[test]
    fn the_documented_defaults_end_the_run_at_the_first_write_error() {
        let failure = Failure::entity("no");
        let verdict = verdict(&failure, Doing::WriteOne, standing(0, 1, 0), &policy(1, 0));
        assert_eq!(verdict, Verdict::Stop);
    }

    #[test]
    fn each_class_and_standing_has_its_verdict() {
        let transient = Failure::transient("down");
        let entity = Failure::entity("bad");
        let none = Duration::ZERO;
        let cases = [
            (
                &transient,
                Doing::Read,
                standing(0, 0, 0),
                policy(1, 0),
                Verdict::Stop,
            ),
            (
                &transient,
                Doing::WriteBatch,
                standing(2, 0, 0),
                policy(1, 0),
                Verdict::Retry(none),
            ),
            (
                &transient,
                Doing::WriteBatch,
                standing(3, 0, 0),
                policy(1, 0),
                Verdict::Split,
            ),
            (
                &entity,
                Doing::WriteOne,
                standing(0, 1, 0),
                policy(3, 0),
                Verdict::Retry(none),
            ),
            (
                &entity,
                Doing::WriteOne,
                standing(0, 3, 0),
                policy(3, 0),
                Verdict::Stop,
            ),
            (
                &entity,
                Doing::WriteOne,
                standing(0, 1, 9),
                policy(1, 10),
                Verdict::SetAside(none),
            ),
            (
                &entity,
                Doing::WriteOne,
                standing(0, 1, 10),
                policy(1, 10),
                Verdict::Stop,
            ),
        ];
        for (failure, doing, standing, policy, expected) in cases {
            let found = verdict(failure, doing, standing, &policy);
            assert_eq!(found, expected, "{doing:?} {standing:?}");
        }
    }

    #[test]
    fn stopping_classes_stop_whatever_the_policy() {
        for class in [
            Class::Config,
            Class::Fatal,
            Class::Cancelled,
            Class::Waiting,
            Class::Tripped,
        ] {
            let failure = Failure::new(class, "x");
            for doing in [
                Doing::Read,
                Doing::Transform,
                Doing::WriteBatch,
                Doing::WriteOne,
            ] {
                let found = verdict(&failure, doing, standing(0, 1, 0), &policy(9, 9));
                assert_eq!(found, Verdict::Stop, "{class:?} {doing:?}");
            }
        }
    }

    #[test]
    fn a_peer_can_ask_for_a_pause_up_to_a_limit() {
        let mut failure = Failure::transient("429");
        failure.retry_after = Some(Duration::from_secs(86_400));
        let mut policy = policy(1, 0);
        policy.max_read_retries = 1;
        let found = verdict(&failure, Doing::Read, standing(0, 0, 0), &policy);
        assert_eq!(found, Verdict::Retry(MAX_RETRY_AFTER));
    }

    fn strategic(says: Retries) -> Failure {
        Failure {
            retries: Some(std::sync::Arc::new(says)),
            ..Failure::transient("busy").with_status(429)
        }
    }

    fn written(pump: Json) -> Policy {
        let mut effective = serde_json::json!({
            "max_read_retries": 0, "read_retry_delay": 0, "write_retry_delay": 0,
            "batch_retries": 3, "max_consecutive_write_errors": 1,
            "max_write_errors_in_retry_dataset": 0, "max_retries_per_entity": 5,
        });
        for (name, value) in pump.as_object().unwrap() {
            effective[name] = value.clone();
        }
        let props = Props::new("$.pump", effective.as_object().unwrap());
        Policy::of("p", props, &pump).unwrap()
    }

    #[test]
    fn a_system_speaks_where_the_pump_is_silent() {
        let failure = strategic(Retries {
            max_read_retries: Some(2),
            batch_retries: Some(0),
            max_write_errors_in_retry_dataset: Some(4),
            write_retry_delay: Some(Duration::from_secs(30)),
            ..Retries::default()
        });
        let silent = written(serde_json::json!({}));
        let judge = |doing, standing, policy| verdict(&failure, doing, standing, policy);
        let none = Duration::ZERO;
        let pause = Duration::from_secs(30);
        let last = standing(1, 0, 0);
        assert_eq!(judge(Doing::Read, last, &silent), Verdict::Retry(none));
        assert_eq!(
            judge(Doing::Read, standing(2, 0, 0), &silent),
            Verdict::Stop
        );
        let first = standing(0, 0, 0);
        assert_eq!(judge(Doing::WriteBatch, first, &silent), Verdict::Split);
        let one = judge(Doing::WriteOne, standing(0, 1, 3), &silent);
        assert_eq!(one, Verdict::SetAside(pause));
        // What the pump says itself wins, a 0 and a default that was written too.
        let strict = written(serde_json::json!({
            "max_read_retries": 0, "batch_retries": 3,
            "max_write_errors_in_retry_dataset": 0, "write_retry_delay": 0,
        }));
        assert_eq!(judge(Doing::Read, first, &strict), Verdict::Stop);
        let batch = judge(Doing::WriteBatch, first, &strict);
        assert_eq!(batch, Verdict::Retry(none));
        let one = judge(Doing::WriteOne, standing(0, 1, 0), &strict);
        assert_eq!(one, Verdict::Stop);
    }

    #[test]
    fn rules_that_fail_for_an_entity_are_not_tried_again_with_the_whole_batch() {
        let policy = policy(1, 0);
        let now = standing(0, 0, 0);
        let fixed = Failure::entity("too deep");
        assert_eq!(
            verdict(&fixed, Doing::Transform, now, &policy),
            Verdict::Split
        );
        let refused = Failure::entity("422").with_status(422);
        let again = verdict(&refused, Doing::Transform, now, &policy);
        assert_eq!(again, Verdict::Retry(Duration::ZERO));
    }
}
