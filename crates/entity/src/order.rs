//! Orders and equalities of values: there are three, and each has its name.
//!
//! - [`same`]: equal content, as the content hash sees it. Type-strict.
//! - [`eq`]: equal in the language. Numbers by value across integer, float and decimal, exactly.
//! - overlap, which joins use, is `eq` over the items of two lists; it belongs to the language.
//!
//! [`compare`] is the total order that sorting uses; it says `Equal` exactly where `eq` says true.

use std::cmp::Ordering;

use bigdecimal::BigDecimal;
use num_bigint::{BigInt, Sign};
use num_traits::{ToPrimitive, Zero};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::{Datetime, Dict, Str, Value};

/// The order of values of all types: null, booleans, numbers by value, dates and datetimes,
/// UUIDs, NIs, URIs, strings, dicts, tuples and lists, bytes.
///
/// Text is ordered by code point; a date comes before the datetime at its first instant; dicts
/// compare as their pairs sorted by name; lists item by item, and a list comes before the tuple
/// of the same items.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Datetime(a), Value::Datetime(b)) => a.cmp(b),
        (Value::Date(date), Value::Datetime(at)) => {
            first_instant(*date).cmp(at).then(Ordering::Less)
        }
        (Value::Datetime(_), Value::Date(_)) => compare(b, a).reverse(),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        (Value::Ni(a), Value::Ni(b))
        | (Value::Uri(a), Value::Uri(b))
        | (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.as_slice().cmp(b.as_slice()),
        (Value::Dict(a), Value::Dict(b)) if a.is_shared_with(b) => Ordering::Equal,
        (Value::Dict(a), Value::Dict(b)) => compare_dicts(a, b),
        (Value::List(x) | Value::Tuple(x), Value::List(y) | Value::Tuple(y)) => {
            let tuple = |value: &Value| matches!(value, Value::Tuple(_));
            compare_items(x, y).then(tuple(a).cmp(&tuple(b)))
        }
        _ if rank(a) == rank(b) => compare_numbers(a, b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are equal in the language: exactly and in order, with numbers by value
/// across their types. The order of a dict's names does not matter.
pub fn eq(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // The common case needs no order.
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Dict(a), Value::Dict(b)) if a.len() != b.len() => false,
        _ => compare(a, b) == Ordering::Equal,
    }
}

/// Whether two values are the same content: `1`, `1.0` and the decimals `1.0` and `1.00` all
/// differ. The order of a dict's names does not matter.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Decimal(a), Value::Decimal(b)) => {
            a.as_bigint_and_scale() == b.as_bigint_and_scale()
        }
        (Value::Int(_) | Value::BigInt(_), Value::Int(_) | Value::BigInt(_)) => eq(a, b),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b) && eq(a, b),
    }
}

/// A hash of what `eq` sees: values that are `eq` have equal keys, and others have different
/// ones but for chance, so that a hit is to be checked with `eq`.
pub fn key(value: &Value) -> u128 {
    let tag = rank(value);
    match value {
        Value::Null => xxh3_128(&[tag]),
        Value::Bool(it) => xxh3_128(&[tag, u8::from(*it)]),
        Value::String(text) | Value::Ni(text) | Value::Uri(text) => {
            xxh3_128_with_seed(text.as_bytes(), tag.into())
        }
        Value::Bytes(bytes) => xxh3_128_with_seed(bytes, tag.into()),
        Value::Uuid(uuid) => xxh3_128_with_seed(uuid.as_bytes(), tag.into()),
        // A date never equals a datetime, so that they take different seeds.
        Value::Date(date) => {
            xxh3_128_with_seed(&first_instant(*date).as_nanosecond().to_le_bytes(), 100)
        }
        Value::Datetime(at) => xxh3_128_with_seed(&at.as_nanosecond().to_le_bytes(), tag.into()),
        Value::List(items) => items_key(items, tag.into()),
        Value::Tuple(items) => items_key(items, 101),
        Value::Dict(dict) => {
            let sum = dict.iter().fold(0u128, |sum, (name, value)| {
                let pair = key(value).to_le_bytes();
                sum.wrapping_add(xxh3_128_with_seed(&pair, xxh3_64(name.as_bytes())))
            });
            xxh3_128_with_seed(&sum.to_le_bytes(), tag.into())
        }
        number => number_key(number, tag.into()),
    }
}

fn items_key(items: &[Value], seed: u64) -> u128 {
    let keys: Vec<u8> = items
        .iter()
        .flat_map(|item| key(item).to_le_bytes())
        .collect();
    xxh3_128_with_seed(&keys, seed)
}

/// The key of a number: its digits without zeros at the end, and its exponent of ten.
fn number_key(number: &Value, seed: u64) -> u128 {
    let (mut digits, mut exponent) = match whole(number) {
        Some(small) => (small, 0i64),
        None => {
            let (digits, exponent) = reduce_big(&exact(number));
            match i64::try_from(&digits) {
                Ok(small) => (small, exponent),
                Err(_) => {
                    let mut bytes = exponent.to_le_bytes().to_vec();
                    bytes.extend(digits.to_signed_bytes_le());
                    return xxh3_128_with_seed(&bytes, seed);
                }
            }
        }
    };
    if digits == 0 {
        exponent = 0;
    }
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
        exponent += 1;
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&exponent.to_le_bytes());
    bytes[8..].copy_from_slice(&digits.to_le_bytes());
    xxh3_128_with_seed(&bytes, seed)
}

/// Digits without zeros at the end, and the exponent of ten that they are multiplied with.
fn reduce_big(number: &BigDecimal) -> (BigInt, i64) {
    let (mut digits, scale) = number.clone().into_bigint_and_scale();
    let mut exponent = -scale;
    if digits.is_zero() {
        return (digits, 0);
    }
    // Large steps first: dividing one digit at a time costs the square of their number.
    let mut step = 1u32;
    let mut power = BigInt::from(10);
    let mut powers = Vec::new();
    while (&digits % &power).is_zero() {
        powers.push((step, power.clone()));
        power = &power * &power;
        step *= 2;
    }
    while let Some((step, power)) = powers.pop() {
        while (&digits % &power).is_zero() {
            digits /= &power;
            exponent += i64::from(step);
        }
    }
    (digits, exponent)
}

/// The place of a value's type in the order.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Decimal(_) => 2,
        Value::Date(_) | Value::Datetime(_) => 3,
        Value::Uuid(_) => 4,
        Value::Ni(_) => 5,
        Value::Uri(_) => 6,
        Value::String(_) => 7,
        Value::Dict(_) => 8,
        Value::List(_) | Value::Tuple(_) => 9,
        Value::Bytes(_) => 10,
    }
}

fn first_instant(date: jiff::civil::Date) -> Datetime {
    // Dates before the year 1, which the wire does not have, count as its first instant.
    Datetime::from_date(date).unwrap_or(Datetime::MIN)
}

fn compare_items(a: &[Value], b: &[Value]) -> Ordering {
    // The same items in the same memory, however much there is below them.
    if std::ptr::eq(a, b) {
        return Ordering::Equal;
    }
    let different = a
        .iter()
        .zip(b)
        .map(|(a, b)| compare(a, b))
        .find(|order| order.is_ne());
    different.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn compare_dicts(a: &Dict, b: &Dict) -> Ordering {
    let (a, b) = (sorted(a), sorted(b));
    for ((name, value), (other_name, other)) in a.iter().zip(&b) {
        let order = name.cmp(other_name).then_with(|| compare(value, other));
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn sorted(dict: &Dict) -> Vec<(&Str, &Value)> {
    let mut pairs: Vec<_> = dict.iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    pairs
}

/// The order of two numbers by exact value; two nulls are equal.
fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
        (Value::BigInt(a), Value::BigInt(b)) => a.cmp(b),
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => compare_decimals(&exact(a), &exact(b)),
        },
    }
}

/// A number that is a 64-bit integer by value, cheaply found out; `None` for others and for
/// decimals with a scale.
fn whole(number: &Value) -> Option<i64> {
    match number {
        Value::Int(number) => Some(*number),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e18 => {
            Some(*number as i64)
        }
        Value::Decimal(number) if number.fractional_digit_count() == 0 => {
            number.as_bigint_and_scale().0.to_i64()
        }
        _ => None,
    }
}

/// A number's exact value; every double is a decimal of finite length.
fn exact(number: &Value) -> BigDecimal {
    match number {
        Value::Int(number) => BigDecimal::from(*number),
        Value::BigInt(number) => BigDecimal::from_bigint(number.as_ref().clone(), 0),
        Value::Decimal(number) => number.as_ref().clone(),
        Value::Float(number) => exact_float(*number),
        _ => BigDecimal::from(0),
    }
}

/// m × 2^e as an integer for e ≥ 0, and as m × 5^−e × 10^e otherwise.
fn exact_float(number: f64) -> BigDecimal {
    let bits = number.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, exponent) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    let sign = if number.is_sign_negative() { -1 } else { 1 };
    let mantissa = BigInt::from(mantissa) * BigInt::from(sign);
    if exponent >= 0 {
        return BigDecimal::from_bigint(mantissa << exponent as u32, 0);
    }
    // Halving while possible keeps the digits few.
    let shift = mantissa
        .trailing_zeros()
        .unwrap_or(0)
        .min(exponent.unsigned_abs().into());
    let places = exponent.unsigned_abs() - shift as u32;
    BigDecimal::from_bigint(
        (mantissa >> shift) * BigInt::from(5).pow(places),
        i64::from(places),
    )
}

/// Compares without writing out powers of ten that exponents stand for, unless the numbers
/// have as many digits themselves.
fn compare_decimals(a: &BigDecimal, b: &BigDecimal) -> Ordering {
    let (sign, other) = (a.sign(), b.sign());
    if sign != other || sign == Sign::NoSign {
        return sign.cmp(&other);
    }
    let size = |number: &BigDecimal| {
        i128::from(number.digits()) - i128::from(number.fractional_digit_count())
    };
    let order = size(a).cmp(&size(b)).then_with(|| {
        let (x, scale) = a.as_bigint_and_scale();
        let (y, other) = b.as_bigint_and_scale();
        // Equal sizes: the scales differ by no more than the numbers of digits do.
        let more = |by: i64| BigInt::from(10).pow(by as u32);
        let (x, y) = if scale < other {
            (
                x.magnitude() * more(other - scale).magnitude(),
                y.magnitude().clone(),
            )
        } else {
            (
                x.magnitude().clone(),
                y.magnitude() * more(scale - other).magnitude(),
            )
        };
        x.cmp(&y)
    });
    if sign == Sign::Minus {
        order.reverse()
    } else {
        order
    }
}
