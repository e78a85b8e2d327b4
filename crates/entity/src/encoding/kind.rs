//! What a value is, without reading it.

use super::token::{Entries, Items, byte, bytes, container, split, varint};
use super::{DecodeError, tag};

/// The kinds of values that a description of data tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Null.
    Null,
    /// True or false.
    Boolean,
    /// An integer of any size.
    Integer,
    /// A float.
    Float,
    /// A decimal.
    Decimal,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A date.
    Date,
    /// A datetime.
    Datetime,
    /// A UUID.
    Uuid,
    /// A namespaced identifier.
    Ni,
    /// A URI.
    Uri,
    /// A list or a tuple.
    List,
    /// A dict.
    Dict,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 14] = [
        Kind::Null,
        Kind::Boolean,
        Kind::Integer,
        Kind::Float,
        Kind::Decimal,
        Kind::String,
        Kind::Bytes,
        Kind::Date,
        Kind::Datetime,
        Kind::Uuid,
        Kind::Ni,
        Kind::Uri,
        Kind::List,
        Kind::Dict,
    ];
}

/// An encoded value of which nothing but its kind was looked at; containers can be gone through.
#[derive(Clone, Copy, Debug)]
pub enum Outline<'a> {
    /// A value without parts.
    Scalar(Kind),
    /// A namespaced identifier, as its UTF-8 bytes.
    Ni(&'a [u8]),
    /// A list or a tuple.
    List(Items<'a>),
    /// A dict.
    Dict(Entries<'a>),
}

/// Tells what the value at the front is and steps over it. Several times as fast as `token`: text
/// is not checked and numbers are not put together.
///
/// # Errors
/// When the bytes end too early or start with an unknown tag.
#[inline]
pub fn outline<'a>(from: &mut &'a [u8]) -> Result<Outline<'a>, DecodeError> {
    let kind = match byte(from)? {
        tag::NULL => Kind::Null,
        tag::FALSE | tag::TRUE => Kind::Boolean,
        tag::INT => {
            varint(from)?;
            Kind::Integer
        }
        tag::STRING => {
            bytes(from)?;
            Kind::String
        }
        tag::FLOAT => {
            split(from, 8)?;
            Kind::Float
        }
        tag::DECIMAL => {
            varint(from)?;
            bytes(from)?;
            Kind::Decimal
        }
        tag::NI => return Ok(Outline::Ni(bytes(from)?)),
        tag::DATETIME => {
            varint(from)?;
            varint(from)?;
            Kind::Datetime
        }
        tag::DATE => {
            varint(from)?;
            Kind::Date
        }
        tag::BIG_INT => {
            bytes(from)?;
            Kind::Integer
        }
        tag::BYTES => {
            bytes(from)?;
            Kind::Bytes
        }
        tag::URI => {
            bytes(from)?;
            Kind::Uri
        }
        tag::UUID => {
            split(from, 16)?;
            Kind::Uuid
        }
        tag::LIST | tag::LIST_WITH_DICTS | tag::TUPLE | tag::TUPLE_WITH_DICTS => {
            let (count, bytes) = container(from)?;
            return Ok(Outline::List(Items { count, bytes }));
        }
        tag::DICT => {
            let (count, bytes) = container(from)?;
            return Ok(Outline::Dict(Entries { count, bytes }));
        }
        other => return Err(DecodeError::Tag(other)),
    };
    Ok(Outline::Scalar(kind))
}
