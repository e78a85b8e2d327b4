//! A disk that keeps one sync waiting until a compaction has put its segment in place, and loses
//! power then: what compaction left out must not hang on a commit that was never synced.

use std::ffi::OsString;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tahini_store::{Backend, Commit, Compaction, Disk, DiskFile, Files, Options};

use crate::contract::compaction::thorough;
use crate::contract::tiny;
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::rows::*;

/// How long the sync waits for a compaction that waits for the sync.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Clone)]
struct Gate {
    disk: LyingDisk,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
struct Seen {
    /// Segments that were made.
    made: usize,
    /// The next segment that is written to is the one whose sync waits.
    watching: bool,
    gated: Option<PathBuf>,
    /// A manifest was put in place after that, and is durable.
    renamed: bool,
    swapped: bool,
}

struct GatedFile {
    gate: Gate,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl Gate {
    fn look<R>(&self, look: impl FnOnce(&mut Seen) -> R) -> R {
        look(&mut self.seen.0.lock().unwrap())
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile {
            gate: self.clone(),
            path: path.to_owned(),
            file,
        })
    }
}

impl Disk for Gate {
    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> Result<()> {
        self.disk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let log = path.extension().is_some_and(|end| end == "log");
        self.look(|seen| seen.made += usize::from(log));
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)?;
        self.look(|seen| seen.renamed |= seen.gated.is_some());
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.sync_dir(dir)?;
        self.look(|seen| seen.swapped |= seen.renamed);
        self.seen.1.notify_all();
        Ok(())
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.file.read_at(into, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.gate.look(|seen| {
            if std::mem::take(&mut seen.watching) {
                seen.gated = Some(self.path.clone());
            }
        });
        self.file.write_at(bytes, at)
    }

    fn cut(&self, size: u64) -> Result<()> {
        self.file.cut(size)
    }

    fn sync(&self) -> Result<()> {
        let (seen, changed) = &*self.gate.seen;
        let seen = seen.lock().unwrap();
        if seen.gated.as_ref() == Some(&self.path) {
            let waited = changed.wait_timeout_while(seen, PATIENCE, |seen| !seen.swapped);
            drop(waited.unwrap());
            self.gate.disk.trouble(Trouble {
                power_off_at: Some(0),
                ..Trouble::default()
            });
        }
        self.file.sync()
    }
}

#[test]
fn state_is_not_left_out_for_a_commit_that_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store.root");
    let gate = Gate {
        disk: LyingDisk::new(Trouble::default()),
        seen: Arc::default(),
    };
    let options = |disk: Arc<dyn Disk>| Options { disk, ..tiny() };
    let files = Files::open(&root, options(Arc::new(gate.clone()))).unwrap();
    let dataset = files.open("d", true).unwrap();
    write_state(&dataset, &[set("s", b"key", b"old")]);
    for round in 0..60 {
        write(&dataset, [entity("a", round), entity("b", round)]);
    }
    let made = gate.look(|seen| seen.made);
    let newer = [set("s", b"key", b"new")];
    let stop = || {
        // While the segments are being written anew somebody commits, and does not wait.
        let begun = gate.look(|seen| {
            let begun = seen.made > made && seen.gated.is_none();
            seen.watching = begun;
            begun
        });
        if begun {
            let rows = batch([]);
            let commit = Commit {
                state: &newer,
                ..commit(&rows)
            };
            dataset.commit(commit).unwrap();
        }
        false
    };
    let rules = Compaction {
        keep_versions: Some(1),
        stop: &stop,
        ..thorough()
    };
    let _ = dataset.compact(&rules);
    drop((dataset, files));
    assert!(
        gate.disk.is_off(),
        "the power went before the commit was durable"
    );
    let disk = gate.disk.reboot(Loss::Everything);
    let files = Files::open(&root, options(Arc::new(disk))).unwrap();
    let dataset = files.open("d", false).unwrap();
    let state = dataset.snapshot().unwrap().state("s", b"").unwrap();
    assert_eq!(state, [(b"key".to_vec(), b"old".to_vec())]);
}
