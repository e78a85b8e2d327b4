//! Reading encoded values one step at a time, without building trees.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use ecow::EcoVec;
use jiff::civil::Date;
use num_bigint::BigInt;

use super::{MAX_DEPTH, tag};
use crate::{Datetime, Dict, Str, Value};

/// Why bytes are not a value in the storage encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the value.
    #[error("expected more bytes of an encoded value, found the end")]
    Short,
    /// A tag that no value has.
    #[error("expected the tag of a value, found {0}")]
    Tag(u8),
    /// A payload that its tag does not allow: text that is not UTF-8, a 13th month …
    #[error("expected the payload of {0}, found other bytes")]
    Payload(&'static str),
    /// Containers nest deeper than `MAX_DEPTH`.
    #[error("expected values nested at most {MAX_DEPTH} deep, found deeper ones")]
    TooDeep,
}

/// One encoded value, opened: scalars are ready to use, containers are still encoded.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A larger integer: two's complement, big-endian.
    BigInt(&'a [u8]),
    /// A float.
    Float(f64),
    /// A decimal: `digits` (as in `BigInt`) × 10^−`scale`.
    Decimal {
        /// Two's complement, big-endian.
        digits: &'a [u8],
        /// Digits after the point; negative for trailing zeros before it.
        scale: i64,
    },
    /// A string.
    String(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A date.
    Date(Date),
    /// A datetime.
    Datetime(Datetime),
    /// A UUID.
    Uuid(uuid::Uuid),
    /// An NI.
    Ni(&'a str),
    /// A URI.
    Uri(&'a str),
    /// A list.
    List(Items<'a>),
    /// A tuple.
    Tuple(Items<'a>),
    /// A dict.
    Dict(Entries<'a>),
}

/// The encoded items of a list or tuple.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    pub(super) count: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Items<'a> {
    /// How many items there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The items one after another, each to be taken off the front.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The encoded pairs of a dict.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    pub(super) count: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    /// How many pairs are left.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes the next name and its encoded value; `None` after the last one.
    ///
    /// # Errors
    /// When the bytes are not such a pair, or bytes follow the last pair.
    pub fn try_next(&mut self) -> Result<Option<(&'a str, &'a [u8])>, DecodeError> {
        if self.count == 0 {
            return if self.bytes.is_empty() {
                Ok(None)
            } else {
                Err(DecodeError::Payload("a dict"))
            };
        }
        self.count -= 1;
        let name = text(&mut self.bytes, "a name")?;
        let whole = self.bytes;
        try_skip(&mut self.bytes)?;
        Ok(Some((name, &whole[..whole.len() - self.bytes.len()])))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    /// The next name and its encoded value; panics on bytes that `encode` did not write.
    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().expect("the bytes were written by encode")
    }
}

/// Opens the value at the front and steps over it.
///
/// # Errors
/// When the bytes are not an encoded value. The items of containers are not looked at.
#[inline]
pub fn token<'a>(from: &mut &'a [u8]) -> Result<Token<'a>, DecodeError> {
    Ok(match byte(from)? {
        tag::NULL => Token::Null,
        tag::FALSE => Token::Bool(false),
        tag::TRUE => Token::Bool(true),
        tag::INT => Token::Int(zigzag(from)?),
        tag::BIG_INT => Token::BigInt(bytes(from)?),
        tag::FLOAT => Token::Float(f64::from_le_bytes(array(from)?)),
        tag::DECIMAL => {
            let scale = zigzag(from)?;
            Token::Decimal {
                digits: bytes(from)?,
                scale,
            }
        }
        tag::STRING => Token::String(text(from, "a string")?),
        tag::BYTES => Token::Bytes(bytes(from)?),
        tag::NI => Token::Ni(text(from, "an NI")?),
        tag::URI => Token::Uri(text(from, "a URI")?),
        tag::UUID => Token::Uuid(uuid::Uuid::from_bytes(array(from)?)),
        tag::DATE => Token::Date(date(zigzag(from)?)?),
        tag::DATETIME => {
            let seconds = zigzag(from)?;
            Token::Datetime(datetime(seconds, varint(from)?)?)
        }
        tag::LIST | tag::LIST_WITH_DICTS => {
            let (count, bytes) = container(from)?;
            Token::List(Items { count, bytes })
        }
        tag::TUPLE | tag::TUPLE_WITH_DICTS => {
            let (count, bytes) = container(from)?;
            Token::Tuple(Items { count, bytes })
        }
        tag::DICT => {
            let (count, bytes) = container(from)?;
            Token::Dict(Entries { count, bytes })
        }
        other => return Err(DecodeError::Tag(other)),
    })
}

/// Takes one value off the front of bytes that may be anything.
///
/// # Errors
/// When the bytes are not a value in the storage encoding.
pub fn try_decode(from: &mut &[u8]) -> Result<Value, DecodeError> {
    decode_at(from, 1)
}

/// Steps over one value; what it holds is not checked.
///
/// # Errors
/// When the bytes end too early or start with an unknown tag.
#[inline]
pub fn try_skip(from: &mut &[u8]) -> Result<(), DecodeError> {
    let tag = byte(from)?;
    let len = match tag {
        tag::NULL | tag::FALSE | tag::TRUE => return Ok(()),
        tag::INT | tag::DATE => return varint(from).map(drop),
        tag::DATETIME => {
            varint(from)?;
            return varint(from).map(drop);
        }
        tag::FLOAT => 8,
        tag::UUID => 16,
        tag::STRING | tag::BYTES | tag::BIG_INT | tag::NI | tag::URI => length(from)?,
        tag::DECIMAL => {
            varint(from)?;
            length(from)?
        }
        tag::LIST | tag::LIST_WITH_DICTS | tag::TUPLE | tag::TUPLE_WITH_DICTS | tag::DICT => {
            let len = length(from)?;
            varint(from)?;
            len
        }
        other => return Err(DecodeError::Tag(other)),
    };
    split(from, len).map(drop)
}

fn decode_at(from: &mut &[u8], depth: usize) -> Result<Value, DecodeError> {
    Ok(match token(from)? {
        Token::Null => Value::Null,
        Token::Bool(it) => Value::Bool(it),
        Token::Int(number) => Value::Int(number),
        Token::BigInt(bytes) => Value::integer(BigInt::from_signed_bytes_be(bytes)),
        Token::Float(number) => Value::float(number),
        Token::Decimal { digits, scale } => {
            let digits = BigInt::from_signed_bytes_be(digits);
            Value::Decimal(Arc::new(BigDecimal::new(digits, scale)))
        }
        Token::String(text) => Value::String(text.into()),
        Token::Bytes(bytes) => Value::Bytes(bytes.into()),
        Token::Date(date) => Value::Date(date),
        Token::Datetime(at) => Value::Datetime(at),
        Token::Uuid(uuid) => Value::Uuid(uuid),
        Token::Ni(text) => Value::Ni(text.into()),
        Token::Uri(text) => Value::Uri(text.into()),
        Token::List(items) => Value::List(decode_items(items, depth)?),
        Token::Tuple(items) => Value::Tuple(decode_items(items, depth)?),
        Token::Dict(mut entries) => {
            check_depth(depth)?;
            let mut dict = Dict::new();
            while let Some((name, mut value)) = entries.try_next()? {
                dict.push_new(Str::from(name), decode_at(&mut value, depth + 1)?);
            }
            Value::Dict(dict)
        }
    })
}

fn decode_items(items: Items<'_>, depth: usize) -> Result<EcoVec<Value>, DecodeError> {
    check_depth(depth)?;
    let mut rest = items.bytes;
    let mut list = EcoVec::with_capacity(items.count);
    for _ in 0..items.count {
        list.push(decode_at(&mut rest, depth + 1)?);
    }
    if rest.is_empty() {
        Ok(list)
    } else {
        Err(DecodeError::Payload("a list"))
    }
}

fn check_depth(depth: usize) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        Err(DecodeError::TooDeep)
    } else {
        Ok(())
    }
}

/// Count and items of a container. Every item has at least one byte, so that a count that
/// was made up cannot reserve more memory than there are bytes.
#[inline]
pub(super) fn container<'a>(from: &mut &'a [u8]) -> Result<(usize, &'a [u8]), DecodeError> {
    let len = length(from)?;
    let count = length(from)?;
    let items = split(from, len)?;
    if count > len {
        Err(DecodeError::Payload("a list or dict"))
    } else {
        Ok((count, items))
    }
}

#[inline]
pub(super) fn byte(from: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&first, rest) = from.split_first().ok_or(DecodeError::Short)?;
    *from = rest;
    Ok(first)
}

#[inline]
pub(super) fn varint(from: &mut &[u8]) -> Result<u64, DecodeError> {
    let first = byte(from)?;
    if first < 128 {
        return Ok(u64::from(first));
    }
    let mut number = u64::from(first & 127);
    for shift in (7..64).step_by(7) {
        let next = byte(from)?;
        number |= u64::from(next & 127) << shift;
        if next < 128 {
            return Ok(number);
        }
    }
    Err(DecodeError::Payload("a varint"))
}

fn zigzag(from: &mut &[u8]) -> Result<i64, DecodeError> {
    let number = varint(from)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[inline]
fn length(from: &mut &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(varint(from)?).map_err(|_| DecodeError::Short)
}

#[inline]
pub(super) fn split<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, rest) = from.split_at_checked(len).ok_or(DecodeError::Short)?;
    *from = rest;
    Ok(head)
}

fn array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, rest) = from.split_first_chunk().ok_or(DecodeError::Short)?;
    *from = rest;
    Ok(*head)
}

/// Takes a string off the front as its UTF-8 bytes, which are not checked again; `None` where
/// another value stands there.
#[inline]
pub(crate) fn string_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = from.strip_prefix(&[tag::STRING])?;
    let text = bytes(&mut rest).ok()?;
    *from = rest;
    Some(text)
}

#[inline]
pub(super) fn bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = length(from)?;
    split(from, len)
}

fn text<'a>(from: &mut &'a [u8], what: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes(from)?).map_err(|_| DecodeError::Payload(what))
}

fn date(packed: i64) -> Result<Date, DecodeError> {
    let wrong = DecodeError::Payload("a date");
    let year = i16::try_from(packed.div_euclid(512)).map_err(|_| wrong)?;
    let rest = packed.rem_euclid(512);
    Date::new(year, (rest / 32) as i8, (rest % 32) as i8).map_err(|_| wrong)
}

fn datetime(seconds: i64, nanoseconds: u64) -> Result<Datetime, DecodeError> {
    let nanoseconds = u32::try_from(nanoseconds).ok();
    nanoseconds
        .and_then(|nanoseconds| Datetime::new(seconds, nanoseconds))
        .ok_or(DecodeError::Payload("a datetime"))
}
