//! `tahini serve`: a node, from its start to its graceful end.

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tahini_connectors::http::runtime;
use tahini_hub::scheduler::{self, Scheduler};
use tahini_hub::secrets::{SecretChain, SecretSource, Vault};
use tahini_store::Backend;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::api::{self, Door, Gate, Node, ProxyClients};
use crate::assembly::{
    Assembly, Loaded, SystemClock, count, print_problems, read_objects, secrets_from,
};
use crate::auth::{self, TokenKey};
use crate::backup::{Backups, LEDGER, STARTS, hosting_id};
use crate::cli::{INTERRUPTED, LogFormat, OK, Serve};
use crate::configuration::Stored;
use crate::microservices::HostOptions;
use crate::programs::Programs;
use crate::{commands, metrics, say};

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the datasets.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Projects to load over the kept configuration.
    pub projects: Vec<PathBuf>,
    /// Which variables of the projects hold.
    pub profile: String,
    /// Variables that win over the projects'.
    pub env: Map<String, Json>,
    /// Files of secrets.
    pub secrets: Vec<PathBuf>,
    /// Systems with `process` are accepted over the API.
    pub allow_process: bool,
    /// Schedules and signals start runs.
    pub automatic: bool,
    /// Containers where processes would do, too.
    pub prefer_docker: bool,
    /// Where to serve metrics without a token, too.
    pub metrics_listen: Option<SocketAddr>,
    /// Where backups may be made over the API.
    pub backups: Option<PathBuf>,
    /// The key of the secrets.
    pub master_key: PathBuf,
    /// The key of the tokens.
    pub token_key: PathBuf,
}

/// How long runs and answers may take to end when the node stops.
const DEADLINE: Duration = Duration::from_secs(20);
/// Open files that a node asks for: each open dataset takes a few.
const OPEN_FILES: u64 = 65_536;
/// Pause before the address is asked for again at which containers look for the node.
const CONTAINERS_PAUSE: Duration = Duration::from_secs(1);

/// Runs a node until it is asked to stop.
pub fn serve(options: &Serve) -> anyhow::Result<u8> {
    start_logging(options.log_format);
    raise_open_files();
    let running = Running::start(Options::of(options)?)?;
    let url = running.url();
    say::line(&format!("Tahini listens on {url}"));
    runtime().block_on(until_asked())?;
    say::error_line("Stopping: runs finish their batch. Ask again to stop at once.");
    runtime().spawn(async {
        if until_asked().await.is_ok() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    running.stop(DEADLINE)?;
    Ok(OK)
}

impl Options {
    fn of(options: &Serve) -> anyhow::Result<Options> {
        let variable = |name: &str| std::env::var_os(name);
        Ok(Options {
            data: options.store.data.clone(),
            listen: options.listen,
            projects: options.projects.clone(),
            profile: options.setting.profile.clone(),
            env: read_objects(&options.setting.env)?,
            secrets: options.setting.secrets.clone(),
            allow_process: options.allow_process,
            automatic: !options.no_schedule,
            prefer_docker: options.prefer_docker,
            metrics_listen: options.metrics_listen,
            backups: options.backups.clone(),
            master_key: tahini_hub::secrets::key_file(variable)?,
            token_key: auth::key_file(variable)?,
        })
    }
}

/// A node that runs.
pub struct Running {
    node: Arc<Node>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Opens the store, loads the configuration, starts schedules and services, and listens.
    pub fn start(options: Options) -> anyhow::Result<Running> {
        let started = Timestamp::now();
        let gate = gate(&options)?;
        let listener = bind(options.listen)?;
        let metrics_listener = options.metrics_listen.map(bind).transpose()?;
        let address = listener.local_addr()?;
        let store = commands::open_store(&options.data)
            .with_context(|| format!("cannot open the data folder {}", options.data.display()))?;
        // Looking for damage means opening every dataset: the pipes, whose datasets are opened one
        // by one meanwhile, find most of them open. Only stopping waits for it.
        let looking = runtime().spawn_blocking({
            let store = Arc::clone(&store);
            move || tell_damage(store.as_ref())
        });
        let node = match open(&options, gate, address, started, store) {
            Ok(node) => Arc::new(node),
            Err(error) => {
                let _ = runtime().block_on(looking);
                return Err(error);
            }
        };
        let (stop, stopped) = watch::channel(false);
        let front = api::router(node.clone(), Door::Front);
        let mut servers = vec![spawn(listener, front, stopped.clone())?];
        servers.push(runtime().spawn(api::watch(node.clone(), stopped.clone())));
        let containers = answer_containers(node.clone(), address, stopped.clone());
        servers.push(runtime().spawn(containers));
        if let Some(listener) = metrics_listener {
            servers.push(spawn(listener, metrics::router(node.clone()), stopped)?);
        }
        servers.push(looking);
        Ok(Running {
            node,
            address,
            stop,
            servers,
        })
    }

    /// The node behind the API.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the status page.
    pub fn url(&self) -> String {
        format!("http://{}/", own_address(self.address))
    }

    /// Stops everything: no new requests and runs; runs end with their batch, answers are
    /// finished, services are stopped, datasets are closed. What takes longer is cut off.
    pub fn stop(mut self, deadline: Duration) -> anyhow::Result<()> {
        self.node.stopping.store(true, Ordering::SeqCst);
        // Nobody listens any more only if a server ended by itself.
        let _ = self.stop.send(true);
        if !self.node.scheduler.shutdown(deadline) {
            tracing::warn!("some runs did not end in time and are cut off");
        }
        let servers = std::mem::take(&mut self.servers);
        runtime().block_on(async {
            let until = tokio::time::Instant::now() + deadline;
            for server in servers {
                let abort = server.abort_handle();
                if tokio::time::timeout_at(until, server).await.is_err() {
                    abort.abort();
                }
            }
        });
        self.node.assembly.close();
        self.node.store.close()?;
        Ok(())
    }
}

/// Tells which datasets are damaged.
fn tell_damage(store: &dyn Backend) {
    for (dataset, found) in store.damaged() {
        tracing::error!(
            dataset,
            "the dataset is damaged; nobody reads or writes it until it is restored or deleted: {found}"
        );
    }
}

/// Beyond loopback, requests need tokens, and tokens a key.
fn gate(options: &Options) -> anyhow::Result<Gate> {
    let key = TokenKey::open(&options.token_key)?;
    let demands_token = !options.listen.ip().is_loopback();
    if demands_token && key.is_none() {
        bail!(
            "expected a key for tokens in {}, found none: beyond loopback ({}) every request needs \
             a token. Make key and token with `tahini token create --role admin --expires 30d`, or \
             listen on 127.0.0.1",
            options.token_key.display(),
            options.listen
        );
    }
    Ok(Gate { key, demands_token })
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; choose another with --listen"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn open(
    options: &Options,
    gate: Gate,
    address: SocketAddr,
    started: Timestamp,
    store: Arc<dyn Backend>,
) -> anyhow::Result<Node> {
    let mut loaded = Loaded::read(&options.projects, &options.profile)?;
    loaded.env.extend(options.env.clone());
    let backups = options.backups.as_deref();
    let backups = backups.map(|folder| Backups::new(folder, &options.data));
    let vault = Arc::new(Vault::open(&options.data, &options.master_key)?);
    let own: Arc<dyn SecretSource> = vault.clone();
    let given = secrets_from(&options.secrets)?;
    let programs = match options.allow_process {
        true => Programs::Any,
        false => Programs::of(&loaded, given.as_ref()),
    };
    let secrets = SecretChain(vec![own, given]);
    let host = HostOptions {
        node_id: hosting_id(&options.data)?,
        node_url: Some(format!("http://{}", own_address(address))),
        prefer_docker: options.prefer_docker,
        ledger: Some(options.data.join(LEDGER)),
        ..HostOptions::default()
    };
    let assembly = Assembly::new(store.clone(), Arc::new(secrets), host, programs);
    let stored = Stored::load(store.clone(), Arc::new(SystemClock))?;
    configure(&stored, &loaded, &assembly)?;
    let hub = assembly.hub.clone();
    let schedule = scheduler::Options {
        automatic: options.automatic,
        ..Default::default()
    };
    Ok(Node {
        assembly,
        store,
        vault,
        scheduler: Scheduler::start(hub, schedule),
        stored,
        backups: backups.transpose()?,
        gate,
        started,
        restarts: restarts(&options.data)?,
        automatic: options.automatic,
        stopping: AtomicBool::new(false),
        clients: ProxyClients::new().context("cannot set up the HTTP client")?,
        pool: Arc::new(Semaphore::new(api::POOL)),
        receiving: Arc::new(Semaphore::new(api::RECEIVING)),
        queue: api::receiver_queue(),
        bodies: api::memory_for_bodies(),
        doorstep: api::Doorstep::default(),
        subscribers: api::Subscribers::new().context("cannot set up the HTTP client")?,
    })
}

/// Has the configuration hold; none, where what was kept of it is damaged.
fn configure(stored: &Stored, loaded: &Loaded, assembly: &Assembly) -> anyhow::Result<()> {
    if let Some(found) = stored.damage() {
        tracing::error!(
            "the configuration that was set through the API is damaged: the node shows its datasets \
             and does nothing else, so that nothing gets lost, until it is restored from a backup, or \
             the damaged dataset is deleted and the node started anew: {found}"
        );
        return Ok(());
    }
    stored.overlay(loaded);
    let configuration = stored.apply(assembly)?;
    tell_problems(loaded, &configuration);
    Ok(())
}

/// Counts this start; how many there were of this version before.
fn restarts(data: &Path) -> anyhow::Result<u64> {
    let path = data.join(STARTS);
    let version = env!("CARGO_PKG_VERSION");
    // Without the file, or with another one, this is the first start.
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let known = known.split_once(' ').filter(|(of, _)| *of == version);
    let before = known.and_then(|(_, count)| count.trim().parse().ok());
    let before: u64 = before.unwrap_or(0);
    std::fs::write(&path, format!("{version} {}\n", before + 1))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(before)
}

/// A broken component does not keep the node from starting; it is told and marked.
fn tell_problems(loaded: &Loaded, configuration: &tahini_hub::Configuration) {
    let files = loaded.projects.iter().flat_map(|project| &project.problems);
    let problems: Vec<_> = files.chain(configuration.problems()).collect();
    print_problems(&problems);
    let (errors, warnings) = count(&problems);
    tracing::info!(
        pipes = configuration.pipes().count(),
        systems = configuration.systems().count(),
        errors,
        warnings,
        "configuration loaded"
    );
}

fn spawn(
    listener: TcpListener,
    router: Router,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<JoinHandle<()>> {
    let _inside = runtime().enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(runtime().spawn(answer(listener, router, stopped)))
}

/// Answers until the node stops, and then what is under way.
async fn answer(
    listener: tokio::net::TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let until = async move {
        // An error means that the node was dropped, which is as good a reason.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let server = axum::serve(listener, service).with_graceful_shutdown(until);
    if let Err(error) = server.await {
        tracing::error!(%error, "the server ended");
    }
}

/// Containers reach the node where their network meets this machine, and nobody on loopback: once
/// there is such a network, the node listens there, too, and demands tokens of everybody.
async fn answer_containers(node: Arc<Node>, front: SocketAddr, mut stopped: watch::Receiver<bool>) {
    let mut gateway = node.assembly.host.gateway();
    let mut is_told = false;
    loop {
        let found = tokio::select! {
            found = gateway.wait_for(Option::is_some) => found.map(|found| *found),
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Ok(Some(ip)) = found else {
            return;
        };
        if front.ip().is_unspecified() && ip.is_ipv4() == front.is_ipv4() {
            // It listens everywhere.
            return;
        }
        let address = SocketAddr::new(ip, front.port());
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                is_told = false;
                tracing::info!(%address, "containers reach the node here, with a token");
                let router = api::router(node.clone(), Door::Containers);
                tokio::select! {
                    () = answer(listener, router, stopped.clone()) => return,
                    // The engine has made the network anew, somewhere else.
                    _ = gateway.wait_for(|now| *now != Some(ip)) => {}
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        %address,
                        %error,
                        "cannot listen for containers, and tries again: services in containers do \
                         not reach the node"
                    );
                }
                tokio::select! {
                    () = tokio::time::sleep(CONTAINERS_PAUSE) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                }
            }
        }
    }
}

/// The address under which this machine reaches the node.
fn own_address(listen: SocketAddr) -> SocketAddr {
    let mut own = listen;
    if listen.ip().is_unspecified() {
        own.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    own
}

/// Waits for SIGTERM or SIGINT.
async fn until_asked() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn start_logging(format: Option<LogFormat>) {
    let filter = ["TAHINI_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let for_people = std::io::stderr().is_terminal();
    let coloured = say::coloured(&std::io::stderr());
    // Somebody who set a subscriber before us keeps it.
    let _ = match format {
        Some(LogFormat::Text) => log.with_ansi(coloured).try_init(),
        None if for_people => log.with_ansi(coloured).try_init(),
        _ => log.json().flatten_event(true).try_init(),
    };
}

/// Where files may only become so large (`ulimit -f`), writing beyond is an error like a full disk,
/// and not the end of the program.
#[allow(
    unsafe_code,
    reason = "there is no safe way in the standard library to ignore a signal"
)]
pub(crate) fn ignore_file_limit_signal() {
    // SAFETY: to ignore a signal is always possible, and no handler runs.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Raises the limit of open files as far as the system lets us.
#[allow(
    unsafe_code,
    reason = "there is no safe way in the standard library to set a limit"
)]
fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to a whole struct that lives until they return.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(OPEN_FILES).max(limit.rlim_cur);
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                tracing::warn!("the limit of open files could not be raised");
            }
        }
    }
}
