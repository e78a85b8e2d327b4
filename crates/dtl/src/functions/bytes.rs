//! Bytes.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ecow::EcoVec;
use tahini_entity::Value;

use super::{Call, Function, VALUES, eg};
use crate::expr::ItemResult;
use crate::limits;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "base64-decode",
        args: &[VALUES],
        doc: "Decodes base64 strings to bytes. Other values, and strings that are no base64, are \
              ignored.",
        examples: &[
            eg(r#"["base64-decode", "YWJj"]"#, r#""~bYWJj""#),
            eg(
                r#"["base64-decode", ["list", 1, "YWJj", "?"]]"#,
                r#"["~bYWJj"]"#,
            ),
        ],
        call: Call::Each(decode),
    },
    Function {
        name: "base64-encode",
        args: &[VALUES],
        doc: "Encodes bytes as base64 strings. Other values are ignored.",
        examples: &[
            eg(r#"["base64-encode", ["bytes", "abc"]]"#, r#""YWJj""#),
            eg(r#"["base64-encode", "abc"]"#, "null"),
        ],
        call: Call::Each(encode),
    },
    Function {
        name: "bytes",
        args: &[VALUES],
        doc: "Casts strings to their bytes in UTF-8. Bytes stay as they are, other values are \
              ignored.",
        examples: &[
            eg(r#"["bytes", "abc"]"#, r#""~bYWJj""#),
            eg(r#"["bytes", 1]"#, "null"),
        ],
        call: Call::Each(bytes),
    },
    Function {
        name: "is-bytes",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is bytes.",
        examples: &[
            eg(r#"["is-bytes", "~bYWJj"]"#, "true"),
            eg(r#"["is-bytes", ["list", "12345", "~bYWJj"]]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Bytes(_))),
    },
];

/// Standard base64, padding optional when reading.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode(value: &Value) -> ItemResult {
    let Value::String(text) = value else {
        return Ok(None);
    };
    Ok(BASE64
        .decode(text.as_bytes())
        .ok()
        .map(|bytes| Value::Bytes(EcoVec::from(bytes))))
}

fn encode(value: &Value) -> ItemResult {
    let Value::Bytes(bytes) = value else {
        return Ok(None);
    };
    limits::string(bytes.len() / 3 * 4)?;
    Ok(Some(Value::string(BASE64.encode(bytes))))
}

fn bytes(value: &Value) -> ItemResult {
    Ok(match value {
        Value::String(text) => Some(Value::Bytes(EcoVec::from(text.as_bytes()))),
        Value::Bytes(_) => Some(value.clone()),
        _ => None,
    })
}
