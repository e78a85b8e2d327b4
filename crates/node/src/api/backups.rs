//! `/api/backups`: saving the running node.

use axum::http::StatusCode;
use serde_json::{Value as Json, json};
use tahini_store::StoreError;

use super::answer::json_answer;
use super::{Answer, Call, Node, Problem};
use crate::backup::{self, Backups, Note, Trouble};

/// The name of a backup for which none is given.
const NAME: &str = "node";

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Problem {
        match trouble {
            Trouble::Refused(words) => Problem::conflict(words),
            Trouble::Store(error @ (StoreError::InUse { .. } | StoreError::Refused(_))) => {
                Problem::conflict(error.to_string())
            }
            Trouble::Store(error) => error.into(),
            trouble @ Trouble::Io { .. } => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, trouble.to_string())
            }
        }
    }
}

/// The backups of this node.
pub fn list(node: &Node, _: &Call) -> Answer {
    let found = folder(node)?.list()?;
    let rows = found.iter().map(|(name, note)| shown(name, note.json()));
    json_answer(&rows.collect())
}

/// One backup; with `check`, it is read through.
pub fn one(node: &Node, call: &Call) -> Answer {
    let (backups, name) = (folder(node)?, call.id("backup_id"));
    let known = backups.list()?;
    let Some((name, note)) = known.iter().find(|(known, _)| known == name) else {
        return Err(Problem::missing("backup", name));
    };
    match call.flag("check", false)? {
        true => {
            let found = backup::check(&backups.folder.join(name))?;
            json_answer(&shown(name, found.json()))
        }
        false => json_answer(&shown(name, Note::json(note))),
    }
}

/// Saves the node, and answers when that is done.
pub fn save(node: &Node, call: &Call) -> Answer {
    let backups = folder(node)?;
    let form = call.form();
    let name = match call.body.first() {
        Some(b'{') => call.object()?.get("name").cloned(),
        _ => form.get("name").map(Json::from),
    };
    let name = name.unwrap_or_else(|| Json::from(NAME));
    let Some(name) = name.as_str() else {
        return Err(Problem::bad(format!(
            "expected `name` to be text, found {name}"
        )));
    };
    let saved = backups.save(node.store.as_ref(), name)?;
    tracing::info!(
        name,
        datasets = saved.store.datasets,
        copied_bytes = saved.store.copied_bytes,
        skipped = ?saved.store.skipped,
        "the node was saved"
    );
    json_answer(&shown(name, saved.json()))
}

fn shown(name: &str, mut json: Json) -> Json {
    json["_id"] = name.into();
    json
}

fn folder(node: &Node) -> Result<&Backups, Problem> {
    let help = "this node may make no backups: start it with --backups DIR";
    node.backups
        .as_ref()
        .ok_or_else(|| Problem::conflict(help).with("help", json!("docs/guide/backup.md")))
}
