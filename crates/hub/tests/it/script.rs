//! Component types that do what a test tells them: `scripted` as source and sink, and the
//! `dataset` sink with entities that it refuses.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tahini_entity::json::{self, Fields, Numbers};
use tahini_entity::{Batch, Offset, Value};
use tahini_hub::builtin;
use tahini_hub::config::{Kind, Property};
use tahini_hub::policy::Retries;
use tahini_hub::registry::{ContinuationDef, SinkDef, SourceDef, SystemDef, TransformDef};
use tahini_hub::sink::{End, Progress, Run, RunKind, Written};
use tahini_hub::source::{From, Step};
use tahini_hub::{Cancel, Ctx, Failure, Registry, Sink, Source, Transform};

use crate::middle::{self, Middle};

/// Everything that the components of one world follow and tell, by pipe.
#[derive(Default)]
pub struct Script {
    pub sources: Mutex<BTreeMap<String, Upstream>>,
    pub sinks: Mutex<BTreeMap<String, Target>>,
    pub transforms: Mutex<BTreeMap<String, Middle>>,
}

/// What a scripted source has and how it behaves.
#[derive(Default)]
pub struct Upstream {
    pub records: Vec<Json>,
    /// It answers what is at the since too (`>=`), not only what is after it.
    pub inclusive: bool,
    /// It does not look at the since at all.
    pub ignores_since: bool,
    /// Failures to come: the position in an answer at which each happens, once.
    pub failures: VecDeque<(usize, Failure)>,
    /// It fails at this position whenever it gets there.
    pub always_fails_at: Option<usize>,
    /// The since of every opening.
    pub asked: Vec<Option<Offset>>,
    /// Where a run waits until the test lets it go on.
    pub gate: Option<Gate>,
    /// It waits before every batch, not only before the first.
    pub gate_at_every_batch: bool,
    /// At the gate it does not hear that it should stop.
    pub deaf: bool,
    /// What happens in the middle of an answer, once: when this many records were given.
    pub meanwhile: Option<(usize, Meanwhile)>,
    /// Giving the entity of this id is worth a warning.
    pub warns_of: Option<String>,
}

/// Something that happens while a run is in the middle of something, on its thread.
pub type Meanwhile = Box<dyn FnOnce() + Send>;

/// What a scripted sink refuses and what it was given.
#[derive(Default)]
pub struct Target {
    pub refuses: BTreeSet<String>,
    /// Whatever it refuses, that is because nobody is there.
    pub is_down: bool,
    /// It refuses versions whose property `v` is this.
    pub refuses_v: Option<i64>,
    /// How many batches of several entities fail from now on.
    pub failing_batches: usize,
    pub panics_at: Option<String>,
    pub retry_after: Option<Duration>,
    /// What the system behind it says about retries.
    pub retries: Option<Arc<Retries>>,
    /// How many times the end of a run fails from now on.
    pub failing_ends: usize,
    /// What happens once, when all of a run was taken and the run is not at its end yet.
    pub meanwhile: Option<Meanwhile>,
    /// The kinds of the runs that were begun.
    pub begun: Vec<RunKind>,
    /// Whether each run that was ended was complete.
    pub complete: Vec<bool>,
    /// Every attempt: the ids, and whether it was taken.
    pub attempts: Vec<(Vec<String>, bool)>,
    /// How runs ended: true for finish, false for abort.
    pub ends: Vec<bool>,
    /// The ids that a `calls` transform was given, call by call.
    pub transformed: Vec<Vec<String>>,
}

/// A run says that it is at the gate and goes on when it is let through.
#[derive(Clone)]
pub struct Gate {
    reached: SyncSender<()>,
    open: Arc<Mutex<Receiver<()>>>,
}

/// The test's side of a gate.
pub struct GateKeeper {
    pub reached: Receiver<()>,
    pub open: SyncSender<()>,
}

/// The longest that a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a thread that was started to come to its gate; it only makes tests stricter.
const MOMENT: Duration = Duration::from_millis(100);

impl GateKeeper {
    pub fn wait(&self) {
        self.reached
            .recv_timeout(PATIENCE)
            .expect("a run at the gate");
    }

    /// Whether no run comes to the gate, as far as one can tell in a moment.
    pub fn stays_away(&self) -> bool {
        self.reached.recv_timeout(MOMENT).is_err()
    }
}

pub fn gate() -> (Gate, GateKeeper) {
    let (reached, hear) = sync_channel(100);
    let (open, wait) = sync_channel(100);
    let gate = Gate {
        reached,
        open: Arc::new(Mutex::new(wait)),
    };
    (
        gate,
        GateKeeper {
            reached: hear,
            open,
        },
    )
}

impl Gate {
    pub fn pass(&self, cancel: &Cancel) -> Result<(), Failure> {
        let _ = self.reached.send(());
        let open = self.open.lock().unwrap();
        loop {
            cancel.check()?;
            match open.recv_timeout(Duration::from_millis(5)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Ok(()),
            }
        }
    }
}

/// Component types are plain functions, so that a world is found by the key in the configuration.
pub static WORLDS: LazyLock<Mutex<HashMap<String, Arc<Script>>>> = LazyLock::new(Mutex::default);

fn script(ctx: &Ctx<'_>) -> Arc<Script> {
    let key = ctx.props.str("world").unwrap();
    Arc::clone(&WORLDS.lock().unwrap()[key])
}

const SOURCES: &[SourceDef] = &[
    SourceDef {
        name: "scripted",
        summary: "Gives what the test says.",
        properties: &[],
        continuation: ContinuationDef {
            supports_since: false,
            is_since_comparable: true,
            is_chronological: false,
            configurable: true,
        },
        open: open_source,
    },
    SourceDef {
        name: "dataset",
        summary: "The dataset source, with a gate before it.",
        properties: builtin::SOURCES[0].properties,
        continuation: builtin::SOURCES[0].continuation,
        open: |ctx, from| {
            let script = script(ctx);
            let mut sources = script.sources.lock().unwrap();
            let upstream = sources.entry(ctx.owner.to_owned()).or_default();
            if let Some(gate) = upstream.gate.clone() {
                drop(sources);
                gate.pass(ctx.cancel)?;
            }
            (builtin::SOURCES[0].open)(ctx, from)
        },
    },
];

const SINKS: &[SinkDef] = &[
    SinkDef {
        name: "scripted",
        summary: "Takes what the test says.",
        properties: &[],
        open: |ctx| {
            Ok(Box::new(ScriptedSink {
                script: script(ctx),
                pipe: ctx.owner.to_owned(),
                inner: None,
            }))
        },
    },
    SinkDef {
        name: "dataset",
        summary: "The dataset sink, with entities that it refuses.",
        properties: builtin::SINKS[0].properties,
        open: |ctx| {
            let inner = (builtin::SINKS[0].open)(ctx)?;
            Ok(Box::new(ScriptedSink {
                script: script(ctx),
                pipe: ctx.owner.to_owned(),
                inner: Some(inner),
            }))
        },
    },
];

const SYSTEMS: &[SystemDef] = &[SystemDef {
    name: "system:scripted",
    summary: "Makes a pipe one that touches the outside.",
    properties: &[],
    open: |_| Err(Failure::config("nothing opens the scripted system")),
}];

pub const REGISTRY: Registry = Registry {
    sources: &[SOURCES, builtin::SOURCES],
    sinks: &[SINKS, builtin::SINKS],
    transforms: &[TRANSFORMS, builtin::TRANSFORMS],
    systems: &[SYSTEMS],
    template: |_| Ok(()),
};

const TRANSFORMS: &[TransformDef] = &[CALLS, middle::DEF];

const CALLS: TransformDef = TransformDef {
    name: "calls",
    summary: "Hands on what it is given, and notes that it was called.",
    properties: &[Property::new("side_effects", Kind::Boolean, "").or("true")],
    stands_for: None,
    open: |ctx| {
        let key = ctx.whole.map()["source"]["world"].as_str().unwrap();
        Ok(Box::new(Calls {
            script: Arc::clone(&WORLDS.lock().unwrap()[key]),
            pipe: ctx.owner.to_owned(),
        }))
    },
};

struct Calls {
    script: Arc<Script>,
    pipe: String,
}

impl Transform for Calls {
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let ids = input.iter().map(|record| record.id.unwrap().to_owned());
        let mut sinks = self.script.sinks.lock().unwrap();
        let target = sinks.entry(self.pipe.clone()).or_default();
        target.transformed.push(ids.collect());
        for (at, record) in (0..).zip(input.iter()) {
            out.push(record);
            origins.push(at);
        }
        Ok(())
    }
}

struct ScriptedSource {
    script: Arc<Script>,
    pipe: String,
    answer: Vec<Json>,
    at: usize,
    cancel: Cancel,
}

fn open_source(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    let script = script(ctx);
    let mut sources = script.sources.lock().unwrap();
    let upstream = sources.entry(ctx.owner.to_owned()).or_default();
    upstream.asked.push(from.since.clone());
    let answer = upstream
        .records
        .iter()
        .filter(|record| upstream.answers(record, &from.since));
    let answer = answer.cloned().collect();
    drop(sources);
    Ok(Box::new(ScriptedSource {
        script,
        pipe: ctx.owner.to_owned(),
        answer,
        at: 0,
        cancel: ctx.cancel.clone(),
    }))
}

impl Upstream {
    fn answers(&self, record: &Json, since: &Option<Offset>) -> bool {
        let Some(since) = since.as_ref().filter(|_| !self.ignores_since) else {
            return true;
        };
        let updated = match &record["_updated"] {
            Json::String(text) => Offset::Text(text.as_str().into()),
            number => Offset::Int(number.as_i64().unwrap()),
        };
        match updated.compare(since) {
            Some(order) => order.is_gt() || (self.inclusive && order.is_eq()),
            None => true,
        }
    }
}

impl Source for ScriptedSource {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let (gate, deaf, meanwhile) = {
            let mut sources = self.script.sources.lock().unwrap();
            let upstream = sources.get_mut(&self.pipe).unwrap();
            let here = self.at == 0 || upstream.gate_at_every_batch;
            let meanwhile = upstream.meanwhile.take_if(|(at, _)| self.at >= *at);
            (
                upstream.gate.clone().filter(|_| here),
                upstream.deaf,
                meanwhile,
            )
        };
        if let Some((_, happens)) = meanwhile {
            happens();
        }
        if let Some(gate) = gate {
            let never = Cancel::new();
            gate.pass(if deaf { &never } else { &self.cancel })?;
        }
        let end = (self.at + limit).min(self.answer.len());
        let mut sources = self.script.sources.lock().unwrap();
        let upstream = sources.get_mut(&self.pipe).unwrap();
        if let Some((at, _)) = upstream.failures.front()
            && (self.at..end + 1).contains(at)
        {
            return Err(upstream.failures.pop_front().unwrap().1);
        }
        if upstream
            .always_fails_at
            .is_some_and(|at| (self.at..end + 1).contains(&at))
        {
            return Err(Failure::transient("the scripted source broke off"));
        }
        for record in &self.answer[self.at..end] {
            let entity = json::entity_from_config(record, Numbers::default(), 0);
            out.push_entity(&entity.unwrap()).unwrap();
        }
        self.at = end;
        Ok(if end == self.answer.len() {
            Step::End
        } else {
            Step::More
        })
    }

    fn warnings(&self) -> Vec<String> {
        let sources = self.script.sources.lock().unwrap();
        let given = |id: &&String| {
            let mut given = self.answer[..self.at].iter();
            given.any(|record| record["_id"] == **id)
        };
        let named = sources[&self.pipe].warns_of.iter().filter(given);
        named.map(|id| format!("{id} was given")).collect()
    }
}

struct ScriptedSink {
    script: Arc<Script>,
    pipe: String,
    inner: Option<Box<dyn Sink>>,
}

impl ScriptedSink {
    fn try_write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let mut sinks = self.script.sinks.lock().unwrap();
        let target = sinks.entry(self.pipe.clone()).or_default();
        let ids: Vec<String> = batch
            .iter()
            .map(|record| record.id.unwrap().to_owned())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        if let Some(id) = ids.iter().find(|id| target.panics_at.as_ref() == Some(*id)) {
            let words = format!("a bug met {id}");
            drop(sinks);
            panic!("{words}");
        }
        let refused = batch.iter().find(|record| {
            let v = target
                .refuses_v
                .filter(|v| matches!(record.value("v"), Some(Value::Int(found)) if found == *v));
            target.refuses.contains(record.id.unwrap()) || v.is_some()
        });
        let refused = refused.map(|record| record.id.unwrap().to_owned());
        let fails = ids.len() > 1 && target.failing_batches > 0;
        target.attempts.push((ids, refused.is_none() && !fails));
        if fails {
            target.failing_batches -= 1;
        }
        if refused.is_none() && !fails {
            return Ok(());
        }
        let words = format!("refused {}", refused.unwrap_or_default());
        let mut failure = match target.is_down {
            true => Failure::transient(words),
            false => Failure::entity(words),
        }
        .with_original("the target's own words");
        failure.retry_after = target.retry_after;
        failure.retries.clone_from(&target.retries);
        Err(failure)
    }

    fn end(&self, finished: bool) {
        let mut sinks = self.script.sinks.lock().unwrap();
        sinks
            .entry(self.pipe.clone())
            .or_default()
            .ends
            .push(finished);
    }
}

impl Sink for ScriptedSink {
    fn begin(&mut self, run: &Run) -> Result<(), Failure> {
        let mut sinks = self.script.sinks.lock().unwrap();
        let target = sinks.entry(self.pipe.clone()).or_default();
        target.begun.push(run.kind);
        drop(sinks);
        self.inner.as_mut().map_or(Ok(()), |inner| inner.begin(run))
    }

    fn write(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<Written, Failure> {
        self.try_write(batch)?;
        match &mut self.inner {
            Some(inner) => inner.write(batch, progress),
            None => Ok(Written {
                changed: batch.len() as u64,
                ..Written::default()
            }),
        }
    }

    fn shows_at_end(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.shows_at_end())
    }

    fn finish(&mut self, end: &End) -> Result<Written, Failure> {
        let mut sinks = self.script.sinks.lock().unwrap();
        let target = sinks.entry(self.pipe.clone()).or_default();
        if target.failing_ends > 0 {
            target.failing_ends -= 1;
            return Err(Failure::transient("the end was not taken"));
        }
        target.complete.push(end.complete);
        let meanwhile = target.meanwhile.take();
        drop(sinks);
        if let Some(happens) = meanwhile {
            happens();
        }
        self.end(true);
        match &mut self.inner {
            Some(inner) => inner.finish(end),
            None => Ok(Written::default()),
        }
    }

    fn abort(&mut self, why: &Failure) {
        self.end(false);
        if let Some(inner) = &mut self.inner {
            inner.abort(why);
        }
    }

    fn seen(&mut self, ids: &[&str]) -> Result<(), Failure> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.seen(ids))
    }

    fn keeps_progress(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.keeps_progress())
    }

    fn takes_filtered(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.takes_filtered())
    }
}

/// Entities of a batch as the tests write them.
pub fn shown(batch: &Batch, fields: Fields) -> Vec<Json> {
    let show = |record| {
        let mut text = Vec::new();
        json::write_record(record, fields, &mut text);
        serde_json::from_slice(&text).unwrap()
    };
    batch.iter().map(show).collect()
}

/// Records with ids and `_updated` values, and a name that makes each version another.
pub fn records(rows: &[(&str, i64)]) -> Vec<Json> {
    let record =
        |(id, updated): &(&str, i64)| json!({"_id": id, "_updated": updated, "v": updated});
    rows.iter().map(record).collect()
}

/// Entities as a batch.
pub fn batch(entities: &[Json]) -> Batch {
    let mut batch = Batch::new();
    let mut parser = json::Parser::new(json::Numbers::default());
    for entity in entities {
        let text = entity.to_string();
        parser.push_json(&mut batch, text.as_bytes()).unwrap();
    }
    batch
}
