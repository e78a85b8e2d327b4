//! Secrets as keys in rules.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;

use crate::world::World;

/// A pipe that adds `x`, made of one entity whose `v` is "hello".
fn pipe(id: &str, x: Json) -> Json {
    json!({
        "_id": id,
        "source": {"type": "embedded", "entities": [{"_id": "a", "v": "hello"}]},
        "transform": {"type": "dtl", "rules": {"default": [["add", "x", x]]}},
    })
}

#[test]
fn a_key_is_the_secret_and_not_its_name() {
    let mut world = World::with_secrets(&[("token", "k")]);
    let sealed = json!(["encrypt", "$SECRET(token)", "_S.v"]);
    world.pipe(pipe("by-secret", json!(["decrypt", "k", sealed])));
    world.pipe(pipe(
        "by-name",
        json!(["decrypt", ["concat", "$", "SECRET(token)"], sealed]),
    ));
    for (id, x) in [("by-secret", json!("hello")), ("by-name", Json::Null)] {
        world.succeed(id);
        assert_eq!(
            world.versions(id, false, Fields::CONTENT)[0]["x"],
            x,
            "{id}"
        );
    }
}

#[test]
fn a_missing_key_fails_the_pipe_that_names_it_and_nothing_else() {
    let mut world = World::with_secrets(&[("token", "k")]);
    world.pipe(pipe(
        "broken",
        json!(["encrypt", "$SECRET(nosuch)", "_S.v"]),
    ));
    world.pipe(pipe("whole", json!(["encrypt", "$SECRET(token)", "_S.v"])));
    let words = world.fail("broken");
    assert!(words.contains("\"nosuch\" is not set"), "{words}");
    assert_eq!(world.version_count("broken"), 0);
    world.succeed("whole");
    assert_eq!(world.version_count("whole"), 1);
}

#[test]
fn a_secret_that_is_encrypted_is_the_secret() {
    let mut world = World::with_secrets(&[("token", "k"), ("word", "_S.v")]);
    let sealed = json!(["encrypt", "$SECRET(token)", "$SECRET(word)"]);
    world.pipe(pipe("p", json!(["decrypt", "k", sealed])));
    world.succeed("p");
    let found = &world.versions("p", false, Fields::CONTENT)[0];
    assert_eq!(found["x"], "_S.v");
}

/// It would be a URI if it were read as rules are.
#[test]
fn a_key_may_start_with_a_tilde() {
    let mut world = World::with_secrets(&[("token", "~rx:y")]);
    let sealed = json!(["encrypt", ["concat", "~", "rx:y"], "_S.v"]);
    world.pipe(pipe("p", json!(["decrypt", "$SECRET(token)", sealed])));
    world.succeed("p");
    let found = &world.versions("p", false, Fields::CONTENT)[0];
    assert_eq!(found["x"], "hello");
}
