//! Sources, sinks, transforms and systems against servers that follow a script.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a scripted peer paces itself with sleeps"
)]

mod api;
mod auth;
mod body;
mod client;
mod csv;
mod json_schema;
mod jwt;
mod patterns;
mod rest;
mod rest_runs;
mod rows;
mod runs;
mod secrets;
mod server;
mod sink;
mod source;
mod system;
mod templates;
mod tls;
mod transform;
mod truncated;
mod world;
mod xml;
