//! Programs over batches: origins, errors, lookups, what comes from outside.

use std::cell::RefCell;
use std::time::Duration;

use tahini_dtl::{Context, EvalClass, NoLookup, Options, Program, SourceKind, TriggerOn, compile};
use tahini_entity::json::Opened;
use tahini_entity::{Batch, Dict, Value};

use crate::support::{self, Datasets};

fn program(rules: &str) -> Program {
    compile(&support::parse(rules), &Options::default()).unwrap_or_else(|p| panic!("{p:?}"))
}

fn batch(lines: &[&str]) -> Batch {
    let entities: Vec<_> = lines.iter().map(|line| support::parse(line)).collect();
    support::batch(&entities)
}

#[test]
fn origins_name_the_source_of_every_output() {
    let program = program(
        r#"{"default": [["create", "_S.children"], ["discard", "_S.keep"], ["filter", "_S.pass"]]}"#,
    );
    let input = batch(&[
        r#"{"_id": "a", "keep": true, "pass": true, "children": [{"_id": "a1"}, {"_id": "a2"}]}"#,
        r#"{"_id": "b"}"#,
        r#"{"_id": "c", "keep": true}"#,
        r#"{"_id": "d", "children": [{"_id": "d1"}]}"#,
    ]);
    let (out, origins) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    let ids: Vec<&str> = out
        .iter()
        .map(|entity| entity.id.as_deref().unwrap())
        .collect();
    assert_eq!(ids, ["a1", "a2", "a", "c", "d1"]);
    assert_eq!(origins, [0, 0, 0, 2, 3]);
    assert!(out[3].filtered && !out[2].filtered);
}

/// What leaves two transforms, one behind the other.
fn chained(first: &str, second: &str, input: &Batch) -> Vec<String> {
    let (first, second) = (program(first), program(second));
    let run = |program: &Program, input: &Batch| {
        let (out, _) = support::run(program, input, &NoLookup, &RefCell::default()).unwrap();
        out
    };
    let mut between = Batch::new();
    for entity in run(&first, input) {
        between.push_entity(&entity).unwrap();
    }
    run(&second, &between)
        .iter()
        .map(support::text_of)
        .collect()
}

#[test]
fn what_was_filtered_stays_filtered_in_later_transforms() {
    let input = batch(&[r#"{"_id": "1", "a": 1}"#, r#"{"_id": "2", "a": 2}"#]);
    let first = r#"{"default": [["copy", "*"], ["filter", ["eq", "_S.a", 1]]]}"#;
    // By a plan or by statements, and whatever else the second one does.
    for (second, expected) in [
        (
            r#"{"default": [["copy", "*"], ["add", "q", 1]]}"#,
            [
                r#"{"_id":"1","a":1,"q":1}"#,
                r#"{"_id":"2","_filtered":true,"a":2,"q":1}"#,
            ],
        ),
        (
            r#"{"default": [["if", true, ["copy", "*"]], ["add", "q", "_S._filtered"]]}"#,
            [
                r#"{"_id":"1","a":1,"q":null}"#,
                r#"{"_id":"2","_filtered":true,"a":2,"q":true}"#,
            ],
        ),
        (
            r#"{"default": [["create", ["dict", "_id", ["concat", "c", "_S._id"]]], ["discard"]]}"#,
            [r#"{"_id":"c1"}"#, r#"{"_id":"c2","_filtered":true}"#],
        ),
    ] {
        assert_eq!(chained(first, second, &input), expected, "{second}");
    }
    // There is nothing that a filtered one without an _id could delete, and nothing to complain of.
    let nameless = r#"{"default": [["remove", "_id"]]}"#;
    let one = batch(&[r#"{"_id": "2", "a": 2}"#]);
    assert_eq!(chained(first, nameless, &one), [""; 0]);
}

#[test]
fn from_text_to_text_what_was_filtered_goes_nowhere() {
    let program = program(
        r#"{"default": [["create", ["dict", "_id", ["concat", "c", "_S._id"]]], ["copy", "*"]]}"#,
    );
    let text = "{\"_id\":\"1\",\"_filtered\":true}\n{\"_id\":\"2\"}\n";
    let mut opened = Opened::new();
    let mut at = 0;
    while at < text.len() {
        at = opened.open(text.as_bytes(), at).unwrap() + 1;
    }
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    let mut out = Vec::new();
    let lines = opened.lines(text.as_bytes());
    program.transform_lines(lines, &context, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"_id\":\"c2\"}\n{\"_id\":\"2\"}\n"
    );
}

#[test]
fn of_an_entity_that_fails_nothing_goes_out() {
    let program =
        program(r#"{"default": [["create", {"_id": "made"}], ["if", "_S.bad", ["fail!", "no"]]]}"#);
    let input = batch(&[r#"{"_id": "a"}"#, r#"{"_id": "b", "bad": true}"#]);
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let result = program.transform(&input, &context, &mut out, &mut origins);
    assert_eq!(result.unwrap_err().position, 1);
    let ids: Vec<_> = out
        .iter()
        .map(|record| record.id.unwrap().to_owned())
        .collect();
    assert_eq!(
        (ids, origins),
        (vec!["made".to_owned(), "a".to_owned()], vec![0, 0])
    );
}

#[test]
fn an_error_names_the_entity_and_keeps_what_came_before() {
    let program =
        program(r#"{"default": [["if", "_S.bad", ["fail!", ["concat", "no ", "_S.bad"]]]]}"#);
    let input = batch(&[
        r#"{"_id": "a"}"#,
        r#"{"_id": "b", "bad": "luck"}"#,
        r#"{"_id": "c"}"#,
    ]);
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let error = program
        .transform(&input, &context, &mut out, &mut origins)
        .unwrap_err();
    assert_eq!((error.position, error.class), (1, EvalClass::Fail));
    assert_eq!(
        error.to_string(),
        "entity \"b\": no luck ($.rules.default[0][2])"
    );
    assert_eq!((out.len(), origins), (1, vec![0]));
}

#[test]
fn entities_need_an_id_unless_the_transform_says_otherwise() {
    let rules = r#"{"default": [["remove", "_id"], ["add", "_id", "_S.key"], ["add", "a", 1]]}"#;
    let input = batch(&[r#"{"_id": "x", "key": 5}"#]);
    let error = support::run(&program(rules), &input, &NoLookup, &RefCell::default()).unwrap_err();
    assert_eq!(error.class, EvalClass::Id);
    assert!(error.message.contains("found an integer"), "{error}");
    let options = Options {
        id_required: false,
        ..Options::default()
    };
    let program = compile(&support::parse(rules), &options).unwrap();
    let (out, _) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    assert_eq!((out[0].id.as_deref(), out[0].properties.len()), (None, 1));
}

#[test]
fn created_entities_need_an_id_unless_the_transform_says_otherwise() {
    let rules = r#"{"default": [["create", ["list", {"a": 1}, 5, {"_id": "2"}]]]}"#;
    let input = batch(&[r#"{"_id": "1"}"#]);
    let error = support::run(&program(rules), &input, &NoLookup, &RefCell::default()).unwrap_err();
    assert_eq!(error.class, EvalClass::Id);
    assert!(error.message.contains("a dict without _id"), "{error}");
    let options = Options {
        id_required: false,
        ..Options::default()
    };
    let program = compile(&support::parse(rules), &options).unwrap();
    let (out, _) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    let ids: Vec<_> = out
        .iter()
        .map(|entity| entity.id.clone().unwrap())
        .collect();
    assert_eq!(ids, ["2", "1"]);
}

#[test]
fn an_entity_without_an_id_may_get_one_from_the_rules() {
    let program = program(r#"{"default": [["copy", "*"], ["add", "_id", ["string", "_S.id"]]]}"#);
    let input = batch(&[r#"{"id": 7}"#]);
    let (out, _) = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
    assert_eq!(support::text_of(&out[0]), r#"{"_id":"7","id":7}"#);
}

#[test]
fn bookkeeping_is_read_by_name_and_copied_by_pattern() {
    let mut entity = support::entity(&support::parse(r#"{"_id": "1", "_updated": 7, "a": 1}"#));
    entity.ts = Some(123);
    entity.previous = Some(3);
    let mut input = Batch::new();
    input.push_entity(&entity).unwrap();
    let run = |rules: &str| {
        let (out, _) =
            support::run(&program(rules), &input, &NoLookup, &RefCell::default()).unwrap();
        out.into_iter().next().unwrap()
    };
    let read = run(
        r#"{"default": [["add", "u", "_S._updated"], ["add", "t", "_S._ts"],
        ["add", "all", "_S."]]}"#,
    );
    assert_eq!(
        support::text_of(&read),
        r#"{"_id":"1","u":7,"t":123,"all":{"_id":"1","a":1}}"#
    );
    assert_eq!((read.updated, read.ts, read.previous), (None, None, None));
    let copied = run(r#"{"default": [["copy", "*"]]}"#);
    assert_eq!(
        copied.updated.map(|updated| updated.to_string()).as_deref(),
        Some("7")
    );
    assert_eq!((copied.ts, copied.previous), (Some(123), Some(3)));
    let removed = run(r#"{"default": [["copy", "*"], ["remove", "_ts"]]}"#);
    assert_eq!((removed.ts, removed.previous), (None, Some(3)));
}

#[test]
fn trigger_on_passes_others_through() {
    let run = |value: &str, key: &str| {
        let trigger = TriggerOn {
            key: key.to_owned(),
            value: Value::string(value),
        };
        let options = Options {
            trigger_on: Some(trigger),
            ..Options::default()
        };
        let rules = support::parse(r#"{"default": [["add", "done", true]]}"#);
        let program = compile(&rules, &options).unwrap();
        let input = batch(&[
            r#"{"_id": "1", "_trigger": "some-value-1"}"#,
            r#"{"_id": "2", "_trigger": "other", "a": {"b": "some-value"}}"#,
            r#"{"_id": "3"}"#,
        ]);
        let (out, origins) =
            support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap();
        assert_eq!(origins, [0, 1, 2]);
        out.iter()
            .map(|entity| entity.properties.get("done").is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(run("some-value*", "_trigger"), [true, false, false]);
    assert_eq!(run("some-value", "a.b"), [false, true, false]);
}

#[test]
fn parameters_are_read_from_outside() {
    let program = program(r#"{"default": [["add", "p", "_B.foo"], ["add", "all", "_B."]]}"#);
    let parameters: Dict = [("foo".into(), Value::string("bar"))].into_iter().collect();
    let mut context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    context.parameters = Some(&parameters);
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let input = batch(&[r#"{"_id": "1"}"#]);
    program
        .transform(&input, &context, &mut out, &mut origins)
        .unwrap();
    let found = support::text_of(&out.get(0).to_entity());
    assert_eq!(found, r#"{"_id":"1","p":"bar","all":{"foo":"bar"}}"#);
}

#[test]
fn a_stopped_pause_ends_the_batch() {
    let program = program(r#"{"default": [["sleep!", 10]]}"#);
    let pause = |_: Duration| false;
    let mut context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    context.pause = Some(&pause);
    let input = batch(&[r#"{"_id": "1"}"#]);
    let error = program
        .transform(&input, &context, &mut Batch::new(), &mut Vec::new())
        .unwrap_err();
    assert_eq!(error.class, EvalClass::Cancelled);
    assert!(program.sleeps());
}

#[test]
fn a_batch_asks_once_for_each_round() {
    let datasets = Datasets::from_json(&support::parse(
        r#"{"a": [{"_id": "a1", "k": [1, 2], "next": "b1"}, {"_id": "a2", "k": 2, "next": "b2"}],
            "b": [{"_id": "b1", "n": "x"}, {"_id": "b2", "n": "y"}]}"#,
    ));
    let program = program(
        r#"{"default": [["sleep!", 1], ["add", "r", ["hops", {"datasets": ["a a", "b b"],
            "where": [["eq", "_S.k", "a.k"], ["eq", "a.next", "b._id"]], "return": "b.n"}]],
            ["add", "l", ["path", "n", ["lookup-entity", "b", "b1"]]]]}"#,
    );
    let input = batch(&[
        r#"{"_id": "1", "k": 1}"#,
        r#"{"_id": "2", "k": 2}"#,
        r#"{"_id": "3", "k": null}"#,
    ]);
    let pauses = RefCell::default();
    let (out, origins) = support::run(&program, &input, &datasets, &pauses).unwrap();
    let found: Vec<String> = out.iter().map(support::text_of).collect();
    assert_eq!(
        found,
        [
            r#"{"_id":"1","r":["x"],"l":"x"}"#,
            r#"{"_id":"2","r":["x","y"],"l":"x"}"#,
            r#"{"_id":"3","r":[],"l":"x"}"#
        ]
    );
    assert_eq!(origins, [0, 1, 2]);
    // Two keys of "a" and the lookup, then what the rows of "a" lead to: "b1" is known by then.
    assert_eq!(*datasets.calls.borrow(), [3, 1]);
}

#[test]
fn nothing_is_looked_up_without_datasets() {
    let program = program(r#"{"default": [["add", "l", ["lookup-entity", "codes", "1"]]]}"#);
    let input = batch(&[r#"{"_id": "1"}"#]);
    let error = support::run(&program, &input, &NoLookup, &RefCell::default()).unwrap_err();
    assert_eq!(error.class, EvalClass::Lookup);
    assert!(error.message.contains("the dataset \"codes\""), "{error}");
}

#[test]
fn is_changed_needs_a_dataset_and_a_previous_version() {
    let rules = support::parse(r#"{"default": [["add", "c", ["is-changed", "_.a"]]]}"#);
    let run = |previous: Option<&str>, entity: &str| {
        let options = Options {
            source_kind: SourceKind::Dataset,
            ..Options::default()
        };
        let program = compile(&rules, &options).unwrap();
        let version = |text| std::sync::Arc::new(support::entity(&support::parse(text)));
        let datasets = Datasets {
            previous: previous.map(version),
            ..Datasets::default()
        };
        let mut entity = support::entity(&support::parse(entity));
        entity.previous = previous.map(|_| 1);
        let mut input = Batch::new();
        input.push_entity(&entity).unwrap();
        let (out, _) = support::run(&program, &input, &datasets, &RefCell::default()).unwrap();
        support::wire(out[0].properties.get("c").unwrap())
    };
    assert_eq!(run(None, r#"{"_id": "1", "a": 1}"#), "null");
    assert_eq!(
        run(Some(r#"{"_id": "1", "a": 1}"#), r#"{"_id": "1", "a": 1.0}"#),
        "false"
    );
    assert_eq!(
        run(Some(r#"{"_id": "1"}"#), r#"{"_id": "1", "a": 1}"#),
        "true"
    );
    assert_eq!(
        run(Some(r#"{"_id": "1", "_deleted": true}"#), r#"{"_id": "1"}"#),
        "true"
    );
    assert_eq!(
        run(Some(r#"{"_id": "1"}"#), r#"{"_id": "1", "_deleted": true}"#),
        "true"
    );
}

#[test]
fn programs_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&program(r#"{"default": [["datetime-parse", "x"]]}"#.replace(r#"["datetime-parse", "x"]"#, r#"["copy", "*"]"#).as_str()));
}

/// The first entities of a shape go statement by statement, those behind them by a plan.
#[test]
fn rules_that_join_give_the_same_by_a_plan() {
    let datasets = Datasets::from_json(&support::parse(
        r#"{"a": [{"_id": "a1", "k": [1, 2], "next": "b1"}, {"_id": "a2", "k": 2, "next": "b2"}],
            "b": [{"_id": "b1", "n": "x", "up": "b2"}, {"_id": "b2", "n": "y"}]}"#,
    ));
    let one = r#"["hops", {"datasets": ["a a", "b b"],
        "where": [["eq", "_S.k", "a.k"], ["eq", "a.next", "b._id"], ["neq", "b.n", "_S.not"]],
        "return": "b.n"}]"#;
    let of_target = r#"["hops", {"datasets": ["a a"], "where": ["eq", "_T.j", "a.k"]}]"#;
    let up =
        r#"["hops", {"datasets": ["b b"], "where": ["eq", "_S.up", "b._id"], "recurse": true}]"#;
    let applied = r#"["apply-hops", "r", {"datasets": ["a a"], "where": ["eq", "_S.k", "a.k"]}]"#;
    let lookup = r#"["path", "n", ["lookup-entity", "b", "_S.up"]]"#;
    let mut outputs = Vec::new();
    for statements in [
        format!(r#"["copy", "*"], ["add", "x", {one}]"#),
        format!(
            r#"["copy", ["list", "_id", "k"]], ["filter", ["is-not-empty", {one}]], ["add", "x", 1]"#
        ),
        format!(r#"["discard", ["is-not-empty", {one}]], ["copy", "*"]"#),
        format!(r#"["rename", "k", "j"], ["add", "x", {of_target}]"#),
        format!(r#"["add", "j", 2], ["add", "x", {of_target}], ["remove", "j"]"#),
        format!(r#"["add", "x", {up}], ["default", "x", 1], ["default", "y", {lookup}]"#),
        format!(r#"["add", "t", "_S.k"], ["add", "x", {applied}]"#),
    ] {
        let rules = format!(
            r#"{{"default": [{statements}], "r": [["copy", "_id"], ["add", "p", "_P._T.t"], ["add", "q", "_T._id"]]}}"#
        );
        let program = program(&rules);
        let run = |input: &Batch| {
            let (out, origins) =
                support::run(&program, input, &datasets, &RefCell::default()).unwrap();
            (
                out.iter().map(support::text_of).collect::<Vec<_>>(),
                origins,
            )
        };
        for source in [
            r#"{"_id": "1", "k": 1, "up": "b1"}"#,
            r#"{"_id": "1", "k": [2, 1], "up": "b2", "not": "x"}"#,
            r#"{"_id": "1", "k": 3}"#,
            r#"{"_id": "1", "k": null, "up": ["b2", "b1"]}"#,
        ] {
            let (alone, _) = run(&batch(&[source]));
            let (all, origins) = run(&batch(&[source; 12]));
            assert_eq!(
                all.concat(),
                alone.concat().repeat(12),
                "{statements} of {source}"
            );
            let expected = (0..12).flat_map(|at| vec![at; alone.len()]);
            assert_eq!(origins, expected.collect::<Vec<u32>>());
            outputs.extend(alone);
        }
    }
    // What is compared is something.
    assert!(
        outputs.iter().any(|text| text.contains(r#""x":["y"]"#)),
        "{outputs:?}"
    );
    assert!(
        outputs.iter().any(|text| text.contains(r#""p":1"#)),
        "{outputs:?}"
    );
}
