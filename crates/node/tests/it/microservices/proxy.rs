//! A gigabyte each way through the proxy, and a log that is flooded: the node holds little of it at
//! any time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::place::{LIMIT, SCRIPT};
use super::served::{Served, write_project};

const GIGABYTE: u64 = 1 << 30;
/// What the node may need more than before, in kB, while a gigabyte passes.
const ROOM_KB: u64 = 64 << 10;

fn high_water_kb(node: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn connect(node: &Served, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", node.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// The head of an answer that is 200, as text.
fn head(reader: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.contains(" 200 "), "{head}");
    head
}

#[test]
fn a_gigabyte_passes_both_ways_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let process = json!({"command": ["python3", "-c", SCRIPT]});
    write_project(
        folder.path(),
        &[json!({"_id": "one", "type": "system:microservice", "process": process})],
    );
    let node = Served::start(folder.path());
    node.running("one");
    let before = high_water_kb(&node);

    let path = "/api/systems/one/proxy";
    let get = format!("GET {path}/pour?bytes={GIGABYTE} HTTP/1.0\r\n\r\n");
    let mut reader = BufReader::new(connect(&node, &get));
    head(&mut reader);
    let (mut came, mut chunk) = (0, vec![0; 1 << 20]);
    loop {
        let count = reader.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        assert!(chunk[..count].iter().all(|byte| *byte == b'x'));
        came += count as u64;
    }
    assert_eq!(came, GIGABYTE);

    let post = format!("POST {path}/swallow HTTP/1.0\r\nContent-Length: {GIGABYTE}\r\n\r\n");
    let mut stream = connect(&node, &post);
    for _ in 0..GIGABYTE / chunk.len() as u64 {
        stream.write_all(&chunk).unwrap();
    }
    let mut reader = BufReader::new(stream);
    head(&mut reader);
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    assert_eq!(body, GIGABYTE.to_string());

    let after = high_water_kb(&node);
    assert!(
        after - before < ROOM_KB,
        "expected {ROOM_KB} kB at most, found {before} kB before and {after} kB after"
    );
}

/// The service sees the beginning of a body, and answers it, before there is an end.
#[test]
fn a_body_reaches_the_service_while_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let process = json!({"command": ["python3", "-c", SCRIPT]});
    write_project(
        folder.path(),
        &[json!({"_id": "one", "type": "system:microservice", "process": process})],
    );
    let node = Served::start(folder.path());
    node.running("one");
    let post = "POST /api/systems/one/proxy/parrot HTTP/1.0\r\nContent-Length: 10\r\n\r\n";
    let mut stream = connect(&node, post);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut heard = [0; 5];
    stream.write_all(b"first").unwrap();
    head(&mut reader);
    reader.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"first");
    stream.write_all(b"other").unwrap();
    reader.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"other");
}

/// 100 MB of lines, while somebody follows the log and does not read it.
#[test]
fn a_flooded_log_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let process = json!({"command": ["python3", "-c", SCRIPT]});
    write_project(
        folder.path(),
        &[json!({"_id": "one", "type": "system:microservice", "process": process})],
    );
    let node = Served::start(folder.path());
    node.running("one");
    let before = high_water_kb(&node);
    let follow = "GET /api/systems/one/logs?follow=true HTTP/1.0\r\n\r\n";
    let _follower = connect(&node, follow);
    assert_eq!(node.ask("one", "/flood?bytes=100000000"), "flooded");
    let log = node.get("/api/systems/one/logs").unwrap();
    assert!((900..=1000).contains(&log.lines().count()));
    let after = high_water_kb(&node);
    assert!(
        after - before < ROOM_KB,
        "expected {ROOM_KB} kB at most, found {before} kB before and {after} kB after"
    );
    assert_eq!(node.running("one")["restarts"], 0);
}
