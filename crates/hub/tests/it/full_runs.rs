//! Full runs, rescans, and what they delete.

use serde_json::{Value as Json, json};
use tahini_hub::pump::Request;
use tahini_hub::{Class, Failure};

use crate::script::{gate, records};
use crate::world::World;

fn chronological() -> Json {
    json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "batch_size": 2,
        "checkpoint_interval": 1,
    })
}

fn plain() -> Json {
    json!({"_id": "p", "batch_size": 2, "checkpoint_interval": 1})
}

fn fail_at(world: &World, at: usize) {
    world.upstream("p", |upstream| {
        upstream
            .failures
            .push_back((at, Failure::transient("broke off")));
    });
}

/// a … f with `_updated` 1 … 6.
fn six() -> Vec<Json> {
    records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)])
}

#[test]
fn a_complete_full_run_deletes_what_did_not_come() {
    for mut world in World::both() {
        world.pipe(plain());
        world.records("p", six());
        world.succeed("p");
        world.records("p", records(&[("b", 2), ("g", 7)]));
        let summary = world.succeed("p");
        assert_eq!(
            (summary.changed, summary.deleted, summary.unchanged),
            (6, 5, 1)
        );
        assert_eq!(world.living("p"), ["b", "g"]);
        assert_eq!(world.deleted("p"), ["a", "c", "d", "e", "f"]);
        assert_eq!(world.succeed("p").changed, 0, "deleted once");
    }
}

/// So many that commits are made while the run reads on: every entity is counted once, an id that
/// comes again in a later commit is judged against the earlier one, and deletions see them all.
#[test]
fn a_run_of_many_commits_counts_and_deletes_as_a_short_one_does() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "p", "batch_size": 1000}));
        let ids: Vec<String> = (0..25_000).map(|at| format!("id{at}")).collect();
        let mut rows: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        rows.extend([("id0", 1), ("id1", 2)]);
        world.records("p", records(&rows));
        let summary = world.succeed("p");
        assert_eq!((summary.read, summary.deleted), (25_002, 0));
        assert_eq!(world.living("p").len(), 25_000);
        let versions = world.version_count("p");
        assert_eq!(summary.changed, versions as u64);
        assert_eq!(summary.unchanged, 25_002 - versions as u64);
        rows.retain(|(id, _)| !["id7", "id12345", "id24999"].contains(id));
        world.records("p", records(&rows));
        let summary = world.succeed("p");
        assert_eq!((summary.read, summary.deleted), (24_999, 3));
        let mut deleted = world.deleted("p");
        deleted.sort();
        assert_eq!(deleted, ["id12345", "id24999", "id7"]);
    }
}

#[test]
fn an_incremental_run_deletes_nothing() {
    let mut world = World::new();
    world.pipe(chronological());
    world.records("p", six());
    world.succeed("p");
    world.records("p", records(&[("g", 7)]));
    assert_eq!(world.succeed("p").sync_type, "incremental");
    assert_eq!(world.deleted("p"), [""; 0]);
    assert_eq!(world.living("p").len(), 7);
}

#[test]
fn a_failed_full_run_deletes_nothing() {
    for at in 0..=2 {
        let mut world = World::new();
        world.pipe(plain());
        world.records("p", six());
        world.succeed("p");
        world.records("p", records(&[("b", 2), ("c", 3)]));
        fail_at(&world, at);
        world.fail("p");
        assert_eq!(world.living("p").len(), 6, "failed at {at}");
    }
}

#[test]
fn a_run_that_is_stopped_deletes_nothing() {
    let mut world = World::new();
    world.pipe(plain());
    world.records("p", six());
    world.succeed("p");
    world.records("p", records(&[("a", 1)]));
    let (gate, keeper) = gate();
    world.upstream("p", |upstream| upstream.gate = Some(gate));
    let summary = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run("p"));
        keeper.wait();
        assert!(world.hub().stop("p").unwrap());
        run.join().unwrap()
    });
    assert_eq!(summary.failure.unwrap().class, Class::Cancelled);
    assert_eq!(world.living("p").len(), 6);
}

#[test]
fn deletion_tracking_can_be_switched_off() {
    let mut world = World::new();
    let mut pipe = plain();
    pipe["sink"] = json!({"type": "dataset", "deletion_tracking": false});
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    world.records("p", Vec::new());
    world.succeed("p");
    assert_eq!(world.living("p").len(), 6);
}

#[test]
fn an_empty_source_deletes_all_or_fails_as_configured() {
    for (says, left) in [("accept", 0), ("fail", 6)] {
        let mut world = World::new();
        let mut pipe = plain();
        pipe["source"] = json!({"type": "scripted", "if_source_empty": says});
        world.pipe(pipe);
        world.records("p", six());
        world.succeed("p");
        world.records("p", Vec::new());
        let summary = world.run("p");
        assert_eq!(summary.success(), says == "accept");
        assert_eq!(world.living("p").len(), left, "{says}");
    }
}

#[test]
fn an_empty_incremental_answer_is_no_empty_source() {
    let mut world = World::new();
    let mut pipe = chronological();
    pipe["source"]["if_source_empty"] = json!("fail");
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    world.succeed("p");
}

#[test]
fn a_filtered_entity_is_deleted() {
    let mut world = World::new();
    let mut pipe = plain();
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["filter", ["neq", "_S.v", 9]],
    ]}});
    world.pipe(pipe);
    world.records("p", records(&[("a", 1), ("b", 2)]));
    world.succeed("p");
    world.records("p", records(&[("a", 1), ("b", 9)]));
    let summary = world.succeed("p");
    assert_eq!(
        (world.living("p"), world.deleted("p")),
        (vec!["a".into()], vec!["b".into()])
    );
    assert_eq!(summary.deleted, 1);
    // What was never there is not written as deleted.
    world.records("p", records(&[("a", 1), ("x", 9)]));
    world.succeed("p");
    assert_eq!(world.deleted("p"), ["b"]);
}

#[test]
fn a_deleted_entity_comes_back_as_a_new_version() {
    let mut world = World::new();
    let mut pipe = plain();
    pipe["compaction"] = json!({"keep_versions": 3});
    world.pipe(pipe);
    for (records_now, versions) in [(vec![("a", 1)], 1), (vec![], 2), (vec![("a", 1)], 3)] {
        world.records("p", records(&records_now));
        world.succeed("p");
        assert_eq!(world.version_count("p"), versions);
    }
    assert_eq!(world.living("p"), ["a"]);
}

#[test]
fn a_failed_full_run_of_a_chronological_source_resumes_with_what_it_saw() {
    for mut world in World::both() {
        world.pipe(chronological());
        world.pipe(json!({"_id": "other", "sink": {"type": "dataset", "dataset": "p", "deletion_tracking": false}}));
        world.records("other", records(&[("stale", 0)]));
        world.succeed("other");
        world.records("p", six());
        fail_at(&world, 5);
        world.fail("p");
        assert_eq!(world.offset("p"), 3);
        assert_eq!(world.deleted("p"), [""; 0]);
        let summary = world.succeed("p");
        assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 3));
        assert_eq!(world.living("p"), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(world.deleted("p"), ["stale"]);
        world.records("p", records(&[("g", 7)]));
        assert_eq!(world.succeed("p").sync_type, "incremental");
    }
}

#[test]
fn a_full_run_stays_full_over_a_restart() {
    let mut world = World::on_disk();
    world.pipe(chronological());
    world.pipe(json!({"_id": "other", "sink": {"type": "dataset", "dataset": "p", "deletion_tracking": false}}));
    world.records("other", records(&[("stale", 0)]));
    world.succeed("other");
    world.records("p", six());
    fail_at(&world, 5);
    world.fail("p");
    world.restart();
    let summary = world.succeed("p");
    assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 3));
    assert_eq!(world.living("p").len(), 6);
    assert_eq!(world.deleted("p"), ["stale"]);
}

/// Deleted entities that were never there are no versions, and a step of those saves no ids.
#[test]
fn a_full_run_whose_first_steps_met_nothing_resumes_with_all_that_it_saw() {
    let mut world = World::on_disk();
    world.pipe(chronological());
    let gone = |id: &str, updated: i64| json!({"_id": id, "_updated": updated, "_deleted": true});
    let mut rows = vec![gone("x", -1), gone("y", 0)];
    rows.extend(six());
    world.records("p", rows);
    for at in [7, 3] {
        fail_at(&world, at);
        world.fail("p");
        world.restart();
    }
    let summary = world.succeed("p");
    assert_eq!((summary.sync_type.as_str(), summary.deleted), ("full", 0));
    assert_eq!(world.living("p"), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn a_full_run_that_is_not_chronological_starts_over() {
    let mut world = World::new();
    let mut pipe = chronological();
    pipe["source"]["is_chronological"] = json!(false);
    world.pipe(pipe);
    world.records("p", six());
    fail_at(&world, 5);
    world.fail("p");
    let summary = world.succeed("p");
    assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 6));
}

#[test]
fn a_rescan_reads_everything_deletes_and_goes_on_from_the_offset() {
    for mut world in World::both() {
        world.pipe(chronological());
        world.records("p", six());
        world.succeed("p");
        world.records("p", records(&[("a", 1), ("b", 2), ("e", 5), ("f", 6)]));
        let summary = world.rescan("p");
        assert_eq!(
            (summary.sync_type.as_str(), summary.read, summary.deleted),
            ("full", 4, 2)
        );
        assert_eq!(world.deleted("p"), ["c", "d"]);
        assert_eq!(world.offset("p"), 6);
        assert_eq!(world.succeed("p").sync_type, "incremental");
    }
}

#[test]
fn a_failed_rescan_is_a_rescan_again_and_leaves_the_offset() {
    for mut world in World::both() {
        world.pipe(chronological());
        world.records("p", six());
        world.succeed("p");
        world.records("p", records(&[("b", 2), ("c", 3), ("d", 4), ("f", 6)]));
        fail_at(&world, 4);
        assert!(!world.rescan("p").success());
        assert_eq!((world.living("p").len(), world.offset("p")), (6, json!(6)));
        let summary = world.succeed("p");
        assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 4));
        assert_eq!(world.deleted("p"), ["a", "e"]);
    }
}

#[test]
fn a_rescan_that_fails_after_a_failed_full_run_deletes_nothing_that_is_there() {
    for mut world in World::both() {
        world.pipe(chronological());
        world.records("p", six());
        fail_at(&world, 5);
        world.fail("p");
        fail_at(&world, 3);
        assert!(!world.rescan("p").success());
        world.succeed("p");
        assert_eq!(world.living("p"), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(world.deleted("p"), [""; 0]);
    }
}

#[test]
fn every_nth_run_is_a_rescan() {
    // After the first run, as the manual's examples say it.
    let cases = [
        (1, "full full full full"),
        (2, "incremental full incremental full"),
        (3, "incremental incremental full incremental"),
    ];
    for (count, expected) in cases {
        let mut world = World::new();
        let mut pipe = chronological();
        pipe["pump"] = json!({"rescan_run_count": count});
        world.pipe(pipe);
        world.records("p", six());
        world.succeed("p");
        let kinds: Vec<String> = (0..4).map(|_| world.succeed("p").sync_type).collect();
        assert_eq!(kinds.join(" "), expected, "rescan_run_count {count}");
    }
}

#[test]
fn a_reset_reads_everything_again_without_writing_a_version() {
    for mut world in World::both() {
        world.pipe(chronological());
        world.records("p", six());
        world.succeed("p");
        world
            .hub()
            .set_offset("p", None, &Default::default())
            .unwrap();
        let summary = world.succeed("p");
        assert_eq!(
            (summary.sync_type.as_str(), summary.read, summary.changed),
            ("full", 6, 0)
        );
        assert_eq!(world.version_count("p"), 6);
    }
}

#[test]
fn entities_that_were_set_aside_count_as_seen() {
    let mut world = World::new();
    let mut pipe = plain();
    pipe["pump"] = json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 10,
        "max_retries_per_entity": 2,
        "batch_retries": 0,
    });
    world.pipe(pipe);
    world.records("p", records(&[("a", 1), ("b", 1), ("c", 1)]));
    world.succeed("p");
    world.target("p", |target| target.refuses.extend(["b".to_owned()]));
    world.records("p", records(&[("a", 1), ("b", 2)]));
    // Set aside, retried, dead, and left alone when dead: b stays as it was.
    for run in 0..5 {
        world.succeed("p");
        assert_eq!(world.living("p"), ["a", "b"], "run {run}");
        assert_eq!(world.deleted("p"), ["c"], "run {run}");
    }
    assert_eq!(
        world
            .log("p")
            .iter()
            .filter(|entry| entry["dead"] == true)
            .count(),
        1
    );
}

#[test]
fn a_dataset_that_was_made_anew_upstream_is_read_from_its_start() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "in"}));
        world.pipe(json!({"_id": "p", "source": {"type": "dataset", "dataset": "in"}}));
        world.records("in", six());
        world.succeed("in");
        world.succeed("p");
        assert_eq!((world.offset("p"), world.living("p").len()), (json!(5), 6));
        world.hub().world.store.remove("in").unwrap();
        // More versions than before, so that the old offset would look right.
        let rows = ["a", "b", "u", "v", "w", "x", "y", "z"].map(|id| (id, 1));
        world.records("in", records(&rows));
        world.succeed("in");
        let summary = world.succeed("p");
        assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 8));
        assert_eq!(world.living("p"), ["a", "b", "u", "v", "w", "x", "y", "z"]);
        assert_eq!(world.deleted("p"), ["c", "d", "e", "f"]);
        assert_eq!(world.succeed("p").sync_type, "incremental");
    }
}

#[test]
fn the_place_of_a_dataset_source_survives_a_restart() {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "p", "source": {"type": "dataset", "dataset": "in"}}));
    world.records("in", six());
    world.succeed("in");
    world.succeed("p");
    world.restart();
    let summary = world.succeed("p");
    assert_eq!(
        (summary.sync_type.as_str(), summary.read),
        ("incremental", 0)
    );
    let mut rows = six();
    rows[0]["v"] = json!("edited");
    world.records("in", rows);
    world.succeed("in");
    assert_eq!(world.succeed("p").read, 1);
}

#[test]
fn a_pipe_runs_once_at_a_time() {
    let mut world = World::new();
    world.pipe(plain());
    let (gate, keeper) = gate();
    world.upstream("p", |upstream| upstream.gate = Some(gate));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run("p"));
        keeper.wait();
        let second = world.try_run("p", &Request::default());
        assert!(second.unwrap_err().to_string().contains("is running"));
        keeper.open.send(()).unwrap();
        assert!(run.join().unwrap().success());
    });
}

#[test]
fn what_one_transform_filters_no_later_one_brings_back() {
    let mut world = World::new();
    let dtl = |statements: Json| json!({"type": "dtl", "rules": {"default": statements}});
    let way = |wanted: i64| {
        json!({
            "_id": "p",
            "source": {"type": "embedded", "entities": [{"_id": "a", "v": 1}, {"_id": "b", "v": 2}]},
            "transform": [
                dtl(json!([["copy", "*"], ["filter", ["lte", "_S.v", wanted]]])),
                dtl(json!([["copy", "*"], ["add", "q", true],
                    ["create", ["dict", "_id", ["concat", "_S._id", "-child"]]]])),
            ],
        })
    };
    world.pipe(way(1));
    world.succeed("p");
    assert_eq!(world.living("p"), ["a", "a-child"]);
    // What passed before and no longer does is deleted, with what was made of it.
    world.pipe(way(2));
    world.succeed("p");
    assert_eq!(world.living("p"), ["a", "a-child", "b", "b-child"]);
    world.pipe(way(1));
    world.succeed("p");
    assert_eq!(world.living("p"), ["a", "a-child"]);
    assert_eq!(world.deleted("p"), ["b", "b-child"]);
}
