//! What a node remembers of its services beyond its own life: ports, and which processes are its
//! own.
//!
//! A killed node writes nothing at its end, so that every change is on the disk before the service
//! it is about can be in anybody's way. A file that is lost or unreadable costs ports that change
//! and processes that nobody finds again, nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// One service, as the node last knew it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The port of this machine on which the node reached it.
    pub port: u16,
    /// The runtime's name.
    pub runtime: String,
    /// The process that runs it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Mark>,
}

/// What tells a process from every other, also from one that later has its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its number.
    pub pid: u32,
    /// The number of its group.
    pub group: i32,
    /// When it was started, in the kernel's ticks since the machine's start.
    pub start: u64,
    /// Which start of the machine that was.
    pub boot: String,
}

/// The services of one node, by id, in a file beside its datasets.
pub(super) struct Ledger {
    file: Option<PathBuf>,
    now: Mutex<BTreeMap<String, Kept>>,
    /// Processes of an earlier life that nobody has asked for yet.
    left: Mutex<BTreeMap<String, Mark>>,
    /// Services of an earlier life ran as containers.
    had_containers: bool,
}

impl Ledger {
    /// The ledger in `file`; without one it is forgotten with the program.
    pub fn open(file: Option<&Path>) -> Ledger {
        let text = file.and_then(|file| fs::read_to_string(file).ok());
        let now: BTreeMap<String, Kept> = text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let left = now
            .iter()
            .filter_map(|(id, kept)| Some((id.clone(), kept.process.clone()?)))
            .collect();
        Ledger {
            file: file.map(Path::to_path_buf),
            had_containers: now.values().any(|kept| kept.runtime == "docker"),
            now: Mutex::new(now),
            left: Mutex::new(left),
        }
    }

    /// Whether an earlier life of the node ran containers.
    pub fn had_containers(&self) -> bool {
        self.had_containers
    }

    /// The port that the service had the last time.
    pub fn port(&self, id: &str) -> Option<u16> {
        self.lock().get(id).map(|kept| kept.port)
    }

    /// Keeps where a service is reached and what runs it.
    pub fn note(&self, id: &str, port: u16, runtime: &str) {
        self.change(|now| {
            let kept = now.entry(id.to_owned()).or_default();
            kept.port = port;
            runtime.clone_into(&mut kept.runtime);
        });
    }

    /// Keeps which process runs a service; `None` when it has ended.
    pub fn note_process(&self, id: &str, mark: Option<Mark>) {
        self.change(|now| {
            if let Some(kept) = now.get_mut(id) {
                kept.process = mark;
            }
        });
    }

    /// Forgets a service that is no longer wanted.
    pub fn forget(&self, id: &str) {
        self.change(|now| {
            now.remove(id);
        });
    }

    /// Forgets everything but these services.
    pub fn keep_only(&self, wanted: &[String]) {
        self.change(|now| now.retain(|id, _| wanted.contains(id)));
    }

    /// The process that an earlier life of the node left of this service, given out once.
    pub fn take_left(&self, id: &str) -> Option<Mark> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(id)
    }

    /// Those of all services but these.
    pub fn take_left_beside(&self, wanted: &[String]) -> Vec<(String, Mark)> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (stay, go) = std::mem::take(&mut *left)
            .into_iter()
            .partition(|(id, _)| wanted.contains(id));
        *left = stay;
        let go: BTreeMap<String, Mark> = go;
        go.into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Kept>)) {
        let mut now = self.lock();
        let before = now.clone();
        change(&mut now);
        let Some(file) = self.file.as_ref().filter(|_| *now != before) else {
            return;
        };
        if let Err(error) = write(file, &now) {
            tracing::warn!(file = %file.display(), %error, "what the services run as is not kept");
        }
    }
}

/// Puts the whole file in the place of the old one, so that there is always a whole one.
fn write(file: &Path, now: &BTreeMap<String, Kept>) -> std::io::Result<()> {
    let text = serde_json::to_vec(now)?;
    let part = file.with_extension("part");
    fs::write(&part, text)?;
    fs::rename(&part, file)
}

impl Mark {
    /// What marks a process that runs now; `None` when there is none, or no `/proc` that tells.
    pub fn of(pid: u32) -> Option<Mark> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name may hold anything, a bracket included; the numbers follow the last one.
        let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // A zombie has ended.
        if matches!(*numbers.first()?, "Z" | "X") {
            return None;
        }
        Some(Mark {
            pid,
            group: numbers.get(2)?.parse().ok()?,
            start: numbers.get(19)?.parse().ok()?,
            boot: boot.trim().to_owned(),
        })
    }

    /// This very process as it is now; `None` when it has ended. Only its group may have changed.
    pub fn found(&self) -> Option<Mark> {
        Mark::of(self.pid).filter(|now| now.start == self.start && now.boot == self.boot)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_was_kept_is_there_in_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("microservices.json");
        let mark = Mark::of(std::process::id()).unwrap();
        let first = Ledger::open(Some(&file));
        first.note("one", 4001, "process");
        first.note_process("one", Some(mark.clone()));
        first.note("two", 4002, "docker");
        first.note("three", 4003, "process");
        first.forget("three");
        assert_eq!(first.take_left("one"), None, "it is of this life");

        let second = Ledger::open(Some(&file));
        assert_eq!(
            [second.port("one"), second.port("two"), second.port("three")],
            [Some(4001), Some(4002), None]
        );
        assert!(second.had_containers());
        let wanted = ["one".to_owned()];
        assert_eq!(second.take_left_beside(&wanted), []);
        assert_eq!(second.take_left("one"), Some(mark));
        assert_eq!(second.take_left("one"), None, "it is given out once");
        second.keep_only(&wanted);
        assert_eq!(Ledger::open(Some(&file)).port("two"), None);
    }

    #[test]
    fn a_file_that_is_no_ledger_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("microservices.json");
        fs::write(&file, "{\"one\": ").unwrap();
        assert_eq!(Ledger::open(Some(&file)).port("one"), None);
        assert_eq!(Ledger::open(None).port("one"), None);
    }

    #[test]
    fn a_number_that_somebody_else_has_by_now_is_not_the_process() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mark = Mark::of(child.id()).unwrap();
        assert_eq!(mark.found(), Some(mark.clone()));
        let later = Mark {
            start: mark.start + 1,
            ..mark.clone()
        };
        let other_boot = Mark {
            boot: "another".to_owned(),
            ..mark.clone()
        };
        assert_eq!((later.found(), other_boot.found()), (None, None));
        child.kill().unwrap();
        // A zombie until it is waited for, and gone then.
        let start = std::time::Instant::now();
        while mark.found().is_some() && start.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert_eq!(mark.found(), None);
        child.wait().unwrap();
    }
}
