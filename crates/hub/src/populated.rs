//! Waiting for the datasets that a pipe reads.

use serde_json::Value as Json;
use tahini_store::StoreError;

use crate::Failure;
use crate::pipe::{Pipe, World};

/// A dataset that a pipe waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The dataset.
    pub dataset: String,
    /// The rules read it; otherwise the source does (`require_populated_input`).
    pub by_rules: bool,
}

/// Lets a run begin only when every dataset that its rules read is populated. What no pipe writes
/// is not waited for: nothing would ever populate it.
///
/// # Errors
/// Waiting, with the dataset that is missing; otherwise when the store cannot be read.
pub(crate) fn wait(pipe: &Pipe, world: &World) -> Result<(), Failure> {
    let missing = of_rules(pipe, world)?;
    let Some(dataset) = missing.first() else {
        return Ok(());
    };
    let help = match pipe.sink_dataset() == Some(dataset) {
        true => "; a pipe that reads its own sink says `set_initial_offset` \"onload\" there",
        false => "",
    };
    Err(Failure::waiting(format!(
        "pipe {:?} waits for dataset {dataset:?}, which its rules read and which is not populated \
         yet{help}",
        pipe.id
    )))
}

/// Every dataset that a pipe waits for now: those that its rules read, and those of its source
/// where that has `require_populated_input`.
///
/// # Errors
/// When a dataset cannot be read.
pub fn missing(pipe: &Pipe, world: &World) -> Result<Vec<Missing>, Failure> {
    let rules = of_rules(pipe, world)?.into_iter();
    let mut all: Vec<Missing> = rules.map(|dataset| Missing::of(dataset, true)).collect();
    if pipe.effective["source"]["require_populated_input"] == true {
        let source = of_source(pipe, world)?.into_iter();
        all.extend(source.map(|dataset| Missing::of(dataset, false)));
    }
    Ok(all)
}

impl Missing {
    fn of(dataset: String, by_rules: bool) -> Missing {
        Missing { dataset, by_rules }
    }
}

fn of_rules(pipe: &Pipe, world: &World) -> Result<Vec<String>, Failure> {
    let mut missing: Vec<String> = Vec::new();
    for read in pipe.reads.iter().filter(|read| read.populated) {
        let dataset = &read.dataset;
        if world.known.is_written(dataset)
            && !missing.contains(dataset)
            && !is_populated(world, dataset)?.unwrap_or(false)
        {
            missing.push(dataset.clone());
        }
    }
    Ok(missing)
}

/// The datasets of the source that keep it from counting as populated: then what the pipe writes
/// does not count as populated either.
///
/// # Errors
/// When a dataset cannot be read.
pub(crate) fn of_source(pipe: &Pipe, world: &World) -> Result<Vec<String>, Failure> {
    let source = &pipe.effective["source"];
    let single = pipe.kind("source") == "dataset";
    let ignored = !single && source["ignore_non_existent_datasets"] != false;
    let names: Vec<&str> = match source["initial_datasets"].as_array() {
        Some(named) if !single => named.iter().filter_map(Json::as_str).collect(),
        _ => pipe.source_datasets(),
    };
    let mut missing = Vec::new();
    for name in names {
        let known = is_populated(world, name)?;
        if !known.unwrap_or(ignored && !world.known.is_written(name)) {
            missing.push(name.to_owned());
        }
    }
    Ok(missing)
}

/// Whether a dataset is populated; `None` where there is none.
pub(crate) fn is_populated(world: &World, dataset: &str) -> Result<Option<bool>, StoreError> {
    match world.store.find(dataset)? {
        Some(found) => Ok(Some(found.snapshot()?.head().populated)),
        None => Ok(None),
    }
}
