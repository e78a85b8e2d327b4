//! The entities at the edge: those whose `_updated` is the saved offset itself.
//!
//! A source that is asked for everything from an offset on, that value included, loses nothing
//! when two records change in the same moment, one before and one after a run. It also gives the
//! last records of the run before again. The content hashes of all that a run was given at the
//! offset are kept beside it, so that the next run does not process the same records a second
//! time. A run's set replaces the one before it: a record that changes to and fro within the
//! offset's moment is processed each time.

use std::collections::HashSet;

use tahini_entity::{Batch, Offset, Record};

/// Entities at one offset that are remembered; beyond that they are simply processed again.
const MAX_REMEMBERED: usize = 10_000;

/// What was processed at the highest offset.
#[derive(Debug, Default)]
pub struct Boundary {
    start: Option<Offset>,
    processed: HashSet<u128>,
    at: Option<Offset>,
    seen: HashSet<u128>,
}

impl Boundary {
    /// For a run that starts at `start`, with what the run before saved.
    pub fn new(start: Option<Offset>, saved: &[u8]) -> Boundary {
        let processed: HashSet<u128> = match start {
            Some(_) => saved
                .as_chunks::<16>()
                .0
                .iter()
                .map(|b| u128::from_le_bytes(*b))
                .collect(),
            None => HashSet::new(),
        };
        Boundary {
            at: start.clone(),
            seen: HashSet::new(),
            start,
            processed,
        }
    }

    /// Whether this version was processed at the start offset before.
    pub fn is_processed(&self, record: Record<'_>) -> bool {
        !self.processed.is_empty()
            && record.meta.updated == self.start
            && self.processed.contains(&record.hash())
    }

    /// Takes note of everything that the source gives, what was processed before included.
    pub fn observe(&mut self, batch: &Batch) {
        for record in batch.iter() {
            let Some(updated) = &record.meta.updated else {
                continue;
            };
            let order = self.at.as_ref().map(|at| updated.compare(at));
            match order {
                None | Some(Some(std::cmp::Ordering::Greater)) => {
                    self.at = Some(updated.clone());
                    self.seen.clear();
                }
                Some(Some(std::cmp::Ordering::Equal)) => {}
                _ => continue,
            }
            if self.seen.len() < MAX_REMEMBERED {
                self.seen.insert(record.hash());
            }
        }
    }

    /// Whether what was read came up to `offset`.
    pub fn reaches(&self, offset: Option<&Offset>) -> bool {
        match (&self.at, offset) {
            (Some(at), Some(offset)) => {
                !self.seen.is_empty() && at.compare(offset).is_some_and(|order| order.is_ge())
            }
            (_, offset) => offset.is_none(),
        }
    }

    /// What to save beside the offset; ordered, so that equal sets are equal bytes.
    pub fn save(&self) -> Vec<u8> {
        // A source that gives only what came after the offset says nothing about its edge.
        let silent = self.seen.is_empty() && self.at == self.start;
        let edge = if silent { &self.processed } else { &self.seen };
        let mut hashes: Vec<u128> = edge.iter().copied().collect();
        hashes.sort_unstable();
        hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tahini_entity::Entity;

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> Batch {
        let mut batch = Batch::new();
        for (id, updated) in rows {
            let entity = Entity {
                id: Some((*id).into()),
                updated: Some(Offset::Int(*updated)),
                ..Entity::default()
            };
            batch.push_entity(&entity).unwrap();
        }
        batch
    }

    /// The ids that are not left out.
    fn fresh(boundary: &Boundary, batch: &Batch) -> Vec<String> {
        let fresh = batch
            .iter()
            .filter(|record| !boundary.is_processed(*record));
        fresh.map(|record| record.id.unwrap().to_owned()).collect()
    }

    #[test]
    fn the_last_records_of_a_run_are_processed_once() {
        let mut first = Boundary::new(None, b"");
        first.observe(&batch(&[("a", 1), ("b", 2), ("c", 2)]));
        let second = Boundary::new(Some(Offset::Int(2)), &first.save());
        let all = batch(&[("b", 2), ("c", 2), ("late", 2), ("d", 3)]);
        assert_eq!(fresh(&second, &all), ["late", "d"]);
    }

    #[test]
    fn what_came_late_at_the_same_offset_is_remembered_too() {
        let mut first = Boundary::new(None, b"");
        first.observe(&batch(&[("a", 2)]));
        let mut second = Boundary::new(Some(Offset::Int(2)), &first.save());
        second.observe(&batch(&[("a", 2), ("late", 2)]));
        let third = Boundary::new(Some(Offset::Int(2)), &second.save());
        let all = batch(&[("a", 2), ("late", 2)]);
        assert_eq!(fresh(&third, &all), [""; 0]);
    }

    #[test]
    fn a_record_that_changes_to_and_fro_is_processed_each_time() {
        let version = |name: &str| {
            let mut entity = batch(&[("a", 2)]).get(0).to_entity();
            entity
                .properties
                .set("name", tahini_entity::Value::string(name));
            let mut batch = Batch::new();
            batch.push_entity(&entity).unwrap();
            batch
        };
        let mut first = Boundary::new(None, b"");
        first.observe(&version("x"));
        let mut second = Boundary::new(Some(Offset::Int(2)), &first.save());
        second.observe(&version("y"));
        let third = Boundary::new(Some(Offset::Int(2)), &second.save());
        assert_eq!(fresh(&third, &version("x")), ["a"]);
        assert_eq!(fresh(&third, &version("y")), [""; 0]);
    }

    #[test]
    fn a_source_that_gives_only_what_comes_after_keeps_the_edge() {
        let mut first = Boundary::new(None, b"");
        first.observe(&batch(&[("a", 2)]));
        let second = Boundary::new(Some(Offset::Int(2)), &first.save());
        assert_eq!(second.save(), first.save());
    }

    #[test]
    fn an_edit_at_the_same_offset_is_processed() {
        let mut first = Boundary::new(None, b"");
        first.observe(&batch(&[("a", 2)]));
        let second = Boundary::new(Some(Offset::Int(2)), &first.save());
        let mut edited = Batch::new();
        let mut entity = batch(&[("a", 2)]).get(0).to_entity();
        entity
            .properties
            .set("name", tahini_entity::Value::string("Ada"));
        edited.push_entity(&entity).unwrap();
        assert_eq!(fresh(&second, &edited), ["a"]);
    }
}
