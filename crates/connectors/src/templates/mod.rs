//! The `template` transform: what connectors have in common, as transforms that are made of
//! properties. A template is unfolded when a configuration is read, and what it stands for runs
//! like every other list of transforms: `docs/guide/connectors.md` says what each of them does.

mod body;
mod collect;
mod defaults;
mod parts;
mod share;

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;
use tahini_hub::Failure;
use tahini_hub::config::{Kind, Property, nearest};
use tahini_hub::registry::{TransformDef, Unfolded};

use parts::Given;

/// The row of the `template` transform.
pub const TRANSFORM: TransformDef = TransformDef {
    name: "template",
    summary: "Stands for a list of transforms that connectors have in common, made of properties.",
    properties: &[
        Property::required(
            "template",
            Kind::Any,
            "`transform-collect-rest`, `transform-defaults-rest` or `transform-share-rest`; or the \
             transforms themselves, as a Jinja template of their JSON.",
        ),
        Property::required(
            "properties",
            Kind::Object,
            "What the template is made of; the guide to connectors lists them.",
        ),
    ],
    stands_for: Some(unfold),
    open: |ctx| {
        Err(Failure::config(format!(
            "pipe {:?}: a template is unfolded before it runs",
            ctx.owner
        )))
    },
};

/// A built-in template.
struct BuiltIn {
    name: &'static str,
    /// The properties that it knows.
    properties: &'static [&'static str],
    unfold: fn(&Given<'_>) -> Result<Vec<Json>, parts::Wrong>,
}

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "transform-collect-rest",
        properties: collect::PROPERTIES,
        unfold: collect::unfold,
    },
    BuiltIn {
        name: "transform-defaults-rest",
        properties: defaults::PROPERTIES,
        unfold: defaults::unfold,
    },
    BuiltIn {
        name: "transform-share-rest",
        properties: share::PROPERTIES,
        unfold: share::unfold,
    },
];

/// The transforms that a template stands for.
fn unfold(transform: &Map<String, Json>) -> Unfolded {
    let empty = Map::new();
    let properties = match transform.get("properties") {
        Some(Json::Object(properties)) => properties,
        // Told by the row.
        _ => &empty,
    };
    let at = JsonPath::default();
    let Some(template) = transform.get("template") else {
        return Ok(Vec::new());
    };
    let name = match template {
        Json::String(text) if text.contains(['{', '[']) => {
            return body::unfold(text, properties).map_err(|words| (at.name("template"), words));
        }
        Json::String(name) => name.as_str(),
        other => {
            return body::unfold(&other.to_string(), properties)
                .map_err(|words| (at.name("template"), words));
        }
    };
    let Some(built_in) = BUILT_IN.iter().find(|one| one.name == name) else {
        let names = BUILT_IN.iter().map(|one| one.name);
        let help = match nearest(name, names.clone()) {
            Some(near) => format!("; did you mean {near:?}?"),
            None => format!("; there are {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err((
            at.name("template"),
            format!("there is no template {name:?}{help}"),
        ));
    };
    let given = Given::new(properties);
    (built_in.unfold)(&given).map_err(|wrong| {
        let unknown = properties
            .keys()
            .filter(|name| !built_in.properties.contains(&name.as_str()));
        let near = nearest(wrong.property, unknown.map(String::as_str));
        let help = near.map(|near| format!("; was {near:?} meant to be it?"));
        let words = format!("{}{}", wrong.words, help.unwrap_or_default());
        (at.name("properties").name(wrong.property), words)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unfolded(transform: Json) -> Unfolded {
        unfold(transform.as_object().unwrap())
    }

    #[test]
    fn what_is_missing_is_named() {
        for (name, missing) in [
            ("transform-share-rest", "$.properties.rest_system"),
            ("transform-collect-rest", "$.properties.share_dataset"),
            ("transform-defaults-rest", "$.properties.rest_system"),
        ] {
            let (path, words) = unfolded(json!({
                "type": "template", "template": name, "properties": {"primary_key": "id"}
            }))
            .unwrap_err();
            assert_eq!(path.to_string(), missing);
            assert!(words.contains("is missing"), "{words}");
        }
        let (path, words) = unfolded(json!({
            "type": "template", "template": "transform-shares-rest", "properties": {}
        }))
        .unwrap_err();
        assert_eq!(path.to_string(), "$.template");
        assert!(
            words.contains("did you mean \"transform-share-rest\"?"),
            "{words}"
        );
    }

    #[test]
    fn a_body_is_a_template_of_json() {
        let body = "[{\"type\": \"dtl\", \"rules\": {\"default\": [[\"copy\", {{ keep | tojson }}]]}}\
                    {% if more is defined %}, {{ more | tojson }}{% endif %}]sesam:markjson";
        let one = json!({"type": "template", "template": body, "properties": {"keep": ["a", "b"]}});
        let expected = json!([{"type": "dtl", "rules": {"default": [["copy", ["a", "b"]]]}}]);
        assert_eq!(json!(unfolded(one).unwrap()), expected);
        let broken = json!({"type": "template", "template": "[{{ gone }}]", "properties": {}});
        let (path, words) = unfolded(broken).unwrap_err();
        assert_eq!(path.to_string(), "$.template");
        assert!(words.contains("undefined"), "{words}");
    }

    #[test]
    fn every_template_tells_the_properties_that_it_knows() {
        for one in BUILT_IN {
            assert!(one.properties.contains(&"primary_key"), "{}", one.name);
            assert!(one.properties.is_sorted(), "{}", one.name);
        }
    }
}
