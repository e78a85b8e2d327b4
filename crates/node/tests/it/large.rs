//! A source of two gigabytes goes through in bounded memory.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// Bytes of JSON that the source sends at least.
const BYTES: u64 = 2 << 30;
/// The most anonymous memory that the process may take, in kB.
const LIMIT_KB: u64 = 200 * 1024;

#[test]
fn two_gigabytes_stream_through_in_200_megabytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || serve(&listener));
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path();
    std::fs::create_dir_all(project.join("pipes")).unwrap();
    std::fs::create_dir_all(project.join("systems")).unwrap();
    let system = format!(
        r#"{{"_id": "big", "type": "system:url", "url_pattern": "http://127.0.0.1:{port}/%s"}}"#
    );
    std::fs::write(project.join("systems/big.conf.json"), system).unwrap();
    let pipe = r#"{"_id": "big-import", "type": "pipe", "sink": {"type": "null"},
        "source": {"type": "json", "system": "big", "url": "all"}}"#;
    std::fs::write(project.join("pipes/big-import.conf.json"), pipe).unwrap();
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
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sent = server.join().unwrap();
    assert_eq!(report["runs"][0]["entities_read"], sent, "{report}");
    assert!(
        peak > 0 && peak < LIMIT_KB,
        "expected under {LIMIT_KB} kB, found {peak} kB"
    );
}

/// The process's anonymous memory; 0 once it is gone.
pub fn anonymous_kb(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Answers one request and tells how many entities it sent.
fn serve(listener: &TcpListener) -> u64 {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let mut out = std::io::BufWriter::with_capacity(1 << 20, stream);
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n",
    )
    .unwrap();
    let filler = "lorem ipsum dolor sit amet ".repeat(80);
    let (mut sent, mut count) = (0u64, 0u64);
    while sent < BYTES {
        let lead = if count == 0 { '[' } else { ',' };
        let text = format!("{lead}{{\"_id\":\"{count}\",\"text\":\"{filler}\"}}");
        write!(out, "{:x}\r\n{text}\r\n", text.len()).unwrap();
        sent += text.len() as u64;
        count += 1;
    }
    out.write_all(b"1\r\n]\r\n0\r\n\r\n").unwrap();
    out.flush().unwrap();
    count
}
