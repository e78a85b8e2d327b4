//! `tahini restore`: putting a backup back, or only reading it through.

use anyhow::anyhow;
use tahini_store::StoreError;

use super::bytes_of;
use crate::backup::{Checked, Trouble, check};
use crate::cli::{DIFFERENT, OK, Restore};
use crate::say;

/// Restores a node, or checks its backup.
pub fn restore(options: &Restore) -> anyhow::Result<u8> {
    let from = &options.from;
    let data = &options.store.data;
    let found = match options.check {
        true => check(from)?,
        false => crate::restore::restore(from, data, options.force).map_err(in_use)?,
    };
    if options.json {
        say::line(&format!("{:#}", found.json()));
    } else {
        let done = match options.check {
            true => format!("Read {} through", from.display()),
            false => format!("Restored {} into {}", from.display(), data.display()),
        };
        tell(&done, &found);
    }
    Ok(match found.damaged.is_empty() {
        true => OK,
        false => DIFFERENT,
    })
}

fn in_use(trouble: Trouble) -> anyhow::Error {
    match trouble {
        Trouble::Store(error @ StoreError::InUse { .. }) => {
            anyhow!("{error}: stop the node, or the backup, that works there")
        }
        other => other.into(),
    }
}

fn tell(done: &str, found: &Checked) {
    say::line(&format!(
        "{done}: node {}, {} datasets, {} versions, {}, saved {}.",
        found.note.node_id,
        found.store.datasets,
        found.store.versions,
        bytes_of(found.store.bytes),
        found.note.ended.unwrap_or(found.note.begun),
    ));
    for (name, wrong) in &found.damaged {
        say::error_line(&format!("{name:?} is damaged: {wrong}"));
    }
    for name in &found.note.skipped {
        say::error_line(&format!(
            "Dataset {name:?} was damaged when the node was saved: it is older than the rest, or missing."
        ));
    }
    if found.note.ended.is_none() {
        say::error_line(
            "The last saving into it did not come to its end: its datasets are of different \
             moments.",
        );
    }
}
