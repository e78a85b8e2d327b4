//! The `embedded` and `empty` sources: entities that stand in the configuration, or none.

use tahini_entity::json::{self, Numbers};
use tahini_entity::{Batch, Entity, Offset};

use super::{IF_SOURCE_EMPTY, NO_SINCE};
use crate::config::{Kind, Property};
use crate::registry::SourceDef;
use crate::source::{From, Step};
use crate::{Ctx, Failure, Source};

pub(super) const EMBEDDED: SourceDef = SourceDef {
    name: "embedded",
    summary: "Gives the entities that stand in its configuration.",
    properties: &[
        Property::required("entities", Kind::List, "The entities."),
        Property::new("system", Kind::String, "Shown in graphs only.").noted(),
        Property::new(
            "supports_since",
            Kind::Boolean,
            "Whether `_updated` is kept as offset.",
        )
        .or("false"),
        Property::new(
            "is_since_comparable",
            Kind::Boolean,
            "Whether `_updated` has an order.",
        )
        .or("true"),
        Property::new(
            "is_chronological",
            Kind::Boolean,
            "Whether entities come in that order.",
        )
        .or("false"),
        Property::new(
            "initial_since_value",
            Kind::StringOrInteger,
            "Since of the first run.",
        ),
        IF_SOURCE_EMPTY,
    ],
    continuation: NO_SINCE,
    open: open_embedded,
};

pub(super) const EMPTY: SourceDef = SourceDef {
    name: "empty",
    summary: "Gives no entities.",
    properties: &[
        Property::new("system", Kind::String, "Shown in graphs only.").noted(),
        IF_SOURCE_EMPTY,
    ],
    continuation: NO_SINCE,
    open: |_, _| {
        Ok(Box::new(Embedded {
            entities: Vec::new().into_iter(),
        }))
    },
};

struct Embedded {
    entities: std::vec::IntoIter<Entity>,
}

fn open_embedded(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    let list = ctx
        .props
        .opt_list("entities")?
        .map_or(&[][..], Vec::as_slice);
    let mut entities = Vec::with_capacity(list.len());
    for (at, config) in list.iter().enumerate() {
        let entity =
            json::entity_from_config(config, Numbers::default(), at as u64).map_err(|error| {
                Failure::config(format!("{}.entities[{at}]: {error}", ctx.props.path()))
            })?;
        if is_after(&entity, from.since.as_ref()) {
            entities.push(entity);
        }
    }
    Ok(Box::new(Embedded {
        entities: entities.into_iter(),
    }))
}

/// The source honours since as a service would: strictly after it.
fn is_after(entity: &Entity, since: Option<&Offset>) -> bool {
    match (&entity.updated, since) {
        (Some(updated), Some(since)) => {
            updated.compare(since).is_none_or(std::cmp::Ordering::is_gt)
        }
        _ => true,
    }
}

impl Source for Embedded {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        for entity in self.entities.by_ref().take(limit) {
            out.push_entity(&entity)
                .map_err(|error| Failure::config(error.to_string()))?;
        }
        Ok(if self.entities.len() == 0 {
            Step::End
        } else {
            Step::More
        })
    }
}
