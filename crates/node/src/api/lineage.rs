//! `GET /api/pipes/{pipe_id}/lineage` and `/hops`: where properties come from, and how many entities
//! joins lead to.

use tahini_hub::cardinality;
use tahini_hub::lineage::{self, Ask};

use super::answer::json_answer;
use super::{Answer, Call, Node};

/// Tells where each property of what a pipe makes comes from; with `property` one of them, with
/// `depth` no further back than that many pipes.
pub fn told(node: &Node, call: &Call) -> Answer {
    let depth = call.number("depth")?.unwrap_or(lineage::DEPTH as u64);
    let ask = Ask {
        property: call.get("property").filter(|name| !name.is_empty()),
        depth: usize::try_from(depth)
            .unwrap_or(usize::MAX)
            .min(lineage::DEPTH),
    };
    json_answer(&lineage::told(&node.assembly.hub, call.id("pipe_id"), ask)?)
}

/// Tells how many entities share the keys that hops join by.
pub fn hops(node: &Node, call: &Call) -> Answer {
    json_answer(&cardinality::told(&node.assembly.hub, call.id("pipe_id"))?)
}
