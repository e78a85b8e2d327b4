//! `tahini transform`: entities through rules, from stdin to stdout.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::{Map, Value as Json, json};
use tahini_hub::Pipe;
use tahini_hub::config::{Configuration, Input};
use tahini_store::{Backend, Memory};

use crate::assembly::{Assembly, REGISTRY, print_problems, read_objects};
use crate::cli::{INVALID, OK, Setting, Transform};

const PIPE: &str = "transform";
const METADATA: &str = "node-metadata.conf.json";

/// Reads NDJSON or an array, writes a line an entity.
pub fn transform(options: &Transform) -> anyhow::Result<u8> {
    let Some(opened) = open(&options.rules, &options.setting)? else {
        return Ok(INVALID);
    };
    let looks = options.explain || options.now.is_some() || !options.datasets.is_empty();
    let code = match looks {
        true => super::look::look(&opened, options)?,
        false => super::stream::pump(&opened.pipe, &opened.assembly.hub.world).map(|()| OK)?,
    };
    opened.assembly.close();
    Ok(code)
}

/// Rules as a pipe, ready to be opened.
pub(super) struct Opened {
    pub(super) pipe: Pipe,
    pub(super) assembly: Assembly,
}

/// Reads rules from a file; `None` when they have errors, which are printed.
pub(super) fn open(file: &Path, setting: &Setting) -> anyhow::Result<Option<Opened>> {
    let rules = read_rules(file)?;
    let pipe = as_pipe(rules).ok_or_else(|| {
        anyhow!(
            "{}: expected a rules object, a dtl transform or a pipe",
            file.display()
        )
    })?;
    let env = read_objects(&setting.env)?;
    let mut input = Input::new(pipe);
    input.file = Some(file.to_owned());
    let inputs = [Some(input), metadata_of(file)?];
    let inputs = inputs.into_iter().flatten().collect();
    let configuration = Configuration::build(inputs, &env, &REGISTRY);
    if print_problems(&configuration.problems().collect::<Vec<_>>()) {
        return Ok(None);
    }
    let component = configuration
        .pipes()
        .next()
        .ok_or_else(|| anyhow!("expected a pipe"))?;
    let pipe = Pipe::of(component, &REGISTRY)?;
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let assembly = super::run::assemble(store, setting)?;
    Ok(Some(Opened { pipe, assembly }))
}

fn read_rules(file: &Path) -> anyhow::Result<Json> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let read = tahini_hub::config::Text::parse(&text, Some(file));
    print_problems(&read.problems.iter().collect::<Vec<_>>());
    read.json
        .ok_or_else(|| anyhow!("{} is not JSON", file.display()))
}

/// The node metadata of the project that a file in its `pipes` folder belongs to: namespaces and
/// other defaults hold for the pipe here as they do there.
fn metadata_of(file: &Path) -> anyhow::Result<Option<Input>> {
    let Ok(file) = file.canonicalize() else {
        return Ok(None);
    };
    let folder = file.parent().filter(|folder| folder.ends_with("pipes"));
    let Some(metadata) = folder
        .and_then(Path::parent)
        .map(|project| project.join(METADATA))
    else {
        return Ok(None);
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut input = Input::new(read_rules(&metadata)?);
    input.file = Some(metadata);
    Ok(Some(input))
}

/// The pipe that has these rules; a whole pipe keeps its transforms and loses its ends.
fn as_pipe(rules: Json) -> Option<Json> {
    let map = rules.as_object()?;
    let mut pipe = match map.get("type").and_then(Json::as_str) {
        Some("pipe") => map.clone(),
        Some(_) => Map::from_iter([("transform".to_owned(), rules.clone())]),
        None => {
            let rules = map.get("rules").unwrap_or(&rules).clone();
            let transform = json!({"type": "dtl", "rules": rules});
            Map::from_iter([("transform".to_owned(), transform)])
        }
    };
    pipe.entry("_id").or_insert_with(|| json!(PIPE));
    pipe.insert("type".to_owned(), json!("pipe"));
    pipe.insert("source".to_owned(), json!({"type": "empty"}));
    pipe.insert("sink".to_owned(), json!({"type": "null"}));
    Some(Json::Object(pipe))
}
