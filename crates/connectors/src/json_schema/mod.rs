//! The `json_schema` transform: says of every entity whether it is what a JSON Schema demands.

mod fetched;
mod rules;

use serde_json::{Map, Value as Json};
use tahini_entity::json::{Text, write_text};
use tahini_entity::{Batch, Entity, Record, Value};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::TransformDef;
use tahini_hub::{Ctx, Failure, Transform};

use crate::http::trigger::{self, Trigger};
use rules::Rules;

/// The row of the `json_schema` transform.
pub const JSON_SCHEMA: TransformDef = TransformDef {
    name: "json_schema",
    summary: "Says of every entity whether it is what a JSON Schema demands, and what is wrong.",
    properties: &[
        Property::new(
            "schema",
            Kind::Object,
            "The JSON Schema; required unless `schema_url` is there.",
        ),
        Property::new(
            "schema_url",
            Kind::String,
            "Where the JSON Schema is to be read from, relative to the system's base or absolute.",
        ),
        Property::new(
            "system",
            Kind::System,
            "The url system to read it from; required where `schema_url` is there.",
        ),
        Property::new(
            "key_valid",
            Kind::String,
            "The property that is set to whether the entity is valid.",
        )
        .or("\"valid\""),
        Property::new(
            "key_errors",
            Kind::String,
            "The property that lists what is wrong with an entity that is not valid.",
        )
        .or("\"errors\""),
        Property::new(
            "trigger_on",
            Kind::Nested(trigger::PROPERTIES),
            "Which entities to look at; the others pass as they are.",
        ),
    ],
    stands_for: None,
    open: |ctx| Ok(Box::new(Validation::open(ctx)?)),
};

/// An open transform.
struct Validation {
    rules: Rules,
    key_valid: String,
    key_errors: String,
    trigger: Option<Trigger>,
}

impl Validation {
    fn open(ctx: &Ctx<'_>) -> Result<Validation, Failure> {
        let props = ctx.props;
        let rules = match (props.get("schema"), props.opt_str("schema_url")?) {
            (Some(schema), _) => Rules::of(schema).map_err(|words| {
                Failure::config(format!(
                    "{}.schema: expected a JSON Schema, found one that is wrong: {words}",
                    props.path()
                ))
            })?,
            (None, Some(url)) => fetched::rules(ctx, url)?,
            (None, None) => {
                let missing = "`schema` or `schema_url`, found neither";
                let words = format!("{}: expected {missing}", props.path());
                return Err(Failure::config(words));
            }
        };
        Ok(Validation {
            rules,
            key_valid: props.opt_str("key_valid")?.unwrap_or("valid").to_owned(),
            key_errors: props.opt_str("key_errors")?.unwrap_or("errors").to_owned(),
            trigger: Trigger::of(props)?,
        })
    }

    fn judge(&self, record: Record<'_>) -> Entity {
        let mut entity = record.to_entity();
        let errors = self.rules.errors(&document(&entity));
        let properties = &mut entity.properties;
        properties.set(self.key_valid.as_str(), Value::Bool(errors.is_empty()));
        if !errors.is_empty() {
            let list = errors.into_iter().map(Value::string).collect();
            properties.set(self.key_errors.as_str(), Value::List(list));
        }
        entity
    }
}

impl Transform for Validation {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        for (position, record) in (0u32..).zip(input.iter()) {
            let trigger = self.trigger.as_ref();
            if trigger.is_none_or(|trigger| trigger.fits(record)) {
                let judged = out.push_entity(&self.judge(record));
                judged.map_err(|error| {
                    Failure::entity(error.to_string()).with_entity(record.to_entity())
                })?;
            } else {
                out.push(record);
            }
            origins.push(position);
        }
        Ok(())
    }
}

/// An entity as the document that a schema is about: as on the wire, but that a decimal is a number
/// like others.
fn document(entity: &Entity) -> Json {
    object(&entity.to_dict())
}

fn object(dict: &tahini_entity::Dict) -> Json {
    let pairs = dict.iter();
    let pairs = pairs.map(|(name, value)| (name.to_string(), json(value)));
    Json::Object(pairs.collect::<Map<String, Json>>())
}

fn json(value: &Value) -> Json {
    let numeral = |text: String| serde_json::from_str(&text).unwrap_or(Json::Null);
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::BigInt(number) => numeral(number.to_string()),
        Value::Decimal(number) => numeral(number.to_string()),
        Value::String(text) => Json::String(text.to_string()),
        Value::List(items) | Value::Tuple(items) => items.iter().map(json).collect(),
        Value::Dict(dict) => object(dict),
        tagged => {
            let mut text = Vec::new();
            write_text(tagged, Text::WIRE, &mut text);
            serde_json::from_slice(&text).unwrap_or(Json::Null)
        }
    }
}
