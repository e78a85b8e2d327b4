//! What is seen of the entities of an answer, in memory that does not grow with it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value as Json};

use super::answer::{excerpt, tells_of_failure};
use super::report::{Report, Verdict};
use super::rows::{self, Protocol};

/// So many entities are remembered, to be found again in later answers.
const REMEMBERED: usize = 100_000;

/// An `_updated`: what `since` is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Updated {
    /// A number.
    Int(i64),
    /// A time, mostly.
    Text(String),
}

impl Updated {
    fn of(value: &Json) -> Option<Updated> {
        match value {
            Json::String(text) => Some(Updated::Text(text.clone())),
            other => other.as_i64().map(Updated::Int),
        }
    }

    /// The order, when both are of one kind.
    pub fn compare(&self, other: &Updated) -> Option<Ordering> {
        match (self, other) {
            (Updated::Int(a), Updated::Int(b)) => Some(a.cmp(b)),
            (Updated::Text(a), Updated::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Updated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Updated::Int(number) => write!(f, "{number}"),
            Updated::Text(text) => f.write_str(text),
        }
    }
}

/// An entity that was seen: whose it is, and which version.
#[derive(Clone, Debug)]
pub struct Known {
    /// A hash of the `_id`, or of all of it where there is none.
    pub who: u64,
    /// Its `_updated`.
    pub updated: Updated,
}

/// What was seen of an answer's entities.
#[derive(Default)]
pub struct Seen {
    /// How many there were.
    pub count: u64,
    /// The first ones that have an `_updated`, in their order.
    pub known: Vec<Known>,
    /// Whose there were, as far as they are remembered.
    pub who: HashSet<u64>,
    /// The highest `_updated`.
    pub highest: Option<Updated>,
    /// The first pair that goes down.
    pub disorder: Option<(Updated, Updated)>,
    without_id: Vec<String>,
    odd_deleted: Option<String>,
    without_updated: u64,
    odd_updated: Option<String>,
    mixed: bool,
    broken: Option<String>,
    failure: Option<String>,
    last: Option<Updated>,
}

impl Seen {
    /// Looks at one entity.
    pub fn look(&mut self, text: &[u8]) {
        self.count += 1;
        let entity: Map<String, Json> = match serde_json::from_slice(text) {
            Ok(entity) => entity,
            Err(error) => {
                self.broken
                    .get_or_insert_with(|| format!("{error} in {}", excerpt(text)));
                return;
            }
        };
        let id = entity.get("_id");
        if !matches!(id, Some(Json::String(_))) {
            if id.is_none() && tells_of_failure(&entity) {
                self.failure.get_or_insert_with(|| excerpt(text));
            }
            self.without_id.truncate(1);
            self.without_id.push(excerpt(text));
        }
        if let Some(value) = entity
            .get("_deleted")
            .filter(|value| !value.is_boolean() && !value.is_null())
        {
            self.odd_deleted.get_or_insert_with(|| value.to_string());
        }
        let who = match id {
            Some(id) => hash(&id.to_string()),
            None => hash(&text),
        };
        if self.who.len() < REMEMBERED {
            self.who.insert(who);
        }
        match entity.get("_updated").filter(|value| !value.is_null()) {
            None => self.without_updated += 1,
            Some(value) => match Updated::of(value) {
                Some(updated) => self.note_updated(who, updated),
                None => {
                    self.odd_updated.get_or_insert_with(|| value.to_string());
                }
            },
        }
    }

    fn note_updated(&mut self, who: u64, updated: Updated) {
        if let Some(last) = &self.last {
            match last.compare(&updated) {
                None => self.mixed = true,
                Some(Ordering::Greater) if self.disorder.is_none() => {
                    self.disorder = Some((last.clone(), updated.clone()));
                }
                Some(_) => {}
            }
        }
        let higher = self
            .highest
            .as_ref()
            .is_none_or(|highest| highest.compare(&updated) == Some(Ordering::Less));
        if higher {
            self.highest = Some(updated.clone());
        }
        if self.known.len() < REMEMBERED {
            self.known.push(Known {
                who,
                updated: updated.clone(),
            });
        }
        self.last = Some(updated);
    }

    /// Whether every entity has an `_updated`, and all can be compared.
    pub fn can_continue(&self) -> bool {
        self.count > 0
            && self.without_updated == 0
            && self.odd_updated.is_none()
            && !self.mixed
            && self.broken.is_none()
    }

    /// Notes what is to be said of the entities by themselves.
    pub fn judge(&self, protocol: Protocol, report: &mut Report) {
        let mut note = |row, verdict, found: String| report.note(protocol, row, verdict, found);
        if let Some(words) = &self.broken {
            note(
                &rows::ARRAY,
                Verdict::Wrong,
                format!("an entity that is not JSON: {words}"),
            );
        }
        if let Some(words) = &self.failure {
            note(
                &rows::ERRORS_INSIDE,
                Verdict::Wrong,
                format!("status 200, and among the entities {words}"),
            );
        } else {
            note(
                &rows::ERRORS_INSIDE,
                Verdict::Right,
                "no error among the entities".to_owned(),
            );
        }
        match self.without_id.first() {
            Some(one) => note(
                &rows::ID,
                Verdict::Warning,
                format!("entities without, such as {one}"),
            ),
            None if self.count > 0 => {
                note(&rows::ID, Verdict::Right, "every entity has one".to_owned())
            }
            None => note(&rows::ID, Verdict::Skipped, "no entities came".to_owned()),
        }
        if let Some(value) = &self.odd_deleted {
            note(&rows::DELETED, Verdict::Wrong, value.clone());
        }
    }

    /// Notes what is to be said of `_updated`.
    pub fn judge_updated(&self, report: &mut Report) {
        let mut note =
            |verdict, found: String| report.note(Protocol::Pull, &rows::UPDATED, verdict, found);
        match (&self.odd_updated, &self.highest) {
            _ if self.count == 0 => note(Verdict::Skipped, "no entities came".to_owned()),
            (Some(value), _) => note(Verdict::Wrong, value.clone()),
            _ if self.mixed => note(Verdict::Wrong, "integers and strings, which have no order".to_owned()),
            (None, None) => note(
                Verdict::Warning,
                "none at all: the pipe must leave supports_since off, and reads everything every time".to_owned(),
            ),
            _ if self.without_updated > 0 => {
                note(Verdict::Wrong, format!("{} of {} entities without", self.without_updated, self.count));
            }
            (None, Some(highest)) => note(Verdict::Right, format!("every entity has one, the highest is {highest}")),
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
