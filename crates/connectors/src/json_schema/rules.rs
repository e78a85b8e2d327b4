//! A compiled schema, and what it says of a document.

use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Value as Json, json};

/// Errors of one entity that are told.
const MAX_ERRORS: usize = 100;
/// Characters of one message.
const MAX_MESSAGE: usize = 500;

/// A compiled schema.
#[derive(Clone)]
pub(super) struct Rules(Arc<Validator>);

impl Rules {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it; also when it refers to another document, as nothing is fetched.
    pub(super) fn of(schema: &Json) -> Result<Rules, String> {
        let mut schema = schema.clone();
        leave_the_draft_open(&mut schema);
        decimals_are_numbers(&mut schema);
        let options = jsonschema::options().offline();
        let validator = options.build(&schema).map_err(|error| {
            let place = error.instance_path().to_string();
            match place.is_empty() {
                true => error.to_string(),
                false => format!("{place}: {error}"),
            }
        })?;
        Ok(Rules(Arc::new(validator)))
    }

    /// What is wrong with a document, in the order of the schema; nothing when it is valid.
    pub(super) fn errors(&self, document: &Json) -> Vec<String> {
        let mut errors = self.0.iter_errors(document);
        let mut told: Vec<String> = errors.by_ref().take(MAX_ERRORS).map(words).collect();
        let more = errors.count();
        if more > 0 {
            told.push(format!("and {more} more errors"));
        }
        told
    }
}

/// Schemas that name the newest draft whatever that is name none.
fn leave_the_draft_open(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    let named = map.get("$schema").and_then(Json::as_str);
    if named.is_some_and(|named| named.trim_end_matches('#') == "http://json-schema.org/schema") {
        map.remove("$schema");
    }
}

/// Inferred schemas describe a decimal as the tagged string that it is on the wire.
fn decimals_are_numbers(schema: &mut Json) {
    match schema {
        Json::Object(map) if map.get("subtype").is_some_and(|known| known == "decimal") => {
            *schema = json!({ "type": "number" });
        }
        Json::Object(map) => map.values_mut().for_each(decimals_are_numbers),
        Json::Array(items) => items.iter_mut().for_each(decimals_are_numbers),
        _ => {}
    }
}

/// The error in words, behind the JSON pointer of what is wrong unless that is the entity itself.
/// What users meet most is worded as the reference does.
fn words(error: ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let words = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            format!("'{name}' is a required property")
        }
        ValidationErrorKind::Type { .. } => error.to_string().replace('"', "'"),
        _ => error.to_string(),
    };
    let words: String = match words.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    };
    match place.is_empty() {
        true => words,
        false => format!("{place}: {words}"),
    }
}
