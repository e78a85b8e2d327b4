//! A system that is a web server: where it is, who we are to it, and how patient we are.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value as Json;
use tahini_hub::config::Props;
use tahini_hub::{Cancel, Ctx, Failure, Services, System};

use super::address::{Base, add_parameter, is_near, parse};
use super::auth::{Auth, Credentials};
use super::body::explained;
use super::client::{Client, Options, Request, Response};
use super::retry::RetryStrategy;
use crate::rest::RestPart;

/// `connect_timeout` where the configuration says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// `read_timeout` where the configuration says nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(1800);
/// The status with which a server refuses credentials.
const UNAUTHORIZED: u16 = 401;
/// Headers whose name holds one of these words have values that messages must not show.
const SECRET_HEADERS: &[&str] = &[
    "auth",
    "token",
    "key",
    "secret",
    "password",
    "cookie",
    "signature",
    "hmac",
    "credential",
];

/// An open `url`, `rest` or `microservice` system. Clones share one pool of connections.
#[derive(Clone)]
pub struct HttpSystem(Arc<Inner>);

struct Inner {
    id: String,
    place: Place,
    headers: HeaderMap,
    retry_strategy: RetryStrategy,
    client: Client,
    auth: Auth,
    connect_timeout: Duration,
    rest: Option<Arc<RestPart>>,
}

/// Where a system is.
pub(crate) enum Place {
    /// At an address of its configuration.
    Base(Base),
    /// Wherever the node runs the service of the same id.
    Service {
        services: Arc<dyn Services>,
        https: bool,
    },
}

/// A request to a system, before the system adds its own part.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// Relative to the system's base, or absolute.
    pub url: &'a str,
    /// Query parameters to add, in order.
    pub parameters: Vec<(&'a str, String)>,
    /// Headers that win over the system's.
    pub headers: &'a HeaderMap,
    /// A JSON body, empty for none.
    pub body: Bytes,
}

impl HttpSystem {
    /// The system that a component's `system` property names.
    ///
    /// # Errors
    /// Config, when there is none of that id or it is no `url` or `microservice` system.
    pub fn of(ctx: &Ctx<'_>) -> Result<HttpSystem, Failure> {
        let id = ctx.props.str("system")?;
        let system = ctx.systems.get(id)?;
        system
            .as_any()
            .downcast_ref::<HttpSystem>()
            .cloned()
            .ok_or_else(|| {
                Failure::config(format!(
                    "{}.system: expected a system of type system:url, system:rest or \
                     system:microservice, found that {id:?} is of another type",
                    ctx.props.path()
                ))
            })
    }

    /// Opens a system at `place` with the properties that all web servers share.
    pub(crate) fn open(ctx: &Ctx<'_>, place: Place) -> Result<Arc<dyn System>, Failure> {
        let headers = headers(ctx.props)?;
        Ok(Arc::new(HttpSystem::with(ctx, place, headers, None)?))
    }

    /// Opens a system with these headers and what a `rest` system has beside them.
    pub(crate) fn with(
        ctx: &Ctx<'_>,
        place: Place,
        headers: HeaderMap,
        rest: Option<Arc<RestPart>>,
    ) -> Result<HttpSystem, Failure> {
        let props = ctx.props;
        let verify_ssl = props.bool("verify_ssl", false)?;
        if !verify_ssl && place.is_https() {
            tracing::warn!(
                system = ctx.owner,
                "certificates are NOT verified: whoever sits between this node and the server can \
                 read and change what they say; set verify_ssl to true"
            );
        }
        if props.bool("ignore_invalid_content_length_response_header", false)? {
            tracing::warn!(
                system = ctx.owner,
                "ignore_invalid_content_length_response_header has no effect: an answer of unknown \
                 length cannot be told from a truncated one"
            );
        }
        let credentials = Credentials::of(ctx)?;
        let mut secrets = secret_values(&headers);
        secrets.extend(credentials.secrets);
        let connect_timeout = props
            .opt_seconds("connect_timeout")?
            .unwrap_or(CONNECT_TIMEOUT);
        let client = Client::new(Options {
            connect_timeout,
            read_timeout: props.opt_seconds("read_timeout")?.unwrap_or(READ_TIMEOUT),
            verify_ssl,
            ca_pem: props
                .opt_str("custom_ca_pem_chain")?
                .filter(|_| verify_ssl)
                .map(str::to_owned),
            identity_pem: props.opt_str("client_certificate_pem")?.map(str::to_owned),
            proxies: proxies(props)?,
            environment_proxies: !place.is_near(),
            secrets,
            clock: Arc::clone(ctx.clock),
        })?;
        let retry_strategy = RetryStrategy::of(props)?;
        let id = ctx.owner.to_owned();
        Ok(HttpSystem(Arc::new(Inner {
            id,
            place,
            headers,
            retry_strategy,
            client,
            auth: credentials.auth,
            connect_timeout,
            rest,
        })))
    }

    /// What a `rest` system has beside a `url` system.
    pub(crate) fn rest(&self) -> Option<&Arc<RestPart>> {
        self.0.rest.as_ref()
    }

    /// The absolute address that `url` means here. A service that is still starting is waited for,
    /// at most `connect_timeout`.
    ///
    /// # Errors
    /// Config, when the address makes no sense; transient, when the service does not listen.
    pub fn address(&self, url: &str, cancel: &Cancel) -> Result<Url, Failure> {
        match &self.0.place {
            Place::Base(base) => base.address(url),
            Place::Service { services, https } => {
                let base = services.url(&self.0.id, self.0.connect_timeout, cancel)?;
                let base = match base.strip_prefix("http://") {
                    Some(rest) if *https => format!("https://{rest}/"),
                    _ => format!("{base}/"),
                };
                Base::Join(base).address(url)
            }
        }
    }

    /// Sends a request with the system's headers and credentials and waits for the answer's head.
    ///
    /// # Errors
    /// Those of [`HttpSystem::address`] and [`Client::send`]; a refusal carries what the system's
    /// `retry_strategy` says about its status.
    pub fn ask(&self, ask: Ask<'_>, cancel: &Cancel) -> Result<Response, Failure> {
        let mut url = self.address(ask.url, cancel)?;
        for (name, value) in &ask.parameters {
            add_parameter(&mut url, name, value);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !ask.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for source in [&self.0.headers, ask.headers] {
            for (name, value) in source {
                headers.insert(name.clone(), value.clone());
            }
        }
        let request = Request {
            method: ask.method,
            url,
            headers,
            body: ask.body,
        };
        let explain = match &self.0.place {
            Place::Service { services, .. } => Some(services.watch(&self.0.id)),
            Place::Base(_) => None,
        };
        let response = self.exchange(&request, cancel);
        let response = response.and_then(|response| self.accepted(response));
        match (response, explain) {
            (Ok(response), None) => Ok(response),
            (Ok(response), Some(explain)) => Ok(Response {
                body: response.body.explained_by(explain),
                ..response
            }),
            (Err(failure), explain) => Err(explained(failure, explain.as_ref())),
        }
    }

    /// Sends a request that has all of its headers but those that say who we are, and hands out
    /// the answer whatever its status. Where that is 401 and other credentials may be accepted,
    /// the request is sent once more.
    ///
    /// # Errors
    /// Those of [`Client::exchange`], and of fetching a token.
    pub fn exchange(&self, request: &Request, cancel: &Cancel) -> Result<Response, Failure> {
        let (auth, client) = (&self.0.auth, &self.0.client);
        let mut first = request.clone();
        auth.sign(&mut first, client, cancel)?;
        let sent = first.headers.get(AUTHORIZATION).cloned();
        let response = client.exchange(first, cancel)?;
        if response.status != UNAUTHORIZED || !auth.renew(&response.headers, sent.as_ref()) {
            return Ok(response);
        }
        let mut second = request.clone();
        auth.sign(&mut second, client, cancel)?;
        client.exchange(second, cancel)
    }

    /// What says who we are in a request that somebody else sends to this server, if anything does.
    ///
    /// # Errors
    /// Those of fetching a token.
    pub fn credentials(
        &self,
        method: Method,
        url: Url,
        cancel: &Cancel,
    ) -> Result<Option<HeaderValue>, Failure> {
        let mut request = Request {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        self.0.auth.sign(&mut request, &self.0.client, cancel)?;
        Ok(request.headers.remove(AUTHORIZATION))
    }

    /// Whether a token that is refused is fetched again.
    pub(crate) fn fetches_tokens(&self) -> bool {
        matches!(self.0.auth, Auth::Tokens(_))
    }

    /// Whether the server has to ask before we can say who we are.
    pub fn waits_to_be_asked(&self) -> bool {
        matches!(self.0.auth, Auth::Digest(_))
    }

    /// Takes note of the headers of an answer whose status is 401, to a request that was sent with
    /// these credentials; whether those that there are now may be accepted.
    pub fn asked(&self, refused: &HeaderMap, sent: Option<&HeaderValue>) -> bool {
        self.0.auth.renew(refused, sent)
    }

    /// The answer, if its status is one of the 200s.
    ///
    /// # Errors
    /// Those of [`Client::send`] for every other status, with what the system's `retry_strategy`
    /// says about it.
    pub fn accepted(&self, response: Response) -> Result<Response, Failure> {
        let accepted = self.0.client.accepted(response);
        accepted.map_err(|failure| self.judged(failure))
    }

    /// The failure that an answer is whose body was read, with what the system's
    /// `retry_strategy` says about its status.
    pub(crate) fn refused_with(
        &self,
        what: &str,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Failure {
        let failure = self.0.client.refused_with(what, status, headers, body);
        self.judged(failure)
    }

    fn judged(&self, mut failure: Failure) -> Failure {
        let status = failure.status;
        let says = status.and_then(|status| self.0.retry_strategy.for_status(status));
        failure.retries = says.cloned();
        failure
    }

    /// The system's id.
    pub fn name(&self) -> &str {
        &self.0.id
    }

    /// The client, for requests that bring their own address and headers.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The headers of every request; what says who we are comes beside them.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }
}

impl System for HttpSystem {
    fn id(&self) -> &str {
        &self.0.id
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Place {
    /// The base that a `url` system's configuration gives.
    pub(crate) fn of(props: Props<'_>) -> Result<Place, Failure> {
        let place = match (props.opt_str("url_pattern")?, props.opt_str("base_url")?) {
            (Some(pattern), None) => Base::Pattern(pattern.to_owned()),
            (None, Some(base)) => Base::Join(base.to_owned()),
            (found, _) => {
                let found = if found.is_some() { "both" } else { "neither" };
                return Err(Failure::config(format!(
                    "{}: expected exactly one of url_pattern and base_url, found {found}",
                    props.path()
                )));
            }
        };
        // A base that makes no address is told when the system opens, not at the first request.
        match &place {
            Base::Pattern(_) => place.address("")?,
            Base::Join(base) => parse(base)?,
        };
        Ok(Place::Base(place))
    }

    fn is_https(&self) -> bool {
        match self {
            Place::Base(Base::Pattern(text) | Base::Join(text)) => text.starts_with("https:"),
            Place::Service { https, .. } => *https,
        }
    }

    /// Whether the server is on this machine: no proxy leads there.
    fn is_near(&self) -> bool {
        match self {
            Place::Base(base) => base.address("").is_ok_and(|address| is_near(&address)),
            Place::Service { .. } => true,
        }
    }
}

/// The headers under `headers`; values are text, numbers or flags.
///
/// # Errors
/// Config, naming the header that cannot be sent, without its value.
pub(crate) fn headers(props: Props<'_>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let Some(object) = props.opt_object("headers")? else {
        return Ok(headers);
    };
    for (name, value) in object {
        let wrong = |expected: &str| {
            Failure::config(format!(
                "{}.headers[{name:?}]: expected {expected}, found something else",
                props.path()
            ))
        };
        let text = match value {
            Json::String(text) => text.clone(),
            Json::Number(_) | Json::Bool(_) => value.to_string(),
            Json::Null => continue,
            Json::Array(_) | Json::Object(_) => return Err(wrong("text as its value")),
        };
        let key = HeaderName::try_from(name.as_str()).map_err(|_| wrong("a header's name"))?;
        let mut value = HeaderValue::try_from(text).map_err(|_| wrong("a header's value"))?;
        value.set_sensitive(is_secret(&key));
        headers.insert(key, value);
    }
    Ok(headers)
}

/// The whole number `name` of at least 1, if it is there.
///
/// # Errors
/// Config, when it is something else.
pub(crate) fn positive(props: Props<'_>, name: &str) -> Result<Option<usize>, Failure> {
    let Some(number) = props.opt_int(name)? else {
        return Ok(None);
    };
    let positive = usize::try_from(number).ok().filter(|number| *number > 0);
    let wrong = || props.wrong(name, "a whole number of at least 1", props.get(name));
    positive.map(Some).ok_or_else(wrong)
}

/// Whether a header of that name has values that messages must not show.
pub(crate) fn is_secret(name: &HeaderName) -> bool {
    SECRET_HEADERS
        .iter()
        .any(|word| name.as_str().contains(word))
}

fn secret_values(headers: &HeaderMap) -> Vec<String> {
    let values = headers.values().filter(|value| value.is_sensitive());
    let texts = values.filter_map(|value| value.to_str().ok());
    // `Bearer abc` is as secret without its scheme.
    texts
        .flat_map(|text| [Some(text), text.split_once(' ').map(|(_, token)| token)])
        .flatten()
        .map(str::to_owned)
        .collect()
}

fn proxies(props: Props<'_>) -> Result<Vec<(String, String)>, Failure> {
    let Some(object) = props.opt_object("proxies")? else {
        return Ok(Vec::new());
    };
    object
        .iter()
        .map(|(scheme, address)| match address.as_str() {
            Some(address) => Ok((scheme.clone(), address.to_owned())),
            None => Err(Failure::config(format!(
                "{}.proxies.{scheme}: expected the address of a proxy, found no text",
                props.path()
            ))),
        })
        .collect()
}
