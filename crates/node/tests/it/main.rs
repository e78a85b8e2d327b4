//! The integration tests of the node, one binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "a scripted peer paces itself with sleeps"
)]

mod api;
mod commands;
mod failed_in_numbers;
mod kill;
mod killed_breaker;
mod large;
mod microservices;
mod scale;
mod streams;
mod tools;
