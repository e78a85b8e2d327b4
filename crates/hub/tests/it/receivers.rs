//! The receiving side of JSON push.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::receiver::{PostError, Posted, Push, receive};
use tahini_hub::sink::RunKind;

use crate::world::World;

fn endpoint(mut world: World) -> World {
    world.pipe(json!({
        "_id": "myendpoint",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "dataset": "mydataset"},
    }));
    world
}

/// Parameters as they stand in a URL.
fn push(query: &str) -> Push {
    let mut push = Push::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        let text = Some(value.to_owned());
        match name {
            "sequence_id" => push.sequence_id = text,
            "request_id" => push.request_id = text,
            "previous_request_id" => push.previous_request_id = text,
            "is_full" => push.is_full = value == "true",
            "is_first" => push.is_first = value == "true",
            "is_last" => push.is_last = value == "true",
            other => panic!("{other}"),
        }
    }
    push
}

fn post(world: &World, query: &str, body: &Json) -> Result<Posted, PostError> {
    let live = world.live_pipe("myendpoint");
    receive(
        world.hub(),
        &live,
        &push(query),
        body.to_string().as_bytes(),
    )
}

/// Entities of ids, in a body.
fn ids(ids: &[&str]) -> Json {
    ids.iter().map(|id| json!({"_id": id})).collect()
}

fn conflict(answer: Result<Posted, PostError>) -> String {
    match answer {
        Err(PostError::Conflict(words)) => words,
        other => panic!("expected a conflict, found {other:?}"),
    }
}

/// The dataset as (name, _id, _deleted, _updated, _previous).
fn versions(world: &World) -> Vec<Json> {
    let versions = world.versions("mydataset", true, Fields::ALL);
    versions
        .iter()
        .map(|v| {
            json!([
                v["name"],
                v["_id"],
                v["_deleted"],
                v["_updated"],
                v["_previous"]
            ])
        })
        .collect()
}

fn request(world: &World, query: &str, body: Json, changes: &[Json], known: &mut Vec<Json>) {
    post(world, query, &body).unwrap();
    known.extend_from_slice(changes);
    assert_eq!(&versions(world), known, "after {query}");
}

#[test]
fn the_documented_examples_give_the_documented_datasets() {
    for world in World::both() {
        let mut world = endpoint(world);
        let mut known = Vec::new();
        let named = |id: &str, name: &str| json!({"_id": id, "name": name});
        let (a, b, d) = (named("a", "A"), named("b", "B"), named("d", "D"));
        // Example 0.
        let first = [
            json!(["A", "a", false, 0, null]),
            json!(["B", "b", false, 1, null]),
        ];
        request(&world, "", json!([a, b]), &first, &mut known);
        // Example 1.
        let query = "is_full=true&sequence_id=1&request_id=1&is_first=true";
        request(&world, query, json!([b]), &[], &mut known);
        world.restart_if_on_disk();
        let query = "is_full=true&sequence_id=1&request_id=2&previous_request_id=1";
        let updated = json!([named("a", "A (updated)"), named("c", "C")]);
        let changes = [
            json!(["A (updated)", "a", false, 2, 0]),
            json!(["C", "c", false, 3, null]),
        ];
        request(&world, query, updated, &changes, &mut known);
        world.restart_if_on_disk();
        let query = "is_full=true&sequence_id=1&request_id=3&previous_request_id=2&is_last=true";
        request(
            &world,
            query,
            json!([d]),
            &[json!(["D", "d", false, 4, null])],
            &mut known,
        );
        // Example 2.
        let query = "is_full=true&sequence_id=2&request_id=1&is_first=true";
        request(
            &world,
            query,
            json!([a, b]),
            &[json!(["A", "a", false, 5, 2])],
            &mut known,
        );
        world.restart_if_on_disk();
        let query = "is_full=true&sequence_id=2&request_id=2&previous_request_id=1&is_last=true";
        request(
            &world,
            query,
            json!([d]),
            &[json!(["C", "c", true, 6, 3])],
            &mut known,
        );
    }
}

#[test]
fn a_single_object_is_taken_as_a_list_of_one() {
    let world = endpoint(World::new());
    let posted = post(&world, "", &json!({"_id": "a"})).unwrap();
    assert_eq!((posted.read, posted.changed), (1, 1));
    assert!(posted.written.is_none());
    assert_eq!(world.living("mydataset"), ["a"]);
}

#[test]
fn an_incremental_request_ignores_the_parameters_and_the_active_sequence() {
    let world = endpoint(World::new());
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_first=true",
        &ids(&["a"]),
    )
    .unwrap();
    for query in [
        "sequence_id=1&request_id=9&previous_request_id=8",
        "is_full=false&sequence_id=2&request_id=1&is_first=true",
        "sequence_id=1&request_id=1&is_last=true",
    ] {
        post(&world, query, &ids(&["b"])).unwrap();
    }
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=2&previous_request_id=1&is_last=true",
        &ids(&["c"]),
    )
    .unwrap();
    assert_eq!(world.living("mydataset"), ["a", "b", "c"]);
}

#[test]
fn what_comes_incrementally_in_the_middle_of_a_full_sequence_is_not_deleted() {
    for world in World::both() {
        let mut world = endpoint(world);
        post(&world, "", &ids(&["old", "touched"])).unwrap();
        post(
            &world,
            "is_full=true&sequence_id=1&request_id=1&is_first=true",
            &ids(&["a"]),
        )
        .unwrap();
        // One is new, the other was there and does not change.
        post(&world, "", &ids(&["late", "touched"])).unwrap();
        world.restart_if_on_disk();
        post(
            &world,
            "is_full=true&sequence_id=1&request_id=2&previous_request_id=1&is_last=true",
            &json!([]),
        )
        .unwrap();
        assert_eq!(world.living("mydataset"), ["a", "late", "touched"]);
        assert_eq!(world.deleted("mydataset"), ["old"]);
    }
}

#[test]
fn what_a_full_sequence_deletes_is_marked_where_that_is_wanted() {
    for mut world in World::both() {
        world.pipe(json!({
            "_id": "myendpoint",
            "source": {"type": "http_endpoint"},
            "sink": {"type": "dataset", "dataset": "mydataset", "mark_deletion_tracked": true},
        }));
        post(
            &world,
            "",
            &json!([{"_id": "a"}, {"_id": "b", "name": "Bo"}, {"_id": "c"}]),
        )
        .unwrap();
        // c is deleted by the poster, who marks nothing.
        post(&world, "", &json!([{"_id": "c", "_deleted": true}])).unwrap();
        post(
            &world,
            "is_full=true&sequence_id=1&request_id=1&is_first=true&is_last=true",
            &ids(&["a"]),
        )
        .unwrap();
        let latest = world.versions("mydataset", false, Fields::CONTENT);
        let gone: Vec<&Json> = latest
            .iter()
            .filter(|entity| entity["_deleted"] == true)
            .collect();
        let expected = [
            json!({"_id": "c", "_deleted": true}),
            json!({"name": "Bo", "$deletion_tracked": true, "_id": "b", "_deleted": true}),
        ];
        assert_eq!(gone, expected.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_previous_request_that_is_not_the_last_one_is_a_conflict() {
    let world = endpoint(World::new());
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_first=true",
        &ids(&["a"]),
    )
    .unwrap();
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=2&previous_request_id=1",
        &ids(&["b"]),
    )
    .unwrap();
    for query in [
        "is_full=true&sequence_id=1&request_id=4&previous_request_id=3",
        "is_full=true&sequence_id=1&request_id=3&previous_request_id=1",
        "is_full=true&sequence_id=1&request_id=3",
    ] {
        let words = conflict(post(&world, query, &ids(&["never"])));
        assert!(words.contains("\"2\""), "{words}");
    }
    assert_eq!(
        world.living("mydataset"),
        ["a", "b"],
        "a conflict writes nothing"
    );
    // The sequence itself is not harmed.
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=3&previous_request_id=2&is_last=true",
        &ids(&["c"]),
    )
    .unwrap();
}

#[test]
fn a_second_first_request_of_the_active_sequence_is_a_conflict() {
    let world = endpoint(World::new());
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_first=true",
        &ids(&["a"]),
    )
    .unwrap();
    let again = "is_full=true&sequence_id=1&request_id=2&previous_request_id=1&is_first=true";
    conflict(post(&world, again, &ids(&["b"])));
}

#[test]
fn the_middle_of_a_sequence_that_is_not_active_is_a_conflict() {
    let world = endpoint(World::new());
    let middle = "is_full=true&sequence_id=7&request_id=2&previous_request_id=1";
    conflict(post(&world, middle, &ids(&["a"])));
    post(
        &world,
        "is_full=true&sequence_id=7&request_id=1&is_first=true&is_last=true",
        &ids(&["a"]),
    )
    .unwrap();
    conflict(post(&world, middle, &ids(&["b"])));
}

#[test]
fn a_new_sequence_replaces_the_active_one_which_deletes_nothing() {
    for world in World::both() {
        let mut world = endpoint(world);
        post(&world, "", &ids(&["x", "y", "z"])).unwrap();
        post(
            &world,
            "is_full=true&sequence_id=1&request_id=1&is_first=true",
            &ids(&["x"]),
        )
        .unwrap();
        world.restart_if_on_disk();
        post(
            &world,
            "is_full=true&sequence_id=2&request_id=1&is_first=true",
            &ids(&["y"]),
        )
        .unwrap();
        assert_eq!(world.living("mydataset"), ["x", "y", "z"]);
        let late = "is_full=true&sequence_id=1&request_id=2&previous_request_id=1&is_last=true";
        conflict(post(&world, late, &ids(&["z"])));
        assert_eq!(world.living("mydataset"), ["x", "y", "z"]);
        // What the abandoned one saw does not count for the new one.
        post(
            &world,
            "is_full=true&sequence_id=2&request_id=2&previous_request_id=1&is_last=true",
            &ids(&["z"]),
        )
        .unwrap();
        assert_eq!(world.living("mydataset"), ["y", "z"]);
    }
}

#[test]
fn a_repeated_last_request_is_answered_and_does_nothing() {
    for world in World::both() {
        let mut world = endpoint(world);
        let requests = [
            (
                "is_full=true&sequence_id=1&request_id=1&is_first=true",
                ids(&["a"]),
            ),
            (
                "is_full=true&sequence_id=1&request_id=2&previous_request_id=1",
                ids(&["b"]),
            ),
            (
                "is_full=true&sequence_id=1&request_id=3&previous_request_id=2&is_last=true",
                ids(&["c"]),
            ),
        ];
        for (query, body) in &requests {
            post(&world, query, body).unwrap();
            world.restart_if_on_disk();
            let before = world.version_count("mydataset");
            assert_eq!(post(&world, query, body).unwrap().changed, 0, "{query}");
            assert_eq!(world.version_count("mydataset"), before);
        }
        // Also when something came in between, which a repeated end must not delete.
        post(&world, "", &ids(&["d"])).unwrap();
        post(&world, requests[2].0, &requests[2].1).unwrap();
        assert_eq!(world.living("mydataset"), ["a", "b", "c", "d"]);
    }
}

#[test]
fn a_sequence_that_has_ended_can_begin_anew() {
    for world in World::both() {
        let mut world = endpoint(world);
        let only = "is_full=true&sequence_id=1&request_id=1&is_first=true&is_last=true";
        post(&world, only, &ids(&["a", "b"])).unwrap();
        world.restart_if_on_disk();
        assert_eq!(post(&world, only, &ids(&["a", "b"])).unwrap().changed, 0);
        // The same parameters and other entities: another whole, not the same request again.
        assert_eq!(post(&world, only, &ids(&["c"])).unwrap().changed, 3);
        assert_eq!(world.living("mydataset"), ["c"]);
    }
}

#[test]
fn the_only_request_of_a_sequence_again_does_nothing() {
    for world in World::both() {
        let mut world = endpoint(world);
        let only = "is_full=true&sequence_id=1&request_id=1&is_first=true&is_last=true";
        post(&world, only, &ids(&["a", "b"])).unwrap();
        // Somebody else posted before its answer was found to be lost.
        post(&world, "", &ids(&["z"])).unwrap();
        world.restart_if_on_disk();
        assert_eq!(post(&world, only, &ids(&["a", "b"])).unwrap().changed, 0);
        assert_eq!(world.living("mydataset"), ["a", "b", "z"]);
    }
}

#[test]
fn one_empty_request_that_is_first_and_last_deletes_all() {
    let world = endpoint(World::new());
    post(&world, "", &ids(&["a", "b"])).unwrap();
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_first=true&is_last=true",
        &json!([]),
    )
    .unwrap();
    assert_eq!(
        (
            world.living("mydataset").len(),
            world.deleted("mydataset").len()
        ),
        (0, 2)
    );
}

#[test]
fn without_deletion_tracking_a_full_sequence_deletes_nothing() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "myendpoint",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "dataset": "mydataset", "deletion_tracking": false},
    }));
    post(&world, "", &ids(&["a"])).unwrap();
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_first=true&is_last=true",
        &json!([]),
    )
    .unwrap();
    assert_eq!(world.living("mydataset"), ["a"]);
}

#[test]
fn an_invalid_body_writes_nothing_of_the_request() {
    let world = endpoint(World::new());
    let live = world.live_pipe("myendpoint");
    for body in [
        r#"[{"_id": "a"}, {"_id": 7}]"#,
        r#"[{"_id": "a"}, {"name": "nobody"}]"#,
        r#"[{"_id": "a"}, {"_id": ""}]"#,
        r#"[{"_id": "a"}"#,
        r#"[{"_id": "a"},"#,
    ] {
        let answer = receive(world.hub(), &live, &Push::default(), body.as_bytes());
        assert!(
            matches!(answer, Err(PostError::Body(_))),
            "{body}: {answer:?}"
        );
        assert_eq!(world.version_count("mydataset"), 0, "{body}");
    }
}

#[test]
fn the_dataset_of_a_receiver_is_populated_from_the_start() {
    for (populate, expected) in [(true, true), (false, false)] {
        let mut world = World::new();
        world.pipe(json!({
            "_id": "myendpoint",
            "source": {"type": "http_endpoint", "auto_populate_dataset": populate},
        }));
        let dataset = world.hub().world.store.find("myendpoint").unwrap();
        let populated = dataset.is_some_and(|dataset| dataset.snapshot().unwrap().head().populated);
        assert_eq!(populated, expected);
    }
}

#[test]
fn a_receivers_dataset_that_was_deleted_is_populated_again() {
    for (populate, expected) in [(true, true), (false, false)] {
        let mut world = World::new();
        world.pipe(json!({
            "_id": "myendpoint",
            "source": {"type": "http_endpoint", "auto_populate_dataset": populate},
        }));
        let store = &world.hub().world.store;
        store.remove("myendpoint").unwrap();
        let live = world.live_pipe("myendpoint");
        receive(
            world.hub(),
            &live,
            &Push::default(),
            br#"[{"_id": "a"}]"#.as_slice(),
        )
        .unwrap();
        let dataset = store.open("myendpoint", false).unwrap();
        assert_eq!(dataset.snapshot().unwrap().head().populated, expected);
    }
}

#[test]
fn a_full_sequence_needs_an_id_and_a_first_request() {
    let world = endpoint(World::new());
    for query in [
        "is_full=true&request_id=1&is_first=true&is_last=true",
        "is_full=true&sequence_id=&request_id=1&is_first=true&is_last=true",
    ] {
        match post(&world, query, &ids(&["a"])) {
            Err(PostError::Body(words)) => assert!(words.contains("`sequence_id`"), "{words}"),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    let words = conflict(post(
        &world,
        "is_full=true&sequence_id=1&request_id=1&is_last=true",
        &ids(&["a"]),
    ));
    assert!(words.contains("is_first"), "{words}");
    assert_eq!(world.version_count("mydataset"), 0);
    // An incremental request needs neither.
    post(&world, "", &ids(&["a"])).unwrap();
}

/// A receiver whose sink is outside.
fn outside() -> World {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "myendpoint",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "scripted"},
    }));
    world
}

/// The runs of the sink: how each was begun, and how it ended.
fn runs(world: &World) -> (Vec<RunKind>, Vec<bool>, Vec<bool>) {
    world.target("myendpoint", |target| {
        (
            target.begun.clone(),
            target.ends.clone(),
            target.complete.clone(),
        )
    })
}

const FIRST: &str = "is_full=true&sequence_id=1&request_id=1&is_first=true";
const SECOND: &str = "is_full=true&sequence_id=1&request_id=2&previous_request_id=1";
const LAST: &str = "is_full=true&sequence_id=1&request_id=3&previous_request_id=2&is_last=true";

#[test]
fn a_full_sequence_is_one_full_run_of_a_sink_outside() {
    let world = outside();
    post(&world, FIRST, &ids(&["a", "b"])).unwrap();
    post(&world, SECOND, &ids(&["c"])).unwrap();
    assert_eq!(runs(&world), (vec![RunKind::Full], vec![], vec![]));
    // The poster did not get the answer.
    post(&world, SECOND, &ids(&["c"])).unwrap();
    // Changes meanwhile are a run of their own.
    post(&world, "", &ids(&["x"])).unwrap();
    post(&world, LAST, &json!([])).unwrap();
    let kinds = vec![RunKind::Full, RunKind::Incremental];
    assert_eq!(runs(&world), (kinds, vec![true, true], vec![false, true]));
    let taken = world.taken("myendpoint");
    assert_eq!(taken, [vec!["a", "b"], vec!["c"], vec!["x"]]);
    // The end again, and then a request after it.
    post(&world, LAST, &json!([])).unwrap();
    assert_eq!(runs(&world).1.len(), 2);
    let late = "is_full=true&sequence_id=1&request_id=4&previous_request_id=3";
    conflict(post(&world, late, &ids(&["d"])));
}

#[test]
fn another_sequence_aborts_the_run_of_the_one_that_was_open() {
    let world = outside();
    post(&world, FIRST, &ids(&["a"])).unwrap();
    let other = "is_full=true&sequence_id=2&request_id=1&is_first=true&is_last=true";
    post(&world, other, &ids(&["b"])).unwrap();
    let kinds = vec![RunKind::Full, RunKind::Full];
    assert_eq!(runs(&world), (kinds, vec![false, true], vec![true]));
    conflict(post(&world, SECOND, &ids(&["c"])));
}

#[test]
fn a_sink_that_fails_ends_the_sequence() {
    let world = outside();
    post(&world, FIRST, &ids(&["a"])).unwrap();
    world.target("myendpoint", |target| target.refuses.insert("b".to_owned()));
    let failed = post(&world, SECOND, &ids(&["b"]));
    assert!(matches!(failed, Err(PostError::Failed(_))), "{failed:?}");
    assert_eq!(runs(&world).1, [false]);
    world.target("myendpoint", |target| target.refuses.clear());
    conflict(post(&world, SECOND, &ids(&["b"])));
    conflict(post(&world, LAST, &json!([])));
    assert_eq!(runs(&world).2, [true; 0], "nothing says that it is whole");
}

#[test]
fn a_pipe_that_changes_aborts_the_run_of_its_open_sequence() {
    let mut world = outside();
    post(&world, FIRST, &ids(&["a"])).unwrap();
    world.pipe(json!({
        "_id": "myendpoint",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "scripted"},
        "description": "changed",
    }));
    conflict(post(&world, SECOND, &ids(&["b"])));
    assert_eq!(runs(&world).1, [false]);
}

#[test]
fn filtered_entities_do_not_reach_a_sink_outside() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "myendpoint",
        "source": {"type": "http_endpoint"},
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "*"],
            ["filter", ["eq", "_S.keep", true]],
        ]}},
        "sink": {"type": "scripted"},
    }));
    let body = json!([{"_id": "a", "keep": true}, {"_id": "b"}, {"_id": "c", "keep": true}]);
    post(&world, "", &body).unwrap();
    assert_eq!(world.taken("myendpoint"), [["a", "c"]]);
}

#[test]
fn what_comes_during_an_abandoned_sequence_costs_no_state_when_nothing_is_new() {
    let world = endpoint(World::new());
    post(&world, FIRST, &ids(&["a"])).unwrap();
    let chunks = |world: &World| {
        let dataset = world.hub().world.store.find("mydataset").unwrap().unwrap();
        let snapshot = dataset.snapshot().unwrap();
        let space = "receiver:myendpoint";
        snapshot.state(space, b"seen/").unwrap().len()
    };
    let before = chunks(&world);
    for _ in 0..3 {
        post(&world, "", &ids(&["a"])).unwrap();
    }
    assert_eq!(chunks(&world), before);
    for n in 0..400 {
        post(&world, "", &ids(&[&format!("n{n}")])).unwrap();
    }
    assert!(chunks(&world) <= 256, "{}", chunks(&world));
    post(
        &world,
        "is_full=true&sequence_id=1&request_id=2&previous_request_id=1&is_last=true",
        &json!([]),
    )
    .unwrap();
    assert_eq!((world.living("mydataset").len(), chunks(&world)), (401, 0));
}

#[test]
fn numbers_with_a_point_become_what_the_endpoint_says() {
    use tahini_entity::Value;
    let kind = |value: &Value| match value {
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::Decimal(_) => "decimal",
        other => panic!("no number: {other:?}"),
    };
    for (source, whole, part) in [
        (json!({}), "int", "decimal"),
        (json!({"do_float_as_decimal": false}), "int", "float"),
        (json!({"do_float_as_int": false}), "decimal", "decimal"),
        (
            json!({"do_float_as_int": false, "do_float_as_decimal": false}),
            "float",
            "float",
        ),
    ] {
        let mut world = World::new();
        let mut pipe = json!({"_id": "myendpoint", "source": {"type": "http_endpoint"}});
        for (name, value) in source.as_object().unwrap() {
            pipe["source"][name] = value.clone();
        }
        world.pipe(pipe);
        let live = world.live_pipe("myendpoint");
        let body = r#"[{"_id": "a", "whole": 2.0, "part": 1.5, "none": 7}]"#;
        receive(world.hub(), &live, &push(""), body.as_bytes()).unwrap();
        let dataset = world.hub().world.store.find("myendpoint").unwrap().unwrap();
        let mut batch = tahini_entity::Batch::new();
        dataset
            .snapshot()
            .unwrap()
            .latest(&["a"], &mut batch)
            .unwrap();
        let entity = batch.get(0).to_entity();
        let found =
            ["whole", "part", "none"].map(|name| kind(entity.properties.get(name).unwrap()));
        assert_eq!(found, [whole, part, "int"], "{source}");
    }
}
