//! Children of entities: what is gone from `$children`, and a pipe that emits them.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, Parser};
use tahini_hub::execution_log::User;
use tahini_hub::receiver::{Push, receive};

use crate::world::World;

/// `orders` with their lines as children, and `lines` that emits them.
fn world(sink: Json) -> World {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "orders",
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "name"], ["create-child", "_S.lines"]
        ]}},
        "sink": sink,
    }));
    world.pipe(json!({
        "_id": "lines",
        "source": {"type": "dataset", "dataset": "orders"},
        "transform": {"type": "emit_children"},
    }));
    world
}

fn order(lines: &[&str]) -> Json {
    let lines: Vec<Json> = lines
        .iter()
        .map(|id| json!({"_id": id, "of": "o"}))
        .collect();
    json!({"_id": "o", "lines": lines})
}

fn run(world: &World, records: Vec<Json>) {
    world.records("orders", records);
    world.succeed("orders");
    world.succeed("lines");
}

fn children(world: &World, dataset: &str) -> Vec<String> {
    let latest = world.versions(dataset, false, Fields::CONTENT);
    let shown = |child: &Json| {
        let deleted = child["_deleted"] == true;
        format!(
            "{}{}",
            if deleted { "-" } else { "" },
            child["_id"].as_str().unwrap()
        )
    };
    let all = latest.last().unwrap()["$children"].as_array().cloned();
    all.unwrap_or_default().iter().map(shown).collect()
}

#[test]
fn a_child_that_is_gone_is_deleted_where_children_are_emitted() {
    let world = world(json!({"type": "dataset"}));
    run(&world, vec![order(&["a", "b"])]);
    assert_eq!(children(&world, "orders"), ["a", "b"]);
    assert_eq!(world.living("lines"), ["a", "b"]);
    let line = &world.versions("lines", false, Fields::CONTENT)[0];
    assert_eq!(
        (&line["of"], &line["$children"]),
        (&json!("o"), &Json::Null)
    );

    run(&world, vec![order(&["c", "b"])]);
    assert_eq!(children(&world, "orders"), ["c", "b", "-a"]);
    assert_eq!(
        (world.living("lines"), world.deleted("lines")),
        (vec!["b".to_owned(), "c".to_owned()], vec!["a".to_owned()])
    );

    // The same again is no change, and what was deleted may come back.
    let before = world.version_count("orders");
    run(&world, vec![order(&["c", "b"])]);
    assert_eq!(world.version_count("orders"), before);
    run(&world, vec![order(&["a"])]);
    assert_eq!(children(&world, "orders"), ["a", "-c", "-b"]);
    assert_eq!(world.living("lines"), ["a"]);
}

#[test]
fn the_children_of_a_deleted_entity_are_deleted() {
    for deleted in [
        // It says so itself, or it came no more.
        vec![json!({"_id": "o", "_deleted": true})],
        vec![json!({"_id": "other"})],
    ] {
        let world = world(json!({"type": "dataset"}));
        run(&world, vec![order(&["a", "b"])]);
        run(&world, deleted);
        assert_eq!(world.deleted("orders"), ["o"]);
        assert_eq!(world.living("lines"), [""; 0]);
        assert_eq!(world.deleted("lines"), ["a", "b"]);
    }
}

#[test]
fn versions_of_one_entity_in_one_batch_follow_each_other() {
    let world = world(json!({"type": "dataset"}));
    run(&world, vec![order(&["a"]), order(&["b"]), order(&["c"])]);
    assert_eq!(children(&world, "orders"), ["c", "-b", "-a"]);
}

#[test]
fn tracking_follows_the_rules_unless_the_sink_says_otherwise() {
    let world = world(json!({"type": "dataset", "track_children": false}));
    run(&world, vec![order(&["a"])]);
    run(&world, vec![order(&["b"])]);
    assert_eq!(children(&world, "orders"), ["b"]);
    assert_eq!(world.living("lines"), ["a", "b"]);
}

#[test]
fn what_is_posted_is_tracked_too() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "posted",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset", "track_children": true},
    }));
    for child in ["a", "b"] {
        let body = json!({"_id": "o", "$children": [{"_id": child}]}).to_string();
        let live = world.live_pipe("posted");
        receive(world.hub(), &live, &Push::default(), body.as_bytes()).unwrap();
    }
    assert_eq!(children(&world, "posted"), ["b", "-a"]);
}

#[test]
fn what_is_posted_by_hand_keeps_what_is_gone_too() {
    let world = world(json!({"type": "dataset"}));
    run(&world, vec![order(&["a", "b"])]);
    let mut entities = Batch::new();
    let by_hand = json!({"_id": "o", "$children": [{"_id": "b", "of": "o"}]}).to_string();
    let mut parser = Parser::new(Numbers::default());
    parser.push_json(&mut entities, by_hand.as_bytes()).unwrap();
    let user = User::default();
    world
        .hub()
        .repost("orders", &entities, false, &user)
        .unwrap();
    assert_eq!(children(&world, "orders"), ["b", "-a"]);
    world.succeed("lines");
    assert_eq!(world.deleted("lines"), ["a"]);
}
