//! Compaction under random work, compared with memory, and with the plug pulled at any moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringTreemap;
use tahini_entity::Batch;
use tahini_store::{
    Backend, Commit, Compaction, Dataset, Disk, Files, Head, Memory, Options, Snapshot, StoreError,
};

use crate::contract::compaction::thorough;
use crate::contract::tiny;
use crate::lying_disk::{Loss, LyingDisk, Trouble};
use crate::model::{Dice, name, random_commit};
use crate::rows::*;

/// Everything that a view without history shows.
#[derive(Debug, PartialEq)]
struct Shown {
    head: (u64, u64, u64, bool, i64),
    latest: Vec<Short>,
    live: Vec<Short>,
    found: (Vec<bool>, Vec<Short>),
    unseen: Vec<Short>,
    state: Vec<(Vec<u8>, Vec<u8>)>,
}

fn shown(snapshot: &dyn Snapshot) -> Shown {
    let Head {
        next,
        live,
        deleted,
        populated,
        last_ts,
        ..
    } = *snapshot.head();
    let ids: Vec<String> = (0..40).map(name).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut out = Batch::new();
    let found = snapshot.latest(&ids, &mut out).unwrap();
    let seen: RoaringTreemap = (0..next).filter(|seq| seq % 3 == 0).collect();
    let (mut unseen, mut after) = (Vec::new(), None);
    loop {
        let mut page = Batch::new();
        after = snapshot.unseen(&seen, after, PAGE, &mut page).unwrap();
        unseen.extend(short(&page));
        if after.is_none() {
            break;
        }
    }
    Shown {
        head: (next, live, deleted, populated, last_ts),
        latest: changes(snapshot, LATEST, ALL),
        live: changes(snapshot, LIVE, ALL),
        found: (found, short(&out)),
        unseen,
        state: snapshot.state("s", b"").unwrap(),
    }
}

const PAGE: tahini_store::Limit = tahini_store::Limit {
    rows: 4,
    bytes: usize::MAX,
};

/// All versions with their links, and those of each id.
fn history(snapshot: &dyn Snapshot) -> Vec<(Short, Option<u64>, i64)> {
    let mut out = Batch::new();
    snapshot.changes(None, HISTORY, ALL, &mut out).unwrap();
    let links: Vec<_> = out
        .iter()
        .map(|row| (row.meta.previous, row.meta.ts))
        .collect();
    let rows = short(&out).into_iter().zip(links);
    let rows: Vec<_> = rows
        .map(|(row, (previous, ts))| (row, previous, ts))
        .collect();
    for id in (0..40).map(name) {
        let mut out = Batch::new();
        snapshot.versions(&id, &mut out).unwrap();
        let chain = short(&out);
        let expected: Vec<Short> = rows
            .iter()
            .map(|row| row.0.clone())
            .filter(|row| row.1 == id)
            .collect();
        assert!(expected.ends_with(&chain), "{expected:?} {chain:?}");
        // Of an id that was removed something may be left until its segments are written anew.
        let found = snapshot.latest(&[&id], &mut Batch::new()).unwrap();
        assert_eq!(chain.is_empty(), found == [false]);
    }
    rows
}

/// What a compaction of the random work may be told to do.
struct Told {
    keep: Option<u32>,
    older_than: Option<i64>,
    deleted_before: Option<i64>,
    keep_from: Option<u64>,
    retract: Vec<String>,
    erase: Vec<String>,
}

impl Told {
    /// Without ids that go as a whole: a snapshot that is older still shows those in part.
    fn about_versions(dice: &mut Dice, next: u64) -> Told {
        let maybe = |dice: &mut Dice, number: u64| (dice.roll(3) == 0).then(|| dice.roll(number));
        Told {
            keep: (dice.roll(5) > 0).then(|| 1 + dice.roll(4) as u32),
            older_than: maybe(dice, next + 1).map(|ts| 1_000 + ts as i64),
            deleted_before: None,
            keep_from: maybe(dice, next + 1),
            retract: (0..dice.roll(3)).map(|_| name(dice.roll(40))).collect(),
            erase: Vec::new(),
        }
    }

    fn about_ids(dice: &mut Dice, next: u64) -> Told {
        let told = Told::about_versions(dice, next);
        let trims = told.older_than.is_some() && dice.roll(3) == 0;
        Told {
            keep: if trims { Some(0) } else { told.keep },
            deleted_before: (dice.roll(2) == 0).then(|| 1_000 + dice.roll(next + 1) as i64),
            erase: (0..dice.roll(3)).map(|_| name(dice.roll(40))).collect(),
            ..told
        }
    }

    fn compact(&self, dataset: &Arc<dyn Dataset>, least_dead: f64) -> tahini_store::Compacted {
        let names = |ids: &'_ [String]| -> Vec<&'static str> {
            ids.iter().map(|id| &*id.clone().leak()).collect()
        };
        let (retract, erase) = (names(&self.retract), names(&self.erase));
        let rules = Compaction {
            keep_versions: self.keep,
            older_than: self.older_than,
            deleted_before: self.deleted_before,
            keep_from: self.keep_from,
            retract: &retract,
            erase: &erase,
            least_dead,
            index_later: false,
            stop: &|| false,
        };
        dataset.compact(&rules).unwrap()
    }
}

/// The same work on memory and on files, which agree after every step.
struct Both {
    memory: Arc<dyn Dataset>,
    files: Option<Files>,
    root: PathBuf,
    dice: Dice,
    held: Vec<(Box<dyn Snapshot>, Box<dyn Snapshot>)>,
}

impl Both {
    fn new(root: &Path, seed: u64) -> Both {
        Both {
            memory: Memory::new().open("d", true).unwrap(),
            files: None,
            root: root.to_owned(),
            dice: Dice(seed),
            held: Vec::new(),
        }
    }

    fn dataset(&mut self) -> Arc<dyn Dataset> {
        let root = &self.root;
        let files = self
            .files
            .get_or_insert_with(|| Files::open(root, tiny()).unwrap());
        files.open("d", true).unwrap()
    }

    fn commit(&mut self) {
        let (entities, state) = random_commit(&mut self.dice);
        let rows = batch(entities);
        let both = [Arc::clone(&self.memory), self.dataset()];
        let seqs = both.map(|dataset| {
            let commit = Commit {
                state: &state,
                ..commit(&rows)
            };
            run(&dataset, commit).unwrap().seqs
        });
        assert_eq!(seqs[0], seqs[1]);
    }

    fn agree(&mut self, exactly: bool) {
        let (memory, files) = (
            self.memory.snapshot().unwrap(),
            self.dataset().snapshot().unwrap(),
        );
        assert_eq!(shown(&*memory), shown(&*files));
        let (less, more) = (history(&*memory), history(&*files));
        if exactly {
            assert_eq!(less, more);
        } else {
            assert!(less.iter().all(|row| more.contains(row)));
        }
    }

    /// Closes the store or kills it, and may take its index away.
    fn restart(&mut self) {
        self.held.clear();
        if self.dice.roll(2) == 0
            && let Some(files) = &self.files
        {
            files.close().unwrap();
        }
        self.files = None;
        if self.dice.roll(3) == 0 {
            for dataset in std::fs::read_dir(self.root.join("datasets")).unwrap() {
                let _ = std::fs::remove_dir_all(dataset.unwrap().path().join("index"));
            }
        }
    }

    fn hold(&mut self) {
        let pair = (
            self.memory.snapshot().unwrap(),
            self.dataset().snapshot().unwrap(),
        );
        assert_eq!(shown(&*pair.0), shown(&*pair.1));
        self.held.push(pair);
    }

    fn compare_held(&mut self) {
        for (memory, files) in &self.held {
            assert_eq!(shown(&**memory), shown(&**files));
        }
        if self.held.len() > 2 {
            let at = self.dice.roll(self.held.len() as u64) as usize;
            self.held.swap_remove(at);
        }
    }
}

#[test]
fn files_and_memory_agree_whatever_is_compacted() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut both = Both::new(dir.path(), seed);
        for _ in 0..70 {
            match both.dice.roll(10) {
                0..=5 => both.commit(),
                6 if seed % 2 == 0 => both.hold(),
                7 => both.restart(),
                _ => {
                    let next = both.memory.snapshot().unwrap().head().next;
                    let told = if seed % 2 == 0 {
                        Told::about_versions(&mut both.dice, next)
                    } else {
                        Told::about_ids(&mut both.dice, next)
                    };
                    let expected = told.compact(&both.memory, 0.0);
                    let found = told.compact(&both.dataset(), 0.0);
                    assert_eq!(found, expected);
                    both.compare_held();
                }
            }
            both.agree(true);
        }
    }
}

#[test]
fn what_is_not_worth_writing_anew_yet_changes_nothing_else() {
    for seed in 10..16 {
        let dir = tempfile::tempdir().unwrap();
        let mut both = Both::new(dir.path(), seed);
        let told = Told {
            keep: Some(1 + (seed % 2) as u32),
            older_than: None,
            deleted_before: None,
            keep_from: None,
            retract: Vec::new(),
            erase: Vec::new(),
        };
        for _ in 0..60 {
            match both.dice.roll(10) {
                0..=5 => both.commit(),
                6 => both.restart(),
                _ => {
                    told.compact(&both.memory, 0.0);
                    told.compact(&both.dataset(), 0.6);
                }
            }
            both.agree(false);
        }
        told.compact(&both.memory, 0.0);
        told.compact(&both.dataset(), 0.0);
        both.agree(true);
        both.restart();
        both.agree(true);
    }
}

const ERASED: [&str; 2] = ["id3", "id8"];

fn rules() -> Compaction<'static> {
    Compaction {
        keep_versions: Some(1),
        deleted_before: Some(1_050),
        erase: &ERASED,
        ..thorough()
    }
}

/// A store with some history on a disk that keeps its word so far, and the same in memory,
/// before and after it is compacted.
struct Plugged {
    root: PathBuf,
    disk: LyingDisk,
    before: Box<dyn Snapshot>,
    memory: Arc<dyn Dataset>,
    _dir: tempfile::TempDir,
}

fn options(disk: &LyingDisk) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        overlay_keys: 25,
        // What is left takes several segments, each of which is put in place by itself.
        segment_bytes: 500,
        ..tiny()
    }
}

impl Plugged {
    fn new(seed: u64) -> Plugged {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store.root");
        let disk = LyingDisk::new(Trouble::default());
        let memory = Memory::new();
        let (memory, before) = (
            memory.open("d", true).unwrap(),
            memory.open("before", true).unwrap(),
        );
        {
            let files = Files::open(&root, options(&disk)).unwrap();
            let dataset = files.open("d", true).unwrap();
            let mut dice = Dice(seed);
            for _ in 0..24 {
                let (entities, state) = random_commit(&mut dice);
                let rows = batch(entities);
                for dataset in [&memory, &before, &dataset] {
                    let commit = Commit {
                        state: &state,
                        ..commit(&rows)
                    };
                    run(dataset, commit).unwrap();
                }
            }
        }
        memory.compact(&rules()).unwrap();
        Plugged {
            root,
            disk,
            before: before.snapshot().unwrap(),
            memory,
            _dir: dir,
        }
    }

    /// Compacts with this trouble on the disk.
    fn compact(&self, trouble: Trouble) -> Result<(), StoreError> {
        let files = Files::open(&self.root, options(&self.disk))?;
        let dataset = files.open("d", true)?;
        self.disk.trouble(trouble);
        dataset.compact(&rules()).map(|_| ())
    }

    /// What is left is the dataset before, after or between two steps; and it can be finished.
    fn check(&self, disk: &LyingDisk, done: bool, context: &str) {
        let files = Files::open(&self.root, options(disk)).unwrap();
        let dataset = files.open("d", false).unwrap();
        let snapshot = dataset.snapshot().unwrap();
        let (before, after) = (
            shown(&*self.before),
            shown(&*self.memory.snapshot().unwrap()),
        );
        let found = shown(&*snapshot);
        // Ids are removed in two steps, those that are erased and those that were deleted.
        let whole = |expected: &Shown| found.latest == expected.latest && found == *expected;
        let between = found.head.1 + ERASED.len() as u64 >= before.head.1
            && found.state == before.state
            && after.latest.iter().all(|row| found.latest.contains(row))
            && found.latest.iter().all(|row| before.latest.contains(row));
        assert!(
            whole(&after) || (!done && (whole(&before) || between)),
            "{context}: {found:?}"
        );
        let (all, found) = (history(&*self.before), history(&*snapshot));
        let least = history(&*self.memory.snapshot().unwrap());
        assert!(found.iter().all(|row| all.contains(row)), "{context}");
        assert!(least.iter().all(|row| found.contains(row)), "{context}");
        drop(snapshot);
        assert!(dataset.compact(&rules()).unwrap().finished, "{context}");
        let snapshot = dataset.snapshot().unwrap();
        assert_eq!(shown(&*snapshot), after, "{context}");
        assert_eq!(history(&*snapshot), least, "{context}");
        drop(snapshot);
        write(&dataset, [entity("id3", 77)]);
        drop((dataset, files));
        let files = Files::open(&self.root, options(disk)).unwrap();
        let dataset = files.open("d", false).unwrap();
        let rows = history(&*dataset.snapshot().unwrap());
        assert_eq!(rows.len(), least.len() + 1, "{context}");
        let (logs, listed) = disk_logs(disk, &self.root);
        assert_eq!(logs, listed, "{context}: nothing is left over");
    }
}

/// How many segments are in the dataset's folder, and how many its manifest lists.
fn disk_logs(disk: &LyingDisk, root: &Path) -> (usize, usize) {
    let datasets = root.join("datasets");
    let dataset = datasets.join(disk.list(&datasets).unwrap().remove(0));
    let names = disk.list(&dataset).unwrap();
    let logs = names
        .iter()
        .filter(|name| name.to_string_lossy().ends_with(".log"));
    let manifest = disk.open(&dataset.join("MANIFEST")).unwrap();
    let mut text = vec![0; manifest.size().unwrap() as usize];
    manifest.read_at(&mut text, 0).unwrap();
    let text = String::from_utf8(text).unwrap();
    let listed = text.lines().find_map(|line| line.strip_prefix("segments "));
    (logs.count(), listed.unwrap().split(' ').count())
}

/// Pulls the plug at every operation of a compaction.
fn pull_the_plug(seed: u64, loss: impl Fn(u64) -> Loss) {
    for moment in 0.. {
        let plugged = Plugged::new(seed);
        let done = plugged
            .compact(Trouble {
                power_off_at: Some(moment),
                ..Trouble::default()
            })
            .is_ok();
        let off = plugged.disk.is_off();
        let loss = loss(moment);
        let disk = plugged.disk.reboot(loss);
        plugged.check(
            &disk,
            done,
            &format!("power off at {moment}, losing {loss:?}"),
        );
        if !off {
            assert!(
                done && moment > 30,
                "a compaction has many moments, not {moment}"
            );
            return;
        }
    }
}

#[test]
fn power_goes_in_a_compaction_and_unsynced_bytes_are_lost() {
    pull_the_plug(1, |_| Loss::Everything);
}

#[test]
fn power_goes_in_a_compaction_and_unsynced_bytes_are_there() {
    pull_the_plug(2, |_| Loss::Nothing);
}

#[test]
fn power_goes_in_a_compaction_and_unsynced_bytes_are_torn() {
    for seed in [3, 4] {
        pull_the_plug(seed, |moment| Loss::Some(seed * 1_000 + moment));
    }
}

#[test]
fn a_failed_sync_in_a_compaction_loses_nothing() {
    let plugged = Plugged::new(5);
    plugged.compact(Trouble::default()).unwrap();
    for at in 0..plugged.disk.counts().0 {
        let plugged = Plugged::new(5);
        let done = plugged
            .compact(Trouble {
                sync_fails_at: Some(at),
                ..Trouble::default()
            })
            .is_ok();
        for loss in [Loss::Everything, Loss::Nothing, Loss::Some(at)] {
            let disk = plugged.disk.reboot(loss);
            plugged.check(
                &disk,
                done,
                &format!("sync {at} failed, then losing {loss:?}"),
            );
            for dataset in std::fs::read_dir(plugged.root.join("datasets")).unwrap() {
                let _ = std::fs::remove_dir_all(dataset.unwrap().path().join("index"));
            }
        }
    }
}

#[test]
fn a_full_disk_ends_a_compaction_and_nothing_else() {
    let plugged = Plugged::new(6);
    let files = Files::open(&plugged.root, options(&plugged.disk)).unwrap();
    let dataset = files.open("d", true).unwrap();
    plugged.disk.trouble(Trouble::default());
    dataset.compact(&rules()).unwrap();
    // Before it is closed, which writes a note of its own.
    let writes = plugged.disk.counts().1;
    for at in 0..writes {
        let plugged = Plugged::new(6);
        let files = Files::open(&plugged.root, options(&plugged.disk)).unwrap();
        let dataset = files.open("d", true).unwrap();
        plugged.disk.trouble(Trouble {
            full_at: Some(at),
            ..Trouble::default()
        });
        match dataset.compact(&rules()) {
            Err(StoreError::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
            other => panic!("expected a full disk at write {at}, found {other:?}"),
        }
        let live = dataset.snapshot().unwrap().head().live;
        write(&dataset, [entity("after", 1)]);
        assert_eq!(dataset.snapshot().unwrap().head().live, live + 1);
        assert!(dataset.compact(&rules()).unwrap().finished);
        let least = history(&*plugged.memory.snapshot().unwrap());
        assert_eq!(
            history(&*dataset.snapshot().unwrap()).len(),
            least.len() + 1
        );
    }
}

#[test]
fn replaced_files_stay_until_nobody_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), tiny()).unwrap();
    let dataset = files.open("d", true).unwrap();
    for round in 0..60 {
        write(&dataset, [entity("a", round), entity("b", round)]);
    }
    let logs = || {
        let folder = std::fs::read_dir(dir.path().join("datasets"))
            .unwrap()
            .next();
        let entries = std::fs::read_dir(folder.unwrap().unwrap().path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".log"))
            .count()
    };
    let snapshot = dataset.snapshot().unwrap();
    let all = history(&*snapshot);
    let bytes = snapshot.head().bytes;
    let before = logs();
    let keep = Compaction {
        keep_versions: Some(1),
        ..thorough()
    };
    dataset.compact(&keep).unwrap();
    assert!(logs() > before, "the old ones and the new one");
    assert_eq!(history(&*snapshot), all, "the old view reads old files");
    drop(snapshot);
    assert!(logs() <= 2, "{} of {before} are left", logs());
    let snapshot = dataset.snapshot().unwrap();
    assert_eq!(history(&*snapshot).len(), 2);
    assert!(
        snapshot.head().bytes < bytes / 2,
        "what is shown of the size is new"
    );
}

#[test]
fn a_roomy_index_is_condensed_and_says_the_same() {
    for index_later in [false, true] {
        a_roomy_index(index_later);
    }
}

fn a_roomy_index(index_later: bool) {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        overlay_keys: 200,
        ..Options::default()
    };
    let id = |at: u64| format!("id{:010}", at.wrapping_mul(2_654_435_761) % (1 << 32));
    let files = Files::open(dir.path(), options()).unwrap();
    let dataset = files.open("d", true).unwrap();
    for chunk in 0..40 {
        let ids = (0..400).map(|at| id(chunk * 400 + at));
        write(&dataset, ids.map(|id| entity(&id, 1)));
        write_state(&dataset, &[set("s", &chunk.to_be_bytes(), &[7; 900])]);
    }
    let before = dataset.snapshot().unwrap().head().bytes;
    let rules = Compaction {
        index_later,
        ..thorough()
    };
    dataset.compact(&rules).unwrap();
    let shrunk = || dataset.snapshot().unwrap().head().bytes + 300_000 < before;
    if index_later {
        assert!(!shrunk(), "a copy of the whole index was waited for");
        let begun = Instant::now();
        while !shrunk() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
    }
    assert!(shrunk(), "later: {index_later}");
    let check = |dataset: &Arc<dyn Dataset>| {
        let snapshot = dataset.snapshot().unwrap();
        let ids: Vec<String> = (0..16_000).step_by(7).map(id).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = snapshot.latest(&ids, &mut Batch::new()).unwrap();
        assert!(found.iter().all(|found| *found));
        let state = snapshot.state("s", b"").unwrap();
        assert!(state.len() == 40 && state.iter().all(|(_, value)| value == &[7; 900]));
        assert_eq!(write(dataset, [entity(&id(3), 1)]).unchanged, 1);
    };
    check(&dataset);
    write(&dataset, (0..500).map(|at| entity(&format!("z{at}"), 1)));
    check(&dataset);
    files.close().unwrap();
    drop((dataset, files));
    let files = Files::open(dir.path(), options()).unwrap();
    let dataset = files.open("d", false).unwrap();
    assert_eq!(dataset.snapshot().unwrap().head().live, 16_500);
    check(&dataset);
}

#[test]
fn damage_is_found_and_not_copied() {
    for segment in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path(), tiny()).unwrap();
        let dataset = files.open("d", true).unwrap();
        for round in 0..150 {
            write(&dataset, [entity("a", round), entity("b", round)]);
        }
        files.close().unwrap();
        drop((dataset, files));
        let folder = std::fs::read_dir(dir.path().join("datasets"))
            .unwrap()
            .next();
        let folder = folder.unwrap().unwrap().path();
        let log = folder.join(format!("{:06}.log", 1 + segment));
        let mut bytes = std::fs::read(&log).unwrap();
        let frames = bytes.windows(4).enumerate();
        let frames = frames.filter(|(_, window)| window == b"TFR1");
        let frames: Vec<usize> = frames.map(|(at, _)| at).collect();
        // In the header of a frame in the middle: what follows could pass for the footer.
        bytes[frames[frames.len() / 2] + 9] ^= 1;
        std::fs::write(&log, &bytes).unwrap();
        let files = Files::open(dir.path(), tiny()).unwrap();
        let dataset = files.open("d", false).unwrap();
        let rules = Compaction {
            keep_versions: Some(1),
            ..thorough()
        };
        let found = dataset.compact(&rules).unwrap_err();
        assert!(matches!(found, StoreError::Damaged { .. }), "{found}");
        assert!(
            found.to_string().contains(&*log.to_string_lossy()),
            "{found}"
        );
        assert_eq!(std::fs::read(&log).unwrap(), bytes, "it was not replaced");
        let mut out = Batch::new();
        let snapshot = dataset.snapshot().unwrap();
        snapshot.latest(&["a", "b"], &mut out).unwrap();
        assert_eq!(short(&out)[0].2, 149);
    }
}

#[test]
fn time_thresholds_of_ids_and_deletions_go_on_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), tiny()).unwrap();
    let memory = Memory::new();
    let both = [
        memory.open("d", true).unwrap(),
        files.open("d", true).unwrap(),
    ];
    for dataset in &both {
        for at in 0..40 {
            write(dataset, [entity(&format!("i{at}"), 1)]);
        }
        write(
            dataset,
            (0..40).step_by(3).map(|at| deleted(&format!("i{at}"), 1)),
        );
    }
    for step in 0..12 {
        let told = Told {
            keep: Some(0),
            older_than: Some(1_000 + step * 3),
            deleted_before: Some(1_000 + step * 6),
            keep_from: None,
            retract: Vec::new(),
            erase: Vec::new(),
        };
        let [expected, found] = [&both[0], &both[1]].map(|dataset| told.compact(dataset, 0.0));
        assert_eq!(found, expected, "step {step}");
        let [expected, found] = [&both[0], &both[1]].map(|dataset| {
            let snapshot = dataset.snapshot().unwrap();
            (shown(&*snapshot), history(&*snapshot))
        });
        assert_eq!(found, expected, "step {step}");
    }
}

/// Free pages and half-written ones would keep what was erased for long.
#[test]
fn an_erased_id_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        overlay_keys: 200,
        ..tiny()
    };
    let files = Files::open(dir.path(), options()).unwrap();
    let dataset = files.open("d", true).unwrap();
    write(&dataset, [entity("ada@example.org", 1)]);
    write(&dataset, (0..3_000).map(|at| entity(&format!("e{at}"), 1)));
    files.close().unwrap();
    drop((dataset, files));
    let files = Files::open(dir.path(), options()).unwrap();
    let dataset = files.open("d", false).unwrap();
    let holds = || {
        let folder = std::fs::read_dir(dir.path().join("datasets"))
            .unwrap()
            .next();
        let index = folder.unwrap().unwrap().path().join("index/data.mdb");
        let bytes = std::fs::read(index).unwrap();
        bytes.windows(15).any(|window| window == b"ada@example.org")
    };
    assert!(holds(), "the index has it");
    let rules = Compaction {
        erase: &["ada@example.org"],
        ..Compaction::default()
    };
    assert_eq!(dataset.compact(&rules).unwrap().ids, 1);
    assert!(!holds());
    let snapshot = dataset.snapshot().unwrap();
    let found = snapshot.latest(&["ada@example.org", "e7"], &mut Batch::new());
    assert_eq!(found.unwrap(), [false, true]);
    assert_eq!(history(&*snapshot).len(), 3_000);
}
