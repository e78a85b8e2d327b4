//! The power goes while pipes run and entities are posted, on a disk that keeps only what was
//! synced: what was acknowledged is there, no saved offset is ahead of what it stands for, and the
//! same pipes come to the same end as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
use tahini_hub::pump::Request;
use tahini_hub::receiver::{Push, receive};
use tahini_store::{Files, Options};

use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::world::World;

const ROUNDS: i64 = 4;
const PIPES: [&str; 4] = ["read", "copy", "push", "golden"];

pub fn files(root: &Path, disk: &LyingDisk) -> Files {
    let options = Options {
        segment_bytes: 2048,
        overlay_keys: 25,
        idle_keys: 1,
        disk: Arc::new(disk.clone()),
        ..Options::default()
    };
    Files::open(root, options).unwrap()
}

/// A pipe that reads from outside, one between datasets, one that pushes to the outside, two that
/// are posted to, and one that merges what was posted.
fn set_up(world: &mut World) {
    let since = |chronological: bool| {
        json!({"type": "scripted", "supports_since": true, "is_since_comparable": true,
            "is_chronological": chronological})
    };
    world.pipe(
        json!({"_id": "read", "source": since(true), "batch_size": 3,
        "checkpoint_interval": 1}),
    );
    world.pipe(
        json!({"_id": "copy", "source": {"type": "dataset", "dataset": "read"},
        "batch_size": 2, "checkpoint_interval": 1}),
    );
    world.pipe(
        json!({"_id": "push", "source": {"type": "dataset", "dataset": "copy"},
        "sink": {"type": "scripted"}, "batch_size": 2}),
    );
    world.pipe(
        json!({"_id": "durable", "source": {"type": "http_endpoint"},
        "metadata": {"durable": true}}),
    );
    world.pipe(json!({"_id": "soon", "source": {"type": "http_endpoint"}}));
    world.pipe(
        json!({"_id": "golden", "source": {"type": "merge", "version": 2,
        "datasets": ["durable d", "soon s"], "equality_sets": [["d._id", "s._id"]],
        "identity": "first", "strategy": "compact"}}),
    );
}

/// What the source has in a round: new entities, and changes of older ones, in the order of
/// `_updated`.
fn records(round: i64) -> Vec<Json> {
    let all = (0..=round).flat_map(|r| {
        (0..7).map(move |at| json!({"_id": format!("e{}", (r * 3 + at) % 12), "v": r, "_updated": r * 7 + at}))
    });
    all.collect()
}

/// What a world acknowledged until the power went.
#[derive(Default)]
struct Told {
    /// The last value of each id that a durable receiver took.
    posted: BTreeMap<String, i64>,
    /// The one that was under way.
    under_way: Option<(String, i64)>,
    /// Rounds whose runs all succeeded.
    rounds: i64,
}

/// Works until the end, or until the disk is gone.
fn work(world: &World, told: &mut Told) -> Result<(), String> {
    for round in 0..ROUNDS {
        for at in 0..3 {
            let (id, v) = (format!("p{at}"), round);
            told.under_way = Some((id.clone(), v));
            post(world, "durable", &id, v)?;
            told.posted.insert(id.clone(), v);
            told.under_way = None;
            post(world, "soon", &id, v)?;
        }
        world.records("read", records(round));
        for pipe in PIPES {
            let run = world.try_run(pipe, &Request::default());
            let summary = run.map_err(|refusal| refusal.to_string())?;
            if let Some(failure) = summary.failure {
                return Err(format!("{pipe}: {failure}"));
            }
        }
        told.rounds = round + 1;
    }
    Ok(())
}

fn post(world: &World, pipe: &str, id: &str, v: i64) -> Result<(), String> {
    let body = json!({"_id": id, "v": v}).to_string();
    let live = world.live_pipe(pipe);
    let posted = receive(world.hub(), &live, &Push::default(), body.as_bytes());
    posted.map(drop).map_err(|error| format!("{pipe}: {error}"))
}

fn latest(world: &World, dataset: &str) -> BTreeMap<String, i64> {
    let versions = world.versions(dataset, false, Fields::CONTENT);
    let pairs = versions.iter().map(|entity| {
        let id = entity["_id"].as_str().unwrap().to_owned();
        (id, entity["v"].as_i64().unwrap())
    });
    pairs.collect()
}

/// The values of a merged entity: it has two between the posts to the one and the other dataset.
fn merged(world: &World, id: &str) -> Vec<i64> {
    let versions = world.versions("golden", false, Fields::CONTENT);
    let found = versions.into_iter().find(|entity| entity["_id"] == id);
    match found.map(|entity| entity["v"].clone()) {
        Some(Json::Array(values)) => values.iter().filter_map(Json::as_i64).collect(),
        Some(one) => one.as_i64().into_iter().collect(),
        None => Vec::new(),
    }
}

/// What must be there whenever the power went.
fn check_what_is_left(world: &World, told: &Told, context: &str) {
    let posted = latest(world, "durable");
    for (id, v) in &told.posted {
        let found = posted.get(id).copied().unwrap_or(-1);
        let newer = told.under_way == Some((id.clone(), found));
        assert!(found == *v || newer, "{context}: {id} is {found}, not {v}");
    }
    // An offset of the source stands for the version that was read there.
    if let Some(offset) = world.offset("read").as_i64() {
        let (round, at) = (offset / 7, offset % 7);
        let id = format!("e{}", (round * 3 + at) % 12);
        let found = latest(world, "read").get(&id).copied();
        assert!(
            found >= Some(round),
            "{context}: offset {offset}, {id} is {found:?}"
        );
    }
    for (reader, source) in [("copy", "read"), ("push", "copy")] {
        if let Some(offset) = world.offset(reader).as_i64() {
            let dataset = world.hub().world.store.find(source).unwrap().unwrap();
            let next = dataset.snapshot().unwrap().head().next;
            let offset = u64::try_from(offset).unwrap();
            assert!(
                offset < next,
                "{context}: {reader} is at {offset} of {next}"
            );
        }
    }
    // What the outside was given counts as given only after it was.
    let given: Vec<String> = world.taken("push").concat();
    if let Some(offset) = world.offset("push").as_i64() {
        for entity in world.versions(
            "copy",
            true,
            Fields {
                updated: true,
                ..Fields::CONTENT
            },
        ) {
            let passed = entity["_updated"].as_i64().unwrap() <= offset;
            let id = entity["_id"].as_str().unwrap();
            assert!(
                !passed || given.iter().any(|known| known == id),
                "{context}: {id}"
            );
        }
    }
    // What was posted before a run that succeeded is in what it merged.
    for id in told.posted.keys() {
        let found = merged(world, id);
        assert!(
            found.iter().max() >= Some(&(told.rounds - 1)) || told.rounds == 0,
            "{context}: {id} is {found:?} after {} rounds",
            told.rounds
        );
    }
    let last = told.rounds * 7 - 1;
    let offset = world.offset("read").as_i64().unwrap_or(-1);
    assert!(
        offset >= last,
        "{context}: a run ended at {last}, the offset is {offset}"
    );
}

/// After everything ran again nothing shows what happened.
fn check_the_end(world: &World, context: &str) {
    let mut expected = BTreeMap::new();
    for record in records(ROUNDS - 1) {
        let id = record["_id"].as_str().unwrap().to_owned();
        expected.insert(id, record["v"].as_i64().unwrap());
    }
    assert_eq!(latest(world, "read"), expected, "{context}");
    assert_eq!(latest(world, "copy"), expected, "{context}");
    let given: Vec<String> = world.taken("push").concat();
    for id in expected.keys() {
        assert!(given.contains(id), "{context}: {id} never left");
    }
    for dataset in ["durable", "soon", "golden"] {
        let found = latest(world, dataset);
        assert_eq!(found.len(), 3, "{context}");
        assert!(
            found.values().all(|v| *v == ROUNDS - 1),
            "{context}: {found:?}"
        );
    }
}

/// Pulls the plug at one moment; whether the work came that far.
fn pull_the_plug(moment: u64, loss: Loss) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store.root");
    let disk = LyingDisk::new(Trouble::default());
    let mut world = World::on_store(Arc::new(files(&root, &disk)));
    set_up(&mut world);
    disk.trouble(Trouble {
        power_off_at: Some(moment),
        ..Trouble::default()
    });
    let mut told = Told::default();
    let done = work(&world, &mut told).is_ok();
    assert!(done || disk.is_off());
    let context = format!("power off at {moment}, losing {loss:?}");
    // Where it came to its end the power goes then: what was not synced yet never will be.
    disk.trouble(Trouble {
        power_off_at: Some(0),
        ..Trouble::default()
    });
    let back = disk.reboot(loss);
    // The hub and its store go before the folder is opened again.
    world
        .start_over(Arc::new(tahini_store::Memory::new()))
        .unwrap();
    world.start_over(Arc::new(files(&root, &back))).unwrap();
    check_what_is_left(&world, &told, &context);
    work(&world, &mut Told::default()).unwrap_or_else(|why| panic!("{context}: {why}"));
    check_the_end(&world, &context);
    !done
}

#[test]
fn power_goes_and_unsynced_bytes_are_lost() {
    let mut moment = 0;
    while pull_the_plug(moment, Loss::Everything) {
        moment += 9;
    }
    assert!(moment > 100, "the work has many moments");
}

#[test]
fn power_goes_and_unsynced_bytes_are_torn() {
    let mut moment = 1;
    while pull_the_plug(moment, Loss::Some(moment)) {
        moment += 13;
    }
    assert!(moment > 100, "the work has many moments");
}
