//! A dataset on disk: its writer's state, its readers' view, and how it is opened and closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::buffers::Buffers;
use super::committer::Queue;
use super::compact::{self, Memo};
use super::disk::Disk;
use super::durable::Durable;
use super::floor;
use super::flush::{Flush, most_waiting};
use super::frame::{Closing, FrameWriter, Removal};
use super::index::{Index, OpenIndexes};
use super::indexer;
use super::keyed::Keyed;
use super::manifest::Manifest;
use super::overlay::Overlay;
use super::recovery::{self, Place};
use super::sealed::Seal;
use super::segment::{End, FORMAT, Opening, Segment, ShapePool};
use super::snapshot::FileSnapshot;
use super::writer::Writer;
use super::{Options, StoreLock, commit, hold};
use crate::{
    Commit, Compacted, Compaction, Dataset, Declared, Head, IndexState, Outcome, Seq, Snapshot,
    StoreError, Ticket,
};

/// Declared indexes are written when this many of their keys have changed.
const KEYS_AT_ONCE: usize = 65_536;

/// What a dataset shares with its store.
pub(crate) struct Home {
    pub options: Options,
    pub indexes: Arc<OpenIndexes>,
    pub committer: Arc<Queue>,
    /// Keys that wait for their indexes.
    pub waiting: Arc<AtomicUsize>,
    pub indexer: Arc<indexer::Queue>,
    pub buffers: Arc<Buffers>,
    /// Numbers of segments, never given twice.
    pub numbers: Arc<AtomicU32>,
    /// Keeps other processes out for as long as any dataset is in use.
    pub lock: Arc<StoreLock>,
}

/// A dataset that is open.
pub(crate) struct OpenDataset {
    pub name: String,
    pub dir: PathBuf,
    pub options: Options,
    pub index: Arc<Index>,
    /// Declared indexes.
    pub keyed: Keyed,
    pool: ShapePool,
    pub segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    pub overlay: RwLock<Overlay>,
    pub durable: Durable,
    writer: Mutex<Writer>,
    /// Held by the one compaction that runs.
    pub compacting: Mutex<Memo>,
    /// How many wait for that compaction, which then ends early, to hold commits back.
    pub holding_up: AtomicU32,
    /// Read by whoever reads versions; written while what was held back is taken out of the log.
    pub cutting: RwLock<()>,
    /// How often that was done: a view of what was held back ends with it.
    pub cuts: AtomicU64,
    damage: OnceLock<String>,
    /// Whether there was damage when the log was read: what stands before it is all there is.
    is_prefix: bool,
    removed: AtomicBool,
    committer: Arc<Queue>,
    indexer: Arc<indexer::Queue>,
    pub buffers: Arc<Buffers>,
    _lock: Arc<StoreLock>,
}

/// The handle that callers hold.
pub(crate) struct FileDataset(pub Arc<OpenDataset>);

impl Dataset for FileDataset {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.0.check_whole()?;
        self.remains()
    }

    fn remains(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(FileSnapshot::take(&self.0, false)?))
    }

    fn uncommitted(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.0.check_whole()?;
        Ok(Box::new(FileSnapshot::take(&self.0, true)?))
    }

    fn commit(&self, commit: Commit<'_>) -> Result<(Outcome, Ticket), StoreError> {
        self.commit_within(commit, Duration::ZERO)
    }

    fn commit_within(
        &self,
        commit: Commit<'_>,
        delay: Duration,
    ) -> Result<(Outcome, Ticket), StoreError> {
        let (outcome, number) = commit::run(&self.0, &commit)?;
        self.0.committer.push(&self.0, delay);
        let dataset = Arc::clone(&self.0);
        Ok((outcome, Ticket::new(move || dataset.durable.reach(number))))
    }

    fn compact(&self, rules: &Compaction<'_>) -> Result<Compacted, StoreError> {
        compact::run(&self.0, rules)
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        hold::roll_back(&self.0)
    }

    fn indexes(&self) -> Result<Vec<IndexState>, StoreError> {
        self.0.keyed.states(&FileSnapshot::take(&self.0, false)?)
    }

    fn rebuild_index(&self, number: u32) -> Result<bool, StoreError> {
        let found = self
            .0
            .keyed
            .rebuild(&FileSnapshot::take(&self.0, false)?, number)?;
        self.0.indexer.push(&self.0, true);
        Ok(found)
    }
}

impl OpenDataset {
    /// Opens the dataset in `dir`, as its log tells it.
    pub fn open(
        dir: &Path,
        manifest: Manifest,
        home: Home,
    ) -> Result<Arc<OpenDataset>, StoreError> {
        let options = home.options;
        let seal = Seal::of(manifest.generation);
        let index_at = |name: &str| {
            let (dir, open) = (dir.join(name), Arc::clone(&home.indexes));
            Index::new(&manifest.name, dir, seal, options.map_bytes, open)
        };
        let index = index_at("index");
        index.clear();
        let pool = ShapePool::default();
        let place = Place::of(&options, dir, &manifest, &pool);
        let (mut found, index) = recovery::recover(&place, &index, &|| index_at("index-damaged"))?;
        if found.segments.is_empty() {
            return Err(StoreError::Damaged {
                dataset: manifest.name,
                found: found
                    .damage
                    .unwrap_or_else(|| "it has no segment".to_owned()),
            });
        }
        let damage = found.damage.take();
        let damage = damage.map_or_else(OnceLock::new, OnceLock::from);
        let is_prefix = damage.get().is_some();
        if !is_prefix {
            clear_unlisted(&*options.disk, dir, &manifest);
        }
        let keyed = Keyed::new(
            index_at("keys"),
            options.overlay_keys.min(KEYS_AT_ONCE),
            options.idle_keys,
        );
        let segments = Arc::new(std::mem::take(&mut found.segments));
        let mut overlay = std::mem::take(&mut found.told.overlay);
        overlay.join(&home.waiting);
        let visible = found.told.visible.take();
        let bytes = index.bytes() + keyed.bytes();
        let mut writer = Writer::recovered(found, &segments, manifest, home.numbers, bytes);
        let visible = visible.map(|visible| {
            writer.head.holds = true;
            visible.view(&writer, &segments)
        });
        Ok(Arc::new(OpenDataset {
            name: writer.head.name.clone(),
            dir: dir.to_owned(),
            options,
            index,
            keyed,
            pool,
            segments: RwLock::new(segments),
            overlay: RwLock::new(overlay),
            durable: Durable::new(writer.view(), visible),
            writer: Mutex::new(writer),
            compacting: Mutex::default(),
            holding_up: AtomicU32::new(0),
            cutting: RwLock::default(),
            cuts: AtomicU64::new(0),
            damage,
            is_prefix,
            removed: AtomicBool::new(false),
            committer: home.committer,
            indexer: home.indexer,
            buffers: home.buffers,
            _lock: home.lock,
        }))
    }

    /// Makes an empty dataset: all of it under a provisional name, then the name.
    pub fn create(
        datasets: &Path,
        name: &str,
        disk: &dyn Disk,
    ) -> Result<(PathBuf, Manifest), StoreError> {
        let generation = uuid::Uuid::new_v4();
        let manifest = Manifest {
            generation,
            name: name.to_owned(),
            segments: vec![1],
            past: Vec::new(),
            backup: None,
        };
        let dir = datasets.join(generation.to_string());
        let fresh = datasets.join(format!("{generation}.new"));
        let make = || {
            disk.create_dir(&fresh)?;
            let opening = Opening {
                number: 1,
                generation,
                first_seq: 0,
                commit: 0,
                previous: 0,
                name: name.to_owned(),
                format: FORMAT,
                closed: None,
            };
            Segment::create(disk, &fresh, opening)?;
            manifest.store(disk, &fresh)?;
            disk.rename(&fresh, &dir)?;
            disk.sync_dir(datasets)
        };
        make().map_err(|source| io_error("creating", &dir, source))?;
        Ok((dir, manifest))
    }

    /// The shapes of all segments.
    pub fn pool(&self) -> &ShapePool {
        &self.pool
    }

    /// Refuses where the dataset was removed.
    pub fn check_present(&self) -> Result<(), StoreError> {
        if self.removed.load(Ordering::Acquire) {
            return Err(StoreError::Missing(self.name.clone()));
        }
        Ok(())
    }

    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dataset's head after the commits so far: looking at it makes nothing durable.
    pub fn head(&self) -> Result<Head, StoreError> {
        self.durable.check()?;
        Ok(self.durable.shown().head.clone())
    }

    /// The segment that holds `seq`, as far as there is one.
    pub fn segment_of(segments: &[Arc<Segment>], seq: Seq) -> Option<usize> {
        segments
            .partition_point(|segment| segment.opening.first_seq <= seq)
            .checked_sub(1)
    }

    pub fn all_segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses writing where something is wrong, and says what.
    pub fn check_writable(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.check_present()?;
        if let Some(found) = self.damage.get() {
            return Err(self.damaged(found.clone()));
        }
        if writer.torn {
            let error = io::Error::other("a commit was interrupted while it was being written");
            self.durable.fail(&writer.segment, &error);
        }
        self.cut_unsynced(writer);
        self.durable.check()
    }

    /// Notes that bytes on disk are not what was written; no more is written after them.
    pub fn note(&self, error: StoreError) -> StoreError {
        if let StoreError::Damaged { found, .. } = &error {
            let _ = self.damage.set(found.clone());
        }
        error
    }

    /// Refuses where what can be read is a part that could pass for all of it. Damage that is
    /// found later fails those who read what is damaged.
    fn check_whole(&self) -> Result<(), StoreError> {
        match self.damage.get().filter(|_| self.is_prefix) {
            Some(found) => Err(self.damaged(found.clone())),
            None => Ok(()),
        }
    }

    /// What is known to be damaged.
    pub fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    pub fn damaged(&self, found: String) -> StoreError {
        StoreError::Damaged {
            dataset: self.name.clone(),
            found,
        }
    }

    /// After a failed sync the disk may have lost what the page cache still shows. Nobody was
    /// told that it was durable, so it is cut off before anything reads or extends it.
    fn cut_unsynced(&self, writer: &mut Writer) {
        if writer.cut || self.durable.check().is_ok() {
            return;
        }
        let durable = self.durable.published();
        // Segments before the newest were synced when they were sealed.
        let here = Arc::ptr_eq(&durable.segment, &writer.segment);
        let end = if here {
            durable.end
        } else {
            writer.segment.start()
        };
        writer.cut = writer.segment.file.cut(end).is_ok();
    }

    /// Seals the segment and starts the next one.
    pub fn roll(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.durable.reach(writer.commit)?;
        let sealed = Arc::clone(&writer.segment);
        let end = End {
            at: writer.end,
            commit: writer.commit,
            next: writer.head.next,
            sum: writer.sum,
        };
        sealed
            .seal(end)
            .map_err(|source| io_error("sealing", &sealed.path, source))?;
        if let Err(error) = sealed.file.sync() {
            self.durable.fail(&sealed, &error);
            return self.durable.check();
        }
        let opening = Opening {
            format: FORMAT,
            number: writer.take_number(),
            generation: writer.head.generation,
            first_seq: writer.head.next,
            commit: writer.commit,
            previous: writer.sum,
            name: self.name.clone(),
            closed: None,
        };
        let mut manifest = writer.manifest.clone();
        manifest.segments.push(opening.number);
        let disk = &*self.options.disk;
        let segment = Segment::create(disk, &self.dir, opening)
            .and_then(|segment| {
                disk.sync_dir(&self.dir)?;
                manifest.prepare(disk, &self.dir)?;
                Ok(Arc::new(segment))
            })
            .map_err(|source| io_error("adding a segment to", &self.dir, source))?;
        if let Err(error) = Manifest::swap(disk, &self.dir) {
            // Either list may count now: whoever opens the dataset anew sees which one.
            self.durable.fail(&segment, &error);
            return self.durable.check();
        }
        writer.begin_segment(&segment, manifest);
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut segments).push(segment);
        Ok(())
    }

    /// Writes the index up to the newest commit, which is made durable first: an index never
    /// knows more than the log will after a power cut.
    pub fn write_index(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.durable.reach(writer.commit)?;
        {
            let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
            let flush = Flush {
                overlay: &overlay,
                superseded: &writer.superseded,
                dirty: &writer.dirty,
                applied: Some(&writer.applied()),
            };
            flush.write(&self.index)?;
        }
        self.overlay
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .written();
        writer.dirty.clear();
        writer.witnessed = writer.commit;
        writer.index_bytes = self.index.bytes() + self.keyed.bytes();
        writer.index_held = writer.head.holds;
        Ok(())
    }

    /// Whether the index has to be written before more may be committed; `whole` when what is about
    /// to come can be written in one transaction only.
    pub fn overlay_full(&self, writer: &Writer, whole: bool) -> bool {
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        let all = self.options.overlay_keys;
        let whole = whole || overlay.removes || writer.head.holds;
        let most = most_waiting(all, whole, &self.index);
        overlay.is_full(most, all) || overlay.state_bytes >= self.options.overlay_state_bytes
    }

    pub fn segment_full(&self, writer: &Writer) -> bool {
        writer.end >= self.options.segment_bytes
    }

    /// Makes what was written durable. A failure is kept: tickets and later commits report it.
    pub fn sync(&self) {
        if self.durable.reach_all().is_err() {
            self.cut_unsynced(&mut self.writer());
        }
    }

    /// Replaces what is declared of this dataset.
    pub fn declare(self: &Arc<OpenDataset>, declared: &Declared) {
        let defs = declared.get(&self.name).map_or(&[][..], Vec::as_slice);
        if !defs.is_empty() || self.keyed.concerns() {
            self.keyed.declare(defs);
            self.indexer.push(self, true);
        }
    }

    /// Has declared indexes brought up to what is durable of the log, so that whoever asks them next
    /// has little to wait for; where it has gone `quiet`, they are written as well, and the index
    /// is freed of half-empty pages.
    pub fn index_on(self: &Arc<OpenDataset>, quiet: bool) {
        let next = self.durable.visible().head.next;
        let rests = || self.keyed.concerns() || self.index.is_worth_a_look();
        if self.keyed.is_behind(next) || quiet && rests() {
            self.indexer.push(self, quiet);
        }
    }

    /// Frees the index of half-empty pages, where that is worth it or it `must` be.
    pub fn condense(&self, must: bool) -> Result<(), StoreError> {
        if self.index.condense(must)? {
            let mut writer = self.writer();
            writer.index_bytes = self.index.bytes() + self.keyed.bytes();
            writer.replaced(0, 0);
            self.durable.refresh(writer.view());
        }
        Ok(())
    }

    /// Writes the index of a dataset that has gone quiet, where it is worth it.
    /// A failure is left to the next commit, which meets it again and reports it.
    pub fn rest(&self) {
        let mut writer = self.writer();
        if self.check_writable(&mut writer).is_ok() && self.worth_an_index(&writer) {
            let _ = self.write_index(&mut writer);
        }
        drop(writer);
        self.index.note_sum();
    }

    /// An index of what is held back would have to be built anew.
    fn worth_an_index(&self, writer: &Writer) -> bool {
        if writer.head.holds {
            return false;
        }
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        overlay.len() >= self.options.idle_keys
    }

    /// Makes everything durable and leaves a trace of that, so that from now on a bad frame is
    /// known to be damage and not a torn end.
    pub fn close(self: &Arc<OpenDataset>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        if self.removed.load(Ordering::Acquire) || self.damage.get().is_some() {
            return Ok(());
        }
        self.check_writable(&mut writer)?;
        self.durable.reach(writer.commit)?;
        if self.worth_an_index(&writer) {
            self.write_index(&mut writer)?;
        } else if writer.witnessed < writer.commit {
            self.mark(&mut writer)?;
        }
        self.note_end(&mut writer);
        self.index.close_summed();
        self.keyed.close(self)
    }

    /// Notes outside of the log how far it goes. Where that fails the older note stays, which is as
    /// true.
    fn note_end(&self, writer: &mut Writer) {
        let (disk, generation) = (&*self.options.disk, writer.head.generation);
        if writer.floor < writer.commit
            && floor::note(disk, &self.dir, generation, writer.commit).is_ok()
        {
            writer.floor = writer.commit;
        }
    }

    /// Writes an empty frame, which says that all before it are durable.
    fn mark(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.append_marks(writer, &[])?;
        self.durable.push(writer.view());
        self.durable.reach(writer.commit)?;
        // The mark itself holds nothing, so nothing needs to vouch for it.
        writer.witnessed = writer.commit;
        Ok(())
    }

    /// Writes a frame without rows and state, which removes these ids.
    pub fn append_marks(
        &self,
        writer: &mut Writer,
        removals: &[Removal],
    ) -> Result<(), StoreError> {
        let frame = FrameWriter::new(Vec::new(), writer.segment.salt);
        let finished = frame.finish(Closing {
            commit: writer.commit + 1,
            first_seq: writer.head.next,
            last_ts: writer.head.last_ts,
            previous: writer.sum,
            behind: writer.commit - self.durable.published().commit,
            populated: false,
            held: writer.head.holds,
            shows: false,
            state: Vec::new(),
            removals,
        });
        writer.append(&finished.bytes, self)?;
        writer.note_frame(&finished, &[]);
        writer.torn = false;
        writer.head.bytes = writer.bytes();
        Ok(())
    }

    /// Whether another handle has to be opened: this one's disk failed.
    pub fn failed(&self) -> bool {
        self.durable.check().is_err()
    }

    /// Lets go of the files, so that the dataset can be opened anew.
    pub fn retire(&self) {
        let mut writer = self.writer();
        self.cut_unsynced(&mut writer);
        self.index.retire();
        self.keyed.index.retire();
    }

    /// The dataset is gone; commits say so.
    pub fn remove(&self) {
        let _writer = self.writer();
        self.removed.store(true, Ordering::Release);
        self.index.retire();
        self.keyed.index.retire();
    }
}

/// Removes segments that compaction replaced, and those that never came to be listed.
fn clear_unlisted(disk: &dyn Disk, dir: &Path, manifest: &Manifest) {
    for name in disk.list(dir).unwrap_or_default() {
        let path = dir.join(name);
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let log = path.extension().is_some_and(|end| end == "log");
        if log && number.is_some_and(|number| !manifest.segments.contains(&number)) {
            // One that stays does no harm, and is tried again at the next opening.
            let _ = disk.remove_file(&path);
        }
    }
}

pub(crate) fn io_error(doing: &str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        what: format!("{doing} {}", path.display()),
        source,
    }
}
