//! A batch in, a batch out.

use std::collections::HashMap;
use std::sync::Arc;

use tahini_entity::{Batch, Dict, Meta, Offset, Record, Shape, Str, Value, encoding, hash};

use crate::context::Context;
use crate::error::{EvalClass, EvalError};
use crate::eval::{Machine, Stop};
use crate::limits::{Limit, MAX_ENTITY, MAX_LOOKUP_ROUNDS};
use crate::program::Program;
use crate::scope::{BOOKKEEPING, Frame, Row, Slot, Source, Target};
use crate::text;

impl Program {
    /// Transforms the entities of `batch` in order and appends the results to `out`; `origins`
    /// gets, for each entity appended, its source's position in `batch`. Entities that `create`
    /// made come before the one they were made from. Filtered entities are emitted with
    /// `meta.filtered`.
    ///
    /// # Errors
    /// The first entity that cannot be transformed; the results of those before it are in `out`.
    pub fn transform(
        &self,
        batch: &Batch,
        context: &Context<'_>,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), EvalError> {
        let mut machine = Machine::new(self, context);
        let mut writer = Writer::default();
        let mut starts = Vec::new();
        if !self.facts.lookups {
            for at in 0..batch.len() {
                starts = self.one(&mut machine, &mut writer, batch.get(at), starts, out, at)?;
                origins.resize(origins.len() + writer.take_written(), position(at));
            }
            return Ok(());
        }
        self.with_lookups(batch, &mut machine, out, origins)
    }

    /// Evaluates every entity, asks for what was missed, evaluates those again, and so on; then
    /// everything is put out in order.
    fn with_lookups(
        &self,
        batch: &Batch,
        machine: &mut Machine<'_>,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), EvalError> {
        let mut writer = Writer::default();
        let mut starts = Vec::new();
        let mut results: Vec<Option<Result<Batch, EvalError>>> = Vec::new();
        results.resize_with(batch.len(), || None);
        let mut pending: Vec<usize> = (0..batch.len()).collect();
        let mut first_failure = batch.len();
        for _ in 0..MAX_LOOKUP_ROUNDS {
            let mut missed = Vec::new();
            for &at in &pending {
                if at >= first_failure {
                    break;
                }
                let mut made = Batch::new();
                let record = batch.get(at);
                let result = self.one(machine, &mut writer, record, starts, &mut made, at);
                writer.take_written();
                starts = Vec::new();
                if machine.memo.missed() {
                    missed.push(at);
                    continue;
                }
                if result.is_err() {
                    first_failure = first_failure.min(at);
                }
                results[at] = Some(result.map(|_| made));
            }
            pending = missed;
            if pending.is_empty() {
                break;
            }
            let fetched = machine.memo.fetch(self, machine.context.lookup);
            fetched.map_err(|error| {
                let at = pending[0];
                self.error(batch.get(at), at, None, EvalClass::Lookup, error.message)
            })?;
        }
        for (at, result) in results.into_iter().enumerate() {
            let made = result.unwrap_or_else(|| {
                let Limit(what, most) = Limit("rounds of lookups", MAX_LOOKUP_ROUNDS as u64);
                let words = format!("expected at most {most} {what}, found more");
                Err(self.error(batch.get(at), at, None, EvalClass::Limit, words))
            })?;
            for record in made.iter() {
                out.push(record);
                origins.push(position(at));
            }
        }
        Ok(())
    }

    /// Transforms one entity; gives the memory for `starts` back.
    fn one(
        &self,
        machine: &mut Machine<'_>,
        writer: &mut Writer,
        record: Record<'_>,
        starts: Vec<u32>,
        out: &mut Batch,
        at: usize,
    ) -> Result<Vec<u32>, EvalError> {
        machine.begin();
        let row = Row::new(record, starts);
        if let Some(trigger) = &self.trigger
            && !trigger.fires(Source::Row(&row))
        {
            out.push(record);
            writer.written += 1;
            return Ok(row.starts);
        }
        let mut frame = Frame {
            source: Source::Row(&row),
            target: Target::inherit(&row),
            parent: None,
        };
        let result = machine.run(&self.rules[self.default], &mut frame);
        let fail = |machine: &Machine<'_>, class, words| {
            self.error(
                record,
                at,
                self.paths.get(machine.at as usize),
                class,
                words,
            )
        };
        for dict in std::mem::take(&mut machine.created) {
            writer.created(&dict, out).map_err(|Limit(what, most)| {
                fail(
                    machine,
                    EvalClass::Limit,
                    format!("expected at most {most} {what}, found more"),
                )
            })?;
        }
        let filtered = match result {
            Ok(()) => false,
            Err(Stop::Filtered) => true,
            Err(Stop::Discarded) => return Ok(row.starts),
            Err(Stop::Error(class, words)) => return Err(fail(machine, class, words)),
        };
        match writer.target(&frame.target, &row, filtered, self.id_required, out) {
            Ok(()) => Ok(row.starts),
            Err(Unwritten::Id(found)) => Err(self.error(
                record,
                at,
                None,
                EvalClass::Id,
                format!(
                    "expected the rules to leave an _id that is a string, found {found}; add one, \
                     or set \"id_required\": false on the transform"
                ),
            )),
            Err(Unwritten::Limit(Limit(what, most))) => {
                let words = format!("expected at most {most} {what}, found more");
                Err(self.error(record, at, None, EvalClass::Limit, words))
            }
        }
    }

    fn error(
        &self,
        record: Record<'_>,
        position: usize,
        path: Option<&crate::error::JsonPath>,
        class: EvalClass,
        message: String,
    ) -> EvalError {
        let id = record.id.map(Str::from);
        EvalError {
            position,
            id,
            message,
            path: path.cloned(),
            class,
        }
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a batch has fewer than 2^32 entities")
}

/// Why a target was not written.
enum Unwritten {
    /// What stands where a string `_id` should.
    Id(String),
    Limit(Limit),
}

impl From<Limit> for Unwritten {
    fn from(limit: Limit) -> Unwritten {
        Unwritten::Limit(limit)
    }
}

/// Encodes targets into a batch, with memory and shapes that are used again.
#[derive(Default)]
struct Writer {
    body: Vec<u8>,
    names: Vec<Str>,
    shapes: HashMap<Vec<Str>, Arc<Shape>>,
    recent: Vec<Arc<Shape>>,
    written: usize,
}

/// How many shapes a writer remembers.
const MAX_SHAPES: usize = 1024;
/// How many of them it looks at before it hashes names: what is emitted and what is filtered
/// alternate.
const MAX_RECENT: usize = 4;

/// The reserved fields of an entity under construction.
#[derive(Default)]
struct Reserved {
    id: Option<Value>,
    meta: Meta,
}

impl Reserved {
    /// Takes a reserved root property; false for any other name.
    fn take(&mut self, name: &str, value: &Value) -> bool {
        match (name, value) {
            ("_id", id) => self.id = Some(id.clone()),
            ("_deleted", value) => self.meta.deleted = matches!(value, Value::Bool(true)),
            ("_updated", Value::Int(number)) => self.meta.updated = Some(Offset::Int(*number)),
            ("_updated", Value::String(text)) => {
                self.meta.updated = Some(Offset::Text(text.clone()));
            }
            ("_previous", Value::Int(number)) => self.meta.previous = u64::try_from(*number).ok(),
            ("_ts", Value::Int(micros)) => self.meta.ts = *micros,
            ("_updated" | "_previous" | "_ts" | "_hash" | "_filtered", _) => {}
            _ => return false,
        }
        true
    }
}

impl Writer {
    /// How many entities were written since the last call.
    fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Writes an entity that `create` made; its `_id` was checked.
    fn created(&mut self, dict: &Dict, out: &mut Batch) -> Result<(), Limit> {
        self.clear();
        let mut reserved = Reserved::default();
        for (name, value) in dict.iter() {
            if !reserved.take(name, value) {
                self.value(name, value)?;
            }
        }
        self.push(reserved, out)
    }

    fn target(
        &mut self,
        target: &Target<'_>,
        row: &Row<'_>,
        filtered: bool,
        id_required: bool,
        out: &mut Batch,
    ) -> Result<(), Unwritten> {
        self.clear();
        let mut reserved = Reserved::default();
        self.carry(target, row, &mut reserved.meta);
        for (name, slot) in target.entries() {
            match slot {
                Slot::Raw(raw) if !is_reserved(name) => {
                    self.names.push(name.clone());
                    self.body.extend_from_slice(raw);
                    entity_limit(self.body.len())?;
                }
                Slot::Value(value) if !name.starts_with('_') => self.value(name, value)?,
                slot => {
                    let value = slot.to_value();
                    if !reserved.take(name, &value) {
                        self.value(name, &value)?;
                    }
                }
            }
        }
        let id = match &reserved.id {
            Some(Value::String(_)) => None,
            Some(other) => Some(crate::values::a_kind(other)),
            None => Some("none".to_owned()),
        };
        if let Some(found) = id {
            reserved.id = None;
            if filtered {
                return Ok(());
            }
            if id_required {
                return Err(Unwritten::Id(found));
            }
        }
        reserved.meta.filtered = filtered;
        Ok(self.push(reserved, out)?)
    }

    /// Bookkeeping fields that `copy` took over.
    fn carry(&self, target: &Target<'_>, row: &Row<'_>, meta: &mut Meta) {
        for (bit, name) in BOOKKEEPING.iter().enumerate() {
            if target.carries(bit) {
                match *name {
                    "_updated" => meta.updated = row.record.meta.updated.clone(),
                    "_previous" => meta.previous = row.record.meta.previous,
                    "_ts" => meta.ts = row.record.meta.ts,
                    // The content hash is always computed from what is written.
                    _ => {}
                }
            }
        }
    }

    fn clear(&mut self) {
        self.body.clear();
        self.names.clear();
    }

    fn value(&mut self, name: &Str, value: &Value) -> Result<(), Limit> {
        if matches!(value, Value::List(_) | Value::Tuple(_) | Value::Dict(_)) {
            text::measure(value, MAX_ENTITY)?;
        }
        self.names.push(name.clone());
        encoding::encode(value, &mut self.body)
            .map_err(|_| Limit("levels of nested values", encoding::MAX_DEPTH as u64))?;
        entity_limit(self.body.len())
    }

    fn push(&mut self, mut reserved: Reserved, out: &mut Batch) -> Result<(), Limit> {
        let shape = self.shape();
        let id = match &reserved.id {
            Some(Value::String(id)) => Some(id.as_str()),
            _ => None,
        };
        reserved.meta.reserved = shape.names().iter().any(|name| name.starts_with('_'));
        reserved.meta.hash = hash::content(id, reserved.meta.deleted, &shape, &self.body);
        out.push_encoded(id, &shape, &self.body, reserved.meta);
        self.written += 1;
        Ok(())
    }

    /// The shape of the names at hand: a recent one, a known one, or a new one.
    fn shape(&mut self) -> Arc<Shape> {
        let names = self.names.as_slice();
        if let Some(recent) = self.recent.iter().find(|shape| shape.names() == names) {
            return Arc::clone(recent);
        }
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.clear();
        }
        let shape = match self.shapes.get(names) {
            Some(known) => Arc::clone(known),
            None => {
                let shape = Arc::new(Shape::new(self.names.iter().cloned()));
                self.shapes.insert(self.names.clone(), Arc::clone(&shape));
                shape
            }
        };
        self.recent.truncate(MAX_RECENT - 1);
        self.recent.insert(0, Arc::clone(&shape));
        shape
    }
}

fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "_id" | "_deleted" | "_updated" | "_previous" | "_ts" | "_hash" | "_filtered"
    )
}

fn entity_limit(bytes: usize) -> Result<(), Limit> {
    if bytes > MAX_ENTITY {
        Err(Limit("bytes in one entity", MAX_ENTITY as u64))
    } else {
        Ok(())
    }
}
