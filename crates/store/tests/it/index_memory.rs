//! Building an index over a large dataset, and having many open, takes bounded memory. Each test
//! has a process of its own, whose own memory the system tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tahini_entity::{Batch, Dict, Entity, Record, Str, Value, order};
use tahini_store::{Backend, Files, IndexDef, Options};

use crate::recovery::folder;
use crate::rows::*;

const VERSIONS: u64 = 300_000;
/// Keys of a version, and their bytes.
const KEYS: u64 = 5;
const WIDE: usize = 150;
/// Own memory that building may take beside what the process has, in bytes.
const BUDGET: usize = 80 << 20;

/// A version with keys of its own, which no compression of neighbours makes the same.
fn version(nth: u64) -> Entity {
    let key = |at: u64| Value::string(format!("{:0WIDE$}", nth * KEYS + at));
    let mut properties = Dict::new();
    properties.set("k", Value::List((0..KEYS).map(key).collect()));
    Entity {
        id: Some(Str::from(nth.to_string())),
        properties,
        ..Entity::default()
    }
}

fn keys(record: Record<'_>, out: &mut Vec<u128>) {
    if let Some(Value::List(items)) = record.value("k") {
        out.extend(items.iter().map(order::key));
    }
}

/// Bytes of memory that are the process's own, without files that it has mapped.
fn own_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kb = line.unwrap().split_whitespace().next().unwrap();
    kb.parse::<usize>().unwrap() << 10
}

/// The most that `work` takes beside what is there, as often as a thread can look.
fn peak(work: impl FnOnce()) -> usize {
    let (before, over) = (own_memory(), AtomicBool::new(false));
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = most.max(own_memory());
                thread::yield_now();
            }
            most - before
        });
        work();
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

/// Builds the index over the dataset anew, with so many rows in memory at most.
fn built(root: &Path, overlay_keys: usize) -> usize {
    let gone = fs::remove_dir_all(folder(root, "d").join("keys"));
    assert!(
        gone.is_ok() || overlay_keys < 1 << 20,
        "there was one before"
    );
    let options = Options {
        overlay_keys,
        ..Options::default()
    };
    let files = Files::open(root, options).unwrap();
    let dataset = files.open("d", false).unwrap();
    let most = peak(|| {
        let def = IndexDef {
            fingerprint: "k".to_owned(),
            keys: Arc::new(keys),
        };
        files.declare(BTreeMap::from([("d".to_owned(), vec![def])]));
        let begun = Instant::now();
        loop {
            match dataset.indexes().unwrap().as_slice() {
                [index] if index.ready => {
                    assert_eq!(index.entries, VERSIONS * KEYS);
                    break;
                }
                _ => assert!(
                    begun.elapsed() < Duration::from_secs(300),
                    "it is not built"
                ),
            }
            thread::yield_now();
        }
    });
    files.close().unwrap();
    most
}

#[test]
fn an_index_over_a_large_dataset_is_built_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let dataset = files.open("d", true).unwrap();
    let (mut bytes, mut rows) = (0, Batch::new());
    for nth in 0..VERSIONS {
        rows.push_entity(&version(nth)).unwrap();
        if rows.len() == 5_000 {
            bytes += rows.bytes();
            run(&dataset, commit(&rows)).unwrap();
            rows.clear();
        }
    }
    files.close().unwrap();
    drop((dataset, rows, files));
    // Who reads all versions before building does not come by with that.
    assert!(bytes > 2 * BUDGET, "{bytes} bytes of versions");
    let taken = built(dir.path(), 1 << 13);
    assert!(taken < BUDGET, "building took {taken} bytes");
    // Neither does who gathers all rows: the same with no limit of them.
    let taken = built(dir.path(), 1 << 24);
    assert!(taken > BUDGET, "gathering all rows took {taken} bytes only");
}

#[test]
fn indexes_that_are_open_take_bounded_memory() {
    const DATASETS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let name = |at: usize| format!("d{at}");
    for at in 0..DATASETS {
        let dataset = files.open(&name(at), true).unwrap();
        write(&dataset, (0..2_000).map(|id| entity(&id.to_string(), 1)));
    }
    files.close().unwrap();
    drop(files);
    // What is used and given back, as buffers of batches are: the system's allocator would give it
    // to whoever asks for so much next.
    let use_up = |bytes: usize| drop(std::hint::black_box(vec![1_u8; bytes]));
    use_up(16 << 20);
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let before = own_memory();
    let open = |at: usize| {
        use_up(3 << 20);
        let dataset = files.open(&name(at), false).unwrap();
        let mut found = Batch::new();
        dataset
            .snapshot()
            .unwrap()
            .latest(&["7"], &mut found)
            .unwrap();
        assert_eq!(found.len(), 1);
        dataset
    };
    let all: Vec<_> = (0..DATASETS).map(open).collect();
    let taken = own_memory().saturating_sub(before) >> 20;
    assert!(taken < 150, "{DATASETS} datasets took {taken} MB");
    files.close().unwrap();
    drop(all);
}
