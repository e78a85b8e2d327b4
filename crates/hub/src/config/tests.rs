//! Tables of configurations, as data: what is wrong with them, and what holds.

use serde_json::{Map, Value as Json};

use super::*;
use crate::registry::{ContinuationDef, SinkDef, SourceDef, SystemDef, TransformDef};
use crate::{Failure, Registry, builtin};

/// The built-in types, and stand-ins for those of connectors.
const REGISTRY: Registry = Registry {
    sources: &[builtin::SOURCES, SOURCES],
    sinks: &[builtin::SINKS, SINKS],
    transforms: &[builtin::TRANSFORMS, TRANSFORMS],
    systems: &[SYSTEMS],
    template: |text| match text.contains("{{ broken") {
        true => Err("an end is missing".to_owned()),
        false => Ok(()),
    },
};

const SYSTEM: Property = Property::required("system", Kind::System, "The system.");
const URL: Property = Property::required("url", Kind::String, "The URL.");

const AUTHENTICATION: Property = Property::new(
    "authentication",
    Kind::Enum(&["none", "basic", "digest", "jwt"]),
    "The way.",
)
.only(&["none", "basic"]);

const SOURCES: &[SourceDef] = &[SourceDef {
    name: "json",
    summary: "Stands in.",
    properties: &[
        SYSTEM,
        URL,
        Property::new("page_size", Kind::Integer(1), "Entities in a request."),
        Property::new("headers", Kind::Object, "Headers."),
        Property::new("if_source_empty", Kind::Enum(&["accept", "fail"]), "…").or("\"accept\""),
    ],
    continuation: ContinuationDef {
        supports_since: false,
        is_since_comparable: true,
        is_chronological: false,
        configurable: true,
    },
    open: |_, _| Err(Failure::fatal("never opened")),
}];

const SINKS: &[SinkDef] = &[SinkDef {
    name: "json",
    summary: "Stands in.",
    properties: &[SYSTEM, URL],
    open: |_| Err(Failure::fatal("never opened")),
}];

const TRANSFORMS: &[TransformDef] = &[TransformDef {
    name: "http",
    summary: "Stands in.",
    properties: &[
        SYSTEM,
        URL,
        Property::new("batch_size", Kind::Integer(1), "Entities in a request.").or("100"),
    ],
    stands_for: None,
    open: |_| Err(Failure::fatal("never opened")),
}];

const SYSTEMS: &[SystemDef] = &[
    SystemDef {
        name: "system:microservice",
        summary: "Stands in.",
        properties: &[
            Property::new(
                "docker",
                Kind::Nested(&[
                    Property::required("image", Kind::String, "The image."),
                    Property::required("port", Kind::Integer(1), "The port."),
                    Property::new("memory", Kind::Integer(1), "MB.").or("128"),
                ]),
                "The container.",
            ),
            Property::new("eager_load", Kind::Boolean, "Starts without pipes."),
            Property::new("username", Kind::String, "The user."),
            Property::new("password", Kind::String, "The password."),
            AUTHENTICATION,
        ],
        open: |_| Err(Failure::fatal("never opened")),
    },
    SystemDef {
        name: "system:url",
        summary: "Stands in.",
        properties: &[
            Property::new("url_pattern", Kind::String, "The URL."),
            Property::new("base_url", Kind::String, "The URL."),
            Property::new("username", Kind::String, "The user."),
            Property::new("password", Kind::String, "The password."),
            Property::new("jwt_token", Kind::String, "The token."),
            AUTHENTICATION,
            Property::new("oauth2", Kind::Object, "Tokens.").withheld(),
            Property::new("verify_ssl", Kind::Boolean, "Checks certificates."),
            Property::new("connect_timeout", Kind::Integer(1), "Seconds.").or("60"),
        ],
        open: |_| Err(Failure::fatal("never opened")),
    },
];

fn table(text: &str) -> Vec<Json> {
    match serde_json::from_str(text).unwrap() {
        Json::Array(rows) => rows,
        other => panic!("expected a list, found {other}"),
    }
}

fn about(case: &Json) -> &str {
    case["about"].as_str().unwrap()
}

fn env(case: &Json) -> Map<String, Json> {
    case["env"].as_object().cloned().unwrap_or_default()
}

fn lines(text: &Json) -> String {
    let lines = text.as_array().unwrap().iter();
    let lines: Vec<&str> = lines.map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

/// A configuration from the case's `files`, each a list of lines.
fn from_files(case: &Json) -> Configuration {
    let mut inputs = Vec::new();
    for (name, text) in case["files"].as_object().unwrap() {
        let read = Text::parse(&lines(text), Some(name.as_ref()));
        assert_eq!(read.problems, [], "{}", about(case));
        inputs.push(Input {
            json: read.json.unwrap(),
            file: Some(name.into()),
            spans: Some(read.spans),
            folder: None,
        });
    }
    Configuration::build(inputs, &env(case), &REGISTRY)
}

/// A problem as `file:line:column level path`.
fn place(problem: &Problem) -> String {
    format!(
        "{}:{}:{} {} {}",
        problem.file.as_deref().unwrap().display(),
        problem.line.unwrap(),
        problem.column.unwrap(),
        problem.level.name(),
        problem.path
    )
}

fn check_problems(data: &str) {
    for case in table(data) {
        let configuration = from_files(&case);
        let found: Vec<&Problem> = configuration.problems().collect();
        let expected = case["problems"].as_array().unwrap();
        let places: Vec<String> = found.iter().map(|problem| place(problem)).collect();
        let wanted: Vec<&str> = expected
            .iter()
            .map(|row| row[0].as_str().unwrap())
            .collect();
        let printed: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(places, wanted, "{}: {printed:#?}", about(&case));
        for (problem, row) in printed.iter().zip(expected) {
            for part in &row.as_array().unwrap()[1..] {
                let part = part.as_str().unwrap();
                assert!(
                    problem.contains(part),
                    "{}: {part:?} in {problem}",
                    about(&case)
                );
            }
        }
        let unsupported: Map<String, Json> = configuration
            .components()
            .iter()
            .filter_map(|one| Some((one.id.clone(), one.unsupported.clone()?.into())))
            .collect();
        let wanted = case["unsupported"].as_object().cloned().unwrap_or_default();
        assert_eq!(unsupported, wanted, "{}", about(&case));
    }
}

#[test]
fn problems_of_pipes() {
    check_problems(include_str!("../../tests/data/config/pipes.json"));
}

#[test]
fn problems_of_pumps() {
    check_problems(include_str!("../../tests/data/config/pumps.json"));
}

#[test]
fn problems_of_systems() {
    check_problems(include_str!("../../tests/data/config/systems.json"));
}

#[test]
fn problems_between_components() {
    check_problems(include_str!("../../tests/data/config/between.json"));
}

#[test]
fn real_configurations_load_silently() {
    for case in table(include_str!("../../tests/data/config/silent.json")) {
        let inputs = vec![Input::new(case["components"].clone())];
        let configuration = Configuration::build(inputs, &env(&case), &REGISTRY);
        let found: Vec<String> = configuration.problems().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{}: {found:#?}", about(&case));
    }
}

/// Whether everything in `part` stands in `whole`; null stands for what is not there.
fn holds(whole: &Json, part: &Json) -> bool {
    match (whole, part) {
        (Json::Object(whole), Json::Object(part)) => part
            .iter()
            .all(|(name, value)| holds(whole.get(name).unwrap_or(&Json::Null), value)),
        (whole, part) => whole == part,
    }
}

#[test]
fn what_holds() {
    for case in table(include_str!("../../tests/data/config/effective.json")) {
        let inputs = vec![Input::new(case["components"].clone())];
        let configuration = Configuration::build(inputs, &env(&case), &REGISTRY);
        let found: Vec<String> = configuration.problems().map(ToString::to_string).collect();
        assert!(configuration.is_valid(), "{}: {found:#?}", about(&case));
        for (id, expected) in case["effective"].as_object().unwrap() {
            let component = configuration.get(id).unwrap();
            let effective = &component.effective;
            assert!(
                holds(effective, expected),
                "{}: {effective:#}",
                about(&case)
            );
        }
        for (component, original) in configuration
            .components()
            .iter()
            .zip(case["components"].as_array().unwrap())
        {
            assert_eq!(&component.original, original, "{}", about(&case));
        }
    }
}

#[test]
fn changes_are_those_of_what_holds() {
    let build = |components: Json, env: Json| {
        let env = env.as_object().unwrap();
        Configuration::build(vec![Input::new(components)], env, &REGISTRY)
    };
    let pipe = |id: &str, entities: Json| {
        serde_json::json!({
            "_id": id, "type": "pipe", "source": {"type": "embedded", "entities": entities}
        })
    };
    let none = serde_json::json!([]);
    let old = build(
        serde_json::json!([
            pipe("gone", none.clone()),
            pipe("same", none.clone()),
            pipe("env", "$ENV(list)".into()),
            pipe("written", none.clone()),
        ]),
        serde_json::json!({"list": []}),
    );
    let new = build(
        serde_json::json!([
            pipe("new", none.clone()),
            pipe("same", "$ENV(empty)".into()),
            pipe("env", "$ENV(list)".into()),
            pipe("written", serde_json::json!([{"_id": "x"}])),
        ]),
        serde_json::json!({"list": [{"_id": "a"}], "empty": []}),
    );
    let changes = diff(&old, &new);
    assert_eq!(changes.added, ["new"]);
    assert_eq!(changes.removed, ["gone"]);
    assert_eq!(changes.changed, ["env", "written"]);
    assert!(diff(&new, &new).is_empty());
}

#[test]
fn what_has_no_id_belongs_to_no_component() {
    let inputs = vec![Input::new(
        serde_json::json!([5, {"type": "pipe"}, {"_id": ""}]),
    )];
    let configuration = Configuration::build(inputs, &Map::new(), &REGISTRY);
    assert!(configuration.components().is_empty());
    let found: Vec<String> = configuration.problems().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[1].contains("no _id") && found[1].contains("($[1])"),
        "{found:?}"
    );
    assert!(
        configuration
            .problems()
            .all(|problem| problem.component.is_none())
    );
}
