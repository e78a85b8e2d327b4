//! Dataset sources that read a part of their dataset.

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::Configuration;
use tahini_hub::config::Input;

use crate::script::REGISTRY;
use crate::world::World;

/// A world whose dataset `vehicles` is read by the pipe `tanks`.
fn world(more: Json) -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "vehicles"}));
    let mut source = json!({
        "type": "dataset", "dataset": "vehicles", "subset": ["eq", "_S.category", "tank"]
    });
    for (name, value) in more.as_object().unwrap() {
        source[name] = value.clone();
    }
    world.pipe(json!({"_id": "tanks", "source": source}));
    world
}

fn set(world: &World, vehicles: &[(&str, Json)]) {
    let records = vehicles
        .iter()
        .map(|(id, category)| json!({"_id": id, "category": category}));
    world.records("vehicles", records.collect());
    world.succeed("vehicles");
}

#[test]
fn only_entities_of_the_subset_are_read_and_what_leaves_it_is_deleted() {
    let world = world(json!({}));
    let (tank, car) = (json!("tank"), json!("car"));
    let both = json!(["car", "tank"]);
    set(
        &world,
        &[
            ("a", tank.clone()),
            ("b", car.clone()),
            ("c", both),
            ("d", tank.clone()),
        ],
    );
    assert_eq!(world.succeed("tanks").read, 3);
    assert_eq!(world.living("tanks"), ["a", "c", "d"]);
    assert_eq!(world.offset("tanks"), 3);

    // `a` leaves and changes once more before anyone looks; `b` comes; `d` comes back in time.
    set(
        &world,
        &[
            ("a", car.clone()),
            ("b", tank.clone()),
            ("c", tank.clone()),
            ("d", car),
        ],
    );
    set(
        &world,
        &[
            ("a", json!("bus")),
            ("b", tank.clone()),
            ("c", tank.clone()),
            ("d", tank),
        ],
    );
    world.succeed("tanks");
    assert_eq!(world.living("tanks"), ["b", "c", "d"]);
    assert_eq!(world.deleted("tanks"), ["a"]);

    // What was never in it says nothing, and is read once only.
    set(&world, &[("b", json!("tank")), ("x", json!("car"))]);
    world.succeed("tanks");
    assert_eq!(world.deleted("tanks"), ["a", "c", "d"]);
    assert_eq!(world.succeed("tanks").read, 0);
    let dataset = world.hub().world.store.find("vehicles").unwrap().unwrap();
    let next = dataset.snapshot().unwrap().head().next;
    assert_eq!(world.offset("tanks"), next - 1);
}

#[test]
fn historical_versions_are_read_only_on_request() {
    for (more, expected) in [
        (json!({}), json!([["a", 2]])),
        (
            json!({"include_previous_versions": true}),
            json!([["a", 1], ["a", 2]]),
        ),
    ] {
        let world = world(more);
        for n in [1, 2] {
            world.records(
                "vehicles",
                vec![json!({"_id": "a", "category": "tank", "n": n})],
            );
            world.succeed("vehicles");
        }
        world.succeed("tanks");
        let all = world.versions("tanks", true, Fields::CONTENT);
        let seen: Vec<Json> = all.iter().map(|e| json!([e["_id"], e["n"]])).collect();
        assert_eq!(json!(seen), expected);
    }
}

#[test]
fn replaced_entities_are_left_out_on_request_and_not_read_again() {
    let mut world = World::new();
    world.pipe(json!({"_id": "merged"}));
    world.pipe(json!({"_id": "p", "source": {
        "type": "dataset", "dataset": "merged", "include_replaced": false
    }}));
    world.records(
        "merged",
        vec![json!({"_id": "a"}), json!({"_id": "b", "$replaced": true})],
    );
    world.succeed("merged");
    assert_eq!(world.succeed("p").read, 1);
    assert_eq!(world.living("p"), ["a"]);
    assert_eq!(world.offset("p"), 1);
}

#[test]
fn a_subset_that_is_none_is_a_problem_with_its_place() {
    for (subset, place, words) in [
        (
            json!(["eq", "_S.a"]),
            "$.source.subset",
            "[\"eq\", INDEX, VALUE]",
        ),
        (
            json!(["eq", "_S.a", ["ni", "foo", "bar"]]),
            "$.source.subset[2]",
            "literal",
        ),
        (
            json!(["eq", ["nosuch", "_S.a"], 1]),
            "$.source.subset[1]",
            "nosuch",
        ),
        (json!(["eq", ["now"], 1]), "$.source.subset[1]", "same keys"),
    ] {
        let pipe = json!({
            "_id": "p", "type": "pipe",
            "source": {"type": "dataset", "dataset": "d", "subset": subset}
        });
        let inputs = vec![Input::new(pipe)];
        let configuration = Configuration::build(inputs, &Default::default(), &REGISTRY);
        let errors: Vec<_> = configuration
            .problems()
            .filter(|it| it.is_error())
            .collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].path.to_string().starts_with(place),
            "{}",
            errors[0]
        );
        assert!(errors[0].message.contains(words), "{}", errors[0]);
    }
}
