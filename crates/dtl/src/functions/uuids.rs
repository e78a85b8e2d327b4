//! UUIDs.

use tahini_entity::Value;
use uuid::Uuid;

use super::{Call, Function, Kind, VALUES, eg, optional};
use crate::analysis::Why;
use crate::compile::{Compiler, Given};
use crate::expr::{Expr, ItemResult};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "is-uuid",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a UUID.",
        examples: &[
            eg(
                r#"["is-uuid", "~u9f598f65-eea5-4906-a8f5-82f6d8e69726"]"#,
                "true",
            ),
            eg(
                r#"["is-uuid", "9f598f65-eea5-4906-a8f5-82f6d8e69726"]"#,
                "false",
            ),
        ],
        call: Call::Test(|value| matches!(value, Value::Uuid(_))),
    },
    Function {
        name: "uuid",
        args: &[optional("VALUES", Kind::Value)],
        doc: "Without an argument a new random UUID (version 4), another one at every evaluation. \
              Otherwise casts strings to UUIDs; what is none is ignored.",
        examples: &[eg(
            r#"["uuid", ["list", "abc98f65-ddf5-1234-a8f5-82f6d8e601a8", 2]]"#,
            r#"["~uabc98f65-ddf5-1234-a8f5-82f6d8e601a8"]"#,
        )],
        call: Call::Special(compile),
    },
];

fn compile(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    match compiler.optional(given, 0) {
        Some(values) => Expr::Each(parse, Box::new(values)),
        None => {
            compiler.depends_on(Why::Random);
            Expr::NewUuid
        }
    }
}

fn parse(value: &Value) -> ItemResult {
    Ok(match value {
        Value::Uuid(_) => Some(value.clone()),
        Value::String(text) => Uuid::try_parse(text).ok().map(Value::Uuid),
        _ => None,
    })
}
