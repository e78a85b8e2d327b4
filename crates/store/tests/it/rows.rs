//! Rows, commits and reads in few words.

use std::sync::Arc;

use tahini_entity::{Batch, Dict, Entity, Str, Value};
use tahini_store::{
    Commit, Dataset, Limit, Outcome, Rule, Seq, Show, Snapshot, StateWrite, StoreError, View,
};

pub const ALL: Limit = Limit {
    rows: usize::MAX,
    bytes: usize::MAX,
};
pub const HISTORY: View = View {
    history: true,
    deleted: true,
};
pub const LATEST: View = View {
    history: false,
    deleted: true,
};
pub const LIVE: View = View {
    history: false,
    deleted: false,
};

/// An entity with one property `v`.
pub fn entity(id: &str, v: i64) -> Entity {
    let mut properties = Dict::new();
    properties.set("v", Value::Int(v));
    Entity {
        id: Some(Str::from(id)),
        properties,
        ..Entity::default()
    }
}

pub fn deleted(id: &str, v: i64) -> Entity {
    Entity {
        deleted: true,
        ..entity(id, v)
    }
}

pub fn batch(entities: impl IntoIterator<Item = Entity>) -> Batch {
    let mut batch = Batch::new();
    entities
        .into_iter()
        .for_each(|entity| batch.push_entity(&entity).unwrap());
    batch
}

/// A commit of these rows, to be changed where a test needs more.
pub fn commit(rows: &Batch) -> Commit<'_> {
    Commit {
        rows,
        rule: Rule::IfChanged,
        state: &[],
        populated: false,
        now: 1_000,
        show: Show::Now,
        note: None,
    }
}

/// Commits and waits until it is durable.
pub fn write(dataset: &Arc<dyn Dataset>, entities: impl IntoIterator<Item = Entity>) -> Outcome {
    let rows = batch(entities);
    run(dataset, commit(&rows)).unwrap()
}

pub fn run(dataset: &Arc<dyn Dataset>, commit: Commit<'_>) -> Result<Outcome, StoreError> {
    let (outcome, ticket) = dataset.commit(commit)?;
    ticket.wait()?;
    Ok(outcome)
}

pub fn write_state(dataset: &Arc<dyn Dataset>, state: &[StateWrite]) {
    let rows = Batch::new();
    run(
        dataset,
        Commit {
            state,
            ..commit(&rows)
        },
    )
    .unwrap();
}

pub fn set(space: &str, key: &[u8], value: &[u8]) -> StateWrite {
    StateWrite {
        space: space.to_owned(),
        key: key.to_vec(),
        value: Some(value.to_vec()),
    }
}

pub fn unset(space: &str, key: &[u8]) -> StateWrite {
    StateWrite {
        space: space.to_owned(),
        key: key.to_vec(),
        value: None,
    }
}

/// A version in short: sequence, id, value of `v`, deleted.
pub type Short = (Seq, String, i64, bool);

pub fn short(batch: &Batch) -> Vec<Short> {
    batch
        .iter()
        .map(|record| {
            let entity = record.to_entity();
            let v = match entity.properties.get("v") {
                Some(Value::Int(v)) => *v,
                other => panic!("expected an integer v, found {other:?}"),
            };
            let seq = match entity.updated {
                Some(tahini_entity::Offset::Int(seq)) => seq as Seq,
                other => panic!("expected a sequence, found {other:?}"),
            };
            (seq, record.id.unwrap().to_owned(), v, entity.deleted)
        })
        .collect()
}

/// All changes of a view, in pages of `limit`.
pub fn changes(snapshot: &dyn Snapshot, view: View, limit: Limit) -> Vec<Short> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let mut out = Batch::new();
        let next = snapshot.changes(after, view, limit, &mut out).unwrap();
        assert!(out.len() <= limit.rows);
        all.extend(short(&out));
        match next {
            Some(seq) => after = Some(seq),
            None => return all,
        }
    }
}
