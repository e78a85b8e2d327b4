//! How the node itself is doing.

use axum::http::StatusCode;
use serde_json::json;

use super::answer::{json_answer, text_answer};
use super::runtime::moment;
use super::{Answer, Call, Node, Problem};

/// The root of the API; clients look for `developer_mode` before anything else.
pub fn root(_: &Node, _: &Call) -> Answer {
    json_answer(&json!({
        "status": { "developer_mode": true, "product": "tahini", "version": env!("CARGO_PKG_VERSION") },
    }))
}

/// When the node started, its version, and the datasets that are damaged.
pub fn status(node: &Node, _: &Call) -> Answer {
    let damaged = node.store.damaged().into_iter();
    let damaged = damaged.map(|(name, found)| json!({ "dataset": name, "found": found }));
    json_answer(&json!({
        "node_start_time": moment(Some(node.started)),
        "current_time": moment(Some(node.assembly.hub.world.clock.now())),
        "version": env!("CARGO_PKG_VERSION"),
        "damaged_datasets": damaged.collect::<serde_json::Value>(),
    }))
}

/// Whether the node does its work.
pub fn health(node: &Node, call: &Call) -> Answer {
    ready(node, call)?;
    match node.stored.damage() {
        Some(_) => Err(super::without_configuration()),
        None => json_answer(&json!({ "status": "ok" })),
    }
}

/// Whether anybody is there.
pub fn ping(_: &Node, _: &Call) -> Answer {
    json_answer(&json!({ "status": "ok" }))
}

/// 200 as long as the process lives.
pub fn live(_: &Node, _: &Call) -> Answer {
    text_answer("ok\n".to_owned())
}

/// 200 when the node takes requests: store open, configuration loaded or damaged, not shutting
/// down. Pipes that fail do not change that.
pub fn ready(node: &Node, call: &Call) -> Answer {
    if !node.is_ready() {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node is shutting down",
        ));
    }
    if call.get("verbose").is_some() {
        let configuration = match node.stored.damage() {
            Some(_) => "damaged",
            None => "loaded",
        };
        return json_answer(&json!({
            "status": "ok",
            "store": "open",
            "configuration": configuration,
            "pipes": node.assembly.hub.pipes().len(),
        }));
    }
    text_answer("ok\n".to_owned())
}

/// The metrics as text.
pub fn metrics(node: &Node, _: &Call) -> Answer {
    let text = crate::metrics::text(node)?;
    let kind = [(
        axum::http::header::CONTENT_TYPE,
        crate::metrics::CONTENT_TYPE,
    )];
    Ok(axum::response::IntoResponse::into_response((kind, text)))
}

/// The table of routes as OpenAPI.
pub fn openapi(_: &Node, _: &Call) -> Answer {
    json_answer(&crate::openapi::document())
}
