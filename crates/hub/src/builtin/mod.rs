//! The parts that need no driver.

mod committing;
pub(crate) mod dataset_sink;
mod dataset_source;
pub(crate) mod datasets;
pub(crate) mod dtl;
mod embedded;
mod emit_children;
mod endpoint;
pub(crate) mod namespaces;

use crate::config::{Kind, Property};
use crate::registry::{ContinuationDef, SinkDef, SourceDef, TransformDef};

const NO_SINCE: ContinuationDef = ContinuationDef {
    supports_since: false,
    is_since_comparable: true,
    is_chronological: false,
    configurable: true,
};

pub(crate) const IF_SOURCE_EMPTY: Property = Property::new(
    "if_source_empty",
    Kind::Enum(&["accept", "fail"]),
    "What a source without entities means: `accept` lets deletion tracking delete, `fail` fails \
     the run.",
);

/// The built-in sources, by name.
pub const SOURCES: &[SourceDef] = &[
    dataset_source::DEF,
    datasets::DIFF,
    embedded::EMBEDDED,
    embedded::EMPTY,
    endpoint::SOURCE,
    crate::merge::DEF,
    datasets::MERGE,
    datasets::UNION,
];

/// The built-in sinks, by name.
pub const SINKS: &[SinkDef] = &[dataset_sink::DEF, endpoint::SINK, endpoint::NULL];

/// The built-in transforms, by name.
pub const TRANSFORMS: &[TransformDef] = &[dtl::DEF, emit_children::DEF];
