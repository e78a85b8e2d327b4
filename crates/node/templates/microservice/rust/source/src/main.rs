//! A source: the records of a system as a stream of entities.
//!
//! - `GET /entities`: every record
//! - `GET /entities?since=X`: those that were changed after X
//! - `GET /entities?since=X&limit=N`: the first N of them

mod protocol;
mod records;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::Router;
use serde::Deserialize;
use serde_json::json;

use protocol::{Entity, Failure, send};
use records::{Record, Records, changed, is_deleted};

fn main() -> std::io::Result<()> {
    let path = std::env::var("RECORDS").unwrap_or_else(|_| "records.ndjson".to_owned());
    protocol::serve(routes(Records::new(path)))
}

fn routes(records: Records) -> Router {
    Router::new().route("/entities", get(pull)).with_state(Arc::new(records))
}

/// What a pipe asks for.
#[derive(Deserialize)]
struct Asked {
    since: Option<String>,
    limit: Option<String>,
}

/// What was changed after `since`, oldest change first. It is the `_updated` of an entity that we sent.
async fn pull(State(records): State<Arc<Records>>, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let since = number("since", asked.since)?;
    let limit = number("limit", asked.limit)?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(0));
    send(records.changes(since).take(limit).map(|record| record.map(entity_of))).await
}

fn number(name: &str, text: Option<String>) -> Result<Option<i64>, Failure> {
    let text = text.filter(|text| !text.is_empty());
    let wrong = |text: &str| Failure::refused(format!("{name}: expected a number, found {text:?}"));
    text.map(|text| text.parse().map_err(|_| wrong(&text))).transpose()
}

/// A record as an entity: `_id` says whose it is, `_updated` when it changed, `_deleted` that it is gone.
fn entity_of(record: Record) -> Entity {
    let mut entity = Entity::new();
    entity.insert("_id".to_owned(), record.get("id").cloned().unwrap_or_default());
    entity.insert("_updated".to_owned(), json!(changed(&record)));
    if is_deleted(&record) {
        entity.insert("_deleted".to_owned(), json!(true));
    } else {
        entity.extend(record);
    }
    entity
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tests::Served;

    /// A service of these lines.
    fn service(name: &str, lines: &str) -> Served {
        let file = std::env::temp_dir().join(format!("{name}-{}.ndjson", std::process::id()));
        std::fs::write(&file, lines).unwrap();
        Served::new(routes(Records::new(file)))
    }

    const LINES: &str = "{\"id\":\"1\",\"changed\":1,\"name\":\"Ada\"}\n{\"id\":\"2\",\"changed\":2}\n\
                         {\"id\":\"1\",\"changed\":3,\"deleted\":true}\n";

    #[test]
    fn everything() {
        let (status, entities) = service("everything", LINES).ask("GET /entities", b"");
        let expected = json!([
            {"_id": "1", "_updated": 1, "id": "1", "changed": 1, "name": "Ada"},
            {"_id": "2", "_updated": 2, "id": "2", "changed": 2},
            {"_id": "1", "_updated": 3, "_deleted": true},
        ]);
        assert_eq!((status, entities), (200, Some(expected)));
    }

    #[test]
    fn since_and_limit() {
        let service = service("since", LINES);
        let (_, entities) = service.ask("GET /entities?since=1&limit=1", b"");
        assert_eq!(entities, Some(json!([{"_id": "2", "_updated": 2, "id": "2", "changed": 2}])));
        assert_eq!(service.ask("GET /entities?since=3", b""), (200, Some(json!([]))));
        assert_eq!(service.ask("GET /entities?since=yesterday", b"").0, 400);
        assert_eq!(service.ask("POST /entities", b"[]").0, 405);
    }

    #[test]
    fn a_failure_at_once_is_an_error() {
        assert_eq!(service("at-once", "no JSON\n").ask("GET /entities", b"").0, 500);
    }

    #[test]
    fn a_failure_half_way_cuts_the_answer() {
        let (status, entities) = service("half-way", &format!("{LINES}no JSON\n")).ask("GET /entities", b"");
        assert_eq!((status, entities), (200, None));
    }
}
