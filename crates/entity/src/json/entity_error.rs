//! What is wrong with one entity of a stream.

use std::fmt;

use super::scan;

/// Which rule an entity breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityFault {
    /// It is not well-formed: JSON's grammar, UTF-8, a lone surrogate, depth, a number's size.
    Json,
    /// `_id` is there twice, and only once a string.
    Id,
    /// `_updated` is there and neither a string nor an integer of 64 bits.
    Updated,
}

/// An entity that cannot be read; the entities around it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct EntityError {
    /// Which entity of the stream, counted from 0.
    pub position: u64,
    /// Its `_id`, as far as it can be found.
    pub id: Option<String>,
    /// Where in the entity's own text, in bytes from 0.
    pub offset: usize,
    /// The rule that it breaks.
    pub fault: EntityFault,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for EntityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the entity at position {}", self.position)?;
        if let Some(id) = &self.id {
            write!(f, ", with the `_id` {id:?}")?;
        }
        write!(
            f,
            ": {} (at byte {} of the entity)",
            self.message, self.offset
        )
    }
}

/// A fault and its place, on its way to become an `EntityError` or a `ValueError`.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) kind: EntityFault,
    pub(super) message: String,
}

/// Boxed, so that the results of the parser's inner functions fit a register.
pub(super) type Step<T> = Result<T, Box<Fault>>;

pub(super) fn fault<T>(at: usize, message: impl Into<String>) -> Step<T> {
    Err(Box::new(Fault {
        at,
        kind: EntityFault::Json,
        message: message.into(),
    }))
}

impl Fault {
    pub(super) fn of(self, position: u64, element: &[u8]) -> EntityError {
        EntityError {
            position,
            id: find_id(element),
            offset: self.at,
            fault: self.kind,
            message: self.message,
        }
    }
}

/// The `_id` of a text that is not well-formed, if it can be made out.
fn find_id(element: &[u8]) -> Option<String> {
    let mut depth = 0;
    let mut at = 0;
    while at < element.len() {
        match element[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = string_end(element, at)?;
                let colon = scan::past_space(element, end);
                if depth == 1
                    && &element[at..end] == b"\"_id\""
                    && element.get(colon) == Some(&b':')
                {
                    let value = scan::past_space(element, colon + 1);
                    if element.get(value) != Some(&b'"') {
                        return None;
                    }
                    let id = &element[value + 1..string_end(element, value)? - 1];
                    return Some(String::from_utf8_lossy(id).into_owned());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place behind the closing quote of the string that starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = scan::quote_or_backslash(bytes, at + 1);
    while bytes.get(at) == Some(&b'\\') {
        at = scan::quote_or_backslash(bytes, (at + 2).min(bytes.len()));
    }
    (at < bytes.len()).then_some(at + 1)
}
