//! Adding and removing namespaces around the transforms, as the documentation has it.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::Cancel;
use tahini_hub::receiver::{Push, receive};
use tahini_hub::source::From;
use tahini_hub::stage::{Purpose, Stage, read};

use crate::script::shown;
use crate::world::World;

/// What a pipe makes of one entity.
fn through(config: Json, entity: Json) -> Json {
    let mut world = World::new();
    let id = config["_id"].as_str().unwrap().to_owned();
    world.pipe(config);
    world.records(&id, vec![entity]);
    world.succeed(&id);
    world.versions(&id, false, Fields::CONTENT).pop().unwrap()
}

#[test]
fn the_documented_names_come_out_of_the_documented_pipes() {
    for (pipe, name, becomes) in [
        ("hubspot-person", "name", "hubspot-person:name"),
        ("visma-person", "name", "visma-person:name"),
        (
            "hubspot-company",
            "company_name",
            "hubspot-company:company_name",
        ),
        (
            "visma-company",
            "company_name",
            "visma-company:company_name",
        ),
    ] {
        let config = json!({"_id": pipe, "add_namespaces": true});
        let mut entity = json!({"_id": "1"});
        entity[name] = json!("x");
        let mut expected = json!({"_id": format!("{pipe}:1")});
        expected[becomes] = json!("x");
        assert_eq!(through(config, entity), expected);
    }
}

#[test]
fn the_pipes_own_namespaces_are_taken() {
    let config = json!({
        "_id": "p", "add_namespaces": true,
        "namespaces": {"identity": "people", "property": "crm"},
    });
    let entity = json!({"_id": "1", "name": "Ada", "address": {"street": "x"}, "$id": 1});
    let expected = json!({
        "_id": "people:1", "crm:name": "Ada", "crm:address": {"crm:street": "x"}, "$id": 1,
    });
    assert_eq!(through(config, entity), expected);
}

#[test]
fn they_are_added_before_the_first_transform() {
    let config = json!({
        "_id": "p", "add_namespaces": true,
        "transform": {"type": "dtl", "rules": {"default": [
            ["add", "seen", ["list", "_S._id", "_S.p:name"]],
        ]}},
    });
    let expected = json!({"_id": "p:1", "seen": ["p:1", "Ada"]});
    assert_eq!(
        through(config, json!({"_id": "1", "name": "Ada"})),
        expected
    );
}

#[test]
fn they_are_removed_behind_the_last_transform() {
    let config = json!({
        "_id": "p", "remove_namespaces": true,
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "*"],
            ["add", "copy", "_S.a:name"],
        ]}},
    });
    let entity = json!({"_id": "a:1", "a:name": "Ada", "a:ref": "~:b:2", "a:in": {"b:x": 1}});
    let expected = json!({
        "_id": "1", "name": "Ada", "copy": "Ada", "ref": "~:2", "in": {"x": 1},
    });
    assert_eq!(through(config, entity), expected);
}

#[test]
fn without_the_properties_nothing_is_added_or_removed() {
    let entity = json!({"_id": "1", "name": "Ada", "a:x": 1});
    assert_eq!(through(json!({"_id": "p"}), entity.clone()), entity);
}

#[test]
fn what_is_posted_gets_them_too() {
    let mut world = World::new();
    // The default of the source holds where identifiers have namespaces.
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint"}, "namespaced_identifiers": true,
    }));
    let body = json!([{"_id": "1", "name": "Ada"}]).to_string();
    let live = world.live_pipe("p");
    receive(world.hub(), &live, &Push::default(), body.as_bytes()).unwrap();
    let stored = world.versions("p", false, Fields::CONTENT);
    assert_eq!(stored, [json!({"_id": "p:1", "p:name": "Ada"})]);
}

#[test]
fn each_stage_shows_them_where_they_are() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "add_namespaces": true, "remove_namespaces": true,
        "transform": {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
    }));
    world.records("p", vec![json!({"_id": "1", "name": "Ada"})]);
    let plain = json!({"_id": "1", "name": "Ada"});
    let qualified = json!({"_id": "p:1", "p:name": "Ada"});
    for (stage, expected) in [
        (Stage::Source, &plain),
        (Stage::BeforeTransforms, &qualified),
        (Stage::AfterTransforms, &qualified),
        (Stage::Sink, &plain),
    ] {
        let live = world.live_pipe("p");
        let (pipe, cancel) = (live.usable().unwrap(), Cancel::new());
        let mut seen = Vec::new();
        let wanted = (stage, Purpose::Look);
        read(
            pipe,
            &world.hub().world,
            wanted,
            From::default(),
            &cancel,
            |batch| {
                seen.extend(shown(batch, Fields::CONTENT));
                true
            },
        )
        .unwrap();
        assert_eq!(seen, std::slice::from_ref(expected), "{stage:?}");
    }
}

#[test]
fn the_node_switches_the_defaults_of_sources_on_and_a_pipe_off() {
    for (metadata, more, expected) in [
        (true, json!({}), json!({"_id": "p:1", "p:name": "Ada"})),
        (false, json!({}), json!({"_id": "1", "name": "Ada"})),
        (
            true,
            json!({"add_namespaces": false}),
            json!({"_id": "1", "name": "Ada"}),
        ),
        (
            true,
            json!({"namespaced_identifiers": false}),
            json!({"_id": "1", "name": "Ada"}),
        ),
    ] {
        let mut world = World::new();
        world.system(json!({
            "_id": "node", "type": "metadata", "namespaced_identifiers": metadata,
        }));
        let entities = json!([{"_id": "1", "name": "Ada"}]);
        let mut config = json!({
            "_id": "p", "source": {"type": "embedded", "entities": entities},
        });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        world.pipe(config);
        world.succeed("p");
        assert_eq!(world.versions("p", false, Fields::CONTENT), [expected]);
        // A pipe between datasets keeps the names that it reads.
        world.pipe(json!({"_id": "q", "source": {"type": "dataset", "dataset": "p"}}));
        world.succeed("q");
        let copied = world.versions("q", false, Fields::CONTENT);
        assert_eq!(copied, world.versions("p", false, Fields::CONTENT));
    }
}
