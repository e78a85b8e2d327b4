//! Filling secrets into effective configuration, at the last moment.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use tahini_dtl::JsonPath;
use tahini_dtl::functions::{self, Function, Kind};

use super::resolve::next_call;
use crate::Failure;
use crate::secrets::SecretSource;

/// `config` with every `$SECRET(name)` replaced, those of `system` before global ones. In rules
/// they are filled in only as keys, passphrases and what is encrypted, and embedded entities are left as they are:
/// there a secret would end up in a dataset.
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
                    "rules" => in_keys(value, &mut |text| key(&fill_text(text, get))),
                    "entities" | "comment" | "description" => value.clone(),
                    _ => fill(value, get),
                };
                object.insert(name.clone(), filled);
            }
            Json::Object(object)
        }
        other => other.clone(),
    }
}

/// A secret in rules: text, whatever it looks like. Text that starts with a tilde would be read as
/// a value of another type, and there is no escape, so that it is put together.
fn key(secret: &str) -> Json {
    let rest = secret.trim_start_matches('~');
    let tildes = secret.len() - rest.len();
    let text = json!(["literal", rest]);
    if tildes == 0 {
        return text;
    }
    let mut call = vec![json!("concat")];
    call.resize(1 + tildes, json!("~"));
    call.push(text);
    Json::Array(call)
}

/// Rules whose secrets are replaced by what gives some text that nobody knows yet: they
/// can be compiled to see what else is wrong with them.
pub(crate) fn without_secrets(rules: &Json) -> Json {
    in_keys(rules, &mut |_| json!(["concat", ""]))
}

/// The function that a list in rules calls.
fn called(list: &[Json]) -> Option<&'static Function> {
    let name = list.first()?.as_str()?;
    functions::expression(name).or_else(|| functions::transform(name))
}

fn names_secret(json: &Json) -> bool {
    json.as_str().is_some_and(|text| text.contains("$SECRET("))
}

/// Whether the argument `at` of `function` may be a secret: a key, a passphrase, or what is
/// encrypted. Functions with keys have as many
/// arguments as parameters.
fn is_key(function: Option<&Function>, at: usize) -> bool {
    let parameter = at.checked_sub(1);
    let arg = function
        .zip(parameter)
        .and_then(|(function, at)| function.args.get(at));
    arg.is_some_and(|arg| arg.secret)
}

/// Whether nothing in a call of `function` is evaluated.
fn is_literal(function: Option<&Function>) -> bool {
    let args = function.map_or(&[][..], |function| function.args);
    !args.is_empty() && args.iter().all(|arg| arg.kind == Kind::Literal)
}

/// Rules with `change` done to the secrets that stand where they may.
fn in_keys(rules: &Json, change: &mut dyn FnMut(&str) -> Json) -> Json {
    match rules {
        Json::Array(list) => {
            let function = called(list);
            if is_literal(function) {
                return rules.clone();
            }
            let items = list.iter().enumerate().map(|(at, item)| match item {
                Json::String(text) if names_secret(item) && is_key(function, at) => change(text),
                other => in_keys(other, change),
            });
            Json::Array(items.collect())
        }
        Json::Object(map) => {
            let items = map
                .iter()
                .map(|(name, item)| (name.clone(), in_keys(item, change)));
            Json::Object(items.collect())
        }
        other => other.clone(),
    }
}

/// Where rules name secrets that are never filled in: everywhere but as keys, passphrases and what
/// is encrypted.
pub(crate) fn misplaced(rules: &Json, path: &JsonPath, found: &mut Vec<JsonPath>) {
    match rules {
        Json::Array(list) => {
            let function = called(list);
            if function.is_some_and(|function| function.name == "comment") {
                return;
            }
            for (at, item) in list.iter().enumerate() {
                if !(names_secret(item) && is_key(function, at)) {
                    misplaced(item, &path.at(at), found);
                }
            }
        }
        Json::Object(map) => {
            for (name, item) in map.iter().filter(|(name, _)| *name != "comment") {
                misplaced(item, &path.name(name), found);
            }
        }
        other if names_secret(other) => found.push(path.clone()),
        _ => {}
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
            "rules": {"default": [
                ["add", "x", "$SECRET(token)"],
                ["add", "y", ["literal", ["encrypt", "$SECRET(token)", "a"]]],
                ["add", "z", ["decrypt", "k", "$SECRET(gone)"]]
            ]},
            "source": {"type": "embedded", "entities": [{"_id": "$SECRET(gone)"}]}
        });
        assert_eq!(resolve_secrets(&config, &secrets(), None).unwrap(), config);
    }

    #[test]
    fn keys_in_rules_get_secrets_as_text() {
        let mut secrets = secrets();
        secrets.set(None, "odd", "_S.x");
        secrets.set(None, "tilde", "~rx:y");
        let rules = |key: Json, passphrase: Json| {
            json!({"rules": {"default": [["if", true, [
                ["add", "x", ["decrypt", key, ["list", ["decrypt-pgp", "k", passphrase, "_S.v"]]]]
            ]]]}})
        };
        let config = rules("$SECRET(odd)".into(), "<$SECRET(tilde)>".into());
        let filled = resolve_secrets(&config, &secrets, None).unwrap();
        let expected = rules(json!(["literal", "_S.x"]), json!(["literal", "<~rx:y>"]));
        assert_eq!(filled, expected);
        let config = rules("$SECRET(tilde)".into(), "p".into());
        let filled = resolve_secrets(&config, &secrets, None).unwrap();
        let expected = json!(["concat", "~", ["literal", "rx:y"]]);
        assert_eq!(filled, rules(expected, "p".into()));
        let config = rules("$SECRET(gone)".into(), "p".into());
        let failure = resolve_secrets(&config, &secrets, None).unwrap_err();
        assert!(failure.message.contains("\"gone\""), "{failure}");
    }

    #[test]
    fn what_is_encrypted_may_be_a_secret() {
        let rules =
            |value: Json| json!({"rules": {"default": [["add", "x", ["encrypt", "k", value]]]}});
        let filled = resolve_secrets(&rules("$SECRET(token)".into()), &secrets(), None).unwrap();
        assert_eq!(filled, rules(json!(["literal", "global"])));
    }

    #[test]
    fn misplaced_ones_are_found() {
        let rules = json!({"default": [
            ["comment", "$SECRET(a)"],
            ["add", "x", ["decrypt", "$SECRET(a)", "$SECRET(b)"]],
            ["add", "w", ["encrypt-pki", "$SECRET(a)", "$SECRET(b)"]],
            ["add", "w", ["encrypt-pgp", "$SECRET(a)", "$SECRET(b)"]],
            ["add", "w", ["encrypt", "$SECRET(a)", "$SECRET(b)"]],
            ["add", "y", ["concat", "a", "$SECRET(b)"]],
            ["add", "z", ["literal", ["encrypt", "k", {"x": "$SECRET(b)"}]]]
        ]});
        let mut found = Vec::new();
        misplaced(&rules, &JsonPath::default(), &mut found);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let expected = [
            "$.default[1][2][2]",
            "$.default[5][2][2]",
            "$.default[6][2][1][2].x",
        ];
        assert_eq!(found, expected);
    }
}
