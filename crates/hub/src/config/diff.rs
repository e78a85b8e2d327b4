//! What changed between two configurations, for applying one to a running node.

use super::model::{Component, Configuration};

/// The ids of components that differ, in the order of the configuration that has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Only in the new configuration.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
    /// In both, and what holds is not the same.
    pub changed: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What changed by what holds, not by what was written: a changed variable changes the
/// components that use it, and a changed comment outside of them changes none.
pub fn diff(old: &Configuration, new: &Configuration) -> Changes {
    let mut changes = Changes::default();
    for component in new.components() {
        match old.get(&component.id) {
            None => changes.added.push(component.id.clone()),
            Some(before) if !same(before, component) => changes.changed.push(component.id.clone()),
            Some(_) => {}
        }
    }
    for component in old.components() {
        if new.get(&component.id).is_none() {
            changes.removed.push(component.id.clone());
        }
    }
    changes
}

fn same(old: &Component, new: &Component) -> bool {
    old.effective == new.effective
        && old.kind == new.kind
        && old.is_valid() == new.is_valid()
        && old.unsupported.is_some() == new.unsupported.is_some()
        && old.folder == new.folder
}
