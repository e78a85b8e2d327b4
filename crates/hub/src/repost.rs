//! Entities that a person writes to a dataset, and entities that a person removes from one for good.

use tahini_entity::{Batch, Dict, Offset, Value};
use tahini_store::{Commit, Compacted, Compaction, Dataset, Rule, Show};

use crate::execution_log::User;
use crate::hub::{Hub, LivePipe, Refusal};
use crate::terms::Terms;
use crate::{Failure, children, compaction, intake};

/// Entities that the log's entry names.
const LISTED: usize = 10_000;

/// What a repost did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reposted {
    /// Entities that came.
    pub entities: u64,
    /// Versions that were written.
    pub written: u64,
}

impl Hub {
    /// Writes entities to a dataset, whatever pipe writes there otherwise. With `force` each is
    /// written, also one that did not change, so that everything behind the dataset sees it again.
    /// All or nothing is written; the log of the pipe that writes the dataset tells of it.
    ///
    /// # Errors
    /// Refused as missing when there is no such dataset, as failed when an entity cannot be stored
    /// or the dataset's circuit breaker holds something back, and when the store cannot be written.
    pub fn repost(
        &self,
        name: &str,
        entities: &Batch,
        force: bool,
        user: &User,
    ) -> Result<Reposted, Refusal> {
        let dataset = self.open_for_hands(name)?;
        let writer = self.writer(name);
        let pipe = writer.as_ref().and_then(|live| live.usable().ok());
        if dataset.snapshot()?.head().holds {
            let words = format!(
                "expected a dataset of which nothing is held back, found that the circuit breaker \
                 of {name:?} holds something back (it is tripped, or a run is under way): commit \
                 it or roll it back first"
            );
            return Err(Failure::config(words).into());
        }
        let mut rows = Batch::new();
        let terms = match pipe {
            Some(pipe) => Terms::of_pipe(pipe)?,
            None => Terms::of(crate::config::Props::new("$.sink", &Default::default()))?,
        };
        if let Some(at) = entities.iter().position(intake::lacks_id) {
            let found = intake::id_found(entities.get(at));
            let words = format!("entity {at}: expected a string `_id`, found {found}");
            return Err(Failure::entity(words).into());
        }
        terms.push(&mut rows, entities)?;
        if pipe.is_some_and(|pipe| pipe.effective["sink"]["track_children"] == true) {
            let before = dataset.snapshot()?;
            if let Some(tracked) = children::tracked(&rows, before.as_ref())? {
                rows = tracked;
            }
        }
        let retracts = pipe
            .filter(|pipe| compaction::retracts(pipe.effective.get("compaction")))
            .map(|pipe| compaction::to_retract(&pipe.id, &rows));
        let commit = Commit {
            rows: &rows,
            rule: match force {
                true => Rule::Always,
                false => Rule::IfChanged,
            },
            state: &retracts.unwrap_or_default(),
            populated: false,
            now: self.world.clock.micros(),
            show: Show::Now,
            note: None,
        };
        let (outcome, ticket) = dataset.commit(commit)?;
        ticket.wait()?;
        if let Some(live) = &writer {
            let log = self.log(live.id())?;
            let entry = log.entities_reposted(listed(entities), entities.len() as u64, user);
            log.append(vec![entry], &[])?;
        }
        Ok(Reposted {
            entities: entities.len() as u64,
            written: outcome.written + outcome.deleted,
        })
    }

    /// Removes entities from a dataset with all their versions, for good: from its files, too.
    /// Nothing behind the dataset learns of it; where somebody should, the entity is to be deleted
    /// first. Versions in execution logs, in dead letters and in backups stay.
    ///
    /// # Errors
    /// Refused as missing when there is no such dataset; when the store cannot be written.
    pub fn erase(&self, name: &str, ids: &[&str], user: &User) -> Result<Compacted, Refusal> {
        let dataset = self.open_for_hands(name)?;
        let rules = Compaction {
            erase: ids,
            ..Compaction::default()
        };
        let done = dataset.compact(&rules)?;
        if let Some(live) = self.writer(name) {
            let log = self.log(live.id())?;
            // Who they were is nobody's business any more.
            let entry = log.entities_erased(done.ids, user);
            log.append(vec![entry], &[])?;
        }
        Ok(done)
    }

    /// A dataset that people may write to by hand.
    fn open_for_hands(&self, name: &str) -> Result<std::sync::Arc<dyn Dataset>, Refusal> {
        if name.starts_with("system:") {
            let words = format!(
                "expected a dataset of pipes, found {name:?}, which belongs to the node itself"
            );
            return Err(Failure::config(words).into());
        }
        let dataset = self.world.store.find(name)?;
        let missing = || Refusal::NoDataset(name.to_owned());
        dataset.ok_or_else(missing)
    }

    /// The pipe that writes a dataset; the first one where several do.
    fn writer(&self, name: &str) -> Option<std::sync::Arc<LivePipe>> {
        self.writers(name).into_iter().next()
    }
}

/// What the log tells of the entities.
fn listed(entities: &Batch) -> Vec<Value> {
    let first = entities.iter().take(LISTED);
    let list = first.map(|record| {
        let mut dict = Dict::new();
        dict.push_new("_id", Value::string(record.id.unwrap_or_default()));
        dict.push_new("_deleted", Value::Bool(record.meta.deleted));
        let updated = match &record.meta.updated {
            Some(Offset::Int(number)) => Value::Int(*number),
            Some(Offset::Text(text)) => Value::String(text.clone()),
            None => Value::Null,
        };
        dict.push_new("_updated", updated);
        Value::Dict(dict)
    });
    list.collect()
}
