//! The node: command line, API, microservice runtimes, wiring.
//!
//! A library beside the binary, so that the integration tests reach the rooms they test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod assembly;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod commands;
pub mod configuration;
pub mod metrics;
pub mod microservices;
pub mod openapi;
pub mod programs;
pub mod remote;
pub mod restore;
pub mod say;
pub mod serve;
pub mod shown;
