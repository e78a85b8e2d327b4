//! Rules in a file: a rules object, a dtl transform or a whole pipe.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::{Map, Value as Json, json};
use tahini_dtl::JsonPath;
use tahini_hub::config::{Component, Configuration, Input, Spans, Spot, Text};
use tahini_hub::{Fault, Problem};

use crate::assembly::{REGISTRY, print_problems};

/// The id of a pipe that has none.
const PIPE: &str = "transform";
const METADATA: &str = "node-metadata.conf.json";

/// A pipe whose transforms stand in a file.
pub(super) struct Rules {
    file: PathBuf,
    pipe: Json,
    /// How many steps of a path in the pipe do not stand in the file.
    wrapped: usize,
    spans: Arc<Spans>,
}

/// The pipe of a file of rules, without its ends; `None` when there are errors, which are printed
/// with their places in the file.
pub(super) fn read(
    file: &Path,
    env: &Map<String, Json>,
) -> anyhow::Result<Option<(Component, Rules)>> {
    let read = text(file)?;
    let Some(json) = read.json else {
        return Ok(None);
    };
    let found = describe(&json);
    let Some(rules) = Rules::of(json, read.spans, file) else {
        let expected = "expected a rules object, a dtl transform or a pipe";
        let message = format!("{expected}, found {found}");
        let mut problem = Problem::error(JsonPath::default(), message).in_file(file);
        (problem.line, problem.column) = (Some(1), Some(1));
        print_problems(&[&problem]);
        return Ok(None);
    };
    let mut input = Input::new(rules.pipe.clone());
    input.file = Some(file.to_owned());
    let inputs = [Some(input), metadata_of(file)?];
    let inputs = inputs.into_iter().flatten().collect();
    let configuration = Configuration::build(inputs, env, &REGISTRY);
    let component = configuration
        .pipes()
        .next()
        .ok_or_else(|| anyhow!("expected a pipe"))?;
    let mut problems: Vec<Problem> = needs_systems(component).collect();
    let is_told = |path: &JsonPath| problems.iter().any(|problem| problem.path == *path);
    let others = configuration.problems().filter(|one| !is_told(&one.path));
    let others: Vec<Problem> = others.cloned().collect();
    problems.extend(others);
    let problems: Vec<Problem> = problems
        .into_iter()
        .map(|problem| rules.located(problem))
        .collect();
    let wrong = print_problems(&problems.iter().collect::<Vec<_>>());
    Ok((!wrong).then(|| (component.clone(), rules)))
}

/// Reads a file of configuration and prints what is wrong with its text.
fn text(file: &Path) -> anyhow::Result<Text> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let read = Text::of_bytes(&bytes, Some(file));
    print_problems(&read.problems.iter().collect::<Vec<_>>());
    Ok(read)
}

/// The node metadata of the project that a file in its `pipes` folder belongs to: namespaces and
/// other defaults hold for the pipe here as they do there.
fn metadata_of(file: &Path) -> anyhow::Result<Option<Input>> {
    let Ok(file) = file.canonicalize() else {
        return Ok(None);
    };
    let folder = file.parent().filter(|folder| folder.ends_with("pipes"));
    let Some(project) = folder.and_then(Path::parent) else {
        return Ok(None);
    };
    let metadata = project.join(METADATA);
    if !metadata.is_file() {
        return Ok(None);
    }
    let read = text(&metadata)?;
    let json = read
        .json
        .ok_or_else(|| anyhow!("{} is not JSON", metadata.display()))?;
    let mut input = Input::new(json);
    input.file = Some(metadata);
    input.spans = Some(read.spans);
    Ok(Some(input))
}

fn describe(json: &Json) -> &'static str {
    match json {
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
        Json::String(_) => "text",
        Json::Number(_) => "a number",
        Json::Bool(_) => "true or false",
        Json::Null => "null",
    }
}

/// What transforms that ask somebody else are told: there are no systems beside a file of rules.
fn needs_systems(pipe: &Component) -> impl Iterator<Item = Problem> {
    let transforms = pipe.transforms().into_iter();
    transforms.filter_map(|(path, transform)| {
        let system = transform.get("system")?.as_str()?;
        let kind = transform
            .get("type")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let message =
            format!("the {kind} transform needs the system {system:?}, which stands in a project");
        let help = "tahini run PROJECT runs the pipe with its systems, tahini test PROJECT tests \
                    what it gives";
        Some(Problem::error(path.name("system"), message).with_help(help))
    })
}

impl Rules {
    /// The pipe that has these rules; a whole pipe keeps its transforms and loses its ends.
    fn of(json: Json, spans: Arc<Spans>, file: &Path) -> Option<Rules> {
        let map = json.as_object()?;
        let (mut pipe, wrapped) = match map.get("type").and_then(Json::as_str) {
            Some("pipe") => (map.clone(), 0),
            Some(_) => (Map::from_iter([("transform".to_owned(), json.clone())]), 1),
            None => {
                let (rules, wrapped) = match map.get("rules") {
                    Some(rules) => (rules, 1),
                    None => (&json, 2),
                };
                let transform = json!({"type": "dtl", "rules": rules});
                (
                    Map::from_iter([("transform".to_owned(), transform)]),
                    wrapped,
                )
            }
        };
        pipe.entry("_id").or_insert_with(|| json!(PIPE));
        pipe.insert("type".to_owned(), json!("pipe"));
        pipe.insert("source".to_owned(), json!({"type": "empty"}));
        pipe.insert("sink".to_owned(), json!({"type": "null"}));
        Some(Rules {
            file: file.to_owned(),
            pipe: Json::Object(pipe),
            wrapped,
            spans,
        })
    }

    /// A path in the pipe as the file has it.
    pub(super) fn path(&self, path: &JsonPath) -> JsonPath {
        JsonPath(path.0.iter().skip(self.wrapped).cloned().collect())
    }

    /// What went wrong with an entity that begins in `line` of the input, with the places of both.
    pub(super) fn told(&self, fault: &Fault, line: u64) -> String {
        let path = self.path(&fault.path);
        let place = self.spans.locate(&path, Spot::Value);
        format!(
            "{}:{}:{}: {}, line {line} of the input: {} ({path})",
            self.file.display(),
            place.line,
            place.column,
            fault.entity(),
            fault.words
        )
    }

    /// The problem with its path in the file, and where that is.
    fn located(&self, mut problem: Problem) -> Problem {
        let is_own = |own: &PathBuf| *own == self.file;
        if problem.line.is_none() && problem.file.as_ref().is_none_or(is_own) {
            problem.path = self.path(&problem.path);
            let place = self.spans.locate(&problem.path, problem.spot);
            problem.line = Some(place.line);
            problem.column = Some(place.column);
            problem.file = Some(self.file.clone());
        }
        problem
    }
}
