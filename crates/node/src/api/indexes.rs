//! `/api/datasets/{dataset_id}/indexes`: what a dataset is looked up by, beside ids.

use serde_json::{Value as Json, json};
use tahini_hub::indexes::{Wanted, wanted};
use tahini_store::IndexState;

use super::answer::json_answer;
use super::{Answer, Call, Node, Problem};

/// The indexes of a dataset, and how far they are.
pub fn list(node: &Node, call: &Call) -> Answer {
    json_answer(&of_dataset(node, call.id("dataset_id"))?)
}

/// Has an index built anew. One that no pipe wants is removed by itself, so that there is none to
/// be deleted for good.
pub fn delete(node: &Node, call: &Call) -> Answer {
    let (name, number) = (call.id("dataset_id"), call.id("index_int_id"));
    let dataset = node.store.find(name)?;
    let dataset = dataset.ok_or_else(|| Problem::missing("dataset", name))?;
    let found = match number.parse() {
        Ok(number) => dataset.rebuild_index(number)?,
        Err(_) => false,
    };
    match found {
        true => json_answer(&json!({})),
        false => Err(Problem::missing("index", number)),
    }
}

/// The same as JSON, by their numbers.
pub fn of_dataset(node: &Node, name: &str) -> Result<Json, Problem> {
    let Some(dataset) = node.store.find(name)? else {
        return Err(Problem::missing("dataset", name));
    };
    let next = dataset.snapshot()?.head().next;
    let wanted = wanted(&node.assembly.hub).remove(name).unwrap_or_default();
    let states = dataset.indexes()?;
    let rows = states.iter().filter_map(|state| {
        let of = |wanted: &&Wanted| wanted.fingerprint == state.fingerprint;
        wanted.iter().find(of).map(|of| row(state, of, next))
    });
    Ok(Json::Array(rows.collect()))
}

fn row(state: &IndexState, wanted: &Wanted, next: u64) -> Json {
    json!({
        "index-int-id": state.number,
        "index-expression": wanted.index.fingerprint(),
        "index-version": 2,
        "ready": state.ready,
        "versions-indexed": state.next,
        "versions-total": next,
        "entries": state.entries,
        "pipes": wanted.pipes,
    })
}
