//! Configuration as a zip archive: one file a component.

use std::io::{Cursor, Read as _, Write as _};

use serde_json::Value as Json;
use tahini_hub::config::Text;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::Problem;

/// Files that an archive may hold.
const MAX_FILES: usize = 20_000;
/// Bytes that they may have together, unpacked.
const MAX_BYTES: u64 = 256 << 20;

/// Packs components: `pipes/<id>.conf.json`, `systems/<id>.conf.json`, `node-metadata.conf.json`.
pub fn pack(components: &[&Json]) -> Result<Vec<u8>, Problem> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let failed = |error: &dyn std::fmt::Display| {
        let words = format!("the archive could not be written: {error}");
        Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, words)
    };
    for component in components {
        let name = file_name(component);
        archive
            .start_file(name, options)
            .map_err(|error| failed(&error))?;
        let text = format!("{component:#}\n");
        archive
            .write_all(text.as_bytes())
            .map_err(|error| failed(&error))?;
    }
    let bytes = archive.finish().map_err(|error| failed(&error))?;
    Ok(bytes.into_inner())
}

fn file_name(component: &Json) -> String {
    let text = |name: &str| {
        component
            .get(name)
            .and_then(Json::as_str)
            .unwrap_or_default()
    };
    let folder = match text("type") {
        "metadata" => return "node-metadata.conf.json".to_owned(),
        kind if kind.starts_with("system:") => "systems",
        _ => "pipes",
    };
    // Identity is the `_id`, so that a name may be bent to stay within its folder.
    let id = text("_id")
        .replace('%', "%25")
        .replace('/', "%2F")
        .replace('\\', "%5C");
    format!("{folder}/{id}.conf.json")
}

/// Unpacks the components of an archive; a file holds one or a list of them. Files that are not
/// configuration are passed over.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Json>, Problem> {
    let wrong = |words: String| Problem::bad(format!("expected a zip archive: {words}"));
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| wrong(error.to_string()))?;
    if archive.len() > MAX_FILES {
        return Err(wrong(format!(
            "at most {MAX_FILES} files, found {}",
            archive.len()
        )));
    }
    let (mut components, mut left) = (Vec::new(), MAX_BYTES);
    for at in 0..archive.len() {
        let file = archive
            .by_index(at)
            .map_err(|error| wrong(error.to_string()))?;
        let name = file.name().to_owned();
        if file.is_dir() || !name.ends_with(".conf.json") {
            continue;
        }
        let mut text = Vec::new();
        let read = file.take(left + 1).read_to_end(&mut text);
        read.map_err(|error| wrong(format!("{name}: {error}")))?;
        left = left.checked_sub(text.len() as u64).ok_or_else(|| {
            wrong(format!(
                "at most {MAX_BYTES} bytes of configuration, found more"
            ))
        })?;
        match parse(&name, &text)? {
            Json::Array(list) => components.extend(list),
            one => components.push(one),
        }
    }
    Ok(components)
}

fn parse(name: &str, bytes: &[u8]) -> Result<Json, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Problem::bad(format!("{name}: expected UTF-8, found other bytes")))?;
    let parsed = Text::parse(text.trim_start_matches('\u{feff}'), Some(name.as_ref()));
    let first = parsed.problems.iter().find(|problem| problem.is_error());
    match (parsed.json, first) {
        (Some(json), None) => Ok(json),
        (_, Some(problem)) => Err(Problem::bad(problem.to_string())),
        (None, None) => Err(Problem::bad(format!("{name}: expected JSON, found none"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_as_it_was() {
        let components: Vec<Json> = [
            r#"{"_id":"node","type":"metadata","task_manager":{}}"#,
            r#"{"_id":"a/b","type":"pipe","n":1.0,"big":123456789012345678901234567890,"æ":"~tø"}"#,
            r#"{"_id":"s","type":"system:url","z":1,"a":2}"#,
        ]
        .map(|text| serde_json::from_str(text).unwrap())
        .into();
        let packed = pack(&components.iter().collect::<Vec<_>>()).unwrap();
        let names: Vec<String> = ZipArchive::new(Cursor::new(&packed))
            .unwrap()
            .file_names()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            names,
            [
                "node-metadata.conf.json",
                "pipes/a%2Fb.conf.json",
                "systems/s.conf.json"
            ]
        );
        let unpacked = unpack(&packed).unwrap();
        let text = |all: &[Json]| all.iter().map(Json::to_string).collect::<Vec<_>>();
        assert_eq!(text(&unpacked), text(&components));
    }

    #[test]
    fn lists_byte_order_marks_and_other_files_are_borne() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let mut add = |name: &str, text: &str| {
            archive
                .start_file(name, SimpleFileOptions::default())
                .unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        };
        add(
            "pipes/all.conf.json",
            "\u{feff}[{\"_id\":\"a\"},{\"_id\":\"b\"}]",
        );
        add("README.md", "not json");
        let bytes = archive.finish().unwrap().into_inner();
        assert_eq!(unpack(&bytes).unwrap().len(), 2);
    }

    #[test]
    fn a_broken_file_is_named() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        archive
            .start_file("pipes/bad.conf.json", SimpleFileOptions::default())
            .unwrap();
        archive.write_all(b"{\"_id\": ").unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        let problem = unpack(&bytes).unwrap_err();
        assert!(
            problem.detail.contains("pipes/bad.conf.json"),
            "{}",
            problem.detail
        );
        assert!(unpack(b"PK but no zip").is_err());
    }
}
