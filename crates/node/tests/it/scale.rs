//! A node with a thousand pipes and a thousand datasets: it starts soon, and stays small.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::microservices::served::Served;

const PIPES: usize = 1_000;
/// The longest that a start may take here: two seconds are promised on an idle machine, and these
/// tests share theirs and have the checks of a debug build.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// The most memory that the process may ever have had, in kB, whatever it is for.
const LIMIT_KB: u64 = 400 * 1024;
/// What the first thousand pipes may take more than a node without any, in kB a pipe.
const PIPE_KB: u64 = 200;

/// The most memory that the process ever had, in kB.
fn peak_kb(node: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_pipes_start_soon_and_stay_small() {
    let (folder, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for one in [&folder, &empty] {
        std::fs::create_dir_all(one.path().join("project/pipes")).unwrap();
    }
    let project = folder.path().join("project");
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
    let run = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .arg("run")
        .arg(&project)
        .arg("--data")
        .arg(folder.path().join("data"))
        .env(
            "TAHINI_MASTER_KEY_FILE",
            folder.path().join("keys/master.key"),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(run.success());

    let nothing = peak_kb(&Served::start(empty.path()));
    let begun = Instant::now();
    let node = Served::start(folder.path());
    let started = begun.elapsed();
    assert!(started < STARTS_WITHIN, "the node got ready in {started:?}");
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
    let peak = peak_kb(&node);
    let found = format!("started in {started:?}, {peak} kB, {nothing} kB without pipes");
    assert!(peak < LIMIT_KB, "expected under {LIMIT_KB} kB: {found}");
    assert!(
        peak - nothing.min(peak) < PIPE_KB * PIPES as u64,
        "expected under {PIPE_KB} kB a pipe: {found}"
    );
}
