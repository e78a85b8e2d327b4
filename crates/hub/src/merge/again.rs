//! What was merged, once more: the entities that some members have become part of, because what these
//! are joined with has changed.

use std::collections::HashSet;

use tahini_entity::{Batch, Meta, Value, order};
use tahini_store::Seq;

use super::blend::Blend;
use super::clash::Clashes;
use super::part::{Part, Trouble};
use super::reach::Reach;
use super::rules::Merging;
use crate::Cancel;

/// Appends what these versions of the nth dataset belong to now, as far as it is not in `told`.
/// Everything was given out, so that now is what was given out last.
///
/// # Errors
/// As a step of changes.
pub(super) fn again(
    merging: &Merging,
    parts: &mut [Part],
    (blend, clashes): (&mut Blend, Option<&mut Clashes>),
    cancel: &Cancel,
    (nth, seqs, told): (usize, &[Seq], &mut HashSet<u128>),
    out: &mut Batch,
) -> Result<(), Trouble> {
    parts.iter_mut().for_each(Part::advance);
    let mut versions = Batch::new();
    if let Some(snapshot) = &parts[nth].snapshot {
        snapshot.at(seqs, &mut versions)?;
    }
    let living = versions.iter().filter(|record| !record.meta.deleted);
    for id in living.filter_map(|record| record.id) {
        parts[nth].take_id(merging, nth, id)?;
    }
    let mut reach = Reach {
        merging,
        parts,
        cancel,
    };
    let (groups, ids) = reach.given_now(clashes)?;
    for (members, id) in groups.into_iter().zip(ids) {
        if !told.insert(order::key(&Value::string(id.as_str()))) {
            continue;
        }
        let records: Vec<_> = members.iter().filter_map(|at| reach.record(*at)).collect();
        blend.put(&id, &records, Meta::default(), out)?;
    }
    Ok(())
}
