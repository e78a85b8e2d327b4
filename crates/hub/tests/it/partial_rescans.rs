//! Partial rescans: every so many runs one begins before the offset.

use serde_json::{Value as Json, json};
use tahini_entity::Offset;

use crate::script::records;
use crate::world::World;

fn pipe(source: Json) -> Json {
    let mut source = source;
    source["type"] = json!("scripted");
    source["supports_since"] = json!(true);
    json!({
        "_id": "p",
        "source": source,
        "pump": {"partial_rescan_run_count": 3, "partial_rescan_delta": 2},
    })
}

/// The since of every opening since the last call.
fn asked(world: &World) -> Vec<Option<i64>> {
    let mut asked = Vec::new();
    world.upstream("p", |upstream| asked = std::mem::take(&mut upstream.asked));
    let number = |offset: Option<Offset>| match offset {
        Some(Offset::Int(number)) => Some(number),
        Some(Offset::Text(text)) => panic!("expected a number, found {text}"),
        None => None,
    };
    asked.into_iter().map(number).collect()
}

#[test]
fn every_third_run_begins_before_the_offset_and_deletes_nothing() {
    for source in [json!({}), json!({"is_chronological": true})] {
        for mut world in World::both() {
            world.pipe(pipe(source.clone()));
            world.records("p", records(&[("a", 5), ("b", 6), ("c", 7)]));
            let mut kinds = Vec::new();
            for _ in 0..7 {
                kinds.push(world.succeed("p").sync_type);
                world.restart_if_on_disk();
            }
            let (partial, incremental) = ("partial", "incremental");
            let expected = [
                "full",
                incremental,
                incremental,
                partial,
                incremental,
                incremental,
                partial,
            ];
            assert_eq!(kinds, expected);
            let (end, back) = (Some(7), Some(5));
            assert_eq!(asked(&world), [None, end, end, back, end, end, back]);
            assert_eq!(world.offset("p"), 7);
            assert_eq!(world.living("p").len(), 3);
        }
    }
}

#[test]
fn it_finds_what_came_late_and_leaves_the_offset() {
    for source in [json!({}), json!({"is_chronological": true})] {
        let mut world = World::new();
        world.pipe(pipe(source));
        world.records("p", records(&[("a", 5), ("b", 9)]));
        world.succeed("p");
        world.records("p", records(&[("a", 5), ("late", 8), ("b", 9)]));
        for _ in 0..2 {
            assert_eq!(world.succeed("p").changed, 0);
        }
        let summary = world.succeed("p");
        assert_eq!(
            (summary.sync_type.as_str(), summary.changed),
            ("partial", 1)
        );
        assert_eq!(world.offset("p"), 9);
        world.records("p", Vec::new());
        for _ in 0..3 {
            world.succeed("p");
            assert_eq!(world.offset("p"), 9, "an empty answer moves nothing");
        }
        assert_eq!(world.living("p"), ["a", "b", "late"]);
    }
}

#[test]
fn what_was_processed_at_the_offset_is_not_processed_again_after_it() {
    let mut world = World::new();
    world.pipe(pipe(json!({})));
    world.upstream("p", |upstream| upstream.inclusive = true);
    world.records("p", records(&[("a", 5), ("b", 9)]));
    let read: Vec<u64> = (0..5).map(|_| world.succeed("p").read).collect();
    assert_eq!(read, [2, 0, 0, 1, 0]);
    world.records("p", Vec::new());
    for _ in 0..2 {
        world.succeed("p");
    }
    world.records("p", records(&[("a", 5), ("b", 9)]));
    assert_eq!(world.succeed("p").read, 0);
}

#[test]
fn a_failed_one_is_made_up_and_a_rescan_counts_for_one() {
    let mut world = World::new();
    world.pipe(pipe(json!({})));
    world.records("p", records(&[("a", 5)]));
    for _ in 0..3 {
        world.succeed("p");
    }
    world.upstream("p", |upstream| upstream.always_fails_at = Some(0));
    assert_eq!(world.run("p").sync_type, "partial");
    world.upstream("p", |upstream| upstream.always_fails_at = None);
    assert_eq!(world.succeed("p").sync_type, "partial");
    world.succeed("p");
    assert_eq!(world.rescan("p").sync_type, "full");
    let kinds: Vec<String> = (0..3).map(|_| world.succeed("p").sync_type).collect();
    assert_eq!(kinds, ["incremental", "incremental", "partial"]);
}

#[test]
fn an_offset_that_is_neither_a_number_nor_a_time_is_told() {
    let mut world = World::new();
    world.pipe(pipe(json!({"is_chronological": true})));
    let mut one = records(&[("a", 5)]);
    one[0]["_updated"] = json!("page-7");
    world.records("p", one);
    for _ in 0..3 {
        world.succeed("p");
    }
    let words = world.fail("p");
    assert!(
        words.contains("page-7") && words.contains("partial_rescan_delta"),
        "{words}"
    );
}

#[test]
fn a_partial_rescan_of_datasets_goes_back_in_each_of_them() {
    for kind in ["union_datasets", "merge_datasets", "diff_datasets"] {
        for mut world in World::both() {
            for id in ["x", "y"] {
                world.pipe(json!({"_id": id}));
            }
            world.pipe(json!({
                "_id": "p",
                "source": {"type": kind, "datasets": ["x", "y"]},
                "pump": {"partial_rescan_run_count": 2, "partial_rescan_delta": 2},
            }));
            world.records("x", records(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]));
            world.records("y", records(&[("e", 1)]));
            for id in ["x", "y"] {
                world.succeed(id);
            }
            world.succeed("p");
            assert_eq!(world.offset("p"), json!(r#"{"x":3,"y":0}"#));
            assert_eq!(world.succeed("p").read, 0);
            let summary = world.succeed("p");
            assert_eq!(summary.sync_type, "partial");
            // c and d; e again, since fewer were read of y.
            assert_eq!((summary.read, summary.changed), (3, 0), "{kind}");
            assert_eq!(world.offset("p"), json!(r#"{"x":3,"y":0}"#));
        }
    }
}

#[test]
fn a_partial_rescan_past_the_start_of_a_dataset_reads_all_of_it_and_deletes_nothing() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "dataset", "dataset": "in"},
        "pump": {"partial_rescan_run_count": 1, "partial_rescan_delta": 100},
    }));
    world.pipe(json!({"_id": "other", "sink": {"type": "dataset", "dataset": "p", "deletion_tracking": false}}));
    world.records("other", records(&[("mine", 1)]));
    world.records("in", records(&[("a", 1), ("b", 1)]));
    for id in ["in", "p", "other"] {
        world.succeed(id);
    }
    let summary = world.succeed("p");
    assert_eq!((summary.sync_type.as_str(), summary.read), ("partial", 2));
    assert_eq!(world.living("p"), ["a", "b", "mine"]);
}
