//! Entities in the shape that the manual asks for as XML elements.
//!
//! An object is one element: its one property `<name>` names it and holds what is in it, its other
//! properties are the attributes.

use tahini_entity::{Dict, Entity, Record, Value};
use tahini_hub::Failure;
use tahini_hub::config::Props;

use super::names::{is_char, is_name};
use crate::formats::charset::MARK;
use crate::formats::{Document, bare, skips_deleted};

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";

/// What stands around the elements of entities.
pub(super) struct Frame {
    wrapper: Option<String>,
    root_attributes: Vec<(String, String)>,
    declares: bool,
    pub(super) skips_deleted: bool,
}

/// A document of elements.
pub struct Xml {
    frame: Frame,
    text: String,
    out: Vec<u8>,
}

impl Frame {
    /// # Errors
    /// Config, when a name is none or an attribute's value is no text.
    pub(super) fn of(props: Props<'_>) -> Result<Frame, Failure> {
        let wrapper = props.opt_str("wrapper")?;
        if wrapper.is_some_and(|name| !is_name(name)) {
            let expected = "the name of an element";
            return Err(props.wrong("wrapper", expected, props.get("wrapper")));
        }
        let mut root_attributes = Vec::new();
        for (name, value) in props.opt_object("root-attributes")?.into_iter().flatten() {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
                serde_json::Value::Null => continue,
                _ => {
                    let found = format!("{value}");
                    return Err(Failure::config(format!(
                        "{}.root-attributes.{name}: expected text, found {found}",
                        props.path()
                    )));
                }
            };
            if !is_name(name) {
                return Err(Failure::config(format!(
                    "{}.root-attributes: expected names of attributes, found {name:?}",
                    props.path()
                )));
            }
            root_attributes.push((name.clone(), value));
        }
        Ok(Frame {
            wrapper: wrapper.map(str::to_owned),
            root_attributes,
            declares: props.bool("include-xml-decl", false)?,
            skips_deleted: skips_deleted(props)?,
        })
    }

    /// Appends what stands before the entities.
    pub(super) fn begin(&self, out: &mut String) {
        if self.declares {
            out.push_str(DECLARATION);
        }
        if let Some(wrapper) = &self.wrapper {
            out.push('<');
            out.push_str(wrapper);
            for (name, value) in &self.root_attributes {
                put_attribute(name, value, out);
            }
            out.push('>');
        }
    }

    /// Appends the element of an entity.
    ///
    /// # Errors
    /// An entity failure with the path of what has another shape; `out` then is as it was.
    pub(super) fn put(&self, entity: &Entity, out: &mut String) -> Result<(), Failure> {
        let start = out.len();
        let root = match &self.wrapper {
            Some(_) => &[][..],
            None => &self.root_attributes,
        };
        let mut path = String::new();
        put_object(&entity.properties, root, &mut path, out).map_err(|words| {
            out.truncate(start);
            let id = entity.id.as_deref().unwrap_or_default();
            Failure::entity(format!("entity {id:?}: {words}")).with_entity(entity.clone())
        })
    }

    /// Appends what stands behind the entities.
    pub(super) fn end(&self, out: &mut String) {
        if let Some(wrapper) = &self.wrapper {
            out.push_str("</");
            out.push_str(wrapper);
            out.push('>');
        }
    }
}

impl Xml {
    /// A document that is begun, by the configuration of an `xml_endpoint`.
    ///
    /// # Errors
    /// Config, when a property is not what it has to be.
    pub fn of(props: Props<'_>) -> Result<Xml, Failure> {
        let mut xml = Xml {
            frame: Frame::of(props)?,
            text: String::new(),
            out: Vec::new(),
        };
        if props.bool("byte_order_mark", false)? {
            xml.out.extend_from_slice(&MARK);
        }
        xml.frame.begin(&mut xml.text);
        xml.hand_on();
        Ok(xml)
    }

    fn hand_on(&mut self) {
        self.out.extend_from_slice(self.text.as_bytes());
        self.text.clear();
    }
}

impl Document for Xml {
    fn media_type(&self) -> String {
        "application/xml; charset=utf-8".to_owned()
    }

    fn put(&mut self, record: Record<'_>) -> Result<bool, Failure> {
        if record.meta.deleted && self.frame.skips_deleted {
            return Ok(false);
        }
        self.frame.put(&record.to_entity(), &mut self.text)?;
        self.hand_on();
        Ok(true)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.frame.end(&mut self.text);
        self.hand_on();
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// The name in `<name>`.
fn tag(property: &str) -> Option<&str> {
    property.strip_prefix('<')?.strip_suffix('>')
}

fn put_object(
    dict: &Dict,
    root: &[(String, String)],
    path: &mut String,
    out: &mut String,
) -> Result<(), String> {
    let mut tags = dict.iter().filter(|(name, _)| tag(name).is_some());
    let ((property, content), name) = match (tags.next(), tags.next()) {
        (Some(one), None) => (one, tag(one.0).unwrap_or_default()),
        (None, _) => return Err(wrong(path, "exactly one property like \"<name>\"", "none")),
        (Some((one, _)), Some((other, _))) => {
            let found = format!("both {:?} and {:?}", one.as_str(), other.as_str());
            return Err(wrong(path, "exactly one property like \"<name>\"", &found));
        }
    };
    let before = path.len();
    path.push_str(property);
    if !is_name(name) {
        return Err(wrong(path, "the name of an element", &format!("{name:?}")));
    }
    out.push('<');
    out.push_str(name);
    let own = |name: &str| dict.get(name).is_some_and(|value| !value.is_null());
    for (name, value) in root.iter().filter(|(name, _)| !own(name)) {
        put_attribute(name, value, out);
    }
    for (name, value) in dict.iter() {
        // What begins with `_` or `$` belongs to the hub.
        if tag(name).is_some() || name.starts_with(['_', '$']) || value.is_null() {
            continue;
        }
        if !is_name(name) {
            let found = format!("{:?}", name.as_str());
            return Err(wrong(path, "the name of an attribute", &found));
        }
        if matches!(value, Value::List(_) | Value::Tuple(_) | Value::Dict(_)) {
            let found = format!("a {} in {:?}", value.kind(), name.as_str());
            return Err(wrong(path, "one value for an attribute", &found));
        }
        put_attribute(name, &bare(value), out);
    }
    let opened = out.len();
    out.push('>');
    put_content(content, path, out)?;
    if out.len() == opened + 1 {
        out.truncate(opened);
        out.push_str("/>");
    } else {
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    }
    path.truncate(before);
    Ok(())
}

fn put_content(content: &Value, path: &mut String, out: &mut String) -> Result<(), String> {
    match content {
        Value::Dict(child) => put_object(child, &[], path, out),
        Value::List(items) | Value::Tuple(items) => {
            // What is no object is ignored, as the manual says.
            for item in items.iter() {
                if let Value::Dict(child) = item {
                    put_object(child, &[], path, out)?;
                }
            }
            Ok(())
        }
        literal => {
            put_text(&bare(literal), false, out);
            Ok(())
        }
    }
}

fn wrong(path: &str, expected: &str, found: &str) -> String {
    match path {
        "" => format!("expected {expected}, found {found}"),
        path => format!("in {path}: expected {expected}, found {found}"),
    }
}

fn put_attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    put_text(value, true, out);
    out.push('"');
}

fn put_text(text: &str, in_attribute: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' if in_attribute => out.push_str("&quot;"),
            // A reader makes spaces and line feeds of these where they stand as they are.
            '\n' | '\t' if in_attribute => out.push_str(&format!("&#{};", u32::from(c))),
            '\r' => out.push_str("&#13;"),
            c if is_char(c) => out.push(c),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}
