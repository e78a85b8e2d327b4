//! What runs told of failed entities and is not on the disk yet.
//!
//! An entity that fails must be kept before a saved place passes it, and not before: until then the
//! source gives it again. So what happened to many is written together, with the place where the
//! place stands in the log, too, and otherwise before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use tahini_entity::{Batch, Entity, Str};
use tahini_store::StateWrite;

use super::kept::Counts;
use super::letters::Graves;
use super::{At, Failed, kept};
use crate::Failure;

/// Entities that are written together at most.
const ROWS: usize = 5_000;
/// Encoded bytes of them, dead letters included.
const BYTES: usize = 8 << 20;
/// So long what happened is in memory alone at most, while more happens: somebody may look.
const WITHIN: Duration = Duration::from_secs(1);

/// What is to be written, each entity once.
#[derive(Default)]
pub(super) struct Pending {
    /// The log's entries.
    pub(super) entries: Batch,
    /// By dataset: what goes there and what leaves it.
    pub(super) graves: BTreeMap<String, Graves>,
    changed: HashMap<(At, Str), Change>,
    since: Option<Instant>,
}

/// What is remembered of an entity.
struct Change {
    /// What the store has.
    stored: Option<Failed>,
    after: Option<Failed>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Whether it is time to write.
    pub(super) fn is_due(&self) -> bool {
        let waits = self.since.is_some_and(|since| since.elapsed() >= WITHIN);
        waits || self.changed.len() >= ROWS || self.bytes() >= BYTES
    }

    fn bytes(&self) -> usize {
        let graves = self.graves.values().map(Graves::bytes).sum::<usize>();
        self.entries.bytes() + graves
    }

    /// Whether something is to be written of the entity, wherever it failed.
    pub(super) fn concerns(&self, id: &str) -> bool {
        let id = Str::from(id);
        At::BOTH
            .into_iter()
            .any(|at| self.changed.contains_key(&(at, id.clone())))
    }

    /// What is remembered of an entity once this is written; `None` where this says nothing.
    pub(super) fn get(&self, key: &(At, Str)) -> Option<Option<Failed>> {
        self.changed.get(key).map(|change| change.after)
    }

    /// Remembers `after`; `before` is what the store has.
    pub(super) fn change(&mut self, key: (At, Str), before: Option<Failed>, after: Option<Failed>) {
        self.since.get_or_insert_with(Instant::now);
        let first = Change {
            stored: before,
            after: None,
        };
        self.changed.entry(key).or_insert(first).after = after;
    }

    /// Takes an entry for the log.
    pub(super) fn tell(&mut self, entry: &Entity) -> Result<(), Failure> {
        let pushed = self.entries.push_entity(entry);
        pushed.map_err(|error| Failure::fatal(error.to_string()))
    }

    /// What the log is to remember before letters are written: that there may be one of each entity
    /// that is given up, which waits until the rest is written. Whoever gets it through after a
    /// crash between the two finds the letter and deletes it.
    pub(super) fn before_letters(&self) -> Vec<((At, Str), Failed)> {
        if self.graves.values().all(|graves| graves.bytes() == 0) {
            return Vec::new();
        }
        let waits = |(key, change): (&(At, Str), &Change)| {
            let after = change.after.filter(|after| after.dead)?;
            let before = change.stored.unwrap_or(after);
            let known = change.stored.is_some_and(|stored| stored.buried);
            let waits = Failed {
                dead: false,
                buried: true,
                ..before
            };
            (!known).then(|| (key.clone(), waits))
        };
        self.changed.iter().filter_map(waits).collect()
    }

    /// The entries and state records of that. `counts` are those after everything.
    pub(super) fn writes_before_letters(
        &self,
        pipe: &str,
        remembered: &[((At, Str), Failed)],
        mut counts: Counts,
    ) -> Result<(Batch, Vec<StateWrite>), Failure> {
        let of = |((at, id), waits): &((At, Str), Failed)| kept::record(pipe, *at, id, waits);
        let mut state: Vec<StateWrite> = remembered.iter().map(of).collect();
        for ((at, _), change) in &self.changed {
            let dead = |known: Option<Failed>| known.map(|known| known.dead);
            counts.moved(*at, dead(change.after), dead(change.stored));
        }
        let new = |(key, _): &&((At, Str), Failed)| self.changed[key].stored.is_none();
        let mut named = HashSet::new();
        for ((at, id), _) in remembered.iter().filter(new) {
            counts.moved(*at, None, Some(false));
            named.insert(at.entry_id(id));
        }
        state.push(counts.write(pipe));
        state.sort_by(|one, other| one.key.cmp(&other.key));
        // Of the others the log has an entry with what they are.
        let mut entries = Batch::new();
        for entry in self.entries.iter() {
            if entry.id.is_some_and(|id| named.contains(id)) {
                let pushed = entries.push_entity(&entry.to_entity());
                pushed.map_err(|error| Failure::fatal(error.to_string()))?;
            }
        }
        Ok((entries, state))
    }

    /// Takes note that this is in the store.
    pub(super) fn stands(&mut self, remembered: Vec<((At, Str), Failed)>) {
        for (key, waits) in remembered {
            if let Some(change) = self.changed.get_mut(&key) {
                change.stored = Some(waits);
            }
        }
    }

    /// The state records of the pipe, in the order of their keys.
    pub(super) fn state(&self, pipe: &str) -> Vec<StateWrite> {
        let mut state = Vec::with_capacity(self.changed.len() + 1);
        for ((at, id), change) in &self.changed {
            let (stored, after) = (change.stored, change.after);
            if let Some(stored) = stored
                && after.is_none_or(|after| after.dead != stored.dead)
            {
                state.push(kept::no_record(pipe, *at, stored.dead, id));
            }
            let is_overtaken = |known: Option<Failed>| known.is_some_and(|known| known.overtaken);
            if is_overtaken(stored) != is_overtaken(after) {
                state.push(kept::overtaken(pipe, *at, id, is_overtaken(after)));
            }
            state.extend(after.map(|after| kept::record(pipe, *at, id, &after)));
        }
        state.sort_by(|one, other| one.key.cmp(&other.key));
        state
    }
}
