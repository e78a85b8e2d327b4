//! The tables of `docs/guide/values.md`, row by row.

use tahini_entity::json::{self, Numbers, Parser};
use tahini_entity::{Batch, Value};

use crate::written;

const PAGE: &str = include_str!("../../../../docs/guide/values.md");

/// The rows of the table under a heading that starts with `heading`, each as its cells.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE
        .split_once(&format!("\n## {heading}"))
        .expect("the page has this heading");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// A cell's words and the code behind them.
fn cell(text: &str) -> (&str, &str) {
    let (words, code) = text.split_once('`').expect("the cell has code");
    (
        words.trim(),
        code.strip_suffix('`').expect("the code is closed"),
    )
}

/// Reads `text` in every way that there is and checks that each gives `expected`.
fn check(text: &str, numbers: Numbers, expected: &str) {
    let (kind, wire) = cell(expected);
    let value = json::parse_value(text.as_bytes(), numbers).unwrap();
    assert_eq!(
        (value.kind(), written(&value).as_str()),
        (kind, wire),
        "{text} with {numbers:?}"
    );

    let tree: serde_json::Value = serde_json::from_str(text).unwrap();
    let value = Value::from_config(&tree, numbers);
    assert_eq!(
        (value.kind(), written(&value).as_str()),
        (kind, wire),
        "{text} in a configuration"
    );

    let mut batch = Batch::new();
    let entity = format!("{{\"a\":{text}}}");
    Parser::new(numbers)
        .push_json(&mut batch, entity.as_bytes())
        .unwrap();
    let value = batch.get(0).value("a").unwrap();
    assert_eq!(
        (value.kind(), written(&value).as_str()),
        (kind, wire),
        "{text} in an entity"
    );
    let mut out = Vec::new();
    json::write_record(batch.get(0), json::Fields::NONE, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"a\":{wire}}}"));

    // What is written is read again as the same, whatever the source does with floats.
    if kind != "float" && kind != "list" && kind != "dict" {
        for numbers in [Numbers::FLOATS, Numbers::HTTP_ENDPOINT] {
            let again = json::parse_value(wire.as_bytes(), numbers).unwrap();
            assert_eq!((again.kind(), written(&again).as_str()), (kind, wire));
        }
    }
}

#[test]
fn json_becomes_what_the_page_says() {
    let rows = table("What JSON becomes");
    assert!(rows.len() >= 40, "the table has its rows");
    for row in rows {
        let [text, others, endpoint] = row[..] else {
            panic!("three cells, found {row:?}")
        };
        check(cell(text).1, Numbers::FLOATS, others);
        check(cell(text).1, Numbers::HTTP_ENDPOINT, endpoint);
    }
}

#[test]
fn strings_that_only_look_tagged_stay_strings() {
    let rows = table("Strings that only look tagged");
    assert!(rows.len() >= 20, "the table has its rows");
    for row in rows {
        let [text, expected] = row[..] else {
            panic!("two cells, found {row:?}")
        };
        for numbers in [Numbers::FLOATS, Numbers::HTTP_ENDPOINT] {
            check(cell(text).1, numbers, expected);
        }
    }
}

#[test]
fn each_option_works_without_the_other() {
    let with = |float_as_decimal, float_as_int, text: &str| {
        let numbers = Numbers {
            float_as_decimal,
            float_as_int,
        };
        written(&json::parse_value(text.as_bytes(), numbers).unwrap())
    };
    assert_eq!(
        with(true, false, "[1.0,1.50,1e3,1]"),
        r#"["~f1.0","~f1.50","~f1E+3",1]"#
    );
    assert_eq!(with(false, true, "[1.0,1.50,1e3,1]"), "[1,1.5,1000.0,1]");
}
