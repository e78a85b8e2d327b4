//! `tahini backup`: saving a node, running or not.

use anyhow::anyhow;
use serde_json::{Value as Json, json};
use tahini_store::{Files, StoreError};

use super::bytes_of;
use crate::backup::{Trouble, save};
use crate::cli::{Backup, OK};
use crate::{remote, restore, say};

/// Saves a node.
pub fn backup(options: &Backup) -> anyhow::Result<u8> {
    let saved = match &options.remote.node {
        Some(url) => {
            let name = options.to.to_string_lossy();
            let token = options.remote.token_file.as_deref();
            match remote::post(url, token, "/api/backups", &json!({ "name": name })) {
                Ok(saved) => saved,
                Err(unanswered) => return Ok(unanswered.told()),
            }
        }
        None => of_folder(options)?,
    };
    if options.json {
        say::line(&format!("{saved:#}"));
    } else {
        tell(options, &saved);
    }
    Ok(OK)
}

fn of_folder(options: &Backup) -> anyhow::Result<Json> {
    let data = &options.store.data;
    if !data.join("FORMAT").is_file() && !data.join("RESTORED").is_dir() {
        return Err(anyhow!(
            "expected a node's data folder in {}, found none; give --data DIR, or --node URL for a \
             node that runs",
            data.display()
        ));
    }
    restore::finish(data)?;
    let store = Files::open(data, Default::default()).map_err(|error| match error {
        StoreError::InUse { .. } => anyhow!(
            "{error}. A running node saves itself: `tahini backup {} --node \
             http://127.0.0.1:9042`, where it listens by default; it was started with `--backups DIR`",
            options
                .to
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
        ),
        error => error.into(),
    })?;
    Ok(save(&store, data, &options.to).map_err(in_use)?.json())
}

fn in_use(trouble: Trouble) -> anyhow::Error {
    match trouble {
        Trouble::Store(error @ StoreError::InUse { .. }) => {
            anyhow!("{error}: another backup goes there, or a node runs on it")
        }
        other => other.into(),
    }
}

fn tell(options: &Backup, saved: &Json) {
    let number = |name: &str| saved[name].as_u64().unwrap_or_default();
    say::line(&format!(
        "Saved {} datasets to {}: {} copied, {} were there.",
        number("datasets"),
        options.to.display(),
        bytes_of(number("copied_bytes")),
        bytes_of(number("kept_bytes")),
    ));
    for name in saved["skipped"].as_array().into_iter().flatten() {
        say::error_line(&format!(
            "Dataset {name} is damaged and was not saved; what was saved of it before stays."
        ));
    }
    if saved["files"]["secrets.json"].is_object() {
        say::error_line(
            "Secrets are in it as they are, encrypted. Their key is not (TAHINI_MASTER_KEY_FILE, \
             by default ~/.config/tahini/master.key): keep it elsewhere.",
        );
    }
}
