//! The `rest` transform: an operation for every entity, and what its answer makes of the entity.

use tahini_entity::{Batch, Dict, Entity, Record, Value};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::TransformDef;
use tahini_hub::{Class, Ctx, Failure, Transform};

use super::call::{Caller, Content};
use super::operation::Operation;
use super::pages::{Page, Pages};
use super::{entity_of, rows};
use crate::http::trigger::{self, Trigger, passes};

/// The row of the `rest` transform.
pub const TRANSFORM: TransformDef = TransformDef {
    name: "rest",
    summary: "Performs an operation of a rest system for every entity and adds its answer.",
    properties: &[
        rows::SYSTEM,
        rows::DEFAULT_OPERATION,
        rows::OPERATIONS,
        rows::PROPERTIES,
        rows::PAYLOAD,
        Property::new(
            "side_effects",
            Kind::Boolean,
            "Whether the request changes something at the other end; previews then leave it out.",
        )
        .or("true"),
        Property::new(
            "trigger_on",
            Kind::Nested(trigger::PROPERTIES),
            "Which entities the operation is for; the others pass as they are.",
        ),
        Property::new(
            "replace_entity",
            Kind::Boolean,
            "Whether the JSON of an answer takes the entity's place, instead of a property in it.",
        )
        .or("false"),
        rows::RESPONSE_PROPERTY,
        rows::RESPONSE_HEADERS_PROPERTY,
        rows::RESPONSE_STATUS_PROPERTY,
        rows::RESPONSE_INCLUDE_CONTENT_TYPE,
        rows::PAYLOAD_PROPERTY,
        rows::ID_EXPRESSION,
        rows::UPDATED_EXPRESSION,
        rows::ALLOWED_STATUS_CODES,
        rows::IGNORED_STATUS_CODES,
        Property::new(
            "if_transform_empty",
            Kind::Enum(&["fail", "accept"]),
            "Whether a run fails in which the transform was given entities and gave none.",
        )
        .or("\"accept\""),
        rows::RATE_LIMITING_RETRIES,
        rows::RATE_LIMITING_DELAY,
        rows::TRACE,
    ],
    stands_for: None,
    open: |ctx| Ok(Box::new(RestTransform::open(ctx)?)),
};

/// An open transform.
struct RestTransform {
    pipe: String,
    caller: Caller,
    trigger: Option<Trigger>,
    replace: bool,
    include_content_type: bool,
    fail_if_empty: bool,
    taken: u64,
    given: u64,
}

impl RestTransform {
    fn open(ctx: &Ctx<'_>) -> Result<RestTransform, Failure> {
        let props = ctx.props;
        Ok(RestTransform {
            pipe: ctx.owner.to_owned(),
            caller: Caller::of(ctx, true)?,
            trigger: Trigger::of(props)?,
            replace: props.bool("replace_entity", false)?,
            include_content_type: props.bool("response_include_content_type", false)?,
            fail_if_empty: props.opt_str("if_transform_empty")? == Some("fail"),
            taken: 0,
            given: 0,
        })
    }

    /// What becomes of one entity.
    fn one(&self, record: Record<'_>, out: &mut Batch) -> Result<(), Failure> {
        let source = record.to_entity();
        let dict = source.to_dict();
        let operation = self.caller.operation_of(&dict)?;
        let mut made = self.caller.made(&operation, Some(&dict));
        let seen = super::values::seen(&Value::Dict(dict.clone()));
        made.scope.set("source_entity", seen);
        let mut pages = Pages::new(made);
        let mut gathered: Vec<Page> = Vec::new();
        while let Some(page) = pages.next(&self.caller, &operation)? {
            if page.ignored {
                return Ok(());
            }
            gathered.push(page);
        }
        match self.replace {
            true => self.replaced(&operation, &source, &gathered, out),
            false => self.kept(&operation, source, &gathered, out),
        }
    }

    /// The answers' own entities take the entity's place.
    fn replaced(
        &self,
        operation: &Operation,
        source: &Entity,
        pages: &[Page],
        out: &mut Batch,
    ) -> Result<(), Failure> {
        for page in pages {
            let elements = match &page.answer.content {
                Content::Json(_) => page.answer.elements(operation.payload_property.as_deref()),
                Content::Nothing => Vec::new(),
                Content::Other(value) => {
                    let mut dict = Dict::new();
                    if let Some(id) = &source.id {
                        dict.push_new("_id", Value::String(id.clone()));
                    }
                    dict.push_new(operation.response(), value.clone());
                    if self.include_content_type {
                        dict.set("content-type", page.content_type());
                    }
                    vec![Value::Dict(dict)]
                }
            };
            for element in elements {
                let Value::Dict(dict) = &element else {
                    let words = format!(
                        "{}: expected entities in place of the one that was sent \
                         (replace_entity), found a {}",
                        page.answer.what,
                        element.kind()
                    );
                    return Err(Failure::entity(words));
                };
                push(out, &entity_of(dict))?;
            }
        }
        Ok(())
    }

    /// The entity itself, with what the answers say.
    fn kept(
        &self,
        operation: &Operation,
        mut entity: Entity,
        pages: &[Page],
        out: &mut Batch,
    ) -> Result<(), Failure> {
        let mut said = Value::Null;
        for page in pages {
            let more = match &page.answer.content {
                Content::Json(_) => self.result(operation, page)?,
                Content::Other(value) => value.clone(),
                Content::Nothing => Value::Null,
            };
            said = joined(said, more, operation.is_paged());
        }
        let properties = &mut entity.properties;
        properties.set(operation.response(), said);
        if let Some(page) = pages.last() {
            page.note(operation, self.include_content_type, properties);
        }
        entity.updated = None;
        push(out, &entity)
    }

    /// What a JSON answer says, its elements with the `_id` and `_updated` of the expressions.
    fn result(&self, operation: &Operation, page: &Page) -> Result<Value, Failure> {
        // A status that is only passed on may come with an answer of another form.
        let property = operation.payload_property.as_deref();
        let found = match page.answer.result(property) {
            None if !(200..300).contains(&page.answer.status) => page.answer.result(None),
            found => found,
        };
        let complete = |element: &Value| -> Result<Value, Failure> {
            let Value::Dict(dict) = element else {
                return Ok(element.clone());
            };
            let said = page
                .say(operation, dict, true)
                .map_err(|failure| failure.context(&page.answer.what))?;
            let mut dict = dict.clone();
            for (name, text) in [("_id", said.id), ("_updated", said.updated)] {
                if let Some(text) = text {
                    dict.set(name, Value::string(text));
                }
            }
            Ok(Value::Dict(dict))
        };
        match found {
            None => Ok(Value::Null),
            Some(Value::List(items)) => {
                let items: Result<Vec<Value>, Failure> = items.iter().map(complete).collect();
                Ok(Value::List(items?.into_iter().collect()))
            }
            Some(one) => complete(one),
        }
    }
}

fn push(out: &mut Batch, entity: &Entity) -> Result<(), Failure> {
    out.push_entity(entity)
        .map_err(|error| Failure::entity(error.to_string()))
}

/// What the pages say together: their lists one after another.
fn joined(first: Value, more: Value, paged: bool) -> Value {
    match (first, more) {
        (Value::Null, more) => more,
        (first, Value::Null) => first,
        (_, more) if !paged => more,
        (first, more) => {
            let list = |value: Value| match value {
                Value::List(items) => items.into_iter().collect(),
                other => vec![other],
            };
            let mut items = list(first);
            items.extend(list(more));
            Value::List(items.into_iter().collect())
        }
    }
}

impl Transform for RestTransform {
    /// Performs the operation for one entity after the other. What an answer holds comes from the
    /// entity that asked.
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let (rows, known) = (out.len(), origins.len());
        for (position, record) in (0u32..).zip(input.iter()) {
            let before = out.len();
            if passes(self.trigger.as_ref(), record) {
                out.push(record);
            } else if let Err(mut failure) = self.one(record, out) {
                out.truncate(rows);
                origins.truncate(known);
                if failure.status.is_some() {
                    // The entity may be at fault: the pump finds out.
                    failure.class = Class::Entity;
                }
                if failure.class == Class::Entity {
                    failure = failure.with_entity(record.to_entity());
                }
                return Err(failure.context(format_args!("pipe {:?}", self.pipe)));
            }
            origins.extend((before..out.len()).map(|_| position));
        }
        self.taken += input.len() as u64;
        self.given += (out.len() - rows) as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if !self.fail_if_empty || self.taken == 0 || self.given > 0 {
            return Ok(());
        }
        Err(Failure::transient(format!(
            "pipe {:?}: expected the rest transform to give at least one entity \
             (`if_transform_empty` is \"fail\"), found none for the {} that it was given",
            self.pipe, self.taken
        )))
    }
}
