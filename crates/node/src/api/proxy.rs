//! `/api/systems/{system_id}/proxy`: requests passed on to a hosted service, and answers back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::Value as Json;
use tahini_connectors::http::HttpSystem;
use tahini_hub::Cancel;
use tahini_hub::config::Component;

use super::systems::named;
use super::{Answer, Call, Node, Problem};
use crate::microservices::met;

/// How long a service that is still starting is waited for.
const START: Duration = Duration::from_secs(60);

/// How long a connection to a service may take.
const CONNECT: Duration = Duration::from_secs(60);

/// What proxied requests are sent with: they go where we say, and come back as they are.
pub struct ProxyClients {
    verified: reqwest::Client,
    unverified: reqwest::Client,
}

impl ProxyClients {
    /// Clients without proxies, redirects or decompression.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> reqwest::Result<ProxyClients> {
        let client = |verify: bool| {
            reqwest::Client::builder()
                .no_proxy()
                .no_gzip()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .tls_danger_accept_invalid_certs(!verify)
                .build()
        };
        Ok(ProxyClients {
            verified: client(true)?,
            unverified: client(false)?,
        })
    }

    /// The client for a system: certificates count as they do for its pipes.
    fn of(&self, config: &Json) -> &reqwest::Client {
        match config.get("verify_ssl").and_then(Json::as_bool) {
            Some(true) => &self.verified,
            _ => &self.unverified,
        }
    }
}

/// Headers that belong to one connection, or to us: the token is the node's, not the service's.
const OWN: &[&str] = &[
    "authorization",
    "connection",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Passes one request on; both bodies are streamed.
pub async fn pass(node: Arc<Node>, call: Call) -> Answer {
    let system = named(&node, &call)?;
    if system.type_name() != "system:microservice" {
        let words = format!(
            "system {:?} is no microservice that this node runs",
            system.id
        );
        return Err(Problem::bad(words));
    }
    let ready = node.assembly.host.ready(&system.id, START, &|| false).await;
    let base = ready.map_err(|words| Problem::later(words, 5))?;
    let url = format!("{base}/{}{}", rest_of(&call.raw_path), query_of(&call));
    let url: reqwest::Url = url.parse().map_err(|_| {
        Problem::bad(format!(
            "expected a path behind /proxy/ that makes an address, found {url:?}"
        ))
    })?;
    let passing = Passing {
        client: node.clients.of(&system.effective),
        method: call.method,
        headers: passed_on(&call.headers),
        url,
        signer: signer(&node, &system).await?,
    };
    let begun = Timestamp::now();
    let sent = match call.stream.is_end_stream() {
        true => passing.without_body().await,
        false => passing.with_body(call.stream).await,
    };
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            let mut words = format!(
                "the service of system {:?} did not answer: {}",
                system.id,
                met(&error)
            );
            if let Some(ended) = node.assembly.host.ended(&system.id, begun).await {
                words = format!("{words}; {ended}");
            }
            return Err(Problem::new(StatusCode::BAD_GATEWAY, words));
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = kept_apart(passed_on(answer.headers()));
    *response.body_mut() = Body::from_stream(answer.bytes_stream().map_err(std::io::Error::other));
    Ok(response)
}

/// What says who we are to the service, where its configuration has credentials.
async fn signer(node: &Arc<Node>, system: &Component) -> Result<Option<HttpSystem>, Problem> {
    let kind = system
        .effective
        .get("authentication")
        .and_then(Json::as_str);
    if !matches!(kind, Some("basic" | "digest")) {
        return Ok(None);
    }
    let id = system.id.clone();
    let opened = node.work(move |node| node.assembly.hub.world.systems.get(&id));
    let opened = opened.await?;
    let opened = opened.map_err(|failure| Problem::bad(failure.to_string()))?;
    Ok(opened.as_any().downcast_ref::<HttpSystem>().cloned())
}

/// A request on its way to a service.
struct Passing<'a> {
    client: &'a reqwest::Client,
    method: Method,
    url: reqwest::Url,
    headers: HeaderMap,
    signer: Option<HttpSystem>,
}

impl Passing<'_> {
    /// The request as it stands, with the system's credentials, which are given back, too.
    fn signed(&self) -> (reqwest::RequestBuilder, Option<HeaderValue>) {
        let credentials = self.signer.as_ref().and_then(|signer| {
            let (method, url) = (self.method.clone(), self.url.clone());
            // Those of a service come from its configuration: nothing is fetched that could fail.
            signer.credentials(method, url, &Cancel::new()).ok()?
        });
        let mut headers = self.headers.clone();
        if let Some(credentials) = &credentials {
            headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        let request = self.client.request(self.method.clone(), self.url.clone());
        (request.headers(headers), credentials)
    }

    /// Sends it, once more where the service asks who is there.
    async fn without_body(&self) -> reqwest::Result<reqwest::Response> {
        let (request, sent) = self.signed();
        let answer = request.send().await?;
        let again = self.signer.as_ref().is_some_and(|signer| {
            answer.status() == StatusCode::UNAUTHORIZED
                && signer.asked(answer.headers(), sent.as_ref())
        });
        if !again {
            return Ok(answer);
        }
        self.signed().0.send().await
    }

    /// The body is there once only, so that a service that asks first is let ask before.
    async fn with_body(&self, body: Body) -> reqwest::Result<reqwest::Response> {
        if let Some(signer) = self.signer.as_ref().filter(|one| one.waits_to_be_asked()) {
            let answer = self.client.get(self.url.clone()).send().await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                signer.asked(answer.headers(), None);
            }
        }
        let body = reqwest::Body::wrap_stream(body.into_data_stream());
        self.signed().0.body(body).send().await
    }
}

/// The path behind `/proxy/`, as it came: what is encoded stays encoded.
fn rest_of(path: &str) -> &str {
    // An id may hold the word as well, so that only what follows the id counts.
    let after_id = path.splitn(5, '/').nth(4).unwrap_or_default();
    after_id
        .strip_prefix("proxy")
        .unwrap_or_default()
        .trim_start_matches('/')
}

fn query_of(call: &Call) -> String {
    call.raw_query
        .as_ref()
        .map(|query| format!("?{query}"))
        .unwrap_or_default()
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named: Vec<String> = named
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_lowercase())
        .collect();
    let is_own = |name: &str| OWN.contains(&name) || named.iter().any(|other| other == name);
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        if !is_own(name.as_str()) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// What a service may not say, since it would hold for the node's own pages, too.
const OF_THE_ORIGIN: &[&str] = &[
    "alt-svc",
    "clear-site-data",
    "service-worker-allowed",
    "strict-transport-security",
];

/// A service's page comes from the node's address, and must not act as one of the node's: the
/// browser gives it an origin of its own, and takes no answer for a page that does not say so.
fn kept_apart(mut headers: HeaderMap) -> HeaderMap {
    for name in OF_THE_ORIGIN {
        headers.remove(*name);
    }
    let sandbox = HeaderValue::from_static("sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_behind_the_proxy_stays_as_it_came() {
        for (path, rest) in [
            ("/api/systems/s/proxy", ""),
            ("/api/systems/s/proxy/", ""),
            ("/api/systems/s/proxy/a%2Fb/c", "a%2Fb/c"),
            ("/api/systems/proxy/proxy/proxy/x", "proxy/x"),
        ] {
            assert_eq!(rest_of(path), rest, "{path}");
        }
    }
}
