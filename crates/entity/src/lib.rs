//! Values, entities, their order, hash, wire JSON and storage encoding. No I/O, no clock.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod datetime;
pub mod encoding;
mod entity;
pub mod folded;
pub mod hash;
pub mod json;
pub mod order;
pub mod packed;
mod value;

pub use batch::{Batch, Meta, Record, Shape};
pub use datetime::{Datetime, NotADatetime};
pub use entity::{Entity, Offset};
pub use json::is_reserved;
pub use value::{Dict, Str, Value};
