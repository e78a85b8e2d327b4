//! `/api/datasets`: what is kept.

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_store::{Head, Limit, Snapshot, View};

use super::answer::json_answer;
use super::entities::json_body;
use super::runtime::moment;
use super::{Answer, Call, Node, Problem};

/// All datasets.
pub fn list(node: &Node, _: &Call) -> Answer {
    let heads = node.store.list()?;
    let shown = heads.iter().map(|head| dataset_json(node, head));
    json_answer(&Json::Array(shown.collect()))
}

/// One dataset.
pub fn one(node: &Node, call: &Call) -> Answer {
    let id = call.id("dataset_id");
    match node.head(id)? {
        Some(head) => json_answer(&dataset_json(node, &head)),
        None => Err(Problem::missing("dataset", id)),
    }
}

fn dataset_json(node: &Node, head: &Head) -> Json {
    // One that cannot be read hides nothing else.
    let completeness = node.completeness(&head.name).ok().flatten();
    let changed = Timestamp::from_microsecond(head.last_ts)
        .ok()
        .filter(|_| head.last_ts > 0);
    let origin = if head.name.starts_with("system:") {
        "system"
    } else {
        "user"
    };
    json!({
        "_id": head.name,
        "storage": head.bytes,
        "runtime": {
            "count-index-exists": head.live,
            "count-index-deleted": head.deleted,
            "count-versions": head.next,
            "last-modified": moment(changed),
            "populated": head.populated,
            "generation": head.generation.to_string(),
            "max-updated": head.next.checked_sub(1),
            "has-circuit-breaker": false,
            "origin": origin,
            "completeness": completeness,
        },
    })
}

/// Deletes a dataset with all its versions, and the place of the pipe that writes it.
pub fn delete(node: &Node, call: &Call) -> Answer {
    let id = call.id("dataset_id");
    if crate::configuration::DATASETS.contains(&id) {
        let words = format!("dataset {id:?} holds the node's configuration and stays");
        return Err(Problem::conflict(words));
    }
    if node.store.find(id)?.is_none() {
        return Err(Problem::missing("dataset", id));
    }
    let writers = node.assembly.hub.pipes();
    let busy = writers.iter().find(|live| {
        live.state().running
            && (live.component.sink_dataset() == Some(id)
                || tahini_hub::execution_log::dataset_id(live.id()) == id)
    });
    if let Some(live) = busy {
        let words = format!(
            "pipe {:?} is writing to dataset {id:?}; stop it first",
            live.id()
        );
        return Err(Problem::conflict(words));
    }
    node.store.remove(id)?;
    json_answer(&json!({}))
}

/// One entity: its latest version or, with `offset`, the version at that offset.
pub fn entity(node: &Node, call: &Call) -> Answer {
    let name = call.id("dataset_id");
    let Some(id) = call.get("entity_id") else {
        return Err(Problem::bad(
            "expected the parameter `entity_id`, found none",
        ));
    };
    let dataset = node
        .store
        .find(name)?
        .ok_or_else(|| Problem::missing("dataset", name))?;
    let snapshot = dataset.snapshot()?;
    let mut batch = Batch::new();
    match call.number("offset")? {
        Some(offset) => version_at(snapshot.as_ref(), id, offset, &mut batch)?,
        None => {
            snapshot.latest(&[id], &mut batch)?;
        }
    }
    let Some(record) = batch.iter().next() else {
        return Err(Problem::missing("entity", id));
    };
    let mut text = Vec::new();
    write_record(record, Fields::ALL, &mut text);
    Ok(json_body(text.into()))
}

fn version_at(
    snapshot: &dyn Snapshot,
    id: &str,
    offset: u64,
    out: &mut Batch,
) -> Result<(), Problem> {
    let view = View {
        history: true,
        deleted: true,
    };
    let limit = Limit {
        rows: 1,
        bytes: 1 << 20,
    };
    snapshot.changes(offset.checked_sub(1), view, limit, out)?;
    let updated = i64::try_from(offset).ok().map(tahini_entity::Offset::Int);
    let is_it = out
        .iter()
        .next()
        .is_some_and(|record| record.id == Some(id) && record.meta.updated == updated);
    if !is_it {
        out.clear();
    }
    Ok(())
}
