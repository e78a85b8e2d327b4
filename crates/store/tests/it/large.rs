//! What one large entity takes of memory. Each test has a process of its own, whose peak is told
//! by the system.

use std::fs;

use tahini_entity::{Batch, Dict, Entity, Str, Value};
use tahini_store::{Backend, Files, Limit, Options};

use crate::model::Dice;
use crate::rows::*;

const LARGE: usize = 24 << 20;

/// Bytes of memory of this process: now, and at most since it was asked to forget that.
fn memory(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|it| it.strip_prefix(line));
    let kb = found.unwrap().split_whitespace().next().unwrap();
    kb.parse::<usize>().unwrap() << 10
}

/// How many times a large entity's bytes `work` takes beside what is there.
fn times(work: impl FnOnce()) -> f64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    work();
    (memory("VmHWM:") - before) as f64 / LARGE as f64
}

/// An entity that no compression makes much shorter.
fn large(id: &str) -> Entity {
    let mut dice = Dice(id.len() as u64);
    let text: String = (0..LARGE / 8)
        .flat_map(|_| {
            let mut number = dice.roll(1 << 31) << 32 | dice.roll(1 << 31);
            [(); 8].map(|()| {
                number = number.rotate_left(8);
                char::from(b' ' + (number % 89) as u8)
            })
        })
        .collect();
    let mut properties = Dict::new();
    properties.set("text", Value::String(Str::from(text.as_str())));
    Entity {
        id: Some(Str::from(id)),
        properties,
        ..Entity::default()
    }
}

#[test]
fn a_large_entity_is_in_memory_once_more_while_it_is_written_and_twice_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let dataset = files.open("d", true).unwrap();
    let rows = batch([large("one")]);
    let taken = times(|| {
        run(&dataset, commit(&rows)).unwrap();
    });
    // What it is packed to, which has room for the worst case.
    assert!(taken < 1.3, "{taken} times");
    let rows = batch([large("a"), large("bc"), large("def")]);
    let taken = times(|| {
        run(&dataset, commit(&rows)).unwrap();
    });
    // The frame of all.
    assert!(taken < 3.3, "{taken} times");
    let taken = times(|| {
        let mut out = Batch::new();
        let found = dataset.snapshot().unwrap().latest(&["bc"], &mut out);
        assert_eq!(found.unwrap(), [true]);
    });
    // Unpacked, and as it is stored or in the batch.
    assert!(taken < 2.3, "{taken} times");
    let one = Limit {
        rows: usize::MAX,
        bytes: 1,
    };
    let taken = times(|| {
        let snapshot = dataset.snapshot().unwrap();
        let mut after = None;
        for _ in 0..4 {
            let mut out = Batch::new();
            after = snapshot.changes(after, LIVE, one, &mut out).unwrap();
            assert_eq!(out.len(), 1);
        }
    });
    // The next one is not read before somebody asks for it.
    assert!(taken < 2.3, "{taken} times");
    assert!(times(|| {}) < 0.1, "nothing of it is kept");
}
