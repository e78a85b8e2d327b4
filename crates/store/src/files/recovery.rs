//! Opening a dataset: its segments are read, the index is brought up to them, a torn end is cut.

use std::path::Path;
use std::sync::Arc;

use super::Options;
use super::block::{self, Malformed};
use super::disk::Disk;
use super::floor;
use super::flush::most_waiting;
use super::frame::{self, Frame};
use super::index::Index;
use super::manifest::Manifest;
use super::segment::{BadHeader, Closed, FORMAT, Segment, ShapePool};
use super::superseded::Superseded;
use super::tables::Applied;
use super::told::{Told, Unread};
use crate::{Seq, StoreError};

/// What recovery needs to know.
pub(crate) struct Place<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub manifest: &'a Manifest,
    pub pool: &'a ShapePool,
    /// The index is written whenever this many keys have changed.
    pub overlay_keys: usize,
    /// The newest commit that was there when the dataset was closed, as far as that was noted.
    floor: u64,
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
            floor: floor::noted(&*options.disk, dir, manifest.generation),
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
    /// The newest commit that the note beside the log says was durable.
    pub floor: u64,
    /// Why the dataset can be read but not written.
    pub damage: Option<String>,
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
            recovered.damage = Some(damage);
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
    /// Rows of the index may be from up to here, though it does not know these commits.
    ahead: Option<Applied>,
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
        ahead: index.ahead()?,
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
        let known = self.seen();
        if known > self.chain.commit {
            let found = damage.unwrap_or_else(|| {
                format!(
                    "the log ends at commit {}, though its index has seen commit {known}",
                    self.chain.commit
                )
            });
            return Ok(Reading::Behind(found));
        }
        let (floor, reached) = (self.place.floor, self.chain.commit);
        if floor > reached {
            damage.get_or_insert_with(|| {
                format!(
                    "the log ends at commit {reached}, though it had commit {floor} when the \
                     dataset was closed"
                )
            });
        }
        if self.unnoted {
            let generation = self.place.manifest.generation;
            self.told.write_index(self.index, generation, true)?;
            self.index.condense(false)?;
        }
        let witnessed = self.chain.witnessed.max(self.told.applied);
        Ok(Reading::Done(Box::new(Recovered {
            segments,
            end,
            told: self.told,
            witnessed,
            floor: self.place.floor,
            damage,
        })))
    }

    /// The newest commit that was durable when the index was written.
    fn seen(&self) -> u64 {
        let seen = self.known.iter().chain(&self.ahead);
        seen.map(|seen| seen.commit).max().unwrap_or(0)
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
        let at = self.scan(segment)?;
        let size = segment.file.size().map_err(|error| io(segment, error))?;
        let whole = at == size || self.foreign;
        if !whole || self.chain.commit != self.place.floor {
            // What was read counts as durable from now on, also if only the page cache has it. Of
            // what was closed it is known: a thousand syncs would be the longest part of a start.
            segment.file.sync().map_err(|error| io(segment, error))?;
        }
        if whole {
            return Ok((at, None));
        }
        let outside = self.seen().max(self.place.floor);
        let witnessed = self.witness(segment, at, size)?.max(outside);
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
            // What is built anew knows nothing before its end, so it may always be parted.
            let whole = self.told.overlay.removes || self.told.visible.is_some();
            let most = most_waiting(
                self.place.overlay_keys,
                whole && !self.told.anew,
                self.index,
            );
            if self.told.overlay.len() >= most && !self.foreign {
                // An index never knows more than the log will after a power cut.
                segment.file.sync().map_err(|error| io(segment, error))?;
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
        for known in self.known.iter().chain(&self.ahead) {
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
