//! `tahini fmt`: configuration and test files laid out as the reference's client does it.

mod layout;
mod style;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::Value as Json;
use tahini_hub::config::Text;

pub use style::Style;

use crate::cli::{DIFFERENT, FAILED, Fmt, OK};
use crate::say;

/// The folders of a project whose files are laid out.
const FOLDERS: [&str; 4] = ["pipes", "systems", "testdata", "expected"];
/// The file beside them that is, too.
const METADATA: &str = "node-metadata.conf.json";

/// Lays out files and projects, or with `--check` names those that are not.
pub fn fmt(options: &Fmt) -> anyhow::Result<u8> {
    let mut files = Vec::new();
    for path in &options.paths {
        if path.is_dir() {
            project(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    let (mut changed, mut broken) = (0, 0);
    for file in &files {
        match one(file, options.check) {
            Ok(false) => {}
            Ok(true) => {
                changed += 1;
                say::line(&file.display().to_string());
            }
            Err(error) => {
                broken += 1;
                say::error_line(&format!("{}: {error:#}", file.display()));
            }
        }
    }
    let what = if options.check {
        "to lay out"
    } else {
        "laid out"
    };
    say::error_line(&format!(
        "{} files, {changed} {what}, {broken} left as they are",
        files.len()
    ));
    Ok(match (broken, changed) {
        (0, 0) => OK,
        (0, _) if options.check => DIFFERENT,
        (0, _) => OK,
        _ => FAILED,
    })
}

/// The files of a project, sorted.
fn project(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let before = files.len();
    for name in FOLDERS {
        let inside = folder.join(name);
        if inside.is_dir() {
            within(&inside, files)?;
        }
        // The specs of tests are as their authors laid them out.
        if name == "expected" {
            files.retain(|file| !(file.starts_with(&inside) && is_spec(file)));
        }
    }
    let metadata = folder.join(METADATA);
    if metadata.is_file() {
        files.push(metadata);
    }
    if files.len() == before {
        bail!(
            "expected a project with pipes, systems, testdata or expected in {}, found none",
            folder.display()
        );
    }
    Ok(())
}

fn is_spec(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().contains(".test.json")
}

fn within(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            within(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "json") {
            files.push(path);
        }
    }
    Ok(())
}

/// Lays out one file; whether that changes it.
fn one(file: &Path, check: bool) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file)?;
    let wanted = laid_out(&text, file)?;
    if wanted == text {
        return Ok(false);
    }
    if !check {
        replace(file, &wanted)?;
    }
    Ok(true)
}

/// The text of a file as it should be.
fn laid_out(text: &str, file: &Path) -> anyhow::Result<String> {
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json: Json = serde_json::from_str(plain).map_err(|error| {
        // What reads as configuration, and not as JSON, has comments or trailing commas.
        let read = Text::parse(plain, Some(file));
        match read.json.is_some() && read.problems.is_empty() {
            true => anyhow!(
                "expected JSON, found comments or trailing commas at line {}; the layout would \
                 lose them",
                error.line()
            ),
            false => anyhow!("expected JSON: {error}"),
        }
    })?;
    // Of a bare file's name, the parent is an empty path.
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let is_expected = folder
        .components()
        .any(|part| part.as_os_str() == "expected");
    Ok(if is_expected {
        layout::expected(&json)
    } else {
        layout::configuration(&json, &style_of(folder)?)
    })
}

/// The style that `.sesamconfig.json` in the file's folder, or in one above it, asks for.
fn style_of(folder: &Path) -> anyhow::Result<Style> {
    let folder = std::path::absolute(folder)?;
    let found = folder
        .ancestors()
        .map(|folder| folder.join(".sesamconfig.json"))
        .find(|file| file.is_file());
    let Some(file) = found else {
        return Ok(Style::default());
    };
    let read = || -> anyhow::Result<Style> {
        let text = std::fs::read_to_string(&file)?;
        let config: Json = serde_json::from_str(text.trim_start_matches('\u{feff}'))?;
        Style::of(config.get("formatstyle").unwrap_or(&Json::Null)).map_err(|words| anyhow!(words))
    };
    read().with_context(|| file.display().to_string())
}

/// Writes a file anew, whole or not at all.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let file = std::fs::canonicalize(file)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    std::fs::write(&part, text)?;
    std::fs::set_permissions(&part, std::fs::metadata(&file)?.permissions())?;
    std::fs::rename(&part, &file)?;
    Ok(())
}
