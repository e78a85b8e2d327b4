//! The `json` sink: entities to a server that speaks the JSON push protocol.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tahini_entity::Batch;
use tahini_entity::json::{Fields, write_record};
use tahini_hub::registry::SinkDef;
use tahini_hub::sink::{End, Progress, Run, RunKind, Sink, Written};
use tahini_hub::{Cancel, Class, Ctx, Failure};

use super::push::Chain;
use crate::http::{Ask, HttpSystem, headers, positive, rows};

/// The status with which a receiver ends a sequence.
const CONFLICT: u16 = 409;
/// How much of an answer is read, so that its connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// The row of the `json` sink.
pub const PUSH: SinkDef = SinkDef {
    name: "json",
    summary: "Posts batches of entities to a URL, as the JSON push protocol says.",
    properties: &[rows::SYSTEM, rows::URL, rows::BATCH_SIZE, rows::HEADERS],
    open: |ctx| Ok(Box::new(JsonSink::open(ctx)?)),
};

/// An open sink; a write is one request, or several when it has more than `batch_size` entities.
struct JsonSink {
    system: HttpSystem,
    url: String,
    headers: HeaderMap,
    cancel: Cancel,
    batch_size: usize,
    chain: Chain,
    /// Of a write that failed half-way: what it was, and how many entities were accepted.
    half: Option<(u128, usize)>,
    /// Entities that did not get through in this run.
    unsent: usize,
}

impl JsonSink {
    fn open(ctx: &Ctx<'_>) -> Result<JsonSink, Failure> {
        let system = HttpSystem::of(ctx)?;
        Ok(JsonSink {
            url: ctx.props.str("url")?.to_owned(),
            headers: headers(ctx.props)?,
            system,
            cancel: ctx.cancel.clone(),
            batch_size: positive(ctx.props, "batch_size")?.unwrap_or(rows::ENTITIES),
            chain: Chain::default(),
            half: None,
            unsent: 0,
        })
    }

    fn post(&mut self, batch: &Batch, last: bool) -> Result<(), Failure> {
        let content = fingerprint(batch);
        let id = self.chain.request_id(content);
        let ask = Ask {
            method: Method::POST,
            url: &self.url,
            parameters: self.chain.parameters(&id, last),
            headers: &self.headers,
            body: array(batch),
        };
        match self.system.ask(ask, &self.cancel) {
            Ok(mut response) => {
                // The status has accepted the batch; what the answer says beside it changes nothing.
                let _ = response.body.read_up_to(ANSWER_BYTES);
                self.chain.accept(id);
                Ok(())
            }
            Err(failure) => {
                self.chain.fail(id, content);
                Err(refused(failure))
            }
        }
    }
}

/// What a status means for a write: 409 ends the run, any other may be one entity's fault.
fn refused(mut failure: Failure) -> Failure {
    match failure.status {
        Some(CONFLICT) => {
            failure.class = Class::Fatal;
            failure.message.push_str(
                ": the receiver is not where this sequence is; a full run starts a new one from \
                 the beginning",
            );
        }
        Some(_) => failure.class = Class::Entity,
        None => {}
    }
    failure
}

/// The entities as a JSON array with their reserved fields.
pub(crate) fn array(batch: &Batch) -> Bytes {
    let mut text = vec![b'['];
    for (at, record) in batch.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write_record(record, Fields::ALL, &mut text);
    }
    text.push(b']');
    Bytes::from(text)
}

/// Tells batches apart: the hashes of their entities, which cover id, deletion and content.
pub(crate) fn fingerprint(batch: &Batch) -> u128 {
    batch.iter().fold(batch.len() as u128, |sum, record| {
        sum.rotate_left(5)
            .wrapping_mul(31)
            .wrapping_add(record.hash())
    })
}

impl Sink for JsonSink {
    fn begin(&mut self, run: &Run) -> Result<(), Failure> {
        // Half a full sequence under a new id would look like a whole one to the receiver, which
        // would then delete the other half. So what is left of an interrupted run goes as changes.
        let full = run.kind.reads_everything() && !run.resumed;
        self.chain = Chain::new(uuid::Uuid::new_v4().to_string(), full);
        self.half = None;
        self.unsent = 0;
        Ok(())
    }

    fn write(&mut self, batch: &Batch, _: Option<&Progress>) -> Result<Written, Failure> {
        let content = fingerprint(batch);
        // Of a write that is repeated, what the receiver has already is not sent again.
        let mut sent = match self.half.take() {
            Some((same, sent)) if same == content => sent,
            _ => 0,
        };
        while sent < batch.len() {
            let mut part = Batch::new();
            for record in batch.iter().skip(sent).take(self.batch_size) {
                part.push(record);
            }
            if let Err(failure) = self.post(&part, false) {
                self.half = Some((content, sent));
                return Err(failure);
            }
            sent += part.len();
        }
        let deleted = batch.iter().filter(|record| record.meta.deleted).count();
        Ok(Written {
            changed: batch.len() as u64,
            deleted: deleted as u64,
            unchanged: 0,
            ..Written::default()
        })
    }

    fn finish(&mut self, end: &End) -> Result<Written, Failure> {
        // Entities that were set aside must not look deleted: without `is_last` the receiver takes
        // the sequence for abandoned, and the next full run starts a new one.
        let whole = self.unsent == 0 || !self.chain.is_full();
        if !whole {
            tracing::warn!(
                url = self.url,
                unsent = self.unsent,
                "entities of a full sequence did not get through: it ends without `is_last`"
            );
        }
        self.post(&Batch::new(), end.complete && whole)?;
        Ok(Written::default())
    }

    fn abort(&mut self, _: &Failure) {
        // The receiver learns nothing: a sequence without a last request deletes nothing there.
        self.chain = Chain::default();
    }

    fn takes_checkpoints(&self, kind: RunKind) -> bool {
        // A full sequence starts over after a crash, so its run must too.
        !kind.reads_everything()
    }

    fn seen(&mut self, ids: &[&str]) -> Result<(), Failure> {
        self.unsent += ids.len();
        Ok(())
    }
}
