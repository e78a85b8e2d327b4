//! `/api/receivers`: taking what is posted (JSON push protocol).

use std::sync::Arc;

use axum::http::{StatusCode, header};
use serde_json::json;
use tahini_connectors::rest::{self, Judge, Judgement, Posted};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_hub::config::{Props, WRITE_DATA, lets_anybody};
use tahini_hub::receiver::{PostError, Push, receive};

use super::answer::json_answer;
use super::entities::json_body;
use super::pipes::named;
use super::{Answer, Call, Node, Problem, run_within};

/// Bytes of entities that one post may bring.
const POST_BYTES: usize = 64 << 20;
/// Posts that may wait for their turn.
const WAITING: usize = 24;

/// Takes one post; the answer comes when what it brought is durable.
pub async fn take(node: Arc<Node>, mut call: Call) -> Answer {
    let live = named(&node, &call)?;
    let push = push_of(&call)?;
    let Ok(_place) = Arc::clone(&node.queue).try_acquire_owned() else {
        return Err(Problem::later(format!("{WAITING} posts wait already"), 1));
    };
    let expression = live.component.source().opt_str("validation_expression");
    let expression = expression?.map(str::to_owned);
    call.read_body(POST_BYTES, &node.bodies).await?;
    let job = {
        let node = Arc::clone(&node);
        move || {
            if let Some(expression) = &expression {
                validate(&node, &call, live.component.source(), expression)?;
            }
            let body = call.body;
            let posted = receive(&node.assembly.hub, &live, &push, body.as_ref());
            let posted = posted.map_err(|error| match error {
                PostError::Failed(failure) => {
                    PostError::Failed(failure.hiding(node.assembly.secrets.as_ref()))
                }
                other => other,
            })?;
            if posted.shown > 0
                && let Some(dataset) = live.component.sink_dataset()
            {
                node.scheduler.signal(dataset);
            }
            Ok::<_, Problem>(posted.written.map(|written| texts(&written)))
        }
    };
    match run_within(&node.receiving, job).await?? {
        Some(text) => Ok(json_body(text.into())),
        None => json_answer(&json!({})),
    }
}

/// Whether the pipe takes posts of anybody, without a token.
pub fn is_for_anybody(node: &Node, call: &Call) -> bool {
    let live = named(node, call);
    live.is_ok_and(|live| lets_anybody(live.component.map(), WRITE_DATA))
}

/// Judges a request by the pipe's `validation_expression`. Why the expression could not be
/// rendered is for the log, not for who posted.
fn validate(node: &Node, call: &Call, source: Props<'_>, expression: &str) -> Result<(), Problem> {
    let query = call.raw_query.as_deref();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let host = call.header(header::HOST);
    let url = format!("http://{host}{}{query}", call.raw_path);
    let posted = Posted {
        url: &url,
        params: &call.query,
        headers: &call.headers,
        body: &call.body,
    };
    let judge = Judge {
        secrets: Arc::clone(&node.assembly.secrets),
        system: source.opt_str("system")?.map(str::to_owned),
        clock: Arc::clone(&node.assembly.hub.world.clock),
    };
    match rest::judge(expression, &posted, judge) {
        Ok(Judgement::Taken) => Ok(()),
        Ok(Judgement::Refused(words)) => Err(Problem::new(StatusCode::FORBIDDEN, words)),
        Err(failure) => {
            let pipe = call.id("pipe_id");
            let failure = failure.hiding(node.assembly.secrets.as_ref());
            tracing::warn!(pipe, %failure, "a post could not be validated");
            let words = "expected a request that the pipe's validation_expression can judge";
            Err(Problem::new(StatusCode::FORBIDDEN, words))
        }
    }
}

/// What became of the posted entities, where versions are compared: the one as the documentation
/// says, several in a list.
fn texts(written: &Batch) -> Vec<u8> {
    let single = written.len() == 1;
    let mut text = match single {
        true => b"{\"updated_entity\":".to_vec(),
        false => b"{\"updated_entities\":[".to_vec(),
    };
    for (at, record) in written.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_record(record, Fields::ALL, &mut text);
    }
    text.extend_from_slice(if single { b"}" } else { b"]}" });
    text
}

fn push_of(call: &Call) -> Result<Push, Problem> {
    let text = |name: &str| call.get(name).map(str::to_owned);
    Ok(Push {
        sequence_id: text("sequence_id"),
        is_full: call.flag("is_full", false)?,
        request_id: text("request_id"),
        previous_request_id: text("previous_request_id"),
        is_first: call.flag("is_first", false)?,
        is_last: call.flag("is_last", false)?,
        completeness: completeness(call)?,
    })
}

/// What the poster says of the completeness of the dataset after this request.
fn completeness(call: &Call) -> Result<Option<i64>, Problem> {
    let text = call.header("x-dataset-completeness").trim();
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Problem::bad(format!(
            "expected the header X-Dataset-Completeness to be a whole number above 0, found {text:?}"
        ))),
    }
}

/// The places of posts that are taken or wait.
pub fn queue() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(WAITING + super::RECEIVING))
}
