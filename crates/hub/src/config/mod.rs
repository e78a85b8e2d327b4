//! The configuration: what it may say, and what it says.

mod build;
mod checks;
mod defaults;
mod diff;
mod files;
pub(crate) mod known;
mod model;
mod nearest;
mod permissions;
mod problem;
mod property;
mod props;
mod resolve;
mod rows;
mod rules;
mod schema;
mod secret;
mod syntax;
mod text;
mod unfold;
mod validate;

pub use diff::{Changes, diff};
pub use known::{Role, keeps_places};
pub use model::{Component, ComponentKind, Configuration, Input};
pub use nearest::nearest;
pub use permissions::{WRITE_DATA, lets_anybody};
pub use problem::{Level, Problem, Spot};
pub use property::{Kind, Property, Use};
pub use props::Props;
pub(crate) use resolve::Moves;
pub use rows::{METADATA, PIPE, PUMP, SINK_COMMON, SOURCE_COMMON, SYSTEM_COMMON, TRANSFORM_COMMON};
pub use rules::dtl_options;
pub(crate) use rules::trigger_on;
pub use schema::{Subject, schema};
pub use secret::resolve_secrets;
pub(crate) use secret::without_secrets;
pub use text::{Place, Spans, Text};
pub(crate) use validate::by_rows;

#[cfg(test)]
mod tests;
