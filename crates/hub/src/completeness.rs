//! Completeness: up to which moment a dataset holds everything that its inputs had.
//!
//! A run takes the smallest value of the datasets that it reads, or its own beginning where it reads
//! from outside, before it reads anything, and leaves it with the sink's dataset in its last
//! commit, beside what it has heard of every dataset upstream. Values only ever promise too
//! little: one that is lost or late holds entities back a little longer. That is why a run that
//! does nothing else writes it now and then only, and keeps it in memory otherwise.

mod bound;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use tahini_store::{Backend, Snapshot, StateWrite};

use crate::config::known::DATASET_SOURCES;
use crate::known::Known;
use crate::pipe::{Pipe, World};
use crate::{Ctx, Failure, Hub};

pub(crate) use bound::{Bound, EXPRESSION_DEPTH, expression};

/// Microseconds since 1970 UTC by the dataset that they are about.
pub type Values = BTreeMap<String, i64>;

/// The space of the state record that holds a dataset's values.
const SPACE: &str = "completeness";
const KEY: &[u8] = b"values";
/// How old what stands on disk may be while runs do nothing else, in microseconds.
const KEPT_FOR: i64 = 600_000_000;

/// Everything that `dataset` knows: its own completeness under its own name, and that of each
/// dataset upstream as it was when the last run began that brought it here.
///
/// # Errors
/// When the dataset cannot be read.
pub fn of(store: &dyn Backend, known: &Known, dataset: &str) -> Result<Values, Failure> {
    let Some(found) = store.find(dataset)? else {
        return Ok(Values::new());
    };
    let snapshot = found.snapshot()?;
    match known.completeness(dataset, snapshot.head().generation) {
        Some(values) => Ok(values),
        None => saved(snapshot.as_ref()),
    }
}

/// The completeness of `of` as `via` knows it, in microseconds since 1970 UTC.
///
/// # Errors
/// When the dataset `via` cannot be read.
pub fn value(
    store: &dyn Backend,
    known: &Known,
    via: &str,
    of: &str,
) -> Result<Option<i64>, Failure> {
    Ok(self::of(store, known, via)?.get(of).copied())
}

fn saved(snapshot: &dyn Snapshot) -> Result<Values, Failure> {
    let rows = snapshot.state(SPACE, KEY)?;
    let Some((_, text)) = rows.into_iter().next() else {
        return Ok(Values::new());
    };
    serde_json::from_slice(&text)
        .map_err(|error| Failure::fatal(format!("the dataset's completeness: {error}")))
}

fn write(values: &Values) -> StateWrite {
    let text: serde_json::Map<String, Json> = values
        .iter()
        .map(|(dataset, at)| (dataset.clone(), Json::from(*at)))
        .collect();
    StateWrite {
        space: SPACE.to_owned(),
        key: KEY.to_vec(),
        value: Some(Json::Object(text).to_string().into_bytes()),
    }
}

/// What a run leaves with the dataset that it writes.
pub(crate) struct Leaving {
    dataset: String,
    values: Values,
}

/// What a run that begins at `started` will leave; called before it reads anything. `None` where
/// it writes no dataset.
///
/// # Errors
/// When a dataset cannot be read.
pub(crate) fn leaving(
    pipe: &Pipe,
    world: &World,
    started: i64,
) -> Result<Option<Leaving>, Failure> {
    let Some(sink) = pipe.sink_dataset() else {
        return Ok(None);
    };
    let inputs = pipe.inputs();
    let mut values = Values::new();
    for input in inputs.iter().filter(|input| *input != sink) {
        let heard = of(world.store.as_ref(), &world.known, input)?;
        for (dataset, at) in heard.into_iter().filter(|(dataset, _)| dataset != sink) {
            let least = values.entry(dataset).or_insert(at);
            *least = at.min(*least);
        }
    }
    let own = own_value(pipe, world, sink, &inputs, &values, started)?;
    if let Some(own) = own {
        values.insert(sink.to_owned(), own);
    }
    let dataset = sink.to_owned();
    Ok(Some(Leaving { dataset, values }))
}

/// Says of every receiver's dataset that it is complete now: whoever calls this knows that nobody
/// posts.
///
/// # Errors
/// When a dataset cannot be read.
pub(crate) fn nothing_is_posted(hub: &Hub) -> Result<(), Failure> {
    for live in hub.pipes() {
        let Ok(pipe) = live.usable() else { continue };
        let Some(dataset) = pipe
            .sink_dataset()
            .filter(|_| pipe.kind("source") == "http_endpoint")
        else {
            continue;
        };
        if let (Some(leaving), Some(home)) = (
            leaving(pipe, &hub.world, hub.world.clock.micros())?,
            hub.world.store.find(dataset)?,
        ) {
            leaving.tell(&hub.world, home.snapshot()?.as_ref())?;
        }
    }
    Ok(())
}

fn own_value(
    pipe: &Pipe,
    world: &World,
    sink: &str,
    inputs: &BTreeSet<String>,
    heard: &Values,
    started: i64,
) -> Result<Option<i64>, Failure> {
    let listed = |name: &str| {
        let list = pipe.effective[name].as_array()?;
        let names = list.iter().filter_map(Json::as_str).map(str::to_owned);
        Some(names.collect::<BTreeSet<String>>())
    };
    let excluded = listed("exclude_completeness").unwrap_or_default();
    let wanted = listed("include_completeness").unwrap_or_else(|| inputs.clone());
    // Nobody brings anything new to a dataset that no pipe writes.
    let counts = |dataset: &&String| {
        *dataset != sink && !excluded.contains(*dataset) && world.known.is_written(dataset)
    };
    let from_outside = !DATASET_SOURCES.contains(&pipe.kind("source"));
    let mut least = from_outside.then_some(started);
    let mut any = false;
    for dataset in wanted.iter().filter(counts) {
        any = true;
        let value = match heard.get(dataset) {
            Some(value) => Some(*value),
            None => value(world.store.as_ref(), &world.known, dataset, dataset)?,
        };
        let Some(value) = value else { return Ok(None) };
        least = Some(least.map_or(value, |least| least.min(value)));
    }
    Ok(if any { least } else { Some(started) })
}

impl Leaving {
    /// The dataset's own value becomes `most` where it is larger.
    pub(crate) fn cap(&mut self, most: i64) {
        if let Some(own) = self.values.get_mut(&self.dataset) {
            *own = most.min(*own);
        }
    }

    /// The write that belongs to the run's last commit, and whether it is worth one of its own.
    pub(crate) fn write(&self, home: &dyn Snapshot) -> Result<(StateWrite, bool), Failure> {
        let saved = saved(home)?;
        let mut values = self.values.clone();
        // What was promised once holds, also while an input says nothing.
        for (dataset, at) in &saved {
            values.entry(dataset.clone()).or_insert(*at);
        }
        let is_old = |(dataset, at): (&String, &i64)| {
            let before = saved.get(dataset);
            before.is_none_or(|before| at.abs_diff(*before) >= KEPT_FOR.unsigned_abs())
        };
        let due = values.iter().any(is_old);
        Ok((write(&values), due))
    }

    /// Lets readers know, once the run is over.
    ///
    /// # Errors
    /// When what was known before cannot be read.
    pub(crate) fn tell(&self, world: &World, home: &dyn Snapshot) -> Result<(), Failure> {
        self.promised(world, home)?.keep(world);
        Ok(())
    }

    /// What readers will know, prepared before the commit that makes it true: looking at the
    /// dataset afterwards would wait for the disk.
    ///
    /// # Errors
    /// When what was known before cannot be read.
    pub(crate) fn promised(&self, world: &World, home: &dyn Snapshot) -> Result<Promised, Failure> {
        let generation = home.head().generation;
        let before = match world.known.completeness(&self.dataset, generation) {
            Some(values) => values,
            None => saved(home)?,
        };
        let mut values = self.values.clone();
        for (dataset, at) in before {
            values.entry(dataset).or_insert(at);
        }
        Ok(Promised {
            dataset: self.dataset.clone(),
            generation,
            values,
        })
    }
}

/// What readers of a dataset know once a commit is done.
pub(crate) struct Promised {
    dataset: String,
    generation: uuid::Uuid,
    values: Values,
}

impl Promised {
    /// Lets readers know.
    pub(crate) fn keep(self, world: &World) {
        let known = &world.known;
        known.keep_completeness(&self.dataset, self.generation, self.values);
    }
}

/// The same for a source that is open: the values are read as `ctx` sees them.
fn value_in(ctx: &Ctx<'_>, via: &str, of: &str) -> Result<Option<i64>, Failure> {
    value(ctx.store.as_ref(), ctx.known, via, of)
}
