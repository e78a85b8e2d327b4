//! The format on disk: a store that must open for ever, and a reader that knows only the document.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tahini_entity::json::{Numbers, Parser};
use tahini_entity::{Batch, Offset};
use tahini_store::{Backend, Commit, Compaction, Files, Options, Show, Snapshot};

use crate::rows::*;

const NOW: i64 = 1_700_000_000_000_000;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

/// The commits that the fixture was made of: lines of entities, an empty line after each commit.
fn input() -> Vec<Batch> {
    let text = fs::read_to_string(fixture().join("input.ndjson")).unwrap();
    let commits = text.split("\n\n").map(|lines| {
        let mut batch = Batch::new();
        let mut parser = Parser::new(Numbers::HTTP_ENDPOINT);
        lines
            .lines()
            .for_each(|line| parser.push_json(&mut batch, line.as_bytes()).unwrap());
        batch
    });
    commits.collect()
}

fn state_key(commit: usize) -> Vec<u8> {
    if commit == 2 {
        vec![b'k'; 600]
    } else {
        vec![b'k', commit as u8]
    }
}

/// What the fixture's state must be in the end: the first commit's key was removed by the last.
fn state() -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows =
        [1usize, 2, 3].map(|commit| (state_key(commit), vec![commit as u8; 1 + commit * 200]));
    BTreeMap::from(rows).into_iter().collect()
}

/// Made the fixture once. It is run by hand, and only when the format gets a new number.
#[test]
#[ignore = "writes a new fixture"]
fn make_the_fixture() {
    let root = fixture().join("store");
    let options = Options {
        segment_bytes: 700,
        ..Options::default()
    };
    let files = Files::open(&root, options).unwrap();
    let dataset = files.open("a name\nof two lines", true).unwrap();
    for (at, rows) in input().iter().enumerate() {
        let mut writes = vec![set("pipe:x", &state_key(at), &vec![at as u8; 1 + at * 200])];
        if at == 3 {
            writes.push(unset("pipe:x", &state_key(0)));
        }
        let commit = Commit {
            state: &writes,
            populated: at == 1,
            now: NOW,
            ..commit(rows)
        };
        run(&dataset, commit).unwrap();
    }
}

fn fixture_2() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-2")
}

/// Made the second fixture once: `backup` was saved after compaction, with an id removed whose
/// row is still there, and `store` is what became of a copy of it.
#[test]
#[ignore = "writes a new fixture"]
fn make_the_second_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 700,
        ..Options::default()
    };
    let files = Files::open(dir.path(), options.clone()).unwrap();
    let dataset = files.open("a name\nof two lines", true).unwrap();
    for (at, rows) in input().iter().enumerate() {
        let mut writes = vec![set("pipe:x", &state_key(at), &vec![at as u8; 1 + at * 200])];
        if at == 3 {
            writes.push(unset("pipe:x", &state_key(0)));
        }
        let commit = Commit {
            state: &writes,
            populated: at == 1,
            now: NOW,
            ..commit(rows)
        };
        run(&dataset, commit).unwrap();
    }
    let at = |now: i64, rows: &Batch| {
        run(
            &dataset,
            Commit {
                now,
                ..commit(rows)
            },
        )
        .unwrap()
    };
    at(NOW + 100, &batch([deleted("person:1", 1)]));
    let rules = Compaction {
        keep_versions: Some(1),
        erase: &["person:2"],
        least_dead: 0.0,
        ..Compaction::default()
    };
    dataset.compact(&rules).unwrap();
    at(
        NOW + 200,
        &batch([entity("person:2", 2), entity("person:4", 4)]),
    );
    let rules = Compaction {
        deleted_before: Some(NOW + 150),
        least_dead: 2.0,
        ..Compaction::default()
    };
    dataset.compact(&rules).unwrap();
    files.backup(&fixture_2().join("backup")).unwrap();
    copy(&fixture_2().join("backup"), &fixture_2().join("store"));
    let files = Files::open(&fixture_2().join("store"), options).unwrap();
    let dataset = files.open("a name\nof two lines", false).unwrap();
    let rows = batch([entity("person:1", 16)]);
    let commit = Commit {
        now: NOW + 300,
        ..commit(&rows)
    };
    run(&dataset, commit).unwrap();
    for folder in ["backup", "store"] {
        let _ = fs::remove_file(fixture_2().join(folder).join("LOCK"));
    }
}

fn fixture_3() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-3")
}

/// Made the third fixture once: the first two commits of the input are seen, the others are held
/// back; an earlier one was held back and shown.
#[test]
#[ignore = "writes a new fixture"]
fn make_the_third_fixture() {
    let options = Options {
        segment_bytes: 700,
        ..Options::default()
    };
    let files = Files::open(&fixture_3(), options).unwrap();
    let dataset = files.open("a name\nof two lines", true).unwrap();
    for (at, rows) in input().iter().enumerate() {
        let value = vec![at as u8; 1 + at * 200];
        let commit = Commit {
            state: &[set("pipe:x", b"k", &value)],
            populated: at == 1,
            now: NOW,
            show: [Show::Later, Show::All, Show::Later, Show::Later][at],
            ..commit(rows)
        };
        run(&dataset, commit).unwrap();
    }
    drop((dataset, files));
    let _ = fs::remove_file(fixture_3().join("LOCK"));
}

fn copy_of_store(to: &Path) {
    copy(&fixture().join("store"), to);
}

fn copy(from: &Path, to: &Path) {
    for entry in walk(from) {
        let target = to.join(entry.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&entry, target).unwrap();
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_store_of_format_1_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    copy_of_store(dir.path());
    let files = Files::open(dir.path(), Options::default()).unwrap();
    let dataset = files.open("a name\nof two lines", false).unwrap();
    let snapshot = dataset.snapshot().unwrap();
    let mut out = Batch::new();
    snapshot.changes(None, HISTORY, ALL, &mut out).unwrap();
    let rows = input();
    let rows = rows.iter().flat_map(Batch::iter);
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for (seq, (found, expected)) in out.iter().zip(rows).enumerate() {
        let id = expected.id.unwrap();
        assert_eq!(found.id, Some(id));
        assert_eq!(found.meta.deleted, expected.meta.deleted);
        assert_eq!(
            found.hash(),
            expected.hash(),
            "{id}: the content is the same"
        );
        assert_eq!(found.meta.updated, Some(Offset::Int(seq as i64)));
        assert_eq!(
            found.meta.previous,
            latest.insert(id.to_owned(), seq as u64)
        );
        assert_eq!(found.meta.ts, NOW + seq as i64);
    }
    assert_eq!(out.len(), 13);
    let head = snapshot.head();
    assert_eq!(
        (head.next, head.live, head.deleted, head.populated),
        (13, 7, 0, true)
    );
    assert_eq!(snapshot.state("pipe:x", b"").unwrap(), state());
    let rows = input().pop().unwrap();
    let outcome = run(&dataset, commit(&rows)).unwrap();
    assert_eq!(
        (outcome.written, outcome.seqs[0]),
        (2, Some(9)),
        "only person:4 goes back and forth"
    );
}

#[test]
fn a_store_of_format_2_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, expected, latest) in [
        (
            "backup",
            vec![4, 8, 9, 11, 12, 13, 14, 15],
            vec![4, 8, 9, 12, 14, 15],
        ),
        (
            "store",
            vec![4, 8, 9, 11, 12, 13, 14, 15, 16],
            vec![4, 8, 9, 12, 14, 15, 16],
        ),
    ] {
        let root = dir.path().join(folder);
        copy(&fixture_2().join(folder), &root);
        let files = Files::open(&root, Options::default()).unwrap();
        let dataset = files.open("a name\nof two lines", false).unwrap();
        let snapshot = dataset.snapshot().unwrap();
        let seqs = |view| {
            let mut out = Batch::new();
            snapshot.changes(None, view, ALL, &mut out).unwrap();
            let seq = |updated: &Option<Offset>| match updated {
                Some(Offset::Int(seq)) => *seq,
                other => panic!("expected a sequence, found {other:?}"),
            };
            out.iter()
                .map(|row| seq(&row.meta.updated))
                .collect::<Vec<_>>()
        };
        assert_eq!(seqs(HISTORY), expected);
        assert_eq!(seqs(LATEST), latest);
        let head = snapshot.head();
        assert_eq!(
            (head.live, head.deleted, head.populated),
            (latest.len() as u64, 0, true)
        );
        assert_eq!(head.past.len(), 1);
        assert_eq!(head.past[0].next, 16);
        assert_eq!(snapshot.state("pipe:x", b"").unwrap(), state());
        let hashes: BTreeMap<String, u128> = input()
            .iter()
            .flat_map(Batch::iter)
            .map(|row| (row.id.unwrap().to_owned(), row.hash()))
            .collect();
        let mut out = Batch::new();
        let ids = ["person:3", "wide"];
        snapshot.latest(&ids, &mut out).unwrap();
        for row in out.iter() {
            assert_eq!(row.hash(), hashes[row.id.unwrap()]);
        }
        drop(snapshot);
        let outcome = write(&dataset, [entity("person:2", 2), entity("person:1", 17)]);
        assert_eq!((outcome.written, outcome.seqs[0]), (1, Some(14)));
    }
}

#[test]
fn a_store_of_format_3_opens_for_ever_and_holds_back_what_it_did() {
    let seen: usize = input()[..2].iter().map(Batch::len).sum();
    for rolled_back in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture_3(), dir.path());
        let files = Files::open(dir.path(), Options::default()).unwrap();
        let dataset = files.open("a name\nof two lines", false).unwrap();
        let snapshot = dataset.snapshot().unwrap();
        assert_eq!(changed(&*snapshot), seen);
        assert!(snapshot.head().holds && snapshot.head().populated);
        let state = snapshot.state("pipe:x", b"").unwrap();
        assert_eq!(state, [(b"k".to_vec(), vec![1; 201])]);
        assert_eq!(changed(&*dataset.uncommitted().unwrap()), 13);
        if rolled_back {
            dataset.roll_back().unwrap();
            assert_eq!(changed(&*dataset.snapshot().unwrap()), seen);
            let outcome = write(&dataset, [entity("x", 1)]);
            assert_eq!(outcome.seqs, [Some(seen as u64)]);
        } else {
            let nothing = Batch::new();
            let all = Commit {
                show: Show::All,
                ..commit(&nothing)
            };
            run(&dataset, all).unwrap();
            assert_eq!(changed(&*dataset.snapshot().unwrap()), 13);
        }
    }
}

fn changed(snapshot: &dyn Snapshot) -> usize {
    let mut out = Batch::new();
    snapshot.changes(None, HISTORY, ALL, &mut out).unwrap();
    out.len()
}

#[test]
fn the_document_describes_what_is_held_back() {
    let mut border = Border {
        next: 0,
        commit: 0,
        sum: 0,
    };
    let mut marks = Vec::new();
    for path in walk(&fixture_3()) {
        if path.extension().is_some_and(|end| end == "log") {
            marks.extend(Document::read(&fs::read(path).unwrap(), &mut border).marks);
        }
    }
    let held: Vec<u64> = marks.iter().map(|marks| marks & 12).collect();
    // The last one says that those before it are durable.
    assert_eq!(held, [4, 8, 4, 4, 4]);
}

/// Reads a segment by `docs/format.md` and nothing else.
struct Document<'a> {
    bytes: &'a [u8],
    salt: u32,
    /// Sequence, deleted, previous, id, names, body.
    rows: Vec<DocumentRow>,
    shapes: Vec<Vec<String>>,
    format: u64,
    /// Id and sequence of what the frames remove, and how many rows stand before that.
    removals: Vec<(String, u64, usize)>,
    /// Keys of the state, and whether they are set.
    state: Vec<(Vec<u8>, bool)>,
    commit: u64,
    marks: Vec<u64>,
}

/// Where a segment ends, and the next one begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Border {
    next: u64,
    commit: u64,
    sum: u32,
}

type DocumentRow = (u64, bool, u64, String, Vec<String>, Vec<u8>);

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}

fn text(bytes: &mut &[u8]) -> String {
    let len = varint(bytes) as usize;
    let (text, rest) = bytes.split_at(len);
    *bytes = rest;
    String::from_utf8(text.to_vec()).unwrap()
}

fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

impl<'a> Document<'a> {
    fn read(bytes: &'a [u8], border: &mut Border) -> Document<'a> {
        assert_eq!(&bytes[..8], b"TAHINILG");
        let format = number(bytes, 8, 4);
        let begins = Border {
            next: number(bytes, 32, 8),
            commit: number(bytes, 40, 8),
            sum: number(bytes, 48, 4) as u32,
        };
        assert_eq!(begins, *border, "it follows the segment before");
        let fixed = if format == 1 { 56 } else { 76 };
        let header = fixed + number(bytes, 52, 4) as usize;
        let salt = number(bytes, header, 4) as u32;
        assert_eq!(salt, crc(0, &bytes[..header]));
        let closed = (format > 1).then(|| Border {
            commit: number(bytes, 56, 8),
            next: number(bytes, 64, 8),
            sum: number(bytes, 72, 4) as u32,
        });
        let closed = closed.filter(|closed| closed.commit > 0);
        let mut document = Document {
            bytes,
            salt,
            rows: Vec::new(),
            shapes: Vec::new(),
            format,
            removals: Vec::new(),
            state: Vec::new(),
            commit: begins.commit,
            marks: Vec::new(),
        };
        let mut at = header + 4;
        while at < bytes.len() && &bytes[at..at + 4] == b"TFR1" {
            at = document.frame(at, &mut border.sum, closed);
        }
        assert!(at == bytes.len() || &bytes[at..at + 4] == b"TFT1");
        border.next += document.rows.len() as u64;
        border.commit = document.commit;
        if let Some(closed) = closed {
            assert_eq!(document.commit, closed.commit);
            *border = closed;
        }
        if at < bytes.len() {
            document.footer(at, *border);
        }
        document
    }

    fn footer(&self, at: usize, border: Border) {
        let footer = &self.bytes[at..];
        let found = Border {
            commit: number(footer, 4, 8),
            next: number(footer, 12, 8),
            sum: number(footer, 20, 4) as u32,
        };
        assert_eq!(found, border);
        if self.format > 1 {
            assert_eq!(number(footer, 24, 8) as usize, self.rows.len());
        }
        let len = footer.len();
        assert_eq!(number(footer, len - 12, 4) as usize, len);
        assert_eq!(
            number(footer, len - 8, 4) as u32,
            crc(self.salt, &footer[..len - 8])
        );
        assert_eq!(&footer[len - 4..], b"TFE1");
    }

    fn frame(&mut self, at: usize, previous: &mut u32, closed: Option<Border>) -> usize {
        let frame = &self.bytes[at..];
        assert_eq!(number(frame, 4, 4) as u32, crc(self.salt, &frame[8..64]));
        assert_eq!(number(frame, 32, 4) as u32, *previous);
        let [blocks, shapes, state, removals] =
            [40, 44, 48, 60].map(|at| number(frame, at, 4) as usize);
        let len = 64 + blocks + shapes + state + removals + 8;
        let commit = number(frame, 8, 8);
        assert!(commit == self.commit + 1 || (closed.is_some() && commit > self.commit));
        self.commit = commit;
        self.marks.push(number(frame, 56, 4));
        assert_eq!(number(frame, len - 8, 4) as usize, len);
        assert_eq!(
            number(frame, len - 4, 4) as u32,
            crc(self.salt, &frame[..len - 4])
        );
        *previous = number(frame, len - 4, 4) as u32;
        let mut names = &frame[64 + blocks..64 + blocks + shapes];
        while !names.is_empty() {
            let count = varint(&mut names);
            self.shapes
                .push((0..count).map(|_| text(&mut names)).collect());
        }
        let at_state = 64 + blocks + shapes;
        self.state(
            &frame[at_state..at_state + state],
            number(frame, 56, 4) & 2 != 0,
        );
        let mut removed = &frame[at_state + state..len - 8];
        while !removed.is_empty() {
            let id = text(&mut removed);
            let seq = varint(&mut removed);
            self.removals.push((id, seq, self.rows.len()));
            removed = &removed[1..];
        }
        let before = self.rows.len();
        let mut block = &frame[64..64 + blocks];
        while !block.is_empty() {
            let stored = 32 + number(block, 8, 4) as usize;
            self.block(&block[..stored]);
            block = &block[stored..];
        }
        assert_eq!(self.rows.len() - before, number(frame, 36, 4) as usize);
        at + len
    }

    fn state(&mut self, section: &[u8], compressed: bool) {
        let unpacked = if compressed {
            let len = number(section, 0, 4) as usize;
            lz4_flex::block::decompress(&section[4..], len).unwrap()
        } else {
            section.to_vec()
        };
        let mut rest = unpacked.as_slice();
        while !rest.is_empty() {
            let len = varint(&mut rest) as usize;
            let (key, after) = rest.split_at(len);
            let set = after[0] == 1;
            rest = &after[1..];
            if set {
                let len = varint(&mut rest) as usize;
                rest = &rest[len..];
            }
            self.state.push((key.to_vec(), set));
        }
    }

    fn block(&mut self, block: &[u8]) {
        assert_eq!(number(block, 0, 4) as u32, crc(self.salt, &block[4..]));
        let raw = number(block, 4, 4) as u32;
        let rows = match raw >> 31 {
            1 => block[32..].to_vec(),
            _ => lz4_flex::block::decompress(&block[32..], raw as usize).unwrap(),
        };
        let mut rest = rows.as_slice();
        let mut seq = number(block, 16, 8);
        for _ in 0..number(block, 12, 4) {
            let len = varint(&mut rest) as usize;
            let (mut row, after) = rest.split_at(len);
            rest = after;
            let flags = row[0];
            row = &row[1..];
            seq += varint(&mut row);
            varint(&mut row);
            let back = varint(&mut row);
            let id = text(&mut row);
            let names = match varint(&mut row) {
                0 => (0..varint(&mut row)).map(|_| text(&mut row)).collect(),
                shape => self.shapes[shape as usize - 1].clone(),
            };
            self.rows
                .push((seq, flags & 1 == 1, back, id, names, row.to_vec()));
            seq += 1;
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn the_document_describes_the_bytes() {
    let logs: Vec<PathBuf> = walk(&fixture().join("store"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    assert!(logs.len() >= 2, "with a sealed segment");
    let mut border = Border {
        next: 0,
        commit: 0,
        sum: 0,
    };
    let mut rows = Vec::new();
    for log in logs {
        rows.extend(Document::read(&fs::read(log).unwrap(), &mut border).rows);
    }
    let commits = input();
    let expected: Vec<_> = commits.iter().flat_map(Batch::iter).collect();
    assert_eq!(rows.len(), expected.len());
    for (at, ((seq, deleted, _, id, names, body), expected)) in
        rows.iter().zip(&expected).enumerate()
    {
        assert_eq!((*seq, *deleted), (at as u64, expected.meta.deleted));
        assert_eq!(Some(id.as_str()), expected.id);
        let kept: Vec<&str> = expected
            .shape
            .names()
            .iter()
            .map(|name| name.as_str())
            .collect();
        if !expected.meta.reserved {
            assert_eq!(
                (
                    names.iter().map(String::as_str).collect::<Vec<_>>(),
                    body.as_slice()
                ),
                (kept, expected.body)
            );
        }
    }
    let backs: Vec<u64> = rows.iter().map(|row| row.2).collect();
    assert_eq!(backs, [0, 0, 0, 0, 0, 5, 4, 0, 5, 3, 3, 1, 0]);
}

#[test]
fn the_document_describes_compacted_segments_removals_and_manifests() {
    let root = fixture_2().join("store/datasets");
    let dataset = fs::read_dir(&root).unwrap().next().unwrap().unwrap().path();
    let manifest = fs::read_to_string(dataset.join("MANIFEST")).unwrap();
    let lines: Vec<&str> = manifest.lines().collect();
    assert_eq!(lines[..2], ["tahini dataset", "format 2"]);
    let (summed, sum) = manifest.rsplit_once("crc ").unwrap();
    assert_eq!(sum.trim_end(), format!("{:08x}", crc(0, summed.as_bytes())));
    let generation = lines[2].strip_prefix("generation ").unwrap();
    let past: Vec<&str> = lines[5].split(' ').collect();
    assert_eq!((past[0], past[2]), ("past", "16"));
    assert_eq!(past[1], dataset.file_name().unwrap().to_str().unwrap());
    assert_ne!(past[1], generation);

    let take = |latest: &mut BTreeMap<String, u64>, removed: &mut Vec<String>, id: &str, seq| {
        if latest.get(id) == Some(&seq) {
            latest.remove(id);
            removed.push(id.to_owned());
        }
    };
    let mut border = Border {
        next: 0,
        commit: 0,
        sum: 0,
    };
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    let mut state: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let (mut seqs, mut removed, mut compacted) = (Vec::new(), Vec::new(), 0);
    for segment in lines[4].split(' ').skip(1) {
        let log = dataset.join(format!("{:06}.log", segment.parse::<u32>().unwrap()));
        let bytes = fs::read(log).unwrap();
        compacted += usize::from(number(&bytes, 56, 8) > 0);
        let document = Document::read(&bytes, &mut border);
        let mut removals = document.removals.into_iter().peekable();
        for (at, (seq, _, _, id, ..)) in document.rows.into_iter().enumerate() {
            while let Some((id, seq, _)) = removals.next_if(|(_, _, before)| *before <= at) {
                take(&mut latest, &mut removed, &id, seq);
            }
            seqs.push(seq);
            latest.insert(id, seq);
        }
        removals.for_each(|(id, seq, _)| take(&mut latest, &mut removed, &id, seq));
        state.extend(document.state);
    }
    assert!(compacted > 0);
    assert_eq!(seqs, [4, 8, 9, 11, 12, 13, 14, 15, 16]);
    assert_eq!(removed, ["person:1"]);
    let mut newest: Vec<u64> = latest.into_values().collect();
    newest.sort_unstable();
    assert_eq!(newest, [4, 8, 9, 12, 14, 15, 16]);
    let keys = [1, 2, 3].map(|at| [b"pipe:x\0".to_vec(), state_key(at)].concat());
    let set: Vec<_> = state.into_iter().filter(|(_, set)| *set).collect();
    let expected: BTreeMap<_, _> = keys.into_iter().map(|key| (key, true)).collect();
    assert_eq!(set, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(border.next, 17);
}
