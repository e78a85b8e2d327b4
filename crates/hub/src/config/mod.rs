//! The configuration: what it may say, and what it says.

mod property;
mod props;

pub use property::{Kind, Property};
pub use props::Props;
