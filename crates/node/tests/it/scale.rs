//! A node with a thousand pipes and a thousand datasets: it starts soon, and stays small.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PIPES: usize = 1_000;
/// The longest that a start may take here: two seconds are promised on an idle machine, and these
/// tests share theirs and have the checks of a debug build.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// The most memory that the process may ever have had, in kB, whatever it is for.
const LIMIT_KB: u64 = 400 * 1024;
/// What the first thousand pipes may take more than a node without any, in kB a pipe.
const PIPE_KB: u64 = 200;

/// A node of its own process.
struct Served {
    child: Child,
    port: u16,
    started: Duration,
}

impl Served {
    fn start(project: &Path, data: &Path) -> Served {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let begun = Instant::now();
        let child = tahini(&[
            "serve",
            "--no-schedule",
            "--listen",
            &format!("127.0.0.1:{port}"),
        ])
        .arg("--data")
        .arg(data)
        .arg(project)
        .spawn()
        .unwrap();
        let mut served = Served {
            child,
            port,
            started: Duration::ZERO,
        };
        while served.get("/readyz").is_err() {
            assert!(served.child.try_wait().unwrap().is_none(), "the node ended");
            assert!(
                begun.elapsed() < STARTS_WITHIN,
                "the node does not get ready"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        served.started = begun.elapsed();
        served
    }

    /// The body of an answer that is 200; what else came, otherwise.
    fn get(&self, path: &str) -> Result<String, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(told)?;
        // Nothing is sent in chunks to a client of HTTP 1.0, and the end is the end.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").map_err(told)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(told)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(format!("{path}: {answer}")),
        }
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).unwrap()).unwrap()
    }

    /// The most memory that the process ever had, in kB.
    fn peak_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tahini(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tahini"));
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_thousand_pipes_start_soon_and_stay_small() {
    let folder = tempfile::tempdir().unwrap();
    let (project, empty) = (folder.path().join("project"), folder.path().join("empty"));
    for one in [&project, &empty] {
        std::fs::create_dir_all(one.join("pipes")).unwrap();
    }
    for n in 0..PIPES {
        // Half of them read what the other half writes.
        let source = match n % 2 {
            0 => json!({"type": "embedded", "entities": [{"_id": "a", "n": n}, {"_id": "b"}]}),
            _ => json!({"type": "dataset", "dataset": format!("p{}", n - 1)}),
        };
        let pipe = json!({"_id": format!("p{n}"), "type": "pipe", "source": source});
        let file = project.join(format!("pipes/p{n}.conf.json"));
        std::fs::write(file, pipe.to_string()).unwrap();
    }
    let data = folder.path().join("data");
    let run = tahini(&["run"])
        .arg(&project)
        .arg("--data")
        .arg(&data)
        .status()
        .unwrap();
    assert!(run.success());

    let nothing = Served::start(&empty, &folder.path().join("nothing")).peak_kb();
    let node = Served::start(&project, &data);
    assert_eq!(node.json("/api/pipes").as_array().unwrap().len(), PIPES);
    let datasets = node.json("/api/datasets");
    let own = datasets.as_array().unwrap().iter();
    let own = own.filter(|one| one["runtime"]["origin"] == "user");
    assert_eq!(
        own.filter(|one| one["runtime"]["count-index-exists"] == 2)
            .count(),
        PIPES
    );
    for n in 0..PIPES {
        let entity = node.json(&format!("/api/datasets/p{n}/entity?entity_id=a"));
        assert_eq!(entity["n"], n - n % 2);
    }
    let metrics = node.get("/api/metrics").unwrap();
    let running = metrics
        .lines()
        .filter(|line| line.starts_with("tahini_pipe_running{"));
    assert_eq!(running.count(), PIPES);
    let peak = node.peak_kb();
    let found = format!(
        "started in {:?}, {peak} kB, {nothing} kB without pipes",
        node.started
    );
    assert!(peak < LIMIT_KB, "expected under {LIMIT_KB} kB: {found}");
    assert!(
        peak - nothing.min(peak) < PIPE_KB * PIPES as u64,
        "expected under {PIPE_KB} kB a pipe: {found}"
    );
}
