//! Whether a pipe's output is still what its configuration makes of its input.
//!
//! With its place a pipe keeps what its output was made of. A run that finds something else is out
//! of sync: by `reprocessing_policy` it begins anew, or goes on and keeps a list of why, until a
//! run reads everything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use tahini_entity::{Value, order};
use tahini_store::{Snapshot, StateWrite, StoreError};
use uuid::Uuid;

use crate::Failure;
use crate::pipe::{Pipe, World};
use crate::progress::{self, Place};

/// The key of the record.
pub(crate) const SYNC: &[u8] = b"sync";

/// Properties that change nothing about what comes out, in a source, transform or sink.
const NOISE: &[&str] = &[
    "name",
    "comment",
    "description",
    "metadata",
    "_comment",
    "supports_signalling",
    "if_source_empty",
    "require_populated_input",
    "initial_datasets",
    "ignore_non_existent_datasets",
    "completeness",
    "initial_completeness",
    "page_size",
    "batch_size",
    "trace",
    "set_initial_offset",
    "indexes",
    "bitset_commit_interval",
    "circuit_breaker_threshold_count",
    "circuit_breaker_threshold_factor",
    "max_entity_bytes_size",
];

/// Why a pipe is out of sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One of the codes in the guide, for example `pipe-config-changed`.
    pub code: String,
    /// The dataset that it is about.
    pub dataset: Option<String>,
    /// The first run that found it.
    pub since: Timestamp,
}

/// What an output is made of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Basis {
    config: String,
    /// The source alone, as it was when everything was read last.
    whole: Option<String>,
    sources: Vec<String>,
    /// What rules read, with the generation of what is there.
    joined: BTreeMap<String, Option<Uuid>>,
}

/// How a pipe stands at the beginning of a run.
pub(crate) struct Sync {
    basis: Basis,
    /// The source alone, as it is now.
    source: String,
    /// Everything that is known of, found now or before.
    reasons: Vec<Reason>,
    /// The pipe begins anew because of them.
    resets: bool,
}

impl Sync {
    /// Compares what the output was made of with what it would be made of now.
    ///
    /// # Errors
    /// When a dataset cannot be read.
    pub(crate) fn of(pipe: &Pipe, world: &World, place: &Place) -> Result<Sync, Failure> {
        let (before, mut reasons) = read(&place.sync);
        let (mut basis, restored) = Basis::of(pipe, world, before.as_ref())?;
        basis.whole = before.as_ref().and_then(|before| before.whole.clone());
        if let Some(before) = before {
            let now = world.clock.now();
            let watched = pipe.effective["rescan_when_config_changes"] == true;
            for (code, dataset) in before.differs(&basis, watched, &restored) {
                let known = |reason: &Reason| reason.code == code && reason.dataset == dataset;
                if !reasons.iter().any(known) {
                    reasons.push(Reason {
                        code: code.to_owned(),
                        dataset,
                        since: now,
                    });
                }
            }
        }
        Ok(Sync {
            basis,
            source: source_fingerprint(pipe),
            reasons,
            resets: false,
        })
    }

    /// Whether a pipe that would go on has to begin anew.
    pub(crate) fn resets(&mut self, pipe: &Pipe) -> bool {
        self.resets = !self.reasons.is_empty() && self.may_reset(pipe);
        self.resets
    }

    /// Whether a pipe may begin anew by itself.
    pub(crate) fn may_reset(&self, pipe: &Pipe) -> bool {
        let automatic = pipe.effective["reprocessing_policy"] == "automatic";
        automatic && pipe.effective["disable_set_last_seen"] != true
    }

    /// What people are told of a run that begins anew.
    pub(crate) fn told(&self) -> Option<String> {
        let reasons: Vec<String> = self.reasons.iter().map(Reason::words).collect();
        let reasons = reasons.join(", ");
        self.resets.then(|| {
            format!("the pipe was out of sync and began anew (`reprocessing_policy`): {reasons}")
        })
    }

    /// The write at the end of a run; after one that read everything nothing is out of sync.
    pub(crate) fn write(&self, pipe: &str, everything: bool) -> StateWrite {
        let reasons: Vec<Json> = match everything {
            true => Vec::new(),
            false => self.reasons.iter().map(Reason::to_json).collect(),
        };
        let joined = self.basis.joined.iter().map(|(name, generation)| {
            let generation = generation.map(|generation| generation.to_string());
            (name.clone(), json!(generation))
        });
        let whole = match everything {
            true => Some(&self.source),
            false => self.basis.whole.as_ref(),
        };
        let record = json!({
            "config": self.basis.config,
            "whole": whole,
            "sources": self.basis.sources,
            "joined": Json::Object(joined.collect()),
            "reasons": reasons,
        });
        progress::write(pipe, SYNC, Some(record.to_string().into_bytes()))
    }
}

/// A text that is equal where the output is made of the same.
///
/// # Errors
/// When a dataset cannot be read.
pub(crate) fn basis(pipe: &Pipe, world: &World) -> Result<String, Failure> {
    let (basis, _) = Basis::of(pipe, world, None)?;
    let joined = basis.joined.iter();
    let joined = joined.map(|(name, generation)| format!("{name}={generation:?}"));
    let parts = [basis.config, joined.collect::<Vec<_>>().join(",")];
    Ok(format!(
        "{:032x}",
        order::key(&Value::string(parts.join(" ")))
    ))
}

/// Whether the source is another than when everything was read last, as far as that is known.
pub(crate) fn source_is_another(pipe: &Pipe, place: &Place) -> bool {
    let before = read(&place.sync).0.and_then(|before| before.whole);
    before.is_some_and(|before| before != source_fingerprint(pipe))
}

fn source_fingerprint(pipe: &Pipe) -> String {
    let mut text = String::new();
    put(&without_noise(&pipe.effective["source"]), &mut text);
    format!("{:032x}", order::key(&Value::string(text)))
}

/// Why a pipe is out of sync, as its last run left it in the dataset that keeps its place.
///
/// # Errors
/// When that cannot be read.
pub fn reasons_in(home: &dyn Snapshot, pipe: &str) -> Result<Vec<Reason>, StoreError> {
    let (rows, _) = home.state_page(&progress::space(pipe), SYNC, None, 1)?;
    let saved = rows.iter().find(|(key, _)| key == SYNC);
    Ok(saved.map_or_else(Vec::new, |(_, record)| read(record).1))
}

impl Reason {
    fn words(&self) -> String {
        match &self.dataset {
            Some(dataset) => format!("{} ({dataset})", self.code),
            None => self.code.clone(),
        }
    }

    /// The reason as the API shows it.
    pub fn to_json(&self) -> Json {
        json!({
            "reason": self.code,
            "dataset": self.dataset,
            "since": format!("{:.6}", self.since),
        })
    }

    fn of_json(json: &Json) -> Option<Reason> {
        Some(Reason {
            code: json["reason"].as_str()?.to_owned(),
            dataset: json["dataset"].as_str().map(str::to_owned),
            since: json["since"].as_str()?.parse().ok()?,
        })
    }
}

fn read(record: &[u8]) -> (Option<Basis>, Vec<Reason>) {
    let Ok(record) = serde_json::from_slice::<Json>(record) else {
        return (None, Vec::new());
    };
    let texts = |json: &Json| {
        let list = json.as_array().into_iter().flatten();
        list.filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let joined = record["joined"].as_object().into_iter().flatten();
    let joined = joined.map(|(name, generation)| {
        let generation = generation.as_str().and_then(|text| text.parse().ok());
        (name.clone(), generation)
    });
    let basis = Basis {
        config: record["config"].as_str().unwrap_or_default().to_owned(),
        whole: record["whole"].as_str().map(str::to_owned),
        sources: texts(&record["sources"]),
        joined: joined.collect(),
    };
    let reasons = record["reasons"].as_array().into_iter().flatten();
    (Some(basis), reasons.filter_map(Reason::of_json).collect())
}

impl Basis {
    /// What the output is made of now, and which of the joined datasets were restored since.
    fn of(
        pipe: &Pipe,
        world: &World,
        before: Option<&Basis>,
    ) -> Result<(Basis, Vec<String>), Failure> {
        let mut joined = BTreeMap::new();
        let mut restored = Vec::new();
        for read in &pipe.reads {
            let dataset = &read.dataset;
            let found = world.store.find(dataset)?;
            let head = match found {
                Some(found) => Some(found.snapshot()?.head().clone()),
                None => None,
            };
            let known = before.and_then(|before| *before.joined.get(dataset)?);
            let is_past = |head: &tahini_store::Head| {
                let mut past = head.past.iter();
                past.any(|past| Some(past.generation) == known)
            };
            if head.as_ref().is_some_and(is_past) {
                restored.push(dataset.clone());
            }
            joined.insert(dataset.clone(), head.map(|head| head.generation));
        }
        let mut sources: Vec<String> = pipe
            .source_datasets()
            .into_iter()
            .map(str::to_owned)
            .collect();
        sources.sort_unstable();
        sources.dedup();
        let basis = Basis {
            config: fingerprint(&pipe.effective),
            whole: None,
            sources,
            joined,
        };
        Ok((basis, restored))
    }

    /// What is not as it was: a code, and the dataset that it is about.
    fn differs(
        &self,
        now: &Basis,
        config_is_watched: bool,
        restored: &[String],
    ) -> Vec<(&'static str, Option<String>)> {
        let mut found = Vec::new();
        if config_is_watched && self.config != now.config {
            found.push(("pipe-config-changed", None));
        }
        let missing = |from: &[String], of: &[String]| {
            let gone = of.iter().filter(|name| !from.contains(name));
            gone.cloned().map(Some).collect::<Vec<_>>()
        };
        for dataset in missing(&self.sources, &now.sources) {
            found.push(("source-dataset-added", dataset));
        }
        for dataset in missing(&now.sources, &self.sources) {
            found.push(("source-dataset-removed", dataset));
        }
        for (dataset, generation) in &now.joined {
            let code = match (self.joined.get(dataset), generation) {
                (None, _) => "joined-dataset-added",
                (Some(Some(_)), None) => "joined-dataset-deleted",
                (Some(Some(_)), Some(_)) if restored.contains(dataset) => "joined-dataset-restored",
                (Some(Some(before)), Some(now)) if before != now => "joined-dataset-recreated",
                _ => continue,
            };
            found.push((code, Some(dataset.clone())));
        }
        found
    }
}

/// A text that is equal where equal entities come out: names are in order, and what says nothing
/// about the output is left out.
fn fingerprint(effective: &Json) -> String {
    let mut parts = Map::new();
    for name in ["source", "sink"] {
        parts.insert(name.to_owned(), without_noise(&effective[name]));
    }
    parts.insert("transform".to_owned(), transforms(&effective["transform"]));
    for name in [
        "add_namespaces",
        "remove_namespaces",
        "namespaced_identifiers",
        "namespaces",
    ] {
        parts.insert(name.to_owned(), effective[name].clone());
    }
    let mut text = String::new();
    put(&Json::Object(parts), &mut text);
    format!("{:032x}", order::key(&Value::string(text)))
}

fn without_noise(part: &Json) -> Json {
    let mut part = part.clone();
    if let Json::Object(map) = &mut part {
        map.retain(|name, value| !NOISE.contains(&name.as_str()) && !value.is_null());
    }
    part
}

fn transforms(transform: &Json) -> Json {
    match transform {
        Json::Array(list) => list.iter().map(transforms).collect(),
        Json::Object(_) => {
            let mut part = without_noise(transform);
            if let Some(inner) = part.get_mut("transforms") {
                *inner = transforms(inner);
            }
            if let Some(Json::Object(rules)) = part.get_mut("rules") {
                for rule in rules.values_mut().filter_map(Json::as_array_mut) {
                    rule.retain(|statement| statement[0] != "comment");
                }
            }
            part
        }
        other => other.clone(),
    }
}

/// JSON with the names of objects in order.
fn put(json: &Json, out: &mut String) {
    match json {
        Json::Object(map) => {
            let sorted: BTreeMap<&String, &Json> = map.iter().collect();
            out.push('{');
            for (name, value) in sorted {
                out.push_str(&Json::from(name.as_str()).to_string());
                out.push(':');
                put(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Json::Array(list) => {
            out.push('[');
            for item in list {
                put(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_about_the_output_changes_no_fingerprint() {
        let pipe = json!({
            "source": {"type": "dataset", "dataset": "a", "completeness": false},
            "sink": {"type": "dataset", "dataset": "b"},
            "transform": {"type": "dtl", "rules": {"default": [["copy", "*"]], "x": []}},
            "add_namespaces": false,
        });
        let same = json!({
            "comment": "c",
            "pump": {"schedule_interval": 5},
            "source": {"dataset": "a", "type": "dataset", "completeness": true, "subset": null},
            "sink": {"dataset": "b", "type": "dataset", "indexes": ["$ids"], "name": "n"},
            "transform": {"type": "dtl", "rules": {
                "x": [], "default": [["comment", "all"], ["copy", "*"]]
            }},
            "add_namespaces": false,
        });
        assert_eq!(fingerprint(&pipe), fingerprint(&same));
        for (place, value) in [
            ("/source/dataset", json!("c")),
            ("/sink/dataset", json!("c")),
            ("/transform/rules/default/0/1", json!("x")),
            ("/add_namespaces", json!(true)),
        ] {
            let mut other = pipe.clone();
            *other.pointer_mut(place).unwrap() = value;
            assert_ne!(fingerprint(&pipe), fingerprint(&other), "{place}");
        }
    }
}
