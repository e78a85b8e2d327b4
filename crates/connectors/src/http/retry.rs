//! When to try again: what a peer asks for (`Retry-After`) and what a system says about it
//! (`retry_strategy`). The pump judges; here both are only read.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tahini_hub::Failure;
use tahini_hub::config::Props;
use tahini_hub::policy::Retries;

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

/// A system's `retry_strategy`: retry properties by HTTP status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryStrategy {
    /// First and last status, in the order of the configuration; the first that fits is taken.
    ranges: Vec<(u16, u16, Arc<Retries>)>,
    default: Option<Arc<Retries>>,
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
            let retries = Arc::new(Retries::of(Props::new(&path, map))?);
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
                strategy.ranges.push((first, last, Arc::clone(&retries)));
            }
        }
        Ok(strategy)
    }

    /// What the strategy says about an answer of this status.
    pub fn for_status(&self, status: u16) -> Option<&Arc<Retries>> {
        self.ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&status))
            .map(|(_, _, retries)| retries)
            .or(self.default.as_ref())
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

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::{Value as Json, json};

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
        let found = |status| strategy.for_status(status).unwrap().as_ref().clone();
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
