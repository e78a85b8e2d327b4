//! The `http` transform: entities to a server and back.

use std::collections::{HashMap, HashSet};

use reqwest::Method;
use reqwest::header::HeaderMap;
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::TransformDef;
use tahini_hub::{Cancel, Class, Ctx, Failure, Transform};

use super::system::{Ask, HttpSystem, headers, positive};
use super::trigger::{self, Trigger, passes};
use super::{failure_of, rows};
use crate::json::array;

/// The most encoded bytes that one call may turn its input into.
const MAX_ANSWER_BYTES: usize = 1024 * 1024 * 1024;

/// The row of the `http` transform.
pub const HTTP: TransformDef = TransformDef {
    name: "http",
    summary: "Posts entities to a URL, which answers with the entities that they become.",
    properties: &[
        rows::SYSTEM,
        rows::URL,
        rows::BATCH_SIZE,
        rows::HEADERS,
        Property::new(
            "side_effects",
            Kind::Boolean,
            "Whether the request changes something at the other end; previews then leave it out.",
        )
        .or("true"),
        Property::new(
            "trigger_on",
            Kind::Nested(trigger::PROPERTIES),
            "Which entities to post; the others pass as they are.",
        ),
    ],
    stands_for: None,
    open: |ctx| Ok(Box::new(HttpTransform::open(ctx)?)),
};

/// An open transform.
struct HttpTransform {
    pipe: String,
    system: HttpSystem,
    url: String,
    headers: HeaderMap,
    batch_size: usize,
    trigger: Option<Trigger>,
    cancel: Cancel,
}

/// Entities on their way into one request, with their positions in the input.
#[derive(Default)]
struct Group {
    batch: Batch,
    positions: Vec<u32>,
}

impl HttpTransform {
    fn open(ctx: &Ctx<'_>) -> Result<HttpTransform, Failure> {
        let props = ctx.props;
        let system = HttpSystem::of(ctx)?;
        Ok(HttpTransform {
            pipe: ctx.owner.to_owned(),
            url: props.str("url")?.to_owned(),
            headers: headers(props)?,
            batch_size: positive(props, "batch_size")?.unwrap_or(rows::ENTITIES),
            trigger: Trigger::of(props)?,
            system,
            cancel: ctx.cancel.clone(),
        })
    }

    /// Sends the group and appends what comes back.
    fn flush(
        &self,
        group: &mut Group,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let Some(&first) = group.positions.first() else {
            return Ok(());
        };
        let ask = Ask {
            method: Method::POST,
            url: &self.url,
            parameters: Vec::new(),
            headers: &self.headers,
            body: array(&group.batch),
        };
        let response = self.system.ask(ask, &self.cancel).map_err(|mut failure| {
            if failure.status.is_some() {
                // One of the entities may be at fault: the pump finds out which.
                failure.class = Class::Entity;
            }
            failure
        })?;
        let rows = out.len();
        let request = response.body.request().to_owned();
        let mut elements = Elements::new(response.body, Layout::Array);
        let mut parser = Parser::new(Numbers::FLOATS);
        loop {
            match elements.next_element() {
                Ok(Some(element)) => parser
                    .push_json(out, element)
                    .map_err(|error| Failure::entity(error.to_string()).context(&request))?,
                Ok(None) => break,
                Err(ReadError::Io(error)) => return Err(failure_of(&error)),
                Err(ReadError::Split(error)) => {
                    let failure = Failure::transient(error.to_string()).context(&request);
                    return Err(Failure {
                        reached: true,
                        ..failure
                    });
                }
            }
            if out.bytes() > MAX_ANSWER_BYTES {
                return Err(Failure::fatal(format!(
                    "{request}: expected at most {MAX_ANSWER_BYTES} bytes of entities, found more"
                )));
            }
        }
        let by_id: HashMap<&str, u32> = group
            .batch
            .iter()
            .zip(&group.positions)
            .filter_map(|(record, position)| Some((record.id?, *position)))
            .collect();
        origins.extend((rows..out.len()).map(|at| {
            let known = out.get(at).id.and_then(|id| by_id.get(id));
            known.copied().unwrap_or(first)
        }));
        group.batch.clear();
        group.positions.clear();
        Ok(())
    }

    fn send(&self, input: &Batch, out: &mut Batch, origins: &mut Vec<u32>) -> Result<(), Failure> {
        let mut group = Group::default();
        let mut waiting: HashSet<&str> = HashSet::new();
        for (position, record) in (0u32..).zip(input.iter()) {
            if passes(self.trigger.as_ref(), record) {
                // Versions of one entity keep their order, so an earlier one goes first.
                if record.id.is_some_and(|id| waiting.contains(id)) {
                    self.flush(&mut group, out, origins)?;
                    waiting.clear();
                }
                out.push(record);
                origins.push(position);
                continue;
            }
            group.batch.push(record);
            group.positions.push(position);
            waiting.extend(record.id);
            if group.positions.len() == self.batch_size {
                self.flush(&mut group, out, origins)?;
                waiting.clear();
            }
        }
        self.flush(&mut group, out, origins)
    }
}

impl Transform for HttpTransform {
    /// Posts the entities in groups. An entity of an answer comes from the one with the same
    /// `_id`, or else from the first of its request, since answers may hold any entities.
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let (rows, known) = (out.len(), origins.len());
        self.send(input, out, origins).map_err(|failure| {
            out.truncate(rows);
            origins.truncate(known);
            failure.context(format_args!("pipe {:?}", self.pipe))
        })
    }
}
