//! Entity types as they are kept with a pipe's place.

use serde_json::Value as Json;
use tahini_store::{Snapshot, StateWrite, StoreError};

use super::{Change, EntityType};
use crate::progress;

/// Prefix of the keys under which a pipe keeps its types.
pub(crate) const PREFIX: &[u8] = b"entity-type/";
const CHANGES: &str = "changes";
/// Changes that are remembered.
pub(super) const REMEMBERED: usize = 100;

/// A side of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the source gives.
    Source,
    /// What the sink is given.
    Sink,
}

impl Side {
    /// Both sides.
    pub const BOTH: [Side; 2] = [Side::Source, Side::Sink];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Sink => "sink",
        }
    }

    /// The side of that name.
    pub fn of(name: &str) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| side.name() == name)
    }
}

/// What is kept of a pipe's types.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// What the source gave; `None` as long as nothing came.
    pub source: Option<EntityType>,
    /// What the sink was given.
    pub sink: Option<EntityType>,
    /// The last changes, oldest first.
    pub changes: Vec<Change>,
}

impl Kept {
    /// What is kept of the types of `pipe` in the dataset that keeps its place.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn load(home: &dyn Snapshot, pipe: &str) -> Result<Kept, StoreError> {
        let rows = home.state(&progress::space(pipe), PREFIX)?;
        let find = |name: &str| {
            let key = key(name);
            let row = rows.iter().find(|(known, _)| *known == key);
            row.map(|(_, value)| value.as_slice())
        };
        let side = |side: Side| {
            let [what, counts] = halves(side).map(|name| find(&name));
            EntityType::of_halves(what?, counts?)
        };
        let changes: Vec<Json> = find(CHANGES)
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .unwrap_or_default();
        Ok(Kept {
            source: side(Side::Source),
            sink: side(Side::Sink),
            changes: changes.iter().filter_map(Change::of_json).collect(),
        })
    }

    /// The type of one side.
    pub fn side(&self, side: Side) -> Option<&EntityType> {
        match side {
            Side::Source => self.source.as_ref(),
            Side::Sink => self.sink.as_ref(),
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut Option<EntityType> {
        match side {
            Side::Source => &mut self.source,
            Side::Sink => &mut self.sink,
        }
    }

    /// The writes that keep all this, as far as it is not so already.
    pub(super) fn writes(&self, home: &dyn Snapshot, pipe: &str) -> Vec<StateWrite> {
        let mut writes = Vec::new();
        for side in Side::BOTH {
            let Some(known) = self.side(side) else {
                continue;
            };
            let bytes = known.to_halves();
            for (name, half) in halves(side).iter().zip([bytes.what, bytes.counts]) {
                writes.push(progress::write(pipe, &key(name), Some(half)));
            }
        }
        if !self.changes.is_empty() {
            let changes: Vec<Json> = self.changes.iter().map(Change::to_json).collect();
            let text = Json::Array(changes).to_string().into_bytes();
            writes.push(progress::write(pipe, &key(CHANGES), Some(text)));
        }
        writes.retain(|write| !progress::is_saved(home, write));
        writes
    }
}

/// The writes that forget the types of `pipe`.
pub(crate) fn forget(home: &dyn Snapshot, pipe: &str) -> Result<Vec<StateWrite>, StoreError> {
    let rows = home.state(&progress::space(pipe), PREFIX)?;
    let writes = rows.iter().map(|(key, _)| progress::write(pipe, key, None));
    Ok(writes.collect())
}

fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

/// The names under which the two halves of a side's type are kept.
fn halves(side: Side) -> [String; 2] {
    ["what", "counts"].map(|half| format!("{}/{half}", side.name()))
}
