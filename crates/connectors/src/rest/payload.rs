//! What operations send: templated objects, and the bodies that are made of them.

use std::fmt::Write as _;

use serde_json::Value as Json;
use tahini_entity::json::{Numbers, from_config, parse_plain, write_value};
use tahini_entity::{Dict, Value};
use tahini_hub::Failure;

use super::template::{Scope, Templates, Text};
use super::values::{bare, plain_json};
use crate::http::encoded;

/// Leaves a property out that has it in its name or value.
const SKIP: &str = "sesam:markskip";
/// Makes JSON of the text that has it.
const JSON: &str = "sesam:markjson";

/// JSON of a configuration, with templates wherever it has text.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Anything but text.
    Scalar(Value),
    /// Text.
    Text(Text),
    /// A list.
    List(Vec<Shape>),
    /// An object.
    Dict(Vec<(Text, Shape)>),
}

impl Shape {
    /// Compiles the JSON at `path`.
    ///
    /// # Errors
    /// Config, where a text is no well-formed template.
    pub(super) fn of(json: &Json, templates: &mut Templates, path: &str) -> Result<Shape, Failure> {
        Ok(match json {
            Json::String(text) => Shape::Text(templates.text(text, path)?),
            Json::Array(items) => {
                let items = items.iter().enumerate();
                let items =
                    items.map(|(at, item)| Shape::of(item, templates, &format!("{path}[{at}]")));
                Shape::List(items.collect::<Result<_, _>>()?)
            }
            Json::Object(map) => Shape::Dict(pairs(map, templates, path)?),
            other => Shape::Scalar(from_config(other, Numbers::FLOATS)),
        })
    }

    /// What it says under these variables; `None` where it leaves itself out.
    ///
    /// # Errors
    /// Entity, where a template cannot be rendered.
    pub(super) fn render(
        &self,
        templates: &Templates,
        scope: &Scope,
    ) -> Result<Option<Value>, Failure> {
        Ok(match self {
            Shape::Scalar(value) => Some(value.clone()),
            Shape::Text(text) => marked(templates.render(text, scope)?)?,
            Shape::List(items) => {
                let mut rendered = Vec::new();
                for item in items {
                    rendered.extend(item.render(templates, scope)?);
                }
                Some(Value::List(rendered.into_iter().collect()))
            }
            Shape::Dict(pairs) => {
                let mut dict = Dict::new();
                for (name, value) in rendered(pairs, templates, scope)? {
                    dict.set(name.as_str(), value);
                }
                Some(Value::Dict(dict))
            }
        })
    }
}

/// Compiles the names and values of an object.
///
/// # Errors
/// Config, where a text is no well-formed template.
pub(super) fn pairs(
    map: &serde_json::Map<String, Json>,
    templates: &mut Templates,
    path: &str,
) -> Result<Vec<(Text, Shape)>, Failure> {
    let mut pairs = Vec::new();
    for (name, value) in map {
        let path = format!("{path}[{name:?}]");
        pairs.push((
            templates.text(name, &path)?,
            Shape::of(value, templates, &path)?,
        ));
    }
    Ok(pairs)
}

/// Names and values under these variables, without those that leave themselves out.
///
/// # Errors
/// Entity, where a template cannot be rendered.
pub(super) fn rendered(
    pairs: &[(Text, Shape)],
    templates: &Templates,
    scope: &Scope,
) -> Result<Vec<(String, Value)>, Failure> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let name = templates.render(name, scope)?;
        if name.contains(SKIP) {
            continue;
        }
        if let Some(value) = value.render(templates, scope)? {
            out.push((name, value));
        }
    }
    Ok(out)
}

/// What a rendered text means, with the marks in it.
fn marked(text: String) -> Result<Option<Value>, Failure> {
    if text.contains(SKIP) {
        return Ok(None);
    }
    if !text.contains(JSON) {
        return Ok(Some(Value::string(text)));
    }
    let json = text.replace(JSON, "");
    let json = match json.trim() {
        "True" => "true",
        "False" => "false",
        // Null prints as nothing.
        "" | "None" => "null",
        other => other,
    };
    match parse_plain(json.as_bytes(), Numbers::FLOATS) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Failure::entity(format!(
            "expected JSON before {JSON}, found {:?}: {error}; the filter tojson writes any value \
             as JSON",
            beginning(json)
        ))),
    }
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(text.len().min(100))]
}

/// How a payload becomes a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadType {
    Text,
    Json,
    JsonTransit,
    Form,
    MultipartForm,
}

impl PayloadType {
    /// The type of that name.
    pub(super) fn of(name: &str) -> Option<PayloadType> {
        Some(match name {
            "text" => PayloadType::Text,
            "json" => PayloadType::Json,
            "json-transit" => PayloadType::JsonTransit,
            "form" => PayloadType::Form,
            "multipart-form" => PayloadType::MultipartForm,
            _ => return None,
        })
    }

    /// The body for a payload, and its `Content-Type`.
    ///
    /// # Errors
    /// Entity, where a form is asked for and the payload is no object.
    pub(super) fn body(self, payload: &Value) -> Result<(Vec<u8>, String), Failure> {
        match (self, payload) {
            (PayloadType::Form | PayloadType::MultipartForm, Value::Dict(dict)) => {
                return Ok(match self {
                    PayloadType::Form => form(dict),
                    _ => multipart(dict),
                });
            }
            (
                PayloadType::Form | PayloadType::MultipartForm,
                Value::String(_) | Value::Bytes(_),
            ) => {}
            (PayloadType::Form | PayloadType::MultipartForm, other) => {
                return Err(Failure::entity(format!(
                    "expected a payload that is an object, for a form, found a {}",
                    other.kind()
                )));
            }
            _ => {}
        }
        let kind = match (self, payload) {
            (PayloadType::Json | PayloadType::JsonTransit, _) => "application/json",
            (PayloadType::Form, _) => "application/x-www-form-urlencoded",
            (_, Value::Bytes(_)) => "application/octet-stream",
            _ => "text/plain; charset=utf-8",
        };
        let bytes = match payload {
            // Text is a document already.
            Value::String(text) => text.as_bytes().to_vec(),
            Value::Bytes(bytes) => bytes.to_vec(),
            other if self == PayloadType::JsonTransit => {
                let mut text = Vec::new();
                write_value(other, &mut text);
                text
            }
            other => plain_json(other).into_bytes(),
        };
        Ok((bytes, kind.to_owned()))
    }
}

/// A value as a form field: text as it is, what is no text as transit-encoded JSON.
fn field(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Null => String::new(),
        Value::Dict(_) | Value::List(_) | Value::Tuple(_) => {
            let mut text = Vec::new();
            write_value(value, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        }
        other => bare(other),
    }
}

fn form(dict: &Dict) -> (Vec<u8>, String) {
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, value) in dict.iter() {
        match value {
            Value::List(items) => {
                fields.extend(items.iter().map(|item| (name.to_string(), field(item))));
            }
            one => fields.push((name.to_string(), field(one))),
        }
    }
    let kind = "application/x-www-form-urlencoded".to_owned();
    (encoded(&fields).into_bytes(), kind)
}

fn multipart(dict: &Dict) -> (Vec<u8>, String) {
    let parts: Vec<(String, Vec<u8>, bool)> = dict
        .iter()
        .map(|(name, value)| match value {
            Value::Bytes(bytes) => (name.to_string(), bytes.to_vec(), true),
            other => (name.to_string(), field(other).into_bytes(), false),
        })
        .collect();
    // The same form has the same boundary, so that two requests can be told to be the same.
    let mut boundary = "tahini-form".to_owned();
    while parts.iter().any(|(_, bytes, _)| {
        bytes
            .windows(boundary.len())
            .any(|part| part == boundary.as_bytes())
    }) {
        boundary.push_str("-x");
    }
    let mut body = Vec::new();
    for (name, bytes, is_file) in &parts {
        let name = name.replace(['"', '\r', '\n'], "_");
        let mut head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
        if *is_file {
            let _ = write!(
                head,
                "; filename=\"{name}\"\r\nContent-Type: application/octet-stream"
            );
        }
        head.push_str("\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (body, format!("multipart/form-data; boundary={boundary}"))
}

/// A value as the value of a parameter or header; `None` for null.
pub(super) fn parameter(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        other => Some(bare(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tahini_entity::json::to_config;

    use super::super::filters::World;
    use super::*;

    fn render(shape: Json) -> Result<Json, String> {
        let mut templates = Templates::new(World::default());
        let shape = Shape::of(&shape, &mut templates, "$.payload").map_err(|f| f.message)?;
        let mut scope = Scope::default();
        let entity = from_config(
            &json!({"n": 7, "f": 1.5, "list": [1, {"a": "x"}], "no": null}),
            Numbers::FLOATS,
        );
        let Value::Dict(entity) = entity else {
            panic!()
        };
        scope.set("page", minijinja::Value::from(0));
        let value = shape.render(&templates, &scope.with_entity(&entity));
        Ok(value
            .map_err(|f| f.message)?
            .map_or(json!("left out"), |value| to_config(&value)))
    }

    #[test]
    fn objects_are_made_of_templates_in_names_and_values() {
        let shape = json!({
            "plain": "value", "number": 3, "n-{{ n }}": "{{ f }}",
            "there": "{% if entity.n is defined %}{{ n }}{% else %}sesam:markskip{% endif %}",
            "gone": "{% if entity.x is defined %}x{% else %}sesam:markskip{% endif %}",
            "also{% if entity.x is not defined %}sesam:markskip{% endif %}": "x",
            "json": "{{ n }}sesam:markjson",
            "whole": "{{ entity.list | tojson }}sesam:markjson",
            "flag": "{{ n == 7 }}sesam:markjson",
            "null": "{{ no }}sesam:markjson",
            "deep": [{"a": "{{ n }}"}, "sesam:markskip"],
        });
        let expected = json!({
            "plain": "value", "number": 3, "n-7": "1.5", "there": "7", "json": 7,
            "whole": [1, {"a": "x"}], "flag": true, "null": null, "deep": [{"a": "7"}],
        });
        assert_eq!(render(shape), Ok(expected));
    }

    #[test]
    fn text_that_is_marked_as_json_and_is_none_is_told() {
        let words = render(json!({"a": "{{ entity }}sesam:markjson"})).unwrap_err();
        assert!(
            words.contains("expected JSON before sesam:markjson"),
            "{words}"
        );
    }

    fn body(kind: PayloadType, payload: Json) -> (String, String) {
        let payload = from_config(&payload, Numbers::FLOATS);
        let (bytes, kind) = kind.body(&payload).unwrap();
        (String::from_utf8(bytes).unwrap(), kind)
    }

    #[test]
    fn a_payload_is_sent_as_its_type_says() {
        let dated = json!({"at": "~t2024-05-01T00:00:00Z", "n": 1});
        for (kind, payload, text, content_type) in [
            (
                PayloadType::Json,
                dated.clone(),
                "{\"at\":\"2024-05-01T00:00:00Z\",\"n\":1}",
                "application/json",
            ),
            (
                PayloadType::JsonTransit,
                dated,
                "{\"at\":\"~t2024-05-01T00:00:00Z\",\"n\":1}",
                "application/json",
            ),
            (PayloadType::Json, json!("<a/>"), "<a/>", "application/json"),
            (
                PayloadType::Text,
                json!("<a/>"),
                "<a/>",
                "text/plain; charset=utf-8",
            ),
            (
                PayloadType::Text,
                json!({"a": [1]}),
                "{\"a\":[1]}",
                "text/plain; charset=utf-8",
            ),
            (
                PayloadType::Text,
                json!("~baGk="),
                "hi",
                "application/octet-stream",
            ),
            (
                PayloadType::Form,
                json!({"a b": "x&y", "n": 1, "l": ["p", "q"]}),
                "a%20b=x%26y&n=1&l=p&l=q",
                "application/x-www-form-urlencoded",
            ),
            (
                PayloadType::MultipartForm,
                json!({"a": "x", "f": "~baGk="}),
                "--tahini-form\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n\
                 --tahini-form\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\nhi\r\n--tahini-form--\r\n",
                "multipart/form-data; boundary=tahini-form",
            ),
        ] {
            assert_eq!(
                body(kind, payload),
                (text.to_owned(), content_type.to_owned())
            );
        }
    }
}
