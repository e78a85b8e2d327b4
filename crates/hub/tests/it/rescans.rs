//! Rescans beside incremental runs: who overwrites whom, what is deleted, and what is gone on with.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::execution_log::{Summary, User};
use tahini_hub::pump::Request;
use tahini_hub::{Class, Failure};

use crate::script::{GateKeeper, gate, records};
use crate::world::World;

/// A pipe in batches of two that rescans in the background; `is_chronological` as given.
fn pipe(chronological: bool) -> Json {
    json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": chronological},
        "enable_background_rescan": true,
        "batch_size": 2,
        "checkpoint_interval": 1,
    })
}

/// a … f with `_updated` 1 … 6.
fn six() -> Vec<Json> {
    records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)])
}

fn rescan() -> Request {
    Request {
        rescan: true,
        ..Request::default()
    }
}

/// The latest version of each id as `id:v`, deleted ones as `id:-`.
fn latest(world: &World, dataset: &str) -> Vec<String> {
    let mut all: Vec<String> = world
        .versions(dataset, false, Fields::CONTENT)
        .iter()
        .map(|entity| match entity["_deleted"] == true {
            true => format!("{}:-", entity["_id"].as_str().unwrap()),
            false => format!("{}:{}", entity["_id"].as_str().unwrap(), entity["v"]),
        })
        .collect();
    all.sort();
    all
}

/// Puts a gate before every batch of the source of `pipe`.
fn guard(world: &World, pipe: &str) -> GateKeeper {
    let (gate, keeper) = gate();
    world.upstream(pipe, |upstream| {
        upstream.gate = Some(gate);
        upstream.gate_at_every_batch = true;
    });
    keeper
}

fn unguard(world: &World, pipe: &str) {
    world.upstream(pipe, |upstream| upstream.gate = None);
}

/// Rescans `p` and does something when it stands before its second batch; no gate is there then.
fn in_the_middle(world: &World, meanwhile: impl FnOnce()) -> Summary {
    let keeper = guard(world, "p");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.try_run("p", &rescan()).unwrap());
        keeper.wait();
        keeper.open.send(()).unwrap();
        keeper.wait();
        unguard(world, "p");
        meanwhile();
        keeper.open.send(()).unwrap();
        run.join().unwrap()
    })
}

#[test]
fn a_rescan_overwrites_and_deletes_nothing_that_a_run_wrote_meanwhile() {
    for chronological in [true, false] {
        for mut world in World::both() {
            world.pipe(pipe(chronological));
            world.records("p", six());
            world.succeed("p");
            // a and c are gone; b and e changed without a new `_updated`, which only a rescan sees.
            let mut rows = six();
            rows.retain(|row| row["_id"] != "a" && row["_id"] != "c");
            rows[0]["v"] = json!(20);
            rows[2]["v"] = json!(50);
            world.records("p", rows);
            let summary = in_the_middle(&world, || {
                // Since the rescan asked, f and e changed, c came back and g is new.
                world.records("p", records(&[("f", 7), ("e", 8), ("c", 9), ("g", 10)]));
                let run = world.succeed("p");
                assert_eq!(
                    (run.sync_type.as_str(), run.changed),
                    ("incremental", 3 + 1)
                );
                assert!(world.live_pipe("p").state().rescanning);
            });
            assert!(summary.success(), "{:?}", summary.failure);
            assert_eq!(summary.sync_type, "full");
            let expected = ["a:-", "b:20", "c:9", "d:4", "e:8", "f:7", "g:10"];
            assert_eq!(latest(&world, "p"), expected, "{chronological}");
            assert_eq!(world.offset("p"), 10);
            // Nothing was written that did not have to be: 6, then b, f, e, c, g, and a's end.
            assert_eq!(world.version_count("p"), 12);
            assert_eq!(summary.deleted, 1);
            assert!(!world.live_pipe("p").state().rescanning);
            assert_eq!(world.succeed("p").sync_type, "incremental");
        }
    }
}

#[test]
fn what_a_run_was_given_and_did_not_have_to_write_is_not_overwritten_either() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["sink"] = json!({"type": "dataset"});
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    // The rescan is answered f as it was for a moment; a run then gets f as it was before.
    let mut rows = six();
    rows[5]["v"] = json!(60);
    world.records("p", rows);
    let summary = in_the_middle(&world, || {
        let mut back = records(&[("f", 7)]);
        back[0]["v"] = json!(6);
        world.records("p", back);
        let run = world.succeed("p");
        assert_eq!((run.read, run.changed), (1, 0), "the hash is equal");
    });
    assert!(summary.success());
    assert_eq!(latest(&world, "p").last().unwrap(), "f:6");
    assert_eq!(world.version_count("p"), 6);
}

#[test]
fn without_runs_a_rescan_goes_on_past_the_offset_and_moves_it() {
    for mut world in World::both() {
        world.pipe(pipe(true));
        world.records("p", six());
        world.succeed("p");
        let mut rows = six();
        rows.extend(records(&[("g", 7), ("h", 8)]));
        world.records("p", rows);
        let summary = world.rescan("p");
        assert!(summary.success());
        assert_eq!((world.offset("p"), world.living("p").len()), (json!(8), 8));
        assert_eq!(world.succeed("p").read, 0);
    }
}

#[test]
fn no_run_begins_while_the_rescan_reads_behind_the_offset() {
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    let keeper = guard(&world, "p");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.try_run("p", &rescan()).unwrap());
        for _ in 0..3 {
            keeper.wait();
            keeper.open.send(()).unwrap();
        }
        // It asked again, now from the offset on.
        keeper.wait();
        let refusal = world.try_run("p", &Request::default()).unwrap_err();
        assert!(refusal.to_string().contains("is running"), "{refusal}");
        keeper.open.send(()).unwrap();
        assert!(run.join().unwrap().success());
    });
    unguard(&world, "p");
    world.succeed("p");
}

#[test]
fn a_rescan_that_breaks_off_goes_on_where_it_was_and_knows_what_runs_wrote() {
    for mut world in World::both() {
        world.pipe(pipe(true));
        world.records("p", six());
        world.succeed("p");
        let mut rows = six();
        rows.retain(|row| row["_id"] != "a");
        rows[0]["v"] = json!(20);
        rows[4]["v"] = json!(60);
        world.records("p", rows.clone());
        break_off(&world, 4);
        assert!(!world.rescan("p").success());
        assert_eq!(world.deleted("p"), [""; 0]);
        world.restart_if_on_disk();
        rows.extend(records(&[("f", 7), ("new", 8)]));
        world.records("p", rows.clone());
        asked(&world);
        let run = run_alone(&world);
        assert_eq!((run.read, run.changed), (2, 2));
        world.restart_if_on_disk();
        // Behind its own place, which is not in the middle of what may be equal, it comes to f as
        // that was before.
        world.records("p", rows[..5].to_vec());
        let rest = world.rescan("p");
        assert!(rest.success(), "{:?}", rest.failure);
        assert_eq!(asked(&world)[..2], [Some(6), Some(2)]);
        let expected = ["a:-", "b:20", "c:3", "d:4", "e:5", "f:7", "new:8"];
        assert_eq!(latest(&world, "p"), expected);
    }
}

/// A run of `p`, without the rest of a rescan before it.
fn run_alone(world: &World) -> Summary {
    let live = world.live_pipe("p");
    let cancel = world.hub().begin(&live).unwrap();
    let pipe = live.usable().unwrap();
    world
        .hub()
        .finish(&live, pipe, &Request::default(), &cancel)
}

/// The since of every opening since the last call.
fn asked(world: &World) -> Vec<Option<i64>> {
    let mut asked = Vec::new();
    world.upstream("p", |upstream| asked = std::mem::take(&mut upstream.asked));
    let number = |offset: Option<tahini_entity::Offset>| match offset {
        Some(tahini_entity::Offset::Int(number)) => Some(number),
        Some(tahini_entity::Offset::Text(text)) => panic!("expected a number, found {text}"),
        None => None,
    };
    asked.into_iter().map(number).collect()
}

fn break_off(world: &World, at: usize) {
    world.upstream("p", |upstream| {
        let failure = Failure::transient("broke off");
        upstream.failures.push_back((at, failure));
    });
}

#[test]
fn the_next_run_brings_the_rest_of_a_rescan_that_broke_off() {
    for chronological in [true, false] {
        for mut world in World::both() {
            world.pipe(pipe(chronological));
            world.records("p", six());
            world.succeed("p");
            world.records("p", six()[2..].to_vec());
            break_off(&world, 3);
            assert!(!world.rescan("p").success());
            assert_eq!(world.living("p").len(), 6);
            world.restart_if_on_disk();
            asked(&world);
            assert_eq!(world.succeed("p").sync_type, "incremental");
            assert_eq!(world.deleted("p"), ["a", "b"]);
            // Without an order it begins anew; then what came since, then the run.
            let expected: &[Option<i64>] = match chronological {
                true => &[Some(3), Some(6), Some(6)],
                false => &[None, Some(6)],
            };
            assert_eq!(asked(&world), expected);
            world.succeed("p");
            assert_eq!(asked(&world), [Some(6)], "once");
        }
    }
}

#[test]
fn a_rescan_that_somebody_stopped_waits_for_another_request() {
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[2..].to_vec());
    let summary = in_the_middle(&world, || assert!(world.hub().stop("p").unwrap()));
    assert_eq!(summary.failure.unwrap().class, Class::Cancelled);
    world.succeed("p");
    assert_eq!(world.living("p").len(), 6);
    asked(&world);
    assert!(world.rescan("p").success());
    assert_eq!(asked(&world)[0], Some(3), "from where it stood");
    assert_eq!(world.deleted("p"), ["a", "b"]);
}

#[test]
fn a_rescan_that_was_reset_begins_from_the_start() {
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    break_off(&world, 5);
    assert!(!world.rescan("p").success());
    world.hub().reset_rescan("p").unwrap();
    asked(&world);
    world.succeed("p");
    assert_eq!(asked(&world), [Some(6)], "nothing is left of it");
    assert!(world.rescan("p").success());
    assert_eq!(asked(&world)[0], None);
}

#[test]
fn a_place_that_is_set_by_hand_makes_a_rescan_begin_anew() {
    let by_hand = |world: &World, offset: Option<i64>| {
        let offset = offset.map(tahini_entity::Offset::Int);
        world
            .hub()
            .set_offset("p", offset, &User::default())
            .map_err(|refusal| refusal.to_string())
    };
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    let summary = in_the_middle(&world, || {
        assert!(by_hand(&world, Some(9)).unwrap_err().contains("rescanning"));
        assert!(by_hand(&world, None).unwrap_err().contains("rescanning"));
        let refusal = world.try_run("p", &rescan()).unwrap_err();
        assert!(refusal.to_string().contains("rescanning"), "{refusal}");
        world.hub().stop("p").unwrap();
    });
    assert!(!summary.success());
    // g comes behind the old offset and before the new one: neither a run nor the rest of the
    // rescan would come to it.
    let mut rows = six();
    rows.extend(records(&[("g", 7)]));
    world.records("p", rows);
    world.succeed("p");
    by_hand(&world, Some(9)).unwrap();
    asked(&world);
    assert!(world.rescan("p").success());
    assert_eq!(asked(&world)[0], None);
    assert_eq!(world.living("p").len(), 7);
    break_off(&world, 3);
    assert!(!world.rescan("p").success());
    by_hand(&world, None).unwrap();
    asked(&world);
    assert_eq!(world.succeed("p").sync_type, "full");
    assert_eq!(asked(&world), [None], "the full run does it all");
}

#[test]
fn rescans_by_the_number_of_runs_go_on_beside_them() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["pump"] = json!({"rescan_run_count": 3});
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    let kinds: Vec<String> = (0..6).map(|_| world.succeed("p").sync_type).collect();
    assert_eq!(
        kinds.join(" "),
        "incremental incremental full incremental incremental full"
    );
    let beside = |entry: &Json| entry["background_rescan"] == true;
    let told = world.log("p").iter().filter(|entry| beside(entry)).count();
    assert_eq!(told, 0, "they did nothing");
    let state = world.live_pipe("p").state();
    assert_eq!((state.rescans, state.runs), (2, 5));
}

#[test]
fn the_log_tells_which_run_was_a_rescan_beside_others() {
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[1..].to_vec());
    world.rescan("p");
    let log = world.log("p");
    let last = log.last().unwrap();
    assert_eq!(last["event_type"], "pump-completed");
    assert_eq!(
        (&last["sync_type"], &last["background_rescan"]),
        (&json!("full"), &json!(true))
    );
    assert_eq!(log[1]["background_rescan"], Json::Null);
}

#[test]
fn a_first_run_and_one_after_a_reset_read_everything_by_themselves() {
    let mut world = World::new();
    world.pipe(pipe(true));
    world.records("p", six());
    let summary = world.rescan("p");
    assert_eq!(summary.sync_type, "full");
    assert_eq!(world.live_pipe("p").state().runs, 1, "it was the first run");
    world.hub().set_offset("p", None, &User::default()).unwrap();
    world.rescan("p");
    assert_eq!(world.live_pipe("p").state().runs, 2);
}

/// A pipe that gives the newest of each id in some datasets.
fn merging(datasets: Json) -> Json {
    json!({
        "_id": "p",
        "source": {"type": "merge_datasets", "datasets": datasets},
        "transform": {"type": "scripted"},
        "enable_background_rescan": true,
        "batch_size": 1,
    })
}

/// A gate before what the transform of `p` does with an entity.
fn guard_entity(world: &World, id: &str) -> GateKeeper {
    let (gate, keeper) = gate();
    world.middle("p", |middle| middle.gate = Some((id.to_owned(), gate)));
    keeper
}

fn write(world: &World, dataset: &str, rows: &[(&str, i64)]) {
    world.records(dataset, records(rows));
    world.succeed(dataset);
}

#[test]
fn where_a_merged_source_changed_the_rescan_has_the_last_word() {
    for mut world in World::both() {
        for id in ["x", "y"] {
            world.pipe(json!({"_id": id}));
        }
        world.pipe(merging(json!(["x", "y"])));
        write(&world, "x", &[("a", 1), ("b", 1)]);
        write(&world, "y", &[("c", 1)]);
        world.succeed("p");
        assert_eq!(latest(&world, "p"), ["a:1", "b:1", "c:1"]);
        world.pipe(merging(json!(["x"])));
        let keeper = guard_entity(&world, "b");
        std::thread::scope(|scope| {
            let run = scope.spawn(|| world.try_run("p", &rescan()).unwrap());
            keeper.wait();
            world.middle("p", |middle| middle.gate = None);
            // a came out of the rescan, b did not yet.
            write(&world, "x", &[("a", 2), ("b", 2), ("d", 1)]);
            assert_eq!(world.succeed("p").sync_type, "incremental");
            assert_eq!(latest(&world, "p"), ["a:1", "b:2", "c:1", "d:1"]);
            // A run that is under way at the rescan's end is stopped.
            write(&world, "x", &[("a", 2), ("b", 2), ("d", 1), ("e", 1)]);
            let held = guard_entity(&world, "e");
            let late = scope.spawn(|| world.run("p"));
            held.wait();
            world.middle("p", |middle| middle.gate = None);
            keeper.open.send(()).unwrap();
            let late = late.join().unwrap();
            assert_eq!(late.failure.unwrap().class, Class::Cancelled);
            assert!(run.join().unwrap().success());
        });
        assert_eq!(latest(&world, "p"), ["a:2", "b:2", "c:-", "d:1", "e:1"]);
        assert_eq!(world.succeed("p").read, 0, "the rescan moved the offset");
        assert_eq!(world.rescan("p").changed, 0);
    }
}

#[test]
fn a_run_that_reads_everything_takes_the_place_of_a_rescan() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "dataset", "dataset": "in"},
        "transform": {"type": "scripted"},
        "enable_background_rescan": true,
        "batch_size": 1,
    }));
    write(&world, "in", &[("a", 1), ("b", 1)]);
    world.succeed("p");
    let keeper = guard_entity(&world, "b");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.try_run("p", &rescan()).unwrap());
        keeper.wait();
        world.middle("p", |middle| middle.gate = None);
        world.hub().world.store.remove("in").unwrap();
        write(&world, "in", &[("b", 2), ("c", 1), ("d", 1)]);
        let full = world.succeed("p");
        assert_eq!((full.sync_type.as_str(), full.read), ("full", 3));
        let failure = run.join().unwrap().failure.unwrap();
        assert_eq!(failure.class, Class::Cancelled);
    });
    assert_eq!(latest(&world, "p"), ["a:-", "b:2", "c:1", "d:1"]);
    assert_eq!(world.succeed("p").sync_type, "incremental");
    let state = world.live_pipe("p").state();
    assert_eq!((state.rescanning, state.rescans), (false, 0));
}

#[test]
fn a_changed_configuration_begins_the_rescan_anew() {
    let with = |v: i64| {
        let mut pipe = pipe(true);
        pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
            ["copy", "*"], ["add", "w", v],
        ]}});
        pipe
    };
    let mut world = World::on_disk();
    world.pipe(with(1));
    world.records("p", six());
    world.succeed("p");
    world.pipe(with(2));
    break_off(&world, 5);
    assert!(!world.rescan("p").success());
    let of = |world: &World, w: i64| {
        let all = world.versions("p", false, Fields::CONTENT);
        all.iter().filter(|entity| entity["w"] == w).count()
    };
    assert_eq!(of(&world, 2), 4);
    // What a run wrote beside the old rescan is overwritten by the new one.
    let mut rows = six();
    rows.extend(records(&[("a", 7)]));
    rows.remove(0);
    world.hub().stop("p").unwrap();
    world.pipe(with(3));
    world.records("p", rows);
    asked(&world);
    assert!(world.rescan("p").success());
    assert_eq!(asked(&world)[0], None);
    assert_eq!(of(&world, 3), 6);
}

#[test]
fn what_a_run_set_aside_waits_whatever_the_rescan_does() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["pump"] = json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 10,
        "batch_retries": 0,
    });
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    // Both e and f changed without a new `_updated`.
    let mut rows = six();
    rows[4]["v"] = json!(50);
    rows[5]["v"] = json!(60);
    world.records("p", rows);
    let summary = in_the_middle(&world, || {
        // A newer f fails in a run, and g, which nobody else will ever see.
        world.target("p", |target| {
            target.refuses_v = Some(7);
        });
        world.records("p", records(&[("f", 7)]));
        let run = world.succeed("p");
        assert_eq!((run.failed, run.retryable), (1, 1));
        world.target("p", |target| target.refuses_v = None);
    });
    assert!(summary.success());
    assert_eq!(summary.retryable, 1, "the older f resolved nothing");
    // It was there, so that the rescan neither overwrote nor deleted it.
    assert_eq!(latest(&world, "p")[4..], ["e:50", "f:6"]);
    world.records("p", Vec::new());
    world.succeed("p");
    assert_eq!(latest(&world, "p")[4..], ["e:50", "f:7"]);
    assert_eq!(world.live_pipe("p").state().last.unwrap().retryable, 0);
}

#[test]
fn runs_beside_a_rescan_do_not_retry_and_the_rescan_does_that_by_itself() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["pump"] = json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 10,
        "batch_retries": 0,
    });
    world.pipe(pipe);
    world.records("p", six());
    world.target("p", |target| target.refuses.extend(["f".to_owned()]));
    world.succeed("p");
    world.target("p", |target| target.refuses.clear());
    let summary = in_the_middle(&world, || {
        world.succeed("p");
        assert_eq!(world.living("p").len(), 5, "not retried");
    });
    assert!(summary.success() && summary.retryable == 0);
    assert_eq!(world.living("p").len(), 6);
}

#[test]
fn an_entity_that_a_run_held_back_in_the_transforms_keeps_the_rescan_from_deleting() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["transform"] = json!({"type": "scripted"});
    pipe["pump"] = json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 10,
        "batch_retries": 0,
    });
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[1..5].to_vec());
    let summary = in_the_middle(&world, || {
        world.middle("p", |middle| middle.refuses_v = Some(7));
        // f moved on; what becomes of it nobody knows.
        world.records("p", records(&[("f", 7)]));
        world.succeed("p");
        world.middle("p", |middle| middle.refuses_v = None);
    });
    assert!(summary.success());
    assert!(
        summary
            .warnings
            .iter()
            .any(|words| words.contains("deletes nothing"))
    );
    assert_eq!(world.deleted("p"), [""; 0]);
    let mut rows = six()[1..5].to_vec();
    rows.extend(records(&[("f", 7)]));
    world.records("p", rows);
    world.succeed("p");
    assert!(world.rescan("p").success());
    assert_eq!(world.deleted("p"), ["a"]);
}

#[test]
fn pipes_whose_rescans_cannot_go_on_beside_runs_rescan_alone() {
    let lock = json!({"type": "dataset", "prevent_multiple_versions": true});
    let breaker = json!({"type": "dataset", "circuit_breaker_threshold_count": 1000});
    for (source, sink) in [
        (json!({"type": "scripted"}), json!({"type": "dataset"})),
        (pipe(true)["source"].clone(), json!({"type": "scripted"})),
        (pipe(true)["source"].clone(), breaker),
        (pipe(true)["source"].clone(), lock),
    ] {
        let mut world = World::new();
        let mut pipe = pipe(true);
        pipe["source"] = source;
        pipe["sink"] = sink;
        world.pipe(pipe);
        let rows = records(&[("a", 1)]);
        world.records("p", rows);
        world.succeed("p");
        world.rescan("p");
        let state = world.live_pipe("p").state();
        assert_eq!((state.runs, state.rescans), (2, 0));
    }
}

#[test]
fn a_rescan_that_was_left_in_the_background_is_made_up_for_alone() {
    let mut world = World::on_disk();
    world.pipe(pipe(true));
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[1..].to_vec());
    break_off(&world, 3);
    assert!(!world.rescan("p").success());
    let mut alone = pipe(true);
    alone["enable_background_rescan"] = json!(false);
    world.pipe(alone);
    let summary = world.succeed("p");
    assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 5));
    assert_eq!(world.deleted("p"), ["a"]);
    assert_eq!(world.succeed("p").sync_type, "incremental");
}

#[test]
fn what_a_rescan_deletes_is_marked_where_that_is_wanted() {
    let mut world = World::new();
    let mut pipe = pipe(true);
    pipe["sink"] = json!({"type": "dataset", "mark_deletion_tracked": true});
    world.pipe(pipe);
    world.records("p", six());
    world.succeed("p");
    world.records("p", six()[1..].to_vec());
    world.rescan("p");
    let latest = world.versions("p", false, Fields::CONTENT);
    let marked = latest
        .iter()
        .filter(|entity| entity["$deletion_tracked"] == true);
    let marked: Vec<&Json> = marked.map(|entity| &entity["_id"]).collect();
    assert_eq!(marked, ["a"]);
}
