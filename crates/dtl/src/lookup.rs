//! The one way from an evaluation to other datasets.
//!
//! Evaluations miss first and ask afterwards: a batch is evaluated, what it misses is asked for
//! in one call, and the entities that missed something are evaluated again.

use std::sync::Arc;

use tahini_entity::{Entity, Str, Value};

use crate::Index;

/// Datasets to look things up in.
pub trait Lookup {
    /// Answers `needs`, which are distinct: one list for each, in order. Lists are in the order of
    /// `_id` and leave out deleted entities; a dataset that does not exist gives empty lists.
    ///
    /// # Errors
    /// When a dataset cannot be read; the whole batch fails.
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError>;
}

/// One thing that an evaluation missed.
#[derive(Clone, Debug)]
pub struct Need<'a> {
    /// The dataset's id; empty for `By::Previous`, which means the source's dataset.
    pub dataset: &'a str,
    /// How its entities are found.
    pub by: By<'a>,
}

/// How entities are found.
#[derive(Clone, Debug)]
pub enum By<'a> {
    /// The live entity with this `_id`.
    Id(&'a str),
    /// The live entities for which one of the index's keys equals this value (by
    /// `tahini_entity::order::eq`).
    Key(&'a Index, &'a Value),
    /// The version of the source entity with this `_id` that `_previous` points to; deleted
    /// versions count. No entity when it is gone.
    Previous {
        /// The source entity's `_id`.
        id: &'a Str,
        /// Its `_previous`.
        version: u64,
    },
    /// The completeness of another dataset as this one knows it: one entity whose property
    /// `completeness` is a datetime, or none.
    Completeness(&'a str),
}

/// Why nothing could be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LookupError {
    /// What was expected, what was found, then help.
    pub message: String,
}

/// No datasets at all: whoever looks something up gets an error that says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLookup;

impl Lookup for NoLookup {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        let wanted = match needs.first() {
            Some(need) if !need.dataset.is_empty() => format!("the dataset \"{}\"", need.dataset),
            _ => "the source's dataset".to_owned(),
        };
        Err(LookupError {
            message: format!(
                "expected datasets to look up {wanted} in, found none: these rules need a node, \
                 or datasets given beside them"
            ),
        })
    }
}
