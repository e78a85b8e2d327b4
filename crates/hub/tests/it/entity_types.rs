//! What is inferred of the entities that pass through a pipe.

use std::time::Instant;

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, Parser};
use tahini_hub::entity_type::{
    ALL_OF_FIRST, Kept, MAX_ITEMS, MAX_NAMES, MAX_NODES, MAX_ROOT_NAMES, Observer, Side,
};
use tahini_hub::execution_log::User;

use crate::world::World;

/// A chronological pipe `p` into the dataset `p`.
fn chronological() -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "source": {
        "type": "scripted", "supports_since": true, "is_chronological": true
    }}));
    world
}

/// A pipe `p` whose every run reads everything.
fn full() -> World {
    let mut world = World::new();
    world.pipe(json!({"_id": "p"}));
    world
}

fn kept(world: &World) -> Kept {
    world.hub().entity_types("p").unwrap()
}

fn schema(world: &World, side: Side) -> Json {
    let kept = kept(world);
    kept.side(side).expect("something came").schema("p", side)
}

/// The changes of the last run, without the time.
fn told(world: &World) -> Vec<String> {
    world.succeed("p").drift_told
}

#[test]
fn every_kind_of_value_has_its_schema() {
    let world = full();
    world.records(
        "p",
        vec![json!({
            "_id": "1", "n": null, "b": true, "i": 1, "big": 123456789012345678901234567890u128,
            "f": 1.5e300, "d": "~f1.50", "s": "x", "y": "~bAAA=", "date": "~t2020-01-02",
            "at": "~t2020-01-02T03:04:05Z", "u": "~u00000000-0000-0000-0000-000000000000",
            "r": "~rhttp://x/", "ni": "~:a.b:1", "l": [1, "x"], "e": [],
            "o": {"in": {"deep": 1}},
        })],
    );
    world.succeed("p");
    let schema = schema(&world, Side::Sink);
    assert_eq!(schema["$id"], "/api/pipes/p/entity-types/sink");
    assert_eq!(schema["metadata"], json!({"count": 1, "truncated": false}));
    let tagged = |subtype: &str, tag: &str| json!({"type": "string", "subtype": subtype, "pattern": format!("^~{tag}")});
    let mut ni = tagged("ni", r":a\.b:");
    ni["metadata"] = json!({"namespaces": ["a.b"], "count": 1});
    let expected = [
        ("n", json!({"type": "null"})),
        ("b", json!({"type": "boolean"})),
        ("i", json!({"type": "integer"})),
        ("big", json!({"type": "integer"})),
        ("s", json!({"type": "string"})),
        ("d", tagged("decimal", "f")),
        ("y", tagged("bytes", "b")),
        ("date", tagged("date", "t")),
        ("at", tagged("nanoseconds", "t")),
        ("u", tagged("uuid", "u")),
        ("r", tagged("uri", "r")),
        ("ni", ni),
        ("e", json!({"type": "array", "items": {}})),
    ];
    for (name, mut expected) in expected {
        expected["metadata"]["count"] = json!(1);
        assert_eq!(schema["properties"][name], expected, "{name}");
    }
    let items = &schema["properties"]["l"]["items"];
    let kinds = json!([{"type": "integer"}, {"type": "string"}]);
    assert_eq!(
        (&items["anyOf"], &items["metadata"]["count"]),
        (&kinds, &json!(2))
    );
    let deep = &schema["properties"]["o"]["properties"]["in"]["properties"]["deep"];
    assert_eq!(deep["type"], "integer");
    for (name, kind) in [("_id", "string"), ("_deleted", "boolean")] {
        assert_eq!(schema["properties"][name], json!({"type": kind}));
    }
    assert_eq!(schema["additionalProperties"], true);
}

#[test]
fn what_is_missing_is_optional_and_what_is_null_is_not() {
    let world = full();
    world.records(
        "p",
        vec![
            json!({"_id": "1", "always": 1, "null": null, "in": {"a": 1, "b": 2}}),
            json!({"_id": "2", "always": "x", "null": 1, "in": {"a": 1}, "seldom": 1}),
        ],
    );
    world.succeed("p");
    let schema = schema(&world, Side::Source);
    assert_eq!(schema["required"], json!(["always", "null", "in"]));
    assert_eq!(schema["properties"]["in"]["required"], json!(["a"]));
    assert_eq!(schema["properties"]["seldom"]["metadata"]["count"], 1);
    assert_eq!(
        schema["properties"]["null"]["anyOf"],
        json!([{"type": "null"}, {"type": "integer"}])
    );
}

#[test]
fn source_and_sink_have_types_of_their_own() {
    let mut world = World::new();
    world.pipe(json!({
        "_id": "p",
        "transform": {"type": "dtl", "rules": {"default": [
            ["filter", ["neq", "_S._id", "3"]],
            ["add", "name", ["upper", "_S.n"]], ["add", "_own", 1],
            ["if", ["eq", "_S.gone", true], ["add", "_deleted", true]]
        ]}}
    }));
    world.records(
        "p",
        vec![
            json!({"_id": "1", "n": "a"}),
            json!({"_id": "2", "n": "b", "gone": true}),
            json!({"_id": "3", "n": "c"}),
            json!({"_id": "4", "n": "d", "_deleted": true}),
        ],
    );
    world.succeed("p");
    let (source, sink) = (schema(&world, Side::Source), schema(&world, Side::Sink));
    assert_eq!(source["metadata"]["count"], 3);
    assert_eq!(sink["metadata"]["count"], 1);
    let names = |schema: &Json| -> Vec<String> {
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(names(&source), ["_id", "_deleted", "n", "gone"]);
    assert_eq!(names(&sink), ["_id", "_deleted", "name"]);
}

#[test]
fn runs_add_up_and_a_complete_full_run_begins_anew() {
    let world = chronological();
    let record = |id: &str, at: i64, more: Json| {
        let mut record = json!({"_id": id, "_updated": at});
        record
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        record
    };
    let first = record("1", 1, json!({"a": 1, "in": {"x": 1}, "l": [1]}));
    world.records("p", vec![first.clone()]);
    assert_eq!(told(&world), [""; 0], "nothing was known before");
    let second = record(
        "2",
        2,
        json!({"a": "x", "b": true, "in": {"y": 1}, "l": [null]}),
    );
    world.records("p", vec![first, second.clone()]);
    assert_eq!(
        told(&world),
        [
            "source: a changed from integer to integer|string",
            "source: in.y appeared as integer",
            "source: l[] changed from integer to null|integer",
            "source: b appeared as boolean",
            "sink: a changed from integer to integer|string",
            "sink: in.y appeared as integer",
            "sink: l[] changed from integer to null|integer",
            "sink: b appeared as boolean",
        ]
    );
    assert_eq!(schema(&world, Side::Sink)["metadata"]["count"], 2);
    assert_eq!(
        schema(&world, Side::Sink)["properties"]["_updated"],
        json!({"type": "integer"})
    );
    // An idle run says nothing.
    assert_eq!(told(&world), [""; 0]);
    assert_eq!(kept(&world).changes.len(), 8);
    // The first record is gone, which only a run that reads everything can know.
    world.records("p", vec![second]);
    let summary = world.rescan("p");
    assert_eq!(
        summary.drift_told[..4],
        [
            "source: a changed from integer|string to string",
            "source: in.x vanished, which was integer",
            "source: l[] changed from null|integer to null",
            "sink: a changed from integer|string to string",
        ]
    );
    assert_eq!(schema(&world, Side::Source)["metadata"]["count"], 1);
    // The log and the totals tell of it.
    let log = world.log("p");
    let end = log
        .iter()
        .rfind(|entry| entry["_id"] == "pump-completed")
        .unwrap();
    assert_eq!(end["entity_type_changes"], 6);
    assert_eq!(
        end["entity_type_changes_first"][1],
        "source: in.x vanished, which was integer"
    );
    assert_eq!(world.live_pipe("p").state().totals.drift, 14);
}

#[test]
fn types_outlive_the_node() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "p"}));
        let ni = json!({"_id": "1", "n": "~:a:1", "l": [{"k": [1.5]}], "e": {}});
        world.records("p", vec![ni]);
        world.succeed("p");
        let before = schema(&world, Side::Source);
        world.restart_if_on_disk();
        assert_eq!(schema(&world, Side::Source), before);
        // What is the same as before is not written again.
        let commits = world.version_count("p");
        assert_eq!(told(&world), [""; 0]);
        assert_eq!(
            (schema(&world, Side::Source), world.version_count("p")),
            (before, commits)
        );
    }
}

#[test]
fn names_that_are_data_are_told_of_as_one() {
    let world = full();
    let by_id = |from: usize, to: usize| -> Json {
        let pairs = (from..to).map(|n| (format!("id{n}"), json!({"n": n})));
        Json::Object(pairs.collect())
    };
    let few = json!({"_id": "1", "few": by_id(0, MAX_NAMES), "many": by_id(0, MAX_NAMES)});
    let more = json!({"_id": "2", "few": {}, "many": by_id(MAX_NAMES, MAX_NAMES + 1)});
    world.records("p", vec![few, more]);
    world.succeed("p");
    let schema = schema(&world, Side::Source);
    let properties = &schema["properties"];
    assert_eq!(
        properties["few"]["properties"].as_object().unwrap().len(),
        MAX_NAMES
    );
    let many = &properties["many"];
    assert!(many.get("properties").is_none(), "{many}");
    let value = &many["additionalProperties"];
    assert_eq!(value["properties"]["n"]["type"], "integer");
    assert_eq!(value["properties"]["n"]["metadata"]["count"], MAX_NAMES + 1);
    assert_eq!(schema["metadata"]["truncated"], false);
}

#[test]
fn a_type_stays_small_whatever_comes() {
    // Names at the root are data: a type without names is left.
    let names = |id: usize| {
        let pairs = (0..50).map(|n| (format!("p{id}-{n}"), json!(n)));
        let mut entity: serde_json::Map<String, Json> = pairs.collect();
        entity.insert("_id".to_owned(), json!(id.to_string()));
        Json::Object(entity)
    };
    let world = full();
    world.records("p", (0..MAX_ROOT_NAMES / 50 + 1).map(names).collect());
    world.succeed("p");
    let found = schema(&world, Side::Source);
    assert_eq!(found["additionalProperties"]["type"], "integer");
    assert_eq!(
        found["additionalProperties"]["metadata"]["count"],
        MAX_ROOT_NAMES + 50
    );

    // Many dicts with a few names each: what finds no place is left out, and that is said.
    let dicts = |at: usize| {
        let inner = (0..MAX_NAMES).map(|n| (format!("n{n}"), json!(1)));
        (format!("d{at}"), Json::Object(inner.collect()))
    };
    let mut entity: serde_json::Map<String, Json> =
        (0..MAX_NODES / MAX_NAMES + 1).map(dicts).collect();
    entity.insert("_id".to_owned(), json!("1"));
    let world = full();
    world.records("p", vec![Json::Object(entity)]);
    world.succeed("p");
    let found = schema(&world, Side::Source);
    assert_eq!(found["metadata"]["truncated"], true);
    let dicts = found["properties"].as_object().unwrap().values();
    let inner = dicts
        .filter_map(|dict| dict["properties"].as_object())
        .map(|names| names.len());
    assert!(inner.sum::<usize>() < MAX_NODES);

    // A long list is looked at in part.
    let world = full();
    let mut list = vec![json!(1); MAX_ITEMS];
    list.push(json!("x"));
    world.records("p", vec![json!({"_id": "1", "l": list})]);
    world.succeed("p");
    let items = schema(&world, Side::Source)["properties"]["l"]["items"].clone();
    assert_eq!(
        (&items["type"], &items["metadata"]["count"]),
        (&json!("integer"), &json!(MAX_ITEMS))
    );
}

#[test]
fn resetting_forgets_where_that_makes_a_run_begin_anew() {
    let user = User::default();
    for (world, forgotten) in [(chronological(), true), (full(), false)] {
        world.records("p", vec![json!({"_id": "1", "_updated": 1, "n": 1})]);
        world.succeed("p");
        let at = tahini_entity::Offset::Int(1);
        world.hub().set_offset("p", Some(at), &user).unwrap();
        assert!(kept(&world).source.is_some());
        world.hub().set_offset("p", None, &user).unwrap();
        assert_eq!(kept(&world).source.is_none(), forgotten);
        world.succeed("p");
        world.hub().discard_entity_types("p", &user).unwrap();
        assert!(kept(&world).source.is_none());
        let kinds = world.log_kinds("p");
        assert_eq!(kinds.last().unwrap(), "pump-discard-inferred-schema");
    }
}

#[test]
fn nothing_is_inferred_where_that_is_switched_off() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "infer_pipe_entity_types": false}));
    world.records("p", vec![json!({"_id": "1", "n": 1})]);
    world.succeed("p");
    assert!(kept(&world).source.is_none());
}

#[test]
fn pipes_with_a_sink_outside_keep_their_types_in_the_log() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "sink": {"type": "scripted"}}));
    world.records("p", vec![json!({"_id": "1", "n": 1})]);
    world.succeed("p");
    let properties = &schema(&world, Side::Sink)["properties"];
    assert_eq!(properties["n"]["type"], "integer");
    world.records("p", vec![json!({"_id": "1"})]);
    assert_eq!(
        told(&world),
        [
            "source: n vanished, which was integer",
            "sink: n vanished, which was integer"
        ]
    );
    let shown = world.versions("system:pump_execution:p", true, Fields::CONTENT);
    assert!(shown.iter().any(|entry| entry["entity_type_changes"] == 2));
}

#[test]
fn a_failed_run_changes_no_types() {
    let world = full();
    world.records("p", vec![json!({"_id": "1", "n": 1})]);
    world.succeed("p");
    let before = schema(&world, Side::Source);
    world.upstream("p", |upstream| {
        upstream.records = vec![json!({"_id": "1", "n": "x"}), json!({"no": "id"})];
    });
    world.fail("p");
    assert_eq!(schema(&world, Side::Source), before);
}

#[test]
fn looking_is_the_same_whatever_the_batches() {
    let all: Vec<Json> = (0..500)
        .map(|n| match n % 5 {
            0 => json!({"_id": n.to_string(), "a": n, "b": [n]}),
            1 => json!({"_id": n.to_string(), "b": [], "a": n.to_string()}),
            2 => json!({"_id": n.to_string(), "a": {"x": n}}),
            3 => json!({"_id": n.to_string(), "a": {"y": null, "x": [[{"z": 1}]]}}),
            _ => json!({"_id": n.to_string(), "c": format!("~:ns{}:1", n % 7)}),
        })
        .collect();
    let look = |size: usize| {
        let mut observer = Observer::default();
        for part in all.chunks(size) {
            observer.observe(&crate::script::batch(part));
        }
        observer.seen().schema("p", Side::Source)
    };
    let whole = look(500);
    assert_eq!(whole["metadata"]["count"], 500);
    for size in [1, 7, 100] {
        assert_eq!(look(size), whole, "{size}");
    }
}

#[test]
fn of_many_entities_some_stand_for_others_and_what_is_there_is_still_exact() {
    let many = 5 * ALL_OF_FIRST as usize;
    let mut observer = Observer::default();
    let all: Vec<Json> = (0..many)
        .map(|n| {
            let in_it = json!({"x": 1, "l": [n, n]});
            let mut entity = json!({"_id": n.to_string(), "a": n, "in": in_it});
            if n % 3 == 0 {
                entity["third"] = json!("x");
            }
            if n % 2 == 0 {
                entity["a"] = json!("text");
            }
            entity
        })
        .collect();
    for part in all.chunks(1_000) {
        observer.observe(&crate::script::batch(part));
    }
    let schema = observer.seen().schema("p", Side::Source);
    assert_eq!(schema["metadata"]["count"], many);
    assert_eq!(schema["required"], json!(["a", "in"]));
    let properties = &schema["properties"];
    for name in ["a", "in"] {
        assert_eq!(properties[name]["metadata"]["count"], many, "{name}");
    }
    assert_eq!(properties["third"]["metadata"]["count"], many.div_ceil(3));
    let inner = &properties["in"];
    assert_eq!(inner["required"], json!(["x", "l"]));
    assert_eq!(
        inner["properties"]["l"]["items"]["metadata"]["count"],
        2 * many
    );
    assert_eq!(properties["a"]["anyOf"].as_array().unwrap().len(), 2);
    // Asking twice gives the same, and what comes later is counted, too.
    assert_eq!(observer.seen().schema("p", Side::Source), schema);
    observer.begin();
    observer.observe(&crate::script::batch(&[
        json!({"_id": "x", "a": null, "in": {}}),
    ]));
    let kinds = observer.seen().schema("p", Side::Source)["properties"]["a"]["anyOf"].clone();
    assert_eq!(kinds.as_array().unwrap().len(), 3);
}

/// A measurement by hand, not a test: what looking costs beside parsing.
/// `python3 entities.py 200000 > /tmp/e && SPEED=/tmp/e cargo test --release -p tahini-hub --test it
/// cost_of_looking -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "it is read by whoever measures")]
fn cost_of_looking() {
    let text = std::fs::read(std::env::var("SPEED").unwrap()).unwrap();
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    let mut parser = Parser::new(Numbers::default());
    let mut observer = Observer::default();
    let (mut batch, mut parse, mut look) = (Batch::new(), 0.0, 0.0);
    for chunk in lines.chunks(100) {
        batch.clear();
        let started = Instant::now();
        chunk
            .iter()
            .for_each(|line| parser.push_json(&mut batch, line).unwrap());
        let parsed = Instant::now();
        observer.observe(&batch);
        look += parsed.elapsed().as_secs_f64();
        parse += (parsed - started).as_secs_f64();
    }
    let each = |seconds: f64| seconds / lines.len() as f64 * 1e9;
    println!(
        "an entity: parse {:.0} ns, look {:.1} ns",
        each(parse),
        each(look)
    );
    assert_eq!(observer.seen().entities(), lines.len() as u64);
}
