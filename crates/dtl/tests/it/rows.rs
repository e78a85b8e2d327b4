//! The rows of the function table: their examples hold, and the table is whole.

use serde_json::Value as Json;
use tahini_dtl::Options;
use tahini_dtl::functions::{self, EXPRESSIONS, Function, TRANSFORMS};

use crate::support;

fn rows(chapters: &'static [functions::Chapter]) -> Vec<&'static Function> {
    chapters
        .iter()
        .flat_map(|chapter| chapter.functions)
        .collect()
}

#[test]
fn examples_of_expressions_hold() {
    for function in rows(EXPRESSIONS) {
        for example in function.examples {
            let found = support::parse(&support::value(example.call, example.source));
            assert_eq!(found, support::parse(example.result), "{}", example.call);
        }
    }
}

#[test]
fn examples_of_transforms_hold() {
    for function in rows(TRANSFORMS) {
        for example in function.examples {
            let rules = format!("[[\"if\", true, {}]]", example.call);
            let found = support::outcome(&rules, example.source, &Options::default());
            let mut expected = support::parse(example.result);
            expected["_id"] = Json::from("1");
            let found: Vec<Json> = found.iter().map(|text| support::parse(text)).collect();
            assert_eq!(found, [expected], "{}", example.call);
        }
    }
}

/// 20 transform functions, and 149 expression functions of which 6 are still to come.
#[test]
fn the_table_is_whole() {
    assert_eq!(rows(TRANSFORMS).len(), 20);
    assert_eq!(rows(EXPRESSIONS).len(), 149 - 6);
    for chapter in TRANSFORMS.iter().chain(EXPRESSIONS) {
        let names: Vec<&str> = chapter
            .functions
            .iter()
            .map(|function| function.name)
            .collect();
        assert!(names.is_sorted(), "{}: {names:?}", chapter.title);
    }
}

/// A row that nothing else tests has at least its examples, except where a datum is needed that
/// no example can carry; those have tests of their own.
#[test]
fn rows_have_examples() {
    let without: Vec<&str> = rows(TRANSFORMS)
        .into_iter()
        .chain(rows(EXPRESSIONS))
        .filter(|function| function.examples.is_empty())
        .map(|function| function.name)
        .collect();
    assert_eq!(
        without,
        [
            "create",
            "fail!",
            "sleep!",
            "trip!",
            "now",
            "apply",
            "apply-hops",
            "hops",
            "lookup-entity",
            "completeness"
        ]
    );
}
