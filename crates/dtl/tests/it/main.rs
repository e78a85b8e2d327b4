//! Tests of the language from outside: rules in, entities out.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod analysis;
mod bounds;
mod decisions;
mod dependencies;
mod explain;
mod fuzz;
mod keys;
mod limits;
mod lineage;
mod manual;
mod problems;
mod program;
mod properties;
mod rows;
mod spec;
mod speed;
mod support;
mod traced_hops;
mod vectors;
