//! `tahini transform`: rules, entities and what is wrong with either.

use serde_json::json;

use super::{Project, embedded};

fn with_rules(text: &str) -> Project {
    let project = Project::of(&[]);
    project.write("rules.json", text);
    project
}

const COPY: &str = r#"{"default": [["copy", "*"]]}"#;

#[test]
fn filtered_entities_are_not_printed() {
    let rules = r#"{"default": [["filter", ["neq", "_S.x", 1]], ["copy", "*"]]}"#;
    let entities = "{\"_id\":\"1\",\"x\":1}\n{\"_id\":\"2\",\"x\":2}\n";
    let project = with_rules(rules);
    // From text to text, through entities that were read, and beside a time of one's own.
    let twice = json!([
        {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
        {"type": "dtl", "rules": serde_json::from_str::<serde_json::Value>(rules).unwrap()},
    ]);
    let mut pipe = embedded("p", "x");
    pipe["transform"] = twice;
    project.write("pipe.json", &pipe.to_string());
    for args in [
        &["transform", "rules.json"][..],
        &["transform", "pipe.json"],
        &["transform", "rules.json", "--now", "2024-02-29T12:30:00Z"],
    ] {
        let said = project.call_with(args, entities, &[]);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        let found: Vec<&str> = said.out.lines().collect();
        assert_eq!(found.len(), 1, "{args:?}: {}", said.out);
        assert!(found[0].contains("\"_id\":\"2\""), "{args:?}: {}", said.out);
    }
}

#[test]
fn a_time_of_ones_own_changes_nothing_about_namespaces() {
    let mut pipe = embedded("p", "x");
    pipe["namespaced_identifiers"] = json!(true);
    pipe["add_namespaces"] = json!(true);
    pipe["remove_namespaces"] = json!(true);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": [["copy", "*"]]}});
    let project = Project::of(&[]);
    project.write("pipe.json", &pipe.to_string());
    for args in [
        &["transform", "pipe.json"][..],
        &["transform", "pipe.json", "--now", "2024-02-29T12:30:00Z"],
    ] {
        let said = project.call_with(args, "{\"_id\":\"1\",\"x\":1}\n", &[]);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            (&found["_id"], &found["x"]),
            (&json!("1"), &json!(1)),
            "{args:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_rules_has_its_place_in_the_file() {
    let wrong = "[\n  [\"copy\", \"*\"],\n  [\"ad\", \"x\", 1]\n]";
    for (text, line, column, path) in [
        (format!("{{\"default\": {wrong}}}"), 3, 3, "$.default[1]"),
        (
            format!("{{\"rules\":\n{{\"default\": {wrong}}}}}"),
            4,
            3,
            "$.rules.default[1]",
        ),
        (
            format!("{{\"type\": \"dtl\", \"rules\": {{\"default\": {wrong}}}}}"),
            3,
            3,
            "$.rules.default[1]",
        ),
        (
            format!(
                "{{\"_id\": \"p\", \"type\": \"pipe\", \"transform\":\n[{{\"type\": \"dtl\", \
                 \"rules\": {{\"default\": {wrong}}}}}]}}"
            ),
            4,
            3,
            "$.transform[0].rules.default[1]",
        ),
    ] {
        let said = with_rules(&text).call(&["transform", "rules.json"]);
        assert_eq!(said.code, 3, "{}", said.err);
        let place = format!("rules.json:{line}:{column}: error: ");
        assert!(said.err.starts_with(&place), "{place} in {}", said.err);
        assert!(said.err.contains(path), "{path} in {}", said.err);
    }
    let said = with_rules("{\"default\": [\n").call(&["transform", "rules.json"]);
    assert_eq!(said.code, 3);
    assert!(said.err.starts_with("rules.json:"), "{}", said.err);
}

#[test]
fn what_came_before_a_cut_line_is_printed() {
    let project = with_rules(COPY);
    let entities = "{\"_id\":\"1\"}\n{\"_id\":\"2\"}\n{\"_id\":\"3";
    for args in [
        &["transform", "rules.json"][..],
        &["transform", "rules.json", "--now", "2024-02-29T12:30:00Z"],
    ] {
        let said = project.call_with(args, entities, &[]);
        assert_eq!((said.code, said.out.lines().count()), (1, 2), "{args:?}");
        assert!(said.err.contains("in line 3"), "{}", said.err);
        assert!(!said.err.contains("answer"), "{}", said.err);
    }
}

#[test]
fn what_came_before_an_entity_that_fails_is_printed() {
    let rules = json!({"default": [["copy", "*"], ["if", ["eq", "_S.x", 3], ["fail!", "three"]]]});
    let dtl = |rules: &serde_json::Value| json!({"type": "dtl", "rules": rules});
    let copies = json!({"default": [["copy", "*"]]});
    // The second one stands in two lines.
    let entities = (1..5).map(|x| {
        let gap = if x == 2 { "\n" } else { " " };
        format!("{{\"_id\":\"{x}\",{gap}\"x\":{x}}}\n")
    });
    let entities: String = entities.collect();
    let mut pipe = embedded("p", "x");
    for transforms in [
        json!([dtl(&rules)]),
        json!([dtl(&rules), dtl(&copies)]),
        json!([dtl(&copies), dtl(&rules)]),
    ] {
        let failing = usize::from(transforms[0]["rules"] == copies);
        pipe["transform"] = transforms;
        let project = with_rules(&pipe.to_string());
        // As they come, and beside a time of one's own.
        for more in [&[][..], &["--now", "2024-02-29T12:30:00Z"]] {
            let args = [&["transform", "rules.json"], more].concat();
            let said = project.call_with(&args, &entities, &[]);
            let count = said.out.lines().count();
            assert_eq!((said.code, count), (1, 2), "{}", said.out);
            let place = format!("$.transform[{failing}].rules.default[1][2]");
            let words = format!("entity \"3\", line 4 of the input: three ({place})");
            assert!(said.err.contains(&words), "{words} in {}", said.err);
            assert!(said.err.contains("rules.json:1:"), "{}", said.err);
        }
    }
}

#[test]
fn a_transform_that_asks_a_system_is_told_where_systems_are() {
    let mut pipe = embedded("p", "x");
    pipe["transform"] = json!([
        {"type": "dtl", "rules": {"default": [["copy", "*"]]}},
        {"type": "http", "system": "postcode", "url": "x"},
    ]);
    let said = with_rules(&pipe.to_string()).call(&["transform", "rules.json"]);
    assert_eq!((said.code, said.out.as_str()), (3, ""));
    for words in [
        "\"postcode\"",
        "project",
        "$.transform[1].system",
        "tahini run",
    ] {
        assert!(said.err.contains(words), "{words} in {}", said.err);
    }
    assert!(!said.err.contains("there is no system"), "{}", said.err);
}

#[test]
fn a_transform_can_give_a_string_id() {
    let heal = r#"{"default": [["add", "_id", ["string", "_S._id"]], ["copy", "*", "_id"]]}"#;
    let said = with_rules(heal).call_with(&["transform", "rules.json"], "{\"_id\":7,\"x\":1}", &[]);
    assert_eq!(said.out, "{\"_id\":\"7\",\"x\":1}\n", "{}", said.err);
    // Copied as it is it is no string, whatever there was before.
    let spoil = r#"{"default": [["add", "_id", "x"], ["copy", "*"]]}"#;
    let said = with_rules(spoil).call_with(&["transform", "rules.json"], "{\"_id\":7}", &[]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("found an integer"), "{}", said.err);
}

#[test]
fn an_id_that_is_no_string_is_an_error_at_the_sink() {
    let mut pipe = embedded("p", "x");
    pipe["source"]["entities"] = json!([{"_id": 7, "x": 1}, {"_id": null, "x": 2}]);
    let project = Project::of(std::slice::from_ref(&pipe));
    let said = project.call(&["run", "."]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("to have a string `_id`") && said.err.contains("found 7"),
        "{}",
        said.err
    );

    let rules = json!([
        ["copy", "*"],
        [
            "add",
            "_id",
            ["if", ["is-null", "_S._id"], "none", ["string", "_S._id"]]
        ]
    ]);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": rules}});
    let project = Project::of(&[pipe]);
    let said = project.call(&["run", "."]);
    assert_eq!(said.code, 0, "{}", said.err);
    let said = project.call(&["entities", "p"]);
    for part in ["\"x\":1,\"_id\":\"7\"", "\"x\":2,\"_id\":\"none\""] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
}

#[test]
fn what_fails_has_its_place_in_the_file() {
    let entity = "{\"_id\":\"1\"}\n";
    let rules = r#"{"default": [["copy", "*"], ["fail!", "no"]]}"#;
    let alternatives = format!(
        r#"{{"type": "conditional", "condition": "a", "alternatives":
            {{"a": {{"type": "chained", "transforms": [{{"type": "dtl", "rules": {rules}}}]}}}}}}"#
    );
    for (text, place) in [
        (
            rules.to_owned(),
            "rules.json:1:29: entity \"1\", line 1 of the input: no ($.default[1])",
        ),
        (
            format!("{{\"rules\":\n{rules}}}"),
            "rules.json:2:29: entity \"1\", line 1 of the input: no ($.rules.default[1])",
        ),
        (
            format!("{{\"type\": \"pipe\", \"_id\": \"p\", \"transform\": [{alternatives}]}}"),
            "no ($.transform[0].alternatives.a.transforms[0].rules.default[1])",
        ),
    ] {
        let project = with_rules(&text);
        for more in [&[][..], &["--now", "2024-02-29T12:30:00Z"]] {
            let args = [&["transform", "rules.json"], more].concat();
            let said = project.call_with(&args, entity, &[]);
            assert_eq!(said.code, 1, "{args:?}: {}", said.err);
            assert!(said.err.contains(place), "{args:?}: {}", said.err);
        }
    }
}

#[test]
fn joins_beside_rules_need_no_dependencies() {
    let project = with_rules(
        r#"{"default": [["add", "r", ["hops", {"datasets": ["d o"],
            "where": ["eq", "_S.k", "o._id"], "return": "o.v"}]]]}"#,
    );
    project.write("d.json", "{\"_id\":\"x\",\"v\":7}\n");
    let args = ["transform", "rules.json", "--dataset", "d=d.json"];
    let said = project.call_with(&args, "{\"_id\":\"1\",\"k\":\"x\"}\n", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains("\"r\":[7]"), "{}", said.out);
}

#[test]
fn a_dataset_that_is_not_given_is_an_error_whatever_else_is_asked_for() {
    let hops = r#"["hops", {"datasets": ["d o"], "where": ["eq", "_S.k", "o._id"]}]"#;
    for join in [hops, r#"["lookup-entity", "d", "_S.k"]"#] {
        let project = with_rules(&format!(r#"{{"default": [["add", "r", {join}]]}}"#));
        for more in [&[][..], &["--now", "2024-02-29T12:30:00Z"], &["--explain"]] {
            let args = [&["transform", "rules.json"], more].concat();
            let said = project.call_with(&args, "{\"_id\":\"1\",\"k\":\"x\"}\n", &[]);
            assert_eq!(said.code, 3, "{args:?}: {}", said.out);
            let all = format!("{}{}", said.out, said.err);
            assert!(all.contains("--dataset d=FILE gives it"), "{all}");
        }
        // Whether an entity looks something up does not matter.
        let said = project.call_with(&["transform", "rules.json"], "{\"_id\":\"1\"}\n", &[]);
        assert_eq!(said.code, 3, "{}", said.out);
        let empty = ["transform", "rules.json", "--dataset", "d=/dev/null"];
        let said = project.call_with(&empty, "{\"_id\":\"1\",\"k\":\"x\"}\n", &[]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
}

#[test]
fn of_an_entity_that_fails_no_part_is_printed() {
    let project = with_rules(
        r#"{"default": [["copy", "a"], ["if", ["eq", "_S._id", "2"], ["add", "_id", 5]]]}"#,
    );
    let long = "y".repeat(10_000);
    let entity = |id: &str| format!("{{\"_id\":\"{id}\",\"a\":\"{long}\"}}\n");
    let input = [entity("1"), entity("2"), entity("3")].concat();
    let said = project.call_with(&["transform", "rules.json"], &input, &[]);
    assert_eq!(said.code, 1);
    let expected = format!("{{\"_id\":\"1\",\"a\":\"{long}\"}}\n");
    assert!(said.out == expected, "{} bytes", said.out.len());
}

#[test]
fn datasets_beside_rules_are_given_once_and_have_ids() {
    let project = with_rules(COPY);
    project.write("d.json", "{\"_id\":\"x\"}\n{\"v\":1}\n");
    let entity = "{\"_id\":\"1\"}\n";
    for (given, code, words) in [
        (&["d"][..], 2, "NAME=FILE"),
        (&["d=/dev/null", "d=/dev/null"], 1, "\"d\" again"),
        (&["d=d.json"], 1, "number 2"),
    ] {
        let datasets = given.iter().flat_map(|one| ["--dataset", one]);
        let args: Vec<&str> = ["transform", "rules.json"]
            .into_iter()
            .chain(datasets)
            .collect();
        let said = project.call_with(&args, entity, &[]);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(words), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_file_that_holds_no_rules_is_told_with_its_place() {
    for text in ["[]", "null", r#"[["copy", "*"]]"#] {
        let project = with_rules(text);
        let said = project.call_with(&["transform", "rules.json"], "", &[]);
        assert_eq!(said.code, 3, "{text}: {}", said.err);
        assert!(
            said.err.starts_with("rules.json:1:1: error: "),
            "{}",
            said.err
        );
    }
    let project = Project::of(&[]);
    let bytes = b"{\"default\": [\n  [\"add\", \"\xff\", 1]]}";
    std::fs::write(project.0.path().join("rules.json"), bytes).unwrap();
    let said = project.call_with(&["transform", "rules.json"], "", &[]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(
        said.err
            .starts_with("rules.json:2:12: error: expected UTF-8"),
        "{}",
        said.err
    );
}

#[test]
fn a_variable_in_a_comment_may_be_missing() {
    let rules = r#"{"default": [["comment", ["add", "x", "$ENV(unset)"]], ["add", "y", 1]]}"#;
    let project = with_rules(rules);
    let said = project.call_with(&["transform", "rules.json"], "{\"_id\":\"1\"}\n", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("\"y\":1"), "{}", said.out);
}
