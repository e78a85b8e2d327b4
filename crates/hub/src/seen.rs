//! Which ids came out of a full run or a full sequence, by the sequence numbers of their latest
//! versions; what is live and not among them is deleted at the end.
//!
//! What came since the last save is saved as a chunk of its own, so that a save costs its own
//! size; many chunks are put together into one, so that their number has a limit.

use std::ops::RangeInclusive;

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Record, Value};
use tahini_store::{Limit, Note, Seq, Snapshot, StateWrite, StoreError};

use crate::{Failure, progress};

/// Chunks that are saved before they are put together.
const MAX_CHUNKS: u64 = 256;
/// How much is deleted at a time.
const DELETIONS: Limit = Limit {
    rows: 10_000,
    bytes: 16 << 20,
};

/// The record of what came since the last save.
pub(crate) struct Chunk {
    space: String,
    key: Vec<u8>,
    with: RoaringTreemap,
    /// What has to be written with it.
    pub(crate) writes: Vec<StateWrite>,
    chunks: u64,
}

impl Chunk {
    /// What a commit notes.
    pub(crate) fn note(&self) -> Note<'_> {
        Note {
            space: &self.space,
            key: &self.key,
            with: &self.with,
        }
    }
}

/// The ids that came.
pub(crate) struct Seen {
    /// The space of the state records.
    space: String,
    /// What the keys of the records begin with.
    prefix: &'static [u8],
    all: RoaringTreemap,
    /// What the next save has to save.
    fresh: RoaringTreemap,
    chunks: u64,
}

impl Seen {
    /// Nothing came yet.
    pub(crate) fn nothing(space: String) -> Seen {
        Seen::nothing_under(progress::SEEN, space)
    }

    /// The same for records whose keys begin with `prefix`.
    pub(crate) fn nothing_under(prefix: &'static [u8], space: String) -> Seen {
        Seen {
            space,
            prefix,
            all: RoaringTreemap::new(),
            fresh: RoaringTreemap::new(),
            chunks: 0,
        }
    }

    /// What was saved in `space`.
    pub(crate) fn load(space: String, snapshot: &dyn Snapshot) -> Result<Seen, Failure> {
        Seen::load_under(progress::SEEN, space, snapshot)
    }

    /// The same for records whose keys begin with `prefix`.
    pub(crate) fn load_under(
        prefix: &'static [u8],
        space: String,
        snapshot: &dyn Snapshot,
    ) -> Result<Seen, Failure> {
        let mut seen = Seen::nothing_under(prefix, space);
        for (key, bits) in snapshot.state(&seen.space, prefix)? {
            seen.all |= RoaringTreemap::deserialize_from(bits.as_slice()).map_err(unreadable)?;
            // One that had nothing to save was not written: the next one goes behind the last.
            let number = std::str::from_utf8(&key[prefix.len()..]).ok();
            let number = number.and_then(|number| number.parse::<u64>().ok());
            seen.chunks = number.map_or(seen.chunks, |number| number + 1);
        }
        Ok(seen)
    }

    /// Takes note of latest versions.
    pub(crate) fn note(&mut self, seqs: impl IntoIterator<Item = Seq>) {
        let mut run: Option<RangeInclusive<Seq>> = None;
        for seq in seqs {
            // Most come one after the other, and those are put in together.
            run = match run {
                Some(known) if known.end().checked_add(1) == Some(seq) => {
                    Some(*known.start()..=seq)
                }
                known => {
                    self.note_run(known);
                    Some(seq..=seq)
                }
            };
        }
        self.note_run(run);
    }

    fn note_run(&mut self, run: Option<RangeInclusive<Seq>>) {
        let Some(run) = run else {
            return;
        };
        // What is known already may be saved once more, unless all of it is.
        if self.all.insert_range(run.clone()) > 0 {
            self.fresh.insert_range(run);
        }
    }

    /// What a commit needs to save what came since the last save, and what comes with it.
    pub(crate) fn chunk(&self) -> Result<Chunk, Failure> {
        let mut chunk = Chunk {
            space: self.space.clone(),
            key: key(self.prefix, self.chunks),
            with: self.fresh.clone(),
            writes: Vec::new(),
            chunks: self.chunks + 1,
        };
        if self.chunks >= MAX_CHUNKS {
            chunk.key = key(self.prefix, 0);
            chunk.with = self.all.clone();
            chunk.with.optimize();
            for gone in 1..self.chunks {
                chunk.writes.push(self.write(gone, None)?);
            }
            chunk.chunks = 1;
        }
        Ok(chunk)
    }

    /// Takes note of latest versions that were saved with `chunk`.
    pub(crate) fn saved(&mut self, chunk: &Chunk, seqs: impl IntoIterator<Item = Seq>) {
        self.fresh.clear();
        self.all.extend(seqs);
        self.chunks = chunk.chunks;
    }

    /// Everything that came.
    pub(crate) fn all(&self) -> &RoaringTreemap {
        &self.all
    }

    /// Whether there is nothing to save.
    pub(crate) fn is_settled(&self) -> bool {
        self.fresh.is_empty()
    }

    /// The writes that save what came since the last save.
    pub(crate) fn save(&mut self) -> Result<Vec<StateWrite>, Failure> {
        if self.fresh.is_empty() {
            return Ok(Vec::new());
        }
        let fresh = std::mem::take(&mut self.fresh);
        if self.chunks < MAX_CHUNKS {
            self.chunks += 1;
            return Ok(vec![self.write(self.chunks - 1, Some(&fresh))?]);
        }
        let mut all = self.all.clone();
        all.optimize();
        let mut writes = vec![self.write(0, Some(&all))?];
        for chunk in 1..self.chunks {
            writes.push(self.write(chunk, None)?);
        }
        self.chunks = 1;
        Ok(writes)
    }

    /// The writes that remove what was saved.
    pub(crate) fn forget(&self) -> Result<Vec<StateWrite>, Failure> {
        (0..self.chunks)
            .map(|chunk| self.write(chunk, None))
            .collect()
    }

    fn write(&self, chunk: u64, bits: Option<&RoaringTreemap>) -> Result<StateWrite, Failure> {
        let mut bytes = Vec::new();
        if let Some(bits) = bits {
            bits.serialize_into(&mut bytes).map_err(unreadable)?;
        }
        Ok(StateWrite {
            space: self.space.clone(),
            key: key(self.prefix, chunk),
            value: bits.is_some().then_some(bytes),
        })
    }

    /// Hands what is live and did not come to `delete`, as deleted versions, some at a time.
    pub(crate) fn each_unseen<E: From<StoreError>>(
        &self,
        snapshot: &dyn Snapshot,
        delete: impl FnMut(&Batch) -> Result<(), E>,
    ) -> Result<(), E> {
        each_other(&self.all, snapshot, delete)
    }
}

/// Hands what is live and not among `known` to `delete`, as deleted versions, some at a time.
pub(crate) fn each_other<E: From<StoreError>>(
    known: &RoaringTreemap,
    snapshot: &dyn Snapshot,
    mut delete: impl FnMut(&Batch) -> Result<(), E>,
) -> Result<(), E> {
    let mut after = None;
    loop {
        let (mut gone, mut rows) = (Batch::new(), Batch::new());
        let next = snapshot.unseen(known, after, DELETIONS, &mut gone)?;
        gone.iter()
            .for_each(|record| push_deleted(&mut rows, record));
        if !rows.is_empty() {
            delete(&rows)?;
        }
        match next {
            Some(seq) => after = Some(seq),
            None => return Ok(()),
        }
    }
}

fn key(prefix: &[u8], chunk: u64) -> Vec<u8> {
    [prefix, format!("{chunk:08}").as_bytes()].concat()
}

/// The same deleted entities, each with `$deletion_tracked`.
pub(crate) fn marked(gone: &Batch) -> Result<Batch, Failure> {
    let mut rows = Batch::new();
    for record in gone.iter() {
        let mut entity = record.to_entity();
        entity
            .properties
            .set("$deletion_tracked", Value::Bool(true));
        rows.push_entity(&entity)
            .map_err(|error| Failure::fatal(error.to_string()))?;
    }
    Ok(rows)
}

/// Appends the same content as a deleted version.
pub(crate) fn push_deleted(out: &mut Batch, record: Record<'_>) {
    let mut meta = record.meta.clone();
    meta.deleted = true;
    meta.filtered = false;
    meta.hash = None;
    out.push_encoded(record.id, record.shape, record.body, meta);
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::fatal(format!("seen set: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_number_of_chunks_has_a_limit_and_nothing_is_lost() {
        let mut seen = Seen::nothing("s".to_owned());
        let mut saved = BTreeMap::new();
        let mut most = 0;
        for seq in 0..MAX_CHUNKS * 3 {
            // An id that comes again without a change has nothing to save.
            seen.note([seq * 7]);
            let writes = seen.save().unwrap();
            seen.note([seq * 7]);
            assert_eq!(seen.save().unwrap().len(), 0);
            for write in writes {
                match write.value {
                    Some(bits) => saved.insert(write.key, bits),
                    None => saved.remove(&write.key),
                };
            }
            most = most.max(saved.len());
        }
        assert_eq!(most as u64, MAX_CHUNKS);
        let mut all = RoaringTreemap::new();
        for bits in saved.values() {
            all |= RoaringTreemap::deserialize_from(bits.as_slice()).unwrap();
        }
        let expected: RoaringTreemap = (0..MAX_CHUNKS * 3).map(|seq| seq * 7).collect();
        assert_eq!(all, expected);
        let forgotten = seen.forget().unwrap();
        assert!(saved.keys().eq(forgotten.iter().map(|write| &write.key)));
    }
}
