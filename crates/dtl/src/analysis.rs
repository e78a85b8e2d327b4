//! What is known about rules without running them.

use std::collections::BTreeSet;
use std::fmt;

use crate::error::JsonPath;

/// The properties of the source entity that rules read: names and patterns of its own properties,
/// not those of dicts in them. `_id` and `_deleted` are always read. Rules may read fewer of them
/// than this says, never others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    names: BTreeSet<String>,
}

impl Properties {
    pub(crate) fn add(&mut self, name: &str) {
        if !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
    }

    /// Whether the rules read everything there is.
    pub fn is_all(&self) -> bool {
        self.names.contains("*")
    }

    /// Names, and patterns with `*` and `?`, sorted; `*` when everything is read.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// Why equal entities may give different results, and where the rules say so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Why.
    pub why: Why,
    /// The expression.
    pub path: JsonPath,
}

/// What results depend on beside the entity's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The time: `now`.
    Now,
    /// Chance: `uuid` without an argument.
    Random,
    /// Other datasets: `hops`, `lookup-entity` and the like.
    Datasets,
    /// The version of the entity: `is-changed`, `_updated` and the like.
    Versions,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Now => "the time",
            Why::Random => "chance",
            Why::Datasets => "other datasets",
            Why::Versions => "the entity's version",
        })
    }
}
