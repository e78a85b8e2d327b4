//! Circuit breakers that trip.

use serde_json::json;
use tahini_hub::Class;
use tahini_hub::breaker::Reset;
use tahini_hub::execution_log::User;
use tahini_hub::hub::Refusal;
use tahini_hub::pump::Request;
use tahini_hub::receiver::{PostError, Push};

use super::posts::{post, receiver, rows, try_post};
use super::{chronological, first_six, pipe, six};
use crate::every_moment::{Story, run};
use crate::script::records;
use crate::world::World;

/// Where the power goes between the limit and the record that says so, the next one trips anew.
fn stays(world: &World) -> Result<(), String> {
    match world.hub().tripped(&world.live_pipe("p")) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("what was written is taken back".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}

fn post_too_much(world: &mut World) -> Result<(), String> {
    match try_post(world, &Push::default(), &rows(0, 5, 2)) {
        Err(PostError::Refused(Refusal::Tripped(..))) => Ok(()),
        Err(PostError::Failed(failure)) if failure.class == Class::Tripped => stays(world),
        Err(error) => Err(error.to_string()),
        Ok(()) => Err("it did not trip".to_owned()),
    }
}

/// A person decides; who decided already finds it done.
fn reset(world: &World, how: Reset) -> Result<(), String> {
    if world
        .hub()
        .tripped(&world.live_pipe("p"))
        .map_err(|it| it.to_string())?
        .is_none()
    {
        return Ok(());
    }
    let reset = world.hub().reset_breaker("p", how, &User::default());
    reset.map_err(|refusal| refusal.to_string())
}

fn commit(world: &mut World) -> Result<(), String> {
    reset(world, Reset::Commit)
}

fn roll_back(world: &mut World) -> Result<(), String> {
    reset(world, Reset::RollBack)
}

fn first_posts(world: &mut World) -> Result<(), String> {
    post(world, &Push::default(), &rows(0, 6, 1))
}

fn last_post(world: &mut World) -> Result<(), String> {
    post(world, &Push::default(), &rows(9, 10, 1))
}

#[test]
fn a_post_that_trips_is_committed_or_rolled_back() {
    let story = Story {
        set_up: |world| {
            let sink = json!({"type": "dataset", "circuit_breaker_threshold_count": 3});
            receiver(world, true, sink);
        },
        steps: &[first_posts, post_too_much, commit, last_post],
        whole_from: 1,
        is_killed_too: true,
        ..Story::default()
    };
    story.survives();
    let steps = &[first_posts, post_too_much, roll_back, last_post];
    Story { steps, ..story }.survives();
}

fn run_that_trips(world: &mut World) -> Result<(), String> {
    world.records(
        "p",
        [
            six(),
            records(&[("a", 13), ("b", 14), ("c", 15), ("d", 16)]),
        ]
        .concat(),
    );
    let summary = match world.try_run("p", &Request::default()) {
        Err(Refusal::Tripped(..)) => return Ok(()),
        other => other.map_err(|refusal| refusal.to_string())?,
    };
    match summary.failure {
        Some(failure) if failure.class == Class::Tripped => stays(world),
        Some(failure) => Err(failure.to_string()),
        None => Err("it did not trip".to_owned()),
    }
}

fn run_within(world: &mut World) -> Result<(), String> {
    world.records("p", records(&[("e", 11), ("f", 12)]));
    run(world, "p")
}

fn last_run(world: &mut World) -> Result<(), String> {
    world.records("p", records(&[("g", 20)]));
    run(world, "p")
}

#[test]
fn a_run_that_trips_is_committed_or_rolled_back() {
    let story = Story {
        set_up: |world| {
            let sink = json!({"type": "dataset", "circuit_breaker_threshold_count": 3});
            pipe(
                world,
                json!({"_id": "p", "source": chronological(), "sink": sink}),
            );
        },
        steps: &[first_six, run_within, run_that_trips, commit, last_run],
        whole_from: 1,
        is_killed_too: true,
        ..Story::default()
    };
    story.survives();
    let steps = &[first_six, run_within, run_that_trips, roll_back, last_run];
    Story { steps, ..story }.survives();
}
