//! What a source gave in one step, with the place of each entity for messages.

use tahini_entity::json::write_value;
use tahini_entity::{Batch, Offset, Record};

/// Characters of a wrong `_id` that a message shows.
const ID_SHOWN: usize = 80;

/// The entities of one step.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(crate) batch: Batch,
    /// How many entities the source gave before this step.
    before: u64,
    /// How many it gave in this step.
    len: usize,
    /// The positions in the step of the entities in the batch, once some were left out.
    positions: Option<Vec<usize>>,
    /// The offset behind which the source began to give.
    behind: Option<Offset>,
}

impl Intake {
    /// Makes room for another step.
    pub(crate) fn next_step(&mut self) {
        self.before += self.len as u64;
        self.len = 0;
        self.positions = None;
        self.batch.clear();
    }

    /// The batch holds all that the source gave in this step.
    pub(crate) fn filled(&mut self) {
        self.len = self.batch.len();
    }

    /// The source was opened and gives from its beginning what comes behind `offset`.
    pub(crate) fn opened(&mut self, offset: Option<Offset>) {
        *self = Intake {
            behind: offset,
            ..Intake::default()
        };
    }

    /// Leaves out the entities that `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(Record<'_>) -> bool) {
        let out: Vec<bool> = self.batch.iter().map(|record| !keep(record)).collect();
        self.leave_out(&out);
    }

    /// Leaves out those of the batch that `out` says, in their order.
    pub(crate) fn leave_out(&mut self, out: &[bool]) {
        if !out.contains(&true) {
            return;
        }
        let (mut batch, mut positions) = (Batch::new(), Vec::new());
        for (at, (record, out)) in self.batch.iter().zip(out).enumerate() {
            if !out {
                positions.push(self.position(at));
                batch.push(record);
            }
        }
        (self.batch, self.positions) = (batch, Some(positions));
    }

    fn position(&self, at: usize) -> usize {
        self.positions.as_ref().map_or(at, |known| known[at])
    }

    /// Which entity the one at `at` is, in the words of a message.
    pub(crate) fn name(&self, at: usize) -> String {
        let position = self.before + self.position(at) as u64;
        let id = match self.batch.get(at).id {
            Some(id) => format!("`_id` {id:?}"),
            None => "without `_id`".to_owned(),
        };
        let behind = match &self.behind {
            Some(offset) => format!(" behind offset {offset}"),
            None => String::new(),
        };
        format!("the entity at position {position}{behind} of the source ({id})")
    }
}

/// Whether an entity has no `_id` that it could be known by.
pub(crate) fn lacks_id(record: Record<'_>) -> bool {
    record.id.is_none_or(str::is_empty)
}

/// What stands where a string `_id` was expected, in the words of a message.
pub(crate) fn id_found(record: Record<'_>) -> String {
    if record.id == Some("") {
        return "an empty one".to_owned();
    }
    record.value("_id").map_or("none".to_owned(), |id| {
        let mut text = Vec::new();
        write_value(&id, &mut text);
        String::from_utf8_lossy(&text)
            .chars()
            .take(ID_SHOWN)
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use tahini_entity::Entity;

    use super::*;

    fn fill(intake: &mut Intake, ids: &[&str]) {
        intake.next_step();
        for id in ids {
            let entity = Entity {
                id: Some((*id).into()),
                ..Entity::default()
            };
            intake.batch.push_entity(&entity).unwrap();
        }
        intake.filled();
    }

    #[test]
    fn positions_count_what_was_left_out_too() {
        let mut intake = Intake::default();
        fill(&mut intake, &["a", "b", "c", "d"]);
        intake.retain(|record| record.id != Some("a"));
        intake.retain(|record| record.id != Some("c"));
        let position = |at: usize, n: u64, id: &str| {
            let words = format!("the entity at position {n} of the source (`_id` {id:?})");
            (at, words)
        };
        for (at, words) in [position(0, 1, "b"), position(1, 3, "d")] {
            assert_eq!(intake.name(at), words);
        }
        fill(&mut intake, &["e", "f"]);
        assert_eq!(intake.name(1), position(1, 5, "f").1);
        intake.opened(Some(Offset::Int(7)));
        fill(&mut intake, &["g"]);
        assert!(intake.name(0).contains("position 0 behind offset 7"));
    }
}
