//! What snapshots promise.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Offset};
use tahini_store::{Backend, Commit, Limit, Snapshot, StoreError, View};

use super::orders;
use crate::rows::*;

pub fn latest_answers_in_the_order_of_the_question(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, ["c", "a", "d", "b"].map(|id| entity(id, 1)));
    write(&dataset, [entity("c", 2), deleted("d", 1)]);
    let snapshot = dataset.snapshot().unwrap();
    let mut out = Batch::new();
    out.push(batch([entity("kept", 0)]).get(0));
    let found = snapshot
        .latest(&["d", "x", "a", "c", "a", "b"], &mut out)
        .unwrap();
    assert_eq!(found, [true, false, true, true, true, true]);
    let ids: Vec<_> = out.iter().map(|row| row.id.unwrap().to_owned()).collect();
    assert_eq!(ids, ["kept", "d", "a", "c", "a", "b"]);
    assert!(out.get(1).meta.deleted);
    assert_eq!(out.get(3).meta.updated, Some(Offset::Int(4)));
}

pub fn long_ids_are_told_apart(backend: &dyn Backend) {
    let dataset = orders(backend);
    let ids: Vec<String> = (395..405)
        .flat_map(|len| ["x", "y"].map(|end| format!("{}{end}", "å".repeat(len / 2))))
        .chain(["p".repeat(400), "p".repeat(401), "p".repeat(3_000)])
        .collect();
    for round in 0..2 {
        let outcome = write(&dataset, ids.iter().map(|id| entity(id, round)));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(outcome.written as usize, distinct.len());
    }
    let snapshot = dataset.snapshot().unwrap();
    for id in &ids {
        let mut out = Batch::new();
        assert_eq!(snapshot.latest(&[id], &mut out).unwrap(), [true]);
        assert_eq!(out.get(0).id, Some(id.as_str()));
        let mut versions = Batch::new();
        snapshot.versions(id, &mut versions).unwrap();
        assert_eq!(versions.len(), 2);
    }
    let mut out = Batch::new();
    let other = format!("{}!", "p".repeat(500));
    assert_eq!(snapshot.latest(&[&other], &mut out).unwrap(), [false]);
}

pub fn changes_come_in_pages(backend: &dyn Backend) {
    let dataset = orders(backend);
    for round in 0..5 {
        write(
            &dataset,
            (0..20).map(|at| entity(&format!("e{at}"), i64::from(at % (round + 1)))),
        );
    }
    write(&dataset, (0..10).map(|at| deleted(&format!("e{at}"), 0)));
    let snapshot = dataset.snapshot().unwrap();
    let all = changes(&*snapshot, HISTORY, ALL);
    assert_eq!(
        all.iter().map(|row| row.0).collect::<Vec<_>>(),
        (0..all.len() as u64).collect::<Vec<_>>()
    );
    for view in [
        HISTORY,
        LATEST,
        LIVE,
        View {
            history: true,
            deleted: false,
        },
    ] {
        let whole = changes(&*snapshot, view, ALL);
        for rows in [1, 2, 7, 19] {
            assert_eq!(changes(&*snapshot, view, Limit { rows, ..ALL }), whole);
        }
    }
    assert_eq!(changes(&*snapshot, LATEST, ALL).len(), 20);
    assert_eq!(changes(&*snapshot, LIVE, ALL).len(), 10);
    let mut out = Batch::new();
    let last = snapshot.head().next - 1;
    assert_eq!(
        snapshot
            .changes(Some(last), HISTORY, ALL, &mut out)
            .unwrap(),
        None
    );
    assert_eq!(
        snapshot
            .changes(Some(u64::MAX), HISTORY, ALL, &mut out)
            .unwrap(),
        None
    );
    assert!(out.is_empty());
    assert_eq!(
        snapshot
            .changes(Some(last - 1), HISTORY, ALL, &mut out)
            .unwrap(),
        None
    );
    assert_eq!(short(&out)[0].0, last);
}

pub fn changes_come_backwards(backend: &dyn Backend) {
    let dataset = orders(backend);
    for round in 0..4 {
        write(
            &dataset,
            (0..15).map(|at| entity(&format!("e{at}"), i64::from(at % (round + 1)))),
        );
    }
    write(&dataset, [deleted("e3", 0)]);
    let snapshot = dataset.snapshot().unwrap();
    for view in [HISTORY, LATEST, LIVE] {
        let mut expected = changes(&*snapshot, view, ALL);
        expected.reverse();
        for rows in [1, 4, usize::MAX] {
            let mut all = Vec::new();
            let mut before = None;
            loop {
                let mut out = Batch::new();
                let limit = Limit { rows, ..ALL };
                let next = snapshot
                    .changes_reversed(before, view, limit, &mut out)
                    .unwrap();
                all.extend(short(&out));
                match next {
                    Some(seq) => before = Some(seq),
                    None => break,
                }
            }
            assert_eq!(all, expected);
        }
    }
    let mut out = Batch::new();
    assert_eq!(
        snapshot
            .changes_reversed(Some(0), HISTORY, ALL, &mut out)
            .unwrap(),
        None
    );
    assert!(out.is_empty());
}

pub fn a_page_in_bytes_holds_at_least_one_row(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, (0..9).map(|at| entity(&format!("e{at}"), at)));
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(
        changes(
            &*snapshot,
            HISTORY,
            Limit {
                rows: 100,
                bytes: 1
            }
        )
        .len(),
        9
    );
    let mut out = Batch::new();
    let next = snapshot
        .changes(
            None,
            HISTORY,
            Limit {
                rows: 100,
                bytes: 1,
            },
            &mut out,
        )
        .unwrap();
    assert_eq!((out.len(), next), (1, Some(0)));
}

pub fn versions_of_one_id(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    write(&dataset, [entity("a", 2)]);
    let old = dataset.snapshot().unwrap();
    write(&dataset, [deleted("a", 2)]);
    let seqs = |snapshot: &dyn Snapshot, id: &str| {
        let mut out = Batch::new();
        snapshot.versions(id, &mut out).unwrap();
        short(&out).into_iter().map(|row| row.0).collect::<Vec<_>>()
    };
    let new = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*new, "a"), [0, 2, 3]);
    assert_eq!(seqs(&*old, "a"), [0, 2]);
    assert_eq!(seqs(&*new, "x"), [0u64; 0]);
}

pub fn unseen_walks_in_pages(backend: &dyn Backend) {
    let dataset = orders(backend);
    let ids: Vec<String> = (0..30).map(|at| format!("e{at:02}")).collect();
    write(&dataset, ids.iter().rev().map(|id| entity(id, 1)));
    write(
        &dataset,
        [deleted("e05", 1), deleted("e06", 1), entity("e07", 2)],
    );
    let snapshot = dataset.snapshot().unwrap();
    let mut seen = RoaringTreemap::new();
    seen.extend(
        changes(&*snapshot, LIVE, ALL)
            .iter()
            .filter(|row| row.1.ends_with('1'))
            .map(|row| row.0),
    );
    // In the order of their versions: e07 came again.
    let first = ids.iter().rev().map(String::as_str);
    let expected: Vec<&str> = first
        .filter(|id| !id.ends_with('1') && !["e05", "e06", "e07"].contains(id))
        .chain(["e07"])
        .collect();
    for rows in [1, 3, 100] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let mut out = Batch::new();
            let limit = Limit { rows, ..ALL };
            after = snapshot.unseen(&seen, after, limit, &mut out).unwrap();
            assert!(out.len() <= rows);
            found.extend(short(&out).into_iter().map(|row| row.1));
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}

pub fn state_is_listed_by_prefix(backend: &dyn Backend) {
    let dataset = orders(backend);
    write_state(
        &dataset,
        &[
            set("pipe:a", b"k2", b"2"),
            set("pipe:a", b"k1", b"1"),
            set("pipe:a", b"other", b""),
        ],
    );
    write_state(
        &dataset,
        &[
            set("pipe:ab", b"k1", b"x"),
            set("pipe:a", b"k1", b"new"),
            set("pipe:a", b"\xFF\x00", b"b"),
        ],
    );
    let state = |prefix: &[u8]| dataset.snapshot().unwrap().state("pipe:a", prefix).unwrap();
    let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    assert_eq!(state(b"k"), [row(b"k1", b"new"), row(b"k2", b"2")]);
    assert_eq!(state(b"").len(), 4);
    assert_eq!(state(b"")[3], row(b"\xFF\x00", b"b"));
    write_state(
        &dataset,
        &[unset("pipe:a", b"k1"), unset("pipe:a", b"never")],
    );
    assert_eq!(state(b"k"), [row(b"k2", b"2")]);
    assert_eq!(dataset.snapshot().unwrap().state("pipe:", b"").unwrap(), []);
    let rows = Batch::new();
    let bad = [set("a\0b", b"", b"")];
    assert!(matches!(
        dataset.commit(Commit {
            state: &bad,
            ..commit(&rows)
        }),
        Err(StoreError::Refused(_))
    ));
}

pub fn state_keys_may_be_long(backend: &dyn Backend) {
    let dataset = orders(backend);
    let keys: Vec<Vec<u8>> = (0..12u8)
        .map(|at| [vec![b'k'; 360 + usize::from(at) * 5], vec![at]].concat())
        .collect();
    for round in 0..2u8 {
        let writes: Vec<_> = keys.iter().map(|key| set("s", key, &[round])).collect();
        write_state(&dataset, &writes);
    }
    write_state(&dataset, &[unset("s", &keys[11])]);
    let mut expected: Vec<_> = keys[..11]
        .iter()
        .map(|key| (key.clone(), vec![1]))
        .collect();
    expected.sort();
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(snapshot.state("s", b"k").unwrap(), expected);
    let prefix = vec![b'k'; 405];
    expected.retain(|(key, _)| key.starts_with(&prefix));
    assert!(!expected.is_empty());
    assert_eq!(snapshot.state("s", &prefix).unwrap(), expected);
}

/// Pages together are what there is, whatever is in the index and what is not yet, removed or
/// written since the view was taken.
pub fn state_is_read_in_pages(backend: &dyn Backend) {
    let dataset = orders(backend);
    let long = |at: usize| [vec![b'k'; 370 + at % 40], format!("{at:03}").into_bytes()].concat();
    let short = |at: usize| format!("k{at:03}").into_bytes();
    let keys: Vec<Vec<u8>> = (0..40).map(short).chain((0..40).map(long)).collect();
    for (at, key) in keys.iter().enumerate() {
        write_state(
            &dataset,
            &[set("s", key, &[at as u8]), set("other", key, b"")],
        );
    }
    for key in keys.iter().step_by(3) {
        write_state(&dataset, &[unset("s", key)]);
    }
    let snapshot = dataset.snapshot().unwrap();
    let expected = snapshot.state("s", b"k").unwrap();
    let left: BTreeSet<&Vec<u8>> = (0..80)
        .filter(|at| at % 3 != 0)
        .map(|at| &keys[at])
        .collect();
    assert!(
        expected.iter().map(|(key, _)| key).eq(left),
        "{} rows",
        expected.len()
    );
    for key in &keys {
        write_state(&dataset, &[set("s", key, b"later")]);
    }
    write_state(&dataset, &[set("s", b"k", b"later")]);
    for most in [1, 2, 7, 79, 1000] {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = snapshot.state_page("s", b"k", after.as_deref(), most);
            let (rows, next) = page.unwrap();
            let alike = rows.iter().filter(|(key, _)| key.len() > 300).count();
            assert!(rows.len() - alike <= most, "{} of {most}", rows.len());
            found.extend(rows);
            pages += 1;
            assert!(pages < 500, "it comes to an end");
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found, expected, "{most}");
    }
    let one = snapshot.state_page("s", &short(4), None, 1).unwrap().0;
    assert_eq!(one, [(short(4), vec![4])]);
    assert_eq!(
        snapshot.state_page("s", &short(3), None, 1).unwrap(),
        (vec![], None)
    );
}

pub fn a_snapshot_keeps_what_it_saw(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, (0..12).map(|at| entity(&format!("e{at:02}"), 1)));
    write(&dataset, [deleted("e03", 1)]);
    write_state(&dataset, &[set("s", b"k", b"old"), set("s", b"gone", b"1")]);
    let snapshot = dataset.snapshot().unwrap();
    let head = snapshot.head().clone();
    let look = || {
        let mut out = Batch::new();
        let found = snapshot.latest(&["e01", "e03", "new"], &mut out).unwrap();
        let mut unseen = Batch::new();
        let end = snapshot
            .unseen(&RoaringTreemap::new(), None, ALL, &mut unseen)
            .unwrap();
        assert_eq!(end, None);
        let views = [HISTORY, LATEST, LIVE].map(|view| changes(&*snapshot, view, ALL));
        (
            found,
            short(&out),
            short(&unseen),
            views,
            snapshot.state("s", b"").unwrap(),
        )
    };
    let before = look();
    assert_eq!(before.2.len(), 11);
    for round in 2..12 {
        write(
            &dataset,
            (0..12).map(|at| entity(&format!("e{at:02}"), round)),
        );
        write(&dataset, [entity("new", round), deleted("e01", round)]);
        write_state(
            &dataset,
            &[
                set("s", b"k", &[round as u8]),
                set("s", b"k2", b"2"),
                unset("s", b"gone"),
            ],
        );
        assert_eq!(look(), before, "after round {round}");
    }
    assert_eq!(*snapshot.head(), head);
}

pub fn readers_see_whole_commits_while_writers_go_on(backend: &dyn Backend) {
    let dataset = orders(backend);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 0;
                while !done.load(Ordering::Acquire) {
                    let snapshot = dataset.snapshot().unwrap();
                    let next = snapshot.head().next;
                    assert!(
                        next >= newest && next.is_multiple_of(5),
                        "a commit writes five rows"
                    );
                    newest = next;
                    let rows = changes(&*snapshot, LATEST, ALL);
                    assert_eq!(rows.len(), if next == 0 { 0 } else { 5 });
                    let mut rounds: Vec<_> = rows.iter().map(|row| row.2).collect();
                    rounds.dedup();
                    assert!(rounds.len() <= 1, "one round only, found {rounds:?}");
                    let state = snapshot.state("s", b"").unwrap();
                    let known = state.first().map_or(0, |(_, value)| u64::from(value[0]));
                    assert_eq!(known * 5, next);
                    let mut out = Batch::new();
                    snapshot.latest(&["e3"], &mut out).unwrap();
                    assert_eq!(
                        short(&out).first().map(|row| row.2),
                        rounds.first().copied()
                    );
                }
            });
        }
        for round in 1..=60u8 {
            let rows = batch((0..5).map(|at| entity(&format!("e{at}"), i64::from(round))));
            let state = [set("s", b"round", &[round])];
            let (_, ticket) = dataset
                .commit(Commit {
                    state: &state,
                    ..commit(&rows)
                })
                .unwrap();
            if round % 3 == 0 {
                ticket.wait().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(dataset.snapshot().unwrap().head().next, 300);
}
