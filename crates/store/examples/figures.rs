//! What a store does by itself, one figure a call: `figures WHAT DIR [NAME=VALUE …]`. Prints one
//! line of JSON. `benches/store.py` calls it and puts the page together.
//!
//! The entities are those of `benches/entities.py` in kind: 13 properties, about 321 bytes of JSON.
//! They are parsed outside of what is measured. `compression` takes those of a file.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
// A measurement takes the time that it is given, and asks now and then how far a build is.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tahini_entity::json::{Numbers, Parser};
use tahini_entity::{Batch, Offset, Record, Value, order};
use tahini_store::{
    Ask, Backend, Commit, Compaction, Dataset, Files, IndexDef, Limit, Options, Rule, Show,
    Snapshot, Ticket, View,
};

const BATCH: u64 = 10_000;
const NOW: i64 = 1_700_000_000_000_000;
const MULTIPLIER: u64 = 2_654_435_761;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir, given @ ..] = arguments.as_slice() else {
        println!("usage: figures WHAT DIR [NAME=VALUE …]");
        return;
    };
    let given = given.iter().map(|pair| pair.split_once('=').unwrap());
    let given = Given(given.collect());
    let dir = Path::new(dir);
    let mut told = Told::default();
    match what.as_str() {
        "load" => load(dir, &given, &mut told),
        "compact" => compact(dir, &mut told),
        "compression" => compression(dir, &given, &mut told),
        "points" => points(dir, &given, &mut told),
        "changes" => changes(dir, &mut told),
        "one" => one(dir, &given, &mut told),
        "start" => start(dir, &mut told),
        "datasets" => datasets(dir, &given, &mut told),
        "writers" => writers(dir, &given, &mut told),
        "index" => index(dir, &given, &mut told),
        other => panic!("expected a figure, found {other:?}"),
    }
    memory(&mut told);
    println!("{{{}}}", told.0.trim_end_matches(','));
}

/// Names and values of the command line.
struct Given<'a>(BTreeMap<&'a str, &'a str>);

impl Given<'_> {
    fn or(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |it| it.parse().unwrap())
    }
}

/// Names and numbers for the line that is printed.
#[derive(Default)]
struct Told(String);

impl Told {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.0, "\"{name}\":{value},").unwrap();
    }

    fn rate(&mut self, name: &str, rows: u64, spent: Duration) {
        self.put(name, (rows as f64 / spent.as_secs_f64()) as u64);
    }
}

fn open(dir: &Path) -> (Files, Arc<dyn Dataset>) {
    let files = Files::open(dir, Options::default()).unwrap();
    let dataset = files.open("measured", true).unwrap();
    (files, dataset)
}

/// Adds entity number `at`; `version` makes it another one.
fn push(parser: &mut Parser, batch: &mut Batch, text: &mut String, at: u64, version: u64) {
    let draw = |salt: u64, sides: u64| {
        let mixed = (at ^ salt << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) % sides
    };
    let first = ["Ada", "Bjorn", "Carla", "Dag", "Eva", "Finn"][draw(1, 6) as usize];
    let last = ["Hansen", "Johansen", "Olsen", "Larsen"][draw(2, 4) as usize];
    let city = ["oslo", "bergen", "trondheim", "stavanger"][draw(3, 4) as usize];
    text.clear();
    write!(
        text,
        "{{\"_id\":\"crm-person:{at}\",\"first_name\":\"{first}\",\"last_name\":\"{last}\",\
         \"email\":\"{first}.{last}{at}@example.com\",\"age\":{},\"active\":{},\"balance\":{}.{},\
         \"city\":\"{city}\",\"zip\":\"{}\",\"created\":\"2024-{:02}-{:02}T10:00:00Z\",\
         \"tags\":[\"{city}\",\"customer\"],\"company-ref\":\"~:company:{}\",\
         \"note\":\"lorem ipsum dolor sit amet {version}\"}}",
        18 + draw(4, 72),
        draw(5, 10) < 8,
        draw(6, 10_000),
        draw(7, 100),
        1_000 + draw(8, 9_000),
        1 + draw(9, 12),
        1 + draw(10, 28),
        draw(11, 100_000),
    )
    .unwrap();
    parser.push_json(batch, text.as_bytes()).unwrap();
}

/// What writes batches of `entities`, and how long it took without making them.
struct Writing {
    parser: Parser,
    text: String,
    batch: Batch,
    last: Option<Ticket>,
    spent: Duration,
}

impl Writing {
    fn new() -> Writing {
        Writing {
            parser: Parser::new(Numbers::HTTP_ENDPOINT),
            text: String::new(),
            batch: Batch::new(),
            last: None,
            spent: Duration::ZERO,
        }
    }

    fn write(&mut self, dataset: &Arc<dyn Dataset>, ids: impl Iterator<Item = u64>, version: u64) {
        for at in ids {
            push(
                &mut self.parser,
                &mut self.batch,
                &mut self.text,
                at,
                version,
            );
        }
        self.commit(dataset);
    }

    /// Writes what is in the batch, and empties it.
    fn commit(&mut self, dataset: &Arc<dyn Dataset>) {
        let begun = Instant::now();
        let commit = Commit {
            rows: &self.batch,
            rule: Rule::IfChanged,
            state: &[],
            populated: false,
            now: NOW,
            show: Show::Now,
            note: None,
        };
        let ticket = dataset.commit(commit).unwrap().1;
        if let Some(before) = self.last.replace(ticket) {
            before.wait().unwrap();
        }
        self.spent += begun.elapsed();
        self.batch.clear();
    }

    fn end(&mut self) {
        let begun = Instant::now();
        if let Some(last) = self.last.take() {
            last.wait().unwrap();
        }
        self.spent += begun.elapsed();
    }
}

/// Loads `entities`, in order or not, and tells the rate of each tenth.
fn load(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (files, dataset) = open(dir);
    let (count, random) = (given.or("entities", 1_000_000), given.or("random", 0) == 1);
    let version = given.or("version", 0);
    let id = |at: u64| match random {
        true => (u128::from(at) * u128::from(MULTIPLIER) % u128::from(count)) as u64,
        false => at,
    };
    let mut writing = Writing::new();
    let (mut curve, mut before) = (Vec::new(), Duration::ZERO);
    let (begun, tenth) = (cpu(), (count / 10).max(BATCH));
    for first in (0..count).step_by(BATCH as usize) {
        let next = (first + BATCH).min(count);
        writing.write(&dataset, (first..next).map(id), version);
        if next % tenth == 0 || next == count {
            let rows = next - (curve.len() as u64 * tenth).min(next - 1);
            let rate = rows as f64 / (writing.spent - before).as_secs_f64();
            curve.push(rate as u64);
            before = writing.spent;
        }
    }
    writing.end();
    told.put("entities", count);
    told.rate("rate", count, writing.spent);
    told.put("seconds", writing.spent.as_secs_f64());
    told.put("cpu_with_making", cpu() - begun);
    told.put("curve", format!("{curve:?}"));
    files.close().unwrap();
    drop((dataset, files));
    told.put("disk_mb", size(dir) / 1_000_000);
}

fn compact(dir: &Path, told: &mut Told) {
    let (files, dataset) = open(dir);
    let begun = Instant::now();
    let rules = Compaction {
        keep_versions: Some(1),
        least_dead: 0.0,
        ..Compaction::default()
    };
    let done = dataset.compact(&rules).unwrap();
    told.put("versions_gone", done.versions);
    told.put("seconds", begun.elapsed().as_secs_f64());
    files.close().unwrap();
    drop((dataset, files));
    told.put("disk_mb", size(dir) / 1_000_000);
}

/// The entities of `file`, a line of JSON each: what they take on disk once it is compacted.
fn compression(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (files, dataset) = open(dir);
    let (mut writing, mut bytes) = (Writing::new(), 0);
    for line in BufReader::new(File::open(given.0["file"]).unwrap()).lines() {
        let line = line.unwrap();
        bytes += line.len();
        let Writing { parser, batch, .. } = &mut writing;
        parser.push_json(batch, line.as_bytes()).unwrap();
        if batch.len() as u64 == BATCH {
            writing.commit(&dataset);
        }
    }
    writing.commit(&dataset);
    writing.end();
    told.put("entities", dataset.snapshot().unwrap().head().live);
    told.put("json_bytes", bytes);
    files.close().unwrap();
    drop((dataset, files));
    compact(dir, told);
    for (name, ending) in [("log_bytes", "log"), ("index_bytes", "mdb")] {
        let counts = |path: &Path| path.extension().is_some_and(|found| found == ending);
        told.put(name, size_of(dir, &counts));
    }
}

/// Point reads by id on some threads, each for itself, from random places.
fn points(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (_files, dataset) = open(dir);
    let (threads, seconds) = (given.or("threads", 2), given.or("seconds", 5));
    let live = dataset.snapshot().unwrap().head().live;
    let (reads, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (begun, spent) = (cpu(), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (dataset, reads, over) = (&dataset, &reads, &over);
            scope.spawn(move || {
                let snapshot = dataset.snapshot().unwrap();
                let (mut at, mut out, mut done) = (thread * 7_919, Batch::new(), 0);
                let mut id = String::new();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..100 {
                        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        id.clear();
                        write!(id, "crm-person:{}", (at >> 20) % live).unwrap();
                        out.clear();
                        assert_eq!(snapshot.latest(&[&id], &mut out).unwrap(), [true]);
                    }
                    done += 100;
                }
                reads.fetch_add(done, Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_secs(seconds));
        over.store(true, Ordering::Relaxed);
    });
    let reads = reads.into_inner();
    told.rate("rate", reads, spent.elapsed());
    told.rate(
        "rate_by_cpu",
        reads * threads,
        Duration::from_secs_f64(cpu() - begun),
    );
    told.put("threads", threads);
}

fn walk(snapshot: &dyn Snapshot, after: Option<u64>, mut each: impl FnMut(&Batch)) -> u64 {
    let view = View {
        history: true,
        deleted: true,
    };
    let limit = Limit {
        rows: BATCH as usize,
        bytes: 8 << 20,
    };
    let (mut at, mut rows, mut out) = (after, 0, Batch::new());
    loop {
        out.clear();
        at = snapshot.changes(at, view, limit, &mut out).unwrap();
        rows += out.len() as u64;
        each(&out);
        if at.is_none() {
            return rows;
        }
    }
}

/// All changes, as a reader gets them that never read before.
fn changes(dir: &Path, told: &mut Told) {
    let (_files, dataset) = open(dir);
    let snapshot = dataset.snapshot().unwrap();
    let (mut best, mut rows, begun) = (Duration::MAX, 0, cpu());
    for _ in 0..3 {
        let turn = Instant::now();
        rows = walk(&*snapshot, None, |_| {});
        best = best.min(turn.elapsed());
    }
    told.put("versions", rows);
    told.rate("rate", rows, best);
    told.rate(
        "rate_by_cpu",
        3 * rows,
        Duration::from_secs_f64(cpu() - begun),
    );
}

/// One change: written, durable and read by a reader that knew all before.
fn one(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (_files, dataset) = open(dir);
    let head = dataset.snapshot().unwrap().head().clone();
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let mut writing = Writing::new();
    for turn in 0..given.or("turns", 200) {
        let at = (turn * MULTIPLIER) % head.live;
        let before = writing.spent;
        writing.write(&dataset, std::iter::once(at), NOW as u64 + turn + head.next);
        writing.end();
        writes.push(writing.spent - before);
        let begun = Instant::now();
        let snapshot = dataset.snapshot().unwrap();
        let known = head.next - 1 + turn;
        assert_eq!(walk(&*snapshot, Some(known), |_| {}), 1);
        reads.push(begun.elapsed());
    }
    told.put("entities", head.live);
    for (name, mut spent) in [("write", writes), ("read", reads)] {
        spent.sort();
        let at = |share: usize| spent[(spent.len() * share / 100).min(spent.len() - 1)].as_micros();
        told.put(&format!("{name}_us"), at(50));
        told.put(&format!("{name}_us_p99"), at(99));
    }
}

fn start(dir: &Path, told: &mut Told) {
    let begun = Instant::now();
    let files = Files::open(dir, Options::default()).unwrap();
    let heads = files.list().unwrap();
    told.put("seconds", begun.elapsed().as_secs_f64());
    told.put("datasets", heads.len());
    told.put("entities", heads.iter().map(|head| head.live).sum::<u64>());
}

/// Many small datasets: made, written once more each, and opened again.
fn datasets(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (count, rows) = (given.or("datasets", 1_000), given.or("rows", 100));
    let files = Files::open(dir, Options::default()).unwrap();
    let mut writing = Writing::new();
    let begun = Instant::now();
    let all: Vec<Arc<dyn Dataset>> = (0..count)
        .map(|at| files.open(&format!("d{at}"), true).unwrap())
        .collect();
    told.put("made_ms", begun.elapsed().as_millis());
    for version in 0..given.or("versions", 2).min(2) {
        writing.spent = Duration::ZERO;
        for dataset in &all {
            for first in (0..rows).step_by(BATCH as usize) {
                writing.write(dataset, first..rows.min(first + BATCH), version);
            }
        }
        writing.end();
        told.rate(
            ["commits_first", "commits_again"][version as usize],
            count,
            writing.spent,
        );
    }
    told.put(
        "files_open",
        std::fs::read_dir("/proc/self/fd").unwrap().count(),
    );
    files.close().unwrap();
    drop((all, files));
    start(dir, told);
}

/// Writers that go on at the same time, each in its own dataset or all in one.
fn writers(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (writers, count) = (given.or("writers", 4), given.or("entities", 200_000));
    let files = Files::open(dir, Options::default()).unwrap();
    for (name, shared) in [("own", false), ("shared", true)] {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let files = &files;
                scope.spawn(move || {
                    let name = if shared { u64::MAX } else { writer };
                    let dataset = files.open(&format!("{shared}-{name}"), true).unwrap();
                    let mut writing = Writing::new();
                    for first in (0..count / writers).step_by(BATCH as usize) {
                        let base = writer * count + first;
                        writing.write(&dataset, base..base + BATCH, 0);
                    }
                    writing.end();
                });
            }
        });
        told.rate(&format!("rate_{name}_with_making"), count, begun.elapsed());
    }
    told.put("writers", writers);
}

/// A declared index: built from the log, asked, and brought up to one more change.
fn index(dir: &Path, given: &Given<'_>, told: &mut Told) {
    let (files, dataset) = open(dir);
    let company = |record: Record<'_>, keys: &mut Vec<u128>| {
        keys.extend(record.value("company-ref").as_ref().map(order::key));
    };
    let def = IndexDef {
        fingerprint: "company".to_owned(),
        keys: Arc::new(company),
    };
    let begun = Instant::now();
    files.declare(BTreeMap::from([("measured".to_owned(), vec![def])]));
    while !dataset.indexes().unwrap().iter().all(|index| index.ready) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let head = dataset.snapshot().unwrap().head().clone();
    told.put("versions", head.next);
    told.rate("build_rate", head.next, begun.elapsed());
    let snapshot = dataset.snapshot().unwrap();
    let finds = given.or("finds", 20_000);
    let (begun, mut found, mut out) = (Instant::now(), 0, Batch::new());
    for at in 0..finds {
        let value = Value::Ni(
            format!("company:{}", at * MULTIPLIER % 100_000)
                .as_str()
                .into(),
        );
        let (key, mut hits) = (order::key(&value), Vec::new());
        assert!(
            snapshot
                .find("company", &[key], &Ask::LATEST, &mut hits)
                .unwrap()
        );
        out.clear();
        for hit in &hits {
            snapshot.at(&[hit.seq], &mut out).unwrap();
        }
        found += out.len() as u64;
    }
    told.rate("finds", finds, begun.elapsed());
    told.rate("found", found, begun.elapsed());
    let (mut writing, mut spent) = (Writing::new(), Vec::new());
    for turn in 0..given.or("turns", 100) {
        writing.write(
            &dataset,
            std::iter::once(turn),
            NOW as u64 + turn + head.next,
        );
        writing.end();
        let begun = Instant::now();
        let snapshot = dataset.snapshot().unwrap();
        assert!(
            snapshot
                .find("company", &[1], &Ask::LATEST, &mut Vec::new())
                .unwrap()
        );
        spent.push(begun.elapsed());
        let newest = snapshot.head().next - 1;
        out.clear();
        snapshot.at(&[newest], &mut out).unwrap();
        assert!(matches!(out.get(0).meta.updated, Some(Offset::Int(_))));
    }
    spent.sort();
    told.put("after_one_change_us", spent[spent.len() / 2].as_micros());
    files.close().unwrap();
    drop((snapshot, dataset, files));
    told.put("disk_mb", size(dir) / 1_000_000);
}

/// Seconds that this process has spent on processors.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn size(dir: &Path) -> u64 {
    size_of(dir, &|_| true)
}

/// Bytes of the files below `dir` that count.
fn size_of(dir: &Path, counts: &dyn Fn(&Path) -> bool) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => size_of(&entry.path(), counts),
        false if counts(&entry.path()) => entry.metadata().unwrap().len(),
        false => 0,
    });
    sizes.sum()
}

/// Anonymous and mapped memory of this process, in MB.
fn memory(told: &mut Told) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, line) in [
        ("anonymous_mb", "RssAnon:"),
        ("mapped_mb", "RssFile:"),
        ("peak_mb", "VmHWM:"),
    ] {
        let found = status.lines().find_map(|it| it.strip_prefix(line));
        let kb = found.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
        told.put(name, kb.unwrap_or(0) / 1_024);
    }
}
