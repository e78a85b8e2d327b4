//! Opening a dataset: its segments are read, the index is brought up to them, a torn end is cut.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::Options;
use super::block::{self, Block, Malformed};
use super::disk::Disk;
use super::durable::View;
use super::frame::{self, Frame, Removal};
use super::index::{Applied, Flush, Index};
use super::manifest::Manifest;
use super::overlay::Overlay;
use super::segment::{BadHeader, Closed, FORMAT, Segment, ShapePool};
use super::superseded::Superseded;
use super::writer::Writer;
use crate::keys::index_key;
use crate::rule::{self, Prior};
use crate::{Head, Seq, StoreError};

/// What recovery needs to know.
pub(crate) struct Place<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub manifest: &'a Manifest,
    pub pool: &'a ShapePool,
    /// The index is written whenever this many keys have changed.
    pub overlay_keys: usize,
}

impl<'a> Place<'a> {
    /// The dataset in `dir`.
    pub fn of(
        options: &'a Options,
        dir: &'a Path,
        manifest: &'a Manifest,
        pool: &'a ShapePool,
    ) -> Place<'a> {
        Place {
            disk: &*options.disk,
            dir,
            manifest,
            pool,
            overlay_keys: options.overlay_keys,
        }
    }
}

/// A dataset as its log tells it.
pub(crate) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    /// Where the next frame goes.
    pub end: u64,
    pub told: Told,
    /// The newest commit of which a later byte on disk says that it was durable.
    pub witnessed: u64,
    /// Why the dataset can be read but not written.
    pub damage: Option<String>,
}

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
    anew: bool,
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
    fn nothing() -> Told {
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

    fn by_index(applied: &Applied, superseded: Superseded) -> Told {
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
    fn hold(&mut self, frame: &Frame<'_>, segment: &Segment, at: u64) {
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
    fn replay(
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
            Some(latest) => Ok(*latest),
            None => Ok(index.read(|tables, txn| tables.prior(txn, key))?.flatten()),
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
        let applied = self.applied(generation);
        let known = done || !self.anew;
        index.write(Flush {
            overlay: &self.overlay,
            superseded: &self.superseded,
            dirty: &mut self.dirty.iter().copied(),
            applied: known.then_some(&applied),
        })?;
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
enum Unread {
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

/// What came of one reading of the log.
enum Reading {
    Done(Box<Recovered>),
    /// The index is not this log's.
    Foreign,
    /// The index knows commits that the log does not have in a readable form.
    Behind(String),
}

/// Reads a dataset's log and makes the index fit.
///
/// # Errors
/// When the disk refuses or a segment has another format. Damage is no error: it is reported in
/// `Recovered::damage`, and what stands before it can be read, through `spare`.
pub(crate) fn recover(
    place: &Place<'_>,
    index: &Arc<Index>,
    spare: &dyn Fn() -> Arc<Index>,
) -> Result<(Recovered, Arc<Index>), StoreError> {
    let known = index.applied().ok().flatten();
    let ours = |applied: &Applied| applied.generation == place.manifest.generation;
    let known = known.filter(|(applied, _)| ours(applied) && !applied.held);
    if known.is_none() {
        index.discard()?;
    }
    let damage = match read(place, index, known)? {
        Reading::Done(recovered) => return Ok((*recovered, Arc::clone(index))),
        Reading::Foreign => {
            index.discard()?;
            match read(place, index, None)? {
                Reading::Done(recovered) => return Ok((*recovered, Arc::clone(index))),
                Reading::Foreign | Reading::Behind(_) => {
                    unreachable!("without an index there is nothing to disagree with")
                }
            }
        }
        Reading::Behind(damage) => damage,
    };
    // The index stays as it is: it is the evidence. What can be read gets one of its own.
    let spare = spare();
    spare.discard()?;
    match read(place, &spare, None)? {
        Reading::Done(mut recovered) => {
            recovered.damage.get_or_insert(damage);
            Ok((*recovered, spare))
        }
        Reading::Foreign | Reading::Behind(_) => {
            unreachable!("without an index there is nothing to disagree with")
        }
    }
}

/// Where the frames that were read so far end.
#[derive(Clone, Copy)]
struct Chain {
    commit: u64,
    next: Seq,
    sum: u32,
    witnessed: u64,
}

/// One reading of the log, from the first segment to the last.
struct Reader<'a, 'p> {
    place: &'a Place<'p>,
    index: &'a Arc<Index>,
    known: Option<Applied>,
    told: Told,
    chain: Chain,
    foreign: bool,
    /// A frame passed its sum and could not be read: no torn end, whatever it is.
    malformed: bool,
    /// The index was written to without noting up to where.
    unnoted: bool,
}

fn read(
    place: &Place<'_>,
    index: &Arc<Index>,
    known: Option<(Applied, Superseded)>,
) -> Result<Reading, StoreError> {
    let (known, told) = match known {
        Some((applied, superseded)) => {
            let told = Told::by_index(&applied, superseded);
            (Some(applied), told)
        }
        None => (None, Told::nothing()),
    };
    let chain = Chain {
        commit: 0,
        next: 0,
        sum: 0,
        witnessed: 0,
    };
    Reader {
        place,
        index,
        known,
        told,
        chain,
        foreign: false,
        malformed: false,
        unnoted: false,
    }
    .run()
}

impl Reader<'_, '_> {
    fn run(mut self) -> Result<Reading, StoreError> {
        let mut segments = Vec::new();
        let mut end = 0;
        let mut damage = None;
        let numbers = &self.place.manifest.segments;
        for (at, number) in numbers.iter().enumerate() {
            let segment = match self.open(*number)? {
                Ok(segment) => segment,
                Err(found) => {
                    damage = Some(found);
                    break;
                }
            };
            let last = at + 1 == numbers.len();
            let (reached, found) = if last && segment.opening.closed.is_some() {
                (0, Some(no_last(&segment)))
            } else if last {
                self.last(&segment)?
            } else {
                (0, self.sealed(&segment)?)
            };
            end = reached;
            segments.push(Arc::new(segment));
            damage = found;
            if self.foreign {
                return Ok(Reading::Foreign);
            }
            if damage.is_some() {
                break;
            }
        }
        let known = self.known.as_ref().map_or(0, |known| known.commit);
        if known > self.chain.commit {
            let found = damage.unwrap_or_else(|| {
                format!(
                    "the log ends at commit {}, though its index has seen commit {known}",
                    self.chain.commit
                )
            });
            return Ok(Reading::Behind(found));
        }
        if self.unnoted {
            let generation = self.place.manifest.generation;
            self.told.write_index(self.index, generation, true)?;
            self.index.condense()?;
        }
        let witnessed = self.chain.witnessed.max(self.told.applied);
        Ok(Reading::Done(Box::new(Recovered {
            segments,
            end,
            told: self.told,
            witnessed,
            damage,
        })))
    }

    /// Opens a segment that has to follow the chain; the inner error is damage.
    fn open(&self, number: u32) -> Result<Result<Segment, String>, StoreError> {
        let path = Segment::path(self.place.dir, number);
        let shown = path.display().to_string();
        let segment = match Segment::open(self.place.disk, path) {
            Ok(segment) => segment,
            Err(BadHeader::Format(found)) => {
                return Err(StoreError::Format {
                    path: shown,
                    expected: FORMAT,
                    found,
                });
            }
            Err(BadHeader::Damaged) => {
                return Ok(Err(format!("the header of {shown} does not match its sum")));
            }
            Err(BadHeader::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Err(format!("{shown} is missing")));
            }
            Err(BadHeader::Io(source)) => {
                return Err(StoreError::Io {
                    what: format!("opening {shown}"),
                    source,
                });
            }
        };
        let opening = &segment.opening;
        let follows = opening.number == number
            && self.place.manifest.covers(opening.generation)
            && opening.commit == self.chain.commit
            && opening.first_seq == self.chain.next
            && opening.previous == self.chain.sum;
        if follows {
            Ok(Ok(segment))
        } else {
            Ok(Err(format!(
                "{shown} does not follow what stands before it"
            )))
        }
    }

    /// Reads a sealed segment: its footer is enough where the index has all of it.
    fn sealed(&mut self, segment: &Segment) -> Result<Option<String>, StoreError> {
        let known = self.known.as_ref().map_or(0, |known| known.commit);
        let footer = segment
            .load_footer(self.place.pool)
            .map_err(|error| io(segment, error))?;
        if let Some(end) = footer.filter(|end| end.commit <= known) {
            self.check_known(end.commit, end.sum);
            self.chain = Chain {
                commit: end.commit,
                next: end.next,
                sum: end.sum,
                witnessed: end.commit,
            };
            return Ok(None);
        }
        let at = self.scan(segment)?;
        if let Some(closed) = segment.opening.closed {
            if self.chain.commit != closed.commit || self.malformed {
                return Ok(Some(bad_frame(segment, at)));
            }
            self.pass(closed);
            return Ok(None);
        }
        // Whether all frames are there tells the next segment, which names the last of them.
        let size = segment.file.size().map_err(|error| io(segment, error))?;
        let whole = match footer {
            Some(end) => end.at == at,
            None => {
                at == size
                    || segment
                        .begins_footer(at)
                        .map_err(|error| io(segment, error))?
            }
        };
        Ok((!whole).then(|| bad_frame(segment, at)))
    }

    /// Reads the last segment and cuts a torn end off. Returns where the next frame goes.
    fn last(&mut self, segment: &Segment) -> Result<(u64, Option<String>), StoreError> {
        // What is read here counts as durable from now on, also if only the page cache has it.
        segment.file.sync().map_err(|error| io(segment, error))?;
        let at = self.scan(segment)?;
        let size = segment.file.size().map_err(|error| io(segment, error))?;
        if at == size || self.foreign {
            return Ok((at, None));
        }
        let known = self.known.as_ref().map_or(0, |known| known.commit);
        let witnessed = self.witness(segment, at, size)?.max(known);
        if self.malformed || witnessed > self.chain.commit {
            return Ok((at, Some(bad_frame(segment, at))));
        }
        segment.file.cut(at).map_err(|error| io(segment, error))?;
        segment.file.sync().map_err(|error| io(segment, error))?;
        Ok((at, None))
    }

    /// The newest commit of which something behind a bad frame says that it was durable.
    fn witness(&self, segment: &Segment, at: u64, size: u64) -> Result<u64, StoreError> {
        let mut rest = vec![0; (size - at) as usize];
        segment
            .file
            .read_at(&mut rest, at)
            .map_err(|error| io(segment, error))?;
        let footer = segment.footer().map_err(|error| io(segment, error))?;
        let mut newest = footer.map_or(0, |end| end.commit);
        for offset in 0..rest.len().saturating_sub(frame::HEADER) {
            if rest[offset..offset + 4] != frame::MAGIC {
                continue;
            }
            let Some(header) = frame::Header::parse(&rest[offset..], segment.salt) else {
                continue;
            };
            let bytes = (offset as u64).checked_add(header.len());
            let bytes = bytes.and_then(|until| rest.get(offset..usize::try_from(until).ok()?));
            if bytes
                .and_then(|bytes| Frame::parse(bytes, segment.salt))
                .is_some()
            {
                newest = newest.max(header.durable());
            }
        }
        Ok(newest)
    }

    /// Reads frames for as long as they follow each other; returns where they end.
    fn scan(&mut self, segment: &Segment) -> Result<u64, StoreError> {
        segment.forget();
        let size = segment.file.size().map_err(|error| io(segment, error))?;
        let mut at = segment.start();
        let mut bytes = Vec::new();
        while at + ((frame::HEADER + frame::TRAILER) as u64) <= size {
            let mut head = [0; frame::HEADER];
            segment
                .file
                .read_at(&mut head, at)
                .map_err(|error| io(segment, error))?;
            let Some(header) = frame::Header::parse(&head, segment.salt) else {
                break;
            };
            if !self.follows(&header, segment)
                || header.len() > size - at
                || header.len() > frame::LONGEST as u64
            {
                break;
            }
            bytes.resize(header.len() as usize, 0);
            segment
                .file
                .read_at(&mut bytes, at)
                .map_err(|error| io(segment, error))?;
            let Some(frame) = Frame::parse(&bytes, segment.salt) else {
                break;
            };
            match self.take(segment, &frame, at) {
                Ok(()) => {}
                Err(Unread::Malformed) => {
                    self.malformed = true;
                    break;
                }
                Err(Unread::Store(error)) => return Err(error),
            }
            at += header.len();
            if self.told.overlay.len() >= self.place.overlay_keys && !self.foreign {
                let generation = self.place.manifest.generation;
                self.told.write_index(self.index, generation, false)?;
                self.unnoted = self.told.anew;
            }
        }
        Ok(at)
    }

    /// Whether a frame is the next one. Those of a compacted segment stand for several commits,
    /// and some rows and commits are gone.
    fn follows(&self, header: &frame::Header, segment: &Segment) -> bool {
        let place = match segment.opening.closed {
            Some(closed) => {
                header.commit > self.chain.commit
                    && header.commit <= closed.commit
                    && header.first_seq >= self.chain.next
            }
            None => header.commit == self.chain.commit + 1 && header.first_seq == self.chain.next,
        };
        place && header.previous == self.chain.sum
    }

    /// Goes on behind a compacted segment, where what it replaced ended.
    fn pass(&mut self, closed: Closed) {
        self.check_known(closed.commit, closed.sum);
        if self.told.commit == closed.commit {
            self.told.next = closed.next;
            self.told.sum = closed.sum;
        }
        self.chain = Chain {
            commit: closed.commit,
            next: closed.next,
            sum: closed.sum,
            witnessed: closed.commit,
        };
    }

    fn take(&mut self, segment: &Segment, frame: &Frame<'_>, at: u64) -> Result<(), Unread> {
        let shapes = frame.shapes().ok_or(Malformed)?;
        let shapes: Vec<_> = shapes
            .into_iter()
            .map(|shape| self.place.pool.share(shape))
            .collect();
        let blocks = block::places(frame.blocks).ok_or(Malformed)?;
        let base = at + frame::HEADER as u64;
        let blocks = blocks.into_iter();
        segment.extend(
            frame.header.rows,
            &shapes,
            blocks.map(|(seq, at, len)| (seq, base + u64::from(at), len)),
        );
        let (before, commit) = (self.chain.commit, frame.header.commit);
        match segment.opening.closed {
            None => self.check_known(commit, frame.sum),
            Some(closed) => self.check_inside(before, commit, closed),
        }
        if commit > self.told.commit && !self.foreign {
            self.told.hold(frame, segment, at);
            self.told.replay(frame, segment, self.index)?;
        }
        self.chain = Chain {
            commit: frame.header.commit,
            next: next_after(&frame.header, segment),
            sum: frame.sum,
            witnessed: self.chain.witnessed.max(frame.header.vouches()),
        };
        Ok(())
    }

    /// An index has all of a segment before that is compacted: one that ends within is another's.
    fn check_inside(&mut self, before: u64, commit: u64, closed: Closed) {
        if let Some(known) = &self.known {
            let within = known.commit > before && known.commit <= commit;
            self.foreign |= within && known.commit < closed.commit;
        }
    }

    /// An index that noted another sum for a commit belongs to another log.
    fn check_known(&mut self, commit: u64, sum: u32) {
        if let Some(known) = &self.known {
            self.foreign |= known.commit == commit && known.sum != sum;
        }
    }
}

/// The sequence after a frame; where rows are missing only a lower bound is known.
fn next_after(header: &frame::Header, segment: &Segment) -> Seq {
    match segment.opening.closed {
        Some(_) => header.first_seq,
        None => header.first_seq + u64::from(header.rows),
    }
}

fn no_last(segment: &Segment) -> String {
    format!(
        "{} is compacted, though it is the last segment",
        segment.path.display()
    )
}

fn bad_frame(segment: &Segment, at: u64) -> String {
    format!(
        "the frame at byte {at} of {} does not match its sum",
        segment.path.display()
    )
}

fn io(segment: &Segment, source: std::io::Error) -> StoreError {
    StoreError::Io {
        what: format!("reading {}", segment.path.display()),
        source,
    }
}
