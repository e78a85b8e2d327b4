//! `/api/datasets`: what is kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_dtl::Subset;
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Fields, Layout, Numbers, Parser, write_record};
use tahini_hub::breaker::Reset;
use tahini_hub::hub::LivePipe;
use tahini_hub::subset::{self, Part};
use tahini_store::{Head, Limit, Snapshot, StoreError, View};

use super::answer::json_answer;
use super::entities::{self, json_body};
use super::runtime::{breaker_json, moment};
use super::{Answer, Call, Node, Problem, indexes};

/// Versions of one entity that are shown together, the newest ones.
const VERSIONS: u64 = 1_000;
/// Bytes of them, about.
const VERSIONS_BYTES: usize = 16 << 20;

/// All datasets; with `verbose` also which pipes write and read them.
pub fn list(node: &Node, call: &Call) -> Answer {
    let heads = node.store.list()?;
    let damaged: BTreeMap<String, String> = node.store.damaged().into_iter().collect();
    let verbose = call.flag("verbose", false)?;
    let pipes = match verbose {
        true => node.assembly.hub.pipes(),
        false => Vec::new(),
    };
    let shown = heads.iter().map(|head| {
        let damage = damaged.get(&head.name).map(String::as_str);
        let mut dataset = dataset_json(node, head, damage);
        if verbose {
            let ids = |names: &dyn Fn(&LivePipe) -> bool| -> Vec<&str> {
                let found = pipes.iter().filter(|live| names(live));
                found.map(|live| live.id()).collect()
            };
            let name = head.name.as_str();
            dataset["writers"] = json!(ids(&|live| live.component.sink_dataset() == Some(name)));
            dataset["readers"] = json!(ids(&|live| live
                .component
                .source_datasets()
                .contains(&name)));
        }
        dataset
    });
    json_answer(&Json::Array(shown.collect()))
}

/// One dataset.
pub fn one(node: &Node, call: &Call) -> Answer {
    let id = call.id("dataset_id");
    if let Some(found) = node.store.damage(id) {
        // One that cannot be opened has no head; what is wrong with it is what one wants to know.
        let heads = node.store.list()?;
        if let Some(head) = heads.iter().find(|head| head.name == id) {
            return json_answer(&dataset_json(node, head, Some(&found)));
        }
    }
    match node.head(id)? {
        Some(head) => {
            let mut json = dataset_json(node, &head, None);
            json["runtime"]["indexes"] = indexes::of_dataset(node, id)?;
            json["runtime"]["completeness"] = json!(node.completeness(id)?);
            json_answer(&json)
        }
        None => Err(Problem::missing("dataset", id)),
    }
}

fn dataset_json(node: &Node, head: &Head, damaged: Option<&str>) -> Json {
    let tripped = match head.holds {
        true => node.tripped(&head.name).ok().flatten(),
        false => None,
    };
    let has_breaker = tripped.is_some() || {
        let writers = node.assembly.hub.writers(&head.name);
        writers.iter().any(|live| live.has_breaker())
    };
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
            "damaged": damaged,
            "has-circuit-breaker": has_breaker,
            "circuit-breaker": breaker_json(tripped.as_ref()),
            "origin": origin,
        },
    })
}

/// Commits or rolls back a dataset's tripped circuit breaker, and shows the dataset as it is then.
pub fn operate(node: &Node, call: &Call) -> Answer {
    let id = call.id("dataset_id");
    if node.store.find(id)?.is_none() {
        return Err(Problem::missing("dataset", id));
    }
    let form = call.form();
    let how = match form.get("operation") {
        Some("commit-circuit-breaker") => Reset::Commit,
        Some("rollback-circuit-breaker") => Reset::RollBack,
        other => {
            let found = other.unwrap_or("none");
            return Err(Problem::bad(format!(
                "expected a form with the field `operation`, commit-circuit-breaker or \
                 rollback-circuit-breaker, found {found}"
            )));
        }
    };
    node.assembly.hub.reset_breaker(id, how, &call.user)?;
    if how == Reset::Commit {
        node.scheduler.signal(id);
    }
    one(node, call)
}

/// Deletes a dataset with all its versions, and the place of the pipe that writes it.
pub fn delete(node: &Node, call: &Call) -> Answer {
    let id = call.id("dataset_id");
    let is_damaged = node.stored.damage().is_some() && node.store.damage(id).is_some();
    if crate::configuration::DATASETS.contains(&id) && !is_damaged {
        let words = format!("dataset {id:?} holds the node's configuration and stays");
        return Err(Problem::conflict(words));
    }
    match node.store.find(id) {
        // One of which nothing can be read can be deleted all the same.
        Ok(Some(_)) | Err(StoreError::Damaged { .. }) => {}
        Ok(None) => return Err(Problem::missing("dataset", id)),
        Err(error) => return Err(error.into()),
    }
    let writers = node.assembly.hub.pipes();
    let busy = writers.iter().find(|live| {
        live.state().is_busy()
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

/// Writes entities to a dataset by hand.
pub fn repost(node: &Node, call: &Call) -> Answer {
    let name = call.id("dataset_id");
    let force = call.flag("force", false)?;
    let mut elements = Elements::new(call.body.as_ref(), Layout::ArrayOrObject);
    let (mut parser, mut batch) = (Parser::new(Numbers::default()), Batch::new());
    let wrong = |error: &dyn std::fmt::Display| Problem::bad(error.to_string());
    while let Some(element) = elements.next_element().map_err(|error| wrong(&error))? {
        parser
            .push_json(&mut batch, element)
            .map_err(|error| wrong(&error))?;
    }
    let hub = &node.assembly.hub;
    let done = hub.repost(name, &batch, force, &call.user)?;
    if done.written > 0 {
        node.scheduler.signal(name);
    }
    json_answer(&json!({ "entities": done.entities, "written": done.written }))
}

/// Removes one or several entities with all their versions.
pub fn erase(node: &Node, call: &Call) -> Answer {
    let ids: Vec<&str> = call
        .query
        .iter()
        .filter(|(name, _)| name == "entity_id")
        .map(|(_, id)| id.as_str())
        .collect();
    if ids.is_empty() {
        return Err(Problem::bad(
            "expected the parameter `entity_id`, once for each entity, found none",
        ));
    }
    let hub = &node.assembly.hub;
    let done = hub.erase(call.id("dataset_id"), &ids, &call.user)?;
    json_answer(&json!({
        "entities": done.ids, "versions": done.versions, "finished": done.finished,
    }))
}

/// One entity: its latest version or, with `offset`, the version at that offset; with `history`
/// its versions, oldest first.
pub fn entity(node: &Node, call: &Call) -> Answer {
    let Some(id) = call.get("entity_id") else {
        return Err(Problem::bad(
            "expected the parameter `entity_id`, found none",
        ));
    };
    match call.flag("history", false)? {
        true => versions(node, call, id),
        false => entity_of(node, call, id),
    }
}

/// The same with the id in the path, where older clients write it.
pub fn entity_in_path(node: &Node, call: &Call) -> Answer {
    entity_of(node, call, call.id("rest_of_path"))
}

/// The newest versions of an entity; each leads to the one before, so that an entity with many
/// takes no more memory than those that are asked for.
fn versions(node: &Node, call: &Call, id: &str) -> Answer {
    let name = call.id("dataset_id");
    let dataset = node.store.find(name)?;
    let dataset = dataset.ok_or_else(|| Problem::missing("dataset", name))?;
    let most = call.number("limit")?.unwrap_or(VERSIONS).min(VERSIONS);
    let snapshot = dataset.snapshot()?;
    let (mut batch, mut texts) = (Batch::new(), Vec::new());
    snapshot.latest(&[id], &mut batch)?;
    if batch.is_empty() {
        return Err(Problem::missing("entity", id));
    }
    let mut bytes = 0;
    while !batch.is_empty() && (texts.len() as u64) < most {
        let (mut text, record) = (Vec::new(), batch.get(0));
        write_record(record, Fields::ALL, &mut text);
        bytes += text.len();
        texts.push(text);
        let before = record.meta.previous.filter(|_| bytes < VERSIONS_BYTES);
        batch.clear();
        if let Some(before) = before {
            version_at(snapshot.as_ref(), id, before, &mut batch)?;
        }
    }
    texts.reverse();
    let text = [b"[".as_slice(), &texts.join(&b","[..]), b"]"].concat();
    Ok(json_body(text.into()))
}

fn entity_of(node: &Node, call: &Call, id: &str) -> Answer {
    let name = call.id("dataset_id");
    let dataset = node
        .store
        .find(name)?
        .ok_or_else(|| Problem::missing("dataset", name))?;
    let snapshot = match call.flag("uncommitted", false)? {
        true => dataset.uncommitted()?,
        false => dataset.snapshot()?,
    };
    let mut batch = Batch::new();
    match call.number("offset")? {
        Some(offset) => version_at(snapshot.as_ref(), id, offset, &mut batch)?,
        None => {
            snapshot.latest(&[id], &mut batch)?;
        }
    }
    let subset = entities::subset_of(node, name, call)?;
    let mut found = batch.iter().filter(|record| {
        let inside = |subset: &Subset| subset.holds(&record.to_entity());
        subset.as_ref().is_none_or(inside)
    });
    let mut other = Batch::new();
    let record = match found.next() {
        Some(record) => record,
        None if call.get("offset").is_some() || subset.is_some() => {
            return Err(Problem::missing("entity", id));
        }
        None => {
            also_known_as(node, name, snapshot.as_ref(), id, &mut other)?;
            let found = other.iter().next();
            found.ok_or_else(|| Problem::missing("entity", id))?
        }
    };
    let mut text = Vec::new();
    write_record(record, Fields::ALL, &mut text);
    Ok(json_body(text.into()))
}

/// The first entity that has an id among its `$ids`, where a pipe wants an index by them.
fn also_known_as(
    node: &Node,
    name: &str,
    snapshot: &dyn Snapshot,
    id: &str,
    out: &mut Batch,
) -> Result<(), Problem> {
    let by_ids = json!(["eq", "_S.$ids", id]);
    let Some(subset) = subset::declared(&node.assembly.hub, name, &by_ids) else {
        return Ok(());
    };
    let (mut part, mut after) = (Part::new(subset, None), None);
    let view = View {
        history: false,
        deleted: false,
    };
    let limit = Limit {
        rows: 1,
        bytes: 1 << 20,
    };
    while out.is_empty() {
        match part.changes(snapshot, after, view, limit, out)? {
            Some(seq) => after = Some(seq),
            None => break,
        }
    }
    Ok(())
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
