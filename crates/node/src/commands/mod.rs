//! The commands that work without a running node.

pub mod breaker;
pub mod entities;
pub mod explain;
pub mod fmt;
mod look;
mod rules;
pub mod run;
pub mod schema;
mod stdin;
mod stream;
pub mod test;
pub mod trace;
pub mod transform;
pub mod validate;

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use tahini_hub::Cancel;
use tahini_store::{Backend, Files, StoreError};

/// Opens the store in `folder`, making it where there is none.
pub fn open_store(folder: &Path) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(Files::open(folder, Default::default())?))
}

/// Opens the store in `folder` to look at `wanted`, for which a running node answers under `path`.
pub fn open_store_to_look(
    folder: &Path,
    wanted: &str,
    path: &str,
) -> anyhow::Result<Arc<dyn Backend>> {
    match Files::open(folder, Default::default()) {
        Err(error @ StoreError::InUse { .. }) => Err(anyhow!(
            "{error}. When that is a running node, ask it for {wanted}: GET {path} \
             (http://127.0.0.1:9042{path} where it listens by default)"
        )),
        opened => Ok(Arc::new(opened?)),
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
