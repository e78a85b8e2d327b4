//! Many entities in one arena.

use tahini_entity::encoding::MAX_DEPTH;
use tahini_entity::json::{Fields, Numbers, Parser};
use tahini_entity::{Batch, Entity, Value, hash};

use crate::lines;

fn entity(id: &str, value: Value) -> Entity {
    let mut entity = Entity {
        id: Some(id.into()),
        ..Entity::default()
    };
    entity.properties.set("x", value);
    entity
}

#[test]
fn an_entity_that_nests_too_deep_leaves_the_batch_as_it_was() {
    let mut batch = Batch::new();
    batch.push_entity(&entity("a", Value::Int(1))).unwrap();
    let before = batch.bytes();
    let deep = (0..=MAX_DEPTH).fold(Value::Null, |inner, _| Value::List([inner].into()));
    assert!(batch.push_entity(&entity("b", deep)).is_err());
    assert_eq!((batch.len(), batch.bytes()), (1, before));
    batch.push_entity(&entity("c", Value::Int(2))).unwrap();
    assert_eq!(
        lines(&batch, Fields::CONTENT),
        [r#"{"x":1,"_id":"a"}"#, r#"{"x":2,"_id":"c"}"#]
    );
}

#[test]
fn whole_batches_are_gathered_as_their_entities_one_by_one() {
    let (mut gathered, mut expected) = (Batch::new(), Batch::new());
    let mut parser = Parser::new(Numbers::FLOATS);
    for texts in [
        [r#"{"_id":"a","x":1}"#, r#"{"y":[1,2],"x":2,"_id":"b"}"#],
        [
            r#"{"z":1}"#,
            r#"{"_id":"a","x":1,"_deleted":true,"_updated":7}"#,
        ],
        [r#"{"_id":"","x":"é"}"#, r#"{"_id":"a","x":3,"_other":4}"#],
    ] {
        let mut batch = Batch::new();
        for text in texts {
            parser.push_json(&mut batch, text.as_bytes()).unwrap();
        }
        let sizes: Vec<usize> = batch.sizes().map(|(_, bytes)| bytes).collect();
        let records = batch.iter();
        let longs = records.map(|record| record.id.unwrap_or("").len() + record.body.len());
        assert_eq!(sizes, longs.collect::<Vec<_>>());
        batch.iter().for_each(|record| expected.push(record));
        gathered.push_all(&batch);
    }
    assert_eq!(lines(&gathered, Fields::ALL), lines(&expected, Fields::ALL));
    assert!(gathered.get(5).meta.reserved);
    assert!(gathered.get(2).id.is_none());
}

#[test]
fn deleting_changes_the_hash_and_back() {
    let mut batch = Batch::new();
    let mut parser = Parser::new(Numbers::FLOATS);
    parser
        .push_json(&mut batch, br#"{"_id":"a","x":{"y":1}}"#)
        .unwrap();
    parser
        .push_json(&mut batch, br#"{"_id":"a","x":{"y":1},"_deleted":true}"#)
        .unwrap();
    let (alive, dead) = (batch.get(0).hash(), batch.get(1).hash());
    batch.set_deleted(0, true);
    assert_eq!(
        (batch.get(0).meta.deleted, batch.get(0).hash()),
        (true, dead)
    );
    batch.set_deleted(0, false);
    assert_eq!(
        (batch.get(0).meta.deleted, batch.get(0).hash()),
        (false, alive)
    );
}

#[test]
fn a_cleared_batch_starts_anew() {
    let mut batch = Batch::new();
    for round in 0..3 {
        // More different shapes than a cleared batch keeps.
        for at in 0..1500 {
            let mut one = Entity::default();
            one.properties.set(format!("n{at}"), Value::Int(round));
            batch.push_entity(&one).unwrap();
        }
        assert_eq!(batch.len(), 1500);
        let record = batch.get(1499);
        assert_eq!(record.shape.names(), ["n1499"]);
        assert_eq!(
            record.hash(),
            hash::content(None, false, record.shape, record.body)
        );
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0);
    }
}

#[test]
fn copies_are_equal() {
    let mut batch = Batch::new();
    let mut parser = Parser::new(Numbers::FLOATS);
    for text in [
        r#"{"_id":"a","x":[1]}"#,
        r#"{"y":2,"_updated":5,"_deleted":true}"#,
        "{}",
    ] {
        parser.push_json(&mut batch, text.as_bytes()).unwrap();
    }
    let mut copy = Batch::new();
    for record in batch.iter() {
        copy.push(record);
    }
    let mut trees = Batch::new();
    for record in batch.iter() {
        trees.push_entity(&record.to_entity()).unwrap();
    }
    assert_eq!(lines(&copy, Fields::ALL), lines(&batch, Fields::ALL));
    assert_eq!(lines(&trees, Fields::ALL), lines(&batch, Fields::ALL));
}
