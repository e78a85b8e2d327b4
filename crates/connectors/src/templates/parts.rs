//! What the built-in templates are put together from.

use serde_json::{Map, Value as Json, json};

/// The answer of the last request, and its status.
pub(super) const BODY: &str = "response_body";
/// The status of the last answer.
pub(super) const STATUS: &str = "response_status";

/// What is wrong with the properties of a template.
pub(super) struct Wrong {
    /// Which one.
    pub(super) property: &'static str,
    /// Why.
    pub(super) words: String,
}

/// The properties of a template.
pub(super) struct Given<'a> {
    map: &'a Map<String, Json>,
}

impl<'a> Given<'a> {
    pub(super) fn new(map: &'a Map<String, Json>) -> Given<'a> {
        Given { map }
    }

    /// What was given, if it was; null says the same as nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Json> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text that may be missing.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>, Wrong> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, format!("expected text, found {other}"))),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &'static str) -> Result<&'a str, Wrong> {
        let missing = || wrong(name, format!("the property {name:?} is missing"));
        self.text(name)?.ok_or_else(missing)
    }

    /// A flag.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool, Wrong> {
        match self.get(name) {
            None => Ok(default),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(
                name,
                format!("expected true or false, found {other}"),
            )),
        }
    }

    /// The properties of a key, one or several: names of properties of the entity. What connectors
    /// write as `_S.id` is the property `id`.
    pub(super) fn key(&self, name: &'static str) -> Result<Option<Key>, Wrong> {
        let expected = |found: &Json| {
            let words = format!("expected the name of a property or a list of them, found {found}");
            wrong(name, words)
        };
        let bare = |text: &str| text.strip_prefix("_S.").unwrap_or(text).to_owned();
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(Key::One(bare(text)))),
            Some(Json::Array(list)) if !list.is_empty() => {
                let names = list.iter().map(|item| item.as_str().map(bare));
                let names: Option<Vec<String>> = names.collect();
                names
                    .map(|names| Some(Key::Several(names)))
                    .ok_or_else(|| expected(&Json::Array(list.clone())))
            }
            Some(other) => Err(expected(other)),
        }
    }

    /// The primary key, which every template needs.
    pub(super) fn primary_key(&self) -> Result<Key, Wrong> {
        let name = "primary_key";
        let missing = || wrong(name, format!("the property {name:?} is missing"));
        self.key(name)?.ok_or_else(missing)
    }

    /// Rules of the template's user under this property, by name. White space around a name, which
    /// connectors have, is none of it.
    pub(super) fn rules(&self, name: &'static str) -> Result<Map<String, Json>, Wrong> {
        match self.get(name) {
            None => Ok(Map::new()),
            Some(Json::Object(rules)) => {
                let trimmed = rules.iter();
                Ok(trimmed
                    .map(|(name, rule)| (name.trim().to_owned(), rule.clone()))
                    .collect())
            }
            Some(_) => Err(wrong(name, "expected an object of DTL rules".to_owned())),
        }
    }
}

fn wrong(property: &'static str, words: String) -> Wrong {
    Wrong { property, words }
}

/// The properties of a key.
pub(super) enum Key {
    /// One, given as text.
    One(String),
    /// A list of them.
    Several(Vec<String>),
}

impl Key {
    /// Their names.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Key::One(name) => vec![name],
            Key::Several(names) => names.iter().map(String::as_str).collect(),
        }
    }

    /// DTL: the value of each in what `from` gives.
    pub(super) fn values(&self, from: &Json) -> Vec<Json> {
        let names = self.names().into_iter();
        names.map(|name| at(name, from)).collect()
    }

    /// DTL: the value of the key in what `from` gives, a list where the key is one.
    pub(super) fn value(&self, from: &Json) -> Json {
        match self {
            Key::One(name) => at(name, from),
            Key::Several(_) => {
                let mut list = vec![json!("list")];
                list.extend(self.values(from));
                Json::Array(list)
            }
        }
    }

    /// DTL: whether `from` has all of the key.
    pub(super) fn is_whole(&self, from: &Json) -> Json {
        let mut all = vec![json!("and")];
        let values = self.values(from).into_iter();
        all.extend(values.map(|value| json!(["is-not-null", value])));
        Json::Array(all)
    }
}

/// DTL: what stands in `from` at a name or a path of names.
fn at(name: &str, from: &Json) -> Json {
    match name.split_once('.') {
        None => json!(["path", name, from]),
        Some(_) => {
            let mut path = vec![json!("list")];
            path.extend(name.split('.').map(|name| json!(name)));
            json!(["path", path, from])
        }
    }
}

/// DTL: the names as a list.
pub(super) fn list_of(names: &[&str]) -> Json {
    let mut list = vec![json!("list")];
    list.extend(names.iter().map(|name| json!(name)));
    Json::Array(list)
}

/// A dtl transform of these rules.
pub(super) fn dtl(rules: Map<String, Json>) -> Json {
    json!({"type": "dtl", "rules": rules})
}

/// Rules by name.
pub(super) fn rules(named: Vec<(&str, Json)>) -> Map<String, Json> {
    let named = named.into_iter();
    named.map(|(name, rule)| (name.to_owned(), rule)).collect()
}

/// A request for entities, and what else there is to say about it.
pub(super) struct Request<'a> {
    pub(super) system: &'a str,
    /// `None` where the entity names it.
    pub(super) operation: Option<&'a str>,
    pub(super) properties: Option<&'a Json>,
    pub(super) allowed: &'a str,
    pub(super) side_effects: bool,
    /// The property that an entity is picked by, and its value.
    pub(super) trigger: Option<(&'a str, Json)>,
    pub(super) trace: Option<&'a Json>,
}

impl Request<'_> {
    /// The rest transform.
    pub(super) fn transform(self) -> Json {
        let mut transform = json!({
            "type": "rest",
            "system": self.system,
            "allowed_status_codes": self.allowed,
            "replace_entity": false,
            "response_property": BODY,
            "response_status_property": STATUS,
            "side_effects": self.side_effects,
        });
        if let Some(operation) = self.operation {
            transform["operation"] = json!(operation);
        }
        if let Some(properties) = self.properties {
            transform["properties"] = properties.clone();
        }
        if let Some((key, value)) = self.trigger {
            transform["trigger_on"] = json!({"key": key, "value": value});
        }
        if let Some(trace) = self.trace {
            transform["trace"] = trace.clone();
        }
        transform
    }
}

/// Rules that the templates share, by name.
pub(super) fn shared(names: &[&str]) -> Map<String, Json> {
    let mut all = read(include_str!("rules.json"));
    all.retain(|name, _| names.contains(&name.as_str()));
    all
}

/// The rules that lay the dict `over` over the dict `base`: what both have as dicts is laid over
/// each other, lists element by element, everything else is that of `over`.
pub(super) const LAY_OVER: &[&str] = &["template:lay", "template:lay-element", "template:lay-over"];

/// The object in a file of ours.
pub(super) fn read(text: &str) -> Map<String, Json> {
    serde_json::from_str(text).expect("our own file is JSON")
}

/// The same rule with values in the places that are named like `@name`.
pub(super) fn filled(rule: &Json, values: &[(&str, Json)]) -> Json {
    match rule {
        Json::String(text) => match values.iter().find(|(name, _)| name == text) {
            Some((_, value)) => value.clone(),
            None => rule.clone(),
        },
        Json::Array(list) => list.iter().map(|one| filled(one, values)).collect(),
        Json::Object(map) => {
            let filled = map
                .iter()
                .map(|(name, one)| (name.clone(), filled(one, values)));
            Json::Object(filled.collect())
        }
        other => other.clone(),
    }
}
