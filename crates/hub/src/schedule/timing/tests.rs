use serde_json::{Map, json};
use tahini_store::{Backend, Memory};

use super::*;
use crate::config::{Configuration, Input};
use crate::hub::commit_state;
use crate::{Clock, Registry, builtin};

const REGISTRY: Registry = Registry {
    sources: &[builtin::SOURCES],
    sinks: &[builtin::SINKS],
    transforms: &[builtin::TRANSFORMS],
    systems: &[],
    template: |_| Ok(()),
};

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        now()
    }
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_hours(hours)
}

fn timing(pump: Json, met: Met) -> Timing {
    let pipe = json!({"_id": "p", "type": "pipe", "pump": pump,
        "source": {"type": "embedded", "entities": []}});
    let configuration = Configuration::build(vec![Input::new(pipe)], &Map::new(), &REGISTRY);
    Timing::of(configuration.get("p").unwrap(), now(), met).unwrap()
}

/// Seconds until the next run.
fn left(timing: &Timing) -> f64 {
    let next = timing.next(now()).unwrap();
    (next.as_microsecond() - now().as_microsecond()) as f64 / 1e6
}

/// What stands in the dataset after `timing` was kept.
fn kept(timing: &mut Timing) -> Kept {
    let store = Memory::new();
    let dataset = store.open(KEPT_IN, true).unwrap();
    let writes = timing.keep("p", now());
    commit_state(dataset.as_ref(), &writes, false, &Still).unwrap();
    Kept::load(dataset.snapshot().unwrap().as_ref(), "p").unwrap()
}

#[test]
fn an_interval_goes_on_from_the_end_of_the_last_run() {
    for (last, expected) in [
        (
            Some(now() - jiff::SignedDuration::from_secs(300)),
            599.0..=600.0,
        ),
        (Some(hours(-5)), 0.0..=30.0),
        (None, 0.0..=5.0),
    ] {
        let met = Met {
            last,
            ..Met::default()
        };
        let left = left(&timing(json!({"schedule_interval": 900}), met));
        assert!(expected.contains(&left), "{left} after {last:?}");
    }
}

#[test]
fn a_long_interval_survives_the_node_and_a_short_one_is_not_kept() {
    let pump = json!({"schedule_interval": 7200});
    let met = Met {
        last: Some(hours(-1)),
        ..Met::default()
    };
    let kept = kept(&mut timing(pump.clone(), met));
    let again = |pump: Json| {
        let met = Met {
            kept: kept.clone(),
            ..Met::default()
        };
        left(&timing(pump, met))
    };
    assert!((3598.0..=3600.0).contains(&again(pump)));
    // It was kept for another interval: this is a new one.
    assert!(again(json!({"schedule_interval": 7201})) <= 5.0);
    let mut short = timing(json!({"schedule_interval": 3600}), Met::default());
    assert!(short.keep("p", now()).is_empty());
}

#[test]
fn missed_moments_are_due_at_once_and_then_over() {
    let pump = json!({"cron_expression": "0 12 * * *", "rescan_cron_expression": "0 1 * * SUN"});
    let kept = kept(&mut timing(pump.clone(), Met::default()));
    let later = hours(9);
    let met = |kept: &Kept| Met {
        kept: kept.clone(),
        ..Met::default()
    };
    let mut timing = timing(pump, met(&kept));
    assert!(!timing.is_due(Instant::now(), now()));
    assert!(timing.is_due(Instant::now(), later));
    assert_eq!(timing.rescan.unwrap().to_string(), "2026-01-04T01:00:00Z");
    timing.advance(later);
    assert!(!timing.is_due(Instant::now(), later));
    assert_eq!(timing.cron.unwrap().to_string(), "2026-01-03T12:00:00Z");
}

#[test]
fn what_is_kept_is_written_once_and_forgotten_with_the_pipe() {
    let pump = json!({"cron_expression": "0 12 * * *", "rescan_cron_expression": "0 1 * * SUN"});
    let mut timing = timing(pump, Met::default());
    assert_eq!(timing.keep("p", now()).len(), 2);
    assert!(timing.keep("p", now()).is_empty());
    timing.advance(hours(9));
    assert_eq!(
        timing.keep("p", hours(9)).len(),
        1,
        "the run moved, the rescan did not"
    );
    let gone = timing.forget("p");
    assert!(gone.iter().all(|write| write.value.is_none()));
    assert_eq!(gone.len(), 2);
}

#[test]
fn a_start_may_be_a_reason_to_run() {
    let far = |more: Json| {
        let mut pump = json!({"cron_expression": "0 0 1 1 *"});
        let more = more.as_object().unwrap().clone();
        pump.as_object_mut().unwrap().extend(more);
        pump
    };
    let plain = Met::default();
    let news = Met {
        news: true,
        ..plain.clone()
    };
    let full = Met {
        populated: true,
        ..plain.clone()
    };
    for (pump, met, runs) in [
        (far(json!({})), &plain, false),
        (far(json!({})), &news, true),
        (far(json!({"mode": "manual"})), &news, false),
        (far(json!({"run_at_startup": true})), &full, true),
        (
            far(json!({"run_at_startup_if_not_populated": true})),
            &plain,
            true,
        ),
        (
            far(json!({"run_at_startup_if_not_populated": true})),
            &full,
            false,
        ),
    ] {
        for starting in [true, false] {
            let met = Met {
                starting,
                ..met.clone()
            };
            let timing = timing(pump.clone(), met);
            let due = timing.is_due(Instant::now(), now());
            assert_eq!(due, runs && starting, "{pump} starting: {starting}");
        }
    }
}
