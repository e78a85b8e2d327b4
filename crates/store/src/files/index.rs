//! The index: an LMDB environment per dataset, derived from the log and thrown away when in doubt.

use std::io::Read as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::{fs, io};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};
use uuid::Uuid;

use super::dense;
use super::disk::{self, private_dir};
use super::superseded::Superseded;
use super::wire::{Reader, put_bytes};
use crate::keys::{index_key, is_cut};
use crate::rule::Prior;
use crate::{Seq, StoreError};

/// The layout of the tables and the content hash in them; another one means a rebuild.
const LAYOUT: u32 = 1;
pub(super) const APPLIED: &[u8] = b"applied";
/// Set while an index is written in pieces: what it will know.
pub(super) const AHEAD: &[u8] = b"ahead";
const READERS: u32 = 1024;
/// A closed index up to this size has its sum noted, and compared when it is opened again:
/// LMDB notices no flipped byte, and may end the process over one. Larger ones would make
/// opening slow.
const SUMMED_UP_TO: u64 = 256 << 20;

/// The file beside an index in which something was found that nobody wrote.
const DOUBT: &str = "DOUBT";

/// A smaller index is left as it is.
const WORTH_CONDENSING: u64 = 1 << 20;
/// An index this many times as large as it has to be is written anew.
const ROOMY: f64 = 1.4;

pub(super) type Table = Database<'static, Bytes, Bytes>;

/// Up to where the index knows the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub generation: Uuid,
    pub commit: u64,
    /// The sum of that commit's frame.
    pub sum: u32,
    pub next: Seq,
    pub live: u64,
    pub deleted: u64,
    pub populated: bool,
    pub last_ts: i64,
    /// Whether that commit is held back: then the index cannot tell what readers see, and is of
    /// no use to whoever opens the dataset.
    pub held: bool,
}

/// One dataset's index. Its environment is opened when it is needed and may be closed between.
pub(crate) struct Index {
    dataset: String,
    dir: PathBuf,
    map_bytes: AtomicU64,
    env: RwLock<Option<Tables>>,
    /// Whether there is anything to open; a dataset too small to have an index never makes one.
    exists: AtomicBool,
    retired: AtomicBool,
    used: AtomicU64,
    /// How large it was when somebody looked whether it is worth condensing.
    looked: AtomicU64,
    /// Held by whoever writes.
    writing: Mutex<()>,
    open: Arc<OpenIndexes>,
}

/// An open environment and its tables.
pub(crate) struct Tables {
    pub(super) env: Env<WithoutTls>,
    /// Index key of an id to sequence, half hash and flags.
    pub latest: Table,
    /// Index key of a state key to its value.
    pub state: Table,
    pub(super) superseded: Table,
    pub(super) meta: Table,
    /// Rows of declared indexes, where this is the environment that holds those.
    pub(super) keys: Table,
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
}

impl Index {
    pub fn new(dataset: &str, dir: PathBuf, map_bytes: u64, open: Arc<OpenIndexes>) -> Arc<Index> {
        let exists = dir.join("data.mdb").exists();
        Arc::new(Index {
            dataset: dataset.to_owned(),
            dir,
            map_bytes: AtomicU64::new(map_bytes),
            env: RwLock::new(None),
            exists: AtomicBool::new(exists),
            retired: AtomicBool::new(false),
            used: AtomicU64::new(0),
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
        self.with(|tables| {
            let txn = tables.env.read_txn()?;
            look(tables, &txn)
        })
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
        let _ = fs::remove_file(self.dir.join("SUM"));
        loop {
            let full = self.with(|tables| {
                let mut txn = tables.env.write_txn()?;
                disk::count_sync();
                match change(tables, &mut txn).and_then(|()| txn.commit()) {
                    Err(heed::Error::Mdb(heed::MdbError::MapFull)) => Ok(true),
                    changed => changed.map(|()| false),
                }
            })?;
            if !full {
                self.exists.store(true, Ordering::Release);
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
        let bytes = self.read(|tables, txn| {
            let bytes = tables.meta.get(txn, AHEAD)?;
            bytes
                .map(|bytes| Applied::decode(bytes).ok_or_else(|| bad_row("expected a commit")))
                .transpose()
        })?;
        Ok(bytes.flatten())
    }

    /// What the index knows; an error means that it is no good.
    pub fn applied(self: &Arc<Index>) -> Result<Option<(Applied, Superseded)>, StoreError> {
        self.check_sum()?;
        let loaded = self.read(|tables, txn| {
            let Some(bytes) = tables.meta.get(txn, APPLIED)? else {
                return Ok(None);
            };
            let Some(applied) = Applied::decode(bytes) else {
                return Ok(None);
            };
            let mut superseded = Superseded::default();
            for chunk in tables.superseded.iter(txn)? {
                let (number, bytes) = chunk?;
                let number = number.try_into().map(u32::from_be_bytes).map_err(bad_row)?;
                superseded.restore(number, bytes).map_err(bad_row)?;
            }
            Ok(Some((applied, superseded)))
        })?;
        Ok(loaded.flatten())
    }

    /// Refuses a file that is not what it was when it was closed.
    pub fn check_sum(&self) -> Result<(), StoreError> {
        if self.dir.join(DOUBT).exists() {
            return Err(self.error(&"rows of it made no sense"));
        }
        if let Ok(noted) = fs::read_to_string(self.dir.join("SUM"))
            && self.sum().is_none_or(|sum| sum != noted)
        {
            return Err(self.error(&"its file does not match its sum"));
        }
        Ok(())
    }

    /// Closes the environment; it opens again when needed.
    pub fn close(&self) {
        *self.env.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Closes the environment and notes the sum of its file.
    pub fn close_summed(&self) {
        let mut env = self.env.write().unwrap_or_else(PoisonError::into_inner);
        *env = None;
        let noted = self.dir.join("SUM");
        if self.exists.load(Ordering::Acquire)
            && !noted.exists()
            && let Some(sum) = self.sum()
        {
            // Without the note the index is believed as it is.
            let _ = fs::write(noted, sum);
        }
    }

    /// Length and CRC-32 of the environment's file; `None` for one that is too large or not there.
    fn sum(&self) -> Option<String> {
        let mut file = fs::File::open(self.dir.join("data.mdb")).ok()?;
        let size = file.metadata().ok()?.len();
        if size > SUMMED_UP_TO {
            return None;
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
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io("removing", error))
            }
            _ => Ok(()),
        }
    }

    /// Writes the index anew where it takes much more room than it has to: random keys leave
    /// pages half empty. Readers go on, and writers until they want to write the index. Whether
    /// it was worth it; with `must` it is, since pages that are free still hold what was removed.
    pub fn condense(self: &Arc<Index>, must: bool) -> Result<bool, StoreError> {
        let _writing = self.writing.lock();
        let file = self.bytes();
        // Looking takes a walk through all of it; one that has hardly grown since is as it was.
        let looked = self.looked.load(Ordering::Relaxed);
        let is_worth_a_look = file >= WORTH_CONDENSING && file >= looked + looked / 8;
        if !self.exists() || !(must || is_worth_a_look) {
            return Ok(false);
        }
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
        self.with(|tables| dense::copy(tables, &Tables::open(&fresh, map_bytes)?))?;
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
        self.looked.store(self.bytes(), Ordering::Relaxed);
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
        let now = self.open.clock.fetch_add(1, Ordering::Relaxed);
        self.used.store(now, Ordering::Relaxed);
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
                let map_bytes = self.map_bytes.load(Ordering::Relaxed);
                let tables = Tables::open(&self.dir, map_bytes as usize);
                *env = Some(tables.map_err(|error| self.error(&error))?);
            }
        }
    }

    /// Rows that make no sense are no index's: it is not opened again.
    fn doubted(&self, error: &heed::Error) -> StoreError {
        use heed::MdbError::{Corrupted, Invalid, PageNotFound};
        match error {
            heed::Error::Decoding(_) | heed::Error::Mdb(Corrupted | Invalid | PageNotFound) => {
                let _ = fs::write(self.dir.join(DOUBT), error.to_string());
                self.error(&format!(
                    "{error}; it is damaged, and is built anew when the node starts"
                ))
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

impl Tables {
    // LMDB maps the file: another process that changed it under us would change our memory.
    // The store's lock file keeps other processes out, and nothing here touches the file but LMDB.
    #[allow(unsafe_code)]
    fn open(dir: &Path, map_bytes: usize) -> heed::Result<Tables> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes).max_dbs(64).max_readers(READERS);
        let env = unsafe { options.open(dir)? };
        check_length(dir, &env)?;
        let txn = env.write_txn()?;
        let tables = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            Ok(CommitOrAbort::<_, ()>::Commit((
                opener.create_database(txn, Some("latest"))?,
                opener.create_database(txn, Some("state"))?,
                opener.create_database(txn, Some("superseded"))?,
                opener.create_database(txn, Some("meta"))?,
                opener.create_database(txn, Some("keys"))?,
            )))
        })?;
        let (latest, state, superseded, meta, keys) = tables.unwrap_commit();
        Ok(Tables {
            env,
            latest,
            state,
            superseded,
            meta,
            keys,
        })
    }

    pub(super) fn all(&self) -> [Table; 5] {
        [
            self.latest,
            self.state,
            self.superseded,
            self.meta,
            self.keys,
        ]
    }

    /// Writes latest versions, in the order of their keys.
    pub(super) fn write_latest<'r>(
        &self,
        txn: &mut RwTxn<'_>,
        rows: impl Iterator<Item = (&'r [u8], Option<Prior>)>,
    ) -> heed::Result<()> {
        // What goes into an empty table is put at its end, page by full page.
        let flags = match self.latest.is_empty(txn)? {
            true => PutFlags::APPEND,
            false => PutFlags::empty(),
        };
        for (key, prior) in rows {
            match prior {
                Some(prior) => {
                    let row = encode_prior(&prior);
                    self.latest.put_with_flags(txn, flags, key, &row)?;
                }
                None => self.latest.delete(txn, key).map(|_| ())?,
            }
        }
        Ok(())
    }

    pub(super) fn write_state(
        &self,
        txn: &mut RwTxn<'_>,
        whole: &[u8],
        value: Option<&[u8]>,
    ) -> heed::Result<()> {
        let key = index_key(whole);
        let Some(value) = value else {
            return self.state.delete(txn, &key).map(|_| ());
        };
        let mut row = Vec::with_capacity(value.len() + 1);
        if is_cut(&key) {
            put_bytes(whole, &mut row);
        } else {
            row.push(0);
        }
        row.extend_from_slice(value);
        self.state.put(txn, &key, &row)
    }

    /// The latest version under an index key.
    pub fn prior(&self, txn: &RoTxn<'_, WithoutTls>, key: &[u8]) -> heed::Result<Option<Prior>> {
        self.latest.get(txn, key)?.map(decode_prior).transpose()
    }

    /// State under a key.
    pub fn state_of(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        whole: &[u8],
    ) -> heed::Result<Option<Vec<u8>>> {
        let key = index_key(whole);
        let Some(row) = self.state.get(txn, &key)? else {
            return Ok(None);
        };
        Ok(Some(decode_state(&key, row)?.1.to_vec()))
    }

    /// Calls `each` with whole keys and values of state in the order of index keys, from the index
    /// key `from` on, while those start with `prefix` and `each` wants more.
    pub fn states_from(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        from: &[u8],
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> heed::Result<()> {
        let range = (Bound::Included(from), Bound::Unbounded);
        for row in self.state.range(txn, &range)? {
            let (key, row) = row?;
            if !key.starts_with(prefix) {
                break;
            }
            let (whole, value) = decode_state(key, row)?;
            if !each(whole, value) {
                break;
            }
        }
        Ok(())
    }
}

/// A map that is longer than its file ends the process when it is read; so the file is measured.
fn check_length(dir: &Path, env: &Env<WithoutTls>) -> heed::Result<()> {
    let pages = env.info().last_page_number as u64 + 1;
    let page = u64::from(env.unnamed_database_stat().page_size);
    let found = fs::metadata(dir.join("data.mdb"))?.len();
    if found < pages * page {
        return Err(bad_row(format!(
            "expected {} bytes of index, found {found}",
            pages * page
        )));
    }
    Ok(())
}

pub(super) fn bad_row(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> heed::Error {
    heed::Error::Decoding(error.into())
}

fn encode_prior(prior: &Prior) -> [u8; 17] {
    let mut row = [0; 17];
    row[..8].copy_from_slice(&prior.seq.to_le_bytes());
    row[8..16].copy_from_slice(&prior.hash.to_le_bytes());
    row[16] = u8::from(prior.deleted);
    row
}

fn decode_prior(row: &[u8]) -> heed::Result<Prior> {
    let mut reader = Reader(row);
    let prior = (|| {
        Some(Prior {
            seq: reader.u64()?,
            hash: reader.u64()?,
            deleted: reader.u8()? == 1,
        })
    })();
    prior.ok_or_else(|| bad_row("expected 17 bytes in a row of the table latest"))
}

/// Whole key and value. A row starts with the whole key where the index key is cut, else with 0.
fn decode_state<'t>(key: &'t [u8], row: &'t [u8]) -> heed::Result<(&'t [u8], &'t [u8])> {
    let mut reader = Reader(row);
    let whole = reader
        .bytes()
        .ok_or_else(|| bad_row("expected a length in a row of state"))?;
    Ok((if is_cut(key) { whole } else { key }, reader.0))
}

impl Applied {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&LAYOUT.to_le_bytes());
        bytes.extend_from_slice(&self.generation.as_u128().to_le_bytes());
        for number in [self.commit, self.next, self.live, self.deleted] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.last_ts.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.push(u8::from(self.populated));
        if self.held {
            bytes.push(1);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Applied> {
        let mut reader = Reader(bytes);
        if reader.u32()? != LAYOUT {
            return None;
        }
        Some(Applied {
            generation: Uuid::from_u128(reader.u128()?),
            commit: reader.u64()?,
            next: reader.u64()?,
            live: reader.u64()?,
            deleted: reader.u64()?,
            last_ts: reader.i64()?,
            sum: reader.u32()?,
            populated: reader.u8()? == 1,
            held: reader.u8() == Some(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::flush::Flush;
    use crate::files::overlay::Overlay;

    #[test]
    fn an_index_in_which_something_made_no_sense_is_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Index::new("d", dir.path().join("index"), 1 << 20, OpenIndexes::new(1));
        let index = open();
        let applied = Applied {
            generation: Uuid::from_u128(7),
            commit: 1,
            sum: 1,
            next: 0,
            live: 0,
            deleted: 0,
            populated: false,
            last_ts: 0,
            held: false,
        };
        let flush = Flush {
            overlay: &Overlay::default(),
            superseded: &Superseded::default(),
            dirty: &[],
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
