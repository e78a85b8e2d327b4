//! The service at the other end: one request, and an answer read as it comes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use reqwest::{Method, Response, Url, Version};
use serde_json::Value as Json;
use tahini_connectors::http::runtime;
use tahini_entity::json::{Layout, Splitter};

use super::answer::{Answer, End};
use crate::cli::CheckService;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of a body is kept to show what it was.
const SHOWN: usize = 2048;
/// What the client says of a connection that is closed before an answer.
const CLOSED: [&str; 3] = [
    "connection closed before message completed",
    "Connection reset by peer",
    "Broken pipe",
];

/// What a request gives beside an answer.
#[derive(Debug, thiserror::Error)]
#[error("expected a service at {url}, could not reach it: {why}")]
pub struct Unreachable {
    url: String,
    why: String,
}

/// A service that is checked.
pub struct Peer {
    /// Uses connections again, as the node does.
    client: reqwest::Client,
    /// Makes one for each request.
    anew: reqwest::Client,
    url: Url,
    since: String,
    silence: Duration,
    /// Whether there was an answer.
    asked: Cell<bool>,
    /// Whether a connection was closed that could have been used again.
    closed: Cell<bool>,
}

/// Whether to read on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// To the end.
    On,
    /// Hang up here.
    Enough,
}

impl Peer {
    /// The service that the options name.
    pub fn new(options: &CheckService) -> anyhow::Result<Peer> {
        // The runtime also settles the cryptography that the client needs.
        runtime();
        let url = Url::parse(&options.url).with_context(|| {
            format!(
                "expected a URL such as http://localhost:5000/entities, found {:?}",
                options.url
            )
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            bail!("expected an http or https URL, found {url}");
        }
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let sent = headers(&options.headers)?;
        let client = |kept: usize| {
            let client = reqwest::Client::builder()
                .user_agent(concat!(
                    "tahini/",
                    env!("CARGO_PKG_VERSION"),
                    " microservice check"
                ))
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(kept)
                .no_gzip()
                .redirect(reqwest::redirect::Policy::none())
                .tls_danger_accept_invalid_certs(options.insecure)
                .default_headers(sent.clone());
            let client = if local { client.no_proxy() } else { client };
            client.build().context("cannot set up the HTTP client")
        };
        Ok(Peer {
            client: client(1)?,
            anew: client(0)?,
            url,
            since: options.since_name.clone(),
            silence: Duration::from_secs(options.timeout),
            asked: Cell::new(false),
            closed: Cell::new(false),
        })
    }

    /// Whether the service has answered at least once.
    pub fn answered(&self) -> bool {
        self.asked.get()
    }

    /// Whether the service closed a connection without saying so.
    pub fn closed_quietly(&self) -> bool {
        self.closed.get()
    }

    /// The name of the parameter since, as this service has it.
    pub fn since(&self) -> &str {
        &self.since
    }

    /// Asks for entities and shows `take` the text of each as it arrives.
    ///
    /// # Errors
    /// When there is no connection, or no answer begins in time.
    pub fn get(
        &self,
        query: &[(&str, &str)],
        take: impl FnMut(&[u8]) -> Read,
    ) -> Result<Answer, Unreachable> {
        self.ask(Method::GET, query, None, take)
    }

    /// Posts a body and shows `take` each entity of the answer, if there are any.
    ///
    /// # Errors
    /// When there is no connection, or no answer begins in time.
    pub fn post(
        &self,
        query: &[(&str, &str)],
        body: String,
        take: impl FnMut(&[u8]) -> Read,
    ) -> Result<Answer, Unreachable> {
        self.ask(Method::POST, query, Some(body), take)
    }

    fn ask(
        &self,
        method: Method,
        query: &[(&str, &str)],
        body: Option<String>,
        take: impl FnMut(&[u8]) -> Read,
    ) -> Result<Answer, Unreachable> {
        let mut url = self.url.clone();
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = |client: &reqwest::Client| {
            let request = client.request(method.clone(), url.clone());
            let request = request.header(ACCEPT, "application/json");
            match &body {
                Some(body) => request
                    .header(CONTENT_TYPE, "application/json")
                    .body(body.clone()),
                None => request,
            }
        };
        let asked = match query.is_empty() {
            true => method.to_string(),
            false => format!("{method} ?{}", url.query().unwrap_or_default()),
        };
        runtime().block_on(async {
            let mut begun = Instant::now();
            let mut answer = self.send(request(&self.client)).await;
            // On a connection that served before, this says that it is closed without a word.
            let closed = |why: &String| CLOSED.iter().any(|words| why.contains(words));
            if self.asked.get() && answer.as_ref().is_err_and(closed) {
                begun = Instant::now();
                answer = self.send(request(&self.anew)).await;
                self.closed.set(self.closed.get() || answer.is_ok());
            }
            match answer {
                Ok(response) => Ok(self.read(asked, response, begun, take).await),
                Err(why) => Err(Unreachable {
                    url: self.url.to_string(),
                    why: format!("{asked}: {why}"),
                }),
            }
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, String> {
        match tokio::time::timeout(self.silence, request.send()).await {
            Ok(answer) => answer.map_err(|error| reasons(&error)),
            Err(_) => Err(format!("no answer within {} s", self.silence.as_secs())),
        }
    }

    async fn read(
        &self,
        asked: String,
        mut response: Response,
        begun: Instant,
        mut take: impl FnMut(&[u8]) -> Read,
    ) -> Answer {
        self.asked.set(true);
        let head = response.headers();
        let text = |name: &HeaderName| {
            head.get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let length = text(&CONTENT_LENGTH);
        let marked = length.is_some()
            || text(&TRANSFER_ENCODING).is_some()
            || response.version() >= Version::HTTP_2;
        let mut answer = Answer {
            asked,
            status: response.status().as_u16(),
            content_type: text(&CONTENT_TYPE),
            marked,
            has_length: length.is_some(),
            bytes: 0,
            entities: 0,
            waited_first: Duration::ZERO,
            waited_rest: Duration::ZERO,
            beginning: Vec::new(),
            end: End::Whole,
        };
        let mut splitter = Splitter::new(Layout::Array);
        // The time of taking does not count: the service is what is measured.
        let mut since = begun;
        answer.end = loop {
            let chunk = tokio::time::timeout(self.silence, response.chunk()).await;
            match answer.entities {
                0 => answer.waited_first += since.elapsed(),
                _ => answer.waited_rest += since.elapsed(),
            }
            let chunk = match chunk {
                Err(_) => break End::Broken(format!("nothing for {} s", self.silence.as_secs())),
                Ok(Err(error)) => break End::Broken(reasons(&error)),
                Ok(Ok(None)) => break splitter.finish().map_or_else(End::Unfit, |_| End::Whole),
                Ok(Ok(Some(chunk))) => chunk,
            };
            answer.bytes += chunk.len() as u64;
            let room = SHOWN
                .saturating_sub(answer.beginning.len())
                .min(chunk.len());
            answer.beginning.extend_from_slice(&chunk[..room]);
            splitter.feed(&chunk);
            if let Some(end) = drain(&mut splitter, &mut answer.entities, &mut take) {
                // What is wrong is told better with what follows it, as far as that is kept.
                let unread = answer.beginning.len() < SHOWN && matches!(end, End::Unfit(_));
                if unread
                    && let Ok(Ok(Some(more))) =
                        tokio::time::timeout(self.silence, response.chunk()).await
                {
                    let room = (SHOWN - answer.beginning.len()).min(more.len());
                    answer.beginning.extend_from_slice(&more[..room]);
                }
                break end;
            }
            since = Instant::now();
        };
        answer
    }
}

/// Shows what is whole of the stream; an end when it is to be read no further.
fn drain(
    splitter: &mut Splitter,
    entities: &mut u64,
    take: &mut impl FnMut(&[u8]) -> Read,
) -> Option<End> {
    loop {
        match splitter.next_element() {
            Ok(None) => return None,
            Ok(Some(element)) => {
                *entities += 1;
                if take(element) == Read::Enough {
                    return Some(End::HungUp);
                }
            }
            Err(error) => return Some(End::Unfit(error)),
        }
    }
}

/// Headers as they are given: `Name: value`.
fn headers(given: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in given {
        // The value may be a token, which no message repeats.
        let (name, value) = line.split_once(':').ok_or_else(|| {
            anyhow!("expected a header as \"Name: value\", found one without a colon")
        })?;
        let name = HeaderName::try_from(name.trim())
            .with_context(|| format!("expected the name of a header, found {name:?}"))?;
        let mut value =
            HeaderValue::try_from(value.trim()).with_context(|| format!("the value of {name}"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// An error with everything behind it.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

/// The entities as the body of a request.
pub fn body(entities: &[Json]) -> String {
    Json::Array(entities.to_vec()).to_string()
}
