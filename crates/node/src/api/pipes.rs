//! `/api/pipes`: what there is and how it is doing.

use std::sync::Arc;

use serde_json::Value as Json;
use tahini_hub::hub::LivePipe;

use super::answer::json_answer;
use super::runtime::{Parts, pipe_json};
use super::{Answer, Call, Node, Problem};

/// The pipe that the path names.
pub fn named(node: &Node, call: &Call) -> Result<Arc<LivePipe>, Problem> {
    Ok(node.assembly.hub.pipe(call.id("pipe_id"))?)
}

/// All pipes.
pub fn list(node: &Node, call: &Call) -> Answer {
    let parts = Parts::of(call.get("fields"));
    let pipes = node.assembly.hub.pipes();
    let all = pipes
        .iter()
        .map(|live| pipe_json(node, live, &parts))
        .collect();
    json_answer(&Json::Array(all))
}

/// One pipe.
pub fn one(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    json_answer(&pipe_json(node, &live, &Parts::of(call.get("fields"))))
}
