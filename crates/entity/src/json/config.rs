//! Values in a configuration's JSON, which is a tree already.

use serde_json::Value as Json;

use super::entity_error::{EntityError, EntityFault};
use super::number::{self, Numbers};
use super::{excerpt, transit, write};
use crate::{Dict, Entity, Offset, Str, Value};

/// A configuration's value, tagged strings decoded at any depth. A number beyond the limits of
/// `json::number`, which no configuration needs, becomes its text.
pub fn from_config(json: &Json, numbers: Numbers) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(it) => Value::Bool(*it),
        Json::Number(number) => match number::number(number.as_str(), numbers) {
            Ok(number) => number.into_value(),
            Err(_) => Value::string(number.as_str()),
        },
        Json::String(text) => transit::decode(text),
        Json::Array(items) => Value::List(
            items
                .iter()
                .map(|item| from_config(item, numbers))
                .collect(),
        ),
        Json::Object(pairs) => {
            let mut dict = Dict::new();
            for (name, value) in pairs {
                dict.push_new(name.as_str(), from_config(value, numbers));
            }
            Value::Dict(dict)
        }
    }
}

/// The entity at `position` of a list in a configuration, with the reserved fields read as
/// `Parser::push_json` reads them.
///
/// # Errors
/// When `json` is not an object, or `_id` or `_updated` have a wrong type.
pub fn entity_from_config(
    json: &Json,
    numbers: Numbers,
    position: u64,
) -> Result<Entity, EntityError> {
    let mut entity = Entity::default();
    let wrong = |id: Option<&Str>, fault, expected: &str, found: &Json| EntityError {
        position,
        id: id.map(Str::to_string),
        offset: 0,
        fault,
        message: format!(
            "expected {expected}, found {}",
            excerpt(found.to_string().as_bytes())
        ),
    };
    let Json::Object(pairs) = json else {
        return Err(wrong(
            None,
            EntityFault::Json,
            "an entity, which is a JSON object",
            json,
        ));
    };
    for (name, value) in pairs {
        match (name.as_str(), value) {
            ("_id", Json::String(id)) => entity.id = Some(id.as_str().into()),
            ("_id", Json::Null) => {}
            ("_deleted", value) => entity.deleted = *value == Json::Bool(true),
            ("_filtered", value) => entity.filtered = *value == Json::Bool(true),
            ("_updated", Json::Null) => {}
            ("_updated", Json::String(text)) => {
                entity.updated = Some(Offset::Text(text.as_str().into()));
            }
            ("_updated", other) => match other.as_i64() {
                Some(number) => entity.updated = Some(Offset::Int(number)),
                None => {
                    let expected = "`_updated` to be a string or an integer of 64 bits";
                    return Err(wrong(
                        entity.id.as_ref(),
                        EntityFault::Updated,
                        expected,
                        other,
                    ));
                }
            },
            ("_previous", value) => entity.previous = value.as_u64(),
            ("_ts", value) => entity.ts = value.as_i64(),
            ("_hash", _) => {}
            (name, value) => entity
                .properties
                .push_new(name, from_config(value, numbers)),
        }
    }
    Ok(entity)
}

/// A value as a configuration's JSON, tagged where JSON lacks the type: the tree that
/// `write_value` would write.
pub fn to_config(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(it) => Json::Bool(*it),
        Value::String(text) => Json::String(text.to_string()),
        Value::List(items) | Value::Tuple(items) => {
            Json::Array(items.iter().map(to_config).collect())
        }
        Value::Dict(dict) => Json::Object(
            dict.iter()
                .map(|(name, value)| (name.to_string(), to_config(value)))
                .collect(),
        ),
        scalar => {
            let mut text = Vec::new();
            write::write_value(scalar, &mut text);
            serde_json::from_slice(&text).expect("what is written is JSON")
        }
    }
}

impl Value {
    /// `json::from_config`.
    pub fn from_config(json: &Json, numbers: Numbers) -> Value {
        from_config(json, numbers)
    }

    /// `json::to_config`.
    pub fn to_config(&self) -> Json {
        to_config(self)
    }
}
