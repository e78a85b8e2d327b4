//! `/api/receivers`: taking what is posted (JSON push protocol).

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use tahini_connectors::http::{Asked, Came, Told};
use tahini_connectors::rest::{self, Judge, Judgement, Validation};
use tahini_entity::json::{Fields, write_record};
use tahini_entity::{Batch, Dict};
use tahini_hub::Failure;
use tahini_hub::config::{Props, WRITE_DATA, lets_anybody};
use tahini_hub::hub::LivePipe;
use tahini_hub::receiver::{PostError, Posted, Push, Telling, receive};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::json_answer;
use super::doorstep::{MOST_BYTES, STRANGERS_BYTES};
use super::entities::json_body;
use super::pipes::named;
use super::{Answer, Call, Node, Problem, run_within};

/// Bytes of entities that one post may bring.
const POST_BYTES: usize = 64 << 20;
/// Posts that may wait for their turn.
const WAITING: usize = 24;

/// Takes one post; the answer comes when what it brought is durable.
///
/// What a stranger brings is judged before anybody who shows a token waits for it: by headers and
/// parameters alone where the pipe's `validation_expression` looks at no more, else with a body that
/// is small and comes at once.
pub async fn take(node: Arc<Node>, mut call: Call) -> Answer {
    let live = named(&node, &call)?;
    let push = push_of(&call)?;
    let mut validation = validation(&node, live.component.source())?;
    let mut is_stranger = call.is_strangers;
    if let Some(early) = validation.take_if(|validation| !validation.looks_at("request_body")) {
        // Who knows a secret is no stranger; who only got past an expression is one still.
        is_stranger &= !early.looks_at("secret");
        call = validated(&node, call, early).await?;
    }
    let mut place = None;
    if is_stranger {
        let limit = strangers_limit(live.component.source())?;
        node.doorstep.read(&mut call, limit).await?;
    } else {
        place = Some(place_for(&node)?);
        call.read_body(POST_BYTES, &node.bodies).await?;
    }
    if let Some(late) = validation {
        call = validated(&node, call, late).await?;
    }
    let _place = match place {
        Some(place) => place,
        None => place_for(&node)?,
    };
    let job = {
        let node = Arc::clone(&node);
        move || taken(&node, &live, &push, call)
    };
    run_within(&node.receiving, job).await?
}

/// Takes what a request brought, and tells the execution log of it where `trace` asks for that.
fn taken(node: &Node, live: &LivePipe, push: &Push, mut call: Call) -> Answer {
    let hub = &node.assembly.hub;
    let begun = Instant::now();
    let told = Told::of(live.component.source(), &node.assembly.secrets)?;
    let telling = match &told {
        Some(_) => Some(Telling::begin(hub, live, push)?),
        None => None,
    };
    // Where nobody tells of it the text goes as soon as it is read: what it brings is in memory once
    // more by then.
    let body = match &told {
        Some(_) => call.body.clone(),
        None => std::mem::take(&mut call.body),
    };
    let posted = receive(hub, live, push, Cursor::new(body));
    let posted = posted.map_err(|error| match error {
        PostError::Failed(failure) => {
            PostError::Failed(failure.hiding(node.assembly.secrets.as_ref()))
        }
        other => other,
    });
    if let (Some(told), Some(telling)) = (told, telling) {
        let trace = trace_of(&told, &call, &posted, begun.elapsed());
        // What was posted is written; that nothing tells of it is no reason to post it again.
        if let Err(failure) = telling.end(&posted, trace, &call.user) {
            tracing::warn!(pipe = live.id(), %failure, "the execution log cannot tell of a post");
        }
    }
    let posted = posted?;
    if posted.shown > 0
        && let Some(dataset) = live.component.sink_dataset()
    {
        node.scheduler.signal(dataset);
    }
    match posted.written {
        Some(written) => Ok(json_body(texts(&written).into())),
        None => json_answer(&json!({})),
    }
}

fn trace_of(told: &Told, call: &Call, posted: &Result<Posted, PostError>, took: Duration) -> Dict {
    let url = url_of(call);
    let asked = Asked {
        method: call.method.as_str(),
        url: &url,
        headers: &call.headers,
        body: &call.body,
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let failure;
    let written;
    let came = match posted {
        Ok(posted) => {
            written = posted.written.as_ref().map(texts);
            Came::Answer(200, &headers, written.as_deref().unwrap_or(b"{}"))
        }
        Err(error) => {
            failure = Failure::entity(error.to_string());
            Came::Failure(&failure)
        }
    };
    told.entry(asked, &came, took, Vec::new())
}

/// Whether the pipe takes posts of anybody, without a token.
pub fn is_for_anybody(node: &Node, call: &Call) -> bool {
    let live = named(node, call);
    live.is_ok_and(|live| lets_anybody(live.component.map(), WRITE_DATA))
}

/// A place among the posts that are taken or wait.
fn place_for(node: &Node) -> Result<OwnedSemaphorePermit, Problem> {
    let place = Arc::clone(&node.queue).try_acquire_owned();
    place.map_err(|_| Problem::later(format!("{WAITING} posts wait already"), 1))
}

/// How many bytes somebody without a token may post.
fn strangers_limit(source: Props<'_>) -> Result<usize, Problem> {
    let limit = source.opt_int("anonymous_body_maxsize")?;
    let limit = limit.map(|bytes| usize::try_from(bytes).unwrap_or(0));
    Ok(limit.unwrap_or(STRANGERS_BYTES).min(MOST_BYTES))
}

/// The pipe's `validation_expression`, if it has one.
fn validation(node: &Node, source: Props<'_>) -> Result<Option<Validation>, Problem> {
    let Some(expression) = source.opt_str("validation_expression")? else {
        return Ok(None);
    };
    let judge = Judge {
        secrets: Arc::clone(&node.assembly.secrets),
        system: source.opt_str("system")?.map(str::to_owned),
        clock: Arc::clone(&node.assembly.hub.world.clock),
    };
    Ok(Some(Validation::of(expression, judge)?))
}

/// Judges a request and hands it back. Why the expression could not be rendered is for the log,
/// not for who posted.
async fn validated(node: &Arc<Node>, call: Call, validation: Validation) -> Result<Call, Problem> {
    let (call, judgement) = node
        .work(move |_| {
            let judgement = validation.judge(&request_of(&call, &url_of(&call)));
            (call, judgement)
        })
        .await?;
    match judgement {
        Ok(Judgement::Taken) => Ok(call),
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

fn url_of(call: &Call) -> String {
    let query = call.raw_query.as_deref();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let host = call.header(header::HOST);
    format!("http://{host}{}{query}", call.raw_path)
}

fn request_of<'a>(call: &'a Call, url: &'a str) -> rest::Posted<'a> {
    rest::Posted {
        url,
        params: &call.query,
        headers: &call.headers,
        body: &call.body,
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
