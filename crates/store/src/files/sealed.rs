//! Checks in the rows of an index: LMDB notices no byte that changed under it.

use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::rule::Prior;

/// A row of the table `latest`: the lower 6 bytes of the sequence, 3 bytes of which the lowest bit
/// says that the version is deleted and the others are the check, the lower half of the hash.
pub(crate) const LATEST: usize = 17;
/// A check that stands behind what it is of.
const SUM: usize = 4;
/// Bytes of a sequence; no dataset gets that far.
const SEQ: usize = 6;

/// What the checks of one dataset's index begin with: no other one's rows pass.
#[derive(Clone, Copy)]
pub(crate) struct Seal(u64);

impl Seal {
    /// The seal of a dataset's generation.
    pub fn of(generation: Uuid) -> Seal {
        Seal(xxh3_64(generation.as_bytes()))
    }

    fn sum(self, key: &[u8], row: &[u8]) -> u64 {
        xxh3_64_with_seed(row, xxh3_64_with_seed(key, self.0))
    }

    /// The row of a latest version.
    pub fn close_latest(self, key: &[u8], latest: &Prior) -> [u8; LATEST] {
        let mut row = [0; LATEST];
        row[..SEQ].copy_from_slice(&latest.seq.to_le_bytes()[..SEQ]);
        row[SEQ] = u8::from(latest.deleted);
        row[SEQ + 3..].copy_from_slice(&latest.hash.to_le_bytes());
        // A sequence that did not fit would fail its check and not be taken for another one.
        let check = self.sum(key, &row) ^ latest.seq >> (8 * SEQ);
        let tag = (check as u32) << 1 | u32::from(latest.deleted);
        row[SEQ..SEQ + 3].copy_from_slice(&tag.to_le_bytes()[..3]);
        row
    }

    /// What a row of a latest version says; `None` when it or its key is not what was written.
    pub fn latest(self, key: &[u8], row: &[u8]) -> Option<Prior> {
        let row: &[u8; LATEST] = row.try_into().ok()?;
        let number = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let latest = Prior {
            seq: number(&row[..SEQ]),
            hash: number(&row[SEQ + 3..]),
            deleted: row[SEQ] & 1 == 1,
        };
        (self.close_latest(key, &latest) == *row).then_some(latest)
    }

    /// Puts the check behind any other row.
    pub fn close(self, key: &[u8], row: &mut Vec<u8>) {
        let sum = self.sum(key, row) as u32;
        row.extend_from_slice(&sum.to_le_bytes());
    }

    /// A row without its check; `None` when it or its key is not what was written.
    pub fn open<'r>(self, key: &[u8], row: &'r [u8]) -> Option<&'r [u8]> {
        let (row, sum) = row.split_at_checked(row.len().checked_sub(SUM)?)?;
        (sum == (self.sum(key, row) as u32).to_le_bytes()).then_some(row)
    }

    /// The row of a key that says no more than yes or no: that bit and 15 of the check.
    pub fn close_mark(self, key: &[u8], mark: bool) -> [u8; 2] {
        let check = self.sum(key, &[u8::from(mark)]) as u16;
        (check << 1 | u16::from(mark)).to_le_bytes()
    }

    /// What such a row says; `None` when it or its key is not what was written.
    pub fn mark(self, key: &[u8], row: &[u8]) -> Option<bool> {
        let mark = row.first()? & 1 == 1;
        (self.close_mark(key, mark) == row).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal(7);
    const KEY: &[u8] = b"person:12";

    fn every_flip(bytes: &[u8], mut look: impl FnMut(&[u8])) {
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            look(&changed);
        }
    }

    #[test]
    fn a_latest_version_comes_back_and_a_changed_one_does_not() {
        for (seq, deleted) in [(0, false), (5, true), ((1 << 48) - 1, false)] {
            let latest = Prior {
                seq,
                hash: 0x0123_4567_89AB_CDEF,
                deleted,
            };
            let row = SEAL.close_latest(KEY, &latest);
            assert_eq!(SEAL.latest(KEY, &row), Some(latest));
            every_flip(&row, |row| assert_eq!(SEAL.latest(KEY, row), None));
            every_flip(KEY, |key| assert_eq!(SEAL.latest(key, &row), None));
            assert_eq!(Seal(8).latest(KEY, &row), None, "another dataset's");
            assert_eq!(SEAL.latest(KEY, &row[1..]), None);
        }
        let beyond = Prior {
            seq: 3 << 48,
            hash: 1,
            deleted: false,
        };
        let row = SEAL.close_latest(KEY, &beyond);
        assert_eq!(SEAL.latest(KEY, &row), None, "and not version 0");
    }

    #[test]
    fn other_rows_come_back_and_changed_ones_do_not() {
        let mut row = b"some state".to_vec();
        SEAL.close(KEY, &mut row);
        assert_eq!(SEAL.open(KEY, &row), Some(&b"some state"[..]));
        every_flip(&row, |row| assert_eq!(SEAL.open(KEY, row), None));
        every_flip(KEY, |key| assert_eq!(SEAL.open(key, &row), None));
        assert_eq!(SEAL.open(KEY, b"abc"), None);
        for mark in [false, true] {
            let row = SEAL.close_mark(KEY, mark);
            assert_eq!(SEAL.mark(KEY, &row), Some(mark));
            every_flip(&row, |row| assert_eq!(SEAL.mark(KEY, row), None));
            every_flip(KEY, |key| assert_eq!(SEAL.mark(key, &row), None));
        }
        assert_eq!(SEAL.mark(KEY, &[]), None);
    }
}
