//! Indexes that pipes want: who declares them, what they change (only the cost), and when they go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use tahini_dtl::{Options, Subset};
use tahini_entity::json::Fields;
use tahini_entity::{Batch, Offset};
use tahini_hub::indexes::wanted;
use tahini_hub::subset::{Part, declared};
use tahini_store::{Compaction, IndexState, Limit, Seq, Snapshot, View};

use crate::script::{records, shown};
use crate::world::World;

fn states(world: &World, dataset: &str) -> Vec<IndexState> {
    let dataset = world.hub().world.store.find(dataset).unwrap().unwrap();
    dataset.indexes().unwrap()
}

fn wanted_by(world: &World, dataset: &str) -> Vec<(String, Vec<String>)> {
    let all = wanted(world.hub()).remove(dataset).unwrap_or_default();
    let row = |wanted: &tahini_hub::indexes::Wanted| {
        (wanted.index.fingerprint().to_owned(), wanted.pipes.clone())
    };
    all.iter().map(row).collect()
}

#[test]
fn equal_expressions_are_one_index_whoever_wants_it() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "vehicles", "sink": {
            "type": "dataset", "indexes": ["_S.category", "_S.n"]
        }}));
        world.records("vehicles", records(&[("a", 1)]));
        world.succeed("vehicles");
        world.pipe(json!({"_id": "tanks", "source": {
            "type": "dataset", "dataset": "vehicles", "subset": ["eq", "_S.category", "tank"]
        }}));
        world.pipe(
            json!({"_id": "joined", "transform": {"type": "dtl", "rules": {"default": [
                ["add", "v", ["hops", {
                    "datasets": ["vehicles v"], "where": ["eq", "_S.x", "v.category"]
                }]]
            ]}}}),
        );
        let category = "\"_.category\"".to_owned();
        let n = "\"_.n\"".to_owned();
        let all = |pipes: &[&str]| {
            pipes
                .iter()
                .map(|pipe| (*pipe).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            wanted_by(&world, "vehicles"),
            [
                (category.clone(), all(&["joined", "tanks", "vehicles"])),
                (n, all(&["vehicles"]))
            ]
        );
        assert_eq!(states(&world, "vehicles").len(), 2);
        let exists = |index: &str, value: Json| {
            declared(world.hub(), "vehicles", &json!(["eq", index, value])).is_some()
        };
        assert!(exists("_S.n", json!(1)) && exists("_S.category", json!("x")));
        assert!(!exists("_S.other", json!(1)) && !exists("_S.n", Json::Null));
        // What nobody wants any more goes.
        world.remove("vehicles");
        world.remove("joined");
        assert_eq!(wanted_by(&world, "vehicles"), [(category, all(&["tanks"]))]);
        assert_eq!(states(&world, "vehicles").len(), 1);
        world.remove("tanks");
        assert_eq!(states(&world, "vehicles"), []);
    }
}

#[test]
fn ids_are_an_index_of_their_own() {
    let mut world = World::new();
    world.pipe(json!({"_id": "p", "sink": {"type": "dataset", "indexes": "$ids"}}));
    assert_eq!(
        wanted_by(&world, "p"),
        [("\"_.$ids\"".to_owned(), vec!["p".to_owned()])]
    );
}

#[test]
fn a_join_says_the_same_with_and_without_its_index() {
    for mut world in World::both() {
        world.pipe(json!({"_id": "orders"}));
        let order = |at: i64| {
            let of = match at % 5 {
                0 => json!(null),
                1 => json!([format!("c{}", at % 3), "c9"]),
                _ => json!(format!("c{}", at % 4)),
            };
            json!({"_id": format!("o{at}"), "of": of, "n": at % 2})
        };
        world.records("orders", (0..40).map(order).collect());
        world.succeed("orders");
        world.records("orders", (5..60).map(|at| order(at * 3)).collect());
        world.succeed("orders");
        let rules = json!({"default": [
            ["copy", "_id"],
            ["add", "one", ["sorted", "_.", ["hops", {
                "datasets": ["orders o"], "where": ["eq", "_S._id", "o.of"], "return": "o._id"
            }]]],
            ["add", "two", ["sorted", "_.", ["hops", {
                "datasets": ["orders o"], "return": "o._id",
                "where": [["eq", ["tuples", "_S._id", "_S.v"], ["tuples", "o.of", "o.n"]]]
            }]]]
        ]});
        world.pipe(json!({"_id": "p", "transform": {"type": "dtl", "rules": rules}}));
        let customers: Vec<(String, i64)> = (0..10).map(|at| (format!("c{at}"), at)).collect();
        let customers: Vec<(&str, i64)> = customers
            .iter()
            .map(|(id, at)| (id.as_str(), *at))
            .collect();
        world.records("p", records(&customers));
        world.succeed("p");
        let found = world.versions("p", false, Fields::CONTENT);
        assert!(
            found
                .iter()
                .any(|one| one["one"].as_array().unwrap().len() > 3)
        );
        assert!(
            states(&world, "orders")
                .iter()
                .any(|index| index.entries > 20)
        );

        // Nothing changes where the store has no index, so that a rescan writes nothing.
        world.hub().world.store.declare(BTreeMap::new());
        let again = world.rescan("p");
        assert!(again.success(), "{:?}", again.failure);
        assert_eq!(world.versions("p", true, Fields::CONTENT), found);
    }
}

/// Two datasets with the same versions; the first one's subsets go by an index.
struct Twins {
    world: World,
    dice: u64,
}

impl Twins {
    fn new(mut world: World) -> Twins {
        world.pipe(json!({"_id": "with", "sink": {"type": "dataset", "indexes": ["_S.c"]}}));
        world.pipe(json!({"_id": "without"}));
        Twins { world, dice: 7 }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    /// A full run of both, after which some entities are others, or deleted.
    fn change(&mut self) {
        let mut rows = Vec::new();
        for at in 0..25 {
            let c = match self.roll(6) {
                0 => continue,
                1 => json!(["x", "y"]),
                2 => json!(null),
                3 => json!("y"),
                _ => json!("x"),
            };
            rows.push(json!({"_id": format!("e{at}"), "c": c, "n": self.roll(2)}));
        }
        for pipe in ["with", "without"] {
            self.world.records(pipe, rows.clone());
            self.world.succeed(pipe);
        }
    }

    fn snapshot(&self, dataset: &str) -> Box<dyn Snapshot> {
        let dataset = self.world.hub().world.store.find(dataset).unwrap();
        dataset.unwrap().snapshot().unwrap()
    }
}

fn subset(dataset: &str) -> Subset {
    Subset::compile(dataset, &json!(["eq", "_S.c", "x"]), &Options::default()).unwrap()
}

fn read(
    snapshot: &dyn Snapshot,
    dataset: &str,
    since: Option<Seq>,
    (view, reversed, rows): (View, bool, usize),
) -> Vec<Json> {
    let mut part = Part::new(subset(dataset), since.filter(|_| !reversed));
    let limit = Limit {
        rows,
        bytes: 1 << 20,
    };
    let (mut at, mut all) = (since, Vec::new());
    loop {
        let mut out = Batch::new();
        at = match reversed {
            false => part.changes(snapshot, at, view, limit, &mut out).unwrap(),
            true => part
                .changes_reversed(snapshot, at, view, limit, &mut out)
                .unwrap(),
        };
        assert!(out.len() <= rows);
        let fields = Fields {
            updated: true,
            previous: true,
            ..Fields::CONTENT
        };
        all.extend(shown(&out, fields));
        if at.is_none() {
            return all;
        }
    }
}

#[test]
fn a_subset_says_the_same_with_and_without_its_index() {
    for world in World::both() {
        let mut twins = Twins::new(world);
        let mut places = vec![None];
        for _ in 0..6 {
            twins.change();
            let next = twins.snapshot("with").head().next;
            places.push(Some(next / 2));
            places.push(next.checked_sub(1));
        }
        let (with, without) = (twins.snapshot("with"), twins.snapshot("without"));
        let mut told = BTreeSet::new();
        for since in places {
            for flags in 0..8 {
                let view = View {
                    history: flags & 1 > 0,
                    deleted: flags & 2 > 0,
                };
                for rows in [1, 7, 1_000] {
                    let how = (view, flags & 4 > 0, rows);
                    let expected = read(&*without, "without", since, how);
                    assert_eq!(
                        read(&*with, "with", since, how),
                        expected,
                        "{since:?} {how:?}"
                    );
                    told.extend(expected.iter().map(|row| row["_deleted"] == true));
                }
            }
        }
        assert_eq!(told.len(), 2, "both kinds were there");
        assert!(states(&twins.world, "with")[0].entries > 50);
    }
}

#[test]
fn a_reader_of_a_subset_has_what_is_in_it_also_behind_a_compaction() {
    for world in World::both() {
        let mut twins = Twins::new(world);
        for round in 0..4 {
            twins.change();
            let before = twins.snapshot("with");
            let mut held = living(&*before);
            let since = before.head().next - 1;
            drop(before);
            twins.change();
            twins.change();
            let dataset = twins.world.hub().world.store.find("with").unwrap().unwrap();
            // Once while the index has seen everything, and once before it looks.
            if round % 2 == 0 {
                dataset.indexes().unwrap();
                read(&*twins.snapshot("with"), "with", None, (LATEST, false, 100));
            }
            let rules = Compaction {
                keep_versions: Some(1),
                least_dead: 0.0,
                ..Compaction::default()
            };
            dataset.compact(&rules).unwrap();
            let after = twins.snapshot("with");
            for row in read(&*after, "with", Some(since), (LATEST, false, 10)) {
                let id = row["_id"].as_str().unwrap().to_owned();
                match row["_deleted"] == true {
                    true => held.remove(&id),
                    false => held.insert(id),
                };
            }
            assert_eq!(held, living(&*after), "round {round}");
        }
    }
}

const LATEST: View = View {
    history: false,
    deleted: true,
};

/// The ids of the subset, by a look at everything.
fn living(snapshot: &dyn Snapshot) -> BTreeSet<String> {
    let mut all = Batch::new();
    let limit = Limit {
        rows: usize::MAX,
        bytes: usize::MAX,
    };
    snapshot.changes(None, LATEST, limit, &mut all).unwrap();
    let subset = subset("with");
    let inside = all
        .iter()
        .filter(|record| !record.meta.deleted && subset.holds(&record.to_entity()));
    inside
        .map(|record| {
            assert!(matches!(record.meta.updated, Some(Offset::Int(_))));
            record.id.unwrap().to_owned()
        })
        .collect()
}
