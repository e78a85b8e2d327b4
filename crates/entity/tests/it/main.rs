//! What the entity crate promises, tested from outside.
#![allow(clippy::unwrap_used)]

mod arbitrary;
mod batch;
mod datetime;
mod elements;
mod encoding;
mod hash;
mod opened;
mod order;
mod parser;
mod slow_hash;
mod values;
mod wire;
mod write;

use tahini_entity::json::{self, Fields, Numbers};
use tahini_entity::{Batch, Value};

/// A value from its wire JSON, numbers with a point as floats.
fn value(json: &str) -> Value {
    json::parse_value(json.as_bytes(), Numbers::FLOATS).unwrap()
}

/// A value as it goes over the wire.
fn written(value: &Value) -> String {
    let mut out = Vec::new();
    json::write_value(value, &mut out);
    String::from_utf8(out).unwrap()
}

/// The entities of a batch as they go over the wire.
fn lines(batch: &Batch, fields: Fields) -> Vec<String> {
    batch
        .iter()
        .map(|record| {
            let mut out = Vec::new();
            json::write_record(record, fields, &mut out);
            String::from_utf8(out).unwrap()
        })
        .collect()
}
