//! How far a dataset's log reached when it was closed, noted beside the log: where the log ends
//! earlier, something was taken from it, also where it ends with a whole frame.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::disk::{self, Disk};

/// The note's file name.
pub(crate) const NAME: &str = "END";

/// The commit that was the newest durable one when the dataset was closed; 0 where nothing says so.
pub(crate) fn noted(disk: &dyn Disk, dir: &Path, generation: Uuid) -> u64 {
    let bytes = disk::read_all(disk, &dir.join(NAME)).unwrap_or_default();
    let commit = std::str::from_utf8(&bytes).ok().and_then(|text| {
        let rest = text.strip_prefix("commit ")?;
        let commit = rest.lines().next()?.parse().ok()?;
        (self::text(generation, commit) == text).then_some(commit)
    });
    commit.unwrap_or(0)
}

/// Notes that `commit` is durable. The note need not be so: one before it says less, and is as
/// true; a torn one says nothing.
pub(crate) fn note(disk: &dyn Disk, dir: &Path, generation: Uuid, commit: u64) -> io::Result<()> {
    let path = dir.join(NAME);
    let fresh = path.with_extension("new");
    let file = disk.create(&fresh)?;
    file.write_at(text(generation, commit).as_bytes(), 0)?;
    drop(file);
    disk.rename(&fresh, &path)
}

/// Takes the note back, durably, before commits that it vouches for are taken out of the log.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.remove_file(&dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    disk.sync_dir(dir)
}

fn text(generation: Uuid, commit: u64) -> String {
    let text = format!("commit {commit}\ngeneration {generation}\n");
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}crc {sum:08x}\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::disk::RealDisk;

    #[test]
    fn a_note_comes_back_and_a_changed_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Uuid::from_u128(7);
        let look = |generation| noted(&RealDisk, dir.path(), generation);
        assert_eq!(look(ours), 0);
        for commit in [4, 1_234] {
            note(&RealDisk, dir.path(), ours, commit).unwrap();
            assert_eq!(look(ours), commit);
        }
        assert_eq!(look(Uuid::from_u128(8)), 0);
        let path = dir.path().join(NAME);
        let text = fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert_eq!(look(ours), 0, "byte {at}");
            fs::write(&path, &text[..at]).unwrap();
            assert_eq!(look(ours), 0, "cut at {at}");
        }
        fs::write(&path, &text).unwrap();
        forget(&RealDisk, dir.path()).unwrap();
        assert_eq!(look(ours), 0);
        forget(&RealDisk, dir.path()).unwrap();
    }
}
