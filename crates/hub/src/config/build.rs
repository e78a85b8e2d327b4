//! Building a configuration: split, resolve, judge, fill in, place the problems.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_dtl::{JsonPath, Read, Segment};

use super::checks::Judged;
use super::model::{Component, ComponentKind, Configuration, Input};
use super::problem::Problem;
use super::resolve::{Resolved, resolve};
use super::text::Spans;
use super::validate::{KnownSystem, KnownSystems, kind_of};
use super::{checks, defaults, rules, unfold, validate};
use crate::Registry;

/// A component on its way.
struct Draft {
    component: Component,
    resolved: Resolved,
    origin: Origin,
    /// The one that has its id already; this one is only judged.
    first: Option<usize>,
    /// The datasets that its rules read, and where they say so.
    reads: Vec<(String, JsonPath)>,
}

/// Where a component was written.
#[derive(Clone)]
struct Origin {
    file: Option<PathBuf>,
    spans: Option<Arc<Spans>>,
    /// The path of the component in the file.
    root: JsonPath,
}

impl Origin {
    /// Fills in file, line and column for what was written at `written`, in the component.
    fn place(&self, problem: &mut Problem, written: &JsonPath) {
        if problem.file.is_none() {
            problem.file.clone_from(&self.file);
        }
        if let Some(spans) = &self.spans
            && problem.line.is_none()
        {
            let mut path = self.root.clone();
            path.0.extend_from_slice(&written.0);
            let place = spans.locate(&path, problem.spot);
            problem.line = Some(place.line);
            problem.column = Some(place.column);
        }
    }
}

pub(crate) fn build(
    inputs: Vec<Input>,
    env: &Map<String, Json>,
    registry: &Registry,
) -> Configuration {
    let mut configuration = Configuration {
        env: env.clone(),
        ..Configuration::default()
    };
    let mut drafts = split(inputs, env, &mut configuration);
    let found = drafts
        .iter()
        .find(|draft| draft.component.kind == ComponentKind::Metadata);
    configuration.metadata =
        defaults::metadata(found.and_then(|draft| draft.resolved.json.as_object()));

    let (systems, others): (Vec<usize>, Vec<usize>) =
        (0..drafts.len()).partition(|at| drafts[*at].component.kind == ComponentKind::System);
    let mut known = KnownSystems::new();
    for draft in systems.iter().map(|at| &drafts[*at]) {
        let kind = type_of(&draft.resolved.json).to_owned();
        let unsupported = None;
        let system = KnownSystem { kind, unsupported };
        known.entry(draft.component.id.clone()).or_insert(system);
    }
    for at in systems {
        judge(&mut drafts[at], &known, &configuration.metadata, registry);
        let Draft {
            component, first, ..
        } = &drafts[at];
        if let (None, Some(system)) = (first, known.get_mut(&component.id)) {
            system.unsupported.clone_from(&component.unsupported);
        }
    }
    for at in others {
        judge(&mut drafts[at], &known, &configuration.metadata, registry);
    }
    let effective: Vec<Judged<'_>> = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.first.is_none())
        .map(|(at, draft)| Judged {
            at,
            component: &draft.component,
            reads: &draft.reads,
        })
        .collect();
    for (at, problem) in checks::across(&effective) {
        drafts[at].component.problems.push(problem);
    }
    let mut seconds: Vec<(usize, Vec<Problem>)> = Vec::new();
    for draft in drafts {
        match draft.first {
            None => configuration.components.push(finish(draft)),
            Some(first) => seconds.push((first, finish(draft).problems)),
        }
    }
    for (first, problems) in seconds {
        configuration.components[first].problems.extend(problems);
    }
    configuration
}

/// Splits the inputs into components with ids, and resolves them.
fn split(
    inputs: Vec<Input>,
    env: &Map<String, Json>,
    configuration: &mut Configuration,
) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    // Where the components stand that stay, in their order.
    let mut firsts: Vec<usize> = Vec::new();
    for input in inputs {
        let whole = Origin {
            file: input.file,
            spans: input.spans,
            root: JsonPath::default(),
        };
        let parts: Vec<(JsonPath, Json)> = match input.json {
            Json::Array(list) => {
                let numbered = list.into_iter().enumerate();
                numbered
                    .map(|(at, part)| (JsonPath::default().at(at), part))
                    .collect()
            }
            one => vec![(JsonPath::default(), one)],
        };
        for (root, original) in parts {
            let origin = Origin {
                root,
                ..whole.clone()
            };
            let Some(id) = identify(&original, &origin, configuration) else {
                continue;
            };
            let first = configuration.positions.get(&id).copied();
            let mut problems = Vec::new();
            match first {
                None => {
                    configuration.positions.insert(id.clone(), firsts.len());
                    firsts.push(drafts.len());
                }
                Some(first) => {
                    let first = &drafts[firsts[first]];
                    problems.push(duplicate(&id, &first.origin, &origin));
                }
            }
            let resolved = resolve(&original, env);
            let component = Component {
                id,
                kind: kind_of(type_of(&resolved.json)),
                original,
                effective: Json::Null,
                problems,
                moves: resolved.moves.clone(),
                unsupported: None,
                reads: Vec::new(),
                folder: input.folder.clone(),
                file: origin.file.clone(),
            };
            drafts.push(Draft {
                component,
                resolved,
                origin,
                first,
                reads: Vec::new(),
            });
        }
    }
    drafts
}

/// The id of a component; without one it is only a problem.
fn identify(original: &Json, origin: &Origin, into: &mut Configuration) -> Option<String> {
    let mut problem = match original {
        Json::Object(map) => match map.get("_id") {
            Some(Json::String(id)) if !id.is_empty() => return Some(id.clone()),
            Some(other) => Problem::error(
                JsonPath::default().name("_id"),
                format!("expected text that is not empty as _id, found {other}"),
            ),
            None => Problem::error(JsonPath::default(), "the component has no _id"),
        },
        other => Problem::error(
            JsonPath::default(),
            format!(
                "expected a component (an object), found {}",
                validate::found(other)
            ),
        ),
    };
    let written = problem.path.clone();
    problem.path.0.splice(0..0, origin.root.0.iter().cloned());
    origin.place(&mut problem, &written);
    into.problems.push(problem);
    None
}

fn duplicate(id: &str, first: &Origin, second: &Origin) -> Problem {
    let path = JsonPath::default().name("_id");
    let mut problem = Problem::error(path.clone(), String::new());
    second.place(&mut problem, &path);
    problem.message = match (&first.file, &second.file) {
        (Some(first), Some(second)) if first != second => format!(
            "the id {id:?} is used twice, in {} and in {}",
            first.display(),
            second.display()
        ),
        _ => format!("the id {id:?} is used twice"),
    };
    problem.with_help("ids are unique among pipes, systems and metadata; rename one of them")
}

fn judge(
    draft: &mut Draft,
    systems: &KnownSystems,
    metadata: &Map<String, Json>,
    registry: &Registry,
) {
    let Draft {
        component,
        resolved,
        reads,
        ..
    } = draft;
    let judged = validate::component(component.kind, &resolved.json, systems, registry);
    component.unsupported = judged.unsupported;
    let mut problems = judged.problems;
    let mut map = match std::mem::take(&mut resolved.json) {
        Json::Object(map) => map,
        _ => Map::new(),
    };
    let mut unfolded = Vec::new();
    if component.kind == ComponentKind::Pipe {
        unfolded = unfold::unfold(&mut map, &mut resolved.moves, registry);
        component.moves.clone_from(&resolved.moves);
    }
    component.effective = Json::Object(match component.kind {
        ComponentKind::Pipe => defaults::pipe(&component.id, map, metadata, registry),
        ComponentKind::System => defaults::system(map, metadata, registry),
        ComponentKind::Metadata => defaults::metadata(Some(&map)),
        ComponentKind::Other => map,
    });
    // What was meant to be a pipe has rules that can be wrong, too.
    let as_pipe = match component.kind {
        ComponentKind::Pipe => Some(component.map()),
        ComponentKind::Other if validate::meant(component.map()).as_deref() == Some("pipe") => {
            Some(component.map())
        }
        _ => None,
    };
    if let Some(pipe) = as_pipe {
        checks::compaction(pipe, &mut problems);
        let checked = rules::check(pipe);
        let told = |problem: &Problem| unfold::is_worth_telling(problem, &unfolded);
        problems.extend(checked.problems.into_iter().filter(told));
        component.reads = distinct(&checked.reads);
        *reads = checked
            .reads
            .into_iter()
            .map(|(read, path)| (read.dataset, path))
            .collect();
        if checked.creates_children {
            defaults::track_children(&mut component.effective);
        }
    }
    if component.kind == ComponentKind::Pipe {
        checks::background(component, registry, &mut problems);
    }
    component.problems.extend(problems);
}

/// What rules read, by dataset: one that one place of them needs populated has to be.
fn distinct(reads: &[(Read, JsonPath)]) -> Vec<Read> {
    let mut distinct: BTreeMap<&str, Read> = BTreeMap::new();
    for (read, _) in reads {
        let known = distinct
            .entry(&read.dataset)
            .or_insert_with(|| read.clone());
        known.tracked |= read.tracked;
        known.populated |= read.populated;
    }
    distinct.into_values().collect()
}

/// Gives every problem its component and its place, and puts them in the order of the text.
fn finish(draft: Draft) -> Component {
    let Draft {
        mut component,
        resolved,
        origin,
        ..
    } = draft;
    for problem in &mut component.problems {
        // The path that its author finds, not the one of the alternative that was chosen.
        problem.path = resolved.moves.written(&problem.path);
        let written = problem.path.clone();
        origin.place(problem, &written);
    }
    for (mut problem, written) in resolved.problems {
        origin.place(&mut problem, &written);
        problem.path = written;
        component.problems.push(problem);
    }
    for problem in &mut component.problems {
        problem.component = Some(component.id.clone());
    }
    component.problems.sort_by(|a, b| {
        let key = |problem: &Problem| (problem.line, problem.column, problem.level);
        key(a).cmp(&key(b))
    });
    component
}

fn type_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// `path` with the steps of `after` put behind it.
pub(crate) fn join(path: &JsonPath, after: &[Segment]) -> JsonPath {
    let mut segments = path.0.clone();
    segments.extend_from_slice(after);
    JsonPath(segments)
}
