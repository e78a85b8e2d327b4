//! The value at every step of rules.

use tahini_dtl::{
    Context, Explained, MAX_STEPS_KEPT, NoLookup, Options, compile_traced, steps_json, steps_text,
};

use crate::support::{self, Datasets};

fn explain(rules: &str, source: &str) -> Vec<Explained> {
    let program = compile_traced(&support::parse(rules), &Options::default());
    let program = program.unwrap_or_else(|problems| panic!("{problems:?}"));
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    program.explain(&support::batch(&[support::parse(source)]), &context)
}

fn text(rules: &str, source: &str) -> String {
    let explained = explain(rules, source);
    steps_text(&explained[0].steps, &support::parse(rules))
}

#[test]
fn every_value_and_every_change_is_shown() {
    let rules = r#"{"default": [
        ["copy", "*", "age"],
        ["add", "shout", ["concat", ["upper", "_S.name"], "!"]],
        ["if", ["gt", "_S.age", 30], [["remove", "name"], ["add", "old", true]], ["add", "old", false]]
    ]}"#;
    let expected = r#"default[0]: ["copy", "*", "age"]
    name = "Ada"
default[1]: ["add", "shout", ["concat", ["upper", "_S.name"], "!"]]
    ["concat", ["upper", "_S.name"], "!"] → "ADA!"
        ["upper", "_S.name"] → "ADA"
            _S.name → "Ada"
    shout = "ADA!"
default[2]: ["if", ["gt", "_S.age", 30], [["remove", "name"], ["add", "old", true]], ["add", "old", false]]
    ["gt", "_S.age", 30] → true
        _S.age → 36
    default[2][2][0]: ["remove", "name"]
        name is gone
    default[2][2][1]: ["add", "old", true]
        old = true
"#;
    assert_eq!(
        text(rules, r#"{"_id": "1", "name": "Ada", "age": 36}"#),
        expected
    );
}

#[test]
fn applied_rules_and_functions_show_each_value() {
    let rules = r#"{"default": [["add", "r", ["apply", "in", "_S.lines"]],
                                ["add", "n", ["map", ["+", 1, "_."], ["range", 0, 8]]]],
                    "in": [["rename", "x", "y"], ["filter", ["gt", "_S.x", 1]]]}"#;
    let found = text(rules, r#"{"_id": "1", "lines": [{"x": 1}, {"x": 2}]}"#);
    let lines: Vec<&str> = found.lines().map(str::trim).collect();
    let place = |line: &str| lines.iter().position(|found| *found == line).expect(line);
    assert!(place("_S is {\"x\":1}") < place("stopped: filtered"));
    assert!(place("stopped: filtered") < place("_S is {\"x\":2}"));
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("[\"+\", 1, \"_.\"] →"))
            .count(),
        5
    );
    assert!(lines.contains(&"… and 3 times more"), "{found}");
    assert!(lines.contains(&"r = [{\"y\":2}]"), "{found}");
}

#[test]
fn statements_that_make_something_say_what() {
    let rules = r#"{"default": [
        ["add", "a", 1], ["default", "a", 2], ["add", "a", 1],
        ["create", ["list", ["dict", "_id", "x"], ["dict", "_id", "y"]]],
        ["create-child", ["dict", "_id", "c"]], ["create-child", ["dict", "_id", "d"]],
        ["create", null], ["remove", "a"]]}"#;
    let explained = explain(rules, r#"{"_id": "1"}"#);
    let json = steps_json(&explained[0].steps);
    let values: Vec<&serde_json::Value> = json.as_array().unwrap().iter().collect();
    let values: Vec<_> = values.iter().map(|step| step.get("value")).collect();
    let expected = support::parse(
        r#"[1, 1, 1, [{"_id": "x"}, {"_id": "y"}], [{"_id": "c"}], [{"_id": "d"}], []]"#,
    );
    let expected = expected.as_array().unwrap();
    assert_eq!(values[..7], expected.iter().map(Some).collect::<Vec<_>>());
    assert_eq!(values[7], None);
    let text = steps_text(&explained[0].steps, &support::parse(rules));
    for line in ["    → [{\"_id\":\"x\"},{\"_id\":\"y\"}]\n", "    → 1\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn what_stops_says_so_once() {
    let rules =
        r#"{"default": [["if", true, ["fail!", ["concat", "no ", "_S.x"]]], ["add", "a", 1]]}"#;
    let explained = explain(rules, r#"{"_id": "1", "x": "luck"}"#);
    let error = explained[0].error.as_ref().unwrap();
    assert_eq!(error.message, "no luck");
    assert_eq!(explained[0].outputs.len(), 0);
    let found = steps_text(&explained[0].steps, &support::parse(rules));
    assert_eq!(found.matches("stopped: no luck").count(), 1, "{found}");
    assert!(!found.contains("default[1]"), "{found}");
    let json = steps_json(&explained[0].steps);
    assert_eq!(json[0]["steps"][0]["path"], "$.rules.default[0][2]");
    assert_eq!(json[0]["steps"][0]["stopped"], "no luck");
}

/// An entity that misses something is evaluated again; only what counts is told.
#[test]
fn lookups_are_told_once() {
    let rules = r#"{"default": [["add", "r", ["hops", {"datasets": ["d x"],
        "where": ["eq", "_S.k", "x.k"], "return": "x.v"}]]]}"#;
    let datasets = Datasets::from_json(&support::parse(
        r#"{"d": [{"_id": "a", "k": 1, "v": "found"}]}"#,
    ));
    let program = compile_traced(&support::parse(rules), &Options::default()).unwrap();
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &datasets);
    let input = support::batch(&[support::parse(r#"{"_id": "1", "k": 1}"#)]);
    let explained = program.explain(&input, &context);
    assert!(explained[0].error.is_none());
    let json = steps_json(&explained[0].steps);
    assert_eq!(json.as_array().unwrap().len(), 1, "{json}");
    assert_eq!(
        json[0]["changes"][0]["value"],
        support::parse(r#"["found"]"#)
    );
}

#[test]
fn steps_and_large_values_have_limits() {
    let rules = r#"{"default": [["add", "n", ["map", ["+", 1, "_."], ["range", 0, 40000]]]]}"#;
    let explained = explain(rules, r#"{"_id": "1"}"#);
    // One statement, `map`, `range`, and for each item `+` and the path.
    assert_eq!(explained[0].omitted, 3 + 2 * 40_000 - MAX_STEPS_KEPT);
    assert!(explained[0].error.is_none());
    let json = steps_json(&explained[0].steps);
    assert_eq!(json[0]["changes"][0]["value_too_large"], "list");
    assert_eq!(json[0]["changes"][0].get("value"), None);
}

/// Noting steps takes stack, too: the limit of depth comes before its end.
#[test]
fn deep_recursion_is_explained_up_to_the_limit() {
    for again in [
        r#"[["add", "r", ["apply", "again", "_S."]]]"#,
        r#"[["if", true, ["case", true, [["add", "r", ["if", ["and", ["or", ["apply", "again", 1]]], 1]]]]]]"#,
        r#"[["add", "r", ["map", ["apply", "again", "_."], ["list", "_S."]]]]"#,
        r#"[["add", "r", ["group-by", ["sorted", ["apply", "again", "_."], ["list", 1, 2]], "_S."]]]"#,
    ] {
        let rules =
            format!(r#"{{"default": [["add", "r", ["apply", "again", 1]]], "again": {again}}}"#);
        let explained = explain(&rules, r#"{"_id": "1"}"#);
        let error = explained[0].error.as_ref().expect(again);
        assert!(error.message.contains("levels"), "{again}: {error}");
        let text = steps_text(&explained[0].steps, &support::parse(&rules));
        assert!(text.contains("stopped: "), "{text}");
    }
}

/// What explains itself does the same as what does not.
#[test]
fn explaining_changes_no_result() {
    for line in include_str!("../vectors/dtl.jsonl").lines() {
        let vector = support::parse(line);
        let options = Options {
            id_required: false,
            ..Options::default()
        };
        let (Ok(plain), Ok(traced)) = (
            tahini_dtl::compile(&vector["rules"], &options),
            compile_traced(&vector["rules"], &options),
        ) else {
            continue;
        };
        if !plain.is_deterministic() {
            continue;
        }
        let input = support::batch(&[vector["entity"].clone()]);
        let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
        let (mut out, mut origins) = (tahini_entity::Batch::new(), Vec::new());
        let plain = plain.transform(&input, &context, &mut out, &mut origins);
        let explained = traced.explain(&input, &context);
        let texts = |batch: &tahini_entity::Batch| -> Vec<String> {
            batch
                .iter()
                .map(|record| support::text_of(&record.to_entity()))
                .collect()
        };
        assert_eq!(
            texts(&explained[0].outputs),
            texts(&out),
            "{}",
            vector["id"]
        );
        let words = explained[0].error.as_ref().map(|error| &error.message);
        assert_eq!(
            words,
            plain.err().as_ref().map(|error| &error.message),
            "{}",
            vector["id"]
        );
    }
}
