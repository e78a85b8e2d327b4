//! Pipes: what they are made of, how they run, and what keeps them true.
//! Ordinary blocking code; the world is reached through the store and the traits here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod failure;
pub mod registry;
mod run_control;
pub mod sink;
pub mod source;
mod system;
mod transform;

pub use failure::{Class, Failure};
pub use registry::{Ctx, Registry};
pub use run_control::{Cancel, Clock};
pub use sink::Sink;
pub use source::Source;
pub use system::{Services, System, Systems};
pub use transform::Transform;
