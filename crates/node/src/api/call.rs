//! One request, taken apart.

use std::sync::Arc;

use axum::RequestPartsExt as _;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, RawPathParams, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use futures_util::StreamExt as _;
use serde_json::{Map, Value as Json};
use tahini_hub::execution_log::User;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Problem;

/// One request: its parameters, its user, its body.
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path as it came, percent-encoded.
    pub raw_path: String,
    /// Query as it came.
    pub raw_query: Option<String>,
    /// Parts of the path by name, decoded.
    pub path: Vec<(String, String)>,
    /// Parameters of the query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: User,
    /// Whoever asks has shown no token that the route would want.
    pub is_strangers: bool,
    /// The whole body, unless the handler streams it.
    pub body: Bytes,
    /// The body of a handler that streams it.
    pub stream: Body,
    /// What the body takes of the memory that all bodies may take together.
    memory: Option<OwnedSemaphorePermit>,
}

/// Bytes that one permit of that memory stands for.
pub const PORTION: usize = 64 << 10;

impl Call {
    /// Takes a request apart; the body is left as a stream.
    pub async fn of(request: Request, user: User) -> Result<Call, Problem> {
        let (mut parts, stream) = request.into_parts();
        let params = parts.extract::<RawPathParams>().await;
        let params = params.map_err(|error| Problem::bad(error.to_string()))?;
        let path = params
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let raw_query = parts.uri.query().map(str::to_owned);
        Ok(Call {
            method: parts.method,
            raw_path: parts.uri.path().to_owned(),
            path,
            query: raw_query.as_deref().map(pairs).unwrap_or_default(),
            raw_query,
            headers: parts.headers,
            user,
            is_strangers: false,
            body: Bytes::new(),
            stream,
            memory: None,
        })
    }

    /// A request of which nothing but the body counts.
    #[cfg(test)]
    pub fn bare(stream: Body) -> Call {
        Call {
            method: Method::POST,
            raw_path: "/".to_owned(),
            path: Vec::new(),
            query: Vec::new(),
            raw_query: None,
            headers: HeaderMap::new(),
            user: User::default(),
            is_strangers: true,
            body: Bytes::new(),
            stream,
            memory: None,
        }
    }

    /// A part of the path that the route names.
    pub fn id(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// A parameter of the query; the last one wins.
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// A boolean parameter, in any case of letters.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false),
            Some(text) => Err(Problem::bad(format!(
                "expected {name} to be true or false, found {text:?}"
            ))),
        }
    }

    /// A parameter that is a whole number of at least 0.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Problem::bad(format!(
                    "expected {name} to be a whole number, found {text:?}"
                ))
            }),
        }
    }

    /// A header as text.
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Whether the body is of that media type.
    pub fn is_body(&self, kind: &str) -> bool {
        media_type(self.header(header::CONTENT_TYPE)).eq_ignore_ascii_case(kind)
    }

    /// Whether the client names that media type among those it takes.
    pub fn accepts(&self, kind: &str) -> bool {
        let list = self.header(header::ACCEPT);
        list.split(',')
            .any(|item| media_type(item).eq_ignore_ascii_case(kind))
    }

    /// Reads the body to its end, at most `limit` bytes, and as many as are left of `memory`, in
    /// portions. Of a multipart form that holds a file, the file is the body, and its type the
    /// body's.
    pub async fn read_body(
        &mut self,
        limit: usize,
        memory: &Arc<Semaphore>,
    ) -> Result<(), Problem> {
        let coding = self.header(header::CONTENT_ENCODING);
        if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
            let words = format!("expected a body without Content-Encoding, found {coding:?}");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
        }
        let stream = std::mem::take(&mut self.stream);
        if self.is_body("multipart/form-data") {
            let body = self.collect(stream, limit, memory).await?;
            return self.read_multipart(body).await;
        }
        self.body = self.collect(stream, limit, memory).await?;
        Ok(())
    }

    /// Nobody waits for memory in the middle of a body: two that wait for each other would wait
    /// for good.
    async fn collect(
        &mut self,
        body: Body,
        limit: usize,
        memory: &Arc<Semaphore>,
    ) -> Result<Bytes, Problem> {
        let mut stream = body.into_data_stream();
        let mut whole = Vec::new();
        let mut portions = 0;
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|error| Problem::bad(format!("the body broke off: {error}")))?;
            if whole.len() + chunk.len() > limit {
                let words = format!("expected a body of at most {limit} bytes, found more");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, words));
            }
            while portions * PORTION < whole.len() + chunk.len() {
                let Ok(one) = Arc::clone(memory).try_acquire_owned() else {
                    let words = "other bodies take the memory that there is for them";
                    return Err(Problem::later(words, 1));
                };
                match &mut self.memory {
                    Some(held) => held.merge(one),
                    none => *none = Some(one),
                }
                portions += 1;
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    async fn read_multipart(&mut self, body: Bytes) -> Result<(), Problem> {
        let mut request = Request::new(Body::from(body));
        *request.headers_mut() = self.headers.clone();
        let wrong = |error: &dyn std::fmt::Display| {
            Problem::bad(format!(
                "expected a multipart form, found a broken one: {error}"
            ))
        };
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|error| wrong(&error))?;
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.map_err(|error| wrong(&error))? {
            let name = field.name().unwrap_or_default().to_owned();
            let is_file = field.file_name().is_some();
            let kind = field.content_type().map(str::to_owned);
            let bytes = field.bytes().await.map_err(|error| wrong(&error))?;
            if is_file {
                let kind = kind.and_then(|kind| kind.parse().ok());
                self.headers.remove(header::CONTENT_TYPE);
                if let Some(kind) = kind {
                    self.headers.insert(header::CONTENT_TYPE, kind);
                }
                self.body = bytes;
                return Ok(());
            }
            fields.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
        // A form without files becomes what an ordinary form is, so that both read alike.
        let mut url = blank();
        url.query_pairs_mut().extend_pairs(fields);
        self.body = url.query().unwrap_or_default().to_owned().into();
        Ok(())
    }

    /// The fields of a posted form.
    pub fn form(&self) -> Form {
        Form(pairs(&String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Json, Problem> {
        let bytes = self
            .body
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&self.body);
        serde_json::from_slice(bytes)
            .map_err(|error| Problem::bad(format!("expected JSON in the body: {error}")))
    }

    /// The body as a JSON object.
    pub fn object(&self) -> Result<Map<String, Json>, Problem> {
        match self.json()? {
            Json::Object(map) => Ok(map),
            other => {
                let found = kind_of(&other);
                Err(Problem::bad(format!(
                    "expected a JSON object in the body, found {found}"
                )))
            }
        }
    }
}

/// The fields of a form.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// A field; the last one wins.
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.0, name)
    }

    /// All fields of that name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .rev()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

fn media_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// What a JSON value is, in words.
pub fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// The pairs of a query or of an urlencoded form.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let mut url = blank();
    url.set_query(Some(text));
    url.query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// A URL that only lends its query's syntax.
fn blank() -> reqwest::Url {
    reqwest::Url::parse("http://query/").expect("this is a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let found = pairs("operation=update-last-seen&last-seen=a%3Db+c%26&comment=%C3%A6#x");
        let expected = [
            ("operation", "update-last-seen"),
            ("last-seen", "a=b c&"),
            ("comment", "æ#x"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
