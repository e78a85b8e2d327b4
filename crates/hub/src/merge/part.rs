//! One of the datasets of a merge source, as it was when something was given out last and as it
//! is to be given out now.
//!
//! Both are views of one snapshot: a dataset never forgets a version that a pipe has yet to read,
//! and versions are chained, so that the one that counted at any place is found by going back.

use std::collections::{HashMap, HashSet};

use tahini_entity::{Batch, Record};
use tahini_store::{Ask, Hit, Limit, Seq, Snapshot, StoreError, View};

use super::rules::{Key, Merging};
use crate::places::seq_of;

/// How much is in memory at a time where a dataset is read as a whole.
pub(super) const SCAN: Limit = Limit {
    rows: 5_000,
    bytes: 8 << 20,
};

/// A dataset between two places.
pub(super) struct Part {
    /// `None` where it does not exist.
    pub(super) snapshot: Option<Box<dyn Snapshot>>,
    /// The versions before this sequence were given out.
    pub(super) from: Seq,
    /// Those before this one are looked at.
    pub(super) until: Seq,
    /// The encoded versions that are known.
    pub(super) rows: Batch,
    pub(super) nodes: Vec<Node>,
    by_id: HashMap<String, u32>,
    /// Versions that were met already.
    met: HashSet<Seq>,
}

/// An entity before and now.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) before: Option<Version>,
    pub(super) now: Option<Version>,
    /// It has versions between the two places.
    pub(super) changed: bool,
}

/// A version that is known.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Its place among the rows.
    pub(super) row: u32,
    pub(super) deleted: bool,
    /// None for a deleted one, which is the same as nobody.
    pub(super) keys: Vec<Key>,
}

/// Why a part cannot tell.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(StoreError),
    /// Compaction took versions that were needed.
    Lost,
    /// More entities than may be merged have one key.
    TooMany(Key),
    /// What became of entities cannot be encoded.
    Encode(tahini_entity::encoding::EncodeError),
    /// The run was told to stop.
    Stopped,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl Part {
    pub(super) fn new(snapshot: Option<Box<dyn Snapshot>>, from: Seq) -> Part {
        let until = snapshot
            .as_ref()
            .map_or(from, |snapshot| snapshot.head().next);
        Part {
            snapshot,
            from,
            until: until.max(from),
            rows: Batch::new(),
            nodes: Vec::new(),
            by_id: HashMap::new(),
            met: HashSet::new(),
        }
    }

    /// Goes on behind what was given out.
    pub(super) fn advance(&mut self) {
        self.from = self.until;
        self.until = self.head();
        self.rows.clear();
        self.nodes.clear();
        self.by_id.clear();
        self.met.clear();
    }

    pub(super) fn head(&self) -> Seq {
        let head = self.snapshot.as_ref().map(|snapshot| snapshot.head().next);
        head.unwrap_or(self.from).max(self.from)
    }

    pub(super) fn record(&self, version: &Version) -> Record<'_> {
        self.rows.get(version.row as usize)
    }

    pub(super) fn id(&self, node: &Node) -> &str {
        let version = node.now.as_ref().or(node.before.as_ref());
        let record = version.map(|version| self.record(version));
        record.and_then(|record| record.id).unwrap_or_default()
    }

    /// Takes in what changed, at most `most` versions; the view ends behind the last one. Tells
    /// how many there were.
    ///
    /// # Errors
    /// `Lost` where the version that counted before is gone.
    pub(super) fn take_changes(
        &mut self,
        merging: &Merging,
        at: usize,
        most: usize,
    ) -> Result<usize, Trouble> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(0);
        };
        if self.from >= self.until || most == 0 {
            self.until = self.from;
            return Ok(0);
        }
        let all = View {
            history: true,
            deleted: true,
        };
        let mut after = self.from.checked_sub(1);
        let mut read = Batch::new();
        while read.len() < most {
            let limit = Limit {
                rows: most - read.len(),
                bytes: SCAN.bytes,
            };
            match snapshot.changes(after, all, limit, &mut read)? {
                Some(next) => after = Some(next),
                None => {
                    after = None;
                    break;
                }
            }
        }
        // What is behind the last one that was read is for another time.
        self.until = after.map_or(self.until, |after| after + 1);
        let count = read.len();
        // The first version of an id leads to the one before, the last one counts now.
        let mut ids: HashMap<String, (Option<Seq>, usize)> = HashMap::new();
        let mut order = Vec::new();
        for (row, record) in read.iter().enumerate() {
            let id = record.id.unwrap_or_default();
            match ids.get_mut(id) {
                Some((_, last)) => *last = row,
                None => {
                    ids.insert(id.to_owned(), (record.meta.previous, row));
                    order.push(id.to_owned());
                }
            }
            self.met.extend(seq_of(&record));
        }
        let mut olds: Vec<Seq> = ids.values().filter_map(|(before, _)| *before).collect();
        olds.sort_unstable();
        let mut old_rows = Batch::new();
        if snapshot.at(&olds, &mut old_rows)?.contains(&false) {
            return Err(Trouble::Lost);
        }
        let mut before_of: HashMap<Seq, usize> = HashMap::new();
        for (row, record) in old_rows.iter().enumerate() {
            before_of.extend(seq_of(&record).map(|seq| (seq, row)));
        }
        for id in order {
            let (before, last) = ids[&id];
            let before = before.and_then(|seq| before_of.get(&seq));
            let before = before.map(|row| self.version(merging, at, old_rows.get(*row)));
            let now = Some(self.version(merging, at, read.get(last)));
            self.add(id, before, now, true);
        }
        Ok(count)
    }

    fn add(&mut self, id: String, before: Option<Version>, now: Option<Version>, changed: bool) {
        let number = self.nodes.len() as u32;
        self.by_id.insert(id, number);
        self.nodes.push(Node {
            before,
            now,
            changed,
        });
    }

    fn version(&mut self, merging: &Merging, at: usize, record: Record<'_>) -> Version {
        let mut keys = Vec::new();
        if !record.meta.deleted {
            merging.keys_of(at, record, &mut keys);
        }
        self.rows.push(record);
        Version {
            row: (self.rows.len() - 1) as u32,
            deleted: record.meta.deleted,
            keys,
        }
    }

    /// Takes in the entity of that id; whether there is one.
    pub(super) fn take_id(
        &mut self,
        merging: &Merging,
        at: usize,
        id: &str,
    ) -> Result<Option<u32>, Trouble> {
        if let Some(known) = self.by_id.get(id) {
            return Ok(Some(*known));
        }
        let mut found = Batch::new();
        if let Some(snapshot) = &self.snapshot {
            snapshot.latest(&[id], &mut found)?;
        }
        if let Some(record) = found.iter().next() {
            self.take(merging, at, record)?;
        }
        Ok(self.by_id.get(id).copied())
    }

    /// Takes in the entities of these ids; whether one of them lives where the view ends.
    pub(super) fn take_ids(
        &mut self,
        merging: &Merging,
        at: usize,
        ids: &[&str],
    ) -> Result<bool, Trouble> {
        let mut found = Batch::new();
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| !ids.is_empty()) {
            snapshot.latest(ids, &mut found)?;
        }
        let mut lives = false;
        for record in found.iter() {
            self.take(merging, at, record)?;
            let node = self.by_id.get(record.id.unwrap_or_default());
            lives |= node.is_some_and(|node| self.nodes[*node as usize].lives());
        }
        Ok(lives)
    }

    /// Those of `ids` under which somebody lives at the end of the dataset.
    pub(super) fn living(&self, ids: &[&str]) -> Result<HashSet<String>, StoreError> {
        let mut found = Batch::new();
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| !ids.is_empty()) {
            snapshot.latest(ids, &mut found)?;
        }
        let living = found.iter().filter(|record| !record.meta.deleted);
        Ok(living.filter_map(|it| it.id.map(str::to_owned)).collect())
    }

    /// Whether the indexes of all sides over this dataset answer.
    pub(super) fn is_indexed(&self, merging: &Merging, at: usize) -> Result<bool, StoreError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(true);
        };
        for side in merging.keys.iter().filter(|side| side.part == at) {
            if !snapshot.find(&side.fingerprint, &[], &Ask::LATEST, &mut Vec::new())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in the entities that have one of `keys` now, or had it before. Entities of which
    /// that is known already are passed over; what it finds is behind the nodes that were there.
    ///
    /// # Errors
    /// As `take_changes`; `TooMany` where a key leads to more than may be merged.
    pub(super) fn seek(
        &mut self,
        merging: &Merging,
        at: usize,
        keys: &[Key],
        indexed: bool,
    ) -> Result<(), Trouble> {
        if self.snapshot.is_none() || keys.is_empty() {
            return Ok(());
        }
        match indexed {
            true => self.seek_by_index(merging, at, keys),
            false => self.seek_by_scan(merging, at, keys),
        }
    }

    fn seek_by_index(&mut self, merging: &Merging, at: usize, keys: &[Key]) -> Result<(), Trouble> {
        let mut seqs = Vec::new();
        for side in merging.keys.iter().filter(|side| side.part == at) {
            let own = keys.iter().filter(|(set, _)| *set == side.set);
            let mut own: Vec<u128> = own.map(|(_, key)| *key).collect();
            own.sort_unstable();
            let Some(snapshot) = self.snapshot.as_deref().filter(|_| !own.is_empty()) else {
                continue;
            };
            // Deleted ones are among them, and are left out only when they are read.
            let most = merging.max_merged.saturating_mul(2).saturating_add(1_000);
            let ask = Ask {
                limit: most,
                ..Ask::LATEST
            };
            let mut hits = Vec::new();
            if !snapshot.find(&side.fingerprint, &own, &ask, &mut hits)? {
                return Err(Trouble::Lost);
            }
            if let Some(of) = too_many(&hits, most) {
                return Err(Trouble::TooMany((side.set, own[of])));
            }
            if self.until < self.head() {
                // What changed later may have had the key at the place where the view ends.
                let later = Ask {
                    history: true,
                    left: true,
                    from: self.until.checked_sub(1),
                    limit: usize::MAX,
                    ..ask
                };
                if !snapshot.find(&side.fingerprint, &own, &later, &mut hits)? {
                    return Err(Trouble::Lost);
                }
            }
            seqs.extend(hits.into_iter().map(|hit| hit.seq));
        }
        seqs.sort_unstable();
        seqs.dedup();
        seqs.retain(|seq| !self.met.contains(seq));
        for some in seqs.chunks(SCAN.rows) {
            let mut found = Batch::new();
            if let Some(snapshot) = &self.snapshot {
                snapshot.at(some, &mut found)?;
            }
            for record in found.iter() {
                self.take(merging, at, record)?;
            }
        }
        Ok(())
    }

    /// The same where no index answers yet: every entity is looked at.
    fn seek_by_scan(&mut self, merging: &Merging, at: usize, keys: &[Key]) -> Result<(), Trouble> {
        let wanted: HashSet<&Key> = keys.iter().collect();
        let living = View {
            history: false,
            deleted: false,
        };
        let (mut after, mut found, mut own) = (None, Batch::new(), Vec::new());
        while let Some(snapshot) = &self.snapshot {
            found.clear();
            let next = snapshot.changes(after, living, SCAN, &mut found)?;
            for record in found.iter() {
                own.clear();
                merging.keys_of(at, record, &mut own);
                if own.iter().any(|key| wanted.contains(key)) {
                    self.take(merging, at, record)?;
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Takes in an entity of which some version was found; what changed between the two places is
    /// there already.
    fn take(&mut self, merging: &Merging, at: usize, found: Record<'_>) -> Result<(), Trouble> {
        let id = found.id.unwrap_or_default();
        if self.by_id.contains_key(id) {
            return Ok(());
        }
        self.met.extend(seq_of(&found));
        let counts = |seq: Option<Seq>| seq.is_none_or(|seq| seq < self.until);
        if counts(seq_of(&found)) {
            let version = self.version(merging, at, found);
            let before = Some(version.clone());
            self.add(id.to_owned(), before, Some(version), false);
            return Ok(());
        }
        // It changed behind the view: the version that counts in it is further back.
        let mut previous = found.meta.previous;
        while let (Some(seq), Some(snapshot)) = (previous, &self.snapshot) {
            let mut older = Batch::new();
            if snapshot.at(&[seq], &mut older)? != [true] {
                return Err(Trouble::Lost);
            }
            let record = older.get(0);
            if counts(Some(seq)) {
                let version = self.version(merging, at, record);
                let before = Some(version.clone());
                self.add(id.to_owned(), before, Some(version), false);
                return Ok(());
            }
            previous = record.meta.previous;
        }
        // It did not exist yet.
        self.add(id.to_owned(), None, None, false);
        Ok(())
    }
}

/// Does something with each of a few items, all of them datasets for example, on a thread of its
/// own.
pub(super) fn each<I: Send, T: Send, E: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(usize, I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let work = &work;
    std::thread::scope(|scope| {
        let items = items.into_iter().enumerate();
        let tasks: Vec<_> = items
            .map(|(at, item)| scope.spawn(move || work(at, item)))
            .collect();
        let joined = tasks.into_iter().map(|task| {
            task.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect()
    })
}

/// As `each` where they are `many`, otherwise one after the other.
pub(super) fn each_if<I: Send, T: Send, E: Send>(
    many: bool,
    items: impl IntoIterator<Item = I>,
    work: impl Fn(usize, I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    if many {
        return each(items, work);
    }
    let items = items.into_iter().enumerate();
    items.map(|(at, item)| work(at, item)).collect()
}

/// The place of a key that `most` hits have.
fn too_many(hits: &[Hit], most: usize) -> Option<usize> {
    let mut runs = hits.chunk_by(|one, two| one.of == two.of);
    runs.find(|run| run.len() >= most).map(|run| run[0].of)
}

impl Node {
    pub(super) fn lives(&self) -> bool {
        self.now.as_ref().is_some_and(|now| !now.deleted)
    }

    /// Whether it has come since: it did not live before. It may be gone again.
    pub(super) fn has_come(&self) -> bool {
        let lived = self.before.as_ref().is_some_and(|before| !before.deleted);
        self.changed && !lived
    }
}

impl From<tahini_entity::encoding::EncodeError> for Trouble {
    fn from(error: tahini_entity::encoding::EncodeError) -> Trouble {
        Trouble::Encode(error)
    }
}
