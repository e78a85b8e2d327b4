//! A disk in memory whose plug can be pulled: it keeps apart what was written and what was
//! synced, loses the difference in several ways, fails where it is told to, and can lie.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use tahini_store::{Disk, DiskFile};

/// Numbers that are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What becomes of unsynced bytes and names when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All of them are lost.
    Everything,
    /// None of them is.
    Nothing,
    /// Each write survives, is lost or is torn, independently of its order.
    Some(u64),
}

/// Where the disk fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The power goes at this operation that changes something, counted from 0.
    pub power_off_at: Option<u64>,
    /// This sync of a file or folder fails, counted from 0.
    pub sync_fails_at: Option<u64>,
    /// This write finds no space after half of its bytes, counted from 0.
    pub full_at: Option<u64>,
    /// There is room for so many more bytes; what grows beyond finds no space, for as long as the
    /// trouble lasts.
    pub room: Option<u64>,
    /// Syncs report success and do nothing.
    pub lies: bool,
}

#[derive(Clone)]
pub struct LyingDisk(Arc<Mutex<World>>);

struct LyingFile {
    world: Arc<Mutex<World>>,
    node: u64,
}

#[derive(Default)]
struct World {
    trouble: Trouble,
    operations: u64,
    syncs: u64,
    writes: u64,
    off: bool,
    next: u64,
    files: HashMap<u64, Content>,
    /// Folder to names, as they are and as they are durable.
    names: HashMap<u64, BTreeMap<OsString, u64>>,
    durable_names: HashMap<u64, BTreeMap<OsString, u64>>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at as usize..end].copy_from_slice(bytes);
            }
            Change::Cut(size) => to.resize(*size as usize, 0),
        }
    }
}

const ROOT: u64 = 0;

impl LyingDisk {
    pub fn new(trouble: Trouble) -> LyingDisk {
        let names = HashMap::from([(ROOT, BTreeMap::new())]);
        let world = World {
            trouble,
            next: 1,
            durable_names: names.clone(),
            names,
            ..World::default()
        };
        LyingDisk(Arc::new(Mutex::new(world)))
    }

    /// The trouble from now on; its counts begin now.
    pub fn trouble(&self, trouble: Trouble) {
        let mut world = self.lock();
        (world.trouble, world.operations, world.syncs, world.writes) = (trouble, 0, 0, 0);
    }

    /// Makes the next sync fail.
    pub fn fail_next_sync(&self) {
        self.trouble(Trouble {
            sync_fails_at: Some(0),
            ..Trouble::default()
        });
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// How many syncs and writes there were.
    pub fn counts(&self) -> (u64, u64) {
        let world = self.lock();
        (world.syncs, world.writes)
    }

    /// The disk as the process leaves that ends now: what is not synced is in the page cache still.
    /// What the process does from now on counts no more.
    pub fn left(&self) -> LyingDisk {
        let mut world = self.lock();
        world.off = true;
        let left = World {
            next: world.next,
            files: world.files.clone(),
            names: world.names.clone(),
            durable_names: world.durable_names.clone(),
            ..World::default()
        };
        LyingDisk(Arc::new(Mutex::new(left)))
    }

    /// The disk as it comes back after the power went.
    pub fn reboot(&self, loss: Loss) -> LyingDisk {
        let world = self.lock();
        let mut dice = Dice(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        let keeps = |dice: &mut Dice| match loss {
            Loss::Everything => false,
            Loss::Nothing => true,
            Loss::Some(_) => dice.roll(2) == 0,
        };
        let mut names = HashMap::new();
        for (folder, durable) in &world.durable_names {
            let kept = if keeps(&mut dice) {
                &world.names[folder]
            } else {
                durable
            };
            names.insert(*folder, kept.clone());
        }
        for (folder, now) in &world.names {
            names.entry(*folder).or_insert_with(|| now.clone());
        }
        let mut files = HashMap::new();
        for (node, content) in &world.files {
            let mut bytes = content.durable.clone();
            for change in &content.unsynced {
                if let (Change::Write(at, written), Loss::Some(_)) = (change, loss)
                    && dice.roll(3) == 0
                {
                    let torn = dice.roll(written.len() as u64 + 1) as usize;
                    Change::Write(*at, written[..torn].to_vec()).apply(&mut bytes);
                } else if keeps(&mut dice) {
                    change.apply(&mut bytes);
                }
            }
            let content = Content {
                now: bytes.clone(),
                durable: bytes,
                unsynced: Vec::new(),
            };
            files.insert(*node, content);
        }
        let next = world.next;
        let back = World {
            next,
            files,
            durable_names: names.clone(),
            names,
            ..World::default()
        };
        LyingDisk(Arc::new(Mutex::new(back)))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// Counts an operation that changes something; the power may go before it is done.
    fn change(&mut self) -> Result<()> {
        if !self.off {
            self.off = self.trouble.power_off_at == Some(self.operations);
            self.operations += 1;
        }
        if self.off {
            Err(Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    /// Takes the room that a file needs to become so long; returns how many bytes lack.
    fn take_room(&mut self, node: u64, len: u64) -> u64 {
        let grows = len.saturating_sub(self.files[&node].now.len() as u64);
        let Some(room) = &mut self.trouble.room else {
            return 0;
        };
        let taken = grows.min(*room);
        *room -= taken;
        grows - taken
    }

    /// Gives back what a file needs no more when it is cut.
    fn give_room(&mut self, node: u64, len: u64) {
        let shrinks = (self.files[&node].now.len() as u64).saturating_sub(len);
        if let Some(room) = &mut self.trouble.room {
            *room += shrinks;
        }
    }

    /// The node of a path, whose folder the test's root stands for.
    fn find(&self, path: &Path) -> Option<u64> {
        let mut node = ROOT;
        for part in below_root(path) {
            node = *self.names.get(&node)?.get(&part)?;
        }
        Some(node)
    }

    fn place(&self, path: &Path) -> Result<(u64, OsString)> {
        let folder = self
            .find(path.parent().unwrap())
            .ok_or(ErrorKind::NotFound)?;
        Ok((folder, path.file_name().unwrap().to_owned()))
    }

    fn add(&mut self, path: &Path) -> Result<u64> {
        let (folder, name) = self.place(path)?;
        let node = self.next;
        self.next += 1;
        self.names.entry(folder).or_default().insert(name, node);
        Ok(node)
    }
}

/// The parts of a path below the folder whose name ends in `.root`.
fn below_root(path: &Path) -> Vec<OsString> {
    let parts = path
        .iter()
        .skip_while(|part| !part.to_string_lossy().ends_with(".root"));
    parts.skip(1).map(ToOwned::to_owned).collect()
}

impl Disk for LyingDisk {
    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        let world = self.lock();
        let node = world.find(dir).ok_or(ErrorKind::NotFound)?;
        let names = world.names.get(&node).ok_or(ErrorKind::NotADirectory)?;
        Ok(names.keys().cloned().collect())
    }

    fn create_dir(&self, dir: &Path) -> Result<()> {
        let mut world = self.lock();
        world.change()?;
        let node = world.add(dir)?;
        world.names.insert(node, BTreeMap::new());
        world.durable_names.insert(node, BTreeMap::new());
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let mut world = self.lock();
        world.change()?;
        let node = match world.find(path) {
            Some(node) => node,
            None => world.add(path)?,
        };
        let content = world.files.entry(node).or_default();
        content.now.clear();
        content.unsynced.push(Change::Cut(0));
        Ok(Arc::new(LyingFile {
            world: Arc::clone(&self.0),
            node,
        }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let world = self.lock();
        let node = world.find(path).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(LyingFile {
            world: Arc::clone(&self.0),
            node,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.lock();
        world.change()?;
        let (folder, name) = world.place(from)?;
        let names = world.names.get_mut(&folder).ok_or(ErrorKind::NotFound)?;
        let node = names.remove(&name).ok_or(ErrorKind::NotFound)?;
        let (folder, name) = world.place(to)?;
        world.names.entry(folder).or_default().insert(name, node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.remove_dir(path)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        let mut world = self.lock();
        world.change()?;
        let (folder, name) = world.place(dir)?;
        let removed = world
            .names
            .get_mut(&folder)
            .and_then(|names| names.remove(&name));
        removed
            .map(|_| ())
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut world = self.lock();
        world.change()?;
        let fails = world.trouble.sync_fails_at == Some(world.syncs);
        world.syncs += 1;
        if world.trouble.lies {
            return Ok(());
        }
        if fails {
            return Err(Error::other("the disk gave up"));
        }
        let node = world.find(dir).ok_or(ErrorKind::NotFound)?;
        let names = world.names[&node].clone();
        world.durable_names.insert(node, names);
        Ok(())
    }
}

impl LyingFile {
    fn with<R>(&self, work: impl FnOnce(&mut World, u64) -> R) -> R {
        work(&mut self.world.lock().unwrap(), self.node)
    }
}

impl DiskFile for LyingFile {
    fn size(&self) -> Result<u64> {
        self.with(|world, node| Ok(world.files[&node].now.len() as u64))
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.with(|world, node| {
            let bytes = world.files[&node]
                .now
                .get(at as usize..at as usize + into.len());
            into.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.with(|world, node| {
            let mut full = world.trouble.full_at == Some(world.writes);
            world.writes += 1;
            let fits = match world.take_room(node, at + bytes.len() as u64) {
                lacking if lacking > 0 => {
                    full = true;
                    bytes.len() - (lacking as usize).min(bytes.len())
                }
                _ if full => bytes.len() / 2,
                _ => bytes.len(),
            };
            let was_off = world.off;
            let done = world.change();
            if !was_off {
                // The power goes in the middle of a write: its bytes are under way.
                let change = Change::Write(at, bytes[..fits].to_vec());
                let content = world.files.get_mut(&node).unwrap();
                change.apply(&mut content.now);
                content.unsynced.push(change);
            }
            done?;
            if full {
                Err(ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        })
    }

    fn cut(&self, size: u64) -> Result<()> {
        self.with(|world, node| {
            world.change()?;
            world.give_room(node, size);
            let content = world.files.get_mut(&node).unwrap();
            Change::Cut(size).apply(&mut content.now);
            content.unsynced.push(Change::Cut(size));
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(|world, node| {
            world.change()?;
            let fails = world.trouble.sync_fails_at == Some(world.syncs);
            world.syncs += 1;
            if world.trouble.lies {
                return Ok(());
            }
            let content = world.files.get_mut(&node).unwrap();
            let unsynced = std::mem::take(&mut content.unsynced);
            if fails {
                // As Linux does: the pages count as clean and are never written.
                return Err(Error::other("the disk gave up"));
            }
            unsynced
                .iter()
                .for_each(|change| change.apply(&mut content.durable));
            Ok(())
        })
    }
}
