//! The wanted microservices and how they are doing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::docker::DockerRuntime;
use super::environment::{Peer, node_environment};
use super::keeper::{Keeper, Pace, Wish};
use super::ledger::Ledger;
use super::listening::listens;
use super::logs::{Log, SharedRedactor};
use super::process::ProcessRuntime;
use super::runtime::{Launch, Runtime, Vitals};
use super::spec::ServiceSpec;
use super::state::{Snapshot, State, to_json};
use super::table::{Entry, Table, fixed_port, runs_as_process};
use tahini_hub::secrets::Redactor;

/// How often a waiting pipe looks whether it has been cancelled.
const CANCEL_LOOK: Duration = Duration::from_millis(100);
/// So many crashes in a row and a pipe no longer waits for the next start.
const HOPELESS: u32 = 3;
/// How long a status waits for what the engine knows.
const VITALS_LIMIT: Duration = Duration::from_secs(3);
/// How long a service that still seems to run is believed to have ended.
const STILL_THERE: Duration = Duration::from_millis(500);
/// How long it is waited for how a service ended that has.
const ENDING: Duration = Duration::from_secs(5);
/// Between two looks whether it has ended.
const ENDED_LOOK: Duration = Duration::from_millis(50);
/// Pause before an engine that was out of reach is asked again what there is to tidy up.
const TIDY_PAUSE: Duration = Duration::from_secs(2);
/// What stopping everything may take beyond the grace period.
const SHUTDOWN_SLACK: Duration = Duration::from_secs(10);

/// How a host runs its services.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The node's identity: part of the names and labels of its containers, so that two nodes
    /// share an engine without touching each other's.
    pub node_id: String,
    /// The node's own URL, for services that call it; `None` when it serves no API.
    pub node_url: Option<String>,
    /// Where the engine is, as in `DOCKER_HOST`; `None` takes `TAHINI_DOCKER_HOST`, `DOCKER_HOST`
    /// or the usual socket.
    pub docker_host: Option<String>,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem` for an engine behind TLS; `None` takes
    /// `DOCKER_CERT_PATH` when `DOCKER_TLS_VERIFY` is set.
    pub docker_certificates: Option<PathBuf>,
    /// The network of containers, or another mode of the engine; `None` takes
    /// `TAHINI_DOCKER_NETWORK`, or else makes a bridge network of the node's own.
    pub docker_network: Option<String>,
    /// The file in which ports and processes are kept for the node's next life; `None` forgets
    /// them.
    pub ledger: Option<PathBuf>,
    /// Where a system can run either way, run it as a container and not as a process.
    pub prefer_docker: bool,
    /// What holds for systems without `eager_load`.
    pub eager_by_default: bool,
    /// Limits and pauses.
    pub pace: Pace,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            node_id: "local".to_owned(),
            node_url: None,
            docker_host: None,
            docker_certificates: None,
            docker_network: None,
            ledger: None,
            prefer_docker: false,
            eager_by_default: true,
            pace: Pace::default(),
        }
    }
}

/// Runs the wanted microservices. Cheap to clone; all clones are one host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

pub(super) struct Inner {
    handle: Handle,
    options: HostOptions,
    process: Arc<dyn Runtime>,
    docker: Arc<dyn Runtime>,
    ledger: Arc<Ledger>,
    gateway: watch::Receiver<Option<IpAddr>>,
    redactor: SharedRedactor,
    table: Mutex<Table>,
}

impl Host {
    /// A host without services, whose tasks run on the given runtime.
    pub fn new(handle: Handle, options: HostOptions) -> Host {
        let ledger = Arc::new(Ledger::open(options.ledger.as_deref()));
        let (tell, gateway) = watch::channel(None);
        let process = Arc::new(ProcessRuntime::new(ledger.clone()));
        let docker = Arc::new(DockerRuntime::new(&options, tell));
        Host::over(handle, options, [process, docker], ledger, gateway)
    }

    fn over(
        handle: Handle,
        options: HostOptions,
        [process, docker]: [Arc<dyn Runtime>; 2],
        ledger: Arc<Ledger>,
        gateway: watch::Receiver<Option<IpAddr>>,
    ) -> Host {
        let table = Table {
            entries: BTreeMap::new(),
            refused: BTreeMap::new(),
            node_url: options.node_url.clone(),
            tidied: false,
            closed: false,
        };
        Host(Arc::new(Inner {
            handle,
            options,
            process,
            docker,
            ledger,
            gateway,
            redactor: Arc::new(RwLock::new(Arc::new(Redactor::default()))),
            table: Mutex::new(table),
        }))
    }

    /// The runtime that its tasks run on.
    pub(super) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Exchanges the secrets that are hidden in what is written and told from now on.
    pub fn set_redactor(&self, redactor: Redactor) {
        *self
            .0
            .redactor
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(redactor);
    }

    /// Tells services that start from now on where the node is.
    pub fn set_node_url(&self, url: Option<String>) {
        self.0.table().node_url = url;
    }

    /// The node's own address in the network of its containers, once there is one: services in
    /// containers know it as `tahini` and `sesam-node`, and somebody has to listen there.
    pub fn gateway(&self) -> watch::Receiver<Option<IpAddr>> {
        self.0.gateway.clone()
    }

    /// Why systems have no service here, by system: for whoever asks for it all the same.
    pub fn set_refused(&self, refused: BTreeMap<String, String>) {
        self.0.table().refused = refused;
    }

    /// Makes exactly these services run, each once: starts new ones, stops those that are gone,
    /// restarts those whose spec changed and leaves all others alone. Returns at once; the rest
    /// happens in the background. Does nothing after `shutdown`.
    pub fn apply(&self, wanted: Vec<ServiceSpec>) {
        let mut table = self.0.table();
        if table.closed {
            return;
        }
        let wanted: BTreeMap<String, ServiceSpec> = wanted
            .into_iter()
            .map(|spec| (spec.id.clone(), spec))
            .collect();
        for (id, entry) in &table.entries {
            if !wanted.contains_key(id) {
                entry.leave();
            }
        }
        // Ports first: every service is told where all the others are.
        let mut ready = Vec::new();
        for (id, spec) in wanted {
            let spec = Arc::new(spec);
            let on = spec.eager_load.unwrap_or(self.0.options.eager_by_default);
            match table.entries.get_mut(&id) {
                Some(entry) => entry.wants(spec, on),
                None => {
                    table.entries.insert(id.clone(), self.0.entry(spec, on));
                }
            }
            ready.push(id);
        }
        for id in &ready {
            table.assign_port(id, &self.0.options, &self.0.ledger);
        }
        if !std::mem::replace(&mut table.tidied, true) {
            self.0.tidy(&table, &ready);
        }
        for id in ready {
            self.0.spawn_keeper(&id, &mut table);
        }
    }

    /// The base URL of a running service, without a slash at the end; waits until it listens, for
    /// at most `limit`, or until `cancelled` says true. The error says what was expected, what was
    /// found and the service's last lines. For threads that are not part of the async runtime.
    pub fn ready_url(
        &self,
        id: &str,
        limit: Duration,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, String> {
        self.0.handle.block_on(self.ready(id, limit, cancelled))
    }

    /// The same for async callers.
    pub async fn ready(
        &self,
        id: &str,
        limit: Duration,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, String> {
        let (mut shown, turn) = self.demand(id)?;
        let deadline = Instant::now() + limit;
        loop {
            let now = shown.borrow_and_update().clone();
            // A snapshot of an earlier turn tells about a service that is being replaced.
            if now.turn >= turn
                && let Some(answer) = settled(id, &now)
            {
                return answer;
            }
            if cancelled() {
                return Err(format!("waiting for microservice {id} was cancelled"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_ready(id, &now, limit));
            }
            // Time that is up is no error: the loop looks again.
            let changed = timeout(left.min(CANCEL_LOOK), shown.changed()).await;
            if let Ok(Err(_)) = changed {
                let last = shown.borrow().clone();
                let gone = || Err(format!("microservice {id} is no longer wanted"));
                return settled(id, &last).unwrap_or_else(gone);
            }
        }
    }

    /// Starts a service that has waited for its first caller.
    fn demand(&self, id: &str) -> Result<(watch::Receiver<Snapshot>, u64), String> {
        let table = self.0.table();
        let entry = table
            .wanted(id)
            .ok_or_else(|| match table.refused.get(id) {
                Some(why) => format!("microservice {id} is not started: {why}"),
                None => format!("expected a microservice system {id:?}, found none that runs"),
            })?;
        entry.wish.send_if_modified(|wish| {
            let off = !wish.on;
            if off {
                wish.on = true;
                wish.turn += 1;
            }
            off
        });
        Ok((entry.shown.clone(), entry.wish.borrow().turn))
    }

    /// Stops the service, pulls its image anew and starts it again, in the background. False when
    /// there is no such service.
    pub fn reload(&self, id: &str) -> bool {
        let table = self.0.table();
        let Some(entry) = table.wanted(id) else {
            return false;
        };
        entry.wish.send_modify(|wish| {
            wish.on = true;
            wish.turn += 1;
        });
        true
    }

    /// The ids of the wanted services, in order.
    pub fn ids(&self) -> Vec<String> {
        let table = self.0.table();
        table
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_wanted())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// How a service is doing, without asking its engine.
    pub fn snapshot(&self, id: &str) -> Option<Snapshot> {
        self.0
            .table()
            .wanted(id)
            .map(|entry| entry.shown.borrow().clone())
    }

    /// The status as JSON: state, image, pid, started, restarts, port, memory, CPU, last exit.
    pub async fn status(&self, id: &str) -> Option<Value> {
        let (spec, snapshot, usage) = {
            let table = self.0.table();
            let entry = table.wanted(id)?;
            let snapshot = entry.shown.borrow().clone();
            (entry.spec.clone(), snapshot, entry.usage.clone())
        };
        let vitals = match &snapshot.instance {
            Some(instance) => timeout(VITALS_LIMIT, instance.vitals())
                .await
                .unwrap_or_default(),
            None => Vitals::default(),
        };
        let percent = usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .percent(snapshot.started, &vitals);
        let runtime = self.0.runtime(&spec);
        let mut status = to_json(&spec, runtime.name(), &snapshot, &vitals, percent);
        let redactor = self
            .0
            .redactor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        redactor.redact_json(&mut status);
        Some(status)
    }

    /// The service's log, which outlives its restarts.
    pub fn log(&self, id: &str) -> Option<Arc<Log>> {
        self.0.table().wanted(id).map(|entry| entry.log.clone())
    }

    /// How the service ended, when it has ended after `since`: for whoever lost it in the middle of a
    /// request. The news may be a moment behind the broken connection, and is waited for.
    pub async fn ended(&self, id: &str, since: Timestamp) -> Option<String> {
        let shown = self.0.table().wanted(id).map(|entry| entry.shown.clone());
        let Some(mut shown) = shown else {
            let words = "was stopped: the configuration no longer has its system, or the node ends";
            return Some(format!("microservice {id} {words}"));
        };
        let begun = Instant::now();
        loop {
            let now = shown.borrow_and_update().clone();
            if let Some(exit) = now.last_exit.filter(|exit| exit.at >= since) {
                return Some(format!("microservice {id} ended: {}", exit.reason()));
            }
            // One whose process is gone no longer listens; its engine may need a while to say why.
            let is_ending = match now.instance {
                Some(one) => one.has_ended() || !listens(one.as_ref()).await,
                None => false,
            };
            let limit = if is_ending { ENDING } else { STILL_THERE };
            let left = limit.checked_sub(begun.elapsed())?;
            let _ = timeout(left.min(ENDED_LOOK), shown.changed()).await;
        }
    }

    /// Stops everything: asks, waits for the grace period, forces. Nothing starts afterwards.
    pub async fn shutdown(&self) {
        let tasks: Vec<JoinHandle<()>> = {
            let mut table = self.0.table();
            table.closed = true;
            table.entries.values_mut().for_each(|entry| entry.leave());
            table
                .entries
                .values_mut()
                .filter_map(|entry| entry.task.take())
                .collect()
        };
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let limit = self.0.options.pace.stop_grace + SHUTDOWN_SLACK;
        if timeout(limit, all).await.is_err() {
            tracing::warn!(
                "some microservices did not stop within {} s",
                limit.as_secs()
            );
        }
        self.0.docker.close().await;
        self.0.process.close().await;
    }
}

/// What a caller that waits for the service is told, when there is something to tell.
fn settled(id: &str, now: &Snapshot) -> Option<Result<String, String>> {
    match now.state {
        State::Running => now.url.clone().map(Ok),
        State::Failed => Some(Err(message_of(id, now))),
        State::Crashed if now.failures >= HOPELESS => Some(Err(message_of(id, now))),
        _ => None,
    }
}

fn message_of(id: &str, now: &Snapshot) -> String {
    let message = now.message.as_deref().unwrap_or("no reason is known");
    format!("microservice {id} is {}: {message}", now.state.name())
}

fn not_ready(id: &str, now: &Snapshot, limit: Duration) -> String {
    let message = now
        .message
        .as_deref()
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    format!(
        "expected microservice {id} to be running within {} s, found it {}{message}",
        limit.as_secs_f64(),
        now.state.name()
    )
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, spec: Arc<ServiceSpec>, on: bool) -> Entry {
        let (wish, _) = watch::channel(Wish {
            spec: Some(spec.clone()),
            on,
            turn: 1,
        });
        // The keeper, which shows how it goes, is not there yet.
        let (_, shown) = watch::channel(Snapshot::default());
        let log = Arc::new(Log::shared(self.redactor.clone()));
        Entry {
            spec,
            port: 0,
            wish,
            shown,
            log,
            usage: Arc::default(),
            task: None,
        }
    }

    /// Ends, in the background, what an earlier life of the node left and nobody wants to run now.
    /// An engine is only asked where there were or are containers; one that is out of reach is asked
    /// again, for as long as the node wants something.
    fn tidy(self: &Arc<Self>, table: &Table, wanted: &[String]) {
        let had_containers = self.ledger.had_containers();
        self.ledger.keep_only(wanted);
        let wants_containers = table
            .entries
            .values()
            .any(|entry| !runs_as_process(&entry.spec, &self.options));
        let processes = self.running_in(table, true);
        let (process, docker) = (self.process.clone(), self.docker.clone());
        let host = Arc::downgrade(self);
        self.handle.spawn(async move {
            process.tidy(&processes).await;
            if !had_containers && !wants_containers {
                return;
            }
            loop {
                let Some(containers) = containers_of(&host) else {
                    return;
                };
                if docker.tidy(&containers).await {
                    return;
                }
                sleep(TIDY_PAUSE).await;
            }
        });
    }

    /// The ids of the services that are to run now, as processes or as containers.
    fn running_in(&self, table: &Table, as_process: bool) -> Vec<String> {
        let here = table.entries.iter().filter(|(_, entry)| {
            let wish = entry.wish.borrow();
            wish.on
                && wish.spec.is_some()
                && runs_as_process(&entry.spec, &self.options) == as_process
        });
        here.map(|(id, _)| id.clone()).collect()
    }

    fn spawn_keeper(self: &Arc<Self>, id: &str, table: &mut Table) {
        let Some(entry) = table
            .entries
            .get_mut(id)
            .filter(|entry| entry.task.as_ref().is_none_or(JoinHandle::is_finished))
        else {
            return;
        };
        let (show, shown) = watch::channel(Snapshot::default());
        entry.shown = shown;
        let keeper = Keeper {
            id: id.to_owned(),
            host: Arc::downgrade(self),
            shown: show.clone(),
            log: entry.log.clone(),
            pace: self.options.pace.clone(),
        };
        let keeping = self.handle.spawn(keeper.run(entry.wish.subscribe()));
        let id = id.to_owned();
        entry.task = Some(self.handle.spawn(async move {
            let Err(broken) = keeping.await else {
                return;
            };
            // Without its keeper the service would look as it did last, forever.
            let words = format!("the node met a defect in the program while it kept it: {broken}");
            tracing::error!(system = id, "{words}");
            show.send_modify(|snapshot| {
                snapshot.state = State::Failed;
                snapshot.message = Some(words);
                snapshot.url = None;
                snapshot.instance = None;
            });
        }));
    }

    /// Where the spec runs.
    pub(super) fn runtime(&self, spec: &ServiceSpec) -> Arc<dyn Runtime> {
        if runs_as_process(spec, &self.options) {
            self.process.clone()
        } else {
            self.docker.clone()
        }
    }

    /// Everything for one start, with the addresses of this moment.
    pub(super) fn launch(
        &self,
        spec: &Arc<ServiceSpec>,
        pull: bool,
        log: &Arc<Log>,
    ) -> (Arc<dyn Runtime>, Launch) {
        let table = self.table();
        let peers: Vec<Peer<'_>> = table
            .entries
            .values()
            .filter(|entry| entry.is_wanted())
            .map(|entry| Peer {
                spec: &entry.spec,
                port: entry.port,
                as_process: runs_as_process(&entry.spec, &self.options),
            })
            .collect();
        let as_process = runs_as_process(spec, &self.options);
        let node_url = table.node_url.as_deref();
        let environment = |by_name| node_environment(as_process, by_name, node_url, &peers);
        let launch = Launch {
            spec: spec.clone(),
            port: table.entries.get(&spec.id).map_or(0, |entry| entry.port),
            node_environment: environment(true),
            nameless_environment: environment(false),
            pull,
            log: log.clone(),
            pulled: Arc::default(),
        };
        (self.runtime(spec), launch)
    }

    /// Gives the service another port, unless its config names one.
    pub(super) fn move_port(&self, spec: &ServiceSpec) -> bool {
        if fixed_port(spec, &self.options).is_some() {
            return false;
        }
        let mut table = self.table();
        match table.entries.get_mut(&spec.id) {
            Some(entry) => entry.port = 0,
            None => return false,
        }
        self.ledger.forget(&spec.id);
        table.assign_port(&spec.id, &self.options, &self.ledger);
        true
    }

    /// Drops a service that has stopped because it is no longer wanted; false when it is wanted
    /// again by now.
    pub(super) fn forget(&self, id: &str, turn: u64) -> bool {
        let mut table = self.table();
        let gone = table
            .entries
            .get(id)
            .is_none_or(|entry| entry.wish.borrow().turn == turn);
        if gone {
            table.entries.remove(id);
            // A node that ends will want it again, under the same port.
            if !table.closed {
                self.ledger.forget(id);
            }
        }
        gone
    }
}

/// The containers that are to run now; `None` when the host is gone or about to end.
fn containers_of(host: &Weak<Inner>) -> Option<Vec<String>> {
    let host = host.upgrade()?;
    let table = host.table();
    (!table.closed).then(|| host.running_in(&table, false))
}

#[cfg(test)]
mod tests;
