//! Files of other formats, in and out: CSV, XML and workbooks. What comes in is read and what goes
//! out is written piece by piece, so that neither is ever held as a whole.

mod charset;
pub mod csv;
mod excel;
mod file;
mod rows;
mod table;
mod text;
pub mod xml;

use std::borrow::Cow;

use serde_json::Value as Json;
use tahini_entity::json::{Text, write_text};
use tahini_entity::{Record, Value};
use tahini_hub::Failure;
use tahini_hub::config::Props;

/// A document on its way to a client.
pub trait Document: Send {
    /// What kind of document it is, as the header `Content-Type` says it.
    fn media_type(&self) -> String;

    /// Appends an entity; `false` when it is none that the document has.
    ///
    /// # Errors
    /// An entity failure, when the document cannot hold it.
    fn put(&mut self, record: Record<'_>) -> Result<bool, Failure>;

    /// Appends what stands behind the last entity.
    ///
    /// # Errors
    /// When the document cannot be closed.
    fn end(&mut self) -> Result<(), Failure>;

    /// How many bytes wait to be sent, about.
    fn waiting(&self) -> usize;

    /// Takes the bytes that wait to be sent.
    fn take(&mut self) -> Vec<u8>;
}

/// A way to publish what a pipe gives.
pub struct Publication {
    /// The last part of the address: `/api/publishers/<pipe>/<name>`.
    pub name: &'static str,
    /// The type of sink that it belongs to.
    pub sink: &'static str,
    /// Begins a document, by the sink's effective configuration.
    pub begin: fn(Props<'_>) -> Result<Box<dyn Document>, Failure>,
}

/// The ways to publish in other formats than JSON, by name.
pub const PUBLICATIONS: &[Publication] = &[
    Publication {
        name: "csv",
        sink: "csv_endpoint",
        begin: |props| Ok(Box::new(csv::Csv::of(props)?)),
    },
    Publication {
        name: "excel",
        sink: "csv_endpoint",
        begin: |props| Ok(Box::new(excel::Workbook::of(props)?)),
    },
    Publication {
        name: "xml",
        sink: "xml_endpoint",
        begin: |props| Ok(Box::new(xml::Xml::of(props)?)),
    },
];

/// A value as its bare text, as the function `string` of DTL makes it: nothing for null, lists and
/// dicts as JSON text. Floats are written as Python writes them.
fn bare(value: &Value) -> Cow<'_, str> {
    const TEXT: Text = Text {
        transit: false,
        sorted: true,
        spaced: true,
    };
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => Cow::Borrowed(text.as_str()),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes),
        Value::Float(number) => Cow::Owned(float(*number)),
        other => {
            let mut text = Vec::new();
            write_text(other, TEXT, &mut text);
            let text = String::from_utf8_lossy(&text);
            // Text in quotes is a type that JSON lacks: a date, a UUID.
            Cow::Owned(match other {
                Value::Date(_) | Value::Datetime(_) | Value::Uuid(_) => {
                    text.trim_matches('"').to_owned()
                }
                _ => text.into_owned(),
            })
        }
    }
}

/// The shortest text that reads back as the same float, with an exponent where Python has one.
fn float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return match plain.contains('.') {
            true => plain,
            false => plain + ".0",
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The property `skip-deleted-entities`.
fn skips_deleted(props: Props<'_>) -> Result<bool, Failure> {
    props.bool("skip-deleted-entities", true)
}

/// The names that a property holds: one, or a list of them. `None` where it is something else.
fn names(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::String(name) => Some(vec![name.clone()]),
        Json::Array(items) => {
            let names = items.iter().map(|item| item.as_str().map(str::to_owned));
            names.collect()
        }
        _ => None,
    }
}

/// The one character of `name`, if it is there.
fn opt_char(props: Props<'_>, name: &str) -> Result<Option<char>, Failure> {
    let Some(text) = props.opt_str(name)? else {
        return Ok(None);
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(one), None) if !matches!(one, '\n' | '\r') => Ok(Some(one)),
        _ => Err(props.wrong(name, "one character", props.get(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    /// What Python's `repr` gives.
    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (number, text) in [
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (1e300, "1e+300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
