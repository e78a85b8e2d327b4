//! What is known about rules without running them.

use std::cell::RefCell;

use tahini_dtl::{NoLookup, Options, Program, SourceKind, TriggerOn, Why, compile};

use crate::support;

fn program(rules: &str, options: &Options) -> Program {
    compile(&support::parse(rules), options).unwrap_or_else(|p| panic!("{rules}: {p:?}"))
}

#[track_caller]
fn reads(rules: &str, expected: &[&str]) {
    let program = program(rules, &Options::default());
    let found: Vec<&str> = program.properties().names().collect();
    assert_eq!(found, expected, "{rules}");
    assert_eq!(
        program.properties().is_all(),
        expected.contains(&"*"),
        "{rules}"
    );
}

#[test]
fn properties_that_statements_and_paths_read() {
    for (statements, expected) in [
        (
            r#"[["add", "a", 1], ["remove", "b*"], ["default", "c", 2]]"#,
            &[][..],
        ),
        (
            r#"[["add", "a", ["concat", "_S.x.y", "_T.a", "_S.'p.q'"]]]"#,
            &["p.q", "x"],
        ),
        (
            r#"[["copy", "a*"], ["copy", ["list", "b", "c?"], "d"], ["copy", ["e"]]]"#,
            &["a*", "b", "c?", "e"],
        ),
        (r#"[["copy", "*", "secret"]]"#, &["*"]),
        (r#"[["rename", "old", "new"]]"#, &["old"]),
        (r#"[["rename", ["concat", "o", "ld"], "new"]]"#, &["*"]),
        (r#"[["make-ni", "ns", "from", "to"]]"#, &["from"]),
        (
            r#"[["if", "_S.a", ["add", "b", "_S.b"], ["add", "c", "_S.c"]]]"#,
            &["a", "b", "c"],
        ),
        (r#"[["merge", "_S."]]"#, &["*"]),
        (
            r#"[["add", "a", ["map", ["upper", "_.inner"], "_S.list"]]]"#,
            &["list"],
        ),
        (
            r#"[["add", "a", ["literal", "_S.x"]], ["comment", "_S.y"]]"#,
            &[],
        ),
    ] {
        reads(&format!("{{\"default\": {statements}}}"), expected);
    }
}

#[test]
fn applied_rules_read_what_they_are_given_and_what_is_above_them() {
    reads(
        r#"{"default": [["add", "r", ["apply", "in", "_S.lines"]]],
            "in": [["copy", "*"], ["add", "a", "_S.n"], ["rename", "m", "o"],
                   ["add", "b", "_P._S.customer"], ["add", "c", "_R._S.region"]]}"#,
        &["customer", "lines", "region"],
    );
    reads(
        r#"{"default": [["add", "r", ["apply", "in", "_S.lines"]]], "in": [["add", "a", "_R."]]}"#,
        &["*", "lines"],
    );
}

#[test]
fn joins_read_the_source_on_their_side_only() {
    reads(
        r#"{"default": [["add", "r", ["hops", {"datasets": ["orders o"],
            "where": [["eq", "_S._id", "o.customer"], ["gt", "o.total", "_S.least"]],
            "return": "o.number"}]]]}"#,
        &["_id", "least"],
    );
}

#[test]
fn what_triggers_is_read() {
    let trigger_on = Some(TriggerOn {
        key: "status.code".to_owned(),
        value: tahini_entity::Value::Null,
    });
    let options = Options {
        trigger_on,
        source_kind: SourceKind::Dataset,
        ..Options::default()
    };
    let program = program(
        r#"{"default": [["filter", ["is-changed", "_.name"]]]}"#,
        &options,
    );
    let found: Vec<&str> = program.properties().names().collect();
    assert_eq!(found, ["name", "status"]);
}

#[test]
fn every_cause_of_other_results_is_named_with_its_place() {
    let options = Options {
        source_kind: SourceKind::Dataset,
        ..Options::default()
    };
    let rules = r#"{"default": [
        ["add", "a", ["datetime-format", "%Y", ["now"]]],
        ["add", "b", ["uuid"]],
        ["add", "c", ["hops", {"datasets": ["d x"], "where": ["eq", "_S.k", "x.k"]}]],
        ["add", "d", ["lookup-entity", "d", "_S.k"]],
        ["add", "e", ["is-changed", "_.a"]],
        ["add", "f", "_S._updated"],
        ["add", "g", ["uuid", "_S.u"]]
    ]}"#;
    let program = program(rules, &options);
    let found: Vec<(Why, String)> = program
        .causes()
        .iter()
        .map(|cause| (cause.why, cause.path.to_string()))
        .collect();
    let expected = [
        (Why::Now, "$.rules.default[0][2][2]"),
        (Why::Random, "$.rules.default[1][2]"),
        (Why::Datasets, "$.rules.default[2][2][1]"),
        (Why::Datasets, "$.rules.default[3][2]"),
        (Why::Versions, "$.rules.default[4][2]"),
        (Why::Versions, "$.rules.default[5][2]"),
    ];
    assert_eq!(found, expected.map(|(why, path)| (why, path.to_owned())));
    assert!(!program.is_deterministic());
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) if matches(rest, name) => true,
        (Some(('*', _)), Some((_, after))) => matches(pattern, after),
        (Some((letter, rest)), Some((other, after))) if *letter == '?' || letter == other => {
            matches(rest, after)
        }
        _ => false,
    }
}

/// An entity without the properties that rules do not read gives the same: every rule of the
/// documentation is asked.
#[test]
fn what_is_not_read_makes_no_difference() {
    let mut fewer = 0;
    for line in include_str!("../vectors/dtl.jsonl").lines() {
        let vector = support::parse(line);
        let options = Options {
            id_required: false,
            ..Options::default()
        };
        let Ok(program) = compile(&vector["rules"], &options) else {
            continue;
        };
        if !program.is_deterministic() {
            continue;
        }
        let read: Vec<Vec<char>> = program
            .properties()
            .names()
            .map(|name| name.chars().collect())
            .collect();
        let mut entity = vector["entity"].clone();
        let all = entity.as_object().unwrap().len();
        entity.as_object_mut().unwrap().retain(|name, _| {
            let name: Vec<char> = name.chars().collect();
            name.first() == Some(&'_') || read.iter().any(|pattern| matches(pattern, &name))
        });
        fewer += usize::from(entity.as_object().unwrap().len() < all);
        let outcome = |entity: &serde_json::Value| {
            let input = support::batch(std::slice::from_ref(entity));
            let ran = support::run(&program, &input, &NoLookup, &RefCell::default());
            ran.map(|(out, _)| out.iter().map(support::text_of).collect::<Vec<_>>())
                .map_err(|error| error.message)
        };
        assert_eq!(
            outcome(&entity),
            outcome(&vector["entity"]),
            "{}",
            vector["id"]
        );
    }
    assert!(fewer > 20, "{fewer}");
}
