//! What every backend promises. Each test runs over memory, over disk, and over disk with limits
//! so small that segments roll, indexes are written and environments are closed all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Dict, Entity, Offset, Str, Value};
use tahini_store::{
    Backend, Commit, Dataset, Files, Limit, Memory, Options, Rule, StoreError, View,
};

use crate::rows::*;

/// Limits that make everything happen that big datasets see.
pub fn tiny() -> Options {
    Options {
        segment_bytes: 2_000,
        overlay_keys: 5,
        overlay_state_bytes: 4_000,
        idle_keys: 0,
        open_indexes: 1,
        map_bytes: 1 << 20,
        ..Options::default()
    }
}

pub fn on_disk(options: Options, test: fn(&dyn Backend)) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), options).unwrap();
    test(&files);
}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod memory { $(#[test] fn $test() { super::$test(&super::Memory::new()) })* }
        mod files { $(#[test] fn $test() { super::on_disk(super::Options::default(), super::$test) })* }
        mod tiny_files { $(#[test] fn $test() { super::on_disk(super::tiny(), super::$test) })* }
    };
}

contract!(
    datasets_are_made_found_listed_and_removed,
    a_version_is_written_only_when_content_or_deletion_changes,
    versions_count_from_zero_and_know_the_one_before,
    time_never_stands_still_or_goes_back,
    an_unknown_deleted_entity_writes_nothing,
    one_commit_may_hold_an_id_twice,
    the_optimistic_rule_is_all_or_nothing,
    touched_versions_are_left_alone,
    rows_need_an_id,
    order_of_names_is_no_change,
    types_and_digits_are_changes,
    reserved_names_are_dropped,
    every_kind_of_value_comes_back,
    latest_answers_in_the_order_of_the_question,
    long_ids_are_told_apart,
    changes_come_in_pages,
    changes_come_backwards,
    a_page_in_bytes_holds_at_least_one_row,
    versions_of_one_id,
    unseen_walks_in_pages,
    state_is_listed_by_prefix,
    state_keys_may_be_long,
    state_alone_is_a_commit,
    the_populated_flag_stays,
    counts_follow_deletion,
    a_snapshot_keeps_what_it_saw,
    readers_see_whole_commits_while_writers_go_on,
    two_writers_lose_nothing,
    many_shapes_and_wide_shapes_are_kept,
);

fn orders(backend: &dyn Backend) -> Arc<dyn Dataset> {
    backend.open("orders", true).unwrap()
}

fn datasets_are_made_found_listed_and_removed(backend: &dyn Backend) {
    assert!(
        matches!(backend.open("orders", false), Err(StoreError::Missing(name)) if name == "orders")
    );
    assert!(backend.find("orders").unwrap().is_none());
    let first = orders(backend);
    write(&first, [entity("a", 1)]);
    write(
        &backend.open("Åse:\n weird/../name", true).unwrap(),
        [entity("b", 1), entity("c", 1)],
    );
    let heads = backend.list().unwrap();
    let names: Vec<_> = heads
        .iter()
        .map(|head| (head.name.as_str(), head.next))
        .collect();
    assert_eq!(names, [("orders", 1), ("Åse:\n weird/../name", 2)]);
    assert_eq!(backend.find("orders").unwrap().unwrap().name(), "orders");

    let before = first.snapshot().unwrap().head().generation;
    backend.remove("orders").unwrap();
    backend.remove("orders").unwrap();
    assert!(backend.find("orders").unwrap().is_none());
    let rows = batch([entity("a", 2)]);
    assert!(matches!(
        first.commit(commit(&rows)),
        Err(StoreError::Missing(_))
    ));
    let second = orders(backend);
    let snapshot = second.snapshot().unwrap();
    assert_eq!(snapshot.head().next, 0);
    assert_ne!(snapshot.head().generation, before);
}

fn a_version_is_written_only_when_content_or_deletion_changes(backend: &dyn Backend) {
    let dataset = orders(backend);
    let first = write(&dataset, [entity("a", 1), entity("b", 1)]);
    assert_eq!((first.written, first.deleted, first.unchanged), (2, 0, 0));
    assert_eq!(first.seqs, [Some(0), Some(1)]);
    let second = write(
        &dataset,
        [
            entity("a", 1),
            entity("b", 2),
            deleted("a", 1),
            deleted("a", 1),
        ],
    );
    assert_eq!(
        (second.written, second.deleted, second.unchanged),
        (1, 1, 2)
    );
    assert_eq!(second.seqs, [Some(0), Some(2), Some(3), Some(3)]);
    let third = write(&dataset, [entity("a", 1)]);
    assert_eq!(
        third.seqs,
        [Some(4)],
        "coming back from deletion is a change"
    );
    assert_eq!(dataset.snapshot().unwrap().head().next, 5);
}

fn versions_count_from_zero_and_know_the_one_before(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    write(&dataset, [entity("a", 2)]);
    let mut out = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.changes(None, HISTORY, ALL, &mut out).unwrap();
    let chain: Vec<_> = out
        .iter()
        .map(|row| (row.meta.updated.clone(), row.meta.previous))
        .collect();
    assert_eq!(
        chain,
        [
            (Some(Offset::Int(0)), None),
            (Some(Offset::Int(1)), None),
            (Some(Offset::Int(2)), Some(0))
        ]
    );
    let expected = batch([entity("a", 1), entity("b", 1), entity("a", 2)]);
    for (row, expected) in out.iter().zip(expected.iter()) {
        assert_eq!(row.meta.hash, expected.meta.hash);
    }
}

fn time_never_stands_still_or_goes_back(backend: &dyn Backend) {
    let dataset = orders(backend);
    let stamps = |now: i64, ids: [&str; 2]| {
        let rows = batch(ids.map(|id| entity(id, now)));
        run(
            &dataset,
            Commit {
                now,
                ..commit(&rows)
            },
        )
        .unwrap();
    };
    stamps(500, ["a", "b"]);
    stamps(100, ["a", "b"]);
    stamps(9_000, ["a", "b"]);
    let snapshot = dataset.snapshot().unwrap();
    let mut out = Batch::new();
    snapshot.changes(None, HISTORY, ALL, &mut out).unwrap();
    let ts: Vec<i64> = out.iter().map(|row| row.meta.ts).collect();
    assert_eq!(ts, [500, 501, 502, 503, 9_000, 9_001]);
    assert_eq!(snapshot.head().last_ts, 9_001);
}

fn an_unknown_deleted_entity_writes_nothing(backend: &dyn Backend) {
    let dataset = orders(backend);
    let outcome = write(&dataset, [deleted("a", 1)]);
    assert_eq!(outcome.seqs, [None]);
    assert_eq!(
        (outcome.written, outcome.deleted, outcome.unchanged),
        (0, 0, 1)
    );
    assert_eq!(dataset.snapshot().unwrap().head().next, 0);
}

fn one_commit_may_hold_an_id_twice(backend: &dyn Backend) {
    let dataset = orders(backend);
    let outcome = write(
        &dataset,
        [
            entity("a", 1),
            entity("b", 0),
            entity("a", 2),
            entity("a", 2),
        ],
    );
    assert_eq!(outcome.seqs, [Some(0), Some(1), Some(2), Some(2)]);
    let snapshot = dataset.snapshot().unwrap();
    let expected = [(1, "b".to_owned(), 0, false), (2, "a".to_owned(), 2, false)];
    assert_eq!(changes(&*snapshot, LATEST, ALL), expected);
    assert_eq!(snapshot.head().live, 2);
}

fn the_optimistic_rule_is_all_or_nothing(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    write(&dataset, [entity("a", 2)]);
    let expect = |rows: &[(Entity, Option<i64>)]| {
        let updated = |(entity, at): &(Entity, Option<i64>)| Entity {
            updated: at.map(Offset::Int),
            ..entity.clone()
        };
        let rows = batch(rows.iter().map(updated));
        run(
            &dataset,
            Commit {
                rule: Rule::IfUpdatedIs,
                ..commit(&rows)
            },
        )
    };
    let stale = expect(&[(entity("b", 7), Some(1)), (entity("a", 7), Some(0))]);
    assert!(matches!(stale, Err(StoreError::Refused(message)) if message.contains("\"a\"")));
    assert!(
        expect(&[(entity("a", 7), None)]).is_err(),
        "a known entity needs its version"
    );
    assert!(
        expect(&[(entity("c", 7), Some(0))]).is_err(),
        "an unknown one has none"
    );
    assert_eq!(
        dataset.snapshot().unwrap().head().next,
        3,
        "nothing was written"
    );
    let fresh = expect(&[
        (entity("b", 7), Some(1)),
        (entity("a", 7), Some(2)),
        (entity("c", 1), None),
    ]);
    assert_eq!(fresh.unwrap().seqs, [Some(3), Some(4), Some(5)]);
}

fn touched_versions_are_left_alone(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    let touched = RoaringTreemap::from_iter([0]);
    let rows = batch([entity("a", 9), entity("b", 9), entity("c", 9)]);
    let rule = Rule::UnlessTouched(&touched);
    let outcome = run(
        &dataset,
        Commit {
            rule,
            ..commit(&rows)
        },
    )
    .unwrap();
    assert_eq!(outcome.seqs, [Some(0), Some(2), Some(3)]);
    assert_eq!((outcome.written, outcome.unchanged), (2, 1));
}

fn rows_need_an_id(backend: &dyn Backend) {
    let dataset = orders(backend);
    let nameless = Entity {
        id: None,
        ..entity("", 1)
    };
    for bad in [nameless, entity("", 1)] {
        let rows = batch([entity("a", 1), bad]);
        let refused = run(&dataset, commit(&rows));
        assert!(matches!(refused, Err(StoreError::Refused(message)) if message.contains("row 1")));
    }
    assert_eq!(dataset.snapshot().unwrap().head().next, 0);
}

fn order_of_names_is_no_change(backend: &dyn Backend) {
    let dataset = orders(backend);
    let of = |names: [&str; 2]| Entity {
        id: Some(Str::from("a")),
        properties: names
            .into_iter()
            .map(|name| (Str::from(name), Value::string(name)))
            .collect(),
        ..Entity::default()
    };
    write(&dataset, [of(["x", "y"])]);
    let outcome = write(&dataset, [of(["y", "x"])]);
    assert_eq!(outcome.unchanged, 1);
    let mut out = Batch::new();
    dataset
        .snapshot()
        .unwrap()
        .latest(&["a"], &mut out)
        .unwrap();
    let names: Vec<_> = out.get(0).shape.names().iter().map(Str::as_str).collect();
    assert_eq!(names, ["x", "y"], "output keeps the order that was stored");
}

fn types_and_digits_are_changes(backend: &dyn Backend) {
    let dataset = orders(backend);
    let one = |value: Value| Entity {
        id: Some(Str::from("a")),
        properties: Dict::from_iter([(Str::from("v"), value)]),
        ..Entity::default()
    };
    let values = [
        Value::Int(1),
        Value::Float(1.0),
        Value::decimal("1.0".parse().unwrap()),
        Value::decimal("1.00".parse().unwrap()),
        Value::string("1"),
        Value::Null,
    ];
    for value in values {
        assert_eq!(
            write(&dataset, [one(value.clone())]).written,
            1,
            "{value:?}"
        );
        assert_eq!(
            write(&dataset, [one(value.clone())]).unchanged,
            1,
            "{value:?} again"
        );
    }
}

fn reserved_names_are_dropped(backend: &dyn Backend) {
    let dataset = orders(backend);
    let mut odd = entity("a", 1);
    odd.properties = Dict::from_iter([
        (Str::from("_tracking"), Value::Int(1)),
        (Str::from("v"), Value::Int(1)),
        (Str::from("$kept"), Value::Int(2)),
        (Str::from("_x"), Value::string("y")),
    ]);
    write(&dataset, [odd.clone()]);
    odd.properties.set("_tracking", Value::Int(2));
    assert_eq!(
        write(&dataset, [odd]).unchanged,
        1,
        "they do not count as content"
    );
    let mut out = Batch::new();
    dataset
        .snapshot()
        .unwrap()
        .latest(&["a"], &mut out)
        .unwrap();
    let kept = out.get(0).to_entity();
    let names: Vec<_> = kept
        .properties
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["v", "$kept"]);
    assert!(!out.get(0).meta.reserved);
}

fn every_kind_of_value_comes_back(backend: &dyn Backend) {
    let dataset = orders(backend);
    let values = [
        Value::Null,
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::integer("123456789012345678901234567890".parse().unwrap()),
        Value::Float(-0.5),
        Value::decimal("-10.500".parse().unwrap()),
        Value::string("æ\u{10FFFF}\0"),
        Value::Bytes([0u8, 255].as_slice().into()),
        Value::Date("0001-01-01".parse().unwrap()),
        Value::Datetime("9999-12-30T22:00:00.123456789Z".parse().unwrap()),
        Value::Uuid(uuid::Uuid::from_u128(5)),
        Value::Ni("ns:x".into()),
        Value::Uri("http://x/y".into()),
        Value::List(
            [Value::Int(1), Value::List([Value::Null].as_slice().into())]
                .as_slice()
                .into(),
        ),
        Value::Dict(Dict::from_iter([(
            Str::from("_nested"),
            Value::Bool(false),
        )])),
    ];
    let entities = values.iter().enumerate().map(|(at, value)| Entity {
        id: Some(Str::from(format!("e{at}"))),
        properties: Dict::from_iter([(Str::from("v"), value.clone())]),
        ..Entity::default()
    });
    let expected = batch(entities);
    run(&dataset, commit(&expected)).unwrap();
    let mut out = Batch::new();
    dataset
        .snapshot()
        .unwrap()
        .changes(None, HISTORY, ALL, &mut out)
        .unwrap();
    assert_eq!(out.len(), values.len());
    for (row, expected) in out.iter().zip(expected.iter()) {
        assert_eq!((row.id, row.body), (expected.id, expected.body));
        assert_eq!(row.shape.names(), expected.shape.names());
        assert_eq!(row.meta.hash, expected.meta.hash);
    }
}

fn latest_answers_in_the_order_of_the_question(backend: &dyn Backend) {
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

fn long_ids_are_told_apart(backend: &dyn Backend) {
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

fn changes_come_in_pages(backend: &dyn Backend) {
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

fn changes_come_backwards(backend: &dyn Backend) {
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

fn a_page_in_bytes_holds_at_least_one_row(backend: &dyn Backend) {
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

fn versions_of_one_id(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    write(&dataset, [entity("a", 2)]);
    let old = dataset.snapshot().unwrap();
    write(&dataset, [deleted("a", 2)]);
    let seqs = |snapshot: &dyn tahini_store::Snapshot, id: &str| {
        let mut out = Batch::new();
        snapshot.versions(id, &mut out).unwrap();
        short(&out).into_iter().map(|row| row.0).collect::<Vec<_>>()
    };
    let new = dataset.snapshot().unwrap();
    assert_eq!(seqs(&*new, "a"), [0, 2, 3]);
    assert_eq!(seqs(&*old, "a"), [0, 2]);
    assert_eq!(seqs(&*new, "x"), [0u64; 0]);
}

fn unseen_walks_in_pages(backend: &dyn Backend) {
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
    let expected: Vec<String> = ids
        .iter()
        .filter(|id| !id.ends_with('1') && !["e05", "e06"].contains(&id.as_str()))
        .cloned()
        .collect();
    for rows in [1, 3, 100] {
        let mut found = Vec::new();
        let mut after: Option<Str> = None;
        loop {
            let mut out = Batch::new();
            let limit = Limit { rows, ..ALL };
            after = snapshot
                .unseen(&seen, after.as_deref(), limit, &mut out)
                .unwrap();
            assert!(out.len() <= rows);
            found.extend(short(&out).into_iter().map(|row| row.1));
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}

fn state_is_listed_by_prefix(backend: &dyn Backend) {
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

fn state_keys_may_be_long(backend: &dyn Backend) {
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

fn state_alone_is_a_commit(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1)]);
    let before = dataset.snapshot().unwrap();
    let large = vec![7u8; 300_000];
    write_state(&dataset, &[set("s", b"seen", &large)]);
    let after = dataset.snapshot().unwrap();
    assert_eq!(before.state("s", b"").unwrap(), []);
    assert_eq!(after.state("s", b"").unwrap(), [(b"seen".to_vec(), large)]);
    assert_eq!(after.head().next, 1);
    assert_eq!(after.head().last_ts, before.head().last_ts);
}

fn the_populated_flag_stays(backend: &dyn Backend) {
    let dataset = orders(backend);
    assert!(!dataset.snapshot().unwrap().head().populated);
    let rows = Batch::new();
    run(
        &dataset,
        Commit {
            populated: true,
            ..commit(&rows)
        },
    )
    .unwrap();
    assert!(dataset.snapshot().unwrap().head().populated);
    write(&dataset, [entity("a", 1)]);
    assert!(dataset.snapshot().unwrap().head().populated);
}

fn counts_follow_deletion(backend: &dyn Backend) {
    let dataset = orders(backend);
    let counts = || {
        let head = dataset.snapshot().unwrap().head().clone();
        (head.live, head.deleted)
    };
    assert_eq!(counts(), (0, 0));
    write(&dataset, (0..8).map(|at| entity(&format!("e{at}"), 1)));
    assert_eq!(counts(), (8, 0));
    write(
        &dataset,
        [
            deleted("e0", 1),
            deleted("e1", 1),
            entity("e2", 2),
            entity("e2", 3),
        ],
    );
    assert_eq!(counts(), (6, 2));
    write(
        &dataset,
        [entity("e0", 1), deleted("e1", 9), deleted("nobody", 1)],
    );
    assert_eq!(counts(), (7, 1));
    assert!(dataset.snapshot().unwrap().head().bytes > 0);
}

fn a_snapshot_keeps_what_it_saw(backend: &dyn Backend) {
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

fn readers_see_whole_commits_while_writers_go_on(backend: &dyn Backend) {
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

fn two_writers_lose_nothing(backend: &dyn Backend) {
    let dataset = orders(backend);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let dataset = &dataset;
            scope.spawn(move || {
                for round in 0..40 {
                    let outcome = write(
                        dataset,
                        [
                            entity(&format!("w{writer}"), round),
                            entity("shared", writer * 100 + round),
                        ],
                    );
                    assert_eq!(outcome.written, 2);
                }
            });
        }
    });
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(snapshot.head().next, 240);
    assert_eq!(snapshot.head().live, 4);
    let mut out = Batch::new();
    snapshot.versions("shared", &mut out).unwrap();
    assert_eq!(out.len(), 120);
    for at in 1..out.len() {
        let previous = out.get(at - 1).meta.updated.clone();
        assert_eq!(
            previous,
            out.get(at).meta.previous.map(|seq| Offset::Int(seq as i64))
        );
    }
}

fn many_shapes_and_wide_shapes_are_kept(backend: &dyn Backend) {
    let dataset = orders(backend);
    let wide = |id: &str, names: usize, tag: usize| Entity {
        id: Some(Str::from(id)),
        properties: (0..names)
            .map(|at| (Str::from(format!("{tag}n{at}")), Value::Int(at as i64)))
            .collect(),
        ..Entity::default()
    };
    let entities: Vec<Entity> = (0..300).map(|at| wide(&format!("e{at}"), at, at)).collect();
    let expected = batch(entities.iter().cloned());
    run(&dataset, commit(&expected)).unwrap();
    let many: Vec<Entity> = (0..4_500)
        .map(|at| wide(&format!("m{at}"), 1, 1_000 + at))
        .collect();
    let more = batch(many.iter().cloned());
    run(&dataset, commit(&more)).unwrap();
    let mut out = Batch::new();
    dataset
        .snapshot()
        .unwrap()
        .changes(None, HISTORY, ALL, &mut out)
        .unwrap();
    assert_eq!(out.len(), 4_800);
    for (row, expected) in out.iter().zip(expected.iter().chain(more.iter())) {
        assert_eq!(
            (row.id, row.shape.names(), row.body),
            (expected.id, expected.shape.names(), expected.body)
        );
    }
}
