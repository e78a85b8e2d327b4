//! Reading a backup through without opening it: every byte of the log is compared with its sum,
//! every frame and segment with what has to stand before it. Nothing is written.

use std::io;
use std::path::{Path, PathBuf};

use super::check_known_format;
use super::dataset::io_error;
use super::disk::{Disk, RealDisk};
use super::floor;
use super::frame::{self, Frame};
use super::manifest::{self, BadManifest, Manifest};
use super::segment::{BadHeader, Segment};
use crate::{Seq, StoreError};

/// What reading a backup through found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many datasets are whole.
    pub datasets: u64,
    /// Versions that were ever written to them.
    pub versions: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The datasets that are not what was saved, by name (by folder where the name is lost), with
    /// the file, the position and the mismatch.
    pub damaged: Vec<(String, String)>,
}

impl Verified {
    /// Reads the backup in `dir` through. A store that was opened is checked as well, as long as
    /// nobody writes to it.
    ///
    /// # Errors
    /// When the folder is no store's, has another format, or cannot be read. Damage is no error.
    pub fn of(dir: &Path) -> Result<Verified, StoreError> {
        let disk = RealDisk;
        check_known_format(&disk, dir)?;
        let datasets = dir.join("datasets");
        let names = disk.list(&datasets);
        let mut names = names.map_err(|source| io_error("reading", &datasets, source))?;
        names.sort();
        let mut found = Verified::default();
        for name in names {
            let Some(text) = name.to_str().filter(|name| is_generation(name)) else {
                continue;
            };
            found.look_at(&disk, &datasets.join(text), text)?;
        }
        Ok(found)
    }

    fn look_at(&mut self, disk: &dyn Disk, dir: &Path, folder: &str) -> Result<(), StoreError> {
        let manifest = match Manifest::load(disk, dir) {
            Ok(manifest) => manifest,
            Err(BadManifest::Io(source)) => {
                return Err(io_error("reading", &dir.join(manifest::NAME), source));
            }
            Err(BadManifest::Format(format)) => {
                let found = format!("its manifest has the format {format}");
                self.damaged.push((folder.to_owned(), found));
                return Ok(());
            }
            Err(BadManifest::Damaged) => {
                let path = dir.join(manifest::NAME);
                let found = format!("{} is missing or does not match its sum", path.display());
                self.damaged.push((folder.to_owned(), found));
                return Ok(());
            }
        };
        let mut walk = Walk::default();
        match walk.through(disk, dir, &manifest) {
            Ok(()) => {
                self.datasets += 1;
                self.versions += walk.next;
            }
            Err(Wrong::Damage(found)) => self.damaged.push((manifest.name.clone(), found)),
            Err(Wrong::Io(path, source)) => return Err(io_error("reading", &path, source)),
        }
        self.bytes += walk.bytes;
        Ok(())
    }
}

fn is_generation(name: &str) -> bool {
    uuid::Uuid::try_parse(name).is_ok()
}

/// Why a dataset cannot be read to its end.
enum Wrong {
    Damage(String),
    Io(PathBuf, io::Error),
}

/// Where the frames that were read so far end.
#[derive(Default)]
struct Walk {
    commit: u64,
    next: Seq,
    sum: u32,
    bytes: u64,
}

impl Walk {
    fn through(&mut self, disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), Wrong> {
        for (at, number) in manifest.segments.iter().enumerate() {
            let path = Segment::path(dir, *number);
            let segment = match Segment::open(disk, path.clone()) {
                Ok(segment) => segment,
                Err(BadHeader::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Wrong::Damage(format!("{} is missing", path.display())));
                }
                Err(BadHeader::Io(error)) => return Err(Wrong::Io(path, error)),
                Err(BadHeader::Damaged | BadHeader::Format(_)) => {
                    let found = format!("the header of {} does not match its sum", path.display());
                    return Err(Wrong::Damage(found));
                }
            };
            let opening = &segment.opening;
            let follows = opening.number == *number
                && manifest.covers(opening.generation)
                && opening.commit == self.commit
                && opening.first_seq == self.next
                && opening.previous == self.sum;
            if !follows {
                let found = format!("{} does not follow what stands before it", path.display());
                return Err(Wrong::Damage(found));
            }
            self.segment(&segment, at + 1 == manifest.segments.len())?;
        }
        let floor = floor::noted(disk, dir, manifest.generation);
        if floor > self.commit {
            return Err(Wrong::Damage(format!(
                "expected commit {floor} in {}, found {} to be the last one",
                dir.display(),
                self.commit
            )));
        }
        if let Some(saved) = manifest.backup.filter(|saved| *saved != self.next) {
            return Err(Wrong::Damage(format!(
                "expected {saved} versions in {}, found {}",
                dir.display(),
                self.next
            )));
        }
        Ok(())
    }

    /// Reads a segment's frames. Behind the last one there is nothing, or a footer.
    fn segment(&mut self, segment: &Segment, last: bool) -> Result<(), Wrong> {
        let fail = |error| Wrong::Io(segment.path.clone(), error);
        let size = segment.file.size().map_err(fail)?;
        let mut at = segment.start();
        let mut bytes = Vec::new();
        while let Some(len) = self.frame(segment, at, size, &mut bytes)? {
            at += len;
        }
        self.bytes += size;
        let whole = match (at == size, segment.opening.closed) {
            (true, None) => true,
            (_, Some(closed)) => !last && self.commit == closed.commit,
            (false, None) => segment.begins_footer(at).map_err(fail)?,
        };
        if !whole {
            return Err(Wrong::Damage(format!(
                "the frame at byte {at} of {} does not match its sum",
                segment.path.display()
            )));
        }
        if let Some(closed) = segment.opening.closed {
            (self.commit, self.next, self.sum) = (closed.commit, closed.next, closed.sum);
        }
        Ok(())
    }

    /// Reads the frame at `at`; its length, or `None` when none that follows stands there.
    fn frame(
        &mut self,
        segment: &Segment,
        at: u64,
        size: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<u64>, Wrong> {
        let fail = |error| Wrong::Io(segment.path.clone(), error);
        if at + (frame::HEADER + frame::TRAILER) as u64 > size {
            return Ok(None);
        }
        let mut head = [0; frame::HEADER];
        segment.file.read_at(&mut head, at).map_err(fail)?;
        let header = frame::Header::parse(&head, segment.salt)
            .filter(|header| header.len() <= (size - at).min(frame::LONGEST as u64))
            .filter(|header| self.follows(header, segment));
        let Some(header) = header else {
            return Ok(None);
        };
        bytes.resize(header.len() as usize, 0);
        segment.file.read_at(bytes, at).map_err(fail)?;
        let Some(frame) = Frame::parse(bytes, segment.salt) else {
            return Ok(None);
        };
        (self.commit, self.sum) = (header.commit, frame.sum);
        self.next = match segment.opening.closed {
            Some(_) => header.first_seq,
            None => header.first_seq + u64::from(header.rows),
        };
        Ok(Some(header.len()))
    }

    /// Frames of a compacted segment stand for several commits, of which rows are gone.
    fn follows(&self, header: &frame::Header, segment: &Segment) -> bool {
        let place = match segment.opening.closed {
            Some(closed) => {
                header.commit > self.commit
                    && header.commit <= closed.commit
                    && header.first_seq >= self.next
            }
            None => header.commit == self.commit + 1 && header.first_seq == self.next,
        };
        place && header.previous == self.sum
    }
}
