//! Entities as JSON text of which no more is read than where their properties stand.
//!
//! This is a short cut beside [`super::Parser`], for work that ends in JSON text again: what a rule does
//! not touch goes from the text that came to the text that leaves. It takes nothing but
//! well-formed entities of the usual kind; for all others (names with escapes, equal names, very
//! large entities, everything that is wrong) it says so, and the parser gives the value or the
//! error. Numbers are those of [`Numbers::FLOATS`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::canonical;
use super::number::Numbers;
use super::parse::{Parser, Reserved, read_reserved};
use super::raw::{self, Form, Raw};
use super::scan;
use super::value::{Options, Reader, Scratch};
use crate::{Batch, Meta, Shape, Str};

/// Entities with more text than this are left to the parser.
const MAX_TEXT: usize = 1 << 20;
/// Layouts that are remembered.
const MAX_LAYOUTS: usize = 1024;

/// Entities that were opened, in order. Their text stays where it is, in a buffer that is handed
/// in again when they are looked at.
#[derive(Debug, Default)]
pub struct Opened {
    rows: Vec<Row>,
    spans: Vec<Span>,
    /// Values whose text is not the one that we would write, encoded.
    encoded: Vec<u8>,
    metas: Vec<Meta>,
    layouts: Vec<Layout>,
    known: HashMap<Box<[u8]>, u32>,
    /// The layout of the entity before; most streams have few.
    recent: u32,
    /// The quoted names of an entity whose layout is not the recent one.
    names: Vec<u8>,
    scratch: Scratch,
}

/// One opened entity, in its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    opened: &'a Opened,
    row: &'a Row,
    text: &'a str,
}

#[derive(Debug)]
struct Row {
    start: usize,
    end: usize,
    /// Of its first property's span.
    spans: usize,
    layout: u32,
    id: Option<(u32, u32)>,
    /// Its place among the metas, if it has reserved fields beside its `_id`.
    meta: Option<u32>,
    /// Whether all of its text is the one that we would write.
    plain: bool,
}

/// Where a value stands: in the entity's text, or among the encoded values.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
    form: Form,
}

/// The names of entities in the order in which they stand, reserved ones included.
#[derive(Debug)]
struct Layout {
    keys: Box<[Key]>,
    shape: Arc<Shape>,
    /// For each name of the shape, how many reserved fields stand before it.
    breaks: Box<[u32]>,
}

#[derive(Debug)]
struct Key {
    /// With its quotes.
    name: Box<[u8]>,
    reserved: Option<Reserved>,
}

static NO_META: Meta = Meta {
    deleted: false,
    filtered: false,
    reserved: false,
    updated: None,
    previous: None,
    ts: 0,
    hash: None,
};

impl Opened {
    /// Nothing opened yet.
    pub fn new() -> Opened {
        Opened::default()
    }

    /// How many entities it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets the entities and keeps the memory and the layouts.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.spans.clear();
        self.encoded.clear();
        self.metas.clear();
        if self.layouts.len() >= MAX_LAYOUTS {
            self.layouts.clear();
            self.known.clear();
            self.recent = 0;
        }
    }

    /// Where the entity at `at` begins in its buffer.
    pub fn start(&self, at: usize) -> Option<usize> {
        self.rows.get(at).map(|row| row.start)
    }

    /// The entities in order; `buffer` is the one in which they were opened, with nothing but
    /// UTF-8 from the first one to the last. That is found out here, once for all of them.
    ///
    /// # Panics
    /// When it is another buffer.
    pub fn lines<'a>(&'a self, buffer: &'a [u8]) -> impl ExactSizeIterator<Item = Line<'a>> {
        let start = self.rows.first().map_or(0, |row| row.start);
        let end = self.rows.last().map_or(0, |row| row.end);
        let text = std::str::from_utf8(&buffer[start..end]);
        let text = text.expect("opened entities are UTF-8, and so is what stands between them");
        self.rows.iter().map(move |row| Line {
            opened: self,
            row,
            text: &text[row.start - start..row.end - start],
        })
    }

    /// Opens the entity whose brace is at `start` of `buffer` and returns its end. `None`, and
    /// nothing changed, when it is for the parser, or not all there.
    pub fn open(&mut self, buffer: &[u8], start: usize) -> Option<usize> {
        let before = (self.spans.len(), self.encoded.len(), self.metas.len());
        let most = buffer.len().min(start + MAX_TEXT);
        let end = self.entity(&buffer[start..most], start);
        if end.is_none() {
            self.spans.truncate(before.0);
            self.encoded.truncate(before.1);
            self.metas.truncate(before.2);
        }
        end
    }

    fn entity(&mut self, bytes: &[u8], start: usize) -> Option<usize> {
        if bytes.first() != Some(&b'{') {
            return None;
        }
        let mut row = Row {
            start,
            end: start,
            spans: self.spans.len(),
            layout: self.recent,
            id: None,
            meta: None,
            plain: true,
        };
        let (mut at, mut count, mut same) = (1, 0, true);
        at = space(bytes, at, &mut row.plain);
        let mut more = bytes.get(at)? != &b'}';
        at += usize::from(!more);
        while more {
            let (behind, reserved) = self.key(bytes, at, count, &mut same)?;
            at = space(bytes, behind, &mut row.plain);
            if bytes.get(at)? != &b':' {
                return None;
            }
            at = space(bytes, at + 1, &mut row.plain);
            at = match reserved {
                None => self.property(bytes, at, &mut row.plain)?,
                Some(field) => self.reserved(bytes, at, field, &mut row)?,
            };
            count += 1;
            at = space(bytes, at, &mut row.plain);
            more = match bytes.get(at)? {
                b',' => true,
                b'}' => false,
                _ => return None,
            };
            at += 1;
            if more {
                at = space(bytes, at, &mut row.plain);
            }
        }
        // Most text is ASCII, which is found out faster.
        if !bytes[..at].is_ascii() {
            std::str::from_utf8(&bytes[..at]).ok()?;
        }
        row.layout = self.layout(count, same)?;
        row.end = start + at;
        self.recent = row.layout;
        self.rows.push(row);
        Some(start + at)
    }

    /// The end of the name at `at`, and the reserved field that it names. As long as the names
    /// are those of the recent layout, they are compared and not read.
    #[inline]
    fn key(
        &mut self,
        bytes: &[u8],
        at: usize,
        count: usize,
        same: &mut bool,
    ) -> Option<(usize, Option<Reserved>)> {
        if *same {
            let recent = self.layouts.get(self.recent as usize);
            if let Some(key) = recent.and_then(|layout| layout.keys.get(count))
                && bytes[at..].starts_with(&key.name)
            {
                return Some((at + key.name.len(), key.reserved));
            }
            *same = false;
            self.diverge(count);
        }
        if bytes.get(at)? != &b'"' {
            return None;
        }
        let end = canonical::text(bytes, at)?;
        let name = &bytes[at + 1..end - 1];
        if name.contains(&b'\\') {
            return None;
        }
        self.names.extend_from_slice(&bytes[at..end]);
        Some((end, Reserved::of(std::str::from_utf8(name).ok()?)))
    }

    /// Writes down the first names of the recent layout.
    fn diverge(&mut self, count: usize) {
        self.names.clear();
        if let Some(recent) = self.layouts.get(self.recent as usize) {
            for key in &recent.keys[..count] {
                self.names.extend_from_slice(&key.name);
            }
        }
    }

    #[inline]
    fn property(&mut self, bytes: &[u8], at: usize, plain: &mut bool) -> Option<usize> {
        let (end, form) = raw::find(bytes, at)?;
        let (start, stop) = if form != Form::Encoded {
            (at, end)
        } else {
            *plain = false;
            let start = self.encoded.len();
            let mut reader = reader(&bytes[at..end], &mut self.scratch)?;
            reader.value(&mut self.encoded, 1).ok()?;
            reader.end().ok()?;
            (start, self.encoded.len())
        };
        self.spans.push(Span {
            start: u32::try_from(start).ok()?,
            end: u32::try_from(stop).ok()?,
            form,
        });
        Some(end)
    }

    fn reserved(
        &mut self,
        bytes: &[u8],
        at: usize,
        field: Reserved,
        row: &mut Row,
    ) -> Option<usize> {
        if let Reserved::Id = field {
            let end = (bytes.get(at)? == &b'"').then(|| canonical::text(bytes, at))??;
            if bytes[at..end].contains(&b'\\') {
                return None;
            }
            row.id = Some((at as u32 + 1, end as u32 - 1));
            return Some(end);
        }
        let end = canonical::skip(bytes, at)?;
        if row.meta.is_none() {
            row.meta = Some(self.metas.len() as u32);
            self.metas.push(Meta::default());
        }
        let meta = self.metas.last_mut()?;
        let mut reader = reader(&bytes[at..end], &mut self.scratch)?;
        let before = self.encoded.len();
        read_reserved(&mut reader, field, meta, &mut self.encoded).ok()?;
        self.encoded.truncate(before);
        reader.end().ok()?;
        Some(end)
    }

    /// The layout of the entity whose names were just met.
    fn layout(&mut self, count: usize, same: bool) -> Option<u32> {
        if same {
            let recent = self.layouts.get(self.recent as usize);
            if recent.is_some_and(|layout| layout.keys.len() == count) {
                return Some(self.recent);
            }
            self.diverge(count);
        }
        if let Some(&known) = self.known.get(self.names.as_slice()) {
            return Some(known);
        }
        let layout = Layout::of(&self.names)?;
        if self.layouts.len() >= MAX_LAYOUTS {
            return None;
        }
        let place = self.layouts.len() as u32;
        self.layouts.push(layout);
        self.known.insert(self.names.as_slice().into(), place);
        Some(place)
    }
}

impl Layout {
    /// Of quoted names, one after another; `None` when two are equal.
    fn of(names: &[u8]) -> Option<Layout> {
        let (mut keys, mut properties, mut breaks) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = names;
        while let Some(len) = rest
            .get(1..)
            .and_then(|text| text.iter().position(|b| *b == b'"'))
        {
            let (quoted, behind) = rest.split_at(len + 2);
            let name = std::str::from_utf8(&quoted[1..=len]).ok()?;
            let reserved = Reserved::of(name);
            if reserved.is_none() {
                breaks.push((keys.len() - properties.len()) as u32);
                properties.push(Str::from(name));
            }
            keys.push(Key {
                name: quoted.into(),
                reserved,
            });
            rest = behind;
        }
        let mut seen = HashSet::new();
        if !keys.iter().all(|key| seen.insert(&key.name)) {
            return None;
        }
        Some(Layout {
            shape: Arc::new(Shape::new(properties)),
            breaks: breaks.into(),
            keys: keys.into(),
        })
    }
}

impl<'a> Line<'a> {
    /// All of its text.
    pub fn text(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// `_id`.
    pub fn id(&self) -> Option<&'a str> {
        let (start, end) = self.row.id?;
        Some(&self.text[start as usize..end as usize])
    }

    /// `_id` with its quotes, as it is written.
    pub fn quoted_id(&self) -> Option<&'a [u8]> {
        let (start, end) = self.row.id?;
        Some(&self.text()[start as usize - 1..end as usize + 1])
    }

    /// The names of its properties. Lines whose names stand in another order, or have reserved
    /// fields in other places between them, never share one.
    pub fn shape(&self) -> &'a Arc<Shape> {
        &self.opened.layouts[self.row.layout as usize].shape
    }

    /// What stands beside the properties, except the content's hash, which [`Line::hash`] computes.
    pub fn meta(&self) -> &'a Meta {
        match self.row.meta {
            Some(place) => &self.opened.metas[place as usize],
            None => &NO_META,
        }
    }

    /// The value at a place of the shape.
    #[inline]
    pub fn raw(&self, at: usize) -> Raw<'a> {
        let span = self.opened.spans[self.row.spans + at];
        let (start, end) = (span.start as usize, span.end as usize);
        match span.form {
            Form::Encoded => Raw::Encoded(&self.opened.encoded[start..end]),
            Form::Text => Raw::Text(&self.text[start..end]),
            Form::Plain => Raw::Plain(&self.text[start + 1..end - 1]),
        }
    }

    /// Whether the properties from one place of the shape to another follow each other without
    /// a reserved field between them. It is the same for all lines of a shape.
    pub fn is_run(&self, first: usize, last: usize) -> bool {
        let breaks = &self.opened.layouts[self.row.layout as usize].breaks;
        breaks[first] == breaks[last]
    }

    /// The text of the properties of such a run, names and commas included, when it is the text
    /// that we would write for them.
    #[inline]
    pub fn run(&self, first: usize, last: usize) -> Option<&'a [u8]> {
        if !self.row.plain {
            return None;
        }
        let spans = &self.opened.spans[self.row.spans..];
        let name = self.shape().names()[first].len() + r#""":"#.len();
        Some(&self.text()[spans[first].start as usize - name..spans[last].end as usize])
    }

    /// The content's hash; this reads the whole entity.
    pub fn hash(&self) -> u128 {
        let mut batch = Batch::new();
        let parsed = Parser::new(Numbers::FLOATS).push_json(&mut batch, self.text());
        parsed.expect("an opened entity is well-formed");
        batch.get(0).hash()
    }
}

/// A reader of the value whose text this is; `None` when it is not UTF-8.
fn reader<'a, 's>(bytes: &'a [u8], scratch: &'s mut Scratch) -> Option<Reader<'a, 's>> {
    let options = Options {
        numbers: Numbers::FLOATS,
        transit: true,
    };
    let text = std::str::from_utf8(bytes).ok()?;
    Some(Reader::new(text, options, scratch))
}

/// Behind the white space at `at`; text that has any is not the text that we would write.
#[inline]
fn space(bytes: &[u8], at: usize, plain: &mut bool) -> usize {
    match bytes.get(at) {
        Some(b' ' | b'\n' | b'\r' | b'\t') => {
            *plain = false;
            scan::past_space(bytes, at)
        }
        _ => at,
    }
}
