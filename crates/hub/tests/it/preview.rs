//! How long a preview may take.

use std::time::Duration;

use serde_json::json;
use tahini_entity::Batch;
use tahini_entity::json::{Numbers, Parser};
use tahini_hub::Cancel;
use tahini_hub::beside::Beside;
use tahini_hub::preview::{Look, MAX_PREVIEW, Passed, Way};

use crate::world::World;

/// What a preview of a pipe makes of one entity within a time; rules tell their steps or not.
fn preview(most: Duration, trace: bool) -> Passed {
    let mut world = World::new();
    let busy = json!(["count", ["map", ["+", "_.", 1], ["range", 0, 100_000]]]);
    world.pipe(json!({
        "_id": "p",
        "transform": {"type": "dtl", "rules": {"default": [["add", "n", busy]]}}
    }));
    let live = world.live_pipe("p");
    let look = Look {
        requests: false,
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        beside: &Beside::default(),
        store: true,
        side_effects: false,
        trace,
        most,
    };
    let mut input = Batch::new();
    let mut parser = Parser::new(Numbers::default());
    parser.push_json(&mut input, br#"{"_id": "1"}"#).unwrap();
    let opened = Way::open(
        live.usable().unwrap(),
        &world.hub().world,
        &Cancel::new(),
        look,
    );
    opened.unwrap().pass(&input).unwrap()
}

#[test]
fn a_preview_ends_when_its_time_is_over() {
    for trace in [false, true] {
        let passed = preview(Duration::ZERO, trace);
        let ended = passed.ended.unwrap();
        assert!(ended.contains("stopped before its end"), "{ended}");
        assert_eq!(passed.sink.len(), 0);
        let passed = preview(MAX_PREVIEW, trace);
        assert_eq!((passed.ended, passed.sink.len()), (None, 1));
    }
}
