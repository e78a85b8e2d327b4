//! The integration tests of the node, one binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod kill;
mod large;
mod microservices;
