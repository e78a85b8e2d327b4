//! The tools of the language, through the binary: fmt, explain, transform, schema.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

/// Runs the binary in a folder, with text on stdin.
fn tahini(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends before it has read everything closes its end.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What the reference's client made of some documents, by its choices of style.
#[test]
fn files_are_laid_out_as_the_clients_are() {
    let folder = tempfile::tempdir().unwrap();
    let cases: Vec<Json> = include_str!("layouts.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(cases.len() >= 48);
    let name = |at: usize, case: &Json| match case["expected"] == true {
        true => format!("p{at}/expected/x.json"),
        false => format!("p{at}/pipes/x.conf.json"),
    };
    let mut projects = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        write(
            folder.path(),
            &name(at, case),
            case["json"].as_str().unwrap(),
        );
        if case["style"]
            .as_object()
            .is_some_and(|style| !style.is_empty())
        {
            let config = json!({"formatstyle": case["style"]}).to_string();
            write(folder.path(), &format!("p{at}/.sesamconfig.json"), &config);
        }
        projects.push(format!("p{at}"));
    }
    let mut args = vec!["fmt"];
    args.extend(projects.iter().map(String::as_str));
    let output = tahini(folder.path(), &args, "");
    assert!(output.status.success(), "{}", stderr(&output));
    for (at, case) in cases.iter().enumerate() {
        let found = std::fs::read_to_string(folder.path().join(name(at, case))).unwrap();
        assert_eq!(found, case["text"].as_str().unwrap(), "{case}");
    }
    args.insert(1, "--check");
    let output = tahini(folder.path(), &args, "");
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn fmt_check_names_files_and_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "pipes/a.conf.json", "{\"_id\":\"a\"}");
    write(
        folder.path(),
        "systems/b.conf.json",
        "{\n  \"_id\": \"b\"\n}\n",
    );
    let output = tahini(folder.path(), &["fmt", "--check", "."], "");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), "./pipes/a.conf.json\n");
    let text = std::fs::read_to_string(folder.path().join("pipes/a.conf.json")).unwrap();
    assert_eq!(text, "{\"_id\":\"a\"}");
}

#[test]
fn fmt_leaves_specs_of_tests_in_a_project_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "{\"b\":1,\"a\":2}";
    write(folder.path(), "expected/a.test.json", spec);
    write(folder.path(), "expected/a.json", "[]");
    let output = tahini(folder.path(), &["fmt", "."], "");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "./expected/a.json\n");
    let text = std::fs::read_to_string(folder.path().join("expected/a.test.json")).unwrap();
    assert_eq!(text, spec);
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "copy.json",
        r#"{"default": [["copy", "*"]]}"#,
    );
    write(folder.path(), "in.json", "{\"_id\":\"1\"}\n");
    for args in [
        &["transform", "copy.json"][..],
        &["transform", "copy.json", "--explain"],
        &["explain", "upper"],
        &["schema", "rules"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tahini"));
        let input = std::fs::File::open(folder.path().join("in.json")).unwrap();
        let full = std::fs::File::create("/dev/full").unwrap();
        command
            .args(args)
            .current_dir(folder.path())
            .stdin(input)
            .stdout(full);
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("cannot be written"), "{args:?}");
    }
}

#[test]
fn fmt_leaves_what_it_would_damage() {
    let folder = tempfile::tempdir().unwrap();
    let commented = "{\n  // why\n  \"_id\": \"a\"\n}\n";
    write(folder.path(), "a.json", commented);
    write(
        folder.path(),
        "precise.json",
        "[0.1234567890123456789, 1e999]",
    );
    let output = tahini(folder.path(), &["fmt", "a.json", "precise.json"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("comments"), "{}", stderr(&output));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("a.json"), commented);
    assert_eq!(read("precise.json"), "[0.1234567890123456789, 1e+999]\n");
}

#[test]
fn explain_prints_a_row_a_list_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = tahini(folder.path(), &["explain", "upper"], "");
    assert!(output.status.success());
    assert!(
        stdout(&output).starts_with("[\"upper\", VALUES]\n"),
        "{}",
        stdout(&output)
    );
    let output = tahini(folder.path(), &["explain"], "");
    let lines = stdout(&output);
    assert!(
        lines
            .lines()
            .any(|line| line.starts_with("  lookup-entity ")),
        "{lines}"
    );
    let output = tahini(folder.path(), &["explain", "filter", "--json"], "");
    let rows: Json = serde_json::from_str(&stdout(&output)).unwrap();
    let roles: Vec<&Json> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["is_transform"])
        .collect();
    assert_eq!(roles, [&json!(true), &json!(false)]);
    let output = tahini(folder.path(), &["explain", "uper"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did you mean \"upper\"?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn explain_tells_what_rules_in_a_file_read() {
    let folder = tempfile::tempdir().unwrap();
    let rules = r#"{"default": [["copy", "a*"], ["add", "n", ["now"]],
        ["add", "o", ["hops", {"datasets": ["orders o"], "where": ["eq", "_S.k", "o.k"]}]]]}"#;
    write(folder.path(), "rules.json", rules);
    let output = tahini(folder.path(), &["explain", "rules.json"], "");
    let text = stdout(&output);
    for line in [
        "reads of the entity: a*, k",
        "reads of other datasets: orders",
        "depends on the time: $.default[1][2]",
        "depends on other datasets: $.default[2][2][1]",
    ] {
        assert!(
            text.lines().any(|found| found.trim() == line),
            "{line}: {text}"
        );
    }
}

#[test]
fn transform_joins_given_datasets_at_a_given_time() {
    let folder = tempfile::tempdir().unwrap();
    let rules = r#"{"default": [["add", "at", ["now"]],
        ["add", "orders", ["hops", {"datasets": ["orders o"], "where": ["eq", "_S._id", "o.customer"],
            "return": "o._id"}]],
        ["add", "country", ["path", "name", ["lookup-entity", "countries", "_S.country"]]]]}"#;
    write(folder.path(), "rules.json", rules);
    write(
        folder.path(),
        "orders.json",
        r#"[{"_id": "o2", "customer": "c1"}, {"_id": "o1", "customer": ["c1", "c2"]}]"#,
    );
    write(
        folder.path(),
        "countries.ndjson",
        "{\"_id\": \"NO\", \"name\": \"Norway\"}\n",
    );
    let args = [
        "transform",
        "rules.json",
        "--dataset",
        "orders=orders.json",
        "--dataset",
        "countries=countries.ndjson",
        "--now",
        "2020-01-02T03:04:05Z",
    ];
    let source = "{\"_id\": \"c1\", \"country\": \"NO\"}\n{\"_id\": \"c3\"}\n";
    let output = tahini(folder.path(), &args, source);
    assert!(output.status.success(), "{}", stderr(&output));
    let found: Vec<Json> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let at = "~t2020-01-02T03:04:05Z";
    assert_eq!(
        found,
        [
            json!({"_id": "c1", "at": at, "orders": ["o1", "o2"], "country": "Norway"}),
            json!({"_id": "c3", "at": at, "orders": [], "country": null}),
        ]
    );
    let output = tahini(folder.path(), &args[..4], source);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("\"countries\""),
        "{}",
        stderr(&output)
    );
}

#[test]
fn transform_explains_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let rules =
        r#"{"default": [["add", "loud", ["upper", "_S.name"]], ["filter", ["eq", "_S.x", 1]]]}"#;
    write(folder.path(), "rules.json", rules);
    let source = r#"{"_id": "1", "name": "ada"}"#;
    let output = tahini(
        folder.path(),
        &["transform", "rules.json", "--explain"],
        source,
    );
    let text = stdout(&output);
    for line in [
        "reads of the entity: name, x",
        "[\"upper\", \"_S.name\"] → \"ADA\"",
        "loud = \"ADA\"",
        "stopped: filtered",
    ] {
        assert!(
            text.lines().any(|found| found.trim() == line),
            "{line}: {text}"
        );
    }
    let output = tahini(
        folder.path(),
        &["transform", "rules.json", "--explain", "--json"],
        source,
    );
    let lines: Vec<Json> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["analysis"][0]["properties"], json!(["name", "x"]));
    let steps = &lines[1]["trace"][0]["entities"][0]["steps"];
    assert_eq!(
        steps[0]["changes"],
        json!([{"name": "loud", "value": "ADA"}])
    );
    assert_eq!(steps[1]["stopped"], "filtered");
    assert_eq!(lines[1]["sink"], json!([]));
}

#[test]
fn schemas_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    for (subject, root) in [("pipe", "#/$defs/pipe"), ("rules", "#/$defs/dtl.rules")] {
        let output = tahini(folder.path(), &["schema", subject], "");
        let schema: Json = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(schema["$ref"], root);
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
    }
}
