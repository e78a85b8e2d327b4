//! `tahini erase`: removing entities for good, while no node runs on the store.

use anyhow::anyhow;
use tahini_store::{Compaction, Files, StoreError};

use crate::cli::{Erase, OK};
use crate::say;

/// Removes entities with all their versions.
pub fn erase(options: &Erase) -> anyhow::Result<u8> {
    let (folder, name) = (&options.store.data, &options.dataset);
    if !folder.is_dir() {
        return Err(anyhow!(
            "expected a store in {}, found no such folder; give --data DIR",
            folder.display()
        ));
    }
    let store = Files::open(folder, Default::default()).map_err(|error| match error {
        StoreError::InUse { .. } => anyhow!(
            "{error}. When that is a running node, ask it: DELETE \
             /api/datasets/{name}/entity?entity_id=… (`entity_id` once for each entity)"
        ),
        other => other.into(),
    })?;
    let store: &dyn tahini_store::Backend = &store;
    let dataset = store
        .find(name)?
        .ok_or_else(|| anyhow!("expected a dataset {name:?}, found none"))?;
    let ids: Vec<&str> = options.ids.iter().map(String::as_str).collect();
    let rules = Compaction {
        erase: &ids,
        ..Compaction::default()
    };
    let done = dataset.compact(&rules)?;
    store.close()?;
    let (entities, versions) = (done.ids, done.versions);
    say::line(&format!(
        "removed {entities} of {} entities with {versions} versions from {name}",
        ids.len()
    ));
    Ok(OK)
}
