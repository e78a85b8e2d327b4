//! In which steps entities, places and errors are committed.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_hub::receiver::{Push, receive};

use crate::script::records;
use crate::watched::{Step, Watched, What};
use crate::world::World;

fn watched() -> (Arc<Watched>, World) {
    let store = Arc::new(Watched::default());
    let world = World::on_store(store.clone());
    (store, world)
}

fn position(steps: &[Step], is: impl Fn(&Step) -> bool) -> usize {
    let found = steps.iter().position(is);
    found.unwrap_or_else(|| panic!("no such step in {steps:#?}"))
}

#[test]
fn a_batch_is_committed_with_the_place_after_it() {
    let (store, mut world) = watched();
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "batch_size": 1, "checkpoint_interval": 1,
    }));
    world.records("p", records(&[("a", 1)]));
    world.succeed("p");
    world.records("p", records(&[("b", 2), ("c", 3), ("d", 4)]));
    store.take();
    world.succeed("p");
    let steps = store.take();
    // Another entity may come with the `_updated` of c, so that it is no place yet.
    let of_place = position(&steps, |step| step.offset.as_deref() == Some("i2"));
    let (dataset, ids) = (&steps[of_place].dataset, &steps[of_place].ids);
    assert_eq!((dataset.as_str(), ids.join(",")), ("p", "b,c".to_owned()));
    let of_end = position(&steps, |step| step.offset.as_deref() == Some("i4"));
    let of_d = position(&steps, |step| step.ids == ["d"]);
    assert!(of_place < of_d && of_d <= of_end, "{steps:#?}");
}

#[test]
fn what_is_set_aside_is_durable_before_the_offset_passes_it() {
    for continuation in ["max", "chronological"] {
        for place in ["sink", "transform"] {
            let (store, mut world) = watched();
            let chronological = continuation == "chronological";
            world.pipe(json!({
                "_id": "p",
                "source": {"type": "scripted", "supports_since": true,
                    "is_chronological": chronological},
                "transform": {"type": "scripted"},
                "batch_size": 1, "checkpoint_interval": 1,
                "pump": {"max_write_errors_in_retry_dataset": 9,
                    "max_consecutive_write_errors": 9, "batch_retries": 0},
            }));
            let b = || ["b".to_owned()];
            match place {
                "sink" => world.target("p", |target| target.refuses.extend(b())),
                _ => world.middle("p", |middle| middle.refuses.extend(b())),
            }
            world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
            world.succeed("p");
            let steps = store.take();
            let of_error = position(&steps, |step| {
                step.what == What::Durable
                    && step.dataset == "system:pump_execution:p"
                    && step.ids.iter().any(|id| id.ends_with('b'))
            });
            let passes = |step: &Step| {
                let offset = step
                    .offset
                    .as_deref()
                    .and_then(|text| text.strip_prefix('i'));
                offset.is_some_and(|offset| offset.parse::<i64>().unwrap() >= 2)
            };
            let of_offset = position(&steps, passes);
            assert!(of_error < of_offset, "{continuation} {place}: {steps:#?}");
            assert_eq!(world.offset("p"), 4, "{continuation} {place}");
        }
    }
}

#[test]
fn a_run_that_does_nothing_commits_nothing() {
    let (store, mut world) = watched();
    world.pipe(json!({"_id": "in", "source": {"type": "scripted", "supports_since": true}}));
    world.pipe(json!({"_id": "out", "source": {"type": "dataset", "dataset": "in"}}));
    let source = json!({"type": "dataset", "dataset": "in"});
    world.pipe(json!({"_id": "push", "source": source, "sink": {"type": "scripted"}}));
    world.records("in", records(&[("a", 1)]));
    let pipes = ["in", "out", "push"];
    pipes.into_iter().for_each(|pipe| drop(world.succeed(pipe)));
    assert!(!store.take().is_empty());
    for pipe in pipes {
        world.succeed(pipe);
        assert_eq!(store.take(), [], "{pipe}");
    }
}

#[test]
fn a_post_is_one_commit_that_is_durable_before_the_answer() {
    let (store, mut world) = watched();
    world.pipe(json!({
        "_id": "r", "source": {"type": "http_endpoint"}, "metadata": {"durable": true}
    }));
    let sequence = |first: bool| Push {
        sequence_id: Some("s".to_owned()),
        request_id: Some(if first { "1" } else { "2" }.to_owned()),
        previous_request_id: (!first).then(|| "1".to_owned()),
        is_full: true,
        is_first: first,
        is_last: false,
        ..Push::default()
    };
    store.take();
    for (push, ids) in [
        (Push::default(), ["a", "b", "c"]),
        (sequence(true), ["a", "b", "d"]),
        (sequence(false), ["e", "f", "g"]),
    ] {
        let body: Json = ids.iter().map(|id| json!({"_id": id})).collect();
        let live = world.live_pipe("r");
        receive(world.hub(), &live, &push, body.to_string().as_bytes()).unwrap();
        let steps = store.take();
        let step = |what| (what, "r", ids.map(str::to_owned).to_vec());
        let found: Vec<_> = steps
            .iter()
            .filter(|step| !step.ids.is_empty())
            .map(|step| (step.what, step.dataset.as_str(), step.ids.clone()))
            .collect();
        assert_eq!(
            found,
            [step(What::Committed), step(What::Durable)],
            "{steps:#?}"
        );
        assert_eq!(steps.last().unwrap().what, What::Durable, "{steps:#?}");
    }
}

#[test]
fn posts_are_merged_with_one_wait_for_each_dataset() {
    let (store, mut world) = watched();
    let datasets = ["hr", "crm", "erp"];
    for id in datasets {
        // Types that are seen for the first time are saved by themselves.
        world.pipe(json!({
            "_id": id, "source": {"type": "http_endpoint"}, "metadata": {"durable": true},
            "infer_pipe_entity_types": false,
        }));
    }
    world.pipe(json!({"_id": "golden", "source": {
        "type": "merge", "version": 2, "datasets": ["hr h", "crm c", "erp e"],
        "equality_sets": [["h.key", "c.key", "e.key"]], "identity": "first",
    }}));
    for round in 0..3 {
        store.take();
        for id in datasets {
            let body = json!([{"_id": id, "key": 1, "round": round}]);
            let live = world.live_pipe(id);
            let push = Push::default();
            receive(world.hub(), &live, &push, body.to_string().as_bytes()).unwrap();
        }
        let summary = world.succeed("golden");
        assert!(summary.changed > 0);
        if round == 0 {
            // A full run tracks deletions, and marks that it is one.
            continue;
        }
        let steps = store.take();
        let waited = steps.iter().filter(|step| step.what == What::Durable);
        let waited: Vec<&str> = waited.map(|step| step.dataset.as_str()).collect();
        assert_eq!(waited, ["hr", "crm", "erp", "golden"], "{steps:#?}");
        // The log tells of the run all the same, and whoever reads it sees that.
        let log = "system:pump_execution:golden";
        let told = steps.iter().filter(|step| step.dataset == log);
        let told: Vec<String> = told.map(|step| step.ids.concat()).collect();
        assert_eq!(told, ["pump-started", "pump-completed"]);
        assert_eq!(world.log_kinds("golden").len(), 2 * (round + 1));
    }
}

#[test]
fn a_post_waits_for_the_disk_where_the_pipe_wants_that() {
    for (source, metadata, waits) in [
        (json!({}), json!({"durable": true}), true),
        (json!({"receiver_sync_ms": 0}), json!({}), true),
        (
            json!({"receiver_sync_ms": 50}),
            json!({"durable": true}),
            true,
        ),
        (json!({}), json!({}), false),
        (
            json!({"receiver_sync_ms": 50}),
            json!({"durable": false}),
            false,
        ),
    ] {
        let (store, mut world) = watched();
        let mut pipe = json!({"_id": "r", "source": source, "metadata": metadata});
        pipe["source"]["type"] = json!("http_endpoint");
        world.pipe(pipe.clone());
        store.take();
        let live = world.live_pipe("r");
        receive(
            world.hub(),
            &live,
            &Push::default(),
            r#"[{"_id": "a"}]"#.as_bytes(),
        )
        .unwrap();
        let steps = store.take();
        let durable = steps
            .iter()
            .any(|step| step.what == What::Durable && step.ids == ["a"]);
        assert_eq!(durable, waits, "{pipe}: {steps:#?}");
    }
}

#[test]
fn what_fails_together_is_written_together() {
    let (store, mut world) = watched();
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "sink": {"type": "scripted"},
        "batch_size": 50, "checkpoint_interval": 1,
        "pump": {"max_write_errors_in_retry_dataset": 1_000, "max_retries_per_entity": 0,
            "max_consecutive_write_errors": 1_000, "batch_retries": 0,
            "dead_letter_dataset": "letters", "track_dead_letters": true},
    }));
    let ids: Vec<String> = (0..200).map(|at| format!("e{at:03}")).collect();
    let rows: Vec<(&str, i64)> = ids.iter().map(String::as_str).zip(1..).collect();
    world.records("p", records(&rows));
    world.target("p", |target| target.refuses = ids.iter().cloned().collect());
    world.succeed("p");
    assert_eq!(world.living("letters").len(), 200);
    let steps = store.take();
    let log = "system:pump_execution:p";
    let of = |what, dataset: &str| -> Vec<Step> {
        let found = |step: &&Step| step.what == what && step.dataset == dataset;
        let fails = |step: &&Step| step.ids.iter().any(|id| id.contains("e1"));
        steps.iter().filter(found).filter(fails).cloned().collect()
    };
    // A hundred of these in two batches, and never a commit for each: the log
    // notes that there may be letters, the letters follow, then what failed.
    let letters = of(What::Durable, "letters");
    let told = of(What::Committed, log);
    assert!(letters.len() <= 2 && told.len() <= 4, "{steps:#?}");
    let with_a_place: Vec<&Step> = told.iter().filter(|step| step.offset.is_some()).collect();
    assert!(
        !with_a_place.is_empty(),
        "their place goes along: {told:#?}"
    );
    let named = |step: &Step, id: &str| step.ids.iter().any(|of| of.ends_with(id));
    for entry in with_a_place {
        let at = position(&steps, |step| step == entry);
        for id in &ids {
            let durable = |step: &Step| {
                step.what == What::Durable && step.dataset == "letters" && named(step, id)
            };
            assert!(
                !named(entry, id) || position(&steps, durable) < at,
                "{id}: {steps:#?}"
            );
        }
    }
    for id in &ids {
        let noted =
            |step: &Step| step.what == What::Durable && step.dataset == log && named(step, id);
        let letter = |step: &Step| {
            step.what == What::Committed && step.dataset == "letters" && named(step, id)
        };
        assert!(
            position(&steps, noted) < position(&steps, letter),
            "{id}: {steps:#?}"
        );
    }
    // They get through together as well.
    world.target("p", |target| target.refuses.clear());
    let newer: Vec<(&str, i64)> = ids.iter().map(String::as_str).zip(1_001..).collect();
    world.records("p", records(&newer));
    world.succeed("p");
    assert_eq!(world.living("letters"), [""; 0]);
    let steps = store.take();
    let durable = steps.iter().filter(|step| step.what == What::Durable);
    assert!(durable.count() < 30, "{steps:#?}");
}
