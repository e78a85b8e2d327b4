//! Very many failed entities take no memory: neither of a run nor of who looks.

use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tahini_entity::Batch;
use tahini_store::{Backend, Commit, Files, Options, Rule, Show, StateWrite};

use crate::large::anonymous_kb;

/// Failed entities that the pipe remembers.
const FAILED: u64 = 1_000_000;
/// The most anonymous memory that the process may take, in kB. One record in memory takes about
/// 150 bytes and there were three copies.
const LIMIT_KB: u64 = 96 * 1024;

/// Fills the log of pipe `p` as runs would in which all these entities were given up.
fn fill(folder: &std::path::Path) {
    let store = Files::open(&folder.join("data"), Options::default()).unwrap();
    let dataset = store.open("system:pump_execution:p", true).unwrap();
    let write = |key: String, value: Vec<u8>| StateWrite {
        space: "failed:p".to_owned(),
        key: key.into_bytes(),
        value: Some(value),
    };
    // Not buried, retried never, a hash that no version has, a run before all others.
    let record = [&[0u8][..], &[0; 8], &[7; 16], &[0; 8], &[0; 8]].concat();
    let numbers = [0, 0, 0, FAILED].map(u64::to_le_bytes).concat();
    let mut state = vec![write("counts".to_owned(), numbers)];
    for at in 0..FAILED {
        state.push(write(
            format!("dead/sink/https://example.com/customers/{at}"),
            record.clone(),
        ));
        if state.len() == 20_000 || at + 1 == FAILED {
            let commit = Commit {
                rows: &Batch::new(),
                rule: Rule::IfChanged,
                state: &std::mem::take(&mut state),
                populated: true,
                now: 1,
                show: Show::Now,
                note: None,
            };
            dataset.commit(commit).unwrap();
        }
    }
    store.close().unwrap();
}

#[test]
fn a_run_beside_a_million_failed_entities_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path();
    fill(project);
    std::fs::create_dir_all(project.join("pipes")).unwrap();
    let entities: Vec<Value> = (0..200)
        .map(|at| json!({"_id": format!("https://example.com/customers/{at}")}))
        .collect();
    let pipe = json!({
        "_id": "p", "type": "pipe", "source": {"type": "embedded", "entities": entities},
        "sink": {"type": "null"}, "pump": {"max_write_errors_in_retry_dataset": 10},
    });
    std::fs::write(project.join("pipes/p.conf.json"), pipe.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tahini"))
        .arg("run")
        .arg(project)
        .arg("--data")
        .arg(project.join("data"))
        .arg("--json")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(anonymous_kb(&status));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["runs"][0]["success"], true, "{report}");
    assert!(
        peak > 0 && peak < LIMIT_KB,
        "expected under {LIMIT_KB} kB, found {peak} kB"
    );
    // Those that came with another version got through, and are failed no more.
    let store: Arc<dyn Backend> =
        Arc::new(Files::open(&project.join("data"), Options::default()).unwrap());
    let log = store.open("system:pump_execution:p", false).unwrap();
    let snapshot = log.snapshot().unwrap();
    let counts = snapshot.state("failed:p", b"counts").unwrap();
    let left = u64::from_le_bytes(counts[0].1[24..].try_into().unwrap());
    assert_eq!(left, FAILED - 200);
}
