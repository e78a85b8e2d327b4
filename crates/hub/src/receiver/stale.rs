//! What a poster is told whose entity is not made from the latest version.

use std::collections::HashMap;

use tahini_entity::{Batch, Offset, Record};
use tahini_store::{Seq, Snapshot, StoreError};

use crate::places::seq_of;

/// Rows that are compared together.
const AT_ONCE: usize = 1_000;

/// The first stale entity of a request and what it can be merged with: each batch holds one
/// entity, or none.
#[derive(Debug, Default)]
pub struct Stale {
    /// The entity as it was posted.
    pub input: Batch,
    /// Its latest version.
    pub existing: Batch,
    /// The version that it was made from.
    pub ancestor: Batch,
    /// An earlier entity of the same request has the same id: what that would have written is the
    /// version that this one does not know.
    pub is_twice: bool,
}

impl Stale {
    /// Finds it among rows that were refused.
    pub(super) fn find(rows: &Batch, snapshot: &dyn Snapshot) -> Result<Option<Stale>, StoreError> {
        let all: Vec<Record<'_>> = rows.iter().collect();
        // What earlier rows would have written.
        let mut written: HashMap<&str, Version> = HashMap::new();
        let mut next = snapshot.head().next;
        for some in all.chunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().filter_map(|record| record.id).collect();
            let mut latest = Batch::new();
            let found = snapshot.latest(&ids, &mut latest)?;
            let mut latest = latest.iter();
            for (record, found) in some.iter().zip(found) {
                let existing = found.then(|| latest.next()).flatten();
                let id = record.id.unwrap_or_default();
                let before = written.get(id).copied();
                let is_twice = before.is_some();
                let before =
                    before.or_else(|| existing.and_then(|it| Some(Version::of(&it, seq_of(&it)?))));
                if record.meta.updated != before.and_then(|before| offset_of(before.seq)) {
                    let stale = Stale::of(*record, existing, snapshot)?;
                    return Ok(Some(Stale { is_twice, ..stale }));
                }
                let now = Version::of(record, next);
                if now.differs(before) {
                    written.insert(id, now);
                    next += 1;
                }
            }
        }
        Ok(None)
    }

    /// What is wrong where an id is there twice: no version that is written was overtaken.
    pub(super) fn told_twice(&self) -> Option<StoreError> {
        let twice = self.input.iter().next().filter(|_| self.is_twice)?;
        Some(StoreError::Refused(format!(
            "expected one version of entity {:?} in a request, found another one that is made \
             from the same version",
            twice.id.unwrap_or_default()
        )))
    }

    fn of(
        record: Record<'_>,
        existing: Option<Record<'_>>,
        snapshot: &dyn Snapshot,
    ) -> Result<Stale, StoreError> {
        let mut stale = Stale::default();
        stale.input.push(record);
        if let Some(existing) = existing {
            stale.existing.push(existing);
        }
        if let Some(Offset::Int(number)) = record.meta.updated
            && let Ok(seq) = u64::try_from(number)
        {
            let mut found = Batch::new();
            snapshot.at(&[seq], &mut found)?;
            let same = found.iter().filter(|version| version.id == record.id);
            same.for_each(|version| stale.ancestor.push(version));
        }
        Ok(stale)
    }
}

fn offset_of(seq: Seq) -> Option<Offset> {
    i64::try_from(seq).ok().map(Offset::Int)
}

/// What a commit compares of a version.
#[derive(Clone, Copy)]
struct Version {
    seq: Seq,
    hash: u128,
    deleted: bool,
}

impl Version {
    fn of(record: &Record<'_>, seq: Seq) -> Version {
        Version {
            seq,
            hash: record.hash(),
            deleted: record.meta.deleted,
        }
    }

    /// Whether it would be a new version behind `before`.
    fn differs(&self, before: Option<Version>) -> bool {
        match before {
            None => !self.deleted,
            Some(before) => (before.hash, before.deleted) != (self.hash, self.deleted),
        }
    }
}
