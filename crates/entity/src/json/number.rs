//! JSON numbers and decimal text to numbers and back, never through a lossy step.

use std::io::Write;

use bigdecimal::BigDecimal;
use num_bigint::{BigInt, BigUint, Sign};

use crate::Value;
use crate::encoding;

/// What becomes of JSON numbers that are not written as integers. Integers stay integers of any size.
///
/// A number that is too large for a float is kept as a decimal rather than lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// `do_float_as_decimal`: numbers with a point or an exponent become decimals, digit by digit.
    pub float_as_decimal: bool,
    /// `do_float_as_int`: numbers with nothing but zeros after the point become integers (`1.0`, not `1e3`).
    pub float_as_int: bool,
}

impl Numbers {
    /// What every source does unless it says otherwise: numbers with a point are floats.
    pub const FLOATS: Numbers = Numbers {
        float_as_decimal: false,
        float_as_int: false,
    };
    /// The defaults of the `http_endpoint` source: both options on.
    pub const HTTP_ENDPOINT: Numbers = Numbers {
        float_as_decimal: true,
        float_as_int: true,
    };
}

/// Digits that a single number may have; parsing takes time that grows with their square.
pub const MAX_DIGITS: usize = 100_000;

/// How large the exponent of a decimal may be, either way, so that arithmetic stays possible.
pub const MAX_EXPONENT: i64 = 100_000;

/// A number as its text says, not yet a value.
#[derive(Debug)]
pub(crate) enum Number {
    Int(i64),
    BigInt(BigInt),
    Float(f64),
    SmallDecimal { digits: i64, scale: i64 },
    Decimal(BigDecimal),
}

impl Number {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Number::Int(number) => encoding::put_int(out, *number),
            Number::BigInt(number) => encoding::put_big_int(out, number),
            Number::Float(number) => encoding::put_float(out, *number),
            Number::SmallDecimal { digits, scale } => {
                encoding::put_small_decimal(out, *digits, *scale);
            }
            Number::Decimal(number) => {
                let (digits, scale) = number.as_bigint_and_scale();
                encoding::put_decimal(out, &digits, scale);
            }
        }
    }

    pub(crate) fn into_value(self) -> Value {
        match self {
            Number::Int(number) => Value::Int(number),
            Number::BigInt(number) => Value::integer(number),
            Number::Float(number) => Value::float(number),
            Number::SmallDecimal { digits, scale } => {
                Value::decimal(BigDecimal::new(digits.into(), scale))
            }
            Number::Decimal(number) => Value::decimal(number),
        }
    }
}

/// Reads a text that follows JSON's grammar for numbers.
///
/// # Errors
/// When it is beyond `MAX_DIGITS` or `MAX_EXPONENT`; the message says so.
pub(crate) fn number(text: &str, numbers: Numbers) -> Result<Number, String> {
    if !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return integer(text);
    }
    if numbers.float_as_int
        && let Some((whole, fraction)) = text.split_once('.')
        && fraction.bytes().all(|byte| byte == b'0')
    {
        return integer(whole);
    }
    if !numbers.float_as_decimal
        && let Ok(float) = text.parse::<f64>()
        && float.is_finite()
    {
        return Ok(Number::Float(float));
    }
    decimal_number(text).ok_or_else(|| {
        format!(
            "expected a number of at most {MAX_DIGITS} digits and an exponent within \
             ±{MAX_EXPONENT}, found {}",
            super::excerpt(text.as_bytes())
        )
    })
}

fn integer(text: &str) -> Result<Number, String> {
    if let Ok(small) = text.parse() {
        return Ok(Number::Int(small));
    }
    if text.trim_start_matches('-').len() > MAX_DIGITS {
        return Err(format!(
            "expected an integer of at most {MAX_DIGITS} digits, found one of {}",
            text.len()
        ));
    }
    let number = BigInt::parse_bytes(text.as_bytes(), 10).expect("the text is an integer");
    Ok(Number::BigInt(number))
}

/// Whether an integer has at most `MAX_DIGITS` digits, so that what is written of it can be read.
pub fn integer_fits(number: &BigInt) -> bool {
    // 2^332192 is the last power of two below 10^100000.
    const SURELY: u64 = 332_192;
    match number.bits() {
        0..=SURELY => true,
        bits if bits > SURELY + 1 => false,
        _ => *number.magnitude() < BigUint::from(10u32).pow(MAX_DIGITS as u32),
    }
}

/// Reads decimal text: a sign, digits, a fraction, an exponent; all but the digits may be missing.
/// The digits after the point are kept, zeros included. `None` for any other text, and beyond
/// `MAX_DIGITS` and `MAX_EXPONENT`.
pub fn decimal(text: &str) -> Option<BigDecimal> {
    match decimal_number(text)? {
        Number::SmallDecimal { digits, scale } => Some(BigDecimal::new(digits.into(), scale)),
        Number::Decimal(number) => Some(number),
        _ => None,
    }
}

pub(crate) fn decimal_number(text: &str) -> Option<Number> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let count = whole.len() + fraction.len();
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if count == 0 || count > MAX_DIGITS || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let scale = (fraction.len() as i64).checked_sub(exponent)?;
    if scale.abs() > MAX_EXPONENT {
        return None;
    }
    if count <= 18 {
        let digits = whole.bytes().chain(fraction.bytes());
        let digits = digits.fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        return Some(Number::SmallDecimal {
            digits: if negative { -digits } else { digits },
            scale,
        });
    }
    let digits = BigInt::parse_bytes(format!("{whole}{fraction}").as_bytes(), 10)?;
    Some(Number::Decimal(BigDecimal::new(
        if negative { -digits } else { digits },
        scale,
    )))
}

/// Appends `digits` × 10^−`scale` as text that reads back with the same digits and scale: plain
/// where the digits reach the point and at most six zeros follow it (`1.50`, `0.0000015`), with
/// an exponent elsewhere (`1E+5`, `1.5E-7`).
pub(crate) fn put_decimal_text(digits: &BigInt, scale: i64, out: &mut Vec<u8>) {
    if digits.sign() == Sign::Minus {
        out.push(b'-');
    }
    let text = digits.magnitude().to_string();
    let count = text.len() as i64;
    let first_digit_at = count - 1 - scale;
    if scale >= 0 && first_digit_at >= -6 {
        if first_digit_at < 0 {
            out.extend_from_slice(b"0.");
            out.extend((0..scale - count).map(|_| b'0'));
            out.extend_from_slice(text.as_bytes());
        } else {
            let (whole, fraction) = text.split_at((count - scale) as usize);
            out.extend_from_slice(whole.as_bytes());
            if !fraction.is_empty() {
                out.push(b'.');
                out.extend_from_slice(fraction.as_bytes());
            }
        }
        return;
    }
    let (first, rest) = text.split_at(1);
    out.extend_from_slice(first.as_bytes());
    if !rest.is_empty() {
        out.push(b'.');
        out.extend_from_slice(rest.as_bytes());
    }
    write!(out, "E{first_digit_at:+}").expect("writing to memory cannot fail");
}

/// The text of a decimal, its scale kept: `1.50`, `0.0000015`, `1E+5`, `1.5E-7`.
pub fn decimal_text(number: &BigDecimal) -> String {
    let mut out = Vec::new();
    let (digits, scale) = number.as_bigint_and_scale();
    put_decimal_text(&digits, scale, &mut out);
    String::from_utf8(out).expect("digits, signs and letters are ASCII")
}

/// Appends the shortest text that reads back as the same float; it always has a point or an
/// exponent. Floats that are not finite have no JSON form and become `null`.
pub(crate) fn put_float_text(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number + 0.0).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(text: &str) -> String {
        decimal_text(&decimal(text).unwrap())
    }

    #[test]
    fn decimal_text_reads_back_with_its_scale() {
        for text in [
            "0",
            "0.0",
            "0.00",
            "1",
            "1.0",
            "1.10",
            "-1.50",
            "12345678901234567890.1234567890",
            "0.000001",
            "0.0000010",
            "1E+5",
            "1.23E+5",
            "1E-7",
            "1.5E-7",
            "0E+3",
            "-9.99E-20",
        ] {
            assert_eq!(text_of(text), text);
        }
    }

    /// The same integers are made and read, whatever their sign.
    #[test]
    fn integers_fit_when_they_can_be_read() {
        let most = "9".repeat(MAX_DIGITS);
        let more = format!("1{}", "0".repeat(MAX_DIGITS));
        for (text, fits) in [(&most, true), (&more, false)] {
            for text in [text.clone(), format!("-{text}")] {
                let digits: BigInt = text.parse().unwrap();
                assert_eq!(integer_fits(&digits), fits);
                assert_eq!(number(&text, Numbers::FLOATS).is_ok(), fits);
            }
        }
    }

    #[test]
    fn other_decimal_spellings_get_the_usual_one() {
        for (text, usual) in [
            ("+1.5", "1.5"),
            ("1e5", "1E+5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("15e-1", "1.5"),
            ("-0.0", "0.0"),
        ] {
            assert_eq!(text_of(text), usual);
        }
    }

    #[test]
    fn text_that_is_no_decimal_is_refused() {
        let long = "1".repeat(MAX_DIGITS + 1);
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1.2.3",
            "1 ",
            "NaN",
            "Infinity",
            "0x1",
            "1e",
            "1e99999999",
            "1_0",
            &long,
        ] {
            assert!(decimal(text).is_none(), "{text:.20}");
        }
    }

    #[test]
    fn a_number_too_large_for_a_float_stays_exact() {
        let value = number("1e400", Numbers::FLOATS).unwrap().into_value();
        assert_eq!(value.kind(), "decimal");
        assert!(
            number("1e999999", Numbers::FLOATS)
                .unwrap_err()
                .contains("exponent")
        );
    }
}
