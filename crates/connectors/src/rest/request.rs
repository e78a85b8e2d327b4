//! Rendering an operation into a request.

use bytes::Bytes;
use minijinja::Value as Seen;
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tahini_entity::{Dict, Value};
use tahini_hub::Failure;

use super::operation::{Operation, SinceLocation};
use super::payload::{parameter, rendered};
use super::template::Scope;
use super::values::{Headers, seen};
use crate::http::{Request, add_parameter, is_secret};

/// What a request is made of beside its operation.
#[derive(Clone, Default)]
pub(super) struct Made {
    /// The variables of templates.
    pub(super) scope: Scope,
    /// The payload that an entity brings, which wins over the operation's.
    pub(super) payload: Option<Value>,
    /// The offset of a source, and where it goes.
    pub(super) since: Option<(SinceLocation, String)>,
    /// The address of the next page, instead of the operation's.
    pub(super) link: Option<Url>,
}

/// A rendered request, and what the templates of its page may look at.
#[derive(Clone)]
pub(super) struct Rendered {
    pub(super) request: Request,
    /// The address without the parameters of `params`.
    pub(super) base: Url,
    pub(super) headers: Vec<(String, String)>,
    pub(super) params: Dict,
    /// Which of the system's tokens templates found, counted from 1.
    pub(super) token: u64,
}

impl Rendered {
    /// Whether both are the same request.
    pub(super) fn is(&self, other: &Rendered) -> bool {
        self.request.url == other.request.url
            && self.request.method == other.request.method
            && self.request.body == other.request.body
            && self.headers == other.headers
    }

    /// Binds what the templates of the answer may look at.
    pub(super) fn bind(&self, scope: &mut Scope) {
        scope.set("url", Seen::from(self.base.as_str()));
        scope.set("params", seen(&Value::Dict(self.params.clone())));
        scope.set("request_params", seen(&Value::Dict(self.params.clone())));
        let headers = Seen::from_object(Headers::rendered(&self.headers));
        scope.set("request_headers", headers);
    }
}

/// Renders a request; `address` makes an absolute address of the operation's.
///
/// # Errors
/// Entity, where a template cannot be rendered or gives what cannot be sent.
pub(super) fn render(
    operation: &Operation,
    made: &Made,
    address: impl Fn(&str) -> Result<Url, Failure>,
) -> Result<Rendered, Failure> {
    let mut scope = made.scope.clone();
    let base = match &made.link {
        Some(link) => link.clone(),
        None => address(operation.templates.render(&operation.url, &scope)?.trim())?,
    };
    scope.set("url", Seen::from(base.as_str()));
    let (headers, params) = if operation.params_first {
        let params = params(operation, &mut scope)?;
        (headers(operation, &mut scope)?, params)
    } else {
        let headers = headers(operation, &mut scope)?;
        (headers, params(operation, &mut scope)?)
    };
    let (body, content_type) = body(operation, made, &scope)?;
    let mut url = base.clone();
    extend(&mut url, &params);
    let mut sent = header_map(&headers)?;
    if !sent.contains_key(ACCEPT) {
        sent.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, */*;q=0.5"),
        );
    }
    if let Some(kind) = content_type.filter(|_| !sent.contains_key(CONTENT_TYPE)) {
        let kind = HeaderValue::try_from(kind).map_err(|_| unsendable("content-type"))?;
        sent.insert(CONTENT_TYPE, kind);
    }
    if let Some((location, since)) = &made.since {
        put_since(operation, (*location, since), &mut url, &mut sent)?;
    }
    Ok(Rendered {
        request: Request {
            method: operation.method.clone(),
            url,
            headers: sent,
            body: Bytes::from(body),
        },
        base,
        headers,
        params,
        token: 0,
    })
}

fn headers(operation: &Operation, scope: &mut Scope) -> Result<Vec<(String, String)>, Failure> {
    let mut headers = Vec::new();
    for (name, value) in rendered(&operation.headers, &operation.templates, scope)? {
        headers.extend(parameter(&value).map(|text| (name, text)));
    }
    for name in ["headers", "request_headers"] {
        scope.set(name, Seen::from_object(Headers::rendered(&headers)));
    }
    Ok(headers)
}

fn params(operation: &Operation, scope: &mut Scope) -> Result<Dict, Failure> {
    let mut params = Dict::new();
    for (name, value) in rendered(&operation.params, &operation.templates, scope)? {
        params.set(name.as_str(), value);
    }
    for name in ["params", "request_params"] {
        scope.set(name, seen(&Value::Dict(params.clone())));
    }
    Ok(params)
}

fn body(
    operation: &Operation,
    made: &Made,
    scope: &Scope,
) -> Result<(Vec<u8>, Option<String>), Failure> {
    let payload = match (&made.payload, &operation.payload) {
        (Some(payload), _) => Some(payload.clone()),
        (None, Some(shape)) => shape.render(&operation.templates, scope)?,
        (None, None) => None,
    };
    match payload {
        None | Some(Value::Null) => Ok((Vec::new(), None)),
        Some(payload) => {
            let (body, kind) = operation.payload_type.body(&payload)?;
            Ok((body, Some(kind)))
        }
    }
}

/// Adds the parameters that the address does not have yet: the link to a next page has some of
/// them already.
fn extend(url: &mut Url, params: &Dict) {
    let there: Vec<String> = url
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .collect();
    for (name, value) in params.iter() {
        if there.iter().any(|known| known == name.as_str()) {
            continue;
        }
        match value {
            Value::List(items) => {
                for text in items.iter().filter_map(parameter) {
                    add_parameter(url, name, &text);
                }
            }
            one => {
                if let Some(text) = parameter(one) {
                    add_parameter(url, name, &text);
                }
            }
        }
    }
}

fn put_since(
    operation: &Operation,
    (location, since): (SinceLocation, &str),
    url: &mut Url,
    headers: &mut HeaderMap,
) -> Result<(), Failure> {
    let name = &operation.since_name;
    match location {
        SinceLocation::Manual => {}
        SinceLocation::Query => {
            if !url.query_pairs().any(|(known, _)| known == name.as_str()) {
                add_parameter(url, name, since);
            }
        }
        SinceLocation::Header => {
            let key = HeaderName::try_from(name.as_str()).map_err(|_| unsendable(name))?;
            let value = HeaderValue::try_from(since).map_err(|_| unsendable(name))?;
            headers.insert(key, value);
        }
    }
    Ok(())
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let key = HeaderName::try_from(name.trim()).map_err(|_| unsendable(name))?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| unsendable(name))?;
        value.set_sensitive(is_secret(&key));
        map.insert(key, value);
    }
    Ok(map)
}

fn unsendable(name: &str) -> Failure {
    Failure::entity(format!(
        "expected a header's name and value, found characters in {name:?} that cannot be sent"
    ))
}
