//! DTL, the transformation language: compiled once, evaluated a batch at a time.
//!
//! [`compile`] turns the `rules` object of a `dtl` transform into a [`Program`] or says everything
//! that is wrong with it. [`Program::transform`] turns entities into entities. The crate does no
//! I/O and knows no clock: the time, other datasets and pauses come in through a [`Context`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod analysis;
mod compile;
mod context;
mod count;
mod dependencies;
mod error;
mod eval;
mod explain;
mod expr;
pub mod functions;
mod hops;
pub mod limits;
pub mod lineage;
mod lines;
mod lookup;
pub mod manual;
mod memo;
mod murmur3;
mod namespace;
mod number;
mod options;
mod path;
mod pattern;
mod plan;
mod prefixes;
mod program;
mod results;
mod run;
pub mod schema;
mod scope;
pub mod subset;
mod text;
mod trace;
mod transform;
mod values;
mod weight;

pub use analysis::{Cause, Properties, Why};
pub use compile::{compile, compile_traced};
pub use context::{Context, Joined, MostJoined};
pub use dependencies::{Back, Dependencies, Place, Side, To, Untracked};
pub use error::{EvalClass, EvalError, JsonPath, Problem, Segment, Severity};
pub use explain::{steps_json, steps_text};
pub use lookup::{By, Lookup, LookupError, Need, NoLookup};
pub use namespace::{add_namespaces, remove_namespaces};
pub use options::{Namespaces, Options, SourceKind, TriggerOn};
pub use program::{Index, Program, Read};
pub use subset::Subset;
pub use trace::{Change, Explained, MAX_KEPT, MAX_STEPS_KEPT, MAX_VALUE_KEPT, Shown, Step};
