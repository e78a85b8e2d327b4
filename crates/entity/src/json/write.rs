//! Values and entities as JSON text.
//!
//! | value | on the wire |
//! | --- | --- |
//! | float | the shortest text that reads back as the same float, with a point or an exponent |
//! | decimal | always `"~f…"`, digits and scale kept: the tag alone tells it from a float |
//! | datetime | `"~t…Z"`, without zeros at the end of the fraction |
//! | date, NI, URI, UUID, bytes | `"~t…"`, `"~:…"`, `"~r…"`, `"~u…"`, `"~b…"` |
//! | tuple | as a list; it reads back as one |
//!
//! Text is written as it is, escaped only where JSON demands it.

use std::io::Write;

use base64::Engine;
use num_bigint::BigInt;

use super::transit::{self, BASE64};
use super::{number, scan};
use crate::encoding::{self, Entries, Items, Token};
use crate::hash::Sum;
use crate::{Dict, Entity, Meta, Offset, Record, Value};

/// Which reserved fields stand beside an entity's own properties, in this order. Fields that
/// are not known are left out, except where a flag says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// They stand before the properties, not behind them.
    pub leading: bool,
    /// `_id`.
    pub id: bool,
    /// `_deleted` where it is true.
    pub deleted: bool,
    /// `"_deleted": false` too.
    pub not_deleted: bool,
    /// `_filtered` where it is true.
    pub filtered: bool,
    /// `_updated`.
    pub updated: bool,
    /// `_previous`; `null` when `_updated` is known and there is no previous version.
    pub previous: bool,
    /// `_ts`.
    pub ts: bool,
    /// `_hash`.
    pub hash: bool,
}

impl Fields {
    /// All of them, as a dataset shows its entities.
    pub const ALL: Fields = Fields {
        leading: false,
        id: true,
        deleted: true,
        not_deleted: true,
        filtered: true,
        updated: true,
        previous: true,
        ts: true,
        hash: true,
    };
    /// What a receiver outside needs: `_id`, `_deleted` either way, `_updated`.
    pub const SINK: Fields = Fields {
        id: true,
        deleted: true,
        not_deleted: true,
        updated: true,
        ..Fields::NONE
    };
    /// What a transform gives, as people read it: `_id` first, flags only where they are true.
    pub const RESULT: Fields = Fields {
        leading: true,
        id: true,
        deleted: true,
        filtered: true,
        updated: true,
        ..Fields::NONE
    };
    /// `_id`, and `_deleted` only where it is true: the content alone.
    pub const CONTENT: Fields = Fields {
        id: true,
        deleted: true,
        ..Fields::NONE
    };
    /// None of them.
    pub const NONE: Fields = Fields {
        leading: false,
        id: false,
        deleted: false,
        not_deleted: false,
        filtered: false,
        updated: false,
        previous: false,
        ts: false,
        hash: false,
    };
}

/// How JSON text is laid out and what becomes of the types that JSON lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Tagged strings; without them such values are their bare text, and decimals numbers.
    pub transit: bool,
    /// Names in the order of their code points, not in that of the dict.
    pub sorted: bool,
    /// `", "` and `": "` between items, instead of no space.
    pub spaced: bool,
}

impl Text {
    /// The wire: tagged, in the dict's order, without spaces.
    pub const WIRE: Text = Text {
        transit: true,
        sorted: false,
        spaced: false,
    };
}

/// Appends an encoded entity as a JSON object.
pub fn write_record(record: Record<'_>, fields: Fields, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    let mut reserved = Reserved::of(record.id, record.meta);
    if fields.hash && fields.leading {
        reserved.hash = Some(record.hash());
    }
    object.leading(&reserved, fields);
    // What is written is hashed in the same pass.
    let mut sum =
        (fields.hash && reserved.hash.is_none()).then(|| Sum::new(record.id, record.meta.deleted));
    let shape = record.shape;
    let mut rest = record.body;
    for (at, key) in shape.keys().iter().enumerate() {
        object
            .out
            .extend_from_slice(&key[usize::from(object.first)..]);
        object.first = false;
        let from = rest;
        put_encoded(&mut rest, object.out);
        if let Some(sum) = &mut sum
            && (!shape.has_reserved() || !shape.names()[at].starts_with('_'))
        {
            sum.add(shape.seeds()[at], &from[..from.len() - rest.len()]);
        }
    }
    reserved.hash = sum.map(Sum::finish).or(reserved.hash);
    object.close(&reserved, fields);
}

/// Appends the name of a property, with a comma before it unless it is the first.
pub fn write_name(name: &str, first: bool, out: &mut Vec<u8>) {
    Object { out, first }.name(name);
}

/// Begins the JSON object of an entity by its brace and the reserved fields that `fields` wants,
/// wherever it wants them; tells whether a property to come is the first of the object.
/// `meta.hash` must be the content's hash if `fields` asks for it.
pub fn write_start(id: Option<&str>, meta: &Meta, fields: Fields, out: &mut Vec<u8>) -> bool {
    let mut object = Object::open(out);
    object.reserved(&Reserved::of(id, meta), fields);
    object.first
}

/// Appends an entity as a JSON object.
pub fn write_entity(entity: &Entity, fields: Fields, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    let reserved = Reserved {
        id: entity.id.as_deref(),
        deleted: entity.deleted,
        filtered: entity.filtered,
        updated: entity.updated.as_ref(),
        previous: entity.previous,
        ts: entity.ts,
        hash: entity.hash,
    };
    object.leading(&reserved, fields);
    for (name, value) in entity.properties.iter() {
        object.name(name);
        write_value(value, object.out);
    }
    object.close(&reserved, fields);
}

/// Appends a value as it goes over the wire.
pub fn write_value(value: &Value, out: &mut Vec<u8>) {
    write_text(value, Text::WIRE, out);
}

/// Appends a value in another form than the wire's.
pub fn write_text(value: &Value, form: Text, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(it) => put_bool(*it, out),
        Value::Int(number) => put_int(*number, out),
        Value::BigInt(number) => put_display(number, out),
        Value::Float(number) => number::put_float_text(*number, out),
        Value::Decimal(number) => {
            let (digits, scale) = number.as_bigint_and_scale();
            put_decimal(&digits, scale, form.transit, out);
        }
        Value::String(text) => put_string(text, out),
        Value::Ni(text) => put_tagged(b':', text, form.transit, out),
        Value::Uri(text) => put_tagged(b'r', text, form.transit, out),
        Value::Bytes(bytes) => put_tagged(b'b', &BASE64.encode(bytes), form.transit, out),
        Value::Uuid(uuid) => {
            let mut text = uuid::Uuid::encode_buffer();
            put_tagged(
                b'u',
                uuid.hyphenated().encode_lower(&mut text),
                form.transit,
                out,
            );
        }
        Value::Date(date) => {
            put_quoted(b't', form.transit, out, |out| transit::put_date(*date, out))
        }
        Value::Datetime(at) => {
            put_quoted(b't', form.transit, out, |out| {
                transit::put_datetime(*at, out)
            });
        }
        Value::List(items) | Value::Tuple(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, form, out);
                write_text(item, form, out);
            }
            out.push(b']');
        }
        Value::Dict(dict) => write_dict(dict, form, out),
    }
}

fn write_dict(dict: &Dict, form: Text, out: &mut Vec<u8>) {
    let mut pairs: Vec<_> = dict.iter().collect();
    if form.sorted {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
    }
    out.push(b'{');
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        separate(at, form, out);
        put_string(name, out);
        out.extend_from_slice(if form.spaced { b": " } else { b":" });
        write_text(value, form, out);
    }
    out.push(b'}');
}

fn separate(at: usize, form: Text, out: &mut Vec<u8>) {
    if at > 0 {
        out.extend_from_slice(if form.spaced { b", " } else { b"," });
    }
}

/// Appends the encoded value at the front of `from`, as `write_value` would, and steps over it.
pub(super) fn put_encoded(from: &mut &[u8], out: &mut Vec<u8>) {
    if let Some(text) = encoding::string_bytes(from) {
        return put_text(text, out);
    }
    match encoding::token(from).expect("the bytes were written by encode") {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Bool(it) => put_bool(it, out),
        Token::Int(number) => put_int(number, out),
        Token::BigInt(bytes) => put_display(BigInt::from_signed_bytes_be(bytes), out),
        Token::Float(number) => number::put_float_text(number, out),
        Token::Decimal { digits, scale } => {
            put_decimal(&BigInt::from_signed_bytes_be(digits), scale, true, out);
        }
        Token::String(text) => put_string(text, out),
        Token::Ni(text) => put_tagged(b':', text, true, out),
        Token::Uri(text) => put_tagged(b'r', text, true, out),
        Token::Bytes(bytes) => put_tagged(b'b', &BASE64.encode(bytes), true, out),
        Token::Uuid(uuid) => {
            let mut text = uuid::Uuid::encode_buffer();
            put_tagged(b'u', uuid.hyphenated().encode_lower(&mut text), true, out);
        }
        Token::Date(date) => put_quoted(b't', true, out, |out| transit::put_date(date, out)),
        Token::Datetime(at) => put_quoted(b't', true, out, |out| transit::put_datetime(at, out)),
        Token::List(items) | Token::Tuple(items) => put_items(items, out),
        Token::Dict(entries) => put_entries(entries, out),
    }
}

fn put_items(items: Items<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    let mut rest = items.bytes();
    for at in 0..items.count() {
        separate(at, Text::WIRE, out);
        put_encoded(&mut rest, out);
    }
    out.push(b']');
}

fn put_entries(entries: Entries<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (name, mut value)) in entries.enumerate() {
        separate(at, Text::WIRE, out);
        put_string(name, out);
        out.push(b':');
        put_encoded(&mut value, out);
    }
    out.push(b'}');
}

struct Reserved<'a> {
    id: Option<&'a str>,
    deleted: bool,
    filtered: bool,
    updated: Option<&'a Offset>,
    previous: Option<u64>,
    ts: Option<i64>,
    hash: Option<u128>,
}

impl<'a> Reserved<'a> {
    fn of(id: Option<&'a str>, meta: &'a Meta) -> Reserved<'a> {
        Reserved {
            id,
            deleted: meta.deleted,
            filtered: meta.filtered,
            updated: meta.updated.as_ref(),
            previous: meta.previous,
            ts: (meta.ts != 0).then_some(meta.ts),
            hash: meta.hash,
        }
    }
}

/// A JSON object under way.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        put_string(name, self.out);
        self.out.push(b':');
    }

    /// Writes the reserved fields if they stand before the properties.
    fn leading(&mut self, known: &Reserved<'_>, fields: Fields) {
        if fields.leading {
            self.reserved(known, fields);
        }
    }

    /// Writes the reserved fields if they stand behind the properties, and closes the object.
    fn close(mut self, known: &Reserved<'_>, fields: Fields) {
        if !fields.leading {
            self.reserved(known, fields);
        }
        self.out.push(b'}');
    }

    fn reserved(&mut self, known: &Reserved<'_>, fields: Fields) {
        if let Some(id) = known.id.filter(|_| fields.id) {
            self.name("_id");
            put_string(id, self.out);
        }
        if if known.deleted {
            fields.deleted
        } else {
            fields.not_deleted
        } {
            self.name("_deleted");
            put_bool(known.deleted, self.out);
        }
        if fields.filtered && known.filtered {
            self.name("_filtered");
            put_bool(true, self.out);
        }
        if let Some(updated) = known.updated.filter(|_| fields.updated) {
            self.name("_updated");
            match updated {
                Offset::Int(number) => put_int(*number, self.out),
                Offset::Text(text) => put_string(text, self.out),
            }
        }
        if fields.previous && (known.previous.is_some() || known.updated.is_some()) {
            self.name("_previous");
            match known.previous {
                Some(previous) => put_digits(previous, self.out),
                None => self.out.extend_from_slice(b"null"),
            }
        }
        if let Some(ts) = known.ts.filter(|_| fields.ts) {
            self.name("_ts");
            put_int(ts, self.out);
        }
        if let Some(hash) = known.hash.filter(|_| fields.hash) {
            self.name("_hash");
            put_hash(hash, self.out);
        }
    }
}

fn put_bool(it: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if it { b"true" } else { b"false" });
}

fn put_display(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("writing to memory cannot fail");
}

fn put_int(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    put_digits(number.unsigned_abs(), out);
}

/// What `Display` would write, in a fraction of its time.
fn put_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A content hash in quotes, as 32 digits.
fn put_hash(hash: u128, out: &mut Vec<u8>) {
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    let mut text = [b'"'; 34];
    for (pair, byte) in text[1..33].chunks_exact_mut(2).zip(hash.to_be_bytes()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    out.extend_from_slice(&text);
}

fn put_decimal(digits: &BigInt, scale: i64, transit: bool, out: &mut Vec<u8>) {
    if transit {
        out.extend_from_slice(b"\"~f");
        number::put_decimal_text(digits, scale, out);
        out.push(b'"');
    } else {
        number::put_decimal_text(digits, scale, out);
    }
}

fn put_quoted(tag: u8, transit: bool, out: &mut Vec<u8>, put: impl Fn(&mut Vec<u8>)) {
    out.push(b'"');
    if transit {
        out.extend_from_slice(&[b'~', tag]);
    }
    put(out);
    out.push(b'"');
}

fn put_tagged(tag: u8, text: &str, transit: bool, out: &mut Vec<u8>) {
    put_quoted(tag, transit, out, |out| put_escaped(text, out));
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    put_text(text.as_bytes(), out);
}

/// A string of these UTF-8 bytes.
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    put_escaped_bytes(text, out);
    out.push(b'"');
}

fn put_escaped(text: &str, out: &mut Vec<u8>) {
    put_escaped_bytes(text.as_bytes(), out);
}

fn put_escaped_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    loop {
        let at = scan::string_special(bytes, from);
        out.extend_from_slice(&bytes[from..at]);
        let Some(&byte) = bytes.get(at) else {
            return;
        };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            _ => write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail"),
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_hashes_are_written_as_display_writes_them() {
        for number in [0, 7, -1, 10, 99, 1_000_000, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_int(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
        let mut out = Vec::new();
        put_digits(u64::MAX, &mut out);
        assert_eq!(out, u64::MAX.to_string().into_bytes());
        for hash in [0, 0xfedc_ba98, u128::MAX, 0x0123_4567_89ab_cdef << 64] {
            let mut out = Vec::new();
            put_hash(hash, &mut out);
            assert_eq!(out, format!("\"{hash:032x}\"").into_bytes());
        }
    }
}
