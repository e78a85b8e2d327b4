//! `tahini trace`: one entity's way through a pipe, and why it was written or not.

mod outcome;

use serde_json::{Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_hub::source::{From, Step};
use tahini_hub::stage::end_of_looking;
use tahini_hub::{Cancel, Hub, Pipe, Transform, apply_all};

use super::run::assemble;
use crate::assembly::{Loaded, print_problems, read_objects};
use crate::cli::{FAILED, OK, Trace};
use crate::say;

/// Reads the source up to the entity and shows every step.
pub fn trace(options: &Trace) -> anyhow::Result<u8> {
    let mut loaded = Loaded::read(
        std::slice::from_ref(&options.project),
        &options.setting.profile,
    )?;
    loaded.env.extend(read_objects(&options.setting.env)?);
    let configuration = loaded.configure();
    print_problems(&loaded.problems(&configuration));
    let path = format!("/api/pipes/{}/entities", options.pipe);
    let store = super::open_store_to_look(&options.store.data, "what the pipe gives", &path)?;
    let assembly = assemble(store.clone(), &options.setting)?;
    assembly.apply(configuration)?;
    let outcome = follow(&assembly.hub, &options.pipe, &options.id);
    assembly.close();
    store.close()?;
    let steps = outcome?;
    if options.json {
        say::line(&json!({"pipe": options.pipe, "entity": options.id, "steps": steps}).to_string());
    } else {
        steps.iter().for_each(print);
    }
    Ok(if steps.len() > 1 { OK } else { FAILED })
}

fn print(step: &Json) {
    say::line(&format!("{}:", step["step"].as_str().unwrap_or_default()));
    match step.get("entities").and_then(Json::as_array) {
        Some(entities) if entities.is_empty() => say::line("  nothing"),
        Some(entities) => entities
            .iter()
            .for_each(|entity| say::line(&format!("  {entity}"))),
        None => {}
    }
    let message = step["message"].as_str().unwrap_or_default();
    for line in message.lines() {
        say::line(&format!("  {line}"));
    }
}

fn follow(hub: &Hub, pipe: &str, id: &str) -> anyhow::Result<Vec<Json>> {
    let live = hub.pipe(pipe)?;
    let pipe = live.usable()?;
    let cancel = Cancel::new();
    let mut steps = Vec::new();
    let Some(source) = find(hub, pipe, id, &cancel)? else {
        let words = format!("the source gives no entity that becomes or is {id:?}");
        steps.push(json!({"step": "source", "message": words}));
        // It may be stored all the same: the source has it no more.
        steps.extend(outcome::stored_step(hub, pipe, id)?);
        return Ok(steps);
    };
    steps.push(json!({"step": "source", "entities": shown(&source)}));
    let mut current = source.clone();
    let end = end_of_looking(pipe);
    let mut ended = false;
    for (step, at, mut transform) in way(hub, pipe, &cancel)? {
        let ends = end.as_ref().filter(|(first, _)| at == Some(*first));
        if let Some((_, why)) = ends {
            let words = format!("not run, and so nothing after it: {why}");
            steps.push(json!({"step": step, "message": words}));
            ended = true;
            break;
        }
        let mut out = Batch::new();
        if let Err(failure) = transform.apply(&current, &mut out, &mut Vec::new()) {
            steps.push(json!({"step": step, "message": format!("failed: {failure}")}));
            ended = true;
            break;
        }
        steps.push(json!({"step": step, "entities": shown(&out)}));
        current = out;
    }
    if ended {
        steps.extend(outcome::stored_step(hub, pipe, id)?);
    } else {
        steps.push(outcome::sink_step(hub, &live, pipe, (&source, &current))?);
    }
    steps.extend(outcome::held_step(hub, pipe, &source, &current)?);
    Ok(steps)
}

/// A step between source and sink: its name, its position if it is a transform, and what it does.
type Passage = (String, Option<usize>, Box<dyn Transform>);

/// Everything between source and sink, in order.
fn way(hub: &Hub, pipe: &Pipe, cancel: &Cancel) -> anyhow::Result<Vec<Passage>> {
    let named = |name: &str| {
        let name = name.to_owned();
        move |transform| (name, None, transform)
    };
    let mut way: Vec<Passage> = Vec::new();
    way.extend(pipe.adding_namespaces().map(named("add_namespaces")));
    let transforms = pipe.open_transforms(&hub.world, cancel)?;
    for (at, (transform, config)) in transforms.into_iter().zip(pipe.transforms()).enumerate() {
        let kind = config["type"].as_str().unwrap_or_default();
        let name = format!("transform {} ({kind})", at + 1);
        way.push((name, Some(at), transform));
    }
    way.extend(pipe.removing_namespaces().map(named("remove_namespaces")));
    Ok(way)
}

/// The entity by its id in the source; where the source gives none, by what it becomes, as far as
/// a look can tell.
fn find(hub: &Hub, pipe: &Pipe, id: &str, cancel: &Cancel) -> anyhow::Result<Option<Batch>> {
    let from = From {
        full: true,
        ..From::default()
    };
    let mut source = pipe.open_source(&hub.world, cancel, from)?;
    let end = pipe.first_side_effect();
    let mut transforms: Vec<_> = way(hub, pipe, cancel)?
        .into_iter()
        .take_while(|(_, at, _)| end.is_none() || *at != end)
        .map(|(_, _, transform)| transform)
        .collect();
    loop {
        let mut batch = Batch::new();
        let step = source.next_batch(100, &mut batch)?;
        for record in batch.iter() {
            let mut one = Batch::new();
            one.push(record);
            let is_it = match record.id {
                Some(found) => found == id,
                None => becomes(&one, id, &mut transforms),
            };
            if is_it {
                return Ok(Some(one));
            }
        }
        if step == Step::End {
            return Ok(None);
        }
    }
}

fn becomes(one: &Batch, id: &str, transforms: &mut [Box<dyn Transform>]) -> bool {
    let is_it = |batch: &Batch| batch.iter().any(|record| record.id == Some(id));
    match apply_all(transforms, one) {
        Ok(outputs) => is_it(outputs.as_ref().map_or(one, |outputs| &outputs.batch)),
        Err(_) => false,
    }
}

fn shown(batch: &Batch) -> Vec<Json> {
    let mut text = Vec::new();
    batch
        .iter()
        .filter_map(|record| {
            text.clear();
            write_record(record, Fields::ALL, &mut text);
            serde_json::from_slice(&text).ok()
        })
        .collect()
}
