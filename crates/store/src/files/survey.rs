//! What compaction may take from a log: one walk from its end to its start finds it, with a few
//! bits for each version that is still to be met.

use std::collections::HashSet;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::block::Stored;
use super::dataset::OpenDataset;
use super::durable::View;
use super::fetch::Fetch;
use super::segment::Segment;
use crate::compaction::Line;
use crate::{Compaction, Seq, StoreError};

/// What can go from each segment.
pub(crate) struct Survey {
    pub segments: Arc<Vec<Arc<Segment>>>,
    pub found: Vec<Found>,
    /// Whether readers hold something back of an id that has to be retracted.
    pub held: bool,
}

/// What can go from one segment.
#[derive(Default)]
pub(crate) struct Found {
    pub dead: RoaringTreemap,
    pub rows: u64,
    /// Some of it was named by the caller and has to go now.
    pub must: bool,
}

impl Found {
    /// Whether so much is dead that the segment is worth writing anew.
    pub fn worth(&self, least_dead: f64) -> bool {
        let dead = self.dead.len();
        self.must || (dead > 0 && dead as f64 >= least_dead * self.rows as f64)
    }
}

/// The walk: what is known of versions that were not met yet, from newer ones of their ids.
struct Walk<'a> {
    view: &'a View,
    line: &'a Line,
    /// Ids that the caller named.
    named: HashSet<&'a str>,
    /// Versions that a newer one names as the one before it.
    reached: RoaringTreemap,
    /// Versions that go whatever the rules say: a newer one of the id has gone already.
    forced: RoaringTreemap,
    /// Those of them that must go now.
    must: RoaringTreemap,
    /// How many newer versions there are, one bit of the number in each.
    newer: Vec<RoaringTreemap>,
    most: u32,
}

impl Survey {
    /// Walks through the log as `view` has it; `None` when it was stopped.
    pub fn take(
        dataset: &OpenDataset,
        view: &View,
        line: &Line,
        rules: &Compaction<'_>,
        latest: &[Seq],
    ) -> Result<Option<Survey>, StoreError> {
        let mut walk = Walk::new(view, line, rules);
        let mut fetch = Fetch::new(dataset);
        let mut held = false;
        for seq in latest {
            held |= walk.retract(*seq, &mut fetch)?;
        }
        let segments = Arc::clone(&fetch.segments);
        let mut found: Vec<Found> = Vec::new();
        found.resize_with(segments.len(), Found::default);
        for (number, found) in found.iter_mut().enumerate().rev() {
            for block in (0..segments[number].blocks()).rev() {
                if (rules.stop)() {
                    return Ok(None);
                }
                if !fetch.load(number, block)? {
                    continue;
                }
                let mut rows = Vec::new();
                let mut each = fetch.block().rows();
                while let Some(row) = each.next().map_err(|found| fetch.malformed(&found))? {
                    rows.push(row);
                }
                let known = rows.iter().rev().filter(|row| row.seq < view.head.next);
                known.for_each(|row| walk.meet(row, found));
            }
        }
        Ok(Some(Survey {
            segments,
            found,
            held,
        }))
    }
}

impl<'a> Walk<'a> {
    fn new(view: &'a View, line: &'a Line, rules: &Compaction<'a>) -> Walk<'a> {
        let most = line.keep().map_or(0, |keep| keep.max(1));
        let bits = (u32::BITS - most.leading_zeros()) as usize;
        Walk {
            view,
            line,
            named: rules.erase.iter().chain(rules.retract).copied().collect(),
            reached: RoaringTreemap::new(),
            forced: RoaringTreemap::new(),
            must: RoaringTreemap::new(),
            newer: vec![RoaringTreemap::new(); bits],
            most,
        }
    }

    /// Makes the versions go that are older than the newest one that no reader waits for; whether
    /// that is not the latest one.
    fn retract(&mut self, latest: Seq, fetch: &mut Fetch<'_>) -> Result<bool, StoreError> {
        let mut seq = latest;
        while let Some(Some((before, _))) = fetch.find(seq, |row, _| row.previous)? {
            if seq < self.line.until {
                self.forced.insert(before);
                self.must.insert(before);
                break;
            }
            seq = before;
        }
        Ok(latest >= self.line.until)
    }

    /// Looks at the next older version.
    fn meet(&mut self, row: &Stored<'_>, found: &mut Found) {
        let superseded = self.view.superseded.contains(row.seq);
        let reached = self.reached.remove(row.seq);
        let orphan = superseded && !reached;
        let forced = self.forced.remove(row.seq) || orphan;
        let must = self.must.remove(row.seq) || (forced && self.named.contains(row.id));
        let newer = self.take_newer(row.seq);
        found.rows += 1;
        if forced || (superseded && self.line.goes(row.seq, row.ts, newer)) {
            found.dead.insert(row.seq);
            found.must |= must;
        }
        let Some((before, _)) = row.previous else {
            return;
        };
        self.reached.insert(before);
        if forced {
            self.forced.insert(before);
        }
        if must {
            self.must.insert(before);
        }
        if row.seq < self.line.until {
            self.set_newer(before, (newer + 1).min(self.most));
        }
    }

    fn take_newer(&mut self, seq: Seq) -> u32 {
        let bits = self.newer.iter_mut().enumerate();
        bits.map(|(bit, known)| u32::from(known.remove(seq)) << bit)
            .sum()
    }

    fn set_newer(&mut self, seq: Seq, newer: u32) {
        for (bit, known) in self.newer.iter_mut().enumerate() {
            if newer >> bit & 1 == 1 {
                known.insert(seq);
            }
        }
    }
}
