//! What a poster is told whose entity is not made from the latest version.

use std::collections::HashSet;

use tahini_entity::{Batch, Offset, Record};
use tahini_store::{Snapshot, StoreError};

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
        // Ids that an earlier row would have changed.
        let mut changed: HashSet<&str> = HashSet::new();
        for some in all.chunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().filter_map(|record| record.id).collect();
            let mut latest = Batch::new();
            let found = snapshot.latest(&ids, &mut latest)?;
            let mut latest = latest.iter();
            for (record, found) in some.iter().zip(found) {
                let existing = found.then(|| latest.next()).flatten();
                let id = record.id.unwrap_or_default();
                let is_twice = changed.contains(id);
                let known = existing.as_ref().and_then(|it| it.meta.updated.as_ref());
                if is_twice || known != record.meta.updated.as_ref() {
                    let stale = Stale::of(*record, existing, snapshot)?;
                    return Ok(Some(Stale { is_twice, ..stale }));
                }
                if changes(record, existing.as_ref()) {
                    changed.insert(id);
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

/// Whether a row would be a new version behind `existing`.
fn changes(record: &Record<'_>, existing: Option<&Record<'_>>) -> bool {
    match existing {
        None => !record.meta.deleted,
        Some(existing) => {
            existing.meta.deleted != record.meta.deleted || existing.hash() != record.hash()
        }
    }
}
