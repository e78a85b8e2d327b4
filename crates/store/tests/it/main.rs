//! The store's tests: one contract for all backends, and what only the disk can do to us.
#![allow(clippy::unwrap_used)]

mod contract;
mod model;
mod rows;
