//! `GET /api/pipes/{pipe_id}/merge-explain`: which rule joined what.

use tahini_hub::merge::explain;

use super::answer::json_answer;
use super::pipes::named;
use super::{Answer, Call, Node, Problem};

/// Tells what an entity was merged with, as the datasets are now, and by which values.
pub fn explained(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    let pipe = live.usable()?;
    let entity = call.get("entity_id").ok_or_else(|| {
        Problem::bad("expected entity_id, the `_id` of a merged entity or of one of its members")
    })?;
    let told = explain(&node.assembly.hub, pipe, entity)?;
    match told {
        Some(told) => json_answer(&told),
        None => Err(Problem::missing("entity", entity)),
    }
}
