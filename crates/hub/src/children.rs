//! Children that are gone (`track_children`): what an entity's `$children` no longer holds stays
//! there as deleted, so that a pipe that emits children deletes them, too.
//!
//! A deleted child stays for good: if it went with the next version, a run that gives the same
//! entity again would write a version, and a reader that sees latest versions only could miss that
//! it was ever deleted.

use std::collections::{BTreeMap, BTreeSet};

use tahini_entity::{Batch, Dict, Record, Str, Value};
use tahini_store::Snapshot;

use crate::Failure;

/// The property that holds them.
pub(crate) const CHILDREN: &str = "$children";

/// `rows` with the children that are gone since the latest versions in `before`; `None` when
/// nothing is gone.
///
/// # Errors
/// When the dataset cannot be read.
pub(crate) fn tracked(rows: &Batch, before: &dyn Snapshot) -> Result<Option<Batch>, Failure> {
    let mut known = known(rows, before)?;
    let mut out = Batch::new();
    let mut changed = false;
    for record in rows.iter() {
        let id = record.id.unwrap_or_default();
        let now = children_of(record);
        let empty = Vec::new();
        let then = known.get(id).unwrap_or(&empty);
        let all = joined(&now, then, record.meta.deleted);
        match all {
            None => out.push(record),
            Some(all) => {
                changed = true;
                let mut entity = record.to_entity();
                entity
                    .properties
                    .set(CHILDREN, Value::List(all.into_iter().collect()));
                out.push_entity(&entity)
                    .map_err(|error| Failure::entity(error.to_string()).with_entity(entity))?;
            }
        }
        if now.is_empty() && then.is_empty() {
            continue;
        }
        // The same entity may come again in this step.
        let last = out.get(out.len() - 1);
        known.insert(id.to_owned(), children_of(last));
    }
    Ok(changed.then_some(out))
}

/// The children in the latest versions of the entities that come.
fn known(rows: &Batch, before: &dyn Snapshot) -> Result<BTreeMap<String, Vec<Value>>, Failure> {
    let ids: BTreeSet<&str> = rows.iter().filter_map(|record| record.id).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut latest = Batch::new();
    before.latest(&ids, &mut latest)?;
    let with_children = latest.iter().filter_map(|record| {
        let children = children_of(record);
        (!children.is_empty()).then(|| (record.id.unwrap_or_default().to_owned(), children))
    });
    Ok(with_children.collect())
}

/// An entity's children, whatever they are.
pub(crate) fn children_of(record: Record<'_>) -> Vec<Value> {
    match record.value(CHILDREN) {
        Some(Value::List(list)) => list.iter().cloned().collect(),
        None | Some(Value::Null) => Vec::new(),
        Some(one) => vec![one],
    }
}

/// What `$children` has to be; `None` when it is that already.
fn joined(now: &[Value], then: &[Value], parent_is_deleted: bool) -> Option<Vec<Value>> {
    let ids: BTreeSet<&str> = now.iter().filter_map(id_of).collect();
    let gone = then.iter().filter_map(id_of).filter(|id| !ids.contains(id));
    let gone: Vec<Value> = gone.map(deleted).collect();
    let lives = |child: &Value| id_of(child).is_some() && !is_deleted(child);
    if gone.is_empty() && !(parent_is_deleted && now.iter().any(lives)) {
        return None;
    }
    let kept = now.iter().map(|child| match id_of(child) {
        Some(id) if parent_is_deleted => deleted(id),
        _ => child.clone(),
    });
    Some(kept.chain(gone).collect())
}

/// The `_id` of a child that has one.
pub(crate) fn id_of(child: &Value) -> Option<&str> {
    match child {
        Value::Dict(dict) => dict.get("_id").and_then(Value::as_str),
        _ => None,
    }
}

/// Whether a child says that it is deleted.
pub(crate) fn is_deleted(child: &Value) -> bool {
    match child {
        Value::Dict(dict) => matches!(dict.get("_deleted"), Some(Value::Bool(true))),
        _ => false,
    }
}

fn deleted(id: &str) -> Value {
    let mut dict = Dict::new();
    dict.push_new("_id", Value::String(Str::from(id)));
    dict.push_new("_deleted", Value::Bool(true));
    Value::Dict(dict)
}
