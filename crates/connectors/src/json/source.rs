//! The `json` source: entities from a server that speaks the JSON pull protocol.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_entity::{Batch, Offset};
use tahini_hub::config::{Kind, Property};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::{From, Source, Step};
use tahini_hub::{Cancel, Class, Ctx, Failure};

use super::upstream::Upstream;
use crate::http::{Ask, Body, HttpSystem, Response, failure_of, headers, positive};

/// Encoded bytes after which a step is over even if fewer entities came than it may take.
const STEP_BYTES: usize = 16 * 1024 * 1024;

/// The row of the `json` source.
pub const PULL: SourceDef = SourceDef {
    name: "json",
    summary: "Entities from a URL that answers with a JSON array, as the JSON pull protocol says.",
    properties: &[
        Property::required(
            "system",
            Kind::System,
            "The url or microservice system to ask.",
        ),
        Property::required(
            "url",
            Kind::String,
            "Where the entities are, relative to the system's base or absolute.",
        ),
        Property::new(
            "supports_since",
            Kind::Boolean,
            "Whether the server understands the parameter since.",
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
        Property::new(
            "supports_signalling",
            Kind::Boolean,
            "Whether changes of the dataset behind the URL start the pipe, when it is ours.",
        )
        .or("false"),
        Property::new(
            "page_size",
            Kind::Integer(1),
            "How many entities to ask for at once; all in one request by default. Needs \
             supports_since, is_since_comparable and is_chronological.",
        ),
        Property::new(
            "subset",
            Kind::List,
            "An eq expression; only entities of that subset are asked for. The server must have it.",
        ),
        Property::new(
            "headers",
            Kind::Object,
            "Headers of the requests, name to text.",
        ),
        Property::new(
            "if_source_empty",
            Kind::Enum(&["fail", "accept"]),
            "Whether a run that reads everything and finds nothing fails, so that nothing is \
             deleted. Incremental runs may always find nothing.",
        )
        .or("\"accept\""),
    ],
    continuation: ContinuationDef {
        supports_since: false,
        is_since_comparable: true,
        is_chronological: false,
        configurable: true,
    },
    open: |ctx, from| Ok(Box::new(JsonSource::open(ctx, from)?)),
};

/// An open source; it asks when the first entity is wanted.
struct JsonSource {
    pipe: String,
    system: HttpSystem,
    url: String,
    headers: HeaderMap,
    subset: Option<String>,
    page_size: Option<usize>,
    /// Where the next request goes on.
    since: Option<Offset>,
    supports_since: bool,
    cancel: Cancel,
    parser: Parser,
    page: Option<Page>,
    /// What the first answer said of the dataset behind it.
    upstream: Upstream,
    /// Entities of all pages so far.
    found: usize,
    ended: bool,
}

/// An answer in the middle of being read.
struct Page {
    /// The request, as messages name it.
    request: String,
    elements: Elements<Body>,
    found: usize,
    last: Option<Offset>,
}

impl JsonSource {
    fn open(ctx: &Ctx<'_>, from: From) -> Result<JsonSource, Failure> {
        let props = ctx.props;
        let system = HttpSystem::of(ctx)?;
        let supports_since = props.bool("supports_since", false)?;
        let comparable = props.bool("is_since_comparable", true)?;
        let chronological = props.bool("is_chronological", false)?;
        let page_size = positive(props, "page_size")?;
        if page_size.is_some() && !(supports_since && comparable && chronological) {
            return Err(Failure::config(format!(
                "{}.page_size: expected supports_since, is_since_comparable and \
                 is_chronological all true beside it, found {supports_since}, {comparable} \
                 and {chronological}",
                props.path()
            )));
        }
        Ok(JsonSource {
            pipe: ctx.owner.to_owned(),
            url: props.str("url")?.to_owned(),
            headers: headers(props)?,
            subset: props.get("subset").map(ToString::to_string),
            page_size,
            since: from.since,
            supports_since,
            system,
            cancel: ctx.cancel.clone(),
            parser: Parser::new(Numbers::FLOATS),
            page: None,
            upstream: Upstream::default(),
            found: 0,
            ended: false,
        })
    }

    /// Reads until `limit` entities were appended, the step's bytes are used up, or the end.
    fn read(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let (rows, bytes) = (out.len(), out.bytes());
        while !self.ended {
            if out.len() - rows >= limit || out.bytes() - bytes >= STEP_BYTES {
                return Ok(Step::More);
            }
            let mut page = match self.page.take() {
                Some(page) => page,
                None => self.next_page()?,
            };
            let start = out.len();
            let mut whole = false;
            while !whole && out.len() - rows < limit && out.bytes() - bytes < STEP_BYTES {
                match page.elements.next_element() {
                    Ok(Some(element)) => self
                        .parser
                        .push_json(out, element)
                        .map_err(|error| page.wrong(Failure::entity(error.to_string())))?,
                    Ok(None) => whole = true,
                    Err(ReadError::Io(error)) => return Err(failure_of(&error)),
                    Err(ReadError::Split(error)) => {
                        let failure = Failure::transient(error.to_string());
                        return Err(page.wrong(Failure {
                            reached: true,
                            ..failure
                        }));
                    }
                }
            }
            if out.len() > start {
                page.found += out.len() - start;
                page.last.clone_from(&out.get(out.len() - 1).meta.updated);
            }
            if whole {
                self.turn(page)?;
            } else {
                self.page = Some(page);
            }
        }
        Ok(Step::End)
    }

    /// Goes on behind a page that was read to its end, or ends.
    fn turn(&mut self, page: Page) -> Result<(), Failure> {
        self.found += page.found;
        let Some(page_size) = self.page_size.filter(|_| page.found > 0) else {
            self.ended = true;
            return Ok(());
        };
        let Some(last) = &page.last else {
            return Err(page.wrong(Failure::entity(
                "expected _updated on the last entity of a page, found none; without page_size \
                 it is not needed",
            )));
        };
        if self.since.as_ref() != Some(last) {
            self.since = Some(last.clone());
            return Ok(());
        }
        // A server that answers with `since` itself included repeats its last entities for ever.
        if page.found < page_size {
            self.ended = true;
            return Ok(());
        }
        Err(page.wrong(Failure::fatal(format!(
            "expected a page to end behind the _updated {last} that it was asked for, found \
             {} entities of that same value; a larger page_size reads past them",
            page.found
        ))))
    }

    /// Asks for the next page.
    fn next_page(&mut self) -> Result<Page, Failure> {
        let response = self.ask().map_err(refused)?;
        let upstream = Upstream::of(&response.headers);
        tracing::debug!(request = response.body.request(), ?upstream, "reading");
        if self.found == 0 {
            self.upstream = upstream;
        }
        Ok(Page::of(response))
    }

    fn ask(&self) -> Result<Response, Failure> {
        let mut parameters = Vec::new();
        if self.supports_since
            && let Some(since) = &self.since
        {
            parameters.push(("since", since.to_string()));
        }
        if let Some(page_size) = self.page_size {
            parameters.push(("limit", page_size.to_string()));
        }
        if let Some(subset) = &self.subset {
            parameters.push(("subset", subset.clone()));
        }
        let (url, headers) = (self.url.as_str(), &self.headers);
        let ask = Ask {
            method: Method::GET,
            url,
            parameters,
            headers,
            body: Bytes::new(),
        };
        self.system.ask(ask, &self.cancel)
    }
}

/// Whatever the status, the pump may read again: `max_read_retries` is for every read error.
fn refused(mut failure: Failure) -> Failure {
    if failure.class == Class::Entity {
        failure.class = Class::Transient;
    }
    failure
}

impl Page {
    fn of(response: Response) -> Page {
        Page {
            request: response.body.request().to_owned(),
            elements: Elements::new(response.body, Layout::Array),
            found: 0,
            last: None,
        }
    }

    fn wrong(&self, failure: Failure) -> Failure {
        failure.context(&self.request)
    }
}

impl Source for JsonSource {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let rows = out.len();
        self.read(limit, out).map_err(|failure| {
            out.truncate(rows);
            failure.context(format_args!("pipe {:?}", self.pipe))
        })
    }

    fn populated(&self) -> bool {
        // Servers that say nothing have no such notion.
        self.upstream.populated != Some(false)
    }
}
