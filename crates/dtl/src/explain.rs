//! Steps as text for people and as JSON for programs.

use serde_json::{Map, Value as Json, json};
use tahini_entity::{Value, json as wire};

use crate::error::{JsonPath, Segment};
use crate::trace::{Shown, Step};

/// How many characters of a value or of a call a line shows.
const MOST_SHOWN: usize = 100;
/// How many evaluations of one expression in a row are shown.
const MOST_REPEATED: usize = 5;

/// Steps as lines for people, each level four spaces deeper. `rules` are the rules that the
/// program was made of.
pub fn steps_text(steps: &[Step], rules: &Json) -> String {
    let mut out = String::new();
    write_steps(steps, rules, 0, &mut out);
    out
}

fn write_steps(steps: &[Step], rules: &Json, level: usize, out: &mut String) {
    let mut repeated = 0;
    for (at, step) in steps.iter().enumerate() {
        let again = at > 0 && !step.is_statement && steps[at - 1].path == step.path;
        repeated = if again { repeated + 1 } else { 0 };
        if repeated < MOST_REPEATED {
            write_step(step, rules, level, out);
        }
        let is_last = steps.get(at + 1).is_none_or(|next| next.path != step.path);
        if is_last && repeated >= MOST_REPEATED {
            let more = repeated + 1 - MOST_REPEATED;
            line(level, &format!("… and {more} times more"), out);
        }
    }
}

fn write_step(step: &Step, rules: &Json, level: usize, out: &mut String) {
    let source = find(rules, &step.path).map_or_else(String::new, |json| match json {
        Json::String(text) if !step.is_statement => cut(text),
        other => cut(&compact(other)),
    });
    if step.is_statement {
        let place = step.path.to_string();
        let place = place.strip_prefix("$.rules.").unwrap_or(&place);
        line(level, &format!("{place}: {source}"), out);
        // What it changed says more.
        if let Some(value) = step.value.as_ref().filter(|_| step.changes.is_empty()) {
            line(level + 1, &format!("→ {}", shown_text(value)), out);
        }
    } else if let Some(value) = &step.value {
        line(level, &format!("{source} → {}", shown_text(value)), out);
    } else {
        line(level, &source, out);
    }
    let inside = level + 1;
    if let Some(source) = &step.source {
        line(inside, &format!("_S is {}", shown_text(source)), out);
    }
    write_steps(&step.steps, rules, inside, out);
    for change in &step.changes {
        let what = match &change.value {
            Some(value) => format!("{} = {}", change.name, shown_text(value)),
            None => format!("{} is gone", change.name),
        };
        line(inside, &what, out);
    }
    // What stopped a step stopped those around it, too: the innermost one says so.
    let said = step.steps.iter().any(|inner| inner.stopped.is_some());
    if let Some(words) = step.stopped.as_ref().filter(|_| !said) {
        line(inside, &format!("stopped: {words}"), out);
    }
}

fn line(level: usize, text: &str, out: &mut String) {
    for _ in 0..level {
        out.push_str("    ");
    }
    out.push_str(text);
    out.push('\n');
}

/// The part of the rules at a path that starts with `$.rules`.
fn find<'j>(rules: &'j Json, path: &JsonPath) -> Option<&'j Json> {
    let mut json = rules;
    for segment in path.0.iter().skip(1) {
        json = match segment {
            Segment::Name(name) => json.get(name)?,
            Segment::Position(at) => json.get(at)?,
        };
    }
    Some(json)
}

/// JSON on one line, a space after each comma and colon, as rules are written by hand.
fn compact(json: &Json) -> String {
    match json {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(compact).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(pairs) => {
            let pairs = pairs.iter();
            let pairs = pairs
                .map(|(name, item)| format!("{}: {}", Json::from(name.as_str()), compact(item)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn shown_text(shown: &Shown) -> String {
    match shown {
        Shown::Value(value) => cut(&text_of(value)),
        Shown::Large(kind) => format!("a large {kind}"),
    }
}

fn text_of(value: &Value) -> String {
    let mut out = Vec::new();
    wire::write_value(value, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Steps as JSON: objects with `path`, and where they apply `source`, `value`, `changes` (objects
/// with `name`, and `value` or `removed`), `stopped` and `steps`. Of a value that is too large to be
/// kept, `value_too_large` (or `source_too_large`) says the kind.
pub fn steps_json(steps: &[Step]) -> Json {
    steps.iter().map(step_json).collect()
}

fn step_json(step: &Step) -> Json {
    let mut out = Map::new();
    out.insert("path".to_owned(), step.path.to_string().into());
    if let Some(source) = &step.source {
        insert("source", source, &mut out);
    }
    if let Some(value) = &step.value {
        insert("value", value, &mut out);
    }
    if !step.changes.is_empty() {
        let changes = step.changes.iter().map(|change| {
            let mut out = Map::new();
            out.insert("name".to_owned(), change.name.as_str().into());
            match &change.value {
                Some(value) => insert("value", value, &mut out),
                None => drop(out.insert("removed".to_owned(), true.into())),
            }
            Json::Object(out)
        });
        out.insert("changes".to_owned(), changes.collect());
    }
    if let Some(words) = &step.stopped {
        out.insert("stopped".to_owned(), words.as_str().into());
    }
    if !step.steps.is_empty() {
        out.insert("steps".to_owned(), steps_json(&step.steps));
    }
    Json::Object(out)
}

fn insert(name: &str, shown: &Shown, out: &mut Map<String, Json>) {
    match shown {
        Shown::Value(value) => {
            let value = serde_json::from_str(&text_of(value)).unwrap_or_default();
            out.insert(name.to_owned(), value);
        }
        Shown::Large(kind) => {
            out.insert(format!("{name}_too_large"), json!(kind));
        }
    }
}
