//! `tahini explain`: the manual of the language's functions, and what rules in a file read.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value as Json, json};
use tahini_dtl::JsonPath;
use tahini_dtl::manual::{self, Entry};
use tahini_hub::Cancel;
use tahini_hub::beside::Beside;
use tahini_hub::preview::{Look, MAX_PREVIEW, Way};

use super::transform::{Opened, open};
use crate::cli::{Explain, INVALID, OK};
use crate::{say, shown};

/// Prints the rows of the names, the analysis of the files, or the list of all functions.
pub fn explain(options: &Explain) -> anyhow::Result<u8> {
    if options.names.is_empty() {
        print_all(options.json);
        return Ok(OK);
    }
    let mut all: Vec<Json> = Vec::new();
    for name in &options.names {
        let found = manual::find(name);
        let path = Path::new(name);
        if found.is_empty() && path.is_file() {
            match of_file(path, options)? {
                Some(json) => all.push(json),
                None => return Ok(INVALID),
            }
            continue;
        }
        if found.is_empty() {
            let help = manual::nearest(name);
            bail!("expected the name of a function or a file with rules, found {name:?}{help}");
        }
        for entry in found {
            match options.json {
                true => all.push(manual::json(entry)),
                false => say::line(&format!("{}\n", manual::text(entry))),
            }
        }
    }
    if options.json {
        say::line(&Json::Array(all).to_string());
    }
    Ok(OK)
}

/// Every function on a line of its own, by chapter.
fn print_all(as_json: bool) {
    if as_json {
        let all: Vec<Json> = manual::entries().map(manual::json).collect();
        say::line(&Json::Array(all).to_string());
        return;
    }
    let width = manual::entries()
        .map(|entry| entry.function.name.len())
        .max()
        .unwrap_or(0);
    let mut chapter = "";
    for entry in manual::entries() {
        if entry.chapter != chapter {
            let gap = if chapter.is_empty() { "" } else { "\n" };
            chapter = entry.chapter;
            say::line(&format!("{gap}{chapter}"));
        }
        let name = entry.function.name;
        say::line(&format!("  {name:width$}  {}", summary(entry)));
    }
}

/// The first sentence of what a function does.
fn summary(entry: Entry) -> &'static str {
    let doc = entry.function.doc;
    doc.find(". ").map_or(doc, |end| &doc[..=end])
}

/// What the rules in a file read and depend on; `None` when they have errors, which are printed.
fn of_file(path: &Path, options: &Explain) -> anyhow::Result<Option<Json>> {
    let Some(opened) = open(&PathBuf::from(path), &options.setting)? else {
        return Ok(None);
    };
    let Opened {
        pipe,
        assembly,
        rules,
    } = &opened;
    let beside = Beside::default();
    let world = &assembly.hub.world;
    let look = Look {
        requests: false,
        now: world.clock.now(),
        beside: &beside,
        store: false,
        side_effects: true,
        trace: false,
        most: MAX_PREVIEW,
    };
    let way = Way::open(pipe, world, &Cancel::new(), look)?;
    let mut all: Vec<Json> = Vec::new();
    for (at, (transform, program)) in way.programs().enumerate() {
        let place = |path: &JsonPath| rules.path(&transform.join(path));
        all.push(shown::analysis(program, &place));
        if !options.json {
            say::line(&format!("{}: rules {}", path.display(), at + 1));
            for line in shown::analysis_text(program, &place).lines() {
                say::line(&format!("  {line}"));
            }
        }
    }
    opened.assembly.close();
    Ok(Some(
        json!({"file": path.display().to_string(), "rules": all}),
    ))
}
