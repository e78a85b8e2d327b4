//! Rows of indexes that are being built, in sorted runs beside the index until all are there.
//!
//! The rows of a tenth of the log lie all over the tree: written by themselves they change each of
//! its pages, all of which are in memory until that is done. Written in the order of keys, all
//! rows change each page once, however many there are, and memory holds a piece of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::rows::{ROW, Row};

/// What each run has in memory while it is written or read.
const BUFFER: usize = 64 << 10;

/// Sorted runs of rows, which are merged when all of them are there.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<BufReader<File>>,
    /// The next row of each run, once they are merged.
    next: Option<BinaryHeap<Reverse<(Row, bool, usize)>>>,
}

impl Runs {
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether rows were taken already: no more are added then.
    pub fn is_merging(&self) -> bool {
        self.next.is_some()
    }

    /// Adds rows, which are in order, in a file in `dir` that goes with the process.
    pub fn add(&mut self, dir: &Path, rows: impl Iterator<Item = (Row, bool)>) -> io::Result<()> {
        let path = dir.join(format!("building-{}", self.runs.len()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        for (row, left) in rows {
            writer.write_all(&row.bytes())?;
            writer.write_all(&[u8::from(left)])?;
        }
        let mut file = writer.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        self.runs.push(BufReader::with_capacity(BUFFER, file));
        Ok(())
    }

    /// The next rows of all runs together, in order, at most `most`; none at the end.
    pub fn take(&mut self, most: usize) -> io::Result<Vec<(Row, bool)>> {
        let mut heap = match self.next.take() {
            Some(heap) => heap,
            None => {
                let mut heap = BinaryHeap::new();
                for (at, run) in self.runs.iter_mut().enumerate() {
                    heap.extend(read(run)?.map(|(row, left)| Reverse((row, left, at))));
                }
                heap
            }
        };
        let mut rows = Vec::new();
        while rows.len() < most
            && let Some(Reverse((row, left, at))) = heap.pop()
        {
            rows.push((row, left));
            heap.extend(read(&mut self.runs[at])?.map(|(row, left)| Reverse((row, left, at))));
        }
        self.next = Some(heap);
        Ok(rows)
    }
}

fn read(run: &mut BufReader<File>) -> io::Result<Option<(Row, bool)>> {
    let mut bytes = [0; ROW + 1];
    match run.read_exact(&mut bytes) {
        Ok(()) => Ok(Row::of_bytes(&bytes[..ROW]).map(|row| (row, bytes[ROW] == 1))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_taken_in_one_order() {
        let dir = tempfile::tempdir().unwrap();
        let row = |key: u128, seq| Row {
            number: 1 + (key % 2) as u32,
            key: key * 7919 % 101,
            seq,
        };
        let mut all: Vec<(Row, bool)> = (0..1_000)
            .map(|at| (row(at, at as u64), at % 3 == 0))
            .collect();
        let mut runs = Runs::default();
        for some in all.chunks(130) {
            let mut some = some.to_vec();
            some.sort_unstable();
            runs.add(dir.path(), some.into_iter()).unwrap();
        }
        assert!(!runs.is_merging());
        let (mut found, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let rows = runs.take(300).unwrap();
            sizes.push(rows.len());
            found.extend(rows);
            if sizes.last() == Some(&0) {
                break;
            }
        }
        all.sort_unstable();
        assert_eq!(found, all);
        assert_eq!(sizes, [300, 300, 300, 100, 0]);
        assert!(runs.is_merging());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "no name stays"
        );
    }
}
