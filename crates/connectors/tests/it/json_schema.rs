//! The json_schema transform: what it says of entities, and where its schema comes from.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_hub::entity_type::{Observer, Side};
use tahini_hub::{Class, Failure};

use crate::server::{Reply, Server};
use crate::world::{World, batch, content};

fn apply_in(world: &World, config: Json, input: &[Json]) -> Result<Vec<Json>, Failure> {
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let mut transform = world.transform(config)?;
    transform.apply(&batch(input), &mut out, &mut origins)?;
    let all: Vec<u32> = (0..input.len() as u32).collect();
    assert_eq!(origins, all);
    Ok(content(&out))
}

fn apply(more: Json, input: &[Json]) -> Result<Vec<Json>, Failure> {
    let mut config = json!({ "type": "json_schema" });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    apply_in(&World::empty(), config, input)
}

/// The errors that a schema finds in one entity.
fn errors(schema: Json, entity: Json) -> Json {
    let out = apply(json!({ "schema": schema }), &[entity]).unwrap();
    let valid = out[0].get("errors").is_none();
    assert_eq!(out[0]["valid"], valid);
    out[0]["errors"].clone()
}

#[test]
fn the_documented_example_gives_the_documented_entities() {
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "born": { "type": "string" } },
        "required": ["name", "born"],
    });
    let input = [
        json!({ "_id": "3", "name": "Jim" }),
        json!({ "_id": "5", "name": "Bob", "born": "1972-03-12" }),
    ];
    let expected = [
        json!({ "_id": "3", "_deleted": false, "valid": false, "name": "Jim",
            "errors": ["'born' is a required property"] }),
        json!({ "_id": "5", "_deleted": false, "valid": true, "name": "Bob",
            "born": "1972-03-12" }),
    ];
    let out = apply(json!({ "schema": schema }), &input).unwrap();
    let plain: Vec<Json> = out.into_iter().map(with_deleted).collect();
    assert_eq!(plain, expected);
}

/// Content shows the flag only where it is set.
fn with_deleted(mut entity: Json) -> Json {
    let map = entity.as_object_mut().unwrap();
    map.entry("_deleted").or_insert(json!(false));
    entity
}

#[test]
fn errors_say_where_they_are() {
    let schema = json!({ "properties": {
        "address": { "properties": { "zip": { "pattern": "^[0-9]{4}$" } } },
        "tags": { "items": { "type": "string" } },
        "age": { "maximum": 150 },
    }});
    let entity = json!({ "_id": "1", "address": { "zip": "x" }, "tags": ["a", 7], "age": 200 });
    let found = errors(schema, entity);
    let mut found: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e.as_str().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("/address/zip: \"x\" does not match"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("/age: 200 is greater than the maximum"),
        "{found:?}"
    );
    assert_eq!(found[2], "/tags/1: 7 is not of type 'string'");
}

#[test]
fn the_document_is_the_entity_as_on_the_wire_but_for_decimals() {
    let schema = |property: Json| json!({ "properties": { "x": property } });
    let fits = [
        (json!({ "type": "number", "minimum": 1.5 }), json!("~f1.50")),
        (
            json!({ "type": "integer" }),
            json!(12345678901234567890123456789u128),
        ),
        (
            json!({ "pattern": "^~t2020" }),
            json!("~t2020-01-01T00:00:00Z"),
        ),
        (json!({ "pattern": "^~:a:" }), json!("~:a:1")),
        (
            json!({ "type": "array", "items": { "type": "null" } }),
            json!([null]),
        ),
    ];
    for (property, value) in fits {
        let found = errors(schema(property), json!({ "_id": "1", "x": value }));
        assert_eq!(found, Json::Null, "{value}");
    }
    let number = errors(
        schema(json!({ "type": "string" })),
        json!({ "_id": "1", "x": "~f1.5" }),
    );
    assert_eq!(number, json!(["/x: 1.5 is not of type 'string'"]));
    // The reserved names belong to it.
    let reserved = json!({ "properties": { "_id": { "const": "1" } }, "required": ["_id"] });
    assert_eq!(errors(reserved, json!({ "_id": "1" })), Json::Null);
}

#[test]
fn drafts_differ_and_references_stay_inside() {
    let draft4 = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": { "n": { "maximum": 5, "exclusiveMaximum": true } },
    });
    assert_ne!(errors(draft4, json!({ "_id": "1", "n": 5 })), Json::Null);
    let inside = json!({
        "$schema": "http://json-schema.org/schema#",
        "definitions": { "text": { "type": "string" } },
        "properties": { "n": { "$ref": "#/definitions/text" } },
    });
    assert_eq!(
        errors(inside, json!({ "_id": "1", "n": 5 })),
        json!(["/n: 5 is not of type 'string'"])
    );
    let outside = json!({ "$ref": "http://example.com/schema.json" });
    let failure = apply(json!({ "schema": outside }), &[]).unwrap_err();
    assert_eq!(failure.class, Class::Config);
    assert!(
        failure.message.contains("http://example.com/schema.json"),
        "{failure}"
    );
}

#[test]
fn names_and_trigger_are_configurable() {
    let input = [
        json!({ "_id": "1", "_trigger": "check-it" }),
        json!({ "_id": "2" }),
    ];
    let more = json!({
        "schema": { "required": ["x"] }, "key_valid": "ok", "key_errors": "why",
        "trigger_on": { "value": "check*" },
    });
    let out = apply(more, &input).unwrap();
    assert_eq!(
        (&out[0]["ok"], &out[0]["why"][0]),
        (&json!(false), &json!("'x' is a required property"))
    );
    assert!(out[1].get("ok").is_none(), "{}", out[1]);
}

#[test]
fn errors_are_limited() {
    let input = [json!({ "_id": "1", "list": vec!["x".repeat(2_000); 150] })];
    let schema = json!({ "properties": { "list": { "items": { "type": "integer" } } } });
    let out = apply(json!({ "schema": schema }), &input).unwrap();
    let found = out[0]["errors"].as_array().unwrap();
    assert_eq!(
        (found.len(), &found[100]),
        (101, &json!("and 50 more errors"))
    );
    assert!(found[0].as_str().unwrap().len() < 600);
}

#[test]
fn a_wrong_schema_is_a_wrong_configuration() {
    for (more, words) in [
        (json!({}), "`schema` or `schema_url`, found neither"),
        (
            json!({ "schema": { "type": "text" } }),
            "$.transform.schema: expected a JSON Schema",
        ),
        (json!({ "schema_url": "x" }), "system"),
    ] {
        let failure = apply(more, &[]).unwrap_err();
        assert_eq!(failure.class, Class::Config);
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn a_schema_is_read_from_a_system_and_kept_for_a_while() {
    let schema = json!({ "required": ["x"] }).to_string();
    let server = Server::play(vec![Reply::ok(&schema)]);
    let world = World::at(&server.url());
    let config = json!({ "type": "json_schema", "system": "s", "schema_url": "schemas/x.json" });
    for _ in 0..2 {
        let out = apply_in(&world, config.clone(), &[json!({ "_id": "1" })]).unwrap();
        assert_eq!(out[0]["valid"], false);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("GET", "/schemas/x.json")
    );

    let server = Server::play(vec![Reply::ok("no JSON")]);
    let failure = apply_in(&World::at(&server.url()), config, &[]).unwrap_err();
    assert_eq!(failure.class, Class::Config);
    assert!(
        failure
            .message
            .contains("schema_url: expected a JSON Schema"),
        "{failure}"
    );
}

/// Every entity is valid by the schema that was inferred from it and from others.
#[test]
fn inferred_schemas_are_valid_and_fit() {
    let entities = [
        json!({ "_id": "1", "_deleted": false, "a": 1, "d": "~f1.5", "n": "~:x.y:1", "l": [1, "a", null] }),
        json!({ "_id": "2", "a": null, "d": 2.5, "n": ["~:z:1", "~rhttp://x"], "l": [], "o": { "k": { "v": true } } }),
        json!({ "_id": "3", "a": "~t2020-01-01", "o": { "k": {}, "e": "~u00000000-0000-0000-0000-000000000000" } }),
        json!({ "_id": "4", "a": "~t2020-01-01T00:00:00Z", "b": "~bAAA=", "$ids": ["~:x.y:1"] }),
        json!({ "_id": "5", "n": "~:a+b(c):1" }),
    ];
    let mut observer = Observer::default();
    observer.observe(&batch(&entities));
    for side in Side::BOTH {
        let schema = observer.seen().schema("p", side);
        let out = apply(json!({ "schema": schema }), &entities).unwrap();
        for entity in out {
            assert_eq!(entity["valid"], true, "{entity}");
        }
        let stranger = json!({ "_id": "6", "a": { "x": 1 }, "n": "~:q:1" });
        let found = errors(schema, stranger);
        assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
    }
}
