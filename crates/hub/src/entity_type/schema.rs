//! An entity type as JSON Schema, in the form that clients of the reference know.
//!
//! The schema describes entities as the API shows them: values of the kinds that JSON does not have
//! are strings with a tag in front, told apart by `pattern` and by the keyword `subtype`. Counts
//! stand in `metadata`, which validators pass over.

use serde_json::{Map, Value as Json, json};
use tahini_entity::encoding::Kind;

use super::{EntityType, Fields, Namespaces, Node, Parts, Side, kind_name};

impl EntityType {
    /// The JSON Schema of the entities of `pipe` on `side`.
    pub fn schema(&self, pipe: &str, side: Side) -> Json {
        let mut properties = Map::new();
        properties.insert("_id".to_owned(), json!({ "type": "string" }));
        properties.insert("_deleted".to_owned(), json!({ "type": "boolean" }));
        if let Some(updated) = self.updated_schema() {
            properties.insert("_updated".to_owned(), updated);
        }
        let mut required = Vec::new();
        for (name, node) in &self.fields.named {
            // A dataset drops them.
            if side == Side::Sink && name.starts_with('_') {
                continue;
            }
            properties.insert(name.to_string(), node.schema());
            if node.total() == self.entities {
                required.push(json!(name.as_str()));
            }
        }
        let additional = self.fields.rest.as_deref();
        let mut schema = json!({
            "$id": format!("/api/pipes/{pipe}/entity-types/{}", side.name()),
            "$schema": "http://json-schema.org/schema#",
            "type": "object",
            "properties": properties,
            "additionalProperties": additional.map_or(json!(true), Node::schema),
            "metadata": { "count": self.entities, "truncated": self.room.truncated },
        });
        // What a deleted entity still has is nobody's promise.
        if !required.is_empty() && !self.deleted {
            schema["required"] = Json::Array(required);
        }
        schema
    }

    fn updated_schema(&self) -> Option<Json> {
        match self.updated {
            [true, false] => Some(json!({ "type": "integer" })),
            [false, true] => Some(json!({ "type": "string" })),
            [true, true] => Some(json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }] })),
            [false, false] => None,
        }
    }
}

impl Node {
    fn schema(&self) -> Json {
        let mut kinds: Vec<Json> = self.kinds().map(|kind| self.of_kind(kind)).collect();
        let mut schema = match kinds.len() {
            0 => json!({}),
            1 => kinds.remove(0),
            _ => json!({ "anyOf": kinds }),
        };
        let known = schema["metadata"].take();
        let mut metadata = known.as_object().cloned().unwrap_or_default();
        metadata.insert("count".to_owned(), json!(self.total()));
        schema["metadata"] = Json::Object(metadata);
        schema
    }

    fn of_kind(&self, kind: Kind) -> Json {
        let tagged = |tag: &str| {
            let subtype = kind_name(kind);
            json!({ "type": "string", "subtype": subtype, "pattern": format!("^~{tag}") })
        };
        let none = Parts::default();
        let parts = self.parts.as_deref().unwrap_or(&none);
        match kind {
            Kind::Null | Kind::Boolean | Kind::Integer | Kind::Float | Kind::String => {
                json!({ "type": kind_name(kind) })
            }
            Kind::Decimal => tagged("f"),
            Kind::Bytes => tagged("b"),
            Kind::Date | Kind::Datetime => tagged("t"),
            Kind::Uuid => tagged("u"),
            Kind::Uri => tagged("r"),
            Kind::Ni => parts.namespaces.schema(),
            Kind::List => {
                let items = parts.items.as_ref().map_or(json!({}), Node::schema);
                json!({ "type": "array", "items": items })
            }
            Kind::Dict => parts.fields.schema(self.count(Kind::Dict)),
        }
    }
}

impl Fields {
    /// The schema of dicts of which there were `count`.
    fn schema(&self, count: u64) -> Json {
        if let Some(rest) = &self.rest {
            return json!({ "type": "object", "additionalProperties": rest.schema() });
        }
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (name, node) in &self.named {
            properties.insert(name.to_string(), node.schema());
            if node.total() == count {
                required.push(json!(name.as_str()));
            }
        }
        let mut schema = json!({
            "type": "object", "properties": properties, "additionalProperties": true,
        });
        if !required.is_empty() {
            schema["required"] = Json::Array(required);
        }
        schema
    }
}

impl Namespaces {
    fn schema(&self) -> Json {
        let subtype = kind_name(Kind::Ni);
        if self.many || self.names.iter().any(|name| name.is_empty()) {
            return json!({ "type": "string", "subtype": subtype, "pattern": "^~:" });
        }
        let mut names: Vec<&str> = self.names.iter().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let escaped: Vec<String> = names.iter().map(|name| literally(name)).collect();
        let one = match escaped.as_slice() {
            [one] => one.clone(),
            more => format!("({})", more.join("|")),
        };
        json!({
            "type": "string", "subtype": subtype, "pattern": format!("^~:{one}:"),
            "metadata": { "namespaces": names },
        })
    }
}

/// A pattern that matches just this text.
fn literally(text: &str) -> String {
    let mut pattern = String::new();
    for letter in text.chars() {
        if "\\^$.|?*+()[]{}/".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
