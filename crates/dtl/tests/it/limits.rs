//! Every limit is an error within a second, and never a crash.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use tahini_dtl::{EvalClass, EvalError, NoLookup, Options, compile};

use crate::support;

/// The error of rules for one entity with these properties.
fn failure(rules: &str, source: &str) -> EvalError {
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    let mut entity = support::parse(source);
    entity["_id"] = "e1".into();
    let started = Instant::now();
    let result = support::run(
        &program,
        &support::batch(&[entity]),
        &NoLookup,
        &RefCell::default(),
    );
    // The promise is a second of an optimised build with a core of its own; a debug build is some
    // ten times slower, and other tests run beside this one.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 4 });
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    result.expect_err("the limit is an error")
}

#[track_caller]
fn hits(expression: &str, words: &str) {
    let error = failure(
        &format!("{{\"default\": [[\"add\", \"r\", {expression}]]}}"),
        "{}",
    );
    assert_eq!(error.class, EvalClass::Limit, "{error}");
    assert!(error.message.contains(words), "{error}");
    assert_eq!(error.position, 0);
    assert_eq!(error.id.as_deref(), Some("e1"));
}

#[test]
fn strings() {
    hits(
        r#"["ljust", 1000000000000, "x", ""]"#,
        "bytes in one string",
    );
    hits(
        r#"["replace", "x", ["ljust", 100000, "y", ""], ["ljust", 100000, "x", ""]]"#,
        "bytes in one string",
    );
    hits(
        r#"["map", ["ljust", 1000000, "x", ["string", "_."]], ["range", 0, 1000]]"#,
        "bytes of texts",
    );
    hits(
        r#"["ljust", 1000000, "x", ["map", ["string", "_."], ["range", 0, 1000]]]"#,
        "bytes of texts",
    );
}

#[test]
fn strings_that_double() {
    let mut expression = r#""_S._id""#.to_owned();
    for _ in 0..40 {
        expression = format!("[\"first\", [\"map\", [\"concat\", \"_.\", \"_.\"], {expression}]]");
    }
    hits(&expression, "bytes in one string");
}

#[test]
fn lists() {
    hits(r#"["range", 0, 1000000000000]"#, "items in one list");
    hits(
        r#"["tuples", ["range", 0, 2000], ["range", 0, 2000]]"#,
        "items in one list",
    );
    hits(
        r#"["map", ["range", 0, 10000], ["range", 0, 10000]]"#,
        "bytes of texts and lists",
    );
}

#[test]
fn lists_that_double() {
    let mut expression = r#"["list", 1]"#.to_owned();
    for _ in 0..40 {
        expression = format!(
            "[\"first\", [\"map\", [\"combine\", \"_.\", \"_.\"], [\"list\", {expression}]]]"
        );
    }
    hits(&expression, "items in one list");
}

#[test]
fn values_that_share_their_parts() {
    let mut expression = r#"["list", "0123456789"]"#.to_owned();
    for _ in 0..40 {
        expression =
            format!("[\"first\", [\"map\", [\"list\", \"_.\", \"_.\"], [\"list\", {expression}]]]");
    }
    hits(&expression, "bytes in one value");
    hits(
        &format!("[\"json\", [\"list\", {expression}]]"),
        "bytes in one value",
    );
}

#[test]
fn numbers() {
    hits(r#"["^", 10, 1000000]"#, "bits in one integer");
    hits(r#"["^", 10, 10000000000000]"#, "bits in one integer");
    hits(
        r#"["^", ["decimal", "1.1"], 100000]"#,
        "digits in one decimal",
    );
    hits(r#"["round", 100000000, 1.5]"#, "digits in one decimal");
    let far = r#"["+", "_S.a", "_S.b"]"#;
    let rules = format!("{{\"default\": [[\"add\", \"r\", {far}]]}}");
    let error = failure(&rules, r#"{"a": "~f1e90000", "b": "~f1e-90000"}"#);
    assert_eq!(error.class, EvalClass::Limit, "{error}");
}

#[test]
fn recursion() {
    let rules = r#"{"default": [["add", "r", ["apply", "again", "_S."]]],
        "again": [["add", "r", ["apply", "again", "_S."]]]}"#;
    let error = failure(rules, "{}");
    assert!(
        error
            .message
            .contains("levels of expressions and applied rules"),
        "{error}"
    );
    assert_eq!(error.path.unwrap().to_string(), "$.rules.again[0]");
}

#[test]
fn steps() {
    let rules = r#"{"default": [["add", "r", ["apply", "again", "_S."]]],
        "again": [["add", "r", ["list", ["apply", "again", 1], ["apply", "again", 2]]],
                  ["filter", false]]}"#;
    let error = failure(rules, "{}");
    assert!(error.message.contains("levels"), "{error}");
    hits(
        r#"["count", ["filter", ["any", ["gt", "_.", 5000], ["range", 0, 5000]], ["range", 0, 5000]]]"#,
        "steps for one entity",
    );
}

#[test]
fn depth_of_results() {
    let rules = r#"{"default": [["add", "r", ["apply", "in", 40]]],
        "in": [["if", ["gt", "_S.", 0], ["add", "x", ["list", ["list", ["apply", "in", ["-", "_S.", 1]]]]]]]}"#;
    let error = failure(rules, "{}");
    assert_eq!(error.class, EvalClass::Limit, "{error}");
}

#[test]
fn deep_recursion_within_the_limit_works() {
    let rules = r#"{"default": [["add", "r", ["apply", "in", 60]]],
        "in": [["if", ["gt", "_S.", 0], ["add", "x", ["apply", "in", ["-", "_S.", 1]]]]]}"#;
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    let input = support::batch(&[support::parse(r#"{"_id": "1"}"#)]);
    let (out, _) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    assert_eq!(support::text_of(&out[0]).matches("\"x\"").count(), 60);
}
