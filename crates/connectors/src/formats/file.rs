//! Files behind a URL: what the sources of them share. A file is asked for when the first entity is
//! wanted, and read piece by piece.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use tahini_entity::Batch;
use tahini_hub::source::{Source, Step};
use tahini_hub::{Cancel, Ctx, Failure};

use crate::http::{Ask, Body, HttpSystem, STEP_BYTES, read_refused};

/// How entities stand in a file.
pub(super) trait Format: Send {
    /// What is asked for (`Accept`), unless the system says so itself.
    const ACCEPT: &'static str;
    /// A file in the middle of being read.
    type Reading: Send;

    /// Begins to read a file; `None` where there is not even a beginning.
    ///
    /// # Errors
    /// Those of reading, and what makes the whole file unreadable.
    fn begin(&mut self, body: Body) -> Result<Option<Self::Reading>, Failure>;

    /// Appends the next entity; `false` behind the last one.
    ///
    /// # Errors
    /// Those of reading; entity, with the line.
    fn next(&mut self, reading: &mut Self::Reading, out: &mut Batch) -> Result<bool, Failure>;
}

/// An open source of the entities in a file.
pub(super) struct File<F: Format> {
    format: F,
    pipe: String,
    system: HttpSystem,
    url: String,
    cancel: Cancel,
    /// The request, as messages name it, and how far its answer is read.
    reading: Option<(String, F::Reading)>,
    ended: bool,
}

impl<F: Format> File<F> {
    /// The file of a pipe's properties `system` and `url`.
    ///
    /// # Errors
    /// Config, where one of them is missing or of a wrong type.
    pub(super) fn open(ctx: &Ctx<'_>, format: F) -> Result<File<F>, Failure> {
        Ok(File {
            format,
            pipe: ctx.owner.to_owned(),
            system: HttpSystem::of(ctx)?,
            url: ctx.props.str("url")?.to_owned(),
            cancel: ctx.cancel.clone(),
            reading: None,
            ended: false,
        })
    }

    fn begin(&mut self) -> Result<Option<(String, F::Reading)>, Failure> {
        let mut headers = HeaderMap::new();
        if !self.system.headers().contains_key(ACCEPT) {
            headers.insert(ACCEPT, HeaderValue::from_static(F::ACCEPT));
        }
        let ask = Ask {
            method: Method::GET,
            url: &self.url,
            parameters: Vec::new(),
            headers: &headers,
            body: Bytes::new(),
        };
        let response = self.system.ask(ask, &self.cancel).map_err(read_refused)?;
        let request = response.body.request().to_owned();
        let reading = self.format.begin(response.body);
        let reading = reading.map_err(|failure| named(failure, &request))?;
        Ok(reading.map(|reading| (request, reading)))
    }

    fn read(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        if self.ended {
            return Ok(Step::End);
        }
        let begun = match self.reading.take() {
            Some(reading) => Some(reading),
            None => self.begin()?,
        };
        let Some((request, mut reading)) = begun else {
            self.ended = true;
            return Ok(Step::End);
        };
        let (rows, bytes) = (out.len(), out.bytes());
        while out.len() - rows < limit && out.bytes() - bytes < STEP_BYTES {
            let more = self.format.next(&mut reading, out);
            if !more.map_err(|failure| named(failure, &request))? {
                self.ended = true;
                return Ok(Step::End);
            }
        }
        self.reading = Some((request, reading));
        Ok(Step::More)
    }
}

/// A failure with its request; one of the body names it already.
fn named(failure: Failure, request: &str) -> Failure {
    match failure.message.starts_with(request) {
        true => failure,
        false => failure.context(request),
    }
}

impl<F: Format> Source for File<F> {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let rows = out.len();
        self.read(limit, out).map_err(|failure| {
            out.truncate(rows);
            failure.context(format_args!("pipe {:?}", self.pipe))
        })
    }
}
