//! The http transform: entities out, entities back, and where they came from.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_hub::{Class, Failure};

use crate::server::{Reply, Seen, Server};
use crate::world::{World, batch, content, numbered};

struct Outcome {
    seen: Vec<Seen>,
    result: Result<(Vec<Json>, Vec<u32>), Failure>,
}

fn apply(script: Vec<Reply>, more: Json, input: &[Json]) -> Outcome {
    let server = Server::play(script);
    let world = World::at(&server.url());
    let mut config = json!({ "type": "http", "system": "s", "url": "transform" });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let result = world
        .transform(config)
        .and_then(|mut transform| transform.apply(&batch(input), &mut out, &mut origins));
    if result.is_err() {
        assert!(
            out.is_empty() && origins.is_empty(),
            "a failed call leaves nothing behind"
        );
    }
    Outcome {
        seen: server.seen(),
        result: result.map(|()| (content(&out), origins)),
    }
}

fn answer(entities: Json) -> Reply {
    Reply::ok(&entities.to_string())
}

#[test]
fn entities_are_posted_in_groups_and_come_back_changed() {
    let replies = vec![
        answer(json!([{ "_id": "0", "x": 1 }, { "_id": "1", "x": 2 }])),
        answer(json!([{ "_id": "2", "x": 3 }])),
    ];
    let outcome = apply(replies, json!({ "batch_size": 2 }), &numbered(0..3));
    let sent: Vec<Vec<String>> = outcome.seen.iter().map(Seen::ids).collect();
    assert_eq!(sent, [vec!["0", "1"], vec!["2"]]);
    assert_eq!(outcome.seen[0].method, "POST");
    assert_eq!(outcome.seen[0].target, "/transform");
    let (entities, origins) = outcome.result.unwrap();
    let expected = [
        json!({ "x": 1, "_id": "0" }),
        json!({ "x": 2, "_id": "1" }),
        json!({ "x": 3, "_id": "2" }),
    ];
    assert_eq!(entities, expected);
    assert_eq!(origins, [0, 1, 2]);
}

#[test]
fn groups_have_at_most_100_entities_by_default() {
    let outcome = apply(vec![answer(json!([])); 2], json!({}), &numbered(0..101));
    assert_eq!(outcome.seen[0].ids().len(), 100);
    assert_eq!(outcome.seen[1].ids().len(), 1);
    assert_eq!(outcome.result.unwrap().0.len(), 0);
}

#[test]
fn an_answer_may_hold_fewer_more_and_other_entities() {
    let replies = vec![answer(
        json!([{ "_id": "1" }, { "_id": "new" }, { "no": "id" }, { "_id": "1" }]),
    )];
    let (entities, origins) = apply(replies, json!({}), &numbered(0..2)).result.unwrap();
    assert_eq!(entities.len(), 4);
    assert_eq!(origins, [1, 0, 0, 1]);
}

#[test]
fn nothing_is_posted_for_nothing() {
    let outcome = apply(vec![], json!({}), &[]);
    assert_eq!(outcome.result.unwrap().0.len(), 0);
}

#[test]
fn entities_without_the_trigger_pass_as_they_are() {
    let input = [
        json!({ "_id": "0", "_trigger": "send-mail" }),
        json!({ "_id": "1", "n": 1 }),
        json!({ "_id": "2", "_trigger": "send-text" }),
    ];
    let replies = vec![answer(
        json!([{ "_id": "0", "sent": 1 }, { "_id": "2", "sent": 2 }]),
    )];
    let outcome = apply(
        replies,
        json!({ "trigger_on": { "value": "send-*" } }),
        &input,
    );
    assert_eq!(outcome.seen[0].ids(), ["0", "2"]);
    let (entities, origins) = outcome.result.unwrap();
    assert_eq!(
        entities,
        [
            json!({ "n": 1, "_id": "1" }),
            json!({ "sent": 1, "_id": "0" }),
            json!({ "sent": 2, "_id": "2" })
        ]
    );
    assert_eq!(origins, [1, 0, 2]);
}

#[test]
fn versions_of_one_entity_keep_their_order_whether_they_are_posted_or_not() {
    let input = [
        json!({ "_id": "a", "_trigger": "x", "v": 1 }),
        json!({ "_id": "a", "v": 2 }),
        json!({ "_id": "a", "_trigger": "x", "v": 3 }),
    ];
    let replies = vec![
        answer(json!([{ "_id": "a", "v": 1 }])),
        answer(json!([{ "_id": "a", "v": 3 }])),
    ];
    let (entities, origins) = apply(replies, json!({ "trigger_on": { "value": "x" } }), &input)
        .result
        .unwrap();
    let versions: Vec<&Json> = entities.iter().map(|entity| &entity["v"]).collect();
    assert_eq!(versions, [1, 2, 3]);
    assert_eq!(origins, [0, 1, 2]);
}

#[test]
fn what_rules_before_have_filtered_is_not_posted_and_stays_filtered() {
    let input = [
        json!({ "_id": "a", "v": 1 }),
        json!({ "_id": "b", "_filtered": true }),
        json!({ "_id": "a", "_filtered": true, "v": 2 }),
        json!({ "_id": "a", "v": 3 }),
    ];
    let replies = vec![
        answer(json!([{ "_id": "a", "v": 1 }])),
        answer(json!([{ "_id": "a", "v": 3 }])),
    ];
    let server = Server::play(replies);
    let config = json!({ "type": "http", "system": "s", "url": "transform" });
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let world = World::at(&server.url());
    let mut transform = world.transform(config.clone()).unwrap();
    transform
        .apply(&batch(&input), &mut out, &mut origins)
        .unwrap();
    let bodies: Vec<Json> = server
        .seen()
        .iter()
        .map(|seen| serde_json::from_str::<Json>(&seen.body).unwrap()[0]["v"].clone())
        .collect();
    assert_eq!(bodies, [1, 3], "only what is not filtered is posted");
    // Versions of one entity keep their order around a filtered one.
    let found: Vec<(&str, bool)> = out
        .iter()
        .map(|record| (record.id.unwrap(), record.meta.filtered))
        .collect();
    assert_eq!(
        found,
        [("b", true), ("a", false), ("a", true), ("a", false)]
    );
    assert_eq!(origins, [1, 0, 2, 3]);
    let silent = Server::play([]);
    let mut transform = World::at(&silent.url()).transform(config).unwrap();
    let mut out = Batch::new();
    transform
        .apply(&batch(&input[1..3]), &mut out, &mut Vec::new())
        .unwrap();
    assert_eq!(out.len(), 2);
    assert!(silent.seen().is_empty(), "the server saw no request");
}

#[test]
fn a_refusal_may_be_one_entitys_fault() {
    for status in ["422 No", "500 No", "301 Moved"] {
        let reply = Reply::status(status, "", "1 is poison");
        let failure = apply(vec![reply], json!({}), &numbered(0..2))
            .result
            .unwrap_err();
        assert_eq!(failure.class, Class::Entity, "{status}");
        assert_eq!(failure.original.as_deref(), Some("1 is poison"));
        assert!(failure.message.starts_with("pipe \"p\": POST"), "{failure}");
    }
}

#[test]
fn an_answer_that_is_no_whole_array_is_a_failure() {
    for reply in [
        answer(json!({ "_id": "0" })),
        Reply::ok("[{\"_id\": \"0\"}"),
        Reply::chunked().chunk("[{\"_id\": \"0\"}]"),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]"),
    ] {
        let failure = apply(vec![reply], json!({}), &numbered(0..1))
            .result
            .unwrap_err();
        assert_eq!(failure.class, Class::Transient, "{failure}");
    }
}

#[test]
fn the_second_groups_failure_takes_the_first_groups_answer_back() {
    let replies = vec![
        answer(json!([{ "_id": "0" }])),
        Reply::status("500 No", "", ""),
    ];
    let outcome = apply(replies, json!({ "batch_size": 1 }), &numbered(0..2));
    assert_eq!(outcome.result.unwrap_err().status, Some(500));
}
