//! The bytes of declared indexes on disk. `docs/format.md` has them, too.

use uuid::Uuid;

use crate::Seq;
use crate::files::wire::{Reader, put_bytes};

/// The layout of rows and notes; another one means that all is built anew.
const LAYOUT: u32 = 2;
/// Under which the notes stand in the table `meta`.
pub(super) const NOTES: &[u8] = b"declared";
/// Under which the versions stand that compaction took.
pub(super) const GONE: &[u8] = b"gone";

/// A row's key in bytes.
pub(super) const ROW: usize = 28;

/// That a version has a key, or lost it: in the order of index, key, sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub number: u32,
    pub key: u128,
    pub seq: Seq,
}

impl Row {
    /// Big-endian, so that bytes sort as rows do.
    pub fn bytes(&self) -> [u8; ROW] {
        let mut bytes = [0; ROW];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..20].copy_from_slice(&self.key.to_be_bytes());
        bytes[20..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// The bytes of an index's first row, or those before it.
    pub fn first_of(number: u32) -> [u8; ROW] {
        let (key, seq) = (0, 0);
        Row { number, key, seq }.bytes()
    }

    /// The sequence of a row; `None` for bytes that are none.
    pub fn seq(bytes: &[u8]) -> Option<Seq> {
        let seq = bytes.get(20..).filter(|_| bytes.len() == ROW)?;
        seq.try_into().ok().map(Seq::from_be_bytes)
    }

    /// The index of a row.
    pub fn number(bytes: &[u8]) -> Option<u32> {
        let number = bytes.get(..4)?;
        number.try_into().ok().map(u32::from_be_bytes)
    }
}

/// What is noted of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub number: u32,
    /// The versions before this one are in it.
    pub next: Seq,
    /// How many rows it has.
    pub entries: u64,
    /// The newest version that is in it, and what it is told by: another log has another there.
    pub newest: Option<(Seq, u64)>,
    /// It had all versions once.
    pub ready: bool,
    /// Compaction took versions before this sequence that were in it: what those had lost, the
    /// versions after them have lost, too, and no row says so.
    pub gone_until: Seq,
}

/// The notes on all indexes of a dataset, with their fingerprints.
pub(super) struct Notes {
    pub generation: Uuid,
    /// The number that the next index gets.
    pub fresh: u32,
    pub saved: Vec<(String, Saved)>,
    /// Indexes whose rows are to be removed.
    pub dropped: Vec<u32>,
}

impl Notes {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = LAYOUT.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.generation.as_u128().to_le_bytes());
        bytes.extend_from_slice(&self.fresh.to_le_bytes());
        bytes.extend_from_slice(&(self.saved.len() as u32).to_le_bytes());
        for (fingerprint, saved) in &self.saved {
            put_bytes(fingerprint.as_bytes(), &mut bytes);
            bytes.extend_from_slice(&saved.number.to_le_bytes());
            bytes.extend_from_slice(&saved.next.to_le_bytes());
            bytes.extend_from_slice(&saved.entries.to_le_bytes());
            let (seq, mark) = saved.newest.unwrap_or((Seq::MAX, 0));
            bytes.extend_from_slice(&seq.to_le_bytes());
            bytes.extend_from_slice(&mark.to_le_bytes());
            bytes.push(u8::from(saved.ready));
            bytes.extend_from_slice(&saved.gone_until.to_le_bytes());
        }
        for number in &self.dropped {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Notes> {
        let mut reader = Reader(bytes);
        if reader.u32()? != LAYOUT {
            return None;
        }
        let generation = Uuid::from_u128(reader.u128()?);
        let fresh = reader.u32()?;
        let mut saved = Vec::new();
        for _ in 0..reader.u32()? {
            let fingerprint = reader.text()?.to_owned();
            let (number, next, entries) = (reader.u32()?, reader.u64()?, reader.u64()?);
            let newest = (reader.u64()?, reader.u64()?);
            let one = Saved {
                number,
                next,
                entries,
                newest: (newest.0 != Seq::MAX).then_some(newest),
                ready: reader.u8()? == 1,
                gone_until: reader.u64()?,
            };
            saved.push((fingerprint, one));
        }
        let mut dropped = Vec::new();
        while !reader.is_empty() {
            dropped.push(reader.u32()?);
        }
        Some(Notes {
            generation,
            fresh,
            saved,
            dropped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_as_their_bytes() {
        let row = |number, key, seq| Row { number, key, seq };
        let rows = [
            row(1, 0, 9),
            row(1, 1, 0),
            row(1, 1, 256),
            row(1, u128::MAX, 1),
            row(2, 0, 0),
        ];
        assert!(rows.is_sorted());
        assert!(rows.iter().map(Row::bytes).is_sorted());
        assert_eq!(Row::seq(&rows[2].bytes()), Some(256));
        assert_eq!(Row::number(&rows[4].bytes()), Some(2));
        assert_eq!(Row::seq(&[0; 27]), None);
    }

    #[test]
    fn notes_come_back_and_cut_ones_do_not() {
        let saved = Saved {
            number: 3,
            next: 10,
            entries: 7,
            newest: Some((9, 5)),
            ready: true,
            gone_until: 4,
        };
        let notes = Notes {
            generation: Uuid::from_u128(8),
            fresh: 4,
            saved: vec![
                ("\"_.x\"".to_owned(), saved),
                (String::new(), Saved::default()),
            ],
            dropped: vec![1, 2],
        };
        let bytes = notes.encode();
        let back = Notes::decode(&bytes).unwrap();
        assert_eq!(back.saved, notes.saved);
        assert_eq!(back.dropped, [1, 2]);
        assert_eq!((back.generation, back.fresh), (notes.generation, 4));
        assert!(Notes::decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(Notes::decode(&bytes[..20]).is_none());
    }
}
