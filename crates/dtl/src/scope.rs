//! Contexts of evaluation: a source, a target, and the contexts around them.

use std::sync::Arc;

use tahini_entity::json::{Line, Raw};
use tahini_entity::{Dict, Meta, Record, Shape, Str, Value, encoding};

use crate::namespace::{Naming, Read};
use crate::path::{self, Walked};

/// One applied rule at work: `_S` and `_T`, and the way up to `_P` and `_R`.
pub(crate) struct Frame<'e> {
    pub(crate) source: Source<'e>,
    pub(crate) target: Target<'e>,
    pub(crate) parent: Option<&'e Frame<'e>>,
}

/// What a rule is applied to.
#[derive(Clone, Copy)]
pub(crate) enum Source<'e> {
    /// An entity that was not read yet.
    Row(&'e Row<'e>),
    /// Any value, in an applied rule.
    Value(&'e Value),
}

/// An entity that was not read yet, and where its values stand.
pub(crate) struct Row<'e> {
    pub(crate) id: Option<&'e str>,
    pub(crate) shape: &'e Arc<Shape>,
    pub(crate) meta: &'e Meta,
    form: Form<'e>,
}

/// The form in which the entity came.
enum Form<'e> {
    /// Encoded, with the start of each value in the body.
    Encoded { body: &'e [u8], starts: Vec<u32> },
    /// As JSON text.
    Text(Line<'e>),
}

/// What a rule builds: names and values in the order in which they were set.
pub(crate) struct Target<'e> {
    entries: Vec<(Str, Slot<'e>)>,
    /// Bookkeeping fields that `copy` took over from an encoded source, by `BOOKKEEPING`.
    carried: u8,
}

/// A value of a target: still as the source has it, or a tree.
#[derive(Clone)]
pub(crate) enum Slot<'e> {
    Raw(Raw<'e>),
    Value(Value),
}

/// The reserved fields that a dataset writes by itself. They are read by name; an entity taken
/// as a whole does not show them.
pub(crate) const BOOKKEEPING: [&str; 4] = ["_updated", "_previous", "_ts", "_hash"];

impl<'e> Frame<'e> {
    /// The context that many parents up.
    pub(crate) fn up(&self, parents: u16) -> Option<&Frame<'e>> {
        let mut frame = self;
        for _ in 0..parents {
            frame = frame.parent?;
        }
        Some(frame)
    }

    /// The outermost context.
    pub(crate) fn root(&self) -> &Frame<'e> {
        let mut frame = self;
        while let Some(parent) = frame.parent {
            frame = parent;
        }
        frame
    }
}

impl<'e> Row<'e> {
    /// Finds where the values of `record` start, in memory that is used again.
    pub(crate) fn new(record: Record<'e>, mut starts: Vec<u32>) -> Row<'e> {
        starts.clear();
        let body = record.body;
        let mut rest = body;
        for _ in record.shape.names() {
            let start = body.len() - rest.len();
            starts.push(u32::try_from(start).expect("an entity is smaller than 4 GiB"));
            encoding::skip(&mut rest);
        }
        Row {
            id: record.id,
            shape: record.shape,
            meta: record.meta,
            form: Form::Encoded { body, starts },
        }
    }

    /// An entity whose text was opened.
    pub(crate) fn of_line(line: Line<'e>) -> Row<'e> {
        Row {
            id: line.id(),
            shape: line.shape(),
            meta: line.meta(),
            form: Form::Text(line),
        }
    }

    /// The memory that `new` was given.
    pub(crate) fn into_starts(self) -> Vec<u32> {
        match self.form {
            Form::Encoded { starts, .. } => starts,
            Form::Text(_) => Vec::new(),
        }
    }

    /// The value at a place of the shape, in the form in which it came.
    #[inline]
    pub(crate) fn raw(&self, at: usize) -> Raw<'e> {
        match &self.form {
            Form::Encoded { .. } => Raw::Encoded(self.body(at, at)),
            Form::Text(line) => line.raw(at),
        }
    }

    /// The encoded values from one place of the shape to another; nothing where the entity is text.
    #[inline]
    pub(crate) fn body(&self, first: usize, last: usize) -> &'e [u8] {
        match &self.form {
            Form::Encoded { body, starts } => {
                let start = starts[first] as usize;
                match starts.get(last + 1) {
                    Some(&end) => &body[start..end as usize],
                    None => &body[start..],
                }
            }
            Form::Text(_) => &[],
        }
    }

    /// The text of the entity, if it came as text.
    pub(crate) fn line(&self) -> Option<&Line<'e>> {
        match &self.form {
            Form::Encoded { .. } => None,
            Form::Text(line) => Some(line),
        }
    }

    /// The value at a place of the shape.
    #[inline]
    pub(crate) fn value(&self, at: usize) -> Value {
        self.raw(at).value()
    }

    /// The content's hash.
    fn hash(&self) -> u128 {
        match &self.form {
            Form::Encoded { body, .. } => {
                let (id, shape, meta) = (self.id, self.shape, self.meta);
                let record = Record {
                    id,
                    shape,
                    body,
                    meta,
                };
                record.hash()
            }
            Form::Text(line) => line.hash(),
        }
    }

    /// A reserved field that stands beside the properties; null when it has none.
    pub(crate) fn reserved(&self, name: &str) -> Option<Value> {
        let meta = self.meta;
        Some(match name {
            "_id" => match self.id {
                Some(id) => Value::string(id),
                // One that is no string stands among the properties.
                None => self
                    .shape
                    .position("_id")
                    .map_or(Value::Null, |at| self.value(at)),
            },
            "_deleted" if meta.deleted => Value::Bool(true),
            "_filtered" if meta.filtered => Value::Bool(true),
            "_deleted" | "_filtered" => Value::Null,
            "_updated" => match &meta.updated {
                Some(tahini_entity::Offset::Int(number)) => Value::Int(*number),
                Some(tahini_entity::Offset::Text(text)) => Value::String(text.clone()),
                None => Value::Null,
            },
            "_previous" => meta
                .previous
                .map_or(Value::Null, |seq| Value::integer(seq.into())),
            "_ts" if meta.ts != 0 => Value::Int(meta.ts),
            "_ts" => Value::Null,
            "_hash" => Value::string(format!("{:032x}", self.hash())),
            _ => return None,
        })
    }

    fn to_value(&self) -> Value {
        let mut dict = Dict::new();
        if let Some(id) = self.id {
            dict.push_new("_id", Value::string(id));
        }
        if self.meta.deleted {
            dict.push_new("_deleted", Value::Bool(true));
        }
        for (at, name) in self.shape.names().iter().enumerate() {
            dict.push_new(name.clone(), self.value(at));
        }
        Value::Dict(dict)
    }
}

impl Source<'_> {
    /// The whole source; an entity as a dict.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Source::Row(row) => row.to_value(),
            Source::Value(value) => (*value).clone(),
        }
    }

    /// The values that a name reads, for statements that copy: names in order.
    pub(crate) fn matching(self, element: &Read) -> Vec<(Str, Value)> {
        let wanted = |name: &str| match element {
            Read::Exact(exact) => name == *exact,
            Read::Any(identifier) => path::has_identifier(name, identifier),
        };
        match self {
            Source::Row(row) => {
                if let Read::Exact(name) = element
                    && let Some(value) = row.reserved(name)
                {
                    let found = (!value.is_null()).then(|| (name.clone(), value));
                    return found.into_iter().collect();
                }
                let names = row.shape.names().iter().enumerate();
                let found = names.filter(|(_, name)| wanted(name));
                found
                    .map(|(at, name)| (name.clone(), row.value(at)))
                    .collect()
            }
            Source::Value(Value::Dict(dict)) => {
                let found = dict.iter().filter(|(name, _)| wanted(name));
                found
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            }
            Source::Value(_) => Vec::new(),
        }
    }
}

impl<'e> Target<'e> {
    /// An empty target, in memory that is used again.
    pub(crate) fn new() -> Target<'e> {
        Target {
            entries: Vec::new(),
            carried: 0,
        }
    }

    /// What the outermost context starts with: the source's `_id`, and `_deleted` when it is.
    pub(crate) fn inherit(row: &Row<'e>) -> Target<'e> {
        let mut target = Target::new();
        target.entries.reserve(row.shape.names().len() + 4);
        if let Some(id) = row.id {
            target
                .entries
                .push(("_id".into(), Slot::Value(Value::string(id))));
        }
        if row.meta.deleted {
            target
                .entries
                .push(("_deleted".into(), Slot::Value(Value::Bool(true))));
        }
        target
    }

    /// The names and slots in order.
    pub(crate) fn entries(&self) -> &[(Str, Slot<'e>)] {
        &self.entries
    }

    /// Whether a property is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// A property as it stands.
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot<'e>> {
        let found = self.entries.iter().find(|(known, _)| known == name);
        found.map(|(_, slot)| slot)
    }

    /// A property's value.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.slot(name).map(Slot::to_value)
    }

    /// Sets a property; a known one keeps its place.
    pub(crate) fn set(&mut self, name: Str, slot: Slot<'e>) {
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = slot,
            None => self.entries.push((name, slot)),
        }
    }

    /// Adds a property whose name is known to be new.
    pub(crate) fn push_new(&mut self, name: Str, slot: Slot<'e>) {
        self.entries.push((name, slot));
    }

    /// Sets the properties of an encoded source, whose names are distinct and never reserved: a
    /// target that holds nothing but reserved names takes them without looking for known ones.
    pub(crate) fn set_all<'n>(&mut self, all: impl Iterator<Item = (&'n Str, Slot<'e>)>) {
        if self
            .entries
            .iter()
            .all(|(name, _)| name == "_id" || name == "_deleted")
        {
            self.entries
                .extend(all.map(|(name, slot)| (name.clone(), slot)));
        } else {
            for (name, slot) in all {
                self.set(name.clone(), slot);
            }
        }
    }

    /// Removes the properties whose names match, carried ones too.
    pub(crate) fn remove(&mut self, matches: impl Fn(&str) -> bool) {
        self.entries.retain(|(name, _)| !matches(name));
        if self.carried != 0 {
            for (bit, name) in BOOKKEEPING.iter().enumerate() {
                if matches(name) {
                    self.carried &= !(1 << bit);
                }
            }
        }
    }

    /// Takes a bookkeeping field over from the source; by its place in `BOOKKEEPING`.
    pub(crate) fn carry(&mut self, fields: u8) {
        self.carried |= fields;
    }

    /// The bookkeeping fields that were taken over.
    pub(crate) fn carried(&self) -> u8 {
        self.carried
    }

    /// What a path's first element reads from the target.
    pub(crate) fn read(&self, element: &Read, walked: &mut Walked) -> Option<Value> {
        match element {
            Read::Exact(name) => self.get(name),
            Read::Any(identifier) => {
                let found = self.entries.iter();
                let found = found.filter(|(name, _)| path::has_identifier(name, identifier));
                path::gather(found.map(|(_, slot)| slot.to_value()), walked)
            }
        }
    }
}

impl Slot<'_> {
    /// The value as a tree.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Slot::Raw(raw) => raw.value(),
            Slot::Value(value) => value.clone(),
        }
    }
}

/// What a path's first element reads from an encoded source that no cache knows.
pub(crate) fn read_row(
    row: &Row<'_>,
    element: &Read,
    naming: &Naming,
    walked: &mut Walked,
) -> Option<Value> {
    match element {
        Read::Exact(name) => {
            if let Some(at) = row.shape.position(name) {
                return Some(row.value(at));
            }
            if name == "$ids" && naming.on {
                return row.id.map(|id| naming.ids_of(id));
            }
            row.reserved(name)
        }
        Read::Any(identifier) => {
            let names = row.shape.names().iter().enumerate();
            let found = names.filter(|(_, name)| path::has_identifier(name, identifier));
            path::gather(found.map(|(at, _)| row.value(at)), walked)
        }
    }
}
