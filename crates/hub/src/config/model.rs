//! The configuration of a node: its components, what is wrong with them, and what holds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Read};

use super::problem::Problem;
use super::resolve::Moves;
use super::text::Spans;
use super::{Props, build};
use crate::Registry;

/// A document of the configuration: one component, or a list of components.
#[derive(Clone, Debug)]
pub struct Input {
    /// The document.
    pub json: Json,
    /// The file that it came from.
    pub file: Option<PathBuf>,
    /// Where everything stands in that file.
    pub spans: Option<Arc<Spans>>,
    /// The folder of the project that it came from.
    pub folder: Option<PathBuf>,
}

impl Input {
    /// A document that came from no file.
    pub fn new(json: Json) -> Input {
        Input {
            json,
            file: None,
            spans: None,
            folder: None,
        }
    }
}

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentKind {
    /// `"type": "pipe"`.
    Pipe,
    /// `"type": "system:…"`.
    System,
    /// `"type": "metadata"`: the node's own settings.
    Metadata,
    /// A type that there is not; always with a problem.
    Other,
}

/// One component of the configuration.
#[derive(Clone, Debug)]
pub struct Component {
    /// The `_id`.
    pub id: String,
    /// What it is.
    pub kind: ComponentKind,
    /// What was written, unchanged.
    pub original: Json,
    /// What holds: an object with variables inserted, alternatives chosen and defaults filled in;
    /// `$SECRET(name)` stays as text. Where there are problems, as far as it goes.
    pub effective: Json,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
    /// Where the parts of `effective` were written that stand elsewhere there.
    pub(crate) moves: Moves,
    /// Why it cannot run although it is valid: it uses what is not built yet.
    pub unsupported: Option<String>,
    /// The datasets that a pipe's rules read, each once.
    pub reads: Vec<Read>,
    /// The folder of the project that it came from.
    pub folder: Option<PathBuf>,
    /// The file that it came from.
    pub file: Option<PathBuf>,
}

impl Component {
    /// Whether nothing is wrong with it but warnings.
    pub fn is_valid(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }

    /// Whether it can run.
    pub fn is_runnable(&self) -> bool {
        self.is_valid() && self.unsupported.is_none()
    }

    /// The type, for example `pipe` or `system:url`.
    pub fn type_name(&self) -> &str {
        self.effective
            .get("type")
            .and_then(Json::as_str)
            .unwrap_or_default()
    }

    /// The effective configuration.
    pub fn map(&self) -> &Map<String, Json> {
        self.effective.as_object().unwrap_or(empty_map())
    }

    /// The effective configuration, for reading.
    pub fn props(&self) -> Props<'_> {
        Props::new("$", self.map())
    }

    /// A pipe's source; empty when it has none.
    pub fn source(&self) -> Props<'_> {
        self.part("source", "$.source")
    }

    /// A pipe's sink.
    pub fn sink(&self) -> Props<'_> {
        self.part("sink", "$.sink")
    }

    /// A pipe's pump.
    pub fn pump(&self) -> Props<'_> {
        self.part("pump", "$.pump")
    }

    /// A pipe's transforms in order, each with its path.
    pub fn transforms(&self) -> Vec<(JsonPath, &Map<String, Json>)> {
        transforms(self.map())
    }

    /// The dataset that a pipe with a dataset sink writes.
    pub fn sink_dataset(&self) -> Option<&str> {
        let sink = self.sink().map();
        match sink.get("type").and_then(Json::as_str) {
            Some("dataset") => sink.get("dataset").and_then(Json::as_str),
            _ => None,
        }
    }

    /// The datasets that a pipe's source reads, without aliases.
    pub fn source_datasets(&self) -> Vec<&str> {
        source_datasets(self.source().map())
    }

    /// Whether entities flow only when somebody posts or gets them: the pump never runs.
    pub fn is_endpoint(&self) -> bool {
        self.pump().map().get("type").and_then(Json::as_str) == Some("noop")
    }

    fn part(&self, name: &str, path: &'static str) -> Props<'_> {
        let part = self.map().get(name).and_then(Json::as_object);
        Props::new(path, part.unwrap_or(empty_map()))
    }
}

/// The transforms of a pipe in order, each with its path.
pub(crate) fn transforms(pipe: &Map<String, Json>) -> Vec<(JsonPath, &Map<String, Json>)> {
    let path = JsonPath::default().name("transform");
    match pipe.get("transform") {
        Some(Json::Object(one)) => vec![(path, one)],
        Some(Json::Array(list)) => {
            let numbered = list.iter().enumerate();
            numbered
                .filter_map(|(at, item)| Some((path.at(at), item.as_object()?)))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The datasets that a source reads, without aliases.
pub(crate) fn source_datasets(source: &Map<String, Json>) -> Vec<&str> {
    let kind = source
        .get("type")
        .and_then(Json::as_str)
        .unwrap_or_default();
    if !super::known::DATASET_SOURCES.contains(&kind) {
        return Vec::new();
    }
    let one = source.get("dataset").and_then(Json::as_str);
    let many = source
        .get("datasets")
        .and_then(Json::as_array)
        .into_iter()
        .flatten();
    // "dataset alias" in merge sources: the alias comes after the last space.
    let named = many.filter_map(Json::as_str).map(|text| match kind {
        "merge" => text.rsplit_once(' ').map_or(text, |(dataset, _)| dataset),
        _ => text,
    });
    one.into_iter().chain(named).collect()
}

pub(crate) fn empty_map() -> &'static Map<String, Json> {
    static EMPTY: std::sync::OnceLock<Map<String, Json>> = std::sync::OnceLock::new();
    EMPTY.get_or_init(Map::new)
}

/// The whole configuration of a node. Building one never fails: what is wrong is listed.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub(crate) components: Vec<Component>,
    pub(crate) positions: HashMap<String, usize>,
    pub(crate) env: Map<String, Json>,
    pub(crate) metadata: Map<String, Json>,
    pub(crate) problems: Vec<Problem>,
}

impl Configuration {
    /// The configuration that `inputs` say, with the variables of `env`, judged by the tables of
    /// `registry`. Of several components with one id the first stays, with a problem.
    pub fn build(
        inputs: Vec<Input>,
        env: &Map<String, Json>,
        registry: &Registry,
    ) -> Configuration {
        build::build(inputs, env, registry)
    }

    /// All components, as they came.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The component of that id.
    pub fn get(&self, id: &str) -> Option<&Component> {
        self.positions.get(id).map(|at| &self.components[*at])
    }

    /// The pipes, as they came.
    pub fn pipes(&self) -> impl Iterator<Item = &Component> {
        self.of_kind(ComponentKind::Pipe)
    }

    /// The systems, as they came.
    pub fn systems(&self) -> impl Iterator<Item = &Component> {
        self.of_kind(ComponentKind::System)
    }

    /// The metadata component, if one was written.
    pub fn metadata_component(&self) -> Option<&Component> {
        self.of_kind(ComponentKind::Metadata).next()
    }

    /// The node's effective metadata, defaults filled in, whether or not one was written.
    pub fn metadata(&self) -> &Map<String, Json> {
        &self.metadata
    }

    /// The variables it was built with.
    pub fn env(&self) -> &Map<String, Json> {
        &self.env
    }

    /// Everything that is wrong, components in order, what belongs to none first.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .chain(self.components.iter().flat_map(|one| &one.problems))
    }

    /// Whether there are no problems but warnings.
    pub fn is_valid(&self) -> bool {
        !self.problems().any(Problem::is_error)
    }

    fn of_kind(&self, kind: ComponentKind) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(move |component| component.kind == kind)
    }
}
