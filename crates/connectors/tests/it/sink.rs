//! The json sink: the push protocol's chain of requests.

use serde_json::{Value as Json, json};
use tahini_hub::sink::{End, Run, RunKind};
use tahini_hub::{Class, Failure, Sink};

use crate::server::{Reply, Seen, Server};
use crate::world::{World, batch, end, numbered, run};

fn sink(world: &World) -> Box<dyn Sink> {
    world
        .sink(json!({ "type": "json", "system": "s", "url": "push" }))
        .unwrap()
}

fn accepted(count: usize) -> Vec<Reply> {
    vec![Reply::ok("{}"); count]
}

/// What the pump does with a run of these batches.
fn push(script: Vec<Reply>, run: &Run, batches: &[&[Json]]) -> (Vec<Seen>, Result<(), Failure>) {
    let server = Server::play(script);
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    let outcome = (|| {
        sink.begin(run)?;
        for entities in batches {
            sink.write(&batch(entities), None)?;
        }
        sink.finish(&end()).map(|_| ())
    })();
    (server.seen(), outcome)
}

fn flags(seen: &[Seen]) -> Vec<(bool, bool)> {
    let flag = |seen: &Seen, name| match seen.parameter(name) {
        None => false,
        Some(value) => {
            assert_eq!(value, "true", "{name}");
            true
        }
    };
    seen.iter()
        .map(|seen| (flag(seen, "is_first"), flag(seen, "is_last")))
        .collect()
}

fn assert_chained(seen: &[Seen], is_full: &str) {
    let sequence = seen[0].parameter("sequence_id").unwrap();
    assert!(!sequence.is_empty());
    let mut previous = None;
    for request in seen {
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.parameter("sequence_id"), Some(sequence));
        assert_eq!(request.parameter("is_full"), Some(is_full));
        assert_eq!(request.parameter("previous_request_id"), previous);
        let id = request.parameter("request_id");
        assert!(id.is_some() && id != previous);
        previous = id;
    }
}

#[test]
fn a_full_run_is_batches_and_one_empty_request() {
    let all = numbered(0..150);
    let (seen, outcome) = push(
        accepted(3),
        &run(RunKind::Full),
        &[&all[..100], &all[100..]],
    );
    outcome.unwrap();
    let sizes: Vec<usize> = seen.iter().map(|request| request.ids().len()).collect();
    assert_eq!(sizes, [100, 50, 0]);
    assert_eq!(seen[2].body, "[]");
    assert_eq!(flags(&seen), [(true, false), (false, false), (false, true)]);
    assert_chained(&seen, "true");
}

#[test]
fn a_rescan_is_a_full_sequence() {
    let (seen, outcome) = push(accepted(2), &run(RunKind::Rescan), &[&numbered(0..1)]);
    outcome.unwrap();
    assert_eq!(flags(&seen), [(true, false), (false, true)]);
    assert_chained(&seen, "true");
}

#[test]
fn a_full_run_of_nothing_is_one_empty_request_with_both_flags() {
    let (seen, outcome) = push(accepted(1), &run(RunKind::Full), &[]);
    outcome.unwrap();
    assert_eq!(flags(&seen), [(true, true)]);
    assert_eq!(seen[0].body, "[]");
    assert_chained(&seen, "true");
}

#[test]
fn an_incremental_run_ends_with_an_empty_request_and_has_no_flags() {
    let (seen, outcome) = push(accepted(2), &run(RunKind::Incremental), &[&numbered(0..3)]);
    outcome.unwrap();
    assert_eq!(seen[1].body, "[]");
    assert_chained(&seen, "false");
    for request in &seen {
        let names = request.parameters();
        assert!(
            !names.contains(&"is_first") && !names.contains(&"is_last"),
            "{names:?}"
        );
    }
}

#[test]
fn every_run_has_a_sequence_of_its_own() {
    let server = Server::play(accepted(2));
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    for _ in 0..2 {
        sink.begin(&run(RunKind::Full)).unwrap();
        sink.finish(&end()).unwrap();
    }
    let seen = server.seen();
    assert_ne!(
        seen[0].parameter("sequence_id"),
        seen[1].parameter("sequence_id")
    );
    assert_eq!(seen[1].parameter("previous_request_id"), None);
}

#[test]
fn entities_carry_their_reserved_fields() {
    let entities = [json!({ "_id": "a", "_updated": 7, "_deleted": true, "x": "~:ns:1" })];
    let server = Server::play(accepted(1));
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    sink.begin(&run(RunKind::Incremental)).unwrap();
    let written = sink.write(&batch(&entities), None).unwrap();
    assert_eq!((written.changed, written.deleted), (1, 1));
    let body: Json = serde_json::from_str(&server.seen()[0].body).unwrap();
    let entity = &body[0];
    assert_eq!(entity["_id"], "a");
    assert_eq!(entity["_updated"], 7);
    assert_eq!(entity["_deleted"], true);
    assert_eq!(entity["x"], "~:ns:1");
    assert_eq!(entity["_hash"].as_str().unwrap().len(), 32);
}

#[test]
fn a_write_that_is_repeated_repeats_its_id_and_its_link() {
    let server = Server::play([
        Reply::ok("{}"),
        Reply::raw("HTTP/1.1 200 OK\r\n"), // accepted, but the answer is lost
        Reply::status("503 Service Unavailable", "Retry-After: 9\r\n", "later"),
        Reply::ok("{}"),
        Reply::ok("{}"),
    ]);
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    sink.begin(&run(RunKind::Full)).unwrap();
    sink.write(&batch(&numbered(0..2)), None).unwrap();
    let second = batch(&numbered(2..4));
    let lost = sink.write(&second, None).unwrap_err();
    assert_eq!(lost.class, Class::Transient);
    let busy = sink.write(&second, None).unwrap_err();
    assert_eq!((busy.class, busy.status), (Class::Entity, Some(503)));
    assert_eq!(busy.retry_after, Some(std::time::Duration::from_secs(9)));
    sink.write(&second, None).unwrap();
    sink.finish(&end()).unwrap();
    let seen = server.seen();
    assert_eq!(seen[1].target, seen[2].target);
    assert_eq!(seen[1].target, seen[3].target);
    assert_ne!(
        seen[4].parameter("request_id"),
        seen[3].parameter("request_id")
    );
    assert_eq!(
        seen[4].parameter("previous_request_id"),
        seen[3].parameter("request_id")
    );
}

#[test]
fn single_entities_after_a_failed_batch_are_links_of_the_same_chain() {
    let server = Server::play([
        Reply::status("422 Unprocessable Entity", "", "1 is poison"),
        Reply::ok("{}"),
        Reply::status("422 Unprocessable Entity", "", "1 is poison"),
        Reply::ok("{}"),
        Reply::ok("{}"),
    ]);
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    let all = numbered(0..3);
    sink.begin(&run(RunKind::Full)).unwrap();
    let failure = sink.write(&batch(&all), None).unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Entity, Some(422)));
    assert_eq!(failure.original.as_deref(), Some("1 is poison"));
    let singles = all.iter().map(|entity| {
        sink.write(&batch(std::slice::from_ref(entity)), None)
            .is_ok()
    });
    assert_eq!(singles.collect::<Vec<_>>(), [true, false, true]);
    sink.seen(&["1"]).unwrap();
    sink.finish(&end()).unwrap();
    let seen = server.seen();
    // The receiver knows nothing of the requests that it refused.
    let accepted = [seen[1].clone(), seen[3].clone(), seen[4].clone()];
    assert_chained(&accepted, "true");
    assert_eq!(seen[1].parameter("is_first"), Some("true"));
    let ids: std::collections::BTreeSet<_> = seen
        .iter()
        .map(|request| request.parameter("request_id").unwrap())
        .collect();
    assert_eq!(ids.len(), 5);
    // What was set aside must not look deleted, so the sequence never says that it is whole.
    assert_eq!(
        flags(&accepted),
        [(true, false), (false, false), (false, false)]
    );
}

#[test]
fn a_write_of_more_than_a_batch_is_sent_in_parts_and_repeated_where_it_failed() {
    let server = Server::play([
        Reply::ok("{}"),
        Reply::status("500 No", "", ""),
        Reply::ok("{}"),
        Reply::ok("{}"),
    ]);
    let world = World::at(&server.url());
    let config = json!({ "type": "json", "system": "s", "url": "push", "batch_size": 2 });
    let mut sink = world.sink(config).unwrap();
    sink.begin(&run(RunKind::Full)).unwrap();
    let all = batch(&numbered(0..5));
    sink.write(&all, None).unwrap_err();
    assert_eq!(sink.write(&all, None).unwrap().changed, 5);
    let seen = server.seen();
    let sent: Vec<Vec<String>> = seen.iter().map(Seen::ids).collect();
    assert_eq!(
        sent,
        [vec!["0", "1"], vec!["2", "3"], vec!["2", "3"], vec!["4"]]
    );
    assert_eq!(seen[1].target, seen[2].target);
    assert_chained(&[seen[0].clone(), seen[2].clone(), seen[3].clone()], "true");
}

#[test]
fn a_conflict_ends_the_run_for_good() {
    let script = vec![
        Reply::ok("{}"),
        Reply::status("409 Conflict", "", "wrong link"),
    ];
    let (seen, outcome) = push(
        script,
        &run(RunKind::Full),
        &[&numbered(0..1), &numbered(1..2), &numbered(2..3)],
    );
    let failure = outcome.unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::Fatal, Some(409)));
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_run_that_is_not_whole_never_says_that_it_is() {
    for (resumed, complete) in [(true, true), (false, false)] {
        let server = Server::play(accepted(2));
        let world = World::at(&server.url());
        let mut sink = sink(&world);
        sink.begin(&Run {
            resumed,
            ..run(RunKind::Full)
        })
        .unwrap();
        sink.write(&batch(&numbered(0..1)), None).unwrap();
        sink.finish(&End { complete, ..end() }).unwrap();
        let seen = server.seen();
        assert_eq!(seen[1].body, "[]");
        assert_eq!(seen[1].parameter("is_last"), None);
        let full = if resumed { "false" } else { "true" };
        assert_eq!(seen[1].parameter("is_full"), Some(full));
    }
}

#[test]
fn a_failed_run_sends_nothing_more() {
    let server = Server::play(accepted(1));
    let world = World::at(&server.url());
    let mut sink = sink(&world);
    sink.begin(&run(RunKind::Full)).unwrap();
    sink.write(&batch(&numbered(0..1)), None).unwrap();
    sink.abort(&Failure::transient("the source broke off"));
    drop(sink);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn full_runs_start_over_and_incremental_ones_go_on() {
    let world = World::at("http://127.0.0.1:1");
    let sink = sink(&world);
    assert!(!sink.takes_checkpoints(RunKind::Full));
    assert!(!sink.takes_checkpoints(RunKind::Rescan));
    assert!(sink.takes_checkpoints(RunKind::Incremental));
}

#[test]
fn headers_of_the_sink_win() {
    let server = Server::play(accepted(1));
    let world = World::at(&server.url());
    let headers = json!({ "content-type": "application/json; charset=UTF-8" });
    let config = json!({ "type": "json", "system": "s", "url": "push", "headers": headers });
    let mut sink = world.sink(config).unwrap();
    sink.begin(&run(RunKind::Full)).unwrap();
    sink.finish(&end()).unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.header("content-type"),
        Some("application/json; charset=UTF-8")
    );
}
