//! Execution of statements.

use std::time::Duration;

use ecow::EcoVec;
use tahini_entity::{Dict, Str, Value, order};

use crate::error::EvalClass;
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Action, Copying, Expr, Name, NameArg, Statement};
use crate::limits::{Limit, MAX_CREATED, MAX_WORK};
use crate::namespace::{is_bare, qualified, split_name};
use crate::path;
use crate::scope::{BOOKKEEPING, Frame, Row, Slot, Source};
use crate::text;
use crate::values::{self, Items, equal};
use crate::weight::{self, MATCHES_A_STEP, NAMES_A_STEP};

/// Flags of a `copy`'s cache beside the four bookkeeping fields.
const TAKES_ID: u8 = 1 << 4;
const TAKES_DELETED: u8 = 1 << 5;

impl Machine<'_> {
    /// Runs statements in order.
    pub(crate) fn run(&mut self, block: &[Statement], frame: &mut Frame<'_>) -> Result<(), Stop> {
        for statement in block {
            self.at = statement.at;
            self.step(1)?;
            self.action(&statement.action, frame)?;
        }
        Ok(())
    }

    pub(crate) fn action(&mut self, action: &Action, frame: &mut Frame<'_>) -> Result<(), Stop> {
        match action {
            Action::Add(name, expr) => {
                let value = self.eval(expr, Env::of(frame))?;
                self.write(name, value, frame, false)
            }
            Action::Default(name, expr) => self.default(name, expr, frame),
            Action::AddIf {
                name,
                condition,
                value,
            } => {
                let value = self.eval(value, Env::of(frame))?;
                let wanted = match condition {
                    Some(condition) => self.truth(condition, Env::of(frame).with(&value))?,
                    None => !value.is_null(),
                };
                if wanted {
                    self.write(name, value, frame, false)
                } else {
                    Ok(())
                }
            }
            Action::Copy(copying) => self.copy(copying, frame),
            Action::Remove(patterns) => {
                self.step(patterns.len() * frame.target.entries().len() / MATCHES_A_STEP)?;
                frame
                    .target
                    .remove(|name| patterns.iter().any(|pattern| pattern.matches(name)));
                Ok(())
            }
            Action::Filter(condition) => match self.unless(condition.as_ref(), frame)? {
                true => Ok(()),
                false => Err(Stop::Filtered),
            },
            Action::Discard(condition) => match self.unless(condition.as_ref(), frame)? {
                true => Ok(()),
                false => Err(Stop::Discarded),
            },
            Action::If {
                condition,
                then,
                otherwise,
            } => {
                let chosen = if self.truth(condition, Env::of(frame))? {
                    then
                } else {
                    otherwise
                };
                self.nested(chosen, frame)
            }
            Action::Case { .. } | Action::CaseEq { .. } => self.case(action, frame),
            Action::Nothing => Ok(()),
            other => self.rare(other, frame),
        }
    }

    fn case(&mut self, action: &Action, frame: &mut Frame<'_>) -> Result<(), Stop> {
        match action {
            Action::Case { arms, otherwise } => {
                for (condition, then) in arms {
                    if self.truth(condition, Env::of(frame))? {
                        return self.nested(then, frame);
                    }
                }
                self.nested(otherwise, frame)
            }
            Action::CaseEq {
                value,
                arms,
                otherwise,
            } => {
                let value = self.eval(value, Env::of(frame))?;
                for (other, then) in arms {
                    let other = self.eval(other, Env::of(frame))?;
                    self.weigh(&other)?;
                    if equal(&value, &other) {
                        return self.nested(then, frame);
                    }
                }
                self.nested(otherwise, frame)
            }
            _ => Ok(()),
        }
    }

    fn nested(&mut self, block: &[Statement], frame: &mut Frame<'_>) -> Result<(), Stop> {
        self.descend(1)?;
        let result = self.run(block, frame);
        self.ascend(1);
        result
    }

    /// Statements out of line, to keep the stack frame of `action` small.
    #[inline(never)]
    fn rare(&mut self, action: &Action, frame: &mut Frame<'_>) -> Result<(), Stop> {
        match action {
            Action::Rename { from, to } => self.rename(from, to, frame),
            Action::MakeNi {
                namespace,
                from,
                to,
            } => self.make_ni(namespace, from, to.as_ref(), frame),
            Action::Merge(expr) => {
                let value = self.eval(expr, Env::of(frame))?;
                self.keep(&value)?;
                for_each_property(&value, |name, value| {
                    self.looked_up(frame)?;
                    frame.target.set(name.clone(), Slot::Value(value.clone()));
                    Ok(())
                })
            }
            Action::MergeUnion(expr) => {
                let value = self.eval(expr, Env::of(frame))?;
                for_each_property(&value, |name, value| {
                    self.looked_up(frame)?;
                    let old = frame.target.get(name);
                    if let Some(old) = &old {
                        self.weigh_key(old)?;
                    }
                    self.weigh_key(value)?;
                    let merged = self.charge(merge(old, value))?;
                    frame.target.set(name.clone(), Slot::Value(merged));
                    Ok(())
                })
            }
            Action::Create(expr) => {
                let value = self.eval(expr, Env::of(frame))?;
                for entity in self.entities(&value, "create")? {
                    if self.created.len() >= MAX_CREATED {
                        let most = MAX_CREATED as u64;
                        return Err(Limit("entities created from one", most).into());
                    }
                    let entity = Value::Dict(entity);
                    self.keep(&entity)?;
                    self.spend(text::measured(&entity, MAX_WORK).unwrap_or(usize::MAX))?;
                    if let Value::Dict(entity) = entity {
                        self.created.push(entity);
                    }
                }
                Ok(())
            }
            Action::CreateChild(expr) => self.create_child(expr, frame),
            Action::Fail(expr) => self.stop(EvalClass::Fail, expr, frame),
            Action::Trip(expr) => self.stop(EvalClass::Trip, expr, frame),
            Action::Sleep(expr) => self.sleep(expr, frame),
            Action::Traced(action) => self.traced_action(action, frame),
            _ => Ok(()),
        }
    }

    /// Counts finding a name among those of the target.
    fn looked_up(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        self.step(1 + frame.target.entries().len() / NAMES_A_STEP)
    }

    fn unless(&mut self, condition: Option<&Expr>, frame: &Frame<'_>) -> Result<bool, Stop> {
        match condition {
            Some(condition) => self.truth(condition, Env::of(frame)),
            None => Ok(false),
        }
    }

    fn stop(&mut self, class: EvalClass, expr: &Expr, frame: &Frame<'_>) -> Result<(), Stop> {
        let value = self.eval(expr, Env::of(frame))?;
        let words = match values::first(&value) {
            Value::Null => "the rules stopped the run".to_owned(),
            Value::String(text) => text.to_string(),
            other => crate::text::string(other)
                .ok()
                .flatten()
                .map_or_else(|| other.kind().to_owned(), |text| text.to_string()),
        };
        Err(Stop::error(class, words))
    }

    fn sleep(&mut self, expr: &Expr, frame: &Frame<'_>) -> Result<(), Stop> {
        let value = self.eval(expr, Env::of(frame))?;
        let seconds = match values::first(&value) {
            Value::Int(seconds) => u64::try_from(*seconds).unwrap_or(0),
            Value::Float(seconds) => *seconds as u64,
            _ => 0,
        };
        let pause = self
            .context
            .pause
            .filter(|_| seconds > 0 && !self.memo.missed());
        match pause {
            Some(pause) if !pause(Duration::from_secs(seconds)) => {
                let words = "the run was stopped while it paused".to_owned();
                Err(Stop::error(EvalClass::Cancelled, words))
            }
            _ => Ok(()),
        }
    }

    fn default(&mut self, name: &Name, expr: &Expr, frame: &mut Frame<'_>) -> Result<(), Stop> {
        if let Name::Known(name) = name
            && frame.target.has(name)
        {
            return Ok(());
        }
        let value = self.eval(expr, Env::of(frame))?;
        self.write(name, value, frame, true)
    }

    /// Writes a value under one or several names.
    fn write(
        &mut self,
        name: &Name,
        value: Value,
        frame: &mut Frame<'_>,
        only_new: bool,
    ) -> Result<(), Stop> {
        match name {
            Name::Known(name) => self.put(name.clone(), value, frame),
            Name::Dynamic(expr) => {
                self.keep(&value)?;
                let names = self.eval(expr, Env::of(frame))?;
                for name in values::items(&names) {
                    let Value::String(name) = name else { continue };
                    self.looked_up(frame)?;
                    let name = self.program.naming.write(name);
                    if only_new && frame.target.has(&name) {
                        continue;
                    }
                    if name == "_id" {
                        // It may be written anew, all of it.
                        self.keep(&value)?;
                    }
                    self.set(name, value.clone(), frame);
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, name: Str, value: Value, frame: &mut Frame<'_>) -> Result<(), Stop> {
        self.keep(&value)?;
        self.set(name, value, frame);
        Ok(())
    }

    /// Sets a property to a value that was counted.
    fn set(&self, name: Str, value: Value, frame: &mut Frame<'_>) {
        let naming = &self.program.naming;
        let value = if name == "_id" {
            naming.identity(value)
        } else {
            value
        };
        frame.target.set(name, Slot::Value(value));
    }

    fn copy(&mut self, copying: &Copying, frame: &mut Frame<'_>) -> Result<(), Stop> {
        match frame.source {
            Source::Row(row) => {
                // Names that were set before are looked for, one by one.
                let known = frame.target.entries().len();
                if known > NAMES_A_STEP {
                    self.step(row.shape.names().len() * known / NAMES_A_STEP)?;
                }
                self.copy_row(copying, row, frame);
            }
            Source::Value(source @ Value::Dict(dict)) => {
                self.keep(source)?;
                let patterns = copying.include.len() + copying.exclude.len();
                self.step(dict.len() * patterns / MATCHES_A_STEP)?;
                let taken = dict.iter().filter(|(name, _)| copying.takes(name));
                let is_empty = frame.target.entries().is_empty();
                for (name, value) in taken {
                    let (name, slot) = (name.clone(), Slot::Value(value.clone()));
                    if is_empty {
                        // The names of a dict are distinct.
                        frame.target.push_new(name, slot);
                    } else {
                        self.looked_up(frame)?;
                        frame.target.set(name, slot);
                    }
                }
            }
            Source::Value(_) => {}
        }
        Ok(())
    }

    fn copy_row<'e>(&mut self, copying: &Copying, row: &'e Row<'e>, frame: &mut Frame<'e>) {
        let found = self.places(copying.slot, row, |cache, shape| {
            let names = shape.names().iter().enumerate();
            let taken = names.filter(|(_, name)| copying.takes(name));
            cache.places.extend(taken.map(|(at, _)| at as u32));
            for (bit, name) in BOOKKEEPING.iter().enumerate() {
                cache.flags |= u8::from(copying.takes(name)) << bit;
            }
            cache.flags |= if copying.takes("_id") { TAKES_ID } else { 0 };
            cache.flags |= if copying.takes("_deleted") {
                TAKES_DELETED
            } else {
                0
            };
        });
        let target = &mut frame.target;
        if found.flags & TAKES_ID != 0 {
            match row.id {
                Some(id) => target.set("_id".into(), Slot::Value(Value::string(id))),
                // One that is no string comes with the properties, over a known one.
                None if row.shape.position("_id").is_some() => target.remove(|name| name == "_id"),
                None => {}
            }
        }
        if found.flags & TAKES_DELETED != 0 && row.meta.deleted {
            target.set("_deleted".into(), Slot::Value(Value::Bool(true)));
        }
        target.carry(found.flags & 0b1111);
        let names = row.shape.names();
        target.set_all(found.places.iter().map(|&at| {
            let at = at as usize;
            (&names[at], Slot::Raw(row.raw(at)))
        }));
    }

    fn names(&mut self, arg: &NameArg, frame: &Frame<'_>) -> Result<Vec<Str>, Stop> {
        match arg {
            NameArg::Known(name) => Ok(vec![name.clone()]),
            NameArg::Dynamic(expr) => {
                let value = self.eval(expr, Env::of(frame))?;
                let names = values::items(&value).iter().filter_map(|name| match name {
                    Value::String(name) => Some(name.clone()),
                    _ => None,
                });
                Ok(names.collect())
            }
        }
    }

    fn rename(&mut self, from: &NameArg, to: &NameArg, frame: &mut Frame<'_>) -> Result<(), Stop> {
        if let (NameArg::Known(from), NameArg::Known(to), Source::Row(row)) =
            (from, to, frame.source)
            && !self.program.naming.on
            && let Some(at) = row.shape.position(from)
        {
            frame.target.set(to.clone(), Slot::Raw(row.raw(at)));
            return Ok(());
        }
        let (from, to) = (self.names(from, frame)?, self.names(to, frame)?);
        for (from, to) in from.iter().zip(&to) {
            let found = self.found(from, frame)?;
            self.place(found, Some(to), frame)?;
        }
        Ok(())
    }

    /// What a name reads from the source.
    fn found(&mut self, name: &Str, frame: &Frame<'_>) -> Result<Vec<(Str, Value)>, Stop> {
        let names = match frame.source {
            Source::Row(row) => row.shape.names().len(),
            Source::Value(Value::Dict(dict)) => dict.len(),
            Source::Value(_) => 0,
        };
        self.step(1 + names / NAMES_A_STEP)?;
        self.looked_up(frame)?;
        Ok(frame.source.matching(&self.program.naming.read(name)))
    }

    /// Writes found properties to the target: under `to` with their own namespaces when it has
    /// none, otherwise all values under it.
    fn place(
        &mut self,
        found: Vec<(Str, Value)>,
        to: Option<&Str>,
        frame: &mut Frame<'_>,
    ) -> Result<(), Stop> {
        let naming = &self.program.naming;
        let keeps = |to: &str| naming.on && !to.contains(':') && !is_bare(to);
        match to {
            Some(to) if !keeps(to) => {
                let values = found.into_iter().map(|(_, value)| value);
                let mut walked = self.walk();
                let value = path::gather(values, &mut walked);
                self.walked(&walked)?;
                if let Some(value) = value {
                    self.put(naming.write(to), value, frame)?;
                }
            }
            to => {
                for (name, value) in found {
                    let name = match (to, split_name(&name).0) {
                        (None, _) => name,
                        (Some(to), Some(namespace)) => qualified(namespace, to),
                        (Some(to), None) => to.clone(),
                    };
                    self.put(name, value, frame)?;
                }
            }
        }
        Ok(())
    }

    fn make_ni(
        &mut self,
        namespace: &Expr,
        from: &NameArg,
        to: Option<&NameArg>,
        frame: &mut Frame<'_>,
    ) -> Result<(), Stop> {
        let namespace = self.eval(namespace, Env::of(frame))?;
        let Some(namespace) = values::first(&namespace).as_str() else {
            return Ok(());
        };
        let to = match to {
            Some(to) => self.names(to, frame)?.into_iter().next(),
            None => None,
        };
        for from in self.names(from, frame)? {
            let mut made = Vec::new();
            for (mut name, value) in self.found(&from, frame)? {
                if to.is_none() {
                    name.push_str("-ni");
                }
                let items = values::items(&value).len();
                self.step(items)?;
                self.spend(items.saturating_mul(namespace.len()))?;
                if let Some(value) = identifiers(namespace, &value) {
                    self.spend(weight::of_items(&value))?;
                    made.push((name, value));
                }
            }
            self.place(made, to.as_ref(), frame)?;
        }
        Ok(())
    }

    fn create_child(&mut self, expr: &Expr, frame: &mut Frame<'_>) -> Result<(), Stop> {
        let value = self.eval(expr, Env::of(frame))?;
        let children = self.entities(&value, "create-child")?;
        if children.is_empty() {
            return Ok(());
        }
        let mut all = Items::new();
        values::extend(
            &mut all,
            frame
                .target
                .get("$children")
                .unwrap_or(Value::List(Items::new())),
        );
        all.extend(children.into_iter().map(Value::Dict));
        let all = Value::List(all);
        self.weigh_key(&all)?;
        let all = self.charge(all)?;
        let Value::List(all) = all else { return Ok(()) };
        let all = Value::List(values::distinct(all));
        frame.target.set("$children".into(), Slot::Value(all));
        Ok(())
    }

    /// The entities among the items of a value. Nulls are none; others that are none, or have no
    /// `_id` that is a string, are an error or ignored, by `id_required`.
    fn entities(&self, value: &Value, function: &str) -> Result<Vec<Dict>, Stop> {
        let mut entities = Vec::new();
        for item in values::items(value) {
            let found = match item {
                Value::Dict(dict) => match dict.get("_id") {
                    Some(Value::String(_)) => {
                        entities.push(dict.clone());
                        continue;
                    }
                    Some(id) => format!("an _id that is {}", crate::values::a_kind(id)),
                    None => "a dict without _id".to_owned(),
                },
                Value::Null => continue,
                other => crate::values::a_kind(other),
            };
            if self.program.id_required {
                let words = format!(
                    "expected \"{function}\" to get entities whose _id is a string, found \
                     {found}; set \"id_required\": false on the transform to ignore such values"
                );
                return Err(Stop::error(EvalClass::Id, words));
            }
        }
        Ok(entities)
    }
}

/// Every property of the dicts in a value, without those that start with `_`.
fn for_each_property(
    value: &Value,
    mut each: impl FnMut(&Str, &Value) -> Result<(), Stop>,
) -> Result<(), Stop> {
    for item in values::items(value) {
        if let Value::Dict(dict) = item {
            for (name, value) in dict.iter().filter(|(name, _)| !name.starts_with('_')) {
                each(name, value)?;
            }
        }
    }
    Ok(())
}

/// The union of a property's values with more of them; one value stays by itself.
fn merge(old: Option<Value>, new: &Value) -> Value {
    let Some(old) = old.filter(|old| !old.is_null()) else {
        return new.clone();
    };
    if new.is_null() {
        return old;
    }
    let single = values::sequence(&old).is_none() && values::sequence(new).is_none();
    if single && order::eq(&old, new) {
        return old;
    }
    let mut all = Items::new();
    values::extend(&mut all, old);
    values::extend(&mut all, new.clone());
    Value::List(values::distinct(all))
}

/// The strings of a value as identifiers in a namespace, lists sorted; `None` when there are none.
fn identifiers(namespace: &str, value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(Value::Ni(qualified(namespace, text))),
        Value::List(items) => {
            let texts = items.iter().filter_map(Value::as_str);
            let mut made: Vec<Value> = texts
                .map(|text| Value::Ni(qualified(namespace, text)))
                .collect();
            made.sort_by(order::compare);
            (!made.is_empty()).then(|| Value::List(EcoVec::from(made)))
        }
        _ => None,
    }
}
