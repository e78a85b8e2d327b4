//! The `json` source: entities from a server that speaks the JSON pull protocol.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_entity::packed::{self, Blocks, PackedError};
use tahini_entity::{Batch, Offset};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::{From, Source, Step};
use tahini_hub::{Cancel, Ctx, Failure};
use tahini_store::StateWrite;

use super::upstream::{Origin, Upstream};
use crate::http::{
    Ask, Body, HttpSystem, Response, STEP_BYTES, failure_of, headers, positive, read_refused,
};

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
            "since_property_name",
            Kind::String,
            "The name of the parameter or header that the offset is sent in.",
        )
        .or("\"since\""),
        Property::new(
            "since_property_location",
            Kind::Enum(&["query", "header", "manual"]),
            "Where the offset is sent: in a parameter, in a header, or not at all.",
        )
        .or("\"query\""),
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
    open: |ctx, from| Ok(Box::new(JsonSource::open(ctx, from, Form::Json)?)),
};

/// The row of the `binary` source.
pub const BINARY: SourceDef = SourceDef {
    name: "binary",
    summary: "Entities from another Tahini node, in the encoding in which datasets hold them.",
    properties: &[
        Property::required("system", Kind::System, "The url system to ask."),
        Property::required(
            "url",
            Kind::String,
            "A dataset's or a publisher's entities there, relative to the system's base or \
             absolute.",
        ),
        Property::new(
            "supports_signalling",
            Kind::Boolean,
            "Whether changes of the dataset behind the URL start the pipe.",
        )
        .or("false")
        .not_yet(),
        Property::new(
            "page_size",
            Kind::Integer(1),
            "How many entities to ask for at once; all in one request by default.",
        ),
        Property::new(
            "subset",
            Kind::List,
            "An eq expression; only entities of that subset are asked for. The other node must \
             have its index.",
        ),
        Property::new(
            "if_source_empty",
            Kind::Enum(&["fail", "accept"]),
            "Whether a run that reads everything and finds nothing fails, so that nothing is \
             deleted.",
        )
        .or("\"accept\""),
    ],
    continuation: ContinuationDef {
        supports_since: true,
        is_since_comparable: true,
        is_chronological: true,
        configurable: false,
    },
    open: |ctx, from| Ok(Box::new(JsonSource::open(ctx, from, Form::Packed)?)),
};

/// What answers are made of.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Packed,
}

/// An open source; it asks when the first entity is wanted.
struct JsonSource {
    form: Form,
    pipe: String,
    system: HttpSystem,
    url: String,
    headers: HeaderMap,
    subset: Option<String>,
    page_size: Option<usize>,
    /// Where the next request goes on.
    since: Option<Offset>,
    carrier: Carrier,
    cancel: Cancel,
    parser: Parser,
    page: Option<Page>,
    /// What the first answer said of the dataset behind it.
    upstream: Option<Upstream>,
    /// The dataset that the offset belongs to.
    origin: Option<Origin>,
    /// Whether the offset still means something there.
    continues: bool,
    /// Entities of all pages so far.
    found: usize,
    ended: bool,
}

/// How requests carry the offset.
enum Carrier {
    Parameter(String),
    Header(HeaderName),
    Nothing,
}

impl Carrier {
    fn of(props: Props<'_>, supports_since: bool) -> Result<Carrier, Failure> {
        let name = props.opt_str("since_property_name")?.unwrap_or("since");
        match props.opt_str("since_property_location")? {
            _ if !supports_since => Ok(Carrier::Nothing),
            Some("manual") => Ok(Carrier::Nothing),
            Some("header") => HeaderName::try_from(name)
                .map(Carrier::Header)
                .map_err(|_| {
                    Failure::config(format!(
                        "{}.since_property_name: expected the name of a header, found {name:?}",
                        props.path()
                    ))
                }),
            _ => Ok(Carrier::Parameter(name.to_owned())),
        }
    }
}

/// An answer in the middle of being read.
struct Page {
    /// The request, as messages name it.
    request: String,
    entities: Entities,
    found: usize,
    last: Option<Offset>,
}

/// The entities of an answer that were not read yet.
enum Entities {
    Json(Box<Elements<Body>>),
    Packed(Box<Packed>),
}

/// Blocks, and what the last one held, as far as it was taken.
struct Packed {
    blocks: Blocks<Body>,
    block: Batch,
    at: usize,
}

impl JsonSource {
    fn open(ctx: &Ctx<'_>, from: From, form: Form) -> Result<JsonSource, Failure> {
        let props = ctx.props;
        let system = HttpSystem::of(ctx)?;
        let packed = form == Form::Packed;
        let supports_since = packed || props.bool("supports_since", false)?;
        let comparable = packed || props.bool("is_since_comparable", true)?;
        let chronological = packed || props.bool("is_chronological", false)?;
        let page_size = positive(props, "page_size")?;
        if page_size.is_some() && !(supports_since && comparable && chronological) {
            return Err(Failure::config(format!(
                "{}.page_size: expected supports_since, is_since_comparable and \
                 is_chronological all true beside it, found {supports_since}, {comparable} \
                 and {chronological}",
                props.path()
            )));
        }
        let mut source = JsonSource {
            form,
            pipe: ctx.owner.to_owned(),
            url: props.str("url")?.to_owned(),
            headers: sent(props, form)?,
            subset: props.get("subset").map(ToString::to_string),
            page_size,
            since: from.since,
            carrier: Carrier::of(props, supports_since)?,
            system,
            cancel: ctx.cancel.clone(),
            parser: Parser::new(Numbers::FLOATS),
            page: None,
            upstream: None,
            origin: Origin::load(&from.state),
            continues: true,
            found: 0,
            ended: false,
        };
        source.look_at_origin()?;
        Ok(source)
    }

    /// Asks at once when the offset may belong to a dataset that is gone.
    fn look_at_origin(&mut self) -> Result<(), Failure> {
        let (Some(origin), Some(since)) = (self.origin.clone(), self.since.clone()) else {
            return Ok(());
        };
        let page = self.next_page();
        let page = page.map_err(|failure| failure.context(format_args!("pipe {:?}", self.pipe)))?;
        let said = self.upstream.as_ref();
        self.continues = said.is_none_or(|said| said.continues(&origin, &since));
        self.page = Some(page);
        Ok(())
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
                whole = !page.next(&mut self.parser, out)?;
            }
            if out.len() > start {
                page.found += out.len() - start;
                page.last.clone_from(&out.get(out.len() - 1).meta.updated);
            }
            if whole {
                self.turn(page)?;
            } else {
                page.let_go();
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
        let response = self.ask().map_err(read_refused)?;
        let upstream = Upstream::of(&response.headers);
        tracing::debug!(request = response.body.request(), ?upstream, "reading");
        let page = Page::of(response, self.form)?;
        match &self.upstream {
            None => self.upstream = Some(upstream),
            Some(first) if first.origin() != upstream.origin() => {
                let words = "expected the dataset that the first page came from, found another \
                             one or one that was restored; the next run looks at it anew";
                return Err(page.wrong(Failure::transient(words)));
            }
            Some(_) => {}
        }
        Ok(page)
    }

    fn ask(&self) -> Result<Response, Failure> {
        let mut parameters = Vec::new();
        let mut headers = Cow::Borrowed(&self.headers);
        match (&self.carrier, &self.since) {
            (Carrier::Nothing, _) | (_, None) => {}
            (Carrier::Parameter(name), Some(since)) => {
                parameters.push((name.as_str(), since.to_string()));
            }
            (Carrier::Header(name), Some(since)) => {
                let value = HeaderValue::try_from(since.to_string()).map_err(|_| {
                    Failure::fatal(format!(
                        "expected an offset that a header can hold, found {since}; send it in \
                         the query (`since_property_location`)"
                    ))
                })?;
                headers.to_mut().insert(name, value);
            }
        }
        if let Some(page_size) = self.page_size {
            parameters.push(("limit", page_size.to_string()));
        }
        if let Some(subset) = &self.subset {
            parameters.push(("subset", subset.clone()));
        }
        let ask = Ask {
            method: Method::GET,
            url: self.url.as_str(),
            parameters,
            headers: &headers,
            body: Bytes::new(),
        };
        self.system.ask(ask, &self.cancel)
    }
}

/// The peer answered, and not what it should.
fn broken(error: &dyn std::error::Error) -> Failure {
    Failure {
        reached: true,
        ..Failure::transient(error.to_string())
    }
}

/// The headers of requests.
fn sent(props: Props<'_>, form: Form) -> Result<HeaderMap, Failure> {
    let mut headers = headers(props)?;
    if form == Form::Packed {
        headers.insert(ACCEPT, HeaderValue::from_static(packed::MEDIA_TYPE));
    }
    Ok(headers)
}

impl Packed {
    fn next(&mut self, out: &mut Batch) -> Result<bool, PackedError> {
        while self.at == self.block.len() {
            self.block.clear();
            self.at = 0;
            if !self.blocks.next_block(&mut self.block)? {
                return Ok(false);
            }
        }
        out.push(self.block.get(self.at));
        self.at += 1;
        Ok(true)
    }
}

impl Page {
    fn of(response: Response, form: Form) -> Result<Page, Failure> {
        let request = response.body.request().to_owned();
        let kind = response.headers.get(CONTENT_TYPE);
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("nothing");
        if form == Form::Packed && kind != packed::MEDIA_TYPE {
            let words = format!(
                "expected an answer of the type {}, which only a Tahini node gives, found {kind}; \
                 a json source reads from any server that speaks the JSON pull protocol",
                packed::MEDIA_TYPE
            );
            return Err(Failure::config(words).context(request));
        }
        Ok(Page {
            request,
            entities: match form {
                Form::Json => Entities::Json(Box::new(Elements::new(response.body, Layout::Array))),
                Form::Packed => Entities::Packed(Box::new(Packed {
                    blocks: Blocks::new(response.body),
                    block: Batch::new(),
                    at: 0,
                })),
            },
            found: 0,
            last: None,
        })
    }

    /// Reads the next entities; `false` at the end of the answer.
    fn next(&mut self, parser: &mut Parser, out: &mut Batch) -> Result<bool, Failure> {
        let failure = match &mut self.entities {
            Entities::Json(elements) => match elements.next_element() {
                Ok(Some(element)) => match parser.push_json(out, element) {
                    Ok(()) => return Ok(true),
                    Err(error) => Failure::entity(error.to_string()),
                },
                Ok(None) => return Ok(false),
                Err(ReadError::Io(error)) => return Err(failure_of(&error)),
                Err(ReadError::Split(error)) => broken(&error),
            },
            Entities::Packed(packed) => match packed.next(out) {
                Ok(more) => return Ok(more),
                Err(PackedError::Io(error)) => return Err(failure_of(&error)),
                Err(error) => broken(&error),
            },
        };
        Err(self.wrong(failure))
    }

    /// Keeps nothing of a large entity that was appended, while others work on it.
    fn let_go(&mut self) {
        match &mut self.entities {
            Entities::Json(elements) => elements.let_go(),
            Entities::Packed(packed) if packed.at == packed.block.len() => {
                packed.block.clear();
                packed.at = 0;
            }
            Entities::Packed(_) => {}
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

    fn state(&mut self) -> Vec<StateWrite> {
        let said = self.upstream.as_ref().and_then(Upstream::origin);
        if said.is_none() || said == self.origin {
            return Vec::new();
        }
        self.origin = said;
        self.origin.iter().map(Origin::save).collect()
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn populated(&self) -> bool {
        // Servers that say nothing have no such notion.
        let said = self.upstream.as_ref();
        said.and_then(|said| said.populated) != Some(false)
    }

    fn completeness(&self) -> Option<i64> {
        self.upstream.as_ref()?.completeness
    }
}
