//! A source and a sink: a system's records as entities, and entities written to it.
//!
//! - `GET /entities`: every record
//! - `GET /entities?since=X`: those that were changed after X
//! - `GET /entities?since=X&limit=N`: the first N of them
//! - `POST /entities`: a JSON array of entities; 200 when all of it is written
//! - `POST /lookup`: the same entities, each with `current`: what the system holds now
//!
//! A pipe that writes asks /lookup first: where `current` is not what was collected last, somebody has changed the
//! record meanwhile, and the pipe waits until that change has been collected (optimistic locking).

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
        .route("/lookup", post(look_up))
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

/// Entities with what the system holds under their `_id`, null where that is nothing.
async fn look_up(State(records): State<Arc<Records>>, body: Body) -> Result<Response, Failure> {
    answer(body, move |mut entities| {
        let id_of = |entity: &Entity| entity.get("_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut known = records.find(&entities.iter().map(id_of).collect())?;
        for entity in &mut entities {
            let current = known.remove(&id_of(entity)).map_or(Value::Null, Value::Object);
            entity.insert("current".to_owned(), current);
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
    fn a_look_up_tells_what_the_system_holds() {
        let service = service("look-up");
        service.push(&ada());
        let (status, found) = service.ask("POST /lookup", br#"[{"_id": "1", "name": "Ada L."}, {"_id": "2"}]"#);
        let expected = json!([
            {"_id": "1", "name": "Ada L.", "current": {"name": "Ada", "id": "1", "changed": 1}},
            {"_id": "2", "current": null},
        ]);
        assert_eq!((status, found), (200, Some(expected)));
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
