//! `connector expand` and `connector validate`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};
use tahini_connectors::manifest::Expanded;
use tahini_hub::config::{Configuration, Input, Problem};

use super::{conventions, expanded, manifest, profile, python};
use crate::assembly::{REGISTRY, report};
use crate::cli::{ExpandConnector, OK, ValidateConnector};
use crate::say;

/// Writes the project that a connector expands to.
pub(super) fn expand(options: &ExpandConnector) -> anyhow::Result<u8> {
    let place = &options.place;
    let expanded = expanded(&place.folder, &place.system)?;
    let profile_json = profile(&place.folder, &place.profile, &expanded)?;
    let folder = place.folder.join(&options.expanded);
    clear(&folder)?;
    for part in ["pipes", "systems"] {
        fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
    }
    let metadata = json!({
        "_id": "node", "type": "metadata", "task_manager": {"disable_user_pipes": true}
    });
    write(&folder.join("node-metadata.conf.json"), &metadata)?;
    write(
        &folder.join(format!("{}-env.json", place.profile)),
        &profile_json,
    )?;
    let (pipes, systems) = components(&folder, &expanded)?;
    say::line(&format!(
        "{}: {systems} systems, {pipes} pipes",
        folder.display()
    ));
    Ok(OK)
}

/// Writes the components; how many pipes and systems there are.
fn components(folder: &Path, expanded: &Expanded) -> anyhow::Result<(usize, usize)> {
    let (mut pipes, mut systems) = (0, 0);
    for component in &expanded.components {
        let id = component["_id"].as_str().unwrap_or_default();
        if id.contains('/') {
            bail!("expected ids without \"/\", found {id:?}");
        }
        let part = match component["type"].as_str() {
            Some("pipe") => "pipes",
            Some(kind) if kind.starts_with("system:") => "systems",
            _ => bail!("{id:?}: expected a pipe or a system"),
        };
        match part {
            "pipes" => pipes += 1,
            _ => systems += 1,
        }
        write(
            &folder.join(part).join(format!("{id}.conf.json")),
            component,
        )?;
    }
    Ok((pipes, systems))
}

/// Empties the folder of what was expanded before. A folder that holds anything else is not ours.
fn clear(folder: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let is_ours = names.is_empty() || names.iter().any(|name| name == "node-metadata.conf.json");
    if !is_ours {
        bail!(
            "{}: expected an empty folder or an expanded connector, which is replaced; found {}",
            folder.display(),
            names.join(", ")
        );
    }
    fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}

fn write(file: &Path, json: &Json) -> anyhow::Result<()> {
    fs::write(file, python::text(json)).with_context(|| file.display().to_string())
}

/// Says what is wrong with what a connector expands to: with its configuration, and with what
/// connectors promise each other.
pub(super) fn validate(options: &ValidateConnector) -> anyhow::Result<u8> {
    let place = &options.place;
    let manifest = manifest(&place.folder)?;
    let expanded = expanded(&place.folder, &place.system)?;
    let env = profile(&place.folder, &place.profile, &expanded)?;
    let inputs = expanded.components.iter().cloned().map(Input::new);
    let empty = serde_json::Map::new();
    let env = env.as_object().unwrap_or(&empty);
    let configuration = Configuration::build(inputs.collect(), env, &REGISTRY);
    let broken = conventions::check(&manifest, &expanded.components);
    let problems: Vec<&Problem> = configuration.problems().chain(&broken).collect();
    Ok(report(&configuration, &problems, options.json))
}
