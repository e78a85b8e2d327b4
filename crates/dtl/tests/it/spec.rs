//! The cases in `tests/spec`: data that says what the language does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_dtl::functions::{self, EXPRESSIONS, TRANSFORMS};
use tahini_dtl::{Options, SourceKind, compile};
use tahini_entity::{Batch, Value};

use crate::support::{self, Datasets};

const FILES: &[(&str, &str)] = &[
    ("keys", include_str!("../spec/keys.json")),
    ("lists", include_str!("../spec/lists.json")),
    ("logic", include_str!("../spec/logic.json")),
    ("numbers", include_str!("../spec/numbers.json")),
    ("paths", include_str!("../spec/paths.json")),
    ("statements", include_str!("../spec/statements.json")),
    ("strings", include_str!("../spec/strings.json")),
    ("types", include_str!("../spec/types.json")),
];

fn cases() -> Vec<Json> {
    let files = FILES.iter().map(|(_, text)| support::parse(text));
    files
        .flat_map(|mut file| std::mem::take(file.as_array_mut().unwrap()))
        .collect()
}

/// What a case gives: the value or the emitted entities, or what is wrong.
fn outcome(case: &Json) -> Result<Json, String> {
    let mut rules = match case.get("beside") {
        Some(beside) => beside.clone(),
        None => json!({}),
    };
    let expression = case.get("expression");
    match (expression, &case["rules"]) {
        (Some(expression), _) => rules["default"] = json!([["add", "r", expression]]),
        (None, Json::Array(statements)) => rules["default"] = json!(statements),
        (None, whole) => rules = whole.clone(),
    }
    let options = Options {
        pipe: "pipe".to_owned(),
        source_kind: match case.get("previous") {
            Some(_) => SourceKind::Dataset,
            None => SourceKind::Other,
        },
        ..Options::default()
    };
    let program = compile(&rules, &options).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("; ")
    })?;

    let mut source = case.get("source").cloned().unwrap_or(json!({}));
    if expression.is_some() {
        source["_id"] = Json::from("1");
    }
    let mut source = support::entity(&source);
    let mut datasets = Datasets::from_json(&case["datasets"]);
    if let Some(previous) = case.get("previous").filter(|previous| !previous.is_null()) {
        datasets.previous = Some(Arc::new(support::entity(previous)));
        source.previous = Some(1);
    }
    let mut input = Batch::new();
    input.push_entity(&source).unwrap();
    let ran = support::run(&program, &input, &datasets, &RefCell::default());
    let (entities, _) = ran.map_err(|error| error.to_string())?;
    let text = if expression.is_some() {
        support::wire(entities[0].properties.get("r").unwrap_or(&Value::Null))
    } else {
        let texts: Vec<String> = entities.iter().map(support::text_of).collect();
        format!("[{}]", texts.join(","))
    };
    Ok(support::parse(&text))
}

/// JSON as one line.
fn text(json: &Json) -> String {
    json.to_string()
}

#[test]
fn every_case_holds() {
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases() {
        count += 1;
        let (name, found) = (&case["name"], outcome(&case));
        let right = match (case.get("error"), &found) {
            (Some(words), Err(found)) => found.contains(words.as_str().unwrap()),
            (Some(_), Ok(_)) | (None, Err(_)) => false,
            // As text, so that `1.0` is not `1` and the order of names counts.
            (None, Ok(found)) => text(found) == text(&case["expected"]),
        };
        if !right {
            let expected = case.get("error").unwrap_or(&case["expected"]);
            let found = found.map_or_else(|words| words, |json| json.to_string());
            failures.push(format!("{name} expected {expected}, found {found}"));
        }
    }
    println!("{count} cases, {} failed", failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(count >= 1_000, "expected 1,000 cases, found {count}");
}

#[test]
fn every_function_has_three_cases() {
    let (mut names, mut counts) = (BTreeSet::new(), BTreeMap::new());
    for case in cases() {
        let name = case["name"].as_str().unwrap().to_owned();
        let (function, _) = name.rsplit_once(' ').unwrap();
        let text = case.get("expression").unwrap_or(&case["rules"]).to_string();
        if text.contains(&format!("\"{function}\"")) {
            *counts.entry(function.to_owned()).or_insert(0) += 1;
        }
        assert!(names.insert(name.clone()), "{name} stands twice");
    }
    let chapters: &[&[functions::Chapter]] = &[EXPRESSIONS, TRANSFORMS];
    for function in chapters
        .iter()
        .flat_map(|chapters| chapters.iter())
        .flat_map(|chapter| chapter.functions)
    {
        let count = counts.get(function.name).copied().unwrap_or(0);
        assert!(count >= 3, "{} has {count} cases", function.name);
    }
}
