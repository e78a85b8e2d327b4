//! Which versions have a newer one: a bitmap that snapshots share with the writer.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::{RoaringBitmap, RoaringTreemap};

use crate::Seq;

/// Sequences of versions that were superseded. Cloning shares the chunks; a writer copies the
/// chunk that it touches, so a snapshot keeps what it saw.
#[derive(Clone, Default)]
pub(crate) struct Superseded(Arc<Vec<Arc<RoaringBitmap>>>);

/// One chunk covers 65,536 versions and takes at most 8 KiB.
const CHUNK_BITS: u32 = 16;

impl Superseded {
    pub fn contains(&self, seq: Seq) -> bool {
        let chunk = self.0.get((seq >> CHUNK_BITS) as usize);
        chunk.is_some_and(|chunk| chunk.contains(seq as u16 as u32))
    }

    /// Marks `seq` and returns the number of the chunk that changed.
    pub fn insert(&mut self, seq: Seq) -> u32 {
        let number = (seq >> CHUNK_BITS) as usize;
        let chunks = Arc::make_mut(&mut self.0);
        if chunks.len() <= number {
            chunks.resize_with(number + 1, Arc::default);
        }
        Arc::make_mut(&mut chunks[number]).insert(seq as u16 as u32);
        number as u32
    }

    /// Forgets the versions in `gone`, which are no more; returns the chunks that changed.
    pub fn remove(&mut self, gone: &RoaringTreemap) -> BTreeSet<u32> {
        let chunks = Arc::make_mut(&mut self.0);
        let mut changed = BTreeSet::new();
        for seq in gone {
            let number = (seq >> CHUNK_BITS) as usize;
            if let Some(chunk) = chunks.get_mut(number)
                && chunk.contains(seq as u16 as u32)
            {
                Arc::make_mut(chunk).remove(seq as u16 as u32);
                changed.insert(number as u32);
            }
        }
        changed
    }

    /// How many versions are superseded.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.len()).sum()
    }

    /// How many versions from `first` up to but not including `next` are superseded.
    pub fn count(&self, first: Seq, next: Seq) -> u64 {
        let span = 1 << CHUNK_BITS;
        let mut count = 0;
        for number in (first >> CHUNK_BITS)..=(next >> CHUNK_BITS) {
            let Some(chunk) = self.0.get(number as usize) else {
                break;
            };
            let start = number << CHUNK_BITS;
            let from = first.saturating_sub(start) as u32;
            let until = next.saturating_sub(start).min(span) as u32;
            count += chunk.range_cardinality(from..until);
        }
        count
    }

    /// The stored form of a chunk.
    pub fn chunk(&self, number: u32) -> Vec<u8> {
        let chunk = &self.0[number as usize];
        let mut bytes = Vec::with_capacity(chunk.serialized_size());
        chunk
            .serialize_into(&mut bytes)
            .expect("a vector takes every write");
        bytes
    }

    /// Takes a chunk back from its stored form.
    pub fn restore(&mut self, number: u32, bytes: &[u8]) -> std::io::Result<()> {
        let chunk = RoaringBitmap::deserialize_from(bytes)?;
        let chunks = Arc::make_mut(&mut self.0);
        if chunks.len() <= number as usize {
            chunks.resize_with(number as usize + 1, Arc::default);
        }
        chunks[number as usize] = Arc::new(chunk);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut writer = Superseded::default();
        writer.insert(3);
        let reader = writer.clone();
        assert_eq!(writer.insert(70_000), 1);
        writer.insert(4);
        assert!(reader.contains(3) && !reader.contains(4) && !reader.contains(70_000));
        assert!(writer.contains(3) && writer.contains(4) && writer.contains(70_000));
    }

    #[test]
    fn ranges_are_counted_across_chunks() {
        let mut writer = Superseded::default();
        for seq in [0, 65_535, 65_536, 200_000] {
            writer.insert(seq);
        }
        assert_eq!((writer.count(0, 300_000), writer.len()), (4, 4));
        assert_eq!(writer.count(1, 200_000), 2);
        assert_eq!(writer.count(65_536, 65_536), 0);
        let gone = RoaringTreemap::from_iter([65_536, 65_537, 900_000]);
        assert_eq!(writer.remove(&gone), BTreeSet::from([1]));
        assert_eq!(writer.count(0, 300_000), 3);
    }

    #[test]
    fn chunks_survive_storage() {
        let mut writer = Superseded::default();
        for seq in [0, 65_535, 65_536, 200_000] {
            writer.insert(seq);
        }
        let mut back = Superseded::default();
        for number in [0, 1, 3] {
            back.restore(number, &writer.chunk(number)).unwrap();
        }
        for seq in [0, 65_535, 65_536, 200_000] {
            assert!(back.contains(seq));
        }
        assert!(!back.contains(1));
    }
}
