//! What an evaluation gets from outside.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tahini_entity::Dict;

use crate::Lookup;
use crate::trace::Trace;

/// What `hops` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Rows, each of which has one entity for every alias.
    pub rows: u64,
    /// The most entities that were found for one source entity.
    pub most: u64,
    /// The most bytes of memory that those of one source entity took; counted where there is a
    /// limit for it.
    pub most_bytes: u64,
}

impl Joined {
    /// The same with what was found elsewhere.
    pub fn with(self, other: Joined) -> Joined {
        Joined {
            rows: self.rows + other.rows,
            most: self.most.max(other.most),
            most_bytes: self.most_bytes.max(other.most_bytes),
        }
    }
}

/// How much may be joined with one source entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MostJoined {
    /// Entities.
    pub entities: u64,
    /// Bytes of memory that these take.
    pub bytes: u64,
}

/// Everything that an evaluation needs and cannot know by itself.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The value of `now`, one for the whole batch.
    pub now: jiff::Timestamp,
    /// Other datasets, and earlier versions of the source's.
    pub lookup: &'a dyn Lookup,
    /// `_B`: what the URL's parameters say, for endpoint sinks.
    pub parameters: Option<&'a Dict>,
    /// Pauses for `sleep!`; false when the run was stopped meanwhile. `None` does not pause.
    pub pause: Option<&'a dyn Fn(Duration) -> bool>,
    /// Whether the evaluation is no longer wanted; it is asked now and then, and a true answer
    /// ends it with `EvalClass::Cancelled`. `None` never ends it.
    pub stopped: Option<&'a dyn Fn() -> bool>,
    /// Where joins are counted, if anybody wants to know.
    pub joined: Option<&'a Cell<Joined>>,
    /// Where the most entities that one evaluation of a `hops` with `trace` joined are kept, each
    /// at its place in [`Program::traced_hops`](crate::Program::traced_hops).
    pub traced_hops: Option<&'a [Cell<u64>]>,
    /// How much may be joined with one entity of the source; more is an error. `None` sets no limit
    /// beside that of rows.
    pub most_joined: Option<MostJoined>,
    /// Where a traced program notes its steps.
    pub(crate) trace: Option<&'a RefCell<Trace>>,
}

impl<'a> Context<'a> {
    /// A context with a time and datasets, and nothing else.
    pub fn new(now: jiff::Timestamp, lookup: &'a dyn Lookup) -> Context<'a> {
        Context {
            now,
            lookup,
            parameters: None,
            pause: None,
            stopped: None,
            joined: None,
            traced_hops: None,
            most_joined: None,
            trace: None,
        }
    }
}
