//! Random work against a model that is too simple to be wrong, with snapshots held on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Entity};
use tahini_store::{Ask, Backend, Commit, Dataset, Files, Limit, Memory, Snapshot, StateWrite};

use crate::contract::indexes::{compare, declare};
use crate::contract::tiny;
pub use crate::lying_disk::Dice;
use crate::rows::*;

/// All versions ever written, and the state.
#[derive(Clone, Default)]
pub struct Model {
    pub versions: Vec<Short>,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    pub fn latest(&self, id: &str) -> Option<&Short> {
        self.versions.iter().rev().find(|version| version.1 == id)
    }

    pub fn write(&mut self, entity: &Entity) {
        let id = entity.id.as_ref().unwrap().to_string();
        let v = match entity.properties.get("v") {
            Some(tahini_entity::Value::Int(v)) => *v,
            other => panic!("expected an integer, found {other:?}"),
        };
        let changes = match self.latest(&id) {
            Some((_, _, known, deleted)) => (*known, *deleted) != (v, entity.deleted),
            None => !entity.deleted,
        };
        if changes {
            self.versions
                .push((self.versions.len() as u64, id, v, entity.deleted));
        }
    }

    pub fn write_state(&mut self, writes: &[StateWrite]) {
        for write in writes {
            match &write.value {
                Some(value) => self.state.insert(write.key.clone(), value.clone()),
                None => self.state.remove(&write.key),
            };
        }
    }

    /// Compares everything that a snapshot can be asked.
    pub fn check(&self, snapshot: &dyn Snapshot) {
        let latest: Vec<&Short> = self
            .versions
            .iter()
            .filter(|version| self.latest(&version.1).unwrap().0 == version.0)
            .collect();
        let head = snapshot.head();
        assert_eq!(head.next, self.versions.len() as u64);
        assert_eq!(
            head.live,
            latest.iter().filter(|version| !version.3).count() as u64
        );
        assert_eq!(
            head.deleted,
            latest.iter().filter(|version| version.3).count() as u64
        );
        assert_eq!(
            changes(snapshot, HISTORY, Limit { rows: 7, ..ALL }),
            self.versions
        );
        let of = |versions: &[&Short]| {
            versions
                .iter()
                .map(|version| (*version).clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            changes(snapshot, LATEST, Limit { rows: 5, ..ALL }),
            of(&latest)
        );

        let ids: Vec<String> = (0..40).map(name).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut out = Batch::new();
        let found = snapshot.latest(&ids, &mut out).unwrap();
        let expected: Vec<Short> = ids
            .iter()
            .filter_map(|id| self.latest(id).cloned())
            .collect();
        assert_eq!(short(&out), expected);
        assert_eq!(
            found,
            ids.iter()
                .map(|id| self.latest(id).is_some())
                .collect::<Vec<_>>()
        );

        let seen: RoaringTreemap = latest
            .iter()
            .map(|version| version.0)
            .filter(|seq| seq % 3 == 0)
            .collect();
        let mut unseen = Vec::new();
        let mut after = None;
        loop {
            let mut out = Batch::new();
            after = snapshot
                .unseen(&seen, after, Limit { rows: 4, ..ALL }, &mut out)
                .unwrap();
            unseen.extend(short(&out));
            if after.is_none() {
                break;
            }
        }
        unseen.sort();
        let mut expected = of(&latest);
        expected.retain(|version| !version.3 && version.0 % 3 != 0);
        assert_eq!(unseen, expected);

        // Where it is declared and was asked for before, it says what the versions say.
        if snapshot
            .find("x", &[], &Ask::LATEST, &mut Vec::new())
            .unwrap()
        {
            compare(snapshot, "x", &self.versions);
        }
        let state: Vec<_> = self.state.clone().into_iter().collect();
        assert_eq!(snapshot.state("s", b"").unwrap(), state);
    }
}

/// Every seventh id is too long for an index key, and those share their beginning.
pub fn name(number: u64) -> String {
    if number.is_multiple_of(7) {
        format!("{}{number}", "long".repeat(120))
    } else {
        format!("id{number}")
    }
}

pub fn random_commit(dice: &mut Dice) -> (Vec<Entity>, Vec<StateWrite>) {
    let rows = (0..dice.roll(12)).map(|_| {
        let (id, v) = (name(dice.roll(40)), dice.roll(3) as i64);
        if dice.roll(5) == 0 {
            deleted(&id, v)
        } else {
            entity(&id, v)
        }
    });
    let rows = rows.collect();
    let state = (0..dice.roll(3)).map(|_| {
        let key = vec![b'k'; 1 + dice.roll(4) as usize * 150];
        if dice.roll(4) == 0 {
            unset("s", &key)
        } else {
            set("s", &key, &[dice.roll(256) as u8])
        }
    });
    (rows, state.collect())
}

fn random_work(dataset: &Arc<dyn Dataset>, dice: &mut Dice, model: &mut Model, rounds: u32) {
    let mut held: Vec<(Box<dyn Snapshot>, Model)> = Vec::new();
    for _ in 0..rounds {
        let (entities, state) = random_commit(dice);
        let rows = batch(entities.iter().cloned());
        let (outcome, ticket) = dataset
            .commit(Commit {
                state: &state,
                ..commit(&rows)
            })
            .unwrap();
        let before = model.versions.len();
        entities.iter().for_each(|entity| model.write(entity));
        model.write_state(&state);
        assert_eq!(
            (outcome.written + outcome.deleted) as usize,
            model.versions.len() - before
        );
        if dice.roll(3) == 0 {
            ticket.wait().unwrap();
        }
        if dice.roll(6) == 0 {
            held.push((dataset.snapshot().unwrap(), model.clone()));
        }
        if !held.is_empty() && dice.roll(8) == 0 {
            let (snapshot, then) = held.swap_remove(dice.roll(held.len() as u64) as usize);
            then.check(&*snapshot);
        }
    }
    model.check(&*dataset.snapshot().unwrap());
    held.iter()
        .for_each(|(snapshot, then)| then.check(&**snapshot));
}

#[test]
fn memory_does_what_the_model_does() {
    for seed in 0..4 {
        let memory = Memory::new();
        declare(&memory, "d", &["x"]);
        let dataset = memory.open("d", true).unwrap();
        random_work(&dataset, &mut Dice(seed), &mut Model::default(), 150);
    }
}

#[test]
fn files_do_what_the_model_does_across_restarts() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (mut dice, mut model) = (Dice(seed), Model::default());
        for _ in 0..5 {
            let files = Files::open(dir.path(), tiny()).unwrap();
            declare(&files, "d", &["x"]);
            let dataset = files.open("d", true).unwrap();
            model.check(&*dataset.snapshot().unwrap());
            random_work(&dataset, &mut dice, &mut model, 60);
            if dice.roll(2) == 0 {
                files.close().unwrap();
            }
        }
    }
}
