//! What a pipe's rules joined has changed: exactly the entities that it was joined with go through
//! the pipe again.

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, entity_from_config};
use tahini_hub::execution_log::Summary;
use tahini_hub::scheduler::Scheduler;
use tahini_hub::settle::{Options, settle};
use tahini_hub::{Cancel, pump::Request};

use crate::scheduler::{AUTOMATIC, end, still, until};
use crate::script::gate;
use crate::world::{BEGINNING, World};

/// Writes a version of an entity into a dataset that no pipe writes.
pub fn put(world: &World, dataset: &str, entity: Json) {
    put_at(world, dataset, entity, BEGINNING);
}

fn put_at(world: &World, dataset: &str, entity: Json, now: i64) {
    let mut rows = Batch::new();
    let entity = entity_from_config(&entity, Numbers::default(), 0).unwrap();
    rows.push_entity(&entity).unwrap();
    world.commit(dataset, &rows, now);
}

/// A pipe `p` over `orders` whose entities get what `hops` gives, sorted.
fn pipe(hops: Json) -> Json {
    let mut call = vec![json!("hops")];
    match hops {
        Json::Array(specs) => call.extend(specs),
        spec => call.push(spec),
    }
    json!({
        "_id": "p",
        "source": {"type": "dataset", "dataset": "orders"},
        "transform": {"type": "dtl", "rules": {"default": [
            ["copy", "_id"], ["add", "x", ["sorted", "_.", call]]
        ]}},
    })
}

/// Orders of customers.
fn by_customer() -> Json {
    json!({"datasets": ["customers c"], "where": ["eq", "_S.customer", "c._id"], "return": "c.name"})
}

fn customer(world: &World, id: &str, name: &str) {
    put(world, "customers", json!({"_id": id, "name": name}));
}

fn order(world: &World, id: &str, customer: Json) {
    put(world, "orders", json!({"_id": id, "customer": customer}));
}

/// Three orders of two customers, all through the pipe.
fn world() -> World {
    let mut world = World::new();
    customer(&world, "a", "Ada");
    customer(&world, "b", "Bob");
    order(&world, "1", json!("a"));
    order(&world, "2", json!(["a", "b"]));
    order(&world, "3", json!("b"));
    world.pipe(pipe(by_customer()));
    assert_eq!(world.succeed("p").reprocessed, []);
    assert_eq!(names(&world), ["1:Ada", "2:Ada+Bob", "3:Bob"]);
    world
}

/// What came of the orders.
fn names(world: &World) -> Vec<String> {
    let mut all: Vec<String> = world
        .versions("p", false, Fields::CONTENT)
        .iter()
        .map(|entity| {
            let id = entity["_id"].as_str().unwrap();
            let names = entity["x"].as_array().into_iter().flatten();
            let names: Vec<String> = names
                .map(|name| name.as_str().map_or(name.to_string(), str::to_owned))
                .collect();
            let gone = if entity["_deleted"] == true { "-" } else { "" };
            format!("{gone}{id}:{}", names.join("+"))
        })
        .collect();
    all.sort();
    all
}

/// How many entities went through, how many of them again, and how many changed.
fn counts(summary: &Summary) -> (u64, u64, u64) {
    (summary.read, summary.reprocessed(), summary.changed)
}

#[test]
fn a_changed_entity_brings_those_that_it_is_joined_with() {
    let world = world();
    customer(&world, "a", "Eva");
    let summary = world.succeed("p");
    assert_eq!(names(&world), ["1:Eva", "2:Bob+Eva", "3:Bob"]);
    assert_eq!(counts(&summary), (2, 2, 2));
    assert_eq!(summary.reprocessed, [("customers".to_owned(), 2)]);
    assert_eq!(summary.sync_type, "incremental");
    // The log tells as much, and a run without news does nothing.
    let log = world.log("p");
    let last = log.last().unwrap();
    assert_eq!(last["reprocessed_because_of"], json!({"customers": 2}));
    assert_eq!(last["metrics"]["entities"]["reprocessed_last_run"], 2);
    // Order 1 has one customer and order 2 has two.
    let hops =
        json!({"max-cardinality": 2, "max-cardinality-last-run": 2, "total-rows-last-run": 3});
    assert_eq!(last["metrics"]["hops"], hops);
    assert_eq!(counts(&world.succeed("p")), (0, 0, 0));
    assert_eq!(world.log("p").len(), log.len());
}

#[test]
fn a_join_that_disappears_is_known_by_the_version_before() {
    let mut world = World::new();
    for (id, of) in [("n", "1"), ("m", "2")] {
        put(&world, "notes", json!({"_id": id, "of": of}));
    }
    for id in ["1", "2", "3"] {
        order(&world, id, Json::Null);
    }
    world.pipe(pipe(
        json!({"datasets": ["notes n"], "where": ["eq", "_S._id", "n.of"], "return": "n._id"}),
    ));
    world.succeed("p");
    assert_eq!(names(&world), ["1:n", "2:m", "3:"]);
    // From one order to another, twice before anybody looks.
    put(&world, "notes", json!({"_id": "n", "of": "2"}));
    put(&world, "notes", json!({"_id": "n", "of": "3"}));
    let summary = world.succeed("p");
    assert_eq!(names(&world), ["1:", "2:m", "3:n"]);
    // The one in between may have been joined meanwhile.
    assert_eq!(counts(&summary), (3, 3, 2));
    put(
        &world,
        "notes",
        json!({"_id": "n", "of": "3", "_deleted": true}),
    );
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    assert_eq!(names(&world), ["1:", "2:m", "3:"]);
    // It comes back, as another one's, and with a null that joins nobody.
    put(&world, "notes", json!({"_id": "n", "of": ["1", null]}));
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    assert_eq!(names(&world), ["1:n", "2:m", "3:"]);
}

#[test]
fn what_the_source_gives_anyway_comes_once_and_what_is_deleted_stays_so() {
    let world = world();
    order(&world, "1", json!("b"));
    put(
        &world,
        "orders",
        json!({"_id": "3", "customer": "b", "_deleted": true}),
    );
    customer(&world, "b", "Bea");
    let summary = world.succeed("p");
    assert_eq!(names(&world), ["-3:Bea", "1:Bea", "2:Ada+Bea"]);
    assert_eq!(counts(&summary), (3, 1, 3));
    customer(&world, "b", "Bob");
    assert_eq!(counts(&world.succeed("p")), (2, 2, 2));
    assert_eq!(names(&world), ["-3:Bea", "1:Bob", "2:Ada+Bob"]);
}

#[test]
fn a_dataset_that_comes_later_is_followed_from_its_start() {
    let mut world = World::new();
    order(&world, "1", json!("a"));
    world.pipe(pipe(by_customer()));
    world.succeed("p");
    assert_eq!(names(&world), ["1:"]);
    customer(&world, "a", "Ada");
    customer(&world, "b", "Bob");
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    assert_eq!(names(&world), ["1:Ada"]);
}

#[test]
fn who_wants_no_tracking_gets_none() {
    let mut spec = by_customer();
    spec["track-dependencies"] = json!(false);
    let mut world = world();
    world.pipe(pipe(spec));
    world.rescan("p");
    customer(&world, "a", "Eva");
    assert_eq!(counts(&world.succeed("p")), (0, 0, 0));
    assert_eq!(names(&world)[0], "1:Ada");
}

/// Trap: the ends of the joined datasets are noted before anything is joined.
#[test]
fn what_changes_while_a_full_run_goes_on_is_the_next_ones() {
    for resumed in [false, true] {
        let mut world = World::new();
        customer(&world, "a", "Ada");
        for id in ["1", "2"] {
            order(&world, id, json!("a"));
        }
        let mut pipe = pipe(by_customer());
        let dtl = pipe["transform"].take();
        pipe["transform"] = json!([dtl, {"type": "scripted"}]);
        pipe["batch_size"] = json!(1);
        world.pipe(pipe);
        let (gate, keeper) = gate();
        world.middle("p", |middle| middle.gate = Some(("2".to_owned(), gate)));
        let summary = std::thread::scope(|scope| {
            let run = scope.spawn(|| world.run("p"));
            keeper.wait();
            // `1` is through with the old name, and `2` is joined with it already.
            customer(&world, "a", "Eva");
            if resumed {
                world.hub().stop("p").unwrap();
            } else {
                keeper.open.send(()).unwrap();
            }
            run.join().unwrap()
        });
        world.middle("p", |middle| middle.gate = None);
        assert_eq!(summary.success(), !resumed);
        if resumed {
            let summary = world.succeed("p");
            assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 1));
            assert_eq!(names(&world), ["1:Ada", "2:Eva"]);
        }
        assert_eq!(counts(&world.succeed("p")).1, 2, "{resumed}");
        assert_eq!(names(&world), ["1:Eva", "2:Eva"], "{resumed}");
    }
}

/// Trap: the newest version of a source entity may be held back; the one that the pipe has seen
/// counts.
#[test]
fn what_the_source_holds_back_is_processed_as_the_pipe_has_seen_it() {
    let mut world = World::new();
    customer(&world, "a", "Ada");
    customer(&world, "b", "Bob");
    world.pipe(json!({"_id": "orders"}));
    let mut reader = pipe(by_customer());
    reader["source"]["completeness"] = json!(true);
    world.pipe(reader);
    let write = |seconds: i64, customer: &str| {
        world.clock.set(BEGINNING + seconds * 1_000_000);
        world.records("orders", vec![json!({"_id": "1", "customer": customer})]);
        world.succeed("orders");
    };
    write(10, "a");
    write(20, "a");
    assert_eq!(world.succeed("p").held_back, None);
    assert_eq!(names(&world), ["1:Ada"]);
    // The next version is newer than what is known to be complete.
    write(30, "b");
    customer(&world, "a", "Eva");
    customer(&world, "b", "Bea");
    let summary = world.succeed("p");
    assert!(summary.held_back.is_some());
    assert_eq!(counts(&summary), (1, 1, 1));
    assert_eq!(names(&world), ["1:Eva"]);
    write(40, "b");
    assert_eq!(counts(&world.succeed("p")), (1, 0, 1));
    assert_eq!(names(&world), ["1:Bea"]);
}

#[test]
fn rules_behind_other_rules_join_by_what_those_made() {
    let mut world = World::new();
    customer(&world, "a-a", "Ada");
    order(&world, "1", json!("a"));
    order(&world, "2", json!("b"));
    let mut behind = pipe(json!({
        "datasets": ["customers c"], "where": ["eq", "_S.made.of", "c._id"], "return": "c.name"
    }));
    let last = behind["transform"].take();
    let first = json!({"type": "dtl", "rules": {"default": [
        ["copy", "_id"],
        ["add", "made", ["dict", "of", ["concat", "_S.customer", "-", "_S.customer"]]]
    ]}});
    behind["transform"] = json!([first, last]);
    world.pipe(behind);
    world.succeed("p");
    assert_eq!(names(&world), ["1:Ada", "2:"]);
    customer(&world, "a-a", "Eva");
    customer(&world, "b-b", "Bob");
    assert_eq!(counts(&world.succeed("p")), (2, 2, 2));
    assert_eq!(names(&world), ["1:Eva", "2:Bob"]);
    customer(&world, "b-b", "Bea");
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
}

#[test]
fn namespaces_that_are_added_stand_in_what_is_joined_by() {
    let mut world = World::new();
    put(&world, "customers", json!({"_id": "a", "p:name": "Ada"}));
    order(&world, "1", json!("a"));
    let mut pipe = pipe(json!({
        "datasets": ["customers c"], "where": ["eq", "_S.customer", "c._id"], "return": "c.name"
    }));
    pipe["add_namespaces"] = json!(true);
    pipe["namespaced_identifiers"] = json!(true);
    pipe["transform"]["rules"]["default"] = json!([["copy", "*"], [
        "add", "x", ["hops", {"datasets": ["customers c"],
            "where": ["eq", ["list", "_S.p:customer", "_S._id"], ["list", "c._id", "c.p:order"]]}]
    ]]);
    world.pipe(pipe);
    world.succeed("p");
    let x = |world: &World| world.versions("p", false, Fields::CONTENT)[0]["p:x"].clone();
    assert_eq!(x(&world).as_array().unwrap().len(), 1);
    put(&world, "customers", json!({"_id": "b", "p:order": "p:1"}));
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    assert_eq!(x(&world).as_array().unwrap().len(), 2);
}

#[test]
fn a_subset_and_replaced_entities_are_left_out_again() {
    for (source, given) in [
        (json!({"subset": ["eq", "_S.kind", "k"]}), vec!["1", "3"]),
        (json!({"include_replaced": false}), vec!["1", "2"]),
    ] {
        let mut world = World::new();
        customer(&world, "a", "Ada");
        for (id, kind, replaced) in [("1", "k", false), ("2", "l", false), ("3", "k", true)] {
            let order = json!({"_id": id, "kind": kind, "customer": "a", "$replaced": replaced});
            put(&world, "orders", order);
        }
        let mut pipe = pipe(by_customer());
        for (name, value) in source.as_object().unwrap() {
            pipe["source"][name] = value.clone();
        }
        world.pipe(pipe);
        world.succeed("p");
        customer(&world, "a", "Eva");
        assert_eq!(world.succeed("p").read, 2, "{source}");
        assert_eq!(world.living("p"), given, "{source}");
    }
}

#[test]
fn compaction_leaves_what_was_not_followed_yet() {
    let mut world = World::new();
    world.pipe(json!({"_id": "customers", "compaction": {"keep_versions": 1}}));
    let write = |world: &World, of: &str| {
        world.records("customers", vec![json!({"_id": "c", "of": of})]);
        world.succeed("customers");
    };
    write(&world, "1");
    for id in ["1", "2", "3"] {
        order(&world, id, Json::Null);
    }
    world.pipe(pipe(
        json!({"datasets": ["customers c"], "where": ["eq", "_S._id", "c.of"], "return": "c.of"}),
    ));
    world.succeed("p");
    for of in ["2", "3", "2", "3"] {
        write(&world, of);
    }
    assert_eq!(world.version_count("customers"), 5);
    world.succeed("p");
    assert_eq!(names(&world), ["1:", "2:", "3:3"]);
    write(&world, "1");
    assert_eq!(world.version_count("customers"), 2);
    world.succeed("p");
    assert_eq!(names(&world), ["1:1", "2:", "3:"]);
}

#[test]
fn too_many_fail_the_run_or_make_it_begin_anew() {
    let mut world = world();
    let mut pipe = pipe(by_customer());
    pipe["dependency_tracking"] =
        json!({"dependency_warning_threshold": 0, "dependency_error_threshold": 1});
    world.pipe(pipe.clone());
    customer(&world, "a", "Eva");
    let words = world.fail("p");
    assert!(
        words.contains("dependency_error_threshold") && words.contains("rescan"),
        "{words}"
    );
    assert_eq!(names(&world)[0], "1:Ada");
    // Nothing was forgotten.
    pipe["dependency_tracking"]["dependency_error_threshold"] = json!(2);
    world.pipe(pipe.clone());
    let summary = world.succeed("p");
    assert_eq!(counts(&summary), (2, 2, 2));
    assert!(summary.warnings[0].contains("dependency_warning_threshold"));
    pipe["dependency_tracking"] = json!({"dependency_error_threshold": 1});
    pipe["reprocessing_policy"] = json!("automatic");
    world.pipe(pipe.clone());
    customer(&world, "a", "Ada");
    assert!(world.fail("p").contains("was reset"));
    let summary = world.succeed("p");
    assert_eq!(
        (summary.sync_type.as_str(), summary.reprocessed()),
        ("full", 0)
    );
    assert_eq!(names(&world), ["1:Ada", "2:Ada+Bob", "3:Bob"]);
    pipe["dependency_tracking"] = json!({"dependency_error_threshold_total_bytes": 1});
    pipe["reprocessing_policy"] = json!("continue");
    world.pipe(pipe);
    customer(&world, "a", "Eva");
    assert!(world.fail("p").contains("total_bytes"));
}

#[test]
fn a_rescan_follows_everything_and_a_new_offset_forgets_nothing() {
    let world = world();
    customer(&world, "a", "Eva");
    assert_eq!(counts(&world.rescan("p")), (3, 0, 2));
    assert_eq!(counts(&world.succeed("p")), (0, 0, 0));
    customer(&world, "a", "Ada");
    let user = tahini_hub::execution_log::User::default();
    let end = Some(tahini_entity::Offset::Int(2));
    world.hub().set_offset("p", end, &user).unwrap();
    assert_eq!(counts(&world.succeed("p")), (2, 2, 2));
    assert_eq!(names(&world), ["1:Ada", "2:Ada+Bob", "3:Bob"]);
}

#[test]
fn another_dataset_of_the_same_name_is_told() {
    let world = world();
    world.hub().world.store.remove("customers").unwrap();
    customer(&world, "a", "Eva");
    let summary = world.succeed("p");
    assert_eq!(summary.reprocessed(), 0);
    let told = summary
        .warnings
        .iter()
        .any(|words| words.contains("another one than before"));
    assert!(told, "{:?}", summary.warnings);
}

#[test]
fn who_joins_its_own_sink_comes_to_rest() {
    let mut world = World::new();
    for id in ["1", "2"] {
        put(&world, "orders", json!({"_id": id, "of": "1"}));
    }
    // How many entities say that they are of this one: everybody, and so does the next run.
    let mut pipe =
        pipe(json!({"datasets": ["p o"], "where": ["eq", "_S.of", "o.of"], "return": "o._id"}));
    pipe["sink"] = json!({"type": "dataset", "dataset": "p", "set_initial_offset": "onload"});
    pipe["transform"]["rules"]["default"][0] = json!(["copy", "*"]);
    world.pipe(pipe);
    let rest = settle(world.hub(), &Options::default(), &Cancel::new(), |_| {}).unwrap();
    assert!(rest.is_settled(), "{rest:?}");
    assert_eq!(names(&world), ["1:1+2", "2:1+2"]);
}

#[test]
fn a_project_comes_to_rest_with_every_join_true() {
    let mut world = World::new();
    // `a` joins what `z` writes, and reads what `y` writes.
    let joining = |id: &str, from: &str, with: &str| {
        let spec = json!({"datasets": [format!("{with} w")], "where": ["eq", "_S._id", "w._id"],
            "return": "w.v"});
        json!({"_id": id, "source": {"type": "dataset", "dataset": from},
            "transform": {"type": "dtl", "rules": {"default": [
                ["copy", "_id"], ["add", "v", ["first", ["hops", spec]]]]}}})
    };
    world.pipe(joining("a", "y", "z"));
    world.pipe(json!({"_id": "y"}));
    world.pipe(json!({"_id": "z", "source": {"type": "dataset", "dataset": "in"}}));
    world.pipe(json!({"_id": "in"}));
    world.records("y", vec![json!({"_id": "1"})]);
    world.records("in", vec![json!({"_id": "1", "v": 5})]);
    let settled = |world: &World| {
        let mut ran = Vec::new();
        let rest = settle(world.hub(), &Options::default(), &Cancel::new(), |one| {
            ran.push(format!("{} {}", one.pass, one.pipe));
        });
        assert!(rest.unwrap().is_settled());
        ran
    };
    assert_eq!(settled(&world)[..4], ["1 in", "1 y", "1 z", "1 a"]);
    assert_eq!(world.versions("a", false, Fields::CONTENT)[0]["v"], 5);
    world.records("in", vec![json!({"_id": "1", "v": 6})]);
    settled(&world);
    assert_eq!(world.versions("a", false, Fields::CONTENT)[0]["v"], 6);
}

#[test]
fn what_was_followed_survives_a_restart() {
    let mut world = World::on_disk();
    customer(&world, "a", "Ada");
    order(&world, "1", json!("a"));
    world.pipe(pipe(by_customer()));
    world.succeed("p");
    customer(&world, "a", "Eva");
    world.restart();
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    world.restart();
    assert_eq!(counts(&world.succeed("p")), (0, 0, 0));
    let request = Request {
        rescan: true,
        ..Request::default()
    };
    assert_eq!(world.try_run("p", &request).unwrap().changed, 0);
    assert_eq!(names(&world), ["1:Eva"]);
}

#[test]
fn sources_of_several_datasets_give_their_entities_again() {
    for (source, expected) in [
        (json!({"type": "merge_datasets"}), ["1:Eva", "2:Bob"]),
        (
            json!({"type": "union_datasets"}),
            ["old:2:Bob", "orders:1:Eva"],
        ),
        (
            json!({"type": "union_datasets", "prefix_ids": false}),
            ["1:Eva", "2:Bob"],
        ),
    ] {
        let mut world = World::new();
        customer(&world, "a", "Ada");
        customer(&world, "b", "Bob");
        order(&world, "1", json!("a"));
        put(&world, "old", json!({"_id": "2", "customer": "b"}));
        let mut several = pipe(by_customer());
        several["source"] = source.clone();
        several["source"]["datasets"] = json!(["orders", "old"]);
        world.pipe(several);
        world.succeed("p");
        customer(&world, "a", "Eva");
        assert_eq!(counts(&world.succeed("p")), (1, 1, 1), "{source}");
        assert_eq!(names(&world), expected, "{source}");
        // A newer version in another dataset takes its place, where they are merged.
        put_at(
            &world,
            "old",
            json!({"_id": "1", "customer": "b"}),
            BEGINNING + 1_000_000,
        );
        world.succeed("p");
        customer(&world, "a", "Ada");
        let again = u64::from(expected[1] == "orders:1:Eva");
        let merged = source["type"] == "merge_datasets";
        let summary = world.succeed("p");
        assert_eq!(summary.read, if merged { 0 } else { 1 }, "{source}");
        assert!(summary.changed >= again, "{source}");
    }
}

#[test]
fn ids_that_a_source_prefixes_are_joined_by_as_they_are_given() {
    let mut world = World::new();
    order(&world, "1", Json::Null);
    put(&world, "notes", json!({"_id": "n", "of": "orders:1"}));
    let mut pipe = pipe(
        json!({"datasets": ["notes n"], "where": ["eq", "_S._id", "n.of"], "return": "n._id"}),
    );
    pipe["source"] = json!({"type": "union_datasets", "datasets": ["orders"]});
    world.pipe(pipe);
    world.succeed("p");
    assert_eq!(names(&world), ["orders:1:n"]);
    put(&world, "notes", json!({"_id": "n", "of": "orders:2"}));
    assert_eq!(counts(&world.succeed("p")), (1, 1, 1));
    assert_eq!(names(&world), ["orders:1:"]);
}

#[test]
fn a_change_of_what_is_joined_starts_the_pipe_as_one_of_its_source_does() {
    for before in [false, true] {
        let mut world = World::new();
        world.pipe(still("customers"));
        let named = |name: &str| vec![json!({"_id": "a", "name": name})];
        world.records("customers", named("Ada"));
        world.succeed("customers");
        order(&world, "1", json!("a"));
        let mut pipe = pipe(by_customer());
        pipe["source"]["supports_signalling"] = json!(true);
        pipe["pump"] = json!({"cron_expression": "0 0 1 1 *"});
        world.pipe(pipe);
        world.succeed("p");
        world.records("customers", named("Eva"));
        if before {
            // Nobody was there to hear of it.
            world.succeed("customers");
        }
        let scheduler = Scheduler::start(world.hub().clone(), AUTOMATIC);
        if !before {
            scheduler
                .start_run("customers", Request::default())
                .unwrap();
        }
        until(|| names(&world) == ["1:Eva"]);
        end(&scheduler);
    }
}

#[test]
fn what_waits_to_be_followed_is_known_and_can_be_forgotten() {
    let world = world();
    customer(&world, "a", "Eva");
    customer(&world, "c", "Cai");
    let waiting = |world: &World| world.hub().unfollowed(&world.live_pipe("p")).unwrap();
    assert_eq!(waiting(&world), [("customers".to_owned(), 2)].into());
    world.hub().reset_tracking("p").unwrap();
    assert_eq!(waiting(&world), [].into());
    assert_eq!(counts(&world.succeed("p")), (0, 0, 0));
    assert_eq!(waiting(&world), [("customers".to_owned(), 0)].into());
    customer(&world, "b", "Bea");
    assert_eq!(counts(&world.succeed("p")), (2, 2, 2));
    // What was forgotten can be made good without reading the source again.
    world.hub().set_tracking_to_start("p").unwrap();
    assert!(waiting(&world)["customers"] >= 3);
    assert_eq!(names(&world), ["1:Ada", "2:Bea+Eva", "3:Bea"]);
    assert_eq!(counts(&world.succeed("p")), (3, 3, 1));
    assert_eq!(names(&world), ["1:Eva", "2:Bea+Eva", "3:Bea"]);
    assert_eq!(waiting(&world), [("customers".to_owned(), 0)].into());
}

#[test]
fn the_same_limits_can_hold_for_joins() {
    let mut world = world();
    let mut pipe = pipe(by_customer());
    let limits = |warning: u64, error: u64| {
        json!({"enable_hops_thresholds": true, "dependency_warning_threshold": warning,
            "dependency_error_threshold": error})
    };
    pipe["dependency_tracking"] = limits(1, 2);
    world.pipe(pipe.clone());
    let summary = world.rescan("p");
    assert!(summary.success());
    assert!(summary.warnings[0].starts_with("2 entities were joined with one"));
    pipe["dependency_tracking"] = limits(1, 1);
    world.pipe(pipe);
    let failure = world.rescan("p").failure.unwrap().to_string();
    assert!(failure.contains("enable_hops_thresholds"), "{failure}");
}

#[test]
fn limits_of_bytes_hold_for_joins_too() {
    let mut world = world();
    let mut pipe = pipe(by_customer());
    let limits = |warning: u64, error: u64| {
        json!({"enable_hops_thresholds": true,
            "dependency_warning_threshold_total_bytes": warning,
            "dependency_error_threshold_total_bytes": error})
    };
    pipe["dependency_tracking"] = limits(10, 100_000);
    world.pipe(pipe.clone());
    let summary = world.rescan("p");
    assert!(summary.success());
    let words = &summary.warnings[0];
    assert!(words.contains("bytes of entities were joined"), "{words}");
    pipe["dependency_tracking"] = limits(10, 20);
    world.pipe(pipe);
    let failure = world.rescan("p").failure.unwrap().to_string();
    assert!(failure.contains("bytes of entities joined"), "{failure}");
}

#[test]
fn the_log_tells_of_each_hops_with_a_name() {
    let mut world = world();
    let hops = |world: &World| {
        let end = world.log("p").pop().unwrap();
        (end["_id"].clone(), end["metrics"]["hops"]["trace"].clone())
    };
    assert_eq!(hops(&world), (json!("pump-completed"), Json::Null));
    let mut traced = by_customer();
    traced["trace"] = json!("customers of an order");
    let mut pipe = pipe(traced);
    // The order with two customers is in a batch between others.
    pipe["batch_size"] = json!(1);
    // A second transform has a name of its own, and one that the first has too.
    let first = pipe["transform"].take();
    let second = json!({"type": "dtl", "rules": {"default": [
        ["copy", "*"],
        ["add", "none", ["hops", {"datasets": ["customers c"], "trace": "max-cardinality",
            "where": ["eq", "_S._id", "c._id"]}]],
        ["add", "same", ["hops", {"datasets": ["customers c"], "trace": "customers of an order",
            "where": ["eq", "_S._id", "c._id"]}]],
    ]}});
    pipe["transform"] = json!([first, second]);
    world.pipe(pipe.clone());
    assert!(world.rescan("p").success());
    let most = json!({"customers of an order": {"max-cardinality": 2},
        "max-cardinality": {"max-cardinality": 0}});
    assert_eq!(hops(&world), (json!("pump-completed"), most.clone()));
    // A run that fails tells as much of what it did.
    pipe["transform"][1]["rules"]["default"]
        .as_array_mut()
        .unwrap()
        .push(json!([
            "if",
            ["eq", "_S._id", "3"],
            ["fail!", "not the third"]
        ]));
    world.pipe(pipe);
    let summary = world.rescan("p");
    assert!(
        summary
            .failure
            .unwrap()
            .to_string()
            .contains("not the third")
    );
    assert_eq!(hops(&world), (json!("pump-failed"), most));
}
