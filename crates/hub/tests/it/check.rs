//! How a project's tests compare what is expected with what is found.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};
use tahini_hub::check::{Checked, check};
use tahini_hub::{Cancel, Project};

use crate::world::World;

/// A pipe whose dataset holds `found`, and a test that expects `expected` with these options.
fn compare(found: Vec<Json>, expected: &Json, options: &Json) -> Checked {
    let folder = project(&expected.to_string(), options);
    checked(found, folder.path(), false)
}

fn project(expected: &str, options: &Json) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("expected")).unwrap();
    fs::write(folder.path().join("expected/out.json"), expected).unwrap();
    fs::write(
        folder.path().join("expected/out.test.json"),
        options.to_string(),
    )
    .unwrap();
    folder
}

fn checked(found: Vec<Json>, folder: &Path, update: bool) -> Checked {
    let mut world = World::new();
    world.pipe(json!({"_id": "in"}));
    world.pipe(json!({"_id": "out", "source": {"type": "dataset", "dataset": "in"}}));
    let (gone, there): (Vec<Json>, Vec<Json>) =
        found.into_iter().partition(|e| e["_deleted"] == true);
    let before = gone.iter().cloned().map(|mut entity| {
        entity["_deleted"] = json!(false);
        entity
    });
    world.records("in", before.chain(there.clone()).collect());
    world.succeed("in");
    world.records("in", there);
    world.succeed("in");
    let project = Project::load(folder, "test").unwrap();
    check(&project.tests[0], world.hub(), update, &Cancel::new())
}

#[test]
fn each_rule_of_comparison() {
    let cases: Json = serde_json::from_str(include_str!("../data/comparison.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let (name, passes) = (&case["case"], case["passes"] == true);
        let found = case["found"].as_array().unwrap().clone();
        let checked = compare(found, &case["expected"], &case["options"]);
        assert_eq!(checked.passed, passes, "{name}: {}", checked.message);
        assert_eq!(checked.message.is_empty(), passes, "{name}");
    }
}

#[test]
fn the_place_to_read_from_may_stand_in_quotes_as_in_an_address() {
    for since in [json!(0), json!("0")] {
        let found = vec![json!({"_id": "a"}), json!({"_id": "b"})];
        let options = json!({"parameters": {"since": since}});
        let checked = compare(found, &json!([{"_id": "b"}]), &options);
        assert!(checked.passed, "{since}: {}", checked.message);
    }
}

#[test]
fn a_difference_shows_the_lines_that_differ_and_not_the_others() {
    let found = vec![json!({"_id": "a", "name": "Ada", "same": 1})];
    let checked = compare(
        found,
        &json!([{"_id": "a", "name": "Bob", "same": 1}]),
        &json!({}),
    );
    assert!(
        checked.message.contains("-     \"name\": \"Bob\""),
        "{}",
        checked.message
    );
    assert!(
        checked.message.contains("+     \"name\": \"Ada\""),
        "{}",
        checked.message
    );
    assert!(!checked.message.contains("same"), "{}", checked.message);
}

#[test]
fn update_writes_what_was_found_and_then_the_test_passes() {
    let found = vec![
        json!({"_id": "b", "v": 1}),
        json!({"_id": "a", "secret": 7}),
    ];
    let folder = project("[]", &json!({"blacklist": ["secret"]}));
    assert!(!checked(found.clone(), folder.path(), false).passed);
    assert!(checked(found.clone(), folder.path(), true).passed);
    let text = fs::read_to_string(folder.path().join("expected/out.json")).unwrap();
    let written: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(written, json!([{"_id": "a"}, {"_id": "b", "v": 1}]));
    assert!(checked(found, folder.path(), false).passed);
}

/// A source that gives changes gives an entity more than once, and in the end that it is deleted.
#[test]
fn what_update_wrote_of_one_that_lives_and_goes_passes() {
    let mut world = World::new();
    let entities = json!([{"_id": "x", "v": 1}, {"_id": "x", "_deleted": true},
        {"_id": "y", "_deleted": true}]);
    world.pipe(json!({"_id": "out", "source": {"type": "embedded", "entities": entities}}));
    let folder = project("[]", &json!({}));
    let project = Project::load(folder.path(), "test").unwrap();
    for update in [true, false] {
        let checked = check(&project.tests[0], world.hub(), update, &Cancel::new());
        assert!(checked.passed, "{}", checked.message);
    }
    let text = fs::read_to_string(folder.path().join("expected/out.json")).unwrap();
    let written: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(
        written,
        json!([{"_deleted": true, "_id": "x"}, {"_id": "x", "v": 1}])
    );
}

#[test]
fn a_missing_expected_file_names_itself_and_the_way_out() {
    let folder = project("[]", &json!({"file": "other.json"}));
    let checked = checked(Vec::new(), folder.path(), false);
    assert!(!checked.passed);
    assert!(
        checked.message.contains("other.json") && checked.message.contains("--update"),
        "{}",
        checked.message
    );
}

#[test]
fn a_test_of_no_pipe_names_it() {
    let folder = project("[]", &json!({"pipe": "nobody"}));
    let checked = checked(Vec::new(), folder.path(), false);
    assert!(
        checked.message.contains("\"nobody\""),
        "{}",
        checked.message
    );
}
