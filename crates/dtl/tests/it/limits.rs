//! Every limit is an error within a second, and never a crash.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_dtl::limits::{MAX_CREATED, MAX_HOPS_ROWS, MAX_LOOKUP_ROUNDS, MAX_STRING};
use tahini_dtl::{EvalClass, EvalError, Lookup, NoLookup, Options, compile};

use crate::support::{self, Datasets};

/// What one entity may take at most, the test around it included.
const MEMORY: u64 = 256 * 1024 * 1024;

/// The error of rules for one entity with these properties.
fn failure(rules: &str, source: &str) -> EvalError {
    failure_beside(rules, source, &NoLookup)
}

fn failure_beside(rules: &str, source: &str, lookup: &dyn Lookup) -> EvalError {
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    let mut entity = support::parse(source);
    entity["_id"] = "e1".into();
    let started = busy();
    let input = support::batch(&[entity]);
    let result = support::run(&program, &input, lookup, &RefCell::default());
    // Only where every test is a process of its own, the peak is this test's.
    if std::env::var_os("NEXTEST").is_some()
        && let Some(peak) = peak_memory()
    {
        assert!(peak <= MEMORY, "{} MB", peak >> 20);
    }
    // The promise is a second of an optimised build; a debug build is some ten times slower.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 4 });
    let took = busy().saturating_sub(started);
    assert!(took < limit, "{took:?}");
    result.expect_err("the limit is an error")
}

/// Checks what was taken since `started`: seconds in a debug build and in another one, and, where
/// every test is a process of its own, the peak of the memory.
#[track_caller]
pub fn within(started: Duration, debug: u64, optimised: u64, memory: u64) {
    let most = if cfg!(debug_assertions) {
        debug
    } else {
        optimised
    };
    let took = busy().saturating_sub(started);
    assert!(took < Duration::from_secs(most), "{took:?}");
    if std::env::var_os("NEXTEST").is_some()
        && let Some(peak) = peak_memory()
    {
        assert!(peak <= memory, "{} MB", peak >> 20);
    }
}

/// How long this thread was at work, other programs on the machine left out; Linux tells it.
pub fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// The most memory that the process had so far, in bytes; Linux tells it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
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
    hits(&expression, "bytes of texts");
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
    hits(&expression, "steps for one entity");
    hits(
        &format!("[\"json\", [\"list\", {expression}]]"),
        "bytes in one value",
    );
}

#[test]
fn numbers() {
    hits(r#"["^", 10, 1000000]"#, "digits in one integer");
    hits(r#"["^", 10, 10000000000000]"#, "digits in one integer");
    hits(r#"["^", 10, 100000]"#, "digits in one integer");
    hits(
        r#"["*", ["^", 10, 50000], ["^", 10, 50000]]"#,
        "digits in one integer",
    );
    hits(
        r#"["integer", ["ljust", 100001, "1", "1"]]"#,
        "digits in one integer",
    );
    hits(
        r#"["integer", ["ljust", 100001, "f", "0x"]]"#,
        "digits in one integer",
    );
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

/// What the rules may make is what a source may bring.
#[test]
fn the_longest_integer_is_read_again() {
    let made = support::value(r#"["^", 10, 99999]"#, "{}");
    assert_eq!(made.len(), 100_000);
    let entity = format!("{{\"_id\": \"1\", \"n\": {made}}}");
    let numbers = tahini_entity::json::Numbers::FLOATS;
    tahini_entity::json::parse_entity(entity.as_bytes(), numbers).unwrap();
}

/// The error of rules that take long: one evaluation, in one of the ways there are.
fn alone(rules: &str, source: &str) -> EvalError {
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    let mut entity = support::parse(source);
    entity["_id"] = "e1".into();
    let input = support::batch(&[entity]);
    let context = tahini_dtl::Context::new(jiff::Timestamp::UNIX_EPOCH, &NoLookup);
    let started = busy();
    let mut out = tahini_entity::Batch::new();
    let result = program.transform(&input, &context, &mut out, &mut Vec::new());
    let took = busy().saturating_sub(started);
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 5 });
    assert!(took < limit, "{took:?}");
    if std::env::var_os("NEXTEST").is_some()
        && let Some(peak) = peak_memory()
    {
        assert!(peak <= 2 * MEMORY, "{} MB", peak >> 20);
    }
    result.expect_err("the limit is an error")
}

/// What rules keep may nest no deeper than what can be written: dropping a value, comparing it or
/// following it would need a stack as deep as itself.
#[test]
fn depth_by_statements() {
    let inner = (0..60).fold(json!("_T.x"), |inner, _| json!(["list", inner]));
    for (first, again, last) in [
        (
            json!(["add", "x", 1]),
            json!(["add", "x", inner]),
            json!(["remove", "x"]),
        ),
        (
            json!(["add", "x", 1]),
            json!(["add", "y", ["dict", "a", "_T."]]),
            json!(["remove", "y"]),
        ),
        (
            json!(["add", "x", 1]),
            json!(["merge", ["dict", "x", ["list", "_T.x"]]]),
            json!(["remove", "x"]),
        ),
        (
            json!(["create-child", {"_id": "1"}]),
            json!(["add", "$children", ["list", "_T.$children"]]),
            json!(["remove", "$children"]),
        ),
    ] {
        let mut rules = vec![first];
        rules.extend((0..5_000).map(|_| again.clone()));
        rules.push(last);
        let error = failure(&json!({"default": rules}).to_string(), "{}");
        assert!(
            error.message.contains("levels of nested values"),
            "{again}: {error}"
        );
    }
}

/// A path of as many names as a list may have.
#[test]
fn long_paths() {
    for through in [json!({"a": 1}), json!([{"a": 1}]), json!(null)] {
        let names = json!(["map", ["string", "_."], ["range", 0, 50_000]]);
        let path = json!(["path", names, "_S.x"]).to_string();
        let found = support::value(&path, &json!({"x": through}).to_string());
        assert!(found == "null" || found == "[]", "{found}");
    }
    let path = format!("_S.x{}", ".a".repeat(100_000));
    assert_eq!(
        support::value(&json!(path).to_string(), r#"{"x": {"a": 1}}"#),
        "null"
    );
}

/// What an unqualified name reads in several namespaces is compared.
#[test]
fn properties_under_one_identifier() {
    let dict = json!(["dict", "a:x", ["range", 0, 1000], "b:x", ["range", 0, 1000]]);
    let often = |expr: Json| {
        json!([
            "add",
            "::r",
            ["count", ["map", expr, ["range", 0, 1_000_000]]]
        ])
    };
    let statements = [json!(["add", "::d", dict]), often(json!("_T.d.x"))];
    let options = Options {
        namespaced_identifiers: true,
        pipe: "p".to_owned(),
        ..Options::default()
    };
    let program = compile(&json!({"default": statements}), &options).unwrap();
    let input = support::batch(&[json!({"_id": "1"})]);
    let started = busy();
    let result = support::run(&program, &input, &NoLookup, &RefCell::default());
    let error = result.expect_err("the limit is an error");
    assert_eq!(error.class, EvalClass::Limit, "{error}");
    within(started, 60, 5, 2 * MEMORY);
}

/// Explaining notes what becomes of large values without writing them out.
#[test]
fn explanations() {
    let nested = (0..30).fold(json!(1), |inner, _| {
        json!(["first", ["map", ["list", "_.", "_."], ["list", inner]]])
    });
    let wide = json!(["map", ["string", "_."], ["range", 0, 20_000]]);
    let mut many = vec![json!(["add", wide, 1])];
    many.extend((0..8_000).map(|at| json!(["add", "z", at])));
    let mut doubled = vec![json!(["add", "x", "0123456789"])];
    doubled.extend((0..40).map(|_| json!(["add", "x", ["list", "_T.x", "_T.x"]])));
    for rules in [
        json!([["add", "x", nested], ["add", "x", ["list", "_T.x"]]]),
        json!(doubled),
        json!(many),
    ] {
        let program = tahini_dtl::compile_traced(&json!({"default": rules}), &Options::default());
        let input = support::batch(&[json!({"_id": "1"})]);
        let context = tahini_dtl::Context::new(jiff::Timestamp::UNIX_EPOCH, &NoLookup);
        let started = busy();
        let explained = program.unwrap().explain(&input, &context);
        let error = explained[0].error.as_ref().expect("the limit is an error");
        assert_eq!(error.class, EvalClass::Limit, "{error}");
        within(started, 60, 5, 2 * MEMORY);
    }
}

/// Names are looked for in a time that grows with the text alone, and parts of patterns too.
#[test]
fn names_and_patterns_in_long_texts() {
    let text = r#"["ljust", 1000000, "c", "c"]"#;
    let part = r#"["ljust", 300000, "c", "c"]"#;
    for expression in [
        format!(r#"["matches", ["concat", "*", {part}, "d*"], {text}]"#),
        format!(r#"["is-null", ["replace", ["concat", {part}, "d"], "", {text}]]"#),
        format!(r#"["is-null", ["strip", {text}, {text}]]"#),
    ] {
        let started = busy();
        assert_eq!(support::value(&expression, "{}"), "false", "{expression}");
        within(started, 30, 4, MEMORY);
    }
    let names = r#"["dict", ["map", ["list", ["concat", "c", ["string", "_."]], "y"], ["range", 0, 5000]]]"#;
    let replaced = support::value(
        &format!(r#"["length", ["replace", {names}, "xc17c4999y"]]"#),
        "{}",
    );
    assert_eq!(replaced, "4");
    hits(
        &format!(r#"["matches", ["concat", "*", {part}, "?d*"], {text}]"#),
        "steps for one entity",
    );
    hits(
        r#"["replace", ["dict", ["ljust", 2000000, "c", ""], "a", "b", "c"], "abc"]"#,
        "bytes of names to replace",
    );
    hits(
        r#"["replace", ["dict", ["map", ["list", ["string", "_."], "y"], ["range", 0, 10001]]], "abc"]"#,
        "names to replace",
    );
}

/// A comma takes less memory than the value after it.
#[test]
fn values_in_json_text() {
    hits(
        r#"["json-parse", ["concat", "[", ["ljust", 3000000, ",", ""], "0]"]]"#,
        "values in one JSON text",
    );
    hits(
        r#"["split", "", ["ljust", 30000000, "c", ""]]"#,
        "items in one list",
    );
}

/// Each value is small; there are many of them.
#[test]
fn many_small_values() {
    let list = format!("[\"list\"{}]", ", 1".repeat(500));
    let text = format!("[\"concat\", \"_.\"{}]", ", \"0123456789\"".repeat(90));
    let dict = r#"["dict", "a", 1, "b", 2, "c", 3]"#;
    for made in [
        list.as_str(),
        r#"["upper", "_S.t"]"#,
        text.as_str(),
        dict,
        "\"_S.t\"",
    ] {
        let rules =
            format!("[\"map\", {made}, [\"map\", [\"string\", \"_.\"], [\"range\", 0, 1000000]]]");
        let text = "0123456789".repeat(10);
        let rules = format!("{{\"default\": [[\"add\", \"r\", [\"count\", {rules}]]]}}");
        let error = alone(&rules, &format!("{{\"t\": \"{text}\"}}"));
        assert_eq!(error.class, EvalClass::Limit, "{made:.40}: {error}");
    }
}

/// A value that shares its parts is small until something looks at all of it, or keeps it.
#[test]
fn looking_through_shared_values() {
    let shared = (0..30).fold(json!({"a:b": 1}), |inner, _| {
        json!(["first", ["map", ["list", "_.", "_."], ["list", inner]]])
    });
    for look in [
        json!(["strip-ns", ["dict", "x", "_."]]),
        json!(["eq", "_.", "_."]),
        json!(["union", "_.", "_."]),
        json!(["json", ["list", "_."]]),
        json!(["apply", "keeps", ["list", ["list", "_."]]]),
        json!(["apply", "unites", ["list", ["list", "_."]]]),
    ] {
        let rules = json!({
            "default": [["add", "z", ["count", ["map", look, ["list", shared]]]]],
            "keeps": [["add", "x", "_S."]],
            "unites": [["add", "x", 1], ["merge-union", ["dict", "x", "_S."]]]
        });
        let error = alone(&rules.to_string(), "{}");
        assert_eq!(error.class, EvalClass::Limit, "{look}: {error}");
    }
    let mut doubled = vec![json!(["add", "x", 1])];
    doubled.extend((0..40).map(|_| json!(["add", "x", ["list", "_T.x", "_T.x"]])));
    let error = alone(&json!({"default": doubled}).to_string(), "{}");
    assert_eq!(error.class, EvalClass::Limit, "{error}");
}

/// Steps count by what they take: long texts and numbers are no single step.
#[test]
fn work_over_long_values() {
    let long = r#"["add", "x", ["ljust", 3000000, "c", "c"]]"#;
    for (before, each) in [
        (long, r#"["matches", "*ab*", "_T.x"]"#),
        (long, r#"["length", "_T.x"]"#),
        (long, r#"["eq", ["first", "_T.x"], "_T.x"]"#),
        (long, r#"["gt", "_T.x", "_."]"#),
        (
            r#"["add", "x", ["^", 10, 90000]]"#,
            r#"["%", "_T.x", ["+", "_.", 7]]"#,
        ),
        (
            r#"["add", "x", ["^", 10, 9000]]"#,
            r#"["/", 1, ["+", "_.", "_T.x"]]"#,
        ),
        (
            r#"["add", "x", ["range", 0, 100000]]"#,
            r#"["concat", "_T.x"]"#,
        ),
    ] {
        let rules = format!(
            "{{\"default\": [{before}, [\"add\", \"r\", [\"count\", [\"map\", {each}, \
             [\"range\", 0, 1000000]]]], [\"remove\", \"x\"]]}}"
        );
        let error = alone(&rules, "{}");
        assert_eq!(error.class, EvalClass::Limit, "{each}: {error}");
    }
}

/// An evaluation ends when nobody wants it any more, long before its limits.
#[test]
fn a_stop_ends_an_evaluation() {
    let rules =
        r#"{"default": [["add", "r", ["count", ["map", ["+", "_.", 1], ["range", 0, 1000000]]]]]}"#;
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    let input = support::batch(&[support::parse(r#"{"_id": "1"}"#)]);
    let asked = std::cell::Cell::new(0);
    let stopped = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let mut context = tahini_dtl::Context::new(jiff::Timestamp::UNIX_EPOCH, &NoLookup);
    context.stopped = Some(&stopped);
    let mut out = tahini_entity::Batch::new();
    let result = program.transform(&input, &context, &mut out, &mut Vec::new());
    assert_eq!(result.unwrap_err().class, EvalClass::Cancelled);
    assert_eq!(asked.get(), 4);
}

/// Many names take no time that grows with their square.
#[test]
fn names_of_large_dicts() {
    let program = compile(
        &support::parse(
            r#"{"default": [["add", "r", ["count", ["keys", ["group-by", "_.", ["string", "_."], ["range", 0, 100000]]]]],
               ["add", "s", ["count", ["keys", ["dict", ["map", ["list", ["string", "_."], 1], ["range", 0, 100000]]]]]]]}"#,
        ),
        &Options::default(),
    )
    .unwrap();
    let input = support::batch(&[support::parse(r#"{"_id": "1"}"#)]);
    let started = busy();
    let (out, _) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    let text = support::text_of(&out[0]);
    assert_eq!(text.matches("100000").count(), 2, "{text}");
    let took = busy().saturating_sub(started);
    assert!(took < Duration::from_secs(20), "{took:?}");
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

/// One string within its limit, in an entity so often that it is more than an entity may have.
#[test]
fn output() {
    let mut rules = vec![json!(["add", "p0", ["ljust", MAX_STRING - 1, "x", ""]])];
    rules.extend((1..4).map(|at| json!(["add", format!("p{at}"), "_T.p0"])));
    let error = failure(&json!({"default": rules}).to_string(), "{}");
    assert!(error.message.contains("bytes in one entity"), "{error}");
}

#[test]
fn created_entities() {
    const AT_ONCE: usize = 50_000;
    let all = json!([
        "map",
        ["dict", "_id", ["string", "_."]],
        ["range", 0, AT_ONCE]
    ]);
    let mut rules = vec![json!(["add", "all", all])];
    rules.extend((0..=MAX_CREATED / AT_ONCE).map(|_| json!(["create", "_T.all"])));
    let error = failure(&json!({"default": rules}).to_string(), "{}");
    assert_eq!(error.class, EvalClass::Limit);
    assert!(
        error.message.contains("entities created from one"),
        "{error}"
    );
}

/// Few entities that are each large, though they share what makes them so.
#[test]
fn created_bytes() {
    let rules = json!({"default": [
        ["add", "text", ["ljust", 100_000, "x", ""]],
        ["create", ["map", ["apply", "one", "_."], ["range", 0, 10_000]]]
    ], "one": [["add", "_id", ["string", "_S."]], ["add", "text", "_P._T.text"]]});
    let error = failure(&rules.to_string(), "{}");
    assert!(error.message.contains("bytes of texts"), "{error}");
}

#[test]
fn rows_of_hops() {
    const SIDE: usize = 1001;
    const { assert!(SIDE * SIDE > MAX_HOPS_ROWS) };
    let side = || {
        (0..SIDE)
            .map(|at| json!({"_id": at.to_string(), "k": 1}))
            .collect::<Vec<_>>()
    };
    let datasets = Datasets::from_json(&json!({"a": side(), "b": side()}));
    let hops = json!(["hops", {"datasets": ["a a", "b b"], "where": [
        ["eq", "_S.k", "a.k"], ["eq", "a.k", "b.k"]
    ]}]);
    let rules = json!({"default": [["add", "r", hops]]}).to_string();
    let error = failure_beside(&rules, r#"{"k": 1}"#, &datasets);
    assert!(error.message.contains("rows in one hops"), "{error}");
}

/// Each entity names the next one: what to look up is known only when the one before was found.
#[test]
fn rounds_of_lookups() {
    let chain: Vec<_> = (0..MAX_LOOKUP_ROUNDS + 2)
        .map(|at| json!({"_id": at.to_string(), "next": (at + 1).to_string()}))
        .collect();
    let datasets = Datasets::from_json(&json!({"d": chain}));
    let hops = json!(["hops", {"datasets": ["d x"], "where": ["eq", "_S.next", "x._id"],
        "recurse": true, "max_depth": null}]);
    let rules = json!({"default": [["add", "r", hops]]}).to_string();
    let error = failure_beside(&rules, r#"{"next": "0"}"#, &datasets);
    assert!(error.message.contains("rounds of lookups"), "{error}");
}
