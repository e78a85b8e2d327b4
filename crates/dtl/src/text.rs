//! Values as text: the `string` cast and JSON.

use tahini_entity::json::{self, Text};
use tahini_entity::{Str, Value};

use crate::limits::{self, Limit};
use crate::number;
use crate::weight::TOO_DEEP;

/// JSON without tags, names sorted, spaces after commas and colons.
const PLAIN: Text = Text {
    transit: false,
    sorted: true,
    spaced: true,
};
/// The same with tags.
const TAGGED: Text = Text {
    transit: true,
    sorted: true,
    spaced: true,
};

/// What the `string` cast makes of a value; `None` for null and for bytes that are no text.
pub(crate) fn string(value: &Value) -> Result<Option<Str>, Limit> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => text.clone(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => return Ok(None),
        },
        Value::Decimal(number) => number::decimal_text(number)?.into(),
        other => plain(other)?,
    }))
}

/// JSON text without tags.
pub(crate) fn plain(value: &Value) -> Result<Str, Limit> {
    unquote(write(value, PLAIN)?, value)
}

/// JSON text, tagged or not.
pub(crate) fn json(value: &Value, tagged: bool) -> Result<Str, Limit> {
    Ok(write(value, if tagged { TAGGED } else { PLAIN })?.into())
}

fn write(value: &Value, form: Text) -> Result<String, Limit> {
    let limit = Limit("bytes in one value", limits::MAX_STRING as u64);
    measure(value, limits::MAX_STRING, limit)?;
    let mut out = Vec::new();
    json::write_text(value, form, &mut out);
    limits::string(out.len())?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Types whose JSON is a string lose their quotes: dates, datetimes and UUIDs.
fn unquote(text: String, value: &Value) -> Result<Str, Limit> {
    let quoted = matches!(value, Value::Date(_) | Value::Datetime(_) | Value::Uuid(_));
    Ok(
        match text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
        {
            Some(bare) if quoted => bare.into(),
            _ => text.into(),
        },
    )
}

/// How many bytes a value takes when it is written out, about; `None` when it is more than `most`.
pub(crate) fn measured(value: &Value, most: usize) -> Option<usize> {
    let mut left = most;
    walk(value, &mut left, 0).ok()?;
    Some(most - left)
}

/// Counts what a value takes at least when it is written out, and stops early: lists that share
/// their items can be far larger than the memory they take. `limit` is what is said of more bytes
/// than `most`.
pub(crate) fn measure(value: &Value, most: usize, limit: Limit) -> Result<(), Limit> {
    let mut left = most;
    walk(value, &mut left, 0).map_err(|beyond| match beyond {
        Beyond::Bytes => limit,
        Beyond::Levels => TOO_DEEP,
    })
}

/// What a value has more of than can be written.
enum Beyond {
    Bytes,
    Levels,
}

fn walk(value: &Value, left: &mut usize, depth: usize) -> Result<(), Beyond> {
    let own = match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => text.len() + 2,
        Value::Bytes(bytes) => bytes.len() + 2,
        _ => 2,
    };
    *left = left.checked_sub(own).ok_or(Beyond::Bytes)?;
    if depth > tahini_entity::encoding::MAX_DEPTH {
        return Err(Beyond::Levels);
    }
    match value {
        Value::List(items) | Value::Tuple(items) => {
            for item in items {
                walk(item, left, depth + 1)?;
            }
        }
        Value::Dict(dict) => {
            for (name, value) in dict.iter() {
                *left = left.checked_sub(name.len() + 3).ok_or(Beyond::Bytes)?;
                walk(value, left, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}
