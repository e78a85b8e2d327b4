//! `tahini transform` with datasets to join, a time of one's own, or an explanation.

use std::io::Read;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value as Json, json};
use tahini_dtl::{JsonPath, steps_text};
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Fields, Numbers, Parser, write_record};
use tahini_hub::Cancel;
use tahini_hub::beside::Beside;
use tahini_hub::preview::{Look, MAX_PREVIEW, Passed, Way};

use super::stdin::Lines;
use super::transform::Opened;
use crate::cli::{FAILED, INVALID, OK, Transform};
use crate::{say, shown};

/// Entities transformed at a time, unless each one is explained.
const ROWS: usize = 1000;

/// Transforms stdin and prints results, or how they came about.
pub fn look(opened: &Opened, options: &Transform) -> anyhow::Result<u8> {
    let beside = given(options)?;
    let world = &opened.assembly.hub.world;
    let look = Look {
        requests: false,
        now: options.now.unwrap_or_else(|| world.clock.now()),
        beside: &beside,
        store: false,
        side_effects: true,
        trace: options.explain,
        most: MAX_PREVIEW,
    };
    let mut way = Way::open(&opened.pipe, world, &Cancel::new(), look)?;
    if let Some(name) = missing(&way, options) {
        let file = options.rules.display();
        say::error_line(&format!(
            "{file}: expected the dataset {name:?}, which the rules join, found none; \
             --dataset {name}=FILE gives it"
        ));
        return Ok(INVALID);
    }
    if options.explain {
        print_analysis(&way, opened, options.json);
    }
    let (mut elements, at) = super::stdin::stdin();
    let mut parser = Parser::new(Numbers::default());
    let rows = if options.explain { 1 } else { ROWS };
    let mut failed = false;
    loop {
        let (mut batch, mut lines) = (Batch::new(), Vec::new());
        let mut wrong = None;
        while batch.len() < rows && wrong.is_none() {
            match next(&mut elements, &at, &mut parser, &mut batch) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => wrong = Some(error),
            }
        }
        if batch.is_empty() {
            let code = if failed { FAILED } else { OK };
            return wrong.map_or(Ok(code), Err);
        }
        let mut passed = way.pass(&batch)?;
        if let Some(fault) = &passed.fault {
            let line = lines.get(fault.position).copied().unwrap_or(1);
            passed.ended = Some(opened.rules.told(fault, line));
        }
        failed |= passed.ended.is_some();
        match (options.explain, options.json) {
            (false, _) => print_results(&passed)?,
            (true, true) => say::line(&shown::passed(&batch, &passed, true).to_string()),
            (true, false) => print_steps(&batch, &passed),
        }
        // What came before it was whole.
        if let Some(error) = wrong {
            return Err(error);
        }
    }
}

/// The datasets that files give.
fn given(options: &Transform) -> anyhow::Result<Beside> {
    let mut beside = Beside::default();
    for (at, (name, file)) in options.datasets.iter().enumerate() {
        if options.datasets[..at]
            .iter()
            .any(|(known, _)| known == name)
        {
            bail!("expected each --dataset once, found {name:?} again");
        }
        let read = || -> anyhow::Result<Batch> { entities(std::fs::File::open(file)?) };
        let read = read().with_context(|| file.display().to_string())?;
        if let Some(at) = read.iter().position(|record| record.id.is_none()) {
            let file = file.display();
            bail!(
                "{file}: expected entities with an _id, found none in number {}",
                at + 1
            );
        }
        beside.give(name, &read);
    }
    Ok(beside)
}

/// A dataset that the rules join and nobody gives.
fn missing(way: &Way, options: &Transform) -> Option<String> {
    let given = |name: &String| options.datasets.iter().any(|(known, _)| known == name);
    let programs = way.programs();
    let mut reads = programs.flat_map(|(_, program)| program.reads());
    let read = reads.find(|read| !given(&read.dataset))?;
    Some(read.dataset.clone())
}

/// Whether the rules join datasets: those that are not given are an error then, and not empty.
pub fn joins(opened: &Opened) -> anyhow::Result<bool> {
    let beside = Beside::default();
    let world = &opened.assembly.hub.world;
    let look = Look {
        requests: false,
        now: world.clock.now(),
        beside: &beside,
        store: false,
        side_effects: true,
        trace: false,
        most: MAX_PREVIEW,
    };
    let way = Way::open(&opened.pipe, world, &Cancel::new(), look)?;
    let joins = way
        .programs()
        .any(|(_, program)| !program.reads().is_empty());
    Ok(joins)
}

/// Reads NDJSON or an array.
fn entities(from: impl Read) -> anyhow::Result<Batch> {
    let (mut elements, at) = super::stdin::counted(from);
    let (mut parser, mut batch) = (Parser::new(Numbers::default()), Batch::new());
    while next(&mut elements, &at, &mut parser, &mut batch)?.is_some() {}
    Ok(batch)
}

/// Reads the next entity into the batch; the line in which it begins, or `None` at the end.
fn next<R: Read>(
    elements: &mut Elements<R>,
    at: &Lines,
    parser: &mut Parser,
    batch: &mut Batch,
) -> anyhow::Result<Option<u64>> {
    match elements.next_element() {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(None),
        Err(error) => return Err(at.explain(error, elements.buffer())),
    }
    let (buffer, last) = (elements.buffer(), elements.last());
    let line = at.line(buffer, last.start);
    match parser.push_json(batch, &buffer[last.clone()]) {
        Ok(()) => Ok(Some(line)),
        Err(error) => Err(at.wrong(&error, buffer, last.start)),
    }
}

fn print_analysis(way: &Way<'_>, opened: &Opened, as_json: bool) {
    let mut all: Vec<Json> = Vec::new();
    for (transform, program) in way.programs() {
        let place = |path: &JsonPath| opened.rules.path(&transform.join(path));
        if as_json {
            all.push(shown::analysis(program, &place));
        } else {
            say::line(&format!("{}\n", shown::analysis_text(program, &place)));
        }
    }
    if as_json {
        say::line(&json!({"analysis": all}).to_string());
    }
}

/// A line an entity that no filter stopped; rules that failed end it, after what they gave
/// before.
fn print_results(passed: &Passed) -> anyhow::Result<()> {
    let last = passed.transforms.last();
    let outputs = match last.filter(|_| passed.ended.is_some()) {
        Some(last) => &last.outputs,
        None => &passed.sink,
    };
    let mut text = Vec::new();
    for record in outputs.iter().filter(|record| !record.meta.filtered) {
        write_record(record, Fields::RESULT, &mut text);
        text.push(b'\n');
    }
    say::bytes(&text);
    match &passed.ended {
        Some(words) => Err(anyhow!("{words}")),
        None => Ok(()),
    }
}

/// The steps of one entity for people, and what each transform gave.
fn print_steps(source: &Batch, passed: &Passed) {
    for entity in shown::entities(source) {
        say::line(&entity.to_string());
    }
    for (at, one) in passed.transforms.iter().enumerate() {
        if passed.transforms.len() > 1 {
            say::line(&format!("  transform {} ({}):", at + 1, one.kind));
        }
        for explained in &one.explained {
            for line in steps_text(&explained.steps, &one.rules).lines() {
                say::line(&format!("    {line}"));
            }
            if explained.omitted > 0 {
                say::line(&format!("    … and {} steps more", explained.omitted));
            }
            if let Some(error) = &explained.error {
                say::line(&format!("    fails: {}", error.message));
            }
        }
        let outputs = shown::entities(&one.outputs);
        for entity in &outputs {
            say::line(&format!("  → {entity}"));
        }
        if outputs.is_empty() && one.explained.iter().all(|entity| entity.error.is_none()) {
            say::line("  → nothing");
        }
    }
    say::line("");
}
