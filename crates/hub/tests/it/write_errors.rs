//! Write errors and read errors: again, split, set aside, give up.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, entity_from_config};
use tahini_hub::execution_log::dataset_id;
use tahini_hub::policy::Retries;
use tahini_hub::{Class, Failure};
use tahini_store::{Commit, Rule, Show, StateWrite};

use crate::refusals::{errors, pipe, retrying, sent, world_of};
use crate::script::{gate, records};
use crate::world::{BEGINNING, World};

fn world(pump: Json) -> World {
    world_of(pipe(pump))
}

fn refuse(world: &World, ids: &[&str]) {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    world.target("p", |target| target.refuses = ids);
}

#[test]
fn a_failing_batch_is_sent_again_as_often_as_configured() {
    let world = world(json!({"batch_retries": 2}));
    world.target("p", |target| target.failing_batches = 2);
    world.succeed("p");
    assert_eq!(sent(&world), ["abc!", "abc!", "abc", "d"]);
}

#[test]
fn by_default_a_failing_batch_is_sent_three_times_more_and_then_split() {
    let world = world(json!({}));
    world.target("p", |target| target.failing_batches = 4);
    world.succeed("p");
    assert_eq!(
        sent(&world),
        ["abc!", "abc!", "abc!", "abc!", "a", "b", "c", "d"]
    );
}

#[test]
fn without_the_fallback_a_failing_batch_ends_the_run() {
    let pump = json!({"batch_retries": 0, "fallback_to_single_entities_on_batch_fail": false});
    let world = world(pump);
    refuse(&world, &["b"]);
    let summary = world.run("p");
    assert_eq!(sent(&world), ["abc!"]);
    assert_eq!((summary.success(), summary.failed), (false, 3));
    assert_eq!(world.offset("p"), Json::Null);
}

#[test]
fn a_target_that_is_down_is_not_asked_for_all_that_waits() {
    let pump = |most: u64| {
        let mut pump = retrying();
        pump["max_consecutive_write_errors"] = json!(most);
        pump
    };
    let mut world = world(pump(100));
    refuse(&world, &["a", "b", "c", "d"]);
    world.target("p", |target| target.is_down = true);
    world.run("p");
    sent(&world);
    world.pipe(pipe(pump(2)));
    let updated = json!({"_id": "e", "_updated": 5, "v": 1});
    world.records("p", vec![updated]);
    // What waits is left for later after two failures, and what is new ends the run or passes.
    let summary = world.run("p");
    assert_eq!(sent(&world), ["a!", "b!", "e"]);
    assert!(summary.success());
    world.target("p", |target| target.is_down = false);
    world.succeed("p");
    assert_eq!(
        sent(&world),
        ["a!", "b!", "c!", "d!"],
        "their own fault each"
    );
}

#[test]
fn by_default_the_first_write_error_ends_the_run() {
    let world = world(json!({"batch_retries": 0}));
    refuse(&world, &["b"]);
    let summary = world.run("p");
    assert_eq!(sent(&world), ["abc!", "a", "b!"]);
    assert_eq!((summary.changed, summary.failed), (1, 1));
    assert_eq!(errors(&world), Vec::<Json>::new());
    assert_eq!(world.offset("p"), Json::Null);
    refuse(&world, &[]);
    world.succeed("p");
    assert_eq!(sent(&world), ["abc", "d"]);
}

#[test]
fn consecutive_write_errors_end_the_run_at_their_limit() {
    let world = world(json!({"batch_retries": 0, "max_consecutive_write_errors": 3}));
    refuse(&world, &["b"]);
    world.fail("p");
    assert_eq!(sent(&world), ["abc!", "a", "b!", "b!", "b!"]);
}

#[test]
fn write_errors_with_successes_between_them_are_not_consecutive() {
    let mut pump = retrying();
    pump["max_consecutive_write_errors"] = json!(2);
    let mut world = world(pump);
    refuse(&world, &["a", "c"]);
    world.succeed("p");
    let mut pump = retrying();
    pump["max_consecutive_write_errors"] = json!(2);
    let mut fresh = pipe(pump);
    fresh["_id"] = json!("q");
    world.pipe(fresh);
    world.records("q", records(&[("a", 1), ("b", 2), ("c", 3)]));
    world.target("q", |target| {
        target.refuses.extend(["a".to_owned(), "b".to_owned()])
    });
    assert!(world.fail("q").contains("refused b"));
}

#[test]
fn a_failing_entity_is_set_aside_while_the_others_get_through() {
    for mut world in World::both() {
        world.pipe(pipe(retrying()));
        world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
        refuse(&world, &["b"]);
        let summary = world.succeed("p");
        assert_eq!(sent(&world), ["abc!", "a", "b!", "c", "d"]);
        assert_eq!(
            (summary.changed, summary.failed, summary.retryable),
            (3, 1, 1)
        );
        assert_eq!(
            errors(&world),
            [json!(["write-error:b", 0, true, false, false])]
        );
        assert_eq!(world.offset("p"), 4);
    }
}

#[test]
fn what_waits_is_retried_in_the_next_run_and_resolved() {
    for mut world in World::both() {
        world.pipe(pipe(retrying()));
        world.records("p", records(&[("a", 1), ("b", 2)]));
        refuse(&world, &["b"]);
        world.succeed("p");
        refuse(&world, &[]);
        sent(&world);
        let summary = world.succeed("p");
        assert_eq!(sent(&world), ["b"]);
        assert!(summary.retryable == 0);
        let last = errors(&world).pop().unwrap();
        assert_eq!(last, json!(["write-error:b", 0, false, true, false]));
        assert_eq!(
            world
                .log("p")
                .iter()
                .filter(|entry| !entry["resolved_entity"].is_null())
                .count(),
            0
        );
        world.succeed("p");
        assert_eq!(sent(&world), [""; 0], "resolved once");
    }
}

#[test]
fn what_waits_survives_a_restart() {
    let mut world = World::on_disk();
    world.pipe(pipe(retrying()));
    world.records("p", records(&[("a", 1), ("b", 2)]));
    refuse(&world, &["b"]);
    world.succeed("p");
    world.restart();
    refuse(&world, &[]);
    sent(&world);
    world.succeed("p");
    assert_eq!(sent(&world), ["b"]);
}

#[test]
fn an_entity_is_given_up_after_its_retries_and_stands_in_the_dead_letters() {
    let mut pump = retrying();
    pump["dead_letter_dataset"] = json!("letters");
    let world = world(pump);
    refuse(&world, &["b"]);
    world.succeed("p");
    world.succeed("p");
    assert_eq!(world.living("letters"), [""; 0]);
    world.succeed("p");
    let letters = world.versions("letters", true, Fields::CONTENT);
    assert_eq!(letters, [json!({"_id": "b", "v": 2})]);
    let told = errors(&world);
    assert_eq!(
        told,
        [
            json!(["write-error:b", 0, true, false, false]),
            json!(["write-error:b", 1, true, false, false]),
            json!(["write-error:b", 2, false, false, true]),
        ]
    );
    sent(&world);
    let summary = world.succeed("p");
    assert_eq!(sent(&world), [""; 0], "a dead one is left alone");
    assert!(summary.retryable == 0);
}

#[test]
fn a_tracked_dead_letter_goes_when_a_later_version_gets_through() {
    for (tracked, letters) in [(true, vec![]), (false, vec!["b".to_owned()])] {
        let mut pump = retrying();
        pump["dead_letter_dataset"] = json!("letters");
        pump["max_retries_per_entity"] = json!(0);
        pump["track_dead_letters"] = json!(tracked);
        let world = world(pump);
        refuse(&world, &["b"]);
        world.succeed("p");
        assert_eq!(world.living("letters"), ["b"]);
        // Not the version that was given up, and not one that fails, too.
        world.records("p", records(&[("b", 7)]));
        world.succeed("p");
        assert_eq!(world.living("letters"), ["b"]);
        refuse(&world, &[]);
        world.records("p", records(&[("b", 8)]));
        world.succeed("p");
        assert_eq!(world.living("letters"), letters, "{tracked}");
    }
}

#[test]
fn discarded_retries_are_not_made() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    assert_eq!(world.succeed("p").retryable, 1);
    sent(&world);
    let user = tahini_hub::execution_log::User::default();
    world.hub().discard_retries("p", &user).unwrap();
    let last = world.log("p").pop().unwrap();
    assert_eq!(last["event_type"], "pump-discard-retries");
    assert_eq!(world.live_pipe("p").state().last.unwrap().retryable, 0);
    assert_eq!(world.succeed("p").retryable, 0);
    assert_eq!(sent(&world), [""; 0]);
}

#[test]
fn the_older_flag_names_the_dead_letter_dataset_after_the_pipe() {
    let mut pump = retrying();
    pump["use_dead_letter_dataset"] = json!(true);
    pump["max_retries_per_entity"] = json!(0);
    let world = world(pump);
    refuse(&world, &["b"]);
    world.succeed("p");
    assert_eq!(world.living("system:dead-letter:p"), ["b"]);
}

#[test]
fn a_dead_version_is_left_alone_when_the_source_gives_it_again() {
    let mut pump = retrying();
    pump["max_retries_per_entity"] = json!(0);
    let world = world(pump);
    refuse(&world, &["b"]);
    world.succeed("p");
    sent(&world);
    assert!(world.rescan("p").success());
    assert_eq!(sent(&world), ["ac", "d"]);
}

#[test]
fn a_new_version_of_a_dead_entity_is_tried_and_resolves_it() {
    let mut pump = retrying();
    pump["max_retries_per_entity"] = json!(0);
    let world = world(pump);
    refuse(&world, &["b"]);
    world.succeed("p");
    refuse(&world, &[]);
    sent(&world);
    world.records("p", records(&[("b", 9)]));
    world.succeed("p");
    assert_eq!(sent(&world), ["b"]);
    assert_eq!(
        errors(&world).pop().unwrap(),
        json!(["write-error:b", 0, false, true, false])
    );
}

#[test]
fn a_corrected_version_resolves_the_error_and_is_named() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    world.succeed("p");
    // The old version fails once more, the corrected one comes with the source.
    world.records("p", records(&[("b", 9)]));
    refuse(&world, &[]);
    world.target("p", |target| target.refuses_v = Some(2));
    world.succeed("p");
    let log = world.log("p");
    let last = log
        .iter()
        .rfind(|entry| entry["event_type"] == "write-error")
        .unwrap();
    assert_eq!(last["resolved"], true);
    assert_eq!(last["entity"], json!({"_id": "b", "v": 2}));
    assert_eq!(last["resolved_entity"], json!({"_id": "b", "v": 9}));
}

#[test]
fn a_new_version_that_fails_too_starts_counting_anew() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    world.succeed("p");
    world.succeed("p");
    world.records("p", records(&[("b", 9)]));
    world.succeed("p");
    let last = errors(&world).pop().unwrap();
    assert_eq!(last, json!(["write-error:b", 0, true, false, false]));
}

#[test]
fn a_full_run_retries_what_waits_once() {
    let world = world(retrying());
    refuse(&world, &["b"]);
    world.succeed("p");
    sent(&world);
    assert!(world.rescan("p").success());
    let tries = sent(&world);
    assert_eq!(
        tries.iter().filter(|ids| ids.contains('b')).count(),
        1,
        "{tries:?}"
    );
    assert_eq!(errors(&world).pop().unwrap()[1], 1);
}

#[test]
fn more_failed_entities_than_may_wait_end_the_run() {
    let mut pump = retrying();
    pump["max_write_errors_in_retry_dataset"] = json!(2);
    let world = world(pump);
    refuse(&world, &["a", "b", "c"]);
    let summary = world.run("p");
    assert_eq!(
        summary.failure.unwrap().entity.unwrap().id.as_deref(),
        Some("c")
    );
    assert_eq!(errors(&world).len(), 2);
    assert_eq!(
        world.offset("p"),
        Json::Null,
        "c is not durable, so it is not passed"
    );
    // It goes on where it was once the target takes them.
    refuse(&world, &[]);
    world.succeed("p");
    assert!(world.taken("p").concat().contains(&"c".to_owned()));
    assert_eq!(world.offset("p"), 4);
}

#[test]
fn an_offset_passes_an_entity_only_once_it_is_in_the_log() {
    let mut pump = retrying();
    pump["max_consecutive_write_errors"] = json!(1);
    let world = world(pump);
    refuse(&world, &["b"]);
    world.fail("p");
    assert_eq!(errors(&world).len(), 1);
    assert_eq!(world.offset("p"), Json::Null);
}

#[test]
fn a_failing_read_is_begun_again_as_often_as_configured() {
    for (retries, failures, works) in [(0, 1, false), (1, 1, true), (2, 2, true), (2, 3, false)] {
        let world = world(json!({"max_read_retries": retries}));
        world.upstream("p", |upstream| {
            let broken = || (0, Failure::transient("broke off"));
            upstream.failures = (0..failures).map(|_| broken()).collect();
        });
        let summary = world.run("p");
        assert_eq!(
            summary.success(),
            works,
            "{retries} retries, {failures} failures"
        );
        assert_eq!(summary.read_errors, failures);
        let told = world
            .log_kinds("p")
            .iter()
            .filter(|kind| *kind == "read-error")
            .count();
        assert_eq!(told as u64, failures);
    }
}

#[test]
fn a_read_that_always_breaks_off_at_the_same_place_ends() {
    for chronological in [true, false] {
        let mut world = world(json!({}));
        let mut endless = pipe(json!({"max_read_retries": 3}));
        endless["source"]["is_chronological"] = json!(chronological);
        world.pipe(endless);
        world.upstream("p", |upstream| upstream.always_fails_at = Some(4));
        if chronological {
            // Behind the checkpoint the answer is shorter, and its end is the same record.
            world.upstream("p", |upstream| upstream.ignores_since = true);
        }
        let summary = world.run("p");
        assert!(!summary.success());
        assert_eq!(summary.read_errors, 4);
    }
}

#[test]
fn a_peer_that_asks_for_a_pause_gets_it() {
    let world = world(json!({"batch_retries": 1}));
    world.target("p", |target| {
        target.failing_batches = 1;
        target.retry_after = Some(std::time::Duration::from_millis(30));
    });
    let started = std::time::Instant::now();
    world.succeed("p");
    assert!(started.elapsed().as_millis() >= 30);
    assert_eq!(sent(&world), ["abc!", "abc", "d"]);
}

#[test]
fn a_filtered_version_resolves_an_older_one_that_waits() {
    let mut world = World::new();
    let mut config = pipe(retrying());
    config["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["filter", ["lt", "_S.v", 5]],
    ]}});
    world.pipe(config);
    world.records("p", records(&[("a", 1), ("b", 2)]));
    refuse(&world, &["b"]);
    world.succeed("p");
    world.records("p", records(&[("b", 9)]));
    let summary = world.succeed("p");
    assert!(summary.retryable == 0);
    let last = errors(&world).pop().unwrap();
    assert_eq!(last, json!(["write-error:b", 1, false, true, false]));
    sent(&world);
    refuse(&world, &[]);
    world.succeed("p");
    assert_eq!(sent(&world), [""; 0], "the old version is not sent");
}

#[test]
fn a_filtered_version_with_the_content_of_a_dead_one_resolves_it() {
    for sink in ["scripted", "dataset"] {
        let mut world = World::new();
        let mut pump = retrying();
        pump["max_retries_per_entity"] = json!(0);
        let mut config = pipe(pump.clone());
        config["sink"] = json!({"type": sink});
        world.pipe(config.clone());
        world.records("p", records(&[("b", 2)]));
        refuse(&world, &["b"]);
        world.succeed("p");
        assert_eq!(errors(&world).pop().unwrap()[4], true);
        config["transform"] = json!({"type": "dtl", "rules": {"default": [
            ["copy", "*"],
            ["filter", false],
        ]}});
        world.pipe(config);
        refuse(&world, &[]);
        assert!(world.rescan("p").success());
        let last = errors(&world).pop().unwrap();
        assert_eq!(
            last,
            json!(["write-error:b", 0, false, true, false]),
            "{sink}"
        );
    }
}

#[test]
fn a_system_says_how_its_failures_are_answered() {
    let world = world(json!({}));
    refuse(&world, &["b"]);
    world.target("p", |target| {
        target.retries = Some(std::sync::Arc::new(Retries {
            batch_retries: Some(1),
            max_consecutive_write_errors: Some(3),
            max_write_errors_in_retry_dataset: Some(1),
            max_retries_per_entity: Some(1),
            ..Retries::default()
        }));
    });
    world.succeed("p");
    assert_eq!(sent(&world), ["abc!", "abc!", "a", "b!", "c", "d"]);
    world.succeed("p");
    assert_eq!(sent(&world), ["b!"]);
    let last = errors(&world).pop().unwrap();
    assert_eq!(last, json!(["write-error:b", 1, false, false, true]));
}

#[test]
fn what_the_pump_says_itself_goes_before_what_a_system_says() {
    let world = world(json!({
        "batch_retries": 0, "max_write_errors_in_retry_dataset": 0,
    }));
    refuse(&world, &["b"]);
    world.target("p", |target| {
        target.retries = Some(std::sync::Arc::new(Retries {
            batch_retries: Some(5),
            max_consecutive_write_errors: Some(2),
            max_write_errors_in_retry_dataset: Some(5),
            ..Retries::default()
        }));
    });
    world.fail("p");
    assert_eq!(sent(&world), ["abc!", "a", "b!", "b!"]);
    assert_eq!(errors(&world), Vec::<Json>::new());
}

#[test]
fn a_system_says_how_often_a_read_is_begun_again() {
    for (pump, reads) in [(json!({}), 3), (json!({"max_read_retries": 1}), 2)] {
        let world = world(pump);
        world.upstream("p", |upstream| {
            let mut failure = Failure::transient("busy").with_status(429);
            failure.retries = Some(std::sync::Arc::new(Retries {
                max_read_retries: Some(2),
                ..Retries::default()
            }));
            upstream.failures = (0..9).map(|_| (0, failure.clone())).collect();
        });
        assert_eq!(world.run("p").read_errors, reads);
    }
}

#[test]
fn the_end_of_a_run_is_sent_again_as_a_batch_is() {
    for (failing, works) in [(3, true), (4, false)] {
        let world = world(json!({}));
        world.target("p", |target| target.failing_ends = failing);
        let summary = world.run("p");
        assert_eq!(summary.success(), works);
        let (complete, ends) =
            world.target("p", |target| (target.complete.clone(), target.ends.clone()));
        match works {
            true => assert_eq!((complete, ends), (vec![true], vec![true])),
            false => assert_eq!((complete, ends), (vec![], vec![false])),
        }
    }
}

#[test]
fn a_run_that_is_stopped_never_says_that_it_came_to_its_end() {
    for rows in [records(&[("a", 1)]), Vec::new()] {
        let world = world(json!({}));
        world.records("p", rows);
        let (gate, keeper) = gate();
        world.upstream("p", |upstream| {
            upstream.gate = Some(gate);
            upstream.deaf = true;
        });
        let summary = std::thread::scope(|scope| {
            let run = scope.spawn(|| world.run("p"));
            keeper.wait();
            world.live_pipe("p").state().cancel.cancel();
            keeper.open.send(()).unwrap();
            run.join().unwrap()
        });
        assert_eq!(summary.failure.unwrap().class, Class::Cancelled);
        let ends = world.target("p", |target| target.ends.clone());
        assert_eq!(ends, [false]);
    }
}

#[test]
fn what_waits_in_a_store_of_an_earlier_version_is_retried() {
    let world = world(retrying());
    let log = dataset_id("p");
    let dataset = world.hub().world.store.open(&log, true).unwrap();
    let entry = json!({
        "_id": "write-error:z", "event_type": "write-error", "entity": {"_id": "z", "v": 7},
    });
    let mut rows = Batch::new();
    let entry = entity_from_config(&entry, Numbers::default(), 0).unwrap();
    rows.push_entity(&entry).unwrap();
    // How often it was retried (3), whether it is dead, and the hash of what failed.
    let value = [&3u64.to_le_bytes()[..], &[0], &[0xab; 16]].concat();
    let commit = Commit {
        rows: &rows,
        rule: Rule::IfChanged,
        state: &[StateWrite {
            space: "pipe:p".to_owned(),
            key: b"waiting/z".to_vec(),
            value: Some(value),
        }],
        populated: true,
        now: BEGINNING,
        show: Show::Now,
        note: None,
    };
    dataset.commit(commit).unwrap().1.wait().unwrap();
    let summary = world.succeed("p");
    assert_eq!(sent(&world), ["z", "abc", "d"]);
    assert!(summary.retryable == 0);
    let told = json!(["write-error:z", 3, false, true, false]);
    assert_eq!(
        errors(&world),
        [json!(["write-error:z", null, null, null, null]), told]
    );
}
