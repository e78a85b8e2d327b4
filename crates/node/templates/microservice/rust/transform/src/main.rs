//! A transform: answers entities with what they become.
//!
//! - `POST /transform`: a JSON array of entities; the same entities, each with `initials`

mod protocol;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use serde_json::Value;

use protocol::{Entity, Failure, answer};

fn main() -> std::io::Result<()> {
    protocol::serve(routes())
}

fn routes() -> Router {
    Router::new().route("/transform", post(transform))
}

async fn transform(body: Body) -> Result<Response, Failure> {
    answer(body, change).await
}

/// What some entities become; ask another system here, once for all of them where it can.
fn change(entities: Vec<Entity>) -> Result<Vec<Entity>, Failure> {
    Ok(entities.into_iter().map(with_initials).collect())
}

/// The entity with the first letters of its name. One that is deleted passes as it is.
fn with_initials(mut entity: Entity) -> Entity {
    let deleted = entity.get("_deleted") == Some(&Value::Bool(true));
    if let Some(Value::String(name)) = entity.get("name").filter(|_| !deleted) {
        let initials: String = name.split_whitespace().filter_map(|word| word.chars().next()).collect();
        entity.insert("initials".to_owned(), initials.into());
    }
    entity
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use protocol::tests::{NO_BATCH, Served};

    fn ask(batch: &[u8]) -> (u16, Option<Value>) {
        Served::new(routes()).ask("POST /transform", batch)
    }

    #[test]
    fn each_comes_back_whole_with_its_initials() {
        let (status, back) = ask(br#"[{"_id": "1", "name": "Ada Lovelace", "n": 12345678901234567890.5}, {"_id": "2"}]"#);
        assert_eq!(status, 200);
        let text = back.unwrap().to_string();
        assert_eq!(text, r#"[{"_id":"1","name":"Ada Lovelace","n":12345678901234567890.5,"initials":"AL"},{"_id":"2"}]"#);
    }

    #[test]
    fn deleted_ones_pass() {
        let gone = json!([{"_id": "1", "_deleted": true, "name": "Ada"}]);
        assert_eq!(ask(gone.to_string().as_bytes()), (200, Some(gone)));
    }

    #[test]
    fn nothing_becomes_nothing() {
        assert_eq!(ask(b"[]"), (200, Some(json!([]))));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        for wrong in NO_BATCH {
            assert_eq!(ask(wrong).0, 400, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_batch_that_breaks_off_late_cuts_the_answer() {
        let many = "[".to_owned() + &"{\"_id\": \"1\"},".repeat(1000);
        assert_eq!(ask(many.as_bytes()), (200, None));
    }
}
