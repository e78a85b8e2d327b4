//! The decisions page: every row of its tables holds.

use tahini_dtl::{Namespaces, Options};

use crate::support;

const PAGE: &str = include_str!("../../../../docs/guide/dtl-decisions.md");

/// The rows of a section's table that have a case: the decision, and the three cells of code.
fn rows(section: &str) -> Vec<(String, [String; 3])> {
    let start = PAGE.find(&format!("\n## {section}\n")).unwrap();
    let text = &PAGE[start + 4..];
    let text = &text[..text.find("\n## ").unwrap()];
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let code = |cell: &str| cell.trim_matches('`').to_owned();
        if let [decision, a, b, c] = cells.as_slice()
            && a.starts_with('`')
        {
            rows.push(((*decision).to_owned(), [code(a), code(b), code(c)]));
        }
    }
    assert!(rows.len() > 5, "{section} has its table");
    rows
}

#[test]
fn expressions() {
    let easy = rows("Rules that are easy to get wrong");
    for (decision, [expression, source, expected]) in rows("Expressions").into_iter().chain(easy) {
        let found = support::value(&expression, &source);
        assert_eq!(
            support::parse(&found),
            support::parse(&expected),
            "{decision}"
        );
    }
}

fn statements(section: &str, options: &Options) {
    for (decision, [statements, source, expected]) in rows(section) {
        let found = support::outcome_of(&statements, &support::parse(&source), options);
        let found = support::parse(&format!("[{}]", found.join(",")));
        assert_eq!(found, support::parse(&expected), "{decision}");
    }
}

#[test]
fn statements_without_namespaces() {
    statements("Statements", &Options::default());
}

#[test]
fn statements_with_namespaces() {
    let namespaces = Namespaces {
        identity: Some("foo".to_owned()),
        property: Some("bar".to_owned()),
        expansions: Vec::new(),
    };
    let options = Options {
        namespaced_identifiers: true,
        namespaces,
        ..Options::default()
    };
    statements("Namespaces", &options);
}

#[test]
fn escapes_are_plain_without_namespaces() {
    let rules = r#"[["add", "::a", "_S.::b"], ["copy", "::b"]]"#;
    let found = support::outcome(rules, r#"{"::b": 1}"#, &Options::default());
    assert_eq!(found, [r#"{"_id":"1","::a":1,"::b":1}"#]);
}
