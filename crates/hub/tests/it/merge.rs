//! The `merge` source.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, parse_entity};
use tahini_hub::Class;
use tahini_hub::merge::explain;

use crate::world::{BEGINNING, World};

/// Commits entities to a dataset; null deletes.
pub fn write(world: &World, dataset: &str, entities: &Map<String, Json>) {
    let mut rows = Batch::new();
    for (id, json) in entities {
        let mut json = match json {
            Json::Null => json!({"_deleted": true}),
            json => json.clone(),
        };
        json["_id"] = json!(id);
        let entity = parse_entity(json.to_string().as_bytes(), Numbers::FLOATS).unwrap();
        rows.push_entity(&entity).unwrap();
    }
    world.commit(dataset, &rows, BEGINNING);
}

/// The pipe `golden` over a source.
pub fn golden(source: &Json) -> Json {
    let mut pipe = json!({"_id": "golden", "source": source});
    pipe["source"]["type"] = json!("merge");
    pipe["source"]["version"] = json!(2);
    pipe
}

fn change(world: &World, change: &Json) {
    for (dataset, entities) in change.as_object().unwrap() {
        write(world, dataset, entities.as_object().unwrap());
    }
}

/// Checks one step of a case against the dataset `golden`.
fn check(world: &World, step: &Json, name: &str, small: bool) {
    let all = world.versions("golden", false, Fields::CONTENT);
    let expected = step["live"].as_object().unwrap();
    let living: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    let found: BTreeSet<&str> = all
        .iter()
        .filter(|entity| entity["_deleted"] != true)
        .map(|entity| entity["_id"].as_str().unwrap())
        .collect();
    assert_eq!(found, living, "{name}");
    let no_names = Vec::new();
    let without = step["without"].as_array().unwrap_or(&no_names);
    for entity in &all {
        let Some(properties) = expected.get(entity["_id"].as_str().unwrap()) else {
            continue;
        };
        for (property, value) in properties.as_object().unwrap() {
            assert_eq!(&entity[property], value, "{name}: {property} of {entity}");
        }
        for absent in without {
            let absent = absent.as_str().unwrap();
            assert!(entity.get(absent).is_none(), "{name}: {absent} in {entity}");
        }
    }
    // Between small steps there is more that comes and goes.
    if small {
        return;
    }
    let gone = |replaced: bool| -> BTreeSet<&str> {
        let gone = all.iter().filter(|entity| entity["_deleted"] == true);
        gone.filter(|entity| (entity["$replaced"] == true) == replaced)
            .map(|entity| entity["_id"].as_str().unwrap())
            .collect()
    };
    let ids = |property: &str| -> BTreeSet<&str> {
        let listed = step[property].as_array().unwrap_or(&no_names);
        listed.iter().map(|id| id.as_str().unwrap()).collect()
    };
    // What was replaced once may live again and be gone another way later.
    assert_eq!(gone(true), ids("replaced"), "{name}: replaced");
    assert_eq!(gone(false), ids("deleted"), "{name}: deleted");
}

#[test]
fn every_step_of_every_case_gives_what_it_says() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("../data/merge_steps.json")).unwrap();
    assert!(cases.len() >= 20);
    for case in &cases {
        let worlds = World::both();
        // Each change by itself, and with steps so small that a run takes several.
        for (mut world, small) in worlds.into_iter().zip([false, true]) {
            let mut pipe = golden(&case["source"]);
            if small {
                pipe["batch_size"] = json!(2);
                pipe["checkpoint_interval"] = json!(1);
            }
            world.pipe(pipe);
            for (at, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let name = format!("{} (step {at}, small steps: {small})", case["name"]);
                let one = [step["change"].clone()];
                let changes = step["changes"].as_array().map_or(&one[..], Vec::as_slice);
                changes.iter().for_each(|one| change(&world, one));
                let summary = world.succeed("golden");
                let kind = if at == 0 { "full" } else { "incremental" };
                assert_eq!(summary.sync_type, kind, "{name}");
                check(&world, step, &name, small);
                if let Some(written) = step["written"].as_u64().filter(|_| !small) {
                    assert_eq!(summary.changed, written, "{name}");
                }
                world.restart_if_on_disk();
            }
            assert_eq!(world.succeed("golden").changed, 0);
        }
    }
}

/// A world with two datasets of pairs.
fn pairs(count: usize) -> World {
    let mut world = World::on_disk();
    world.pipe(golden(
        &json!({"datasets": ["A a", "B b"], "equality_sets": [["a.k", "b.k"]]}),
    ));
    for dataset in ["A", "B"] {
        let entities = (0..count).map(|at| (format!("{dataset}{at:05}"), json!({"k": at})));
        write(&world, dataset, &entities.collect());
    }
    world
}

#[test]
fn an_incremental_run_gives_no_more_than_what_a_change_concerns() {
    let world = pairs(3_000);
    let summary = world.succeed("golden");
    assert_eq!((summary.read, summary.changed), (3_000, 3_000));
    change(&world, &json!({"A": {"A00007": {"k": 7, "x": 1}}}));
    let summary = world.succeed("golden");
    assert_eq!((summary.read, summary.changed), (1, 1));
    // One that moves concerns the group that it left and the one that it comes to.
    change(&world, &json!({"A": {"A00007": {"k": 9}}}));
    let summary = world.succeed("golden");
    assert_eq!((summary.read, summary.changed), (4, 4));
    assert_eq!(world.succeed("golden").read, 0);
}

#[test]
fn too_many_that_are_the_same_fail_with_the_value() {
    for first in [true, false] {
        let mut world = World::new();
        world.pipe(golden(&json!({
            "datasets": ["A a", "B b"], "equality_sets": [["a.phone", "b.phone"]], "max_merged": 3,
        })));
        if !first {
            change(&world, &json!({"A": {"a1": {"phone": "1"}}}));
            world.succeed("golden");
        }
        change(
            &world,
            &json!({
                "A": {"a2": {"phone": "N/A"}, "a3": {"phone": "N/A"}},
                "B": {"b2": {"phone": "N/A"}, "b3": {"phone": "N/A"}},
            }),
        );
        let words = world.fail("golden");
        let live = world.live_pipe("golden");
        let told = explain(world.hub(), live.pipe.as_ref().unwrap(), "a2").unwrap_err();
        assert_eq!(told.class, Class::Config);
        for part in ["at most 3", "max_merged", "N/A", ".phone"] {
            assert!(words.contains(part), "{words}");
            assert!(told.message.contains(part), "{told}");
        }
        change(&world, &json!({"B": {"b3": {"phone": "3"}}}));
        world.succeed("golden");
        assert!(
            world
                .living("golden")
                .contains(&"0|a2|0|a3|1|b2".to_owned())
        );
    }
}

#[test]
fn other_rules_make_everything_anew_and_take_old_ids_away() {
    let mut world = World::on_disk();
    let source = |key: &str| json!({"datasets": ["A a", "B b"], "equality_sets": [["a.k", key]]});
    world.pipe(golden(&source("b.k")));
    change(
        &world,
        &json!({"A": {"a1": {"k": 1, "x": [5]}}, "B": {"b1": {"k": 1}, "b2": {"l": 1}}}),
    );
    world.succeed("golden");
    assert_eq!(world.living("golden"), ["0|a1|1|b1", "1|b2"]);
    world.pipe(golden(&source("b.l")));
    assert_eq!(world.succeed("golden").sync_type, "full");
    assert_eq!(world.living("golden"), ["0|a1|1|b2", "1|b1"]);
    assert_eq!(world.succeed("golden").sync_type, "incremental");
    // A strategy makes other entities of the same groups: that is for a rescan.
    let mut compact = source("b.l");
    compact["strategy"] = json!("compact");
    world.pipe(golden(&compact));
    assert_eq!(world.succeed("golden").changed, 0);
    assert!(world.rescan("golden").changed > 0);
}

#[test]
fn a_dataset_that_was_made_anew_makes_the_run_a_full_one() {
    let mut world = World::on_disk();
    world.pipe(golden(
        &json!({"datasets": ["A a", "B b"], "equality_sets": [["a.k", "b.k"]]}),
    ));
    change(
        &world,
        &json!({"A": {"a1": {"k": 1}}, "B": {"b1": {"k": 1}}}),
    );
    world.succeed("golden");
    world.hub().world.store.remove("B").unwrap();
    change(&world, &json!({"B": {"b2": {"k": 1}}}));
    assert_eq!(world.succeed("golden").sync_type, "full");
    assert_eq!(world.living("golden"), ["0|a1|1|b2"]);
}

#[test]
fn a_run_that_fails_between_steps_goes_on_from_the_last_one() {
    let mut world = World::on_disk();
    let mut pipe = golden(&json!({"datasets": ["A a", "B b"], "equality_sets": [["a.k", "b.k"]]}));
    pipe["batch_size"] = json!(2);
    pipe["checkpoint_interval"] = json!(1);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [
        ["if", ["eq", "_S.bad", true], ["fail!", "bad"]], ["copy", "*"]]}});
    world.pipe(pipe.clone());
    change(&world, &json!({"A": {"a1": {"k": 1}, "a2": {"k": 2}}}));
    world.succeed("golden");
    // The first step joins, the second fails; then the first change is taken back.
    change(
        &world,
        &json!({"B": {"b0": {}, "b1": {"k": 1}, "b2": {"k": 2, "bad": true}}}),
    );
    world.fail("golden");
    assert_eq!(world.living("golden"), ["0|a1|1|b1", "0|a2", "1|b0"]);
    change(&world, &json!({"B": {"b1": {"k": 5}}}));
    pipe["transform"] = Json::Null;
    world.pipe(pipe);
    world.restart();
    world.succeed("golden");
    assert_eq!(
        world.living("golden"),
        ["0|a1", "0|a2|1|b2", "1|b0", "1|b1"]
    );
}

#[test]
fn who_joined_what_is_told() {
    let mut world = World::new();
    world.pipe(golden(&json!({
        "datasets": ["A a", "B b", "C c"],
        "equality": [["eq", ["lower", "a.mail"], "b.mail"], ["eq", "b.no", "c.no"]],
    })));
    change(
        &world,
        &json!({"A": {"a|1": {"mail": "X"}}, "B": {"b1": {"mail": "x", "no": 4}}, "C": {"c1": {"no": [4, 5]}, "c2": null, "c3": {}}}),
    );
    let live = world.live_pipe("golden");
    let pipe = live.pipe.as_ref().unwrap();
    let told = |id: &str| explain(world.hub(), pipe, id).unwrap();
    let all = told("0|a|1|1|b1|2|c1").unwrap();
    assert_eq!(
        all["joins"],
        json!([
            {"from": {"dataset": "A", "_id": "a|1"}, "to": {"dataset": "B", "_id": "b1"},
             "rule": ["eq", ["lower", "a.mail"], "b.mail"], "value": "x"},
            {"from": {"dataset": "B", "_id": "b1"}, "to": {"dataset": "C", "_id": "c1"},
             "rule": ["eq", "b.no", "c.no"], "value": 4},
        ])
    );
    assert_eq!(all["members"].as_array().unwrap().len(), 3);
    // One that was merged leads to the same.
    assert_eq!(told("c1").unwrap(), all);
    assert_eq!(told("a|1").unwrap(), all);
    let alone = told("2|c3").unwrap();
    assert_eq!(
        (&alone["_id"], &alone["joins"]),
        (&json!("2|c3"), &json!([]))
    );
    assert!(told("0|nobody").is_none() && told("nobody").is_none());
    // An id that was replaced is nobody's.
    assert!(told("0|a|1").is_none());
}

/// Everything of `golden` that lives, by id.
fn values(world: &World, pipe: &str) -> Vec<(String, Json)> {
    let all = world.versions(pipe, false, Fields::CONTENT).into_iter();
    let living = all.filter(|entity| entity["_deleted"] != true);
    living
        .map(|entity| {
            (
                entity["_id"].as_str().unwrap().to_owned(),
                entity["n"].clone(),
            )
        })
        .collect()
}

#[test]
fn of_entities_with_one_id_that_are_not_the_same_the_first_counts_and_both_are_named() {
    let mut world = World::new();
    let source = json!({
        "datasets": ["A a", "B b", "C c"], "identity": "first", "strategy": "compact",
        "equality": [["eq", "a.k", "b.k"], ["eq", "b.k", "c.k"]],
    });
    world.pipe(golden(&source));
    let mut full = golden(&source);
    full["_id"] = json!("full");
    world.pipe(full);
    // Steps as (a change, what lives then, how many clash).
    let steps = [
        (
            json!({"A": {"1": {"n": 10}}, "B": {"2": {"n": 20}}}),
            json!({"1": 10, "2": 20}),
            0,
        ),
        // A new one that clashes with what nothing else changes.
        (json!({"B": {"1": {"n": 21}}}), json!({"1": 10, "2": 20}), 1),
        // The one that is left out changes, then the one that counts.
        (json!({"B": {"1": {"n": 22}}}), json!({"1": 10, "2": 20}), 1),
        (json!({"A": {"1": {"n": 11}}}), json!({"1": 11, "2": 20}), 1),
        // What is put together of several comes before what is alone.
        (
            json!({"B": {"1": {"k": 5, "n": 22}}, "C": {"9": {"k": 5, "n": 22}}}),
            json!({"1": 22, "2": 20}),
            1,
        ),
        (json!({"C": {"9": null}}), json!({"1": 11, "2": 20}), 1),
        // When that is gone the other one counts.
        (json!({"A": {"1": null}}), json!({"1": 22, "2": 20}), 0),
        (
            json!({"A": {"1": {"k": 5, "n": 11}}}),
            json!({"1": [11, 22], "2": 20}),
            0,
        ),
    ];
    for (step, living, clashes) in steps {
        change(&world, &step);
        let summary = world.succeed("golden");
        let living: Vec<(String, Json)> = living.as_object().unwrap().clone().into_iter().collect();
        let mut found = values(&world, "golden");
        found.sort_by(|one, two| one.0.cmp(&two.0));
        assert_eq!(found, living, "{step}");
        let told = summary
            .warnings
            .iter()
            .filter(|words| words.contains("\"1\" of A and B"));
        assert_eq!(told.count(), clashes, "{step}: {:?}", summary.warnings);
        let summary = world.rescan("full");
        let mut found = values(&world, "full");
        found.sort_by(|one, two| one.0.cmp(&two.0));
        assert_eq!(found, living, "in full, {step}");
        assert_eq!(
            summary.warnings.len(),
            clashes,
            "{step}: {:?}",
            summary.warnings
        );
    }
}

#[test]
fn an_id_stays_with_who_lives_whoever_else_had_it_meanwhile() {
    let source = json!({
        "datasets": ["A a", "B b"], "identity": "first", "equality_sets": [["a.k", "b.k"]],
    });
    // What is there, what happens until the next run, and what lives then.
    let cases = [
        (
            json!({"B": {"4": {"n": 1}}}),
            vec![json!({"A": {"4": {"n": 2}}}), json!({"A": {"4": null}})],
            json!({"4": 1}),
        ),
        // Steps of two versions: the one that goes still lives where the first step ends.
        (
            json!({"B": {"4": {"n": 1}}}),
            vec![json!({"A": {"4": {"n": 2}, "5": {"n": 3}}, "B": {"4": null}})],
            json!({"4": 2, "5": 3}),
        ),
    ];
    for (first, changes, living) in cases {
        let mut world = World::new();
        let mut pipe = golden(&source);
        pipe["batch_size"] = json!(2);
        pipe["checkpoint_interval"] = json!(1);
        world.pipe(pipe);
        change(&world, &first);
        world.succeed("golden");
        changes.iter().for_each(|step| change(&world, step));
        world.succeed("golden");
        let found: Map<String, Json> = values(&world, "golden").into_iter().collect();
        assert_eq!(Json::Object(found), living, "{changes:?}");
    }
}

#[test]
fn clashes_of_ids_are_counted_and_explained() {
    let mut world = World::new();
    world.pipe(golden(&json!({
        "datasets": ["A a", "B b"], "identity": "first", "equality_sets": [["a.k", "b.k"]],
    })));
    let many: Map<String, Json> = (1..=8).map(|id| (id.to_string(), json!({}))).collect();
    change(&world, &json!({"A": many, "B": many}));
    let warnings = world.succeed("golden").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("found 8 that are not"), "{warnings:?}");
    assert!(warnings[0].contains(", and 3 more"), "{warnings:?}");
    let live = world.live_pipe("golden");
    let told = explain(world.hub(), live.pipe.as_ref().unwrap(), "3")
        .unwrap()
        .unwrap();
    assert_eq!(told["members"], json!([{"dataset": "A", "_id": "3"}]));
    assert_eq!(
        (&told["given"], &told["clashes"]),
        (&json!(true), &json!([[{"dataset": "B", "_id": "3"}]]))
    );
    // Who says that ids mean something has none.
    world.pipe(golden(&json!({
        "datasets": ["A a", "B b"], "identity": "first",
        "equality_sets": [["a.k", "b.k"], ["a._id", "b._id"]],
    })));
    let summary = world.succeed("golden");
    assert_eq!(summary.warnings, [""; 0]);
    assert_eq!(world.living("golden").len(), 8);
    let told = explain(
        world.hub(),
        world.live_pipe("golden").pipe.as_ref().unwrap(),
        "3",
    );
    assert_eq!(told.unwrap().unwrap()["clashes"], Json::Null);
}
