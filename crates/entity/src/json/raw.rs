//! A value that was not looked at.

use super::canonical;
use super::number::Numbers;
use super::value::parse_value;
use super::write::put_encoded;
use crate::Value;
use crate::encoding;

/// A value in the form in which it came, to be read or passed on.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// In the storage encoding.
    Encoded(&'a [u8]),
    /// As the JSON text that we would write for it.
    Text(&'a [u8]),
}

impl Raw<'_> {
    /// The value as a tree; panics on bytes that neither `encode` nor an [`super::Opened`] gave.
    #[inline]
    pub fn value(self) -> Value {
        match self {
            Raw::Encoded(mut bytes) => encoding::decode(&mut bytes),
            Raw::Text(text) => read(text),
        }
    }

    /// Appends the value as it goes over the wire.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Raw::Encoded(mut bytes) => put_encoded(&mut bytes, out),
            Raw::Text(text) => out.extend_from_slice(text),
        }
    }

    /// Whether the value is null.
    pub fn is_null(self) -> bool {
        match self {
            Raw::Encoded(bytes) => bytes == [encoding::tag::NULL],
            Raw::Text(text) => text == b"null",
        }
    }
}

/// Text that was found to be in our own form, and to be UTF-8, when its entity was opened.
fn read(text: &[u8]) -> Value {
    match text {
        [b'"', inner @ .., b'"'] if inner.first() != Some(&b'~') && !inner.contains(&b'\\') => {
            let text = std::str::from_utf8(inner).expect("an opened entity is UTF-8");
            Value::String(text.into())
        }
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

/// The end of the value at `at` of `bytes`, and whether it may be passed on as text.
#[inline]
pub(super) fn find(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    match canonical::value(bytes, at, 1) {
        Some(end) => Some((end, true)),
        None => canonical::skip(bytes, at).map(|end| (end, false)),
    }
}
