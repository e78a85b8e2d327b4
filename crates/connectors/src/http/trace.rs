//! `trace`: requests and answers in the run's log, without secrets.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value as Json;
use tahini_entity::{Dict, Value};
use tahini_hub::config::Props;
use tahini_hub::secrets::SecretSource;
use tahini_hub::{Ctx, Failure, Traced};

use super::client::{Client, Request};
use super::system::is_secret;

/// How many bytes of a body are told where the configuration says nothing.
const BODY_BYTES: i64 = 100;
/// How many bytes of a secret are hidden where the configuration says nothing.
const REDACTED_BYTES: i64 = 600;
/// Shorter values are no secrets worth hiding.
const SHORTEST: usize = 4;

/// What of requests and answers may be told, as `trace` asks for.
pub struct Told {
    request_headers: bool,
    request_body: usize,
    response_headers: bool,
    response_body: usize,
    /// How many bytes of each secret are hidden; all where there is none.
    redacted: Option<usize>,
    secrets: Arc<dyn SecretSource>,
}

/// A request as it is told.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The whole address.
    pub url: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// What `trace` asks for, and where it is told.
pub(crate) struct Trace {
    told: Told,
    traced: Arc<Traced>,
}

/// What came of a request.
pub enum Came<'a> {
    /// An answer, with as much of its body as was read.
    Answer(u16, &'a HeaderMap, &'a [u8]),
    /// None.
    Failure(&'a Failure),
}

impl Trace {
    /// What a component's `trace` asks for; `None` when it is off.
    ///
    /// # Errors
    /// Config, where a sub-property is of a wrong type.
    pub(crate) fn of(ctx: &Ctx<'_>) -> Result<Option<Trace>, Failure> {
        let told = Told::of(ctx.props, ctx.secrets)?;
        Ok(told.map(|told| Trace {
            told,
            traced: Arc::clone(ctx.traced),
        }))
    }

    /// Tells of a request and what came of it.
    pub(crate) fn tell(&self, request: &Request, came: &Came<'_>, took: Duration, client: &Client) {
        let mut url = request.url.clone();
        let _ = url.set_password(None);
        let asked = Asked {
            method: request.method.as_str(),
            url: url.as_str(),
            headers: &request.headers,
            body: &request.body,
        };
        let entry = self.told.entry(asked, came, took, client.secrets());
        self.traced.tell(entry);
    }
}

impl Told {
    /// What a component's `trace` asks for; `None` when it is off.
    ///
    /// # Errors
    /// Config, where a sub-property is of a wrong type.
    pub fn of(props: Props<'_>, secrets: &Arc<dyn SecretSource>) -> Result<Option<Told>, Failure> {
        let empty = serde_json::Map::new();
        let map = match props.get("trace") {
            None | Some(Json::Bool(false)) => return Ok(None),
            Some(Json::Bool(true)) => &empty,
            Some(Json::Object(map)) => map,
            other => return Err(props.wrong("trace", "true, false or an object", other)),
        };
        let path = format!("{}.trace", props.path());
        let props = Props::new(&path, map);
        let bytes = |name: &str| -> Result<usize, Failure> {
            let bytes = props.int(name, BODY_BYTES)?;
            Ok(usize::try_from(bytes).unwrap_or_default())
        };
        let redacted = props.int("log_secret_redacted_bytes", REDACTED_BYTES)?;
        Ok(Some(Told {
            request_headers: props.bool("log_request_headers", true)?,
            request_body: bytes("log_request_body_maxsize")?,
            response_headers: props.bool("log_response_headers", true)?,
            response_body: bytes("log_response_body_maxsize")?,
            redacted: usize::try_from(redacted).ok(),
            secrets: Arc::clone(secrets),
        }))
    }

    /// What is told of a request and what came of it; `more` are secrets that are known beside
    /// those of the node.
    pub fn entry(
        &self,
        request: Asked<'_>,
        came: &Came<'_>,
        took: Duration,
        more: Vec<String>,
    ) -> Dict {
        let mut secrets = self.secrets.values();
        secrets.extend(more);
        // Longer ones first: they may hold shorter ones.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let hide = |text: &str| self.hidden(text, &secrets);
        let mut asked = Dict::new();
        asked.push_new("method", Value::string(request.method));
        asked.push_new("url", Value::string(hide(request.url)));
        if self.request_headers {
            asked.push_new("headers", headers(request.headers, &hide));
        }
        if self.request_body > 0 && !request.body.is_empty() {
            asked.push_new("body", body(request.body, self.request_body, &hide));
        }
        let mut entry = Dict::new();
        entry.push_new("request", Value::Dict(asked));
        match came {
            Came::Answer(status, all, bytes) => {
                let mut answer = Dict::new();
                answer.push_new("status", Value::Int(i64::from(*status)));
                if self.response_headers {
                    answer.push_new("headers", headers(all, &hide));
                }
                if self.response_body > 0 && !bytes.is_empty() {
                    answer.push_new("body", body(bytes, self.response_body, &hide));
                }
                entry.push_new("response", Value::Dict(answer));
            }
            Came::Failure(failure) => {
                entry.push_new("error", Value::string(hide(&failure.message)));
            }
        }
        let seconds = (took.as_secs_f64() * 1e6).round() / 1e6;
        entry.push_new("seconds", Value::float(seconds));
        entry
    }

    /// The text without the secrets in it, or without as much of each as the configuration says.
    fn hidden(&self, text: &str, secrets: &[String]) -> String {
        let mut text = text.to_owned();
        for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
            if !text.contains(secret.as_str()) {
                continue;
            }
            let shown = self.redacted.and_then(|bytes| secret.get(bytes..));
            text = text.replace(
                secret.as_str(),
                &format!("***{}", shown.unwrap_or_default()),
            );
        }
        text
    }
}

/// Headers as a dict; those that hold credentials without their value unless a secret was found
/// in it, and hidden.
fn headers(headers: &HeaderMap, hide: &dyn Fn(&str) -> String) -> Value {
    let mut dict = Dict::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let told = hide(&text);
        let told = match (value.is_sensitive() || is_secret(name)) && told == text {
            true => "***".to_owned(),
            false => told,
        };
        dict.set(name.as_str(), Value::string(told));
    }
    Value::Dict(dict)
}

/// The beginning of a body. Secrets are taken out of the whole first, so that none is cut in two.
fn body(bytes: &[u8], most: usize, hide: &dyn Fn(&str) -> String) -> Value {
    let text = hide(&String::from_utf8_lossy(bytes));
    let end = text.floor_char_boundary(most.min(text.len()));
    Value::string(&text[..end])
}
