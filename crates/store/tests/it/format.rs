//! The format on disk: a store that must open for ever, and a reader that knows only the document.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tahini_entity::json::{Numbers, Parser};
use tahini_entity::{Batch, Offset};
use tahini_store::{Backend, Commit, Files, Options};

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

fn copy_of_store(to: &Path) {
    for entry in walk(&fixture().join("store")) {
        let target = to.join(entry.strip_prefix(fixture().join("store")).unwrap());
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
            found.meta.hash, expected.meta.hash,
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

/// Reads a segment by `docs/format.md` and nothing else.
struct Document<'a> {
    bytes: &'a [u8],
    salt: u32,
    /// Sequence, deleted, previous, id, names, body.
    rows: Vec<DocumentRow>,
    shapes: Vec<Vec<String>>,
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

impl Document<'_> {
    fn read(bytes: &[u8], previous: &mut u32) -> Vec<DocumentRow> {
        assert_eq!(&bytes[..8], b"TAHINILG");
        assert_eq!(number(bytes, 8, 4), 1);
        assert_eq!(number(bytes, 48, 4) as u32, *previous);
        let header = 56 + number(bytes, 52, 4) as usize;
        let salt = number(bytes, header, 4) as u32;
        assert_eq!(salt, crc(0, &bytes[..header]));
        let mut document = Document {
            bytes,
            salt,
            rows: Vec::new(),
            shapes: Vec::new(),
        };
        let mut at = header + 4;
        while at < bytes.len() && &bytes[at..at + 4] == b"TFR1" {
            at = document.frame(at, previous);
        }
        assert!(at == bytes.len() || &bytes[at..at + 4] == b"TFT1");
        document.rows
    }

    fn frame(&mut self, at: usize, previous: &mut u32) -> usize {
        let frame = &self.bytes[at..];
        assert_eq!(number(frame, 4, 4) as u32, crc(self.salt, &frame[8..64]));
        assert_eq!(number(frame, 32, 4) as u32, *previous);
        let [blocks, shapes, state] = [40, 44, 48].map(|at| number(frame, at, 4) as usize);
        let len = 64 + blocks + shapes + state + 8;
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
    let mut previous = 0;
    let mut rows = Vec::new();
    for log in logs {
        rows.extend(Document::read(&fs::read(log).unwrap(), &mut previous));
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
