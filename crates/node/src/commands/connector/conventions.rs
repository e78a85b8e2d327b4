//! What connectors promise each other, beyond a configuration that is right in itself: the names
//! and settings by which what is collected and what is shared find each other. What is broken is
//! a warning: the connector runs all the same.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;
use tahini_hub::config::Problem;

/// Every promise that is broken.
pub(super) fn check(manifest: &Map<String, Json>, components: &[Json]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !manifest.get("datatypes").is_some_and(Json::is_object) {
        problems.push(problem(
            "",
            JsonPath::default(),
            "manifest.json: expected \"datatypes\"",
        ));
    }
    let pipes = || components.iter().filter(|one| one["type"] == "pipe");
    let shared: BTreeSet<&str> = pipes()
        .filter_map(|pipe| id(pipe).strip_suffix("-share"))
        .collect();
    for pipe in pipes() {
        let root = JsonPath::default();
        let dataset = pipe["sink"]["dataset"].as_str();
        if dataset.is_some_and(|dataset| dataset != id(pipe)) {
            let path = root.name("sink").name("dataset");
            let words = "expected no dataset: it is named like the pipe, by which others find it";
            problems.push(problem(id(pipe), path, words));
        }
        let templates = templates(pipe);
        if id(pipe).ends_with("-share")
            && templates
                .iter()
                .any(|(name, _)| *name == "transform-share-rest")
            && pipe["batch_size"] != 1
        {
            let words = "expected 1: of a batch that fails, requests that were made would be made \
                         again";
            problems.push(problem(id(pipe), root.name("batch_size"), words));
        }
        let Some(stem) = id(pipe).strip_suffix("-collect") else {
            continue;
        };
        let collecting = templates
            .iter()
            .find(|(name, _)| *name == "transform-collect-rest");
        match collecting {
            None if shared.contains(stem) => {
                let words = "expected the template transform-collect-rest, since there is a pipe \
                             that shares: without it the origin of what was inserted is lost";
                problems.push(problem(id(pipe), root.name("transform"), words));
            }
            None => {}
            Some((_, properties)) => {
                let dataset = properties["share_dataset"].as_str().unwrap_or_default();
                let excluded = &pipe["exclude_completeness"];
                let list = excluded.as_array();
                let is_excluded = excluded == dataset
                    || list.is_some_and(|list| list.iter().any(|one| one == dataset));
                if !dataset.is_empty() && !is_excluded {
                    let words = format!(
                        "expected {dataset:?}: the pipe would wait for what is shared, which waits \
                         for it"
                    );
                    let path = root.name("exclude_completeness");
                    problems.push(problem(id(pipe), path, &words));
                }
            }
        }
    }
    problems
}

fn id(component: &Json) -> &str {
    component["_id"].as_str().unwrap_or_default()
}

/// The templates among a pipe's transforms, with their properties.
fn templates(pipe: &Json) -> Vec<(&str, &Json)> {
    fn gather<'a>(json: &'a Json, out: &mut Vec<(&'a str, &'a Json)>) {
        match json {
            Json::Array(list) => list.iter().for_each(|one| gather(one, out)),
            Json::Object(map) => {
                if let (Some("template"), Some(name)) = (
                    json["type"].as_str(),
                    map.get("template").and_then(Json::as_str),
                ) {
                    out.push((name, &json["properties"]));
                }
                if let Some(inner) = map.get("transforms") {
                    gather(inner, out);
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    gather(&pipe["transform"], &mut out);
    out
}

fn problem(component: &str, path: JsonPath, words: &str) -> Problem {
    let mut problem = Problem::warning(path, words);
    problem.component = (!component.is_empty()).then(|| component.to_owned());
    problem
}
