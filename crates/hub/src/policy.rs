//! How a pipe answers failures: one pure function turns class and policy into what to do.

use std::time::Duration;

use crate::config::Props;
use crate::{Class, Failure};

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
}

impl Policy {
    /// The policy of a pump's effective configuration.
    ///
    /// # Errors
    /// Config, for a property of the wrong kind.
    pub fn of(pipe: &str, pump: Props<'_>) -> Result<Policy, Failure> {
        let count = |name: &str, default: u64| -> Result<u64, Failure> {
            Ok(pump
                .opt_int(name)?
                .map_or(default, |value| value.max(0).unsigned_abs()))
        };
        let seconds = |name: &str| Ok::<_, Failure>(pump.opt_seconds(name)?.unwrap_or_default());
        let dead_letter_dataset = match pump.opt_str("dead_letter_dataset")? {
            Some(name) => Some(name.to_owned()),
            None if pump.bool("use_dead_letter_dataset", false)? => {
                Some(format!("system:dead-letter:{pipe}"))
            }
            None => None,
        };
        Ok(Policy {
            max_read_retries: count("max_read_retries", 0)?,
            read_retry_delay: seconds("read_retry_delay")?,
            write_retry_delay: seconds("write_retry_delay")?,
            batch_retries: count("batch_retries", 3)?,
            fallback_to_single_entities: pump
                .bool("fallback_to_single_entities_on_batch_fail", true)?,
            max_consecutive_write_errors: count("max_consecutive_write_errors", 1)?.max(1),
            max_write_errors_in_retry_dataset: count("max_write_errors_in_retry_dataset", 0)?,
            max_retries_per_entity: count("max_retries_per_entity", 5)?,
            dead_letter_dataset,
        })
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Reading from the source.
    Read,
    /// Writing a batch of several entities.
    WriteBatch,
    /// Writing one entity.
    WriteOne,
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait this long and do the same again.
    Retry(Duration),
    /// Send the entities of the batch one by one.
    Split,
    /// Keep the entity for later runs and go on.
    SetAside,
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
        Class::Config | Class::Fatal | Class::Cancelled | Class::Waiting
    ) {
        return Verdict::Stop;
    }
    let pause = |delay: Duration| match failure.retry_after {
        Some(asked) => delay.max(asked.min(MAX_RETRY_AFTER)),
        None => delay,
    };
    match doing {
        Doing::Read if failure.class == Class::Entity => Verdict::Stop,
        Doing::Read if standing.attempt < policy.max_read_retries => {
            Verdict::Retry(pause(policy.read_retry_delay))
        }
        Doing::Read => Verdict::Stop,
        Doing::WriteBatch if standing.attempt < policy.batch_retries => {
            Verdict::Retry(pause(policy.write_retry_delay))
        }
        Doing::WriteBatch if policy.fallback_to_single_entities => Verdict::Split,
        Doing::WriteBatch => Verdict::Stop,
        Doing::WriteOne => write_one(standing, policy, pause(policy.write_retry_delay)),
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
        return Verdict::SetAside;
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
        let mut policy = Policy::of("p", Props::new("$.pump", &map)).unwrap();
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
                Verdict::SetAside,
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
        ] {
            let failure = Failure::new(class, "x");
            for doing in [Doing::Read, Doing::WriteBatch, Doing::WriteOne] {
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
}
