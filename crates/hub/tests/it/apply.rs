//! Taking over a configuration, and what a person does to a pipe between its runs.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_entity::Offset;
use tahini_hub::hub::Refusal;
use tahini_hub::pump::Request;

use crate::faulty::Faulty;
use crate::script::{PATIENCE, records};
use crate::world::World;

fn pipe(id: &str) -> Json {
    json!({"_id": id, "source": {"type": "scripted", "supports_since": true}})
}

fn receiver(id: &str) -> Json {
    json!({"_id": id, "source": {"type": "http_endpoint"}})
}

#[test]
fn a_store_that_fails_half_way_leaves_the_old_configuration_running() {
    let store = Arc::new(Faulty::default());
    let mut world = World::on_store(store.clone());
    world.pipe(pipe("a"));
    let old = world.live_pipe("a");
    let cancel = world.hub().begin(&old).unwrap();
    store.refuse(Some("z"));
    let mut changed = pipe("a");
    changed["batch_size"] = json!(7);
    world.pipe(receiver("b"));
    let failure = world.try_pipe(receiver("z")).unwrap_err();
    assert!(
        failure.to_string().contains("z is out of reach"),
        "{failure}"
    );
    let failure = world.try_pipe(changed).unwrap_err();
    assert!(
        failure.to_string().contains("z is out of reach"),
        "{failure}"
    );
    assert!(!cancel.is_cancelled(), "the old run goes on");
    assert!(Arc::ptr_eq(&world.live_pipe("a"), &old));
    let hub = world.hub();
    let ids: Vec<String> = hub
        .pipes()
        .iter()
        .map(|live| live.id().to_owned())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(hub.configuration().get("z").is_none());
    store.refuse(None);
    world.apply().unwrap();
    assert!(cancel.is_cancelled());
    let now = world.live_pipe("a");
    assert_eq!(now.usable().unwrap().batch_size, 7);
    assert!(world.hub().pipe("z").is_ok());
}

#[test]
fn a_pipe_that_comes_back_waits_for_the_run_of_the_one_that_went() {
    let mut world = World::new();
    world.pipe(pipe("p"));
    world.records("p", records(&[("a", 1)]));
    let old = world.live_pipe("p");
    let cancel = world.hub().begin(&old).unwrap();
    world.remove("p");
    assert!(cancel.is_cancelled());
    world.pipe(pipe("p"));
    let refusal = world.try_run("p", &Request::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::Running(_)), "{refusal}");
    let summary = world
        .hub()
        .finish(&old, old.usable().unwrap(), &Request::default(), &cancel);
    assert!(!summary.success(), "it hears that it should stop");
    world.succeed("p");
    assert_eq!(world.living("p"), ["a"]);
}

#[test]
fn a_replaced_pipe_runs_no_more() {
    let mut world = World::new();
    world.pipe(pipe("p"));
    let old = world.live_pipe("p");
    let mut changed = pipe("p");
    changed["batch_size"] = json!(7);
    world.pipe(changed);
    let refusal = world.hub().run(&old, &Request::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::Missing(_)), "{refusal}");
    world.succeed("p");
}

#[test]
fn no_run_begins_while_an_offset_is_set() {
    let store = Arc::new(Faulty::default());
    let mut world = World::on_store(store.clone());
    world.pipe(pipe("p"));
    world.records("p", records(&[("a", 1), ("b", 2)]));
    world.succeed("p");
    let held = store.hold("p");
    let (hub, live) = (world.hub().clone(), world.live_pipe("p"));
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| hub.set_offset("p", None, &Default::default()));
        held.wait();
        let (begun, hear) = sync_channel(1);
        let (hub, live) = (&hub, &live);
        scope.spawn(move || begun.send(hub.begin(live)).unwrap());
        let early = hear.recv_timeout(Duration::from_millis(50));
        held.let_go();
        assert!(early.is_err(), "a run began under the reset");
        reset.join().unwrap().unwrap();
        let cancel = hear.recv_timeout(PATIENCE).unwrap().unwrap();
        let summary = hub.finish(live, live.usable().unwrap(), &Request::default(), &cancel);
        assert_eq!((summary.sync_type.as_str(), summary.read), ("full", 2));
    });
    assert_eq!(world.offset("p"), json!(2));
}

#[test]
fn an_offset_is_not_set_under_a_run() {
    let mut world = World::new();
    world.pipe(pipe("p"));
    world.hub().begin(&world.live_pipe("p")).unwrap();
    let refusal = world
        .hub()
        .set_offset("p", Some(Offset::Int(1)), &Default::default())
        .unwrap_err();
    assert!(matches!(refusal, Refusal::Running(_)), "{refusal}");
}

#[test]
fn a_restart_knows_the_last_run_from_the_log() {
    let mut world = World::on_disk();
    let mut failing = pipe("q");
    failing["sink"] = json!({"type": "scripted"});
    failing["pump"] = json!({"batch_retries": 0});
    world.pipe(pipe("p"));
    world.pipe(failing);
    world.pipe(pipe("never"));
    world.records("p", records(&[("a", 3), ("b", 4)]));
    world.records("q", records(&[("a", 3), ("b", 4)]));
    world.target("q", |target| target.refuses.extend(["b".to_owned()]));
    world.succeed("p");
    world.fail("q");
    let before = ["p", "q"].map(|id| world.live_pipe(id).state().last.unwrap());
    world.restart();
    for (id, before) in ["p", "q"].into_iter().zip(before) {
        let after = world.live_pipe(id).state().last.unwrap();
        assert_eq!(
            (&after.sync_type, after.started, after.ended, &after.offset),
            (
                &before.sync_type,
                before.started,
                before.ended,
                &before.offset
            )
        );
        assert_eq!(
            [
                after.read,
                after.changed,
                after.deleted,
                after.unchanged,
                after.failed
            ],
            [
                before.read,
                before.changed,
                before.deleted,
                before.unchanged,
                before.failed
            ]
        );
        assert_eq!(after.batch_bytes, before.batch_bytes);
        assert_eq!(after.success(), before.success());
        let words = |failure: tahini_hub::Failure| (failure.message, failure.original);
        assert_eq!(after.failure.map(words), before.failure.map(words));
    }
    assert!(world.live_pipe("never").state().last.is_none());
}
