//! Looking at entities as they pass, a counter a value.
//!
//! A run that brings many entities is looked at in part, behind its beginning: some of each shape,
//! chosen by chance, stand for those of the same shape that came before them. An entity's names are
//! its shape's, so that which property is there is known exactly all the same; of a run's first
//! entities, everything is.

use std::collections::HashMap;
use std::sync::Arc;

use tahini_entity::encoding::{Kind, Outline, outline};
use tahini_entity::{Batch, Offset, Shape};

use super::{
    EntityType, Fields, MAX_DEPTH, MAX_ITEMS, MAX_NAMES, MAX_ROOT_NAMES, Namespaces, Node, Room,
};

/// Entities of a run that are all looked at.
pub const ALL_OF_FIRST: u64 = 10_000;
/// The most entities behind those that one stands for, besides itself.
const MAX_PASSED: u64 = 15;
/// Shapes of which some entities may stand for others; of rarer ones all are looked at.
const COMMON: usize = 64;
/// An entity with more bytes than this stands for no others, as a copy of it would be kept.
const SMALL: usize = 16 << 10;
/// Shapes whose places are remembered; beyond that they are looked up anew.
const MAX_SHAPES: usize = 1_000;
/// Shapes that are found without a look-up, because they came a moment ago.
const RECENT: usize = 8;
/// Stands for a property that has no place of its own.
const NOWHERE: usize = usize::MAX;

/// Looks at entities and remembers what they look like.
#[derive(Default)]
pub struct Observer {
    seen: EntityType,
    forms: Vec<Form>,
    known: HashMap<Arc<Shape>, usize>,
    recent: Vec<(Arc<Shape>, usize)>,
    turn: usize,
    /// Entities of this run.
    came: u64,
    /// The state of a xorshift generator, which chance is made of.
    chance: u64,
}

/// What is remembered of a shape.
struct Form {
    /// Where in the type its properties are.
    places: Box<[usize]>,
    /// Entities that came since one was looked at.
    passed: u64,
    /// How many more may pass.
    wait: u64,
    /// The one that was looked at last, if others may have passed since.
    last: Vec<u8>,
}

impl Observer {
    /// What was seen so far.
    pub fn seen(&mut self) -> &EntityType {
        self.settle();
        &self.seen
    }

    /// How many entities came that are neither deleted nor filtered.
    pub fn entities(&self) -> u64 {
        self.seen.entities
    }

    /// How often something was new.
    pub(crate) fn news(&self) -> u64 {
        self.seen.room.news
    }

    /// Begins another run: its first entities are all looked at again.
    pub fn begin(&mut self) {
        self.settle();
        self.came = 0;
    }

    /// Looks at the entities of a batch but deleted and filtered ones.
    pub fn observe(&mut self, batch: &Batch) {
        for (shape, body, meta) in batch.contents() {
            self.seen.deleted |= meta.deleted;
            if meta.deleted || meta.filtered {
                continue;
            }
            self.seen.entities += 1;
            self.came += 1;
            match &meta.updated {
                Some(Offset::Int(_)) => self.seen.updated[0] = true,
                Some(Offset::Text(_)) => self.seen.updated[1] = true,
                None => {}
            }
            let at = self.shape(shape);
            let form = &mut self.forms[at];
            form.passed += 1;
            if form.wait > 0 {
                form.wait -= 1;
                continue;
            }
            form.look(body, &mut self.seen);
            if self.came >= ALL_OF_FIRST && at < COMMON && body.len() <= SMALL {
                form.last.clear();
                form.last.extend_from_slice(body);
                form.wait = next(&mut self.chance) % (MAX_PASSED + 1);
            }
        }
    }

    /// Counts those that passed and that no later one will stand for.
    fn settle(&mut self) {
        for form in &mut self.forms {
            form.wait = 0;
            if form.passed > 0 {
                let last = std::mem::take(&mut form.last);
                form.look(&last, &mut self.seen);
            }
        }
    }

    /// Where a shape's form is.
    #[inline]
    fn shape(&mut self, shape: &Arc<Shape>) -> usize {
        let mut recent = self.recent.iter();
        let found = recent.find(|(known, _)| Arc::ptr_eq(known, shape));
        match found {
            Some((_, at)) => *at,
            None => self.shape_anew(shape),
        }
    }

    fn shape_anew(&mut self, shape: &Arc<Shape>) -> usize {
        let at = match self.known.get(shape) {
            Some(at) => *at,
            None => self.learn(shape),
        };
        let entry = (Arc::clone(shape), at);
        if self.recent.len() < RECENT {
            self.recent.push(entry);
        } else {
            self.turn = (self.turn + 1) % RECENT;
            self.recent[self.turn] = entry;
        }
        at
    }

    fn learn(&mut self, shape: &Arc<Shape>) -> usize {
        if self.known.len() >= MAX_SHAPES {
            self.forget();
        }
        // Those that passed have to be counted before their properties lose their places.
        if self.seen.fields.named.len() + shape.names().len() > MAX_ROOT_NAMES {
            self.settle();
        }
        let told_apart = self.seen.fields.rest.is_none();
        let mut places = self.find_places(shape);
        if told_apart && self.seen.fields.rest.is_some() {
            // No property has a place of its own any more.
            self.forget();
            places.fill(NOWHERE);
        }
        self.forms.push(Form {
            places,
            passed: 0,
            wait: 0,
            last: Vec::new(),
        });
        let at = self.forms.len() - 1;
        self.known.insert(Arc::clone(shape), at);
        at
    }

    fn find_places(&mut self, shape: &Shape) -> Box<[usize]> {
        let (fields, room) = (&mut self.seen.fields, &mut self.seen.room);
        let places = shape.names().iter().enumerate().map(|(guess, name)| {
            let place = fields.place(name, guess, MAX_ROOT_NAMES, room);
            place.unwrap_or(NOWHERE)
        });
        places.collect()
    }

    fn forget(&mut self) {
        self.settle();
        self.known.clear();
        self.recent.clear();
        self.forms.clear();
    }
}

impl Form {
    /// Looks at an entity, which stands for all that passed and for itself.
    #[inline]
    fn look(&mut self, body: &[u8], seen: &mut EntityType) {
        let (fields, room) = (&mut seen.fields, &mut seen.room);
        room.weight = std::mem::take(&mut self.passed);
        let mut rest = body;
        for place in &self.places {
            match fields.named.get_mut(*place) {
                Some((_, node)) => node.meet(&mut rest, 1, room),
                None => fields.meet_rest(&mut rest, 1, room),
            }
        }
    }
}

/// The next number of a xorshift generator; 0 begins the sequence.
fn next(state: &mut u64) -> u64 {
    let mut number = match *state {
        0 => 0x9e37_79b9_7f4a_7c15,
        known => known,
    };
    number ^= number << 13;
    number ^= number >> 7;
    number ^= number << 17;
    *state = number;
    number >> 32
}

impl Node {
    /// Counts the value at the front of `from` and looks into it.
    #[inline]
    fn meet(&mut self, from: &mut &[u8], depth: usize, room: &mut Room) {
        match outline(from).expect("the bytes were written by encode") {
            Outline::Scalar(kind) => self.note(kind, room),
            whole => self.meet_whole(whole, depth, room),
        }
    }

    #[inline]
    fn note(&mut self, kind: Kind, room: &mut Room) {
        let count = &mut self.counts[kind as usize];
        if *count == 0 {
            room.news += 1;
        }
        *count += room.weight;
    }

    fn meet_whole(&mut self, whole: Outline<'_>, depth: usize, room: &mut Room) {
        match whole {
            Outline::Scalar(kind) => self.note(kind, room),
            Outline::Ni(text) => {
                self.note(Kind::Ni, room);
                let namespaces = &mut self.parts.get_or_insert_default().namespaces;
                namespaces.meet(text, room);
            }
            Outline::List(items) => {
                self.note(Kind::List, room);
                if depth >= MAX_DEPTH || items.count() == 0 {
                    return;
                }
                let parts = self.parts.get_or_insert_default();
                if parts.items.is_none() && room.take() {
                    parts.items = Some(Node::default());
                }
                let Some(node) = &mut parts.items else { return };
                let mut rest = items.bytes();
                for _ in 0..items.count().min(MAX_ITEMS) {
                    node.meet(&mut rest, depth + 1, room);
                }
            }
            Outline::Dict(entries) => {
                self.note(Kind::Dict, room);
                if depth >= MAX_DEPTH || entries.count() == 0 {
                    return;
                }
                let fields = &mut self.parts.get_or_insert_default().fields;
                for (guess, (name, mut value)) in entries.enumerate() {
                    match fields.place(name, guess, MAX_NAMES, room) {
                        Some(at) => fields.named[at].1.meet(&mut value, depth + 1, room),
                        None => fields.meet_rest(&mut value, depth + 1, room),
                    }
                }
            }
        }
    }
}

impl Fields {
    /// Counts a value whose name is not told apart.
    fn meet_rest(&mut self, from: &mut &[u8], depth: usize, room: &mut Room) {
        match &mut self.rest {
            Some(rest) => rest.meet(from, depth, room),
            None => tahini_entity::encoding::skip(from),
        }
    }
}

impl Namespaces {
    /// Takes note of an identifier's namespace.
    fn meet(&mut self, identifier: &[u8], room: &mut Room) {
        let end = identifier.iter().position(|byte| *byte == b':');
        let own = &identifier[..end.unwrap_or(0)];
        if self.many || self.names.iter().any(|known| known.as_bytes() == own) {
            return;
        }
        if let Ok(own) = std::str::from_utf8(own) {
            self.add(own, room);
        }
    }
}
