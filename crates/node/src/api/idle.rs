//! `GET /api/pipes/{pipe_id}/idle`: why a pipe does nothing, back to where that begins.

use serde_json::json;
use tahini_hub::idle;

use super::answer::json_answer;
use super::{Answer, Call, Node};

/// Says why a pipe is idle, with what is behind each reason, and where that begins.
pub fn explained(node: &Node, call: &Call) -> Answer {
    let why = idle::why(&node.assembly.hub, call.id("pipe_id"), node.automatic)?;
    let mut told = why.to_json();
    let roots = why.roots().into_iter().map(|(pipe, reason)| {
        json!({
            "pipe": pipe,
            "reason": reason.kind.name(),
            "message": reason.message,
        })
    });
    told["root-causes"] = roots.collect();
    json_answer(&told)
}
