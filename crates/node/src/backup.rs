//! Saving a node: its datasets as they are at one moment, and what lies beside them in its data
//! folder. Into the same folder again only what is new is copied.
//!
//! ```text
//! <backup>/BACKUP        what is in it, of which node, from when; the last thing that is written
//! <backup>/store/        the datasets (configuration, places of pipes, execution logs are some)
//! <backup>/node-id       who the node is
//! <backup>/secrets.json  its secrets as they are, encrypted; the key is never among them
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use tahini_store::{Backend, Backup, StoreError, StoreLock, Verified};

/// The file that says what is in a backup.
pub const NOTE: &str = "BACKUP";
/// The folder of the datasets.
pub const STORE: &str = "store";
/// What lies in a data folder beside the datasets.
pub const FILES: [&str; 2] = ["node-id", "secrets.json"];
/// The file in the data folder that counts starts: a version, and how often it was started.
pub const STARTS: &str = "starts";
/// The file in the data folder that says which containers and processes are this node's.
pub const LEDGER: &str = "microservices.json";
/// What the data folder holds of the machine that it is on, which is neither saved nor replaced.
pub const LOCAL: [&str; 2] = [STARTS, LEDGER];
/// The format of a backup; its datasets have one of their own.
const FORMAT: u64 = 1;
const NAME_LETTERS: usize = 64;

/// Why a node was not saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// As things stand it would do harm.
    #[error("{0}")]
    Refused(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's path.
        what: String,
        /// The refusal.
        source: io::Error,
    },
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The node that was saved.
    pub node_id: String,
    /// The version of the node that saved it last.
    pub version: String,
    /// When the last saving began.
    pub begun: Timestamp,
    /// When it ended; `None` when it did not: datasets may be of different moments then.
    pub ended: Option<Timestamp>,
    /// Datasets that could not be saved, being damaged; what was saved of them before stays.
    pub skipped: Vec<String>,
    /// The files beside the datasets: name, length, sum.
    files: Vec<(String, u64, u32)>,
}

/// What a saving did.
#[derive(Clone, Debug)]
pub struct Saved {
    /// What the backup says of itself now.
    pub note: Note,
    /// What was done about the datasets.
    pub store: Backup,
}

/// What reading a backup through found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the backup says of itself.
    pub note: Note,
    /// The datasets.
    pub store: Verified,
    /// What is not as it was saved, datasets and files, each with what is wrong.
    pub damaged: Vec<(String, String)>,
}

/// The folder in which a running node may make backups.
pub struct Backups {
    /// The folder; each backup is a folder in it.
    pub folder: PathBuf,
    /// The data folder of the node.
    pub data: PathBuf,
}

impl Backups {
    /// Backups of the node with that data folder, in `folder`.
    ///
    /// # Errors
    /// When the folder of backups is the data folder or in it: whoever loses one loses both.
    pub fn new(folder: &Path, data: &Path) -> Result<Backups, Trouble> {
        refuse_within(folder, data)?;
        Ok(Backups {
            folder: folder.to_owned(),
            data: data.to_owned(),
        })
    }

    /// Saves the node under that name.
    ///
    /// # Errors
    /// See `save`; and when the name is none for a folder.
    pub fn save(&self, store: &dyn Backend, name: &str) -> Result<Saved, Trouble> {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let good = !name.is_empty()
            && name.len() <= NAME_LETTERS
            && !name.starts_with('.')
            && name.chars().all(letters);
        if !good {
            return Err(Trouble::Refused(format!(
                "expected a name for the backup of at most {NAME_LETTERS} letters, digits, `-`, \
                 `_` and `.`, not beginning with `.`, found {name:?}"
            )));
        }
        save(store, &self.data, &self.folder.join(name))
    }

    /// The backups by name, with what they say of themselves.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Note)>, Trouble> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("reading", &self.folder))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("reading", &self.folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What else lies there is not ours.
            if let Ok(note) = Note::read(&entry.path()) {
                found.push((name, note));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }
}

/// Saves the node with that data folder to `to`.
///
/// # Errors
/// `Refused` when the folder holds something else, or another node's backup; `InUse` while another
/// saving into it is under way. What was saved before can be restored after any error.
pub fn save(store: &dyn Backend, data: &Path, to: &Path) -> Result<Saved, Trouble> {
    refuse_within(to, data)?;
    private_folder(to)?;
    refuse_foreign_files(to)?;
    let _lock = StoreLock::take(to)?;
    let node_id = node_id(data)?;
    let mut note = match Note::read(to) {
        Ok(known) if known.node_id != node_id => {
            return Err(Trouble::Refused(format!(
                "expected {} to be empty or to hold a backup of this node ({node_id}), found one \
                 of the node {}; give every node a folder of its own",
                to.display(),
                known.node_id
            )));
        }
        Ok(known) => known,
        Err(Trouble::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Note {
            node_id,
            version: String::new(),
            begun: Timestamp::now(),
            ended: None,
            skipped: Vec::new(),
            files: Vec::new(),
        },
        Err(trouble) => return Err(trouble),
    };
    note.version = env!("CARGO_PKG_VERSION").to_owned();
    (note.begun, note.ended) = (Timestamp::now(), None);
    note.write(to)?;
    let saved = store.backup(&to.join(STORE))?;
    note.files = save_files(data, to)?;
    note.skipped.clone_from(&saved.skipped);
    note.ended = Some(Timestamp::now());
    note.write(to)?;
    Ok(Saved { note, store: saved })
}

/// Reads the backup in `from` through; nothing in it is changed.
///
/// # Errors
/// When it is no backup, or cannot be read. Damage is no error.
pub fn check(from: &Path) -> Result<Checked, Trouble> {
    let note = Note::read(from).map_err(|trouble| match trouble {
        Trouble::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            Trouble::Refused(format!(
                "expected a backup in {}, found no file {NOTE} there",
                from.display()
            ))
        }
        other => other,
    })?;
    let mut store = Verified::of(&from.join(STORE))?;
    let mut damaged = std::mem::take(&mut store.damaged);
    for (name, len, sum) in &note.files {
        let path = from.join(name);
        let wrong = match fs::read(&path) {
            Ok(bytes) if bytes.len() as u64 == *len && crc32fast::hash(&bytes) == *sum => continue,
            Ok(_) => format!("{} does not match its sum", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        damaged.push((name.clone(), wrong));
    }
    Ok(Checked {
        note,
        store,
        damaged,
    })
}

impl Note {
    /// Reads what the backup in `folder` says of itself.
    ///
    /// # Errors
    /// When it says nothing, or something else.
    pub fn read(folder: &Path) -> Result<Note, Trouble> {
        let path = folder.join(NOTE);
        let text = fs::read(&path).map_err(failed("reading", &path))?;
        let json: Json = serde_json::from_slice(&text).unwrap_or_default();
        match json["format"].as_u64() {
            Some(FORMAT) => {}
            Some(found) => {
                return Err(Trouble::Refused(format!(
                    "expected a backup of format {FORMAT}, found {found} in {}",
                    path.display()
                )));
            }
            None => return Err(damaged_note(&path)),
        }
        Note::of(&json).ok_or_else(|| damaged_note(&path))
    }

    fn of(json: &Json) -> Option<Note> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let file = |(name, file): (&String, &Json)| {
            let sum = u32::from_str_radix(file["crc32"].as_str()?, 16).ok()?;
            let known = FILES.contains(&name.as_str());
            known.then_some((name.clone(), file["bytes"].as_u64()?, sum))
        };
        let skipped = json["skipped"].as_array()?.iter();
        Some(Note {
            node_id: text("node_id")?,
            version: text("version")?,
            begun: text("begun")?.parse().ok()?,
            ended: match &json["ended"] {
                Json::Null => None,
                ended => Some(ended.as_str()?.parse().ok()?),
            },
            skipped: skipped
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect(),
            files: json["files"]
                .as_object()?
                .iter()
                .map(file)
                .collect::<Option<_>>()?,
        })
    }

    /// The note as JSON, as it stands in the backup.
    pub fn json(&self) -> Json {
        let files = self.files.iter().map(|(name, bytes, sum)| {
            let file = json!({ "bytes": bytes, "crc32": format!("{sum:08x}") });
            (name.clone(), file)
        });
        json!({
            "format": FORMAT,
            "node_id": self.node_id,
            "version": self.version,
            "begun": self.begun.to_string(),
            "ended": self.ended.map(|ended| ended.to_string()),
            "skipped": self.skipped,
            "files": files.collect::<Map<String, Json>>(),
        })
    }

    /// The names of the files beside the datasets.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, ..)| name.as_str())
    }

    fn write(&self, folder: &Path) -> Result<(), Trouble> {
        let text = format!("{:#}\n", self.json());
        let path = folder.join(NOTE);
        replace_file(&path, text.as_bytes()).map_err(failed("writing", &path))
    }
}

impl Saved {
    /// What was done, as JSON.
    pub fn json(&self) -> Json {
        let mut json = self.note.json();
        json["datasets"] = self.store.datasets.into();
        json["copied_bytes"] = self.store.copied_bytes.into();
        json["kept_bytes"] = self.store.kept_bytes.into();
        json
    }
}

impl Checked {
    /// What was found, as JSON.
    pub fn json(&self) -> Json {
        let mut json = self.note.json();
        json["datasets"] = self.store.datasets.into();
        json["versions"] = self.store.versions.into();
        json["bytes"] = self.store.bytes.into();
        let damaged = self.damaged.iter();
        let damaged = damaged.map(|(name, found)| json!({ "name": name, "found": found }));
        json["damaged"] = damaged.collect();
        json
    }
}

/// The node's identity, made with its data folder.
///
/// # Errors
/// When it cannot be read or made.
pub fn node_id(data: &Path) -> Result<String, Trouble> {
    let file = data.join("node-id");
    match fs::read_to_string(&file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("reading", &file)(error)),
        _ => {
            let id = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
            replace_file(&file, id.as_bytes()).map_err(failed("writing", &file))?;
            Ok(id)
        }
    }
}

/// Who the node is to a container engine: its identity, and where its data is. A backup that was
/// restored beside the node itself, to be looked at, is another one, and leaves its containers alone.
///
/// # Errors
/// When the identity cannot be read or made.
pub fn hosting_id(data: &Path) -> Result<String, Trouble> {
    let place = fs::canonicalize(data).unwrap_or_else(|_| data.to_path_buf());
    let place = crc32fast::hash(place.as_os_str().as_encoded_bytes());
    Ok(format!("{}-{place:08x}", node_id(data)?))
}

fn save_files(data: &Path, to: &Path) -> Result<Vec<(String, u64, u32)>, Trouble> {
    let mut saved = Vec::new();
    for name in FILES {
        let (from, to) = (data.join(name), to.join(name));
        match fs::read(&from) {
            Ok(bytes) => {
                replace_file(&to, &bytes).map_err(failed("writing", &to))?;
                saved.push((name.to_owned(), bytes.len() as u64, crc32fast::hash(&bytes)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let gone = fs::remove_file(&to).or_else(missing_is_fine);
                gone.map_err(failed("removing", &to))?;
            }
            Err(error) => return Err(failed("reading", &from)(error)),
        }
    }
    Ok(saved)
}

fn damaged_note(path: &Path) -> Trouble {
    Trouble::Refused(format!(
        "expected {} to say what is in the backup, found something else",
        path.display()
    ))
}

/// A backup in the folder that it saves, or the other way round, would be lost with it.
pub fn refuse_within(backup: &Path, data: &Path) -> Result<(), Trouble> {
    let (one, other) = (real(backup), real(data));
    if one.starts_with(&other) || other.starts_with(&one) {
        return Err(Trouble::Refused(format!(
            "expected backups outside the data folder {}, found {}",
            data.display(),
            backup.display()
        )));
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = absolute.ancestors().find_map(|part| {
        let rest = absolute.strip_prefix(part).ok()?;
        Some(part.canonicalize().ok()?.join(rest))
    });
    found.unwrap_or(absolute)
}

fn refuse_foreign_files(to: &Path) -> Result<(), Trouble> {
    let entries = fs::read_dir(to).map_err(failed("reading", to))?;
    for entry in entries {
        let name = entry.map_err(failed("reading", to))?.file_name();
        let text = name.to_string_lossy();
        let own = text.strip_suffix(".new").unwrap_or(&text);
        if !(own == NOTE || own == STORE || own == "LOCK" || FILES.contains(&own)) {
            return Err(Trouble::Refused(format!(
                "expected {} to be empty or to hold a backup, found {text:?} in it",
                to.display()
            )));
        }
    }
    Ok(())
}

/// Makes a folder that only its owner can look into, where there is none.
pub fn private_folder(folder: &Path) -> Result<(), Trouble> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(folder);
    made.map_err(failed("creating", folder))
}

/// Replaces a file by one that only its owner can read; durable when it returns.
fn replace_file(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut open = options.open(&new)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    fs::rename(&new, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// An absent file needs no removing.
pub fn missing_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Names what was being done when the operating system refused.
pub fn failed(doing: &str, path: &Path) -> impl Fn(io::Error) -> Trouble + use<> {
    let what = format!("{doing} {}", path.display());
    move |source| Trouble::Io {
        what: what.clone(),
        source,
    }
}
