//! Rules that look things up in other datasets.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;

use crate::script::records;
use crate::world::World;

/// A world whose dataset `countries` has two countries, one of them deleted, and a pipe `p` whose
/// entities go through `rules`.
fn world(rules: Json) -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "countries"}));
    let country = |id: &str, name: &str, code: i64| json!({"_id": id, "name": name, "code": code});
    world.records(
        "countries",
        vec![country("NO", "Norway", 47), country("XX", "Nowhere", 0)],
    );
    world.succeed("countries");
    world.records(
        "countries",
        vec![country("NO", "Norway", 47), country("SE", "Sweden", 46)],
    );
    world.succeed("countries");
    assert_eq!(world.deleted("countries"), ["XX"]);
    world.pipe(json!({"_id": "p", "transform": {"type": "dtl", "rules": {"default": rules}}}));
    world
}

fn latest(world: &World, dataset: &str) -> Vec<Json> {
    world.versions(dataset, false, Fields::CONTENT)
}

#[test]
fn an_entity_is_looked_up_by_its_id() {
    let world = world(json!([
        ["copy", "_id"],
        [
            "add",
            "name",
            ["path", "name", ["lookup-entity", "countries", "_S.of"]]
        ]
    ]));
    let people = [
        ("a", "NO"),
        ("b", "XX"),
        ("c", "none"),
        ("d", "SE"),
        ("e", "NO"),
    ];
    let people = people.map(|(id, of)| json!({"_id": id, "of": of}));
    world.records("p", people.to_vec());
    world.succeed("p");
    assert_eq!(
        latest(&world, "p"),
        [
            json!({"_id": "a", "name": "Norway"}),
            json!({"_id": "b", "name": null}),
            json!({"_id": "c", "name": null}),
            json!({"_id": "d", "name": "Sweden"}),
            json!({"_id": "e", "name": "Norway"}),
        ]
    );
}

#[test]
fn entities_are_joined_by_a_property() {
    let world = world(json!([
        ["copy", "_id"],
        ["add", "of", ["sorted", "_.", ["hops", {
            "datasets": ["countries c"], "where": ["eq", "_S.codes", "c.code"], "return": "c._id"
        }]]]
    ]));
    world.records(
        "p",
        vec![
            json!({"_id": "a", "codes": [47, 46]}),
            json!({"_id": "b", "codes": 0}),
            json!({"_id": "c", "codes": 46.0}),
        ],
    );
    world.succeed("p");
    assert_eq!(
        latest(&world, "p"),
        [
            json!({"_id": "a", "of": ["NO", "SE"]}),
            json!({"_id": "b", "of": []}),
            json!({"_id": "c", "of": ["SE"]}),
        ]
    );
}

#[test]
fn what_changed_is_known_from_the_version_before() {
    let mut world = World::new();
    world.pipe(json!({"_id": "in", "source": {"type": "scripted", "supports_since": true}}));
    world.pipe(json!({
        "_id": "out",
        "source": {"type": "dataset", "dataset": "in"},
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "_id"], ["add", "changed", ["is-changed", "_.v"]]
        ]}},
    }));
    world.records("in", records(&[("a", 1), ("b", 2)]));
    world.succeed("in");
    world.succeed("out");
    let more = json!({"_id": "b", "_updated": 3, "v": 2, "w": 1});
    world.records("in", vec![json!({"_id": "a", "_updated": 3, "v": 3}), more]);
    world.succeed("in");
    world.succeed("out");
    let mut out = latest(&world, "out");
    out.sort_by_key(|entity| entity["_id"].to_string());
    assert_eq!(
        out,
        [
            json!({"_id": "a", "changed": true}),
            json!({"_id": "b", "changed": false}),
        ]
    );
}

#[test]
fn a_missing_dataset_has_nothing() {
    let mut world = World::new();
    world.pipe(
        json!({"_id": "p", "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "_id"], ["add", "found", ["is-null", ["lookup-entity", "nowhere", "x"]]]
        ]}}}),
    );
    world.records("p", records(&[("a", 1)]));
    world.succeed("p");
    assert_eq!(latest(&world, "p"), [json!({"_id": "a", "found": true})]);
}
