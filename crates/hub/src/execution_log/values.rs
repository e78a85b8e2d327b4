//! What stands in the entries of the log.

use jiff::Timestamp;
use tahini_entity::{Dict, Entity, Value};

use super::User;
use crate::Failure;

/// The entity back from `Entity::to_dict`, as it is embedded in an entry.
pub fn entity_of(dict: &Dict) -> Entity {
    let mut properties = dict.clone();
    let id = properties
        .remove("_id")
        .and_then(|id| id.as_str().map(Into::into));
    let deleted = matches!(properties.remove("_deleted"), Some(Value::Bool(true)));
    Entity {
        id,
        deleted,
        properties,
        ..Entity::default()
    }
}

/// What an entry tells of a failure.
pub(super) fn failure_properties(failure: &Failure) -> Vec<(&'static str, Value)> {
    vec![
        ("error_code", Value::Int(i64::from(failure.reached))),
        ("traceback", Value::string(failure.message.as_str())),
        ("original_error_message", Value::string(root_cause(failure))),
        ("original_traceback", Value::string(root_cause(failure))),
    ]
}

fn root_cause(failure: &Failure) -> &str {
    failure.original.as_deref().unwrap_or(&failure.message)
}

/// What was run: the parts that the build was not told are null.
pub(super) fn build() -> Value {
    let told = |fact: Option<&'static str>| fact.map_or(Value::Null, Value::string);
    let version = env!("CARGO_PKG_VERSION");
    let release = concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    let revision = told(option_env!("TAHINI_BUILD_REVISION"));
    let dirty = option_env!("TAHINI_BUILD_DIRTY").map(|text| Value::Bool(text == "true"));
    dict([
        ("build", told(option_env!("TAHINI_BUILD_NUMBER"))),
        ("date", told(option_env!("TAHINI_BUILD_DATE"))),
        ("dirty", dirty.unwrap_or_default()),
        ("git-revision", revision.clone()),
        ("hash", revision),
        ("release", Value::string(release)),
        ("teamcity-buildnumber", Value::Null),
        ("version", Value::string(version)),
    ])
}

/// A user as entries show it. Where the id is an address of mail, it is that, too.
pub(super) fn user_value(user: &User) -> Value {
    let id = user.user_id.as_str();
    let email = id.contains('@').then(|| Value::string(id));
    dict([
        ("email", email.unwrap_or_default()),
        ("remote_addr", Value::string(user.remote_addr.as_str())),
        ("user_id", Value::string(id)),
    ])
}

/// A dict of these properties.
pub(super) fn dict<'a>(properties: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let pairs = properties
        .into_iter()
        .map(|(name, value)| (name.into(), value));
    Value::Dict(pairs.collect())
}

/// A count as entries show it.
pub(super) fn count(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Seconds, to the microsecond.
pub(super) fn round6(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// A moment as the log prints it: `2026-01-02T03:04:05.678901Z`.
pub fn iso(moment: Timestamp) -> Value {
    Value::string(format!("{moment:.6}"))
}
