//! The row of the `xml_endpoint` sink. Nothing is written to it: it is read.

use tahini_hub::Failure;
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::SinkDef;

use crate::formats::rows::{BYTE_ORDER_MARK, CONTENT_DISPOSITION, FILENAME, SKIP_DELETED};

/// `wrapper`.
pub(super) const WRAPPER: Property = Property::new(
    "wrapper",
    Kind::String,
    "The name of an element around all others.",
);

/// `root-attributes`.
pub(super) const ROOT_ATTRIBUTES: Property = Property::new(
    "root-attributes",
    Kind::Object,
    "Attributes of the outermost element, namespaces too: the wrapper's, or else every entity's.",
);

/// `include-xml-decl`.
pub(super) const DECLARATION: Property = Property::new(
    "include-xml-decl",
    Kind::Boolean,
    "Whether an XML declaration stands in front.",
)
.or("false");

/// The row of the `xml_endpoint` sink.
pub const SINK: SinkDef = SinkDef {
    name: "xml_endpoint",
    summary: "Publishes entities of the shape that the manual describes as XML at \
              `/api/publishers/<pipe>/xml`.",
    properties: &[
        WRAPPER,
        ROOT_ATTRIBUTES,
        DECLARATION,
        SKIP_DELETED,
        BYTE_ORDER_MARK,
        FILENAME,
        CONTENT_DISPOSITION,
    ],
    open: |ctx| {
        Err(Failure::config(format!(
            "pipe {:?} is read at /api/publishers/{}/xml and has no pump to run",
            ctx.owner, ctx.owner
        )))
    },
};
