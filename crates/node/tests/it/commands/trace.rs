//! `tahini trace`: why an entity was written, or was not.

use serde_json::{Value, json};

use super::{Project, Said, embedded};

/// A pipe of one entity, whose rules greet and keep the young out.
fn greets(name: &str, born: i64) -> Value {
    let rules = json!([
        ["filter", ["lt", "_S.born", 2000]],
        ["copy", "_id"],
        ["add", "greeting", ["concat", "Hello, ", "_S.name"]],
        ["add", "kind", "human"],
    ]);
    let mut pipe = embedded("p", "");
    pipe["source"]["entities"] = json!([{"_id": "2", "name": name, "born": born}]);
    pipe["transform"] = json!({"type": "dtl", "rules": {"default": rules}});
    pipe
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| step["step"] == name);
    found.unwrap_or_else(|| panic!("no step {name} in {report}"))
}

fn trace(project: &Project) -> (Value, Said) {
    let report = project.call(&["trace", "p", "2", "--json"]);
    assert_eq!(report.code, 0, "{}", report.err);
    (report.json(), project.call(&["trace", "p", "2"]))
}

#[test]
fn what_is_stored_tells_why_and_when_it_was_written() {
    let project = Project::of(&[greets("Grace", 1906)]);
    let (report, said) = trace(&project);
    let sink = step(&report, "sink");
    assert_eq!(sink["results"][0]["verdict"], "new", "{sink}");
    assert!(sink["results"][0].get("stored").is_none());
    assert!(said.out.contains("tells of no run yet"), "{}", said.out);

    assert_eq!(project.call(&["run", "."]).code, 0);
    let sink = step(&trace(&project).0, "sink").clone();
    let first = &sink["results"][0]["stored"];
    assert_eq!(sink["results"][0]["verdict"], "unchanged");
    assert_eq!(
        (&first["latest"]["_updated"], &first["previous"]),
        (&json!(0), &Value::Null)
    );

    project.write(
        "pipes/p.conf.json",
        &greets("Rear Admiral Hopper", 1906).to_string(),
    );
    assert_eq!(project.call(&["run", "."]).code, 0);
    let (report, said) = trace(&project);
    let sink = step(&report, "sink");
    let stored = &sink["results"][0]["stored"];
    assert_eq!(sink["results"][0]["verdict"], "unchanged");
    assert_eq!(stored["latest"]["_updated"], 1);
    assert_eq!(stored["latest"]["_hash"], sink["results"][0]["hash"]);
    assert_eq!(stored["previous"]["_hash"], first["latest"]["_hash"]);
    assert_ne!(stored["previous"]["_hash"], stored["latest"]["_hash"]);
    assert_eq!(stored["differs"], json!(["greeting"]));
    assert_eq!(stored["run"]["success"], true);
    let (begun, ts) = (
        stored["run"]["start_time"].as_str().unwrap(),
        &stored["latest"]["_ts"],
    );
    let begun: jiff::Timestamp = begun.parse().unwrap();
    assert!(begun.as_microsecond() <= ts.as_i64().unwrap());
    for words in [
        "stored as the pipe gives it",
        "version 1 was written at ",
        "by the full run that began at ",
        "because it was not version 0: hash ",
        "different in greeting",
    ] {
        assert!(said.out.contains(words), "{words} in {}", said.out);
    }
}

#[test]
fn what_the_next_run_would_do_is_told_beside_what_is_stored() {
    let project = Project::of(&[greets("Grace", 1906)]);
    assert_eq!(project.call(&["run", "."]).code, 0);
    project.write("pipes/p.conf.json", &greets("Ada", 1815).to_string());
    let (report, said) = trace(&project);
    let result = &step(&report, "sink")["results"][0];
    assert_eq!(result["verdict"], "changed");
    assert_ne!(result["hash"], result["stored"]["latest"]["_hash"]);
    assert!(
        said.out.contains("different in greeting; a run writes it"),
        "{}",
        said.out
    );

    project.write("pipes/p.conf.json", &greets("Kid", 2020).to_string());
    let (report, said) = trace(&project);
    assert_eq!(step(&report, "sink")["results"][0]["verdict"], "filtered");
    assert!(
        said.out.contains("a run deletes what is stored"),
        "{}",
        said.out
    );
    assert_eq!(project.call(&["run", "."]).code, 0);
    let (_, said) = trace(&project);
    assert!(
        said.out.contains("filtered, and stored as deleted"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("different since it is deleted now"),
        "{}",
        said.out
    );
}

/// The rules fail, or with `sound` they do not.
fn fails(sound: bool) -> Value {
    let mut pipe = greets("Grace", 1906);
    let fail = json!(["add", "_id", 5]);
    let add = json!(["add", "greeting", "Hello"]);
    let rules = json!([["copy", "_id"], if sound { add } else { fail }]);
    pipe["transform"]["rules"]["default"] = rules;
    pipe["pump"] = json!({
        "max_consecutive_write_errors": 10, "max_write_errors_in_retry_dataset": 10,
        "write_retry_delay": 0, "max_retries_per_entity": 1, "batch_retries": 0,
    });
    pipe
}

#[test]
fn an_entity_that_was_set_aside_is_held_back_with_the_error() {
    let project = Project::of(&[fails(false)]);
    let said = project.call(&["run", ".", "--json"]);
    assert_eq!(said.json()["runs"][0]["failed"], 1, "{}", said.out);
    let (report, said) = trace(&project);
    let held = &step(&report, "held back")["results"][0];
    assert_eq!(
        (&held["place"], &held["dead"]),
        (&json!("transforms"), &json!(false)),
        "{held}"
    );
    assert!(
        held["error"]
            .as_str()
            .unwrap()
            .contains("_id that is a string"),
        "{held}"
    );
    assert!(
        said.out.contains(
            "held back:\n  set aside, and tried again in the next run: failed in the transforms at "
        ),
        "{}",
        said.out
    );
    assert_eq!(
        project.call(&["run", ".", "--json"]).json()["runs"][0]["failed"],
        1
    );
    let (report, said) = trace(&project);
    let held = &step(&report, "held back")["results"][0];
    assert_eq!(
        (&held["attempts"], &held["dead"]),
        (&json!(1), &json!(true)),
        "{held}"
    );
    assert!(
        said.out.contains("given up, until another version comes"),
        "{}",
        said.out
    );
    // Another version of the entity, which gets through.
    let mut sound = fails(true);
    sound["source"]["entities"][0]["born"] = json!(1907);
    project.write("pipes/p.conf.json", &sound.to_string());
    let (_, said) = trace(&project);
    assert!(
        said.out.contains("another version than this one failed"),
        "{}",
        said.out
    );
    assert_eq!(project.call(&["run", "."]).code, 0);
    assert!(!trace(&project).1.out.contains("held back"));
}

#[test]
fn of_an_outside_sink_what_is_known_is_told() {
    let mut pipe = greets("Grace", 1906);
    pipe["sink"] = json!({"type": "json", "system": "away", "url": "x"});
    let project = Project::of(&[pipe]);
    let away = json!({"_id": "away", "type": "system:url", "base_url": "http://127.0.0.1:9/"});
    project.write("systems/away.conf.json", &away.to_string());
    assert_eq!(project.call(&["run", "."]).code, 1);
    let (report, said) = trace(&project);
    assert_eq!(step(&report, "sink")["results"][0]["verdict"], "handed on");
    for words in [
        "handed to the json sink with hash ",
        "the last run began at ",
        "failed: ",
    ] {
        assert!(said.out.contains(words), "{words} in {}", said.out);
    }
}

#[test]
fn an_entity_that_the_source_has_no_more_may_still_be_stored() {
    let project = Project::of(&[greets("Grace", 1906)]);
    assert_eq!(project.call(&["run", "."]).code, 0);
    let mut without = greets("Grace", 1906);
    without["source"]["entities"] = json!([{"_id": "3", "name": "Ada", "born": 1815}]);
    project.write("pipes/p.conf.json", &without.to_string());
    assert_eq!(project.call(&["run", "."]).code, 0);
    let (report, said) = trace(&project);
    assert_eq!(
        step(&report, "stored")["results"][0]["stored"]["latest"]["_deleted"],
        true
    );
    assert!(
        said.out.contains("the source gives no entity"),
        "{}",
        said.out
    );
    assert!(said.out.contains(", deleted\n"), "{}", said.out);
}
