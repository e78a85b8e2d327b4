//! The rows of properties and what the code reads, held against each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tahini_connectors::{SINKS, SOURCES, SYSTEMS, TRANSFORMS};
use tahini_hub::builtin;
use tahini_hub::config::{
    Kind, METADATA, PIPE, Property, SINK_COMMON, SOURCE_COMMON, SYSTEM_COMMON, TRANSFORM_COMMON,
    Use,
};
use tahini_hub::project::TEST;

/// Files that say what there may be, and read nothing.
const TABLES: &[&str] = &["config/rows.rs", "config/checks.rs", "config/schema.rs"];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, out);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            out.push(path);
        }
    }
}

/// The code of the crates that read configuration, without its tests and tables.
fn code() -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in ["hub/src", "connectors/src", "node/src"] {
        sources(&crates.join(part), &mut files);
    }
    files.retain(|file| !TABLES.iter().any(|table| file.ends_with(table)));
    let texts = files.iter().map(|file| {
        let text = fs::read_to_string(file).unwrap();
        let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        text[..end].to_owned()
    });
    texts.collect::<Vec<String>>().join("\n")
}

/// Whether the code names the property other than in a row of its own.
fn is_read(code: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    code.match_indices(&quoted).any(|(at, _)| {
        let before = code[..at].trim_end();
        !["Property::new(", "Property::required(", "row("]
            .iter()
            .any(|row| before.ends_with(row))
    })
}

/// Whether the code takes the property out of a configuration.
fn is_taken(code: &str, name: &str) -> bool {
    [
        "bool",
        "str",
        "int",
        "opt_str",
        "opt_int",
        "opt_list",
        "opt_object",
        "opt_seconds",
    ]
    .iter()
    .any(|read| code.contains(&format!(".{read}(\"{name}\"")))
}

/// All rows by name, nested ones too, each with the table that it stands in.
fn rows() -> BTreeMap<&'static str, Vec<(String, &'static Property)>> {
    fn add(
        table: &str,
        rows: &'static [Property],
        out: &mut BTreeMap<&'static str, Vec<(String, &'static Property)>>,
    ) {
        for row in rows {
            out.entry(row.name)
                .or_default()
                .push((table.to_owned(), row));
            if let Kind::Nested(inner) | Kind::Each(inner) = row.kind {
                add(&format!("{table}.{}", row.name), inner, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    for (table, rows) in [
        ("pipe", PIPE),
        ("metadata", METADATA),
        ("source", SOURCE_COMMON),
        ("transform", TRANSFORM_COMMON),
        ("sink", SINK_COMMON),
        ("system", SYSTEM_COMMON),
        ("test", TEST),
    ] {
        add(table, rows, &mut out);
    }
    for row in builtin::SOURCES.iter().chain(SOURCES) {
        add(row.name, row.properties, &mut out);
    }
    for row in builtin::SINKS.iter().chain(SINKS) {
        add(row.name, row.properties, &mut out);
    }
    for row in builtin::TRANSFORMS.iter().chain(TRANSFORMS) {
        add(row.name, row.properties, &mut out);
    }
    for row in SYSTEMS {
        add(row.name, row.properties, &mut out);
    }
    out
}

#[test]
fn every_property_is_read_or_marked() {
    let code = code();
    let mut silent = Vec::new();
    let mut outdated = Vec::new();
    for (name, rows) in rows() {
        let is_open = |row: &Property| matches!(row.used, Use::NotYet | Use::Withheld);
        for (table, row) in &rows {
            let reads_nothing =
                matches!(row.used, Use::Acted | Use::Only(_)) && !is_read(&code, name);
            if reads_nothing && !matches!(row.kind, Kind::Nested(_) | Kind::Each(_)) {
                silent.push(format!("{table}.{name}"));
            }
        }
        if rows.iter().all(|(_, row)| is_open(row)) && is_taken(&code, name) {
            outdated.push(name);
        }
    }
    assert!(
        silent.is_empty(),
        "accepted, and nothing reads them: {silent:?}"
    );
    assert!(
        outdated.is_empty(),
        "marked as not acted upon, and read: {outdated:?}"
    );
}

#[test]
fn the_search_tells_a_row_from_a_reader() {
    let code = "const X: Property = Property::new(\n    \"lonely\", Kind::Any, \"…\");\n\
                let x = props.bool(\"used\", false)?; row(\"used\", Kind::Any, \"…\");";
    assert!(!is_read(code, "lonely"));
    assert!(is_read(code, "used") && is_taken(code, "used") && !is_taken(code, "lonely"));
}
