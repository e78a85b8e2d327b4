//! Evaluation of expressions: a walk over the compiled tree.

use std::collections::HashMap;
use std::sync::Arc;

use tahini_entity::json::Raw;
use tahini_entity::{Dict, Shape, Value};

use crate::context::{Context, Joined};
use crate::count::STEPS_BETWEEN_LOOKS;
use crate::error::EvalClass;
use crate::expr::{Cost, EagerFn, Expr, ItemResult};
use crate::hops::Counted;
use crate::limits::MAX_WORK;
use crate::memo::Memo;
use crate::namespace::Read;
use crate::path::{self, Path, Root};
use crate::program::Program;
use crate::scope::{Frame, Row, Slot, Source, Target, read_row};
use crate::values::{self, first, is_true, lift};
use crate::weight::{self, Known, NAMES_A_STEP, PARTS_A_STEP};

/// Why an evaluation does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The entity fails. Boxed, so that a result is no larger than its value.
    Error(Box<(EvalClass, String)>),
    /// `filter` said so.
    Filtered,
    /// `discard` said so.
    Discarded,
}

impl Stop {
    pub(crate) fn error(class: EvalClass, words: String) -> Stop {
        Stop::Error(Box::new((class, words)))
    }
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

/// Up to how many bytes a value of the source is read again whenever it is asked for.
const MAX_READ_AGAIN: usize = 128;

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
    /// The place, when it is the only one.
    only: Option<u32>,
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
    /// Long values of the source that were read already, by where they stand in memory.
    decoded: HashMap<usize, Value>,
    pub(crate) steps: u64,
    /// At how many steps the limit, and whether the run goes on, are looked at next.
    pub(crate) pause: u64,
    pub(crate) work: usize,
    pub(crate) depth: u32,
    /// The rows and entities that were joined with the source entity at work.
    pub(crate) joined: Joined,
    /// What each `hops` with `trace` joined for the source entity at work.
    pub(crate) traced_hops: Vec<Counted>,
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
            decoded: HashMap::new(),
            steps: 0,
            pause: STEPS_BETWEEN_LOOKS,
            work: 0,
            depth: 0,
            joined: Joined::default(),
            traced_hops: vec![Counted::default(); program.traced_hops.len()],
        }
    }

    /// Starts the next source entity with full budgets.
    pub(crate) fn begin(&mut self) {
        self.created.clear();
        self.joined = Joined::default();
        self.traced_hops.fill(Counted::default());
        self.memo.begin();
        if let Some(trace) = self.context.trace {
            trace.borrow_mut().clear();
        }
        self.decoded.clear();
        (self.steps, self.work, self.depth) = (0, 0, 0);
        self.pause = STEPS_BETWEEN_LOOKS;
    }

    /// The value of an expression.
    pub(crate) fn eval(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Path(path) => self.read(path, env),
            Expr::Absent => Ok(Value::Null),
            call => self.one_call(call, env),
        }
    }

    /// Out of line: what a call needs on the stack is not set up for a constant or a path.
    #[inline(never)]
    fn one_call(&mut self, call: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        self.step(1)?;
        self.descend(1)?;
        let result = self.call(call, env);
        self.ascend(1);
        result
    }

    /// Whether an expression is true.
    pub(crate) fn truth(&mut self, expr: &Expr, env: Env<'_>) -> Result<bool, Stop> {
        if let Expr::Path(path) = expr
            && let Some(truth) = self.at_hand(path, env).and_then(Raw::truth)
        {
            self.step(1)?;
            return Ok(truth);
        }
        Ok(is_true(&self.eval(expr, env)?))
    }

    fn call(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::Each(item, arg) => {
                let value = self.eval(arg, env)?;
                self.over(&value, Known::NOTHING, item)
            }
            Expr::Eager(call, cost, args) => self.eager(*call, *cost, args, env),
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
        call: EagerFn,
        cost: Cost,
        args: &[Expr],
        env: Env<'_>,
    ) -> Result<Value, Stop> {
        // A few arguments need no list on the heap.
        match args {
            [one] => {
                let args = [self.eval(one, env)?];
                self.counted(call, cost, &args)
            }
            [one, two] => {
                let args = [self.eval(one, env)?, self.eval(two, env)?];
                self.counted(call, cost, &args)
            }
            [one, two, three] => {
                let (one, two) = (self.eval(one, env)?, self.eval(two, env)?);
                let args = [one, two, self.eval(three, env)?];
                self.counted(call, cost, &args)
            }
            many => {
                let args = self.all(many, env)?;
                self.counted(call, cost, &args)
            }
        }
    }

    /// A call over all its arguments, counted by what it costs.
    #[inline]
    fn counted(&mut self, call: EagerFn, cost: Cost, args: &[Value]) -> Result<Value, Stop> {
        match cost {
            Cost::Flat => {}
            Cost::Items | Cost::Made => {
                let items: usize = args.iter().map(weight::items).sum();
                self.step(items / PARTS_A_STEP)?;
            }
            Cost::Through => {
                let mut parts = 0;
                for arg in args {
                    match arg {
                        Value::List(_) | Value::Tuple(_) | Value::Dict(_) => self.weigh(arg)?,
                        single => parts += weight::single(single),
                    }
                }
                self.step(parts / PARTS_A_STEP)?;
            }
        }
        let result = call(args)?;
        if cost == Cost::Made {
            self.spend(weight::of_items(&result))?;
        }
        if let Value::BigInt(_) | Value::Decimal(_) = result {
            self.step(weight::arithmetic(&result) / PARTS_A_STEP)?;
        }
        self.charge(result)
    }

    #[inline(never)]
    fn lifted(&mut self, expr: &Expr, env: Env<'_>) -> Result<Value, Stop> {
        match expr {
            Expr::With(_, Some(item), args) => {
                let (value, known) = args.split_last().expect("values come last");
                let value = self.eval(value, env)?;
                let known = known.iter().filter_map(Expr::constant);
                let known = Known::of(known.map(first));
                self.over(&value, known, &**item)
            }
            Expr::With(prepare, None, args) => {
                let mut args = self.all(args, env)?;
                let value = args.pop().unwrap_or_default();
                let known: Vec<Value> = args.iter().map(|arg| first(arg).clone()).collect();
                for known in &known {
                    self.weigh_known(known)?;
                }
                match prepare(&known) {
                    Ok(item) => self.over(&value, Known::of(known.iter()), &*item),
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

    /// A function lifted over the items of a value; `known` is what its other arguments take for
    /// each of them.
    fn over(
        &mut self,
        value: &Value,
        known: Known,
        item: impl Fn(&Value) -> ItemResult,
    ) -> Result<Value, Stop> {
        if !matches!(value, Value::List(_) | Value::Tuple(_) | Value::Null) {
            let parts = weight::letters(value).saturating_mul(known.times);
            self.step(1 + parts.saturating_add(known.parts) / PARTS_A_STEP)?;
            let made = item(value)?.unwrap_or_default();
            self.made(&made, value)?;
            return Ok(made);
        }
        self.lifting(value, known)?;
        let result = lift(value, |value| {
            let result = item(value)?;
            if let Some(made) = &result {
                self.made(made, value)?;
            }
            Ok::<_, Stop>(result)
        })?;
        self.listed(result)
    }

    fn cast(
        &mut self,
        item: fn(&Value) -> ItemResult,
        otherwise: &Expr,
        value: Value,
        env: Env<'_>,
    ) -> Result<Value, Stop> {
        if otherwise.is_absent() {
            return self.over(&value, Known::NOTHING, item);
        }
        self.lifting(&value, Known::NOTHING)?;
        let result = lift(&value, |value| match item(value)? {
            None if !value.is_null() => self.eval(otherwise, env.with(value)).map(Some),
            result => {
                if let Some(made) = &result {
                    self.made(made, value)?;
                }
                Ok(result)
            }
        })?;
        self.listed(result)
    }

    /// Counts the items that a function is about to be lifted over.
    fn lifting(&mut self, value: &Value, known: Known) -> Result<(), Stop> {
        let items = values::items(value);
        let parts: usize = items.iter().map(weight::letters).sum();
        let parts = parts.saturating_mul(known.times);
        let parts = parts.saturating_add(known.parts.saturating_mul(items.len()));
        self.step(items.len() + parts / PARTS_A_STEP)
    }

    /// Counts the memory of what a function made of an item; the item's own text costs nothing.
    #[inline]
    fn made(&mut self, made: &Value, of: &Value) -> Result<(), Stop> {
        match (made, of) {
            (Value::String(made), Value::String(of)) if made.as_ptr() == of.as_ptr() => Ok(()),
            (Value::BigInt(_) | Value::Decimal(_), _) => {
                self.step(weight::arithmetic(made) / PARTS_A_STEP)?;
                self.spend(weight::own(made))
            }
            (Value::List(_) | Value::Tuple(_) | Value::Dict(_), _) => {
                self.spend(weight::whole(made, MAX_WORK - self.work))
            }
            _ => self.spend(weight::own(made)),
        }
    }

    /// Counts the places of a lifted function's results.
    fn listed(&mut self, result: Value) -> Result<Value, Stop> {
        match result {
            Value::List(_) => self.charge(result),
            single => Ok(single),
        }
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
                self.follow_path(&value, elements)
            }
            Expr::FollowDynamic(names, arg) => {
                let names = self.eval(names, env)?;
                let value = self.eval(arg, env)?;
                self.step(values::items(&names).len())?;
                let elements = path::dynamic(&names, &self.program.naming);
                self.follow_path(&value, &elements)
            }
            Expr::ApplyNs(adding, arg) => {
                let value = self.eval(arg, env)?;
                self.rebuild(&value)?;
                lift(&value, |value| match value {
                    Value::Dict(dict) => Ok(Some(Value::Dict(adding.dict(dict)))),
                    _ => Ok(None),
                })
            }
            Expr::IsChanged(function) => self.is_changed(function, env),
            Expr::Now => Ok(Value::Datetime(self.context.now.into())),
            Expr::NewUuid => Ok(Value::Uuid(uuid::Uuid::new_v4())),
            Expr::Hops(hops) => {
                let found = self.hops(hops, env)?;
                self.charge(found)
            }
            Expr::ApplyHops(rule, hops) => {
                let value = self.hops(hops, env)?;
                self.apply_all(*rule, &value, env)
            }
            Expr::Lookup(lookups) => self.lookup(lookups, env),
            Expr::Collapse(how, arg) => {
                let value = self.eval(arg, env)?;
                let program = self.program;
                self.over(&value, Known::NOTHING, |value| {
                    Ok(program.prefixed(*how, value))
                })
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
        let results = lift(value, |value| match value {
            Value::Null => Ok(None),
            value => self.apply(rule, value, env),
        })?;
        self.listed(results)
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
                self.target_dict(&frame.target).map(Some)
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
        match self.at_hand(path, env) {
            Some(raw) => self.decode(raw),
            None => self.path(path, env),
        }
    }

    /// The value of most paths: one property of an entity of the shape that was seen last.
    #[inline]
    fn at_hand<'e>(&self, path: &Path, env: Env<'e>) -> Option<Raw<'e>> {
        let (Root::Source(0), Source::Row(row)) = (path.root, env.frame.source) else {
            return None;
        };
        let cache = self.caches.get(path.slot as usize)?;
        let only = cache.only?;
        let shape = cache.shape.as_ref()?;
        let is_whole = path.elements.len() == 1 && Arc::ptr_eq(shape, row.shape);
        is_whole.then(|| row.raw(only as usize))
    }

    /// A value of the source as a tree. A long one is read once for each entity, however often
    /// the rules ask for it: those who keep it share it.
    #[inline]
    fn decode(&mut self, raw: Raw<'_>) -> Result<Value, Stop> {
        if let Raw::Plain(text) = raw
            && text.len() <= MAX_READ_AGAIN
        {
            self.spend(weight::of_text(text))?;
            return Ok(Value::string(text));
        }
        if raw.size() > MAX_READ_AGAIN {
            return Ok(self.decode_once(raw, raw.address()));
        }
        let value = raw.value();
        self.spend(match &value {
            // No item takes less than a byte where it is stored.
            Value::List(_) | Value::Tuple(_) | Value::Dict(_) => raw.size() * size_of::<Value>(),
            single => weight::own(single),
        })?;
        Ok(value)
    }

    #[inline(never)]
    fn decode_once(&mut self, raw: Raw<'_>, place: usize) -> Value {
        self.decoded
            .entry(place)
            .or_insert_with(|| raw.value())
            .clone()
    }

    /// The whole source; an entity that was not read yet is read once.
    pub(crate) fn whole(&mut self, source: Source<'_>) -> Value {
        match source {
            Source::Row(row) => {
                let place = std::ptr::from_ref(row) as usize;
                let known = self.decoded.entry(place);
                known.or_insert_with(|| source.to_value()).clone()
            }
            Source::Value(value) => value.clone(),
        }
    }

    /// The value at the end of a path.
    pub(crate) fn path(&mut self, path: &Path, env: Env<'_>) -> Result<Value, Stop> {
        match path.root {
            Root::Source(0) => self.source(env.frame.source, path),
            Root::Source(up) => match env.frame.up(up) {
                Some(frame) => self.source(frame.source, path),
                None => Ok(Value::Null),
            },
            Root::Target(up) => match env.frame.up(up) {
                Some(frame) => self.target(&frame.target, path),
                None => Ok(Value::Null),
            },
            Root::OuterSource => self.source(env.frame.root().source, path),
            Root::OuterTarget => self.target(&env.frame.root().target, path),
            Root::Current => self.follow_path(env.current, &path.elements),
            Root::Alias(at) => match env.aliases.get(at as usize) {
                Some(entity) => self.follow_path(entity, &path.elements),
                None => Ok(Value::Null),
            },
            Root::Parent(up) => match env.frame.up(up) {
                Some(frame) => {
                    let value = self.frame_value(frame, true)?;
                    self.follow_path(&value, &path.elements)
                }
                None => Ok(Value::Null),
            },
            Root::Outer => {
                let value = self.frame_value(env.frame.root(), false)?;
                self.follow_path(&value, &path.elements)
            }
            Root::Parameters => match self.context.parameters {
                Some(dict) => self.follow_path(&Value::Dict(dict.clone()), &path.elements),
                None => Ok(Value::Null),
            },
        }
    }

    /// What stands at the end of a path that starts at a value.
    #[inline]
    fn follow_path(&mut self, value: &Value, elements: &[Read]) -> Result<Value, Stop> {
        let mut walked = self.walk();
        let found = path::follow(value, elements, &mut walked);
        self.walked(&walked)?;
        Ok(found)
    }

    fn source(&mut self, source: Source<'_>, path: &Path) -> Result<Value, Stop> {
        let row = match source {
            Source::Value(value) => return self.follow_path(value, &path.elements),
            Source::Row(row) => row,
        };
        let Some((element, rest)) = path.elements.split_first() else {
            return Ok(self.whole(source));
        };
        let value = self.property(row, element, path.slot)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            self.follow_path(&value, rest)
        }
    }

    /// A property of an encoded source, by the cache of the path that reads it.
    fn property(&mut self, row: &Row<'_>, element: &Read, slot: u32) -> Result<Value, Stop> {
        let mut walked = self.walk();
        let places = self.places(slot, row, |cache, shape| {
            let names = shape.names().iter().enumerate();
            let found = names.filter(|(_, name)| match element {
                Read::Exact(exact) => *name == exact,
                Read::Any(identifier) => path::has_identifier(name, identifier),
            });
            cache.places.extend(found.map(|(at, _)| at as u32));
        });
        match places.places.as_slice() {
            [at] => {
                let raw = row.raw(*at as usize);
                self.decode(raw)
            }
            [] if matches!(element, Read::Any(_)) => Ok(Value::Null),
            [] => {
                let value = read_row(row, element, &self.program.naming, &mut walked);
                self.walked(&walked)?;
                self.charge(value.unwrap_or_default())
            }
            many => {
                let found = many.iter().map(|at| row.value(*at as usize));
                let value = path::gather(found, &mut walked).unwrap_or_default();
                self.walked(&walked)?;
                self.rebuild(&value)?;
                Ok(value)
            }
        }
    }

    fn target(&mut self, target: &Target<'_>, path: &Path) -> Result<Value, Stop> {
        let Some((element, rest)) = path.elements.split_first() else {
            return self.target_dict(target);
        };
        self.step(target.entries().len() / NAMES_A_STEP)?;
        let value = match element {
            Read::Exact(name) => match target.slot(name) {
                Some(Slot::Raw(raw)) => self.decode(*raw)?,
                Some(Slot::Value(value)) => value.clone(),
                None => Value::Null,
            },
            any => {
                let mut walked = self.walk();
                let value = target.read(any, &mut walked);
                self.walked(&walked)?;
                value.unwrap_or_default()
            }
        };
        if rest.is_empty() {
            Ok(value)
        } else {
            self.follow_path(&value, rest)
        }
    }

    /// A target as it is at this moment.
    fn target_dict(&mut self, target: &Target<'_>) -> Result<Value, Stop> {
        let mut dict = Dict::new();
        self.step(target.entries().len() / PARTS_A_STEP)?;
        for (name, slot) in target.entries() {
            let value = match slot {
                Slot::Raw(raw) => self.decode(*raw)?,
                Slot::Value(value) => value.clone(),
            };
            dict.push_new(name.clone(), value);
        }
        self.charge(Value::Dict(dict))
    }

    /// `_S`, `_T` and, below the outermost context, `_P` as a dict.
    fn frame_value(&mut self, frame: &Frame<'_>, with_parent: bool) -> Result<Value, Stop> {
        let mut dict = Dict::new();
        dict.push_new("_S", self.whole(frame.source));
        dict.push_new("_T", self.target_dict(&frame.target)?);
        if with_parent && let Some(parent) = frame.parent {
            dict.push_new("_P", self.frame_value(parent, true)?);
        }
        self.charge(Value::Dict(dict))
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
            cache.only = match *cache.places.as_slice() {
                [only] => Some(only),
                _ => None,
            };
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
        let current = self.whole(env.frame.root().source);
        if deleted(&current) || deleted(&previous) {
            return Ok(Value::Bool(true));
        }
        let now = self.eval(function, env.with(&current))?;
        let before = self.eval(function, env.with(&previous))?;
        self.weigh(&now)?;
        self.weigh(&before)?;
        Ok(Value::Bool(!values::equal(&now, &before)))
    }
}
