//! Answers that end early, in runs of every kind: the read failed, the place stays, nothing is
//! deleted, and the next whole answer makes everything good.

use serde_json::{Value as Json, json};
use tahini_entity::{Batch, Offset};
use tahini_hub::execution_log::Summary;
use tahini_hub::pump::Request;
use tahini_hub::secrets::MemorySecrets;
use tahini_hub::{Class, Hub};
use tahini_store::{Limit, View};

use crate::runs::configured;
use crate::server::{Reply, Server};
use crate::world::url_system;

/// How an answer of these elements breaks off.
fn truncations(elements: &[&str]) -> [(&'static str, Reply); 3] {
    let whole = array(elements);
    let len = whole.len() + 40;
    let head = "HTTP/1.1 200 OK\r\nConnection: close";
    let short = Reply::raw(format!("{head}\r\nContent-Length: {len}\r\n\r\n{whole}"));
    let cut = whole.trim_end_matches(']');
    [
        ("a short Content-Length", short),
        // Even though the array is closed: nobody says that this was all.
        ("no last chunk", Reply::chunked().chunk(&whole)),
        ("cut JSON", Reply::ok(cut)),
    ]
}

fn array(elements: &[&str]) -> String {
    format!("[{}]", elements.join(","))
}

const A: &str = r#"{"_id": "a", "_updated": 1, "v": 1}"#;
const B: &str = r#"{"_id": "b", "_updated": 2, "v": 1}"#;
const A_ANEW: &str = r#"{"_id": "a", "_updated": 3, "v": 2}"#;
const C: &str = r#"{"_id": "c", "_updated": 4, "v": 1}"#;

/// How the offset is kept.
fn pipe(continuation: &str) -> Json {
    let mut source = json!({"type": "json", "system": "s", "url": "all"});
    if continuation != "none" {
        source["supports_since"] = json!(true);
        source["is_chronological"] = json!(continuation == "chronological");
    }
    json!({"_id": "p", "type": "pipe", "source": source, "batch_size": 1, "checkpoint_interval": 100})
}

fn run(hub: &Hub, rescan: bool) -> Summary {
    let request = Request {
        rescan,
        ..Request::default()
    };
    hub.run(&hub.pipe("p").unwrap(), &request).unwrap()
}

fn offset(hub: &Hub) -> Option<i64> {
    let live = hub.pipe("p").unwrap();
    match hub.place(live.usable().unwrap()).unwrap().offset {
        None => None,
        Some(Offset::Int(number)) => Some(number),
        Some(Offset::Text(text)) => panic!("a number, not {text:?}"),
    }
}

/// Every version there is: the id, `v`, and whether it is deleted.
fn versions(hub: &Hub) -> Vec<(String, i64, bool)> {
    let dataset = hub.world.store.find("p").unwrap().unwrap();
    let view = View {
        history: true,
        deleted: true,
    };
    let limit = Limit {
        rows: 100,
        bytes: usize::MAX,
    };
    let mut batch = Batch::new();
    let snapshot = dataset.snapshot().unwrap();
    snapshot.changes(None, view, limit, &mut batch).unwrap();
    let shown = batch.iter().map(|record| {
        let v = match record.value("v") {
            Some(tahini_entity::Value::Int(v)) => v,
            other => panic!("{other:?}"),
        };
        (record.id.unwrap().to_owned(), v, record.meta.deleted)
    });
    shown.collect()
}

fn version(id: &str, v: i64) -> (String, i64, bool) {
    (id.to_owned(), v, false)
}

fn assert_broke_off(summary: &Summary, case: &str) {
    let failure = summary.failure.as_ref().expect(case);
    assert_eq!(failure.class, Class::Transient, "{case}: {failure}");
    assert_eq!(summary.read_errors, 1, "{case}");
    assert_eq!((summary.changed, summary.deleted), (0, 0), "{case}");
}

/// Plays a first whole answer, a truncated one, and a whole one, and looks at the dataset between.
fn check(continuation: &str, rescan: bool, second: &[&str]) {
    for at in 0..3 {
        let (how, broken) = truncations(second).into_iter().nth(at).unwrap();
        let case = format!("{how}, {continuation}, rescan: {rescan}");
        let server = Server::play([
            Reply::ok(&array(&[A, B])),
            broken,
            Reply::ok(&array(second)),
        ]);
        let components = vec![url_system(&server.url()), pipe(continuation)];
        let hub = configured(components, MemorySecrets::default());
        assert!(run(&hub, false).success(), "{case}");
        let (before, place) = (versions(&hub), offset(&hub));
        assert_eq!(before, [version("a", 1), version("b", 1)], "{case}");

        assert_broke_off(&run(&hub, rescan), &case);
        assert_eq!(versions(&hub), before, "{case}");
        assert_eq!(offset(&hub), place, "{case}");

        // A rescan that broke off is a rescan again, whoever asks.
        let summary = run(&hub, false);
        assert!(summary.success(), "{case}: {:?}", summary.failure);
        let full = rescan || continuation == "none";
        assert_eq!(summary.sync_type == "full", full, "{case}");
        let mut expected = before.clone();
        expected.extend([version("a", 2), version("c", 1)]);
        expected.extend(full.then(|| ("b".to_owned(), 1, true)));
        assert_eq!(versions(&hub), expected, "{case}");
        assert_eq!(offset(&hub), place.map(|_| 4), "{case}");
        let seen = server.seen();
        let sinces: Vec<_> = seen.iter().map(|one| one.parameter("since")).collect();
        let again = (!full).then_some("2");
        assert_eq!(sinces, [None, again, again], "{case}");
    }
}

#[test]
fn a_full_run_whose_answer_ends_early_changes_nothing() {
    check("none", false, &[A_ANEW, C]);
}

#[test]
fn a_rescan_whose_answer_ends_early_changes_nothing() {
    check("max", true, &[A_ANEW, C]);
    check("chronological", true, &[A_ANEW, C]);
}

#[test]
fn an_incremental_run_whose_answer_ends_early_changes_nothing() {
    check("max", false, &[A_ANEW, C]);
    check("chronological", false, &[A_ANEW, C]);
}

#[test]
fn a_first_run_whose_answer_ends_early_leaves_no_place() {
    for continuation in ["none", "max", "chronological"] {
        for at in 0..3 {
            let (how, broken) = truncations(&[A, B]).into_iter().nth(at).unwrap();
            let case = format!("{how}, {continuation}");
            let server = Server::play([broken, Reply::ok(&array(&[A, B]))]);
            let components = vec![url_system(&server.url()), pipe(continuation)];
            let hub = configured(components, MemorySecrets::default());
            assert_broke_off(&run(&hub, false), &case);
            assert_eq!((versions(&hub), offset(&hub)), (Vec::new(), None), "{case}");
            let summary = run(&hub, false);
            assert!(summary.success() && summary.sync_type == "full", "{case}");
            assert_eq!(versions(&hub), [version("a", 1), version("b", 1)], "{case}");
            assert!(
                server
                    .seen()
                    .iter()
                    .all(|one| one.parameter("since").is_none()),
                "{case}"
            );
        }
    }
}

#[test]
fn a_dataset_that_reads_an_answer_that_ended_early_is_not_populated() {
    for (how, broken) in truncations(&[A, B]) {
        let server = Server::play([broken, Reply::ok(&array(&[A, B]))]);
        let reader = json!({
            "_id": "reader", "type": "pipe",
            "source": {"type": "dataset", "dataset": "p", "require_populated_input": true},
        });
        let components = vec![url_system(&server.url()), pipe("none"), reader];
        let hub = configured(components, MemorySecrets::default());
        let read = || {
            let live = hub.pipe("reader").unwrap();
            hub.run(&live, &Request::default()).unwrap()
        };
        run(&hub, false);
        let failure = read().failure.expect(how);
        assert_eq!(failure.class, Class::Waiting, "{how}");
        run(&hub, false);
        assert_eq!(read().changed, 2, "{how}");
    }
}

#[test]
fn a_read_that_ended_early_is_begun_again_in_the_same_run() {
    for (how, broken) in truncations(&[A, B]) {
        let server = Server::play([broken, Reply::ok(&array(&[A, B]))]);
        let mut pipe = pipe("max");
        pipe["pump"] = json!({"max_read_retries": 1, "read_retry_delay": 0});
        let components = vec![url_system(&server.url()), pipe];
        let hub = configured(components, MemorySecrets::default());
        let summary = run(&hub, false);
        assert!(summary.success(), "{how}: {:?}", summary.failure);
        assert_eq!(
            (summary.changed, summary.read_errors, offset(&hub)),
            (2, 1, Some(2)),
            "{how}"
        );
        assert_eq!(versions(&hub), [version("a", 1), version("b", 1)], "{how}");
    }
}

/// Its batches were saved with the place; the rest comes when it goes on from there.
#[test]
fn what_a_chronological_source_gave_before_the_end_is_kept_with_its_place() {
    for (how, broken) in truncations(&[A, B]) {
        let server = Server::play([broken, Reply::ok(&array(&[B, A_ANEW, C]))]);
        let mut pipe = pipe("chronological");
        pipe["checkpoint_interval"] = json!(1);
        let components = vec![url_system(&server.url()), pipe];
        let hub = configured(components, MemorySecrets::default());
        assert!(!run(&hub, false).success(), "{how}");
        // Another entity may have the `_updated` of the last one.
        assert_eq!(offset(&hub), Some(1), "{how}");
        let summary = run(&hub, false);
        assert!(summary.success() && summary.sync_type == "full", "{how}");
        let all = [
            version("a", 1),
            version("b", 1),
            version("a", 2),
            version("c", 1),
        ];
        assert_eq!(versions(&hub), all, "{how}");
        assert_eq!(server.seen()[1].parameter("since"), Some("1"), "{how}");
        assert_eq!(offset(&hub), Some(4), "{how}");
    }
}
