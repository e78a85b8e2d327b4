//! `tahini connector`: connectors in the public format.

mod authenticate;
mod callback;
mod conventions;
mod expand;
mod init;
mod python;
mod superoffice;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value as Json};
use tahini_connectors::manifest::{self, Expanded};

use crate::cli::{Connector, ConnectorCommand};
use crate::say;

/// Does what was asked with a connector.
pub fn connector(options: &Connector) -> anyhow::Result<u8> {
    match &options.command {
        ConnectorCommand::Init(options) => init::init(options),
        ConnectorCommand::Expand(options) => expand::expand(options),
        ConnectorCommand::Validate(options) => expand::validate(options),
        ConnectorCommand::Authenticate(options) => authenticate::authenticate(options),
    }
}

/// The manifest of the connector in `folder`.
fn manifest(folder: &Path) -> anyhow::Result<Map<String, Json>> {
    let file = folder.join("manifest.json");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{}: expected a connector's manifest", file.display()))?;
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Json::Object(map)) => Ok(map),
        Ok(_) => Err(anyhow!("{}: expected a JSON object", file.display())),
        Err(error) => Err(anyhow!("{}: {error}", file.display())),
    }
}

/// The connector in `folder`, expanded; warnings are printed.
fn expanded(folder: &Path, system: &str) -> anyhow::Result<Expanded> {
    let manifest = manifest(folder)?;
    let read = |path: &str| {
        let file = folder.join(path);
        let text = fs::read_to_string(&file);
        text.map_err(|error| format!("{}: {error}", file.display()))
    };
    let expanded =
        manifest::expand(&manifest, system, &read).with_context(|| folder.display().to_string())?;
    for words in &expanded.warnings {
        say::error_line(&format!("warning: {words}"));
    }
    Ok(expanded)
}

/// The variables of a profile: the connector's file, or the names that it needs, empty.
fn profile(folder: &Path, profile: &str, expanded: &Expanded) -> anyhow::Result<Json> {
    let file = folder.join(format!("{profile}-env.json"));
    match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(manifest::blank_profile(expanded))
        }
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}
