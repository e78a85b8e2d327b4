//! The value at every step of rules, for those who write them.
//!
//! A program that was compiled for it notes what its statements and expressions do. Ordinary
//! programs hold no such steps, so that being able to explain costs them nothing.

use std::cell::RefCell;
use std::collections::HashMap;

use tahini_entity::{Batch, Dict, Str, Value, encoding};

use crate::context::Context;
use crate::error::{EvalError, JsonPath, Segment};
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Action, Expr};
use crate::program::Program;
use crate::scope::Frame;
use crate::text;

/// How many steps of one entity are kept; those after them are counted.
pub const MAX_STEPS_KEPT: usize = 10_000;
/// How many bytes of JSON a value that is kept may be; larger ones are only said to be large.
pub const MAX_VALUE_KEPT: usize = 64 * 1024;
/// How many bytes of JSON all kept values of one entity may be.
pub const MAX_KEPT: usize = 8 * 1024 * 1024;

/// One step: a statement or an expression, and what it did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the rules.
    pub path: JsonPath,
    /// Whether it is a statement.
    pub is_statement: bool,
    /// `_S`, at the first statement of an applied rule.
    pub source: Option<Shown>,
    /// What the expression gave; `None` for statements and for what was stopped.
    pub value: Option<Shown>,
    /// What the statement did to the target, unless statements in it did.
    pub changes: Vec<Change>,
    /// Why it went no further: `filtered`, `discarded` or the words of an error.
    pub stopped: Option<String>,
    /// The steps that it took itself, in order.
    pub steps: Vec<Step>,
}

/// A property of the target that a statement changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub name: Str,
    /// What it became; `None` when it was removed.
    pub value: Option<Shown>,
}

/// A value that a step shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// The value.
    Value(Value),
    /// A value larger than `MAX_VALUE_KEPT`, or beyond `MAX_KEPT`: its kind.
    Large(&'static str),
}

/// What became of one entity, and how.
#[derive(Debug)]
pub struct Explained {
    /// What was emitted.
    pub outputs: Batch,
    /// Why it stopped, when it did; the position is 0.
    pub error: Option<EvalError>,
    /// The steps of the default rule, in order.
    pub steps: Vec<Step>,
    /// How many more steps there were.
    pub omitted: usize,
}

impl Program {
    /// Transforms the entities of `batch` one by one and says how. The program is one of
    /// [`compile_traced`](crate::compile_traced); any other one has no steps to tell. Each
    /// step counts several times against the limit of depth.
    pub fn explain(&self, batch: &Batch, context: &Context<'_>) -> Vec<Explained> {
        let explain = |record| {
            let mut one = Batch::new();
            one.push(record);
            let trace = RefCell::new(Trace::default());
            let context = Context {
                trace: Some(&trace),
                ..*context
            };
            let mut outputs = Batch::new();
            let result = self.transform(&one, &context, &mut outputs, &mut Vec::new());
            let trace = trace.into_inner();
            Explained {
                outputs,
                error: result.err(),
                omitted: trace.seen.saturating_sub(MAX_STEPS_KEPT),
                steps: trace.done,
            }
        };
        batch.iter().map(explain).collect()
    }
}

/// The steps of the evaluation at work.
#[derive(Default)]
pub(crate) struct Trace {
    /// Steps that are not finished, outermost first.
    open: Vec<Step>,
    done: Vec<Step>,
    seen: usize,
    bytes: usize,
}

impl Trace {
    /// Forgets what the evaluation before noted.
    pub(crate) fn clear(&mut self) {
        *self = Trace::default();
    }

    /// Begins a step; false when there are too many.
    fn open(&mut self, path: &JsonPath, is_statement: bool) -> bool {
        self.seen += 1;
        if self.seen > MAX_STEPS_KEPT {
            return false;
        }
        self.open.push(Step {
            path: path.clone(),
            is_statement,
            source: None,
            value: None,
            changes: Vec::new(),
            stopped: None,
            steps: Vec::new(),
        });
        true
    }

    fn close(&mut self, finish: impl FnOnce(&mut Step)) {
        let Some(mut step) = self.open.pop() else {
            return;
        };
        finish(&mut step);
        match self.open.last_mut() {
            Some(parent) => parent.steps.push(step),
            None => self.done.push(step),
        }
    }

    /// The value as it is kept.
    fn keep(&mut self, value: &Value) -> Shown {
        let left = MAX_VALUE_KEPT.min(MAX_KEPT - self.bytes);
        match text::measured(value, left) {
            Some(bytes) => {
                self.bytes += bytes;
                Shown::Value(value.clone())
            }
            None => Shown::Large(value.kind()),
        }
    }
}

/// What a noted step counts against the limit of depth beside what it does itself: it takes more
/// stack than one that is not noted.
const DEPTH_OF_EXPRESSION: u32 = 2;
const DEPTH_OF_STATEMENT: u32 = 4;

impl Machine<'_> {
    /// The value of an expression whose step is noted.
    #[inline(never)]
    pub(crate) fn traced(&mut self, at: u32, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        self.descend(DEPTH_OF_EXPRESSION)?;
        let noted = self.begins(at);
        let result = self.eval(expr, env);
        if noted {
            self.gave(&result);
        }
        self.ascend(DEPTH_OF_EXPRESSION);
        result
    }

    /// Runs a statement whose step is noted.
    #[inline(never)]
    pub(crate) fn traced_action(
        &mut self,
        action: &Action,
        frame: &mut Frame<'_>,
    ) -> Result<(), Stop> {
        self.descend(DEPTH_OF_STATEMENT)?;
        let begun = self.starts(frame);
        let result = self.action(action, frame);
        if let Some(begun) = begun {
            self.did(&begun, &result, frame);
        }
        self.ascend(DEPTH_OF_STATEMENT);
        result
    }

    /// Notes that an expression is evaluated; false when it is not kept.
    #[inline(never)]
    fn begins(&self, at: u32) -> bool {
        let path = &self.program.traced[at as usize];
        let trace = self.context.trace;
        trace.is_some_and(|trace| trace.borrow_mut().open(path, false))
    }

    #[inline(never)]
    fn gave(&self, result: &Result<Value, Stop>) {
        let Some(trace) = self.context.trace else {
            return;
        };
        let mut trace = trace.borrow_mut();
        let value = result.as_ref().ok().map(|value| trace.keep(value));
        trace.close(|step| {
            step.value = value;
            step.stopped = result.as_ref().err().map(words);
        });
    }

    /// Notes that a statement is run: the target as it was before; `None` when it is not kept.
    #[inline(never)]
    fn starts(&self, frame: &Frame<'_>) -> Option<Box<Begun>> {
        let path = &self.program.paths[self.at as usize];
        let noted = self.context.trace?.borrow_mut().open(path, true);
        noted.then(|| {
            Box::new(Begun {
                first: frame.parent.is_some() && is_first(path),
                before: frame.target.to_dict(),
            })
        })
    }

    #[inline(never)]
    fn did(&self, begun: &Begun, result: &Result<(), Stop>, frame: &Frame<'_>) {
        let Some(trace) = self.context.trace else {
            return;
        };
        let mut trace = trace.borrow_mut();
        let source = begun.first.then(|| frame.source.to_value());
        let source = source.map(|source| trace.keep(&source));
        let changes = changes(&mut trace, &begun.before, &frame.target.to_dict());
        trace.close(|step| {
            step.source = source;
            // What the statements in it did, they say themselves.
            if !step.steps.iter().any(|inner| inner.is_statement) {
                step.changes = changes;
            }
            step.stopped = result.as_ref().err().map(words);
        });
    }
}

/// A statement that is not done.
struct Begun {
    /// It is the first one of an applied rule.
    first: bool,
    before: Dict,
}

/// Whether a statement is the first one of its rule.
fn is_first(path: &JsonPath) -> bool {
    matches!(path.0.as_slice(), [_, _] | [_, _, Segment::Position(0)])
}

fn words(stop: &Stop) -> String {
    match stop {
        Stop::Error(error) => error.1.clone(),
        Stop::Filtered => "filtered".to_owned(),
        Stop::Discarded => "discarded".to_owned(),
    }
}

/// What is new, other or gone, in the order of the target.
fn changes(trace: &mut Trace, before: &Dict, after: &Dict) -> Vec<Change> {
    let old: HashMap<&Str, &Value> = before.iter().collect();
    let mut changes = Vec::new();
    for (name, value) in after.iter() {
        if old.get(name).is_none_or(|old| !same(old, value)) {
            let (name, value) = (name.clone(), Some(trace.keep(value)));
            changes.push(Change { name, value });
        }
    }
    let gone = before.iter().filter(|(name, _)| after.get(name).is_none());
    changes.extend(gone.map(|(name, _)| Change {
        name: name.clone(),
        value: None,
    }));
    changes
}

/// The same value of the same type.
fn same(a: &Value, b: &Value) -> bool {
    let encoded = |value: &Value| {
        let mut bytes = Vec::new();
        encoding::encode(value, &mut bytes).map(|()| bytes).ok()
    };
    encoded(a) == encoded(b)
}
