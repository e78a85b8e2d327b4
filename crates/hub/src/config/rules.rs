//! Compiling a pipe's rules to see what is wrong with them.

use serde_json::{Map, Value as Json};
use tahini_dtl::{
    Index, JsonPath, Namespaces, Options, Program, Read, Severity, SourceKind, Subset, To,
    TriggerOn, Why, compile,
};
use tahini_entity::json::{self, Numbers};

use super::build::join;
use super::known::DATASET_SOURCES;
use super::model;
use super::problem::Problem;
use super::secret::{misplaced, without_secrets};
use crate::dependency::{gives_again, is_pure, obstacle};
use crate::{completeness, merge};

/// What the language has to know of a pipe: namespaces and source of the effective `pipe`,
/// `id_required` of the effective `transform`. For its `trigger_on` there is [`trigger_on`].
pub fn dtl_options(pipe: &Map<String, Json>, transform: &Map<String, Json>) -> Options {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let namespaces = pipe.get("namespaces");
    let namespace = |name: &str| text(namespaces.and_then(|all| all.get(name)));
    let expansions = match namespaces.and_then(|all| all.get("default")) {
        Some(Json::Object(map)) => map
            .iter()
            .filter_map(|(name, uri)| Some((name.clone(), uri.as_str()?.to_owned())))
            .collect(),
        _ => Vec::new(),
    };
    let flag = |map: &Map<String, Json>, name: &str, default: bool| {
        map.get(name).and_then(Json::as_bool).unwrap_or(default)
    };
    let source = pipe
        .get("source")
        .and_then(|source| source.get("type"))
        .and_then(Json::as_str);
    Options {
        pipe: text(pipe.get("_id")).unwrap_or_default(),
        namespaces: Namespaces {
            identity: namespace("identity"),
            property: namespace("property"),
            expansions,
            symmetric: namespaces.is_some_and(|all| all["symmetric_collapse"] == true),
        },
        namespaced_identifiers: flag(pipe, "namespaced_identifiers", false),
        id_required: flag(transform, "id_required", true),
        source_kind: match source {
            Some(kind) if DATASET_SOURCES.contains(&kind) => SourceKind::Dataset,
            _ => SourceKind::Other,
        },
        ..Options::default()
    }
}

/// The `trigger_on` of an effective transform: a key (`_trigger` by default) and the value it must
/// have.
///
/// # Errors
/// The property of `trigger_on` that is wrong, if it is an object, and what is wrong.
pub(crate) fn trigger_on(
    transform: &Map<String, Json>,
) -> Result<Option<TriggerOn>, (Option<&'static str>, String)> {
    let Some(config) = transform.get("trigger_on").filter(|json| !json.is_null()) else {
        return Ok(None);
    };
    let Json::Object(map) = config else {
        let words = format!("expected an object with \"key\" and \"value\", found {config}");
        return Err((None, words));
    };
    let key = match map.get("key") {
        None => "_trigger",
        Some(Json::String(key)) => key,
        Some(other) => {
            let words = format!("expected the name of a property, found {other}");
            return Err((Some("key"), words));
        }
    };
    let Some(value) = map.get("value") else {
        let words = "expected the value of the entities that are transformed, found nothing";
        return Err((Some("value"), words.to_owned()));
    };
    Ok(Some(TriggerOn {
        key: key.to_owned(),
        value: json::from_config(value, Numbers::default()),
    }))
}

/// What compiling the rules of a pipe tells.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Everything that is wrong.
    pub(crate) problems: Vec<Problem>,
    /// The datasets that the rules read, and where they say so.
    pub(crate) reads: Vec<(Read, JsonPath)>,
    /// Whether some of them create children.
    pub(crate) creates_children: bool,
    /// Whether a transform was there before of which nobody knows what it makes of an entity.
    behind: bool,
}

/// Compiles the rules of an effective pipe.
pub(crate) fn check(pipe: &Map<String, Json>) -> Checked {
    let mut checked = Checked::default();
    check_subset(pipe, &mut checked.problems);
    let options = dtl_options(pipe, &Map::new());
    checked.problems.extend(merge::problems(pipe, &options));
    check_completeness(pipe, &mut checked.problems);
    check_indexes(pipe, &mut checked.problems);
    for (path, transform) in model::transforms(pipe) {
        check_transform(pipe, &path, transform, &mut checked);
    }
    checked
}

/// Compiles the subset that a dataset source reads.
fn check_subset(pipe: &Map<String, Json>, problems: &mut Vec<Problem>) {
    let Some(Json::Object(source)) = pipe.get("source") else {
        return;
    };
    let Some(subset @ Json::Array(list)) = source.get("subset") else {
        return;
    };
    if list.is_empty() || source.get("type").and_then(Json::as_str) != Some("dataset") {
        return;
    }
    let options = dtl_options(pipe, &Map::new());
    if let Err(found) = Subset::compile("", subset, &options) {
        let path = JsonPath::default().name("source").name("subset");
        problems.extend(found.into_iter().map(|problem| {
            let place = join(&path, &problem.path.0);
            match problem.severity {
                Severity::Error => Problem::error(place, problem.message),
                Severity::Warning => Problem::warning(place, problem.message),
            }
        }));
    }
}

/// Compiles the expression that bounds what a dataset source reads.
fn check_completeness(pipe: &Map<String, Json>, problems: &mut Vec<Problem>) {
    let Some(Json::Object(source)) = pipe.get("source") else {
        return;
    };
    if source.get("type").and_then(Json::as_str) != Some("dataset") {
        return;
    }
    let path = JsonPath::default().name("source").name("completeness");
    let json = match source.get("completeness") {
        None | Some(Json::Null | Json::Bool(_)) => return,
        Some(Json::Array(list)) if list.iter().all(Json::is_string) => return,
        Some(Json::Object(map)) if map.is_empty() => return,
        Some(Json::Object(map)) if map.contains_key("expression") => &map["expression"],
        Some(other) => {
            let message = format!(
                "expected true, false, a list of datasets, or an object with an \"expression\", \
                 found {other}"
            );
            return problems.push(Problem::error(path, message));
        }
    };
    let options = dtl_options(pipe, &Map::new());
    let found = match completeness::expression(json, &options) {
        Ok(program) => program.warnings().to_vec(),
        Err(found) => found,
    };
    let path = path.name("expression");
    problems.extend(found.into_iter().map(|problem| {
        let inside = problem.path.0.get(completeness::EXPRESSION_DEPTH..);
        let place = join(&path, inside.unwrap_or_default());
        match problem.severity {
            Severity::Error => Problem::error(place, problem.message),
            Severity::Warning => Problem::warning(place, problem.message),
        }
    }));
}

/// Compiles the index expressions of a dataset sink.
fn check_indexes(pipe: &Map<String, Json>, problems: &mut Vec<Problem>) {
    let Some(Json::Object(sink)) = pipe.get("sink") else {
        return;
    };
    let path = JsonPath::default().name("sink").name("indexes");
    let list = match sink.get("indexes") {
        None | Some(Json::Null) => return,
        Some(Json::String(text)) if text == "$ids" => return,
        Some(Json::Array(list)) => list,
        Some(other) => {
            let words = format!("expected a list of expressions, or \"$ids\", found {other}");
            problems.push(Problem::error(path, words));
            return;
        }
    };
    let options = dtl_options(pipe, &Map::new());
    for (at, json) in list.iter().enumerate().filter(|(_, json)| *json != "$ids") {
        let reads_entities = reads_source(json);
        let words = match Index::compile("", json, &options) {
            Err(found) => found.into_iter().map(|problem| problem.message).collect(),
            Ok(_) if !reads_entities => vec![format!(
                "expected an expression over the entities, such as \"_S.category\", found {json}"
            )],
            Ok(_) => Vec::new(),
        };
        let wrong = words
            .into_iter()
            .map(|words| Problem::error(path.at(at), words));
        problems.extend(wrong);
    }
}

/// Whether an expression reads something of the entity that it is about.
fn reads_source(json: &Json) -> bool {
    match json {
        Json::String(text) => text == "_S." || text.starts_with("_S."),
        Json::Array(list) => list.iter().any(reads_source),
        Json::Object(map) => map.values().any(reads_source),
        _ => false,
    }
}

fn check_transform(
    pipe: &Map<String, Json>,
    path: &JsonPath,
    transform: &Map<String, Json>,
    checked: &mut Checked,
) {
    let kind = transform.get("type").and_then(Json::as_str);
    if kind == Some("chained") {
        let list = transform.get("transforms").and_then(Json::as_array);
        for (at, inner) in list.into_iter().flatten().enumerate() {
            if let Json::Object(inner) = inner {
                check_transform(pipe, &path.name("transforms").at(at), inner, checked);
            }
        }
        return;
    }
    let is_known = kind == Some("dtl") && check_rules(pipe, path, transform, checked);
    let merges = pipe
        .get("source")
        .is_some_and(|source| source["type"] == "merge");
    checked.behind |= merges || !is_known;
}

/// Compiles the rules of a transform; whether it is known what the next one is given.
fn check_rules(
    pipe: &Map<String, Json>,
    path: &JsonPath,
    transform: &Map<String, Json>,
    checked: &mut Checked,
) -> bool {
    check_trigger(transform, &path.name("trigger_on"), &mut checked.problems);
    // A value that is no object is the table's business, not the language's.
    let Some(rules @ Json::Object(_)) = transform.get("rules") else {
        return false;
    };
    let rules_path = path.name("rules");
    check_secrets(rules, &rules_path, &mut checked.problems);
    let open = without_secrets(rules);
    let compiled = compile(&open, &dtl_options(pipe, transform));
    // What a secret stands for is not known here.
    let is_known =
        compiled.as_ref().is_ok_and(is_pure) && open == *rules && trigger_on(transform).is_ok();
    let found = match compiled {
        Ok(program) => {
            checked.problems.extend(unstable(pipe, path, &program));
            let found = untracked(pipe, &rules_path, rules, &program, checked.behind);
            checked.problems.extend(found);
            let reads = program.reads().iter().map(|read| {
                let place = mention(rules, &read.dataset, &rules_path);
                (read.clone(), place.unwrap_or_else(|| rules_path.clone()))
            });
            checked.reads.extend(reads);
            checked.creates_children |= program.creates_children();
            program.warnings().to_vec()
        }
        Err(found) => found,
    };
    checked.problems.extend(found.into_iter().map(|problem| {
        let place = join(path, &problem.path.0);
        match problem.severity {
            Severity::Error => Problem::error(place, problem.message),
            Severity::Warning => Problem::warning(place, problem.message),
        }
    }));
    is_known
}

fn check_trigger(transform: &Map<String, Json>, path: &JsonPath, problems: &mut Vec<Problem>) {
    if let Err((name, words)) = trigger_on(transform) {
        let place = name.map_or_else(|| path.clone(), |name| path.name(name));
        problems.push(Problem::error(place, words));
    }
    let known = ["key", "value", "comment", "description"];
    let given = transform.get("trigger_on").and_then(Json::as_object);
    let names = given.into_iter().flat_map(Map::keys);
    for name in names.filter(|name| !known.contains(&name.as_str())) {
        let words = format!("expected no properties but \"key\" and \"value\", found {name:?}");
        problems.push(Problem::warning(path.name(name), words));
    }
}

fn check_secrets(rules: &Json, path: &JsonPath, problems: &mut Vec<Problem>) {
    let mut found = Vec::new();
    misplaced(rules, path, &mut found);
    for place in found {
        let message = "a secret cannot stand here, where it would end up in a dataset";
        let help = "in rules, secrets may be the keys and passphrases of the functions encrypt, \
                    decrypt, encrypt-pki, decrypt-pki, encrypt-pgp and decrypt-pgp, and what those \
                    encrypt";
        problems.push(Problem::error(place, message).with_help(help));
    }
}

/// Warns of rules that give another result each time where full runs compare results with what a
/// dataset holds: each of these runs writes a version of every entity.
fn unstable(pipe: &Map<String, Json>, path: &JsonPath, program: &Program) -> Vec<Problem> {
    let text = |part: &str| pipe.get(part)?.get("type")?.as_str();
    let pump = |name: &str| pipe.get("pump").and_then(|pump| pump.get(name));
    let rescans = ["rescan_run_count", "rescan_cron_expression"]
        .iter()
        .any(|name| pump(name).is_some_and(|value| !value.is_null()));
    let continues = pipe
        .get("source")
        .and_then(|source| source.get("supports_since"))
        == Some(&Json::Bool(true));
    let runs_full = rescans || !continues;
    if text("sink") != Some("dataset") || text("source") == Some("http_endpoint") || !runs_full {
        return Vec::new();
    }
    let causes = program.causes().iter();
    causes
        .filter(|cause| matches!(cause.why, Why::Now | Why::Random))
        .map(|cause| {
            let message = format!(
                "the result depends on {}: each full run writes a version of every entity it \
                 comes to",
                cause.why
            );
            let problem = Problem::warning(join(path, &cause.path.0), message);
            problem.with_help(
                "take the value from the entity, or let the pipe run incrementally and without \
                 rescans",
            )
        })
        .collect()
}

/// Warns of joins that ask for dependency tracking where it cannot be right: behind a source that
/// cannot give an entity once more, behind a transform that depends on more than the entity, and
/// where the join cannot be followed back.
fn untracked(
    pipe: &Map<String, Json>,
    path: &JsonPath,
    rules: &Json,
    program: &Program,
    behind: bool,
) -> Vec<Problem> {
    const HELP: &str = "say \"track-dependencies\": false in the hops that need it not";
    let nothing = Json::Null;
    let source = pipe.get("source").unwrap_or(&nothing);
    if source["type"].is_null() || source["type"] == "empty" {
        // Nothing comes of it, the first time as little as again.
        return Vec::new();
    }
    let why = match (gives_again(source), behind) {
        (true, false) => {
            let lost = program.dependencies().untracked.iter();
            let told = lost.map(|lost| {
                let message = format!(
                    "changes of {:?} are not followed through this join: {}",
                    lost.dataset, lost.why
                );
                let place = path.0.iter().chain(lost.path.0.iter().skip(1)).cloned();
                Problem::warning(JsonPath(place.collect()), message).with_help(HELP)
            });
            return told.chain(unmerged(source, path, rules, program)).collect();
        }
        (true, true) if source["type"] == "merge" => {
            "a transform before this one makes something else of what was merged, so that what it \
             joins with may not be what the members have"
        }
        (false, _) => "the source of this pipe cannot give an entity once more",
        (true, true) => {
            "a transform before this one depends on more than the entity, so that what it joins \
             with may not be what the source's entity has"
        }
    };
    let tracked = program.reads().iter().filter(|read| read.tracked);
    tracked
        .map(|read| {
            let place = mention(rules, &read.dataset, path).unwrap_or_else(|| path.clone());
            let message = format!("changes of {:?} are tracked here, and {why}", read.dataset);
            Problem::warning(place, message).with_help(HELP)
        })
        .collect()
}

/// The joins of what a `merge` source gives that do not lead back to its members.
fn unmerged<'p>(
    source: &'p Json,
    path: &'p JsonPath,
    rules: &'p Json,
    program: &'p Program,
) -> impl Iterator<Item = Problem> + 'p {
    let places = program.dependencies().places.iter();
    let steps = places.flat_map(|place| place.back.iter().map(move |back| (place, back)));
    let steps = steps.filter(|(_, back)| source["type"] == "merge" && back.to == To::Source);
    steps.filter_map(move |(place, back)| {
        let why = obstacle(source, &back.there)?;
        let dataset = &place.dataset;
        let message = format!("changes of {dataset:?} are not followed through this join: {why}");
        let spot = mention(rules, dataset, path).unwrap_or_else(|| path.clone());
        let help = "say \"track-dependencies\": false in the hops that need it not";
        Some(Problem::warning(spot, message).with_help(help))
    })
}

/// The first place in rules that names a dataset, alone or with an alias behind it.
fn mention(json: &Json, dataset: &str, path: &JsonPath) -> Option<JsonPath> {
    match json {
        Json::String(text) => {
            let rest = text.strip_prefix(dataset)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| path.clone())
        }
        Json::Array(list) => {
            let mut items = list.iter().enumerate();
            items.find_map(|(at, item)| mention(item, dataset, &path.at(at)))
        }
        Json::Object(map) => {
            let mut items = map.iter();
            items.find_map(|(name, item)| mention(item, dataset, &path.name(name)))
        }
        _ => None,
    }
}
