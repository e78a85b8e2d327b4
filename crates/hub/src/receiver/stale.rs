//! What a poster is told whose entity is not made from the latest version.

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
}

impl Stale {
    /// Finds it among rows that were refused.
    pub(super) fn find(rows: &Batch, snapshot: &dyn Snapshot) -> Result<Option<Stale>, StoreError> {
        let all: Vec<Record<'_>> = rows.iter().collect();
        for some in all.chunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().filter_map(|record| record.id).collect();
            let mut latest = Batch::new();
            let found = snapshot.latest(&ids, &mut latest)?;
            let mut latest = latest.iter();
            for (record, found) in some.iter().zip(found) {
                let existing = found.then(|| latest.next()).flatten();
                let known = existing.as_ref().and_then(|it| it.meta.updated.as_ref());
                if known != record.meta.updated.as_ref() {
                    return Stale::of(*record, existing, snapshot).map(Some);
                }
            }
        }
        Ok(None)
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
