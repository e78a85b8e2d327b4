//! An entity as a tree, for the code that needs to look at all of it.

use std::cmp::Ordering;
use std::fmt;

use crate::{Dict, Str, Value};

/// A source's `_updated`, and with it a pipe's place in that source: opaque, a string or an integer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Offset {
    /// A whole number; a dataset's offsets count from 0.
    Int(i64),
    /// Any text.
    Text(Str),
}

impl Offset {
    /// Order of two offsets as the protocol says: numbers by value, strings by byte.
    /// `None` when one is a number and the other a string: those have no order.
    pub fn compare(&self, other: &Offset) -> Option<Ordering> {
        match (self, other) {
            (Offset::Int(a), Offset::Int(b)) => Some(a.cmp(b)),
            (Offset::Text(a), Offset::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            _ => None,
        }
    }
}

impl fmt::Display for Offset {
    /// The bare form that goes into a `since` parameter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offset::Int(number) => number.fmt(f),
            Offset::Text(text) => f.write_str(text),
        }
    }
}

/// One version of an entity as a tree.
///
/// The reserved root fields that the protocols define stand in fields of their own;
/// `properties` holds everything else, including `$…` names and unknown `_…` names.
#[derive(Clone, Debug, Default)]
pub struct Entity {
    /// `_id`; it may be missing until the entity reaches a sink.
    pub id: Option<Str>,
    /// `_deleted`: true only for JSON `true`.
    pub deleted: bool,
    /// `_filtered`: set by the DTL function `filter`.
    pub filtered: bool,
    /// `_updated` as the source gave it.
    pub updated: Option<Offset>,
    /// `_previous`: the sequence of the version before, in the same dataset.
    pub previous: Option<u64>,
    /// `_ts`: microseconds since 1970 UTC when the version was written.
    pub ts: Option<i64>,
    /// `_hash`, 128 bits, printed as 32 hex digits.
    pub hash: Option<u128>,
    /// The properties.
    pub properties: Dict,
}

impl Entity {
    /// The entity as one dict, as rules and the execution log see it: `_id`, `_deleted` where it is
    /// true, and the properties.
    pub fn to_dict(&self) -> Dict {
        let mut dict = Dict::new();
        if let Some(id) = &self.id {
            dict.push_new("_id", Value::String(id.clone()));
        }
        if self.deleted {
            dict.push_new("_deleted", Value::Bool(true));
        }
        for (name, value) in self.properties.iter() {
            dict.set(name.clone(), value.clone());
        }
        dict
    }
}
