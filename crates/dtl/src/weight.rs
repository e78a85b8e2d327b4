//! What values weigh: the memory that they take, and the work to look through them.
//!
//! Values share their parts, so that a small one can stand for more items than any memory holds.
//! Whatever walks through a whole value, or writes it anew, is counted here before it begins.

use tahini_entity::{Str, Value, encoding};

use crate::values;

/// How many parts of values are looked at in the time of one step.
pub(crate) const PARTS_A_STEP: usize = 8;
/// How many bytes of a text are looked at in the time of one part; patterns take longest.
const BYTES_A_PART: usize = 8;

/// The bytes of memory that a value takes beside its place, without what its items take.
#[inline]
pub(crate) fn own(value: &Value) -> usize {
    match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => of_text(text),
        Value::List(items) | Value::Tuple(items) => size_of_val(items.as_slice()),
        Value::Dict(dict) => dict.len() * size_of::<(Str, Value)>(),
        Value::Bytes(bytes) => bytes.len(),
        Value::BigInt(_) | Value::Decimal(_) => 64 + digits(value),
        _ => 0,
    }
}

/// The bytes that a text takes beside its place; short ones take none.
#[inline]
pub(crate) fn of_text(text: &str) -> usize {
    if text.len() > 15 { text.len() + 16 } else { 0 }
}

/// The bytes that the items of a list take, each without what its own items take.
pub(crate) fn of_items(value: &Value) -> usize {
    values::sequence(value).map_or(0, |items| items.iter().map(own).sum())
}

/// The bytes that a value takes with everything in it when it shares nothing; no more is counted
/// once they are more than `most`.
pub(crate) fn whole(value: &Value, most: usize) -> usize {
    let mut sum = 0;
    walk(value, 0, &mut |value| {
        let names = match value {
            Value::Dict(dict) => dict.iter().map(|(name, _)| of_text(name)).sum(),
            _ => 0,
        };
        sum += own(value) + names;
        sum <= most
    });
    if sum > most { usize::MAX } else { sum }
}

/// How many parts there are to look at in a value, long texts and numbers counting as several; no
/// more is counted once they are more than `most`.
#[inline]
pub(crate) fn parts(value: &Value, most: usize) -> usize {
    if values::sequence(value).is_none() && !matches!(value, Value::Dict(_)) {
        return single(value);
    }
    let mut sum = 0;
    walk(value, 0, &mut |value| {
        sum += single(value);
        sum <= most
    });
    sum
}

/// The parts of a value without its items.
#[inline]
pub(crate) fn single(value: &Value) -> usize {
    1 + match value {
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => text.len() / BYTES_A_PART,
        Value::Bytes(bytes) => bytes.len() / BYTES_A_PART,
        // Arithmetic over long numbers takes the square of their length.
        Value::BigInt(_) | Value::Decimal(_) => digits(value).saturating_pow(2) / 256,
        _ => 0,
    }
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

/// Shows every part of a value until one is refused; a value deeper than any that can be written
/// is refused too.
fn walk(value: &Value, depth: usize, see: &mut impl FnMut(&Value) -> bool) -> bool {
    if !see(value) || depth > encoding::MAX_DEPTH {
        return false;
    }
    match value {
        Value::List(items) | Value::Tuple(items) => {
            items.iter().all(|item| walk(item, depth + 1, see))
        }
        Value::Dict(dict) => dict.iter().all(|(_, item)| walk(item, depth + 1, see)),
        _ => true,
    }
}
