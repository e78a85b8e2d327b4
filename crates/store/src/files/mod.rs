//! Datasets on disk: a log of segments is the truth, an index is derived from it.
//!
//! `docs/format.md` has the bytes. Layout of a store's folder:
//!
//! - `FORMAT`: the format's number; `LOCK`: held by the process that has the store open.
//! - `datasets/<generation>/`: `MANIFEST`, segments `000001.log` …, `index/`, `END`.
//!
//! A commit is one frame in the newest segment. It is visible to snapshots and acknowledged by
//! its ticket when it is durable; one sync serves all commits that were written by then.

mod backup;
mod block;
mod buffers;
mod changed;
mod commit;
mod committer;
mod compact;
mod dataset;
mod dense;
mod disk;
mod durable;
mod examine;
mod fetch;
mod floor;
mod flush;
mod frame;
mod hold;
mod index;
mod indexer;
mod keyed;
mod manifest;
mod overlay;
mod pack;
mod readers;
mod recovery;
mod remove;
mod rewrite;
mod sealed;
mod segment;
mod snapshot;
mod state;
mod superseded;
mod survey;
mod tables;
mod told;
mod unpack;
mod verify;
mod wire;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk, syncs};
pub use verify::Verified;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buffers::Buffers;
use committer::Committer;
use dataset::{FileDataset, Home, OpenDataset, io_error};
use disk::private_dir;
use index::OpenIndexes;
use indexer::Indexer;
use manifest::{BadManifest, Manifest};
use segment::{FORMAT, OLDEST, Segment};

use crate::{Backend, Backup, Dataset, Declared, Head, StoreError};

/// How many datasets are opened at a time where all are, and how many are worth another thread.
const OPENED_AT_ONCE: usize = 8;
const WORTH_A_THREAD: usize = 16;

/// Limits of a store. The defaults suit a node; tests make them small.
#[derive(Clone)]
pub struct Options {
    /// A segment that has reached this length is sealed before the next commit.
    pub segment_bytes: u64,
    /// The index is written when this many ids and state keys have changed since, in a dataset or
    /// in all together; a sixteenth of them where the index is large.
    pub overlay_keys: usize,
    /// The index is written when this many bytes of state have changed since.
    pub overlay_state_bytes: usize,
    /// An idle or closing dataset with fewer changes than this leaves them to its log:
    /// reading them again is quicker than writing an index.
    pub idle_keys: usize,
    /// How many indexes are open at a time; each takes three file handles and 0.8 MB of memory.
    pub open_indexes: usize,
    /// Address space an index reserves at first; a full one is opened again at twice the size.
    pub map_bytes: u64,
    /// Where the log is written.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            overlay_keys: 1 << 20,
            overlay_state_bytes: 64 << 20,
            idle_keys: 1024,
            open_indexes: 64,
            map_bytes: 16 << 30,
            disk: Arc::new(RealDisk),
        }
    }
}

/// A store in a folder.
pub struct Files {
    root: PathBuf,
    options: Options,
    names: Mutex<BTreeMap<String, Arc<Slot>>>,
    indexes: Arc<OpenIndexes>,
    waiting: Arc<AtomicUsize>,
    committer: Committer,
    indexer: Indexer,
    buffers: Arc<Buffers>,
    /// What was declared last, for datasets that are opened later.
    declared: Mutex<Option<Declared>>,
    lock: Arc<StoreLock>,
}

/// Keeps other processes out of a store's folder, until it is dropped.
pub struct StoreLock(#[allow(dead_code)] File);

/// A dataset's place in the store, open or not.
struct Slot {
    dir: PathBuf,
    found: Found,
    open: Mutex<Option<Arc<OpenDataset>>>,
    /// The number of its next segment, once it was open.
    numbers: Arc<AtomicU32>,
}

/// What a dataset's folder says of itself.
enum Found {
    Good(Manifest),
    /// The manifest has another format.
    Format(u32),
    /// The manifest cannot be read; the name is the segments'.
    Damaged(String),
}

impl Files {
    /// Opens the store in `dir`, or makes one.
    ///
    /// # Errors
    /// `InUse` when another process has it open, `Format` when another version wrote it.
    pub fn open(dir: &Path, options: Options) -> Result<Files, StoreError> {
        let made = private_dir().recursive(true).create(dir);
        made.map_err(|source| io_error("creating", dir, source))?;
        let lock = Arc::new(StoreLock::take(dir)?);
        let disk = Arc::clone(&options.disk);
        check_format(&*disk, dir)?;
        let names = scan(&*disk, &dir.join("datasets"))?;
        let no_thread = |source| io_error("starting a thread for", dir, source);
        let committer = Committer::start().map_err(no_thread)?;
        let indexer = Indexer::start().map_err(no_thread)?;
        Ok(Files {
            root: dir.to_owned(),
            indexes: OpenIndexes::new(options.open_indexes),
            waiting: Arc::default(),
            buffers: Arc::default(),
            options,
            names: Mutex::new(names),
            committer,
            indexer,
            declared: Mutex::default(),
            lock,
        })
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.names().get(name).cloned()
    }

    fn create(&self, name: &str) -> Result<Arc<Slot>, StoreError> {
        let mut names = self.names();
        if let Some(slot) = names.get(name) {
            return Ok(Arc::clone(slot));
        }
        let datasets = self.root.join("datasets");
        let (dir, manifest) = OpenDataset::create(&datasets, name, &*self.options.disk)?;
        let slot = Slot {
            dir,
            found: Found::Good(manifest),
            open: Mutex::new(None),
            numbers: Arc::default(),
        };
        let slot = Arc::new(slot);
        names.insert(name.to_owned(), Arc::clone(&slot));
        Ok(slot)
    }

    /// The slot's dataset; one whose disk failed is let go and opened anew from its log.
    fn opened(&self, name: &str, slot: &Slot) -> Result<Arc<OpenDataset>, StoreError> {
        let mut open = slot.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dataset) = open.as_ref() {
            if !dataset.failed() {
                return Ok(Arc::clone(dataset));
            }
            dataset.retire();
            *open = None;
        }
        let home = Home {
            options: self.options.clone(),
            indexes: Arc::clone(&self.indexes),
            committer: Arc::clone(&self.committer.queue),
            waiting: Arc::clone(&self.waiting),
            indexer: Arc::clone(&self.indexer.queue),
            buffers: Arc::clone(&self.buffers),
            numbers: Arc::clone(&slot.numbers),
            lock: Arc::clone(&self.lock),
        };
        // The segment list may have grown since the store was opened.
        let manifest = match &slot.found {
            Found::Good(_) => Manifest::load(&*self.options.disk, &slot.dir),
            Found::Format(found) => Err(BadManifest::Format(*found)),
            Found::Damaged(_) => Err(BadManifest::Damaged),
        };
        let manifest = manifest.map_err(|error| slot.error(name, error))?;
        let dataset = OpenDataset::open(&slot.dir, manifest, home)?;
        if let Some(declared) = &*self.declared() {
            dataset.declare(declared);
        }
        *open = Some(Arc::clone(&dataset));
        Ok(dataset)
    }

    fn declared(&self) -> MutexGuard<'_, Option<Declared>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with a slot's dataset, if anything is known to be.
    fn damage_of(&self, name: &str, slot: &Slot) -> Option<String> {
        match self.opened(name, slot) {
            Ok(dataset) => dataset.damage(),
            Err(StoreError::Damaged { found, .. }) => Some(found),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The datasets that are open.
    fn open_datasets(&self) -> Vec<Arc<OpenDataset>> {
        let slots: Vec<Arc<Slot>> = self.names().values().cloned().collect();
        let open = slots
            .iter()
            .map(|slot| slot.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.filter_map(|open| open.clone()).collect()
    }
}

impl Backend for Files {
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dataset>, StoreError> {
        let slot = match self.slot(name) {
            Some(slot) => slot,
            None if create => self.create(name)?,
            None => return Err(StoreError::Missing(name.to_owned())),
        };
        Ok(Arc::new(FileDataset(self.opened(name, &slot)?)))
    }

    fn find(&self, name: &str) -> Result<Option<Arc<dyn Dataset>>, StoreError> {
        match self.slot(name) {
            None => Ok(None),
            Some(slot) => Ok(Some(Arc::new(FileDataset(self.opened(name, &slot)?)))),
        }
    }

    /// A dataset that cannot be opened is listed by its name, with zeros.
    fn list(&self) -> Result<Vec<Head>, StoreError> {
        let slots: Vec<(String, Arc<Slot>)> = self
            .names()
            .iter()
            .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
            .collect();
        let heads = slots
            .iter()
            .map(|(name, slot)| match self.opened(name, slot) {
                Ok(dataset) => dataset.head().unwrap_or_else(|_| slot.blank(name)),
                Err(_) => slot.blank(name),
            });
        Ok(heads.collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Some(slot) = self.names().remove(name) else {
            return Ok(());
        };
        if let Some(open) = slot
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            open.remove();
        }
        let disk = &*self.options.disk;
        let datasets = self.root.join("datasets");
        let gone = slot.dir.with_extension("removed");
        let remove = || {
            disk.rename(&slot.dir, &gone)?;
            disk.sync_dir(&datasets)?;
            disk.remove_dir(&gone)
        };
        remove().map_err(|source| io_error("removing", &slot.dir, source))
    }

    fn damaged(&self) -> Vec<(String, String)> {
        let slots: Vec<(String, Arc<Slot>)> = self
            .names()
            .iter()
            .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
            .collect();
        // The disk answers several at a time.
        let next = AtomicUsize::new(0);
        let look = || {
            let mut found = Vec::new();
            while let Some((name, slot)) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
                let damage = self.damage_of(name, slot);
                found.extend(damage.map(|damage| (name.clone(), damage)));
            }
            found
        };
        let closed = slots.iter().filter(|(_, slot)| !slot.is_open()).count();
        let mut found = std::thread::scope(|scope| {
            let others = (closed / WORTH_A_THREAD).min(OPENED_AT_ONCE - 1);
            let others: Vec<_> = (0..others).map(|_| scope.spawn(look)).collect();
            let mut found = look();
            for other in others {
                found.extend(other.join().unwrap_or_default());
            }
            found
        });
        found.sort_unstable();
        found
    }

    fn damage(&self, name: &str) -> Option<String> {
        self.damage_of(name, &*self.slot(name)?)
    }

    fn backup(&self, to: &Path) -> Result<Backup, StoreError> {
        backup::run(self, to)
    }

    fn declare(&self, indexes: Declared) {
        *self.declared() = Some(indexes.clone());
        for dataset in self.open_datasets() {
            dataset.declare(&indexes);
        }
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut first = Ok(());
        for dataset in self.open_datasets() {
            let closed = dataset.close();
            if first.is_ok() {
                first = closed;
            }
        }
        first
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.indexer.end();
        // Whoever needs to know of a failure calls close; the log has everything either way.
        let _ = self.close();
    }
}

impl StoreLock {
    /// Takes the lock of the folder `dir`, which exists.
    ///
    /// # Errors
    /// `InUse` when another process has the store open.
    pub fn take(dir: &Path) -> Result<StoreLock, StoreError> {
        let path = dir.join("LOCK");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|source| io_error("opening", &path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(StoreLock(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: dir.display().to_string(),
            }),
            Err(TryLockError::Error(source)) => Err(io_error("locking", &path, source)),
        }
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        self.open.try_lock().is_ok_and(|open| open.is_some())
    }

    fn error(&self, name: &str, error: BadManifest) -> StoreError {
        let path = self.dir.join(manifest::NAME);
        match error {
            BadManifest::Io(source) => io_error("reading", &path, source),
            BadManifest::Format(found) => StoreError::Format {
                path: path.display().to_string(),
                expected: FORMAT,
                found,
            },
            BadManifest::Damaged => StoreError::Damaged {
                dataset: name.to_owned(),
                found: match &self.found {
                    Found::Damaged(found) => found.clone(),
                    _ => format!("{} does not match its sum", path.display()),
                },
            },
        }
    }

    fn blank(&self, name: &str) -> Head {
        let generation = match &self.found {
            Found::Good(manifest) => manifest.generation,
            _ => uuid::Uuid::nil(),
        };
        Head {
            name: name.to_owned(),
            generation,
            next: 0,
            live: 0,
            deleted: 0,
            populated: false,
            bytes: 0,
            last_ts: 0,
            holds: false,
            past: Vec::new(),
        }
    }
}

/// Reads the store's format, or writes it where there is nothing yet.
fn check_format(disk: &dyn Disk, root: &Path) -> Result<(), StoreError> {
    let path = root.join("FORMAT");
    let fail = |source| io_error("opening", &path, source);
    let found = match disk::read_all(disk, &path) {
        Ok(bytes) => format_in(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let names = disk.list(root).map_err(fail)?;
            if names.iter().any(|name| name == "datasets") {
                None
            } else {
                let text = format!("tahini store {FORMAT}\n");
                disk::replace(disk, &path, text.as_bytes()).map_err(fail)?;
                Some(FORMAT)
            }
        }
        Err(error) => return Err(fail(error)),
    };
    judge_format(found, &path)
}

/// Refuses a folder that does not say that it holds a store of a format we know.
fn check_known_format(disk: &dyn Disk, root: &Path) -> Result<(), StoreError> {
    let path = root.join("FORMAT");
    let bytes = disk::read_all(disk, &path);
    let bytes = bytes.map_err(|source| io_error("opening", &path, source))?;
    judge_format(format_in(&bytes), &path)
}

fn format_in(bytes: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(bytes);
    text.strip_prefix("tahini store ")
        .and_then(|number| number.trim().parse().ok())
}

fn judge_format(found: Option<u32>, path: &Path) -> Result<(), StoreError> {
    match found {
        Some(OLDEST..=FORMAT) => Ok(()),
        found => Err(StoreError::Format {
            path: path.display().to_string(),
            expected: FORMAT,
            found: found.unwrap_or(0),
        }),
    }
}

/// Finds the datasets and clears away what was being made or removed when the process ended.
fn scan(disk: &dyn Disk, datasets: &Path) -> Result<BTreeMap<String, Arc<Slot>>, StoreError> {
    let fail = |source| io_error("reading", datasets, source);
    let entries = match disk.list(datasets) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            disk.create_dir(datasets).map_err(fail)?;
            disk.sync_dir(datasets.parent().expect("a store has a folder"))
                .map_err(fail)?;
            Vec::new()
        }
        Err(error) => return Err(fail(error)),
    };
    let mut names = BTreeMap::new();
    for entry in entries {
        let dir = datasets.join(&entry);
        let named = |name: Option<&OsStr>| {
            let name = name.and_then(OsStr::to_str);
            name.is_some_and(|name| uuid::Uuid::try_parse(name).is_ok())
        };
        if named(Some(&entry)) {
            let (name, found) = look_at(disk, &dir);
            let slot = Slot {
                dir,
                found,
                open: Mutex::new(None),
                numbers: Arc::default(),
            };
            names.insert(name, Arc::new(slot));
        } else if named(dir.file_stem())
            && dir
                .extension()
                .is_some_and(|end| end == "new" || end == "removed")
        {
            disk.remove_dir(&dir).map_err(fail)?;
        }
    }
    Ok(names)
}

/// A dataset's name and manifest, as far as its folder still tells them. What is wrong with one
/// dataset is told to those who open it; the others are not concerned.
fn look_at(disk: &dyn Disk, dir: &Path) -> (String, Found) {
    let path = dir.join(manifest::NAME);
    let found = match Manifest::load(disk, dir) {
        Ok(saved) if saved.backup.is_some() => {
            // A backup becomes a dataset of its own before anything of it can be read.
            let name = saved.name.clone();
            let manifest = saved.restored();
            return match manifest.store(disk, dir) {
                Ok(()) => (name, Found::Good(manifest)),
                Err(error) => (name, Found::Damaged(format!("{}: {error}", path.display()))),
            };
        }
        Ok(manifest) => return (manifest.name.clone(), Found::Good(manifest)),
        Err(BadManifest::Format(found)) => Found::Format(found),
        Err(BadManifest::Io(error)) => Found::Damaged(format!("{}: {error}", path.display())),
        Err(BadManifest::Damaged) => Found::Damaged(format!(
            "{} is missing or does not match its sum",
            path.display()
        )),
    };
    let names = disk.list(dir).unwrap_or_default();
    let mut logs: Vec<PathBuf> = names.into_iter().map(|name| dir.join(name)).collect();
    logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
    logs.sort();
    let named = logs
        .into_iter()
        .find_map(|path| Segment::open(disk, path).ok());
    let folder = || {
        dir.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    (
        named.map_or_else(folder, |segment| segment.opening.name.clone()),
        found,
    )
}
