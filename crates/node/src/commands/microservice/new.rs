//! `tahini microservice new`: a working service in a project, from the templates.

mod templates;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::{Language, NewService, OK, ServiceKind};
use crate::say;

/// What the templates call the service.
const PLACEHOLDER: &str = "my-service";
/// Names that the node itself has on the services' network.
const TAKEN: [&str; 3] = ["localhost", "sesam-node", "tahini"];

/// Writes the service, or nothing where a file is there already.
pub fn new(options: &NewService) -> anyhow::Result<u8> {
    let name = options.name.as_str();
    check_name(name)?;
    let project = options
        .project
        .clone()
        .unwrap_or_else(|| PathBuf::from(name));
    let files: Vec<(PathBuf, String)> = templates::files(options.lang, options.kind)
        .into_iter()
        .map(|(path, text)| {
            (
                project.join(path.replace(PLACEHOLDER, name)),
                filled(text, options),
            )
        })
        .collect();
    let there: Vec<String> = files
        .iter()
        .filter(|(path, _)| fs::symlink_metadata(path).is_ok())
        .map(|(path, _)| path.display().to_string())
        .collect();
    if !there.is_empty() {
        bail!(
            "expected none of the files that would be written, found {}; nothing was changed. Choose another name, \
             or another folder with --project",
            there.join(", ")
        );
    }
    for (path, text) in &files {
        write(path, text).with_context(|| path.display().to_string())?;
        say::line(&path.display().to_string());
    }
    say::error_line(&next(options, &project));
    Ok(OK)
}

/// The name is a system's id, a host name, an image's name and, in Rust, a crate's.
fn check_name(name: &str) -> anyhow::Result<()> {
    let letter = |c: char| c.is_ascii_lowercase();
    let fits = name
        .chars()
        .all(|c| letter(c) || c.is_ascii_digit() || c == '-');
    let ends = name.starts_with(letter) && !name.ends_with('-');
    if !fits || !ends || !(2..=63).contains(&name.len()) {
        bail!(
            "expected a name that can be a host's: 2 to 63 lower-case letters, digits and \"-\", the first a letter, \
             the last no \"-\"; found {name:?}"
        );
    }
    if TAKEN.contains(&name) {
        bail!("expected a name of the service's own, found {name:?}, which is the node's");
    }
    Ok(())
}

fn filled(text: &str, options: &NewService) -> String {
    let route = match options.kind {
        ServiceKind::Transform => "transform",
        _ => "entities",
    };
    text.replace(PLACEHOLDER, &options.name)
        .replace("my-route", route)
        .replace("my-kind", options.kind.name())
}

/// Writes a file that is not there, and its folders.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// What to do with it.
fn next(options: &NewService, project: &Path) -> String {
    let (tests, build) = match options.lang {
        Language::Python => ("python3 -m unittest", None),
        Language::Node => ("node --test", None),
        Language::Rust => ("cargo test", Some("cargo build --release")),
    };
    let project = project.display();
    let folder = format!("{project}/services/{}", options.name);
    let mut lines = vec![format!("(cd {folder} && {tests})")];
    lines.extend(build.map(|build| format!("(cd {folder} && {build})")));
    lines.push(format!("tahini run {project} --data {project}/data"));
    format!(
        "Next:\n  {}\n{folder}/README.md says more.",
        lines.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hosts() {
        for name in ["ab", "crm-reader", "a1", &"a".repeat(63)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "a",
            "Crm",
            "1crm",
            "-crm",
            "crm-",
            "crm_reader",
            "crm.no",
            "c rm",
            "../crm",
            "tahini",
            &"a".repeat(64),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
