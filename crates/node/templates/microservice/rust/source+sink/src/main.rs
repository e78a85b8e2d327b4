//! A source and a sink: a system's records as entities, and entities written to it.
//!
//! - `GET /entities`: every record
//! - `GET /entities?since=X`: those that were changed after X
//! - `GET /entities?since=X&limit=N`: the first N of them
//! - `POST /entities`: a JSON array of entities; 200 when all of it is written
//! - `POST /unchanged`: the same entities, when nobody has changed their records meanwhile; else 400
//!
//! A pipe that writes asks /unchanged first. An entity says in `expected` which change of its record was collected last,
//! 0 for none. Where the system holds another by now, the entity is refused: the node sets it aside, and tries it again
//! in later runs, when that change has been collected (optimistic locking).

mod protocol;
mod records;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use protocol::{Entity, Failure, answer, send, take};
use records::{Record, Records, changed, is_deleted};

fn main() -> std::io::Result<()> {
    let path = std::env::var("RECORDS").unwrap_or_else(|_| "records.ndjson".to_owned());
    protocol::serve(routes(Records::new(path)))
}

fn routes(records: Records) -> Router {
    Router::new()
        .route("/entities", get(pull).post(push))
        .route("/unchanged", post(unchanged))
        .with_state(Arc::new(records))
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

/// Writes the entities in their order. An error refuses the batch: the node asks again, or one by one.
async fn push(State(records): State<Arc<Records>>, body: Body) -> Result<Response, Failure> {
    take(body, move |entities| records.write(entities.into_iter().map(record_of).collect())).await
}

/// An entity as a record. What begins with an underscore is the node's and not the system's.
fn record_of(entity: Entity) -> Record {
    let id = entity.get("_id").cloned().unwrap_or_default();
    let mut record = Record::new();
    if entity.get("_deleted") == Some(&Value::Bool(true)) {
        record.insert("deleted".to_owned(), json!(true));
    } else {
        record.extend(entity.into_iter().filter(|(name, _)| !name.starts_with('_')));
    }
    record.insert("id".to_owned(), id);
    record
}

/// The entities without `expected`; an API that knows conditional writes would be told of it in `push` instead.
async fn unchanged(State(records): State<Arc<Records>>, body: Body) -> Result<Response, Failure> {
    answer(body, move |mut entities| {
        let id_of = |entity: &Entity| entity.get("_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = records.find(&entities.iter().map(id_of).collect())?;
        for entity in &mut entities {
            let expected = entity.remove("expected").unwrap_or(json!(0));
            let (id, found) = (id_of(entity), known.get(&id_of(entity)).map_or(0, changed));
            if expected != found {
                let words = "in the system, found";
                return Err(Failure::refused(format!("{id}: expected change {expected} {words} {found}: somebody was faster")));
            }
        }
        Ok(entities)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tests::{NO_BATCH, Served};

    /// A service of a file of its own.
    fn service(name: &str) -> Served {
        let file = std::env::temp_dir().join(format!("{name}-{}.ndjson", std::process::id()));
        let _ = std::fs::remove_file(&file);
        Served::new(routes(Records::new(&file)))
    }

    fn pull(service: &Served, query: &str) -> Value {
        let (status, entities) = service.ask(&format!("GET /entities{query}"), b"");
        assert_eq!(status, 200);
        entities.unwrap()
    }

    fn ada() -> Value {
        json!([{"_id": "1", "_deleted": false, "_updated": 7, "_previous": null, "_ts": 1, "_hash": "0", "name": "Ada"}])
    }

    #[test]
    fn what_is_written_comes_back_as_one_change() {
        let service = service("back");
        assert_eq!(pull(&service, ""), json!([]));
        assert_eq!((service.push(&ada()), service.push(&ada()), service.push(&json!([]))), (200, 200, 200));
        assert_eq!(pull(&service, ""), json!([{"_id": "1", "_updated": 1, "name": "Ada", "id": "1", "changed": 1}]));
        assert_eq!(pull(&service, "?since=1"), json!([]));
    }

    #[test]
    fn deleted_twice_is_one_change() {
        let service = service("deleted");
        let gone = json!([{"_id": "1", "_deleted": true}]);
        assert_eq!((service.push(&ada()), service.push(&gone), service.push(&gone)), (200, 200, 200));
        assert_eq!(pull(&service, "?since=1"), json!([{"_id": "1", "_updated": 2, "_deleted": true}]));
        assert_eq!(service.push(&ada()), 200);
        assert_eq!(pull(&service, "?since=2")[0]["name"], "Ada");
    }

    #[test]
    fn a_change_that_was_not_collected_is_not_overwritten() {
        let service = service("locking");
        let ask = |batch: Value| service.ask("POST /unchanged", batch.to_string().as_bytes());
        service.push(&ada());
        let wanted = json!([{"_id": "1", "name": "Ada L."}]);
        assert_eq!(ask(json!([{"_id": "1", "name": "Ada L.", "expected": 1}])), (200, Some(wanted.clone())));
        service.push(&json!([{"_id": "1", "name": "Ada K."}]));
        let (status, said) = ask(json!([{"_id": "1", "name": "Ada L.", "expected": 1}]));
        assert_eq!(status, 400);
        assert!(said.unwrap()["message"].as_str().unwrap().starts_with("1: expected change 1 in the system, found 2"));
        assert_eq!(ask(json!([{"_id": "1", "name": "Ada L.", "expected": 2}])), (200, Some(wanted)));
        assert_eq!(ask(json!([{"_id": "2", "expected": 0}])), (200, Some(json!([{"_id": "2"}]))));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let service = service("refused");
        for wrong in NO_BATCH {
            assert_eq!(service.ask("POST /entities", wrong).0, 400, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(service.ask("GET /entities?since=now", b"").0, 400);
    }
}
