//! `/api/systems`: what pipes connect to, and the services behind some of them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value as Json, json};
use tahini_hub::config::{Component, ComponentKind};

use super::answer::{json_answer, text_answer, with_json};
use super::runtime::by_level;
use super::{Answer, Call, Node, Problem};

/// The system that the path names.
pub fn named(node: &Node, call: &Call) -> Result<Component, Problem> {
    let id = call.id("system_id");
    let configuration = node.assembly.hub.configuration();
    let found = configuration
        .get(id)
        .filter(|one| one.kind == ComponentKind::System);
    found.cloned().ok_or_else(|| Problem::missing("system", id))
}

/// All systems.
pub fn list(node: &Node, _: &Call) -> Answer {
    let configuration = node.assembly.hub.configuration();
    let all = configuration
        .systems()
        .map(|system| system_json(node, system))
        .collect();
    json_answer(&Json::Array(all))
}

/// One system.
pub fn one(node: &Node, call: &Call) -> Answer {
    json_answer(&system_json(node, &named(node, call)?))
}

/// A system: its configuration, what is wrong with it, and its service's state in one word.
pub fn system_json(node: &Node, system: &Component) -> Json {
    let service = node.stored.service_problems(&system.id);
    let (errors, warnings) = by_level(system.problems.iter().chain(&service));
    let state = node
        .assembly
        .host
        .snapshot(&system.id)
        .map(|now| now.state.name());
    json!({
        "_id": system.id,
        "config": { "original": system.original, "effective": system.effective, "audit": {} },
        "runtime": {
            "is-valid-config": system.is_valid() && service.is_empty(),
            "config-errors": errors,
            "config-warnings": warnings,
            "unsupported": system.unsupported,
            "state": state,
            "origin": "user",
        },
    })
}

/// How a system's service is doing.
pub async fn status(node: Arc<Node>, call: Call) -> Answer {
    let system = named(&node, &call)?;
    if let Some(status) = node.assembly.host.status(&system.id).await {
        return json_answer(&status);
    }
    if system.type_name() != "system:microservice" {
        return json_answer(&json!({ "id": system.id, "running": null }));
    }
    let service = node.stored.service_problems(&system.id);
    let why = service
        .first()
        .or(system.problems.iter().find(|problem| problem.is_error()));
    let message = why.map(ToString::to_string).or(system.unsupported);
    json_answer(
        &json!({ "id": system.id, "state": "failed", "running": false, "message": message }),
    )
}

/// What a system's service wrote, a line each; with `since` only what came after that moment.
pub fn logs(node: &Node, call: &Call) -> Answer {
    let system = named(node, call)?;
    let since = match call.get("since").filter(|since| !since.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Problem::bad(format!(
                "expected since to be a moment such as 2026-01-02T03:04:05Z, found {text:?}"
            ))
        })?),
    };
    let Some(log) = node.assembly.host.log(&system.id) else {
        let words = format!("system {:?} has no service that this node runs", system.id);
        return Err(Problem::new(StatusCode::NOT_FOUND, words));
    };
    let mut text = String::new();
    for line in log.lines(since) {
        writeln!(text, "{:.9} {} {}", line.at, line.stream.name(), line.text)
            .expect("writing to memory cannot fail");
    }
    text_answer(text)
}

/// Restarts a system's service, with its image pulled anew, in the background.
pub fn reload(node: &Node, call: &Call) -> Answer {
    let system = named(node, call)?;
    if !node.assembly.host.reload(&system.id) {
        let words = format!("system {:?} has no service that this node runs", system.id);
        return Err(Problem::bad(words));
    }
    Ok(with_json(
        StatusCode::ACCEPTED,
        &json!({ "status": "restarting" }),
    ))
}
