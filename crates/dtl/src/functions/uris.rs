//! URIs.

use std::sync::Arc;

use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, optional};
use crate::expr::{Item, ItemResult};
use crate::limits;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "is-uri",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a URI.",
        examples: &[
            eg(r#"["is-uri", ["uri", "foo:bar"]]"#, "true"),
            eg(r#"["is-uri", "foo:bar"]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Uri(_))),
    },
    Function {
        name: "uri",
        args: &[VALUES],
        doc: "Casts strings to URIs, without any escaping. URIs stay as they are, other values are \
              ignored.",
        examples: &[eg(
            r#"["uri", ["list", "http://x.org/", 12345]]"#,
            r#"["~rhttp://x.org/"]"#,
        )],
        call: Call::Each(uri),
    },
    Function {
        name: "url-quote",
        args: &[optional("SAFE_CHARS", Kind::String), VALUES],
        doc: "Percent-encodes strings. Letters, digits, \"_\", \".\", \"-\", \"~\" and the ASCII \
              characters of SAFE_CHARS stay. Values that are no strings are ignored.",
        examples: &[
            eg(
                r#"["url-quote", "/foo bar/baz"]"#,
                r#""%2Ffoo%20bar%2Fbaz""#,
            ),
            eg(
                r#"["url-quote", "/", "/foo bar/baz"]"#,
                r#""/foo%20bar/baz""#,
            ),
        ],
        call: Call::With(quote),
    },
    Function {
        name: "url-unquote",
        args: &[VALUES],
        doc: "Decodes percent-encoded strings. Values that are no strings are ignored.",
        examples: &[
            eg(
                r#"["url-unquote", "%2Ffoo%20bar%2Fbaz"]"#,
                r#""/foo bar/baz""#,
            ),
            eg(
                r#"["url-unquote", ["list", 1, "%C3%A5", "100%"]]"#,
                r#"["å", "100%"]"#,
            ),
        ],
        call: Call::Each(unquote),
    },
];

fn uri(value: &Value) -> ItemResult {
    Ok(match value {
        Value::String(text) => Some(Value::Uri(text.clone())),
        Value::Uri(_) => Some(value.clone()),
        _ => None,
    })
}

fn quote(args: &[Value]) -> Result<Item, String> {
    let mut stays = [false; 256];
    for byte in 0..=u8::MAX {
        stays[usize::from(byte)] = byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte);
    }
    match &args[0] {
        Value::Null => {}
        Value::String(text) => {
            let safe = text.bytes().filter(u8::is_ascii);
            safe.for_each(|byte| stays[usize::from(byte)] = true);
        }
        other => {
            return Err(format!(
                "expected a string for SAFE_CHARS, found {}",
                crate::values::a_kind(other)
            ));
        }
    }
    Ok(Arc::new(move |value: &Value| {
        let Value::String(text) = value else {
            return Ok(None);
        };
        limits::string(text.len().saturating_mul(3))?;
        let mut quoted = String::with_capacity(text.len());
        for byte in text.bytes() {
            if stays[usize::from(byte)] {
                quoted.push(byte as char);
            } else {
                let digit = |four: u8| b"0123456789ABCDEF"[usize::from(four)] as char;
                quoted.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        Ok(Some(Value::string(quoted)))
    }))
}

fn unquote(value: &Value) -> ItemResult {
    let Value::String(text) = value else {
        return Ok(None);
    };
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let code = code.filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    Ok(Some(Value::string(
        String::from_utf8_lossy(&plain).into_owned(),
    )))
}
