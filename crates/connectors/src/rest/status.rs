//! Which statuses of answers are passed on, and which are left out.

use tahini_hub::Failure;
use tahini_hub::config::Props;

/// `allowed_status_codes` and `ignored_status_codes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses {
    allowed: Vec<(u16, u16)>,
    ignored: Vec<(u16, u16)>,
}

impl Statuses {
    /// The 200s, and nothing is left out.
    pub(super) fn usual() -> Statuses {
        Statuses {
            allowed: vec![(200, 299)],
            ignored: Vec::new(),
        }
    }

    /// Reads both; the 200s are allowed where nothing else is said.
    ///
    /// # Errors
    /// Config, where one is no list of statuses and ranges, or both name the same status.
    pub(super) fn of(props: Props<'_>) -> Result<Statuses, Failure> {
        let allowed = ranges(props, "allowed_status_codes")?;
        let ignored = ranges(props, "ignored_status_codes")?.unwrap_or_default();
        let is_default = allowed.is_none();
        let allowed = allowed.unwrap_or_else(|| vec![(200, 299)]);
        let both = |status: &u16| holds(&allowed, *status) && holds(&ignored, *status);
        match (100..=599).find(both) {
            Some(status) if !is_default => Err(Failure::config(format!(
                "{}.ignored_status_codes: expected none of allowed_status_codes, found {status}",
                props.path()
            ))),
            _ => Ok(Statuses { allowed, ignored }),
        }
    }

    /// Whether an answer of that status is left out.
    pub(super) fn ignores(&self, status: u16) -> bool {
        holds(&self.ignored, status)
    }

    /// Whether an answer of that status is passed on.
    pub(super) fn allows(&self, status: u16) -> bool {
        holds(&self.allowed, status)
    }
}

fn holds(ranges: &[(u16, u16)], status: u16) -> bool {
    ranges
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&status))
}

fn ranges(props: Props<'_>, name: &str) -> Result<Option<Vec<(u16, u16)>>, Failure> {
    let text = match props.get(name) {
        None => return Ok(None),
        Some(number) if number.is_u64() => number.to_string(),
        Some(_) => props.str(name)?.to_owned(),
    };
    let ranges = text.split(',').map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (range.0 <= range.1).then_some(range)
    });
    let ranges: Option<Vec<(u16, u16)>> = ranges.collect();
    let wrong = || {
        props.wrong(
            name,
            "statuses and ranges, as in 404,500-599",
            props.get(name),
        )
    };
    ranges.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn statuses(config: Json) -> Result<Statuses, Failure> {
        Statuses::of(Props::new("$", config.as_object().unwrap()))
    }

    #[test]
    fn statuses_are_allowed_or_ignored() {
        let default = statuses(json!({})).unwrap();
        assert!(default.allows(204) && !default.allows(304) && !default.ignores(404));
        let both =
            json!({"allowed_status_codes": "100-428,430-599", "ignored_status_codes": "429"});
        let both = statuses(both).unwrap();
        assert!(both.allows(404) && !both.allows(429) && both.ignores(429));
    }

    #[test]
    fn what_cannot_be_meant_is_a_config_failure() {
        for wrong in [
            json!({"allowed_status_codes": "2xx"}),
            json!({"allowed_status_codes": "300-200"}),
            json!({"allowed_status_codes": "200-404", "ignored_status_codes": "404"}),
        ] {
            assert!(statuses(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
