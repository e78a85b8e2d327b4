//! Arithmetic over the three kinds of numbers.
//!
//! Mixed operands take the more exact kind: integer and float give a float, anything with a
//! decimal gives a decimal, and dividing integers gives a decimal. A result that is no number
//! (division by zero, overflow of a float) is null.

use std::str::FromStr;

use bigdecimal::{BigDecimal, RoundingMode};
use num_bigint::BigInt;
use num_traits::{FromPrimitive, Signed, ToPrimitive, Zero};
use tahini_entity::Value;
use tahini_entity::json::integer_fits;

use crate::limits::{Limit, MAX_DECIMAL_DIGITS, MAX_INTEGER_DIGITS};

/// Significant digits of a quotient that does not come out even.
const QUOTIENT_DIGITS: u64 = 28;

/// A number of any kind, taken out of its value.
#[derive(Clone, Debug)]
pub(crate) enum Number {
    Int(i64),
    Big(BigInt),
    Float(f64),
    Decimal(BigDecimal),
}

/// Two numbers brought to one kind.
enum Pair {
    Int(i64, i64),
    Big(BigInt, BigInt),
    Float(f64, f64),
    Decimal(BigDecimal, BigDecimal),
}

impl Number {
    /// The number in a value; `None` for every other kind.
    pub(crate) fn of(value: &Value) -> Option<Number> {
        Some(match value {
            Value::Int(number) => Number::Int(*number),
            Value::BigInt(number) => Number::Big((**number).clone()),
            Value::Float(number) => Number::Float(*number),
            Value::Decimal(number) => Number::Decimal((**number).clone()),
            _ => return None,
        })
    }

    /// The number as a value, in its one form.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Number::Int(number) => Value::Int(number),
            Number::Big(number) => Value::integer(number),
            Number::Float(number) => Value::float(number),
            Number::Decimal(number) => Value::decimal(number),
        }
    }

    /// As an integer of any size; `None` when it is none.
    pub(crate) fn to_big(&self) -> Option<BigInt> {
        match self {
            Number::Int(number) => Some(BigInt::from(*number)),
            Number::Big(number) => Some(number.clone()),
            _ => None,
        }
    }

    /// As a double, as near as it gets.
    pub(crate) fn to_f64(&self) -> f64 {
        match self {
            Number::Int(number) => *number as f64,
            Number::Big(number) => number.to_f64().unwrap_or(f64::NAN),
            Number::Float(number) => *number,
            Number::Decimal(number) => number.to_f64().unwrap_or(f64::NAN),
        }
    }

    /// As a decimal; a float by its shortest text, so that 2.3 stays 2.3.
    pub(crate) fn to_decimal(&self) -> Option<BigDecimal> {
        match self {
            Number::Int(number) => Some(BigDecimal::from(*number)),
            Number::Big(number) => Some(BigDecimal::from(number.clone())),
            Number::Float(number) => float_to_decimal(*number),
            Number::Decimal(number) => Some(number.clone()),
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Number::Int(number) => *number == 0,
            Number::Big(number) => number.is_zero(),
            Number::Float(number) => *number == 0.0,
            Number::Decimal(number) => number.is_zero(),
        }
    }

    fn pair(a: Number, b: Number) -> Result<Pair, Limit> {
        Ok(match (a, b) {
            (Number::Int(a), Number::Int(b)) => Pair::Int(a, b),
            (a @ Number::Decimal(_), b) | (a, b @ Number::Decimal(_)) => {
                let (a, b) = (checked(a.to_decimal())?, checked(b.to_decimal())?);
                Pair::Decimal(a, b)
            }
            (a @ Number::Float(_), b) | (a, b @ Number::Float(_)) => {
                Pair::Float(a.to_f64(), b.to_f64())
            }
            (a, b) => Pair::Big(integer(&a), integer(&b)),
        })
    }
}

fn integer(number: &Number) -> BigInt {
    number.to_big().expect("only integers come here")
}

/// A finite double as the decimal that its shortest text says.
fn float_to_decimal(number: f64) -> Option<BigDecimal> {
    BigDecimal::from_str(&format!("{number:e}")).ok()
}

/// Refuses decimals so long that one operation would fill the memory.
fn checked(number: Option<BigDecimal>) -> Result<BigDecimal, Limit> {
    let number = number.unwrap_or_default();
    if fits(&number) {
        Ok(number)
    } else {
        Err(Limit("digits in one decimal", MAX_DECIMAL_DIGITS))
    }
}

/// Whether a decimal stays inside the limit on either side of the point.
pub(crate) fn fits(number: &BigDecimal) -> bool {
    let scale = number.fractional_digit_count();
    let most = MAX_DECIMAL_DIGITS as i64;
    scale.abs() <= most && number.digits() <= 2 * MAX_DECIMAL_DIGITS
}

const TOO_LONG: Limit = Limit("digits in one integer", MAX_INTEGER_DIGITS);

/// An integer that stays inside the limit, as a value.
fn whole(number: BigInt) -> Result<Value, Limit> {
    if integer_fits(&number) {
        Ok(Value::integer(number))
    } else {
        Err(TOO_LONG)
    }
}

fn decimal(number: BigDecimal) -> Result<Value, Limit> {
    checked(Some(number)).map(Value::decimal)
}

/// `a + b`.
pub(crate) fn add(a: Number, b: Number) -> Result<Value, Limit> {
    match Number::pair(a, b)? {
        Pair::Int(a, b) => match a.checked_add(b) {
            Some(sum) => Ok(Value::Int(sum)),
            None => whole(BigInt::from(a) + b),
        },
        Pair::Big(a, b) => whole(a + b),
        Pair::Float(a, b) => Ok(Value::float(a + b)),
        Pair::Decimal(a, b) => decimal(a + b),
    }
}

/// `a - b`.
pub(crate) fn subtract(a: Number, b: Number) -> Result<Value, Limit> {
    match Number::pair(a, b)? {
        Pair::Int(a, b) => match a.checked_sub(b) {
            Some(rest) => Ok(Value::Int(rest)),
            None => whole(BigInt::from(a) - b),
        },
        Pair::Big(a, b) => whole(a - b),
        Pair::Float(a, b) => Ok(Value::float(a - b)),
        Pair::Decimal(a, b) => decimal(a - b),
    }
}

/// `a * b`.
pub(crate) fn multiply(a: Number, b: Number) -> Result<Value, Limit> {
    match Number::pair(a, b)? {
        Pair::Int(a, b) => match a.checked_mul(b) {
            Some(product) => Ok(Value::Int(product)),
            None => whole(BigInt::from(a) * b),
        },
        Pair::Big(a, b) => whole(a * b),
        Pair::Float(a, b) => Ok(Value::float(a * b)),
        Pair::Decimal(a, b) => decimal(a * b),
    }
}

/// `a / b`; null when `b` is zero. Integers give a decimal.
pub(crate) fn divide(a: Number, b: Number) -> Result<Value, Limit> {
    if b.is_zero() {
        return Ok(Value::Null);
    }
    match Number::pair(a, b)? {
        Pair::Float(a, b) => Ok(Value::float(a / b)),
        Pair::Int(a, b) => Ok(Value::decimal(quotient(a.into(), b.into()))),
        Pair::Big(a, b) if (&a % &b).is_zero() => decimal((a / b).into()),
        Pair::Big(a, b) => Ok(Value::decimal(quotient(
            checked(Some(a.into()))?,
            checked(Some(b.into()))?,
        ))),
        Pair::Decimal(a, b) => Ok(Value::decimal(quotient(a, b))),
    }
}

fn quotient(a: BigDecimal, b: BigDecimal) -> BigDecimal {
    let exact = &a / &b;
    if exact.digits() <= QUOTIENT_DIGITS || &exact * &b == a {
        return exact.normalized_point();
    }
    exact
        .with_precision_round(
            std::num::NonZeroU64::new(QUOTIENT_DIGITS).expect("a constant above zero"),
            RoundingMode::HalfEven,
        )
        .normalized_point()
}

trait NormalizedPoint {
    fn normalized_point(self) -> Self;
}

impl NormalizedPoint for BigDecimal {
    /// Without trailing zeros after the point, and never with a negative scale.
    fn normalized_point(self) -> BigDecimal {
        let plain = self.normalized();
        if plain.fractional_digit_count() < 0 {
            plain.with_scale(0)
        } else {
            plain
        }
    }
}

/// The remainder of `a / b` with the sign of `b`; null when `b` is zero.
pub(crate) fn remainder(a: Number, b: Number) -> Result<Value, Limit> {
    if b.is_zero() {
        return Ok(Value::Null);
    }
    match Number::pair(a, b)? {
        Pair::Int(a, b) => Ok(Value::integer(floor_mod(a.into(), b.into()))),
        Pair::Big(a, b) => Ok(Value::integer(floor_mod(a, b))),
        Pair::Float(a, b) => {
            let rest = a % b;
            let wrong = rest != 0.0 && (rest < 0.0) != (b < 0.0);
            Ok(Value::float(if wrong { rest + b } else { rest }))
        }
        Pair::Decimal(a, b) => {
            let rest = &a % &b;
            let wrong = !rest.is_zero() && rest.is_negative() != b.is_negative();
            decimal(if wrong { rest + b } else { rest })
        }
    }
}

fn floor_mod(a: BigInt, b: BigInt) -> BigInt {
    let rest = &a % &b;
    if !rest.is_zero() && rest.is_negative() != b.is_negative() {
        rest + b
    } else {
        rest
    }
}

/// `a` to the power of `b`; null where that is no real number.
pub(crate) fn power(a: Number, b: Number) -> Result<Value, Limit> {
    let Some(exponent) = b.to_big() else {
        return Ok(float_power(a, b));
    };
    let base = match &a {
        Number::Float(base) => {
            let exponent = exponent.to_f64().unwrap_or(f64::NAN);
            return Ok(Value::float(base.powf(exponent)));
        }
        Number::Int(_) | Number::Big(_) => None,
        Number::Decimal(base) => Some(checked(Some(base.clone()))?),
    };
    let negative = exponent.is_negative();
    let Some(times) = exponent.abs().to_u32() else {
        return huge_power(&a, negative, &exponent);
    };
    let positive = match base {
        None => {
            let base = integer(&a);
            // A power has more bits than this, and a digit stands for less than four of them.
            let bits = base.bits().saturating_sub(1).saturating_mul(times.into());
            if bits / 4 > MAX_INTEGER_DIGITS {
                return Err(TOO_LONG);
            }
            let power = base.pow(times);
            if !integer_fits(&power) {
                return Err(TOO_LONG);
            }
            Number::Big(power)
        }
        Some(base) => Number::Decimal(decimal_power(base, times)?),
    };
    if negative {
        divide(Number::Int(1), positive)
    } else {
        Ok(positive.into_value())
    }
}

/// An exponent of more than 32 bits: only 0, 1 and -1 have a power that fits.
fn huge_power(a: &Number, negative: bool, exponent: &BigInt) -> Result<Value, Limit> {
    let decimal = a.to_decimal().unwrap_or_default();
    if decimal.is_zero() {
        return Ok(if negative {
            Value::Null
        } else {
            a.clone().into_value()
        });
    }
    if decimal.abs() == 1 {
        let odd = exponent.bit(0);
        return Ok(Value::Int(if decimal.is_negative() && odd {
            -1
        } else {
            1
        }));
    }
    Err(TOO_LONG)
}

fn decimal_power(base: BigDecimal, times: u32) -> Result<BigDecimal, Limit> {
    let mut result = BigDecimal::from(1);
    let (mut square, mut left) = (base, times);
    while left > 0 {
        if left & 1 == 1 {
            result = checked(Some(result * &square))?;
        }
        left >>= 1;
        if left > 0 {
            square = checked(Some(&square * &square))?;
        }
    }
    Ok(result)
}

fn float_power(a: Number, b: Number) -> Value {
    let exact = matches!(a, Number::Decimal(_)) || matches!(b, Number::Decimal(_));
    let power = a.to_f64().powf(b.to_f64());
    match exact.then(|| float_to_decimal(power)) {
        Some(Some(power)) if power.digits() > 0 => Value::decimal(power),
        Some(_) => Value::Null,
        None => Value::float(power),
    }
}

/// The absolute value, of the same kind.
pub(crate) fn absolute(number: Number) -> Value {
    match number {
        Number::Int(number) => Value::integer(BigInt::from(number).abs()),
        Number::Big(number) => Value::integer(number.abs()),
        Number::Float(number) => Value::float(number.abs()),
        Number::Decimal(number) => Value::decimal(number.abs()),
    }
}

/// Rounds to `digits` after the point: no digits give an integer, others the number's own kind,
/// and an integer then becomes a decimal.
pub(crate) fn round(number: Number, digits: i64, mode: RoundingMode) -> Result<Value, Limit> {
    if digits.unsigned_abs() > MAX_DECIMAL_DIGITS {
        return Err(Limit("digits in one decimal", MAX_DECIMAL_DIGITS));
    }
    let float = matches!(number, Number::Float(_));
    if digits == 0 && matches!(number, Number::Int(_) | Number::Big(_)) {
        return Ok(number.into_value());
    }
    let rounded = checked(number.to_decimal())?.with_scale_round(digits, mode);
    if digits == 0 {
        return Ok(Value::integer(rounded.into_bigint_and_exponent().0));
    }
    if float {
        return Ok(Value::float(rounded.to_f64().unwrap_or(f64::NAN)));
    }
    Ok(Value::decimal(if digits < 0 {
        rounded.with_scale(0)
    } else {
        rounded
    }))
}

/// Cuts a number to an integer, toward zero; `None` for a float that has none.
pub(crate) fn truncate(number: Number) -> Result<Option<Value>, Limit> {
    Ok(match number {
        Number::Float(number) => BigInt::from_f64(number.trunc()).map(Value::integer),
        Number::Decimal(number) => {
            let whole = checked(Some(number))?.with_scale_round(0, RoundingMode::Down);
            Some(Value::integer(whole.into_bigint_and_exponent().0))
        }
        integer => Some(integer.into_value()),
    })
}

/// A decimal from text such as `-12.50` or `1e-3`; `None` when it is none or too long.
pub(crate) fn parse_decimal(text: &str) -> Option<BigDecimal> {
    let text = text.trim();
    if !looks_like_number(text) {
        return None;
    }
    let number = BigDecimal::from_str(text).ok()?;
    fits(&number).then_some(number)
}

/// An integer from decimal text, or from two's complement hexadecimal text after `0x`;
/// `None` for any other text.
pub(crate) fn parse_integer(text: &str) -> Result<Option<Value>, Limit> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x") {
        return parse_hex(hex).transpose()?.map(whole).transpose();
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    if digits.trim_start_matches('0').len() as u64 > MAX_INTEGER_DIGITS {
        return Err(TOO_LONG);
    }
    let number = BigInt::from_str(text.strip_prefix('+').unwrap_or(text)).ok();
    Ok(number.map(Value::integer))
}

fn parse_hex(hex: &str) -> Option<Result<BigInt, Limit>> {
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    // A decimal digit is less than four bits, so that this is more than the limit for certain.
    if hex.len() as u64 > MAX_INTEGER_DIGITS {
        return Some(Err(TOO_LONG));
    }
    let number = BigInt::parse_bytes(hex.as_bytes(), 16)?;
    let negative = hex.len().is_multiple_of(2) && hex.as_bytes()[0].to_ascii_lowercase() >= b'8';
    Some(Ok(if negative {
        number - (BigInt::from(1) << (hex.len() * 4))
    } else {
        number
    }))
}

/// The two's complement of an integer in whole bytes, as `0x00ff`.
pub(crate) fn to_hex(number: &BigInt) -> String {
    let mut text = String::from("0x");
    for byte in number.to_signed_bytes_be() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A double from text; `None` when it is none or not finite.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    if !looks_like_number(text) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn looks_like_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'))
}

/// The plain digits of a decimal, its exponent written out.
pub(crate) fn decimal_text(number: &BigDecimal) -> Result<String, Limit> {
    if fits(number) {
        Ok(number.to_plain_string())
    } else {
        Err(Limit("digits in one decimal", MAX_DECIMAL_DIGITS))
    }
}
