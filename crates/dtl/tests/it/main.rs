//! Tests of the language from outside: rules in, entities out.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;
mod vectors;
