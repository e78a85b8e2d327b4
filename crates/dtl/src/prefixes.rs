//! URI prefixes that namespaces stand for: how URIs collapse to namespaced identifiers, and how those
//! expand again.

use tahini_entity::{Str, Value};

use crate::Namespaces;
use crate::namespace::{qualified, split_ni};

/// What stands for a prefix unless a namespace of that name is declared.
const BUILT_IN: [(&str, &str); 11] = [
    ("_", "http://example.org/"),
    ("dc", "http://purl.org/dc/elements/1.1/"),
    ("dcterms", "http://purl.org/dc/terms/"),
    ("foaf", "http://xmlns.com/foaf/0.1/"),
    ("gs", "http://www.opengis.net/ont/geosparql#"),
    ("owl", "http://www.w3.org/2002/07/owl#"),
    ("rdf", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"),
    ("rdfs", "http://www.w3.org/2000/01/rdf-schema#"),
    ("skos", "http://www.w3.org/2004/02/skos/core#"),
    ("wgs84", "http://www.w3.org/2003/01/geo/wgs84_pos#"),
    ("xsd", "http://www.w3.org/2001/XMLSchema#"),
];

/// The prefixes of a pipe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefixes {
    /// Prefixes and their namespaces, the longest prefix first.
    all: Vec<(Str, Str)>,
    symmetric: bool,
}

impl Prefixes {
    pub(crate) fn of(namespaces: &Namespaces) -> Prefixes {
        let declared = &namespaces.expansions;
        let built_in = BUILT_IN.iter().filter(|(name, prefix)| {
            let mut declared = declared.iter();
            !declared.any(|(own, uri)| own == name || uri == prefix)
        });
        let built_in = built_in.map(|(name, prefix)| ((*prefix).into(), (*name).into()));
        // Of several that stand for one prefix the last one declared counts.
        let own = declared.iter().rev();
        let own = own.map(|(name, prefix)| (prefix.as_str().into(), name.as_str().into()));
        let mut all: Vec<(Str, Str)> = built_in.chain(own).collect();
        all.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Prefixes {
            all,
            symmetric: namespaces.symmetric,
        }
    }

    /// The namespace that stands for the longest prefix of a URI, and what is left of that.
    fn split<'u>(&self, uri: &'u str) -> Option<(&Str, &'u str)> {
        let mut all = self.all.iter();
        all.find_map(|(prefix, namespace)| Some((namespace, uri.strip_prefix(&**prefix)?)))
    }

    /// `ni`: strings are identifiers already. A prefix that nobody declared gets a namespace of the
    /// pipe, from which nothing leads back; where collapsing is symmetric the URI stays as it is.
    pub(crate) fn identifier(&self, pipe: &str, value: &Value) -> Option<Value> {
        match value {
            Value::Ni(_) => Some(value.clone()),
            Value::String(text) => Some(Value::Ni(text.clone())),
            Value::Uri(uri) => Some(Value::Ni(match self.split(uri) {
                Some((namespace, id)) => qualified(namespace, id),
                None if self.symmetric => uri.clone(),
                None => {
                    let cut = uri.rfind(['/', '#']).map_or(0, |at| at + 1);
                    qualified(&format!("{pipe}-1"), &uri[cut..])
                }
            })),
            _ => None,
        }
    }

    /// `ni-collapse`: URLs become identifiers, from which `expanded` leads back.
    pub(crate) fn collapsed(&self, value: &Value) -> Option<Value> {
        let (Value::String(url) | Value::Uri(url)) = value else {
            return None;
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return None;
        }
        Some(Value::Ni(match self.split(url) {
            Some((namespace, id)) => qualified(namespace, id),
            None => url.clone(),
        }))
    }

    /// `ni-expand`: identifiers become the text of URLs; one whose namespace stands for no prefix
    /// stays as it is.
    pub(crate) fn expanded(&self, value: &Value) -> Option<Value> {
        let Value::Ni(text) = value else {
            return None;
        };
        let (namespace, id) = split_ni(text);
        let known = self.all.iter().find(|(_, name)| **name == *namespace);
        Some(match known.filter(|_| text.contains(':')) {
            Some((prefix, _)) => Value::string(format!("{prefix}{id}")),
            None => Value::String(text.clone()),
        })
    }
}
