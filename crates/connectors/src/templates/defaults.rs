//! `transform-defaults-rest`: what a system says that a new entity of its has, under what our
//! entity says itself.

use serde_json::{Value as Json, json};

use super::parts::{BODY, Given, LAY_OVER, Request, STATUS, Wrong, dtl, list_of, shared};

pub(super) const PROPERTIES: &[&str] = &[
    "operation",
    "operation_properties",
    "primary_key",
    "rest_system",
];

/// Marks entities that the system does not know yet, between the two transforms.
const NEW: &str = "$template_new";

pub(super) fn unfold(given: &Given<'_>) -> Result<Vec<Json>, Wrong> {
    let key = given.primary_key()?;
    let request = Request {
        system: given.required("rest_system")?,
        operation: Some(given.text("operation")?.unwrap_or("defaults")),
        properties: given.get("operation_properties"),
        allowed: "200",
        side_effects: false,
        trigger: Some((NEW, json!(true))),
        trace: None,
    };
    let is_new = json!([
        "and",
        ["neq", "_S._deleted", true],
        ["not", key.is_whole(&json!("_S."))]
    ]);
    let marked = json!([["copy", "*"], ["if", is_new, ["add", NEW, true]]]);
    // The key of something that is not there yet is none, whatever stands there.
    let ours = list_of(&[NEW, BODY, STATUS]);
    let laid = json!([
        "apply",
        "template:lay-over",
        [
            "dict",
            "base",
            ["apply", "template:keyless", ["first", format!("_S.{BODY}")]],
            "over",
            ["apply", "template:ours", "_S."]
        ]
    ]);
    let mut merging = shared(LAY_OVER);
    merging.insert(
        "template:keyless".to_owned(),
        json!([["copy", "*", list_of(&key.names())]]),
    );
    merging.insert(
        "template:ours".to_owned(),
        json!([[
            "merge",
            [
                "dict",
                [
                    "filter",
                    [
                        "and",
                        ["is-not-null", ["last", "_."]],
                        ["not", ["in", ["first", "_."], ours]]
                    ],
                    ["items", "_S."]
                ]
            ]
        ]]),
    );
    merging.insert(
        "default".to_owned(),
        json!([
            ["copy", "*", ours],
            ["if", ["eq", format!("_S.{NEW}"), true], ["merge", laid]]
        ]),
    );
    let mut marking = serde_json::Map::new();
    marking.insert("default".to_owned(), marked);
    Ok(vec![dtl(marking), request.transform(), dtl(merging)])
}
