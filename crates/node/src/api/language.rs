//! `GET /api/dtl/functions`: the language's functions, from the table that the compiler reads.

use serde_json::{Value as Json, json};
use tahini_dtl::manual;

use super::answer::json_answer;
use super::{Answer, Call, Node, Problem};

/// All functions, or with `name` those of that name.
pub fn functions(_: &Node, call: &Call) -> Answer {
    let found: Vec<Json> = match call.get("name") {
        None => manual::entries().map(manual::json).collect(),
        Some(name) => {
            let found = manual::find(name);
            if found.is_empty() {
                let help = manual::nearest(name);
                return Err(Problem::new(
                    axum::http::StatusCode::NOT_FOUND,
                    format!("expected the name of a function, found {name:?}{help}"),
                ));
            }
            found.into_iter().map(manual::json).collect()
        }
    };
    json_answer(&json!({"functions": found}))
}
