//! Entities from JSON text into batches.

use std::sync::Arc;

use proptest::prelude::*;
use tahini_entity::json::{self, EntityFault, Fields, Numbers, Parser};
use tahini_entity::{Batch, Offset, Value, order};

use crate::{arbitrary, lines};

fn parsed(json: &str) -> Batch {
    let mut batch = Batch::new();
    Parser::new(Numbers::FLOATS)
        .push_json(&mut batch, json.as_bytes())
        .unwrap();
    batch
}

proptest! {
    #[test]
    fn entities_survive_the_wire(entity in arbitrary::entity()) {
        let mut text = Vec::new();
        json::write_entity(&entity, Fields::ALL, &mut text);
        let back = json::parse_entity(&text, Numbers::FLOATS).unwrap();
        prop_assert_eq!(&back.id, &entity.id);
        prop_assert_eq!(back.deleted, entity.deleted);
        prop_assert_eq!(&back.updated, &entity.updated);
        prop_assert_eq!(back.previous, entity.previous);
        prop_assert_eq!(back.properties.len(), entity.properties.len());
        for ((name, value), (other_name, other)) in back.properties.iter().zip(entity.properties.iter()) {
            prop_assert_eq!(name, other_name);
            prop_assert!(order::same(value, other));
        }
        // From a record, from a tree and from a configuration it is the same text.
        let mut batch = Batch::new();
        batch.push_entity(&entity).unwrap();
        let mut tree = entity.clone();
        tree.hash = Some(batch.get(0).hash());
        let mut of_tree = Vec::new();
        json::write_entity(&tree, Fields::ALL, &mut of_tree);
        prop_assert_eq!(lines(&batch, Fields::ALL), [String::from_utf8(of_tree).unwrap()]);
        let config = json::entity_from_config(&serde_json::from_slice(&text).unwrap(), Numbers::FLOATS, 0).unwrap();
        let mut of_config = Vec::new();
        json::write_entity(&config, Fields::ALL, &mut of_config);
        prop_assert_eq!(String::from_utf8(of_config).unwrap(), String::from_utf8(text).unwrap());
    }

    /// Many entities through one parser and one batch, against each alone.
    #[test]
    fn what_came_before_does_not_matter(entities in prop::collection::vec(arbitrary::entity(), 1..12)) {
        let mut parser = Parser::new(Numbers::FLOATS);
        let mut batch = Batch::new();
        let mut alone = Vec::new();
        for entity in &entities {
            let mut text = Vec::new();
            json::write_entity(entity, Fields::SINK, &mut text);
            parser.push_json(&mut batch, &text).unwrap();
            let mut one = Batch::new();
            Parser::new(Numbers::FLOATS).push_json(&mut one, &text).unwrap();
            alone.extend(lines(&one, Fields::ALL));
        }
        prop_assert_eq!(lines(&batch, Fields::ALL), alone);
    }
}

#[test]
fn reserved_fields_leave_the_content() {
    let batch = parsed(
        r#"{"_id":"a","_deleted":true,"x":1,"_updated":12,"_previous":3,"_ts":1489654249474509,"_hash":"8b48","_filtered":true}"#,
    );
    let record = batch.get(0);
    assert_eq!(record.id, Some("a"));
    assert_eq!(record.shape.names(), ["x"]);
    let meta = record.meta;
    assert!(meta.deleted && meta.filtered && !meta.reserved);
    assert_eq!(meta.updated, Some(Offset::Int(12)));
    assert_eq!((meta.previous, meta.ts), (Some(3), 1_489_654_249_474_509));
}

#[test]
fn foreign_reserved_fields_are_read_with_care() {
    for (json, expected) in [
        (r#"{"_deleted":false}"#, r#"{}"#),
        (r#"{"_deleted":"true"}"#, r#"{}"#),
        (r#"{"_deleted":1}"#, r#"{}"#),
        (r#"{"_deleted":null}"#, r#"{}"#),
        (r#"{"_deleted":true}"#, r#"{"_deleted":true}"#),
        (r#"{"_deleted":true,"_deleted":false}"#, r#"{}"#),
        (r#"{"_updated":null}"#, r#"{}"#),
        (r#"{"_updated":-5}"#, r#"{"_updated":-5,"_previous":null}"#),
        // An offset is opaque: a tag in it is not decoded.
        (
            r#"{"_updated":"~t2015-12-31"}"#,
            r#"{"_updated":"~t2015-12-31","_previous":null}"#,
        ),
        (
            r#"{"_updated":"h\u00e9"}"#,
            r#"{"_updated":"hé","_previous":null}"#,
        ),
        (
            r#"{"_previous":"x","_ts":{"y":[]},"_hash":3,"_filtered":1}"#,
            r#"{}"#,
        ),
        (r#"{"_id":"~:a:b"}"#, r#"{"_id":"~:a:b"}"#),
        (r#"{"_id":""}"#, r#"{"_id":""}"#),
        (r#"{"\u005fid":"\u0041"}"#, r#"{"_id":"A"}"#),
        (
            r#"{"a":{"_id":5,"_updated":{}}}"#,
            r#"{"a":{"_id":5,"_updated":{}}}"#,
        ),
    ] {
        let fields = Fields {
            hash: false,
            not_deleted: false,
            ..Fields::ALL
        };
        assert_eq!(lines(&parsed(json), fields), [expected], "{json}");
    }
}

#[test]
fn unknown_reserved_names_stay_and_are_pointed_out() {
    let batch = parsed(r#"{"_id":"a","_tracked":true,"x":1}"#);
    assert!(batch.get(0).meta.reserved);
    assert_eq!(batch.get(0).shape.names(), ["_tracked", "x"]);
}

#[test]
fn an_id_that_is_no_string_is_none_and_its_value_is_kept() {
    let batch = parsed(r#"{"x":1,"_id":5,"y":2}"#);
    let record = batch.get(0);
    assert_eq!(record.id, None);
    assert!(matches!(record.value("_id"), Some(Value::Int(5))));
    assert!(record.meta.reserved);
    // It is no part of the content.
    assert_eq!(record.hash(), parsed(r#"{"x":1,"y":2}"#).get(0).hash());
    let batch = parsed(r#"{"_id":null,"x":1}"#);
    assert_eq!(
        (batch.get(0).id, batch.get(0).shape.names().len()),
        (None, 1)
    );
    // Of equal names the last value counts.
    let batch = parsed(r#"{"_id":5,"_id":{"a":6}}"#);
    assert!(matches!(batch.get(0).value("_id"), Some(Value::Dict(_))));
    let batch = parsed(r#"{"_id":"a","_id":null}"#);
    assert_eq!(
        (batch.get(0).id, batch.get(0).shape.names().len()),
        (None, 0)
    );
}

#[test]
fn wrong_entities_say_where_and_which() {
    let mut parser = Parser::new(Numbers::FLOATS);
    let mut batch = Batch::new();
    parser
        .push_json(&mut batch, br#"{"_id":"first","x":1}"#)
        .unwrap();
    let before = (batch.len(), batch.bytes());
    let mut expected_position = 0;
    for (json, fault, id, message) in [
        (
            r#"{"_id":5,"_id":"a"}"#,
            EntityFault::Id,
            None,
            "the entity at position 1: expected one `_id`, found another of another type before it \
             (at byte 15 of the entity)",
        ),
        (
            r#"{"_id":"a","_id":[5]}"#,
            EntityFault::Id,
            Some("a"),
            "expected one `_id`",
        ),
        (
            r#"{"_updated":1.5,"_id":"a"}"#,
            EntityFault::Updated,
            Some("a"),
            "with the `_id` \"a\": expected `_updated` to be a string or an integer of 64 bits, found `1.5`",
        ),
        (
            r#"{"_updated":true}"#,
            EntityFault::Updated,
            None,
            "found `true`",
        ),
        (
            r#"{"_updated":9223372036854775808}"#,
            EntityFault::Updated,
            None,
            "found `9223372036854775808`",
        ),
        (
            r#"{"x":"\udead","_id":"a\nb"}"#,
            EntityFault::Json,
            Some("a\\nb"),
            "lone surrogate \\udead",
        ),
        (
            r#"{"y":{"_id":"no"},"_id":"a","x":01}"#,
            EntityFault::Json,
            Some("a"),
            "expected a JSON number",
        ),
        (
            r#"{"x":1"#,
            EntityFault::Json,
            None,
            "expected `,` or `}`, found the end",
        ),
        (
            r#"{"x":1} x"#,
            EntityFault::Json,
            None,
            "expected the end, found `x`",
        ),
        (
            r#"["x"]"#,
            EntityFault::Json,
            None,
            "expected an entity, which is a JSON object, found `[\"x\"]`",
        ),
        ("", EntityFault::Json, None, "expected an entity"),
    ] {
        expected_position += 1;
        let error = parser.push_json(&mut batch, json.as_bytes()).unwrap_err();
        assert_eq!(error.position, expected_position);
        assert_eq!((error.fault, error.id.as_deref()), (fault, id), "{json}");
        assert!(error.to_string().contains(message), "{json}: {error}");
        assert_eq!(
            (batch.len(), batch.bytes()),
            before,
            "the batch is as it was"
        );
    }
    parser
        .push_json(&mut batch, br#"{"_id":"last","x":2}"#)
        .unwrap();
    assert_eq!(
        lines(&batch, Fields::CONTENT),
        [r#"{"x":1,"_id":"first"}"#, r#"{"x":2,"_id":"last"}"#]
    );
}

#[test]
fn configuration_entities_have_the_same_rules() {
    let read = |json: serde_json::Value| json::entity_from_config(&json, Numbers::FLOATS, 7);
    let entity =
        read(serde_json::json!({"_id": "a", "_updated": "x", "d": "~t2015-12-31"})).unwrap();
    assert_eq!(entity.id.as_deref(), Some("a"));
    assert_eq!(entity.properties.get("d").unwrap().kind(), "date");
    for (json, kept) in [
        (serde_json::json!({"_id": 5}), Some("integer")),
        (serde_json::json!({"_id": null}), None),
    ] {
        let entity = read(json).unwrap();
        let found = entity.properties.get("_id").map(Value::kind);
        assert_eq!((entity.id.as_deref(), found), (None, kept));
    }
    for (json, message) in [
        (
            serde_json::json!({"_id": "a", "_updated": [1]}),
            "with the `_id` \"a\": expected `_updated`",
        ),
        (
            serde_json::json!("x"),
            "expected an entity, which is a JSON object, found `\"x\"`",
        ),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn duplicate_properties_keep_the_first_place_and_the_last_value() {
    let json = r#"{"a":1,"b":[2],"a":{"x":3},"c":4,"b":"five","_id":"one","_id":"two"}"#;
    let batch = parsed(json);
    assert_eq!(
        lines(&batch, Fields::CONTENT),
        [r#"{"a":{"x":3},"b":"five","c":4,"_id":"two"}"#]
    );
    let plain = parsed(r#"{"a":{"x":3},"b":"five","c":4,"_id":"two"}"#);
    assert_eq!(batch.get(0).hash(), plain.get(0).hash());
}

#[test]
fn equal_names_share_a_shape() {
    let mut parser = Parser::new(Numbers::FLOATS);
    let mut batch = Batch::new();
    let texts = [
        r#"{"a":1,"b":2}"#,
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"a":1,"b":2}"#,
        r#"{"b":1,"a":2}"#,
        r#"{"a":1}"#,
        r#"{"_id":"x","b":1,"_updated":3,"\u0061":2}"#,
        r#"{}"#,
    ];
    for text in texts {
        parser.push_json(&mut batch, text.as_bytes()).unwrap();
    }
    let shape = |at| batch.get(at).shape;
    assert!(Arc::ptr_eq(shape(0), shape(2)));
    assert!(Arc::ptr_eq(shape(3), shape(5)));
    for other in [1, 3, 4, 6] {
        assert!(!Arc::ptr_eq(shape(0), shape(other)));
    }
    assert_eq!(
        lines(&batch, Fields::NONE)[1..5],
        [
            r#"{"a":1,"b":2,"c":3}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1}"#,
        ]
    );
}

#[test]
fn names_that_are_data_do_not_pile_up() {
    let mut parser = Parser::new(Numbers::FLOATS);
    let mut batch = Batch::new();
    for at in 0..20_000 {
        parser
            .push_json(&mut batch, format!(r#"{{"n{at}":{at}}}"#).as_bytes())
            .unwrap();
        if batch.len() == 1000 {
            assert_eq!(batch.get(999).shape.names(), [format!("n{at}")]);
            batch.clear();
        }
    }
    assert_eq!(parser.position(), 20_000);
}

#[test]
fn one_value_can_be_had_without_the_others() {
    let batch = parsed(r#"{"a":[1,{"b":2}],"c":"~f1.5","d":null}"#);
    let record = batch.get(0);
    assert_eq!(crate::written(&record.value("c").unwrap()), "\"~f1.5\"");
    assert!(record.value("d").unwrap().is_null());
    assert!(record.value("e").is_none());
}
