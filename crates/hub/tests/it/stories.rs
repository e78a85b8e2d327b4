//! The stories in which the power goes at every moment (see `every_moment`).

mod failing;
mod flows;
pub mod posts;
mod runs;
mod trips;

use serde_json::{Value as Json, json};

use crate::every_moment::run;
use crate::script::records;
use crate::world::World;

/// Adds a pipe in small steps that keeps every version.
pub fn pipe(world: &mut World, pipe: Json) {
    world.pipe(keeping(pipe));
}

pub fn keeping(mut pipe: Json) -> Json {
    let defaults = [
        ("batch_size", json!(2)),
        ("checkpoint_interval", json!(1)),
        ("compaction", json!({"sink": false, "automatic": false})),
    ];
    for (name, value) in defaults {
        if pipe[name].is_null() {
            pipe[name] = value;
        }
    }
    pipe
}

pub fn chronological() -> Json {
    json!({"type": "scripted", "supports_since": true, "is_chronological": true})
}

/// `a` to `f` with `_updated` 1 to 6.
pub fn six() -> Vec<Json> {
    records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)])
}

/// The same without `a` and `d`; `e` changed where only who reads everything sees it.
pub fn four() -> Vec<Json> {
    let mut rows = six();
    rows.retain(|row| row["_id"] != "a" && row["_id"] != "d");
    rows[2]["v"] = json!(50);
    rows
}

pub fn first_six(world: &mut World) -> Result<(), String> {
    world.records("p", six());
    run(world, "p")
}

pub fn run_p(world: &mut World) -> Result<(), String> {
    run(world, "p")
}
