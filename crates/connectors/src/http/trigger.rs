//! `trigger_on`: which entities a transform is for.

use tahini_entity::json::{Numbers, from_config};
use tahini_entity::{Record, Value, order};
use tahini_hub::Failure;
use tahini_hub::config::{Kind, Property, Props};

use crate::rest::bare;

/// The property that holds the trigger where `key` is not given.
const KEY: &str = "_trigger";

/// The properties of `trigger_on`.
pub(crate) const PROPERTIES: &[Property] = &[
    Property::new("key", Kind::String, "The path of the property to look at.").or("\"_trigger\""),
    Property::required(
        "value",
        Kind::Any,
        "What it must hold; in text `*` stands for anything. Of a list one element is enough.",
    ),
];

/// A condition on one property of an entity.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    path: Vec<String>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// Text with `*` between its parts.
    Text(Vec<String>),
    Value(Value),
}

impl Trigger {
    /// The condition under `trigger_on`, if there is one.
    ///
    /// # Errors
    /// Config, when it has no `value`.
    pub(crate) fn of(props: Props<'_>) -> Result<Option<Trigger>, Failure> {
        let Some(object) = props.opt_object("trigger_on")? else {
            return Ok(None);
        };
        let inner = format!("{}.trigger_on", props.path());
        let inner = Props::new(&inner, object);
        let value = inner
            .get("value")
            .ok_or_else(|| inner.wrong("value", "a value", None))?;
        let wanted = match value.as_str() {
            Some(text) => Wanted::Text(text.split('*').map(str::to_owned).collect()),
            None => Wanted::Value(from_config(value, Numbers::FLOATS)),
        };
        Ok(Some(Trigger {
            path: path(inner.opt_str("key")?.unwrap_or(KEY)),
            wanted,
        }))
    }

    /// Whether the entity is for the transform.
    pub(crate) fn fits(&self, record: Record<'_>) -> bool {
        let Some((first, rest)) = self.path.split_first() else {
            return false;
        };
        let value = match first.as_str() {
            "_id" => record.id.map(Value::string),
            "_deleted" => Some(Value::Bool(record.meta.deleted)),
            name => record.value(name),
        };
        value.is_some_and(|value| self.reaches(&value, rest))
    }

    fn reaches(&self, value: &Value, rest: &[String]) -> bool {
        match (value, rest) {
            (Value::List(items), _) => items.iter().any(|item| self.reaches(item, rest)),
            (Value::Dict(dict), [name, rest @ ..]) => dict
                .get(name)
                .is_some_and(|inner| self.reaches(inner, rest)),
            (_, [_, ..]) | (Value::Null, []) => false,
            (value, []) => match &self.wanted {
                Wanted::Text(parts) => matches(&bare(value), parts),
                Wanted::Value(wanted) => order::eq(value, wanted),
            },
        }
    }
}

/// Whether an entity passes a transform as it is: it does not fit the trigger, or rules before have
/// filtered it, and then it is on its way to the sink only.
pub(crate) fn passes(trigger: Option<&Trigger>, record: Record<'_>) -> bool {
    record.meta.filtered || trigger.is_some_and(|trigger| !trigger.fits(record))
}

fn matches(text: &str, parts: &[String]) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|only| only == text);
    };
    let Some(mut text) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for part in middle {
        match text.find(part.as_str()) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last.as_str())
}

/// The elements of a path; those in single quotes may hold points, and `''` is a quote in them.
fn path(text: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let element = path
            .last_mut()
            .expect("a path starts with one element and only grows");
        match c {
            '\'' if quoted && chars.peek() == Some(&'\'') => {
                chars.next();
                element.push('\'');
            }
            '\'' if quoted || element.is_empty() => quoted = !quoted,
            '.' if !quoted => path.push(String::new()),
            c => element.push(c),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tahini_entity::Batch;
    use tahini_entity::json::Parser;

    use super::*;

    fn fits(trigger: serde_json::Value, entity: serde_json::Value) -> bool {
        let config = json!({ "trigger_on": trigger });
        let trigger = Trigger::of(Props::new("$", config.as_object().unwrap()))
            .unwrap()
            .unwrap();
        let mut batch = Batch::new();
        let text = entity.to_string();
        Parser::new(Numbers::FLOATS)
            .push_json(&mut batch, text.as_bytes())
            .unwrap();
        trigger.fits(batch.get(0))
    }

    #[test]
    fn an_entity_fits_by_key_and_value() {
        let cases = [
            (
                json!({ "value": "send" }),
                json!({ "_trigger": "send" }),
                true,
            ),
            (
                json!({ "value": "send" }),
                json!({ "_trigger": "sends" }),
                false,
            ),
            (
                json!({ "value": "send" }),
                json!({ "other": "send" }),
                false,
            ),
            (
                json!({ "value": "send" }),
                json!({ "_trigger": null }),
                false,
            ),
            (
                json!({ "value": "some-*" }),
                json!({ "_trigger": "some-value" }),
                true,
            ),
            (
                json!({ "value": "*-value" }),
                json!({ "_trigger": "some-value" }),
                true,
            ),
            (
                json!({ "value": "*m*-*l*" }),
                json!({ "_trigger": "some-value" }),
                true,
            ),
            (
                json!({ "value": "*x*" }),
                json!({ "_trigger": "some-value" }),
                false,
            ),
            (
                json!({ "value": "ab*ba" }),
                json!({ "_trigger": "aba" }),
                false,
            ),
            (json!({ "value": "*" }), json!({ "_trigger": "" }), true),
            (
                json!({ "key": "a.b", "value": "x" }),
                json!({ "a": { "b": "x" } }),
                true,
            ),
            (
                json!({ "key": "a.b", "value": "x" }),
                json!({ "a": [{ "b": ["y", "x"] }] }),
                true,
            ),
            (
                json!({ "key": "a.b", "value": "x" }),
                json!({ "a": "x" }),
                false,
            ),
            (
                json!({ "key": "'a.b'", "value": "x" }),
                json!({ "a.b": "x" }),
                true,
            ),
            (json!({ "key": "n", "value": 1 }), json!({ "n": 1 }), true),
            (
                json!({ "key": "n", "value": true }),
                json!({ "n": "true" }),
                false,
            ),
            (json!({ "key": "n", "value": "1" }), json!({ "n": 1 }), true),
            (
                json!({ "key": "_id", "value": "a*" }),
                json!({ "_id": "abc" }),
                true,
            ),
            (
                json!({ "key": "_deleted", "value": true }),
                json!({ "_deleted": true }),
                true,
            ),
        ];
        for (trigger, entity, expected) in cases {
            assert_eq!(
                fits(trigger.clone(), entity.clone()),
                expected,
                "{trigger} {entity}"
            );
        }
    }

    #[test]
    fn a_condition_without_a_value_is_a_config_failure() {
        let config = json!({ "trigger_on": { "key": "a" } });
        let failure = Trigger::of(Props::new("$", config.as_object().unwrap())).unwrap_err();
        assert!(failure.message.contains("$.trigger_on.value"), "{failure}");
    }
}
