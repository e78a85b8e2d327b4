//! What every test calls: compile rules, run entities through them, datasets in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tahini_dtl::{
    By, Context, EvalError, Lookup, LookupError, Need, Options, Problem, Program, compile,
};
use tahini_entity::json::{self, Fields, Numbers, Opened};
use tahini_entity::{Batch, Entity, Str, Value, order};

/// Datasets in memory, and the previous version of the source entity.
#[derive(Default)]
pub struct Datasets {
    pub entities: BTreeMap<String, Vec<Arc<Entity>>>,
    pub previous: Option<Arc<Entity>>,
    /// How many needs each call had.
    pub calls: RefCell<Vec<usize>>,
}

impl Datasets {
    pub fn from_json(json: &Json) -> Datasets {
        let mut datasets = Datasets::default();
        for (name, entities) in json.as_object().into_iter().flatten() {
            let entities = entities
                .as_array()
                .unwrap()
                .iter()
                .map(|e| Arc::new(entity(e)));
            datasets.entities.insert(name.clone(), entities.collect());
        }
        datasets
    }
}

impl Lookup for Datasets {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        self.calls.borrow_mut().push(needs.len());
        Ok(needs.iter().map(|need| self.answer(need)).collect())
    }
}

impl Datasets {
    fn answer(&self, need: &Need<'_>) -> Vec<Arc<Entity>> {
        let all = self
            .entities
            .get(need.dataset)
            .map_or(&[][..], Vec::as_slice);
        let matches = |entity: &Entity| match &need.by {
            By::Id(id) => entity.id.as_deref() == Some(id),
            By::Key(index, value) => {
                let mut keys = Vec::new();
                index.keys(entity, &mut keys);
                keys.iter().any(|key| order::eq(key, value))
            }
            By::Previous { .. } | By::Completeness(_) => false,
        };
        if matches!(need.by, By::Previous { .. }) {
            return self.previous.clone().into_iter().collect();
        }
        let mut found: Vec<Arc<Entity>> = all
            .iter()
            .filter(|entity| !entity.deleted && matches(entity))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

/// An entity from JSON, numbers with a point as floats.
pub fn entity(json: &Json) -> Entity {
    json::entity_from_config(json, Numbers::FLOATS, 0).unwrap()
}

/// Text to JSON.
pub fn parse(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A batch of entities.
pub fn batch(entities: &[Json]) -> Batch {
    let mut batch = Batch::new();
    for json in entities {
        batch.push_entity(&entity(json)).unwrap();
    }
    batch
}

/// Runs entities through a program; pauses are noted and not made.
pub fn run(
    program: &Program,
    input: &Batch,
    lookup: &dyn Lookup,
    pauses: &RefCell<Vec<Duration>>,
) -> Result<(Vec<Entity>, Vec<u32>), EvalError> {
    let pause = |pause: Duration| {
        pauses.borrow_mut().push(pause);
        true
    };
    let now = "2024-02-29T12:30:00.5Z".parse().unwrap();
    let mut context = Context::new(now, lookup);
    context.pause = Some(&pause);
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let result = program.transform(input, &context, &mut out, &mut origins);
    if program.is_deterministic() && !program.sleeps() && is_small(input) {
        ways_agree(program, input, &context);
    }
    result?;
    Ok((
        out.iter().map(|record| record.to_entity()).collect(),
        origins,
    ))
}

/// Compiles rules given as text.
pub fn rules(text: &str, options: &Options) -> Result<Program, Vec<Problem>> {
    compile(&parse(text), options)
}

/// What statements make of an entity with the `_id` "1" and these properties: the emitted
/// entities as JSON text.
pub fn outcome(statements: &str, source: &str, options: &Options) -> Vec<String> {
    let mut source = parse(source);
    if source.get("_id").is_none() {
        source["_id"] = Json::from("1");
    }
    outcome_of(statements, &source, options)
}

/// What statements make of an entity.
pub fn outcome_of(statements: &str, source: &Json, options: &Options) -> Vec<String> {
    let program = rules(&format!("{{\"default\": {statements}}}"), options);
    let program = program.unwrap_or_else(|problems| panic!("{statements}: {problems:?}"));
    let datasets = Datasets::default();
    let input = batch(std::slice::from_ref(source));
    let (entities, _) = run(&program, &input, &datasets, &RefCell::default()).unwrap();
    entities.iter().map(text_of).collect()
}

/// The value of an expression for a source entity with these properties, as wire JSON.
pub fn value(expression: &str, source: &str) -> String {
    try_value(expression, source).unwrap_or_else(|words| panic!("{expression}: {words}"))
}

/// The same; what is wrong with the expression is an error.
pub fn try_value(expression: &str, source: &str) -> Result<String, String> {
    let text = format!("{{\"default\": [[\"add\", \"r\", {expression}]]}}");
    let options = Options {
        pipe: "pipe".to_owned(),
        ..Options::default()
    };
    let program = rules(&text, &options).map_err(|problems| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let mut source = parse(source);
    source["_id"] = Json::from("1");
    let datasets = Datasets::default();
    let ran = run(&program, &batch(&[source]), &datasets, &RefCell::default());
    let (entities, _) = ran.map_err(|error| error.to_string())?;
    Ok(wire(
        entities[0].properties.get("r").unwrap_or(&Value::Null),
    ))
}

/// A value as wire JSON.
pub fn wire(value: &Value) -> String {
    let mut out = Vec::new();
    json::write_value(value, &mut out);
    String::from_utf8(out).unwrap()
}

/// An entity as wire JSON: its content, and `_filtered` when it is.
pub fn text_of(entity: &Entity) -> String {
    wire(&as_value(entity))
}

/// An entity as a dict: `_id`, `_deleted` and `_filtered` where true, properties.
pub fn as_value(entity: &Entity) -> Value {
    let mut dict = tahini_entity::Dict::new();
    if let Some(id) = &entity.id {
        dict.set("_id", Value::String(id.clone()));
    }
    for (name, flag) in [("_deleted", entity.deleted), ("_filtered", entity.filtered)] {
        if flag {
            dict.set(name, Value::Bool(true));
        }
    }
    for (name, value) in entity.properties.iter() {
        dict.set(Str::clone(name), value.clone());
    }
    Value::Dict(dict)
}

/// Entities that run into limits are slow enough once.
fn is_small(input: &Batch) -> bool {
    input.bytes() < 100_000
}

/// How often an entity stands in a batch for the last one to go by a plan.
const TIMES: usize = 6;

/// Whatever way an entity takes through a program, by its statements, by a plan, or from text to
/// text, the results are the same. Returns how many results were compared.
pub fn ways_agree(program: &Program, input: &Batch, context: &Context<'_>) -> usize {
    let outputs = |input: &Batch| {
        let (mut out, mut origins) = (Batch::new(), Vec::new());
        let result = program.transform(input, context, &mut out, &mut origins);
        result
            .map(|()| (out, origins))
            .map_err(|error| error.message)
    };
    let mut compared = 0;
    for record in input.iter() {
        let mut once = Batch::new();
        once.push(record);
        let mut often = Batch::new();
        (0..TIMES).for_each(|_| often.push(record));
        let text = lines_of(&often, Fields::ALL);
        match outputs(&once) {
            Err(words) => assert_eq!(from_text(program, context, &text).unwrap_err(), words),
            Ok((out, _)) => {
                let (all, origins) = outputs(&often).unwrap();
                let one = lines_of(&out, Fields::ALL);
                assert_eq!(lines_of(&all, Fields::ALL), one.repeat(TIMES));
                let expected = (0..TIMES).flat_map(|at| vec![at as u32; out.len()]);
                assert_eq!(origins, expected.collect::<Vec<_>>());
                let mut kept = Batch::new();
                let wanted = out.iter().filter(|record| !record.meta.filtered);
                wanted.for_each(|record| kept.push(record));
                let lines = lines_of(&kept, Fields::RESULT).repeat(TIMES);
                assert_eq!(from_text(program, context, &text).unwrap(), lines);
                compared += all.len();
            }
        }
    }
    compared
}

/// A line an entity.
pub fn lines_of(batch: &Batch, fields: Fields) -> String {
    let mut out = Vec::new();
    for record in batch.iter() {
        json::write_record(record, fields, &mut out);
        out.push(b'\n');
    }
    String::from_utf8(out).unwrap()
}

/// What the lines of `text`, each of which can be opened, become; an error is its words.
fn from_text(program: &Program, context: &Context<'_>, text: &str) -> Result<String, String> {
    let mut opened = Opened::new();
    let mut at = 0;
    while at < text.len() {
        at = opened.open(text.as_bytes(), at).expect(text) + 1;
    }
    let mut out = Vec::new();
    let lines = opened.lines(text.as_bytes());
    let result = program.transform_lines(lines, context, &mut out);
    // All lines hold the same entity: when one cannot be transformed, nothing is written.
    assert!(result.is_ok() || out.is_empty());
    result.map_err(|error| error.message)?;
    Ok(String::from_utf8(out).unwrap())
}
