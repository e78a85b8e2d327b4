//! A project on disk, read.

use serde_json::json;

use super::*;

fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let project = Project::load(folder.path(), "test").unwrap();
    (folder, project)
}

/// Problems as (file below the project, line, message).
fn problems(folder: &Path, project: &Project) -> Vec<(String, Option<u32>, String)> {
    let listed = project.problems.iter().map(|problem| {
        let file = problem.file.as_deref().unwrap();
        let file = file.strip_prefix(folder).unwrap();
        (
            file.display().to_string(),
            problem.line,
            problem.message.clone(),
        )
    });
    listed.collect()
}

#[test]
fn the_layout_is_read_in_order() {
    let (folder, project) = project(&[
        ("pipes/b.conf.json", r#"[{"_id": "b1"}, {"_id": "b2"}]"#),
        ("pipes/sub/a.conf.json", r#"{"_id": "a"}"#),
        ("pipes/readme.md", "no configuration"),
        ("pipes/.hidden.conf.json", "{"),
        (
            "systems/s.conf.json",
            "\u{feff}// with a comment\n{\"_id\": \"s\"}",
        ),
        ("node-metadata.conf.json", r#"{"_id": "node"}"#),
        ("test-env.json", "\u{feff}{\"a\": 1.0}"),
        ("prod-env.json", "{}"),
        ("testdata/x/in.json", "[]"),
        (
            "expected/b1.test.json",
            r#"{"_id": "b1", "type": "test", "endpoint": "csv", "blacklist": ["a.b"]}"#,
        ),
        (
            "expected/other.test.json",
            r#"{"pipe": "b2", "file": "x.json", "ignore_deletes": false}"#,
        ),
    ]);
    assert_eq!(problems(folder.path(), &project), []);
    let ids: Vec<String> = project
        .inputs
        .iter()
        .map(|input| input.json.to_string())
        .collect();
    assert_eq!(
        ids,
        [
            r#"{"_id":"node"}"#,
            r#"{"_id":"s"}"#,
            r#"[{"_id":"b1"},{"_id":"b2"}]"#,
            r#"{"_id":"a"}"#
        ]
    );
    assert_eq!(
        Json::Object(project.env.clone()).to_string(),
        r#"{"a":1.0}"#
    );
    assert_eq!(project.testdata.len(), 1);
    assert_eq!(project.testdata[0].0, "in");
    let [first, second] = &project.tests[..] else {
        panic!("{:?}", project.tests)
    };
    assert_eq!(
        (&*first.name, &*first.pipe, &*first.endpoint),
        ("b1", "b1", "csv")
    );
    assert_eq!(first.file, folder.path().join("expected/b1.json"));
    assert_eq!(first.blacklist, ["a.b"]);
    assert_eq!(first.fields_to_sort_by, ["_id"]);
    assert!(first.ignore_deletes && !first.ignore);
    assert_eq!((&*second.name, &*second.pipe), ("other", "b2"));
    assert_eq!(second.file, folder.path().join("expected/x.json"));
    assert!(!second.ignore_deletes);
}

#[test]
fn what_is_wrong_with_files_is_listed_and_the_rest_is_read() {
    let (folder, project) = project(&[
        ("pipes/a.conf.json", "{\n  \"_id\" \"a\"\n}"),
        ("pipes/b.conf.json", r#"{"_id": "b", "_id": "b"}"#),
        ("test-env.json", "[]"),
        (
            "expected/a.test.json",
            r#"{"ignore": "yes", "blacklist": 1}"#,
        ),
    ]);
    let found = problems(folder.path(), &project);
    let place: Vec<(&str, Option<u32>)> = found
        .iter()
        .map(|(file, line, _)| (&**file, *line))
        .collect();
    assert_eq!(
        place,
        [
            ("pipes/a.conf.json", Some(2)),
            ("pipes/b.conf.json", Some(1)),
            ("test-env.json", None),
            ("expected/a.test.json", Some(1)),
            ("expected/a.test.json", Some(1)),
        ],
        "{found:?}"
    );
    assert_eq!(project.inputs.len(), 1);
}

#[test]
fn a_profile_without_env_file_is_told_only_where_others_have_one() {
    let (_folder, without) = project(&[("pipes/a.conf.json", r#"{"_id": "a"}"#)]);
    assert_eq!(without.problems, []);
    let (_folder, with) = project(&[("prod-env.json", "{}"), ("dev-env.json", "{}")]);
    let problem = &with.problems[0];
    assert!(!problem.is_error());
    assert_eq!(
        problem.help.as_deref(),
        Some("the project has profiles dev, prod")
    );
}

#[test]
fn what_looks_like_configuration_and_is_not_read_is_told() {
    let (folder, empty) = project(&[]);
    let found = problems(folder.path(), &empty);
    assert!(found[0].2.contains("found none"), "{found:?}");
    let (folder, plain) = project(&[
        ("pipes/plain.json", r#"{"_id": "p", "type": "pipe"}"#),
        ("pipes/readme.md", "words"),
        ("systems/sub/s.conf.json", r#"{"_id": "s"}"#),
    ]);
    let found = problems(folder.path(), &plain);
    let [(file, _, message)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(file, "pipes/plain.json");
    assert!(message.contains("is not read"), "{message}");
    let help = plain.problems[0].help.as_deref();
    assert_eq!(help, Some("rename it to plain.conf.json"));
    assert!(!plain.problems[0].is_error());
}

#[test]
fn misspelt_options_of_tests_are_told() {
    let (folder, project) = project(&[
        ("pipes/a.conf.json", r#"{"_id": "a"}"#),
        (
            "expected/a.test.json",
            "{\n  \"blaclist\": [\"x\"], \"comment\": 1 }",
        ),
        ("expected/b.test.json", r#"{"stage": "sinkk"}"#),
    ]);
    let found: Vec<String> = project.problems.iter().map(ToString::to_string).collect();
    let expected =
        |file: &str, words: &str| format!("{}{words}", folder.path().join(file).display());
    assert_eq!(
        found,
        [
            expected(
                "expected/a.test.json",
                ":2:3: warning: there is no property \"blaclist\" here; it is ignored \
                 ($.blaclist)\n  help: did you mean \"blacklist\"?"
            ),
            expected(
                "expected/b.test.json",
                ":1:11: error: expected one of source, before-transforms, before-transform, \
                 after-transforms, after-transform, sink, found \"sinkk\" ($.stage)\n  help: did \
                 you mean \"sink\"?"
            ),
        ]
    );
    let names: Vec<&str> = project.tests.iter().map(|test| &*test.name).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn a_missing_folder_is_no_project() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("gone");
    let error = Project::load(&missing, "test").unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn a_file_of_secrets_never_shows_what_it_says() {
    use crate::secrets::SecretSource;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets.json");
    fs::write(
        &file,
        json!({"token": "t", "crm": {"token": "u"}}).to_string(),
    )
    .unwrap();
    let secrets = read_secrets(&file).unwrap();
    assert_eq!(secrets.get(Some("crm"), "token").as_deref(), Some("u"));
    fs::write(&file, "{\"token\": \"hush\"\n \"b\": \"hush\"}").unwrap();
    let error = read_secrets(&file).unwrap_err().to_string();
    assert!(!error.contains("hush"), "{error}");
}
