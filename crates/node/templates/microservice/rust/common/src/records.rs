//! The system that the service connects to: put the calls of its API in here.
//!
//! So that everything works before there is one, a file plays its part: a log of changes, a JSON object on each line.
//! `id` says which record it is, `changed` is a number that grows with every change, and `deleted` marks one that is
//! gone. The last line of an id holds.
#![allow(dead_code)] // Each kind of service uses its part.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Map, Value};

use crate::protocol::Failure;

/// A record, as the system outside has it.
pub type Record = Map<String, Value>;

/// A record's number of change; 0 for one that has none.
pub fn changed(record: &Record) -> i64 {
    record.get("changed").and_then(Value::as_i64).unwrap_or(0)
}

/// Whether a record says that it is gone.
pub fn is_deleted(record: &Record) -> bool {
    record.get("deleted") == Some(&Value::Bool(true))
}

pub struct Records {
    path: PathBuf,
    writing: Mutex<()>,
}

impl Records {
    pub fn new(path: impl Into<PathBuf>) -> Records {
        Records { path: path.into(), writing: Mutex::new(()) }
    }

    /// Every change after the number `since`, oldest first, one at a time; a real API is asked page by page.
    pub fn changes(&self, since: Option<i64>) -> Box<dyn Iterator<Item = Result<Record, Failure>> + Send> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Box::new(std::iter::empty()),
            Err(error) => return Box::new(std::iter::once(Err(Failure::broken(error)))),
        };
        let lines = BufReader::new(file).lines().map(|line| {
            let line = line.map_err(Failure::broken)?;
            serde_json::from_str::<Record>(&line).map_err(Failure::broken)
        });
        Box::new(lines.filter(move |record| match (record, since) {
            (Ok(record), Some(since)) => changed(record) > since,
            _ => true,
        }))
    }

    /// The records of these ids as they are now, by id; without those that are gone.
    pub fn find(&self, ids: &HashSet<String>) -> Result<HashMap<String, Record>, Failure> {
        Ok(self.look(ids)?.0)
    }

    /// What is known of some ids, and the number of the last change of all.
    fn look(&self, ids: &HashSet<String>) -> Result<(HashMap<String, Record>, i64), Failure> {
        let (mut found, mut last) = (HashMap::new(), 0);
        for record in self.changes(None) {
            let record = record?;
            last = changed(&record);
            let id = id_of(&record);
            if ids.contains(&id) {
                match is_deleted(&record) {
                    true => found.remove(&id),
                    false => found.insert(id, record),
                };
            }
        }
        Ok((found, last))
    }

    /// Writes records by id. One that is so already is left alone: writing it would be a change.
    pub fn write(&self, records: Vec<Record>) -> Result<(), Failure> {
        let _alone = self.writing.lock().map_err(Failure::broken)?;
        let (mut known, mut last) = self.look(&records.iter().map(id_of).collect())?;
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = file.map_err(Failure::broken)?;
        for mut record in records {
            let id = id_of(&record);
            let before = known.get(&id);
            record.insert("changed".to_owned(), before.map_or(0, changed).into());
            let is_so = before.map_or(is_deleted(&record), |before| same(before, &record));
            if is_so {
                continue;
            }
            last += 1;
            record.insert("changed".to_owned(), last.into());
            let line = Value::Object(record.clone()).to_string() + "\n";
            file.write_all(line.as_bytes()).map_err(Failure::broken)?;
            match is_deleted(&record) {
                true => known.remove(&id),
                false => known.insert(id, record),
            };
        }
        Ok(())
    }
}

fn id_of(record: &Record) -> String {
    record.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether two records are equal, in whatever order their properties are.
fn same(one: &Record, other: &Record) -> bool {
    one.len() == other.len() && one.iter().all(|(name, value)| other.get(name) == Some(value))
}
