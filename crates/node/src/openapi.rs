//! The API's description, printed from the table of routes.

use serde_json::{Map, Value as Json, json};

use crate::api::routes::ROUTES;
use crate::api::{Access, Param, Place, Route};

/// The table of routes as an OpenAPI 3 document.
pub fn document() -> Json {
    let mut paths: Map<String, Json> = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        if let Json::Object(methods) = entry {
            methods.insert(route.method.name().to_owned(), operation(route));
        }
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Tahini",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API of a node.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

fn operation(route: &Route) -> Json {
    let mut operation = json!({
        "summary": route.summary,
        "responses": {
            "200": { "description": "Done." },
            "default": {
                "description": "What was expected and what was found.",
                "content": { "application/problem+json": { "schema": { "type": "object" } } },
            },
        },
    });
    let parameters: Vec<Json> = route.params.iter().filter_map(parameter).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(body) = body(route.params) {
        operation["requestBody"] = body;
    }
    operation["security"] = match route.access {
        Access::Open => json!([]),
        Access::Receiver => json!([{}, { "token": [] }]),
        Access::Usual | Access::Admin | Access::Proxy => json!([{ "token": [] }]),
    };
    operation
}

fn parameter(param: &Param) -> Option<Json> {
    let place = match param.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Form | Place::Body => return None,
    };
    let required = param.place == Place::Path;
    let schema = json!({ "type": "string" });
    Some(json!({ "name": param.name, "in": place, "required": required, "schema": schema }))
}

fn body(params: &[Param]) -> Option<Json> {
    let fields: Map<String, Json> = params
        .iter()
        .filter(|param| param.place == Place::Form)
        .map(|param| (param.name.to_owned(), json!({ "type": "string" })))
        .collect();
    if !fields.is_empty() {
        let schema = json!({ "type": "object", "properties": fields });
        return Some(json!({
            "content": { "application/x-www-form-urlencoded": { "schema": schema } },
        }));
    }
    params
        .iter()
        .any(|param| param.place == Place::Body)
        .then(|| json!({ "content": { "application/json": { "schema": {} } } }))
}
