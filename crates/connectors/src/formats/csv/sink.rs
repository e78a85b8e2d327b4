//! The row of the `csv_endpoint` sink. Nothing is written to it: it is read.

use tahini_hub::Failure;
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::SinkDef;

use crate::formats::charset::STRATEGIES;
use crate::formats::rows::{BYTE_ORDER_MARK, CONTENT_DISPOSITION, FILENAME, SKIP_DELETED};

/// The property with the names of the columns.
pub const COLUMNS: &str = "columns";

/// The row of the `csv_endpoint` sink.
pub const SINK: SinkDef = SinkDef {
    name: "csv_endpoint",
    summary: "Publishes entities as CSV at `/api/publishers/<pipe>/csv`, and as a workbook at \
              `/api/publishers/<pipe>/excel`.",
    properties: &[
        Property::required(
            COLUMNS,
            Kind::Strings,
            "The properties that become columns, in order; those with `_` in front, too.",
        ),
        Property::new(
            "quoting",
            Kind::Enum(&["all", "minimal", "non-numeric", "none"]),
            "Which fields stand in quotes; `minimal` are those that must.",
        )
        .or("\"minimal\""),
        Property::new(
            "delimiter",
            Kind::String,
            "The character between two fields.",
        )
        .or("\",\""),
        Property::new(
            "doublequote",
            Kind::Boolean,
            "Whether a quote inside of a field is doubled; else `escapechar` stands before it.",
        )
        .or("true"),
        Property::new(
            "include_header",
            Kind::Boolean,
            "Whether the first row holds the names of the columns.",
        )
        .or("true"),
        Property::new(
            "escapechar",
            Kind::String,
            "The character before what needs escaping; `\\` where `doublequote` is false.",
        ),
        Property::new("lineterminator", Kind::String, "What ends a row.").or("\"\\r\\n\""),
        Property::new("quotechar", Kind::String, "The character of quotes.").or("\"\\\"\""),
        Property::new(
            "encoding",
            Kind::String,
            "How text stands in bytes, by the names that Python knows.",
        )
        .or("\"utf-8\""),
        Property::new(
            "encode_error_strategy",
            Kind::Enum(STRATEGIES),
            "What stands for a character that the encoding lacks.",
        )
        .or("\"backslashreplace\""),
        SKIP_DELETED,
        BYTE_ORDER_MARK,
        FILENAME,
        CONTENT_DISPOSITION,
    ],
    open: |ctx| {
        Err(Failure::config(format!(
            "pipe {:?} is read at /api/publishers/{}/csv and has no pump to run",
            ctx.owner, ctx.owner
        )))
    },
};
