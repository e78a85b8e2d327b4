//! The `xml` source: elements of a document behind a URL.

use std::io::{Cursor, Read};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use tahini_entity::{Batch, Dict, Entity, Str, Value};
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::{From, Source, Step};
use tahini_hub::{Cancel, Ctx, Failure};

use super::names::is_name;
use super::reader::Elements;
use crate::formats::charset::Charset;
use crate::formats::rows::{IF_SOURCE_EMPTY, SYSTEM, URL};
use crate::formats::text::{Manners, Text};
use crate::formats::{STEP_BYTES, bare, refused};
use crate::http::{Ask, Body, HttpSystem, failure_of};

/// The row of the `xml` source.
pub const SOURCE: SourceDef = SourceDef {
    name: "xml",
    summary: "Elements of an XML document behind a URL; every value is text.",
    properties: &[
        SYSTEM,
        URL,
        Property::new(
            "element",
            Kind::String,
            "The elements that are entities: their names from the root on, with `/` between them. \
             All elements in the root by default.",
        ),
        Property::required(
            "primary_key",
            Kind::StringOrList,
            "The property of the id, `@name` for an attribute, with `/` for one further inside; of \
             several ones, their values with colons between them.",
        ),
        Property::new(
            "encoding",
            Kind::String,
            "How text stands in bytes; what the document says of itself by default.",
        ),
        IF_SOURCE_EMPTY,
    ],
    continuation: ContinuationDef {
        supports_since: false,
        is_since_comparable: true,
        is_chronological: false,
        configurable: false,
    },
    open: |ctx, _: From| Ok(Box::new(XmlSource::open(ctx)?)),
};

/// The start of a document that is looked at for its encoding, in bytes.
const START_BYTES: u64 = 256;

/// The start of a body that was read already, and the rest.
type Whole = std::io::Chain<Cursor<Vec<u8>>, Body>;

/// An open source; it asks when the first entity is wanted.
struct XmlSource {
    pipe: String,
    system: HttpSystem,
    url: String,
    cancel: Cancel,
    element: Option<Vec<String>>,
    /// The paths of the values that the id consists of.
    primary_key: Vec<Vec<String>>,
    charset: Option<Charset>,
    reading: Option<Reading>,
    ended: bool,
}

/// A document in the middle of being read.
struct Reading {
    /// The request, as messages name it.
    request: String,
    elements: Elements<Whole>,
}

impl XmlSource {
    fn open(ctx: &Ctx<'_>) -> Result<XmlSource, Failure> {
        let props = ctx.props;
        let charset = match props.get("encoding") {
            Some(_) => Some(Charset::from(props)?),
            None => None,
        };
        Ok(XmlSource {
            pipe: ctx.owner.to_owned(),
            system: HttpSystem::of(ctx)?,
            url: props.str("url")?.to_owned(),
            cancel: ctx.cancel.clone(),
            element: element(props)?,
            primary_key: primary_key(props)?,
            charset,
            reading: None,
            ended: false,
        })
    }

    fn begin(&self) -> Result<Reading, Failure> {
        let mut headers = HeaderMap::new();
        if !self.system.headers().contains_key(ACCEPT) {
            let accepted = "application/xml, text/xml, */*;q=0.8";
            headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        }
        let ask = Ask {
            method: Method::GET,
            url: &self.url,
            parameters: Vec::new(),
            headers: &headers,
            body: Bytes::new(),
        };
        let response = self.system.ask(ask, &self.cancel).map_err(refused)?;
        let request = response.body.request().to_owned();
        let mut body = response.body;
        let mut start = Vec::new();
        let read = (&mut body).take(START_BYTES).read_to_end(&mut start);
        read.map_err(|error| failure_of(&error))?;
        let charset = match &self.charset {
            Some(charset) => charset.clone(),
            None => declared(&start).map_err(|failure| failure.context(&request))?,
        };
        let whole = Cursor::new(start).chain(body);
        let text = Text::new(whole, charset, Manners::default());
        Ok(Reading {
            request,
            elements: Elements::new(text, self.element.clone()),
        })
    }

    fn read(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None if self.ended => return Ok(Step::End),
            None => self.begin()?,
        };
        let (rows, bytes) = (out.len(), out.bytes());
        while out.len() - rows < limit && out.bytes() - bytes < STEP_BYTES {
            let more = self.next(&mut reading.elements, out);
            if !more.map_err(|failure| failure.context(&reading.request))? {
                self.ended = true;
                return Ok(Step::End);
            }
        }
        self.reading = Some(reading);
        Ok(Step::More)
    }

    fn next(&self, elements: &mut Elements<Whole>, out: &mut Batch) -> Result<bool, Failure> {
        let Some(value) = elements.next()? else {
            return Ok(false);
        };
        let wrong = |words: String| Failure::entity(format!("line {}: {words}", elements.line));
        let properties = match value {
            Value::Dict(dict) => dict,
            // An element with text alone.
            other => {
                let mut dict = Dict::new();
                dict.push_new("#text", other);
                dict
            }
        };
        let entity = Entity {
            id: Some(self.id(&properties).map_err(wrong)?),
            properties: unreserved(properties),
            ..Entity::default()
        };
        out.push_entity(&entity)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(true)
    }

    fn id(&self, properties: &Dict) -> Result<Str, String> {
        let mut id = Str::new();
        for (count, path) in self.primary_key.iter().enumerate() {
            let mut value = Some(Value::Dict(properties.clone()));
            for name in path {
                value = match value {
                    Some(Value::Dict(dict)) => dict.get(name).cloned(),
                    _ => None,
                };
            }
            let text = match &value {
                Some(Value::Dict(dict)) => dict.get("#text").cloned(),
                other => other.clone(),
            };
            let text = text.filter(|text| matches!(text, Value::String(_)));
            let text = text.ok_or_else(|| {
                let found = value.as_ref().map_or("nothing", Value::kind);
                format!(
                    "expected text in {:?}, which is (a part of) the id, found {found}",
                    path.join("/")
                )
            })?;
            if count > 0 {
                id.push(':');
            }
            id.push_str(&bare(&text));
        }
        Ok(id)
    }
}

/// Elements may have the names of fields that belong to the hub.
fn unreserved(mut properties: Dict) -> Dict {
    const RESERVED: &[&str] = &[
        "_id",
        "_deleted",
        "_updated",
        "_previous",
        "_ts",
        "_hash",
        "_filtered",
    ];
    properties.retain(|name, _| !RESERVED.contains(&name));
    properties
}

fn element(props: Props<'_>) -> Result<Option<Vec<String>>, Failure> {
    let Some(path) = props.opt_str("element")? else {
        return Ok(None);
    };
    let names: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(str::to_owned)
        .collect();
    if !names.iter().all(|name| is_name(name)) {
        let expected = "names of elements with / between them";
        return Err(props.wrong("element", expected, props.get("element")));
    }
    Ok(Some(names))
}

fn primary_key(props: Props<'_>) -> Result<Vec<Vec<String>>, Failure> {
    let found = props.get("primary_key");
    let texts = match found {
        Some(serde_json::Value::String(text)) => Some(vec![text.as_str()]),
        Some(serde_json::Value::Array(items)) if !items.is_empty() => {
            items.iter().map(serde_json::Value::as_str).collect()
        }
        _ => None,
    };
    let expected = "the property of the id, or a list of properties";
    let texts = texts.ok_or_else(|| props.wrong("primary_key", expected, found))?;
    let path = |text: &str| text.split('/').map(str::to_owned).collect();
    Ok(texts.into_iter().map(path).collect())
}

/// The encoding that a document says it has, by its first bytes.
fn declared(start: &[u8]) -> Result<Charset, Failure> {
    let of = |name: &str| {
        Charset::of(name).ok_or_else(|| {
            Failure::entity(format!(
                "line 1: expected a document in a known encoding, found that it says {name:?}; \
                 the property `encoding` goes first"
            ))
        })
    };
    match start {
        [b'<', 0, ..] => return of("utf-16-le"),
        [0, b'<', ..] => return of("utf-16-be"),
        _ => {}
    }
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}');
    let Some((declaration, _)) = text
        .strip_prefix("<?xml")
        .and_then(|it| it.split_once("?>"))
    else {
        return Ok(Charset::utf8());
    };
    let Some((_, rest)) = declaration.split_once("encoding") else {
        return Ok(Charset::utf8());
    };
    let rest = rest.trim_start().trim_start_matches('=').trim_start();
    let quote = rest.chars().next().unwrap_or('"');
    of(rest.split(quote).nth(1).unwrap_or("utf-8"))
}

impl Source for XmlSource {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let rows = out.len();
        self.read(limit, out).map_err(|failure| {
            out.truncate(rows);
            failure.context(format_args!("pipe {:?}", self.pipe))
        })
    }
}
