//! `transform-share-rest`: brings what a system holds to what an entity says, through insert,
//! update and delete, and keeps what became of it.
//!
//! ```text
//! decide ─▶ prepare ─▶ (lookup) ─▶ compare ─▶ (update | insert | delete) ─▶ record
//! ```
//! What is to be done stands in `$operation`; the requests are those of the entities that ask for
//! them. An entity whose `$operation` begins with `discard-` makes none.

use serde_json::{Value as Json, json};

use super::parts::{BODY, Given, Key, Request, STATUS, Wrong, dtl, lay_over, list_of, rules};

pub(super) const PROPERTIES: &[&str] = &[
    "client_side_patching",
    "delete_allowed_status_codes",
    "enable_deletes",
    "insert_allowed_status_codes",
    "is_natural_key",
    "lookup_allowed_status_codes",
    "operation_delete",
    "operation_delete_properties",
    "operation_insert",
    "operation_insert_properties",
    "operation_lookup",
    "operation_lookup_properties",
    "operation_update",
    "operation_update_properties",
    "payload_property",
    "primary_key",
    "primary_key_insert",
    "rest_system",
    "rewrite_rules_lookup",
    "rewrite_rules_mutation",
    "rewrite_rules_payload",
    "rules",
    "share_dataset",
    "trace",
    "update_allowed_status_codes",
];

/// Where the source's entity stands on its whole way.
const SOURCE: &str = "$source";

/// What the properties say.
struct Share<'a> {
    given: &'a Given<'a>,
    system: &'a str,
    dataset: &'a str,
    key: Key,
    natural: bool,
    /// The property that is sent.
    payload: &'a str,
}

pub(super) fn unfold(given: &Given<'_>) -> Result<Vec<Json>, Wrong> {
    let share = Share {
        given,
        system: given.required("rest_system")?,
        dataset: given.required("share_dataset")?,
        key: given.primary_key()?,
        natural: given.flag("is_natural_key", false)?,
        payload: given.text("payload_property")?.unwrap_or("payload"),
    };
    let mut way = vec![share.decide()?, share.prepare()?];
    way.push(share.request(Operation::Lookup)?);
    way.extend(rewriting(given, "rewrite_rules_lookup", &["lookup"])?);
    way.push(share.compare()?);
    for operation in [Operation::Update, Operation::Insert, Operation::Delete] {
        way.push(share.request(operation)?);
    }
    let mutations = &["update", "insert", "delete"];
    way.extend(rewriting(given, "rewrite_rules_mutation", mutations)?);
    way.push(share.record()?);
    Ok(way)
}

#[derive(Clone, Copy)]
enum Operation {
    Lookup,
    Insert,
    Update,
    Delete,
}

impl Operation {
    /// What it is called in `$operation`, and in a system where the template says nothing.
    fn name(self) -> &'static str {
        match self {
            Operation::Lookup => "lookup",
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }

    /// The properties of the template: the operation's name, its properties, the statuses.
    fn properties(self) -> [&'static str; 3] {
        match self {
            Operation::Lookup => [
                "operation_lookup",
                "operation_lookup_properties",
                "lookup_allowed_status_codes",
            ],
            Operation::Insert => [
                "operation_insert",
                "operation_insert_properties",
                "insert_allowed_status_codes",
            ],
            Operation::Update => [
                "operation_update",
                "operation_update_properties",
                "update_allowed_status_codes",
            ],
            Operation::Delete => [
                "operation_delete",
                "operation_delete_properties",
                "delete_allowed_status_codes",
            ],
        }
    }

    /// The statuses with which it was done.
    fn done(self) -> Json {
        match self {
            Operation::Lookup => json!(["list", 200]),
            Operation::Insert | Operation::Update => json!(["list", 200, 201, 204]),
            Operation::Delete => json!(["list", 200, 204]),
        }
    }
}

impl Share<'_> {
    /// The names that every step passes on.
    fn kept(&self, more: &[&str]) -> Json {
        let mut names = self.key.names();
        names.extend([SOURCE, "$origin", "$replaced"]);
        names.extend(more);
        list_of(&names)
    }

    /// What is to be done with the entity, and the entity itself in `$source`.
    fn decide(&self) -> Result<Json, Wrong> {
        let source = json!("_S.");
        let gone = json!(["eq", "_S._deleted", true]);
        let delete = match self.given.flag("enable_deletes", true)? {
            true => "delete",
            false => "discard-deletes-not-enabled",
        };
        // A natural key is there before the system knows the entity: what it is based on tells.
        let known = match self.natural {
            true => json!(["is-not-null", "_S.$based_on"]),
            false => json!(true),
        };
        let inserted = json!(["is-not-empty",
        ["filter", ["is-not-null", "_."],
            ["combine",
                ["hops", {
                    "datasets": [format!("{} st", self.dataset)],
                    "where": [["eq", "_S.$ids", ["ni", "st._id"]]],
                    "return": "st.$generated_id",
                    "track-dependencies": false
                }],
                ["hops", {
                    "datasets": [format!("{} st", self.dataset)],
                    "where": [["eq", "_S._id", "st._id"]],
                    "return": "st.$generated_id",
                    "track-dependencies": false
                }]]]]);
        let whole = self.key.is_whole(&source);
        let decision = json!([
            "case",
            ["and", ["eq", "_S.$replaced", true], gone],
            "discard-replaced",
            ["is-not-null", "_S.$discard"],
            "discard-by-connector",
            ["and", whole, gone],
            delete,
            ["and", whole, known],
            "lookup",
            gone,
            "discard-delete-non-existent",
            // What has a natural key does no harm when it is inserted twice.
            ["and", ["not", whole], inserted],
            "discard-already-inserted",
            "insert"
        ]);
        Ok(dtl(rules(vec![(
            "default",
            json!([
                ["copy", "*"],
                ["add", SOURCE, "_S."],
                [
                    "if",
                    ["is-not-null", "_S.$discard"],
                    ["add", "$reason", "_S.$discard"]
                ],
                ["add", "$operation", decision]
            ]),
        )])))
    }

    /// Leaves the properties of the entity to `$source`, and makes the payload of an insert.
    fn prepare(&self) -> Result<Json, Wrong> {
        let mut own = self.given.rules("rewrite_rules_payload")?;
        let payload = self.payload_of(&own, "rewrite_insert_payload");
        own.insert("template:payload".to_owned(), payload_rule());
        let mut insert = vec![
            json!([
                "if",
                ["is-null", "_S.$origin"],
                [
                    "fail!",
                    "expected $origin on an entity that is inserted, found none"
                ]
            ]),
            json!(["add", self.payload, payload]),
        ];
        insert.extend(self.named(Operation::Insert)?);
        let mut steps = vec![
            json!(["copy", self.kept(&["$operation", "$reason"])]),
            json!(["if", ["eq", "_S.$operation", "insert"], insert]),
        ];
        for operation in [Operation::Lookup, Operation::Delete] {
            if let Some(step) = self.named(operation)? {
                steps.push(json!([
                    "if",
                    ["eq", "_S.$operation", operation.name()],
                    step
                ]));
            }
        }
        own.insert("default".to_owned(), Json::Array(steps));
        Ok(dtl(own))
    }

    /// An operation of the usual name need not be there unless it is used: the entity names it.
    fn named(&self, operation: Operation) -> Result<Option<Json>, Wrong> {
        let [name, ..] = operation.properties();
        let given = self.given.text(name)?;
        Ok(given
            .is_none()
            .then(|| json!(["add", "operation", operation.name()])))
    }

    /// What is sent: what a rule of the user makes, or else `$payload`, or else the properties of
    /// the entity that are its own.
    fn payload_of(&self, own: &serde_json::Map<String, Json>, rule: &str) -> Json {
        if own.contains_key(rule) {
            return json!(["path", "$payload", ["apply", rule, "_S."]]);
        }
        json!([
            "if",
            ["is-not-null", "_S.$source.$payload"],
            "_S.$source.$payload",
            ["apply", "template:payload", "_S.$source"]
        ])
    }

    fn request(&self, operation: Operation) -> Result<Json, Wrong> {
        let [name, properties, allowed] = operation.properties();
        let request = Request {
            system: self.system,
            operation: self.given.text(name)?,
            properties: self.given.get(properties),
            allowed: self.given.text(allowed)?.unwrap_or("100-599"),
            side_effects: !matches!(operation, Operation::Lookup),
            trigger: Some(("$operation", json!(operation.name()))),
            trace: self.given.get("trace"),
        };
        Ok(request.transform())
    }

    /// Compares what was found with what the entity is based on, and makes the payload of an
    /// update where nobody else changed what is to be changed.
    fn compare(&self) -> Result<Json, Wrong> {
        let user = self.given.rules("rules")?;
        let mut own = self.given.rules("rewrite_rules_payload")?;
        own.extend(user.clone());
        let found = |names: &[&str]| {
            let name = names.iter().find(|name| user.contains_key(**name));
            match name {
                Some(name) => json!(["first", ["apply", name, format!("_S.{BODY}")]]),
                None => json!(["first", format!("_S.{BODY}")]),
            }
        };
        let based_on = found(&["lookup_rewrite_based_on", "lookup_rewrite"]);
        let mut payload = self.payload_of(&own, "rewrite_update_payload");
        if self.given.flag("client_side_patching", false)? {
            let base = found(&["lookup_rewrite_update", "lookup_rewrite"]);
            payload = json!([
                "apply",
                "template:lay-over",
                ["dict", "base", base, "over", payload]
            ]);
            let after = "rewrite_update_payload_after_patch";
            if own.contains_key(after) {
                payload = json!([
                    "path",
                    "$payload",
                    ["apply", after, ["dict", "_payload", payload]]
                ]);
            }
        }
        let mut update = vec![json!(["add", self.payload, payload])];
        update.extend(self.named(Operation::Update)?);
        let names = json!([
            "if",
            ["is-not-null", "_S.$source.$based_on_properties"],
            "_S.$source.$based_on_properties",
            ["keys", "_S.$source.$based_on"]
        ]);
        let comparison = json!([
            "apply",
            "template:compare",
            [
                "dict",
                "names",
                names,
                "source",
                ["first", "_S.$source.$based_on"],
                "lookup",
                based_on,
                "update",
                "_S.$source"
            ]
        ]);
        let result = |result: &str| json!(["eq", "_T.$comparison.$result", result]);
        let forced = json!(["eq", "_S.$source.$unsafe_skip_optimistic_locking", true]);
        let default = json!([[
            "if",
            [
                "not",
                [
                    "and",
                    ["eq", "_S.$operation", "lookup"],
                    ["eq", format!("_S.{STATUS}"), 200]
                ]
            ],
            ["copy", "*"],
            [
                ["copy", self.kept(&[])],
                ["add", "$trace_lookup", ["apply", "template:trace", "_S."]],
                ["add", "$comparison", comparison],
                [
                    "add",
                    "$operation",
                    [
                        "case",
                        ["and", result("modified-in-system"), ["not", forced]],
                        "discard-modified-in-system",
                        result("entity-not-changed"),
                        "discard-entity-not-changed",
                        "update"
                    ]
                ],
                ["if", ["eq", "_T.$operation", "update"], update]
            ]
        ]]);
        for (name, rule) in comparing().into_iter().chain(lay_over()) {
            own.insert(name.to_owned(), rule);
        }
        own.insert("template:payload".to_owned(), payload_rule());
        own.insert("template:trace".to_owned(), trace_rule());
        own.insert("default".to_owned(), default);
        Ok(dtl(own))
    }

    /// What became of it, for the dataset: what was done, what was answered, the key of what was
    /// inserted, and whether it went well.
    fn record(&self) -> Result<Json, Wrong> {
        let failed = |operation: Operation| {
            let name = operation.name();
            json!([
                "if",
                [
                    "and",
                    ["eq", "_S.$operation", name],
                    ["not", ["in", format!("_S.{STATUS}"), operation.done()]]
                ],
                ["add", "$error", format!("error-{name}")]
            ])
        };
        let key = match (self.natural, self.given.key("primary_key_insert")?) {
            (true, _) => self.key.value(&json!("_S.")),
            (false, Some(other)) => other.value(&json!(["first", format!("_S.{BODY}")])),
            (false, None) => self.key.value(&json!(["first", format!("_S.{BODY}")])),
        };
        let before = json!(["first", ["hops", {
            "datasets": [format!("{} st", self.dataset)],
            "where": [["eq", "_S._id", "st._id"]],
            "track-dependencies": false
        }]]);
        let default = json!([
            ["copy", self.kept(&["$reason", "$trace_*"])],
            ["add", "$last_operation", "_S.$operation"],
            [
                "add",
                ["concat", "$trace_", "_S.$operation"],
                ["apply", "template:trace", "_S."]
            ],
            failed(Operation::Lookup),
            failed(Operation::Insert),
            failed(Operation::Update),
            failed(Operation::Delete),
            [
                "if",
                [
                    "and",
                    ["eq", "_S.$operation", "insert"],
                    ["is-null", "_T.$error"]
                ],
                [
                    ["add", "$generated_id", key],
                    // Nothing is left to do but to tell: made again, it would be there twice.
                    [
                        "if",
                        [
                            "or",
                            ["is-null", "_T.$generated_id"],
                            ["any", ["is-null", "_."], "_T.$generated_id"]
                        ],
                        [
                            ["add", "$error", "error-insert"],
                            ["add", "$reason", "the answer has no whole primary key"],
                            ["remove", "$generated_id"]
                        ]
                    ]
                ]
            ],
            ["add", "$before", before],
            [
                "if",
                [
                    "and",
                    ["is-null", "_T.$generated_id"],
                    ["is-not-null", "_T.$before.$generated_id"]
                ],
                [
                    ["add", "$generated_id", "_T.$before.$generated_id"],
                    ["add", "$origin", "_T.$before.$origin"]
                ]
            ],
            ["add-if", "$previous_success", "_T.$before.$success"],
            [
                "if",
                ["is-not-null", "_T.$error"],
                ["add", "$success", false],
                [
                    "if",
                    ["matches", "discard-*", "_S.$operation"],
                    ["add-if", "$success", "_T.$previous_success"],
                    ["add", "$success", true]
                ]
            ],
            ["remove", "$before"],
            // What was deleted stays, so that what was done with it does.
            ["if", ["eq", "_S._deleted", true], ["add", "$deleted", true]],
            ["add", "_deleted", false]
        ]);
        Ok(dtl(rules(vec![
            ("default", default),
            ("template:trace", trace_rule()),
        ])))
    }
}

/// What is the entity's own: not what is the node's, the connector's, or about the entity.
fn payload_rule() -> Json {
    json!([["copy", "*", ["list", "_*", "$*", "sesam_*"]]])
}

/// What is worth keeping of a step.
fn trace_rule() -> Json {
    json!([["copy", "*", ["list", "_*", "$trace_*", SOURCE, "$reason"]]])
}

/// The rules that compare. Of each side those properties count that the entity is based on; null,
/// empty text, empty lists and empty dicts are as nothing, and one value is as a list of it.
fn comparing() -> Vec<(&'static str, Json)> {
    let side = |name: &str| {
        json!([
            "apply",
            "template:facets",
            ["dict", "names", "_S.names", "data", format!("_S.{name}")]
        ])
    };
    let clean = |value: Json| {
        json!([
            "filter",
            [
                "and",
                ["is-not-empty", "_."],
                ["neq", "_.", ""],
                ["neq", "_.", ["dict"]]
            ],
            [
                "map",
                [
                    "if",
                    ["is-dict", "_."],
                    ["apply", "template:clean", "_."],
                    "_."
                ],
                ["combine", value]
            ]
        ])
    };
    let counts = json!(["is-not-empty", ["last", "_."]]);
    vec![
        (
            "template:compare",
            json!([
                ["add", "$based_on_source", side("source")],
                ["add", "$based_on_lookup", side("lookup")],
                ["add", "$based_on_update", side("update")],
                [
                    "add",
                    "$result",
                    [
                        "case",
                        // Nothing says what the entity was when somebody last saw it.
                        ["is-null", "_S.source"],
                        "modified-in-system",
                        ["neq", "_T.$based_on_lookup", "_T.$based_on_source"],
                        "modified-in-system",
                        ["neq", "_T.$based_on_update", "_T.$based_on_source"],
                        "needs-update",
                        "entity-not-changed"
                    ]
                ]
            ]),
        ),
        (
            "template:facets",
            json!([[
                "merge",
                [
                    "dict",
                    [
                        "filter",
                        counts,
                        [
                            "map",
                            [
                                "list",
                                "_.",
                                clean(json!(["path", ["split", ".", "_."], "_S.data"]))
                            ],
                            [
                                "filter",
                                ["not", ["matches", "sesam_*", "_."]],
                                ["combine", "_S.names"]
                            ]
                        ]
                    ]
                ]
            ]]),
        ),
        (
            "template:clean",
            json!([[
                "merge",
                [
                    "dict",
                    [
                        "filter",
                        counts,
                        [
                            "map",
                            ["list", ["first", "_."], clean(json!(["last", "_."]))],
                            ["items", "_S."]
                        ]
                    ]
                ]
            ]]),
        ),
    ]
}

/// A step in which rules of the user rewrite what was answered, where there are any.
fn rewriting(
    given: &Given<'_>,
    property: &'static str,
    operations: &[&str],
) -> Result<Option<Json>, Wrong> {
    let mut own = given.rules(property)?;
    let mut steps = vec![json!(["copy", "*"])];
    for operation in operations {
        let rule = format!("rewrite_{operation}");
        if own.contains_key(&rule) {
            steps.push(json!([
                "if",
                ["eq", "_S.$operation", operation],
                ["merge", ["apply", rule, "_S."]]
            ]));
        }
    }
    if steps.len() == 1 {
        return Ok(None);
    }
    own.insert("default".to_owned(), Json::Array(steps));
    Ok(Some(dtl(own)))
}
