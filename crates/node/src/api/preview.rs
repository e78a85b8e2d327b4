//! `POST /api/pipes/{pipe_id}/preview`: what a pipe makes of an entity, step by step.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use tahini_entity::Batch;
use tahini_entity::json::{Numbers, Parser, to_config};
use tahini_hub::beside::Beside;
use tahini_hub::config::Level;
use tahini_hub::preview::{Look, MAX_PREVIEW, Way};
use tahini_hub::{Cancel, Pipe, World};

use super::answer::json_answer;
use super::pipes::named;
use super::{Answer, Call, Node, Problem};
use crate::assembly::REGISTRY;
use crate::shown;

/// The most entities of one preview.
const MAX_ENTITIES: usize = 100;

/// What is asked for: of a JSON object, or of a form whose fields are text.
struct Asked {
    source: Json,
    /// A configuration to look at instead of the pipe's own.
    pipe: Option<Json>,
    /// Datasets that stand for those of the node.
    datasets: Map<String, Json>,
    now: Option<String>,
    trace: bool,
    side_effects: bool,
}

/// Puts the given entities through the pipe's transforms. Nothing is written; transforms with side
/// effects are run only when that is asked for.
pub fn preview(node: &Node, call: &Call) -> Answer {
    let asked = match call.is_body("application/json") || call.body.starts_with(b"{") {
        true => Asked::of_json(call.object()?)?,
        false => Asked::of_form(call)?,
    };
    let (source, wants_requests) = asked.without_trace();
    let input = batch(&source, "source")?;
    let mut beside = Beside::default();
    for (name, entities) in &asked.datasets {
        beside.give(name, &batch(entities, name)?);
    }
    // Its own requests alone.
    let world = &World {
        traced: Default::default(),
        ..node.assembly.hub.world.clone()
    };
    let now = match &asked.now {
        None => world.clock.now(),
        Some(text) => text.parse::<Timestamp>().map_err(|error| {
            Problem::bad(format!(
                "expected now to be a time, found {text:?}: {error}"
            ))
        })?,
    };
    let look = Look {
        now,
        beside: &beside,
        store: true,
        side_effects: asked.side_effects,
        trace: asked.trace,
        requests: wants_requests,
        most: MAX_PREVIEW,
    };
    let outcome = match &asked.pipe {
        None => {
            let live = named(node, call)?;
            Way::open(live.usable()?, world, &Cancel::new(), look)?.pass(&input)
        }
        Some(config) => {
            let pipe = candidate(node, call, config)?;
            Way::open(&pipe, world, &Cancel::new(), look)?.pass(&input)
        }
    };
    let requests = wants_requests.then(|| {
        let told = world.traced.take();
        told.map_or_else(|| json!([]), |told| to_config(&told))
    });
    match outcome {
        Ok(passed) => {
            let mut shown = shown::passed(&input, &passed, asked.trace);
            if let Some(requests) = requests {
                shown["requests"] = requests;
            }
            json_answer(&shown)
        }
        Err(failure) => {
            let problem = Problem::from(failure.hiding(node.assembly.secrets.as_ref()));
            Err(match requests {
                Some(requests) => problem.with("requests", requests),
                None => problem,
            })
        }
    }
}

/// The pipe that a given configuration would make, were it the node's.
fn candidate(node: &Node, call: &Call, config: &Json) -> Result<Pipe, Problem> {
    let mut config = config.clone();
    let Json::Object(map) = &mut config else {
        return Err(Problem::bad(
            "expected pipe to be an object of configuration",
        ));
    };
    map.insert("_id".to_owned(), call.id("pipe_id").into());
    map.insert("type".to_owned(), "pipe".into());
    let mut held = node.stored.held();
    held.put(config);
    let configuration = held.build();
    let component = configuration.get(call.id("pipe_id"));
    let component = component.ok_or_else(|| Problem::bad("expected a pipe's configuration"))?;
    let errors: Vec<Json> = component
        .problems
        .iter()
        .filter(|problem| problem.level == Level::Error)
        .map(|problem| problem.to_json())
        .collect();
    if !errors.is_empty() {
        let problem = Problem::bad("expected a pipe that can run, found errors in it");
        return Err(problem.with("errors", Json::Array(errors)));
    }
    Ok(Pipe::of(component, &REGISTRY)?)
}

impl Asked {
    /// The entities without `_trace`, and whether one of them asks for the requests with it.
    fn without_trace(&self) -> (Json, bool) {
        let mut source = self.source.clone();
        let entities = match &mut source {
            Json::Array(entities) => entities.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        let objects = entities.iter_mut().filter_map(Json::as_object_mut);
        let asked: Vec<Option<Json>> = objects.map(|entity| entity.remove("_trace")).collect();
        (source, asked.contains(&Some(Json::Bool(true))))
    }

    fn of_json(mut body: Map<String, Json>) -> Result<Asked, Problem> {
        let flag = |body: &Map<String, Json>, name: &str| match body.get(name) {
            None | Some(Json::Null) => Ok(false),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Problem::bad(format!(
                "expected {name} to be true or false, found {other}"
            ))),
        };
        const KNOWN: [&str; 6] = ["source", "pipe", "datasets", "now", "trace", "side_effects"];
        if let Some(name) = body.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            let known = KNOWN.join(", ");
            return Err(Problem::bad(format!(
                "expected the members {known}, found {name:?}"
            )));
        }
        let (trace, side_effects) = (flag(&body, "trace")?, flag(&body, "side_effects")?);
        let datasets = match body.remove("datasets") {
            None | Some(Json::Null) => Map::new(),
            Some(Json::Object(datasets)) => datasets,
            Some(_) => {
                return Err(Problem::bad(
                    "expected datasets to be an object of lists of entities, by name",
                ));
            }
        };
        let now = match body.remove("now") {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(text),
            Some(other) => {
                return Err(Problem::bad(format!(
                    "expected now to be text, found {other}"
                )));
            }
        };
        Ok(Asked {
            source: body.remove("source").ok_or_else(no_source)?,
            pipe: body.remove("pipe").filter(|pipe| !pipe.is_null()),
            datasets,
            now,
            trace,
            side_effects,
        })
    }

    fn of_form(call: &Call) -> Result<Asked, Problem> {
        let form = call.form();
        let json = |name: &str| {
            let text = form.get(name).filter(|text| !text.is_empty());
            text.map(serde_json::from_str::<Json>)
                .transpose()
                .map_err(|error| Problem::bad(format!("expected JSON in {name}: {error}")))
        };
        let flag = |name: &str| {
            form.get(name)
                .is_some_and(|text| text.eq_ignore_ascii_case("true"))
        };
        Ok(Asked {
            source: json("source")?.ok_or_else(no_source)?,
            pipe: json("pipe-config")?,
            datasets: Map::new(),
            now: form.get("now").map(str::to_owned),
            trace: flag("trace"),
            side_effects: flag("side_effects"),
        })
    }
}

fn no_source() -> Problem {
    Problem::bad(
        "expected the entity to look at as source, found none; the body is \
         {\"source\": {\"_id\": …}, \"trace\": true}",
    )
}

/// One entity or a list of them.
fn batch(json: &Json, name: &str) -> Result<Batch, Problem> {
    let entities = match json {
        Json::Array(entities) => entities.as_slice(),
        one => std::slice::from_ref(one),
    };
    if name == "source" && entities.len() > MAX_ENTITIES {
        return Err(Problem::bad(format!(
            "expected at most {MAX_ENTITIES} entities to look at, found {}",
            entities.len()
        )));
    }
    let (mut batch, mut parser) = (Batch::new(), Parser::new(Numbers::default()));
    for entity in entities {
        parser
            .push_json(&mut batch, entity.to_string().as_bytes())
            .map_err(|error| Problem::bad(format!("expected entities in {name}: {error}")))?;
    }
    Ok(batch)
}
