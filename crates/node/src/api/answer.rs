//! What a request is answered with: JSON, or a problem that says what is wrong (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};
use tahini_entity::json::{Fields, write_record};
use tahini_hub::hub::Refusal;
use tahini_hub::receiver::{PostError, Stale};
use tahini_hub::secrets::VaultError;
use tahini_hub::{Class, Failure};
use tahini_store::StoreError;

/// How a handler ends.
pub type Answer = Result<Response, Problem>;

/// Why a request was not carried out.
#[derive(Debug)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// What was expected, what was found, then help.
    pub detail: String,
    /// More members of the answer.
    pub more: Map<String, Json>,
    /// After how many seconds to ask again.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem with that status and these words.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            detail: detail.into(),
            more: Map::new(),
            retry_after: None,
        }
    }

    /// 400: the request is not what was expected.
    pub fn bad(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn missing(what: &str, id: &str) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("expected a {what} {id:?}, found none"),
        )
    }

    /// 409: it cannot be done as things stand.
    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    /// 503: it may be done later.
    pub fn later(detail: impl Into<String>, seconds: u64) -> Problem {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        Problem {
            retry_after: Some(seconds),
            ..problem
        }
    }

    /// The same problem with one more member.
    pub fn with(mut self, name: &str, value: Json) -> Problem {
        self.more.insert(name.to_owned(), value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "status": self.status.as_u16(),
            "title": self.status.canonical_reason().unwrap_or("error"),
            "detail": self.detail,
        });
        if let Json::Object(members) = &mut body {
            members.extend(self.more);
        }
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(status = self.status.as_u16(), detail = %self.detail, "a request failed");
        }
        let mut response = with_json(self.status, &body);
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let status = match failure.class {
            Class::Entity => StatusCode::BAD_REQUEST,
            Class::Config | Class::Tripped => StatusCode::CONFLICT,
            Class::Transient | Class::Waiting | Class::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Class::Fatal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, failure.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::Missing(name) => Problem::missing("dataset", &name),
            other => Problem::from(Failure::from(other)),
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let words = refusal.to_string();
        match refusal {
            Refusal::Missing(_) | Refusal::NoDataset(_) => {
                Problem::new(StatusCode::NOT_FOUND, words)
            }
            Refusal::NoPump(..) => Problem::bad(words),
            Refusal::Failed(failure) => failure.into(),
            Refusal::Running(_)
            | Refusal::Rescanning(_)
            | Refusal::Disabled(..)
            | Refusal::Unusable(..)
            | Refusal::Tripped(..)
            | Refusal::Protected(_) => Problem::conflict(words),
        }
    }
}

impl From<PostError> for Problem {
    /// A poster takes 409 for a broken sequence and begins anew, so nothing else is a 409 here.
    fn from(error: PostError) -> Problem {
        match error {
            PostError::Body(words) => Problem::bad(words),
            PostError::Conflict(words) => Problem::conflict(words),
            PostError::Outdated(words, stale) => {
                let problem = Problem::new(StatusCode::PRECONDITION_FAILED, words);
                match stale {
                    Some(stale) => with_stale(problem, &stale),
                    None => problem,
                }
            }
            PostError::Refused(refusal) => not_a_conflict(refusal.into()),
            PostError::Failed(failure) => not_a_conflict(failure.into()),
        }
    }
}

/// What the poster needs to merge its entity with the latest version.
fn with_stale(problem: Problem, stale: &Stale) -> Problem {
    let shown = [
        ("input_entity", &stale.input),
        ("existing_entity", &stale.existing),
        ("common_ancestor_entity", &stale.ancestor),
    ];
    shown.into_iter().fold(problem, |problem, (name, batch)| {
        let Some(record) = batch.iter().next() else {
            return problem;
        };
        let mut text = Vec::new();
        write_record(record, Fields::ALL, &mut text);
        match serde_json::from_slice(&text) {
            Ok(entity) => problem.with(name, entity),
            Err(_) => problem,
        }
    })
}

/// The pipe cannot take anything until somebody mends it: the poster should come again.
fn not_a_conflict(problem: Problem) -> Problem {
    if problem.status == StatusCode::CONFLICT {
        Problem::later(problem.detail, 10)
    } else {
        problem
    }
}

/// 200 with JSON.
pub fn json_answer(value: &Json) -> Answer {
    Ok(with_json(StatusCode::OK, value))
}

/// JSON with another status.
pub fn with_json(status: StatusCode, value: &Json) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// 200 with plain text.
pub fn text_answer(text: String) -> Answer {
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    Ok(([kind], text).into_response())
}
