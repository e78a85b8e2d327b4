//! One answer, and what is to be said of it whatever was asked.

use std::time::Duration;

use serde_json::{Map, Value as Json};
use tahini_entity::json::SplitError;

use super::report::{Report, Verdict};
use super::rows::{self, Protocol};

/// So much of a text stands in a message.
const EXCERPT: usize = 120;
/// Properties that only a failure has.
const FAILURE_NAMES: [&str; 7] = [
    "error",
    "errors",
    "exception",
    "traceback",
    "stack",
    "stacktrace",
    "fault",
];
/// Properties that a failure may have beside them.
const BESIDE: [&str; 8] = [
    "message",
    "detail",
    "details",
    "title",
    "status",
    "code",
    "type",
    "timestamp",
];
/// Words in the middle of JSON that come from a failure.
const FAILURE_WORDS: [&str; 5] = ["traceback", "exception", "error", "<html", "<!doctype"];

/// An answer, read to its end or as far as it went.
pub struct Answer {
    /// The request, as messages name it.
    pub asked: String,
    /// The HTTP status.
    pub status: u16,
    /// The declared type.
    pub content_type: Option<String>,
    /// Whether HTTP itself says where the end is.
    pub marked: bool,
    /// Whether the length was known before the first byte.
    pub has_length: bool,
    /// The body's bytes, as far as they came.
    pub bytes: u64,
    /// The array's entities, as far as they came.
    pub entities: u64,
    /// The time until the first entity was there.
    pub waited_first: Duration,
    /// The time spent waiting for what followed.
    pub waited_rest: Duration,
    /// The body's first bytes.
    pub beginning: Vec<u8>,
    /// How it ended.
    pub end: End,
}

/// How an answer ended.
#[derive(Debug)]
pub enum End {
    /// A whole JSON array.
    Whole,
    /// The body is no whole JSON array.
    Unfit(SplitError),
    /// The connection broke, or nothing more came.
    Broken(String),
    /// We had seen enough.
    HungUp,
}

impl Answer {
    /// Whether the status says that all went well.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body's beginning, in one line.
    pub fn excerpt(&self) -> String {
        excerpt(&self.beginning)
    }

    /// The words for a status that is not one of the 200s.
    pub fn refusal(&self) -> String {
        match self.beginning.is_empty() {
            true => format!("{} for {}", self.status, self.asked),
            false => format!("{} for {}: {}", self.status, self.asked, self.excerpt()),
        }
    }

    /// Notes what is wrong with an answer that should be a whole array of entities; whether it is
    /// one. Rows that are right are noted once, of the first answer.
    pub fn judge(&self, protocol: Protocol, report: &mut Report) -> bool {
        let mut note = |row, verdict, found: String| report.note(protocol, row, verdict, found);
        if !self.succeeded() {
            note(&rows::STATUS, Verdict::Wrong, self.refusal());
            return false;
        }
        note(
            &rows::STATUS,
            Verdict::Right,
            format!("{} for {}", self.status, self.asked),
        );
        let kind = self.content_type.as_deref().unwrap_or("none");
        let verdict = match kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "text/html" | "application/xhtml+xml" => Verdict::Wrong,
            plain if plain == "application/json" || plain.ends_with("+json") => Verdict::Right,
            _ => Verdict::Warning,
        };
        note(&rows::CONTENT_TYPE, verdict, kind.to_owned());
        if !self.marked && self.bytes > 0 {
            note(
                &rows::MARKED_END,
                Verdict::Warning,
                "an end by closing the connection alone".to_owned(),
            );
        }
        let (row, words) = match &self.end {
            End::Whole | End::HungUp => {
                let words = format!(
                    "{} entities, {}",
                    self.entities,
                    super::super::super::bytes_of(self.bytes)
                );
                note(&rows::ARRAY, Verdict::Right, words);
                return true;
            }
            End::Broken(why) => (
                &rows::WHOLE,
                format!(
                    "the end of {} after {} entities: {why}",
                    self.asked, self.entities
                ),
            ),
            End::Unfit(error) => match (error, self.failure_inside(error)) {
                (_, Some(words)) => (&rows::ERRORS_INSIDE, words),
                (SplitError::Truncated { .. }, _) => {
                    (&rows::WHOLE, format!("{}: {error}", self.asked))
                }
                _ if self.bytes == 0 => (&rows::ARRAY, format!("an empty body for {}", self.asked)),
                _ => (
                    &rows::ARRAY,
                    format!("{} for {}: {error}", self.excerpt(), self.asked),
                ),
            },
        };
        note(row, Verdict::Wrong, words);
        false
    }

    /// What the body says of a failure, when that is why it is no array.
    fn failure_inside(&self, error: &SplitError) -> Option<String> {
        let words = match error {
            SplitError::Root { .. } => {
                let object = serde_json::from_slice::<Map<String, Json>>(&self.beginning);
                object
                    .is_ok_and(|object| tells_of_failure(&object))
                    .then(|| self.excerpt())?
            }
            SplitError::Syntax { found, .. } => {
                let lower = found.to_lowercase();
                FAILURE_WORDS
                    .iter()
                    .any(|word| lower.contains(word))
                    .then(|| found.clone())?
            }
            _ => return None,
        };
        Some(format!(
            "status {} for {}, and in it {words}",
            self.status, self.asked
        ))
    }
}

/// Bytes as they may stand in a message.
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether an object is an error and nothing else.
pub fn tells_of_failure(object: &Map<String, Json>) -> bool {
    let named = |names: &[&str], name: &str| names.contains(&name.to_ascii_lowercase().as_str());
    let told = object
        .iter()
        .any(|(name, value)| named(&FAILURE_NAMES, name) && !value.is_null());
    let lone_message = object.len() == 1 && object.contains_key("message");
    let nothing_else = object
        .keys()
        .all(|name| named(&FAILURE_NAMES, name) || named(&BESIDE, name));
    (told && nothing_else) || lone_message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_told_from_an_entity() {
        for (object, expected) in [
            (json!({"error": "no token"}), true),
            (
                json!({"status": 500, "message": "x", "exception": "KeyError"}),
                true,
            ),
            (json!({"message": "the CRM answered 401"}), true),
            (json!({"orders": []}), false),
            (json!({"_id": "1", "error": "E42"}), false),
            (json!({"error": null, "code": 1}), false),
            (json!({"message": "hello", "code": 1}), false),
        ] {
            assert_eq!(
                tells_of_failure(object.as_object().unwrap()),
                expected,
                "{object}"
            );
        }
    }
}
