//! How the offset moves: none, max and chronological.

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::Failure;

use crate::script::records;
use crate::world::World;

fn source(strategy: &str) -> Json {
    let flags = match strategy {
        "none" => json!({}),
        "incomparable" => json!({"supports_since": true, "is_since_comparable": false}),
        "max" => json!({"supports_since": true}),
        "chronological" => json!({"supports_since": true, "is_chronological": true}),
        other => panic!("no strategy {other}"),
    };
    let mut source = json!({"type": "scripted"});
    source
        .as_object_mut()
        .unwrap()
        .extend(flags.as_object().unwrap().clone());
    source
}

/// A pipe `p` with checkpoints after every two entities.
fn pipe(strategy: &str) -> Json {
    json!({"_id": "p", "source": source(strategy), "batch_size": 2, "checkpoint_interval": 1})
}

fn world(strategy: &str) -> World {
    let mut world = World::new();
    world.pipe(pipe(strategy));
    world
}

fn fail_at(world: &World, at: usize) {
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((at, Failure::transient("broke off")));
    });
}

fn asked(world: &World) -> Vec<Option<Offset>> {
    let mut sinces = Vec::new();
    world.upstream("p", |upstream| sinces = upstream.asked.clone());
    sinces
}

#[test]
fn without_a_strategy_nothing_is_saved_and_every_run_is_full() {
    for strategy in ["none", "incomparable"] {
        let world = world(strategy);
        world.records("p", records(&[("a", 1), ("b", 2)]));
        for _ in 0..2 {
            let summary = world.succeed("p");
            assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 2));
            assert_eq!(world.offset("p"), Json::Null);
        }
        assert_eq!(asked(&world), [None, None]);
        assert_eq!(world.version_count("p"), 2);
    }
}

#[test]
fn max_takes_the_highest_value_in_whatever_order() {
    for mut world in World::both() {
        world.pipe(pipe("max"));
        world.records("p", records(&[("a", 10), ("b", 9), ("c", 30), ("d", 2)]));
        world.succeed("p");
        assert_eq!(world.offset("p"), 30);
        let summary = world.succeed("p");
        assert_eq!(
            (summary.sync_type.as_str(), summary.read),
            ("incremental", 0)
        );
    }
}

#[test]
fn max_compares_numbers_by_value_and_strings_by_byte() {
    let cases = [
        (json!([9, 10]), json!(10)),
        (json!([-1, -5]), json!(-1)),
        (json!(["b", "a"]), json!("b")),
        (json!(["9", "10"]), json!("9")),
        (json!(["z", "é"]), json!("é")),
    ];
    for (values, expected) in cases {
        let world = world("max");
        let rows = values.as_array().unwrap().iter().enumerate();
        let rows = rows.map(|(at, value)| json!({"_id": at.to_string(), "_updated": value}));
        world.records("p", rows.collect());
        world.succeed("p");
        assert_eq!(world.offset("p"), expected, "{values}");
    }
}

#[test]
fn max_is_saved_only_at_the_end_of_a_successful_run() {
    for mut world in World::both() {
        world.pipe(pipe("max"));
        world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
        fail_at(&world, 4);
        world.fail("p");
        assert_eq!(world.offset("p"), Json::Null);
        world.succeed("p");
        assert_eq!(world.offset("p"), 4);
        assert_eq!(world.version_count("p"), 4);
    }
}

#[test]
fn max_never_goes_down() {
    let world = world("max");
    world.records("p", records(&[("a", 5), ("b", 8)]));
    world.succeed("p");
    world.upstream("p", |upstream| upstream.ignores_since = true);
    world.records("p", records(&[("a", 5), ("c", 6)]));
    world.succeed("p");
    assert_eq!(world.offset("p"), 8, "after an incremental run");
    assert!(world.rescan("p").success());
    assert_eq!(world.offset("p"), 8, "after a rescan");
}

#[test]
fn a_failed_run_and_a_run_that_reads_nothing_leave_the_offset() {
    for strategy in ["max", "chronological"] {
        let world = world(strategy);
        world.records("p", records(&[("a", 1), ("b", 2)]));
        world.succeed("p");
        world.succeed("p");
        assert_eq!(world.offset("p"), 2, "{strategy}: nothing read");
        world.records("p", records(&[("c", 3)]));
        fail_at(&world, 0);
        world.fail("p");
        assert_eq!(world.offset("p"), 2, "{strategy}: failed");
        world.succeed("p");
        assert_eq!(world.offset("p"), 3, "{strategy}");
    }
}

#[test]
fn values_of_two_types_fail_and_both_are_shown() {
    let world = world("max");
    world.records(
        "p",
        vec![
            json!({"_id": "a", "_updated": 7}),
            json!({"_id": "b", "_updated": "x"}),
        ],
    );
    let words = world.fail("p");
    for part in ["the string \"x\"", "the number 7", "\"b\""] {
        assert!(words.contains(part), "{part} in {words}");
    }
    assert_eq!(world.offset("p"), Json::Null);
}

#[test]
fn a_value_of_another_type_than_the_saved_offset_fails_and_both_are_shown() {
    let world = world("max");
    world.records("p", records(&[("a", 7)]));
    world.succeed("p");
    world.records("p", vec![json!({"_id": "b", "_updated": "2026"})]);
    let words = world.fail("p");
    assert!(
        words.contains("the number 7") && words.contains("the string \"2026\""),
        "{words}"
    );
    assert_eq!(world.offset("p"), 7);
}

#[test]
fn digit_strings_of_unequal_length_are_warned_of() {
    let world = world("max");
    world.records(
        "p",
        vec![
            json!({"_id": "a", "_updated": "9"}),
            json!({"_id": "b", "_updated": "10"}),
        ],
    );
    let warnings = world.succeed("p").warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("\"9\", \"10\""),
        "{warnings:?}"
    );
}

#[test]
fn the_first_run_begins_at_the_initial_since_and_deletes_nothing() {
    let mut world = World::new();
    let mut with_initial = pipe("max");
    with_initial["source"]["initial_since_value"] = json!(2);
    world.pipe(json!({"_id": "other", "sink": {"type": "dataset", "dataset": "p"}}));
    world.records("other", records(&[("kept", 0)]));
    world.succeed("other");
    world.pipe(with_initial);
    world.records("p", records(&[("a", 1), ("b", 2), ("c", 3)]));
    let summary = world.succeed("p");
    assert_eq!(
        (summary.sync_type.as_str(), summary.read),
        ("incremental", 1)
    );
    assert_eq!(world.living("p"), ["c", "kept"]);
    assert_eq!(
        (asked(&world), world.offset("p")),
        (vec![Some(Offset::Int(2))], json!(3))
    );
}

#[test]
fn chronological_resumes_at_the_last_checkpoint() {
    for mut world in World::both() {
        world.pipe(pipe("chronological"));
        world.records(
            "p",
            records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)]),
        );
        fail_at(&world, 5);
        world.fail("p");
        // The last value may be one of a group that goes on, so that the one below is saved.
        assert_eq!(world.offset("p"), 3);
        let summary = world.succeed("p");
        assert_eq!((summary.read, world.offset("p")), (3, json!(6)));
        assert_eq!(world.living("p"), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(world.version_count("p"), 6);
    }
}

#[test]
fn a_checkpoint_inside_a_group_of_equal_values_skips_nothing() {
    for mut world in World::both() {
        world.pipe(pipe("chronological"));
        let rows = [
            ("a", 1),
            ("b", 7),
            ("c", 7),
            ("d", 7),
            ("e", 7),
            ("f", 7),
            ("g", 8),
        ];
        for failing in 1..rows.len() {
            let pipe = "p";
            world
                .hub()
                .set_offset(pipe, None, &Default::default())
                .unwrap();
            world.records(pipe, records(&rows));
            fail_at(&world, failing);
            world.fail(pipe);
            assert_ne!(world.offset(pipe), 7, "failing at {failing}");
            world.succeed(pipe);
            assert_eq!(world.living(pipe), ["a", "b", "c", "d", "e", "f", "g"]);
            assert_eq!(world.offset(pipe), 8);
        }
    }
}

#[test]
fn every_failure_inside_a_group_still_brings_all_of_it() {
    let rows = [
        ("a", 1),
        ("b", 7),
        ("c", 7),
        ("d", 7),
        ("e", 7),
        ("f", 7),
        ("g", 8),
    ];
    for failing in 0..=rows.len() {
        let world = world("chronological");
        world.records("p", records(&rows));
        fail_at(&world, failing);
        world.fail("p");
        world.succeed("p");
        assert_eq!(
            world.living("p"),
            ["a", "b", "c", "d", "e", "f", "g"],
            "failing at {failing}"
        );
        assert_eq!(world.version_count("p"), 7, "failing at {failing}");
    }
}

#[test]
fn the_last_value_of_a_chronological_source_counts_even_when_it_is_lower() {
    let world = world("chronological");
    world.records("p", records(&[("a", 5), ("b", 3)]));
    world.succeed("p");
    assert_eq!(world.offset("p"), 3);
}

#[test]
fn two_changes_of_one_moment_around_a_run_both_arrive() {
    let world = world("max");
    world.upstream("p", |upstream| upstream.inclusive = true);
    world.records("p", records(&[("a", 1), ("early", 1000)]));
    world.succeed("p");
    world.records("p", records(&[("a", 1), ("early", 1000), ("late", 1000)]));
    let summary = world.succeed("p");
    assert_eq!(world.living("p"), ["a", "early", "late"]);
    assert_eq!((summary.read, world.offset("p")), (1, json!(1000)));
    assert_eq!(world.succeed("p").read, 0);
}

#[test]
fn an_entity_without_updated_moves_no_offset() {
    let world = world("max");
    world.records(
        "p",
        vec![json!({"_id": "a", "_updated": 3}), json!({"_id": "b"})],
    );
    world.succeed("p");
    assert_eq!(world.offset("p"), 3);
    assert_eq!(world.living("p"), ["a", "b"]);
}

#[test]
fn a_sink_outside_has_its_offset_saved_after_the_batch() {
    let mut world = World::new();
    let mut outside = pipe("chronological");
    outside["sink"] = json!({"type": "scripted"});
    world.pipe(outside);
    world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
    world.target("p", |target| target.refuses.extend(["d".to_owned()]));
    world.fail("p");
    assert_eq!(world.offset("p"), 1);
    world.target("p", |target| target.refuses.clear());
    world.succeed("p");
    assert_eq!(world.offset("p"), 4);
    let last: Vec<String> = world.taken("p").concat();
    for id in ["a", "b", "c", "d"] {
        assert!(last.iter().any(|taken| taken == id), "{id} is not skipped");
    }
}

/// Rules that let only entities whose `v` is at most 2 through.
fn dropping(how: &str) -> Json {
    json!({"type": "dtl", "rules": {"default": [["copy", "*"], [how, ["lte", "_S.v", 2]]]}})
}

#[test]
fn what_is_dropped_on_the_way_moves_the_offset_too() {
    for how in ["discard", "filter"] {
        for strategy in ["max", "chronological"] {
            for sink in ["dataset", "scripted"] {
                let case = format!("{how} {strategy} {sink}");
                let mut world = World::new();
                let mut pipe = pipe(strategy);
                pipe["transform"] = dropping(how);
                pipe["sink"] = json!({"type": sink});
                world.pipe(pipe);
                world.records(
                    "p",
                    records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]),
                );
                world.succeed("p");
                assert_eq!(world.offset("p"), 5, "{case}");
                // Nothing of this run gets through.
                world.records("p", records(&[("e", 6), ("f", 7)]));
                let summary = world.succeed("p");
                assert_eq!((summary.read, summary.changed), (2, 0), "{case}");
                assert_eq!(world.offset("p"), 7, "{case}");
                assert_eq!(world.succeed("p").read, 0, "{case}");
                let sinces = [None, Some(Offset::Int(5)), Some(Offset::Int(7))];
                assert_eq!(asked(&world), sinces, "{case}");
                let came = match sink {
                    "dataset" => world.living("p"),
                    _ => world.taken("p").concat(),
                };
                assert_eq!(came, ["a", "b"], "{case}");
            }
        }
    }
}

#[test]
fn a_checkpoint_counts_what_was_dropped() {
    for how in ["discard", "filter"] {
        for mut world in World::both() {
            let mut pipe = pipe("chronological");
            pipe["transform"] = dropping(how);
            world.pipe(pipe);
            let all = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)];
            world.records("p", records(&all));
            fail_at(&world, 5);
            world.fail("p");
            assert_eq!(
                world.offset("p"),
                3,
                "{how}: c was dropped, and d may not be alone"
            );
            world.restart_if_on_disk();
            assert_eq!(world.succeed("p").read, 3, "{how}");
            assert_eq!((world.offset("p"), world.version_count("p")), (json!(6), 2));
        }
    }
}
