//! Dead letters: given-up entities in a dataset of their own.

use std::collections::HashMap;

use tahini_entity::{Batch, Entity, Str, Value};
use tahini_store::{Backend, Commit, Dataset, Rule, Show};

use crate::execution_log::ExecutionLog;
use crate::policy::Policy;
use crate::{Clock, Failure};

/// What setting an entity aside needs of the run.
pub struct Letters<'a> {
    /// The store, for the dead-letter dataset.
    pub store: &'a dyn Backend,
    /// The pipe's execution log.
    pub log: &'a ExecutionLog,
    /// The pipe's policy.
    pub policy: &'a Policy,
    /// The wall clock.
    pub clock: &'a dyn Clock,
}

/// What is to change in a dead-letter dataset; no id stands there twice.
#[derive(Default)]
pub(super) struct Graves {
    buried: Batch,
    /// What got through, and the version that did where it is another one.
    exhumed: Vec<(Str, Option<Entity>)>,
}

impl Graves {
    pub(super) fn bury(&mut self, entity: &Entity) -> Result<(), Failure> {
        let pushed = self.buried.push_entity(entity);
        pushed.map_err(|error| Failure::fatal(error.to_string()))
    }

    pub(super) fn exhume(&mut self, id: &str, resolved_by: Option<&Entity>) {
        self.exhumed.push((id.into(), resolved_by.cloned()));
    }

    /// Encoded bytes of what is buried.
    pub(super) fn bytes(&self) -> usize {
        self.buried.bytes()
    }
}

impl Letters<'_> {
    /// Writes and deletes dead letters, durably.
    pub(super) fn write(&self, name: &str, graves: &Graves) -> Result<(), Failure> {
        let dataset = match graves.buried.is_empty() {
            false => self.store.open(name, true)?,
            // Where there are no letters there is nothing to delete.
            true => match self.store.find(name)? {
                Some(dataset) => dataset,
                None => return Ok(()),
            },
        };
        if graves.exhumed.is_empty() {
            return self.commit(dataset.as_ref(), &graves.buried);
        }
        let mut rows = gone(dataset.as_ref(), &graves.exhumed)?;
        rows.push_all(&graves.buried);
        self.commit(dataset.as_ref(), &rows)
    }

    fn commit(&self, dataset: &dyn Dataset, rows: &Batch) -> Result<(), Failure> {
        let commit = Commit {
            rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: true,
            now: self.clock.micros(),
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit)?.1.wait()?;
        Ok(())
    }
}

/// The deleted versions of letters. Each tells what got through in its place, where that is
/// another version.
fn gone(dataset: &dyn Dataset, exhumed: &[(Str, Option<Entity>)]) -> Result<Batch, Failure> {
    let by_id: HashMap<&str, Option<&Entity>> = exhumed
        .iter()
        .map(|(id, by)| (id.as_ref(), by.as_ref()))
        .collect();
    let ids: Vec<&str> = exhumed.iter().map(|(id, _)| id.as_ref()).collect();
    let (mut letters, mut rows) = (Batch::new(), Batch::new());
    dataset.snapshot()?.latest(&ids, &mut letters)?;
    for record in letters.iter() {
        let mut gone = record.to_entity();
        gone.deleted = true;
        if let Some(resolved_by) = record.id.and_then(|id| *by_id.get(id)?) {
            let dict = Value::Dict(resolved_by.to_dict());
            gone.properties.set("resolved_entity", dict);
        }
        rows.push_entity(&gone)
            .map_err(|error| Failure::fatal(error.to_string()))?;
    }
    Ok(rows)
}
