//! When a pump runs.

pub(crate) mod timing;

use std::time::Duration;

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use crate::config::Problem;
use crate::cron::Cron;

/// Who may start a pump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The schedule, signals and people.
    #[default]
    Scheduled,
    /// People only.
    Manual,
    /// Nobody.
    Off,
}

/// When a pump runs, as its effective configuration says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// The time from the start of one run to the start of the next; `None` beside a cron
    /// expression, and for a pipe with an endpoint, which never pumps.
    pub every: Option<Duration>,
    /// The moments at which it runs, in UTC.
    pub cron: Option<Cron>,
    /// The moments at which it rescans, in UTC.
    pub rescan_cron: Option<Cron>,
    /// Every how many runs is a rescan; `None` beside a rescan cron expression.
    pub rescan_run_count: Option<u64>,
    /// Whether it runs when the node starts, too.
    pub run_at_startup: bool,
    /// Whether it runs when the node starts and its sink is not populated.
    pub run_at_startup_if_not_populated: bool,
    /// Who may start it.
    pub mode: Mode,
}

impl Schedule {
    /// The schedule of a pump's effective configuration.
    ///
    /// # Errors
    /// Everything that is wrong, with paths from the pipe.
    pub fn of(pump: &Map<String, Json>) -> Result<Schedule, Vec<Problem>> {
        let mut reader = Reader {
            pump,
            problems: Vec::new(),
        };
        let mut schedule = Schedule {
            every: reader.seconds("schedule_interval"),
            cron: reader.cron("cron_expression"),
            rescan_cron: reader.cron("rescan_cron_expression"),
            rescan_run_count: reader.count("rescan_run_count"),
            run_at_startup: reader.flag("run_at_startup"),
            run_at_startup_if_not_populated: reader.flag("run_at_startup_if_not_populated"),
            mode: reader.mode(),
        };
        if schedule.cron.is_some() {
            schedule.every = None;
        }
        if schedule.rescan_cron.is_some() {
            schedule.rescan_run_count = None;
        }
        if pump.get("type").and_then(Json::as_str) == Some("noop") {
            schedule = Schedule {
                mode: schedule.mode,
                ..Schedule::default()
            };
        }
        if reader.problems.is_empty() {
            Ok(schedule)
        } else {
            Err(reader.problems)
        }
    }
}

struct Reader<'a> {
    pump: &'a Map<String, Json>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Json) -> Option<T>,
    ) -> Option<T> {
        let value = self.pump.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.wrong(name, format!("expected {expected}, found {value}"));
        }
        read
    }

    fn wrong(&mut self, name: &str, message: String) {
        self.problems.push(Problem::error(
            JsonPath::default().name("pump").name(name),
            message,
        ));
    }

    fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.read(name, "a number of seconds of at least 0", |value| {
            Duration::try_from_secs_f64(value.as_f64()?).ok()
        })
    }

    fn count(&mut self, name: &str) -> Option<u64> {
        self.read(name, "a whole number of at least 1", |value| {
            value.as_u64().filter(|count| *count > 0)
        })
    }

    fn flag(&mut self, name: &str) -> bool {
        self.read(name, "true or false", Json::as_bool)
            .unwrap_or(false)
    }

    fn cron(&mut self, name: &str) -> Option<Cron> {
        let text = self.read(name, "a cron expression", |value| {
            Some(value.as_str()?.to_owned())
        })?;
        match Cron::parse(&text) {
            Ok(cron) => Some(cron),
            Err(message) => {
                self.wrong(name, message);
                None
            }
        }
    }

    fn mode(&mut self) -> Mode {
        let mode = self.read("mode", "scheduled, manual or off", |value| {
            match value.as_str()? {
                "scheduled" => Some(Mode::Scheduled),
                "manual" => Some(Mode::Manual),
                "off" => Some(Mode::Off),
                _ => None,
            }
        });
        mode.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pump: Json) -> Result<Schedule, Vec<Problem>> {
        Schedule::of(pump.as_object().unwrap())
    }

    #[test]
    fn cron_goes_before_intervals() {
        let schedule = of(json!({
            "schedule_interval": 30, "cron_expression": "0 0 * * *",
            "rescan_run_count": 3, "rescan_cron_expression": "0 1 * * *"
        }))
        .unwrap();
        assert_eq!(schedule.every, None);
        assert_eq!(schedule.cron.unwrap().to_string(), "0 0 * * *");
        assert_eq!(schedule.rescan_run_count, None);
        assert_eq!(schedule.rescan_cron.unwrap().to_string(), "0 1 * * *");
        assert_eq!(schedule.mode, Mode::Scheduled);
    }

    #[test]
    fn intervals_may_be_fractions() {
        let schedule = of(json!({"schedule_interval": 0.5, "rescan_run_count": 2})).unwrap();
        assert_eq!(schedule.every, Some(Duration::from_millis(500)));
        assert_eq!(schedule.rescan_run_count, Some(2));
    }

    #[test]
    fn endpoints_never_pump() {
        let schedule =
            of(json!({"type": "noop", "schedule_interval": 999999999, "run_at_startup": true}));
        assert_eq!(schedule.unwrap(), Schedule::default());
    }

    #[test]
    fn everything_wrong_is_listed() {
        let problems = of(json!({
            "schedule_interval": -1, "cron_expression": "6L", "rescan_run_count": 0, "mode": "on"
        }))
        .unwrap_err();
        let paths: Vec<String> = problems
            .iter()
            .map(|problem| problem.path.to_string())
            .collect();
        let expected = [
            "schedule_interval",
            "cron_expression",
            "rescan_run_count",
            "mode",
        ];
        assert_eq!(paths, expected.map(|name| format!("$.pump.{name}")));
    }
}
