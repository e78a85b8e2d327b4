//! The commands; all but `why`, `lineage`, `hops`, `backup --node` and `connector authenticate --node` work without a
//! running node.

pub mod backup;
pub mod breaker;
pub mod connector;
pub mod entities;
pub mod erase;
pub mod explain;
pub mod fmt;
pub mod hops;
pub mod lineage;
mod look;
pub mod microservice;
pub mod restore;
mod rules;
pub mod run;
pub mod schema;
mod stdin;
mod stream;
pub mod test;
pub mod trace;
pub mod transform;
pub mod validate;
pub mod why;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use tahini_hub::Cancel;
use tahini_store::{Backend, Files, StoreError};

/// Opens the store in `folder`, making it where there is none.
pub fn open_store(folder: &Path) -> anyhow::Result<Arc<dyn Backend>> {
    crate::restore::finish(folder)?;
    keep_private(folder);
    Ok(Arc::new(Files::open(folder, Default::default())?))
}

/// Takes the rights on an existing data folder from everybody but its owner: it holds what people
/// sent, and a copy of it may have been made with other rights inside.
fn keep_private(folder: &Path) {
    let Ok(found) = std::fs::metadata(folder) else {
        return;
    };
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return;
    }
    let private = std::fs::Permissions::from_mode(mode & 0o7700);
    let mode = format!("{mode:04o}");
    match std::fs::set_permissions(folder, private) {
        Ok(()) => tracing::info!(
            folder = %folder.display(),
            before = mode,
            "the data folder is its owner's alone now"
        ),
        Err(error) => tracing::warn!(
            folder = %folder.display(),
            found = mode,
            %error,
            "expected a data folder that only its owner can look into (0700); chmod it"
        ),
    }
}

/// Opens the store in `folder` to look at `wanted`, for which a running node answers under `path`.
pub fn open_store_to_look(
    folder: &Path,
    wanted: &str,
    path: &str,
) -> anyhow::Result<Arc<dyn Backend>> {
    crate::restore::finish(folder)?;
    match Files::open(folder, Default::default()) {
        Err(error @ StoreError::InUse { .. }) => Err(anyhow!(
            "{error}. When that is a running node, ask it for {wanted}: GET {path} \
             (http://127.0.0.1:9042{path} where it listens by default)"
        )),
        opened => Ok(Arc::new(opened?)),
    }
}

/// Bytes as people read them.
pub(crate) fn bytes_of(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{amount:.1} {}", UNITS[unit]),
    }
}

/// A stop request that Ctrl-C makes; the second Ctrl-C ends the program at once.
pub fn until_interrupted() -> Cancel {
    let cancel = Cancel::new();
    let asked = cancel.clone();
    tahini_connectors::http::runtime().spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(i32::from(crate::cli::INTERRUPTED));
        }
    });
    cancel
}
