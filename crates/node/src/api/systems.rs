//! `/api/systems`: what pipes connect to, and the services behind some of them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_hub::config::{Component, ComponentKind};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{json_answer, text_answer, with_json};
use super::runtime::by_level;
use super::{Answer, Call, Node, Problem};
use crate::microservices::{Line, Log};

/// How soon the followers of a log notice that no more will come.
const FOLLOW_LOOK: Duration = Duration::from_millis(500);

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

/// What a system's service wrote, a line each: with `since` only what came after that moment, with
/// `last` so many lines at most, with `follow` also what it writes from now on, until the client
/// goes, the service is no longer wanted, or the node ends.
pub async fn logs(node: Arc<Node>, call: Call) -> Answer {
    let system = named(&node, &call)?;
    let since = match call.get("since").filter(|since| !since.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Problem::bad(format!(
                "expected since to be a moment such as 2026-01-02T03:04:05Z, found {text:?}"
            ))
        })?),
    };
    let last = call.number("last")?;
    let follow = call.flag("follow", false)?;
    let Some(log) = node.assembly.host.log(&system.id) else {
        let words = format!("system {:?} has no service that this node runs", system.id);
        return Err(Problem::new(StatusCode::NOT_FOUND, words));
    };
    let changes = log.changes();
    let mut lines = log.lines(since);
    if let Some(last) = last.and_then(|last| usize::try_from(last).ok()) {
        lines.drain(..lines.len().saturating_sub(last));
    }
    if !follow {
        return text_answer(as_text(&lines));
    }
    // What was left out by `last` is not told later, either.
    let told = lines.last().map(|line| line.at).or(log.newest());
    let follower = Follower {
        node,
        system: system.id,
        told,
        log,
        changes,
    };
    let begin = stream::iter([Ok::<_, Infallible>(as_text(&lines))]);
    let rest = stream::unfold(follower, |mut follower| async move {
        let text = follower.next().await?;
        Some((Ok(text), follower))
    });
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    let body = Body::from_stream(begin.chain(rest));
    Ok(([kind], body).into_response())
}

fn as_text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{:.9} {} {}", line.at, line.stream.name(), line.text)
            .expect("writing to memory cannot fail");
    }
    text
}

/// Somebody who reads a log as it is written.
struct Follower {
    node: Arc<Node>,
    system: String,
    /// The moment of the last line that was told.
    told: Option<Timestamp>,
    log: Arc<Log>,
    changes: watch::Receiver<()>,
}

impl Follower {
    /// The next lines; `None` when no more will come.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.changes.mark_unchanged();
            let lines = self.log.lines(self.told);
            if let Some(last) = lines.last() {
                self.told = Some(last.at);
                return Some(as_text(&lines));
            }
            let now = self.node.assembly.host.log(&self.system);
            if !now.is_some_and(|now| Arc::ptr_eq(&now, &self.log)) || !self.node.is_ready() {
                return None;
            }
            // Nobody tells when the node ends or the system goes: it is looked at now and then.
            let _ = timeout(FOLLOW_LOOK, self.changes.changed()).await;
        }
    }
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
