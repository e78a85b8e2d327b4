//! What an evaluation leaves, and where it goes.

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use tahini_entity::is_reserved;
use tahini_entity::json::Raw;
use tahini_entity::{Batch, Dict, Meta, Offset, Record, Shape, Str, Value, encoding, hash};

use crate::limits::{Limit, MAX_ENTITY};
use crate::plan::{Layout, Part};
use crate::scope::{BOOKKEEPING, Row, Slot, Target};
use crate::text;
use crate::weight::{TOO_DEEP, has_items};

/// Where the results of an evaluation go.
pub(crate) trait Results {
    /// An entity that `create` made; its `_id` was checked. `filtered` when what it was made from
    /// is.
    fn created(&mut self, dict: &Dict, filtered: bool) -> Result<(), Limit>;
    /// What the statements left.
    fn target(&mut self, target: &Target<'_>, row: &Row<'_>, end: End) -> Result<(), Unwritten>;
    /// What a plan left: its layout and the values that were computed.
    fn layout(
        &mut self,
        layout: &Layout,
        row: &Row<'_>,
        values: &[Value],
        end: End,
    ) -> Result<(), Unwritten>;
}

/// How an evaluation ended.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// A filter stopped it, here or in a transform before.
    pub(crate) filtered: bool,
    pub(crate) id_required: bool,
}

/// Why a target was not written.
pub(crate) enum Unwritten {
    /// What stands where a string `_id` should.
    Id(String),
    Limit(Limit),
}

impl From<Limit> for Unwritten {
    fn from(limit: Limit) -> Unwritten {
        Unwritten::Limit(limit)
    }
}

/// Encodes targets into batches, with memory and shapes that are used again.
#[derive(Default)]
pub(crate) struct Writer {
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

/// A writer and the batch that it writes into.
pub(crate) struct Encoded<'o> {
    pub(crate) writer: &'o mut Writer,
    pub(crate) out: &'o mut Batch,
}

/// The reserved fields of an entity under construction.
#[derive(Default)]
pub(crate) struct Reserved {
    pub(crate) id: Option<Value>,
    pub(crate) meta: Meta,
}

impl Reserved {
    /// Takes a reserved root property; false for any other name.
    pub(crate) fn take(&mut self, name: &str, value: &Value) -> bool {
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

    /// Takes over bookkeeping fields of the source, by `BOOKKEEPING`.
    pub(crate) fn carry(&mut self, carried: u8, meta: &Meta) {
        for (bit, name) in BOOKKEEPING.iter().enumerate() {
            if carried & (1 << bit) != 0 {
                match *name {
                    "_updated" => self.meta.updated = meta.updated.clone(),
                    "_previous" => self.meta.previous = meta.previous,
                    "_ts" => self.meta.ts = meta.ts,
                    // The content hash is always computed from what is written.
                    _ => {}
                }
            }
        }
    }

    /// Takes the reserved fields of a layout; the source's own `_id` is returned, not copied.
    pub(crate) fn lay_out<'r>(
        &mut self,
        layout: &Layout,
        row: &Row<'r>,
        values: &[Value],
    ) -> Option<&'r str> {
        if layout.carried != 0 {
            self.carry(layout.carried, row.meta);
        }
        let mut own = None;
        for (name, part) in &layout.reserved {
            match part {
                Part::Id if name == "_id" => own = row.id,
                Part::Id => {}
                Part::Deleted => self.meta.deleted = true,
                Part::Value(at) => drop(self.take(name, &values[*at])),
                Part::Source(at) => drop(self.take(name, &row.value(*at))),
            }
        }
        own
    }

    /// Whether the entity, which has no `_id` of its source, is written; without an `_id` that
    /// is a string filtered entities are not, and others only where none is required.
    pub(crate) fn is_written(&mut self, end: End) -> Result<bool, Unwritten> {
        let found = match &self.id {
            Some(Value::String(_)) => return Ok(true),
            Some(other) => crate::values::a_kind(other),
            None => "none".to_owned(),
        };
        self.id = None;
        if end.filtered {
            Ok(false)
        } else if end.id_required {
            Err(Unwritten::Id(found))
        } else {
            Ok(true)
        }
    }

    /// The `_id`, if it is a string.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_ref().and_then(Value::as_str)
    }
}

impl Results for Encoded<'_> {
    fn created(&mut self, dict: &Dict, filtered: bool) -> Result<(), Limit> {
        self.writer.clear();
        let mut reserved = Reserved::default();
        for (name, value) in dict.iter() {
            if !reserved.take(name, value) {
                self.writer.named(name, value)?;
            }
        }
        reserved.meta.filtered = filtered;
        self.writer.push(reserved, self.out);
        Ok(())
    }

    fn target(&mut self, target: &Target<'_>, row: &Row<'_>, end: End) -> Result<(), Unwritten> {
        let writer = &mut *self.writer;
        writer.clear();
        let mut reserved = Reserved::default();
        reserved.carry(target.carried(), row.meta);
        for (name, slot) in target.entries() {
            match slot {
                Slot::Raw(Raw::Encoded(raw)) if !is_reserved(name) => {
                    writer.names.push(name.clone());
                    writer.body.extend_from_slice(raw);
                    entity_limit(writer.body.len())?;
                }
                Slot::Value(value) if !name.starts_with('_') => writer.named(name, value)?,
                slot => {
                    let value = slot.to_value();
                    if !reserved.take(name, &value) {
                        writer.named(name, &value)?;
                    }
                }
            }
        }
        if reserved.is_written(end)? {
            reserved.meta.filtered = end.filtered;
            writer.push(reserved, self.out);
        }
        Ok(())
    }

    fn layout(
        &mut self,
        layout: &Layout,
        row: &Row<'_>,
        values: &[Value],
        end: End,
    ) -> Result<(), Unwritten> {
        let writer = &mut *self.writer;
        writer.clear();
        let mut reserved = Reserved::default();
        let own = reserved.lay_out(layout, row, values);
        let mut at = 0;
        while let Some(part) = layout.parts.get(at) {
            let run = layout.runs[at];
            match *part {
                Part::Source(first) => {
                    writer
                        .body
                        .extend_from_slice(row.body(first, first + run - 1));
                    entity_limit(writer.body.len())?;
                }
                Part::Value(place) => writer.value(&values[place])?,
                Part::Id | Part::Deleted => {}
            }
            at += run;
        }
        if own.is_some() || reserved.is_written(end)? {
            reserved.meta.filtered = end.filtered;
            let id = own.or(reserved.id.as_ref().and_then(Value::as_str));
            writer.finish(id, reserved.meta, &layout.shape, self.out);
        }
        Ok(())
    }
}

impl Writer {
    /// How many entities were written since the last call.
    pub(crate) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Passes an entity on as it is.
    pub(crate) fn pass(&mut self, record: Record<'_>, out: &mut Batch) {
        out.push(record);
        self.written += 1;
    }

    fn clear(&mut self) {
        self.body.clear();
        self.names.clear();
    }

    fn named(&mut self, name: &Str, value: &Value) -> Result<(), Limit> {
        self.names.push(name.clone());
        self.value(value)
    }

    fn value(&mut self, value: &Value) -> Result<(), Limit> {
        let left = MAX_ENTITY.saturating_sub(self.body.len());
        encode(value, &mut self.body, left)?;
        entity_limit(self.body.len())
    }

    fn push(&mut self, reserved: Reserved, out: &mut Batch) {
        let shape = self.shape();
        let id = reserved.id.as_ref().and_then(Value::as_str);
        self.finish(id, reserved.meta, &shape, out);
    }

    fn finish(&mut self, id: Option<&str>, mut meta: Meta, shape: &Arc<Shape>, out: &mut Batch) {
        meta.reserved = shape.names().iter().any(|name| name.starts_with('_'));
        meta.hash = Some(hash::content(id, meta.deleted, shape, &self.body));
        out.push_encoded(id, shape, &self.body, meta);
        self.written += 1;
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

/// Appends a computed value's encoding; long ones are measured before memory is used for them, so
/// that what is `left` of the entity is enough.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>, left: usize) -> Result<(), Limit> {
    if has_items(value) {
        text::measure(value, left, TOO_LONG)?;
    }
    encoding::encode(value, out).map_err(|_| TOO_DEEP)
}

const TOO_LONG: Limit = Limit("bytes in one entity", MAX_ENTITY as u64);

/// Checks the size of an entity that is being written.
pub(crate) fn entity_limit(bytes: usize) -> Result<(), Limit> {
    if bytes > MAX_ENTITY {
        Err(TOO_LONG)
    } else {
        Ok(())
    }
}
