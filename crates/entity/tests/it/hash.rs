//! The content hash: frozen, equal on every way in, and blind to what is no content.

use proptest::prelude::*;
use tahini_entity::json::{self, Fields, Numbers, Parser};
use tahini_entity::{Batch, Dict, Entity, Value, hash, order};

use crate::{arbitrary, slow_hash};

fn hash_of(json: &str) -> u128 {
    json::parse_entity(json.as_bytes(), Numbers::FLOATS)
        .unwrap()
        .hash
        .unwrap()
}

fn pushed(entity: &Entity) -> u128 {
    let mut batch = Batch::new();
    batch.push_entity(entity).unwrap();
    batch.get(0).hash()
}

#[test]
fn the_fixtures_are_frozen() {
    let text = include_str!("../fixtures/hash-h1.json");
    let fixtures: serde_json::Value = serde_json::from_str(text).unwrap();
    let fixtures = fixtures.as_array().unwrap();
    assert!(fixtures.len() >= 30);
    for fixture in fixtures {
        let frozen = fixture["hash"].as_str().unwrap();
        let text = fixture["entity"].to_string();
        let entity = json::parse_entity(text.as_bytes(), Numbers::FLOATS).unwrap();
        assert_eq!(
            format!("{:032x}", entity.hash.unwrap()),
            frozen,
            "parsed: {text}"
        );
        assert_eq!(
            format!("{:032x}", pushed(&entity)),
            frozen,
            "encoded: {text}"
        );
        assert_eq!(
            format!("{:032x}", slow_hash::content(&entity)),
            frozen,
            "slowly: {text}"
        );
    }
}

proptest! {
    #[test]
    fn every_way_in_gives_the_same_hash(entity in arbitrary::entity()) {
        let expected = slow_hash::content(&entity);
        prop_assert_eq!(pushed(&entity), expected);
        let mut text = Vec::new();
        json::write_entity(&entity, Fields::ALL, &mut text);
        let mut batch = Batch::new();
        Parser::new(Numbers::FLOATS).push_json(&mut batch, &text).unwrap();
        let record = batch.get(0);
        prop_assert_eq!(record.hash(), expected);
        prop_assert_eq!(hash::content(record.id, entity.deleted, record.shape, record.body), expected);
    }

    #[test]
    fn tuples_are_hashed_too(value in arbitrary::value()) {
        let mut entity = Entity::default();
        entity.properties.set("a", value);
        prop_assert_eq!(pushed(&entity), slow_hash::content(&entity));
    }

    #[test]
    fn the_order_of_names_does_not_count(entity in arbitrary::entity()) {
        let turned = Entity { properties: turned(&entity.properties), ..entity.clone() };
        prop_assert_eq!(pushed(&turned), pushed(&entity));
    }

    #[test]
    fn equal_hashes_mean_same_content(a in arbitrary::value(), b in arbitrary::value()) {
        let hash = |value: &Value| {
            let mut entity = Entity::default();
            entity.properties.set("a", value.clone());
            pushed(&entity)
        };
        prop_assert_eq!(hash(&a) == hash(&b), order::same(&a, &b));
    }
}

/// The pairs back to front, at every depth.
fn turned(dict: &Dict) -> Dict {
    let mut pairs: Vec<_> = dict
        .iter()
        .map(|(name, value)| (name.clone(), turned_value(value)))
        .collect();
    pairs.reverse();
    pairs.into_iter().collect()
}

fn turned_value(value: &Value) -> Value {
    match value {
        Value::Dict(dict) => Value::Dict(turned(dict)),
        Value::List(items) => Value::List(items.iter().map(turned_value).collect()),
        Value::Tuple(items) => Value::Tuple(items.iter().map(turned_value).collect()),
        other => other.clone(),
    }
}

#[test]
fn what_is_no_content_does_not_count() {
    let base = hash_of(r#"{"_id":"a","x":1}"#);
    for same in [
        r#"{"x":1,"_id":"a"}"#,
        r#"{"_id":"a","x":1,"_deleted":false}"#,
        r#"{"_id":"a","x":1,"_updated":7,"_previous":3,"_ts":9,"_hash":"ff","_filtered":true}"#,
        r#"{"_id":"a","_tracked":true,"x":1,"_other":[{"y":2}]}"#,
    ] {
        assert_eq!(hash_of(same), base, "{same}");
    }
}

#[test]
fn every_difference_counts() {
    let entities = [
        r#"{"_id":"a","x":1}"#,
        r#"{"_id":"b","x":1}"#,
        r#"{"x":1}"#,
        r#"{"_id":"","x":1}"#,
        r#"{"_id":"a","x":1,"_deleted":true}"#,
        r#"{"_id":"a","y":1}"#,
        r#"{"_id":"a","x":1,"$y":1}"#,
        r#"{"_id":"a","x":1,"y":null}"#,
        r#"{"_id":"a"}"#,
        r#"{"_id":"a","x":1.0}"#,
        r#"{"_id":"a","x":"1"}"#,
        r#"{"_id":"a","x":"~f1"}"#,
        r#"{"_id":"a","x":"~f1.0"}"#,
        r#"{"_id":"a","x":"~f1.00"}"#,
        r#"{"_id":"a","x":true}"#,
        r#"{"_id":"a","x":[1]}"#,
        r#"{"_id":"a","x":[[1]]}"#,
        r#"{"_id":"a","x":[1,2]}"#,
        r#"{"_id":"a","x":[2,1]}"#,
        r#"{"_id":"a","x":{"y":1}}"#,
        r#"{"_id":"a","x":{"_y":1}}"#,
        r#"{"_id":"a","x":[{"y":1}]}"#,
        r#"{"_id":"a","x":{"y":{"y":1}}}"#,
        r#"{"_id":"a","x":{"y":1,"z":1}}"#,
        r#"{"_id":"a","x":{}}"#,
        r#"{"_id":"a","x":[]}"#,
        r#"{"_id":"a","x":"~:b"}"#,
        r#"{"_id":"a","x":"~rb"}"#,
        r#"{"_id":"a","x":"b"}"#,
        r#"{"_id":"a","x":"~t2020-01-01"}"#,
        r#"{"_id":"a","x":"~t2020-01-01T00:00:00Z"}"#,
    ];
    for (at, one) in entities.iter().enumerate() {
        for other in &entities[at + 1..] {
            assert_ne!(hash_of(one), hash_of(other), "{one} and {other}");
        }
    }
}

#[test]
fn datetimes_are_hashed_by_their_instant() {
    let hash = |text: &str| hash_of(&format!(r#"{{"x":"~t2020-01-01T00:00:00{text}Z"}}"#));
    assert_eq!(hash(""), hash(".000"));
    assert_eq!(hash(".5"), hash(".500000000"));
    assert_ne!(hash(".5"), hash(".50000001"));
}
