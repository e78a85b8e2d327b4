//! What is wrong with rules, and what went wrong with an entity.

use std::fmt;

use tahini_entity::Str;

/// One step of the way to a place in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A property of an object.
    Name(String),
    /// An element of an array, from 0.
    Position(usize),
}

/// The way to a place in a JSON document, from the transform's root: `$.rules.default[2][1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct JsonPath(pub Vec<Segment>);

impl JsonPath {
    /// The path of the `rules` object itself.
    pub fn rules() -> JsonPath {
        JsonPath(vec![Segment::Name("rules".to_owned())])
    }

    /// This path and the steps of one that begins where it ends.
    pub fn join(&self, after: &JsonPath) -> JsonPath {
        JsonPath([self.0.as_slice(), &after.0].concat())
    }

    /// This path and one property more.
    pub fn name(&self, name: &str) -> JsonPath {
        self.with(Segment::Name(name.to_owned()))
    }

    /// This path and one element more.
    pub fn at(&self, position: usize) -> JsonPath {
        self.with(Segment::Position(position))
    }

    fn with(&self, segment: Segment) -> JsonPath {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        JsonPath(segments)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for segment in &self.0 {
            match segment {
                Segment::Position(at) => write!(f, "[{at}]")?,
                Segment::Name(name) if is_plain(name) => write!(f, ".{name}")?,
                Segment::Name(name) => write!(f, "[{}]", serde_json::Value::from(name.as_str()))?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// Whether a problem keeps the rules from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The rules are refused.
    Error,
    /// The rules run; the author should look at this.
    Warning,
}

/// One thing that is wrong with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, from the transform's root.
    pub path: JsonPath,
    /// Whether the rules can run all the same.
    pub severity: Severity,
    /// What was expected, what was found, then help.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why an evaluation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalClass {
    /// The rules said so with `fail!`.
    Fail,
    /// The rules said so with `trip!`: the sink's circuit breaker trips as well.
    Trip,
    /// The entity has no `_id` that is a string, or a created one has none.
    Id,
    /// A limit of the language was reached (depth, size, length).
    Limit,
    /// Another dataset could not be read; another run may succeed.
    Lookup,
    /// The run was stopped on request.
    Cancelled,
}

/// An entity that could not be transformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}{}", entity(.id), at(.path))]
pub struct EvalError {
    /// The entity's position in the batch, from 0.
    pub position: usize,
    /// The entity's `_id`, when it has one.
    pub id: Option<Str>,
    /// What was expected, what was found, then help.
    pub message: String,
    /// The expression or statement that stopped, when it is one of them.
    pub path: Option<JsonPath>,
    /// Why it stopped.
    pub class: EvalClass,
}

fn entity(id: &Option<Str>) -> String {
    match id {
        Some(id) => format!("entity {id:?}"),
        None => "an entity without _id".to_owned(),
    }
}

fn at(path: &Option<JsonPath>) -> String {
    path.as_ref()
        .map(|path| format!(" ({path})"))
        .unwrap_or_default()
}
