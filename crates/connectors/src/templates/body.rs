//! A template whose body stands in the configuration: Jinja that renders to JSON.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::{Map, Value as Json};
use tahini_entity::json::{Numbers, parse_plain};

use crate::rest::seen;

/// Steps that rendering a body may take.
const FUEL: u64 = 1_000_000;
/// What bodies end with that are pasted from where every template is text.
const MARK: &str = "sesam:markjson";

/// The transforms that a body gives under these properties.
///
/// # Errors
/// In words, where it cannot be rendered or gives no transforms.
pub(super) fn unfold(text: &str, properties: &Map<String, Json>) -> Result<Vec<Json>, String> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let plain = Json::Object(properties.clone()).to_string();
    let variables =
        parse_plain(plain.as_bytes(), Numbers::FLOATS).map_err(|error| error.to_string())?;
    let rendered = env.render_str(text, seen(&variables)).map_err(|error| {
        let detail = error.detail().map(|detail| format!(": {detail}"));
        let line = error.line().map(|line| format!(" (line {line})"));
        format!(
            "the template cannot be rendered: {}{}{}",
            error.kind(),
            detail.unwrap_or_default(),
            line.unwrap_or_default()
        )
    })?;
    let rendered = rendered.trim();
    let rendered = rendered.strip_suffix(MARK).unwrap_or(rendered);
    let json: Json = serde_json::from_str(rendered).map_err(|error| {
        format!("expected JSON of transforms when the template is rendered, found: {error}")
    })?;
    match json {
        Json::Array(list) => Ok(list),
        one @ Json::Object(_) => Ok(vec![one]),
        _ => Err("expected a transform or a list of them, found something else".to_owned()),
    }
}
