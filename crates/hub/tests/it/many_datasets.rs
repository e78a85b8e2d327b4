//! Sources that read several datasets.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;

use crate::world::{BEGINNING, World};

/// Datasets `men` and `women`, and a pipe `all` that reads both.
fn world(source: Json) -> World {
    let mut world = World::on_disk();
    for id in ["men", "women"] {
        world.pipe(json!({"_id": id}));
    }
    world.pipe(all(source));
    world
}

fn all(source: Json) -> Json {
    let mut pipe = json!({"_id": "all", "source": {"datasets": ["men", "women"]}});
    for (name, value) in source.as_object().unwrap() {
        pipe["source"][name] = value.clone();
    }
    pipe
}

/// Writes records into a dataset, so many seconds after the beginning.
fn write(world: &World, second: i64, dataset: &str, records: &[Json]) {
    world.clock.set(BEGINNING + second * 1_000_000);
    world.records(dataset, records.to_vec());
    world.succeed(dataset);
}

fn latest(world: &World) -> Vec<Json> {
    world.versions("all", false, Fields::CONTENT)
}

fn is_populated(world: &World, dataset: &str) -> bool {
    let found = world.hub().world.store.find(dataset).unwrap();
    found.is_some_and(|dataset| dataset.snapshot().unwrap().head().populated)
}

#[test]
fn a_union_reads_one_dataset_after_the_other_and_prefixes_ids() {
    for (more, expected) in [
        (
            json!({}),
            ["men:dave", "men:x", "women:claire", "women:x"].to_vec(),
        ),
        (json!({"prefix_ids": false}), vec!["claire", "dave", "x"]),
    ] {
        let mut source = json!({"type": "union_datasets"});
        if let Some(flag) = more.get("prefix_ids") {
            source["prefix_ids"] = flag.clone();
        }
        let mut world = world(source);
        write(
            &world,
            1,
            "women",
            &[json!({"_id": "claire"}), json!({"_id": "x"})],
        );
        write(
            &world,
            2,
            "men",
            &[json!({"_id": "dave"}), json!({"_id": "x"})],
        );
        assert_eq!(world.succeed("all").read, 4, "{more}");
        assert_eq!(world.living("all"), expected, "{more}");
        assert_eq!(world.offset("all"), json!(r#"{"men":1,"women":1}"#));
        assert_eq!(world.succeed("all").read, 0);

        // Each dataset goes on from its own place, also after a restart.
        write(&world, 3, "women", &[json!({"_id": "claire"})]);
        let live = world.live_pipe("all");
        assert_eq!(world.hub().unread(&live).unwrap(), Some(1));
        drop(live);
        world.restart();
        assert_eq!(world.succeed("all").read, 1);
        let gone = if more.get("prefix_ids").is_some() {
            "x"
        } else {
            "women:x"
        };
        assert_eq!(world.deleted("all"), [gone], "{more}");
        assert_eq!(world.offset("all"), json!(r#"{"men":1,"women":2}"#));
    }
}

#[test]
fn a_union_saves_its_place_in_the_middle_of_a_dataset() {
    let mut world = World::new();
    for id in ["men", "women"] {
        world.pipe(json!({"_id": id}));
    }
    let mut pipe = all(json!({"type": "union_datasets"}));
    pipe["batch_size"] = json!(1);
    pipe["sink"] = json!({"type": "scripted"});
    world.pipe(pipe);
    let of = |id: &str| json!({"_id": id});
    write(&world, 1, "men", &[of("a"), of("b")]);
    write(&world, 2, "women", &[of("c"), of("d")]);
    world.target("all", |target| {
        target.refuses.insert("women:d".to_owned());
    });
    world.fail("all");
    assert_eq!(world.offset("all"), json!(r#"{"men":1,"women":0}"#));
    world.target("all", |target| target.refuses.clear());
    assert_eq!(world.succeed("all").read, 1);
}

#[test]
fn a_dataset_that_was_made_anew_makes_the_run_a_full_one() {
    for kind in ["union_datasets", "merge_datasets"] {
        let world = world(json!({"type": kind}));
        write(
            &world,
            1,
            "men",
            &[json!({"_id": "a"}), json!({"_id": "b"})],
        );
        write(&world, 2, "women", &[json!({"_id": "c"})]);
        world.succeed("all");
        world.hub().world.store.remove("men").unwrap();
        write(&world, 3, "men", &[json!({"_id": "b"})]);
        let summary = world.succeed("all");
        assert_eq!(
            (summary.read, summary.sync_type.as_str()),
            (2, "full"),
            "{kind}"
        );
        assert_eq!(world.deleted("all").len(), 1, "{kind}");
    }
}

#[test]
fn previous_versions_of_a_union_are_read_on_request() {
    for (history, read) in [(false, 1), (true, 2)] {
        let source = json!({"type": "union_datasets", "include_previous_versions": history});
        let world = world(source);
        for n in [1, 2] {
            write(&world, n, "men", &[json!({"_id": "a", "n": n})]);
        }
        assert_eq!(world.succeed("all").read, read);
    }
}

#[test]
fn a_merge_gives_the_latest_version_among_the_datasets_in_the_order_of_time() {
    let mut world = world(json!({"type": "merge_datasets"}));
    let mut out = all(json!({"type": "merge_datasets"}));
    out["_id"] = json!("out");
    out["sink"] = json!({"type": "scripted"});
    world.pipe(out);
    let of = |id: &str, from: &str| json!({"_id": id, "from": from});
    write(&world, 1, "women", &[of("x", "women"), of("y", "women")]);
    write(&world, 2, "men", &[of("x", "men"), of("z", "men")]);
    write(
        &world,
        3,
        "women",
        &[of("x", "women"), of("y", "women"), of("a", "women")],
    );
    assert_eq!(world.succeed("all").read, 4);
    world.succeed("out");
    assert_eq!(world.taken("out").concat(), ["y", "x", "z", "a"]);
    let found = latest(&world);
    let from: Vec<(&str, &str)> = found
        .iter()
        .map(|e| (e["_id"].as_str().unwrap(), e["from"].as_str().unwrap()))
        .collect();
    assert_eq!(
        from,
        [("y", "women"), ("x", "men"), ("z", "men"), ("a", "women")]
    );
    assert_eq!(world.offset("all"), json!(r#"{"men":1,"women":2}"#));

    // The latest version of `x` is a deletion now.
    write(&world, 4, "women", &[of("y", "women"), of("a", "women")]);
    world.succeed("all");
    assert_eq!(world.deleted("all"), ["x"]);
    // A newer version elsewhere brings it back.
    write(
        &world,
        5,
        "men",
        &[json!({"_id": "x", "from": "men", "n": 2}), of("z", "men")],
    );
    world.succeed("all");
    assert_eq!(world.living("all"), ["a", "x", "y", "z"]);
}

#[test]
fn a_merge_of_all_has_every_dataset_s_version() {
    let world = world(json!({"type": "merge_datasets", "strategy": "all"}));
    write(
        &world,
        1,
        "women",
        &[json!({"_id": "x", "n": 1}), json!({"_id": "y"})],
    );
    write(&world, 2, "men", &[json!({"_id": "x", "n": 2})]);
    assert_eq!(world.succeed("all").read, 2, "each id once");
    let x = |found: Vec<Json>| found.into_iter().find(|e| e["_id"] == "x").unwrap();
    assert_eq!(
        x(latest(&world)),
        json!({"_id": "x", "men": {"_id": "x", "n": 2}, "women": {"_id": "x", "n": 1}})
    );
    write(&world, 3, "men", &[]);
    world.succeed("all");
    let one = x(latest(&world));
    assert_eq!(
        (&one["_deleted"], &one["men"]["_deleted"]),
        (&Json::Null, &json!(true))
    );
    write(&world, 4, "women", &[json!({"_id": "y"})]);
    world.succeed("all");
    assert_eq!(
        (world.living("all"), world.deleted("all")),
        (vec!["y".to_owned()], vec!["x".to_owned()])
    );
}

#[test]
fn a_diff_gives_what_is_not_equal_until_it_is() {
    let world = world(json!({"type": "diff_datasets", "blacklist": ["changed"]}));
    let men = [
        json!({"_id": "same", "p": 1, "changed": 1}),
        json!({"_id": "other", "p": 1, "q": 1}),
        json!({"_id": "alone", "p": 1}),
    ];
    let women = [
        json!({"_id": "same", "p": 1, "changed": 2}),
        json!({"_id": "other", "p": 2, "q": 1}),
    ];
    write(&world, 1, "men", &men);
    write(&world, 2, "women", &women);
    world.succeed("all");
    let found = latest(&world);
    let diffs: Vec<Json> = found
        .iter()
        .map(|e| json!([e["_id"], e["$diff"]]))
        .collect();
    assert_eq!(
        json!(diffs),
        json!([
            ["alone", {"p": {"men": 1}}],
            ["other", {"p": {"men": 1, "women": 2}}]
        ])
    );
    assert_eq!(found[1]["women"]["p"], 2);
    write(&world, 3, "women", &[women[0].clone(), men[1].clone()]);
    world.succeed("all");
    assert_eq!(
        (world.living("all"), world.deleted("all")),
        (vec!["alone".to_owned()], vec!["other".to_owned()])
    );
}

#[test]
fn a_diff_may_look_past_lists_and_deletions() {
    for (more, expected) in [
        (json!({}), vec!["gone", "list"]),
        (json!({"treat_lists_as_sets": true}), vec!["gone"]),
        (json!({"ignore_deletes": true}), vec!["list"]),
        (json!({"whitelist": ["p"]}), vec!["gone"]),
        (
            json!({"whitelist": ["l"], "blacklist": ["l"]}),
            vec!["gone"],
        ),
    ] {
        let mut source = more.clone();
        source["type"] = json!("diff_datasets");
        let world = world(source);
        let list = |l: Json| json!({"_id": "list", "p": 1, "l": l});
        write(
            &world,
            1,
            "men",
            &[list(json!([1, {"a": [2, 1]}])), json!({"_id": "gone"})],
        );
        write(&world, 2, "men", &[list(json!([1, {"a": [2, 1]}]))]);
        write(&world, 3, "women", &[list(json!([{"a": [1, 2, 2]}, 1]))]);
        world.succeed("all");
        let mut ids: Vec<String> = latest(&world)
            .iter()
            .map(|e| e["_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        // What is deleted in all that have it is deleted here, and was never there.
        let expected: Vec<&str> = expected.into_iter().filter(|id| *id != "gone").collect();
        assert_eq!(ids, expected, "{more}");
    }
}

#[test]
fn sources_of_many_are_populated_when_their_datasets_are() {
    for (more, men_only, both) in [
        (json!({}), false, true),
        (json!({"initial_datasets": ["men"]}), true, true),
        // What nobody writes never comes, and is not waited for unless that is asked for.
        (json!({"initial_datasets": ["men", "nobody"]}), true, true),
        (
            json!({"initial_datasets": ["men", "nobody"], "ignore_non_existent_datasets": false}),
            false,
            false,
        ),
    ] {
        for kind in ["union_datasets", "merge_datasets", "diff_datasets"] {
            let mut source = more.clone();
            source["type"] = json!(kind);
            let mut world = world(source.clone());
            write(&world, 1, "men", &[json!({"_id": "a"})]);
            world.succeed("all");
            assert_eq!(is_populated(&world, "all"), men_only, "{kind} {more}");
            source["require_populated_input"] = json!(true);
            world.pipe(all(source));
            assert_eq!(world.run("all").success(), men_only, "{kind} {more}");
            write(&world, 2, "women", &[json!({"_id": "b"})]);
            assert_eq!(world.run("all").success(), both, "{kind} {more}");
        }
    }
}

#[test]
fn an_empty_union_may_be_a_failure_and_its_end_is_known() {
    let world = world(json!({"type": "union_datasets", "if_source_empty": "fail"}));
    assert!(world.fail("all").contains("if_source_empty"));
    write(&world, 1, "women", &[json!({"_id": "a"})]);
    let user = tahini_hub::execution_log::User::default();
    world.hub().set_offset_to_end("all", &user).unwrap();
    assert_eq!(world.offset("all"), json!(r#"{"women":0}"#));
    assert_eq!(world.succeed("all").read, 0);
}
