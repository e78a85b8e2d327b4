//! The storage encoding of values: one tag byte, then a payload that says where it ends.
//!
//! | tag | value | payload |
//! | --- | --- | --- |
//! | 0, 1, 2 | null, false, true | nothing |
//! | 3 | integer of 64 bits | zigzag varint |
//! | 4 | larger integer | varint length, two's complement big-endian, as short as possible |
//! | 5 | float | 8 bytes, little-endian |
//! | 6 | decimal | zigzag varint scale, then the digits as in tag 4 |
//! | 7 | string | varint length, UTF-8 |
//! | 8 | bytes | varint length, bytes |
//! | 9 | datetime | zigzag varint seconds since 1970 UTC, varint nanoseconds |
//! | 10, 11 | NI, URI | as a string, without the wire's tag |
//! | 12 | UUID | 16 bytes |
//! | 13, 17 | list, tuple with no dict at any depth | varint byte length, varint count, items |
//! | 15 | dict | varint byte length, varint count, pairs of name (varint length, UTF-8) and value |
//! | 16 | date | varint of year × 512 + month × 32 + day |
//! | 18, 19 | list, tuple with a dict somewhere inside | as 13 |
//!
//! Tag 14 is kept free for a dict with a shape. Varints are LEB128. The byte length of a
//! container counts its items only, so that skipping is one addition whatever it holds.
//! The encoding of a value without dicts is canonical: equal content has equal bytes, which
//! is what the content hash builds on.

mod kind;
mod token;

pub use kind::{Kind, Outline, outline};
pub(crate) use token::string_bytes;
pub use token::{DecodeError, Entries, Items, Token, token, try_decode, try_skip};

use num_bigint::BigInt;

use crate::Value;

/// How deep lists, tuples and dictionaries may nest below an entity's root.
pub const MAX_DEPTH: usize = 100;

pub(crate) mod tag {
    pub const NULL: u8 = 0;
    pub const FALSE: u8 = 1;
    pub const TRUE: u8 = 2;
    pub const INT: u8 = 3;
    pub const BIG_INT: u8 = 4;
    pub const FLOAT: u8 = 5;
    pub const DECIMAL: u8 = 6;
    pub const STRING: u8 = 7;
    pub const BYTES: u8 = 8;
    pub const DATETIME: u8 = 9;
    pub const NI: u8 = 10;
    pub const URI: u8 = 11;
    pub const UUID: u8 = 12;
    pub const LIST: u8 = 13;
    pub const DICT: u8 = 15;
    pub const DATE: u8 = 16;
    pub const TUPLE: u8 = 17;
    pub const LIST_WITH_DICTS: u8 = 18;
    pub const TUPLE_WITH_DICTS: u8 = 19;
}

/// Why a value cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Lists or dictionaries nest deeper than `MAX_DEPTH`.
    #[error("expected values nested at most {MAX_DEPTH} deep, found deeper ones")]
    TooDeep,
}

/// Appends `value`'s encoding. What `Value` says about its one form is established here:
/// NaN and the infinities become null, −0.0 becomes 0.0, a `BigInt` that fits 64 bits an integer.
///
/// # Errors
/// When `value` nests deeper than `MAX_DEPTH`; `out` then holds a part of it.
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_at(value, 1, out).map(drop)
}

/// Takes one value off the front; panics on bytes that `encode` did not write.
pub fn decode(from: &mut &[u8]) -> Value {
    try_decode(from).expect("the bytes were written by encode")
}

/// Steps over one value; panics on bytes that `encode` did not write.
pub fn skip(from: &mut &[u8]) {
    try_skip(from).expect("the bytes were written by encode");
}

/// Takes one value off the front, still encoded; panics on bytes that `encode` did not write.
pub fn take<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let whole = *from;
    skip(from);
    &whole[..whole.len() - from.len()]
}

/// Encodes `value`, whose containers are at `depth`; tells whether it is or holds a dict.
fn encode_at(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
    match value {
        Value::Null => out.push(tag::NULL),
        Value::Bool(false) => out.push(tag::FALSE),
        Value::Bool(true) => out.push(tag::TRUE),
        Value::Int(number) => put_int(out, *number),
        Value::BigInt(number) => put_big_int(out, number),
        Value::Float(number) => put_float(out, *number),
        Value::Decimal(number) => {
            let (digits, scale) = number.as_bigint_and_scale();
            put_decimal(out, &digits, scale);
        }
        Value::String(text) => put_text(out, tag::STRING, text),
        Value::Ni(text) => put_text(out, tag::NI, text),
        Value::Uri(text) => put_text(out, tag::URI, text),
        Value::Bytes(bytes) => put_bytes(out, tag::BYTES, bytes),
        Value::Date(date) => put_date(out, *date),
        Value::Datetime(at) => put_datetime(out, *at),
        Value::Uuid(uuid) => {
            out.push(tag::UUID);
            out.extend_from_slice(uuid.as_bytes());
        }
        Value::List(items) => return encode_items(items, tag::LIST, depth, out),
        Value::Tuple(items) => return encode_items(items, tag::TUPLE, depth, out),
        Value::Dict(dict) => {
            check_depth(depth)?;
            let at = open(out);
            for (name, value) in dict.iter() {
                put_name(out, name);
                encode_at(value, depth + 1, out)?;
            }
            close(out, at, tag::DICT, dict.len());
            return Ok(true);
        }
    }
    Ok(false)
}

fn encode_items(
    items: &[Value],
    kind: u8,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    check_depth(depth)?;
    let at = open(out);
    let mut dicts = false;
    for item in items {
        dicts |= encode_at(item, depth + 1, out)?;
    }
    close(out, at, with_dicts(kind, dicts), items.len());
    Ok(dicts)
}

fn check_depth(depth: usize) -> Result<(), EncodeError> {
    if depth > MAX_DEPTH {
        Err(EncodeError::TooDeep)
    } else {
        Ok(())
    }
}

/// The tag of a list or tuple, which says whether there is a dict inside.
pub(crate) fn with_dicts(kind: u8, dicts: bool) -> u8 {
    match (kind, dicts) {
        (tag::LIST, true) => tag::LIST_WITH_DICTS,
        (tag::TUPLE, true) => tag::TUPLE_WITH_DICTS,
        _ => kind,
    }
}

/// Whether the encoded value is or holds a dict, whose bytes depend on the order of its names.
pub(crate) fn has_dict(encoded: &[u8]) -> bool {
    matches!(
        encoded.first(),
        Some(&(tag::DICT | tag::LIST_WITH_DICTS | tag::TUPLE_WITH_DICTS))
    )
}

/// Room for the header of a small container: tag, byte length, count.
const SMALL_HEADER: usize = 3;

/// Starts a container whose items follow; `close` writes its header.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; SMALL_HEADER]);
    at
}

/// Writes the header of the container that `open` started at `at`. The items move only if
/// the container is too large for the three bytes that were kept free.
pub(crate) fn close(out: &mut Vec<u8>, at: usize, tag: u8, count: usize) {
    let len = out.len() - at - SMALL_HEADER;
    if len < 128 && count < 128 {
        out[at..at + SMALL_HEADER].copy_from_slice(&[tag, len as u8, count as u8]);
        return;
    }
    let mut header = Vec::with_capacity(16);
    header.push(tag);
    put_varint(&mut header, len as u64);
    put_varint(&mut header, count as u64);
    out.splice(at..at + SMALL_HEADER, header);
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    put_varint(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
}

pub(crate) fn put_int(out: &mut Vec<u8>, number: i64) {
    out.push(tag::INT);
    put_zigzag(out, number);
}

pub(crate) fn put_big_int(out: &mut Vec<u8>, number: &BigInt) {
    match i64::try_from(number) {
        Ok(small) => put_int(out, small),
        Err(_) => put_bytes(out, tag::BIG_INT, &number.to_signed_bytes_be()),
    }
}

pub(crate) fn put_float(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() {
        out.push(tag::NULL);
        return;
    }
    out.push(tag::FLOAT);
    // Adding 0.0 turns −0.0 into 0.0 and changes nothing else.
    out.extend_from_slice(&(number + 0.0).to_le_bytes());
}

pub(crate) fn put_decimal(out: &mut Vec<u8>, digits: &BigInt, scale: i64) {
    out.push(tag::DECIMAL);
    put_zigzag(out, scale);
    let digits = digits.to_signed_bytes_be();
    put_varint(out, digits.len() as u64);
    out.extend_from_slice(&digits);
}

/// `put_decimal` for digits that fit 64 bits, without building a big integer.
pub(crate) fn put_small_decimal(out: &mut Vec<u8>, digits: i64, scale: i64) {
    out.push(tag::DECIMAL);
    put_zigzag(out, scale);
    let bytes = digits.to_be_bytes();
    // A leading byte that only repeats the sign of the next one is not written.
    let sign = if digits < 0 { 255 } else { 0 };
    let mut from = 0;
    while from < 7 && bytes[from] == sign && (bytes[from + 1] ^ sign) < 128 {
        from += 1;
    }
    put_varint(out, (8 - from) as u64);
    out.extend_from_slice(&bytes[from..]);
}

#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, tag: u8, text: &str) {
    put_bytes(out, tag, text.as_bytes());
}

#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if bytes.len() < 128 {
        out.extend_from_slice(&[tag, bytes.len() as u8]);
    } else {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
    }
    out.extend_from_slice(bytes);
}

pub(crate) fn put_date(out: &mut Vec<u8>, date: jiff::civil::Date) {
    out.push(tag::DATE);
    // Years before 0 do not occur in entities; zigzag keeps them all the same.
    let packed =
        i64::from(date.year()) * 512 + i64::from(date.month()) * 32 + i64::from(date.day());
    put_zigzag(out, packed);
}

pub(crate) fn put_datetime(out: &mut Vec<u8>, at: crate::Datetime) {
    out.push(tag::DATETIME);
    put_zigzag(out, at.as_second());
    put_varint(out, at.subsec_nanosecond().into());
}
