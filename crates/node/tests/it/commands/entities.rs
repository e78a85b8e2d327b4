//! `tahini entities`: what a dataset holds, and what a pipe would give.

use serde_json::{Value, json};
use tahini_node::commands::open_store;

use super::{Project, copy, embedded};

/// A pipe that first writes a and b, and then another version of b.
fn project() -> Project {
    let pipe = |b: i64| {
        let mut pipe = embedded("p", "");
        pipe["source"]["entities"] = json!([{"_id": "a", "x": 1}, {"_id": "b", "x": b}]);
        pipe
    };
    let project = Project::of(&[pipe(1), copy("q", "p")]);
    assert_eq!(project.call(&["run", "."]).code, 0);
    project.write("pipes/p.conf.json", &pipe(2).to_string());
    assert_eq!(project.call(&["run", ".", "--pipe", "p"]).code, 0);
    project
}

/// The id, the value and the version of each entity printed.
fn printed(project: &Project, more: &[&str]) -> Vec<(String, i64, i64)> {
    let mut args = vec!["entities"];
    args.extend(more);
    let said = project.call(&args);
    assert_eq!(said.code, 0, "{more:?}: {}", said.err);
    let entities = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |entity: &Value, name: &str| entity[name].as_i64().unwrap_or(-1);
    entities
        .map(|one| {
            (
                one["_id"].as_str().unwrap().to_owned(),
                number(&one, "x"),
                number(&one, "_updated"),
            )
        })
        .collect()
}

fn row(id: &str, x: i64, updated: i64) -> (String, i64, i64) {
    (id.to_owned(), x, updated)
}

#[test]
fn the_latest_versions_or_all_of_them() {
    let project = project();
    assert_eq!(printed(&project, &["p"]), [row("a", 1, 0), row("b", 2, 2)]);
    assert_eq!(
        printed(&project, &["p", "--history"]),
        [row("a", 1, 0), row("b", 1, 1), row("b", 2, 2)]
    );
}

#[test]
fn only_what_came_after_an_offset_and_only_so_many() {
    let project = project();
    assert_eq!(printed(&project, &["p", "--since", "0"]), [row("b", 2, 2)]);
    assert_eq!(
        printed(
            &project,
            &["p", "--history", "--since", "0", "--limit", "1"]
        ),
        [row("b", 1, 1)]
    );
    assert_eq!(printed(&project, &["p", "--limit", "0"]), []);
    assert_eq!(
        printed(&project, &["q", "--project", ".", "--since", "1"]),
        [row("b", 2, 2)]
    );
    let said = project.call(&["entities", "p", "--since", "x"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("expected --since to be a whole number"),
        "{}",
        said.err
    );
}

#[test]
fn the_stages_of_a_pipe() {
    let rules = json!([
        ["filter", ["eq", "_S.x", 1]],
        ["copy", "*"],
        ["add", "seen", true]
    ]);
    let mut pipe = embedded("p", "");
    pipe["source"]["entities"] = json!([{"_id": "a", "x": 1}, {"_id": "b", "x": 2}]);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": rules}});
    let project = Project::of(&[pipe]);
    let of = |stage: &str| {
        let said = project.call(&["entities", "p", "--project", ".", "--stage", stage]);
        let seen = said.out.matches("\"seen\":true").count();
        (said.code, said.out.lines().count(), seen, said.err)
    };
    for (stage, expected) in [
        ("source", (0, 2, 0)),
        ("before-transforms", (0, 2, 0)),
        ("sink", (0, 1, 1)),
    ] {
        let (code, lines, seen, err) = of(stage);
        assert_eq!((code, lines, seen), expected, "{stage}: {err}");
    }
    let (code, _, _, err) = of("sinkk");
    assert_eq!(code, 1);
    assert!(err.contains("expected --stage source"), "{err}");
}

#[test]
fn a_folder_that_a_node_holds_is_said_to_be_asked_there() {
    let project = project();
    let store = open_store(&project.0.path().join("tahini-data")).unwrap();
    for (args, path) in [
        (&["entities", "p"][..], "GET /api/datasets/p/entities"),
        (
            &["entities", "q", "--project", "."],
            "GET /api/pipes/q/entities",
        ),
        (&["trace", "q", "b"], "GET /api/pipes/q/entities"),
    ] {
        let said = project.call(args);
        assert_eq!(said.code, 1, "{args:?}");
        assert!(said.err.contains("in use"), "{}", said.err);
        assert!(said.err.contains(path), "{path} in {}", said.err);
    }
    store.close().unwrap();
}

#[test]
fn erased_entities_are_gone() {
    let project = project();
    let said = project.call(&["erase", "p", "b", "nobody"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out, "removed 1 of 2 entities with 2 versions from p\n");
    assert_eq!(printed(&project, &["p", "--history"]), [row("a", 1, 0)]);
    let said = project.call(&["erase", "none", "b"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("expected a dataset \"none\""),
        "{}",
        said.err
    );
    let _node = open_store(&project.0.path().join("tahini-data")).unwrap();
    let said = project.call(&["erase", "p", "a"]);
    assert!(
        said.err
            .contains("DELETE /api/datasets/p/entity?entity_id="),
        "{}",
        said.err
    );
}
