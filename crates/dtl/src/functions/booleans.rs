//! Booleans.

use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, optional};
use crate::expr::ItemResult;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "boolean",
        args: &[optional("FUNCTION", Kind::Default), VALUES],
        doc: "Casts to booleans: booleans, and the strings \"true\" and \"false\" in any case. Other \
              values are replaced by FUNCTION, or ignored without it.",
        examples: &[
            eg(r#"["boolean", "false"]"#, "false"),
            eg(r#"["boolean", null]"#, "null"),
            eg(
                r#"["boolean", ["list", "true", "~rhttp://x.org/", "True", false, 1234]]"#,
                "[true, true, false]",
            ),
            eg(
                r#"["boolean", ["string", "n/a"], ["list", "true", "124.4"]]"#,
                r#"[true, "n/a"]"#,
            ),
        ],
        call: Call::Cast(boolean),
    },
    Function {
        name: "is-boolean",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a boolean.",
        examples: &[
            eg(r#"["is-boolean", false]"#, "true"),
            eg(r#"["is-boolean", "True"]"#, "false"),
            eg(r#"["is-boolean", ["list", true, "12345"]]"#, "true"),
        ],
        call: Call::Test(|value| matches!(value, Value::Bool(_))),
    },
];

fn boolean(value: &Value) -> ItemResult {
    Ok(match value {
        Value::Bool(truth) => Some(Value::Bool(*truth)),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
        _ => None,
    })
}
