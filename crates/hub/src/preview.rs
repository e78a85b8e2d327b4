//! What a pipe makes of given entities, transform by transform: nothing is read or written, and
//! nothing outside is changed unless that is asked for.

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tahini_dtl::{Context, Explained, Lookup, Program, compile, compile_traced};
use tahini_entity::Batch;

use crate::beside::Beside;
use crate::builtin::dtl;
use crate::lookup::Datasets;
use crate::pipe::{Pipe, World};
use crate::stage::end_of_looking;
use crate::transform::without_filtered;
use crate::{Cancel, Failure, Transform};

/// How long the rules of one transform may usually take before a preview ends.
pub const MAX_PREVIEW: Duration = Duration::from_secs(30);

/// How to look.
#[derive(Clone, Copy)]
pub struct Look<'l> {
    /// The value of `now`.
    pub now: jiff::Timestamp,
    /// The datasets that rules look things up in.
    pub beside: &'l Beside,
    /// Whether what is not among them is looked up in the store.
    pub store: bool,
    /// Whether transforms that change something outside are run, too.
    pub side_effects: bool,
    /// Whether rules tell the value at every step.
    pub trace: bool,
    /// How long the rules of one transform may take; then the way ends there.
    pub most: Duration,
}

/// The opened way from a pipe's source to its sink.
pub struct Way<'l> {
    look: Look<'l>,
    before: Option<Box<dyn Transform>>,
    stations: Vec<Station>,
    /// Not there when the way ends before the last transform.
    behind: Option<Box<dyn Transform>>,
    ends: Option<String>,
}

/// A transform on the way.
struct Station {
    kind: String,
    rules: Json,
    work: Work,
}

enum Work {
    Rules(Box<Program>, Option<Datasets>),
    Other(Box<dyn Transform>),
}

/// What became of entities on the way.
#[derive(Debug, Default)]
pub struct Passed {
    /// What each transform gave, in order.
    pub transforms: Vec<Transformed>,
    /// What the sink would get.
    pub sink: Batch,
    /// Why the way ended before the sink: a transform that is not run, or an entity that failed.
    pub ended: Option<String>,
}

/// What one transform gave.
#[derive(Debug)]
pub struct Transformed {
    /// Its `type`.
    pub kind: String,
    /// The entities, filtered ones among them.
    pub outputs: Batch,
    /// For rules that tell their steps: one for each entity that came in.
    pub explained: Vec<Explained>,
    /// The rules; null for every other transform.
    pub rules: Json,
}

impl<'l> Way<'l> {
    /// Opens the transforms of a pipe, up to the first one that may not be run.
    ///
    /// # Errors
    /// Config, from a transform that cannot be opened.
    pub fn open(
        pipe: &Pipe,
        world: &World,
        cancel: &Cancel,
        look: Look<'l>,
    ) -> Result<Way<'l>, Failure> {
        let end = end_of_looking(pipe).filter(|_| !look.side_effects);
        let count = end.as_ref().map_or(usize::MAX, |(at, _)| *at);
        let mut stations = Vec::new();
        for (at, config) in pipe.transforms().into_iter().enumerate().take(count) {
            stations.push(station(pipe, world, cancel, (at, config), look)?);
        }
        let ends = end.map(|(_, why)| why);
        Ok(Way {
            look,
            before: pipe.adding_namespaces(),
            stations,
            behind: pipe.removing_namespaces().filter(|_| ends.is_none()),
            ends,
        })
    }

    /// The programs of the rules on the way, in order.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.stations
            .iter()
            .filter_map(|station| match &station.work {
                Work::Rules(program, _) => Some(&**program),
                Work::Other(_) => None,
            })
    }

    /// Puts entities through the transforms. Rules that fail end the way with their words.
    ///
    /// # Errors
    /// What any other transform says.
    pub fn pass(&mut self, input: &Batch) -> Result<Passed, Failure> {
        let mut passed = Passed {
            ended: self.ends.clone(),
            ..Passed::default()
        };
        let mut current = input.clone();
        if let Some(adding) = &mut self.before {
            current = applied(adding.as_mut(), &current)?;
        }
        for station in &mut self.stations {
            let (outputs, explained, failed) = station.pass(&current, &self.look)?;
            current = outputs.clone();
            passed.transforms.push(Transformed {
                kind: station.kind.clone(),
                outputs,
                explained,
                rules: station.rules.clone(),
            });
            if failed.is_some() {
                passed.ended = failed;
                return Ok(passed);
            }
        }
        if passed.ended.is_some() {
            return Ok(passed);
        }
        if let Some(removing) = &mut self.behind {
            current = applied(removing.as_mut(), &current)?;
        }
        passed.sink = without_filtered(&current).unwrap_or(current);
        Ok(passed)
    }
}

impl Station {
    fn pass(
        &mut self,
        input: &Batch,
        look: &Look<'_>,
    ) -> Result<(Batch, Vec<Explained>, Option<String>), Failure> {
        let (program, datasets) = match &mut self.work {
            Work::Other(transform) => {
                return Ok((applied(transform.as_mut(), input)?, Vec::new(), None));
            }
            Work::Rules(program, datasets) => (program, datasets),
        };
        let both = datasets.as_ref().map(|others| look.beside.and(others));
        let lookup: &dyn Lookup = match &both {
            Some(both) => both,
            None => look.beside,
        };
        let mut context = Context::new(look.now, lookup);
        let started = Instant::now();
        let stopped = || started.elapsed() > look.most;
        context.stopped = Some(&stopped);
        let mut outputs = Batch::new();
        if !look.trace {
            let result = program.transform(input, &context, &mut outputs, &mut Vec::new());
            let failed = result.err().map(|error| error.to_string());
            return Ok((outputs, Vec::new(), failed));
        }
        let explained = program.explain(input, &context);
        let mut failed = None;
        for entity in &explained {
            for record in entity.outputs.iter() {
                outputs.push(record);
            }
            failed = failed.or_else(|| entity.error.as_ref().map(|error| error.message.clone()));
        }
        Ok((outputs, explained, failed))
    }
}

fn applied(transform: &mut dyn Transform, input: &Batch) -> Result<Batch, Failure> {
    let mut out = Batch::new();
    transform.apply(input, &mut out, &mut Vec::new())?;
    Ok(out)
}

fn station(
    pipe: &Pipe,
    world: &World,
    cancel: &Cancel,
    (at, config): (usize, &Json),
    look: Look<'_>,
) -> Result<Station, Failure> {
    let kind = config["type"].as_str().unwrap_or_default();
    let def = world.registry.transform(kind).ok_or_else(|| {
        Failure::config(format!(
            "$.transform[{at}].type: expected a known transform, found {kind:?}"
        ))
    })?;
    let path = format!("$.transform[{at}]");
    let work = pipe.with(world, cancel, &path, config, |ctx| {
        if kind != "dtl" {
            return Ok(Work::Other((def.open)(ctx)?));
        }
        let compile = if look.trace { compile_traced } else { compile };
        let program = Box::new(dtl::program(ctx, compile)?);
        Ok(Work::Rules(program, look.store.then(|| Datasets::of(ctx))))
    })?;
    // The rules without secrets: what is shown of them must hold none.
    let rules = match &work {
        Work::Rules(..) => config["rules"].clone(),
        Work::Other(_) => Json::Null,
    };
    Ok(Station {
        kind: kind.to_owned(),
        rules,
        work,
    })
}
