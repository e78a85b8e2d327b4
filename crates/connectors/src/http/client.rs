//! One request and its answer, for a blocking thread: the socket lives on the runtime.

use std::error::Error;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Certificate, Identity, Method, Proxy, StatusCode, Url};
use tahini_hub::{Cancel, Class, Clock, Failure};
use tokio::time::timeout;

use super::address::shown;
use super::body::{Body, CANCEL_POLL, Task, feed};
use super::retry::retry_after;
use super::runtime::runtime;

/// How much of a refusal's body is kept to explain it.
const REFUSAL_BYTES: usize = 2048;
/// The longest silence inside a refusal's body.
const REFUSAL_IDLE: Duration = Duration::from_secs(5);
/// How many redirects a `GET` follows. Requests with a body follow none.
const MAX_REDIRECTS: usize = 10;
/// Shorter values are no secrets worth hiding: hiding them would garble every message.
const SHORTEST_SECRET: usize = 4;
/// How many values that became known later are kept; of tokens the oldest are worth nothing.
const MOST_HIDDEN: usize = 64;

/// How a client connects and how long it waits.
pub struct Options {
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer's head, and the longest silence inside its body.
    pub read_timeout: Duration,
    /// Whether certificates are verified.
    pub verify_ssl: bool,
    /// Certificates to trust beside the operating system's, in PEM form.
    pub ca_pem: Option<String>,
    /// The certificate to show and its key, in PEM form.
    pub identity_pem: Option<String>,
    /// Proxies by scheme (`http`, `https`).
    pub proxies: Vec<(String, String)>,
    /// Whether the proxies of the process's environment count.
    pub environment_proxies: bool,
    /// Values that no message may show.
    pub secrets: Vec<String>,
    /// The wall clock, for `Retry-After`.
    pub clock: Arc<dyn Clock>,
}

/// Sends requests and hands out answers; it pools connections and may be shared.
pub struct Client {
    inner: reqwest::Client,
    options: Options,
    /// Values that became known since, as tokens do.
    hidden: RwLock<Vec<String>>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address, query included.
    pub url: Url,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, empty for none.
    pub body: Bytes,
}

/// What came back, with a body that is still on its way.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Client {
    /// A client with these options.
    ///
    /// # Errors
    /// Config, when a certificate or a proxy cannot be read.
    pub fn new(options: Options) -> Result<Client, Failure> {
        // The runtime also settles the cryptography that the builder needs.
        runtime();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tahini/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(!options.verify_ssl);
        if let Some(pem) = &options.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| {
                Failure::config(format!(
                    "expected certificates in PEM form in custom_ca_pem_chain, found: {}",
                    reasons(&error)
                ))
            })?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(pem) = &options.identity_pem {
            let identity = Identity::from_pem(pem.as_bytes()).map_err(|error| {
                Failure::config(format!(
                    "expected a certificate and its key in PEM form in client_certificate_pem, \
                     found: {}",
                    reasons(&error)
                ))
            })?;
            builder = builder.identity(identity);
        }
        if !options.environment_proxies {
            builder = builder.no_proxy();
        }
        for (scheme, address) in &options.proxies {
            builder = builder.proxy(proxy(scheme, address)?);
        }
        let inner = builder.build().map_err(|error| {
            let which = options
                .ca_pem
                .as_ref()
                .map_or("", |_| " with this custom_ca_pem_chain");
            let reasons = reasons(&error);
            Failure::config(format!(
                "the HTTP client cannot be set up{which}: {reasons}"
            ))
        })?;
        Ok(Client {
            inner,
            options,
            hidden: RwLock::default(),
        })
    }

    /// Sends `request` and waits for the head of its answer. `GET` and `HEAD` follow redirects,
    /// without the request's own headers when they lead to another host; nothing else does.
    ///
    /// # Errors
    /// - Transient and not `reached`: no connection, or no answer in time.
    /// - Transient with a status: 408, 425, 429 and the 500s, with `Retry-After` if it was given.
    /// - Entity with a status: every other status outside the 200s.
    /// - Cancelled, at most a moment after the run was stopped.
    ///
    /// The message names method and address without secrets; `original` is the body's beginning.
    pub fn send(&self, request: Request, cancel: &Cancel) -> Result<Response, Failure> {
        let response = self.exchange(request, cancel)?;
        self.accepted(response)
    }

    /// The answer, if its status is one of the 200s.
    ///
    /// # Errors
    /// As [`Client::send`] for every other status.
    pub fn accepted(&self, response: Response) -> Result<Response, Failure> {
        match StatusCode::from_u16(response.status) {
            Ok(status) if !status.is_success() => Err(self.refusal(response)),
            _ => Ok(response),
        }
    }

    /// Sends `request` as [`Client::send`] does and hands out the answer whatever its status.
    ///
    /// # Errors
    /// - Transient and not `reached`: no connection, or no answer in time.
    /// - Cancelled, at most a moment after the run was stopped.
    pub fn exchange(&self, request: Request, cancel: &Cancel) -> Result<Response, Failure> {
        cancel.check()?;
        let what = self.redact(&format!("{} {}", request.method, shown(&request.url)));
        let (tell, head) = sync_channel(1);
        let (feed, body) = feed();
        let exchange = exchange(self.inner.clone(), request, self.options.read_timeout);
        let idle = self.options.read_timeout;
        let task = runtime().spawn(async move {
            match exchange.await {
                Ok(response) => {
                    let refused = !response.status().is_success();
                    let idle = if refused {
                        idle.min(REFUSAL_IDLE)
                    } else {
                        idle
                    };
                    let head = (response.status(), response.headers().clone());
                    if tell.send(Ok(head)).is_ok() {
                        feed.carry(response, idle).await;
                    }
                }
                Err(failure) => {
                    // Nobody is listening when the run was stopped meanwhile.
                    let _ = tell.send(Err(failure));
                }
            }
        });
        let task = Task(task.abort_handle());
        let (status, headers) =
            wait(&head, cancel)?.map_err(|failure| self.redacted(failure.context(&what)))?;
        let body = body(what, task, cancel.clone());
        Ok(Response {
            status: status.as_u16(),
            headers,
            body,
        })
    }

    fn refusal(&self, response: Response) -> Failure {
        let mut body = response.body;
        let what = body.request().to_owned();
        let bytes = match body.read_up_to(REFUSAL_BYTES) {
            Ok(bytes) => bytes,
            Err(failure) if failure.class == Class::Cancelled => return failure,
            // What the peer meant to say is lost; its status still counts.
            Err(_) => Vec::new(),
        };
        self.refused_with(&what, response.status, &response.headers, &bytes)
    }

    /// The failure that an answer of that status is; `what` names the request, and the beginning
    /// of `body` explains it.
    pub(crate) fn refused_with(
        &self,
        what: &str,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Failure {
        let text = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES)]);
        let text = text.trim().to_owned();
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let mut message = format!("{what}: expected a status of the 200s, found {status}");
        if status.is_redirection() {
            let to = headers
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .unwrap_or_default();
            let to = Url::parse(to).map_or_else(|_| to.to_owned(), |url| shown(&url));
            message.push_str(&format!(
                " to {to:?}; only GET follows redirects, so write the final address in the config"
            ));
        }
        let mut failure = Failure::new(class_of(status), message).with_status(status.as_u16());
        failure.retry_after = retry_after(headers, self.options.clock.now());
        failure.original = (!text.is_empty()).then_some(text);
        self.redacted(failure)
    }

    /// `text` with every value that must not be shown replaced by `***`.
    pub fn redact(&self, text: &str) -> String {
        let hidden = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        let secrets = self.options.secrets.iter().chain(hidden.iter());
        let secrets = secrets.filter(|value| value.len() >= SHORTEST_SECRET);
        secrets.fold(text.to_owned(), |text, value| {
            text.replace(value.as_str(), "***")
        })
    }

    /// One more value that no message may show.
    pub fn hide(&self, value: &str) {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        if !hidden.iter().any(|known| known == value) {
            if hidden.len() == MOST_HIDDEN {
                hidden.remove(0);
            }
            hidden.push(value.to_owned());
        }
    }

    /// The values that no message may show.
    pub fn secrets(&self) -> Vec<String> {
        let hidden = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        let secrets = self.options.secrets.iter().chain(hidden.iter());
        secrets.cloned().collect()
    }

    fn redacted(&self, mut failure: Failure) -> Failure {
        failure.message = self.redact(&failure.message);
        failure.original = failure.original.map(|original| self.redact(&original));
        failure
    }
}

fn proxy(scheme: &str, address: &str) -> Result<Proxy, Failure> {
    let proxy = match scheme {
        "http" => Proxy::http(address),
        "https" => Proxy::https(address),
        other => {
            return Err(Failure::config(format!(
                "$.proxies: expected the keys http and https, found {other:?}"
            )));
        }
    };
    proxy.map_err(|error| {
        Failure::config(format!(
            "$.proxies.{scheme}: expected the address of a proxy, found: {}",
            reasons(&error)
        ))
    })
}

fn class_of(status: StatusCode) -> Class {
    match status.as_u16() {
        408 | 425 | 429 | 500.. => Class::Transient,
        _ => Class::Entity,
    }
}

/// Waits for the head, looking every moment whether the run was stopped.
fn wait<T>(head: &Receiver<T>, cancel: &Cancel) -> Result<T, Failure> {
    loop {
        cancel.check()?;
        match head.recv_timeout(CANCEL_POLL) {
            Ok(head) => return Ok(head),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::fatal(
                    "the task that sent a request ended without an answer",
                ));
            }
        }
    }
}

async fn exchange(
    client: reqwest::Client,
    mut request: Request,
    first_byte: Duration,
) -> Result<reqwest::Response, Failure> {
    for _ in 0..=MAX_REDIRECTS {
        let sending = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone())
            .body(request.body.clone())
            .send();
        let response = match timeout(first_byte, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(unanswered(&error)),
            Err(_elapsed) => {
                return Err(Failure::transient(format!(
                    "expected an answer within {} s, found none; a higher read_timeout on the \
                     system waits longer",
                    first_byte.as_secs_f64()
                )));
            }
        };
        let Some(next) = redirect(&request.method, &response) else {
            return Ok(response);
        };
        if next.origin() != request.url.origin() {
            // Credentials belong to the host that they were configured for.
            let harmless = [ACCEPT, CONTENT_TYPE, USER_AGENT];
            let kept = harmless.iter().filter_map(|name| {
                request
                    .headers
                    .get(name)
                    .map(|value| (name.clone(), value.clone()))
            });
            request.headers = kept.collect();
        }
        request.url = next;
    }
    Err(Failure::transient(format!(
        "expected an answer after at most {MAX_REDIRECTS} redirects, found one more"
    )))
}

/// Where an answer redirects the same request to, if it does and the method allows it.
fn redirect(method: &Method, response: &reqwest::Response) -> Option<Url> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = response.url().join(location).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

fn unanswered(error: &reqwest::Error) -> Failure {
    let expected = if error.is_connect() {
        "a connection"
    } else {
        "an answer"
    };
    let limit = if error.is_timeout() { " in time" } else { "" };
    Failure::transient(format!(
        "expected {expected}{limit}, found: {}",
        reasons(error)
    ))
}

/// The causes of an error from the outermost to the root, without the address, which may hold
/// secrets.
pub(super) fn reasons(error: &reqwest::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let word = inner.to_string();
        if !words.iter().any(|known| known.contains(&word)) {
            words.push(word);
        }
        cause = inner.source();
    }
    if words.is_empty() {
        return "no further reason given".to_owned();
    }
    words.join(": ")
}
