//! The pump and everything around it, driven through `Hub::run` against a scripted world.
#![allow(clippy::unwrap_used)]

mod apply;
mod check;
mod children;
mod compaction;
mod completeness;
mod continuation;
mod datasets;
mod execution_log;
mod faulty;
mod full_runs;
mod lookup;
mod many_datasets;
mod middle;
mod moments;
mod namespaces;
mod receivers;
mod refusals;
mod reprocessing;
mod scheduler;
mod script;
mod secrets;
mod settle;
mod sink_demands;
mod stage;
mod started;
mod steps;
mod subsets;
mod terms;
mod transform_errors;
mod watched;
mod world;
mod write_errors;
