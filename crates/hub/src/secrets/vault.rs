//! Secrets at rest: one file in the data folder, encrypted under a key that is kept elsewhere.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use serde_json::{Map, Value as Json, json};

use super::{Scopes, SecretSource, as_text};
use crate::Failure;

/// Why secrets cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key and what it protects in one place protect nothing.
    #[error(
        "the key file {key} must not be in the data folder {data}: whoever copies the folder \
         would have both; set TAHINI_MASTER_KEY_FILE to a file elsewhere"
    )]
    KeyInData {
        /// The key file.
        key: PathBuf,
        /// The data folder.
        data: PathBuf,
    },
    /// There are secrets, and their key is gone.
    #[error(
        "the key file {key} is missing, and {secrets} was encrypted under it; put it back, or \
         remove {secrets} and set the secrets again"
    )]
    KeyMissing {
        /// The key file.
        key: PathBuf,
        /// The file of secrets.
        secrets: PathBuf,
    },
    /// The key file is no key.
    #[error("the key file {0} is no key: expected 32 bytes in base64")]
    NoKey(PathBuf),
    /// The secrets were encrypted under another key, or somebody changed them.
    #[error(
        "the key in {key} does not open {secrets}: it is another key, or the file was changed; \
         TAHINI_MASTER_KEY_FILE names the key file"
    )]
    WrongKey {
        /// The key file.
        key: PathBuf,
        /// The file of secrets.
        secrets: PathBuf,
    },
    /// The file of secrets is none.
    #[error("{file} is no file of secrets: {why}")]
    Damaged {
        /// The file of secrets.
        file: PathBuf,
        /// What was expected, what was found.
        why: String,
    },
    /// No place for the key is known.
    #[error("no place for the key file: set TAHINI_MASTER_KEY_FILE, or HOME")]
    NoPlace,
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    NoRandom(String),
    /// A file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The key file that the environment names: `TAHINI_MASTER_KEY_FILE`, or `tahini/master.key` in
/// `XDG_CONFIG_HOME` or `~/.config`.
///
/// # Errors
/// `NoPlace` when none of them is set.
pub fn key_file(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, VaultError> {
    let set = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(file) = set("TAHINI_MASTER_KEY_FILE") {
        return Ok(file);
    }
    let home = || set("HOME").map(|home| home.join(".config"));
    let config = set("XDG_CONFIG_HOME")
        .or_else(home)
        .ok_or(VaultError::NoPlace)?;
    Ok(config.join("tahini").join("master.key"))
}

/// Secrets, encrypted at rest. Values are written and used, and never given out again.
///
/// The file holds the names in clear and every value sealed (XChaCha20-Poly1305, a random nonce
/// each), bound to its system and name: a value that is moved to another name does not open.
pub struct Vault {
    file: PathBuf,
    cipher: XChaCha20Poly1305,
    secrets: Mutex<Scopes>,
}

const FILE: &str = "secrets.json";
const FORMAT: u64 = 1;
/// What the check value says; it tells a wrong key from a right one when there are no secrets.
const CHECK: &str = "tahini";

impl Vault {
    /// Opens the secrets of the data folder with the key in `key_file`, which is made (readable by
    /// its owner only) when neither it nor any secrets are there.
    ///
    /// # Errors
    /// See `VaultError`; a wrong key is never anything else.
    pub fn open(data: &Path, key_file: &Path) -> Result<Vault, VaultError> {
        let file = data.join(FILE);
        refuse_key_in_data(data, key_file)?;
        let written = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(VaultError::Io { file, source }),
        };
        let key = match read_key(key_file)? {
            Some(key) => key,
            None if written.is_some() => {
                return Err(VaultError::KeyMissing {
                    key: key_file.to_owned(),
                    secrets: file,
                });
            }
            None => create_key(key_file)?,
        };
        let vault = Vault {
            file,
            cipher: XChaCha20Poly1305::new(&key),
            secrets: Mutex::default(),
        };
        if let Some(text) = written {
            let secrets = vault.read(&text, key_file)?;
            *vault.lock() = secrets;
        }
        Ok(vault)
    }

    /// Sets secrets of a system, or global ones; with `replace`, those that are not among them go.
    /// Values that are not text are kept as JSON text. Durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing changed.
    pub fn put(
        &self,
        system: Option<&str>,
        values: &Map<String, Json>,
        replace: bool,
    ) -> Result<(), VaultError> {
        self.change(|secrets| {
            let scope = secrets.entry(system.map(str::to_owned)).or_default();
            if replace {
                scope.retain(|name, _| is_kept(name));
            }
            scope.extend(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), as_text(value))),
            );
        })
    }

    /// Removes a secret; whether it was there.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing changed.
    pub fn delete(&self, system: Option<&str>, name: &str) -> Result<bool, VaultError> {
        let mut was_there = false;
        self.change(|secrets| {
            if let Some(scope) = secrets.get_mut(&system.map(str::to_owned)) {
                was_there = scope.remove(name).is_some();
            }
        })?;
        Ok(was_there)
    }

    /// The names of a system's secrets, or of the global ones, sorted.
    pub fn names(&self, system: Option<&str>) -> Vec<String> {
        let secrets = self.lock();
        let scope = secrets.get(&system.map(str::to_owned));
        let names = scope.into_iter().flat_map(|scope| scope.keys());
        names.filter(|name| !is_kept(name)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Scopes> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Scopes)) -> Result<(), VaultError> {
        let mut secrets = self.lock();
        let mut changed = secrets.clone();
        change(&mut changed);
        changed.retain(|_, scope| !scope.is_empty());
        let text = self.written(&changed)?;
        replace_file(&self.file, text.as_bytes()).map_err(|source| VaultError::Io {
            file: self.file.clone(),
            source,
        })?;
        *secrets = changed;
        Ok(())
    }

    fn written(&self, secrets: &Scopes) -> Result<String, VaultError> {
        let mut global = Map::new();
        let mut systems = Map::new();
        for (system, scope) in secrets {
            let mut sealed = Map::new();
            for (name, value) in scope {
                let bound = bound_to(system.as_deref(), name);
                sealed.insert(name.clone(), json!(self.seal(&bound, value)?));
            }
            match system {
                None => global = sealed,
                Some(system) => {
                    systems.insert(system.clone(), Json::Object(sealed));
                }
            }
        }
        let check = self.seal("check", CHECK)?;
        let whole =
            json!({ "format": FORMAT, "check": check, "global": global, "systems": systems });
        Ok(format!("{whole:#}\n"))
    }

    fn read(&self, text: &str, key_file: &Path) -> Result<Scopes, VaultError> {
        let damaged = |why: String| VaultError::Damaged {
            file: self.file.clone(),
            why,
        };
        let wrong_key = || VaultError::WrongKey {
            key: key_file.to_owned(),
            secrets: self.file.clone(),
        };
        let whole: Json = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if whole["format"] != json!(FORMAT) {
            let why = format!("expected format {FORMAT}, found {}", whole["format"]);
            return Err(damaged(why));
        }
        let open = |bound: &str, sealed: &Json| {
            let sealed = sealed.as_str().and_then(|text| BASE64.decode(text).ok());
            sealed
                .and_then(|sealed| self.unseal(bound, &sealed))
                .ok_or_else(wrong_key)
        };
        if open("check", &whole["check"])? != CHECK {
            return Err(wrong_key());
        }
        let mut secrets = Scopes::new();
        let mut take = |system: Option<&str>, scope: &Json| {
            let Some(scope) = scope.as_object() else {
                return Err(damaged("expected an object of secrets".to_owned()));
            };
            for (name, sealed) in scope {
                let value = open(&bound_to(system, name), sealed)?;
                let own = secrets.entry(system.map(str::to_owned)).or_default();
                own.insert(name.clone(), value);
            }
            Ok(())
        };
        take(None, &whole["global"])?;
        for (system, scope) in whole["systems"].as_object().into_iter().flatten() {
            take(Some(system), scope)?;
        }
        Ok(secrets)
    }

    /// A value, sealed: the nonce, then the cipher text, in base64.
    fn seal(&self, bound: &str, value: &str) -> Result<String, VaultError> {
        let nonce: [u8; 24] = random()?;
        let payload = Payload {
            msg: value.as_bytes(),
            aad: bound.as_bytes(),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("sealing fails only above 256 GB");
        Ok(BASE64.encode([nonce.as_slice(), &sealed].concat()))
    }

    fn unseal(&self, bound: &str, sealed: &[u8]) -> Option<String> {
        let (nonce, msg) = sealed.split_first_chunk::<24>()?;
        let payload = Payload {
            msg,
            aad: bound.as_bytes(),
        };
        String::from_utf8(self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?).ok()
    }
}

impl SecretSource for Vault {
    fn get(&self, system: Option<&str>, name: &str) -> Option<String> {
        self.lock()
            .get(&system.map(str::to_owned))?
            .get(name)
            .cloned()
    }

    fn values(&self) -> Vec<String> {
        let secrets = self.lock();
        let all = secrets.values().flat_map(|scope| scope.iter());
        all.flat_map(|(name, value)| texts(name, value)).collect()
    }

    fn keep(&self, system: &str, name: &str, value: &str) -> Result<bool, Failure> {
        let kind = name.split(':').next().unwrap_or(name).to_owned();
        self.change(|secrets| {
            let scope = secrets.entry(Some(system.to_owned())).or_default();
            scope.retain(|known, _| known.split(':').next() != Some(&kind));
            scope.insert(name.to_owned(), value.to_owned());
        })
        .map_err(|error| Failure::fatal(error.to_string()))?;
        Ok(true)
    }
}

/// Whether a system keeps it itself; people neither see nor replace it.
fn is_kept(name: &str) -> bool {
    name.starts_with('~')
}

/// What of a secret must not be shown: of an object that a system keeps, every text in it.
fn texts(name: &str, value: &str) -> Vec<String> {
    match serde_json::from_str(value) {
        Ok(Json::Object(map)) if is_kept(name) => {
            let texts = map.values().filter_map(Json::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => vec![value.to_owned()],
    }
}

/// What a sealed value is bound to. The lengths keep two pairs from looking the same.
fn bound_to(system: Option<&str>, name: &str) -> String {
    match system {
        None => format!("global:{}:{name}", name.len()),
        Some(system) => format!("system:{}:{system}:{name}", system.len()),
    }
}

fn refuse_key_in_data(data: &Path, key_file: &Path) -> Result<(), VaultError> {
    // What is not there yet has no real path: then the nearest folder that is.
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        absolute.ancestors().find_map(|part| {
            let rest = absolute.strip_prefix(part).ok()?;
            Some(part.canonicalize().ok()?.join(rest))
        })
    };
    match (real(data), real(key_file)) {
        (Some(inside), Some(key)) if key.starts_with(&inside) => Err(VaultError::KeyInData {
            key: key_file.to_owned(),
            data: data.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn read_key(file: &Path) -> Result<Option<Key>, VaultError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(VaultError::NoKey(file.to_owned()));
        }
        Err(source) => {
            return Err(VaultError::Io {
                file: file.to_owned(),
                source,
            });
        }
    };
    let bytes = BASE64.decode(text.trim()).ok();
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(bytes) => Ok(Some(Key::from(bytes))),
        None => Err(VaultError::NoKey(file.to_owned())),
    }
}

/// Makes a key file that only its owner can read, durable before anything is sealed under it.
fn create_key(file: &Path) -> Result<Key, VaultError> {
    let bytes: [u8; 32] = random()?;
    let io = |source| VaultError::Io {
        file: file.to_owned(),
        source,
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let text = format!("{}\n", BASE64.encode(bytes));
    let mut options = OpenOptions::new();
    match write_durably(options.create_new(true), file, text.as_bytes()) {
        Ok(()) => Ok(Key::from(bytes)),
        // Another process was faster: its key is the key.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            read_key(file)?.ok_or_else(|| VaultError::NoKey(file.to_owned()))
        }
        Err(source) => Err(io(source)),
    }
}

/// Replaces a file whole: after a crash it is the old one or the new one.
fn replace_file(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = file.with_extension("json.new");
    write_durably(OpenOptions::new().create(true).truncate(true), &new, bytes)?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}

fn write_durably(options: &mut OpenOptions, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let mut open = options.open(file)?;
    open.write_all(bytes)?;
    open.sync_all()
}

fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| VaultError::NoRandom(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            Place {
                folder: tempfile::tempdir().unwrap(),
            }
        }

        fn data(&self) -> PathBuf {
            self.folder.path().join("data")
        }

        fn key(&self) -> PathBuf {
            self.folder.path().join("config/tahini/master.key")
        }

        fn open(&self) -> Result<Vault, VaultError> {
            Vault::open(&self.data(), &self.key())
        }

        fn text(&self) -> String {
            fs::read_to_string(self.data().join(FILE)).unwrap()
        }
    }

    fn values(json: Json) -> Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn secrets_outlive_the_process_and_are_not_in_the_file() {
        let place = Place::new();
        let vault = place.open().unwrap();
        vault
            .put(None, &values(json!({"token": "global-value"})), false)
            .unwrap();
        vault
            .put(
                Some("crm"),
                &values(json!({"token": "own-value", "n": 5})),
                false,
            )
            .unwrap();
        for clear in ["global-value", "own-value"] {
            assert!(!place.text().contains(clear));
        }
        let vault = place.open().unwrap();
        assert_eq!(vault.get(None, "token").as_deref(), Some("global-value"));
        assert_eq!(
            vault.get(Some("crm"), "token").as_deref(),
            Some("own-value")
        );
        assert_eq!(vault.get(Some("crm"), "n").as_deref(), Some("5"));
        assert_eq!(vault.get(Some("erp"), "token"), None);
        assert_eq!(vault.names(Some("crm")), ["n", "token"]);
    }

    #[test]
    fn put_adds_or_replaces_and_delete_removes() {
        let place = Place::new();
        let vault = place.open().unwrap();
        vault
            .put(None, &values(json!({"a": "1", "b": "2"})), false)
            .unwrap();
        vault
            .put(None, &values(json!({"b": "3", "c": "4"})), false)
            .unwrap();
        assert_eq!(vault.names(None), ["a", "b", "c"]);
        vault.put(None, &values(json!({"d": "5"})), true).unwrap();
        assert_eq!(vault.names(None), ["d"]);
        assert!(vault.delete(None, "d").unwrap());
        assert!(!vault.delete(None, "d").unwrap());
        assert!(place.open().unwrap().names(None).is_empty());
    }

    #[test]
    fn what_a_system_keeps_is_nobodys_to_list_or_replace_and_stays_hidden() {
        let place = Place::new();
        let vault = place.open().unwrap();
        let own = values(json!({"token": "from-people"}));
        vault.put(Some("crm"), &own, false).unwrap();
        assert!(vault.keep("crm", "~oauth2:a", "first-token").unwrap());
        assert!(vault.keep("crm", "~oauth2:b", "second-token").unwrap());
        let parts = r#"{"refresh": "part-of-a-token", "n": 5}"#;
        assert!(vault.keep("crm", "~token:x", parts).unwrap());
        vault
            .put(Some("crm"), &values(json!({"key": "new"})), true)
            .unwrap();
        for clear in ["second-token", "part-of-a-token"] {
            assert!(!place.text().contains(clear));
        }
        let vault = place.open().unwrap();
        assert_eq!(vault.names(Some("crm")), ["key"]);
        let kept = |name: &str| vault.get(Some("crm"), name);
        assert_eq!(kept("~oauth2:a"), None);
        assert_eq!(kept("~oauth2:b").as_deref(), Some("second-token"));
        assert_eq!(kept("~token:x").as_deref(), Some(parts));
        let mut hidden = vault.values();
        hidden.sort();
        assert_eq!(hidden, ["new", "part-of-a-token", "second-token"]);
    }

    #[test]
    fn only_the_owner_reads() {
        let place = Place::new();
        place
            .open()
            .unwrap()
            .put(None, &values(json!({"a": "1"})), false)
            .unwrap();
        #[cfg(unix)]
        for file in [place.key(), place.data().join(FILE)] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_wrong_key_is_told_as_such_even_without_secrets() {
        let place = Place::new();
        let vault = place.open().unwrap();
        vault.put(None, &values(json!({"a": "1"})), false).unwrap();
        vault.delete(None, "a").unwrap();
        fs::write(place.key(), format!("{}\n", BASE64.encode([7; 32]))).unwrap();
        assert!(matches!(place.open(), Err(VaultError::WrongKey { .. })));
        fs::write(place.key(), "short").unwrap();
        assert!(matches!(place.open(), Err(VaultError::NoKey(_))));
    }

    #[test]
    fn a_lost_key_is_never_replaced() {
        let place = Place::new();
        place
            .open()
            .unwrap()
            .put(None, &values(json!({"a": "1"})), false)
            .unwrap();
        fs::remove_file(place.key()).unwrap();
        assert!(matches!(place.open(), Err(VaultError::KeyMissing { .. })));
        assert!(!place.key().exists());
    }

    #[test]
    fn a_value_that_was_moved_does_not_open() {
        let place = Place::new();
        let vault = place.open().unwrap();
        vault
            .put(None, &values(json!({"theirs": "x"})), false)
            .unwrap();
        let moved = place.text().replace("\"theirs\"", "\"mine\"");
        fs::write(place.data().join(FILE), moved).unwrap();
        assert!(matches!(place.open(), Err(VaultError::WrongKey { .. })));
    }

    #[test]
    fn another_format_is_refused() {
        let place = Place::new();
        place
            .open()
            .unwrap()
            .put(None, &values(json!({"a": "1"})), false)
            .unwrap();
        let other = place.text().replace("\"format\": 1", "\"format\": 2");
        fs::write(place.data().join(FILE), other).unwrap();
        match place.open() {
            Err(VaultError::Damaged { why, .. }) => assert_eq!(why, "expected format 1, found 2"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn the_key_is_kept_out_of_the_data_folder() {
        let place = Place::new();
        let key = place.data().join("keys/../master.key");
        fs::create_dir_all(place.data().join("keys")).unwrap();
        let refused = Vault::open(&place.data(), &key);
        assert!(matches!(refused, Err(VaultError::KeyInData { .. })));
        assert!(!key.exists());
    }

    #[test]
    fn the_environment_names_the_key_file() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect();
            key_file(move |name| {
                let found = set.iter().find(|(set, _)| set == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let all = [
            ("TAHINI_MASTER_KEY_FILE", "/k"),
            ("XDG_CONFIG_HOME", "/x"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(with(&all).unwrap(), Path::new("/k"));
        assert_eq!(with(&all[1..]).unwrap(), Path::new("/x/tahini/master.key"));
        assert_eq!(
            with(&all[2..]).unwrap(),
            Path::new("/home/a/.config/tahini/master.key")
        );
        assert!(matches!(with(&[("HOME", "")]), Err(VaultError::NoPlace)));
    }
}
