//! The properties that components share which post to a system.

use tahini_hub::config::{Kind, Property};

/// `system`.
pub(crate) const SYSTEM: Property = Property::required(
    "system",
    Kind::System,
    "The url or microservice system to post to.",
);

/// `url`.
pub(crate) const URL: Property = Property::required(
    "url",
    Kind::String,
    "Where to post, relative to the system's base or absolute.",
);

/// `batch_size`.
pub(crate) const BATCH_SIZE: Property = Property::new(
    "batch_size",
    Kind::Integer(1),
    "The most entities in one request.",
)
.or("100");

/// `headers`.
pub(crate) const HEADERS: Property = Property::new(
    "headers",
    Kind::Object,
    "Headers of the requests, name to text.",
);

/// The most entities in one request where the configuration says nothing.
pub(crate) const ENTITIES: usize = 100;
