//! State of a view, in pages: what the index holds, what it does not hold yet, and what was undone
//! since, put together.
//!
//! Keys of the index are cut where they are long, so that those that begin alike stand in no order
//! there. What begins alike up to the cut is a group: groups are in order, and none is divided.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::dataset::OpenDataset;
use crate::keys::sure_prefix;
use crate::{StateRows, StoreError};

/// A part of the keys that begin with `start`: about `most`, those of the groups behind `behind`.
pub(super) struct Part<'a> {
    pub start: &'a [u8],
    pub behind: Option<&'a [u8]>,
    pub most: usize,
}

/// Whole keys with their values, and the last group where there are more.
pub(super) type Found = (BTreeMap<Vec<u8>, Vec<u8>>, Option<Vec<u8>>);

impl Part<'_> {
    /// Reads the part as it was after `commit`.
    pub fn read(&self, dataset: &OpenDataset, commit: u64) -> Result<Found, StoreError> {
        let overlay = dataset.overlay.read();
        let overlay = overlay.unwrap_or_else(PoisonError::into_inner);
        let mut rows = BTreeMap::new();
        let mut border: Option<Vec<u8>> = None;
        let from = self.behind.map_or(self.start, |behind| behind);
        let from = sure_prefix(from);
        dataset.index.read(|tables, txn| {
            let mut last: Vec<u8> = Vec::new();
            tables.states_from(txn, from, sure_prefix(self.start), |whole, value| {
                let group = sure_prefix(whole);
                if rows.len() >= self.most && group != last {
                    border = Some(std::mem::take(&mut last));
                    return false;
                }
                if whole.starts_with(self.start) && self.is_behind(group) {
                    rows.insert(whole.to_vec(), value.to_vec());
                }
                group.clone_into(&mut last);
                true
            })
        })?;
        let first = self.start.max(from).to_vec();
        let (mut fresh, mut last): (usize, &[u8]) = (0, b"");
        for (key, value) in overlay.state.range(first..) {
            let group = sure_prefix(key);
            if !key.starts_with(self.start) {
                break;
            }
            if !self.is_behind(group) {
                continue;
            }
            if border.as_deref().is_some_and(|border| group > border) {
                break;
            }
            if fresh >= self.most && group != last {
                border = Some(last.to_vec());
                break;
            }
            match value {
                Some(value) => {
                    rows.insert(key.clone(), value.clone());
                    fresh += 1;
                }
                None => {
                    rows.remove(key);
                }
            }
            last = group;
        }
        overlay.rewind(commit, self.start, &mut rows);
        drop(overlay);
        let border = self.cut(&mut rows, border);
        Ok((rows, border))
    }

    fn is_behind(&self, group: &[u8]) -> bool {
        self.behind.is_none_or(|behind| group > sure_prefix(behind))
    }

    /// Leaves what belongs to the part, and tells the last group of it where there is more.
    fn cut(
        &self,
        rows: &mut BTreeMap<Vec<u8>, Vec<u8>>,
        border: Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let within = |group: &[u8]| border.as_deref().is_none_or(|border| group <= border);
        rows.retain(|key, _| self.is_behind(sure_prefix(key)) && within(sure_prefix(key)));
        let Some(last) = rows.keys().nth(self.most - 1) else {
            return border;
        };
        let last = sure_prefix(last).to_vec();
        let more = rows
            .keys()
            .rev()
            .take_while(|key| sure_prefix(key) > &last[..]);
        let surplus = more.count();
        if surplus == 0 {
            return border;
        }
        for _ in 0..surplus {
            rows.pop_last();
        }
        Some(last)
    }
}

/// The rows of one space, their keys without it.
pub(super) fn without_space(rows: BTreeMap<Vec<u8>, Vec<u8>>, space: &str) -> StateRows {
    let border = space.len() + 1;
    let rows = rows.into_iter();
    rows.map(|(key, value)| (key[border..].to_vec(), value))
        .collect()
}
