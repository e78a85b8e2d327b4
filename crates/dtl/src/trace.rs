//! The value at every step of rules, for those who write them.
//!
//! A program that was compiled for it notes what its statements and expressions do. Ordinary
//! programs hold no such steps, so that being able to explain costs them nothing.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use ecow::EcoVec;
use tahini_entity::{Batch, Str, Value, encoding};

use crate::context::Context;
use crate::error::{EvalError, JsonPath, Segment};
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Action, Expr, Name};
use crate::program::Program;
use crate::scope::{Frame, Slot};
use crate::text;
use crate::weight::PARTS_A_STEP;

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
    /// What the expression gave, what `add` and `default` set, a list of what `create` and
    /// `create-child` made; `None` for other statements and for what was stopped.
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
    /// How many bytes of values were looked at, whether they are kept or not.
    looked_at: usize,
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
        let measured = text::measured(value, left);
        self.looked_at += measured.unwrap_or(left);
        match measured {
            Some(bytes) => {
                self.bytes += bytes;
                Shown::Value(value.clone())
            }
            None => Shown::Large(value.kind()),
        }
    }

    /// Whether two values are the same of the same type, as far as somebody will see: large ones
    /// are, when they are the same memory.
    fn same(&mut self, a: &Value, b: &Value) -> bool {
        if is_shared(a, b) {
            return true;
        }
        let mut encoded = |value: &Value| {
            let bytes = text::measured(value, MAX_VALUE_KEPT)?;
            self.looked_at += bytes;
            let mut encoded = Vec::new();
            let done = encoding::encode(value, &mut encoded);
            done.is_ok().then_some(encoded)
        };
        match (encoded(a), encoded(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
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
        let mut result = self.eval(expr, env);
        if noted {
            self.gave(&result);
            result = self.noted().and(result);
        }
        self.ascend(DEPTH_OF_EXPRESSION);
        result
    }

    /// Counts what it took to note a step.
    fn noted(&mut self) -> Result<(), Stop> {
        let Some(trace) = self.context.trace else {
            return Ok(());
        };
        let bytes = std::mem::take(&mut trace.borrow_mut().looked_at);
        self.step(bytes / (2 * PARTS_A_STEP))
    }

    /// Runs a statement whose step is noted.
    #[inline(never)]
    pub(crate) fn traced_action<'e>(
        &mut self,
        action: &Action,
        frame: &mut Frame<'e>,
    ) -> Result<(), Stop> {
        self.descend(DEPTH_OF_STATEMENT)?;
        let begun = self.starts(action, frame)?;
        let mut result = self.action(action, frame);
        if let Some(begun) = begun {
            let made = match &result {
                Ok(()) => self.value_of(action, &begun, frame),
                Err(_) => None,
            };
            self.did(&begun, (&result, made), frame);
            self.work -= begun.bytes();
            result = self.noted().and(result);
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
    fn starts<'e>(
        &mut self,
        action: &Action,
        frame: &Frame<'e>,
    ) -> Result<Option<Box<Begun<'e>>>, Stop> {
        let path = &self.program.paths[self.at as usize];
        let Some(trace) = self.context.trace else {
            return Ok(None);
        };
        if !trace.borrow_mut().open(path, true) {
            return Ok(None);
        }
        let is_leaf = !holds_statements(action);
        let begun = Box::new(Begun {
            first: frame.parent.is_some() && is_first(path),
            is_leaf,
            made: match action {
                Action::CreateChild(_) => children(frame).len(),
                _ => self.created.len(),
            },
            before: match is_leaf {
                true => frame.target.entries().to_vec(),
                false => Vec::new(),
            },
        });
        self.step(begun.before.len())?;
        self.spend(begun.bytes())?;
        Ok(Some(begun))
    }

    /// The value of a statement that sets one, or what it made.
    fn value_of(&self, action: &Action, begun: &Begun<'_>, frame: &Frame<'_>) -> Option<Value> {
        match action {
            Action::Add(Name::Known(name), _) | Action::Default(Name::Known(name), _) => {
                frame.target.get(name)
            }
            Action::Create(_) => {
                let made = self.created.get(begun.made..).unwrap_or_default();
                Some(Value::List(made.iter().cloned().map(Value::Dict).collect()))
            }
            Action::CreateChild(_) => {
                let made = children(frame).into_iter().skip(begun.made);
                Some(Value::List(made.collect()))
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn did(
        &self,
        begun: &Begun<'_>,
        (result, made): (&Result<(), Stop>, Option<Value>),
        frame: &Frame<'_>,
    ) {
        let Some(trace) = self.context.trace else {
            return;
        };
        let mut trace = trace.borrow_mut();
        let source = begun.first.then(|| frame.source.to_value());
        let source = source.map(|source| trace.keep(&source));
        let made = made.map(|made| trace.keep(&made));
        let changes = match begun.is_leaf {
            true => changes(&mut trace, &begun.before, frame.target.entries()),
            false => Vec::new(),
        };
        trace.close(|step| {
            step.source = source;
            step.value = made;
            step.changes = changes;
            step.stopped = result.as_ref().err().map(words);
        });
    }
}

/// A statement that is not done.
struct Begun<'e> {
    /// It is the first one of an applied rule.
    first: bool,
    /// It has no statements in it, which would tell what they do.
    is_leaf: bool,
    /// How many entities, or children of the target, were made before.
    made: usize,
    before: Vec<(Str, Slot<'e>)>,
}

impl Begun<'_> {
    fn bytes(&self) -> usize {
        size_of_val(self.before.as_slice())
    }
}

/// The target's children.
fn children(frame: &Frame<'_>) -> EcoVec<Value> {
    match frame.target.get("$children") {
        Some(Value::List(children)) => children,
        _ => EcoVec::new(),
    }
}

fn holds_statements(action: &Action) -> bool {
    matches!(
        action,
        Action::If { .. } | Action::Case { .. } | Action::CaseEq { .. }
    )
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
fn changes(
    trace: &mut Trace,
    before: &[(Str, Slot<'_>)],
    after: &[(Str, Slot<'_>)],
) -> Vec<Change> {
    let old: HashMap<&Str, &Slot<'_>> = before.iter().map(|(name, slot)| (name, slot)).collect();
    let now: HashSet<&Str> = after.iter().map(|(name, _)| name).collect();
    let mut changes = Vec::new();
    for (name, slot) in after {
        let old = old.get(name);
        if old.is_some_and(|old| is_untouched(old, slot)) {
            continue;
        }
        let value = slot.to_value();
        if !old.is_some_and(|old| trace.same(&old.to_value(), &value)) {
            let (name, value) = (name.clone(), Some(trace.keep(&value)));
            changes.push(Change { name, value });
        }
    }
    let gone = before.iter().filter(|(name, _)| !now.contains(name));
    changes.extend(gone.map(|(name, _)| Change {
        name: name.clone(),
        value: None,
    }));
    changes
}

/// Whether two slots are the same value in the same memory.
fn is_untouched(a: &Slot<'_>, b: &Slot<'_>) -> bool {
    match (a, b) {
        (Slot::Raw(a), Slot::Raw(b)) => (a.address(), a.size()) == (b.address(), b.size()),
        (Slot::Value(a), Slot::Value(b)) => is_shared(a, b),
        _ => false,
    }
}

/// Whether the items of two values are the same memory.
fn is_shared(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            std::ptr::eq(a.as_slice(), b.as_slice())
        }
        (Value::Dict(a), Value::Dict(b)) => a.is_shared_with(b),
        (Value::String(a), Value::String(b)) => a == b,
        _ => false,
    }
}
