//! `tahini transform` on streams, usual and unusual entities mixed.

use std::fs::File;
use std::process::Command;

/// What rules make of a stream: results, complaints, and whether it went well.
fn transform(rules: &str, stream: &str) -> (String, String, bool) {
    transform_as(rules, stream, &[])
}

fn transform_as(rules: &str, stream: &str, options: &[&str]) -> (String, String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.json");
    std::fs::write(&file, rules).unwrap();
    // From a file: a program that writes while it reads would wait for us to read.
    let input = folder.path().join("stream");
    std::fs::write(&input, stream).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .arg("transform")
        .arg(&file)
        .args(options)
        .stdin(File::open(&input).unwrap())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.success(),
    )
}

const RULES: &str = r#"["filter", ["neq", "_S.kind", "dropped"]],
    ["copy", "*", "secret"], ["rename", "secret", "open"], ["add", "up", ["upper", "_S.name"]], ["remove", "kind"]"#;

/// Entities as they come and as they leave; those that leave as nothing were filtered.
const STREAM: &[(&str, &str)] = &[
    (
        r#"{"_id":"1","name":"ada","kind":"x","secret":1.5,"n":[1,{"a":"é"}]}"#,
        r#"{"_id":"1","name":"ada","n":[1,{"a":"é"}],"open":1.5,"up":"ADA"}"#,
    ),
    (r#"{"_id":"2","name":"bo","kind":"dropped"}"#, ""),
    (
        r#"{"_id":"3","_deleted":true,"name":"~t2024-01-02T03:04:05.500Z","secret":1.50}"#,
        r#"{"_id":"3","_deleted":true,"name":"~t2024-01-02T03:04:05.5Z","open":1.5,"up":null}"#,
    ),
    (
        r#"{ "_id": "4", "na\u006de": "c\u0061" , "secret": 1e2, "a": 1, "a": 2, "_updated": 7 }"#,
        r#"{"_id":"4","_updated":7,"name":"ca","a":2,"open":100.0,"up":"CA"}"#,
    ),
    (
        r#"{"name":"\"q\"","_id":"5","x":{"b":1,"b":2}}"#,
        r#"{"_id":"5","name":"\"q\"","x":{"b":2},"up":"\"Q\""}"#,
    ),
];

#[test]
fn every_way_through_gives_the_same_lines_in_order() {
    // Often enough for whole chunks, and for plans.
    let times = 3000;
    let came: Vec<&str> = STREAM.iter().map(|(came, _)| *came).collect();
    let left: String = STREAM
        .iter()
        .filter(|(_, left)| !left.is_empty())
        .map(|(_, left)| format!("{left}\n"))
        .collect();
    let lines = format!("{}\n", came.join("\n")).repeat(times);
    let array = format!("[{}]", vec![came.join(",\n"); times].join(" , "));
    let rules = format!(r#"{{"default": [{RULES}]}}"#);
    // Two transforms take no text.
    let two = format!(
        r#"{{"type": "pipe", "_id": "p", "transform": [
            {{"type": "dtl", "rules": {{"default": [["copy", "*"]]}}}}, {{"type": "dtl", "rules": {rules}}}]}}"#
    );
    // A branch that is never taken keeps the rules from being straight.
    let branched = format!(r#"{{"default": [{RULES}, ["if", false, ["add", "never", 1]]]}}"#);
    for (rules, stream) in [
        (&rules, &lines),
        (&rules, &array),
        (&two, &lines),
        (&branched, &lines),
    ] {
        let (out, err, ok) = transform(rules, stream);
        assert!(ok, "{err}");
        assert!(out == left.repeat(times), "{rules}: {:.2000}", out);
    }
}

#[test]
fn a_look_shows_the_entities_that_come_out() {
    let came: Vec<&str> = STREAM.iter().map(|(came, _)| *came).collect();
    let left: Vec<&str> = STREAM.iter().map(|(_, left)| *left).collect();
    let left: Vec<&str> = left.into_iter().filter(|left| !left.is_empty()).collect();
    let rules = format!(r#"{{"default": [{RULES}]}}"#);
    let stream = came.join("\n");
    let (out, ..) = transform_as(&rules, &stream, &["--now", "2024-01-01T00:00:00Z"]);
    assert_eq!(out.lines().collect::<Vec<_>>(), left);
    let (out, ..) = transform_as(&rules, &stream, &["--explain"]);
    let shown = out.lines().filter_map(|line| line.strip_prefix("  → "));
    let shown: Vec<&str> = shown.filter(|line| !line.contains("_filtered")).collect();
    assert_eq!(shown, left);
    let (out, ..) = transform_as(&rules, &stream, &["--explain", "--json"]);
    let looks = out.lines().skip(1);
    let sinks = looks.map(|look| serde_json::from_str::<serde_json::Value>(look).unwrap());
    let sinks = sinks.filter_map(|look| look["sink"].get(0).map(ToString::to_string));
    assert_eq!(sinks.collect::<Vec<_>>(), left);
}

#[test]
fn what_came_before_a_wrong_entity_is_printed() {
    let rules = format!(r#"{{"default": [{RULES}]}}"#);
    let (first, left) = STREAM[0];
    for (wrong, words) in [
        (
            r#"{"_id":"x","name":nil}"#,
            "line 3, column 19 of the input (entity \"x\")",
        ),
        (r#"{"_id":7}"#, "a string, found"),
        (r#"{"name":"no id"}"#, "_id"),
        ("]", "line 3, column 1 of the input: expected an entity"),
        (r#"{"_id":"x","name":"cut"#, "the end of the input"),
    ] {
        let (out, err, ok) = transform(&rules, &format!("{first}\n{first}\n{wrong}"));
        assert!(!ok, "{wrong}");
        assert_eq!(out, format!("{left}\n{left}\n"), "{wrong}");
        assert!(err.contains(words), "{wrong}: {err}");
    }
}
