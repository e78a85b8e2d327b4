//! What compaction promises.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Compacted, Compaction, Dataset, StoreError};

use super::orders;
use crate::rows::*;

/// Takes everything that the rules allow, so that all backends agree on what is left.
pub fn thorough() -> Compaction<'static> {
    Compaction {
        least_dead: 0.0,
        ..Compaction::default()
    }
}

fn history(dataset: &Arc<dyn Dataset>) -> Vec<(u64, String)> {
    let all = changes(&*dataset.snapshot().unwrap(), HISTORY, ALL);
    all.into_iter().map(|(seq, id, ..)| (seq, id)).collect()
}

fn seqs(dataset: &Arc<dyn Dataset>) -> Vec<u64> {
    history(dataset).into_iter().map(|(seq, _)| seq).collect()
}

fn versions(dataset: &Arc<dyn Dataset>, id: &str) -> Vec<Short> {
    let mut out = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.versions(id, &mut out).unwrap();
    short(&out)
}

/// Versions of a, b and c by turns: a has 0, 3, 6, 9, b has 1, 4, 7, c has 2, 5, 8.
fn ten(backend: &dyn Backend) -> Arc<dyn Dataset> {
    let dataset = orders(backend);
    for at in 0..10 {
        let id = ["a", "b", "c"][at as usize % 3];
        let rows = batch([entity(id, at)]);
        let now = 1_000 * (at + 1);
        run(
            &dataset,
            Commit {
                now,
                ..commit(&rows)
            },
        )
        .unwrap();
    }
    dataset
}

pub fn the_newest_versions_stay(backend: &dyn Backend) {
    let dataset = ten(backend);
    let before = dataset.snapshot().unwrap().head().clone();
    let rules = Compaction {
        keep_versions: Some(2),
        ..thorough()
    };
    let expected = Compacted {
        versions: 4,
        ids: 0,
        finished: true,
    };
    assert_eq!(dataset.compact(&rules).unwrap(), expected);
    assert_eq!(seqs(&dataset), [4, 5, 6, 7, 8, 9]);
    let mut out = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.versions("a", &mut out).unwrap();
    let chain: Vec<_> = out.iter().map(|row| row.meta.previous).collect();
    assert_eq!(
        chain,
        [Some(3), Some(6)],
        "the oldest names the one that is gone"
    );
    let head = snapshot.head();
    let kept = |head: &tahini_store::Head| {
        (
            head.next,
            head.live,
            head.deleted,
            head.last_ts,
            head.generation,
        )
    };
    assert_eq!(kept(head), kept(&before));
    let again = dataset.compact(&rules).unwrap();
    assert_eq!(
        (again.versions, again.finished),
        (0, true),
        "there is nothing left to do"
    );
    write(&dataset, [entity("a", 77)]);
    assert_eq!(
        versions(&dataset, "a"),
        [
            (6, "a".into(), 6, false),
            (9, "a".into(), 9, false),
            (10, "a".into(), 77, false)
        ]
    );
}

pub fn pages_go_over_gaps(backend: &dyn Backend) {
    let dataset = ten(backend);
    let rules = Compaction {
        keep_versions: Some(1),
        ..thorough()
    };
    dataset.compact(&rules).unwrap();
    write(&dataset, [entity("c", 50), entity("d", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let mut out = Batch::new();
        let one = tahini_store::Limit { rows: 1, ..ALL };
        before = snapshot
            .changes_reversed(before, HISTORY, one, &mut out)
            .unwrap();
        found.extend(short(&out).into_iter().map(|version| version.0));
        if before.is_none() {
            break;
        }
    }
    assert_eq!(found, [11, 10, 9, 8, 7]);
    for (after, expected) in [(0, vec![7, 8, 9, 10, 11]), (7, vec![8, 9, 10, 11])] {
        let mut out = Batch::new();
        snapshot
            .changes(Some(after), HISTORY, ALL, &mut out)
            .unwrap();
        let seqs: Vec<u64> = short(&out).into_iter().map(|version| version.0).collect();
        assert_eq!(seqs, expected, "after {after}");
    }
    let latest = changes(&*snapshot, LATEST, tahini_store::Limit { rows: 2, ..ALL });
    let latest: Vec<u64> = latest.into_iter().map(|version| version.0).collect();
    assert_eq!(latest, [7, 9, 10, 11]);
}

pub fn young_versions_stay(backend: &dyn Backend) {
    let dataset = ten(backend);
    let rules = Compaction {
        keep_versions: Some(1),
        older_than: Some(4_000),
        ..thorough()
    };
    dataset.compact(&rules).unwrap();
    assert_eq!(
        seqs(&dataset),
        [3, 4, 5, 6, 7, 8, 9],
        "what was written at 4,000 is not older"
    );
}

pub fn without_a_number_to_keep_ids_are_trimmed_by_time(backend: &dyn Backend) {
    let dataset = ten(backend);
    write(&dataset, [entity("d", 1)]);
    let rules = Compaction {
        keep_versions: Some(0),
        ..thorough()
    };
    assert!(matches!(
        dataset.compact(&rules),
        Err(StoreError::Refused(_))
    ));
    let rules = Compaction {
        older_than: Some(9_000),
        ..rules
    };
    let done = dataset.compact(&rules).unwrap();
    assert_eq!((done.ids, done.finished), (1, true));
    assert_eq!(seqs(&dataset), [8, 9, 10]);
    let head = dataset.snapshot().unwrap().head().clone();
    assert_eq!((head.next, head.live), (11, 3), "b is gone");
    let mut out = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(
        snapshot.latest(&["b", "d"], &mut out).unwrap(),
        [false, true]
    );
}

pub fn readers_hold_versions_back(backend: &dyn Backend) {
    let dataset = ten(backend);
    let rules = |keep_from| Compaction {
        keep_versions: Some(1),
        keep_from: Some(keep_from),
        ..thorough()
    };
    dataset.compact(&rules(0)).unwrap();
    assert_eq!(seqs(&dataset).len(), 10);
    // A reader that has read up to 4 needs what was the latest there, and all that is newer.
    dataset.compact(&rules(5)).unwrap();
    assert_eq!(seqs(&dataset), [2, 3, 4, 5, 6, 7, 8, 9]);
    dataset.compact(&rules(8)).unwrap();
    assert_eq!(seqs(&dataset), [5, 6, 7, 8, 9]);
    dataset.compact(&rules(1_000)).unwrap();
    assert_eq!(seqs(&dataset), [7, 8, 9]);
}

pub fn old_deletions_go_with_their_history(backend: &dyn Backend) {
    let dataset = ten(backend);
    let at = |now: i64, rows: &Batch| {
        run(
            &dataset,
            Commit {
                now,
                ..commit(rows)
            },
        )
        .unwrap()
    };
    at(20_000, &batch([deleted("a", 9), deleted("b", 7)]));
    at(30_000, &batch([deleted("c", 8), entity("b", 9)]));
    let rules = Compaction {
        deleted_before: Some(30_000),
        ..thorough()
    };
    let done = dataset.compact(&rules).unwrap();
    assert_eq!((done.versions, done.ids), (5, 1), "a is gone, b came back");
    assert_eq!(seqs(&dataset), [1, 2, 4, 5, 7, 8, 11, 12, 13]);
    let head = dataset.snapshot().unwrap().head().clone();
    assert_eq!((head.live, head.deleted), (1, 1));
    assert!(versions(&dataset, "a").is_empty());
    // An unknown id that comes as deleted writes nothing; one that comes begins anew.
    assert_eq!(write(&dataset, [deleted("a", 9)]).seqs, [None]);
    assert_eq!(write(&dataset, [entity("a", 9)]).seqs, [Some(14)]);
    let mut out = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.latest(&["a"], &mut out).unwrap();
    assert_eq!(out.get(0).meta.previous, None);
    let held = Compaction {
        deleted_before: Some(i64::MAX),
        keep_from: Some(12),
        ..thorough()
    };
    assert_eq!(dataset.compact(&held).unwrap().ids, 0);
}

pub fn retracting_keeps_the_latest_version(backend: &dyn Backend) {
    let dataset = ten(backend);
    write(&dataset, [deleted("b", 7)]);
    let rules = Compaction {
        keep_versions: Some(3),
        retract: &["b", "c", "nobody"],
        // The rest is not worth it, what was named goes nevertheless.
        least_dead: 1.0,
        ..Compaction::default()
    };
    let held = dataset
        .compact(&Compaction {
            keep_from: Some(8),
            ..rules
        })
        .unwrap();
    assert!(!held.finished, "a reader still needs c and b");
    assert_eq!(
        (versions(&dataset, "b").len(), versions(&dataset, "c").len()),
        (2, 2)
    );
    for _ in 0..2 {
        assert!(dataset.compact(&rules).unwrap().finished);
        assert_eq!(versions(&dataset, "b"), [(10, "b".into(), 7, true)]);
        assert_eq!(versions(&dataset, "c"), [(8, "c".into(), 8, false)]);
    }
    assert!(!seqs(&dataset).contains(&1) && !seqs(&dataset).contains(&5));
}

pub fn erased_ids_are_gone_and_begin_anew(backend: &dyn Backend) {
    let dataset = ten(backend);
    let long = "long".repeat(150);
    write(&dataset, [entity(&long, 1), entity("z", 1)]);
    let rules = Compaction {
        erase: &["a", "nobody", "a", &long],
        keep_from: Some(0),
        ..Compaction::default()
    };
    let done = dataset.compact(&rules).unwrap();
    let expected = Compacted {
        versions: 5,
        ids: 2,
        finished: true,
    };
    assert_eq!(done, expected);
    assert_eq!(seqs(&dataset), [1, 2, 4, 5, 7, 8, 11]);
    assert!(versions(&dataset, "a").is_empty());
    let snapshot = dataset.snapshot().unwrap();
    let mut out = Batch::new();
    let found = snapshot.latest(&["a", &long, "z"], &mut out).unwrap();
    assert_eq!(found, [false, false, true]);
    let seen = roaring::RoaringTreemap::new();
    out.clear();
    snapshot.unseen(&seen, None, ALL, &mut out).unwrap();
    assert_eq!(short(&out).len(), 3);
    assert_eq!((snapshot.head().live, snapshot.head().next), (3, 12));
    drop(snapshot);
    write(&dataset, [entity("a", 9)]);
    write(&dataset, [entity("a", 10)]);
    assert_eq!(
        versions(&dataset, "a"),
        [(12, "a".into(), 9, false), (13, "a".into(), 10, false)]
    );
    assert_eq!(dataset.snapshot().unwrap().head().live, 4);
}

pub fn state_outlives_compaction(backend: &dyn Backend) {
    let dataset = orders(backend);
    let mut expected = Vec::new();
    for round in 0..30u8 {
        let rows = batch([entity("a", round.into())]);
        let key = [b'k', round % 7];
        let state = [
            set("pipe:x", &key, &vec![round; 1 + usize::from(round) * 20]),
            unset("pipe:x", &[b'k', round % 3]),
            set("pipe:y", b"place", &[round]),
        ];
        run(
            &dataset,
            Commit {
                state: &state,
                populated: round == 2,
                ..commit(&rows)
            },
        )
        .unwrap();
        expected = dataset.snapshot().unwrap().state("pipe:x", b"").unwrap();
        if round % 4 == 1 {
            let rules = Compaction {
                keep_versions: Some(1),
                ..thorough()
            };
            dataset.compact(&rules).unwrap();
        }
    }
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(snapshot.state("pipe:x", b"").unwrap(), expected);
    assert_eq!(
        snapshot.state("pipe:y", b"").unwrap(),
        [(b"place".to_vec(), vec![29])]
    );
    assert!(snapshot.head().populated && expected.len() >= 4);
}

pub fn a_snapshot_holds_back_what_it_needs(backend: &dyn Backend) {
    let dataset = ten(backend);
    let snapshot = dataset.snapshot().unwrap();
    for at in 10..40 {
        write(&dataset, [entity(["a", "b", "c"][at as usize % 3], at)]);
    }
    let rules = Compaction {
        keep_versions: Some(1),
        ..thorough()
    };
    dataset.compact(&rules).unwrap();
    let mut out = Batch::new();
    snapshot.latest(&["c", "a", "b"], &mut out).unwrap();
    let seqs_of =
        |batch: &Batch| -> Vec<u64> { short(batch).into_iter().map(|version| version.0).collect() };
    assert_eq!(seqs_of(&out), [8, 9, 7]);
    out.clear();
    let seen = roaring::RoaringTreemap::from_iter([8, 39]);
    snapshot.unseen(&seen, None, ALL, &mut out).unwrap();
    assert_eq!(seqs_of(&out), [7, 9]);
    let latest: Vec<u64> = changes(&*snapshot, LATEST, ALL)
        .into_iter()
        .map(|version| version.0)
        .collect();
    assert_eq!(latest, [7, 8, 9]);
    drop(snapshot);
    dataset.compact(&rules).unwrap();
    assert_eq!(seqs(&dataset), [37, 38, 39]);
}

pub fn a_stopped_compaction_goes_on(backend: &dyn Backend) {
    let dataset = ten(backend);
    write(&dataset, [deleted("a", 9)]);
    let latest = changes(&*dataset.snapshot().unwrap(), LATEST, ALL);
    for patience in 0_u32.. {
        let left = Cell::new(patience);
        let stop = || {
            let stop = left.get() == 0;
            left.set(left.get().saturating_sub(1));
            stop
        };
        let rules = Compaction {
            keep_versions: Some(1),
            stop: &stop,
            ..thorough()
        };
        let done = dataset.compact(&rules).unwrap();
        assert_eq!(
            changes(&*dataset.snapshot().unwrap(), LATEST, ALL),
            latest,
            "stopped after {patience}"
        );
        if done.finished {
            break;
        }
        assert!(patience < 1_000, "it comes to its end");
    }
    assert_eq!(seqs(&dataset), [7, 8, 10]);
}

pub fn compaction_runs_beside_writers_and_readers(backend: &dyn Backend) {
    let dataset = orders(backend);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..120 {
                write(&dataset, (0..8).map(|id| entity(&format!("i{id}"), round)));
            }
            over.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let rules = Compaction {
                    keep_versions: Some(2),
                    ..thorough()
                };
                dataset.compact(&rules).unwrap();
            }
        });
        let mut rounds = 0;
        while !over.load(Ordering::Acquire) {
            let snapshot = dataset.snapshot().unwrap();
            let rows = changes(&*snapshot, LATEST, ALL);
            // Each commit writes all eight, so every view shows the same value in all of them.
            assert!(rows.is_empty() || rows.len() == 8, "{rows:?}");
            assert!(rows.iter().all(|row| row.2 == rows[0].2), "{rows:?}");
            let mut out = Batch::new();
            snapshot.latest(&["i7", "i0", "i3"], &mut out).unwrap();
            let values: Vec<i64> = short(&out).into_iter().map(|row| row.2).collect();
            assert!(values.iter().all(|value| *value == rows[0].2), "{values:?}");
            rounds += 1;
        }
        assert!(rounds > 0);
    });
    let rules = Compaction {
        keep_versions: Some(2),
        ..thorough()
    };
    dataset.compact(&rules).unwrap();
    assert_eq!(seqs(&dataset), (118 * 8..120 * 8).collect::<Vec<u64>>());
}
