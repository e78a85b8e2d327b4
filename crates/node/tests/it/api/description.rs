//! The table of routes against the reference's: what is missing stands in a list that shrinks.

use std::collections::BTreeSet;

use serde_json::Value;
use tahini_node::api::routes::ROUTES;
use tahini_node::api::{Place, Route};

use super::TestNode;

/// The length of the list. It may be made smaller, never greater.
const MISSING_AT_MOST: usize = 21;

#[test]
fn what_the_reference_has_is_there_or_listed() {
    let reference: Value =
        serde_json::from_str(include_str!("../../data/reference-api.json")).unwrap();
    let listed: Vec<String> =
        serde_json::from_str(include_str!("../../data/missing-api.json")).unwrap();
    let missing: BTreeSet<String> = reference
        .as_array()
        .unwrap()
        .iter()
        .flat_map(missing_of)
        .collect();
    let known: BTreeSet<String> = listed.iter().cloned().collect();
    let news: Vec<&String> = missing.difference(&known).collect();
    assert!(news.is_empty(), "missing and not listed: {news:#?}");
    let done: Vec<&String> = known.difference(&missing).collect();
    assert!(
        done.is_empty(),
        "listed and there: take these off the list: {done:#?}"
    );
    assert!(
        listed.len() <= MISSING_AT_MOST,
        "the list may only shrink: {}",
        listed.len()
    );
}

/// The operation if it is missing, else its missing parameters.
fn missing_of(operation: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (method, path) = (text(&operation["method"]), text(&operation["path"]));
    let name = format!("{} {path}", method.to_uppercase());
    let ours =
        |route: &&Route| route.method.name() == method && route.path.replace("{*", "{") == path;
    let Some(route) = ROUTES.iter().find(ours) else {
        return vec![name];
    };
    let mut missing = Vec::new();
    for param in operation["parameters"].as_array().unwrap() {
        let place = match text(&param["in"]).as_str() {
            "path" => Place::Path,
            "query" => Place::Query,
            "formData" => Place::Form,
            "body" => Place::Body,
            other => panic!("unknown place {other}"),
        };
        let wanted = text(&param["name"]);
        if !route
            .params
            .iter()
            .any(|ours| ours.name == wanted && ours.place == place)
        {
            missing.push(format!("{name} {wanted}"));
        }
    }
    missing
}

#[test]
fn the_description_is_the_table() {
    let node = TestNode::new();
    let document = node.json("/api/openapi.json");
    assert_eq!(document["openapi"], "3.0.3");
    let described: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|one| one.as_object().unwrap().len())
        .sum();
    assert_eq!(described, ROUTES.len());
    let pump = &document["paths"]["/api/pipes/{pipe_id}/pump"]["post"];
    let form = &pump["requestBody"]["content"]["application/x-www-form-urlencoded"];
    assert!(
        form["schema"]["properties"]["last-seen"].is_object(),
        "{pump}"
    );
    assert_eq!(pump["parameters"][0]["in"], "path");
}

#[test]
fn every_part_of_a_path_is_a_parameter() {
    for route in ROUTES {
        let named: Vec<&str> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| name.trim_start_matches('*'))
            .collect();
        let listed: Vec<&str> = route
            .params
            .iter()
            .filter(|param| param.place == Place::Path)
            .map(|param| param.name)
            .collect();
        assert_eq!(named, listed, "{}", route.path);
    }
}
