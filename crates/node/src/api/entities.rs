//! Streams of entities: what datasets hold, and what pipes would give.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream::{self, Stream, StreamExt as _};
use tahini_dtl::Subset;
use tahini_entity::{Batch, Offset};
use tahini_hub::hub::LivePipe;
use tahini_hub::source::From;
use tahini_hub::stage::{self, Purpose, Stage};
use tahini_hub::subset::{self, Part};
use tahini_hub::{Cancel, Failure};
use tahini_store::{Head, Limit, Snapshot, View};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::listing::{Form, Listing, Out};
use super::{Answer, Call, Node, Problem};

/// Entities of one chunk of an answer, at most.
const ROWS: usize = 4_000;
/// Encoded bytes of one chunk, about.
const BYTES: usize = 1 << 20;
/// Chunks that wait for a slow reader.
const QUEUE: usize = 4;
/// How long a reader may take nothing before it is given up.
const STALLED: Duration = Duration::from_secs(120);

/// A JSON body that is ready.
pub fn json_body(bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The versions of a dataset in the order of their offsets.
pub async fn of_dataset(node: Arc<Node>, call: Call) -> Answer {
    let name = call.id("dataset_id").to_owned();
    let known = move |_: &Node| Err(Problem::missing("dataset", &name));
    let name = call.id("dataset_id").to_owned();
    read_dataset(node, call, name, known).await
}

/// A pipe's execution log; a pipe that has logged nothing has an empty one.
pub async fn of_log(node: Arc<Node>, call: Call) -> Answer {
    let pipe = call.id("pipe_id").to_owned();
    let name = tahini_hub::execution_log::dataset_id(&pipe);
    let empty = move |node: &Node| {
        node.assembly.hub.pipe(&pipe)?;
        Ok(json_body(Bytes::from_static(b"[]")))
    };
    read_dataset(node, call, name, empty).await
}

/// What can be done with a dataset's entities; the headers tell how far they go.
pub fn dataset_options(node: &Node, call: &Call) -> Answer {
    let name = call.id("dataset_id");
    subset_of(node, name, call)?;
    let said = node.said(name)?;
    let said = said.ok_or_else(|| Problem::missing("dataset", name))?;
    register(node, call, name, &said)?;
    options(Some(said), "/api/datasets/{dataset_id}/entities")
}

/// The same for a pipe's execution log.
pub fn log_options(node: &Node, call: &Call) -> Answer {
    let pipe = call.id("pipe_id");
    node.assembly.hub.pipe(pipe)?;
    let log = tahini_hub::execution_log::dataset_id(pipe);
    let said = node.said(&log)?;
    if let Some(said) = &said {
        register(node, call, &log, said)?;
    }
    options(said, "/api/pipes/{pipe_id}/log")
}

/// Registers the webhook that a request asks for: it makes the node send something, which only
/// admins may.
fn register(node: &Node, call: &Call, dataset: &str, said: &Said) -> Result<(), Problem> {
    if call.get("webhook").is_some() && !node.gate.is_admin(&call.headers) {
        let words = "expected a token with the role admin for `webhook`, found another role";
        return Err(Problem::new(axum::http::StatusCode::FORBIDDEN, words));
    }
    node.subscribers.register(call, dataset, said.head.next)
}

fn options(said: Option<Said>, path: &str) -> Answer {
    let mut response = super::allowing(path)?;
    if let Some(said) = said {
        said.put(&mut response);
    }
    Ok(response)
}

/// The subset that is asked for, if one is.
pub fn subset_of(node: &Node, dataset: &str, call: &Call) -> Result<Option<Subset>, Problem> {
    let Some(text) = call.get("subset").filter(|subset| !subset.is_empty()) else {
        return Ok(None);
    };
    let expression = serde_json::from_str(text).ok();
    let subset = expression.and_then(|it| subset::declared(&node.assembly.hub, dataset, &it));
    subset
        .map(Some)
        .ok_or_else(|| Problem::missing("subset", text))
}

async fn read_dataset(
    node: Arc<Node>,
    call: Call,
    name: String,
    absent: impl FnOnce(&Node) -> Answer + Send + 'static,
) -> Answer {
    let subset = subset_of(&node, &name, &call)?;
    let history = call.flag("history", true)?;
    let view = View {
        history,
        deleted: history || call.flag("deleted", true)?,
    };
    let (since, left) = (call.number("since")?, call.number("limit")?);
    let reverse = call.flag("reverse", false)?;
    let form = Form::wanted(&call);
    let must_be_populated = call.flag("populated", false)?;
    let uncommitted = call.flag("uncommitted", false)?;
    let damaged = call.flag("damaged", false)?;
    let open = move |node: &Node| -> Result<Result<(Reader, Said), Response>, Problem> {
        // What the dataset promises is read before what it holds.
        let completeness = match damaged {
            true => None,
            false => node.completeness(&name)?,
        };
        let Some(dataset) = node.store.find(&name)? else {
            return Ok(Err(absent(node)?));
        };
        let snapshot = match (uncommitted, damaged) {
            (true, _) => dataset.uncommitted()?,
            (false, true) => dataset.remains()?,
            (false, false) => dataset.snapshot()?,
        };
        if must_be_populated && !snapshot.head().populated {
            let words = format!("dataset {name:?} is not populated yet");
            return Err(Problem::new(axum::http::StatusCode::NOT_FOUND, words));
        }
        let left = left.unwrap_or(u64::MAX);
        let head = snapshot.head().clone();
        let said = Said { head, completeness };
        let cursor = Cursor {
            snapshot,
            view,
            part: subset.map(|subset| Part::new(subset, since.filter(|_| !reverse))),
            reverse,
            at: since,
            left,
            more: left > 0,
        };
        let reader = Reader::open(cursor, Listing::new(form))?;
        Ok(Ok((reader, said)))
    };
    let (reader, said) = match node.work(open).await?? {
        Ok(opened) => opened,
        Err(response) => return Ok(response),
    };
    send(node, reader, &said, form).await
}

/// Sends what a reader gives.
async fn send(node: Arc<Node>, reader: Reader, said: &Said, form: Form) -> Answer {
    // The first chunk is read before the answer begins, so that what fails at once has a status.
    let (first, reader) = next_chunk(&node, reader).await?;
    let ahead = reader.map(|reader| read_ahead(&node, reader));
    let rest = stream::unfold(ahead, move |ahead| {
        let node = Arc::clone(&node);
        async move {
            let (chunk, reader) = match ahead?.await {
                Ok(Ok((chunk, reader))) => (Ok(chunk), reader),
                Ok(Err(problem)) => (Err(io::Error::other(problem.detail)), None),
                Err(broken) => (Err(io::Error::other(broken)), None),
            };
            Some((chunk, reader.map(|reader| read_ahead(&node, reader))))
        }
    });
    let kind = HeaderValue::from_static(form.media_type());
    let mut response = stream_body(stream::once(async { Ok(first) }).chain(rest), kind);
    said.put(&mut response);
    Ok(response)
}

/// Where a request is in a dataset.
struct Cursor {
    snapshot: Box<dyn Snapshot>,
    view: View,
    part: Option<Part>,
    reverse: bool,
    at: Option<u64>,
    left: u64,
    more: bool,
}

/// A dataset on its way into an answer: while some entities are written, the next are read.
struct Reader {
    cursor: Cursor,
    /// What was read and is not written yet.
    batch: Batch,
    /// Its memory is used again.
    spare: Batch,
    out: Listing,
}

/// Makes the next chunk while the one before is sent.
fn read_ahead(node: &Arc<Node>, reader: Reader) -> JoinHandle<Result<Chunk, Problem>> {
    let node = Arc::clone(node);
    tokio::spawn(async move { next_chunk(&node, reader).await })
}

/// A chunk and what reads on behind it.
type Chunk = (Bytes, Option<Reader>);

/// Writes what was read; without a reader, that was the end.
async fn next_chunk(node: &Arc<Node>, reader: Reader) -> Result<Chunk, Problem> {
    let Reader {
        mut cursor,
        batch,
        mut spare,
        mut out,
    } = reader;
    if !cursor.more {
        let end = move |_: &Node| {
            out.put(&batch);
            out.end();
            out.take()
        };
        return Ok((node.work(end).await?, None));
    }
    let reading = node.work(move |_| cursor.read(&mut spare).map(|()| (cursor, spare)));
    let writing = node.work(move |_| {
        out.put(&batch);
        (out.take(), out, batch)
    });
    let (read, written) = tokio::join!(reading, writing);
    let ((cursor, batch), (bytes, out, spare)) = (read??, written?);
    let reader = Reader {
        cursor,
        batch,
        spare,
        out,
    };
    Ok((bytes, Some(reader)))
}

impl Reader {
    /// Reads what comes first.
    fn open(mut cursor: Cursor, out: Listing) -> Result<Reader, Problem> {
        let (mut batch, spare) = (Batch::new(), Batch::new());
        cursor.read(&mut batch)?;
        Ok(Reader {
            cursor,
            batch,
            spare,
            out,
        })
    }
}

impl Cursor {
    /// Reads on until there is something, or nothing any more.
    fn read(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        batch.clear();
        while self.more && batch.is_empty() {
            let rows = usize::try_from(self.left).unwrap_or(ROWS).min(ROWS);
            let limit = Limit { rows, bytes: BYTES };
            let (snapshot, at, view) = (self.snapshot.as_ref(), self.at, self.view);
            let next = match (&mut self.part, self.reverse) {
                (None, false) => snapshot.changes(at, view, limit, batch)?,
                (None, true) => snapshot.changes_reversed(at, view, limit, batch)?,
                (Some(part), false) => part.changes(snapshot, at, view, limit, batch)?,
                (Some(part), true) => part.changes_reversed(snapshot, at, view, limit, batch)?,
            };
            self.left -= (batch.len() as u64).min(self.left);
            self.at = next;
            self.more = next.is_some() && self.left > 0;
        }
        Ok(())
    }
}

/// What the headers of the pull protocol say of a dataset.
pub struct Said {
    /// What it is like.
    pub head: Head,
    /// Its completeness, microseconds since 1970 UTC, as it was before it was read.
    pub completeness: Option<i64>,
}

impl Said {
    /// Sets the headers.
    pub fn put(&self, response: &mut Response) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        };
        let head = &self.head;
        set("x-dataset-populated", head.populated.to_string());
        if let Some(last) = head.next.checked_sub(1) {
            set("x-dataset-max-updated", last.to_string());
        }
        if let Some(completeness) = self.completeness {
            set("x-dataset-completeness", completeness.to_string());
        }
        // In the protocol a dataset that is restored stays the one that it was, and gets another
        // UUID beside its own; here it is a new generation with a past.
        let first = head.past.first().map(|past| past.generation);
        let generation = first.unwrap_or(head.generation);
        set("x-dataset-generation", generation.to_string());
        // A reader that missed an earlier restore has to go back to where that one began.
        if let Some(cut) = head.past.iter().map(|past| past.next).min() {
            set("x-dataset-restore-uuid", head.generation.to_string());
            let last = i128::from(cut) - 1;
            set("x-dataset-restore-offset", last.to_string());
        }
    }
}

/// What is asked of a pipe.
pub struct Wanted {
    /// Where on its way, and what for.
    pub stage: (Stage, Purpose),
    /// The offset behind which it begins.
    pub since: Option<Offset>,
    /// The most entities.
    pub limit: Option<u64>,
    /// How they are written.
    pub out: Out,
}

/// What a pipe would give; the sink is never touched.
pub async fn of_pipe(node: Arc<Node>, live: Arc<LivePipe>, wanted: Wanted) -> Answer {
    live.usable()?;
    let cancel = Cancel::new();
    let (send, receive) = mpsc::channel::<Result<Bytes, Failure>>(QUEUE);
    let gone = (send.clone(), cancel.clone());
    // Ends with the job, however that ends; else its sender would keep the answer open.
    let mut watch = JoinSet::new();
    watch.spawn(async move {
        gone.0.closed().await;
        gone.1.cancel();
    });
    let Wanted {
        stage,
        since,
        limit,
        out,
    } = wanted;
    let kind = out.media_type();
    let job = {
        let (node, runtime) = (Arc::clone(&node), tokio::runtime::Handle::current());
        move || {
            let mut out = Outgoing { send, runtime, out };
            let outcome = read_pipe(&node, &live, (stage, since, limit), &cancel, &mut out);
            let last = outcome
                .and_then(|()| out.out.end())
                .map(|()| out.out.take());
            let secrets = node.assembly.secrets.as_ref();
            out.send(last.map_err(|failure| failure.hiding(secrets)));
            drop(watch);
        }
    };
    let pool = Arc::clone(&node.pool);
    tokio::spawn(async move { super::run_within(&pool, job).await });
    let kind = HeaderValue::from_str(&kind);
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    first_then_rest(receive, kind).await
}

async fn first_then_rest(
    mut receive: mpsc::Receiver<Result<Bytes, Failure>>,
    kind: HeaderValue,
) -> Answer {
    let first = match receive.recv().await {
        Some(Ok(first)) => first,
        Some(Err(failure)) => return Err(failure.into()),
        None => return Err(Failure::fatal("the evaluation ended without a word").into()),
    };
    let rest = stream::unfold(receive, |mut receive| async {
        let next = receive.recv().await?;
        Some((
            next.map_err(|failure| io::Error::other(failure.to_string())),
            receive,
        ))
    });
    Ok(stream_body(
        stream::once(async { Ok(first) }).chain(rest),
        kind,
    ))
}

fn read_pipe(
    node: &Node,
    live: &LivePipe,
    (stage, since, limit): ((Stage, Purpose), Option<Offset>, Option<u64>),
    cancel: &Cancel,
    out: &mut Outgoing,
) -> Result<(), Failure> {
    let from = From::since(since);
    let pipe = live
        .pipe
        .as_ref()
        .map_err(|why| Failure::config(why.clone()))?;
    let mut left = limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(());
    }
    let mut put = Ok(());
    stage::read(
        pipe,
        &node.assembly.hub.world,
        stage,
        from,
        cancel,
        |batch| {
            match out.out.put(batch, left) {
                Ok(count) => left -= count,
                Err(failure) => put = Err(failure),
            }
            put.is_ok() && left > 0 && (out.out.len() < BYTES / 4 || out.flush())
        },
    )?;
    put
}

/// The way from a blocking thread to the reader.
struct Outgoing {
    send: mpsc::Sender<Result<Bytes, Failure>>,
    runtime: tokio::runtime::Handle,
    out: Out,
}

impl Outgoing {
    fn flush(&mut self) -> bool {
        let text = self.out.take();
        self.send(Ok(text))
    }

    /// `false` when nobody takes it any more.
    fn send(&self, chunk: Result<Bytes, Failure>) -> bool {
        let sending = tokio::time::timeout(STALLED, self.send.send(chunk));
        matches!(self.runtime.block_on(sending), Ok(Ok(())))
    }
}

fn stream_body(
    chunks: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
    kind: HeaderValue,
) -> Response {
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
