//! An engine that goes away and comes back, or comes late.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bollard::Docker;
use bollard::query_parameters::RemoveContainerOptions;
use serde_json::{Value, json};
use tahini_node::microservices::{HostOptions, State};
use tempfile::TempDir;

use super::super::place::{Place, TestHost, engine_is_there, get, on_engine, try_get, until};
use super::adoption::leave_container;
use super::containers_of;

/// The engine's socket behind one that can be switched off.
struct Switch {
    path: PathBuf,
    is_on: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    _folder: TempDir,
}

impl Switch {
    fn new(is_on: bool) -> Switch {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let switch = Switch {
            path,
            is_on: Arc::new(AtomicBool::new(is_on)),
            open: Arc::default(),
            _folder: folder,
        };
        let (is_on, open) = (switch.is_on.clone(), switch.open.clone());
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let caller = caller.unwrap();
                if is_on.load(Ordering::SeqCst) {
                    join(caller, &open);
                }
            }
        });
        switch
    }

    fn on(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }

    fn off(&self) {
        self.is_on.store(false, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn options(&self) -> impl FnOnce(&mut HostOptions) + use<> {
        let host = format!("unix://{}", self.path.display());
        move |options| options.docker_host = Some(host)
    }
}

/// Passes bytes both ways between a caller and the engine.
fn join(caller: UnixStream, open: &Mutex<Vec<UnixStream>>) {
    let engine = std::env::var("DOCKER_HOST").unwrap();
    let engine = UnixStream::connect(engine.strip_prefix("unix://").unwrap()).unwrap();
    let both = [&caller, &engine].map(|stream| stream.try_clone().unwrap());
    open.lock().unwrap().extend(both);
    let back = (engine.try_clone().unwrap(), caller.try_clone().unwrap());
    for (mut from, mut to) in [(caller, engine), back] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// The engine goes away, and what it runs stays.
#[test]
fn a_service_runs_on_while_its_engine_is_away() {
    if !engine_is_there() {
        return;
    }
    let switch = Switch::new(true);
    let node = TestHost::with(switch.options());
    node.host.apply(vec![Place::Docker.spec("one", json!({}))]);
    let (url, born) = (node.url("one"), node.get("one", "/born"));
    switch.off();
    node.until_logged("one", "the engine does not answer");
    let status = node.status("one");
    assert_eq!(status["state"], "running", "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("the engine does not answer"), "{message}");
    get(&url, "/say?line=nobody+listens");
    switch.on();
    node.until_logged("one", "the engine answers again");
    let log = node.until_logged("one", "nobody listens");
    assert_eq!(
        log.matches("the engine does not answer").count(),
        1,
        "{log}"
    );
    get(&url, "/say?line=and+again");
    node.until_logged("one", "and again");
    assert_eq!(node.get("one", "/born"), born);
    let status = node.status("one");
    assert_eq!(
        (&status["restarts"], &status["message"]),
        (&json!(0), &Value::Null)
    );
}

#[test]
fn one_that_ended_while_its_engine_was_away_is_started_again() {
    if !engine_is_there() {
        return;
    }
    let switch = Switch::new(true);
    let node = TestHost::with(switch.options());
    node.host.apply(vec![Place::Docker.spec("one", json!({}))]);
    let (url, born) = (node.url("one"), node.get("one", "/born"));
    switch.off();
    try_get(&url, "/exit?code=7");
    node.until_logged("one", "the engine does not answer");
    assert_eq!(node.host.snapshot("one").unwrap().restarts, 0);
    switch.on();
    node.until("one", |now| now.restarts > 0 && now.state == State::Running);
    assert_eq!(node.status("one")["last_exit"]["code"], 7);
    assert_ne!(node.get("one", "/born"), born);
}

/// An engine that was set up anew has no network of ours.
#[test]
fn a_network_that_is_gone_is_made_anew() {
    if !engine_is_there() {
        return;
    }
    let switch = Switch::new(true);
    let node = TestHost::with(switch.options());
    let both = || {
        vec![
            Place::Docker.spec("one", json!({})),
            Place::Docker.spec("two", json!({})),
        ]
    };
    node.host.apply(both());
    let born = [node.get("one", "/born"), node.get("two", "/born")];
    switch.off();
    let network = format!("tahini-{}", node.node_id);
    let containers = containers_of(&node.node_id);
    on_engine(async |docker: Docker| {
        for container in &containers {
            let options = RemoveContainerOptions {
                force: true,
                ..RemoveContainerOptions::default()
            };
            docker
                .remove_container(container, Some(options))
                .await
                .unwrap();
        }
        docker.remove_network(&network).await.unwrap();
    });
    switch.on();
    for id in ["one", "two"] {
        node.until(id, |now| now.restarts > 0 && now.state == State::Running);
    }
    assert_ne!(node.get("one", "/born"), born[0]);
    let peer = "/peer?variable=SYSTEM_TWO_URL";
    assert_eq!(node.get("one", peer), node.get("two", "/born"));
    assert!(node.host.gateway().borrow().is_some());
}

#[test]
fn an_engine_that_comes_late_is_used_and_tidied_up() {
    if !engine_is_there() {
        return;
    }
    let switch = Switch::new(false);
    let id = format!("late-{}", uuid::Uuid::new_v4());
    let orphan = leave_container(&id);
    let options = switch.options();
    let node = TestHost::with(|all| {
        options(all);
        all.node_id.clone_from(&id);
    });
    node.host.apply(vec![Place::Docker.spec("one", json!({}))]);
    let message = node.try_url("one").unwrap_err();
    assert!(message.contains("expected a container engine"), "{message}");
    switch.on();
    node.until("one", |now| now.state == State::Running);
    until("the end of what nobody wants", || {
        (!containers_of(&id).contains(&orphan)).then_some(())
    });
    assert_eq!(containers_of(&id).len(), 1);
}
