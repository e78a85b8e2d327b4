//! `/api/pipes/{pipe_id}/pump`: starting, stopping, resetting.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use tahini_entity::Offset;
use tahini_hub::hub::{LivePipe, Refusal};
use tahini_hub::pump::Request;

use super::answer::json_answer;
use super::call::Form;
use super::doorstep::STRANGERS_BYTES;
use super::pipes::named;
use super::runtime::{is_dataset_source, operations, pump_json};
use super::{Answer, Call, Node, Problem};

/// How the pump is doing.
pub fn show(node: &Node, call: &Call) -> Answer {
    json_answer(&pump_json(node, &*named(node, call)?))
}

/// Carries out an operation and shows the pump as it is then.
pub fn operate(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    let form = call.form();
    let Some(operation) = form.get("operation") else {
        return Err(Problem::bad(
            "expected a form with the field `operation`, found none",
        ));
    };
    let known = operations(&live);
    if !known.contains(&operation) {
        return Err(Problem::bad(format!(
            "the pump of pipe {:?} doesn't support the operation {operation:?}; it supports {}",
            live.id(),
            known.join(", ")
        )));
    }
    carry_out(node, call, &live, operation, &form)?;
    json_answer(&pump_json(node, &live))
}

/// The secret that a webhook's sender shows, of the pipe's source system or of the whole node.
const WEBHOOK_TOKEN: &str = "webhook_token";

/// The header in which a webhook's sender may show it, instead of in the body.
const WEBHOOK_HEADER: &str = "x-webhook-token";

/// Starts the pump for a sender that knows the pipe's webhook token. One that does not is told
/// that there is nothing, which makes it forget the webhook. A token in the header
/// `X-Webhook-Token` or the parameter `token` is looked at before the body, and then alone.
pub async fn webhook(node: Arc<Node>, mut call: Call) -> Answer {
    let header = call.header(WEBHOOK_HEADER);
    let early = Some(header).filter(|header| !header.is_empty());
    let early = early.or_else(|| call.get("token")).map(str::to_owned);
    let shown = match early {
        Some(shown) => Some(shown),
        None => {
            node.doorstep.read(&mut call, STRANGERS_BYTES).await?;
            let body = call.object().unwrap_or_default();
            body.get("token").and_then(Json::as_str).map(str::to_owned)
        }
    };
    let token = named(&node, &call).ok().and_then(|live| {
        let system = live.component.source().opt_str("system").ok().flatten();
        let secrets = &node.assembly.secrets;
        let own = system.and_then(|system| secrets.get(Some(system), WEBHOOK_TOKEN));
        own.or_else(|| secrets.get(None, WEBHOOK_TOKEN))
    });
    match (token, shown) {
        (Some(token), Some(shown)) if is_same(&token, &shown) => {}
        _ => return Err(Problem::missing("webhook of the pipe", call.id("pipe_id"))),
    }
    node.work(move |node| begin(node, &call)).await?
}

fn begin(node: &Node, call: &Call) -> Answer {
    let live = named(node, call)?;
    let request = Request {
        user: Some(call.user.clone()),
        ..Request::default()
    };
    match node.scheduler.start_run(live.id(), request) {
        // What runs now began before the news; it is read with the next run.
        Ok(()) | Err(Refusal::Running(_)) => json_answer(&json!({})),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn is_same(one: &str, other: &str) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    let (one, other) = (digest(one), digest(other));
    let differing = one.iter().zip(&other).fold(0, |all, (a, b)| all | (a ^ b));
    differing == 0
}

fn carry_out(
    node: &Node,
    call: &Call,
    live: &LivePipe,
    operation: &str,
    form: &Form,
) -> Result<(), Problem> {
    let (hub, id) = (&node.assembly.hub, live.id());
    let run = |rescan| Request {
        rescan,
        user: Some(call.user.clone()),
        ..Request::default()
    };
    let comment = form.get("comment").unwrap_or_default();
    match operation {
        "start" => node.scheduler.start_run(id, run(false))?,
        "start-rescan" => node.scheduler.start_run(id, run(true))?,
        "reset-rescan" => hub.reset_rescan(id)?,
        "reset-tracking" => hub.reset_tracking(id)?,
        "set-tracking-to-start" => hub.set_tracking_to_start(id)?,
        "stop" => {
            hub.stop(id)?;
        }
        "enable" => hub.switch(id, true, comment, &call.user)?,
        "disable" => hub.switch(id, false, comment, &call.user)?,
        "update-last-seen" => {
            let Some(text) = form.get("last-seen") else {
                return Err(Problem::bad(
                    "expected the field `last-seen` (empty resets the pipe), found none",
                ));
            };
            let offset = read_offset(node, live, text)?;
            hub.set_offset(id, offset, &call.user)?;
        }
        "discard-retries" => hub.discard_retries(id, &call.user)?,
        "retry-dead-letters" => {
            hub.retry_dead_letters(id, &form.all("entity-id"), &call.user)?;
        }
        "discard-inferred-schema" => hub.discard_entity_types(id, &call.user)?,
        "set-last-seen-to-end" => {
            hub.set_offset_to_end(id, &call.user)?;
        }
        other => unreachable!("{other} is not among the operations"),
    }
    Ok(())
}

/// The offset that a form's text means. Digits are a number, unless the saved offset is text;
/// text in quotes is text. Empty is none.
fn read_offset(node: &Node, live: &LivePipe, text: &str) -> Result<Option<Offset>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(serde_json::Value::String(quoted)) = serde_json::from_str(text) {
        return Ok(Some(Offset::Text(quoted.as_str().into())));
    }
    let was_text = matches!(node.offset(live)?, Some(Offset::Text(_)));
    match text.parse() {
        Ok(number) if !was_text => Ok(Some(Offset::Int(number))),
        _ if is_dataset_source(live) => Err(Problem::bad(format!(
            "expected the offset of a dataset to be a whole number, found {text:?}"
        ))),
        _ => Ok(Some(Offset::Text(text.into()))),
    }
}
