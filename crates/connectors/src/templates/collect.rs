//! `transform-collect-rest`: what a system told, with the origin of what we inserted there.

use serde_json::{Value as Json, json};

use super::parts::{BODY, Given, Key, Request, STATUS, Wrong, dtl, rules};

pub(super) const PROPERTIES: &[&str] = &[
    "allowed_status_codes",
    "operation_lookup",
    "operation_lookup_delete",
    "operation_lookup_delete_properties",
    "operation_lookup_properties",
    "original_property",
    "primary_key",
    "rest_system",
    "share_dataset",
];

/// Statuses of a lookup: found, and not there.
const LOOKUP: &str = "200,404";

pub(super) fn unfold(given: &Given<'_>) -> Result<Vec<Json>, Wrong> {
    let dataset = given.required("share_dataset")?;
    let key = given.primary_key()?;
    let mut way = Vec::new();
    if let Some(operation) = given.text("operation_lookup_delete")? {
        way.extend(verified(given, operation)?);
    } else if let Some(operation) = given.text("operation_lookup")? {
        way.extend(looked_up(given, operation)?);
    }
    way.push(dtl(rules(vec![(
        "default",
        json!([
            ["copy", "*"],
            ["add-if", "$origin", ["first", ["hops", {
                "datasets": [format!("{dataset} st")],
                "where": [same(&key)],
                "return": "st.$origin",
                "track-dependencies": false
            }]]]
        ]),
    )])));
    Ok(way)
}

/// The join of an entity with what was kept when it was inserted.
fn same(key: &Key) -> Json {
    let Key::Several(names) = key else {
        return json!(["eq", key.value(&json!("_S.")), "st.$generated_id"]);
    };
    let mut ours = vec![json!("tuples")];
    ours.extend(key.values(&json!("_S.")));
    let mut theirs = vec![json!("tuples")];
    theirs.extend((0..names.len()).map(|at| json!(["nth", at, "st.$generated_id"])));
    json!(["eq", ours, theirs])
}

fn request<'a>(
    given: &Given<'a>,
    operation: &'a str,
    properties: &'static str,
) -> Result<Request<'a>, Wrong> {
    Ok(Request {
        system: given.required("rest_system")?,
        operation: Some(operation),
        properties: given.get(properties),
        allowed: given.text("allowed_status_codes")?.unwrap_or(LOOKUP),
        side_effects: false,
        trigger: None,
        trace: None,
    })
}

/// Entities that are deleted because they did not come are looked up: what is still there stays.
fn verified(given: &Given<'_>, operation: &str) -> Result<[Json; 2], Wrong> {
    let mut request = request(given, operation, "operation_lookup_delete_properties")?;
    request.trigger = Some(("_deleted", json!(true)));
    let status = format!("_S.{STATUS}");
    Ok([
        request.transform(),
        dtl(rules(vec![(
            "default",
            json!([
                ["copy", "*", ["list", BODY, STATUS]],
                [
                    "if",
                    ["and", ["eq", "_S._deleted", true], ["eq", status, 200]],
                    ["add", "_deleted", false]
                ]
            ]),
        )])),
    ])
}

/// Every entity becomes what a lookup says; what is not there any more is discarded.
fn looked_up(given: &Given<'_>, operation: &str) -> Result<[Json; 2], Wrong> {
    let original = given.text("original_property")?;
    let answer = json!(["list", BODY, STATUS]);
    let mut found = vec![json!(["merge", ["first", format!("_S.{BODY}")]])];
    if let Some(name) = original {
        found.push(json!(["add", name, ["apply", "template:original", "_S."]]));
    }
    let request = request(given, operation, "operation_lookup_properties")?;
    Ok([
        request.transform(),
        dtl(rules(vec![
            (
                "default",
                json!([[
                    "if",
                    ["eq", format!("_S.{STATUS}"), 404],
                    [
                        "if",
                        ["eq", "_S._deleted", true],
                        ["copy", "*", answer],
                        ["discard"]
                    ],
                    found
                ]]),
            ),
            ("template:original", json!([["copy", "*", answer]])),
        ])),
    ])
}
