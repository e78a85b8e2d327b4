//! Connectors: one folder a technology. Here are the tables, and nothing else.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod formats;
pub mod http;
pub mod json;
pub mod json_schema;
pub mod manifest;
pub mod microservice;
pub mod rest;
mod templates;

pub use rest::check_template as template;
use tahini_hub::registry::{SinkDef, SourceDef, SystemDef, TransformDef};

/// Source types, by name.
pub const SOURCES: &[SourceDef] = &[
    json::BINARY,
    formats::csv::SOURCE,
    json::PULL,
    rest::SOURCE,
    formats::xml::SOURCE,
];

/// Sink types, by name.
pub const SINKS: &[SinkDef] = &[
    formats::csv::SINK,
    json::PUSH,
    rest::SINK,
    formats::xml::SINK,
];

/// Transform types, by name.
pub const TRANSFORMS: &[TransformDef] = &[
    http::HTTP,
    json_schema::JSON_SCHEMA,
    rest::TRANSFORM,
    templates::TRANSFORM,
    formats::xml::TRANSFORM,
];

/// System types, by name.
pub const SYSTEMS: &[SystemDef] = &[microservice::MICROSERVICE, rest::SYSTEM, http::URL];
