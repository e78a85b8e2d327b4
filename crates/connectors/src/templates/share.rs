//! `transform-share-rest`: brings what a system holds to what an entity says, through insert,
//! update and delete, and keeps what became of it.
//!
//! ```text
//! decide ─▶ prepare ─▶ (lookup) ─▶ compare ─▶ (update | insert | delete) ─▶ record
//! ```
//! What is to be done stands in `$operation`; the requests are those of the entities that ask for
//! them. An entity whose `$operation` begins with `discard-` makes none.

use serde_json::{Map, Value as Json, json};

use super::parts::{
    BODY, Given, Key, LAY_OVER, Request, Wrong, dtl, filled, list_of, read, rules, shared,
};

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
}

impl Share<'_> {
    /// A step of the way, with what belongs in its places.
    fn step(&self, name: &str, values: &[(&str, Json)]) -> Json {
        let mut names = self.key.names();
        names.extend([SOURCE, "$origin", "$replaced"]);
        let mut all = vec![
            ("@kept", list_of(&names)),
            ("@dataset", json!(format!("{} st", self.dataset))),
            ("@property", json!(self.payload)),
        ];
        all.extend(values.iter().cloned());
        let steps = read(include_str!("share.json"));
        steps
            .get(name)
            .map(|step| filled(step, &all))
            .unwrap_or_default()
    }

    /// What is to be done with the entity, and the entity itself in `$source`.
    fn decide(&self) -> Result<Json, Wrong> {
        let delete = match self.given.flag("enable_deletes", true)? {
            true => "delete",
            false => "discard-deletes-not-enabled",
        };
        // A natural key is there before the system knows the entity: what it is based on tells.
        let known = match self.natural {
            true => json!(["is-not-null", "_S.$based_on"]),
            false => json!(true),
        };
        let values = [
            ("@whole", self.key.is_whole(&json!("_S."))),
            ("@delete", json!(delete)),
            ("@known", known),
        ];
        Ok(dtl(rules(vec![("default", self.step("decide", &values))])))
    }

    /// Leaves the properties of the entity to `$source`, and makes the payload of an insert.
    fn prepare(&self) -> Result<Json, Wrong> {
        let mut own = self.given.rules("rewrite_rules_payload")?;
        let payload = self.payload_of(&own, "rewrite_insert_payload");
        let mut steps = self.step("prepare", &[("@payload", payload)]);
        for operation in [Operation::Lookup, Operation::Insert, Operation::Delete] {
            self.name(operation, "_S.$operation", &mut steps)?;
        }
        own.extend(shared(&["template:payload"]));
        own.insert("default".to_owned(), steps);
        Ok(dtl(own))
    }

    /// An operation of the usual name need not be there unless it is used: the entity names it.
    fn name(&self, operation: Operation, of: &str, steps: &mut Json) -> Result<(), Wrong> {
        let [name, ..] = operation.properties();
        if let (None, Json::Array(steps)) = (self.given.text(name)?, steps) {
            let name = operation.name();
            steps.push(json!(["if", ["eq", of, name], ["add", "operation", name]]));
        }
        Ok(())
    }

    /// What is sent: what a rule of the user makes, or else `$payload`, or else the properties of
    /// the entity that are its own.
    fn payload_of(&self, own: &Map<String, Json>, rule: &str) -> Json {
        if own.contains_key(rule) {
            return json!(["path", "$payload", ["apply", rule, "_S."]]);
        }
        let own = json!(["apply", "template:payload", "_S.$source"]);
        let given = "_S.$source.$payload";
        json!(["if", ["is-not-null", given], given, own])
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
        let found = |names: [&str; 2]| {
            let body = format!("_S.{BODY}");
            match names.iter().find(|name| user.contains_key(**name)) {
                Some(name) => json!(["first", ["apply", name, body]]),
                None => json!(["first", body]),
            }
        };
        let mut payload = self.payload_of(&own, "rewrite_update_payload");
        if self.given.flag("client_side_patching", false)? {
            let base = found(["lookup_rewrite_update", "lookup_rewrite"]);
            let both = json!(["dict", "base", base, "over", payload]);
            payload = json!(["apply", "template:lay-over", both]);
            let after = "rewrite_update_payload_after_patch";
            if own.contains_key(after) {
                let patched = json!(["dict", "_payload", payload]);
                payload = json!(["path", "$payload", ["apply", after, patched]]);
            }
        }
        let found = found(["lookup_rewrite_based_on", "lookup_rewrite"]);
        let values = [("@found", found), ("@payload", payload)];
        let mut steps = self.step("compare", &values);
        self.name(Operation::Update, "_T.$operation", &mut steps)?;
        own.extend(shared(COMPARING));
        own.extend(shared(LAY_OVER));
        own.insert("default".to_owned(), steps);
        Ok(dtl(own))
    }

    /// What became of it, for the dataset: what was done, what was answered, the key of what was
    /// inserted, and whether it went well. What was deleted stays, so that what is known of it does.
    fn record(&self) -> Result<Json, Wrong> {
        let answer = json!(["first", format!("_S.{BODY}")]);
        let key = match (self.natural, self.given.key("primary_key_insert")?) {
            (true, _) => self.key.value(&json!("_S.")),
            (false, Some(other)) => other.value(&answer),
            (false, None) => self.key.value(&answer),
        };
        let mut own = shared(&["template:trace"]);
        own.insert("default".to_owned(), self.step("record", &[("@key", key)]));
        Ok(dtl(own))
    }
}

/// The rules that compare. Of each side those properties count that the entity is based on; null,
/// empty text, empty lists and empty dicts are as nothing, and one value is as a list of it. Where
/// nothing says what the entity was when somebody last saw it, it counts as modified.
const COMPARING: &[&str] = &[
    "template:clean",
    "template:compare",
    "template:facets",
    "template:payload",
    "template:trace",
    "template:values",
];

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
