//! Commits that are held back from readers.

use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Compaction, Limit, Show, StoreError};

use super::orders;
use crate::rows::*;

fn held(rows: &Batch) -> Commit<'_> {
    Commit {
        show: Show::Later,
        ..commit(rows)
    }
}

fn shown(rows: &Batch) -> Commit<'_> {
    Commit {
        show: Show::All,
        ..commit(rows)
    }
}

fn row(seq: u64, id: &str, v: i64, deleted: bool) -> Short {
    (seq, id.to_owned(), v, deleted)
}

pub fn what_is_held_back_is_seen_when_it_is_shown(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1), entity("c", 1)]);
    write_state(&dataset, &[set("s", b"k", b"1")]);
    let before = dataset.snapshot().unwrap();
    let changes_of_run = batch([entity("a", 2), deleted("b", 1), entity("d", 1)]);
    let state = [set("s", b"k", b"2"), set("s", b"l", b"3")];
    let outcome = run(
        &dataset,
        Commit {
            state: &state,
            populated: true,
            ..held(&changes_of_run)
        },
    )
    .unwrap();
    assert_eq!((outcome.written, outcome.deleted), (2, 1));
    let again = batch([entity("a", 2), entity("a", 3)]);
    let outcome = run(&dataset, held(&again)).unwrap();
    assert_eq!(
        (outcome.written, outcome.unchanged),
        (1, 1),
        "rows are compared with what is held back"
    );

    let first = [
        row(0, "a", 1, false),
        row(1, "b", 1, false),
        row(2, "c", 1, false),
    ];
    for snapshot in [&before, &dataset.snapshot().unwrap()] {
        assert_eq!(changes(&**snapshot, HISTORY, ALL), first);
        assert_eq!(changes(&**snapshot, LIVE, ALL), first);
        let mut out = Batch::new();
        let found = snapshot.latest(&["d", "b", "a"], &mut out).unwrap();
        assert_eq!(found, [false, true, true]);
        assert_eq!(short(&out), [first[1].clone(), first[0].clone()]);
        out.clear();
        snapshot.versions("a", &mut out).unwrap();
        assert_eq!(short(&out), first[..1]);
        out.clear();
        let limit = Limit { rows: 9, ..ALL };
        let next = snapshot.unseen(&[0].into_iter().collect(), None, limit, &mut out);
        assert_eq!((next.unwrap(), short(&out).len()), (None, 2));
        let head = snapshot.head();
        assert_eq!((head.next, head.live, head.deleted), (3, 3, 0));
        assert!(!head.populated);
        let state = snapshot.state("s", b"").unwrap();
        assert_eq!(state, [(b"k".to_vec(), b"1".to_vec())]);
    }
    assert!(!before.head().holds && dataset.snapshot().unwrap().head().holds);
    let heads = backend.list().unwrap();
    assert_eq!((heads[0].next, heads[0].holds), (3, true));

    let all = [
        row(2, "c", 1, false),
        row(4, "b", 1, true),
        row(5, "d", 1, false),
        row(6, "a", 3, false),
    ];
    let newest = dataset.uncommitted().unwrap();
    assert_eq!(changes(&*newest, LATEST, ALL), all);
    assert_eq!(newest.state("s", b"").unwrap().len(), 2);
    assert!(newest.head().populated && newest.head().holds);

    let last = batch([entity("e", 1)]);
    run(&dataset, shown(&last)).unwrap();
    let after = dataset.snapshot().unwrap();
    assert_eq!(
        changes(&*after, LATEST, ALL),
        [&all[..], &[row(7, "e", 1, false)]].concat()
    );
    assert_eq!(
        (after.head().live, after.head().deleted, after.head().holds),
        (4, 1, false)
    );
    assert_eq!(after.state("s", b"").unwrap().len(), 2);
    assert_eq!(changes(&*before, HISTORY, ALL), first);
    assert_eq!(
        changes(&*newest, LATEST, ALL),
        all,
        "a view goes on when what it shows is shown to all"
    );
}

pub fn what_is_held_back_may_be_taken_back(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("b", 1)]);
    write_state(&dataset, &[set("s", b"k", b"1"), set("s", b"m", b"1")]);
    let before = dataset.snapshot().unwrap();
    for v in 0..8 {
        let rows = batch([entity("a", 10 + v), deleted("b", 1), entity("z", v)]);
        let value = [v as u8];
        let state = [
            set("s", b"k", &value),
            set("s", b"l", b"4"),
            unset("s", b"m"),
        ];
        run(
            &dataset,
            Commit {
                state: &state,
                populated: true,
                ..held(&rows)
            },
        )
        .unwrap();
    }
    let newest = dataset.uncommitted().unwrap();
    assert_eq!(newest.head().next, 2 + 8 + 1 + 8);
    dataset.roll_back().unwrap();
    for view in [HISTORY, LIVE] {
        let mut out = Batch::new();
        let ended = newest.changes(None, view, ALL, &mut out).unwrap_err();
        assert!(matches!(ended, StoreError::Refused(_)), "{ended}");
    }

    let expected = [row(0, "a", 1, false), row(1, "b", 1, false)];
    for snapshot in [&before, &dataset.snapshot().unwrap()] {
        assert_eq!(changes(&**snapshot, HISTORY, ALL), expected);
        assert_eq!(changes(&**snapshot, LIVE, ALL), expected);
        let mut out = Batch::new();
        let found = snapshot.latest(&["a", "b", "z"], &mut out).unwrap();
        assert_eq!((found, short(&out).len()), (vec![true, true, false], 2));
        let state = snapshot.state("s", b"").unwrap();
        let value = |key: &[u8]| (key.to_vec(), b"1".to_vec());
        assert_eq!(state, [value(b"k"), value(b"m")]);
        let head = snapshot.head();
        assert_eq!((head.next, head.live, head.deleted), (2, 2, 0));
        assert!(!head.holds && !head.populated);
    }
    let outcome = write(&dataset, [entity("z", 1), entity("a", 1), entity("b", 3)]);
    assert_eq!(outcome.seqs, [Some(2), Some(0), Some(3)]);
    assert_eq!(changes(&*before, HISTORY, ALL), expected);
    let after = dataset.snapshot().unwrap();
    let mut versions = Batch::new();
    after.versions("b", &mut versions).unwrap();
    assert_eq!(short(&versions).len(), 2);
    dataset.roll_back().unwrap();
    assert_eq!(
        dataset.snapshot().unwrap().head().next,
        4,
        "with nothing held back there is nothing to take back"
    );
}

pub fn beside_what_is_held_back_nothing_else_is_written(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1), entity("a", 2)]);
    let rows = batch([entity("a", 3)]);
    run(&dataset, held(&rows)).unwrap();
    let other = batch([entity("b", 1)]);
    let refused = run(&dataset, commit(&other)).unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    let rules = Compaction {
        keep_versions: Some(1),
        least_dead: 0.0,
        ..Compaction::default()
    };
    let refused = dataset.compact(&rules).unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    run(&dataset, shown(&Batch::new())).unwrap();
    assert_eq!(
        changes(&*dataset.snapshot().unwrap(), LATEST, ALL),
        [row(2, "a", 3, false)],
        "a commit without content shows what was held back"
    );
    run(&dataset, commit(&other)).unwrap();
    assert_eq!(dataset.compact(&rules).unwrap().versions, 2);
}

pub fn a_commit_that_changes_nothing_holds_nothing_back(backend: &dyn Backend) {
    let dataset = orders(backend);
    write(&dataset, [entity("a", 1)]);
    let rows = batch([entity("a", 1), deleted("b", 1)]);
    run(&dataset, held(&rows)).unwrap();
    assert!(!dataset.snapshot().unwrap().head().holds);
    write(&dataset, [entity("a", 2)]);
    run(&dataset, shown(&rows)).unwrap();
    assert_eq!(dataset.snapshot().unwrap().head().next, 3);
}
