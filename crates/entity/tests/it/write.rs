//! Which reserved fields an entity shows.

use tahini_entity::json::{Fields, Numbers, Parser};
use tahini_entity::{Batch, Offset};

use crate::lines;

fn stored() -> Batch {
    let mut batch = Batch::new();
    Parser::new(Numbers::FLOATS)
        .push_json(&mut batch, br#"{"_id":"a","name":"A"}"#)
        .unwrap();
    let meta = batch.meta_mut(0);
    meta.updated = Some(Offset::Int(2));
    meta.ts = 1_489_654_329_529_744;
    meta.hash = Some(0x0387_3bcb_381e_bef1_0644_a0bd_a679_8e6a);
    batch
}

fn shown(batch: &Batch, fields: Fields) -> String {
    lines(batch, fields).remove(0)
}

#[test]
fn a_dataset_shows_all_fields_behind_the_properties() {
    let mut batch = stored();
    assert_eq!(
        shown(&batch, Fields::ALL),
        r#"{"name":"A","_id":"a","_deleted":false,"_updated":2,"_previous":null,"_ts":1489654329529744,"_hash":"03873bcb381ebef10644a0bda6798e6a"}"#
    );
    batch.meta_mut(0).previous = Some(0);
    batch.meta_mut(0).filtered = true;
    assert_eq!(
        shown(&batch, Fields::ALL),
        r#"{"name":"A","_id":"a","_deleted":false,"_filtered":true,"_updated":2,"_previous":0,"_ts":1489654329529744,"_hash":"03873bcb381ebef10644a0bda6798e6a"}"#
    );
}

#[test]
fn what_is_not_known_is_not_shown() {
    let mut batch = stored();
    let meta = batch.meta_mut(0);
    meta.updated = None;
    meta.ts = 0;
    assert_eq!(
        shown(
            &batch,
            Fields {
                hash: false,
                ..Fields::ALL
            }
        ),
        r#"{"name":"A","_id":"a","_deleted":false}"#
    );
}

#[test]
fn a_result_begins_with_what_it_is() {
    let mut batch = stored();
    let meta = batch.meta_mut(0);
    meta.updated = None;
    assert_eq!(shown(&batch, Fields::RESULT), r#"{"_id":"a","name":"A"}"#);
    let meta = batch.meta_mut(0);
    meta.updated = Some(Offset::Int(2));
    (meta.deleted, meta.filtered) = (true, true);
    assert_eq!(
        shown(&batch, Fields::RESULT),
        r#"{"_id":"a","_deleted":true,"_filtered":true,"_updated":2,"name":"A"}"#
    );
}

#[test]
fn a_receiver_outside_gets_what_it_needs() {
    let mut batch = stored();
    assert_eq!(
        shown(&batch, Fields::SINK),
        r#"{"name":"A","_id":"a","_deleted":false,"_updated":2}"#
    );
    assert_eq!(shown(&batch, Fields::CONTENT), r#"{"name":"A","_id":"a"}"#);
    assert_eq!(shown(&batch, Fields::NONE), r#"{"name":"A"}"#);
    batch.meta_mut(0).deleted = true;
    assert_eq!(
        shown(&batch, Fields::SINK),
        r#"{"name":"A","_id":"a","_deleted":true,"_updated":2}"#
    );
    assert_eq!(
        shown(&batch, Fields::CONTENT),
        r#"{"name":"A","_id":"a","_deleted":true}"#
    );
}
