//! With `identity` "first", entities of several datasets that have an id in common and are not the
//! same would all be given under it, and overwrite each other.
//!
//! One of them counts: what was put together of several before what is alone, then by the order of
//! the datasets. The others are left out, and the run warns. That only the id stands between them
//! makes who has it a neighbour: a change of one may let another one count.

use std::collections::HashMap;

use tahini_entity::hash;
use tahini_store::StoreError;

use super::part::Part;
use super::reach::At;
use super::rules::{Identity, Merging};

/// Clashes that the warning names.
const NAMED: usize = 5;

/// What is known of ids that several datasets have, and of those that clashed in a run.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    /// Whether several datasets may have an entity of one id: then everybody's is looked up, else
    /// only those of entities that have come.
    pub(super) shared: bool,
    count: u64,
    named: Vec<String>,
}

impl Clashes {
    /// Whether two entities can come to have the same `_id` without being the same.
    pub(super) fn can_be(merging: &Merging) -> bool {
        let all_by = |set: u32, name: &str| {
            (0..merging.datasets.len()).all(|part| {
                let mut sides = merging.keys.iter();
                sides.any(|side| side.set == set && side.part == part && side.is_of(name))
            })
        };
        let mut sets = merging.keys.iter().map(|side| side.set);
        let by_id = sets.any(|set| all_by(set, "_id") || all_by(set, "$ids"));
        merging.identity == Identity::First && merging.datasets.len() > 1 && !by_id
    }

    /// One more that is left out; the datasets whose entities have that id.
    fn tell(&mut self, id: &str, datasets: &[&str]) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named
                .push(format!("{id:?} of {}", datasets.join(" and ")));
        }
    }

    /// The warning of a run, if there is a reason.
    pub(super) fn warning(&self) -> Option<String> {
        let more = match self.count - self.named.len() as u64 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        (self.count > 0).then(|| {
            format!(
                "expected entities with one `_id` to be the same (`identity` is \"first\"), found \
                 {} that are not: {}{more}; only the first of each was given: add an equality set \
                 of their `_id`, or write \"identity\": \"composite\"",
                self.count,
                self.named.join(", ")
            )
        })
    }

    /// Of groups with one id leaves the one that counts.
    pub(super) fn settle(
        &mut self,
        merging: &Merging,
        groups: &mut Vec<Vec<At>>,
        ids: &mut Vec<String>,
    ) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (nth, id) in ids.iter().enumerate() {
            let counts = first.entry(id).or_insert(nth);
            if rank(&groups[nth]) < rank(&groups[*counts]) {
                *counts = nth;
            }
        }
        let lost = ids.iter().enumerate();
        let lost: Vec<(usize, usize)> = lost
            .map(|(nth, id)| (nth, first[id.as_str()]))
            .filter(|(nth, counts)| nth != counts)
            .collect();
        for (nth, counts) in &lost {
            let mut parts = [groups[*nth][0].0, groups[*counts][0].0];
            parts.sort_unstable();
            let both = parts.map(|part| merging.datasets[part].as_str());
            self.tell(&ids[*nth], &both);
        }
        for (nth, _) in lost.into_iter().rev() {
            groups.remove(nth);
            ids.remove(nth);
        }
    }
}

/// Where what these become stands among those with the same id; the first of them counts.
pub(super) fn rank(members: &[At]) -> (bool, usize) {
    (members.len() == 1, members[0].0)
}

/// What a full run knows of ids that several datasets have.
#[derive(Default)]
pub(super) struct Shared {
    /// By their hashes; what was given of each until now.
    ids: HashMap<u64, Vec<String>>,
}

impl Shared {
    /// Of the hashes of all ids, dataset by dataset, those that are there more than once.
    pub(super) fn of(datasets: impl Iterator<Item = Vec<u64>>) -> Shared {
        let mut all: Vec<u64> = datasets.flatten().collect();
        // Each dataset's are in order already, which a stable sort makes use of.
        all.sort();
        let several = all.chunk_by(|one, two| one == two);
        let several = several.filter(|same| same.len() > 1);
        Shared {
            ids: several.map(|same| (same[0], Vec::new())).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether something was given under this id already; otherwise it is from now on.
    pub(super) fn was_given(&mut self, id: &str) -> bool {
        let Some(given) = self.ids.get_mut(&key(id)) else {
            return false;
        };
        let known = given.iter().any(|known| known == id);
        if !known {
            given.push(id.to_owned());
        }
        known
    }
}

/// The key of an id.
pub(super) fn key(id: &str) -> u64 {
    hash::name_seed(id)
}

/// Takes note of an id of which something was given already.
///
/// # Errors
/// Where a dataset cannot be read.
pub(super) fn note(
    clashes: &mut Clashes,
    merging: &Merging,
    parts: &[Part],
    id: &str,
) -> Result<(), StoreError> {
    let mut datasets = Vec::new();
    if clashes.named.len() < NAMED {
        for (part, name) in parts.iter().zip(&merging.datasets) {
            if !part.living(&[id])?.is_empty() {
                datasets.push(name.as_str());
            }
        }
    }
    clashes.tell(id, &datasets);
    Ok(())
}
