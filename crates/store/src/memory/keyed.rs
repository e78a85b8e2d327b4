//! Declared indexes in memory: brought up to the newest version whenever somebody asks.

use std::collections::BTreeMap;

use tahini_entity::Batch;

use super::{All, MemorySnapshot};
use crate::indexes::{Before, UNKNOWN, marks, merge};
use crate::{Ask, Hit, IndexDef, IndexState, Seq, StoreError};

/// The declared indexes of a dataset.
#[derive(Default)]
pub(super) struct Keyed {
    known: Vec<Known>,
    /// The number that the next one gets.
    fresh: u32,
}

struct Known {
    def: IndexDef,
    number: u32,
    next: Seq,
    /// Behind the newest of its versions that compaction took.
    gone_until: Seq,
    /// Key and sequence to whether the version is one that lost the key.
    rows: BTreeMap<(u128, Seq), bool>,
}

impl Keyed {
    pub fn declare(&mut self, defs: &[IndexDef]) {
        let mut old = std::mem::take(&mut self.known);
        for def in defs {
            let same = |known: &Known| known.def.fingerprint == def.fingerprint;
            if self.known.iter().any(same) {
                continue;
            }
            let known = match old.iter().position(same) {
                Some(at) => old.swap_remove(at),
                None => self.anew(def.clone()),
            };
            self.known.push(known);
        }
    }

    fn anew(&mut self, def: IndexDef) -> Known {
        self.fresh += 1;
        Known {
            def,
            number: self.fresh,
            next: 0,
            gone_until: 0,
            rows: BTreeMap::new(),
        }
    }

    pub fn states(&self) -> Vec<IndexState> {
        let state = |known: &Known| IndexState {
            number: known.number,
            fingerprint: known.def.fingerprint.clone(),
            ready: true,
            next: known.next,
            entries: known.rows.len() as u64,
        };
        let mut states: Vec<IndexState> = self.known.iter().map(state).collect();
        states.sort_by_key(|state| state.number);
        states
    }

    pub fn rebuild(&mut self, number: u32) -> bool {
        let Some(at) = self.known.iter().position(|known| known.number == number) else {
            return false;
        };
        let def = self.known[at].def.clone();
        self.known[at] = self.anew(def);
        true
    }
}

impl All {
    /// Brings the indexes up to the newest version.
    pub(super) fn index(&mut self) {
        // What is held back may be taken back.
        let next = self.visible().0.next;
        let mut keyed = std::mem::take(&mut self.keyed);
        for known in &mut keyed.known {
            for seq in known.next..next {
                self.index_one(known, seq);
            }
            known.next = next;
        }
        self.keyed = keyed;
    }

    fn index_one(&self, known: &mut Known, seq: Seq) {
        let (Some(mut keys), Some(version)) = (self.keys(known, seq), self.at(seq)) else {
            return;
        };
        let old = version.meta.previous.map(|seq| self.keys(known, seq));
        let before = match &old {
            None => Before::Nothing,
            Some(None) => Before::Gone,
            Some(Some(keys)) => Before::Keys(keys),
        };
        marks(&mut keys, before, |key, left| {
            known.rows.insert((key, seq), left);
        });
    }

    fn keys(&self, known: &Known, seq: Seq) -> Option<Vec<u128>> {
        let mut version = Batch::new();
        self.at(seq)?.push_to(&mut version);
        let mut keys = Vec::new();
        (known.def.keys)(version.get(0), &mut keys);
        Some(keys)
    }

    /// Forgets versions that are no more.
    pub(super) fn index_what_is_left(&mut self) {
        let mut keyed = std::mem::take(&mut self.keyed);
        let gone = (0..self.head.next)
            .rev()
            .find(|seq| self.at(*seq).is_none());
        let gone_until = gone.map_or(0, |gone| gone + 1);
        for known in &mut keyed.known {
            known.gone_until = known.gone_until.max(gone_until.min(known.next));
            known.rows.retain(|(_, seq), _| self.at(*seq).is_some());
        }
        self.keyed = keyed;
    }
}

impl MemorySnapshot {
    pub(super) fn look_up(
        &self,
        fingerprint: &str,
        keys: &[u128],
        ask: &Ask,
        out: &mut Vec<Hit>,
    ) -> Result<bool, StoreError> {
        super::write(&self.all).index();
        let all = self.all()?;
        let mut known = all.keyed.known.iter();
        let known = known.find(|known| known.def.fingerprint == fingerprint);
        let Some(known) = known.filter(|known| known.next >= self.head.next) else {
            return Ok(false);
        };
        if ask
            .leaves_from()
            .is_some_and(|from| from < known.gone_until)
        {
            return Ok(false);
        }
        for (of, key) in keys.iter().enumerate() {
            let mut hits = self.hits(&all, known, *key, of, ask);
            if ask.left {
                hits.extend(self.hits(&all, known, UNKNOWN, of, ask));
            }
            merge(&mut hits, ask);
            out.extend(hits);
        }
        Ok(true)
    }

    fn hits(&self, all: &All, known: &Known, key: u128, of: usize, ask: &Ask) -> Vec<Hit> {
        let rows = known.rows.range((key, 0)..(key, self.head.next));
        let hits = rows.map(|((_, seq), left)| {
            let successor = all.at(*seq).and_then(|version| version.successor);
            Hit {
                of,
                seq: *seq,
                left: *left,
                superseded: successor.is_some_and(|next| next < self.head.next),
            }
        });
        let wanted = |hit: &Hit| {
            ask.reaches(hit.seq) && (ask.left || !hit.left) && (ask.history || !hit.superseded)
        };
        hits.filter(wanted).collect()
    }
}
