//! What belongs together, before and now: from some entities to all that a change of them can
//! concern.

use std::collections::HashMap;

use tahini_entity::folded::{FoldedMap, FoldedSet};
use tahini_entity::{Record, json};

use super::clash::Clashes;
use super::leads::Leads;
use super::part::{Part, Trouble, Version, each_if};
use super::rules::{Back, Identity, Key, Merging};
use crate::{Cancel, Failure};

/// From how many keys on the datasets are asked at once, each on a thread of its own.
const MANY: usize = 64;

/// An entity: the place of its dataset, and its place among the nodes there.
pub(super) type At = (usize, u32);

/// Which of the two views.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum When {
    Before,
    Now,
}

/// The datasets of a merge source, and what is known of their entities.
pub(super) struct Reach<'a> {
    pub(super) merging: &'a Merging,
    pub(super) parts: &'a mut [Part],
    pub(super) cancel: &'a Cancel,
}

/// What was followed already.
struct Closed {
    keys: FoldedSet<Key>,
    /// For each dataset the nodes whose keys are among them.
    known: Vec<usize>,
    /// Whether indexes are there to follow by.
    indexed: bool,
}

impl Reach<'_> {
    /// Takes in everything that what is known is, or was, the same as, however far away. Where ids
    /// can clash, also everything that has an id of what is known in another dataset, and what that
    /// is or was the same as; where no two datasets `share` an id, only what has come can change
    /// that.
    ///
    /// # Errors
    /// Where a dataset cannot tell.
    pub(super) fn close(&mut self, share: Option<&mut bool>) -> Result<(), Trouble> {
        let mut indexed = true;
        for (at, part) in self.parts.iter().enumerate() {
            indexed &= part.is_indexed(self.merging, at)?;
        }
        if !indexed && self.parts.iter().any(|part| part.until < part.head()) {
            // Only an index leads from a place in the middle to what counted there.
            return Err(Trouble::Lost);
        }
        let mut closed = Closed {
            keys: FoldedSet::default(),
            known: vec![0; self.parts.len()],
            indexed,
        };
        self.over_keys(&mut closed)?;
        match share {
            Some(share) => self.over_ids(share, &mut closed),
            None => Ok(()),
        }
    }

    fn over_keys(&mut self, closed: &mut Closed) -> Result<(), Trouble> {
        loop {
            let mut fresh = Vec::new();
            for (part, known) in self.parts.iter().zip(&mut closed.known) {
                let nodes = part.nodes[*known..].iter();
                let before = self.merging.lost != Some(Back::Before);
                let versions = nodes.flat_map(move |node| {
                    [node.before.as_ref().filter(|_| before), node.now.as_ref()]
                });
                for key in versions.flatten().flat_map(|version| &version.keys) {
                    if closed.keys.insert(*key) {
                        fresh.push(*key);
                    }
                }
                *known = part.nodes.len();
            }
            if fresh.is_empty() {
                return Ok(());
            }
            if self.cancel.is_cancelled() {
                return Err(Trouble::Stopped);
            }
            self.seek(&fresh, closed.indexed)?;
            if self.merging.lost == Some(Back::Further) {
                return Ok(());
            }
        }
    }

    fn over_ids(&mut self, share: &mut bool, closed: &mut Closed) -> Result<(), Trouble> {
        let mut known = vec![0; self.parts.len()];
        loop {
            let counts: Vec<usize> = self.parts.iter().map(|part| part.nodes.len()).collect();
            let mut fresh: Vec<Vec<String>> = Vec::new();
            for (part, known) in self.parts.iter().zip(&known) {
                let nodes = part.nodes[*known..].iter();
                let asked = nodes.filter(|node| *share || node.has_come());
                fresh.push(asked.map(|node| part.id(node).to_owned()).collect());
            }
            known.clone_from(&counts);
            let many = fresh.iter().map(Vec::len).sum::<usize>() >= MANY;
            let merging = self.merging;
            let take = |at: usize, part: &mut Part| {
                let others = fresh.iter().enumerate().filter(|(of, _)| *of != at);
                let ids: Vec<&str> = others
                    .flat_map(|(_, ids)| ids.iter().map(String::as_str))
                    .collect();
                part.take_ids(merging, at, &ids)
            };
            let found = each_if(many, &mut *self.parts, take)?;
            if !*share && found.contains(&true) {
                *share = true;
                known.fill(0);
            } else if self
                .parts
                .iter()
                .zip(&counts)
                .all(|(part, count)| part.nodes.len() == *count)
            {
                return Ok(());
            }
            self.over_keys(closed)?;
        }
    }

    fn seek(&mut self, keys: &[Key], indexed: bool) -> Result<(), Trouble> {
        let merging = self.merging;
        each_if(keys.len() >= MANY, &mut *self.parts, |at, part| {
            part.seek(merging, at, keys, indexed)
        })
        .map(drop)
    }

    /// What belongs together in one of the views, each ordered by dataset and `_id`.
    ///
    /// # Errors
    /// `TooMany` where more than may be merged belong together.
    pub(super) fn together(&self, when: When) -> Result<Vec<Vec<At>>, Trouble> {
        let mut all: Vec<(At, &Version)> = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            for (node, number) in part.nodes.iter().zip(0u32..) {
                let version = match when {
                    When::Before => &node.before,
                    When::Now => &node.now,
                };
                let living = version.as_ref().filter(|version| !version.deleted);
                all.extend(living.map(|version| ((at, number), version)));
            }
        }
        let mut leads = Leads::of(all.len());
        let mut first_with: FoldedMap<Key, usize> = FoldedMap::default();
        for (place, (_, version)) in all.iter().enumerate() {
            for key in &version.keys {
                let first = *first_with.entry(*key).or_insert(place);
                leads.join(first, place);
            }
        }
        let mut groups: Vec<Vec<At>> = Vec::new();
        let mut group_of: HashMap<usize, usize> = HashMap::new();
        for (place, (at, _)) in all.iter().enumerate() {
            let group = *group_of.entry(leads.lead(place)).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(*at);
        }
        let largest = groups.iter().max_by_key(|group| group.len());
        if let Some(group) = largest.filter(|group| group.len() > self.merging.max_merged)
            && when == When::Now
            && let Some(key) = self.most_common(group)
        {
            return Err(Trouble::TooMany(key));
        }
        for group in &mut groups {
            group.sort_by(|one, two| (one.0, self.id(*one)).cmp(&(two.0, self.id(*two))));
        }
        Ok(groups)
    }

    /// What is to be given of all that what is known leads to, with the ids; where these can clash,
    /// one for each id.
    ///
    /// # Errors
    /// As `close` and `together`.
    pub(super) fn given_now(
        &mut self,
        mut clashes: Option<&mut Clashes>,
    ) -> Result<(Vec<Vec<At>>, Vec<String>), Trouble> {
        self.close(clashes.as_deref_mut().map(|it| &mut it.shared))?;
        let mut groups = self.together(When::Now)?;
        let mut ids: Vec<String> = groups
            .iter()
            .map(|members| self.identity(members))
            .collect();
        if let Some(clashes) = clashes {
            clashes.settle(self.merging, &mut groups, &mut ids);
        }
        Ok((groups, ids))
    }

    /// The key that most of these have.
    fn most_common(&self, group: &[At]) -> Option<Key> {
        let mut counts: HashMap<Key, usize> = HashMap::new();
        for at in group {
            let node = &self.parts[at.0].nodes[at.1 as usize];
            for key in node.now.iter().flat_map(|now| &now.keys) {
                *counts.entry(*key).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(key, count)| (*count, *key));
        most.map(|(key, _)| key)
    }

    pub(super) fn id(&self, at: At) -> &str {
        let part = &self.parts[at.0];
        part.id(&part.nodes[at.1 as usize])
    }

    /// The latest version of an entity that is there.
    pub(super) fn record(&self, at: At) -> Option<Record<'_>> {
        let part = &self.parts[at.0];
        let version = part.nodes[at.1 as usize].now.as_ref()?;
        Some(part.record(version))
    }

    /// The `_id` of what these entities become.
    pub(super) fn identity(&self, members: &[At]) -> String {
        let members = members.iter().map(|at| (at.0, self.id(*at)));
        identity(self.merging.identity, members)
    }

    /// The words for what went wrong.
    pub(super) fn failure(&self, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Store(error) => error.into(),
            Trouble::Encode(error) => Failure::fatal(error.to_string()),
            Trouble::Stopped => Failure::cancelled(),
            Trouble::Lost => Failure::transient(
                "expected the versions that the merge source gave out last, found that some are \
                 gone; the next run reads everything",
            ),
            Trouble::TooMany(key) => {
                let records = self.parts.iter().enumerate().flat_map(|(at, part)| {
                    let rows = part.rows.iter();
                    rows.map(move |record| (at, record))
                });
                let mut named = records.filter_map(|(at, record)| {
                    let (side, value) = self.merging.reason(at, record, key)?;
                    Some(too_many(
                        self.merging,
                        &format!("{} = {}", side.expression, json::to_config(&value)),
                    ))
                });
                named
                    .next()
                    .unwrap_or_else(|| too_many(self.merging, "one value that they have in common"))
            }
        }
    }
}

/// What is told where too many entities are the same.
pub(super) fn too_many(merging: &Merging, why: &str) -> Failure {
    Failure::fatal(format!(
        "expected at most {} entities to become one (`max_merged`), found more: {why}; values that \
         stand for nothing are left out by the equality expression, or `max_merged` is raised",
        merging.max_merged
    ))
}

/// The `_id` of what these become: entities by the places of their datasets, in order.
pub(super) fn identity<'i>(
    identity: Identity,
    members: impl Iterator<Item = (usize, &'i str)>,
) -> String {
    let mut all = String::new();
    for (part, id) in members {
        if identity == Identity::First {
            return id.to_owned();
        }
        if !all.is_empty() {
            all.push('|');
        }
        all.push_str(&part.to_string());
        all.push('|');
        all.push_str(id);
    }
    all
}
