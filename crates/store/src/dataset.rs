//! What a store promises, whatever it is built on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;
use tahini_entity::Batch;

use crate::{Ask, Compacted, Compaction, Declared, Hit, IndexState, StoreError};

/// A place in a dataset: versions are numbered from 0 and never renumbered.
pub type Seq = u64;

/// Where datasets live.
pub trait Backend: Send + Sync {
    /// Opens `name`; `create` makes an empty dataset where there is none.
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dataset>, StoreError>;
    /// Opens `name` if it exists.
    fn find(&self, name: &str) -> Result<Option<Arc<dyn Dataset>>, StoreError>;
    /// The heads of all datasets, by name, with commits that are not durable yet: to be looked at,
    /// not to be remembered.
    fn list(&self) -> Result<Vec<Head>, StoreError>;
    /// Deletes a dataset and all its versions; a missing one is no error.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
    /// Saves all datasets to the folder `to` as they are at one moment, beside readers and
    /// writers. Saving to the same folder again copies only what is new. Opening a copy of that
    /// folder is restoring it: each dataset is a new generation then, and knows whose versions it
    /// began with (`Head::past`). Erased ids are in a backup until it is brought up to date.
    ///
    /// # Errors
    /// `Refused` where the store has no files to save, as here, or the folder holds something else;
    /// `InUse` when it is open as a store. After any error what was saved before can be restored;
    /// some datasets may be newer than others then.
    fn backup(&self, to: &Path) -> Result<Backup, StoreError> {
        Err(StoreError::Refused(format!(
            "expected a store on disk to be saved to {}, found one without files",
            to.display()
        )))
    }
    /// Replaces the declared indexes of all datasets, those that are yet to be made included. An
    /// index that is there already goes on as it was, a new one is built beside readers and
    /// writers, and one that is declared no more is removed. Until this is called for the first
    /// time nothing is built or removed.
    fn declare(&self, indexes: Declared);
    /// The datasets that are damaged, by name, with the file, the position and the mismatch, as far
    /// as that is known: what nobody has read since the start may be damaged, too.
    fn damaged(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// The same for the dataset `name` alone; no other one is opened for it.
    fn damage(&self, _name: &str) -> Option<String> {
        None
    }
    /// Makes everything that was committed durable and writes the indexes; called on shutdown.
    fn close(&self) -> Result<(), StoreError>;
}

/// What a backup saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// How many datasets were saved.
    pub datasets: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Bytes that were there already.
    pub kept_bytes: u64,
    /// Datasets that cannot be saved now, being damaged; what was saved of them before stays.
    pub skipped: Vec<String>,
}

/// One dataset, shared by its writers and readers.
pub trait Dataset: Send + Sync {
    /// The dataset's name.
    fn name(&self) -> &str;
    /// A view of every commit that returned before; it waits until those are durable, so that
    /// nobody remembers a place in the dataset that a power cut takes back.
    ///
    /// # Errors
    /// When the disk refused to make them durable, or the dataset was removed. `Damaged` where
    /// it was so when it was opened: nobody may take a part of a dataset for all of it.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;
    /// As `snapshot`; of a dataset that was damaged when it was opened, what stands before that.
    ///
    /// # Errors
    /// As `snapshot`, but for damage.
    fn remains(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.snapshot()
    }
    /// The same with what the dataset holds back (`Show::Later`). It answers until that is rolled
    /// back, and with `Refused` from then on.
    ///
    /// # Errors
    /// As `snapshot`.
    fn uncommitted(&self) -> Result<Box<dyn Snapshot>, StoreError>;
    /// Writes rows and state in one atomic step and tells what came of each row.
    /// The ticket says when it is durable; it becomes that also without being waited for.
    ///
    /// # Errors
    /// Nothing was written then. `Refused` is about this commit, `Io` may pass (a full disk) or
    /// hold until the dataset is opened anew (a failed sync), `Damaged` and `Missing` stay.
    fn commit(&self, commit: Commit<'_>) -> Result<(Outcome, Ticket), StoreError>;
    /// As `commit`, for those who do not wait for the ticket: it is durable `delay` later at the
    /// latest, as far as the disk keeps up, so that commits of that time share one sync. A
    /// snapshot or a ticket that is waited for makes it durable at once.
    ///
    /// # Errors
    /// As `commit`.
    fn commit_within(
        &self,
        commit: Commit<'_>,
        delay: Duration,
    ) -> Result<(Outcome, Ticket), StoreError> {
        let _ = delay;
        self.commit(commit)
    }
    /// Removes old versions beside readers and writers; one compaction of a dataset runs at a
    /// time, another waits for it. Whenever it ends, by itself, stopped, failed or with the
    /// power, the dataset is whole; the next call goes on.
    ///
    /// # Errors
    /// `Refused` for rules that make no sense; otherwise as `commit`. A damaged file is left as
    /// it is.
    fn compact(&self, rules: &Compaction<'_>) -> Result<Compacted, StoreError>;
    /// Takes back all that the dataset holds back, rows, state and flags, durably; their numbers
    /// are given again. Snapshots go on. Without anything held back it does nothing.
    ///
    /// # Errors
    /// As `commit`. Where it ends in the middle, with the power, some of the newest commits that
    /// were held back may be gone already: to call it again is right then.
    fn roll_back(&self) -> Result<(), StoreError>;
    /// How far the declared indexes are, by their numbers.
    ///
    /// # Errors
    /// When the dataset was removed.
    fn indexes(&self) -> Result<Vec<IndexState>, StoreError>;
    /// Throws away what a declared index holds and has it built anew, under another number;
    /// whether there is one of this number.
    ///
    /// # Errors
    /// When the dataset was removed.
    fn rebuild_index(&self, number: u32) -> Result<bool, StoreError>;
}

/// What a dataset is like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The dataset's name.
    pub name: String,
    /// A UUID given when the dataset was created; offsets of another generation mean nothing.
    pub generation: uuid::Uuid,
    /// How many versions were ever written, which is the next sequence number.
    pub next: Seq,
    /// Entities whose latest version is not deleted.
    pub live: u64,
    /// Entities whose latest version is deleted.
    pub deleted: u64,
    /// The populated flag.
    pub populated: bool,
    /// Bytes on disk, log and index.
    pub bytes: u64,
    /// `_ts` of the newest version, 0 when empty.
    pub last_ts: i64,
    /// Whether commits are held back (`Show::Later`); the other fields do not tell of those, but
    /// for `bytes` and in a view of `Dataset::uncommitted`.
    pub holds: bool,
    /// Whose versions the dataset began with, oldest first, where it was restored from a backup.
    pub past: Vec<Past>,
}

/// A generation whose versions before `next` a restored dataset shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The generation that was saved.
    pub generation: uuid::Uuid,
    /// The first sequence that is not shared: what that generation wrote from here on is lost.
    pub next: Seq,
}

impl Head {
    /// Whether a reader that has read up to and with `after` of `generation` may go on from there
    /// in this dataset; if not, it has to begin anew, or it would miss what took the place of
    /// versions that it has seen.
    pub fn continues(&self, generation: uuid::Uuid, after: Seq) -> bool {
        if self.generation == generation {
            return after < self.next;
        }
        // What was shared with an older generation is cut by every restore since.
        let mut cut = self.next;
        for past in self.past.iter().rev() {
            cut = cut.min(past.next);
            if past.generation == generation {
                return after < cut;
            }
        }
        false
    }
}

/// A consistent view of what was durable when it was taken, for its whole life: whatever is
/// committed later, no method shows it, and `latest`, `unseen`, `state` and views without history
/// answer as they would have then. Taking one is cheap, and so is keeping one for a batch; one that
/// is kept for long makes reading longer by one step for each version an id has got since, and
/// keeps old state in memory.
///
/// Everything takes slices and fills buffers that the caller owns; nothing borrows a transaction
/// between calls. Limits below 1 count as 1.
pub trait Snapshot: Send {
    /// The dataset's head in this view.
    fn head(&self) -> &Head;
    /// Appends the latest version of each id that exists, in the order of `ids`;
    /// `found[i]` tells whether `ids[i]` was there. Deleted versions count as found.
    fn latest(&self, ids: &[&str], out: &mut Batch) -> Result<Vec<bool>, StoreError>;
    /// Appends versions with `_updated` greater than `after` (`None`: from the start), at most
    /// `limit.rows` and about `limit.bytes`; returns where to go on, or `None` at the end.
    fn changes(
        &self,
        after: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError>;
    /// The same, newest first, with `_updated` less than `before` (`None`: from the end).
    fn changes_reversed(
        &self,
        before: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError>;
    /// All versions of one id, oldest first.
    fn versions(&self, id: &str, out: &mut Batch) -> Result<(), StoreError>;
    /// Appends the latest versions that are not deleted and whose sequence is not in `seen`, in
    /// order, at most `limit` of them, those after `after`; returns the last one looked at, `None`
    /// at the end.
    fn unseen(
        &self,
        seen: &RoaringTreemap,
        after: Option<Seq>,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError>;
    /// Appends the versions at these sequences that are there, in the order of `seqs`;
    /// `found[i]` tells whether `seqs[i]` was. Ascending ones are read best.
    fn at(&self, seqs: &[Seq], out: &mut Batch) -> Result<Vec<bool>, StoreError>;
    /// Appends where each of `keys` occurs in a declared index, one key after the other, in the
    /// order of sequences. What this view does not know is never among it. `false`, and nothing
    /// appended, where no such index is declared or it is still being built, and where what left a
    /// key is asked for from a place behind which compaction took versions: one of them may have
    /// been it.
    fn find(
        &self,
        fingerprint: &str,
        keys: &[u128],
        ask: &Ask,
        out: &mut Vec<Hit>,
    ) -> Result<bool, StoreError>;
    /// The state records of `space` whose key starts with `prefix`, in key order.
    fn state(&self, space: &str, prefix: &[u8]) -> Result<StateRows, StoreError>;
    /// The same in pages, for state without a limit: about `most` records behind the place `after`
    /// (`None`: from the start), and the place where to go on, `None` at the end. A page may be
    /// empty and not be the last one; of long keys that begin alike it may hold more.
    fn state_page(
        &self,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<(StateRows, Option<Vec<u8>>), StoreError>;
}

/// Which versions a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Also versions that were superseded later.
    pub history: bool,
    /// Also deleted versions.
    pub deleted: bool,
}

/// How much a reader wants at once.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Entities.
    pub rows: usize,
    /// Encoded bytes, about.
    pub bytes: usize,
}

/// One atomic step.
#[derive(Clone, Copy)]
pub struct Commit<'a> {
    /// The versions to write, in order. Every row needs an id. `meta.hash` decides what changed.
    pub rows: &'a Batch,
    /// What to do with rows that changed nothing or meet another writer.
    pub rule: Rule<'a>,
    /// State that belongs to this step.
    pub state: &'a [StateWrite],
    /// Sets the populated flag, for good.
    pub populated: bool,
    /// Microseconds since 1970 UTC; `_ts` becomes max(this, last + 1) a row.
    pub now: i64,
    /// When readers see it.
    pub show: Show,
    /// Which versions the rows met is to be remembered in the same step.
    pub note: Option<Note<'a>>,
}

/// A state record that remembers versions: the latest ones of a commit's rows after it, written or
/// not, and others. It holds their sequences as a serialized `RoaringTreemap`; where there are
/// none it is left as it is.
#[derive(Clone, Copy)]
pub struct Note<'a> {
    /// Whose record it is.
    pub space: &'a str,
    /// Its key.
    pub key: &'a [u8],
    /// What else it holds.
    pub with: &'a RoaringTreemap,
}

impl Note<'_> {
    /// The write that remembers `seqs`.
    pub(crate) fn write(&self, seqs: impl Iterator<Item = Seq>) -> Option<StateWrite> {
        let mut all = self.with.clone();
        all.extend(seqs);
        if all.is_empty() {
            return None;
        }
        let mut value = Vec::with_capacity(all.serialized_size());
        all.serialize_into(&mut value)
            .expect("a vector takes every write");
        Some(StateWrite {
            space: self.space.to_owned(),
            key: self.key.to_vec(),
            value: Some(value),
        })
    }
}

/// When readers see a commit. What is judged and counted is the same: rows are compared with the
/// newest versions, held back or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// As soon as it is durable. Refused while the dataset holds commits back.
    #[default]
    Now,
    /// Not before a commit with `All`. Until then the dataset holds it back, also when it is closed
    /// and opened again, and nothing is compacted; `Dataset::roll_back` takes it back.
    Later,
    /// As soon as it is durable, in one step with everything that was held back. A commit without
    /// content shows what was held back.
    All,
}

/// Rules of a commit.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// A row is written when its hash or deleted flag differs from the latest version's.
    /// A deleted row of an unknown id writes nothing.
    IfChanged,
    /// Every row is written, also one that is the latest version once more.
    /// A deleted row of an unknown id writes nothing.
    Always,
    /// As `IfChanged`, but each row's `meta.updated` must be the latest version's sequence,
    /// and `None` for an unknown id;
    /// one mismatch refuses the whole commit with `StoreError::Refused`.
    IfUpdatedIs,
    /// As `IfChanged`, but a row that would be the second version of its id refuses the whole
    /// commit with `StoreError::Refused`.
    OnlyNew,
    /// As `IfChanged`, but rows of ids that are there, deleted or not, are left alone.
    KeepFirst,
    /// As `IfChanged`, but rows whose latest sequence is in the set are left alone.
    UnlessTouched(&'a RoaringTreemap),
}

/// Keys and values of state, in key order.
pub type StateRows = Vec<(Vec<u8>, Vec<u8>)>;

/// A keyed record that lives and dies with its dataset.
#[derive(Clone, Debug)]
pub struct StateWrite {
    /// Whose it is, for example `pipe:orders`.
    pub space: String,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// For each row the sequence of the id's latest version after the commit:
    /// a new one where it was written, the old one where nothing changed,
    /// `None` for a deleted row of an unknown id.
    pub seqs: Vec<Option<Seq>>,
    /// Rows that wrote a version that is not deleted.
    pub written: u64,
    /// Rows that wrote a deleted version.
    pub deleted: u64,
    /// Rows that changed nothing.
    pub unchanged: u64,
}

/// A promise that a commit becomes durable.
pub struct Ticket(Box<dyn FnOnce() -> Result<(), StoreError> + Send>);

impl Ticket {
    /// A ticket that `wait` runs.
    pub fn new(wait: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Ticket {
        Ticket(Box::new(wait))
    }

    /// Blocks until the commit is durable.
    ///
    /// # Errors
    /// When the disk refused; the commit may then be lost, and the dataset reopens from its log.
    pub fn wait(self) -> Result<(), StoreError> {
        (self.0)()
    }
}
