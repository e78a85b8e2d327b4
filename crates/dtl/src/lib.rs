//! DTL, the transformation language: compiled once, evaluated a batch at a time.
//!
//! [`compile`] turns the `rules` object of a `dtl` transform into a [`Program`] or says everything
//! that is wrong with it. [`Program::transform`] turns entities into entities. The crate does no
//! I/O and knows no clock: the time, other datasets and pauses come in through a [`Context`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod context;
mod error;
mod lookup;
mod options;
mod program;

pub use context::Context;
pub use error::{EvalClass, EvalError, JsonPath, Problem, Segment, Severity};
pub use lookup::{By, Lookup, LookupError, Need, NoLookup};
pub use options::{Namespaces, Options, SourceKind, TriggerOn};
pub use program::{Index, Program, Read, compile};
