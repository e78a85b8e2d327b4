//! A value that was not looked at.

use super::number::Numbers;
use super::value::parse_value;
use super::write::put_encoded;
use super::{canonical, scan};
use crate::Value;
use crate::encoding;

/// A value in the form in which it came, to be read or passed on.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// In the storage encoding.
    Encoded(&'a [u8]),
    /// As the JSON text that we would write for it.
    Text(&'a str),
    /// The text of a string that has neither escapes nor a tag, without its quotes.
    Plain(&'a str),
}

impl Raw<'_> {
    /// The value as a tree; panics on bytes that neither `encode` nor an [`super::Opened`] gave.
    #[inline]
    pub fn value(self) -> Value {
        match self {
            Raw::Encoded(mut bytes) => encoding::decode(&mut bytes),
            Raw::Text(text) => read(text.as_bytes()),
            Raw::Plain(text) => Value::string(text),
        }
    }

    /// Appends the value as it goes over the wire.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Raw::Encoded(mut bytes) => put_encoded(&mut bytes, out),
            Raw::Text(text) => out.extend_from_slice(text.as_bytes()),
            Raw::Plain(text) => {
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
            }
        }
    }

    /// Whether the value counts as true: not false, null or an empty list; `None` where it has to
    /// be read to tell.
    #[inline]
    pub fn truth(self) -> Option<bool> {
        match self {
            Raw::Plain(_) => Some(true),
            Raw::Text(text) => Some(!matches!(text, "false" | "null" | "[]")),
            Raw::Encoded(_) => None,
        }
    }

    /// The bytes that it takes in this form.
    #[inline]
    pub fn size(self) -> usize {
        match self {
            Raw::Encoded(bytes) => bytes.len(),
            Raw::Text(text) | Raw::Plain(text) => text.len(),
        }
    }

    /// Where it stands in memory.
    #[inline]
    pub fn address(self) -> usize {
        match self {
            Raw::Encoded(bytes) => bytes.as_ptr().addr(),
            Raw::Text(text) | Raw::Plain(text) => text.as_ptr().addr(),
        }
    }

    /// Whether the value is null.
    pub fn is_null(self) -> bool {
        match self {
            Raw::Encoded(bytes) => bytes == [encoding::tag::NULL],
            Raw::Text(text) => text == "null",
            Raw::Plain(_) => false,
        }
    }
}

/// Text that was found to be in our own form, and to be UTF-8, when its entity was opened.
fn read(text: &[u8]) -> Value {
    match text {
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        b"null" => Value::Null,
        [b'0'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            let number = text
                .iter()
                .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
            Value::Int(number)
        }
        other => parse_value(other, Numbers::FLOATS).expect("an opened entity is well-formed"),
    }
}

/// The forms of `Raw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Encoded,
    Text,
    Plain,
}

/// The end of the value at `at` of `bytes`, and the form in which it may be passed on.
#[inline]
pub(super) fn find(bytes: &[u8], at: usize) -> Option<(usize, Form)> {
    if bytes.get(at)? == &b'"' {
        let end = scan::string_special(bytes, at + 1);
        if bytes.get(end)? == &b'"' && bytes[at + 1] != b'~' {
            return Some((end + 1, Form::Plain));
        }
    }
    match canonical::value(bytes, at, 1) {
        Some(end) => Some((end, Form::Text)),
        None => canonical::skip(bytes, at).map(|end| (end, Form::Encoded)),
    }
}
