//! The `rest` source: entities from the answers of an operation.

use std::sync::Arc;

use minijinja::Value as Seen;
use tahini_entity::{Batch, Dict, Value};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::{From, Source, Step};
use tahini_hub::{Ctx, Failure};

use super::call::{Caller, Content};
use super::operation::{Operation, SinceLocation};
use super::pages::{Page, Pages};
use super::values::seen;
use super::{entity_of, offset_of, rows};
use crate::http::read_refused;

/// The row of the `rest` source.
pub const SOURCE: SourceDef = SourceDef {
    name: "rest",
    summary: "Entities from the answers of an operation of a rest system, page by page.",
    properties: &[
        rows::SYSTEM,
        rows::OPERATION,
        rows::OPERATIONS,
        rows::PROPERTIES,
        rows::PAYLOAD,
        rows::PAYLOAD_PROPERTY,
        rows::RESPONSE_PROPERTY,
        rows::RESPONSE_HEADERS_PROPERTY,
        rows::RESPONSE_STATUS_PROPERTY,
        rows::RESPONSE_INCLUDE_CONTENT_TYPE,
        rows::ID_EXPRESSION,
        rows::UPDATED_EXPRESSION,
        Property::new(
            "supports_since",
            Kind::Boolean,
            "Whether the server can be asked for what changed since an offset.",
        )
        .or("false"),
        Property::new(
            "is_since_comparable",
            Kind::Boolean,
            "Whether the order of two values of _updated can be told by comparing them.",
        )
        .or("true"),
        Property::new(
            "is_chronological",
            Kind::Boolean,
            "Whether entities come in the order of _updated.",
        )
        .or("false"),
        rows::SINCE_PROPERTY_NAME,
        rows::SINCE_PROPERTY_LOCATION,
        Property::new(
            "initial_since_value",
            Kind::StringOrInteger,
            "The offset of the first run, and after a reset.",
        ),
        rows::RATE_LIMITING_RETRIES,
        rows::RATE_LIMITING_DELAY,
        Property::new(
            "if_source_empty",
            Kind::Enum(&["fail", "accept"]),
            "Whether a run that reads everything and finds nothing fails, so that nothing is \
             deleted.",
        )
        .or("\"accept\""),
        rows::TRACE,
    ],
    continuation: ContinuationDef {
        supports_since: false,
        is_since_comparable: true,
        is_chronological: false,
        configurable: true,
    },
    open: |ctx, from| Ok(Box::new(RestSource::open(ctx, from)?)),
};

/// An open source; it asks when the first entity is wanted.
struct RestSource {
    pipe: String,
    caller: Caller,
    operation: Arc<Operation>,
    pages: Pages,
    /// Whether `updated_expression` counts.
    supports_since: bool,
    include_content_type: bool,
    page: Option<Reading>,
}

/// A page in the middle of being handed out.
struct Reading {
    page: Page,
    elements: Vec<Value>,
    at: usize,
}

impl RestSource {
    fn open(ctx: &Ctx<'_>, from: From) -> Result<RestSource, Failure> {
        let props = ctx.props;
        let caller = Caller::of(ctx, false)?;
        let operation = caller.operation(props.str("operation")?)?;
        let supports_since = props.bool("supports_since", false)?;
        let mut made = caller.made(&operation, None);
        if supports_since {
            let since = from.since.as_ref();
            let value = since.map_or(Value::Null, |since| match since {
                tahini_entity::Offset::Int(number) => Value::Int(*number),
                tahini_entity::Offset::Text(text) => Value::String(text.clone()),
            });
            made.scope.set("since", seen(&value));
            // A template that asks for the offset itself leaves nothing to add.
            let by_hand = operation.url.uses("since") || operation.url.uses(&operation.since_name);
            let location = match by_hand {
                true => SinceLocation::Manual,
                false => operation.since_location,
            };
            made.since = since.map(|since| (location, since.to_string()));
        } else {
            made.scope.set("since", Seen::from(()));
        }
        Ok(RestSource {
            pipe: ctx.owner.to_owned(),
            pages: Pages::reading_ahead(made),
            caller,
            operation,
            supports_since,
            include_content_type: props.bool("response_include_content_type", false)?,
            page: None,
        })
    }

    fn read(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let rows = out.len();
        loop {
            let Some(mut reading) = self.page.take() else {
                match self.pages.next(&self.caller, &self.operation)? {
                    None => return Ok(Step::End),
                    Some(page) => self.page = Some(self.begin(page)),
                }
                continue;
            };
            while reading.at < reading.elements.len() {
                if out.len() - rows >= limit {
                    self.page = Some(reading);
                    return Ok(Step::More);
                }
                let element = std::mem::take(&mut reading.elements[reading.at]);
                reading.at += 1;
                self.push(&reading.page, element, out)?;
            }
        }
    }

    /// The elements of a page.
    fn begin(&self, page: Page) -> Reading {
        let elements = match &page.answer.content {
            Content::Json(_) => {
                let property = self.operation.payload_property.as_deref();
                page.answer.elements(property)
            }
            Content::Other(value) => vec![value.clone()],
            // Whoever wants an answer's headers or status gets them also without a body.
            Content::Nothing if self.wants_nothing() => vec![Value::Null],
            Content::Nothing => Vec::new(),
        };
        Reading {
            page,
            elements,
            at: 0,
        }
    }

    fn wants_nothing(&self) -> bool {
        let operation = &self.operation;
        operation.response_property.is_some()
            || operation.response_headers_property.is_some()
            || operation.response_status_property.is_some()
    }

    fn push(&self, page: &Page, element: Value, out: &mut Batch) -> Result<(), Failure> {
        let operation = &self.operation;
        let mut dict = match element {
            Value::Dict(dict) => dict,
            other => {
                let mut dict = Dict::new();
                dict.push_new(operation.response(), other);
                dict
            }
        };
        let wrong = |failure: Failure| failure.context(&page.answer.what);
        let said = page
            .say(operation, &dict, self.supports_since)
            .map_err(wrong)?;
        page.note(operation, self.include_content_type, &mut dict);
        let mut entity = entity_of(&dict);
        if let Some(id) = said.id {
            entity.id = Some(id.as_str().into());
        }
        if let Some(updated) = said.updated {
            entity.updated = Some(offset_of(&updated));
        }
        out.push_entity(&entity)
            .map_err(|error| wrong(Failure::entity(error.to_string())))
    }
}

impl Source for RestSource {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let rows = out.len();
        self.read(limit, out).map_err(|failure| {
            out.truncate(rows);
            read_refused(failure).context(format_args!("pipe {:?}", self.pipe))
        })
    }
}
