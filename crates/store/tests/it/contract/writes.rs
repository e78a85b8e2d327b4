//! What commits promise.

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Dict, Entity, Offset, Str, Value};
use tahini_store::{Backend, Commit, Dataset, Note, Rule, StoreError};

use super::orders;
use crate::rows::*;

pub fn datasets_are_made_found_listed_and_removed(backend: &dyn Backend) {
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

pub fn a_version_is_written_only_when_content_or_deletion_changes(backend: &dyn Backend) {
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

pub fn versions_count_from_zero_and_know_the_one_before(backend: &dyn Backend) {
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
        assert_eq!(row.hash(), expected.hash());
    }
}

pub fn time_never_stands_still_or_goes_back(backend: &dyn Backend) {
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

pub fn an_unknown_deleted_entity_writes_nothing(backend: &dyn Backend) {
    let dataset = orders(backend);
    let outcome = write(&dataset, [deleted("a", 1)]);
    assert_eq!(outcome.seqs, [None]);
    assert_eq!(
        (outcome.written, outcome.deleted, outcome.unchanged),
        (0, 0, 1)
    );
    assert_eq!(dataset.snapshot().unwrap().head().next, 0);
}

pub fn one_commit_may_hold_an_id_twice(backend: &dyn Backend) {
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

pub fn the_optimistic_rule_is_all_or_nothing(backend: &dyn Backend) {
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

pub fn one_version_of_an_id_may_be_all(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1)]);
    let try_rule = |rule, rows: &[Entity]| {
        let rows = batch(rows.to_vec());
        run(
            &dataset,
            Commit {
                rule,
                ..commit(&rows)
            },
        )
    };
    let second = try_rule(Rule::OnlyNew, &[entity("b", 1), entity("a", 2)]);
    assert!(matches!(second, Err(StoreError::Refused(message)) if message.contains("\"a\"")));
    let twice = try_rule(Rule::OnlyNew, &[entity("b", 1), entity("b", 2)]);
    assert!(twice.is_err(), "also within a commit");
    let head = |dataset: &dyn Dataset| dataset.snapshot().unwrap().head().next;
    assert_eq!(head(&*dataset), 1, "nothing was written");
    let same = try_rule(Rule::OnlyNew, &[entity("a", 1), entity("b", 1)]).unwrap();
    assert_eq!(same.seqs, [Some(0), Some(1)]);
    let rows = [entity("a", 9), entity("c", 1), entity("c", 2)];
    let kept = try_rule(Rule::KeepFirst, &rows).unwrap();
    assert_eq!(kept.seqs, [Some(0), Some(2), Some(2)]);
    assert_eq!((kept.written, kept.unchanged), (1, 2));
}

pub fn what_did_not_change_can_be_written_once_more(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    let rows = batch([
        entity("a", 1),
        deleted("b", 1),
        deleted("b", 1),
        deleted("c", 1),
    ]);
    let again = Commit {
        rule: Rule::Always,
        ..commit(&rows)
    };
    let (outcome, ticket) = dataset.commit(again).unwrap();
    ticket.wait().unwrap();
    assert_eq!(outcome.seqs, [Some(2), Some(3), Some(4), None]);
    assert_eq!(
        (outcome.written, outcome.deleted, outcome.unchanged),
        (1, 2, 1)
    );
    let snapshot = dataset.snapshot().unwrap();
    let head = snapshot.head();
    assert_eq!((head.next, head.live, head.deleted), (5, 1, 1));
    let mut versions = Batch::new();
    snapshot.versions("a", &mut versions).unwrap();
    let hashes: Vec<u128> = versions.iter().map(|row| row.hash()).collect();
    assert_eq!(hashes.len(), 2);
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(versions.get(1).meta.previous, Some(0));
}

pub fn touched_versions_are_left_alone(backend: &dyn Backend) {
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

pub fn rows_need_an_id(backend: &dyn Backend) {
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

pub fn order_of_names_is_no_change(backend: &dyn Backend) {
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

pub fn types_and_digits_are_changes(backend: &dyn Backend) {
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

pub fn reserved_names_are_dropped(backend: &dyn Backend) {
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

pub fn every_kind_of_value_comes_back(backend: &dyn Backend) {
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
        Value::Datetime(tahini_entity::Datetime::MIN),
        Value::Datetime(tahini_entity::Datetime::MAX),
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
        assert_eq!(row.hash(), expected.hash());
    }
}

pub fn state_alone_is_a_commit(backend: &dyn Backend) {
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

pub fn the_populated_flag_stays(backend: &dyn Backend) {
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

pub fn counts_follow_deletion(backend: &dyn Backend) {
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

pub fn two_writers_lose_nothing(backend: &dyn Backend) {
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

pub fn many_shapes_and_wide_shapes_are_kept(backend: &dyn Backend) {
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

pub fn a_commit_may_remember_which_versions_it_met(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    let rows = batch([entity("b", 1), entity("c", 1), deleted("x", 1)]);
    let with = roaring::RoaringTreemap::from_iter([77]);
    let note = |with| {
        Some(Note {
            space: "s",
            key: b"seen",
            with,
        })
    };
    let remember = Commit {
        note: note(&with),
        state: &[set("s", b"offset", b"3")],
        ..commit(&rows)
    };
    run(&dataset, remember).unwrap();
    let seen = || {
        let snapshot = dataset.snapshot().unwrap();
        let rows = snapshot.state("s", b"").unwrap();
        assert_eq!(rows[0].0, b"offset");
        let bits = roaring::RoaringTreemap::deserialize_from(rows[1].1.as_slice()).unwrap();
        bits.iter().collect::<Vec<_>>()
    };
    assert_eq!(seen(), [1, 2, 77], "met without a change, written, others");
    let nothing = roaring::RoaringTreemap::new();
    let rows = batch([deleted("y", 1)]);
    let remember = Commit {
        note: note(&nothing),
        ..commit(&rows)
    };
    run(&dataset, remember).unwrap();
    assert_eq!(seen(), [1, 2, 77], "there is nothing to remember");
}
