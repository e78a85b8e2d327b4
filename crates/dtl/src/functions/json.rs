//! JSON text.

use tahini_entity::Value;
use tahini_entity::json::{self, Numbers};

use super::{Call, Function, Kind, VALUES, eg, optional};
use crate::expr::ItemResult;
use crate::limits::{Limit, MAX_LIST};
use crate::text;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "json",
        args: &[VALUES],
        doc: "JSON text of each value, without tags for the types that JSON lacks. The names of \
              dicts are sorted; a space follows commas and colons.",
        examples: &[
            eg(r#"["json", "hello"]"#, r#""\"hello\"""#),
            eg(
                r#"["json", {"b": 2, "a": [1, null]}]"#,
                r#""{\"a\": [1, null], \"b\": 2}""#,
            ),
        ],
        call: Call::Each(|value| text::json(value, false).map(Value::String).map(Some)),
    },
    Function {
        name: "json-parse",
        args: &[optional("FUNCTION", Kind::Default), VALUES],
        doc: "Reads JSON text; tagged strings stay strings. What is no JSON is replaced by \
              FUNCTION, or ignored without it.",
        examples: &[
            eg(r#"["json-parse", "{\"a\": 1}"]"#, r#"{"a": 1}"#),
            eg(
                r#"["json-parse", ["list", "hello", "123", "null"]]"#,
                "[123, null]",
            ),
            eg(r#"["json-parse", "no-value", "hello"]"#, r#""no-value""#),
        ],
        call: Call::Cast(parse_plain),
    },
    Function {
        name: "json-transit",
        args: &[VALUES],
        doc: "JSON text of each value, tagged as on the wire: like \"json\" otherwise.",
        examples: &[eg(
            r#"["json-transit", ["uri", "http://x.org/"]]"#,
            r#""\"~rhttp://x.org/\"""#,
        )],
        call: Call::Each(|value| text::json(value, true).map(Value::String).map(Some)),
    },
    Function {
        name: "json-transit-parse",
        args: &[optional("FUNCTION", Kind::Default), VALUES],
        doc: "Reads JSON text and decodes tagged strings: like \"json-parse\" otherwise.",
        examples: &[
            eg(
                r#"["is-uri", ["json-transit-parse", "\"~rhttp://x.org/\""]]"#,
                "true",
            ),
            eg(
                r#"["json-transit-parse", "no-value", "~rhttp://x.org/"]"#,
                r#""no-value""#,
            ),
        ],
        call: Call::Cast(parse_tagged),
    },
];

fn parse_plain(value: &Value) -> ItemResult {
    Ok(source(value)?.and_then(|text| json::parse_plain(text, Numbers::FLOATS).ok()))
}

fn parse_tagged(value: &Value) -> ItemResult {
    Ok(source(value)?.and_then(|text| json::parse_value(text, Numbers::FLOATS).ok()))
}

/// The text, when it may be read: a value takes far more memory than a comma.
fn source(value: &Value) -> Result<Option<&[u8]>, Limit> {
    let Some(text) = value.as_str().map(str::as_bytes) else {
        return Ok(None);
    };
    if text.len() > MAX_LIST {
        let ends = text
            .iter()
            .filter(|byte| matches!(byte, b',' | b'[' | b'{'));
        if ends.count() >= MAX_LIST {
            return Err(Limit("values in one JSON text", MAX_LIST as u64));
        }
    }
    Ok(Some(text))
}
