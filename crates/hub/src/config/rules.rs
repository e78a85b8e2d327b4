//! Compiling a pipe's rules to see what is wrong with them.

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Namespaces, Options, Severity, SourceKind, compile};

use super::build::join;
use super::known::DATASET_SOURCES;
use super::model;
use super::problem::Problem;

/// What the language has to know of a pipe: namespaces and source of the effective `pipe`,
/// `id_required` of the effective `transform`. `trigger_on` is left to the caller, who has values.
pub fn dtl_options(pipe: &Map<String, Json>, transform: &Map<String, Json>) -> Options {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let namespaces = pipe.get("namespaces");
    let namespace = |name: &str| text(namespaces.and_then(|all| all.get(name)));
    let expansions = match namespaces.and_then(|all| all.get("default")) {
        Some(Json::Object(map)) => map
            .iter()
            .filter_map(|(name, uri)| Some((name.clone(), uri.as_str()?.to_owned())))
            .collect(),
        _ => Vec::new(),
    };
    let flag = |map: &Map<String, Json>, name: &str, default: bool| {
        map.get(name).and_then(Json::as_bool).unwrap_or(default)
    };
    let source = pipe
        .get("source")
        .and_then(|source| source.get("type"))
        .and_then(Json::as_str);
    Options {
        pipe: text(pipe.get("_id")).unwrap_or_default(),
        namespaces: Namespaces {
            identity: namespace("identity"),
            property: namespace("property"),
            expansions,
        },
        namespaced_identifiers: flag(pipe, "namespaced_identifiers", false),
        id_required: flag(transform, "id_required", true),
        source_kind: match source {
            Some(kind) if DATASET_SOURCES.contains(&kind) => SourceKind::Dataset,
            _ => SourceKind::Other,
        },
        ..Options::default()
    }
}

/// Everything that is wrong with the rules of an effective pipe.
pub(crate) fn check(pipe: &Map<String, Json>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, transform) in model::transforms(pipe) {
        check_transform(pipe, &path, transform, &mut problems);
    }
    problems
}

fn check_transform(
    pipe: &Map<String, Json>,
    path: &JsonPath,
    transform: &Map<String, Json>,
    problems: &mut Vec<Problem>,
) {
    match transform.get("type").and_then(Json::as_str) {
        Some("chained") => {
            let list = transform.get("transforms").and_then(Json::as_array);
            for (at, inner) in list.into_iter().flatten().enumerate() {
                if let Json::Object(inner) = inner {
                    check_transform(pipe, &path.name("transforms").at(at), inner, problems);
                }
            }
        }
        Some("dtl") => {
            // A value that is no object is the table's business, not the language's.
            let Some(rules @ Json::Object(_)) = transform.get("rules") else {
                return;
            };
            let found = match compile(rules, &dtl_options(pipe, transform)) {
                Ok(program) => program.warnings().to_vec(),
                Err(found) => found,
            };
            problems.extend(found.into_iter().map(|problem| {
                let place = join(path, &problem.path.0);
                match problem.severity {
                    Severity::Error => Problem::error(place, problem.message),
                    Severity::Warning => Problem::warning(place, problem.message),
                }
            }));
        }
        _ => {}
    }
}
