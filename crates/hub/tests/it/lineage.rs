//! Where properties come from, through pipes and back to the sources.

use serde_json::{Value as Json, json};
use tahini_hub::lineage::{Ask, DEPTH, told};

use crate::script::records;
use crate::world::World;

fn dtl(statements: Json) -> Json {
    json!({"type": "dtl", "rules": {"default": statements}})
}

fn all(world: &World, pipe: &str) -> Json {
    told(
        world.hub(),
        pipe,
        Ask {
            property: None,
            depth: DEPTH,
        },
    )
    .unwrap()
}

fn one(world: &World, pipe: &str, property: &str) -> Json {
    let ask = Ask {
        property: Some(property),
        depth: DEPTH,
    };
    told(world.hub(), pipe, ask).unwrap()["properties"][0].clone()
}

fn from(row: &Json) -> Vec<String> {
    let from = row["from"].as_array().unwrap().iter();
    let text = |place: &Json| {
        let dataset = place["dataset"].as_str().unwrap_or("outside");
        format!(
            "{} {dataset}.{}",
            place["how"].as_str().unwrap(),
            place["property"].as_str().unwrap()
        )
    };
    from.map(text).collect()
}

fn origins(row: &Json) -> Vec<String> {
    let origins = row["origins"].as_array().unwrap().iter();
    let text = |first: &Json| {
        let via = first["via"].as_array().unwrap().iter();
        let via: Vec<&str> = via.filter_map(Json::as_str).collect();
        format!(
            "{} {} {} via {}",
            first["end"].as_str().unwrap(),
            first["pipe"]
                .as_str()
                .or(first["dataset"].as_str())
                .unwrap_or("-"),
            first["property"].as_str().unwrap(),
            via.join(",")
        )
    };
    origins.map(text).collect()
}

/// Two systems that are read, one enriched by the other, merged, and shown.
fn world() -> World {
    let mut world = World::new();
    world.pipe(
        json!({"_id": "crm", "transform": dtl(json!([["rename", "nm", "name"], ["copy", "zip"]]))}),
    );
    world.pipe(json!({"_id": "erp"}));
    world.pipe(json!({
        "_id": "crm-rich",
        "source": {"type": "dataset", "dataset": "crm"},
        "transform": dtl(json!([
            ["copy", "*"],
            ["add", "city", ["first", ["hops", {"datasets": ["erp e"], "where": ["eq", "_S.zip", "e.zip"], "return": "e.town"}]]],
        ])),
    }));
    world.pipe(json!({
        "_id": "golden",
        "source": {
            "type": "merge", "version": 2, "datasets": ["crm-rich c", "erp e"],
            "equality": [["eq", "c.name", "e.person"]],
        },
        "transform": dtl(json!([["copy", "*"], ["add", "label", ["concat", "_S.name", " ", "_S.city"]], ["add", "fixed", 1]])),
    }));
    world
}

#[test]
fn properties_are_followed_through_pipes_joins_and_merges() {
    let world = world();
    let label = one(&world, "golden", "label");
    assert_eq!(
        from(&label),
        [
            "computed crm-rich.city",
            "computed crm-rich.name",
            "computed erp.city",
            "computed erp.name"
        ]
    );
    let found = origins(&label);
    for expected in [
        "source crm nm via golden,crm-rich",
        "source erp town via golden,crm-rich",
        "source erp name via golden",
        "source erp city via golden",
    ] {
        assert!(
            found.contains(&expected.to_owned()),
            "{expected} in {found:?}"
        );
    }
    assert_eq!(found.len(), 4, "{found:?}");
    let city = one(&world, "crm-rich", "city");
    assert_eq!(from(&city), ["taken erp.town"]);
    assert_eq!(
        city["decided-by"],
        json!([{"dataset": "crm", "property": "zip"}, {"dataset": "erp", "property": "zip"}])
    );
    let fixed = one(&world, "golden", "fixed");
    assert_eq!((from(&fixed).len(), &fixed["constant"]), (0, &json!(true)));
    let golden = all(&world, "golden");
    assert_eq!(
        golden["decided-by"],
        json!([{"dataset": "crm-rich", "property": "name"}, {"dataset": "erp", "property": "person"}])
    );
}

#[test]
fn names_that_are_taken_over_are_known_from_the_pipes_before_and_from_what_was_seen() {
    let world = world();
    let names = |world: &World, pipe: &str| -> Vec<String> {
        let all = all(world, pipe);
        let rows = all["properties"].as_array().unwrap().iter();
        rows.map(|row| row["property"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&world, "crm"), ["_id", "name", "zip"]);
    assert_eq!(names(&world, "crm-rich"), ["_id", "city", "name", "zip"]);
    // Nobody knows what the source outside gives before it has given something.
    assert_eq!(names(&world, "erp"), [""; 0]);
    let others = all(&world, "erp")["others"].clone();
    assert_eq!(others[0]["names"], json!(["*"]));
    assert_eq!(others[0]["from"], json!([{"property": "*"}]));
    world.records("erp", records(&[("1", 1)]));
    world.succeed("erp");
    assert!(
        names(&world, "erp").contains(&"v".to_owned()),
        "{:?}",
        names(&world, "erp")
    );
    assert_eq!(from(&one(&world, "erp", "v")), ["taken outside.v"]);
}

#[test]
fn a_property_that_no_pipe_writes_is_not_made_up() {
    let world = world();
    assert_eq!(one(&world, "crm", "nobody"), Json::Null);
    assert_eq!(
        origins(&one(&world, "crm-rich", "name")),
        ["source crm nm via crm-rich"]
    );
    // Nothing of this name comes from the pipe before.
    assert_eq!(origins(&one(&world, "crm-rich", "gone")), [""; 0]);
}

#[test]
fn a_pipe_that_reads_what_it_writes_is_told_and_ends() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a", "source": {"type": "dataset", "dataset": "b"}}));
    world.pipe(json!({"_id": "b", "source": {"type": "dataset", "dataset": "a"}}));
    assert_eq!(origins(&one(&world, "a", "x")), ["cycle a x via a,b"]);
    let ask = Ask {
        property: Some("x"),
        depth: 1,
    };
    let told = told(world.hub(), "a", ask).unwrap();
    assert_eq!(origins(&told["properties"][0]), ["deeper b x via a"]);
}

#[test]
fn transforms_that_nobody_can_look_into_are_said_to_be_unknown() {
    let mut world = World::new();
    world.pipe(json!({"_id": "a", "source": {"type": "dataset", "dataset": "x"}, "transform": {"type": "emit_children"}}));
    let row = one(&world, "a", "name");
    assert_eq!(row["depends-on"], json!(["unknown"]));
    assert_eq!(from(&row), ["computed x.*"]);
    assert_eq!(origins(&row), ["dataset x * via a"]);
}
