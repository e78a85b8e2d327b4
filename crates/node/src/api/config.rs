//! `/api/config`: the whole configuration, out and in.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::answer::json_answer;
use super::call::kind_of;
use super::{Answer, Call, Node, Problem, archive};
use crate::configuration::{Held, Judge, Rejected};

/// The configuration as it was written: a JSON array, or a zip where the client takes one.
pub fn show(node: &Node, call: &Call) -> Answer {
    let held = node.stored.held();
    let components = held.components();
    if call.accepts("application/zip") {
        let mut response = Response::new(Body::from(archive::pack(&components)?));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/zip"),
        );
        let name = HeaderValue::from_static("attachment; filename=\"config.zip\"");
        headers.insert(header::CONTENT_DISPOSITION, name);
        return Ok(response);
    }
    json_answer(&Json::Array(components.into_iter().cloned().collect()))
}

/// Replaces the whole configuration, all or nothing.
pub fn replace(node: &Node, call: &Call) -> Answer {
    let components = posted(call)?;
    let warnings = change(node, call, Judge::All, |held| held.replace(components))?;
    json_answer(&json!({ "validation_errors": warnings }))
}

/// The components of a body: a JSON array, one object, or a zip.
fn posted(call: &Call) -> Result<Vec<Json>, Problem> {
    if call.is_body("application/zip") || call.body.starts_with(b"PK\x03\x04") {
        return archive::unpack(&call.body);
    }
    match call.json()? {
        Json::Array(list) => Ok(list),
        one @ Json::Object(_) => Ok(vec![one]),
        other => {
            let words = format!("expected a list of components, found {}", kind_of(&other));
            Err(Problem::bad(words))
        }
    }
}

/// Makes a change of the configuration; with `force`, what is wrong is marked and no more.
pub fn change(
    node: &Node,
    call: &Call,
    judge: Judge,
    edit: impl FnOnce(&mut Held),
) -> Result<Vec<Json>, Problem> {
    let judge = if call.flag("force", false)? {
        Judge::Nothing
    } else {
        judge
    };
    let changed = node
        .stored
        .change(&node.assembly, &node.scheduler, &judge, edit);
    match changed {
        Ok(warnings) => {
            tracing::info!(user = %call.user.user_id, from = %call.user.remote_addr, path = %call.raw_path, "configuration changed");
            Ok(warnings)
        }
        Err(rejected) => Err(rejected.into()),
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Problem {
        let items = match rejected {
            Rejected::Failed(failure) => return failure.into(),
            Rejected::Invalid(items) => items,
        };
        let words = first_error(&items).unwrap_or_else(|| "no error is known".to_owned());
        let words = format!("the configuration has errors, and nothing was changed: {words}");
        Problem::bad(words).with("validation_errors", Json::Array(items))
    }
}

fn first_error(items: &[Json]) -> Option<String> {
    let errors = items.iter().flat_map(|item| {
        let id = item["posted-config"]["_id"].as_str().unwrap_or_default();
        item["config-errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(move |error| (id, error))
    });
    let mut errors = errors.filter(|(_, error)| error["level"] == "error");
    let (id, error) = errors.next()?;
    let more = errors.count();
    let words = error["msg"].as_str().unwrap_or_default();
    let rest = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    Some(format!("{id}: {words}{rest}"))
}
