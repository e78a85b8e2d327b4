//! Entities' values as templates see them, and back to text.

use std::fmt;
use std::sync::Arc;

use minijinja::Value as Seen;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use reqwest::header::HeaderMap;
use tahini_entity::json::{Text, write_text};
use tahini_entity::{Dict, Value};

/// A value as templates see it. Dicts and lists are looked into only where a template does so;
/// what Jinja has no type for is its bare text.
pub(crate) fn seen(value: &Value) -> Seen {
    match value {
        Value::Null => Seen::from(()),
        Value::Bool(it) => Seen::from(*it),
        Value::Int(number) => Seen::from(*number),
        Value::Float(number) => Seen::from(*number),
        Value::String(text) => Seen::from(text.as_str()),
        Value::Bytes(bytes) => Seen::from_bytes(bytes.to_vec()),
        Value::List(items) | Value::Tuple(items) => Seen::from_object(Items(items.to_vec())),
        Value::Dict(dict) => Seen::from_object(Mapping(dict.clone())),
        other => {
            let text = bare(other);
            match text.parse::<i128>() {
                Ok(number) if matches!(other, Value::BigInt(_)) => Seen::from(number),
                _ => match text.parse::<f64>() {
                    Ok(number) if matches!(other, Value::Decimal(_)) => Seen::from(number),
                    _ => Seen::from(text),
                },
            }
        }
    }
}

/// A value as its bare text: strings as they are, everything else as plain JSON would write it.
pub(crate) fn bare(value: &Value) -> String {
    if let Value::String(text) = value {
        return text.to_string();
    }
    let text = plain_json(value);
    match value {
        Value::List(_) | Value::Tuple(_) | Value::Dict(_) => text,
        _ => text.trim_matches('"').to_owned(),
    }
}

/// A value as JSON without tagged strings.
pub(super) fn plain_json(value: &Value) -> String {
    let form = Text {
        transit: false,
        ..Text::WIRE
    };
    let mut text = Vec::new();
    write_text(value, form, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

struct Mapping(Dict);

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dict")
    }
}

impl Object for Mapping {
    fn get_value(self: &Arc<Self>, key: &Seen) -> Option<Seen> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Seen> {
        self.0.get(key).map(seen)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names: Vec<Seen> = self
            .0
            .iter()
            .map(|(name, _)| Seen::from(name.as_str()))
            .collect();
        Enumerator::Iter(Box::new(names.into_iter()))
    }
}

struct Items(Vec<Value>);

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
}

impl Object for Items {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Seen) -> Option<Seen> {
        self.0.get(key.as_usize()?).map(seen)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// Headers by name in any case. `link` is a dict of its relations (RFC 8288): `headers.link.next`.
pub(super) struct Headers(Vec<(String, Seen)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers")
    }
}

impl Headers {
    /// The headers of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Headers {
        let mut pairs: Vec<(String, Seen)> = Vec::new();
        for name in headers.keys() {
            let all: Vec<String> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            let text = all.join(", ");
            let value = if name.as_str() == "link" {
                Seen::from_pairs(links(&text))
            } else {
                Seen::from(text)
            };
            pairs.push((name.as_str().to_owned(), value));
        }
        Headers(pairs)
    }

    /// The headers of a request that came, each as its text.
    pub(super) fn each(headers: &HeaderMap) -> Headers {
        let pairs = headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), Seen::from(text))
        });
        Headers(pairs.collect())
    }

    /// The headers of a request as it was rendered.
    pub(super) fn rendered(headers: &[(String, String)]) -> Headers {
        let pairs = headers.iter();
        Headers(
            pairs
                .map(|(name, value)| (name.clone(), Seen::from(value.as_str())))
                .collect(),
        )
    }
}

impl Object for Headers {
    fn get_value(self: &Arc<Self>, key: &Seen) -> Option<Seen> {
        let name = key.as_str()?;
        let found = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names: Vec<Seen> = self
            .0
            .iter()
            .map(|(name, _)| Seen::from(name.as_str()))
            .collect();
        Enumerator::Iter(Box::new(names.into_iter()))
    }
}

/// The targets of a `Link` header by relation.
pub(super) fn links(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('<') {
        let Some((target, parameters)) = behind.split_once('>') else {
            break;
        };
        // The next link begins at a `<`, which no parameter holds unquoted.
        let end = parameters.find('<').unwrap_or(parameters.len());
        for parameter in parameters[..end].split([';', ',']) {
            let Some((name, value)) = parameter.split_once('=') else {
                continue;
            };
            if name.trim().eq_ignore_ascii_case("rel") {
                let relations = value.trim().trim_matches('"').split_whitespace();
                found.extend(relations.map(|rel| (rel.to_owned(), target.to_owned())));
            }
        }
        rest = &parameters[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_by_relation() {
        let text =
            r#"<?page=1>; rel="prev", </a?x=1,2>; title="b"; rel="next last", <c>; REL=self"#;
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        assert_eq!(
            links(text),
            pairs(&[
                ("prev", "?page=1"),
                ("next", "/a?x=1,2"),
                ("last", "/a?x=1,2"),
                ("self", "c")
            ])
        );
        assert_eq!(links("no link"), []);
    }
}
