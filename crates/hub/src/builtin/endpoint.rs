//! `http_endpoint` as source and sink, and the `null` sink.
//!
//! A pipe whose source is an endpoint moves entities only when they are posted to it (see
//! `receiver`), and one whose sink is an endpoint only when they are asked for (see `stage`).
//! Their pumps never run.

use tahini_entity::Batch;

use super::NO_SINCE;
use crate::config::{Kind, Property};
use crate::registry::{SinkDef, SourceDef};
use crate::sink::{End, Progress, Run, Written};
use crate::{Failure, Sink};

pub(super) const SOURCE: SourceDef = SourceDef {
    name: "http_endpoint",
    summary: "Takes entities that are posted to `/api/receivers/<pipe>/entities`.",
    properties: &[
        Property::new(
            "auto_populate_dataset",
            Kind::Boolean,
            "The sink's dataset counts as populated from the start.",
        )
        .or("true"),
        Property::new(
            "do_float_as_decimal",
            Kind::Boolean,
            "Numbers with a decimal point become decimals, not floats.",
        )
        .or("true"),
        Property::new(
            "do_float_as_int",
            Kind::Boolean,
            "Numbers whose decimals are all zero become integers.",
        )
        .or("true"),
        Property::new(
            "receiver_sync_ms",
            Kind::Integer(0),
            "How much later than the answer what was posted is on the disk at the latest; with 0, \
             or `metadata.durable` on the pipe, the answer waits for it.",
        )
        .or("100"),
        Property::new(
            "anonymous_body_maxsize",
            Kind::Integer(1),
            "The most bytes that somebody may post without a token, at most 1048576; it does not \
             count for those who showed a secret in the headers or parameters.",
        )
        .or("65536"),
        Property::new(
            "trace",
            Kind::Any,
            "Whether the execution log tells of every request that was let in, without secrets: \
             true, or an object of log_request_headers, log_request_body_maxsize, \
             log_response_headers, log_response_body_maxsize and log_secret_redacted_bytes.",
        )
        .or("false"),
        Property::new(
            "validation_expression",
            Kind::Template,
            "A Jinja template that judges each request by `url`, `request_params`, \
             `request_headers`, `request_body` and `secret('name')`: what it says is the reason \
             to refuse it, and nothing takes it.",
        ),
        Property::new(
            "system",
            Kind::String,
            "The system whose secrets the expression may use beside the global ones.",
        ),
    ],
    continuation: NO_SINCE,
    open: |ctx, _| {
        Err(Failure::config(format!(
            "pipe {:?} takes posts to /api/receivers/{}/entities and has no pump to run",
            ctx.owner, ctx.owner
        )))
    },
};

pub(super) const SINK: SinkDef = SinkDef {
    name: "http_endpoint",
    summary: "Publishes entities at `/api/publishers/<pipe>/entities`.",
    properties: &[
        Property::new(
            "filename",
            Kind::String,
            "The file name that the answer suggests; the one in the request's path goes before it.",
        ),
        Property::new(
            "content_disposition",
            Kind::Enum(&["attachment", "inline"]),
            "How a browser shows an answer with a file name.",
        )
        .or("\"attachment\""),
    ],
    open: |ctx| {
        Err(Failure::config(format!(
            "pipe {:?} is read at /api/publishers/{}/entities and has no pump to run",
            ctx.owner, ctx.owner
        )))
    },
};

pub(super) const NULL: SinkDef = SinkDef {
    name: "null",
    summary: "Throws every entity away.",
    properties: &[],
    open: |_| Ok(Box::new(Null)),
};

struct Null;

impl Sink for Null {
    fn begin(&mut self, _run: &Run) -> Result<(), Failure> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch, _: Option<&Progress>) -> Result<Written, Failure> {
        Ok(Written {
            changed: batch.len() as u64,
            ..Written::default()
        })
    }

    fn finish(&mut self, _end: &End) -> Result<Written, Failure> {
        Ok(Written::default())
    }

    fn abort(&mut self, _why: &Failure) {}
}
