//! When to try again: what a peer asks for (`Retry-After`) and what a system says about it
//! (`retry_strategy`).

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::{Map, Value as Json};
use tahini_hub::Failure;
use tahini_hub::config::Props;

/// The longest pause that a peer's `Retry-After` can cause.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How long the peer asks us to wait: seconds, or a date that counts from the answer's own `Date`
/// (from `now` when it has none). Dates in the past are no pause. Not limited.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = date(text)?;
    let from = headers
        .get(DATE)
        .and_then(|date_text| date(date_text.to_str().ok()?))
        .unwrap_or(now);
    Some(Duration::try_from(until.duration_since(from)).unwrap_or_default())
}

fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// The retry properties that a system sets for some HTTP statuses; each of them is a default for
/// the pump's property of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// How many times a failing read is begun again.
    pub max_read_retries: Option<u64>,
    /// The pause before a read is begun again.
    pub read_retry_delay: Option<Duration>,
    /// The pause after a write error.
    pub write_retry_delay: Option<Duration>,
    /// How many times an entity is retried before it is given up.
    pub max_retries_per_entity: Option<u64>,
    /// How many write errors in a row end the run.
    pub max_consecutive_write_errors: Option<u64>,
    /// How many failed entities may wait in the execution log.
    pub max_write_errors_in_retry_dataset: Option<u64>,
    /// How many times a failing batch is sent again.
    pub batch_retries: Option<u64>,
}

/// A system's `retry_strategy`: retry properties by HTTP status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryStrategy {
    /// First and last status, in the order of the configuration; the first that fits is taken.
    ranges: Vec<(u16, u16, Retries)>,
    default: Option<Retries>,
}

impl RetryStrategy {
    /// Reads the object under `retry_strategy`: keys are statuses (`429`), ranges (`400-428`),
    /// lists of both (`500,502-504`), or `default`.
    ///
    /// # Errors
    /// Config, naming the key that is none of these or the property that is no number.
    pub fn of(system: Props<'_>) -> Result<RetryStrategy, Failure> {
        let mut strategy = RetryStrategy::default();
        let Some(object) = system.opt_object("retry_strategy")? else {
            return Ok(strategy);
        };
        for (key, value) in object {
            let path = format!("{}.retry_strategy[{key:?}]", system.path());
            let Some(map) = value.as_object() else {
                return Err(Failure::config(format!(
                    "{path}: expected an object of retry properties, found {value}"
                )));
            };
            let retries = retries(&path, map)?;
            if key == "default" {
                strategy.default = Some(retries);
                continue;
            }
            for part in key.split(',') {
                let (first, last) = range(part).ok_or_else(|| {
                    Failure::config(format!(
                        "{path}: expected a status (429), a range (400-428), a list of them \
                         (500,502-504) or default, found {part:?}"
                    ))
                })?;
                strategy.ranges.push((first, last, retries.clone()));
            }
        }
        Ok(strategy)
    }

    /// What the strategy says about an answer of this status.
    pub fn for_status(&self, status: u16) -> Option<&Retries> {
        self.ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&status))
            .map(|(_, _, retries)| retries)
            .or(self.default.as_ref())
    }
}

/// A system's strategy as a pipe sees it: what the pipe's pump sets itself wins.
#[derive(Clone, Debug, Default)]
pub struct PumpDefaults {
    strategy: RetryStrategy,
    own_read_retries: bool,
    own_read_delay: bool,
    own_write_delay: bool,
}

impl PumpDefaults {
    /// The strategy beside the pipe's effective configuration. Effective configuration has its
    /// defaults filled in, so a retry property that is 0 counts as not set.
    pub fn of(strategy: &RetryStrategy, pipe: Props<'_>) -> PumpDefaults {
        let pump = pipe.get("pump").and_then(Json::as_object);
        let own = |name: &str| {
            let value = pump.and_then(|pump| pump.get(name)).and_then(Json::as_f64);
            value.is_some_and(|value| value > 0.0)
        };
        PumpDefaults {
            strategy: strategy.clone(),
            own_read_retries: own("max_read_retries"),
            own_read_delay: own("read_retry_delay"),
            own_write_delay: own("write_retry_delay"),
        }
    }

    /// The pause before a failed request to read is sent again, or `None` when `attempt` (from 0)
    /// was the last one that the strategy allows for the failure's status.
    pub fn read_again(&self, failure: &Failure, attempt: u64) -> Option<Duration> {
        let retries = self.strategy.for_status(failure.status?)?;
        let allowed = if self.own_read_retries {
            0
        } else {
            retries.max_read_retries?
        };
        if attempt >= allowed {
            return None;
        }
        let asked = failure.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        let delay = retries.read_retry_delay.filter(|_| !self.own_read_delay);
        Some(delay.unwrap_or_default().max(asked))
    }

    /// The failed read with the pause that the strategy wants before the next try.
    pub fn paused_read(&self, failure: Failure) -> Failure {
        let own = self.own_read_delay;
        self.paused(failure, |retries| retries.read_retry_delay.filter(|_| !own))
    }

    /// The failed write with the pause that the strategy wants before the next try.
    pub fn paused_write(&self, failure: Failure) -> Failure {
        let own = self.own_write_delay;
        self.paused(failure, |retries| {
            retries.write_retry_delay.filter(|_| !own)
        })
    }

    fn paused(
        &self,
        mut failure: Failure,
        delay: impl Fn(&Retries) -> Option<Duration>,
    ) -> Failure {
        let retries = failure
            .status
            .and_then(|status| self.strategy.for_status(status));
        let wanted = retries.and_then(delay);
        failure.retry_after = failure.retry_after.max(wanted);
        failure
    }
}

fn range(part: &str) -> Option<(u16, u16)> {
    let status = |text: &str| -> Option<u16> {
        text.trim()
            .parse()
            .ok()
            .filter(|status| (100..=599).contains(status))
    };
    match part.split_once('-') {
        None => status(part).map(|only| (only, only)),
        Some((first, last)) => {
            let range = (status(first)?, status(last)?);
            (range.0 <= range.1).then_some(range)
        }
    }
}

fn retries(path: &str, map: &Map<String, Json>) -> Result<Retries, Failure> {
    let props = Props::new(path, map);
    let count = |name: &str| -> Result<Option<u64>, Failure> {
        match props.opt_int(name)? {
            None => Ok(None),
            Some(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(props.wrong(name, "a whole number of at least 0", props.get(name))),
            },
        }
    };
    Ok(Retries {
        max_read_retries: count("max_read_retries")?,
        read_retry_delay: props.opt_seconds("read_retry_delay")?,
        write_retry_delay: props.opt_seconds("write_retry_delay")?,
        max_retries_per_entity: count("max_retries_per_entity")?,
        max_consecutive_write_errors: count("max_consecutive_write_errors")?,
        max_write_errors_in_retry_dataset: count("max_write_errors_in_retry_dataset")?,
        batch_retries: count("batch_retries")?,
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    fn strategy(value: Json) -> Result<RetryStrategy, Failure> {
        let system = json!({ "retry_strategy": value });
        RetryStrategy::of(Props::new("$", system.as_object().unwrap()))
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let now = "1994-11-06T08:49:30Z".parse().unwrap();
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!(asked(&[("retry-after", "120")]), seconds(120));
        assert_eq!(
            asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            seconds(7)
        );
        let date = ("date", "Sun, 06 Nov 1994 08:49:35 GMT");
        assert_eq!(
            asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date]),
            seconds(2)
        );
        assert_eq!(
            asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")]),
            seconds(0)
        );
        assert_eq!(asked(&[("retry-after", "soon")]), None);
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn a_strategy_is_found_by_status_range_list_and_default() {
        let strategy = strategy(json!({
            "400-428": { "max_retries_per_entity": 0 },
            "429": { "max_read_retries": 2, "read_retry_delay": 30 },
            "500, 502,504": { "write_retry_delay": 1.5 },
            "default": { "batch_retries": 7 }
        }))
        .unwrap();
        let found = |status| strategy.for_status(status).unwrap().clone();
        assert_eq!(
            found(400),
            Retries {
                max_retries_per_entity: Some(0),
                ..Retries::default()
            }
        );
        assert_eq!(found(428), found(400));
        assert_eq!(found(429).max_read_retries, Some(2));
        assert_eq!(found(429).read_retry_delay, Some(Duration::from_secs(30)));
        assert_eq!(
            found(502).write_retry_delay,
            Some(Duration::from_millis(1500))
        );
        assert_eq!(found(501).batch_retries, Some(7));
    }

    fn refused(status: u16, retry_after: Option<u64>) -> Failure {
        let mut failure = Failure::transient("no").with_status(status);
        failure.retry_after = retry_after.map(Duration::from_secs);
        failure
    }

    #[test]
    fn a_strategy_says_how_often_and_when_a_read_is_begun_again() {
        let strategy =
            strategy(json!({ "429": { "max_read_retries": 2, "read_retry_delay": 30 } })).unwrap();
        let quiet = json!({ "pump": { "max_read_retries": 0, "read_retry_delay": 0 } });
        let defaults = PumpDefaults::of(&strategy, Props::new("$", quiet.as_object().unwrap()));
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!(defaults.read_again(&refused(429, None), 0), seconds(30));
        assert_eq!(defaults.read_again(&refused(429, Some(40)), 1), seconds(40));
        assert_eq!(
            defaults.read_again(&refused(429, Some(86_400)), 1),
            Some(MAX_RETRY_AFTER)
        );
        assert_eq!(defaults.read_again(&refused(429, None), 2), None);
        assert_eq!(defaults.read_again(&refused(500, None), 0), None);
        assert_eq!(defaults.read_again(&Failure::transient("refused"), 0), None);
        assert_eq!(
            defaults.paused_read(refused(429, None)).retry_after,
            seconds(30)
        );
    }

    #[test]
    fn what_the_pump_sets_itself_wins_over_the_strategy() {
        let strategy = strategy(json!({ "default": {
            "max_read_retries": 2, "read_retry_delay": 30, "write_retry_delay": 20
        }}))
        .unwrap();
        let pump = json!({ "pump": {
            "max_read_retries": 1, "read_retry_delay": 5, "write_retry_delay": 0
        }});
        let defaults = PumpDefaults::of(&strategy, Props::new("$", pump.as_object().unwrap()));
        assert_eq!(defaults.read_again(&refused(500, None), 0), None);
        assert_eq!(defaults.paused_read(refused(500, None)).retry_after, None);
        let wanted = Some(Duration::from_secs(20));
        assert_eq!(
            defaults.paused_write(refused(500, Some(3))).retry_after,
            wanted
        );
    }

    #[test]
    fn without_a_fitting_status_or_default_a_strategy_says_nothing() {
        assert_eq!(
            strategy(json!({ "429": {} })).unwrap().for_status(500),
            None
        );
    }

    #[test]
    fn a_strategy_that_cannot_be_meant_is_a_config_failure() {
        for (wrong, word) in [
            (json!({ "4xx": {} }), "4xx"),
            (json!({ "428-400": {} }), "428-400"),
            (json!({ "429": 3 }), "object"),
            (json!({ "429": { "max_read_retries": -1 } }), "at least 0"),
            (json!({ "429": { "read_retry_delay": "soon" } }), "seconds"),
        ] {
            let failure = strategy(wrong).unwrap_err();
            assert_eq!(failure.class, tahini_hub::Class::Config);
            assert!(failure.message.contains(word), "{failure}");
        }
    }
}
