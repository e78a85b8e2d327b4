//! Running a project's pipes until nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tahini_entity::Batch;
use tahini_store::{Limit, Seq, View};

use crate::execution_log::{NAMED, Summary};
use crate::hub::{Hub, LivePipe};
use crate::pump::Request;
use crate::{Cancel, Class, Failure, completeness};

/// What to run, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these pipes; empty means all.
    pub only: Vec<String>,
    /// Also the pipes that write to the outside.
    pub outputs: bool,
    /// The most passes over the pipes.
    pub max_passes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            only: Vec::new(),
            outputs: true,
            max_passes: 100,
        }
    }
}

/// One run of one pipe, or why there was none.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Which pass over the pipes, from 1.
    pub pass: usize,
    /// The pipe.
    pub pipe: String,
    /// What came of it.
    pub summary: Summary,
    /// The pipe is disabled, with this comment, and did not run.
    pub disabled: Option<String>,
}

/// How it ended, and what is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How it ended.
    pub ending: Ending,
    /// Pipes whose last run failed.
    pub failed: Vec<String>,
    /// What pipes wait for, a sentence each. At rest, nothing is left that could bring it.
    pub waits: Vec<String>,
    /// Pipes that changed something in the last pass, and so make it not the last, with the first
    /// entities that they changed or sent. Empty at rest.
    pub restless: Vec<(String, Vec<String>)>,
}

/// How the passes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Another pass would find nothing to do.
    #[default]
    AtRest,
    /// Another pass would find something to do, and no more are allowed.
    OutOfPasses,
    /// Stopped on request.
    Stopped,
}

impl Rest {
    /// Nothing changes any more, nothing failed, and nothing waits.
    pub fn is_settled(&self) -> bool {
        *self == Rest::default()
    }
}

/// Runs the pipes in the order of their datasets, pass by pass, until nothing changes.
/// Pipes that read from outside run in the first pass only. `told` hears of every run, and once
/// of every disabled pipe, which is left alone.
///
/// # Errors
/// When the store cannot be read.
pub fn settle(
    hub: &Hub,
    options: &Options,
    cancel: &Cancel,
    mut told: impl FnMut(&Ran),
) -> Result<Rest, Failure> {
    let (pipes, disabled): (Vec<_>, Vec<_>) = in_order(wanted(hub, options))
        .into_iter()
        .partition(|live| live.state().disabled.is_none());
    for live in &disabled {
        told(&asleep(live));
    }
    let mut work = Work {
        hub,
        pipes,
        seen: BTreeMap::new(),
        failed: BTreeSet::new(),
        waiting: BTreeMap::new(),
        held: BTreeMap::new(),
        again: false,
        released: true,
        changed: Vec::new(),
    };
    for pass in 1..=options.max_passes {
        let ran = work.pass(pass, cancel, &mut told)?;
        if cancel.is_cancelled() {
            return Ok(work.rest(Ending::Stopped, &[]));
        }
        let news = work.news()?;
        // Whoever waits is asked again only after something ran that may have ended the wait.
        let may_go_on = ran > 0 && !work.waiting.is_empty();
        if news.is_empty() && !may_go_on {
            // What is held back may be let through once the pipes before have said that nothing
            // more came.
            if work.held.is_empty() || !work.released {
                return Ok(work.rest(Ending::AtRest, &[]));
            }
            work.again = true;
            completeness::nothing_is_posted(hub)?;
        }
        if pass == options.max_passes {
            return Ok(work.rest(Ending::OutOfPasses, &news));
        }
    }
    Ok(work.rest(Ending::OutOfPasses, &[]))
}

/// Passes under way.
struct Work<'a> {
    hub: &'a Hub,
    pipes: Vec<Arc<LivePipe>>,
    /// How far each dataset reached before the last run of each of its readers.
    seen: BTreeMap<(String, String), Seq>,
    failed: BTreeSet<String>,
    /// Why pipes wait, by pipe.
    waiting: BTreeMap<String, String>,
    /// Why pipes hold back entities that they could read, by pipe.
    held: BTreeMap<String, String>,
    /// The next pass runs all pipes, also those that read from outside.
    again: bool,
    /// Something that was held back came through in the last such pass, or there was none yet.
    released: bool,
    /// What the pipes of the last pass changed.
    changed: Vec<(Arc<LivePipe>, Vec<String>)>,
}

impl Work<'_> {
    /// Runs whatever has something to do, and tells how many pipes ran and did not just wait.
    fn pass(
        &mut self,
        pass: usize,
        cancel: &Cancel,
        told: &mut impl FnMut(&Ran),
    ) -> Result<usize, Failure> {
        let mut ran = 0;
        self.changed.clear();
        let again = std::mem::take(&mut self.again);
        self.released &= !again;
        for live in self.pipes.clone() {
            if cancel.is_cancelled() {
                return Ok(ran);
            }
            if pass > 1
                && !again
                && !self.waiting.contains_key(live.id())
                && !self.has_news(&live)?
            {
                continue;
            }
            if let Some(summary) = self.run(&live)? {
                ran += 1;
                told(&Ran {
                    pass,
                    pipe: live.id().to_owned(),
                    summary,
                    disabled: None,
                });
            }
        }
        Ok(ran)
    }

    /// One run; `None` when the pipe waits.
    fn run(&mut self, live: &Arc<LivePipe>) -> Result<Option<Summary>, Failure> {
        let id = live.id().to_owned();
        let (inputs, before) = (self.heads(live)?, self.sink_head(live)?);
        let summary = match self.hub.run(live, &Request::default()) {
            Ok(summary) => summary,
            Err(refusal) => Summary {
                failure: Some(Failure::config(refusal.to_string())),
                ..Summary::default()
            },
        };
        match &summary.failure {
            Some(failure) if failure.class == Class::Waiting => {
                self.waiting.insert(id, failure.to_string());
                return Ok(None);
            }
            Some(_) => self.failed.insert(id.clone()),
            None => self.failed.remove(&id),
        };
        self.waiting.remove(&id);
        self.released |= self.held.remove(&id).is_some() && summary.read > 0;
        if let Some(why) = &summary.held_back {
            self.held.insert(id.clone(), format!("pipe {id:?}: {why}"));
        }
        for (dataset, next) in inputs {
            self.seen.insert((id.clone(), dataset), next);
        }
        if summary.changed > 0 {
            let ids = match live.component.sink_dataset() {
                Some(dataset) => self.changed_ids(dataset, before)?,
                None => summary.first_ids.clone(),
            };
            self.changed.push((live.clone(), ids));
        }
        Ok(Some(summary))
    }

    /// The pipes whose datasets have grown since they ran.
    fn news(&self) -> Result<Vec<Arc<LivePipe>>, Failure> {
        let mut news = Vec::new();
        for live in &self.pipes {
            if !self.waiting.contains_key(live.id()) && self.has_news(live)? {
                news.push(live.clone());
            }
        }
        Ok(news)
    }

    fn has_news(&self, live: &LivePipe) -> Result<bool, Failure> {
        let heads = self.heads(live)?.into_iter();
        let mut fresh = heads.filter(|(name, next)| self.seen_by(live.id(), name) != Some(*next));
        Ok(fresh.next().is_some())
    }

    fn seen_by(&self, pipe: &str, dataset: &str) -> Option<Seq> {
        let key = (pipe.to_owned(), dataset.to_owned());
        self.seen.get(&key).copied()
    }

    fn heads(&self, live: &LivePipe) -> Result<Vec<(String, Seq)>, Failure> {
        let names: BTreeSet<&str> = live.component.source_datasets().into_iter().collect();
        names
            .union(&live.ways.datasets())
            .map(|name| Ok(((*name).to_owned(), self.head(name)?)))
            .collect()
    }

    fn sink_head(&self, live: &LivePipe) -> Result<Seq, Failure> {
        live.component
            .sink_dataset()
            .map_or(Ok(0), |name| self.head(name))
    }

    fn head(&self, dataset: &str) -> Result<Seq, Failure> {
        match self.hub.world.store.find(dataset)? {
            Some(dataset) => Ok(dataset.snapshot()?.head().next),
            None => Ok(0),
        }
    }

    /// The ids of the first versions of a dataset from `before` on.
    fn changed_ids(&self, dataset: &str, before: Seq) -> Result<Vec<String>, Failure> {
        let Some(dataset) = self.hub.world.store.find(dataset)? else {
            return Ok(Vec::new());
        };
        let mut batch = Batch::new();
        let view = View {
            history: true,
            deleted: true,
        };
        let limit = Limit {
            rows: NAMED,
            bytes: 1 << 20,
        };
        let after = before.checked_sub(1);
        dataset
            .snapshot()?
            .changes(after, view, limit, &mut batch)?;
        let ids = batch.iter().filter_map(|record| record.id);
        Ok(ids.map(str::to_owned).collect())
    }

    /// How it stands; `news` are the pipes that another pass would run.
    fn rest(self, ending: Ending, news: &[Arc<LivePipe>]) -> Rest {
        let astir = self.astir(news);
        let is_astir = |id: &str| astir.iter().any(|live| live.id() == id);
        let restless = self.changed.iter().filter(|(live, _)| {
            is_astir(live.id()) || astir.iter().any(|reader| feeds(live, reader))
        });
        Rest {
            ending,
            restless: restless
                .map(|(live, ids)| (live.id().to_owned(), ids.clone()))
                .collect(),
            failed: self.failed.into_iter().collect(),
            waits: self
                .waiting
                .into_values()
                .chain(self.held.into_values())
                .collect(),
        }
    }

    /// The pipes that another pass would run, and all that read what those would write.
    fn astir(&self, news: &[Arc<LivePipe>]) -> Vec<Arc<LivePipe>> {
        let mut astir = news.to_vec();
        let mut at = 0;
        while let Some(writer) = astir.get(at).cloned() {
            for live in &self.pipes {
                if feeds(&writer, live) && !astir.iter().any(|known| known.id() == live.id()) {
                    astir.push(live.clone());
                }
            }
            at += 1;
        }
        astir
    }
}

/// Whether one pipe writes a dataset that the other reads.
fn feeds(writer: &LivePipe, reader: &LivePipe) -> bool {
    let sink = writer.component.sink_dataset();
    sink.is_some_and(|sink| {
        reader.component.source_datasets().contains(&sink) || reader.ways.datasets().contains(sink)
    })
}

fn asleep(live: &LivePipe) -> Ran {
    Ran {
        pass: 1,
        pipe: live.id().to_owned(),
        summary: Summary::default(),
        disabled: live.state().disabled,
    }
}

fn wanted(hub: &Hub, options: &Options) -> Vec<Arc<LivePipe>> {
    let chosen =
        |live: &LivePipe| options.only.is_empty() || options.only.iter().any(|id| id == live.id());
    let runs = |live: &LivePipe| {
        let Ok(pipe) = live.runnable() else {
            // What cannot run because its configuration is wrong is told, endpoints are not.
            return !live.component.is_valid();
        };
        options.outputs || pipe.sink_dataset().is_some()
    };
    hub.pipes()
        .into_iter()
        .filter(|live| chosen(live) && runs(live))
        .collect()
}

fn sources(live: &LivePipe) -> BTreeSet<String> {
    let names = live.component.source_datasets().into_iter();
    names.map(str::to_owned).collect()
}

/// The datasets that source and rules read.
fn inputs(live: &LivePipe) -> BTreeSet<String> {
    match &live.pipe {
        Ok(pipe) => pipe.inputs(),
        Err(_) => sources(live),
    }
}

/// Sorts pipes so that writers of a dataset come before its readers; members of a cycle and
/// equals stand in the order of their ids.
fn in_order(pipes: Vec<Arc<LivePipe>>) -> Vec<Arc<LivePipe>> {
    let mut left = pipes;
    let mut sorted = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let written: BTreeSet<String> = left
            .iter()
            .filter_map(|live| live.component.sink_dataset().map(str::to_owned))
            .collect();
        let is_ready = |live: &LivePipe, reads: &dyn Fn(&LivePipe) -> BTreeSet<String>| {
            let own = live.component.sink_dataset();
            let mut reads = reads(live).into_iter();
            reads.all(|name| Some(name.as_str()) == own || !written.contains(&name))
        };
        let ready = left.iter().position(|live| is_ready(live, &inputs));
        // Nobody is ready: a cycle, which is entered at its first id, by joins before sources.
        let ready = ready.or_else(|| left.iter().position(|live| is_ready(live, &sources)));
        sorted.push(left.remove(ready.unwrap_or(0)));
    }
    sorted
}
