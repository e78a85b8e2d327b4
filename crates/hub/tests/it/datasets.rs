//! What a pipe's configuration says of the datasets that it reads and writes.

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::hub::Refusal;

use crate::script::{gate, records};
use crate::world::World;

/// A dataset `in` with a@0, b@1, a@2, and b deleted at 3, and a pipe `out` that shows what it reads.
fn read_with(source: Json) -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    for rows in [&[("a", 1), ("b", 1)][..], &[("a", 2)]] {
        world.records("in", records(rows));
        world.succeed("in");
    }
    let mut pipe = json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "in"},
        "sink": {"type": "scripted"},
    });
    for (name, value) in source.as_object().unwrap() {
        pipe["source"][name] = value.clone();
    }
    world.pipe(pipe);
    world
}

#[test]
fn versions_that_were_superseded_are_read_where_that_is_asked_for() {
    for (source, came) in [
        (json!({}), &["a", "b"][..]),
        (json!({"include_previous_versions": false}), &["a", "b"]),
        (
            json!({"include_previous_versions": true}),
            &["a", "b", "a", "b"],
        ),
    ] {
        let world = read_with(source.clone());
        let summary = world.succeed("out");
        assert_eq!(world.taken("out"), [came], "{source}");
        assert_eq!(
            (summary.read, world.offset("out")),
            (came.len() as u64, json!(3)),
            "{source}"
        );
        assert_eq!(world.succeed("out").read, 0, "{source}");
    }
}

#[test]
fn what_was_replaced_is_left_out_and_counts_as_read() {
    for (include, came, read) in [(true, &["a", "b", "c"][..], 3), (false, &["b"], 1)] {
        let mut world = World::new();
        world.pipe(json!({"_id": "in", "source": {"type": "scripted", "supports_since": true}}));
        world.pipe(json!({
            "_id": "out",
            "source": {"type": "dataset", "dataset": "in", "include_replaced": include},
            "sink": {"type": "scripted"},
            "batch_size": 1,
        }));
        let replaced = |id: &str| json!({"_id": id, "_updated": 1, "$replaced": true});
        let own = json!({"_id": "b", "_updated": 1, "$replaced": false});
        world.records("in", vec![replaced("a"), own, replaced("c")]);
        world.succeed("in");
        assert_eq!(world.succeed("out").read, read, "{include}");
        assert_eq!(world.taken("out").concat(), came, "{include}");
        assert_eq!(world.offset("out"), 2, "{include}");
        let waiting = world.hub().unread(&world.live_pipe("out")).unwrap();
        assert_eq!(waiting, Some(0), "{include}");
        // A run in which nothing but replaced entities came leaves no more to read either.
        world.records(
            "in",
            vec![json!({"_id": "d", "_updated": 2, "$replaced": true})],
        );
        world.succeed("in");
        world.succeed("out");
        assert_eq!(world.offset("out"), 3, "{include}");
    }
}

/// Whether a pipe that requires the dataset to be populated may run.
fn is_populated(world: &World, dataset: &str) -> bool {
    let found = world.hub().world.store.find(dataset).unwrap();
    found.is_some_and(|dataset| dataset.snapshot().unwrap().head().populated)
}

/// A pipe `p` from `in`, which nothing has populated.
fn populating(says: &str) -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "in", "sink": {"type": "dataset", "set_initial_offset": "never"}}));
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "dataset", "dataset": "in"},
        "sink": {"type": "dataset", "set_initial_offset": says},
    }));
    world.pipe(json!({
        "_id": "reader",
        "source": {"type": "dataset", "dataset": "p", "require_populated_input": true},
    }));
    world.records("in", records(&[("a", 1)]));
    world.succeed("in");
    assert!(!is_populated(&world, "in"), "never");
    world
}

#[test]
fn a_dataset_counts_as_populated_when_its_sink_says() {
    for (says, loaded, while_running, done) in [
        ("if-source-populated", false, false, false),
        ("never", false, false, false),
        ("always", false, false, true),
        ("initially", false, true, true),
        ("onload", true, true, true),
    ] {
        let mut world = populating(says);
        assert_eq!(is_populated(&world, "p"), loaded, "{says}: loaded");
        let mut outside = world.live_pipe("p").component.original.clone();
        outside["_id"] = json!("p2");
        outside["source"] = json!({"type": "scripted"});
        world.pipe(outside);
        world.records("p2", records(&[("a", 1)]));
        let (gate, keeper) = gate();
        world.upstream("p2", |upstream| upstream.gate = Some(gate));
        let running = std::thread::scope(|scope| {
            let run = scope.spawn(|| world.succeed("p2"));
            keeper.wait();
            let populated = is_populated(&world, "p2");
            keeper.open.send(()).unwrap();
            run.join().unwrap();
            populated
        });
        assert_eq!(running, while_running, "{says}: running");
        // What comes from outside is populated when it was read.
        assert_eq!(
            is_populated(&world, "p2"),
            says != "never",
            "{says}: from outside"
        );
        world.succeed("p");
        assert_eq!(is_populated(&world, "p"), done, "{says}: done");
        assert_eq!(world.run("reader").success(), done, "{says}: reader");
    }
}

#[test]
fn a_dataset_that_always_counts_as_populated_needs_a_run_that_succeeds() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "sink": {"type": "dataset", "set_initial_offset": "always"}}));
    world.records("p", records(&[("a", 1)]));
    world.upstream("p", |upstream| upstream.always_fails_at = Some(0));
    world.fail("p");
    assert!(!is_populated(&world, "p"));
    world.upstream("p", |upstream| upstream.always_fails_at = None);
    world.succeed("p");
    assert!(is_populated(&world, "p"));
}

#[test]
fn a_protected_place_is_not_set_by_hand() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.records("in", records(&[("a", 1), ("b", 2)]));
    world.succeed("in");
    let mut pipe = json!({"_id": "p", "source": {"type": "dataset", "dataset": "in"}});
    pipe["disable_set_last_seen"] = json!(true);
    world.pipe(pipe.clone());
    world.succeed("p");
    let (hub, user) = (world.hub().clone(), Default::default());
    let refused = [
        hub.set_offset("p", None, &user),
        hub.set_offset("p", Some(Offset::Int(0)), &user),
        hub.set_offset_to_end("p", &user).map(|_| ()),
    ];
    for refusal in refused {
        assert!(matches!(refusal, Err(Refusal::Protected(_))), "{refusal:?}");
    }
    assert_eq!(world.offset("p"), 1);
    assert!(!world.log_kinds("p").contains(&"pump-offset-set".to_owned()));
    pipe["disable_set_last_seen"] = json!(false);
    world.pipe(pipe);
    hub.set_offset("p", None, &user).unwrap();
    assert_eq!(world.offset("p"), Json::Null);
}
