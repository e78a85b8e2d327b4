//! A project's own tests: what its pipes give, compared with what its `expected` folder says.
//!
//! The rules of comparison are those of the reference's command-line client, so that a project's
//! tests mean the same to both.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value as Json;
use tahini_entity::json::{self, Fields};
use tahini_entity::{Batch, Offset};

use crate::hub::Hub;
use crate::pipe::Pipe;
use crate::project::TestSpec;
use crate::source::From;
use crate::stage::{self, Purpose, Stage};
use crate::{Cancel, Failure};

/// What came of one test.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The test's name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Why not: expected, found, and the difference.
    pub message: String,
}

/// Runs a test against a settled hub, until it is stopped. With `update` the expected file is
/// written instead.
pub fn check(spec: &TestSpec, hub: &Hub, update: bool, cancel: &Cancel) -> Checked {
    let test = Test {
        spec,
        cancel,
        blacklist: spec.blacklist.iter().map(|path| dotted(path)).collect(),
    };
    let outcome = test.found(hub).and_then(|found| match update {
        true => test.update(&found).map(|()| None),
        false => test.compare(&found),
    });
    Checked::of(spec, outcome)
}

impl Checked {
    /// What came of a test that found a difference, or none, or could not be run.
    pub fn of(spec: &TestSpec, outcome: Result<Option<String>, Failure>) -> Checked {
        let message = match outcome {
            Ok(difference) => difference.unwrap_or_default(),
            Err(failure) => failure.to_string(),
        };
        Checked {
            name: spec.name.clone(),
            passed: message.is_empty(),
            message,
        }
    }
}

/// Reads what the pipe of a test gives at a stage, from the place that the test names, until `take`
/// has enough. What a pipe gives is what is tested, so that all of its transforms run, as in a run.
///
/// # Errors
/// Those of [`stage::read`].
pub fn read(
    spec: &TestSpec,
    pipe: &Pipe,
    hub: &Hub,
    stage: Stage,
    cancel: &Cancel,
    take: impl FnMut(&Batch) -> bool,
) -> Result<(), Failure> {
    let since = spec.parameters.get("since");
    // As in an address, a number is one also in quotes.
    let since = since.and_then(|since| match since {
        Json::String(text) => Some(match text.parse() {
            Ok(number) => Offset::Int(number),
            Err(_) => Offset::Text(text.as_str().into()),
        }),
        number => number.as_i64().map(Offset::Int),
    });
    let wanted = (stage, Purpose::Output);
    stage::read(pipe, &hub.world, wanted, From::since(since), cancel, take)
}

/// What a test expects, as it stands in its file.
///
/// # Errors
/// Config, where there is no such file.
pub fn expected(spec: &TestSpec) -> Result<Vec<u8>, Failure> {
    std::fs::read(&spec.file).map_err(|error| {
        Failure::config(format!(
            "{}: {error}; write what is expected there, or run the tests with --update",
            spec.file.display()
        ))
    })
}

/// Writes what a test expects from now on.
///
/// # Errors
/// Config, where the file cannot be written.
pub fn write(spec: &TestSpec, text: &[u8]) -> Result<(), Failure> {
    std::fs::write(&spec.file, text)
        .map_err(|error| Failure::config(format!("{}: {error}", spec.file.display())))
}

struct Test<'a> {
    spec: &'a TestSpec,
    cancel: &'a Cancel,
    blacklist: Vec<Vec<String>>,
}

impl Test<'_> {
    fn found(&self, hub: &Hub) -> Result<Vec<Json>, Failure> {
        if !matches!(self.spec.endpoint.as_str(), "json" | "excel" | "entities") {
            return Err(Failure::config(format!(
                "test {:?}: expected the endpoint json, entities, excel, csv or xml, found {:?}",
                self.spec.name, self.spec.endpoint
            )));
        }
        let live = hub
            .pipe(&self.spec.pipe)
            .map_err(|refusal| Failure::config(refusal.to_string()))?;
        let pipe = live
            .usable()
            .map_err(|refusal| Failure::config(refusal.to_string()))?;
        let stage = self.spec.stage.as_deref().unwrap_or("sink");
        let stage = Stage::of(stage).ok_or_else(|| {
            Failure::config(format!(
                "test {:?}: expected the stage source, before-transforms, after-transforms or \
                 sink, found {stage:?}",
                self.spec.name
            ))
        })?;
        let mut found = Vec::new();
        let mut text = Vec::new();
        read(self.spec, pipe, hub, stage, self.cancel, |batch| {
            for record in batch.iter() {
                text.clear();
                json::write_record(record, Fields::ALL, &mut text);
                found.extend(serde_json::from_slice::<Json>(&text));
            }
            true
        })?;
        Ok(found)
    }

    fn expected(&self) -> Result<Vec<Json>, Failure> {
        let text = expected(self.spec)?;
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        serde_json::from_slice(text).map_err(|error| {
            Failure::config(format!(
                "{}: expected a JSON array of entities: {error}",
                self.spec.file.display()
            ))
        })
    }

    fn compare(&self, found: &[Json]) -> Result<Option<String>, Failure> {
        let expected = self.canonical(&self.expected()?, None);
        let ids: Vec<&Json> = expected
            .iter()
            .filter_map(|entity| entity.get("_id"))
            .collect();
        let found = self.canonical(found, Some(&ids));
        if expected == found {
            return Ok(None);
        }
        let difference = diff(&pretty(&expected), &pretty(&found));
        Ok(Some(format!(
            "pipe {:?}: expected {} entities, found {}\n{difference}",
            self.spec.pipe,
            expected.len(),
            found.len()
        )))
    }

    fn update(&self, found: &[Json]) -> Result<(), Failure> {
        // One that lives and is deleted later is expected, and then its deletion is, too.
        let living = found
            .iter()
            .filter(|entity| entity.get("_deleted") != Some(&Json::Bool(true)));
        let living: Vec<&Json> = living.filter_map(|entity| entity.get("_id")).collect();
        let text = pretty(&self.canonical(found, Some(&living))) + "\n";
        write(self.spec, text.as_bytes())
    }

    /// Entities as they are compared; deleted ones that nobody expects are left out.
    fn canonical(&self, entities: &[Json], expected_ids: Option<&[&Json]>) -> Vec<Json> {
        let mut out: Vec<Json> = entities
            .iter()
            .filter(|entity| {
                let deleted = entity.get("_deleted") == Some(&Json::Bool(true));
                let wanted = expected_ids
                    .is_none_or(|ids| entity.get("_id").is_some_and(|id| ids.contains(&id)));
                !(deleted && self.spec.ignore_deletes && !wanted)
            })
            .map(|entity| {
                let mut entity = clean(entity);
                self.blacklist
                    .iter()
                    .for_each(|path| forget(&mut entity, path));
                entity
            })
            .collect();
        out.sort_by(|a, b| self.order(a, b));
        out
    }

    fn order(&self, a: &Json, b: &Json) -> Ordering {
        let key = |entity: &Json| -> Vec<String> {
            let field = |name: &String| entity.get(name).map(Json::to_string).unwrap_or_default();
            self.spec.fields_to_sort_by.iter().map(field).collect()
        };
        key(a)
            .cmp(&key(b))
            .then_with(|| a.to_string().cmp(&b.to_string()))
    }
}

/// Drops reserved names at every depth, sorts names, and folds numbers as the client does.
fn clean(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let kept: BTreeMap<&String, Json> = map
                .iter()
                .filter(|(name, value)| {
                    let deleted = name.as_str() == "_deleted" && **value == Json::Bool(true);
                    !name.starts_with('_') || name.as_str() == "_id" || deleted
                })
                .map(|(name, value)| (name, clean(value)))
                .collect();
            Json::Object(
                kept.into_iter()
                    .map(|(name, value)| (name.clone(), value))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.iter().map(clean).collect()),
        Json::Number(number) => {
            let text = number.to_string();
            match text.strip_suffix(".0") {
                Some(whole) => serde_json::from_str(whole).unwrap_or_else(|_| value.clone()),
                None => value.clone(),
            }
        }
        other => other.clone(),
    }
}

/// A dotted path; a dot in a name is written `\.`, a list's elements are stepped over by `[]`.
fn dotted(path: &str) -> Vec<String> {
    path.replace("\\.", "\u{0}")
        .split('.')
        .map(|part| part.replace('\u{0}', "."))
        .collect()
}

fn forget(value: &mut Json, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match value {
        Json::Array(items) => {
            let rest = if first == "[]" { rest } else { path };
            items.iter_mut().for_each(|item| forget(item, rest));
        }
        Json::Object(map) => {
            let name = first.trim_end_matches("[]");
            if rest.is_empty() {
                map.remove(name);
            } else if let Some(inner) = map.get_mut(name) {
                forget(inner, rest);
            }
        }
        _ => {}
    }
}

fn pretty(entities: &[Json]) -> String {
    serde_json::to_string_pretty(entities).unwrap_or_default()
}

/// Lines that a difference shows.
const SHOWN: usize = 60;
/// Lines of a text that are compared for a common order.
const COMPARED: usize = 4_000;

/// The lines that differ, `-` expected and `+` found, with one line of context.
pub fn diff(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = (&a[start..], &b[start..]);
    let same_end = rest
        .0
        .iter()
        .rev()
        .zip(rest.1.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let a = &rest.0[..rest.0.len() - same_end];
    let b = &rest.1[..rest.1.len() - same_end];
    let (a_cut, b_cut) = (&a[..a.len().min(COMPARED)], &b[..b.len().min(COMPARED)]);
    let mut lines = vec![format!("@@ line {} @@", start + 1)];
    lines.extend(changes(a_cut, b_cut));
    let hidden = lines.len().saturating_sub(SHOWN);
    lines.truncate(SHOWN);
    if hidden > 0 {
        lines.push(format!("… {hidden} more lines"));
    }
    lines.join("\n")
}

/// The longest common subsequence decides which lines stay.
fn changes(a: &[&str], b: &[&str]) -> Vec<String> {
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            out.push(format!("- {}", a[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    out
}
