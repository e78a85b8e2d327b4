//! Saving a running store: all datasets as they are at one moment, only what is new since the
//! last time. A backup is a store's folder that was not opened yet.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dataset::{OpenDataset, io_error};
use super::disk::{Disk, DiskFile};
use super::manifest::{self, BadManifest, Manifest};
use super::segment::Segment;
use super::writer::Writer;
use super::{Files, StoreLock, check_format};
use crate::{Backup, Seq, StoreError};

/// How much is copied at once.
const CHUNK: u64 = 1 << 20;
/// How much of the ends of two segments is compared: more than a footer's or a frame's sum.
const COMPARED: u64 = 4096;

/// A dataset at the moment of the backup.
struct Frozen {
    dataset: Arc<OpenDataset>,
    manifest: Manifest,
    segments: Arc<Vec<Arc<Segment>>>,
    /// Where the newest segment's frames end.
    end: u64,
    commit: u64,
    next: Seq,
}

/// Saves the store to `to`.
pub(crate) fn run(files: &Files, to: &Path) -> Result<Backup, StoreError> {
    let disk = &*files.options.disk;
    let made = super::disk::private_dir().recursive(true).create(to);
    made.map_err(|source| io_error("creating", to, source))?;
    let _lock = StoreLock::take(to)?;
    make_dir(disk, to)?;
    check_free(disk, to)?;
    check_format(disk, to)?;
    let datasets = to.join("datasets");
    make_dir(disk, &datasets)?;
    let mut saved = Backup::default();
    let mut kept: Vec<OsString> = Vec::new();
    let frozen = freeze(files, &mut saved, &mut kept);
    for frozen in frozen {
        let name = frozen.dataset.dir.file_name().unwrap_or_default();
        kept.push(name.to_owned());
        frozen.dataset.durable.reach(frozen.commit)?;
        frozen.save(disk, &datasets.join(name), &mut saved)?;
        saved.datasets += 1;
    }
    let found = disk.list(&datasets);
    for name in found.map_err(|source| io_error("reading", &datasets, source))? {
        if !kept.contains(&name) {
            let gone = datasets.join(&name);
            let removed = disk.remove_dir(&gone);
            removed.map_err(|source| io_error("removing", &gone, source))?;
        }
    }
    disk.sync_dir(&datasets)
        .map_err(|source| io_error("writing", &datasets, source))?;
    Ok(saved)
}

/// Stops all writers for a moment, so that no dataset is saved with a place in another one that
/// the other one was saved without.
fn freeze(files: &Files, saved: &mut Backup, kept: &mut Vec<OsString>) -> Vec<Frozen> {
    let mut skip = |name: &str, dir: &Path| {
        saved.skipped.push(name.to_owned());
        kept.push(dir.file_name().unwrap_or_default().to_owned());
    };
    let slots: Vec<_> = files
        .names()
        .iter()
        .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
        .collect();
    let mut open = Vec::new();
    for (name, slot) in &slots {
        match files.opened(name, slot) {
            Ok(dataset) => open.push(dataset),
            Err(_) => skip(name, &slot.dir),
        }
    }
    let mut writers = Vec::new();
    for dataset in &open {
        let mut writer = dataset.writer();
        match dataset.check_writable(&mut writer) {
            Ok(()) => writers.push((dataset, writer)),
            Err(StoreError::Missing(_)) => {}
            Err(_) => skip(&dataset.name, &dataset.dir),
        }
    }
    let frozen = writers
        .iter()
        .map(|(dataset, writer)| Frozen::at(dataset, writer));
    frozen.collect()
}

impl Frozen {
    /// A dataset as readers see it: what is held back is not saved.
    fn at(dataset: &Arc<OpenDataset>, writer: &Writer) -> Frozen {
        let mut frozen = Frozen {
            dataset: Arc::clone(dataset),
            manifest: writer.manifest.clone(),
            segments: dataset.all_segments(),
            end: writer.end,
            commit: writer.commit,
            next: writer.head.next,
        };
        if writer.head.holds {
            let visible = dataset.durable.shown();
            let number = visible.segment.opening.number;
            let listed = &mut frozen.manifest.segments;
            let place = listed.iter().position(|listed| *listed == number);
            listed.truncate(place.map_or(listed.len(), |place| place + 1));
            frozen.end = visible.end;
            frozen.commit = visible.commit;
            frozen.next = visible.head.next;
        }
        frozen
    }

    /// Brings the dataset's copy in `dir` up to now. Whenever this ends, what `MANIFEST` lists
    /// there is whole.
    fn save(&self, disk: &dyn Disk, dir: &Path, saved: &mut Backup) -> Result<(), StoreError> {
        let fail = |source| io_error("saving to", dir, source);
        let known = match Manifest::load(disk, dir) {
            Ok(known) => Some(known),
            Err(BadManifest::Io(source)) => return Err(fail(source)),
            Err(_) => None,
        };
        if known.as_ref().is_some_and(|known| known.backup.is_none()) {
            return Err(StoreError::Refused(format!(
                "expected {} to be a backup, found one that was opened and is a store of its own",
                dir.display()
            )));
        }
        // A new one gets its name when it is whole.
        let work = if known.is_some() {
            dir.to_owned()
        } else {
            let work = dir.with_extension("new");
            for left in [dir, &work] {
                match disk.remove_dir(left) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(fail(error));
                    }
                    _ => {}
                }
            }
            disk.create_dir(&work).map_err(fail)?;
            work
        };
        self.copy_segments(disk, &work, saved)?;
        let manifest = Manifest {
            backup: Some(self.next),
            ..self.manifest.clone()
        };
        if known.as_ref() != Some(&manifest) {
            manifest.store(disk, &work).map_err(fail)?;
        }
        if known.is_none() {
            disk.rename(&work, dir).map_err(fail)?;
        }
        self.remove_unlisted(disk, dir).map_err(fail)
    }

    fn copy_segments(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        saved: &mut Backup,
    ) -> Result<(), StoreError> {
        for (segment, number) in self.segments.iter().zip(&self.manifest.segments) {
            let newest = self.manifest.segments.last() == Some(number);
            let from = &*segment.file;
            let size = if newest { Ok(self.end) } else { from.size() };
            let size = size.map_err(|source| io_error("reading", &segment.path, source))?;
            let path = Segment::path(dir, *number);
            // Segments only grow, and one that is sealed never changes again. Two that a restored
            // dataset and its lost sibling wrote under one number differ in their last frames,
            // whose sums are over all that stands before them.
            let there = disk
                .open(&path)
                .and_then(|file| ends_alike(&*file, from, size));
            if there.unwrap_or(false) {
                saved.kept_bytes += size;
                continue;
            }
            let copy = copy(disk, from, size, &path);
            copy.map_err(|source| io_error("saving to", &path, source))?;
            saved.copied_bytes += size;
        }
        disk.sync_dir(dir)
            .map_err(|source| io_error("saving to", dir, source))
    }

    fn remove_unlisted(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let listed = &self.manifest.segments;
        let listed: Vec<PathBuf> = listed.iter().map(|n| Segment::path(dir, *n)).collect();
        for name in disk.list(dir)? {
            let path = dir.join(&name);
            if name != OsStr::new(manifest::NAME) && !listed.contains(&path) {
                disk.remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether `there` has `size` bytes and ends as the first `size` bytes of `from` do.
fn ends_alike(there: &dyn DiskFile, from: &dyn DiskFile, size: u64) -> io::Result<bool> {
    if there.size()? != size {
        return Ok(false);
    }
    let compared = size.min(COMPARED);
    let read = |file: &dyn DiskFile| {
        let mut bytes = vec![0; compared as usize];
        file.read_at(&mut bytes, size - compared).map(|()| bytes)
    };
    Ok(read(there)? == read(from)?)
}

/// Copies the first `size` bytes under another name first, so that a file is never half there.
fn copy(disk: &dyn Disk, from: &dyn DiskFile, size: u64, to: &Path) -> io::Result<()> {
    let work = to.with_extension("new");
    let file = disk.create(&work)?;
    let mut at = 0;
    let mut chunk = Vec::new();
    while at < size {
        chunk.resize(CHUNK.min(size - at) as usize, 0);
        from.read_at(&mut chunk, at)?;
        file.write_at(&chunk, at)?;
        at += chunk.len() as u64;
    }
    file.sync()?;
    disk.rename(&work, to)
}

fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let make = || match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_dir(dir)?;
            dir.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
        }
        listed => listed.map(|_| ()),
    };
    make().map_err(|source| io_error("creating", dir, source))
}

/// A backup goes to a folder that is empty or has a backup already, not among other files.
fn check_free(disk: &dyn Disk, to: &Path) -> Result<(), StoreError> {
    let names = match disk.list(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|source| io_error("reading", to, source))?,
    };
    let ours = |name: &OsString| {
        ["LOCK", "FORMAT", "FORMAT.new", "datasets"]
            .iter()
            .any(|known| name == known)
    };
    match names.iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(other) => Err(StoreError::Refused(format!(
            "expected {} to be empty or to hold a backup, found {other:?} in it",
            to.display()
        ))),
    }
}
