//! Filling secrets into effective configuration, at the last moment.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::resolve::next_call;
use crate::Failure;
use crate::secrets::SecretSource;

/// `config` with every `$SECRET(name)` replaced, those of `system` before global ones. Rules and
/// embedded entities are left as they are: there a secret would end up in a dataset.
///
/// # Errors
/// Config, naming every secret that is missing.
pub fn resolve_secrets(
    config: &Json,
    secrets: &dyn SecretSource,
    system: Option<&str>,
) -> Result<Json, Failure> {
    let mut missing = BTreeSet::new();
    let filled = fill(config, &mut |name| {
        let own = system.and_then(|system| secrets.get(Some(system), name));
        let found = own.or_else(|| secrets.get(None, name));
        if found.is_none() {
            missing.insert(name.to_owned());
        }
        found
    });
    if missing.is_empty() {
        return Ok(filled);
    }
    let names: Vec<String> = missing.iter().map(|name| format!("{name:?}")).collect();
    let place = match system {
        Some(system) => format!("neither for the system {system:?} nor globally"),
        None => "globally".to_owned(),
    };
    let (noun, verb) = if names.len() == 1 {
        ("secret", "is")
    } else {
        ("secrets", "are")
    };
    Err(Failure::config(format!(
        "the {noun} {} {verb} not set, {place}. Set it with the API's secrets endpoint, or give a \
         file of secrets",
        names.join(", ")
    )))
}

fn fill(json: &Json, get: &mut impl FnMut(&str) -> Option<String>) -> Json {
    match json {
        Json::String(text) if text.contains("$SECRET(") => Json::String(fill_text(text, get)),
        Json::Array(items) => Json::Array(items.iter().map(|item| fill(item, get)).collect()),
        Json::Object(map) => {
            let mut object = Map::new();
            for (name, value) in map {
                let filled = match name.as_str() {
                    "rules" | "entities" | "comment" | "description" => value.clone(),
                    _ => fill(value, get),
                };
                object.insert(name.clone(), filled);
            }
            Json::Object(object)
        }
        other => other.clone(),
    }
}

fn fill_text(text: &str, get: &mut impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some((start, end, name)) = next_call(text, "$SECRET(", from) {
        out.push_str(&text[from..start]);
        match get(name) {
            Some(secret) => out.push_str(&secret),
            None => out.push_str(&text[start..end]),
        }
        from = end;
    }
    out.push_str(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secrets::MemorySecrets;

    fn secrets() -> MemorySecrets {
        let mut secrets = MemorySecrets::default();
        secrets.set(None, "token", "global");
        secrets.set(None, "other", "o");
        secrets.set(Some("crm"), "token", "own");
        secrets
    }

    #[test]
    fn system_secrets_come_first() {
        let config =
            json!({"a": "$SECRET(token)", "b": ["x $SECRET(other):$SECRET(token)"], "c": 1});
        let filled = resolve_secrets(&config, &secrets(), Some("crm")).unwrap();
        assert_eq!(filled, json!({"a": "own", "b": ["x o:own"], "c": 1}));
        let filled = resolve_secrets(&config, &secrets(), None).unwrap();
        assert_eq!(filled["a"], "global");
        let filled = resolve_secrets(&config, &secrets(), Some("erp")).unwrap();
        assert_eq!(filled["a"], "global");
    }

    #[test]
    fn all_missing_ones_are_named() {
        let config = json!({"a": "$SECRET(gone)", "b": "$SECRET(lost) $SECRET(token)"});
        let failure = resolve_secrets(&config, &secrets(), Some("crm")).unwrap_err();
        assert!(failure.message.contains(r#""gone", "lost""#), "{failure}");
        assert!(failure.message.contains(r#""crm""#), "{failure}");
        assert!(!failure.message.contains("own"), "{failure}");
    }

    #[test]
    fn data_never_gets_secrets() {
        let config = json!({
            "rules": {"default": [["add", "x", "$SECRET(token)"]]},
            "source": {"type": "embedded", "entities": [{"_id": "$SECRET(gone)"}]}
        });
        assert_eq!(resolve_secrets(&config, &secrets(), None).unwrap(), config);
    }
}
