//! Adding a pipe's namespaces before its first transform, and removing namespaces after its last
//! (`add_namespaces`, `remove_namespaces`).

use serde_json::{Map, Value as Json};
use tahini_dtl::{Options, add_namespaces, remove_namespaces};
use tahini_entity::{Batch, Entity};

use crate::config::dtl_options;
use crate::{Failure, Transform};

/// Adds the namespaces of the effective `pipe`.
pub(crate) fn adding(pipe: &Map<String, Json>) -> Box<dyn Transform> {
    Box::new(Adding(dtl_options(pipe, &Map::new())))
}

/// Removes namespaces.
pub(crate) fn removing() -> Box<dyn Transform> {
    Box::new(Removing)
}

struct Adding(Options);

struct Removing;

impl Transform for Adding {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        each(input, out, origins, |entity| {
            add_namespaces(entity, &self.0)
        })
    }
}

impl Transform for Removing {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        each(input, out, origins, remove_namespaces)
    }
}

fn each(
    input: &Batch,
    out: &mut Batch,
    origins: &mut Vec<u32>,
    change: impl Fn(&mut Entity),
) -> Result<(), Failure> {
    for (origin, record) in (0u32..).zip(input.iter()) {
        let mut entity = record.to_entity();
        change(&mut entity);
        out.push_entity(&entity)
            .map_err(|error| Failure::entity(error.to_string()).with_entity(record.to_entity()))?;
        origins.push(origin);
    }
    Ok(())
}
