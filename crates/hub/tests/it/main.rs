//! The pump and everything around it, driven through `Hub::run` against a scripted world.
#![allow(clippy::unwrap_used)]

mod check;
mod continuation;
mod execution_log;
mod full_runs;
mod receivers;
mod scheduler;
mod script;
mod settle;
mod sink_demands;
mod world;
mod write_errors;
