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
        symmetric: false,
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

/// The mapping and the examples of the documentation.
#[test]
fn urls_collapse_to_the_longest_prefix_and_expand_again() {
    let declared = [
        ("foo", "http://psi.test.no/"),
        ("sesam_male", "http://sesam.io/people/male/"),
        ("sesam_female", "http://sesam.io/people/female/"),
        ("sesam", "http://sesam.io/people/"),
    ];
    let options = |symmetric| Options {
        pipe: "p".to_owned(),
        namespaces: Namespaces {
            expansions: declared
                .map(|(name, uri)| (name.to_owned(), uri.to_owned()))
                .to_vec(),
            symmetric,
            ..Namespaces::default()
        },
        ..Options::default()
    };
    let gives = |call: &str, expected: &str, symmetric: bool| {
        let rules = format!(r#"[["add", "r", {call}]]"#);
        let found = support::outcome(&rules, r#"{"_id": "1"}"#, &options(symmetric));
        let expected = format!(r#"{{"_id":"1","r":{expected}}}"#);
        assert_eq!(found, [expected], "{call}");
    };
    let urls = [
        ("http://psi.test.no/bar", "foo:bar"),
        ("http://sesam.io/people/employees", "sesam:employees"),
        ("http://sesam.io/people/male/john", "sesam_male:john"),
        ("http://sesam.io/people/female/jane", "sesam_female:jane"),
        ("http://example.com/path", "http://example.com/path"),
        ("http://xmlns.com/foaf/0.1/name", "foaf:name"),
    ];
    for (url, ni) in urls {
        let (url, ni) = (format!("{url:?}"), format!("\"~:{ni}\""));
        gives(&format!(r#"["ni-collapse", {url}]"#), &ni, true);
        gives(&format!(r#"["ni-expand", {ni}]"#), &url, true);
        // Both ways alike: what `ni` made of a URI leads back to it.
        gives(&format!(r#"["ni", ["uri", {url}]]"#), &ni, true);
    }
    let both = r#"["list", "http://psi.test.no/bar", "http://psi.test.no/baz", "urn:x", 1]"#;
    gives(
        &format!(r#"["ni-collapse", {both}]"#),
        r#"["~:foo:bar","~:foo:baz"]"#,
        true,
    );
    gives(
        r#"["ni-expand", ["list", "~:foo:bar", "~:foo:baz"]]"#,
        r#"["http://psi.test.no/bar","http://psi.test.no/baz"]"#,
        true,
    );
    gives(
        r#"["ni-expand", "~:unknown:path"]"#,
        r#""unknown:path""#,
        true,
    );
    // Without it a prefix that nobody declared gets a namespace of the pipe.
    gives(
        r#"["ni", ["uri", "http://example.com/path"]]"#,
        r#""~:p-1:path""#,
        false,
    );
    // One that is declared otherwise is not built in any more.
    let mut own = options(true);
    own.namespaces.expansions = vec![("_".to_owned(), "http://own.example/".to_owned())];
    let rules = r#"[["add", "r", ["ni", ["uri", ["list", "http://own.example/a", "http://example.org/b"]]]]]"#;
    let found = support::outcome(rules, r#"{"_id": "1"}"#, &own);
    assert_eq!(
        found,
        [r#"{"_id":"1","r":["~:_:a","~:http://example.org/b"]}"#]
    );
    // Of several that stand for one prefix the last one counts, and all of them lead back.
    let several = ["one", "two", "three"].map(|name| (name, "http://own.example/"));
    own.namespaces.expansions = several
        .map(|(name, uri)| (name.to_owned(), uri.to_owned()))
        .to_vec();
    let rules = r#"[
        ["add", "r", ["ni", ["uri", "http://own.example/a"]]],
        ["add", "c", ["ni-collapse", "http://own.example/a"]],
        ["add", "e", ["ni-expand", ["list", "~:one:a", "~:three:a"]]]
    ]"#;
    let found = support::outcome(rules, r#"{"_id": "1"}"#, &own);
    assert_eq!(
        found,
        [
            r#"{"_id":"1","r":"~:three:a","c":"~:three:a","e":["http://own.example/a","http://own.example/a"]}"#
        ]
    );
}
