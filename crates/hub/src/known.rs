//! What is known of datasets beside what the store holds of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, RwLock};

use uuid::Uuid;

use crate::completeness::Values;
use crate::merge::Back;

/// Shared by all pipes of a hub.
#[derive(Default)]
pub struct Known {
    /// The datasets that pipes of the running configuration write.
    written: RwLock<BTreeSet<String>>,
    /// The completeness of datasets as the last run of each writer left it, with the generation
    /// that it is about. Runs that do nothing else leave it here only.
    completeness: Mutex<BTreeMap<String, (Uuid, Values)>>,
    /// What tests take away from merge sources.
    lost: Mutex<Option<Back>>,
}

impl Known {
    /// Whether a pipe of the running configuration writes `dataset`: what is not there may come.
    pub fn is_written(&self, dataset: &str) -> bool {
        let written = self.written.read().unwrap_or_else(|lock| lock.into_inner());
        written.contains(dataset)
    }

    /// Takes over which datasets are written.
    pub(crate) fn set_written(&self, datasets: impl IntoIterator<Item = String>) {
        let fresh = datasets.into_iter().collect();
        *self
            .written
            .write()
            .unwrap_or_else(|lock| lock.into_inner()) = fresh;
    }

    pub(crate) fn completeness(&self, dataset: &str, generation: Uuid) -> Option<Values> {
        let all = self.completeness.lock();
        let all = all.unwrap_or_else(|lock| lock.into_inner());
        let (known, values) = all.get(dataset)?;
        (*known == generation).then(|| values.clone())
    }

    /// Takes a step back away from all merge sources: what it leads to is no longer noticed. Only
    /// tests want that.
    #[doc(hidden)]
    pub fn lose(&self, step: Back) {
        *self.lost.lock().unwrap_or_else(|lock| lock.into_inner()) = Some(step);
    }

    pub(crate) fn lost(&self) -> Option<Back> {
        *self.lost.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    pub(crate) fn keep_completeness(&self, dataset: &str, generation: Uuid, values: Values) {
        let all = self.completeness.lock();
        let mut all = all.unwrap_or_else(|lock| lock.into_inner());
        all.insert(dataset.to_owned(), (generation, values));
    }
}
