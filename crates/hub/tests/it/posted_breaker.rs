//! Circuit breakers over what is posted.

use serde_json::{Value as Json, json};
use tahini_hub::breaker::Reset;
use tahini_hub::execution_log::User;
use tahini_hub::hub::Refusal;
use tahini_hub::receiver::{PostError, Posted, Push, receive};

use crate::stories::posts::{full, rows};
use crate::world::World;

fn world_of(world: World, limits: Json) -> World {
    let mut world = world;
    let mut sink = limits;
    sink["type"] = json!("dataset");
    world.pipe(json!({"_id": "p", "source": {"type": "http_endpoint"}, "sink": sink}));
    world
}

fn both(limits: &Json) -> [World; 2] {
    World::both().map(|world| world_of(world, limits.clone()))
}

fn post(world: &World, push: &Push, entities: &[Json]) -> Result<Posted, PostError> {
    let body = json!(entities).to_string();
    receive(world.hub(), &world.live_pipe("p"), push, body.as_bytes())
}

fn plain(world: &World, entities: &[Json]) -> Result<Posted, PostError> {
    post(world, &Push::default(), entities)
}

fn why(answer: Result<Posted, PostError>) -> String {
    match answer {
        Err(PostError::Failed(failure)) => failure.message,
        Err(PostError::Refused(refusal @ Refusal::Tripped(..))) => refusal.to_string(),
        other => panic!("expected a tripped breaker, found {other:?}"),
    }
}

fn reset(world: &World, how: Reset) {
    let user = User::default();
    world.hub().reset_breaker("p", how, &user).unwrap();
}

#[test]
fn a_request_that_changes_too_much_is_held_back_and_stops_the_pipe() {
    for how in [Reset::Commit, Reset::RollBack] {
        for mut world in both(&json!({"circuit_breaker_threshold_count": 3})) {
            plain(&world, &rows(0, 10, 1)).expect("the first load trips nothing");
            plain(&world, &rows(0, 3, 2)).expect("as many as may change");
            plain(&world, &rows(0, 9, 1))
                .map(|posted| posted.changed)
                .unwrap();
            let words = why(plain(&world, &rows(0, 4, 5)));
            assert!(words.contains("at most 3 entities"), "{words}");
            assert_eq!(world.version_count("p"), 16, "nobody sees it");
            world.restart_if_on_disk();
            let words = why(plain(&world, &rows(90, 91, 1)));
            assert!(words.contains("is tripped"), "{words}");
            let failed = world.log("p").pop().unwrap();
            assert_eq!(failed["event_type"], "pump-failed");
            reset(&world, how);
            let shown = if how == Reset::Commit { 20 } else { 16 };
            assert_eq!(world.version_count("p"), shown);
            plain(&world, &rows(90, 91, 1)).unwrap();
            assert_eq!(world.version_count("p"), shown + 1);
        }
    }
}

/// The case that breakers are made for: a poster whose source suddenly gives nothing.
#[test]
fn a_full_sequence_that_would_delete_too_much_deletes_nothing() {
    for world in both(&json!({"circuit_breaker_threshold_factor": 0.5})) {
        post(&world, &full("1", 1, true), &rows(0, 10, 1)).unwrap();
        let words = why(post(&world, &full("2", 1, true), &rows(0, 1, 1)));
        assert!(words.contains("factor 0.5 of 10"), "{words}");
        assert_eq!(world.living("p").len(), 10);
        reset(&world, Reset::RollBack);
        // Half of them may go.
        post(&world, &full("3", 1, true), &rows(0, 5, 1)).unwrap();
        assert_eq!(world.living("p").len(), 5);
    }
}

#[test]
fn a_full_sequence_is_seen_whole_with_its_last_request() {
    for mut world in both(&json!({"circuit_breaker_threshold_count": 8})) {
        let shown = |answer: Result<Posted, PostError>| answer.unwrap().shown;
        assert_eq!(
            shown(post(&world, &full("1", 1, true), &rows(0, 10, 1))),
            10
        );
        let first = post(&world, &full("2", 1, false), &rows(0, 3, 2));
        assert_eq!(shown(first), 0, "nobody is to be told of it");
        assert_eq!(world.version_count("p"), 10);
        world.restart_if_on_disk();
        post(&world, &full("2", 2, false), &rows(3, 5, 2)).unwrap();
        post(&world, &full("2", 2, false), &rows(3, 5, 2)).expect("a repeated request");
        assert_eq!(world.version_count("p"), 10);
        let last = post(&world, &full("2", 3, true), &rows(5, 9, 1));
        assert_eq!(shown(last), 6, "all of it now");
        assert_eq!(world.version_count("p"), 16, "five changed, one is gone");
        assert_eq!(world.deleted("p"), ["e9"]);
        // All requests of a sequence count together.
        post(&world, &full("3", 1, false), &rows(0, 5, 7)).unwrap();
        let words = why(post(&world, &full("3", 2, true), &rows(5, 9, 7)));
        assert!(words.contains("at most 8"), "{words}");
        assert_eq!(world.version_count("p"), 16);
    }
}

#[test]
fn another_request_ends_a_sequence_that_is_held_back() {
    for world in both(&json!({"circuit_breaker_threshold_count": 8})) {
        post(&world, &full("1", 1, true), &rows(0, 10, 1)).unwrap();
        post(&world, &full("2", 1, false), &rows(0, 3, 2)).unwrap();
        plain(&world, &rows(4, 5, 3)).unwrap();
        assert_eq!(world.version_count("p"), 11, "it is seen at once");
        let answer = post(&world, &full("2", 2, true), &rows(3, 5, 2));
        assert!(matches!(answer, Err(PostError::Conflict(_))), "{answer:?}");
        post(&world, &full("3", 1, false), &rows(0, 3, 2)).unwrap();
        post(&world, &full("4", 1, true), &rows(0, 10, 1)).expect("the other one is given up");
        assert_eq!(world.version_count("p"), 12, "e4 as it was");
    }
}

#[test]
fn rules_trip_it_and_nothing_of_the_request_is_written() {
    let mut world = World::new();
    let rules = json!({"default": [
        ["copy", "*"], ["if", ["gt", "_S.v", 3], ["trip!", "look at this"]]
    ]});
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint"},
        "transform": {"type": "dtl", "rules": rules},
    }));
    plain(&world, &rows(0, 10, 1)).unwrap();
    let words = why(plain(&world, &[rows(20, 21, 1), rows(21, 22, 4)].concat()));
    assert!(words.contains("look at this"), "{words}");
    assert_eq!(world.version_count("p"), 10);
    why(plain(&world, &rows(30, 31, 1)));
    reset(&world, Reset::RollBack);
    plain(&world, &rows(30, 31, 1)).unwrap();
    assert_eq!(world.version_count("p"), 11);
}

/// Without the flag a dataset is populated by the first full sequence, not by its beginning.
#[test]
fn a_full_sequence_populates_its_dataset() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p", "source": {"type": "http_endpoint", "auto_populate_dataset": false},
    }));
    let populated = |world: &World| {
        let dataset = world.hub().world.store.find("p").unwrap().unwrap();
        dataset.snapshot().unwrap().head().populated
    };
    plain(&world, &rows(0, 1, 1)).unwrap();
    post(&world, &full("1", 1, false), &rows(0, 5, 1)).unwrap();
    assert!(!populated(&world));
    post(&world, &full("1", 2, true), &[]).unwrap();
    assert!(populated(&world));
}
