//! Pipes whose output is no longer what their configuration makes of their input.

use serde_json::{Value as Json, json};
use tahini_hub::reprocessing::reasons_in;

use crate::script::records;
use crate::world::World;

/// `in`, `people`, and a pipe `out` that joins them.
fn world(policy: Json) -> World {
    let mut world = World::on_disk();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "people"}));
    world.pipe(out(&policy, "people", "n"));
    world.records("in", records(&[("a", 1), ("b", 1)]));
    world.succeed("in");
    world.succeed("people");
    world.succeed("out");
    world
}

fn out(policy: &Json, joined: &str, property: &str) -> Json {
    let mut pipe = json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "in"},
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "*"], ["add", property, ["lookup-entity", joined, "x"]]
        ]}},
    });
    for (name, value) in policy.as_object().unwrap() {
        pipe[name] = value.clone();
    }
    pipe
}

fn automatic() -> Json {
    json!({"reprocessing_policy": "automatic", "rescan_when_config_changes": true})
}

/// Why `out` is out of sync.
fn why(world: &World) -> Vec<(String, Option<String>)> {
    let live = world.live_pipe("out");
    let home = world.hub().home(live.usable().unwrap()).unwrap();
    let all = reasons_in(home.snapshot().unwrap().as_ref(), "out").unwrap();
    all.into_iter()
        .map(|reason| (reason.code, reason.dataset))
        .collect()
}

fn of(code: &str, dataset: &str) -> Vec<(String, Option<String>)> {
    vec![(code.to_owned(), Some(dataset.to_owned()))]
}

#[test]
fn a_changed_configuration_counts_where_that_is_asked_for() {
    for (policy, read, out_of_sync) in [
        (json!({}), 0, false),
        (json!({"reprocessing_policy": "automatic"}), 0, false),
        (json!({"rescan_when_config_changes": true}), 0, true),
        (automatic(), 2, false),
        // Protected against resets, whoever asks.
        (
            json!({"reprocessing_policy": "automatic", "rescan_when_config_changes": true,
                   "disable_set_last_seen": true}),
            0,
            true,
        ),
    ] {
        let mut world = world(policy.clone());
        assert_eq!(world.succeed("out").read, 0, "{policy}");
        world.pipe(out(&policy, "people", "other"));
        let summary = world.succeed("out");
        assert_eq!(summary.read, read, "{policy}");
        assert_eq!(summary.warnings.len(), usize::from(read > 0), "{summary:?}");
        let expected = match out_of_sync {
            true => vec![("pipe-config-changed".to_owned(), None)],
            false => Vec::new(),
        };
        assert_eq!(why(&world), expected, "{policy}");
        // The list stays, also over a restart and where the configuration is as it was again.
        world.restart();
        world.pipe(out(&policy, "people", "n"));
        world.succeed("out");
        assert_eq!(why(&world), expected, "{policy}");
        world.rescan("out");
        assert_eq!(why(&world), [], "{policy}");
    }
}

#[test]
fn what_changes_nothing_of_the_output_is_no_change() {
    let mut world = world(automatic());
    let mut pipe = out(&automatic(), "people", "n");
    pipe["comment"] = json!("new");
    pipe["pump"] = json!({"schedule_interval": 5});
    pipe["sink"] = json!({"type": "dataset", "max_entity_bytes_size": 5000});
    world.pipe(pipe);
    assert_eq!(world.succeed("out").read, 0);
}

#[test]
fn a_dataset_that_rules_read_may_come_or_be_made_anew() {
    let mut world = world(json!({}));
    world.hub().world.store.remove("people").unwrap();
    world.succeed("people");
    assert_eq!(world.succeed("out").read, 0);
    assert_eq!(why(&world), of("joined-dataset-recreated", "people"));
    world.rescan("out");
    assert_eq!(why(&world), []);

    world.pipe(json!({"_id": "others"}));
    world.succeed("others");
    world.pipe(out(&json!({}), "others", "n"));
    world.succeed("out");
    assert_eq!(why(&world), of("joined-dataset-added", "others"));
    world.pipe(out(
        &json!({"reprocessing_policy": "automatic"}),
        "others",
        "n",
    ));
    let summary = world.succeed("out");
    assert_eq!((summary.read, summary.sync_type.as_str()), (2, "full"));
    assert_eq!(why(&world), []);
    assert!(
        summary.warnings[0].contains("joined-dataset-added (others)"),
        "{summary:?}"
    );
    assert_eq!(world.succeed("out").read, 0, "once is enough");
}

#[test]
fn the_datasets_of_a_source_may_change() {
    let mut world = world(json!({}));
    let pipe = |datasets: Json, policy: &str| {
        json!({
            "_id": "all",
            "source": {"type": "union_datasets", "datasets": datasets},
            "reprocessing_policy": policy,
        })
    };
    world.pipe(pipe(json!(["in", "people"]), "continue"));
    assert_eq!(world.succeed("all").read, 2);
    world.pipe(pipe(json!(["people"]), "automatic"));
    let summary = world.succeed("all");
    assert!(
        summary.warnings[0].contains("source-dataset-removed (in)"),
        "{summary:?}"
    );
    assert_eq!(world.deleted("all"), ["in:a", "in:b"]);
}

#[test]
fn a_reset_forgets_the_list_and_another_offset_does_not() {
    let policy = json!({"rescan_when_config_changes": true});
    let mut world = world(policy.clone());
    world.pipe(out(&policy, "people", "other"));
    world.succeed("out");
    let user = tahini_hub::execution_log::User::default();
    let offset = Some(tahini_entity::Offset::Int(0));
    world.hub().set_offset("out", offset, &user).unwrap();
    assert_eq!(why(&world).len(), 1);
    world.hub().set_offset("out", None, &user).unwrap();
    assert_eq!(why(&world), []);
}
