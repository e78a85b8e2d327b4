//! Evaluation of expressions: a walk over the compiled tree.

use std::sync::Arc;

use tahini_entity::{Shape, Value};

use crate::context::Context;
use crate::error::EvalClass;
use crate::expr::Expr;
use crate::limits::{Limit, MAX_DEPTH, MAX_STEPS, MAX_WORK};
use crate::memo::Memo;
use crate::namespace::{Read, strip_value};
use crate::path::{self, Path, Root};
use crate::program::Program;
use crate::scope::{Frame, Row, Source, Target, read_row};
use crate::values::{self, first, is_true, lift};

/// Why an evaluation does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The entity fails.
    Error(EvalClass, String),
    /// `filter` said so.
    Filtered,
    /// `discard` said so.
    Discarded,
}

/// What an expression can see.
#[derive(Clone, Copy)]
pub(crate) struct Env<'e> {
    pub(crate) frame: &'e Frame<'e>,
    /// `_`; null outside function expressions.
    pub(crate) current: &'e Value,
    /// The entities bound to the aliases of the `hops` around the expression.
    pub(crate) aliases: &'e [Value],
}

pub(crate) static NULL: Value = Value::Null;

impl<'e> Env<'e> {
    /// What a statement of this context sees.
    pub(crate) fn of(frame: &'e Frame<'e>) -> Env<'e> {
        Env {
            frame,
            current: &NULL,
            aliases: &[],
        }
    }

    /// The same with another `_`.
    pub(crate) fn with<'n>(self, current: &'n Value) -> Env<'n>
    where
        'e: 'n,
    {
        Env {
            frame: self.frame,
            current,
            aliases: self.aliases,
        }
    }
}

/// Where names stand in the shape that was seen last.
#[derive(Default)]
pub(crate) struct Places {
    shape: Option<Arc<Shape>>,
    pub(crate) places: Vec<u32>,
    pub(crate) flags: u8,
}

/// One evaluation of a program over a batch: budgets, caches, what was created.
pub(crate) struct Machine<'m> {
    pub(crate) program: &'m Program,
    pub(crate) context: &'m Context<'m>,
    pub(crate) memo: Memo,
    /// Entities that `create` emitted for the source entity at work.
    pub(crate) created: Vec<tahini_entity::Dict>,
    /// The statement at work, by its place in the program's table of paths.
    pub(crate) at: u32,
    pub(crate) caches: Vec<Places>,
    steps: u64,
    work: usize,
    depth: u32,
}

impl<'m> Machine<'m> {
    pub(crate) fn new(program: &'m Program, context: &'m Context<'m>) -> Machine<'m> {
        let mut caches = Vec::new();
        caches.resize_with(program.slots as usize, Places::default);
        Machine {
            program,
            context,
            memo: Memo::default(),
            created: Vec::new(),
            at: 0,
            caches,
            steps: 0,
            work: 0,
            depth: 0,
        }
    }

    /// Starts the next source entity with full budgets.
    pub(crate) fn begin(&mut self) {
        self.created.clear();
        self.memo.begin();
        if let Some(trace) = self.context.trace {
            trace.borrow_mut().clear();
        }
        (self.steps, self.work, self.depth) = (0, 0, 0);
    }

    /// Counts `count` steps.
    #[inline]
    pub(crate) fn step(&mut self, count: usize) -> Result<(), Stop> {
        self.steps += count as u64;
        if self.steps > MAX_STEPS {
            return Err(Limit("steps for one entity", MAX_STEPS).into());
        }
        Ok(())
    }

    /// Counts the memory of a long result.
    #[inline]
    pub(crate) fn charge(&mut self, value: Value) -> Result<Value, Stop> {
        let bytes = match &value {
            Value::List(items) if items.len() > 512 => items.len() * size_of::<Value>(),
            Value::String(text) if text.len() > 1024 => text.len(),
            Value::Bytes(bytes) if bytes.len() > 1024 => bytes.len(),
            _ => return Ok(value),
        };
        self.spend(bytes)?;
        Ok(value)
    }

    /// Counts memory that is about to be used.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.work = self.work.saturating_add(bytes);
        if self.work > MAX_WORK {
            let most = MAX_WORK as u64;
            return Err(Limit("bytes of texts and lists for one entity", most).into());
        }
        Ok(())
    }

    /// Goes one level deeper; every `descend` that succeeds has its `ascend`.
    pub(crate) fn descend(&mut self, levels: u32) -> Result<(), Stop> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            self.depth -= levels;
            return Err(Limit("levels of expressions and applied rules", MAX_DEPTH.into()).into());
        }
        Ok(())
    }

    pub(crate) fn ascend(&mut self, levels: u32) {
        self.depth -= levels;
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Path(path) => self.read(path, env),
            Expr::Absent => Ok(Value::Null),
            call => {
                self.step(1)?;
                self.descend(1)?;
                let result = self.call(call, env);
                self.ascend(1);
                result
            }
        }
    }

    /// Whether an expression is true.
    pub(crate) fn truth(&mut self, expr: &Expr, env: Env<'_>) -> Result<bool, Stop> {
        Ok(is_true(&self.eval(expr, env)?))
    }

    fn call(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::Each(item, arg) => {
                let value = self.eval(arg, env)?;
                self.step(values::items(&value).len())?;
                let result = lift(&value, item)?;
                self.charge(result)
            }
            Expr::Eager(call, args) => self.eager(*call, args, env),
            Expr::Form(form, args) => form(self, env, args),
            Expr::Test(test, arg) => Ok(Value::Bool(test(first(&self.eval(arg, env)?)))),
            Expr::With(..) | Expr::Cast(..) => self.lifted(expr, env),
            other => self.special(other, env),
        }
    }

    /// Out of line, to keep the stack frame of `call` small.
    #[inline(never)]
    fn eager(
        &mut self,
        call: fn(&[Value]) -> Result<Value, Limit>,
        args: &[Expr],
        env: Env<'_>,
    ) -> Result<Value, Stop> {
        // A few arguments need no list on the heap.
        let result = match args {
            [one] => call(&[self.eval(one, env)?])?,
            [one, two] => call(&[self.eval(one, env)?, self.eval(two, env)?])?,
            [one, two, three] => call(&[
                self.eval(one, env)?,
                self.eval(two, env)?,
                self.eval(three, env)?,
            ])?,
            many => call(&self.all(many, env)?)?,
        };
        self.charge(result)
    }

    #[inline(never)]
    fn lifted(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::With(_, Some(item), args) => {
                let value = self.eval(args.last().expect("values come last"), env)?;
                self.with(&**item, value)
            }
            Expr::With(prepare, None, args) => {
                let mut args = self.all(args, env)?;
                let value = args.pop().unwrap_or_default();
                let known: Vec<Value> = args.iter().map(|arg| first(arg).clone()).collect();
                match prepare(&known) {
                    Ok(item) => self.with(&*item, value),
                    Err(_) => Ok(Value::Null),
                }
            }
            Expr::Cast(item, otherwise, arg) => {
                let value = self.eval(arg, env)?;
                self.cast(*item, otherwise, value, env)
            }
            _ => Ok(Value::Null),
        }
    }

    fn with(
        &mut self,
        item: &(dyn Fn(&Value) -> Result<Option<Value>, Limit> + Send + Sync),
        value: Value,
    ) -> Result<Value, Stop> {
        self.step(values::items(&value).len())?;
        let mut made = 0usize;
        let result = lift(&value, |value| {
            let result = item(value)?;
            if let Some(Value::String(text)) = &result {
                made += text.len();
                if made > MAX_WORK {
                    return Err(Limit("bytes of texts for one entity", MAX_WORK as u64));
                }
            }
            Ok(result)
        })?;
        self.spend(if made > 1024 { made } else { 0 })?;
        self.charge(result)
    }

    fn cast(
        &mut self,
        item: fn(&Value) -> Result<Option<Value>, Limit>,
        otherwise: &Expr,
        value: Value,
        env: Env<'_>,
    ) -> Result<Value, Stop> {
        self.step(values::items(&value).len())?;
        if otherwise.is_absent() {
            return Ok(lift(&value, item)?);
        }
        lift(&value, |value| match item(value)? {
            None if !value.is_null() => self.eval(otherwise, env.with(value)).map(Some),
            result => Ok(result),
        })
    }

    /// The calls that are rare or large; out of line to keep `call`'s stack frame small.
    #[inline(never)]
    fn special(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::Apply(rule, arg) => {
                let value = self.eval(arg, env)?;
                self.apply_all(*rule, &value, env)
            }
            Expr::Follow(elements, arg) => {
                let value = self.eval(arg, env)?;
                let found = path::follow(&value, elements);
                self.charge(found)
            }
            Expr::FollowDynamic(names, arg) => {
                let names = self.eval(names, env)?;
                let value = self.eval(arg, env)?;
                let elements = path::dynamic(&names, &self.program.naming);
                let found = path::follow(&value, &elements);
                self.charge(found)
            }
            Expr::ApplyNs(adding, arg) => {
                let value = self.eval(arg, env)?;
                lift(&value, |value| match value {
                    Value::Dict(dict) => Ok(Some(Value::Dict(adding.dict(dict)))),
                    _ => Ok(None),
                })
            }
            Expr::IsChanged(function) => self.is_changed(function, env),
            Expr::Now => Ok(Value::Datetime(self.context.now.into())),
            Expr::NewUuid => Ok(Value::Uuid(uuid::Uuid::new_v4())),
            Expr::Hops(hops) => self.hops(hops, env),
            Expr::ApplyHops(rule, hops) => {
                let value = self.hops(hops, env)?;
                self.apply_all(*rule, &value, env)
            }
            Expr::Lookup(lookups) => self.lookup(lookups, env),
            Expr::Collapse(arg) => {
                let value = self.eval(arg, env)?;
                let program = self.program;
                lift(&value, |value| Ok(program.collapse(value)))
            }
            Expr::Traced(at, expr) => self.traced(*at, expr, env),
            _ => Ok(Value::Null),
        }
    }

    /// The values of all arguments.
    pub(crate) fn all(&mut self, args: &[Expr], env: Env<'_>) -> Result<Vec<Value>, Stop> {
        let mut all = Vec::with_capacity(args.len());
        for arg in args {
            all.push(self.eval(arg, env)?);
        }
        Ok(all)
    }

    fn apply_all(&mut self, rule: u32, value: &Value, env: Env<'_>) -> Result<Value, Stop> {
        lift(value, |value| match value {
            Value::Null => Ok(None),
            value => self.apply(rule, value, env),
        })
    }

    /// The target of a rule applied to one value; `None` when the rule filters it away.
    fn apply(&mut self, rule: u32, value: &Value, env: Env<'_>) -> Result<Option<Value>, Stop> {
        self.step(1)?;
        self.descend(4)?;
        let at = self.at;
        let mut frame = Frame {
            source: Source::Value(value),
            target: Target::new(),
            parent: Some(env.frame),
        };
        let program = self.program;
        let result = self.run(&program.rules[rule as usize], &mut frame);
        self.ascend(4);
        match result {
            Ok(()) => {
                self.at = at;
                Ok(Some(Value::Dict(frame.target.to_dict())))
            }
            Err(Stop::Filtered | Stop::Discarded) => {
                self.at = at;
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    #[inline]
    fn read(&mut self, path: &Path, env: Env<'_>) -> Result<Value, Stop> {
        self.step(1)?;
        Ok(match self.at_hand(path, env) {
            Some(value) => value,
            None => self.path(path, env),
        })
    }

    /// The value of most paths: one property of an entity of the shape that was seen last.
    #[inline]
    fn at_hand(&self, path: &Path, env: Env<'_>) -> Option<Value> {
        let (Root::Source(0), Source::Row(row)) = (path.root, env.frame.source) else {
            return None;
        };
        let cache = self.caches.get(path.slot as usize)?;
        let shape = cache.shape.as_ref()?;
        match (&*path.elements, cache.places.as_slice()) {
            ([_], [at]) if Arc::ptr_eq(shape, row.shape) => Some(row.value(*at as usize)),
            _ => None,
        }
    }

    /// The value at the end of a path.
    pub(crate) fn path(&mut self, path: &Path, env: Env<'_>) -> Value {
        match path.root {
            Root::Source(0) => self.source(env.frame.source, path),
            Root::Source(up) => match env.frame.up(up) {
                Some(frame) => self.source(frame.source, path),
                None => Value::Null,
            },
            Root::Target(up) => match env.frame.up(up) {
                Some(frame) => target(&frame.target, path),
                None => Value::Null,
            },
            Root::OuterSource => self.source(env.frame.root().source, path),
            Root::OuterTarget => target(&env.frame.root().target, path),
            Root::Current => path::follow(env.current, &path.elements),
            Root::Alias(at) => match env.aliases.get(at as usize) {
                Some(entity) => path::follow(entity, &path.elements),
                None => Value::Null,
            },
            Root::Parent(up) => match env.frame.up(up) {
                Some(frame) => path::follow(&frame.to_value(true), &path.elements),
                None => Value::Null,
            },
            Root::Outer => path::follow(&env.frame.root().to_value(false), &path.elements),
            Root::Parameters => match self.context.parameters {
                Some(dict) => path::follow(&Value::Dict(dict.clone()), &path.elements),
                None => Value::Null,
            },
        }
    }

    fn source(&mut self, source: Source<'_>, path: &Path) -> Value {
        let row = match source {
            Source::Value(value) => return path::follow(value, &path.elements),
            Source::Row(row) => row,
        };
        let Some((element, rest)) = path.elements.split_first() else {
            return source.to_value();
        };
        let value = self.property(row, element, path.slot);
        if rest.is_empty() {
            value
        } else {
            path::follow(&value, rest)
        }
    }

    /// A property of an encoded source, by the cache of the path that reads it.
    fn property(&mut self, row: &Row<'_>, element: &Read, slot: u32) -> Value {
        let places = self.places(slot, row, |cache, shape| {
            let names = shape.names().iter().enumerate();
            let found = names.filter(|(_, name)| match element {
                Read::Exact(exact) => *name == exact,
                Read::Any(identifier) => path::has_identifier(name, identifier),
            });
            cache.places.extend(found.map(|(at, _)| at as u32));
        });
        match places.places.as_slice() {
            [at] => row.value(*at as usize),
            [] if matches!(element, Read::Any(_)) => Value::Null,
            [] => read_row(row, element, &self.program.naming).unwrap_or_default(),
            many => {
                let found = many.iter().map(|at| row.value(*at as usize));
                path::gather(found).unwrap_or_default()
            }
        }
    }

    /// The cache at `slot`, filled for the row's shape.
    pub(crate) fn places(
        &mut self,
        slot: u32,
        row: &Row<'_>,
        fill: impl FnOnce(&mut Places, &Shape),
    ) -> &Places {
        let cache = &mut self.caches[slot as usize];
        let shape = row.shape;
        if !cache
            .shape
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, shape))
        {
            cache.places.clear();
            cache.flags = 0;
            fill(cache, shape);
            cache.shape = Some(Arc::clone(shape));
        }
        cache
    }

    fn is_changed(&mut self, function: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        let Source::Row(row) = env.frame.root().source else {
            return Ok(Value::Null);
        };
        let (Some(id), Some(version)) = (row.id, row.meta.previous) else {
            return Ok(Value::Null);
        };
        let Some(previous) = self.memo.previous(id, version) else {
            return Ok(Value::Null);
        };
        let Some(previous) = previous.first().cloned() else {
            return Ok(Value::Null);
        };
        let deleted = |entity: &Value| match entity {
            Value::Dict(dict) => matches!(dict.get("_deleted"), Some(Value::Bool(true))),
            _ => false,
        };
        let current = env.frame.root().source.to_value();
        if deleted(&current) || deleted(&previous) {
            return Ok(Value::Bool(true));
        }
        let now = self.eval(function, env.with(&current))?;
        let before = self.eval(function, env.with(&previous))?;
        Ok(Value::Bool(!values::equal(&now, &before)))
    }
}

fn target(target: &Target<'_>, path: &Path) -> Value {
    let Some((element, rest)) = path.elements.split_first() else {
        return Value::Dict(target.to_dict());
    };
    let value = target.read(element).unwrap_or_default();
    if rest.is_empty() {
        value
    } else {
        path::follow(&value, rest)
    }
}

/// A value without the namespaces of its names, for `strip-ns`.
pub(crate) fn strip_ns(value: &Value) -> Result<Option<Value>, Limit> {
    match value {
        Value::Dict(_) => Ok(Some(strip_value(value, false))),
        _ => Ok(None),
    }
}
