//! Rules between properties, and between components.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use super::model::{self, Component, ComponentKind};
use super::problem::Problem;
use crate::Registry;

/// Ids that the API needs for itself under `/pipes/`.
const RESERVED_PIPES: &[&str] = &[
    "delete-all-sink-datasets",
    "get-pipe-runner-status",
    "get-run-all-pipes-log",
    "run-all-pipes",
    "stop-run-all-pipes",
];

/// Whether a property of that name may hold what must not be printed.
pub fn holds_secrets(name: &str) -> bool {
    ["password", "secret", "token", "key", "authorization"]
        .iter()
        .any(|part| name.contains(part))
}

/// Rules within one component, as it was written, variables inserted.
pub fn within(kind: ComponentKind, map: &Map<String, Json>, problems: &mut Vec<Problem>) {
    let root = JsonPath::default();
    let id = text(map, "_id").unwrap_or_default();
    if id.contains('/') {
        let message = format!("the id {id:?} holds a \"/\", which ids cannot");
        problems.push(Problem::error(root.name("_id"), message));
    }
    match kind {
        ComponentKind::Pipe => {
            if RESERVED_PIPES.contains(&id) {
                let message = format!("the id {id:?} is taken by the API; choose another one");
                problems.push(Problem::error(root.name("_id"), message));
            }
            pipe(map, &root, problems);
        }
        ComponentKind::System => system(map, &root, problems),
        ComponentKind::Metadata | ComponentKind::Other => {}
    }
}

fn pipe(map: &Map<String, Json>, root: &JsonPath, problems: &mut Vec<Problem>) {
    let empty = model::empty_map();
    let source = object(map, "source").unwrap_or(empty);
    let sink = object(map, "sink");
    let sink_kind = sink
        .and_then(|sink| text(sink, "type"))
        .unwrap_or("dataset");
    if let Some(pump) = object(map, "pump") {
        self::pump(pump, &root.name("pump"), problems);
    }
    endpoints(map, source, sink_kind, root, problems);
    super::files::check(source, sink, root, problems);
    super::permissions::check(map, root, problems);
    continuation(source, &root.name("source"), problems);
    if let Some(dataset) = sink.and_then(|sink| text(sink, "dataset"))
        && (dataset.contains('/') || dataset.starts_with("system:"))
    {
        let message = format!("a sink cannot write the dataset {dataset:?}");
        let problem = Problem::error(root.name("sink").name("dataset"), message);
        problems
            .push(problem.with_help("ids of datasets have no \"/\" and no \"system:\" in front"));
    }
    if let Some(entities) = source.get("entities") {
        secrets_in_data(entities, root.name("source").name("entities"), problems);
    }
}

/// A pipe with an endpoint at one end never pumps.
fn endpoints(
    map: &Map<String, Json>,
    source: &Map<String, Json>,
    sink_kind: &str,
    root: &JsonPath,
    problems: &mut Vec<Problem>,
) {
    let source_kind = text(source, "type").unwrap_or_default();
    if source_kind == "http_endpoint" {
        if source.contains_key("auto_populate_dataset") && sink_kind != "dataset" {
            let path = root.name("source").name("auto_populate_dataset");
            let message = "auto_populate_dataset needs a sink of type \"dataset\"";
            problems.push(Problem::error(path, message).at_name());
        }
        if sink_kind.ends_with("_endpoint") {
            let message = "entities that are posted to this pipe are never kept: its sink gives \
                           out only what its source has";
            let problem = Problem::warning(root.name("sink").name("type"), message);
            problems.push(problem.with_help("split it into two pipes with a dataset between"));
        }
    }
    if source_kind != "http_endpoint" && !sink_kind.ends_with("_endpoint") {
        return;
    }
    let Some(pump) = object(map, "pump") else {
        return;
    };
    for name in [
        "schedule_interval",
        "cron_expression",
        "rescan_cron_expression",
    ] {
        if pump.get(name).is_some_and(|value| !value.is_null()) {
            let path = root.name("pump").name(name);
            let message = format!("{name} means nothing here: a pipe with an endpoint never pumps");
            problems.push(Problem::warning(path, message).at_name());
        }
    }
}

fn continuation(source: &Map<String, Json>, path: &JsonPath, problems: &mut Vec<Problem>) {
    let flag = |name: &str| source.get(name).and_then(Json::as_bool);
    let supports = flag("supports_since") == Some(true);
    let chronological = flag("is_chronological") == Some(true);
    if supports && !chronological && flag("is_since_comparable") == Some(false) {
        let message = "supports_since alone keeps no place: every run reads everything";
        let problem = Problem::warning(path.name("supports_since"), message).at_name();
        problems.push(problem.with_help("set is_since_comparable or is_chronological, too"));
    }
    let comparable = flag("is_since_comparable") != Some(false);
    if text(source, "type") == Some("json")
        && source.get("page_size").is_some_and(|size| !size.is_null())
        && !(supports && chronological && comparable)
    {
        let message = "paging needs supports_since, is_chronological and is_since_comparable";
        let problem = Problem::error(path.name("page_size"), message).at_name();
        problems.push(problem.with_help("set them to true if they are, or leave page_size out"));
    }
}

/// Rules of an effective pipe's `compaction`.
pub(super) fn compaction(pipe: &Map<String, Json>, problems: &mut Vec<Problem>) {
    let Some(compaction) = object(pipe, "compaction") else {
        return;
    };
    let none = compaction.get("keep_versions").and_then(Json::as_i64) == Some(0);
    let threshold = compaction.get("time_threshold_hours");
    if none && threshold.is_none_or(Json::is_null) {
        let path = JsonPath::default().name("compaction").name("keep_versions");
        let message = "keep_versions 0 needs time_threshold_hours, which is missing";
        let problem = Problem::error(path, message);
        problems.push(problem.with_help("set it, or keep at least one version"));
    }
}

/// Warns of a pipe that wants its rescans beside its runs, where that cannot be.
pub(super) fn background(component: &Component, registry: &Registry, problems: &mut Vec<Problem>) {
    let source = component.source();
    let kind = source.map().get("type").and_then(Json::as_str);
    let def = kind.and_then(|kind| registry.source(kind));
    let wanted = component.original["enable_background_rescan"] == true;
    let Some(def) = def.filter(|_| wanted && !component.is_endpoint()) else {
        return;
    };
    let Ok(continuation) = crate::pipe::continuation(source, def.continuation) else {
        return;
    };
    if let Some(why) = crate::rescan::obstacle(continuation, &component.effective) {
        let path = JsonPath::default().name("enable_background_rescan");
        let message = format!("enable_background_rescan means nothing here: {why}");
        let problem = Problem::warning(path, message).at_name();
        problems.push(problem.with_help("leave it out; rescans take the place of a run"));
    }
}

fn pump(pump: &Map<String, Json>, path: &JsonPath, problems: &mut Vec<Problem>) {
    let has = |name: &str| pump.get(name).is_some_and(|value| !value.is_null());
    let mut warn = |name: &str, message: &str, help: Option<&str>| {
        let mut problem = Problem::warning(path.name(name), message).at_name();
        problem.help = help.map(str::to_owned);
        problems.push(problem);
    };
    if has("schedule_interval") && has("cron_expression") {
        let message = "schedule_interval means nothing beside cron_expression, which goes first";
        warn("schedule_interval", message, Some("leave one of them out"));
    }
    if has("rescan_run_count") && has("rescan_cron_expression") {
        let message =
            "rescan_run_count means nothing beside rescan_cron_expression, which goes first";
        warn("rescan_run_count", message, Some("leave one of them out"));
    }
    if has("partial_rescan_delta") && !has("partial_rescan_run_count") {
        let message = "partial_rescan_delta means nothing without partial_rescan_run_count";
        warn("partial_rescan_delta", message, None);
    }
    let retries = pump
        .get("max_write_errors_in_retry_dataset")
        .and_then(Json::as_i64)
        .unwrap_or(0);
    let dead = has("dead_letter_dataset")
        || pump.get("use_dead_letter_dataset").and_then(Json::as_bool) == Some(true);
    if has("dead_letter_dataset") && retries == 0 {
        let message = "no entity ever comes here: max_write_errors_in_retry_dataset is 0, which \
                       switches retries off";
        let help = "set max_write_errors_in_retry_dataset to how many failed entities may wait";
        warn("dead_letter_dataset", message, Some(help));
    }
    if pump.get("track_dead_letters").and_then(Json::as_bool) == Some(true) && !dead {
        let message = "track_dead_letters means nothing without a dead_letter_dataset";
        warn("track_dead_letters", message, None);
    }
    if has("partial_rescan_run_count") && !has("partial_rescan_delta") {
        let message = "partial_rescan_run_count needs partial_rescan_delta, which is missing";
        let place = path.name("partial_rescan_run_count");
        problems.push(Problem::error(place, message).at_name());
    }
}

fn system(map: &Map<String, Json>, root: &JsonPath, problems: &mut Vec<Problem>) {
    let has = |name: &str| map.get(name).is_some_and(|value| !value.is_null());
    match text(map, "type") {
        Some("system:microservice") => {
            microservice_id(text(map, "_id").unwrap_or_default(), root, problems);
        }
        Some("system:url") => match (has("url_pattern"), has("base_url")) {
            (false, false) => {
                let message = "the property \"url_pattern\" is missing";
                problems.push(Problem::error(root.clone(), message));
            }
            (true, true) => {
                let message = "expected either url_pattern or base_url, found both";
                let problem = Problem::error(root.name("base_url"), message).at_name();
                problems.push(problem.with_help("base_url is deprecated; leave it out"));
            }
            _ => {}
        },
        _ => return,
    }
    let authentication = text(map, "authentication");
    let needs: &[&str] = match authentication {
        Some("basic" | "digest" | "ntlm") => &["username", "password"],
        Some("jwt") => &["jwt_token"],
        Some("tripletex") => &["tripletex"],
        _ => &[],
    };
    // The manual's prototypes leave both null, and are meant to load.
    if needs.len() == 2 && !needs.iter().any(|name| has(name)) {
        let kind = authentication.unwrap_or_default();
        let message = format!(
            "{kind} authentication has neither username nor password; requests go without \
             credentials"
        );
        let problem = Problem::warning(root.name("authentication"), message);
        problems.push(problem.with_help("set both, or leave authentication out"));
        return;
    }
    for name in needs.iter().filter(|name| !has(name)) {
        let kind = authentication.unwrap_or_default();
        let message = format!("{kind} authentication needs {name}, which is missing");
        problems.push(Problem::error(root.name("authentication"), message));
    }
}

/// Ids of microservices are host names.
fn microservice_id(id: &str, root: &JsonPath, problems: &mut Vec<Problem>) {
    let starts_well = id.starts_with(|first: char| first.is_ascii_alphanumeric());
    let goes_on_well = id
        .chars()
        .all(|one| one.is_ascii_alphanumeric() || one == '_' || one == '-');
    let path = root.name("_id");
    if !starts_well || !goes_on_well || !(2..=63).contains(&id.len()) {
        let message = format!("the id {id:?} cannot be a microservice's, which is a host name");
        let help = "2 to 63 ASCII letters, digits, \"_\" and \"-\", the first a letter or a digit";
        problems.push(Problem::error(path, message).with_help(help));
    } else if id.contains(|one: char| one.is_ascii_uppercase()) {
        let message = format!("the id {id:?} holds capitals, which host names do not keep");
        problems.push(Problem::warning(path, message).with_help("use small letters"));
    }
}

fn secrets_in_data(data: &Json, path: JsonPath, problems: &mut Vec<Problem>) {
    fn any(json: &Json) -> bool {
        match json {
            Json::String(text) => text.contains("$SECRET("),
            Json::Array(list) => list.iter().any(any),
            Json::Object(map) => map.values().any(any),
            _ => false,
        }
    }
    if any(data) {
        let message = "secrets are not filled in here, where they would end up in a dataset";
        problems.push(Problem::warning(path, message));
    }
}

/// A component that was judged by itself, for the rules between components.
pub struct Judged<'a> {
    /// Its position, for the problems.
    pub at: usize,
    /// The component.
    pub component: &'a Component,
    /// The datasets that its rules read, and where they say so.
    pub reads: &'a [(String, JsonPath)],
}

/// Rules between components, by what holds: (position of the component, problem).
pub fn across(judged: &[Judged<'_>]) -> Vec<(usize, Problem)> {
    let mut problems = Vec::new();
    let mut metadata: Option<&str> = None;
    for one in judged {
        if one.component.kind == ComponentKind::Metadata {
            if let Some(first) = metadata {
                let message =
                    format!("there is metadata already, {first:?}; this counts for nothing");
                let path = JsonPath::default().name("type");
                problems.push((one.at, Problem::error(path, message)));
            }
            metadata.get_or_insert(&one.component.id);
        }
    }
    let pipes: Vec<&Judged<'_>> = judged
        .iter()
        .filter(|one| one.component.kind == ComponentKind::Pipe)
        .collect();
    shared_datasets(&pipes, &mut problems);
    unwritten_datasets(&pipes, &mut problems);
    problems
}

/// Datasets that two pipes write, as sink or for dead letters.
fn shared_datasets(pipes: &[&Judged<'_>], problems: &mut Vec<(usize, Problem)>) {
    let mut writers: HashMap<&str, &str> = HashMap::new();
    let mut dead_letters: HashMap<&str, &str> = HashMap::new();
    for Judged { at, component, .. } in pipes {
        if let Some(dataset) = component.sink_dataset() {
            match writers.get(dataset) {
                None => {
                    writers.insert(dataset, &component.id);
                }
                Some(first) => {
                    let path = JsonPath::default().name("sink").name("dataset");
                    let message = format!("the pipe {first:?} writes the dataset {dataset:?}, too");
                    let help = "each full run deletes what the other one wrote";
                    problems.push((*at, Problem::warning(path, message).with_help(help)));
                }
            }
        }
        if let Some(dataset) = text(component.pump().map(), "dead_letter_dataset") {
            problems.extend(letters_of_its_own(component, dataset).map(|problem| (*at, problem)));
            match dead_letters.get(dataset) {
                None => {
                    dead_letters.insert(dataset, &component.id);
                }
                Some(first) => {
                    let path = letters_path();
                    let message = format!(
                        "the pipe {first:?} has the dead letter dataset {dataset:?}, too; each \
                         pipe needs its own"
                    );
                    problems.push((*at, Problem::error(path, message)));
                }
            }
        }
    }
}

/// Dead letters go to a dataset that holds nothing else.
fn letters_of_its_own(component: &Component, dataset: &str) -> Option<Problem> {
    let source = component.source().map();
    let found = if dataset.starts_with("system:") {
        "which belongs to the node itself"
    } else if dataset.contains('/') {
        "which holds a \"/\""
    } else if component.sink_dataset() == Some(dataset) {
        "which its own sink writes"
    } else if text(source, "dataset") == Some(dataset) {
        "which its own source reads"
    } else {
        return None;
    };
    let message = format!("expected a dataset for dead letters alone, found {dataset:?}, {found}");
    Some(Problem::error(letters_path(), message))
}

fn letters_path() -> JsonPath {
    JsonPath::default().name("pump").name("dead_letter_dataset")
}

/// Datasets that are read and that no pipe writes: mostly a slip of the pen. The store may hold
/// one all the same, so that this is no error.
fn unwritten_datasets(pipes: &[&Judged<'_>], problems: &mut Vec<(usize, Problem)>) {
    let mut written: BTreeSet<&str> = BTreeSet::new();
    for Judged { component, .. } in pipes {
        written.extend(component.sink_dataset());
        written.extend(text(component.pump().map(), "dead_letter_dataset"));
    }
    for Judged {
        at,
        component,
        reads,
    } in pipes
    {
        let from_source = source_reads(component);
        for (dataset, path) in from_source.iter().chain(*reads) {
            // What a secret or a missing variable stands for is not known here.
            if written.contains(dataset.as_str())
                || dataset.starts_with("system:")
                || dataset.contains('$')
            {
                continue;
            }
            let message = format!("no pipe of this configuration writes the dataset {dataset:?}");
            let mut problem = Problem::warning(path.clone(), message);
            problem.help = super::nearest(dataset, written.iter().copied())
                .map(|near| format!("did you mean {near:?}?"));
            // A pipe alone is a piece of something larger that is not seen here.
            if pipes.len() > 1 || problem.help.is_some() {
                problems.push((*at, problem));
            }
        }
    }
}

/// The datasets that a pipe's source reads, and where it says so.
fn source_reads(component: &Component) -> Vec<(String, JsonPath)> {
    let root = JsonPath::default().name("source");
    let source = component.source().map();
    let listed = source.get("datasets").and_then(Json::as_array);
    let names = component.source_datasets().into_iter();
    let place = |dataset: &str| {
        let is_it = |item: &Json| {
            let text = item.as_str();
            text.is_some_and(|text| text == dataset || text.starts_with(&format!("{dataset} ")))
        };
        match listed.and_then(|list| list.iter().position(is_it)) {
            Some(at) => root.name("datasets").at(at),
            None => root.name("dataset"),
        }
    };
    names
        .map(|dataset| (dataset.to_owned(), place(dataset)))
        .collect()
}

fn text<'a>(map: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Json::as_str)
}

fn object<'a>(map: &'a Map<String, Json>, name: &str) -> Option<&'a Map<String, Json>> {
    map.get(name).and_then(Json::as_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_id_is_a_host_name() {
        for (id, problems) in [
            ("crm", 0),
            ("c", 1),
            ("-crm", 1),
            ("crm.prod", 1),
            ("CRM", 1),
            ("9-crm_2", 0),
            (&"a".repeat(63), 0),
            (&"a".repeat(64), 1),
            ("blåbær", 1),
        ] {
            let mut found = Vec::new();
            microservice_id(id, &JsonPath::default(), &mut found);
            assert_eq!(found.len(), problems, "{id}");
        }
    }
}
