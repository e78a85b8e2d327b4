//! Full sequences into receivers.

use serde_json::{Value as Json, json};
use tahini_hub::receiver::{PostError, Push, receive};

use super::pipe;
use crate::every_moment::Story;
use crate::world::World;

/// A request of the full sequence `id`.
pub fn full(id: &str, request: usize, is_last: bool) -> Push {
    Push {
        sequence_id: Some(id.to_owned()),
        is_full: true,
        request_id: Some(request.to_string()),
        previous_request_id: (request > 1).then(|| (request - 1).to_string()),
        is_first: request == 1,
        is_last,
        completeness: None,
    }
}

pub fn rows(from: usize, to: usize, v: i64) -> Vec<Json> {
    (from..to)
        .map(|at| json!({"_id": format!("e{at}"), "v": v}))
        .collect()
}

pub fn try_post(world: &World, push: &Push, entities: &[Json]) -> Result<(), PostError> {
    let body = json!(entities).to_string();
    let posted = receive(world.hub(), &world.live_pipe("p"), push, body.as_bytes());
    posted.map(drop)
}

pub fn post(world: &World, push: &Push, entities: &[Json]) -> Result<(), String> {
    try_post(world, push, entities).map_err(|error| error.to_string())
}

pub fn receiver(world: &mut World, durable: bool, sink: Json) {
    pipe(
        world,
        json!({"_id": "p", "source": {"type": "http_endpoint"}, "sink": sink,
            "metadata": {"durable": durable}}),
    );
}

#[test]
fn full_sequences_into_a_receiver_that_is_durable() {
    Story {
        set_up: |world| receiver(world, true, json!({"type": "dataset"})),
        steps: &[
            |world| post(world, &full("1", 1, false), &rows(0, 2, 1)),
            |world| post(world, &full("1", 2, false), &rows(2, 4, 1)),
            // Somebody else posts in the middle of it.
            |world| post(world, &Push::default(), &rows(9, 10, 1)),
            |world| post(world, &full("1", 3, true), &rows(4, 6, 1)),
            |world| post(world, &full("2", 1, false), &rows(1, 3, 2)),
            |world| post(world, &full("2", 2, true), &rows(3, 4, 1)),
            |world| post(world, &full("3", 1, true), &[]),
        ],
        ..Story::default()
    }
    .survives();
}

/// Whoever posts under optimistic locking gets no second chance to be right: a request that is
/// repeated after a crash compares with what it wrote itself, unless it is known.
#[test]
fn full_sequences_under_optimistic_locking() {
    fn made_from(id: &str, updated: i64, v: i64) -> Vec<Json> {
        vec![json!({"_id": id, "_updated": updated, "v": v})]
    }
    Story {
        set_up: |world| {
            let sink = json!({"type": "dataset", "enable_optimistic_locking": true});
            receiver(world, true, sink);
        },
        steps: &[
            |world| post(world, &full("1", 1, false), &rows(0, 2, 1)),
            |world| post(world, &full("1", 2, true), &rows(2, 4, 1)),
            |world| post(world, &full("2", 1, false), &made_from("e0", 0, 2)),
            |world| post(world, &full("2", 2, true), &made_from("e2", 2, 2)),
            |world| post(world, &full("3", 1, true), &made_from("e0", 4, 3)),
        ],
        ..Story::default()
    }
    .survives();
}

/// A poster begins anew where its sequence is not the active one any more.
fn sequence(world: &World, id: &str, requests: &[Vec<Json>]) -> Result<(), String> {
    for attempt in 0..3 {
        let id = format!("{id}, attempt {attempt}");
        let mut posted = Ok(());
        for (at, entities) in requests.iter().enumerate() {
            let push = full(&id, at + 1, at + 1 == requests.len());
            posted = try_post(world, &push, entities);
            if posted.is_err() {
                break;
            }
        }
        match posted {
            Err(PostError::Conflict(_)) => {}
            other => return other.map_err(|error| error.to_string()),
        }
    }
    Err("a sequence never came through".to_owned())
}

#[test]
fn full_sequences_into_a_receiver_that_answers_before_the_disk() {
    Story {
        set_up: |world| receiver(world, false, json!({"type": "dataset"})),
        steps: &[|world| {
            // All of it is one step: what was answered in the last moments may be gone.
            sequence(world, "1", &[rows(0, 2, 1), rows(2, 4, 1), rows(4, 6, 1)])?;
            post(world, &Push::default(), &rows(9, 10, 1))?;
            sequence(world, "2", &[rows(1, 3, 2), rows(3, 4, 1)])
        }],
        latest_only: &["p"],
        is_durable: false,
        ..Story::default()
    }
    .survives();
}

#[test]
fn the_same_under_a_circuit_breaker_that_does_not_trip() {
    Story {
        set_up: |world| {
            let sink = json!({"type": "dataset", "circuit_breaker_threshold_count": 8});
            receiver(world, true, sink);
        },
        steps: &[
            |world| post(world, &full("1", 1, true), &rows(0, 6, 1)),
            |world| post(world, &full("2", 1, false), &rows(0, 2, 2)),
            |world| post(world, &full("2", 2, false), &rows(2, 3, 2)),
            |world| post(world, &full("2", 3, true), &rows(3, 5, 1)),
            |world| post(world, &Push::default(), &rows(0, 1, 3)),
            |world| post(world, &full("3", 1, false), &rows(0, 2, 4)),
            |world| post(world, &full("3", 2, true), &rows(2, 3, 4)),
        ],
        whole_from: 1,
        ..Story::default()
    }
    .survives();
}
