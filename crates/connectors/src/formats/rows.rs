//! The properties that sources and publishers of files share.

use tahini_hub::config::{Kind, Property};

/// `system`.
pub(super) const SYSTEM: Property = Property::required(
    "system",
    Kind::System,
    "The url or microservice system to ask.",
);

/// `url`.
pub(super) const URL: Property = Property::required(
    "url",
    Kind::String,
    "Where the file is, relative to the system's base or absolute.",
);

/// `encoding` of a file that is read.
pub(super) const ENCODING: Property = Property::new(
    "encoding",
    Kind::String,
    "How text stands in bytes, by the names that Python knows; a byte order mark goes first.",
)
.or("\"utf-8\"");

/// `if_source_empty`.
pub(super) const IF_SOURCE_EMPTY: Property = Property::new(
    "if_source_empty",
    Kind::Enum(&["fail", "accept"]),
    "Whether a run that reads everything and finds nothing fails, so that nothing is deleted.",
)
.or("\"accept\"");

/// `skip-deleted-entities`.
pub(super) const SKIP_DELETED: Property = Property::new(
    "skip-deleted-entities",
    Kind::Boolean,
    "Whether deleted entities are left out.",
)
.or("true");

/// `byte_order_mark`.
pub(super) const BYTE_ORDER_MARK: Property = Property::new(
    "byte_order_mark",
    Kind::Boolean,
    "Whether a byte order mark stands before everything; for UTF-8 only.",
)
.or("false");

/// `filename`.
pub(super) const FILENAME: Property = Property::new(
    "filename",
    Kind::String,
    "The file name that the answer suggests; the one in the request's path goes before it.",
);

/// `content_disposition`.
pub(super) const CONTENT_DISPOSITION: Property = Property::new(
    "content_disposition",
    Kind::Enum(&["attachment", "inline"]),
    "How a browser shows an answer with a file name.",
)
.or("\"attachment\"");
