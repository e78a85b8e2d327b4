//! Old versions go, and nobody misses one.

use std::cell::Cell;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::receiver::{Push, receive};
use tahini_store::Memory;

use crate::world::{BEGINNING, World};

const HOUR: i64 = 3_600_000_000;

fn world(compaction: Json) -> World {
    let mut world = World::new();
    set_up(&mut world, compaction);
    world
}

fn set_up(world: &mut World, compaction: Json) {
    world.pipe(json!({"_id": "p", "compaction": compaction}));
}

/// A run after which `a` has this version.
fn write(world: &World, versions: impl IntoIterator<Item = i64>) {
    for v in versions {
        world.records("p", vec![json!({"_id": "a", "v": v})]);
        world.succeed("p");
    }
}

/// The versions of `a` that are left.
fn left(world: &World) -> Vec<i64> {
    let versions = world.versions("p", true, Fields::CONTENT);
    versions.iter().map(|e| e["v"].as_i64().unwrap()).collect()
}

#[test]
fn two_versions_are_kept_unless_the_pipe_says_otherwise() {
    for (compaction, kept) in [
        (json!({}), vec![4, 5]),
        (json!({"keep_versions": 1}), vec![5]),
        (json!({"keep_versions": 3}), vec![3, 4, 5]),
        (
            json!({"sink": false, "automatic": false}),
            vec![1, 2, 3, 4, 5],
        ),
        // Once a day, and the first run was the first of this day.
        (json!({"sink": false}), vec![1, 2, 3, 4, 5]),
        (json!({"compaction_interval": 3600}), vec![1, 2, 3, 4, 5]),
        (json!({"time_threshold_hours": 1}), vec![1, 2, 3, 4, 5]),
    ] {
        let world = world(compaction.clone());
        write(&world, 1..=5);
        assert_eq!(left(&world), kept, "{compaction}");
        let ids = world.versions("p", false, Fields::CONTENT);
        assert_eq!(ids, [json!({"_id": "a", "v": 5})]);
    }
}

#[test]
fn the_log_tells_what_was_removed() {
    let world = world(json!({}));
    write(&world, 1..=3);
    let last = world.log("p").pop().unwrap();
    assert_eq!(last["event_type"], "pump-completed");
    assert_eq!(last["metrics"]["entities"]["compacted_last_run"], 1);
    write(&world, [4]);
    assert_eq!(world.live_pipe("p").state().totals.compacted, 2);
}

#[test]
fn in_the_background_a_day_passes_and_the_dataset_grows() {
    for (growth, kept) in [
        (1.0, vec![3, 4]),
        (1.5, vec![3, 4]),
        (5.0, vec![1, 2, 3, 4]),
    ] {
        let world = world(json!({"sink": false, "growth_threshold": growth}));
        write(&world, 1..=2);
        world.clock.set(BEGINNING + 23 * HOUR);
        write(&world, [3]);
        assert_eq!(left(&world), [1, 2, 3]);
        world.clock.set(BEGINNING + 25 * HOUR);
        write(&world, [4]);
        assert_eq!(left(&world), kept, "{growth}");
    }
}

#[test]
fn versions_stay_for_the_hours_that_they_are_kept() {
    let world = world(json!({"keep_versions": 1, "time_threshold_hours": 2}));
    write(&world, [1]);
    world.clock.set(BEGINNING + HOUR);
    write(&world, [2]);
    world.clock.set(BEGINNING + 2 * HOUR + HOUR / 2);
    write(&world, [3]);
    assert_eq!(left(&world), [2, 3]);
    // No change is needed for something to grow old.
    world.clock.set(BEGINNING + 4 * HOUR);
    world.succeed("p");
    assert_eq!(left(&world), [3]);
}

#[test]
fn a_dataset_that_is_not_populated_is_left_alone() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "sink": {"type": "dataset", "set_initial_offset": "never"}
    }));
    write(&world, 1..=4);
    assert_eq!(left(&world), [1, 2, 3, 4]);
}

#[test]
fn what_a_reader_of_all_versions_has_not_read_stays() {
    for (all, held) in [(true, vec![1, 2, 3, 4]), (false, vec![3, 4])] {
        let mut world = world(json!({}));
        world.pipe(json!({"_id": "reader", "source": {
            "type": "dataset", "dataset": "p", "include_previous_versions": all
        }, "compaction": {"keep_versions": 9}}));
        write(&world, 1..=4);
        assert_eq!(left(&world), held, "{all}");
        world.succeed("reader");
        let read = if all { 4 } else { 1 };
        assert_eq!(world.version_count("reader"), read);
        write(&world, [5]);
        // What it has read may go; 5 waits for it, and does not count as a newer version.
        let rest = if all { vec![3, 4, 5] } else { vec![4, 5] };
        assert_eq!(left(&world), rest, "{all}");
    }
}

#[test]
fn a_subset_is_left_by_what_its_reader_has_seen_however_often_it_changed_since() {
    let mut world = world(json!({"keep_versions": 1}));
    world.pipe(json!({"_id": "reader", "source": {
        "type": "dataset", "dataset": "p", "subset": ["eq", "_S.v", 1]
    }}));
    write(&world, [1]);
    world.succeed("reader");
    write(&world, 2..=6);
    world.succeed("reader");
    assert_eq!(world.deleted("reader"), ["a"]);
}

#[test]
fn deleted_entities_vanish_when_they_are_old_and_everybody_knows() {
    let mut world = world(json!({"ttl_deletes_hours": 1}));
    world.pipe(json!({"_id": "reader", "source": {"type": "dataset", "dataset": "p"}}));
    write(&world, [1]);
    world.succeed("reader");
    world.records("p", Vec::new());
    world.succeed("p");
    assert_eq!(world.deleted("p"), ["a"]);
    world.clock.set(BEGINNING + 2 * HOUR);
    assert_eq!(
        world.succeed("p").expired,
        0,
        "the reader does not know yet"
    );
    world.succeed("reader");
    assert_eq!(world.deleted("reader"), ["a"]);
    world.clock.set(BEGINNING + 3 * HOUR);
    assert_eq!(world.succeed("p").expired, 1);
    assert_eq!(world.version_count("p"), 0);
    let metrics = &world.log("p").pop().unwrap()["metrics"]["entities"];
    assert_eq!(metrics["ttl_deletes_entities_last_run"], 1);
}

#[test]
fn an_entity_with_retract_takes_its_earlier_versions_with_it() {
    for mut world in World::both() {
        set_up(&mut world, json!({"retract": true, "keep_versions": 9}));
        world.pipe(json!({"_id": "reader", "source": {
            "type": "dataset", "dataset": "p", "include_previous_versions": true
        }, "compaction": {"keep_versions": 9}}));
        write(&world, 1..=3);
        world.records("p", vec![json!({"_id": "a", "v": 4, "$retract": true})]);
        world.succeed("p");
        assert_eq!(left(&world), [1, 2, 3, 4], "the reader comes first");
        world.succeed("reader");
        world.restart_if_on_disk();
        world.succeed("p");
        assert_eq!(left(&world), [4]);
        // Its own history is the reader's business.
        assert_eq!(world.version_count("reader"), 4);
        write(&world, [5, 6]);
        assert_eq!(left(&world), [4, 5, 6]);
    }
}

#[test]
fn retract_means_nothing_where_the_pipe_does_not_honour_it() {
    let world = world(json!({"keep_versions": 9}));
    write(&world, 1..=2);
    world.records("p", vec![json!({"_id": "a", "v": 3, "$retract": true})]);
    world.succeed("p");
    assert_eq!(left(&world), [1, 2, 3]);
}

#[test]
fn what_is_posted_is_compacted_too() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint"}, "compaction": {"keep_versions": 1},
    }));
    let post = |v: i64| {
        let body = json!({"_id": "a", "v": v}).to_string();
        let live = world.live_pipe("p");
        receive(world.hub(), &live, &Push::default(), body.as_bytes()).unwrap();
    };
    let compact = || world.hub().compact_in_background(&|| false);
    (1..=3).for_each(post);
    assert_eq!(left(&world), [1, 2, 3], "a poster waits for no compaction");
    compact();
    assert_eq!(left(&world), [3]);
    post(4);
    compact();
    assert_eq!(left(&world), [3, 4], "not that often");
    world.clock.set(BEGINNING + HOUR);
    compact();
    assert_eq!(left(&world), [4]);
    assert_eq!(world.live_pipe("p").state().totals.compacted, 3);
}

#[test]
fn what_grows_old_goes_without_a_run() {
    let mut world = world(json!({"keep_versions": 1, "time_threshold_hours": 2}));
    world.pipe(json!({"_id": "other", "compaction": {"keep_versions": 1, "sink": false}}));
    write(&world, 1..=3);
    assert_eq!(left(&world), [1, 2, 3]);
    world.clock.set(BEGINNING + HOUR);
    world.hub().compact_in_background(&|| false);
    assert_eq!(left(&world), [1, 2, 3], "too young");
    world.clock.set(BEGINNING + 3 * HOUR);
    world.hub().compact_in_background(&|| false);
    assert_eq!(left(&world), [3]);
}

#[test]
fn what_is_retracted_while_earlier_versions_go_is_not_forgotten() {
    let mut world = World::on_disk();
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint"},
        "compaction": {"retract": true, "keep_versions": 9},
    }));
    let post = |v: i64| {
        let body = json!({"_id": "a", "v": v, "$retract": true}).to_string();
        let live = world.live_pipe("p");
        receive(world.hub(), &live, &Push::default(), body.as_bytes()).unwrap();
    };
    // Who compacts asks whether to stop, the dataset's walk included: each time somebody posts.
    for moment in 0.. {
        (0..3).for_each(|v| post(10 * moment + v));
        let (asked, posted) = (Cell::new(0), Cell::new(false));
        world.hub().compact_in_background(&|| {
            if asked.replace(asked.get() + 1) == moment {
                posted.set(true);
                post(10 * moment + 3);
            }
            false
        });
        world.hub().compact_in_background(&|| false);
        assert_eq!(left(&world).len(), 1, "moment {moment}");
        if !posted.get() {
            assert!(moment > 1, "nobody asked but at the beginning");
            break;
        }
    }
}

#[test]
fn when_it_was_compacted_last_is_known_after_a_restart() {
    let store = Arc::new(Memory::new());
    let mut world = World::on_store(store.clone());
    set_up(&mut world, json!({"sink": false}));
    write(&world, 1..=3);
    assert_eq!(
        left(&world),
        [1, 2, 3],
        "the first run was the first of this day"
    );
    world.start_over(store.clone()).unwrap();
    world.clock.set(BEGINNING + 23 * HOUR);
    write(&world, [4]);
    assert_eq!(left(&world), [1, 2, 3, 4], "a restart is no new day");
    world.start_over(store).unwrap();
    world.clock.set(BEGINNING + 25 * HOUR);
    write(&world, [5]);
    assert_eq!(left(&world), [4, 5]);
}

#[test]
fn read_errors_leave_the_log_after_thirty_days() {
    for mut world in World::both() {
        let mut pipe = json!({"_id": "p", "pump": {"max_read_retries": 1}});
        pipe["batch_size"] = json!(1);
        world.pipe(pipe);
        world.records("p", crate::script::records(&[("a", 1)]));
        let errors = |world: &World| {
            let kinds = world.log_kinds("p");
            kinds.iter().filter(|kind| *kind == "read-error").count()
        };
        let break_off = |world: &World| {
            world.upstream("p", |upstream| {
                let failure = tahini_hub::Failure::transient("broke off");
                upstream.failures.push_back((0, failure));
            });
            world.succeed("p");
        };
        break_off(&world);
        world.clock.set(BEGINNING + 29 * 24 * HOUR);
        break_off(&world);
        assert_eq!(errors(&world), 2);
        world.clock.set(BEGINNING + 31 * 24 * HOUR);
        world.succeed("p");
        assert_eq!(errors(&world), 1, "the younger one stays");
        world.clock.set(BEGINNING + 62 * 24 * HOUR);
        world.succeed("p");
        assert_eq!(errors(&world), 0);
        assert_eq!(world.succeed("p").warnings, [""; 0]);
    }
}
