//! Dead letters: given-up entities in a dataset of their own.

use tahini_entity::{Batch, Entity, Value};
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

impl Letters<'_> {
    /// Writes a given-up entity to the dead-letter dataset, durably, if there is one.
    pub(super) fn bury(&self, entity: &Entity) -> Result<(), Failure> {
        let Some(name) = &self.policy.dead_letter_dataset else {
            return Ok(());
        };
        let mut rows = Batch::new();
        rows.push_entity(entity)
            .map_err(|error| Failure::fatal(error.to_string()))?;
        self.write(self.store.open(name, true)?.as_ref(), &rows)
    }

    /// Deletes a dead letter, durably, if there is one. The deleted version tells what got
    /// through in its place, where that is another one.
    pub(super) fn exhume(&self, id: &str, resolved_by: Option<&Entity>) -> Result<(), Failure> {
        let Some(name) = &self.policy.dead_letter_dataset else {
            return Ok(());
        };
        let Some(dataset) = self.store.find(name)? else {
            return Ok(());
        };
        let (mut letter, mut rows) = (Batch::new(), Batch::new());
        dataset.snapshot()?.latest(&[id], &mut letter)?;
        for record in letter.iter() {
            let mut gone = record.to_entity();
            gone.deleted = true;
            if let Some(resolved_by) = resolved_by {
                let dict = Value::Dict(resolved_by.to_dict());
                gone.properties.set("resolved_entity", dict);
            }
            rows.push_entity(&gone)
                .map_err(|error| Failure::fatal(error.to_string()))?;
        }
        self.write(dataset.as_ref(), &rows)
    }

    fn write(&self, dataset: &dyn Dataset, rows: &Batch) -> Result<(), Failure> {
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
