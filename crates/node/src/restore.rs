//! Putting a backup back: whole, or not at all.
//!
//! The copy is made in the folder `RESTORING` of the data folder, beside what is there. Once it is
//! whole and durable it is called `RESTORED`, and from then on it takes the place of what was
//! there; whoever finds such a folder finishes that.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tahini_store::{StoreError, StoreLock};

use crate::backup::{
    Checked, FILES, LOCAL, STORE, Trouble, check, failed, missing_is_fine, private_folder,
    refuse_within,
};

const COPYING: &str = "RESTORING";
const COPIED: &str = "RESTORED";
/// What a store keeps in a data folder.
const STORES: [&str; 2] = ["FORMAT", "datasets"];
/// The lock stays, and belongs to whoever holds it.
const LOCK: &str = "LOCK";

/// Restores the backup in `from` into the data folder `data`, after reading it through. `force`
/// replaces what is there, and takes a damaged backup as far as it goes.
///
/// # Errors
/// `Refused` where it would do harm, `InUse` while a node runs on the folder. What was in the folder
/// stays as it was then.
pub fn restore(from: &Path, data: &Path, force: bool) -> Result<Checked, Trouble> {
    refuse_within(from, data)?;
    let checked = check(from)?;
    let _reading = lock_backup(from)?;
    if let Some((name, found)) = checked.damaged.first().filter(|_| !force) {
        return Err(Trouble::Refused(format!(
            "the backup is damaged: {name:?}: {found} ({} damaged in all); take another one, or \
             restore what is whole with --force",
            checked.damaged.len()
        )));
    }
    private_folder(data)?;
    let _lock = StoreLock::take(data)?;
    finish_locked(data)?;
    look_around(data, force)?;
    let copy = data.join(COPYING);
    fs::remove_dir_all(&copy)
        .or_else(missing_is_fine)
        .map_err(failed("removing", &copy))?;
    let made = copy_all(from, &checked, &copy);
    if let Err(trouble) = made {
        // Room for another try; what was there before is as it was.
        let _ = fs::remove_dir_all(&copy);
        return Err(trouble);
    }
    let ready = data.join(COPIED);
    fs::rename(&copy, &ready).map_err(failed("renaming", &copy))?;
    sync_dir(data)?;
    finish_locked(data)?;
    Ok(checked)
}

/// Finishes what a restore began before the program was ended. Called before a data folder is
/// opened.
///
/// # Errors
/// `Refused` when a copy was not finished: nobody knows whether the folder is wanted as it is.
pub fn finish(data: &Path) -> Result<(), Trouble> {
    if data.join(COPYING).exists() {
        return Err(Trouble::Refused(format!(
            "a restore into {} did not come to its end: run it again, or remove {} to go on with \
             what was there before",
            data.display(),
            data.join(COPYING).display()
        )));
    }
    if data.join(COPIED).exists() {
        let _lock = StoreLock::take(data)?;
        finish_locked(data)?;
    }
    Ok(())
}

/// Lets the copy take the place of what was there. Every step may be repeated.
fn finish_locked(data: &Path) -> Result<(), Trouble> {
    let ready = data.join(COPIED);
    let wanted = match fs::read_to_string(ready.join(LOCK)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // All of it was moved, or there was nothing to do.
            let left = fs::remove_dir(&ready).or_else(missing_is_fine);
            return left.map_err(failed("removing", &ready));
        }
        Err(error) => return Err(failed("reading", &ready)(error)),
    };
    for name in STORES.iter().chain(&FILES) {
        let (new, old) = (ready.join(name), data.join(name));
        let comes = wanted.lines().any(|line| line == *name);
        if comes && !new.exists() {
            continue;
        }
        remove(&old).map_err(failed("removing", &old))?;
        if comes {
            fs::rename(&new, &old).map_err(failed("moving", &new))?;
        }
    }
    sync_dir(data)?;
    let list = ready.join(LOCK);
    fs::remove_file(&list).map_err(failed("removing", &list))?;
    fs::remove_dir(&ready).map_err(failed("removing", &ready))?;
    sync_dir(data)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    removed.or_else(missing_is_fine)
}

/// Nobody saves into the backup meanwhile. Where it can only be read nobody can.
fn lock_backup(from: &Path) -> Result<Option<StoreLock>, Trouble> {
    match StoreLock::take(from) {
        Ok(lock) => Ok(Some(lock)),
        Err(StoreError::Io { source, .. })
            if matches!(
                source.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What is in the data folder is only replaced when that is wanted, and only a node's own.
fn look_around(data: &Path, force: bool) -> Result<(), Trouble> {
    for entry in fs::read_dir(data).map_err(failed("reading", data))? {
        let name = entry.map_err(failed("reading", data))?.file_name();
        if name == LOCK || name == COPYING || LOCAL.iter().any(|local| name == *local) {
            continue;
        }
        let own = STORES.iter().chain(&FILES).any(|own| name == *own);
        if !own {
            return Err(Trouble::Refused(format!(
                "expected {} to be empty or a node's data folder, found {name:?} in it",
                data.display()
            )));
        }
        if !force {
            return Err(Trouble::Refused(format!(
                "expected {} to be empty, found {name:?} in it; --force replaces what is there",
                data.display()
            )));
        }
    }
    Ok(())
}

/// Copies everything, durably, with a list of what there is.
fn copy_all(from: &Path, checked: &Checked, to: &Path) -> Result<(), Trouble> {
    private_folder(to)?;
    let mut names: Vec<&str> = STORES.to_vec();
    for name in STORES {
        copy(&from.join(STORE).join(name), &to.join(name))?;
    }
    for name in checked.note.files() {
        copy(&from.join(name), &to.join(name))?;
        names.push(name);
    }
    let list = to.join(LOCK);
    fs::write(&list, names.join("\n")).map_err(failed("writing", &list))?;
    let synced = File::open(&list).and_then(|file| file.sync_all());
    synced.map_err(failed("writing", &list))?;
    sync_dir(to)
}

fn copy(from: &Path, to: &Path) -> Result<(), Trouble> {
    if from.is_dir() {
        private_folder(to)?;
        for entry in fs::read_dir(from).map_err(failed("reading", from))? {
            let entry = entry.map_err(failed("reading", from))?;
            let name = entry.file_name();
            // What a saving that was cut off left behind.
            let left = Path::new(&name).extension() == Some(OsStr::new("new"));
            if !left {
                copy(&entry.path(), &to.join(&name))?;
            }
        }
        return sync_dir(to);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let copied = || {
        let mut source = File::open(from)?;
        let mut target = options.open(to)?;
        io::copy(&mut source, &mut target)?;
        target.sync_all()
    };
    copied().map_err(failed("copying to", to))
}

fn sync_dir(dir: &Path) -> Result<(), Trouble> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("writing", dir))
}
