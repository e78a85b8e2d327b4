//! Entity types: what the entities of a pipe look like, inferred from the entities themselves.
//!
//! A type is a tree of counters: for every property, and every part of it, how often which kind of
//! value was there. Everything else is read from that: the JSON Schema, what is optional, and how
//! one run's data differs from that of the runs before.

mod bytes;
mod drift;
mod kept;
mod observe;
mod schema;
mod tables;
mod watch;

use tahini_entity::Str;
use tahini_entity::encoding::Kind;

pub use drift::{Change, What};
pub use kept::{Kept, Side};
pub(crate) use kept::{PREFIX, forget};
pub use observe::{ALL_OF_FIRST, Observer};
pub use tables::{SAMPLE, TableDefinition};
pub(crate) use watch::Watch;

/// Properties and parts of properties that a type may have in all. What comes beyond is not told
/// apart, and the type says so.
pub const MAX_NODES: usize = 2_000;
/// Names that a dict may have before its names count as data: its values then are told of as one.
pub const MAX_NAMES: usize = 250;
/// The same for the names of an entity itself.
pub const MAX_ROOT_NAMES: usize = 1_000;
/// How deep lists and dicts are looked into.
pub const MAX_DEPTH: usize = 12;
/// Items of one list that are looked at.
pub const MAX_ITEMS: usize = 100;
/// Namespaces of one property's identifiers that are told of.
pub const MAX_NAMESPACES: usize = 20;

const KINDS: usize = Kind::ALL.len();

/// What the entities of one side of a pipe look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityType {
    /// How many entities were looked at; deleted and filtered ones are not.
    pub(crate) entities: u64,
    /// Deleted entities came, too.
    pub(crate) deleted: bool,
    /// `_updated` was an integer, `_updated` was text.
    pub(crate) updated: [bool; 2],
    pub(crate) fields: Fields,
    pub(crate) room: Room,
}

impl EntityType {
    /// The names of the properties that were seen.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.named.iter().map(|(name, _)| &**name)
    }
}

/// How much more a type may tell apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Room {
    left: usize,
    /// Something found no place.
    pub(crate) truncated: bool,
    /// Goes up with everything that was not there before.
    pub(crate) news: u64,
    /// For how many entities the one counts that is looked at.
    pub(crate) weight: u64,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            left: MAX_NODES,
            truncated: false,
            news: 0,
            weight: 1,
        }
    }
}

impl Room {
    /// Takes the place of a node, if there is one.
    fn take(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.news += 1;
                true
            }
            None => {
                self.news += u64::from(!self.truncated);
                self.truncated = true;
                false
            }
        }
    }
}

/// What was seen in one place: in a property, in the items of a list, in the values of a dict.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) counts: [u64; KINDS],
    /// Most values have no parts.
    pub(crate) parts: Option<Box<Parts>>,
}

/// What is known of values beyond their kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    /// What lists hold.
    pub(crate) items: Option<Node>,
    /// What dicts hold.
    pub(crate) fields: Fields,
    /// The namespaces of identifiers.
    pub(crate) namespaces: Namespaces,
}

/// The properties of an entity or a dict.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields {
    /// By name, in the order in which they were first met.
    pub(crate) named: Vec<(Str, Node)>,
    /// What all values are like, once there were too many names to tell them apart.
    pub(crate) rest: Option<Box<Node>>,
}

/// The namespaces of identifiers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Namespaces {
    pub(crate) names: Vec<Str>,
    /// There are more than can be told.
    pub(crate) many: bool,
}

impl EntityType {
    /// How many entities it was inferred from.
    pub fn entities(&self) -> u64 {
        self.entities
    }

    /// How many properties entities have, as far as they can be told apart.
    pub fn properties(&self) -> usize {
        self.fields.named.len()
    }

    /// Whether something is missing because there was too much to tell apart.
    pub fn truncated(&self) -> bool {
        self.room.truncated
    }

    /// Adds what was seen elsewhere.
    pub(crate) fn absorb(&mut self, other: &EntityType) {
        self.entities += other.entities;
        self.deleted |= other.deleted;
        for (known, seen) in self.updated.iter_mut().zip(other.updated) {
            *known |= seen;
        }
        self.room.truncated |= other.room.truncated;
        self.fields
            .absorb(&other.fields, MAX_ROOT_NAMES, &mut self.room);
    }
}

impl Node {
    /// How many values were seen.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many values of that kind were seen.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// The kinds that were seen, in order.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.counts[*kind as usize] > 0)
    }

    fn absorb(&mut self, other: &Node, room: &mut Room) {
        for (known, seen) in self.counts.iter_mut().zip(other.counts) {
            if *known == 0 && seen > 0 {
                room.news += 1;
            }
            *known += seen;
        }
        let Some(theirs) = other.parts.as_deref() else {
            return;
        };
        let parts = self.parts.get_or_insert_default();
        if let Some(items) = &theirs.items {
            if parts.items.is_none() && room.take() {
                parts.items = Some(Node::default());
            }
            if let Some(known) = &mut parts.items {
                known.absorb(items, room);
            }
        }
        parts.fields.absorb(&theirs.fields, MAX_NAMES, room);
        for name in &theirs.namespaces.names {
            parts.namespaces.add(name, room);
        }
        parts.namespaces.many |= theirs.namespaces.many;
    }

    /// How many nodes there are below this one, itself included.
    fn size(&self) -> usize {
        let parts = self.parts.as_deref();
        let items = parts.and_then(|parts| parts.items.as_ref());
        let fields = parts.map_or(0, |parts| parts.fields.size());
        1 + items.map_or(0, Node::size) + fields
    }
}

impl Fields {
    /// The place of `name`, made if there is room for one; `None` stands for the values whose
    /// names are not told apart.
    fn place(&mut self, name: &str, guess: usize, most: usize, room: &mut Room) -> Option<usize> {
        if self.rest.is_some() {
            return None;
        }
        if self
            .named
            .get(guess)
            .is_some_and(|(known, _)| known == name)
        {
            return Some(guess);
        }
        let known = self.named.iter().position(|(known, _)| known == name);
        if known.is_some() {
            return known;
        }
        if self.named.len() >= most {
            self.collapse(room);
            return None;
        }
        room.take().then(|| {
            self.named.push((name.into(), Node::default()));
            self.named.len() - 1
        })
    }

    /// Gives up telling names apart.
    fn collapse(&mut self, room: &mut Room) {
        let mut rest = Node::default();
        for (_, node) in std::mem::take(&mut self.named) {
            room.left += node.size();
            rest.absorb(&node, room);
        }
        room.news += 1;
        room.left = room.left.saturating_sub(1);
        self.rest = Some(Box::new(rest));
    }

    fn absorb(&mut self, other: &Fields, most: usize, room: &mut Room) {
        if other.rest.is_some() && self.rest.is_none() {
            self.collapse(room);
        }
        for (guess, (name, theirs)) in other.named.iter().enumerate() {
            match self.place(name, guess, most, room) {
                Some(at) => self.named[at].1.absorb(theirs, room),
                None => self.absorb_rest(theirs, room),
            }
        }
        if let Some(theirs) = &other.rest {
            self.absorb_rest(theirs, room);
        }
    }

    fn absorb_rest(&mut self, theirs: &Node, room: &mut Room) {
        if let Some(rest) = &mut self.rest {
            rest.absorb(theirs, room);
        }
    }

    fn size(&self) -> usize {
        let named: usize = self.named.iter().map(|(_, node)| node.size()).sum();
        named + self.rest.as_deref().map_or(0, Node::size)
    }
}

impl Namespaces {
    fn add(&mut self, name: &str, room: &mut Room) {
        if self.many || self.names.iter().any(|known| known == name) {
            return;
        }
        room.news += 1;
        if self.names.len() < MAX_NAMESPACES {
            self.names.push(name.into());
        } else {
            self.many = true;
        }
    }
}

/// What a kind of value is called where people read it, and in the `type` or `subtype` of schemas.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Integer => "integer",
        Kind::Float => "number",
        Kind::Decimal => "decimal",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Date => "date",
        Kind::Datetime => "nanoseconds",
        Kind::Uuid => "uuid",
        Kind::Ni => "ni",
        Kind::Uri => "uri",
        Kind::List => "array",
        Kind::Dict => "object",
    }
}
