//! `tahini transform`: entities through rules, from stdin to stdout.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::{Map, Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Fields, Layout, Numbers, Parser, write_record};
use tahini_hub::config::{Configuration, Input};
use tahini_hub::pipe::World;
use tahini_hub::{Cancel, Pipe};
use tahini_store::{Backend, Memory};

use crate::assembly::{REGISTRY, print_problems, read_objects};
use crate::cli::{INVALID, OK, Transform};
use crate::say;

/// Entities transformed at a time.
const ROWS: usize = 1000;
const PIPE: &str = "transform";

/// Reads NDJSON or an array, writes a line an entity.
pub fn transform(options: &Transform) -> anyhow::Result<u8> {
    let rules = read_rules(&options.rules)?;
    let pipe = as_pipe(rules).ok_or_else(|| {
        anyhow!(
            "{}: expected a rules object, a dtl transform or a pipe",
            options.rules.display()
        )
    })?;
    let env = read_objects(&options.setting.env)?;
    let mut input = Input::new(pipe);
    input.file = Some(options.rules.clone());
    let configuration = Configuration::build(vec![input], &env, &REGISTRY);
    if print_problems(&configuration.problems().collect::<Vec<_>>()) {
        return Ok(INVALID);
    }
    let component = configuration
        .pipes()
        .next()
        .ok_or_else(|| anyhow!("expected a pipe"))?;
    let pipe = Pipe::of(&component.id, &component.effective, None, &REGISTRY)?;
    let store: Arc<dyn Backend> = Arc::new(Memory::new());
    let assembly = super::run::assemble(store, &options.setting)?;
    pump(&pipe, &assembly.hub.world)?;
    assembly.close();
    Ok(OK)
}

fn read_rules(file: &std::path::Path) -> anyhow::Result<Json> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let read = tahini_hub::config::Text::parse(&text, Some(file));
    print_problems(&read.problems.iter().collect::<Vec<_>>());
    read.json
        .ok_or_else(|| anyhow!("{} is not JSON", file.display()))
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

fn pump(pipe: &Pipe, world: &World) -> anyhow::Result<()> {
    let mut transforms = pipe.open_transforms(world, &Cancel::new())?;
    let mut elements = Elements::new(std::io::stdin().lock(), Layout::ArrayOrLines);
    let mut parser = Parser::new(Numbers::default());
    let (mut batch, mut text) = (Batch::new(), Vec::new());
    loop {
        batch.clear();
        let mut ended = false;
        while batch.len() < ROWS && !ended {
            match elements.next_element()? {
                Some(element) => parser.push_json(&mut batch, element)?,
                None => ended = true,
            }
        }
        let mut current = None;
        for transform in &mut transforms {
            let mut out = Batch::new();
            let input = current.as_ref().unwrap_or(&batch);
            transform.apply(input, &mut out, &mut Vec::new())?;
            current = Some(out);
        }
        text.clear();
        for record in current.as_ref().unwrap_or(&batch).iter() {
            write_record(record, Fields::SINK, &mut text);
            text.push(b'\n');
        }
        say::bytes(&text);
        if ended {
            return Ok(());
        }
    }
}
