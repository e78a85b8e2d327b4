//! Filling in what was left out, so that nobody behind this has to know a default.

use serde_json::{Map, Value as Json, json};

use super::known::{ADDS_NAMESPACES, DATASET_SOURCES, REMOVES_NAMESPACES};
use super::rows::{METADATA, PIPE, PUMP, SINK_COMMON, SYSTEM_COMMON, TRANSFORM_COMMON};
use super::{Kind, Property};
use crate::Registry;

type Object = Map<String, Json>;

/// The schedule of a pump that never runs, as the reference's clients know it.
const NEVER_SECONDS: u64 = 999_999_999;
/// Entities from checkpoint to checkpoint.
const CHECKPOINT_ENTITIES: u64 = 10_000;

/// The effective metadata of a node.
pub fn metadata(written: Option<&Object>) -> Object {
    let mut metadata = written.cloned().unwrap_or_default();
    fill(&mut metadata, METADATA);
    metadata
}

/// The effective configuration of a system.
pub fn system(mut system: Object, metadata: &Object, registry: &Registry) -> Object {
    let kind = text(&system, "type").to_owned();
    let globals = Globals::of(metadata);
    match kind.as_str() {
        "system:url" | "system:rest" => globals.give(&mut system, "verify_ssl", "verify_ssl"),
        "system:microservice" => {
            globals.give(&mut system, "eager_load", "eager_load_microservices");
        }
        _ => {}
    }
    if let Some(row) = registry.system(&kind) {
        fill(&mut system, row.properties);
    }
    fill(&mut system, SYSTEM_COMMON);
    system
}

/// The effective configuration of a pipe.
pub fn pipe(id: &str, mut pipe: Object, metadata: &Object, registry: &Registry) -> Object {
    let globals = Globals::of(metadata);
    let mut sink = part(&pipe, "sink").cloned().unwrap_or_default();
    if absent(&sink, "type") {
        sink.insert("type".to_owned(), json!("dataset"));
    }
    fill_sink(id, &mut sink, &globals, registry);
    let sink_kind = text(&sink, "type").to_owned();
    let mut source = part(&pipe, "source").cloned().unwrap_or_default();
    let source_kind = text(&source, "type").to_owned();
    let reads_datasets = DATASET_SOURCES.contains(&source_kind.as_str());
    let is_internal = reads_datasets && sink_kind == "dataset";
    let is_endpoint = source_kind == "http_endpoint" || sink_kind.ends_with("_endpoint");

    let mut pump = part(&pipe, "pump").cloned().unwrap_or_default();
    if reads_datasets && absent(&source, "supports_signalling") {
        let signals =
            is_internal && globals.flag("use_signalling_internally") && leaves_room(&pump);
        source.insert("supports_signalling".to_owned(), json!(signals));
    }
    fill_source(&mut source, &globals, registry);
    fill_pump(id, &mut pump, &globals, is_internal, is_endpoint);
    if let Some(transform) = pipe.get_mut("transform") {
        fill_transforms(transform, &globals, registry);
    }
    // What was written in these places and is no object stays, for the problems to point at.
    for (name, part) in [("source", source), ("sink", sink), ("pump", pump)] {
        if absent(&pipe, name) || pipe.get(name).is_some_and(Json::is_object) {
            if name == "source" && part.is_empty() {
                continue;
            }
            pipe.insert(name.to_owned(), Json::Object(part));
        }
    }
    fill_batches(&mut pipe, &sink_kind);
    fill_namespaces(id, &mut pipe, metadata, &source_kind, &sink_kind);
    fill_from_node(&mut pipe, metadata, &globals);
    fill(&mut pipe, PIPE);
    pipe
}

fn fill_source(source: &mut Object, globals: &Globals<'_>, registry: &Registry) {
    let Some(row) = registry.source(text(source, "type")) else {
        return;
    };
    for name in [
        "if_source_empty",
        "require_populated_input",
        "max_merged",
        "trace",
    ] {
        if row.properties.iter().any(|property| property.name == name) {
            globals.give(source, name, name);
        }
    }
    fill(source, row.properties);
    let says = row.continuation;
    for (name, value) in [
        ("supports_since", says.supports_since),
        ("is_since_comparable", says.is_since_comparable),
        ("is_chronological", says.is_chronological),
    ] {
        if !says.configurable || absent(source, name) {
            source.insert(name.to_owned(), json!(value));
        }
    }
}

fn fill_sink(id: &str, sink: &mut Object, globals: &Globals<'_>, registry: &Registry) {
    let kind = text(sink, "type").to_owned();
    if kind == "dataset" && absent(sink, "dataset") {
        sink.insert("dataset".to_owned(), json!(id));
    }
    let Some(row) = registry.sink(&kind) else {
        return;
    };
    if kind == "dataset" && globals.flag("always_index_ids") && absent(sink, "indexes") {
        sink.insert("indexes".to_owned(), json!("$ids"));
    }
    for name in ["max_entity_bytes_size", "trace"] {
        if row.properties.iter().any(|property| property.name == name) {
            globals.give(sink, name, name);
        }
    }
    fill(sink, row.properties);
    fill(sink, SINK_COMMON);
}

/// The sink of an effective pipe whose rules create children tracks them, if it is a dataset and
/// nothing else was said.
pub fn track_children(pipe: &mut Json) {
    if let Some(Json::Object(sink)) = pipe.get_mut("sink")
        && text(sink, "type") == "dataset"
        && absent(sink, "track_children")
    {
        sink.insert("track_children".to_owned(), json!(true));
    }
}

fn fill_transforms(transform: &mut Json, globals: &Globals<'_>, registry: &Registry) {
    match transform {
        Json::Array(list) => list
            .iter_mut()
            .for_each(|one| fill_transforms(one, globals, registry)),
        Json::Object(one) => {
            if let Some(row) = registry.transform(text(one, "type")) {
                if row
                    .properties
                    .iter()
                    .any(|property| property.name == "trace")
                {
                    globals.give(one, "trace", "trace");
                }
                fill(one, row.properties);
                fill(one, TRANSFORM_COMMON);
            }
            if text(one, "type") == "chained"
                && let Some(inner) = one.get_mut("transforms")
            {
                fill_transforms(inner, globals, registry);
            }
        }
        _ => {}
    }
}

fn fill_pump(
    id: &str,
    pump: &mut Object,
    globals: &Globals<'_>,
    is_internal: bool,
    is_endpoint: bool,
) {
    pump.insert("_id".to_owned(), json!(format!("pump:{id}")));
    pump.insert(
        "type".to_owned(),
        json!(if is_endpoint { "noop" } else { "datasync" }),
    );
    if is_endpoint {
        pump.insert("schedule_interval".to_owned(), json!(NEVER_SECONDS));
    } else if absent(pump, "cron_expression") && absent(pump, "schedule_interval") {
        let seconds = if is_internal { 30 } else { 900 };
        pump.insert("schedule_interval".to_owned(), json!(seconds));
    }
    let name = "run_at_startup_if_not_populated";
    globals.give(pump, name, name);
    fill(pump, PUMP);
}

/// Whether signals may start the pipe beside its schedule: not when somebody set a cron
/// expression or an interval of less than an hour.
fn leaves_room(pump: &Object) -> bool {
    let often = pump
        .get("schedule_interval")
        .and_then(Json::as_f64)
        .is_some_and(|s| s < 3600.0);
    absent(pump, "cron_expression") && !often
}

fn fill_batches(pipe: &mut Object, sink_kind: &str) {
    if absent(pipe, "batch_size") {
        pipe.insert(
            "batch_size".to_owned(),
            json!(if sink_kind == "rest" { 1 } else { 100 }),
        );
    }
    if absent(pipe, "checkpoint_interval") {
        let size = pipe
            .get("batch_size")
            .and_then(Json::as_u64)
            .unwrap_or(100)
            .max(1);
        let batches = if size == 1 {
            1
        } else {
            (CHECKPOINT_ENTITIES / size).max(1)
        };
        pipe.insert("checkpoint_interval".to_owned(), json!(batches));
    }
}

fn fill_namespaces(
    id: &str,
    pipe: &mut Object,
    metadata: &Object,
    source_kind: &str,
    sink_kind: &str,
) {
    if absent(pipe, "namespaced_identifiers") {
        let node = metadata
            .get("namespaced_identifiers")
            .cloned()
            .unwrap_or(json!(false));
        pipe.insert("namespaced_identifiers".to_owned(), node);
    }
    let on = pipe.get("namespaced_identifiers") == Some(&json!(true));
    for (name, default) in [
        ("add_namespaces", ADDS_NAMESPACES.contains(&source_kind)),
        ("remove_namespaces", REMOVES_NAMESPACES.contains(&sink_kind)),
    ] {
        if absent(pipe, name) {
            pipe.insert(name.to_owned(), json!(on && default));
        }
    }
    let namespaces = object_in(pipe, "namespaces");
    let Some(namespaces) = namespaces else {
        return;
    };
    for name in ["identity", "property"] {
        if absent(namespaces, name) {
            namespaces.insert(name.to_owned(), json!(id));
        }
    }
    if let Some(expansions) = metadata
        .get("namespaces")
        .and_then(|all| all.get("default"))
        && absent(namespaces, "default")
    {
        namespaces.insert("default".to_owned(), expansions.clone());
    }
    let defaults = metadata.get("global_defaults");
    if defaults.is_some_and(|all| all["symmetric_namespace_collapse"] == true) {
        namespaces.insert("symmetric_collapse".to_owned(), json!(true));
    }
}

/// What a pipe inherits from the node's metadata.
fn fill_from_node(pipe: &mut Object, metadata: &Object, globals: &Globals<'_>) {
    for name in [
        "enable_background_rescan",
        "rescan_when_config_changes",
        "reprocessing_policy",
        "infer_pipe_entity_types",
    ] {
        globals.give(pipe, name, name);
    }
    if let Some(compaction) = object_in(pipe, "compaction") {
        if absent(compaction, "sink") {
            let sink = globals.get("default_compaction_type") != Some(&json!("background"));
            compaction.insert("sink".to_owned(), json!(sink));
        }
        for (name, global) in [
            ("compaction_interval", "compaction_interval"),
            ("keep_versions", "compaction_keep_versions"),
            ("time_threshold_hours", "compaction_time_threshold_hours"),
            (
                "time_threshold_hours_pump",
                "compaction_time_threshold_hours_pump",
            ),
            ("growth_threshold", "compaction_growth_threshold"),
        ] {
            globals.give(compaction, name, global);
        }
    }
    let limits = part(metadata, "dependency_tracking");
    if let Some(tracking) = object_in(pipe, "dependency_tracking") {
        for (name, value) in limits.into_iter().flatten() {
            if absent(tracking, name) {
                tracking.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The metadata's `global_defaults`.
struct Globals<'a>(Option<&'a Object>);

impl<'a> Globals<'a> {
    fn of(metadata: &'a Object) -> Globals<'a> {
        Globals(part(metadata, "global_defaults"))
    }

    fn get(&self, name: &str) -> Option<&'a Json> {
        self.0?.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name) == Some(&json!(true))
    }

    /// Sets the property `name` to the global default `global`, if it is not set and there is one.
    fn give(&self, object: &mut Object, name: &str, global: &str) {
        if let Some(value) = self.get(global)
            && absent(object, name)
        {
            object.insert(name.to_owned(), value.clone());
        }
    }
}

/// Gives properties that are not there their defaults, nested ones too.
fn fill(object: &mut Object, rows: &[Property]) {
    for row in rows {
        if let Some(default) = row.default
            && absent(object, row.name)
        {
            let value = serde_json::from_str(default).expect("defaults of rows are JSON; tested");
            object.insert(row.name.to_owned(), value);
        }
        if let Kind::Nested(inner) = row.kind
            && let Some(Json::Object(nested)) = object.get_mut(row.name)
        {
            fill(nested, inner);
        }
    }
}

/// Whether a property is not there, or null, which says the same.
fn absent(object: &Object, name: &str) -> bool {
    object.get(name).is_none_or(Json::is_null)
}

fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Json::as_str).unwrap_or_default()
}

fn part<'a>(object: &'a Object, name: &str) -> Option<&'a Object> {
    object.get(name).and_then(Json::as_object)
}

/// The object `name`, made if it is not there; `None` when something else stands there.
fn object_in<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    if absent(object, name) {
        object.insert(name.to_owned(), Json::Object(Object::new()));
    }
    object.get_mut(name).and_then(Json::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::super::rows::SOURCE_COMMON;
    use super::*;

    #[test]
    fn defaults_of_rows_are_json() {
        fn check(rows: &[Property]) {
            for row in rows {
                if let Some(default) = row.default {
                    let parsed: Result<Json, _> = serde_json::from_str(default);
                    assert!(parsed.is_ok(), "{}: {default}", row.name);
                }
                if let Kind::Nested(inner) = row.kind {
                    check(inner);
                }
            }
        }
        for rows in [
            METADATA,
            PIPE,
            PUMP,
            SINK_COMMON,
            SYSTEM_COMMON,
            TRANSFORM_COMMON,
            SOURCE_COMMON,
        ] {
            check(rows);
        }
    }
}
