//! How many entities share the keys that hops join by.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Numbers, entity_from_config};
use tahini_hub::cardinality::told;

use crate::world::{BEGINNING, World};

fn put_all(world: &World, dataset: &str, entities: impl Iterator<Item = Json>) {
    let mut rows = Batch::new();
    for entity in entities {
        let entity = entity_from_config(&entity, Numbers::default(), 0).unwrap();
        rows.push_entity(&entity).unwrap();
    }
    world.commit(dataset, &rows, BEGINNING);
}

/// A pipe that joins orders with their customers, and with each other.
fn pipe(threshold: u64) -> Json {
    let customer = json!({"datasets": ["customers c"], "where": ["eq", "_S.customer", "c.number"]});
    json!({
        "_id": "p",
        "source": {"type": "dataset", "dataset": "orders"},
        "dependency_tracking": {"dependency_warning_threshold": threshold, "dependency_error_threshold": 1_000_000},
        "transform": {"type": "dtl", "rules": {"default": [["copy", "_id"], ["add", "c", ["count", ["hops", customer]]]]}},
    })
}

/// Orders of which every tenth is of customer 0, and the others of one each.
fn order(nth: u64) -> Json {
    let customer = if nth.is_multiple_of(10) { 0 } else { nth };
    json!({"_id": format!("o{nth}"), "customer": customer})
}

#[test]
fn a_small_dataset_is_counted() {
    let mut world = World::new();
    put_all(&world, "orders", (0..100).map(order));
    put_all(
        &world,
        "customers",
        (0..10).map(|nth| json!({"_id": format!("c{nth}"), "number": nth / 2})),
    );
    world.pipe(pipe(5));
    let found = told(world.hub(), "p").unwrap();
    let forward = &found["joins"][0];
    assert_eq!(
        (
            &forward["dataset"],
            &forward["largest"],
            &forward["average"],
            &forward["counted"]
        ),
        (&json!("customers"), &json!(2), &json!(2.0), &json!("all"))
    );
    let back = &found["tracked"][0];
    assert_eq!(
        (
            &back["dataset"],
            &back["largest"],
            &back["largest-key"],
            &back["entities"]
        ),
        (&json!("orders"), &json!(10), &json!(0), &json!(100))
    );
    // 100 entities, 91 keys.
    assert_eq!(back["average"], json!(1.099));
    let warnings = found["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let words = warnings[0].as_str().unwrap();
    assert!(
        words.starts_with("10 entities of dataset \"orders\" have the key 0"),
        "{words}"
    );
}

#[test]
fn the_log_of_a_full_run_warns_before_a_change_hurts() {
    let mut world = World::new();
    put_all(&world, "orders", (0..100).map(order));
    put_all(
        &world,
        "customers",
        [json!({"_id": "a", "number": 0})].into_iter(),
    );
    world.pipe(pipe(9));
    let warnings = world.succeed("p").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("dependency_tracking"), "{warnings:?}");
    // An incremental run does not look.
    put_all(
        &world,
        "orders",
        [json!({"_id": "new", "customer": 1})].into_iter(),
    );
    assert_eq!(world.succeed("p").warnings, [""; 0]);
    // Nobody warns of what is within the threshold.
    world.pipe(pipe(10));
    assert_eq!(world.rescan("p").warnings, [""; 0]);
}

#[test]
fn a_full_run_that_failed_does_not_look() {
    let mut world = World::new();
    put_all(&world, "orders", (0..100).map(order));
    put_all(
        &world,
        "customers",
        [json!({"_id": "a", "number": 0})].into_iter(),
    );
    let mut pipe = pipe(9);
    pipe["sink"] = json!({"type": "scripted"});
    world.pipe(pipe);
    world.target("p", |target| target.failing_ends = 4);
    let summary = world.run("p");
    assert!(!summary.success());
    assert_eq!(summary.warnings, [""; 0]);
    assert_eq!(world.succeed("p").warnings.len(), 1);
}

#[test]
fn of_a_large_dataset_a_sample_leads_to_the_key_that_many_share() {
    for mut world in World::both() {
        put_all(&world, "orders", (0..30_000).map(order));
        world.pipe(pipe(2_500));
        let back = told(world.hub(), "p").unwrap()["tracked"][0].clone();
        assert_eq!(back["largest-key"], 0, "{back}");
        assert_eq!(back["entities"], 30_000);
        let (counted, largest) = (&back["counted"], back["largest"].as_u64().unwrap());
        match counted.as_str() {
            Some("sample") => assert_eq!(largest, 3_000, "{back}"),
            Some("estimate") => assert!((2_000..4_500).contains(&largest), "{back}"),
            _ => panic!("{back}"),
        }
        if let Some(average) = back["average"].as_f64() {
            // 27,001 keys.
            assert!((1.0..1.4).contains(&average), "{back}");
        }
    }
}
