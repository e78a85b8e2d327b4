//! The manual that is printed from the table, and the schema that is made of it.

use serde_json::Value as Json;
use tahini_dtl::{manual, schema};

#[test]
fn a_name_may_be_two_functions() {
    let found = manual::find("filter");
    let roles: Vec<bool> = found.iter().map(|entry| entry.is_transform).collect();
    assert_eq!(roles, [true, false]);
    assert!(manual::find("fliter").is_empty());
    assert!(manual::nearest("lookup").contains("lookup-entity"));
    assert_eq!(manual::nearest("fliter"), "; did you mean \"filter\"?");
}

#[test]
fn a_row_says_how_it_is_called_and_what_comes_of_it() {
    let upper = manual::text(manual::find("upper")[0]);
    assert!(upper.starts_with("[\"upper\", VALUES]\n"), "{upper}");
    assert!(upper.contains("gives a value"), "{upper}");
    assert!(upper.contains('→'), "{upper}");
    let apply = manual::text(manual::find("apply")[0]);
    assert!(apply.contains("with rules {\"line\":"), "{apply}");
    let fail = manual::json(manual::find("fail!")[0]);
    assert_eq!(fail["examples"][0]["error"], "no price for A7");
    assert_eq!(fail["is_transform"], true);
    assert_eq!(
        manual::usage(manual::find("case")[1].function),
        "[\"case\", CONDITION, THEN, …, ELSE?]"
    );
    let split = manual::json(manual::find("split")[0]);
    assert_eq!(split["usage"], "[\"split\", SEPARATOR?, VALUES]");
    assert_eq!(split["args"][0]["many"], "optional");
}

/// The page in `docs/` is the table's; `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_reference_is_printed_from_the_table() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/dtl-functions.md"
    );
    let page = manual::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == page,
        "expected docs/reference/dtl-functions.md as the table says, found another text; run the \
         tests with UPDATE_DOCS=1 to write it"
    );
}

/// Every reference of the definitions leads to one of them, and every function has one.
#[test]
fn the_schema_is_whole() {
    let definitions = schema::definitions();
    let mut references = Vec::new();
    for schema in definitions.values() {
        collect(schema, &mut references);
    }
    for reference in &references {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        assert!(definitions.contains_key(name), "{reference}");
    }
    assert!(definitions.contains_key(schema::RULES));
    for (name, is_transform) in [("dtl.statement", true), ("dtl.call", false)] {
        let rows = manual::entries().filter(|entry| entry.is_transform == is_transform);
        let names: Vec<&str> = rows.map(|entry| entry.function.name).collect();
        assert_eq!(
            definitions[name]["prefixItems"][0]["anyOf"][0]["enum"],
            Json::from(names.clone())
        );
        let described = definitions[name]["allOf"].as_array().unwrap().iter();
        let described: Vec<&str> = described
            .map(|branch| branch["if"]["prefixItems"][0]["const"].as_str().unwrap())
            .collect();
        assert_eq!(described, names);
    }
    let branch = |name: &str| {
        let branches = definitions["dtl.call"]["allOf"].as_array().unwrap();
        let found = branches
            .iter()
            .find(|one| one["if"]["prefixItems"][0]["const"] == name);
        found.unwrap()["then"].clone()
    };
    let split = branch("split");
    assert_eq!(
        (&split["minItems"], &split["maxItems"]),
        (&Json::from(2), &Json::from(3))
    );
    assert!(branch("concat").get("maxItems").is_none());
}

fn collect(json: &Json, references: &mut Vec<String>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Json::Object(pairs) => {
            for (name, item) in pairs {
                match item {
                    Json::String(text) if name == "$ref" => references.push(text.clone()),
                    _ => collect(item, references),
                }
            }
        }
        _ => {}
    }
}
