//! A sink: writes entities to a system.
//!
//! - `POST /entities`: a JSON array of entities; 200 when all of it is written
//!
//! Writing is by id, so that a batch that comes twice does no harm: the node sends again what it got no answer for.

mod protocol;
mod records;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};

use protocol::{Entity, Failure, take};
use records::{Record, Records};

fn main() -> std::io::Result<()> {
    let path = std::env::var("RECORDS").unwrap_or_else(|_| "records.ndjson".to_owned());
    protocol::serve(routes(Records::new(path)))
}

fn routes(records: Records) -> Router {
    Router::new().route("/entities", post(push)).with_state(Arc::new(records))
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tests::{NO_BATCH, Served};

    /// A service of a file of its own, and the file.
    fn service(name: &str) -> (Served, std::path::PathBuf) {
        let file = std::env::temp_dir().join(format!("{name}-{}.ndjson", std::process::id()));
        let _ = std::fs::remove_file(&file);
        (Served::new(routes(Records::new(&file))), file)
    }

    fn written(file: &std::path::Path) -> Vec<Value> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ada() -> Value {
        json!([{"_id": "1", "_deleted": false, "_updated": 7, "_previous": null, "_ts": 1, "_hash": "0", "name": "Ada æ"}])
    }

    #[test]
    fn a_record_without_what_is_the_nodes_once() {
        let (service, file) = service("once");
        assert_eq!((service.push(&ada()), service.push(&ada())), (200, 200));
        assert_eq!(written(&file), [json!({"name": "Ada æ", "id": "1", "changed": 1})]);
    }

    #[test]
    fn deleted_twice_is_deleted() {
        let (service, file) = service("deleted");
        let gone = json!([{"_id": "1", "_deleted": true}]);
        assert_eq!((service.push(&ada()), service.push(&gone), service.push(&gone)), (200, 200, 200));
        assert_eq!(written(&file)[1..], [json!({"deleted": true, "id": "1", "changed": 2})]);
    }

    #[test]
    fn the_empty_batch_at_the_end() {
        let (service, file) = service("empty");
        assert_eq!(service.push(&json!([])), 200);
        assert_eq!(written(&file), Vec::<Value>::new());
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let (service, _) = service("refused");
        for wrong in NO_BATCH {
            assert_eq!(service.ask("POST /entities", wrong).0, 400, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(service.push(&json!([{"name": "x"}])), 400);
    }
}
