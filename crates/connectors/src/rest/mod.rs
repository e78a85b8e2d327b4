//! REST: named operations on servers, and the sources, transforms and sinks that perform them.

mod call;
mod filters;
mod jwks;
mod jwt;
mod operation;
mod pages;
mod payload;
mod posted;
mod request;
mod rows;
mod sink;
mod source;
mod status;
mod system;
mod template;
mod token;
mod transform;
mod values;

pub use posted::{Judge, Judgement, Posted, Validation};
pub use sink::SINK;
pub use source::SOURCE;
pub use system::{RestPart, SYSTEM};
pub use transform::TRANSFORM;
pub(crate) use values::seen;

use std::sync::LazyLock;

use tahini_entity::{Dict, Entity, Offset, Value};

/// What is wrong with a Jinja template.
///
/// # Errors
/// In words, where it is no well-formed one.
pub fn check_template(text: &str) -> Result<(), String> {
    static TEMPLATES: LazyLock<template::Templates> =
        LazyLock::new(|| template::Templates::new(filters::World::default()));
    TEMPLATES.check(text)
}

/// The entity that a JSON object is, its reserved properties read as those of any source.
fn entity_of(dict: &Dict) -> Entity {
    let mut entity = Entity::default();
    for (name, value) in dict.iter() {
        match (name.as_str(), value) {
            ("_id", Value::String(id)) => entity.id = Some(id.clone()),
            ("_id", Value::Null) => {}
            ("_deleted", value) => entity.deleted = matches!(value, Value::Bool(true)),
            ("_filtered", value) => entity.filtered = matches!(value, Value::Bool(true)),
            ("_updated", Value::String(text)) => {
                entity.updated = Some(Offset::Text(text.clone()));
            }
            ("_updated", Value::Int(number)) => entity.updated = Some(Offset::Int(*number)),
            ("_updated" | "_previous" | "_ts" | "_hash", _) => {}
            (name, value) => entity.properties.push_new(name, value.clone()),
        }
    }
    entity
}

/// An offset that a template gave: a whole number as it is usually written, or text.
fn offset_of(text: &str) -> Offset {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Offset::Int(number),
        _ => Offset::Text(text.into()),
    }
}
