//! What the entities of pipes and datasets look like: inferred types, and columns for tables.

use serde_json::{Value as Json, json};
use tahini_hub::Cancel;
use tahini_hub::entity_type::{Change, SAMPLE, Side, TableDefinition};
use tahini_hub::hub::LivePipe;
use tahini_hub::source::From;
use tahini_hub::stage::{self, Purpose, Stage};
use tahini_store::{Limit, View};

use super::answer::json_answer;
use super::pipes::named;
use super::{Answer, Call, Node, Problem};

/// The most entities of a sample, whatever is asked for.
const MOST: u64 = 100_000;
/// How much of a dataset is looked at together.
const STEP: Limit = Limit {
    rows: 1_000,
    bytes: 1 << 20,
};

/// The inferred types of a pipe and how they changed.
pub fn all(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    let kept = node.assembly.hub.entity_types(live.id())?;
    let side = |side: Side| kept.side(side).map(|found| found.schema(live.id(), side));
    let changes: Vec<Json> = kept.changes.iter().map(Change::to_json).collect();
    json_answer(&json!({
        "source": side(Side::Source),
        "sink": side(Side::Sink),
        "changes": changes,
    }))
}

/// The type of what the source gives.
pub fn source(node: &Node, call: &Call) -> Answer {
    one(node, call, Side::Source)
}

/// The type of what the sink is given.
pub fn sink(node: &Node, call: &Call) -> Answer {
    one(node, call, Side::Sink)
}

/// A pipe that ran and had nothing to show has an empty schema; clients wait for it otherwise.
fn one(node: &Node, call: &Call, side: Side) -> Answer {
    let live = named(node, call)?;
    let id = live.id();
    let kept = node.assembly.hub.entity_types(id)?;
    if let Some(found) = kept.side(side) {
        return json_answer(&found.schema(id, side));
    }
    let pipe = live.usable()?;
    if pipe.infers && live.state().last.is_some_and(|last| last.success()) {
        return json_answer(&json!({}));
    }
    let why = match pipe.infers {
        true => "it has not run yet",
        false => "`infer_pipe_entity_types` is off",
    };
    let words = format!("nothing was inferred of the entities of pipe {id:?}: {why}");
    Err(Problem::new(axum::http::StatusCode::NOT_FOUND, words))
}

/// What is wanted of a table's definition.
struct Wanted {
    sample: u64,
    keys_only: bool,
}

impl Wanted {
    fn of(call: &Call) -> Result<Wanted, Problem> {
        Ok(Wanted {
            sample: call.number("sample_size")?.unwrap_or(SAMPLE).min(MOST),
            keys_only: call.flag("keys_only", false)?,
        })
    }

    fn answer(&self, found: &TableDefinition, key_is_id: bool) -> Answer {
        json_answer(&match self.keys_only {
            true => found.keys(),
            false => found.columns(key_is_id),
        })
    }
}

/// Columns for the entities that a pipe gives.
pub fn columns_of_pipe(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    let wanted = Wanted::of(call)?;
    let found = sample(node, &live, wanted.sample)?;
    let sink = live.component.sink();
    let sink = sink.map();
    let has = |name: &str, value: Json| sink.get(name) == Some(&value);
    let makes_table = has("type", json!("sql")) && has("create_table_if_missing", json!(true));
    wanted.answer(&found, makes_table)
}

fn sample(node: &Node, live: &LivePipe, size: u64) -> Result<TableDefinition, Problem> {
    let pipe = live.usable()?;
    let mut found = TableDefinition::default();
    if size == 0 {
        return Ok(found);
    }
    let cancel = Cancel::new();
    let from = From {
        full: true,
        ..From::default()
    };
    let wanted = (Stage::Sink, Purpose::Look);
    let world = &node.assembly.hub.world;
    stage::read(pipe, world, wanted, from, &cancel, |batch| {
        found.observe(batch, size);
        found.entities() < size
    })
    .map_err(|failure| failure.hiding(node.assembly.secrets.as_ref()))?;
    Ok(found)
}

/// Columns for the entities of a dataset.
pub fn columns_of_dataset(node: &Node, call: &Call) -> Answer {
    let name = call.id("dataset_id");
    let wanted = Wanted::of(call)?;
    let dataset = node.store.find(name)?;
    let dataset = dataset.ok_or_else(|| Problem::missing("dataset", name))?;
    let snapshot = dataset.snapshot()?;
    let view = View {
        history: false,
        deleted: false,
    };
    let (mut found, mut at) = (TableDefinition::default(), None);
    while found.entities() < wanted.sample {
        let mut batch = tahini_entity::Batch::new();
        at = snapshot.changes(at, view, STEP, &mut batch)?;
        found.observe(&batch, wanted.sample);
        if at.is_none() {
            break;
        }
    }
    wanted.answer(&found, false)
}
