//! The configuration as JSON Schema (draft 2020-12), made of the tables that judge it: editors
//! complete and check by it.
//!
//! It is stricter than the node in one way: a name that no table knows is refused, where the node
//! warns and ignores it. It is more lenient wherever only the whole project can tell.

use serde_json::{Map, Value as Json, json};
use tahini_dtl::schema as dtl;

use super::known::Role;
use super::rows::{METADATA, PIPE, SINK_COMMON, SOURCE_COMMON, SYSTEM_COMMON, TRANSFORM_COMMON};
use super::{Kind, Property};
use crate::Registry;

/// What a schema is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One pipe.
    Pipe,
    /// One system.
    System,
    /// A `rules` object.
    Rules,
    /// A file of configuration: a component of any kind, or a list of them.
    All,
}

/// The schema of a subject, with the definitions that it needs.
pub fn schema(subject: Subject, registry: &Registry) -> Json {
    let mut all = match subject {
        Subject::Rules => dtl::definitions(),
        _ => definitions(registry),
    };
    let root = match subject {
        Subject::Pipe => refer("pipe"),
        Subject::System => refer("system"),
        Subject::Rules => refer(dtl::RULES),
        Subject::All => {
            all.insert("component".to_owned(), any_component());
            json!({
                "if": {"type": "array"},
                "then": {"items": refer("component")},
                "else": refer("component"),
            })
        }
    };
    let mut schema = Map::new();
    schema.insert(
        "$schema".to_owned(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    if let Json::Object(root) = root {
        schema.extend(root);
    }
    schema.insert("$defs".to_owned(), Json::Object(all));
    Json::Object(schema)
}

fn refer(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// Name, summary and properties of component types.
type Rows = Vec<(&'static str, &'static str, &'static [Property])>;

/// Name, summary and properties of every row of some tables.
macro_rules! rows {
    ($tables:expr) => {
        $tables
            .iter()
            .flat_map(|table| table.iter())
            .map(|row| (row.name, row.summary, row.properties))
            .collect()
    };
}

fn definitions(registry: &Registry) -> Map<String, Json> {
    let mut all = dtl::definitions();
    all.insert(
        "variable".to_owned(),
        json!({"type": "string", "pattern": "\\$(ENV|SECRET)\\("}),
    );
    all.insert("pipe".to_owned(), pipe());
    all.insert("metadata".to_owned(), object(&[METADATA], None));
    let role_rows: [(Role, Rows); 4] = [
        (Role::Source, rows!(registry.sources)),
        (Role::Transform, rows!(registry.transforms)),
        (Role::Sink, rows!(registry.sinks)),
        (Role::System, rows!(registry.systems)),
    ];
    for (role, mut rows) in role_rows {
        rows.sort_unstable_by_key(|(name, ..)| *name);
        let types: Vec<&str> = rows.iter().map(|(name, ..)| *name).collect();
        all.insert(role.name().to_owned(), component(role, &types));
        for (name, summary, properties) in rows {
            let mut schema = object(&[properties, common(role)], Some(role));
            schema["description"] = summary.into();
            all.insert(format!("{}.{name}", role.name()), schema);
        }
    }
    all
}

fn common(role: Role) -> &'static [Property] {
    match role {
        Role::Source => SOURCE_COMMON,
        Role::Transform => TRANSFORM_COMMON,
        Role::Sink => SINK_COMMON,
        Role::System => SYSTEM_COMMON,
    }
}

/// A component of any kind, told apart by its type.
fn any_component() -> Json {
    let is = |kind: &str| json!({"properties": {"type": {"const": kind}}, "required": ["type"]});
    json!({
        "type": "object",
        "required": ["type"],
        "if": is("pipe"),
        "then": refer("pipe"),
        "else": {"if": is("metadata"), "then": refer("metadata"), "else": refer("system")},
    })
}

/// A pipe: its own properties by its rows, its parts by theirs.
fn pipe() -> Json {
    let mut schema = object(&[PIPE], None);
    let properties = &mut schema["properties"];
    for (name, part) in [
        ("source", refer("source")),
        ("sink", refer("sink")),
        (
            "transform",
            json!({
                "if": {"type": "array"},
                "then": {"items": refer("transform")},
                "else": refer("transform"),
            }),
        ),
    ] {
        let doc = properties[name]["description"].take();
        properties[name] = json!({"description": doc, "if": {"type": "null"}, "else": part});
    }
    schema
}

/// A source, transform, sink or system of any type: the type says what else there may be.
fn component(role: Role, built: &[&str]) -> Json {
    let mut types: Vec<&str> = built.iter().chain(role.documented()).copied().collect();
    types.sort_unstable();
    types.dedup();
    let is = |kind: &str| json!({"properties": {"type": {"const": kind}}, "required": ["type"]});
    let mut branches: Vec<Json> = built
        .iter()
        .filter(|kind| !matches!(**kind, "conditional" | "chained"))
        .map(|kind| json!({"if": is(kind), "then": refer(&format!("{}.{kind}", role.name()))}))
        .collect();
    if types.contains(&"conditional") {
        let alternatives = json!({"type": "object", "additionalProperties": refer(role.name())});
        branches.push(json!({
            "if": is("conditional"),
            "then": {"properties": {"alternatives": alternatives}, "required": ["alternatives"]},
        }));
    }
    if types.contains(&"chained") {
        let transforms = json!({"type": "array", "items": refer(role.name())});
        branches.push(json!({
            "if": is("chained"),
            "then": {"properties": {"transforms": transforms}, "required": ["transforms"]},
        }));
    }
    let mut schema = json!({
        "type": "object",
        "properties": {"type": {"anyOf": [{"enum": types}, refer("variable")]}},
        "allOf": branches,
    });
    match role {
        // A sink that says only how to write, writes a dataset.
        Role::Sink => schema["if"] = json!({"not": {"required": ["type"]}}),
        _ => schema["required"] = json!(["type"]),
    }
    if role == Role::Sink {
        schema["then"] = refer("sink.dataset");
    }
    schema
}

/// An object with these properties; the first row of a name counts.
fn object(tables: &[&[Property]], role: Option<Role>) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for row in tables.iter().flat_map(|table| table.iter()) {
        if properties.contains_key(row.name) {
            continue;
        }
        if row.required {
            required.push(row.name);
        }
        properties.insert(row.name.to_owned(), property(row, role));
    }
    // The role's own definition judges the type.
    if role.is_some() {
        properties.insert("type".to_owned(), json!(true));
        required.retain(|name| *name != "type");
    }
    // What is not there because a condition decides, is not missed.
    let required = json!({"anyOf": [
        {"required": required},
        {"required": ["$conditional_properties"]},
    ]});
    json!({
        "type": "object",
        "properties": properties,
        "patternProperties": {"^(_|\\$|comment|description|metadata$)": true},
        "additionalProperties": false,
        "allOf": [required],
    })
}

fn property(row: &Property, role: Option<Role>) -> Json {
    let mut schema = Map::new();
    schema.insert("description".to_owned(), row.describe().into());
    if let Some(default) = row.default
        && let Ok(default) = serde_json::from_str::<Json>(default)
    {
        schema.insert("default".to_owned(), default);
    }
    if let Some(kind) = kind(row.kind, role) {
        // Null says the same as nothing, and a variable can be anything.
        let choices = json!([kind, {"type": "null"}, refer("variable")]);
        schema.insert("anyOf".to_owned(), choices);
    }
    Json::Object(schema)
}

/// What a property may hold; `None` when that is anything.
fn kind(kind: Kind, role: Option<Role>) -> Option<Json> {
    Some(match kind {
        Kind::String | Kind::Cron | Kind::System | Kind::Dataset | Kind::Template => {
            json!({"type": "string"})
        }
        Kind::Integer(i64::MIN) => json!({"type": "integer"}),
        Kind::Integer(least) => json!({"type": "integer", "minimum": least}),
        Kind::Number => json!({"type": "number", "minimum": 0}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::StringOrInteger => json!({"type": ["string", "integer"]}),
        Kind::StringOrList => json!({"type": ["string", "array"]}),
        Kind::Enum(options) => json!({"enum": options}),
        Kind::List => json!({"type": "array"}),
        Kind::Strings => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Object => json!({"type": "object"}),
        Kind::Nested(rows) => object(&[rows], None),
        Kind::Each(rows) => {
            json!({"type": "object", "additionalProperties": object(&[rows], None)})
        }
        Kind::Rules => refer(dtl::RULES),
        Kind::Component => {
            let one = refer(role?.name());
            json!({"anyOf": [
                one,
                {"type": "array", "items": one},
                {"type": "object", "not": {"required": ["type"]}, "additionalProperties": one},
            ]})
        }
        Kind::Templates | Kind::Any => return None,
    })
}
