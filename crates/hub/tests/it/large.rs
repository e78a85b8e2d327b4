//! What one large entity takes of memory, and that it gets to its place. Each test has a process of
//! its own, whose peak is told by the system.

use std::fs;
use std::io::Cursor;

use serde_json::{Value as Json, json};
use tahini_entity::json::Fields;
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

#[test]
fn large_entities_keep_their_place_among_small_ones() {
    let mut world = World::on_disk();
    world.pipe(json!({
        "_id": "p",
        "source": {"type": "scripted"},
        "sink": {"type": "dataset"},
        "batch_size": 1,
        "checkpoint_interval": 10,
    }));
    // Committed at once, without their checkpoint.
    let text = "x".repeat(33 << 20);
    let large = |id: &str| json!({"_id": id, "text": text});
    let small = |id: &str| json!({"_id": id, "text": "y"});
    let mut own = large("own");
    own["_kept"] = json!(false);
    world.records("p", vec![small("a"), large("b"), small("c"), own]);
    let summary = world.succeed("p");
    assert_eq!((summary.read, summary.changed), (4, 4));
    world.restart();
    let found = world.versions("p", true, Fields::CONTENT);
    let ids: Vec<&Json> = found.iter().map(|found| &found["_id"]).collect();
    assert_eq!(ids, ["a", "b", "c", "own"]);
    for at in [1, 3] {
        assert!(found[at]["text"] == text.as_str(), "{}", ids[at]);
        assert!(found[at].get("_kept").is_none());
    }
    // What came counts as seen; what no longer comes is deleted, once.
    world.records("p", vec![large("b"), small("c")]);
    let summary = world.succeed("p");
    assert_eq!((summary.read, summary.changed), (2, 2));
    assert_eq!(world.living("p"), ["b", "c"]);
    assert_eq!(world.deleted("p"), ["a", "own"]);
}
