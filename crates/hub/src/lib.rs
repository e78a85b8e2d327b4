//! Pipes: what they are made of, how they run, and what keeps them true.
//! Ordinary blocking code; the world is reached through the store and the traits here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod beside;
mod boundary;
pub mod breaker;
pub mod builtin;
pub mod check;
mod compaction;
pub mod config;
pub mod cron;
pub mod execution_log;
mod failure;
pub mod fate;
mod flow;
pub mod hub;
mod intake;
mod lookup;
mod open_systems;
pub mod pipe;
mod plan;
pub mod policy;
pub mod preview;
pub mod progress;
pub mod project;
pub mod pump;
pub mod receiver;
pub mod registry;
mod retry;
mod run_control;
pub mod schedule;
pub mod scheduler;
pub mod secrets;
mod seen;
pub mod settle;
pub mod sink;
pub mod source;
pub mod stage;
pub mod subset;
mod system;
mod terms;
pub mod totals;
mod transform;
mod writer;

pub use config::{Component, ComponentKind, Configuration, Problem};
pub use failure::{Class, Failure, Fault};
pub use hub::Hub;
pub use pipe::{Pipe, World};
pub use project::Project;
pub use registry::{Ctx, Registry};
pub use run_control::{Cancel, Clock};
pub use schedule::Schedule;
pub use secrets::SecretSource;
pub use sink::Sink;
pub use source::Source;
pub use system::{Services, System, Systems};
pub use transform::{Outputs, Transform, apply_all, origins};
