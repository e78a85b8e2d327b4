//! Several pipes: what is populated, complete, joined, merged, compacted.

use serde_json::json;
use tahini_hub::pump::Request;
use tahini_hub::{Class, Failure};

use super::{chronological, first_six, four, pipe, run_p, six};
use crate::every_moment::{Story, run};
use crate::script::records;
use crate::world::World;

/// A run that waits for what is not populated yet.
fn waits(world: &World, pipe: &str) -> Result<(), String> {
    let summary = world.try_run(pipe, &Request::default());
    match summary.map_err(|refusal| refusal.to_string())?.failure {
        Some(Failure {
            class: Class::Waiting,
            ..
        }) => Ok(()),
        Some(failure) => Err(failure.to_string()),
        None => Err(format!("{pipe} did not wait")),
    }
}

#[test]
fn datasets_are_populated_one_after_the_other() {
    Story {
        set_up: |world| {
            pipe(world, json!({"_id": "p"}));
            for (id, says) in [("late", "if-source-populated"), ("initially", "initially")] {
                let source = json!({"type": "dataset", "dataset": "p"});
                let sink = json!({"type": "dataset", "set_initial_offset": says});
                pipe(world, json!({"_id": id, "source": source, "sink": sink}));
            }
            let lookup = json!([["copy", "*"], ["add", "x", ["lookup-entity", "late", "a"]]]);
            pipe(
                world,
                json!({"_id": "looks", "source": {"type": "dataset", "dataset": "p"},
                    "transform": {"type": "dtl", "rules": {"default": lookup}}}),
            );
        },
        steps: &[
            |world| run(world, "late"),
            |world| {
                world.records("p", six()[..3].to_vec());
                run(world, "p")
            },
            |world| waits(world, "looks"),
            |world| run(world, "initially"),
            |world| run(world, "late"),
            |world| run(world, "looks"),
        ],
        datasets: &["p", "late", "initially", "looks"],
        ..Story::default()
    }
    .survives();
}

#[test]
fn what_is_not_complete_is_held_back() {
    Story {
        set_up: |world| {
            pipe(world, json!({"_id": "p"}));
            let source = json!({"type": "dataset", "dataset": "p", "completeness": true});
            let sink = json!({"type": "scripted"});
            pipe(world, json!({"_id": "out", "source": source, "sink": sink}));
            pipe(world, json!({"_id": "kept", "source": source}));
        },
        steps: &[
            |world| {
                world.records("p", six()[..3].to_vec());
                run(world, "p")
            },
            |world| {
                run(world, "out")?;
                run(world, "kept")
            },
            |world| {
                world.records("p", [&six()[..3], &records(&[("g", 1)])].concat());
                run(world, "p")
            },
            |world| {
                run(world, "out")?;
                run(world, "kept")
            },
        ],
        datasets: &["p", "kept"],
        ..Story::default()
    }
    .survives();
}

#[test]
fn what_was_joined_changes() {
    Story {
        set_up: |world| {
            pipe(world, json!({"_id": "orders", "source": chronological()}));
            pipe(
                world,
                json!({"_id": "customers", "source": chronological()}),
            );
            let hops = json!(["hops", {"datasets": ["customers c"],
                "where": ["eq", "_S.customer", "c._id"], "return": "c.v"}]);
            let rules = json!({"default": [["copy", "_id"], ["add", "x", hops]]});
            pipe(
                world,
                json!({"_id": "p", "source": {"type": "dataset", "dataset": "orders"},
                "transform": {"type": "dtl", "rules": rules}}),
            );
            let orders = (1..=4).map(|at| {
                json!({"_id": at.to_string(), "_updated": at,
                "customer": if at < 3 { "a" } else { "b" }})
            });
            world.records("orders", orders.collect());
        },
        steps: &[
            |world| {
                world.records("customers", records(&[("a", 1), ("b", 2)]));
                run(world, "customers")?;
                run(world, "orders")
            },
            run_p,
            |world| {
                world.records("customers", records(&[("a", 3)]));
                run(world, "customers")
            },
            run_p,
        ],
        datasets: &["orders", "customers", "p"],
        ..Story::default()
    }
    .survives();
}

#[test]
fn what_was_merged_changes() {
    Story {
        set_up: |world| {
            for id in ["one", "two"] {
                pipe(world, json!({"_id": id, "source": chronological()}));
            }
            let source = json!({"type": "merge", "version": 2, "datasets": ["one o", "two t"],
                "equality_sets": [["o.k", "t.k"]]});
            pipe(world, json!({"_id": "p", "source": source}));
        },
        steps: &[
            |world| {
                let of = |id: &str, at: i64, k: i64| json!({"_id": id, "_updated": at, "k": k});
                world.records("one", vec![of("a", 1, 1), of("b", 2, 2), of("c", 3, 3)]);
                world.records("two", vec![of("x", 1, 1), of("y", 2, 2)]);
                run(world, "one")?;
                run(world, "two")
            },
            run_p,
            |world| {
                let of = |id: &str, at: i64, k: i64| json!({"_id": id, "_updated": at, "k": k});
                world.records("two", vec![of("x", 3, 3), of("y", 4, 9), of("z", 5, 1)]);
                run(world, "two")
            },
            run_p,
        ],
        datasets: &["one", "two", "p"],
        latest_only: &["p"],
        ..Story::default()
    }
    .survives();
}

#[test]
fn old_versions_go_meanwhile() {
    Story {
        set_up: |world| {
            let compaction = json!({"keep_versions": 1, "ttl_deletes_hours": 2, "retract": true});
            world.pipe(
                json!({"_id": "p", "compaction": compaction, "batch_size": 2,
                "checkpoint_interval": 1}),
            );
            let source = json!({"type": "dataset", "dataset": "p"});
            world.pipe(json!({"_id": "reader", "source": source, "batch_size": 2}));
        },
        steps: &[
            first_six,
            |world| {
                world.records("p", four());
                run(world, "p")
            },
            |world| run(world, "reader"),
            |world| {
                let mut rows = four();
                rows[0] = json!({"_id": "b", "_updated": 2, "v": 3, "$retract": true});
                world.records("p", rows);
                run(world, "p")
            },
            |world| run(world, "reader"),
            run_p,
        ],
        datasets: &["p", "reader"],
        latest_only: &["p", "reader"],
        ..Story::default()
    }
    .survives();
}
