//! What declared indexes promise: the same answers as a look at every version.

use std::collections::BTreeMap;
use std::sync::Arc;

use tahini_entity::{Batch, Record, Value};
use tahini_store::{Ask, Backend, Compaction, Hit, IndexDef, Snapshot};

use super::compaction::thorough;
use super::orders;
use crate::model::{Dice, Model, random_commit};
use crate::rows::*;

/// What asks for everything that an index has of a key.
pub const EVERYTHING: Ask = Ask {
    history: true,
    left: true,
    from: None,
    reversed: false,
    limit: usize::MAX,
};

/// The keys of a version with this id and `v`: none, one or two.
pub fn keys_of(id: &str, v: i64) -> Vec<u128> {
    let mut keys = Vec::new();
    if v != 2 {
        keys.push(v as u128);
    }
    if id.len().is_multiple_of(2) {
        keys.push(100 + v as u128 % 2);
    }
    keys
}

fn extract(record: Record<'_>, keys: &mut Vec<u128>) {
    if let Some(Value::Int(v)) = record.value("v") {
        keys.extend(keys_of(record.id.unwrap(), v));
    }
}

fn nothing(_: Record<'_>, _: &mut Vec<u128>) {}

pub fn def(fingerprint: &str) -> IndexDef {
    IndexDef {
        fingerprint: fingerprint.to_owned(),
        keys: Arc::new(extract),
    }
}

pub fn declare(backend: &dyn Backend, dataset: &str, fingerprints: &[&str]) {
    let defs = fingerprints.iter().map(|it| def(it)).collect();
    backend.declare(BTreeMap::from([(dataset.to_owned(), defs)]));
}

/// What the index says of a key; it has to be there.
pub fn hits(snapshot: &dyn Snapshot, fingerprint: &str, key: u128, ask: &Ask) -> Vec<Hit> {
    let mut out = Vec::new();
    assert!(snapshot.find(fingerprint, &[key], ask, &mut out).unwrap());
    out
}

fn seqs(snapshot: &dyn Snapshot, key: u128, ask: &Ask) -> Vec<u64> {
    let hits = hits(snapshot, "x", key, ask);
    hits.into_iter().map(|hit| hit.seq).collect()
}

/// All versions that a snapshot has, as an index has to see them: sequence, left, superseded.
pub fn expected(versions: &[Short], key: u128) -> Vec<(u64, bool, bool)> {
    let mut newest = BTreeMap::new();
    for (seq, id, ..) in versions {
        newest.insert(id, seq);
    }
    let (mut all, mut before) = (Vec::new(), BTreeMap::new());
    for (seq, id, v, _) in versions {
        let has = keys_of(id, *v).contains(&key);
        let had = before.insert(id, has).unwrap_or(false);
        if has || had {
            all.push((*seq, !has, newest[id] != seq));
        }
    }
    all
}

/// Compares what an index says of all keys with the versions that are there.
pub fn compare(snapshot: &dyn Snapshot, fingerprint: &str, versions: &[Short]) {
    for key in [0, 1, 2, 100, 101] {
        let found = hits(snapshot, fingerprint, key, &EVERYTHING);
        let found: Vec<_> = found
            .iter()
            .map(|hit| (hit.seq, hit.left, hit.superseded))
            .collect();
        assert_eq!(found, expected(versions, key), "key {key}");
    }
}

pub fn an_index_leads_to_the_latest_versions(backend: &dyn Backend) {
    let dataset = orders(backend);
    declare(backend, "orders", &["x"]);
    // The ids of two letters also have a key of the second kind.
    write(&dataset, [entity("a", 0), entity("bb", 1), entity("c", 0)]);
    write(&dataset, [entity("a", 1), deleted("c", 0), entity("d", 2)]);
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*snapshot, 0, &Ask::LATEST), [4]);
    assert_eq!(seqs(&*snapshot, 1, &Ask::LATEST), [1, 3]);
    assert_eq!(seqs(&*snapshot, 101, &Ask::LATEST), [1]);
    assert_eq!(seqs(&*snapshot, 7, &Ask::LATEST), [0; 0]);
    let mut several = Vec::new();
    assert!(
        snapshot
            .find("x", &[101, 9, 0], &Ask::LATEST, &mut several)
            .unwrap()
    );
    let several: Vec<_> = several.iter().map(|hit| (hit.of, hit.seq)).collect();
    assert_eq!(several, [(0, 1), (2, 4)]);
    let mut out = Batch::new();
    assert_eq!(
        snapshot.at(&[1, 3, 99], &mut out).unwrap(),
        [true, true, false]
    );
    assert_eq!(
        short(&out),
        [(1, "bb".into(), 1, false), (3, "a".into(), 1, false)]
    );
}

pub fn an_index_tells_what_left_a_key(backend: &dyn Backend) {
    let dataset = orders(backend);
    declare(backend, "orders", &["x"]);
    for v in [0, 1, 0, 0, 2] {
        write(&dataset, [entity("a", v)]);
    }
    let snapshot = dataset.snapshot().unwrap();
    let all: Vec<_> = hits(&*snapshot, "x", 0, &EVERYTHING)
        .iter()
        .map(|hit| (hit.seq, hit.left, hit.superseded))
        .collect();
    // The fourth write changed nothing.
    assert_eq!(
        all,
        [
            (0, false, true),
            (1, true, true),
            (2, false, true),
            (3, true, false)
        ]
    );
    let newest = Ask {
        history: false,
        ..EVERYTHING
    };
    assert_eq!(seqs(&*snapshot, 0, &newest), [3]);
    assert_eq!(seqs(&*snapshot, 1, &newest), [0; 0]);
}

pub fn an_index_is_read_in_pages_both_ways(backend: &dyn Backend) {
    let dataset = orders(backend);
    declare(backend, "orders", &["x"]);
    for at in 0..12 {
        write(&dataset, [entity(&format!("e{at}"), at % 2)]);
    }
    let snapshot = dataset.snapshot().unwrap();
    for reversed in [false, true] {
        let mut ask = Ask {
            reversed,
            limit: 4,
            ..EVERYTHING
        };
        let mut pages = Vec::new();
        loop {
            let page = seqs(&*snapshot, 1, &ask);
            ask.from = page.last().copied();
            if page.is_empty() {
                break;
            }
            pages.push(page);
        }
        let expected = match reversed {
            false => [vec![1, 3, 5, 7], vec![9, 11]],
            true => [vec![11, 9, 7, 5], vec![3, 1]],
        };
        assert_eq!(pages, expected);
    }
}

pub fn an_index_shows_a_snapshot_what_it_knew(backend: &dyn Backend) {
    let dataset = orders(backend);
    declare(backend, "orders", &["x"]);
    write(&dataset, [entity("a", 0), entity("b", 0)]);
    let before = dataset.snapshot().unwrap();
    write(&dataset, [entity("a", 1), entity("c", 0)]);
    let after = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*after, 0, &Ask::LATEST), [1, 3]);
    assert_eq!(seqs(&*before, 0, &Ask::LATEST), [0, 1]);
    assert_eq!(seqs(&*before, 1, &EVERYTHING), [0; 0]);
}

pub fn indexes_come_and_go_as_they_are_declared(backend: &dyn Backend) {
    // Before the dataset is there.
    declare(backend, "orders", &["x", "y"]);
    let dataset = orders(backend);
    write(&dataset, [entity("a", 0), entity("b", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*snapshot, 0, &Ask::LATEST), [0]);
    assert_eq!(hits(&*snapshot, "y", 1, &Ask::LATEST).len(), 1);
    let states = dataset.indexes().unwrap();
    let names: Vec<&str> = states.iter().map(|it| it.fingerprint.as_str()).collect();
    assert_eq!(names, ["x", "y"]);
    assert!(
        states
            .iter()
            .all(|it| it.ready && it.next == 2 && it.entries == 2)
    );

    // Another one under a name that was there is another index only where the name differs.
    let other = IndexDef {
        fingerprint: "z".to_owned(),
        keys: Arc::new(nothing),
    };
    let defs = vec![def("y"), def("y"), other];
    backend.declare(BTreeMap::from([("orders".to_owned(), defs)]));
    assert!(
        !snapshot
            .find("x", &[0], &Ask::LATEST, &mut Vec::new())
            .unwrap()
    );
    assert_eq!(hits(&*snapshot, "y", 0, &Ask::LATEST).len(), 1);
    assert_eq!(hits(&*snapshot, "z", 0, &EVERYTHING), []);
    assert_eq!(dataset.indexes().unwrap().len(), 2);
    backend.declare(BTreeMap::new());
    assert!(
        !snapshot
            .find("y", &[0], &Ask::LATEST, &mut Vec::new())
            .unwrap()
    );
    assert_eq!(dataset.indexes().unwrap(), []);
}

pub fn an_index_is_built_anew_on_demand(backend: &dyn Backend) {
    declare(backend, "orders", &["x", "y"]);
    let dataset = orders(backend);
    write(&dataset, [entity("a", 0), entity("b", 0)]);
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*snapshot, 0, &Ask::LATEST), [0, 1]);
    let old = dataset.indexes().unwrap()[0].number;
    assert!(dataset.rebuild_index(old).unwrap());
    assert!(!dataset.rebuild_index(old).unwrap());
    assert_eq!(seqs(&*snapshot, 0, &Ask::LATEST), [0, 1]);
    let states = dataset.indexes().unwrap();
    assert_eq!(states.len(), 2);
    assert!(states.iter().all(|it| it.number != old && it.entries == 2));
}

pub fn indexes_follow_compaction(backend: &dyn Backend) {
    let dataset = orders(backend);
    declare(backend, "orders", &["x"]);
    for v in [0, 1, 0, 1, 0] {
        write(&dataset, [entity("a", v), entity("b", v)]);
    }
    write(&dataset, [deleted("c", 0), entity("d", 0)]);
    let asked = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*asked, 0, &Ask::LATEST), [8, 9, 10]);
    drop(asked);
    let rules = Compaction {
        keep_versions: Some(1),
        erase: &["d"],
        ..thorough()
    };
    // What looks at the dataset in the background holds versions back, until the next one.
    let remain = || changes(&*dataset.snapshot().unwrap(), HISTORY, ALL).len();
    while !dataset.compact(&rules).unwrap().finished || remain() > 2 {}
    let snapshot = dataset.snapshot().unwrap();
    // What left a key before the newest version that is gone, nobody knows any more.
    let from = |from| Ask { from, ..EVERYTHING };
    let mut out = Vec::new();
    assert!(!snapshot.find("x", &[1], &from(None), &mut out).unwrap());
    assert!(!snapshot.find("x", &[1], &from(Some(6)), &mut out).unwrap());
    assert!(snapshot.find("x", &[1], &from(Some(10)), &mut out).unwrap());
    assert!(out.is_empty());
    let mut out = Batch::new();
    let latest = seqs(&*snapshot, 0, &Ask::LATEST);
    snapshot.at(&latest, &mut out).unwrap();
    let found: Vec<_> = short(&out).into_iter().map(|row| row.0).collect();
    assert_eq!(found, [8, 9]);
    assert_eq!(
        dataset.indexes().unwrap()[0].entries,
        expected_entries(&*snapshot)
    );

    // Built anew, it does not know what the versions had that are gone.
    let number = dataset.indexes().unwrap()[0].number;
    dataset.rebuild_index(number).unwrap();
    write(&dataset, [entity("a", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    let newest = Ask {
        history: false,
        ..EVERYTHING
    };
    let found: Vec<_> = hits(&*snapshot, "x", 1, &newest)
        .iter()
        .map(|hit| (hit.seq, hit.left))
        .collect();
    // What b had before version 9 nobody knows: it may have left.
    assert_eq!(found, [(9, true), (11, false)]);
}

/// Rows of versions that are there: each has one key that it has, and one that it lost.
fn expected_entries(snapshot: &dyn Snapshot) -> u64 {
    2 * changes(snapshot, HISTORY, ALL).len() as u64
}

pub fn an_index_says_what_a_look_at_all_versions_says(backend: &dyn Backend) {
    declare(backend, "orders", &["x"]);
    let dataset = orders(backend);
    let (mut dice, mut model) = (Dice(5), Model::default());
    let mut held: Vec<(Box<dyn Snapshot>, Model)> = Vec::new();
    for round in 0..60 {
        let (entities, _) = random_commit(&mut dice);
        entities.iter().for_each(|entity| model.write(entity));
        write(&dataset, entities);
        if dice.roll(4) == 0 {
            held.push((dataset.snapshot().unwrap(), model.clone()));
        }
        if dice.roll(3) == 0 {
            compare(&*dataset.snapshot().unwrap(), "x", &model.versions);
        }
        if round == 30 {
            declare(backend, "orders", &["y", "x"]);
        }
    }
    held.push((dataset.snapshot().unwrap(), model));
    for (snapshot, then) in &held {
        compare(&**snapshot, "x", &then.versions);
        compare(&**snapshot, "y", &then.versions);
    }
}
