//! What values weigh: the memory that they take, and the work to look through them.
//!
//! Values share their parts, so that a small one can stand for more items than any memory holds.
//! Whatever walks through a whole value, or writes it anew, is counted here before it begins.

use tahini_entity::{Str, Value, encoding};

use crate::limits::Limit;
use crate::values;

/// How many parts of values are looked at in the time of one step.
pub(crate) const PARTS_A_STEP: usize = 8;
/// How many names are compared with another one in the time of one step.
pub(crate) const NAMES_A_STEP: usize = 16;
/// How many names are matched with a pattern in the time of one step.
pub(crate) const MATCHES_A_STEP: usize = 4;
/// How many bytes of a text are compared or copied in the time of one part.
const BYTES_A_PART: usize = 8;
/// As how many parts a letter of a format counts.
const PARTS_A_LETTER: usize = 4;
/// How many bytes of a text are read letter by letter in the time of one part.
const LETTERS_A_PART: usize = 2;

/// The bytes of memory that a value takes beside its place, without what its items take.
#[inline]
pub(crate) fn own(value: &Value) -> usize {
    match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => of_text(text),
        Value::List(items) | Value::Tuple(items) => of_block(size_of_val(items.as_slice())),
        Value::Dict(dict) => of_block(dict.len() * size_of::<(Str, Value)>()),
        Value::Bytes(bytes) => of_block(bytes.len()),
        Value::BigInt(_) | Value::Decimal(_) => 64 + digits(value),
        _ => 0,
    }
}

/// The bytes that a text takes beside its place; short ones take none.
#[inline]
pub(crate) fn of_text(text: &str) -> usize {
    if text.len() > 15 {
        of_block(text.len())
    } else {
        0
    }
}

/// The bytes that a block of memory takes, with what the allocator and its owners note beside it.
fn of_block(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + 32 }
}

/// How many items a list has, or pairs a dict.
pub(crate) fn items(value: &Value) -> usize {
    match value {
        Value::Dict(dict) => dict.len(),
        other => values::items(other).len(),
    }
}

/// The bytes that the items of a list take, each without what its own items take.
pub(crate) fn of_items(value: &Value) -> usize {
    values::sequence(value).map_or(0, |items| items.iter().map(own).sum())
}

/// The bytes that a value takes with everything in it when it shares nothing; no more is counted
/// once they are more than `most`.
pub(crate) fn whole(value: &Value, most: usize) -> usize {
    let mut sum = 0;
    let walked = walk(value, 0, &mut |value| {
        let names = match value {
            Value::Dict(dict) => dict.iter().map(|(name, _)| of_text(name)).sum(),
            _ => 0,
        };
        sum += own(value) + names;
        sum <= most
    });
    match walked {
        Ok(()) => sum,
        Err(_) => usize::MAX,
    }
}

/// How many parts there are to look at in a value, long texts and numbers counting as several; no
/// more is counted once they are more than `most`.
///
/// # Errors
/// When lists and dicts nest deeper than anything that can be written.
#[inline]
pub(crate) fn parts(value: &Value, most: usize) -> Result<usize, Limit> {
    if !has_items(value) {
        return Ok(single(value));
    }
    let mut sum = 0;
    let walked = walk(value, 0, &mut |value| {
        sum += single(value);
        if let Value::Dict(dict) = value {
            // Dicts are compared in the order of their names.
            let names = dict.iter().map(|(name, _)| name.len() / BYTES_A_PART);
            let sorting = dict.len() * dict.len().max(1).ilog2() as usize / 4;
            sum += names.sum::<usize>() + sorting;
        }
        sum <= most
    });
    match walked {
        Err(Refused::TooDeep) => Err(TOO_DEEP),
        Ok(()) | Err(Refused::Enough) => Ok(sum),
    }
}

/// What is said of a value that nests too deep.
pub(crate) const TOO_DEEP: Limit = Limit("levels of nested values", encoding::MAX_DEPTH as u64);

/// Whether there may be values in a value.
#[inline]
pub(crate) fn has_items(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Tuple(_) | Value::Dict(_))
}

/// The parts of a value without its items, for those who compare or copy.
#[inline]
pub(crate) fn single(value: &Value) -> usize {
    1 + match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => text.len() / BYTES_A_PART,
        Value::Bytes(bytes) => bytes.len() / BYTES_A_PART,
        Value::BigInt(_) | Value::Decimal(_) => long(value),
        _ => 0,
    }
}

/// What a function's other arguments take for each value that it is called for.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// So many parts: a text may be a format that is followed letter by letter.
    pub(crate) parts: usize,
    /// How often each letter of the value may be looked at: as often as the longest of the names
    /// has letters that are looked for, all at once.
    pub(crate) times: usize,
}

impl Known {
    /// There are no others.
    pub(crate) const NOTHING: Known = Known { parts: 0, times: 1 };

    pub(crate) fn of<'v>(values: impl Iterator<Item = &'v Value>) -> Known {
        values.fold(Known::NOTHING, |known, value| match value {
            Value::String(text) => Known {
                parts: known.parts + 1 + PARTS_A_LETTER * text.len(),
                ..known
            },
            Value::Dict(dict) => {
                let longest = dict.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                Known {
                    parts: known.parts + 1,
                    times: known.times + 2 * longest,
                }
            }
            other => Known {
                parts: known.parts + single(other),
                ..known
            },
        })
    }
}

/// The parts of a value without its items, for those who read texts letter by letter.
#[inline]
pub(crate) fn letters(value: &Value) -> usize {
    1 + match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => text.len() / LETTERS_A_PART,
        Value::Bytes(bytes) => bytes.len() / LETTERS_A_PART,
        Value::BigInt(_) | Value::Decimal(_) => long(value),
        _ => 0,
    }
}

/// The parts that a number counts for the arithmetic which made it; none for other values.
#[inline]
pub(crate) fn arithmetic(value: &Value) -> usize {
    match value {
        Value::BigInt(_) | Value::Decimal(_) => long(value),
        _ => 0,
    }
}

/// The parts of a long number: arithmetic over those takes the square of their length.
#[cold]
fn long(value: &Value) -> usize {
    digits(value).saturating_pow(2) / 64
}

/// The bytes that the digits of a long number take.
fn digits(value: &Value) -> usize {
    let bits = match value {
        Value::BigInt(number) => number.bits(),
        Value::Decimal(number) => number.as_bigint_and_scale().0.bits(),
        _ => 0,
    };
    usize::try_from(bits / 8).unwrap_or(usize::MAX)
}

/// Why a walk did not get to its end.
enum Refused {
    /// Nobody wants to see more.
    Enough,
    TooDeep,
}

/// Shows every part of a value until one is refused; a value deeper than any that can be written
/// is refused too.
fn walk(value: &Value, depth: usize, see: &mut impl FnMut(&Value) -> bool) -> Result<(), Refused> {
    if !see(value) {
        return Err(Refused::Enough);
    }
    if depth > encoding::MAX_DEPTH {
        return Err(Refused::TooDeep);
    }
    match value {
        Value::List(items) | Value::Tuple(items) => {
            items.iter().try_for_each(|item| walk(item, depth + 1, see))
        }
        Value::Dict(dict) => dict
            .iter()
            .try_for_each(|(_, item)| walk(item, depth + 1, see)),
        _ => Ok(()),
    }
}
