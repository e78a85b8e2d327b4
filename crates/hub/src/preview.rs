//! What a pipe makes of given entities, transform by transform: nothing is read or written, and
//! nothing outside is changed unless that is asked for.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tahini_dtl::{
    Context, EvalError, Explained, JsonPath, Lookup, Program, compile, compile_traced,
};
use tahini_entity::Batch;

use crate::beside::Beside;
use crate::builtin::dtl;
use crate::lookup::Datasets;
use crate::pipe::{Pipe, World};
use crate::stage::end_of_looking;
use crate::transform::{origins, without_filtered};
use crate::{Cancel, Failure, Fault, Transform};

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
    /// Whether REST transforms tell their requests, as if they had `trace`: `World::traced` has them.
    pub requests: bool,
    /// How long the rules of one transform may take; then the way ends there.
    pub most: Duration,
}

/// The opened way from a pipe's source to its sink.
pub struct Way<'l> {
    pipe: String,
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
    place: JsonPath,
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
    /// The first entity that rules failed for; its position is that of the entity that came in.
    pub fault: Option<Fault>,
}

/// What one transform gave.
#[derive(Debug)]
pub struct Transformed {
    /// Its `type`.
    pub kind: String,
    /// Its place in the pipe's configuration.
    pub place: JsonPath,
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
        for (place, config) in pipe.placed_transforms().into_iter().take(count) {
            stations.push(station(pipe, world, cancel, (place, config), look)?);
        }
        let ends = end.map(|(_, why)| why);
        Ok(Way {
            pipe: pipe.id.clone(),
            look,
            before: pipe.adding_namespaces(),
            stations,
            behind: pipe.removing_namespaces().filter(|_| ends.is_none()),
            ends,
        })
    }

    /// The programs of the rules on the way, in order, each with its transform's place in the
    /// pipe's configuration.
    pub fn programs(&self) -> impl Iterator<Item = (&JsonPath, &Program)> {
        self.stations
            .iter()
            .filter_map(|station| match &station.work {
                Work::Rules(program, _) => Some((&station.place, &**program)),
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
        let mut came = origins::all(&current);
        if let Some(adding) = &mut self.before {
            let (outputs, origins) = applied(adding.as_mut(), &current)?;
            (current, came) = (outputs, origins::of(&origins, &came));
        }
        for station in &mut self.stations {
            let (outputs, origins, explained, failed) = station.pass(&current, &self.look)?;
            passed.transforms.push(Transformed {
                kind: station.kind.clone(),
                place: station.place.clone(),
                outputs: outputs.clone(),
                explained,
                rules: station.rules.clone(),
            });
            if let Some(error) = failed {
                let mut fault = Fault::of(&error, &station.place);
                fault.position = came.get(fault.position).map_or(0, |at| *at as usize);
                passed.ended = Some(fault.told(&self.pipe));
                passed.fault = Some(fault);
                return Ok(passed);
            }
            (current, came) = (outputs, origins::of(&origins, &came));
        }
        if passed.ended.is_some() {
            return Ok(passed);
        }
        if let Some(removing) = &mut self.behind {
            current = applied(removing.as_mut(), &current)?.0;
        }
        passed.sink = without_filtered(&current).unwrap_or(current);
        Ok(passed)
    }
}

/// What a station gave, what each of it came from, how, and what failed.
type Gave = (Batch, Vec<u32>, Vec<Explained>, Option<EvalError>);

impl Station {
    fn pass(&mut self, input: &Batch, look: &Look<'_>) -> Result<Gave, Failure> {
        let (program, datasets) = match &mut self.work {
            Work::Other(transform) => {
                let (outputs, origins) = applied(transform.as_mut(), input)?;
                return Ok((outputs, origins, Vec::new(), None));
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
        let (mut outputs, mut origins) = (Batch::new(), Vec::new());
        if !look.trace {
            let result = program.transform(input, &context, &mut outputs, &mut origins);
            return Ok((outputs, origins, Vec::new(), result.err()));
        }
        let explained = program.explain(input, &context);
        let mut failed = None;
        for (at, entity) in (0u32..).zip(&explained) {
            for record in entity.outputs.iter() {
                outputs.push(record);
                origins.push(at);
            }
            if let (None, Some(error)) = (&failed, &entity.error) {
                let position = at as usize;
                failed = Some(EvalError {
                    position,
                    ..error.clone()
                });
            }
        }
        Ok((outputs, origins, explained, failed))
    }
}

fn applied(transform: &mut dyn Transform, input: &Batch) -> Result<(Batch, Vec<u32>), Failure> {
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    transform.apply(input, &mut out, &mut origins)?;
    Ok((out, origins))
}

fn station(
    pipe: &Pipe,
    world: &World,
    cancel: &Cancel,
    (place, config): (JsonPath, &Json),
    look: Look<'_>,
) -> Result<Station, Failure> {
    let kind = config["type"].as_str().unwrap_or_default().to_owned();
    let def = world.registry.transform(&kind).ok_or_else(|| {
        Failure::config(format!(
            "{place}.type: expected a known transform, found {kind:?}"
        ))
    })?;
    let mut config = Cow::Borrowed(config);
    if look.requests && kind == "rest" && config.get("trace").is_none_or(|trace| trace == false) {
        config.to_mut()["trace"] = Json::Bool(true);
    }
    let work = pipe.with(world, cancel, (&place, &config), |ctx| {
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
        kind,
        place,
        rules,
        work,
    })
}
