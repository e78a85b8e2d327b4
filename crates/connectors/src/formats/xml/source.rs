//! The `xml` source: elements of a document behind a URL.

use std::io::{Cursor, Read};

use tahini_entity::{Batch, Dict, Entity, Str, Value, is_reserved};
use tahini_hub::Failure;
use tahini_hub::config::{Kind, Property, Props};
use tahini_hub::registry::{ContinuationDef, SourceDef};
use tahini_hub::source::From;

use super::names::is_name;
use super::reader::Elements;
use crate::formats::charset::Charset;
use crate::formats::file::{File, Format};
use crate::formats::names;
use crate::formats::rows::{IF_SOURCE_EMPTY, SYSTEM, URL};
use crate::formats::text::{Manners, Text};
use crate::http::{Body, failure_of};

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
    open: |ctx, _: From| Ok(Box::new(File::open(ctx, XmlFormat::of(ctx.props)?)?)),
};

/// The start of a document that is looked at for its encoding, in bytes.
const START_BYTES: u64 = 256;

/// The start of a body that was read already, and the rest.
type Whole = std::io::Chain<Cursor<Vec<u8>>, Body>;

/// What is wanted of the documents of a pipe.
struct XmlFormat {
    element: Option<Vec<String>>,
    /// The paths of the values that the id consists of.
    primary_key: Vec<Vec<String>>,
    charset: Option<Charset>,
}

impl XmlFormat {
    fn of(props: Props<'_>) -> Result<XmlFormat, Failure> {
        let charset = match props.get("encoding") {
            Some(_) => Some(Charset::from(props)?),
            None => None,
        };
        Ok(XmlFormat {
            element: element(props)?,
            primary_key: primary_key(props)?,
            charset,
        })
    }

    fn id(&self, properties: &Dict) -> Result<Str, String> {
        let mut id = Str::new();
        for (count, path) in self.primary_key.iter().enumerate() {
            let value = path.split_first().and_then(|(first, rest)| {
                let first = properties.get(first)?;
                rest.iter().try_fold(first, |value, name| match value {
                    Value::Dict(dict) => dict.get(name),
                    _ => None,
                })
            });
            let text = match value {
                Some(Value::Dict(dict)) => dict.get("#text"),
                other => other,
            };
            let Some(Value::String(text)) = text else {
                let found = value.map_or("nothing", Value::kind);
                return Err(format!(
                    "expected text in {:?}, which is (a part of) the id, found {found}",
                    path.join("/")
                ));
            };
            if count > 0 {
                id.push(':');
            }
            id.push_str(text);
        }
        Ok(id)
    }
}

impl Format for XmlFormat {
    const ACCEPT: &'static str = "application/xml, text/xml, */*;q=0.8";
    type Reading = Elements<Whole>;

    /// Reads as much of the document as may say its encoding.
    fn begin(&mut self, mut body: Body) -> Result<Option<Elements<Whole>>, Failure> {
        let mut start = Vec::new();
        let read = (&mut body).take(START_BYTES).read_to_end(&mut start);
        read.map_err(|error| failure_of(&error))?;
        let charset = match &self.charset {
            Some(charset) => charset.clone(),
            None => declared(&start)?,
        };
        let whole = Cursor::new(start).chain(body);
        let text = Text::new(whole, charset, Manners::default());
        Ok(Some(Elements::new(text, self.element.clone())))
    }

    fn next(&mut self, elements: &mut Elements<Whole>, out: &mut Batch) -> Result<bool, Failure> {
        let Some(value) = elements.next()? else {
            return Ok(false);
        };
        let wrong = |words: String| Failure::entity(format!("line {}: {words}", elements.line));
        let mut properties = match value {
            Value::Dict(dict) => dict,
            // An element with text alone.
            other => {
                let mut dict = Dict::new();
                dict.push_new("#text", other);
                dict
            }
        };
        let id = self.id(&properties).map_err(wrong)?;
        // Elements may have the names of fields that belong to the hub.
        properties.retain(|name, _| !is_reserved(name));
        let entity = Entity {
            id: Some(id),
            properties,
            ..Entity::default()
        };
        out.push_entity(&entity)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(true)
    }
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
    let paths = found.and_then(names).filter(|paths| !paths.is_empty());
    let expected = "the property of the id, or a list of properties";
    let paths = paths.ok_or_else(|| props.wrong("primary_key", expected, found))?;
    let path = |text: String| text.split('/').map(str::to_owned).collect();
    Ok(paths.into_iter().map(path).collect())
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
