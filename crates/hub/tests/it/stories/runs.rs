//! Full runs, and rescans of every kind.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_hub::execution_log::User;
use tahini_hub::pump::Request;

use super::{chronological, first_six, four, keeping, pipe, run_p, six};
use crate::every_moment::{Step, Story, rescan, run};
use crate::script::records;
use crate::world::World;

#[test]
fn full_runs_delete_what_did_not_come_and_mark_it() {
    Story {
        set_up: |world| {
            let sink = json!({"type": "dataset", "mark_deletion_tracked": true});
            pipe(world, json!({"_id": "p", "sink": sink}));
        },
        steps: &[
            first_six,
            |world| {
                world.records("p", four());
                run(world, "p")
            },
            |world| {
                world.records("p", six()[..3].to_vec());
                run(world, "p")
            },
            run_p,
        ],
        ..Story::default()
    }
    .survives();
}

#[test]
fn a_full_run_of_a_chronological_source_goes_on_with_what_it_saw() {
    Story {
        set_up: |world| pipe(world, json!({"_id": "p", "source": chronological()})),
        steps: &[
            first_six,
            |world| {
                let reset = world.hub().set_offset("p", None, &User::default());
                reset.map_err(|refusal| refusal.to_string())
            },
            |world| {
                world.records("p", four());
                run(world, "p")
            },
            |world| {
                world.records("p", [four(), records(&[("g", 7), ("b", 8)])].concat());
                run(world, "p")
            },
        ],
        ..Story::default()
    }
    .survives();
}

/// A full run, a rescan that finds what is gone, and a run.
const RESCANNED: &[Step] = &[
    first_six,
    |world| {
        world.records("p", four());
        rescan(world, "p")
    },
    |world| {
        world.records("p", [four(), records(&[("g", 7)])].concat());
        run(world, "p")
    },
];

#[test]
fn a_rescan_in_the_place_of_a_run() {
    Story {
        set_up: |world| pipe(world, json!({"_id": "p", "source": chronological()})),
        steps: RESCANNED,
        ..Story::default()
    }
    .survives();
    Story {
        set_up: |world| {
            let source = json!({"type": "scripted", "supports_since": true});
            pipe(world, json!({"_id": "p", "source": source}));
        },
        steps: RESCANNED,
        ..Story::default()
    }
    .survives();
}

#[test]
fn partial_rescans_come_in_turn_and_delete_nothing() {
    Story {
        set_up: |world| {
            let pump = json!({"partial_rescan_run_count": 2, "partial_rescan_delta": 3});
            pipe(
                world,
                json!({"_id": "p", "source": chronological(), "pump": pump}),
            );
        },
        steps: &[
            first_six,
            run_p,
            // Only who looks back finds what is late.
            |world| {
                let late = json!({"_id": "late", "_updated": 4, "v": 1});
                world.records("p", [&six()[..4], &[late], &six()[4..]].concat());
                run(world, "p")?;
                run(world, "p")
            },
            |world| {
                world.records("p", records(&[("a", 1), ("g", 7)]));
                run(world, "p")?;
                run(world, "p")
            },
        ],
        ..Story::default()
    }
    .survives();
}

/// In the middle of the rescan the source changes, and a run brings that.
fn rescan_beside_a_run(world: &mut World) -> Result<(), String> {
    let later = [&four()[..3], &records(&[("f", 7), ("g", 8)])].concat();
    let (hub, script) = (Arc::clone(world.hub()), Arc::clone(&world.script));
    let mut changed = false;
    world.upstream("p", |upstream| {
        changed = upstream.records.iter().any(|row| row["_id"] == "g");
        if changed {
            return;
        }
        upstream.records = four();
        let happens = move || {
            let mut sources = script.sources.lock().unwrap();
            sources.get_mut("p").unwrap().records = later;
            drop(sources);
            // Where the power goes the rescan finds that out, too.
            let _ = hub.run(&hub.pipe("p").unwrap(), &Request::default());
        };
        upstream.meanwhile = Some((2, Box::new(happens)));
    });
    rescan(world, "p")
}

#[test]
fn a_rescan_in_the_background_with_a_run_in_its_middle() {
    Story {
        set_up: |world| {
            pipe(
                world,
                json!({"_id": "p", "source": chronological(), "enable_background_rescan": true}),
            );
        },
        steps: &[first_six, rescan_beside_a_run, run_p],
        ..Story::default()
    }
    .survives();
    Story {
        set_up: |world| {
            let source = json!({"type": "scripted", "supports_since": true});
            pipe(
                world,
                json!({"_id": "p", "source": source, "enable_background_rescan": true}),
            );
        },
        steps: &[first_six, rescan_beside_a_run, run_p],
        ..Story::default()
    }
    .survives();
}

/// A pipe that gives the newest of each id in some datasets.
fn merging(datasets: Json) -> Json {
    keeping(json!({
        "_id": "p",
        "source": {"type": "merge_datasets", "datasets": datasets},
        "transform": {"type": "scripted"},
        "enable_background_rescan": true,
        "batch_size": 1,
    }))
}

#[test]
fn a_rescan_in_the_background_that_has_the_last_word() {
    Story {
        set_up: |world| {
            for id in ["x", "y"] {
                pipe(world, json!({"_id": id}));
            }
            world.pipe(merging(json!(["x", "y"])));
        },
        steps: &[
            |world| {
                world.records("x", records(&[("a", 1), ("b", 1)]));
                world.records("y", records(&[("c", 1)]));
                run(world, "x")?;
                run(world, "y")?;
                run(world, "p")
            },
            |world| {
                let applied = world.try_pipe(merging(json!(["x"])));
                applied.map_err(|failure| failure.to_string())
            },
            |world| {
                let (hub, script) = (Arc::clone(world.hub()), Arc::clone(&world.script));
                let happens = move || {
                    let mut sources = script.sources.lock().unwrap();
                    let later = records(&[("a", 2), ("b", 2), ("d", 1)]);
                    sources.get_mut("x").unwrap().records = later;
                    drop(sources);
                    for pipe in ["x", "p"] {
                        let _ = hub.run(&hub.pipe(pipe).unwrap(), &Request::default());
                    }
                };
                world.middle("p", |middle| {
                    middle.meanwhile = Some(("b".to_owned(), Box::new(happens)));
                });
                rescan(world, "p")
            },
            |world| {
                world.records("x", records(&[("a", 2), ("b", 2), ("d", 1)]));
                run(world, "x")?;
                run(world, "p")
            },
        ],
        datasets: &["x", "y", "p"],
        // The rescan writes what it read before the run did, and then what came since.
        latest_only: &["p"],
        ..Story::default()
    }
    .survives();
}
