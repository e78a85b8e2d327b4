//! The local process: a service as a child of the node, for development.
//!
//! Every service is a process group of its own. The group's leader is a small shell, the watcher,
//! which reads signal names from a pipe and sends them to its group, itself excepted. When the
//! node ends, in whatever way, the pipe closes and the watcher ends the group: a service does not
//! outlive its node, and no signal is ever sent to a number that might be somebody else by now.
//! Where the watcher was killed as well, the next life of the node finds the service by its number
//! and the moment of its start, and ends it: what it writes cannot be read any more.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::ledger::{Ledger, Mark};
use super::logs::{LineSplitter, Log, Stream};
use super::runtime::{Exit, Instance, Launch, Runtime, StartError, Task, Vitals};
use super::sockets;
use super::spec::ProcessSpec;

/// Passes signals on to its group; at the end of its input the group gets a second to finish.
const WATCHER: &str = "trap '' TERM INT HUP
while read -r signal; do kill -s \"$signal\" 0; done
kill -s TERM 0; sleep 1; kill -s KILL 0";

/// What a service sees of the node's own environment.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// How long output is read on after the end of a service whose pipes somebody else still holds.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// So many characters of a command stand in the log.
const SHOWN_COMMAND: usize = 120;

/// Ticks a second in `/proc/<pid>/stat`, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// How long a process of an earlier life gets to end by itself, and then by force.
const LEFT_GRACE: [(&str, Duration); 2] = [
    ("TERM", Duration::from_secs(3)),
    ("KILL", Duration::from_secs(5)),
];
/// Between two looks whether it has ended.
const LEFT_LOOK: Duration = Duration::from_millis(20);

/// Runs services as processes of this machine.
pub struct ProcessRuntime {
    ledger: Arc<Ledger>,
}

impl ProcessRuntime {
    /// A runtime that marks its processes in the ledger.
    pub(super) fn new(ledger: Arc<Ledger>) -> ProcessRuntime {
        ProcessRuntime { ledger }
    }
}

impl Runtime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start<'a>(&'a self, launch: &'a Launch) -> Task<'a, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async move {
            if let Some(mark) = self.ledger.take_left(&launch.spec.id) {
                end_left(&launch.spec.id, &mark).await;
            }
            let process = Process::start(launch, &self.ledger)?;
            Ok(Arc::new(process) as Arc<dyn Instance>)
        })
    }

    fn clear<'a>(&'a self, id: &'a str) -> Task<'a, ()> {
        // Starting is one step, and what was started ends with its node.
        Box::pin(async move {
            if let Some(mark) = self.ledger.take_left(id) {
                end_left(id, &mark).await;
            }
        })
    }

    fn tidy<'a>(&'a self, wanted: &'a [String]) -> Task<'a, bool> {
        Box::pin(async move {
            for (id, mark) in self.ledger.take_left_beside(wanted) {
                end_left(&id, &mark).await;
            }
            true
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async {})
    }
}

/// True when nothing listens on this port of the loopback address.
pub(super) fn port_is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// One running process with its group.
struct Process {
    pid: Option<u32>,
    group: i32,
    port: u16,
    watcher: Arc<Watcher>,
    has_ended: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Exit>>,
}

/// The end of the pipe by which the group is told what to do.
struct Watcher(Mutex<ChildStdin>);

impl Watcher {
    /// Sends a signal to the group. A watcher that is gone has taken its group with it, or its end
    /// is noticed by the task that waits for it.
    async fn send(&self, signal: &str) {
        let mut pipe = self.0.lock().await;
        if let Err(error) = pipe.write_all(format!("{signal}\n").as_bytes()).await {
            tracing::debug!(%error, signal, "the watcher of a process group is gone");
        }
    }
}

impl Process {
    fn start(launch: &Launch, ledger: &Arc<Ledger>) -> Result<Process, StartError> {
        let Some(process) = &launch.spec.process else {
            return Err(StartError::new(
                "expected \"process\" in the system's config, found none",
            ));
        };
        check_place(process, launch.port)?;
        let (mut watcher, pipe) = spawn_watcher()?;
        let group = watcher
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(0);
        // The watcher is there first and leads the group; if this fails, dropping the pipe ends it.
        let mut service = spawn_service(process, launch, group)?;
        launch.log.note(&format!(
            "started {} in {}, port {}",
            in_one_line(&process.command),
            process.cwd.display(),
            launch.port
        ));

        let readers = [
            service
                .stdout
                .take()
                .map(|pipe| read_lines(pipe, &launch.log, Stream::Stdout)),
            service
                .stderr
                .take()
                .map(|pipe| read_lines(pipe, &launch.log, Stream::Stderr)),
        ];
        let pid = service.id();
        ledger.note_process(&launch.spec.id, pid.and_then(Mark::of));
        let pipe = Arc::new(Watcher(Mutex::new(pipe)));
        let (tell, ended) = watch::channel(None);
        let for_task = pipe.clone();
        let has_ended = Arc::new(AtomicBool::new(false));
        let (gone, ledger, id) = (has_ended.clone(), ledger.clone(), launch.spec.id.clone());
        tokio::spawn(async move {
            let status = tokio::select! {
                status = service.wait() => status,
                _ = watcher.wait() => end_unwatched(&mut service, group).await,
            };
            gone.store(true, Ordering::SeqCst);
            let exit = match status {
                Ok(status) => exit_of(status),
                Err(_) => Exit::now(None, None),
            };
            // Whatever the service started and left behind ends now, too.
            for_task.send("KILL").await;
            let _ = watcher.wait().await;
            for reader in readers.into_iter().flatten() {
                let _ = tokio::time::timeout(LAST_OUTPUT, reader).await;
            }
            ledger.note_process(&id, None);
            tell.send_replace(Some(exit));
        });
        Ok(Process {
            pid,
            group,
            port: launch.port,
            watcher: pipe,
            has_ended,
            ended,
        })
    }
}

impl Instance for Process {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn behind_proxy(&self) -> bool {
        false
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    fn exited(&self) -> Task<'_, Exit> {
        Box::pin(Exit::of(&self.ended))
    }

    fn stop(&self, grace: Duration) -> Task<'_, Exit> {
        Box::pin(async move {
            self.watcher.send("TERM").await;
            match tokio::time::timeout(grace, Exit::of(&self.ended)).await {
                Ok(exit) => exit,
                Err(_) => {
                    self.watcher.send("KILL").await;
                    Exit::of(&self.ended).await
                }
            }
        })
    }

    fn vitals(&self) -> Task<'_, Vitals> {
        Box::pin(async move { self.pid.map(read_vitals).unwrap_or_default() })
    }

    fn listens_on(&self) -> Task<'_, Vec<SocketAddr>> {
        let group = self.group;
        Box::pin(async move { sockets::in_group(group) })
    }
}

/// The folder is there and the port is free; both would end in a less helpful error later.
fn check_place(process: &ProcessSpec, port: u16) -> Result<(), StartError> {
    if !process.cwd.is_dir() {
        return Err(StartError::new(format!(
            "process.cwd: expected a folder, found none at {}",
            process.cwd.display()
        )));
    }
    if !port_is_free(port) {
        return Err(StartError {
            message: format!(
                "expected port {} of 127.0.0.1 to be free, found another program listening on it; \
                 end that program, or remove process.port so that the node picks a port",
                port
            ),
            port_taken: true,
        });
    }
    Ok(())
}

fn spawn_watcher() -> Result<(Child, ChildStdin), StartError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", WATCHER]).env_clear().process_group(0);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| {
        StartError::new(format!(
            "expected to start /bin/sh, which watches over a process: {error}"
        ))
    })?;
    let pipe = child
        .stdin
        .take()
        .expect("the watcher's input was asked to be a pipe");
    Ok((child, pipe))
}

fn spawn_service(process: &ProcessSpec, launch: &Launch, group: i32) -> Result<Child, StartError> {
    let named = &process.command[0];
    // A program with a slash is relative to the working folder, one without is looked up on PATH.
    let program = if named.contains('/') {
        process.cwd.join(named)
    } else {
        PathBuf::from(named)
    };
    let mut command = Command::new(program);
    command
        .args(&process.command[1..])
        .current_dir(&process.cwd)
        .process_group(group);
    command.env_clear().envs(environment(launch));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(|error| {
        StartError::new(match error.kind() {
            ErrorKind::NotFound => format!(
                "process.command: expected a program, found none called {named:?}; a program with a \
                 slash is looked for in {}, others on the PATH of the node",
                process.cwd.display()
            ),
            ErrorKind::PermissionDenied => format!(
                "process.command: expected a program that may be executed, found {named:?}, which may \
                 not; try chmod +x, or name its interpreter first"
            ),
            _ => format!("process.command: expected to start {named:?}: {error}"),
        })
    })
}

/// The service's whole environment: a few of the node's variables, then what the node adds, then
/// the configuration's, and last the port, which only the node knows.
fn environment(launch: &Launch) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    // Python holds its output back in a pipe; the log would show it minutes later.
    variables.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    variables.extend(launch.node_environment.iter().cloned());
    variables.extend(launch.spec.environment.iter().cloned());
    for name in ["PORT", "port"] {
        variables.insert(name.to_owned(), launch.port.to_string());
    }
    variables
}

/// The command for the log; a script in an argument would fill it.
fn in_one_line(command: &[String]) -> String {
    let text = command.join(" ").escape_debug().to_string();
    match text.char_indices().nth(SHOWN_COMMAND) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn read_lines(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    log: &Arc<Log>,
    stream: Stream,
) -> JoinHandle<()> {
    let mut lines = LineSplitter::new(log.clone(), stream);
    tokio::spawn(async move {
        let mut chunk = vec![0; 8 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            lines.feed(&chunk[..count]);
        }
        lines.finish();
    })
}

/// The watcher is gone, so the service would outlive the node: it ends here, with its group, and
/// is started again. The service is not waited for yet, so the group's number is still its own.
async fn end_unwatched(service: &mut Child, group: i32) -> std::io::Result<ExitStatus> {
    if service.id().is_some() && group > 0 {
        let kill = format!("kill -s KILL -- -{group}");
        let _ = Command::new("/bin/sh").args(["-c", &kill]).status().await;
    }
    let _ = service.start_kill();
    service.wait().await
}

/// Ends a process of an earlier life of this node, with its group, and waits until it is gone. A
/// process that only has its number is left alone.
async fn end_left(id: &str, mark: &Mark) {
    for (signal, grace) in LEFT_GRACE {
        let Some(found) = mark.found() else {
            return;
        };
        tracing::info!(
            system = id,
            pid = mark.pid,
            signal,
            "ending a process that an earlier node left"
        );
        // Its group is ended with it, as long as it is still the one that was made for it.
        let target = if found.group == mark.group && mark.group > 1 {
            format!("-{}", mark.group)
        } else {
            mark.pid.to_string()
        };
        let kill = format!("kill -s {signal} -- {target}");
        let _ = Command::new("/bin/sh").args(["-c", &kill]).status().await;
        let gone = async {
            while mark.found().is_some() {
                tokio::time::sleep(LEFT_LOOK).await;
            }
        };
        if tokio::time::timeout(grace, gone).await.is_ok() {
            return;
        }
    }
    tracing::warn!(system = id, pid = mark.pid, "a process does not end");
}

fn exit_of(status: ExitStatus) -> Exit {
    Exit::now(status.code().map(i64::from), status.signal())
}

/// Memory and CPU time of the service's first process, from `/proc`; absent on other systems.
fn read_vitals(pid: u32) -> Vitals {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let memory = read("status").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    });
    let cpu = read("stat").and_then(|text| {
        // The program's name may hold anything, a bracket included; the numbers follow the last one.
        let numbers: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let user: f64 = numbers.get(11)?.parse().ok()?;
        let system: f64 = numbers.get(12)?.parse().ok()?;
        Some((user + system) / TICKS_A_SECOND)
    });
    Vitals {
        pid: Some(i64::from(pid)),
        memory_bytes: memory,
        cpu_seconds: cpu,
        ..Vitals::default()
    }
}
