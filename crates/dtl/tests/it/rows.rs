//! The rows of the function table: their examples hold, and the table is whole.

use std::cell::RefCell;

use serde_json::Value as Json;
use tahini_dtl::functions::{self, EXPRESSIONS, Example, Function, Gives, TRANSFORMS};
use tahini_dtl::{Options, compile};

use crate::support::{self, Datasets};

fn rows(chapters: &'static [functions::Chapter]) -> Vec<&'static Function> {
    chapters
        .iter()
        .flat_map(|chapter| chapter.functions)
        .collect()
}

/// The rules of an example: `statement` stands in the default rule.
fn rules_of(example: &Example, statement: &str) -> Json {
    let mut rules = support::parse(example.beside)["rules"].take();
    if rules.is_null() {
        rules = support::parse("{}");
    }
    rules["default"] = support::parse(&format!("[{statement}]"));
    rules
}

/// Runs an example; the emitted entities, or the words of the error.
fn run(example: &Example, statement: &str) -> Result<Vec<Json>, String> {
    let program = compile(&rules_of(example, statement), &Options::default());
    let program = program.unwrap_or_else(|problems| panic!("{}: {problems:?}", example.call));
    let datasets = Datasets::from_json(&support::parse(example.beside)["datasets"]);
    let mut source = support::parse(example.source);
    source["_id"] = Json::from("1");
    let input = support::batch(&[source]);
    let emitted = support::run(&program, &input, &datasets, &RefCell::default());
    let (entities, _) = emitted.map_err(|error| error.message)?;
    let texts = entities.iter().map(support::text_of);
    Ok(texts.map(|text| support::parse(&text)).collect())
}

#[test]
fn examples_of_expressions_hold() {
    for function in rows(EXPRESSIONS) {
        for example in function.examples {
            assert_eq!(example.gives, Gives::Value, "{}", example.call);
            let statement = format!("[\"add\", \"r\", {}]", example.call);
            let mut found = run(example, &statement).expect(example.call);
            assert_eq!(
                found[0]["r"].take(),
                support::parse(example.result),
                "{}",
                example.call
            );
        }
    }
}

#[test]
fn examples_of_transforms_hold() {
    for function in rows(TRANSFORMS) {
        for example in function.examples {
            let statement = format!("[\"if\", true, {}]", example.call);
            let found = run(example, &statement);
            let expected = match example.gives {
                Gives::Error => Err(example.result.to_owned()),
                Gives::Entities => Ok(support::parse(example.result).as_array().unwrap().clone()),
                Gives::Value => {
                    let mut expected = support::parse(example.result);
                    expected["_id"] = Json::from("1");
                    Ok(vec![expected])
                }
            };
            assert_eq!(found, expected, "{}", example.call);
        }
    }
}

/// 20 transform functions and 151 expression functions.
#[test]
fn the_table_is_whole() {
    assert_eq!(rows(TRANSFORMS).len(), 20);
    assert_eq!(rows(EXPRESSIONS).len(), 151);
    for chapter in TRANSFORMS.iter().chain(EXPRESSIONS) {
        let names: Vec<&str> = chapter
            .functions
            .iter()
            .map(|function| function.name)
            .collect();
        assert!(names.is_sorted(), "{}: {names:?}", chapter.title);
    }
}

#[test]
fn every_row_has_an_example_and_says_what_it_does() {
    for function in rows(TRANSFORMS).into_iter().chain(rows(EXPRESSIONS)) {
        let name = function.name;
        assert!(!function.examples.is_empty(), "{name}");
        assert!(function.doc.ends_with('.'), "{name}");
        let mentions = |example: &Example| example.call.contains(&format!("\"{name}\""));
        assert!(function.examples.iter().any(mentions), "{name}");
    }
}
