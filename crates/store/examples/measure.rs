//! Measures a store: `measure FILE DIR`, where FILE holds one JSON entity a line and DIR is free.
//!
//! Entities are parsed outside the measured time. Every batch of 10,000 is committed and synced
//! before the next one, so the figures are those of one core and of this disk.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tahini_entity::Batch;
use tahini_entity::json::{Elements, Layout, Numbers, Parser};
use tahini_store::{Backend, Commit, Compaction, Dataset, Files, Limit, Options, Rule, Show, View};

const BATCH: usize = 10_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(dir)) = (arguments.next(), arguments.next()) else {
        println!("usage: measure FILE DIR");
        return;
    };
    let dir = Path::new(&dir);
    let files = Files::open(dir, Options::default()).unwrap();
    let dataset = files.open("measured", true).unwrap();
    load("first load", &file, &dataset, |_| false);
    load("same again", &file, &dataset, |_| false);
    load("half of them changed", &file, &dataset, |at| at % 2 == 1);
    scan(&dataset);
    compact("compaction, 1 version", &dataset, 1);
    compact("compaction again", &dataset, 1);
    scan(&dataset);
    points(&dataset);
    let head = dataset.snapshot().unwrap().head().clone();
    println!(
        "{:>24}: {} MB on disk before closing",
        "size",
        head.bytes / 1_000_000
    );
    let closing = Instant::now();
    files.close().unwrap();
    drop((dataset, files));
    report("close", closing.elapsed(), None);
    reopen("open again", dir);
    for entry in std::fs::read_dir(dir.join("datasets")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path().join("index")).unwrap();
    }
    reopen("open, index rebuilt", dir);
}

/// Time that this thread has spent on a core: what other processes do does not count.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn load(what: &str, file: &str, dataset: &Arc<dyn Dataset>, changed: fn(u64) -> bool) {
    let mut elements = Elements::new(File::open(file).unwrap(), Layout::Lines);
    let mut parser = Parser::new(Numbers::HTTP_ENDPOINT);
    let mut batch = Batch::new();
    let (mut spent, mut busy, mut rows) = (Duration::ZERO, Duration::ZERO, 0);
    let mut slowest = Duration::ZERO;
    loop {
        batch.clear();
        while batch.len() < BATCH {
            let Some(element) = elements.next_element().unwrap() else {
                break;
            };
            if changed(rows + batch.len() as u64) {
                let element = [b"{\"changed\":true,", &element[1..]].concat();
                parser.push_json(&mut batch, &element).unwrap();
            } else {
                parser.push_json(&mut batch, element).unwrap();
            }
        }
        if batch.is_empty() {
            break;
        }
        rows += batch.len() as u64;
        let (start, cpu_start) = (Instant::now(), cpu());
        let now = 1_700_000_000_000_000;
        let commit = Commit {
            rows: &batch,
            rule: Rule::IfChanged,
            state: &[],
            populated: false,
            now,
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit).unwrap().1.wait().unwrap();
        let took = start.elapsed();
        spent += took;
        busy += cpu() - cpu_start;
        slowest = slowest.max(took);
    }
    report(what, spent, Some(rows));
    report("of that on a core", busy, Some(rows));
    println!(
        "{:>24}: {} ms, {}",
        "slowest batch",
        slowest.as_millis(),
        memory()
    );
}

/// Takes old versions out; rates count the versions that were there before.
fn compact(what: &str, dataset: &Arc<dyn Dataset>, keep: u32) {
    let head = dataset.snapshot().unwrap().head().clone();
    let (start, cpu_start) = (Instant::now(), cpu());
    let rules = Compaction {
        keep_versions: Some(keep),
        least_dead: 0.0,
        ..Compaction::default()
    };
    let done = dataset.compact(&rules).unwrap();
    report(what, start.elapsed(), Some(head.next));
    report("of that on a core", cpu() - cpu_start, Some(head.next));
    println!(
        "{:>24}: {} versions gone, {} MB of {} left, {}",
        "",
        done.versions,
        dataset.snapshot().unwrap().head().bytes / 1_000_000,
        head.bytes / 1_000_000,
        memory()
    );
}

fn scan(dataset: &Arc<dyn Dataset>) {
    let snapshot = dataset.snapshot().unwrap();
    let start = Instant::now();
    let (mut after, mut rows, mut out) = (None, 0, Batch::new());
    loop {
        out.clear();
        let view = View {
            history: false,
            deleted: true,
        };
        let limit = Limit {
            rows: BATCH,
            bytes: usize::MAX,
        };
        after = snapshot.changes(after, view, limit, &mut out).unwrap();
        rows += out.len() as u64;
        if after.is_none() {
            break;
        }
    }
    report("scan of the latest", start.elapsed(), Some(rows));
}

fn points(dataset: &Arc<dyn Dataset>) {
    let start = Instant::now();
    let count = 200_000u64;
    let mut out = Batch::new();
    for at in 0..count {
        out.clear();
        let id = format!("crm-person:{}", at.wrapping_mul(2_654_435_761) % 100_000);
        dataset
            .snapshot()
            .unwrap()
            .latest(&[&id], &mut out)
            .unwrap();
    }
    report("snapshot and point read", start.elapsed(), Some(count));
    let snapshot = dataset.snapshot().unwrap();
    let start = Instant::now();
    for batch in 0..count / 1_000 {
        let ids: Vec<String> = (0..1_000u64)
            .map(|at| {
                format!(
                    "crm-person:{}",
                    (batch * 1_000 + at).wrapping_mul(2_654_435_761) % 1_000_000
                )
            })
            .collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        out.clear();
        snapshot.latest(&ids, &mut out).unwrap();
    }
    report("reads of 1,000 ids", start.elapsed(), Some(count));
}

fn reopen(what: &str, dir: &Path) {
    let start = Instant::now();
    let files = Files::open(dir, Options::default()).unwrap();
    let dataset = files.open("measured", false).unwrap();
    report(what, start.elapsed(), None);
    let head = dataset.snapshot().unwrap().head().clone();
    println!(
        "{:>24}: {} live, {} MB, {}",
        "holds",
        head.live,
        head.bytes / 1_000_000,
        memory()
    );
}

fn report(what: &str, spent: Duration, rows: Option<u64>) {
    let rate = rows.map(|rows| format!(", {:.0} a second", rows as f64 / spent.as_secs_f64()));
    println!(
        "{what:>24}: {:.3} s{}",
        spent.as_secs_f64(),
        rate.unwrap_or_default()
    );
}

/// Anonymous and mapped memory of this process.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| line.starts_with("Rss") || line.starts_with("VmHWM"));
    lines
        .map(|line| line.replace('\t', " "))
        .collect::<Vec<_>>()
        .join(", ")
}
