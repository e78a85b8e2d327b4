//! The API: one table of routes (`routes`), everything else is read from it.
//!
//! ```text
//! request ──▶ gate (who asks?) ──▶ Call (parameters, body) ──▶ the row's handler ──▶ Answer
//! ```
//! Handlers that block run on a small pool of their own, never on the runtime's workers.

mod answer;
mod archive;
mod backups;
mod call;
mod components;
mod config;
mod datasets;
mod doorstep;
mod entities;
mod entity_types;
mod env;
mod gate;
mod idle;
mod indexes;
mod language;
mod lineage;
mod listing;
mod merge;
mod page;
mod pipes;
mod preview;
mod proxy;
mod publishers;
mod pump;
mod receivers;
pub mod routes;
mod runtime;
mod secrets;
mod status;
mod subscribers;
mod systems;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use jiff::Timestamp;
use tahini_hub::scheduler::Scheduler;
use tahini_hub::secrets::Vault;
use tahini_store::Backend;
use tokio::sync::Semaphore;

use answer::text_answer;
pub use answer::{Answer, Problem};
pub use call::Call;
pub use doorstep::Doorstep;
pub use gate::Gate;
pub use proxy::ProxyClients;
pub use receivers::queue as receiver_queue;
pub use runtime::queue;
pub use subscribers::{Subscribers, watch};

use crate::assembly::Assembly;
use crate::backup::Backups;
use crate::configuration::Stored;

/// Everything that requests reach.
pub struct Node {
    /// Hub, hosted services, secrets.
    pub assembly: Assembly,
    /// The datasets.
    pub store: Arc<dyn Backend>,
    /// The secrets that were set through the API.
    pub vault: Arc<Vault>,
    /// What starts runs.
    pub scheduler: Arc<Scheduler>,
    /// The configuration as it is kept and changed.
    pub stored: Stored,
    /// Where backups may be made.
    pub backups: Option<Backups>,
    /// Who may ask for what.
    pub gate: Gate,
    /// When the node started.
    pub started: Timestamp,
    /// Starts after the first one of this version.
    pub restarts: u64,
    /// Whether schedules start runs.
    pub automatic: bool,
    /// The node is shutting down.
    pub stopping: AtomicBool,
    /// For proxied requests.
    pub clients: ProxyClients,
    /// Bounds the work that blocks.
    pub pool: Arc<Semaphore>,
    /// Bounds the posts that are taken at a time.
    pub receiving: Arc<Semaphore>,
    /// Bounds the posts that are taken or wait.
    pub queue: Arc<Semaphore>,
    /// Bounds what all bodies take together.
    pub bodies: Arc<Semaphore>,
    /// Reads what strangers bring.
    pub doorstep: Doorstep,
    /// Who is told of new data.
    pub subscribers: Subscribers,
}

/// Blocking jobs of the API that may be under way.
pub const POOL: usize = 8;
/// Posts to receivers that may be under way.
pub const RECEIVING: usize = 8;
/// Bytes that a body may have, but for posted entities.
const BODY_BYTES: usize = 64 << 20;

/// Bytes that all bodies may take together.
const ALL_BODIES_BYTES: usize = 128 << 20;

/// The memory for the bodies of all requests, in portions.
pub fn memory_for_bodies() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ALL_BODIES_BYTES / call::PORTION))
}

impl Node {
    /// Whether the node takes requests.
    pub fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::SeqCst)
    }

    /// Runs a job that blocks, on the pool.
    pub async fn work<T: Send + 'static>(
        self: &Arc<Node>,
        job: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let node = Arc::clone(self);
        run_within(&self.pool, move || job(&node)).await
    }
}

/// Runs a job that blocks, once one of the permits is free.
pub(crate) async fn run_within<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = Arc::clone(permits).acquire_owned().await;
    let permit = permit.expect("the pool is never closed");
    let job = tokio::task::spawn_blocking(move || {
        let done = job();
        drop(permit);
        done
    });
    job.await.map_err(|error| {
        let words = format!("the request met a defect in the program: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, words)
    })
}

/// A row of the table.
pub struct Route {
    /// The method.
    pub method: Verb,
    /// The path; `{name}` is one part, `{*name}` all the rest.
    pub path: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The parameters, those of the path included.
    pub params: &'static [Param],
    /// Who may ask.
    pub access: Access,
    /// What answers.
    pub handle: Handle,
}

/// The methods of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
}

impl Verb {
    /// The method as OpenAPI writes it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::Options => "options",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Patch => MethodFilter::PATCH,
            Verb::Delete => MethodFilter::DELETE,
            Verb::Options => MethodFilter::OPTIONS,
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a token.
    Open,
    /// Readers where the method only looks, else admins.
    Usual,
    /// Admins only.
    Admin,
    /// Admins, and anybody where the pipe's permissions say so.
    Receiver,
    /// Admins, and those whose token is for this alone.
    Proxy,
}

/// A parameter of a route.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In a posted form.
    Form,
    /// It is the body.
    Body,
}

/// An answer in the making.
pub type Flow = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What answers a route.
pub enum Handle {
    /// Answers from memory, at once.
    Now(fn(&Node, &Call) -> Answer),
    /// Blocks: runs on the pool, with the body read.
    Work(fn(&Node, &Call) -> Answer),
    /// Streams, or waits for the network.
    Flow(fn(Arc<Node>, Call) -> Flow),
}

/// Through which door a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Where the node was told to listen: beyond loopback, requests need tokens.
    Front,
    /// The network of the node's containers: every request needs a token.
    Containers,
}

/// The router of all routes, the status page included.
pub fn router(node: Arc<Node>, door: Door) -> Router {
    let mut paths: BTreeMap<&'static str, MethodRouter> = BTreeMap::new();
    for route in routes::ROUTES {
        let node = Arc::clone(&node);
        let answer = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
            respond(node.clone(), route, (door, peer), request)
        };
        let methods = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, methods.merge(on(route.method.filter(), answer)));
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        let other = move |request: Request| async move { other_method(path, &request) };
        router = router.route(path, methods.fallback(other));
    }
    router.fallback(nothing_here)
}

async fn respond(
    node: Arc<Node>,
    route: &'static Route,
    from: (Door, SocketAddr),
    request: Request,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request.headers().get(REQUEST_ID).cloned();
    let id = id.unwrap_or_else(new_id);
    let begun = std::time::Instant::now();
    let answer = carry_out(node, route, from, request).await;
    let mut response = answer.unwrap_or_else(Problem::into_response);
    response.headers_mut().insert(REQUEST_ID, id);
    tracing::debug!(
        %method,
        %path,
        status = response.status().as_u16(),
        seconds = begun.elapsed().as_secs_f64(),
        "request"
    );
    response
}

async fn carry_out(
    node: Arc<Node>,
    route: &'static Route,
    from: (Door, SocketAddr),
    request: Request,
) -> Answer {
    if node.stored.damage().is_some() && needs_configuration(route) {
        return Err(without_configuration());
    }
    let (parts, body) = request.into_parts();
    let admitted = node.gate.admit(route, &parts, from);
    let (user, refused) = match admitted {
        Ok(user) => (user, None),
        Err(problem) => (gate::anybody(from.1), Some(problem)),
    };
    let is_refused = refused.is_some();
    let mut call = Call::of(Request::from_parts(parts, body), user).await?;
    if let Some(problem) = refused
        && !(route.access == Access::Receiver && receivers::is_for_anybody(&node, &call))
    {
        return Err(problem);
    }
    call.is_strangers = is_refused || route.access == Access::Open;
    match route.handle {
        Handle::Now(handle) => handle(&node, &call),
        Handle::Work(handle) => {
            if !matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS) {
                call.read_body(BODY_BYTES, &node.bodies).await?;
            }
            node.work(move |node| handle(node, &call)).await?
        }
        Handle::Flow(handle) => handle(node, call).await,
    }
}

/// Whether a node that rests, its configuration being damaged, refuses a request: it shows itself
/// and its datasets, and lets a dataset be deleted.
fn needs_configuration(route: &Route) -> bool {
    match (route.method, route.path) {
        (Verb::Get | Verb::Options, path) => CONFIGURED.iter().any(|one| path.starts_with(one)),
        (Verb::Delete, "/api/datasets/{dataset_id}") => false,
        _ => true,
    }
}

/// What stands in the configuration: none of it shown would look as if there were none.
const CONFIGURED: [&str; 8] = [
    "/api/config",
    "/api/env",
    "/api/metadata",
    "/api/pipes",
    "/api/publishers",
    "/api/receivers",
    "/api/secrets",
    "/api/systems",
];

/// Why a node that rests does not do what is asked.
pub(crate) fn without_configuration() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the node's configuration is damaged (/api/status says where): until it is restored, or the \
         damaged dataset is deleted and the node started anew, nothing runs, is posted or changed",
    )
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn new_id() -> HeaderValue {
    let text = uuid::Uuid::new_v4().simple().to_string();
    HeaderValue::from_str(&text).expect("hex digits are a header's value")
}

/// The methods that the table has for a path, as the header `Allow` lists them.
pub fn allowed(path: &str) -> String {
    let of_it = routes::ROUTES.iter().filter(|route| route.path == path);
    let mut names: Vec<String> = of_it
        .map(|route| route.method.name().to_uppercase())
        .collect();
    if names.iter().any(|name| name == "GET") {
        names.push("HEAD".to_owned());
    }
    names.push("OPTIONS".to_owned());
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// The answer to OPTIONS: which methods there are for a path of the table.
pub fn allowing(path: &str) -> Answer {
    let mut response = text_answer(String::new())?;
    allow(path, &mut response);
    Ok(response)
}

fn allow(path: &str, response: &mut Response) {
    if let Ok(list) = HeaderValue::from_str(&allowed(path)) {
        response.headers_mut().insert(header::ALLOW, list);
    }
}

/// Answers a method that the table does not have for a path: OPTIONS is told which ones there are.
fn other_method(path: &str, request: &Request) -> Response {
    let method = request.method();
    if method == Method::OPTIONS {
        return allowing(path).unwrap_or_else(Problem::into_response);
    }
    let words = format!("{method} cannot be used with {}", request.uri().path());
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, words).into_response();
    allow(path, &mut response);
    response
}

async fn nothing_here(request: Request) -> Problem {
    let path = request.uri().path();
    let help = if path.contains("/api/api") || path.contains("//") {
        "; the API's address ends with /api, given once and without a slash behind it"
    } else {
        "; /api/openapi.json lists what there is"
    };
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {path}{help}"),
    )
}
