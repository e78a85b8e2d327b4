//! A stream of XML into one tree of values per entity.
//!
//! | in the document | in the entity |
//! | --- | --- |
//! | an attribute `a` | the property `@a` |
//! | an element `b` in the element | the property `b`; a list where there are several |
//! | an element with nothing but text | that text, without white space around it |
//! | an element with nothing in it | null |
//! | text beside attributes or elements | the property `#text` |

use std::collections::HashMap;
use std::io::Read;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use tahini_entity::{Dict, Str, Value, encoding};
use tahini_hub::Failure;

use crate::formats::text::{Lines, Text};

/// The most bytes that the XML of one entity may take.
pub(super) const MAX_ENTITY_BYTES: usize = 64 << 20;
/// How deep elements may nest: an element is a dict, perhaps in a list.
const MAX_DEPTH: usize = encoding::MAX_DEPTH / 2;

/// The elements of a document that are entities.
pub(super) struct Elements<R: Read> {
    reader: Reader<Lines<R>>,
    buffer: Vec<u8>,
    /// The names from the root to an entity; all children of the root without them.
    wanted: Option<Vec<String>>,
    /// How many elements are open, and how many of them are on the way to entities.
    depth: usize,
    matched: usize,
    root_seen: bool,
    /// The entity's elements that are open, the outermost first.
    open: Vec<Node>,
    /// The line that the entity begins on.
    pub(super) line: u64,
}

/// An element in the middle of being read.
#[derive(Default)]
struct Node {
    name: Str,
    /// Attributes and elements, by name in the order in which the names came.
    inner: Vec<(Str, Vec<Value>)>,
    places: HashMap<Str, usize>,
    text: String,
}

/// What an event changed.
enum Found {
    Nothing,
    Entity(Value),
    End,
}

impl Node {
    fn add(&mut self, name: Str, value: Value) {
        match self.places.get(&name) {
            Some(at) => self.inner[*at].1.push(value),
            None => {
                self.places.insert(name.clone(), self.inner.len());
                self.inner.push((name, vec![value]));
            }
        }
    }

    fn into_value(self) -> Value {
        let text = self.text.trim();
        if self.inner.is_empty() {
            return match text {
                "" => Value::Null,
                text => Value::string(text),
            };
        }
        let mut dict = Dict::new();
        for (name, mut values) in self.inner {
            let value = match values.len() {
                1 => values.pop().unwrap_or_default(),
                _ => Value::List(values.into_iter().collect()),
            };
            dict.push_new(name, value);
        }
        if !text.is_empty() {
            dict.set("#text", Value::string(text));
        }
        Value::Dict(dict)
    }
}

impl<R: Read> Elements<R> {
    pub(super) fn new(text: Text<R>, wanted: Option<Vec<String>>) -> Elements<R> {
        let mut reader = Reader::from_reader(Lines::new(text));
        reader.config_mut().expand_empty_elements = true;
        Elements {
            reader,
            buffer: Vec::new(),
            wanted,
            depth: 0,
            matched: 0,
            root_seen: false,
            open: Vec::new(),
            line: 1,
        }
    }

    /// The next entity; `None` at the end of a whole document.
    ///
    /// # Errors
    /// When the text cannot be read; an entity failure with its line when it is no well-formed
    /// XML, brings entities of its own, nests too deep, or an entity takes more than 64 MiB.
    pub(super) fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            if self.open.is_empty() {
                self.reader.get_mut().allow(MAX_ENTITY_BYTES);
            }
            match self.step()? {
                Found::Nothing => {}
                Found::Entity(value) => return Ok(Some(value)),
                Found::End => return Ok(None),
            }
        }
    }

    fn step(&mut self) -> Result<Found, Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let found = match self.reader.read_event_into(&mut buffer) {
            Ok(event) => self.take(event),
            Err(error) => {
                let (lines, words) = (self.reader.get_mut(), error.to_string());
                if let Some(failure) = lines.failure() {
                    return Err(failure);
                }
                Err(match lines.is_exhausted() {
                    true => format!(
                        "an element of at most {} MiB, found a longer one",
                        MAX_ENTITY_BYTES >> 20
                    ),
                    false => format!("well-formed XML, found: {words}"),
                })
            }
        };
        // What was one huge text is not kept.
        if buffer.capacity() <= KEPT_BYTES {
            self.buffer = buffer;
        }
        found.map_err(|words| {
            let line = self.reader.get_ref().line();
            Failure::entity(format!("line {line}: expected {words}"))
        })
    }

    /// Takes an event, or tells in words what was expected and found.
    fn take(&mut self, event: Event<'_>) -> Result<Found, String> {
        match event {
            Event::Start(start) => self.start(&start).map(|()| Found::Nothing),
            Event::End(_) => Ok(self.end()),
            Event::Text(text) => {
                let text = text.xml10_content().map_err(wrong)?;
                if self.depth == 0 && !text.trim().is_empty() {
                    return Err(format!("an XML document, found {}", excerpt(&text)));
                }
                self.push(&text);
                Ok(Found::Nothing)
            }
            Event::CData(text) => {
                self.push(&text.xml10_content().map_err(wrong)?);
                Ok(Found::Nothing)
            }
            Event::GeneralRef(reference) => {
                if let Some(c) = reference.resolve_char_ref().map_err(wrong)? {
                    self.push(c.encode_utf8(&mut [0; 4]));
                    return Ok(Found::Nothing);
                }
                let name = reference.decode().map_err(wrong)?;
                let text = resolve_predefined_entity(&name).ok_or_else(|| {
                    format!(
                        "one of the five entities of XML, found &{name};, as entities that a \
                         document brings itself are not read"
                    )
                })?;
                self.push(text);
                Ok(Found::Nothing)
            }
            Event::DocType(text) if text.contains(&b'[') => Err(
                "a document without declarations of its own, found a DOCTYPE with some, which \
                 could make a short document endless"
                    .to_owned(),
            ),
            Event::Eof if self.depth > 0 => Err(format!(
                "the end of {} open elements, found the end of the document",
                self.depth
            )),
            Event::Eof if !self.root_seen => Err("an XML document, found no element".to_owned()),
            Event::Eof => Ok(Found::End),
            Event::DocType(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {
                Ok(Found::Nothing)
            }
            Event::Empty(start) => {
                self.start(&start)?;
                Ok(self.end())
            }
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(node) = self.open.last_mut() {
            node.text.push_str(text);
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.depth == 0 && std::mem::replace(&mut self.root_seen, true) {
            return Err("one outermost element, found a second one".to_owned());
        }
        self.depth += 1;
        let name = start.name();
        let name = text(name.as_ref())?;
        if self.open.is_empty() && !self.is_entity(name) {
            return Ok(());
        }
        if self.open.is_empty() {
            self.line = self.reader.get_ref().line();
        }
        if self.open.len() == MAX_DEPTH {
            return Err(format!(
                "elements at most {MAX_DEPTH} deep, found deeper ones"
            ));
        }
        let mut node = Node {
            name: name.into(),
            ..Node::default()
        };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(wrong)?;
            let name = text(attribute.key.as_ref())?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = Value::string(value.map_err(wrong)?.as_ref());
            node.add(format!("@{name}").into(), value);
        }
        self.open.push(node);
        Ok(())
    }

    /// Whether the element that begins here is an entity; else it may lead to some.
    fn is_entity(&mut self, name: &str) -> bool {
        if self.matched + 1 != self.depth {
            return false;
        }
        let (fits, last) = match &self.wanted {
            None => (true, self.depth == 2),
            Some(names) => {
                let fits = names.get(self.matched).is_some_and(|wanted| wanted == name);
                (fits, self.depth == names.len())
            }
        };
        self.matched += usize::from(fits && !last);
        fits && last
    }

    fn end(&mut self) -> Found {
        self.depth = self.depth.saturating_sub(1);
        self.matched = self.matched.min(self.depth);
        let Some(node) = self.open.pop() else {
            return Found::Nothing;
        };
        match self.open.last_mut() {
            Some(outer) => {
                outer.add(node.name.clone(), node.into_value());
                Found::Nothing
            }
            None => Found::Entity(node.into_value()),
        }
    }
}

/// A buffer beyond this is not kept for the next event.
const KEPT_BYTES: usize = 1 << 20;

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> String {
    format!("well-formed XML, found: {error}")
}

/// The start of a text, as a message shows it.
fn excerpt(text: &str) -> String {
    let start: String = text.trim().chars().take(40).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};
    use tahini_entity::json::write_value;

    use super::*;
    use crate::formats::charset::Charset;
    use crate::formats::text::Manners;

    fn read(document: &str, path: Option<&str>) -> Result<Vec<Json>, String> {
        let text = Text::new(document.as_bytes(), Charset::utf8(), Manners::default());
        let wanted = path.map(|path| path.split('/').map(str::to_owned).collect());
        let mut elements = Elements::new(text, wanted);
        let mut all = Vec::new();
        while let Some(value) = elements.next().map_err(|failure| failure.message)? {
            let mut out = Vec::new();
            write_value(&value, &mut out);
            all.push(serde_json::from_slice(&out).unwrap());
        }
        Ok(all)
    }

    #[test]
    fn elements_become_values() {
        let document = r#"<?xml version="1.0"?><!DOCTYPE rows><rows a="1">
            <row id="1" x:y="&lt;&#65;"><name>Ada &amp; Bo</name><tag>a</tag><tag>b</tag><none/></row>
            <!-- nothing --><row id="2">some <b>bold</b> text<![CDATA[ <&> ]]></row><row/>
            <row><deep><er at="x"/></deep></row></rows>"#;
        let expected = [
            json!({"@id": "1", "@x:y": "<A", "name": "Ada & Bo", "tag": ["a", "b"], "none": null}),
            json!({"@id": "2", "b": "bold", "#text": "some  text <&>"}),
            Json::Null,
            json!({"deep": {"er": {"@at": "x"}}}),
        ];
        assert_eq!(read(document, None).unwrap(), expected);
        assert_eq!(read(document, Some("rows/row")).unwrap(), expected);
        assert_eq!(
            read(document, Some("rows/row/deep")).unwrap(),
            expected[3..]
                .iter()
                .map(|e| e["deep"].clone())
                .collect::<Vec<_>>()
        );
        assert_eq!(read(document, Some("other/row")).unwrap(), [] as [Json; 0]);
        assert_eq!(
            read("<a><n>1</n></a>", Some("a")).unwrap(),
            [json!({"n": "1"})]
        );
        let mixed = "<a><b><c>1</c></b><d><c>2</c></d><b><c>3</c></b></a>";
        assert_eq!(
            read(mixed, Some("a/b/c")).unwrap(),
            [json!("1"), json!("3")]
        );
    }

    #[test]
    fn what_is_no_whole_document_is_refused_with_its_line() {
        for (document, words) in [
            (
                "<a>\n<b>1</b>\n<b>2</b>",
                "line 3: expected the end of 1 open elements",
            ),
            ("<a>\n<b></c></a>", "line 2: expected well-formed XML"),
            ("<a/>\n<b/>", "line 2: expected one outermost element"),
            ("hello", "line 1: expected an XML document, found \"hello\""),
            ("", "line 1: expected an XML document, found no element"),
            ("<a><b>&evil;</b></a>", "found &evil;"),
            ("<a><b x='&evil;'/></a>", "line 1: expected well-formed XML"),
            (
                "<a><b x='1' x='2'/></a>",
                "line 1: expected well-formed XML",
            ),
            (
                "<!DOCTYPE a [<!ENTITY e 'x'><!ENTITY f '&e;&e;'>]>\n<a><b>&f;</b></a>",
                "expected a document without declarations",
            ),
        ] {
            let failure = read(document, None).unwrap_err();
            assert!(failure.contains(words), "{document:?}: {failure}");
        }
        let deep = format!("<a>{}{}</a>", "<b>".repeat(60), "</b>".repeat(60));
        let failure = read(&deep, None).unwrap_err();
        assert!(failure.contains("elements at most 50 deep"), "{failure}");
    }

    #[test]
    fn an_endless_element_is_refused_before_it_fills_the_memory() {
        for start in ["<a><b>", "<a><b x='", "<a><!--", "<a><b><![CDATA["] {
            let endless = start.as_bytes().chain(std::io::repeat(b'x'));
            let text = Text::new(endless, Charset::utf8(), Manners::default());
            let failure = Elements::new(text, None).next().unwrap_err().message;
            assert!(failure.contains("at most 64 MiB"), "{start}: {failure}");
        }
    }
}
