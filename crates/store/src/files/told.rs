//! What the frames of a log say together, taken in one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::block::{self, Block, Malformed};
use super::durable::View;
use super::flush::Flush;
use super::frame::{Frame, Removal};
use super::index::Index;
use super::overlay::Overlay;
use super::segment::Segment;
use super::superseded::Superseded;
use super::tables::Applied;
use super::writer::Writer;
use crate::keys::index_key;
use crate::rule::{self, Prior};
use crate::{Head, Seq, StoreError};

/// What the frames up to one say together.
pub(crate) struct Told {
    pub commit: u64,
    pub sum: u32,
    pub next: Seq,
    pub live: u64,
    pub deleted: u64,
    pub populated: bool,
    pub last_ts: i64,
    pub superseded: Superseded,
    pub dirty: BTreeSet<u32>,
    pub overlay: Overlay,
    /// The commit that the index has.
    pub applied: u64,
    /// Nothing was known at first.
    pub anew: bool,
    /// The first sequence that is not in what the index had at first.
    base: Seq,
    /// The sequences from `base` on that were read; compaction leaves gaps.
    present: Superseded,
    /// Where readers stand while the newest frames are held back.
    pub visible: Option<Visible>,
    /// The index was written with frames that are held back.
    pub index_held: bool,
}

/// A dataset before the first frame that is held back.
pub(crate) struct Visible {
    commit: u64,
    next: Seq,
    live: u64,
    deleted: u64,
    populated: bool,
    last_ts: i64,
    superseded: Superseded,
    /// The segment that begins to hold back, and where.
    segment: u32,
    end: u64,
}

impl Visible {
    /// What readers see; `writer` has everything else of the dataset.
    pub fn view(self, writer: &Writer, segments: &[Arc<Segment>]) -> View {
        let segment = segments
            .iter()
            .find(|segment| segment.opening.number == self.segment);
        View {
            commit: self.commit,
            head: Head {
                next: self.next,
                live: self.live,
                deleted: self.deleted,
                populated: self.populated,
                last_ts: self.last_ts,
                holds: true,
                ..writer.head.clone()
            },
            superseded: self.superseded,
            segment: Arc::clone(segment.unwrap_or(&writer.segment)),
            end: self.end,
        }
    }
}

impl Told {
    pub fn nothing() -> Told {
        Told {
            commit: 0,
            sum: 0,
            next: 0,
            live: 0,
            deleted: 0,
            populated: false,
            last_ts: 0,
            superseded: Superseded::default(),
            dirty: BTreeSet::new(),
            overlay: Overlay::default(),
            applied: 0,
            anew: true,
            base: 0,
            present: Superseded::default(),
            visible: None,
            index_held: false,
        }
    }

    pub fn by_index(applied: &Applied, superseded: Superseded) -> Told {
        Told {
            commit: applied.commit,
            sum: applied.sum,
            next: applied.next,
            live: applied.live,
            deleted: applied.deleted,
            populated: applied.populated,
            last_ts: applied.last_ts,
            superseded,
            applied: applied.commit,
            anew: false,
            base: applied.next,
            ..Told::nothing()
        }
    }

    /// What the index has to note when it is written now.
    pub fn applied(&self, generation: uuid::Uuid) -> Applied {
        Applied {
            generation,
            commit: self.commit,
            sum: self.sum,
            next: self.next,
            live: self.live,
            deleted: self.deleted,
            populated: self.populated,
            last_ts: self.last_ts,
            held: self.visible.is_some(),
        }
    }

    /// Notes where readers stand before the frame at `at`.
    pub fn hold(&mut self, frame: &Frame<'_>, segment: &Segment, at: u64) {
        if !frame.header.held() {
            self.visible = None;
            self.overlay.forget(u64::MAX);
        } else if self.visible.is_none() {
            self.visible = Some(Visible {
                commit: self.commit,
                next: self.next,
                live: self.live,
                deleted: self.deleted,
                populated: self.populated,
                last_ts: self.last_ts,
                superseded: self.superseded.clone(),
                segment: segment.opening.number,
                end: at,
            });
        }
    }

    /// Sets state; what is held back leaves behind what readers see.
    fn set_state(
        &mut self,
        commit: u64,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        index: &Arc<Index>,
    ) -> Result<(), StoreError> {
        if self.visible.is_some() {
            let old = match self.overlay.state.get(&key) {
                Some(old) => old.clone(),
                None => index
                    .read(|tables, txn| tables.state_of(txn, &key))?
                    .flatten(),
            };
            self.overlay.remember(commit, key.clone(), old);
        }
        self.overlay.set_state(key, value);
        Ok(())
    }

    /// Takes a frame in, as the writer did when it wrote it.
    pub fn replay(
        &mut self,
        frame: &Frame<'_>,
        segment: &Segment,
        index: &Arc<Index>,
    ) -> Result<(), Unread> {
        // Where a frame stands for several commits, what it removes was written before it.
        for removal in frame.removals().ok_or(Malformed)? {
            self.remove(&removal, index)?;
        }
        let shapes = segment.shapes();
        let mut block = Block::default();
        for (_, at, len) in block::places(frame.blocks).ok_or(Malformed)? {
            let stored = &frame.blocks[at as usize..(at + len) as usize];
            block.fill(stored, segment.salt).ok_or(Malformed)?;
            let mut rows = block.rows();
            while let Some(row) = rows.next()? {
                let shape = row.shape(&shapes)?;
                let hash =
                    tahini_entity::hash::content(Some(row.id), row.deleted, &shape, row.body);
                let prior = Prior {
                    seq: row.seq,
                    hash: rule::half(hash),
                    deleted: row.deleted,
                };
                let key = index_key(row.id.as_bytes());
                let before = self.before(&key, row.previous, index)?;
                self.version(&key, prior, before);
                self.next = row.seq + 1;
            }
        }
        for (key, value) in frame.state().ok_or(Malformed)? {
            self.set_state(frame.header.commit, key, value, index)?;
        }
        self.commit = frame.header.commit;
        self.sum = frame.sum;
        self.populated |= frame.header.populated();
        self.last_ts = frame.header.last_ts;
        Ok(())
    }

    /// Notes a new version of the id with this key.
    pub fn version(&mut self, key: &[u8], prior: Prior, previous: Option<(Seq, bool)>) {
        if let Some((seq, deleted)) = previous {
            self.supersede(seq, deleted);
        }
        *(if prior.deleted {
            &mut self.deleted
        } else {
            &mut self.live
        }) += 1;
        self.overlay.set_latest(key, Some(prior));
        self.present.insert(prior.seq);
    }

    /// The version that one with this `_previous` supersedes: compaction may have taken that one,
    /// and have left an older one whose segment was not worth writing anew.
    fn before(
        &self,
        key: &[u8],
        previous: Option<(Seq, bool)>,
        index: &Arc<Index>,
    ) -> Result<Option<(Seq, bool)>, StoreError> {
        match previous {
            Some((seq, _)) if seq >= self.base && !self.present.contains(seq) => {
                let latest = self.latest(key, index)?;
                Ok(latest.map(|latest| (latest.seq, latest.deleted)))
            }
            known => Ok(known),
        }
    }

    fn latest(&self, key: &[u8], index: &Arc<Index>) -> Result<Option<Prior>, StoreError> {
        match self.overlay.latest.get(key) {
            Some(latest) => Ok(latest),
            None => Ok(index
                .read(|tables, txn| tables.prior(txn, key, true))?
                .flatten()),
        }
    }

    /// Notes that an id is gone, as far as it is still known.
    fn remove(&mut self, removal: &Removal, index: &Arc<Index>) -> Result<(), StoreError> {
        let key = index_key(removal.id.as_bytes());
        let latest = self.latest(&key, index)?;
        if latest.is_some_and(|latest| latest.seq == removal.seq) {
            self.supersede(removal.seq, removal.deleted);
            self.overlay.set_latest(&key, None);
        }
        Ok(())
    }

    fn supersede(&mut self, seq: Seq, deleted: bool) {
        *(if deleted {
            &mut self.deleted
        } else {
            &mut self.live
        }) -= 1;
        self.dirty.insert(self.superseded.insert(seq));
    }

    /// Writes the index as far as it is told; the log must be durable up to here. One that is
    /// built anew knows where it is only when it is `done`: a walk through compacted segments
    /// cannot be taken up in the middle.
    pub fn write_index(
        &mut self,
        index: &Arc<Index>,
        generation: uuid::Uuid,
        done: bool,
    ) -> Result<(), StoreError> {
        if done && self.anew {
            // The rows in pieces, and then the note alone.
            self.write_index(index, generation, false)?;
        }
        let applied = self.applied(generation);
        let known = done || !self.anew;
        let flush = Flush {
            overlay: &self.overlay,
            superseded: &self.superseded,
            dirty: &self.dirty,
            applied: known.then_some(&applied),
        };
        flush.write(index)?;
        self.overlay.written();
        self.dirty.clear();
        if known {
            self.applied = self.commit;
        }
        self.index_held = self.visible.is_some();
        Ok(())
    }
}

/// Why a frame that passed its sum was not taken in.
pub(crate) enum Unread {
    Malformed,
    Store(StoreError),
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Unread {
        Unread::Malformed
    }
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Unread {
        Unread::Store(error)
    }
}
