//! Looking at what a pipe would give, without anything outside taking notice.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::Fields;
use tahini_hub::source::From;
use tahini_hub::stage::{Purpose, Stage, end_of_looking, read};
use tahini_hub::{Cancel, Failure};

use crate::script::{records, shown};
use crate::world::World;

/// A pipe of one entity whose transforms are these.
fn world(transform: Json) -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "transform": transform}));
    world.records("p", records(&[("x", 1)]));
    world
}

fn calls(more: Json) -> Json {
    let mut transform = json!({"type": "calls"});
    for (name, value) in more.as_object().unwrap() {
        transform[name] = value.clone();
    }
    transform
}

fn look(world: &World, stage: Stage, purpose: Purpose) -> Result<Vec<Json>, Failure> {
    let live = world.live_pipe("p");
    let mut found = Vec::new();
    let from = From {
        full: true,
        ..From::default()
    };
    let take = |batch: &Batch| {
        found.extend(shown(batch, Fields::CONTENT));
        true
    };
    let (pipe, all) = (live.usable().unwrap(), &world.hub().world);
    read(pipe, all, (stage, purpose), from, &Cancel::new(), take)?;
    Ok(found)
}

fn called(world: &World) -> usize {
    world.target("p", |target| target.transformed.len())
}

#[test]
fn a_look_does_not_run_what_changes_something_outside() {
    let rules = json!({"type": "dtl", "rules": {"default": [["copy", "*"]]}});
    let bad = [
        // The row of the type says that it has side effects unless it is told otherwise.
        (calls(json!({})), 0),
        (calls(json!({"side_effects": true})), 0),
        (json!([rules, calls(json!({}))]), 1),
        (
            json!({"type": "chained", "transforms": [rules, calls(json!({}))]}),
            1,
        ),
        (
            json!({"type": "dtl", "side_effects": true, "rules": {"default": [["copy", "*"]]}}),
            0,
        ),
    ];
    for (transform, at) in bad {
        let world = world(transform.clone());
        for stage in [Stage::AfterTransforms, Stage::Sink] {
            let failure = look(&world, stage, Purpose::Look).unwrap_err().to_string();
            for part in [
                "\"p\"",
                &format!("transform {}", at + 1),
                "side_effects",
                "before-transforms",
            ] {
                assert!(failure.contains(part), "{part} in {failure}");
            }
        }
        assert_eq!(
            look(&world, Stage::BeforeTransforms, Purpose::Look)
                .unwrap()
                .len(),
            1
        );
        assert_eq!(called(&world), 0, "{transform}");
        let live = world.live_pipe("p");
        assert_eq!(end_of_looking(live.usable().unwrap()).unwrap().0, at);
    }
}

#[test]
fn a_look_runs_what_changes_nothing_outside() {
    let world = world(calls(json!({"side_effects": false})));
    assert_eq!(look(&world, Stage::Sink, Purpose::Look).unwrap().len(), 1);
    assert_eq!(called(&world), 1);
    assert_eq!(end_of_looking(world.live_pipe("p").usable().unwrap()), None);
}

#[test]
fn an_output_runs_every_transform() {
    let world = world(calls(json!({})));
    assert_eq!(look(&world, Stage::Sink, Purpose::Output).unwrap().len(), 1);
    assert_eq!(called(&world), 1);
}

#[test]
fn what_is_filtered_ends_before_the_sink() {
    let rules = json!({"type": "dtl", "rules": {"default": [["filter", ["eq", "_S._id", "y"]], ["copy", "*"]]}});
    let world = world(rules);
    assert_eq!(
        look(&world, Stage::AfterTransforms, Purpose::Look)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        look(&world, Stage::Sink, Purpose::Look).unwrap(),
        [Json::Null; 0]
    );
}
