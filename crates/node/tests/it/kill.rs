//! Kill -9 in the middle of runs: what is there in the end equals an undisturbed run's.
//!
//! The source is an HTTP server in this process, slowed so that an undisturbed answer takes
//! seconds. It is told after how many entities of an answer the run is to be killed, says when it
//! has sent them, and goes on sending: the kill meets a node at work, whatever the machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub const ENTITIES: u64 = 200_000;
const KILLS: usize = 20;
/// Entities between two saves of the offset.
const CHECKPOINT: u64 = 10_000;
/// Entities in a chunk of an answer, and the pause after it while kills are wanted.
const CHUNK: u64 = 500;
const PAUSE: Duration = Duration::from_millis(8);

/// What the server does with the next answers.
#[derive(Default)]
pub struct Orders {
    /// Entities after which the server says that it is time for the kill.
    pub report_after: Option<u64>,
    /// The `since` of every request.
    asked: Vec<u64>,
}

pub struct SlowSource {
    pub port: u16,
    pub orders: Arc<Mutex<Orders>>,
    pub reached: Receiver<()>,
}

impl SlowSource {
    pub fn start() -> SlowSource {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let (tell, reached) = channel();
        let shared = Arc::clone(&orders);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (orders, tell) = (Arc::clone(&shared), tell.clone());
                // A run that was killed breaks its connection: that is no failure here.
                std::thread::spawn(move || stream.and_then(|s| answer(s, &orders, &tell)));
            }
        });
        SlowSource {
            port,
            orders,
            reached,
        }
    }
}

fn answer(stream: TcpStream, orders: &Mutex<Orders>, tell: &Sender<()>) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let since = request.split("since=").nth(1).and_then(|rest| {
        rest.split([' ', '&'])
            .next()
            .and_then(|text| text.parse::<u64>().ok())
    });
    let first = since.map_or(0, |since| since + 1);
    let report_after = {
        let mut orders = orders.lock().unwrap();
        orders.asked.push(first);
        orders.report_after.take()
    };
    let mut out = stream;
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    chunk(&mut out, b"[")?;
    let mut at = first;
    while at < ENTITIES {
        let end = (at + CHUNK).min(ENTITIES);
        let mut text = Vec::new();
        for i in at..end {
            let comma = if i == first { "" } else { "," };
            write!(
                text,
                "{comma}{{\"_id\":\"e:{i:06}\",\"_updated\":{i},\"name\":\"entity {i}\"}}"
            )?;
        }
        chunk(&mut out, &text)?;
        at = end;
        if let Some(limit) = report_after {
            let sent = at - first;
            if (sent.saturating_sub(CHUNK)..sent).contains(&limit) {
                let _ = tell.send(());
            }
            std::thread::sleep(PAUSE);
        }
    }
    chunk(&mut out, b"]")?;
    out.write_all(b"0\r\n\r\n")?;
    if report_after.is_some_and(|limit| limit >= at - first) {
        let _ = tell.send(());
    }
    Ok(())
}

fn chunk(out: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    write!(out, "{:x}\r\n", bytes.len())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")
}

pub fn project(folder: &Path, port: u16, chronological: bool) {
    std::fs::create_dir_all(folder.join("pipes")).unwrap();
    std::fs::create_dir_all(folder.join("systems")).unwrap();
    let system = format!(
        r#"{{"_id": "slow", "type": "system:url", "url_pattern": "http://127.0.0.1:{port}/%s"}}"#
    );
    let pipe = format!(
        r#"{{"_id": "things", "type": "pipe", "source": {{"type": "json", "system": "slow",
            "url": "things", "supports_since": true, "is_chronological": {chronological}}}}}"#
    );
    std::fs::write(folder.join("systems/slow.conf.json"), system).unwrap();
    std::fs::write(folder.join("pipes/things.conf.json"), pipe).unwrap();
}

pub fn run(project: &Path, data: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tahini"))
        .arg("run")
        .arg(project)
        .arg("--data")
        .arg(data)
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub fn finish(project: &Path, data: &Path) -> serde_json::Value {
    let output = run(project, data).wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All versions of the dataset in order, without `_ts`, which no two runs share.
pub fn versions(data: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .args(["entities", "things", "--history", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut entity: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                entity.as_object_mut().unwrap().remove("_ts").is_some(),
                "{line}"
            );
            entity.to_string()
        })
        .collect()
}

/// After how many entities of its answer each run is killed.
fn moments(chronological: bool, seed: u64) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut moment = |kill| match kill % 4 {
        // While the first or second checkpoint is being written.
        0 => CHECKPOINT * random.random_range(1..=2) + random.random_range(0..CHUNK),
        // A run that goes on where the last one stopped has to leave something for the next ones.
        _ if chronological => random.random_range(CHUNK..2 * CHECKPOINT - CHUNK),
        // Once everything is sent and the run comes to its end. It may be whole by then, and leave
        // nothing to those after it, so that this comes late.
        1 if kill + 4 >= KILLS => ENTITIES,
        _ => random.random_range(CHUNK..ENTITIES),
    };
    (0..KILLS).map(&mut moment).collect()
}

fn killed_twenty_times(chronological: bool, seed: u64) {
    let source = SlowSource::start();
    let folder = tempfile::tempdir().unwrap();
    let (broken, whole) = (folder.path().join("broken"), folder.path().join("whole"));
    project(folder.path(), source.port, chronological);
    for (kill, after) in moments(chronological, seed).into_iter().enumerate() {
        source.orders.lock().unwrap().report_after = Some(after);
        let mut child = run(folder.path(), &broken);
        source
            .reached
            .recv_timeout(Duration::from_secs(120))
            .unwrap_or_else(|_| panic!("run {kill} never took {after} entities"));
        child.kill().unwrap();
        // A run that had ended by itself would have an exit code.
        assert_eq!(
            child.wait().unwrap().signal(),
            Some(libc::SIGKILL),
            "seed {seed}: run {kill} ended before the kill after {after} entities"
        );
    }
    let asked = std::mem::take(&mut source.orders.lock().unwrap().asked);
    let resumed = asked.iter().filter(|first| **first > 0).count();
    if chronological {
        assert!(
            resumed >= 10,
            "seed {seed}: only {resumed} of {KILLS} runs resumed: {asked:?}"
        );
    } else {
        let whole = asked.iter().filter(|first| **first == ENTITIES).count();
        assert_eq!(
            resumed, whole,
            "a source without order was resumed: {asked:?}"
        );
        assert!(
            resumed < 4,
            "seed {seed}: runs ended before they were killed: {asked:?}"
        );
    }
    let last = finish(folder.path(), &broken);
    let undisturbed = finish(folder.path(), &whole);
    assert_eq!(
        last["runs"][0]["pipe_offset"],
        undisturbed["runs"][0]["pipe_offset"]
    );
    assert_eq!(undisturbed["runs"][0]["pipe_offset"], ENTITIES - 1);
    let (found, expected) = (versions(&broken), versions(&whole));
    assert_eq!(found.len(), expected.len(), "seed {seed}");
    let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(
        differs,
        None,
        "seed {seed}: {:?}",
        differs.map(|at| (&found[at], &expected[at]))
    );
    assert_eq!(expected.len() as u64, ENTITIES);
}

#[test]
fn a_chronological_run_killed_twenty_times_resumes_and_loses_nothing() {
    killed_twenty_times(true, 1);
}

#[test]
fn a_run_without_order_killed_twenty_times_starts_over_and_loses_nothing() {
    killed_twenty_times(false, 2);
}
