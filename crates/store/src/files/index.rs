//! The index: an LMDB environment per dataset, derived from the log and thrown away when in doubt.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::{fs, io};

use heed::{RoTxn, RwTxn, WithoutTls};

use super::dense;
use super::disk::{self, private_dir};
use super::examine::{Good, examine, last_transaction};
use super::sealed::Seal;
use super::superseded::Superseded;
use super::tables::{Applied, Tables};
use crate::StoreError;

/// An index up to this size has its sum noted when it rests, and compared when it is opened again:
/// LMDB notices no flipped byte, and may end the process over one. Larger ones would make
/// opening slow: of those no more is noted than that they were closed.
const SUMMED_UP_TO: u64 = 256 << 20;
/// One up to this size has it noted whenever it was written.
const SUMMED_AT_ONCE: u64 = 4 << 20;
/// The file beside an index that holds its sum.
const SUM: &str = "SUM";

/// The file beside an index in which something was found that nobody wrote.
const DOUBT: &str = "DOUBT";

/// A smaller index is left as it is.
const WORTH_CONDENSING: u64 = 1 << 20;
/// An index this many times as large as it has to be is written anew.
const ROOMY: f64 = 1.4;

/// So many pages environments may keep that are open, all together: 64 MB. One that is opened again
/// is slow at first, so that those stay open that are written a little at a time.
const KEPT: usize = 16 << 10;

/// One dataset's index. Its environment is opened when it is needed and may be closed between.
pub(crate) struct Index {
    dataset: String,
    dir: PathBuf,
    seal: Seal,
    map_bytes: AtomicU64,
    env: RwLock<Option<Tables>>,
    /// How many bytes it had before this process; none any more where it was thrown away.
    found: AtomicU64,
    /// `check` found nothing wrong: since then nobody wrote it but this handle.
    checked: AtomicBool,
    /// Whether there is anything to open; a dataset too small to have an index never makes one.
    exists: AtomicBool,
    retired: AtomicBool,
    used: AtomicU64,
    summed_up_to: u64,
    /// How large it was when somebody looked whether it is worth condensing.
    looked: AtomicU64,
    /// Held by whoever writes.
    writing: Mutex<()>,
    open: Arc<OpenIndexes>,
}

/// Bounds how many environments are open at a time.
pub(crate) struct OpenIndexes {
    limit: usize,
    clock: AtomicU64,
    open: Mutex<Vec<Weak<Index>>>,
}

impl OpenIndexes {
    pub fn new(limit: usize) -> Arc<OpenIndexes> {
        Arc::new(OpenIndexes {
            limit: limit.max(1),
            clock: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    /// Notes that `index` is about to open, and closes the one that was idle longest if need be.
    /// One that is in use just now is passed over, so the limit may be exceeded for a moment.
    fn make_room(&self, index: &Arc<Index>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| {
            other
                .upgrade()
                .is_some_and(|other| !Arc::ptr_eq(&other, index))
        });
        let mut others: Vec<Arc<Index>> = open.iter().filter_map(Weak::upgrade).collect();
        others.sort_by_key(|other| other.used.load(Ordering::Relaxed));
        let mut surplus = (others.len() + 1).saturating_sub(self.limit);
        for other in &others {
            if surplus == 0 {
                break;
            }
            if let Ok(mut env) = other.env.try_write() {
                *env = None;
                surplus -= 1;
                open.retain(|kept| !std::ptr::eq(kept.as_ptr(), Arc::as_ptr(other)));
            }
        }
        open.push(Arc::downgrade(index));
    }

    /// Closes those that keep most, as long as all together keep more than they may. One that is in
    /// use just now is passed over, so that nobody waits for its readers; a later write closes it.
    fn keep_little(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Arc<Index>> = open.iter().filter_map(Weak::upgrade).collect();
        drop(open);
        let kept = |index: &Arc<Index>| {
            let env = index.env.try_read().ok()?;
            Some(env.as_ref()?.wrote.load(Ordering::Relaxed))
        };
        let mut keeping: Vec<(usize, &Arc<Index>)> = all
            .iter()
            .filter_map(|index| Some((kept(index)?, index)))
            .collect();
        keeping.sort_by_key(|(kept, _)| std::cmp::Reverse(*kept));
        let mut sum: usize = keeping.iter().map(|(kept, _)| kept).sum();
        for (kept, index) in keeping {
            if sum <= KEPT {
                break;
            }
            if let Ok(mut env) = index.env.try_write() {
                *env = None;
                sum -= kept;
            }
        }
    }
}

impl Index {
    /// The index in `dir`, whose rows have this seal.
    pub fn new(
        dataset: &str,
        dir: PathBuf,
        seal: Seal,
        map_bytes: u64,
        open: Arc<OpenIndexes>,
    ) -> Arc<Index> {
        let found = fs::metadata(dir.join("data.mdb")).map(|file| file.len());
        Arc::new(Index {
            dataset: dataset.to_owned(),
            dir,
            seal,
            map_bytes: AtomicU64::new(map_bytes),
            env: RwLock::new(None),
            exists: AtomicBool::new(found.is_ok()),
            found: AtomicU64::new(found.unwrap_or(0)),
            checked: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            used: AtomicU64::new(0),
            summed_up_to: SUMMED_UP_TO,
            looked: AtomicU64::new(0),
            writing: Mutex::new(()),
            open,
        })
    }

    /// Reads; `None` when there is no index yet. Nothing that `look` returns borrows the index.
    pub fn read<R>(
        self: &Arc<Index>,
        look: impl FnOnce(&Tables, &RoTxn<'_, WithoutTls>) -> heed::Result<R>,
    ) -> Result<Option<R>, StoreError> {
        if !self.exists.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.with(|tables| tables.readers.read(&tables.env, |txn| look(tables, txn)))
            .map(Some)
    }

    /// Changes rows in one transaction; a full map is opened again at twice the size, and the
    /// change is made again.
    pub fn update(
        self: &Arc<Index>,
        change: &mut dyn FnMut(&Tables, &mut RwTxn<'_>) -> heed::Result<()>,
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        if !self.exists.load(Ordering::Acquire) {
            private_dir()
                .recursive(true)
                .create(&self.dir)
                .map_err(|source| self.io("creating", source))?;
        }
        // If this removal is lost with the power, the sum does not fit and the index is built anew.
        let _ = fs::remove_file(self.dir.join(SUM));
        loop {
            let full = self.with(|tables| {
                tables.readers.turn();
                let mut txn = tables.env.write_txn()?;
                disk::count_sync();
                let changed = change(tables, &mut txn).and_then(|()| txn.commit());
                tables.readers.turn();
                match changed {
                    Err(heed::Error::Mdb(heed::MdbError::MapFull)) => Ok(true),
                    changed => changed.map(|()| false),
                }
            })?;
            if !full {
                self.exists.store(true, Ordering::Release);
                if self.bytes() <= SUMMED_AT_ONCE.min(self.summed_up_to) {
                    self.write_sum();
                }
                return Ok(());
            }
            self.close();
            self.map_bytes
                .fetch_add(self.map_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Whether there is an index to read.
    pub fn exists(&self) -> bool {
        self.exists.load(Ordering::Acquire)
    }

    /// Up to where rows may be that an interrupted write left behind, with nothing noted of it.
    pub fn ahead(self: &Arc<Index>) -> Result<Option<Applied>, StoreError> {
        let ahead = self.read(|tables, txn| tables.ahead(txn))?;
        Ok(ahead.flatten())
    }

    /// What the index knows; an error means that it is no good.
    pub fn applied(self: &Arc<Index>) -> Result<Option<(Applied, Superseded)>, StoreError> {
        self.check()?;
        let loaded = self.read(|tables, txn| tables.applied(txn))?;
        Ok(loaded.flatten())
    }

    /// Refuses a file that is not what it was when its sum was noted, or whose pages make no sense
    /// where none was: the process ended while it was written.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.dir.join(DOUBT).exists() {
            return Err(self.error(&"rows of it made no sense"));
        }
        if self.checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let noted = fs::read_to_string(self.dir.join(SUM));
        match noted {
            Ok(noted) if self.sum().is_none_or(|sum| sum != noted) => {
                return Err(self.error(&"its file does not match its sum"));
            }
            Ok(_) => {}
            Err(_) if !self.exists() => {}
            Err(_) => {
                let seal = self.seal;
                let good = |table: &[u8], key: &[u8], row: &[u8]| seal.fits(table, key, row);
                // The rows of a large one are compared with their checks when they are read.
                let rows: Option<Good<'_>> = (!self.is_unknown()).then_some(&good);
                let examined = examine(&self.dir.join("data.mdb"), rows);
                examined.map_err(|wrong| self.error(&wrong))?;
            }
        }
        self.checked.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the index is one that was there before, too large for all rows to be looked at.
    pub fn is_unknown(&self) -> bool {
        self.found.load(Ordering::Acquire) > self.summed_up_to
    }

    /// Notes that what an index says is not so: it is not opened again.
    pub fn doubt(&self, found: &str) -> StoreError {
        let _ = fs::write(self.dir.join(DOUBT), found);
        self.error(&format!(
            "{found}; it is damaged, and is built anew when the node starts"
        ))
    }

    /// Notes that so many rows were written together, each of which may have changed a page of its
    /// own: an environment keeps the pages of its largest transaction for as long as it is open.
    pub fn rest(&self, rows: usize) {
        if let Ok(env) = self.env.try_read()
            && let Some(tables) = env.as_ref()
        {
            tables.wrote.fetch_max(rows, Ordering::Relaxed);
        }
        self.open.keep_little();
    }

    /// Closes the environment; it opens again when needed.
    pub fn close(&self) {
        *self.env.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Closes the environment and notes the sum of its file.
    pub fn close_summed(&self) {
        let _writing = self.writing.lock();
        self.close();
        self.note();
    }

    /// Notes the sum of the file, so that whoever opens it after a crash can compare: after what
    /// is written to an index that goes on being written to, not before it rests.
    pub fn note_sum(&self) {
        let _writing = self.writing.lock();
        if !self.is_large() {
            self.note();
        }
    }

    fn note(&self) {
        // Of a retired handle's file another handle is writing.
        let is_ours = self.exists() && !self.is_retired();
        if is_ours && !self.dir.join(SUM).exists() {
            self.write_sum();
        }
    }

    /// Whether it is too large for a sum. While such a one is open nothing is noted of it: it would
    /// not be looked through again after LMDB ended the process over it.
    fn is_large(&self) -> bool {
        self.bytes() > self.summed_up_to
    }

    /// Without the note the pages are looked through when the index is opened.
    fn write_sum(&self) {
        let noted = self.dir.join(SUM);
        let fresh = noted.with_extension("new");
        if let Some(sum) = self.sum()
            && fs::write(&fresh, sum).is_ok()
        {
            let _ = fs::rename(fresh, noted);
        }
    }

    /// Length and CRC-32 of the environment's file, of a large one length and last transaction;
    /// `None` for one that is not there.
    fn sum(&self) -> Option<String> {
        let path = self.dir.join("data.mdb");
        let mut file = fs::File::open(&path).ok()?;
        let size = file.metadata().ok()?.len();
        if size > self.summed_up_to {
            return Some(format!(
                "{size} transaction {}\n",
                last_transaction(&path).ok()?
            ));
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk).ok()? {
                0 => return Some(format!("{size} {:08x}\n", hasher.finalize())),
                len => hasher.update(&chunk[..len]),
            }
        }
    }

    /// Closes the environment for good: another handle is going to open it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.close();
    }

    /// Whether this handle was closed for good.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Removes what is on disk, so that it is built anew from the log.
    pub fn discard(&self) -> Result<(), StoreError> {
        self.close();
        self.exists.store(false, Ordering::Release);
        self.found.store(0, Ordering::Release);
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io("removing", error))
            }
            _ => Ok(()),
        }
    }

    /// Whether half its pages may be empty. Looking takes a walk through all of it; one that has
    /// hardly grown since is as it was.
    pub fn is_worth_a_look(&self) -> bool {
        let (file, looked) = (self.bytes(), self.looked.load(Ordering::Relaxed));
        file >= WORTH_CONDENSING && file >= looked + looked / 8
    }

    /// Writes the index anew where it takes much more room than it has to: random keys leave
    /// pages half empty. Readers go on, and writers until they want to write the index. Whether
    /// it was worth it; with `must` it is, since pages that are free still hold what was removed.
    pub fn condense(self: &Arc<Index>, must: bool) -> Result<bool, StoreError> {
        let _writing = self.writing.lock();
        if !self.exists() || !(must || self.is_worth_a_look()) {
            return Ok(false);
        }
        let file = self.bytes();
        self.looked.store(file, Ordering::Relaxed);
        if !must && (file as f64) < self.with(dense::bytes)? as f64 * ROOMY {
            return Ok(false);
        }
        let fresh = self.dir.with_extension("new");
        let _ = fs::remove_dir_all(&fresh);
        private_dir()
            .create(&fresh)
            .map_err(|source| self.io("condensing", source))?;
        let map_bytes = self.map_bytes.load(Ordering::Relaxed) as usize;
        self.with(|tables| dense::copy(tables, &Tables::open(&fresh, self.seal, map_bytes)?))?;
        let mut env = self.env.write().unwrap_or_else(PoisonError::into_inner);
        if self.retired.load(Ordering::Acquire) {
            return Ok(false);
        }
        // Where this ends in the middle there is no index, and it is built from the log.
        *env = None;
        let old = self.dir.with_extension("old");
        fs::rename(&self.dir, &old)
            .and_then(|()| fs::rename(&fresh, &self.dir))
            .and_then(|()| fs::remove_dir_all(&old))
            .map_err(|source| self.io("condensing", source))?;
        drop(env);
        self.looked.store(self.bytes(), Ordering::Relaxed);
        if !self.is_large() {
            self.write_sum();
        }
        Ok(true)
    }

    /// Removes what an interrupted `condense` left behind.
    pub fn clear(&self) {
        for ending in ["new", "old"] {
            let left = self.dir.with_extension(ending);
            if left.exists() {
                let _ = fs::remove_dir_all(left);
            }
        }
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        fs::metadata(self.dir.join("data.mdb")).map_or(0, |file| file.len())
    }

    fn with<R>(
        self: &Arc<Index>,
        work: impl FnOnce(&Tables) -> heed::Result<R>,
    ) -> Result<R, StoreError> {
        // Who reads the same one again and again writes nothing that others read.
        if self.used.load(Ordering::Relaxed) != self.open.clock.load(Ordering::Relaxed) {
            let before = self.open.clock.fetch_add(1, Ordering::Relaxed);
            self.used.store(before + 1, Ordering::Relaxed);
        }
        loop {
            let env = self.env.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(tables) = env.as_ref() {
                return work(tables).map_err(|error| self.doubted(&error));
            }
            drop(env);
            self.open.make_room(self);
            let mut env = self.env.write().unwrap_or_else(PoisonError::into_inner);
            if self.retired.load(Ordering::Acquire) {
                return Err(self.error(&"the dataset was opened anew after a failure"));
            }
            if env.is_none() {
                if self.is_large() {
                    let _ = fs::remove_file(self.dir.join(SUM));
                }
                let map_bytes = self.map_bytes.load(Ordering::Relaxed);
                let tables = Tables::open(&self.dir, self.seal, map_bytes as usize);
                *env = Some(tables.map_err(|error| self.error(&error))?);
            }
        }
    }

    /// Rows that make no sense are no index's: it is not opened again.
    fn doubted(&self, error: &heed::Error) -> StoreError {
        use heed::MdbError::{Corrupted, Invalid, PageNotFound};
        match error {
            heed::Error::Decoding(_) | heed::Error::Mdb(Corrupted | Invalid | PageNotFound) => {
                self.doubt(&error.to_string())
            }
            error => self.error(error),
        }
    }

    fn error(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Index {
            dataset: self.dataset.clone(),
            message: error.to_string(),
        }
    }

    fn io(&self, doing: &str, source: io::Error) -> StoreError {
        StoreError::Io {
            what: format!("{doing} {}", self.dir.display()),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use uuid::Uuid;

    use super::*;
    use crate::files::flush::Flush;
    use crate::files::overlay::Overlay;
    use crate::files::tables::bad_row;
    use crate::rule::Prior;

    /// An index of more than one level of branches, taken for one that is too large for a sum.
    fn large(dir: &Path) -> Arc<Index> {
        let seal = Seal::of(Uuid::from_u128(7));
        let index = Index::new("d", dir.to_owned(), seal, 1 << 26, OpenIndexes::new(1));
        let mut index = Arc::into_inner(index).unwrap();
        index.summed_up_to = 4_096;
        Arc::new(index)
    }

    fn fill(index: &Arc<Index>, applied: &Applied) {
        let mut overlay = Overlay::default();
        for at in 0..3_000u64 {
            let latest = Prior {
                seq: at,
                hash: at,
                deleted: false,
            };
            overlay.set_latest(format!("{at:0300}").as_bytes(), Some(latest));
        }
        let flush = Flush {
            overlay: &overlay,
            superseded: &Superseded::default(),
            dirty: &BTreeSet::new(),
            applied: Some(applied),
        };
        flush.write(index).unwrap();
    }

    #[test]
    fn a_large_index_is_looked_through_unless_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sum) = (dir.path().join("data.mdb"), dir.path().join(SUM));
        let applied = Applied {
            next: 3_000,
            live: 3_000,
            ..nothing()
        };
        let index = large(dir.path());
        fill(&index, &applied);
        index.note_sum();
        assert!(!sum.exists(), "nothing vouches for it while it is open");
        index.close();
        let whole = fs::read(&path).unwrap();
        assert!(whole.len() > 1_000_000);
        assert_eq!(large(dir.path()).applied().unwrap().unwrap().0, applied);
        // Every head of a page that is in use: LMDB would follow what it says.
        let mut found_out = 0;
        for page in (2..whole.len() / 4_096).step_by(3) {
            let mut damaged = whole.clone();
            damaged[page * 4_096 + 8..page * 4_096 + 16].fill(0xA5);
            fs::write(&path, damaged).unwrap();
            found_out += usize::from(large(dir.path()).check().is_err());
        }
        assert!(found_out * 3 > whole.len() / 4_096 * 8 / 10, "{found_out}");
        // One that was closed is taken for what it was; who opens it takes the note away.
        fs::write(&path, &whole).unwrap();
        let index = large(dir.path());
        assert!(index.applied().unwrap().is_some());
        index.close_summed();
        assert!(sum.exists());
        let index = large(dir.path());
        index.check().unwrap();
        assert!(sum.exists());
        assert!(index.applied().unwrap().is_some());
        assert!(!sum.exists());
        // A note of another state, left behind by a removal that the disk forgot.
        index.close_summed();
        let noted = fs::read(&sum).unwrap();
        fill(&index, &applied);
        index.close();
        fs::write(&sum, noted).unwrap();
        assert!(large(dir.path()).check().is_err());
    }

    fn nothing() -> Applied {
        Applied {
            generation: Uuid::from_u128(7),
            commit: 1,
            sum: 1,
            next: 0,
            live: 0,
            deleted: 0,
            populated: false,
            last_ts: 0,
            held: false,
        }
    }

    #[test]
    fn an_index_in_which_something_made_no_sense_is_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let seal = Seal::of(Uuid::from_u128(7));
            let indexes = OpenIndexes::new(1);
            Index::new("d", dir.path().join("index"), seal, 1 << 20, indexes)
        };
        let (index, applied) = (open(), nothing());
        let flush = Flush {
            overlay: &Overlay::default(),
            superseded: &Superseded::default(),
            dirty: &BTreeSet::new(),
            applied: Some(&applied),
        };
        flush.write(&index).unwrap();
        assert_eq!(index.applied().unwrap().unwrap().0, applied);
        let met = index.read(|_, _| Err::<(), _>(bad_row("nonsense")));
        let words = met.unwrap_err().to_string();
        assert!(
            words.contains("nonsense") && words.contains("built anew"),
            "{words}"
        );
        index.close();
        assert!(open().applied().is_err());
        open().discard().unwrap();
        assert!(open().applied().unwrap().is_none());
    }
}
