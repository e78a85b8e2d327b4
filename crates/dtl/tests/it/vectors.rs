//! The reference vectors, with their count.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tahini_dtl::{Namespaces, Options, SourceKind, add_namespaces, compile, remove_namespaces};
use tahini_entity::json::{self, Numbers};
use tahini_entity::{Batch, Dict, Value, order};

use crate::support::{self, Datasets};

/// What became of a vector.
enum Verdict {
    Passed,
    Failed(String),
    Skipped,
}

#[derive(Default, Debug)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

#[test]
fn dtl_vectors() {
    check_file(include_str!("../vectors/dtl.jsonl"));
}

#[test]
fn hops_vectors() {
    check_file(include_str!("../vectors/hops.jsonl"));
}

fn check_file(lines: &str) {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut failures = Vec::new();
    for line in lines.lines() {
        let vector = support::parse(line);
        let confidence = vector["confidence"].as_str().unwrap().to_owned();
        let count = counts.entry(confidence).or_default();
        let id = vector["id"].as_str().unwrap();
        match check(&vector) {
            Verdict::Passed => count.passed += 1,
            Verdict::Failed(why) => {
                count.failed += 1;
                failures.push(format!("{id}: {why}"));
            }
            Verdict::Skipped => {
                count.skipped += 1;
                println!(
                    "left out, since it needs what no vector carries ({}): {id}",
                    vector["requires"]
                );
            }
        }
    }
    println!("{counts:#?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(vector: &Json) -> Verdict {
    if vector.get("requires").is_some() {
        return Verdict::Skipped;
    }
    let wants_error = vector["error"] == Json::Bool(true);
    let may_fail = wants_error || vector["alt_error"] == Json::Bool(true);
    let options = options(vector);
    let program = match compile(&with_secrets(vector), &options) {
        Ok(program) => program,
        Err(problems) => {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let words = words.join("; ");
            return match words {
                _ if may_fail => Verdict::Passed,
                words => Verdict::Failed(words),
            };
        }
    };
    let pauses = RefCell::default();
    let datasets = datasets(vector);
    let result = support::run(&program, &input(vector, &options), &datasets, &pauses);
    let mut entities = match result {
        Ok((entities, _)) => entities,
        Err(_) if may_fail => return Verdict::Passed,
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    if wants_error {
        return Verdict::Failed("expected an error, found none".to_owned());
    }
    if vector["pipe"]["remove_namespaces"] == Json::Bool(true) {
        entities.iter_mut().for_each(remove_namespaces);
    }
    let paused: Duration = pauses.borrow().iter().sum();
    if paused < Duration::from_secs(vector["min_seconds"].as_u64().unwrap_or(0)) {
        return Verdict::Failed(format!("expected a pause, found {paused:?}"));
    }
    let found: Vec<Value> = entities.iter().map(support::as_value).collect();
    let compare = vector["compare"].as_str().unwrap_or("exact");
    let unordered = vector["unordered"] == Json::Bool(true);
    let alternatives = vector["expect_alt"].as_array().into_iter().flatten();
    for expected in std::iter::once(&vector["expect"]).chain(alternatives) {
        if emitted(expected, &found, compare, unordered) {
            return Verdict::Passed;
        }
    }
    let found: Vec<String> = found.iter().map(support::wire).collect();
    Verdict::Failed(format!(
        "expected {}, found {}",
        vector["expect"],
        found.join(", ")
    ))
}

fn options(vector: &Json) -> Options {
    let pipe = &vector["pipe"];
    let text = |json: &Json| json.as_str().map(str::to_owned);
    let expansions = pipe["namespace_mappings"].as_object().into_iter().flatten();
    Options {
        pipe: text(&pipe["id"]).unwrap_or_else(|| "pipe".to_owned()),
        namespaces: Namespaces {
            identity: text(&pipe["namespaces"]["identity"]),
            property: text(&pipe["namespaces"]["property"]),
            expansions: expansions
                .map(|(name, uri)| (name.clone(), text(uri).unwrap()))
                .collect(),
            symmetric: false,
        },
        namespaced_identifiers: pipe["namespaced_identifiers"] == Json::Bool(true),
        id_required: vector["transform"]["id_required"] != Json::Bool(false),
        source_kind: match vector["source_type"].as_str() {
            Some("dataset") => SourceKind::Dataset,
            _ => SourceKind::Other,
        },
        ..Options::default()
    }
}

fn with_secrets(vector: &Json) -> Json {
    let mut text = vector["rules"].to_string();
    for (name, secret) in vector["secrets"].as_object().into_iter().flatten() {
        text = text.replace(&format!("$SECRET({name})"), secret.as_str().unwrap());
    }
    support::parse(&text)
}

fn datasets(vector: &Json) -> Datasets {
    let mut datasets = Datasets::from_json(&vector["datasets"]);
    if let Some(previous) = vector
        .get("previous")
        .filter(|previous| !previous.is_null())
    {
        datasets.previous = Some(Arc::new(support::entity(previous)));
    }
    datasets
}

fn input(vector: &Json, options: &Options) -> Batch {
    let mut entity = support::entity(&vector["entity"]);
    if vector
        .get("previous")
        .is_some_and(|previous| !previous.is_null())
    {
        entity.previous = Some(1);
    }
    if vector["pipe"]["add_namespaces"] == Json::Bool(true) {
        add_namespaces(&mut entity, options);
    }
    let mut batch = Batch::new();
    batch.push_entity(&entity).unwrap();
    batch
}

fn emitted(expected: &Json, found: &[Value], compare: &str, unordered: bool) -> bool {
    let Some(expected) = expected.as_array() else {
        return false;
    };
    let mut left: Vec<&Value> = found.iter().collect();
    expected.len() == found.len()
        && expected.iter().all(|entity| {
            let is_it = |found: &&Value| same(entity, found, compare);
            let place = if unordered {
                left.iter().position(is_it)
            } else {
                left.first().filter(|f| is_it(f)).map(|_| 0)
            };
            place.map(|at| left.remove(at)).is_some()
        })
}

fn same(expected: &Json, found: &Value, compare: &str) -> bool {
    match (expected, found) {
        (Json::Object(pairs), found) if pairs.contains_key("__match__") => {
            looks_like(pairs["__match__"].as_str().unwrap(), found)
        }
        (Json::Object(pairs), Value::Dict(dict)) => same_dict(pairs, dict, compare),
        (Json::Array(items), Value::List(found) | Value::Tuple(found)) => {
            items.len() == found.len()
                && items
                    .iter()
                    .zip(found)
                    .all(|(item, found)| same(item, found, compare))
        }
        _ => {
            let expected = json::from_config(expected, Numbers::FLOATS);
            match (compare, number(&expected), number(found)) {
                ("approx", Some(a), Some(b)) => (a - b).abs() < 1e-6,
                ("numeric", ..) => order::eq(&expected, found),
                // The wire cannot tell a string that looks tagged from the tagged type.
                _ => support::wire(&expected) == support::wire(found),
            }
        }
    }
}

fn same_dict(expected: &serde_json::Map<String, Json>, found: &Dict, compare: &str) -> bool {
    expected.len() == found.len()
        && expected.iter().all(|(name, value)| {
            found
                .get(name)
                .is_some_and(|found| same(value, found, compare))
        })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

/// The vectors' expressions stand for types of values; `_` in one that is new here.
fn looks_like(expression: &str, found: &Value) -> bool {
    match (&expression[..3], found) {
        ("^~t", Value::Datetime(_)) => true,
        ("^~b", Value::Bytes(bytes)) => !bytes.is_empty(),
        ("^~u", Value::Uuid(uuid)) => uuid.get_version_num() == 4,
        ("^~t" | "^~b" | "^~u", _) => false,
        (other, _) => panic!("no reading of {other}"),
    }
}
