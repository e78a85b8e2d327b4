//! What one large entity takes of memory. The test has a process of its own, whose peak is told by
//! the system.

use std::fs;
use std::io::Cursor;

use serde_json::json;
use tahini_hub::receiver::{Push, receive};

use crate::world::World;

/// Larger than what the allocator keeps when it is given back.
const LARGE: usize = 38 << 20;

/// Bytes of memory of this process: now, and at most since it was asked to forget that.
fn memory(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|it| it.strip_prefix(line));
    let kb = found.unwrap().split_whitespace().next().unwrap();
    kb.parse::<usize>().unwrap() << 10
}

/// A body with one entity; its text has escapes, and no compression makes it much shorter.
fn body(id: &str) -> Vec<u8> {
    let mut text = format!("[{{\"_id\":\"{id}\",\"text\":\"").into_bytes();
    let mut number = 0x9E37_79B9_7F4A_7C15u64;
    while text.len() < LARGE {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        let bytes = number.to_le_bytes();
        text.extend(bytes.map(|byte| b'0' + byte % 40));
        text.extend_from_slice(b"\\n");
    }
    text.extend_from_slice(b"\"}]");
    text
}

#[test]
fn a_large_post_is_in_memory_four_times() {
    let mut world = World::on_disk();
    world.pipe(json!({
        "_id": "large",
        "source": {"type": "http_endpoint"},
        "sink": {"type": "dataset"},
    }));
    let live = world.live_pipe("large");
    for id in ["first", "again"] {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS:");
        let body = Cursor::new(body(id));
        let posted = receive(world.hub(), &live, &Push::default(), body).unwrap();
        assert_eq!(posted.changed, 1);
        // The body, its text in pieces, the string without escapes, and as it is stored.
        let taken = (memory("VmHWM:") - before) as f64 / LARGE as f64;
        assert!(taken < 4.4, "{taken} times");
        let kept = (memory("VmRSS:") as f64 - before as f64) / LARGE as f64;
        assert!(kept < 0.3, "{kept} times are kept");
    }
}
