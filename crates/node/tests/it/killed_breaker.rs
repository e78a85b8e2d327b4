//! Kill -9 around a tripped circuit breaker, with the real binary.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::kill::{ENTITIES, SlowSource, finish, project, run, versions};

/// The pipe of the project, which gives every entity this `v` and may change so many.
fn pipe(folder: &Path, v: u64, count: u64) {
    let pipe = serde_json::json!({
        "_id": "things", "type": "pipe",
        "source": {"type": "json", "system": "slow", "url": "things"},
        "transform": {"type": "dtl", "rules": {"default": [["copy", "*"], ["add", "v", v]]}},
        "sink": {"type": "dataset", "circuit_breaker_threshold_count": count},
    });
    std::fs::write(folder.join("pipes/things.conf.json"), pipe.to_string()).unwrap();
}

fn breaker(action: &str, data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tahini"))
        .args(["breaker", action, "things", "--data"])
        .arg(data)
        .output()
        .unwrap()
}

fn says(action: &str, data: &Path) -> String {
    let output = breaker(action, data);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_run_under_an_armed_breaker_that_is_killed_is_never_seen() {
    let source = SlowSource::start();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    project(folder.path(), source.port, false);
    pipe(folder.path(), 1, 1_000_000);
    finish(folder.path(), &data);
    let first = versions(&data);
    assert_eq!(first.len() as u64, ENTITIES);

    pipe(folder.path(), 2, 1_000_000);
    for after in [15_000, 60_000, ENTITIES] {
        source.orders.lock().unwrap().report_after = Some(after);
        let mut child = run(folder.path(), &data);
        source
            .reached
            .recv_timeout(Duration::from_secs(120))
            .unwrap_or_else(|_| panic!("no run took {after} entities"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(versions(&data), first, "killed after {after}");
        assert!(says("show", &data).contains("is not tripped"));
    }

    pipe(folder.path(), 2, 30_000);
    let output = run(folder.path(), &data).wait_with_output().unwrap();
    assert!(!output.status.success());
    for _ in 0..2 {
        assert!(says("show", &data).contains("30000 entities"));
        assert_eq!(versions(&data), first);
        // It stands still, whoever asks, and however that ends.
        let mut child = run(folder.path(), &data);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!breaker("nonsense", &data).status.success());
    says("rollback", &data);
    assert!(!breaker("commit", &data).status.success());
    assert_eq!(versions(&data), first);

    pipe(folder.path(), 2, 1_000_000);
    finish(folder.path(), &data);
    let all = versions(&data);
    assert_eq!(all.len() as u64, 2 * ENTITIES);
    assert_eq!(all[..first.len()], first);
}
