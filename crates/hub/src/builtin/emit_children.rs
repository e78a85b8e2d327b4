//! The `emit_children` transform: an entity's `$children` instead of the entity.

use tahini_entity::{Batch, Dict, Entity, Record, Str, Value};

use crate::children::{children_of, id_of, is_deleted};
use crate::registry::TransformDef;
use crate::{Failure, Transform};

pub(super) const DEF: TransformDef = TransformDef {
    name: "emit_children",
    summary: "Gives the entities in `$children` that have an `_id` instead of the entity itself; \
              those of a deleted entity as deleted.",
    properties: &[],
    stands_for: None,
    open: |_| Ok(Box::new(EmitChildren)),
};

struct EmitChildren;

impl Transform for EmitChildren {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        for (origin, record) in (0u32..).zip(input.iter()) {
            for child in children_of(record) {
                let Some(entity) = emitted(&child, record) else {
                    continue;
                };
                out.push_entity(&entity).map_err(|error| {
                    Failure::entity(error.to_string()).with_entity(record.to_entity())
                })?;
                origins.push(origin);
            }
        }
        Ok(())
    }
}

fn emitted(child: &Value, parent: Record<'_>) -> Option<Entity> {
    let (id, Value::Dict(dict)) = (id_of(child)?, child) else {
        return None;
    };
    let mut properties = Dict::new();
    for (name, value) in dict.iter() {
        if !matches!(name.as_str(), "_id" | "_deleted") {
            properties.push_new(name.clone(), value.clone());
        }
    }
    Some(Entity {
        id: Some(Str::from(id)),
        deleted: is_deleted(child) || parent.meta.deleted,
        filtered: parent.meta.filtered,
        properties,
        ..Entity::default()
    })
}
