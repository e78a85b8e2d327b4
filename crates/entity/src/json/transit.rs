//! Transit tags: strings that start with `~` and a letter carry the types JSON lacks.
//!
//! There is no escape: a plain string that looks like a tagged one is read as the tagged type.
//! An unknown tag, or one whose text is malformed, is a plain string.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::civil::{Date, DateTime, Time};

use super::number;
use crate::encoding::{self, tag};
use crate::{Datetime, Value};

/// Standard base64, written with padding and read with or without it.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of a tagged string; a plain string stays one.
pub fn decode(text: &str) -> Value {
    if text.as_bytes().first() == Some(&b'~') {
        let mut encoded = Vec::new();
        if encode(text, &mut encoded) {
            return encoding::decode(&mut encoded.as_slice());
        }
    }
    Value::String(text.into())
}

/// Appends the encoding of a tagged string's value; false, and nothing appended, when `text`
/// is a plain string.
pub(crate) fn encode(text: &str, out: &mut Vec<u8>) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 2 || bytes[0] != b'~' || !bytes[1].is_ascii() {
        return false;
    }
    let rest = &text[2..];
    match bytes[1] {
        b':' if !rest.is_empty() => encoding::put_text(out, tag::NI, rest),
        b'r' if !rest.is_empty() => encoding::put_text(out, tag::URI, rest),
        b't' => {
            if let Some(date) = date(rest) {
                encoding::put_date(out, date);
            } else if let Some(at) = datetime(rest) {
                encoding::put_datetime(out, at);
            } else {
                return false;
            }
        }
        b'f' => match number::decimal_number(rest) {
            Some(decimal) => decimal.encode(out),
            None => return false,
        },
        b'b' => match BASE64.decode(rest) {
            Ok(bytes) => encoding::put_bytes(out, tag::BYTES, &bytes),
            Err(_) => return false,
        },
        b'u' => match uuid(rest) {
            Some(uuid) => {
                out.push(tag::UUID);
                out.extend_from_slice(uuid.as_bytes());
            }
            None => return false,
        },
        _ => return false,
    }
    true
}

/// Only the hyphenated form, as in `531a379e-31bb-4ce1-8690-158dceb64be6`.
fn uuid(text: &str) -> Option<uuid::Uuid> {
    if text.len() == 36 {
        uuid::Uuid::try_parse(text).ok()
    } else {
        None
    }
}

/// The wire's date, `2015-12-31`, years 0001 to 9999.
pub fn date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = digits(&bytes[..4])? as i16;
    if year == 0 {
        return None;
    }
    Date::new(
        year,
        digits(&bytes[5..7])? as i8,
        digits(&bytes[8..])? as i8,
    )
    .ok()
}

/// The wire's datetime, `2015-01-02T03:04:05.123456789Z`, with up to nine digits of a second,
/// years 0001 to 9999.
pub fn datetime(text: &str) -> Option<Datetime> {
    let bytes = text.as_bytes();
    let (&last, head) = bytes.split_last()?;
    if last != b'Z' || head.len() < 19 || !text.is_char_boundary(10) {
        return None;
    }
    if head[10] != b'T' || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let date = date(&text[..10])?;
    let (hour, minute) = (digits(&head[11..13])? as i8, digits(&head[14..16])? as i8);
    let second = digits(&head[17..19])? as i8;
    let nanosecond = match head[19..].split_first() {
        None => 0,
        Some((b'.', fraction)) if (1..=9).contains(&fraction.len()) => {
            digits(fraction)? * 10u32.pow(9 - fraction.len() as u32)
        }
        Some(_) => return None,
    };
    let time = Time::new(hour, minute, second, nanosecond as i32).ok()?;
    Datetime::from_civil(DateTime::from_parts(date, time))
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0u32, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u32::from(byte - b'0'))
    })
}

/// Appends a date as `2015-12-31`.
pub(crate) fn put_date(date: Date, out: &mut Vec<u8>) {
    put_padded(date.year().unsigned_abs().into(), 4, out);
    out.push(b'-');
    put_padded(date.month().unsigned_abs().into(), 2, out);
    out.push(b'-');
    put_padded(date.day().unsigned_abs().into(), 2, out);
}

/// Appends a datetime as `2015-01-02T03:04:05.12Z`: UTC, no zeros at the end of the fraction.
pub(crate) fn put_datetime(at: Datetime, out: &mut Vec<u8>) {
    let civil = at.civil();
    put_date(civil.date(), out);
    for (separator, part) in [
        (b'T', civil.hour()),
        (b':', civil.minute()),
        (b':', civil.second()),
    ] {
        out.push(separator);
        put_padded(part.unsigned_abs().into(), 2, out);
    }
    let nanosecond = civil.subsec_nanosecond();
    if nanosecond != 0 {
        out.push(b'.');
        put_padded(nanosecond.unsigned_abs(), 9, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

fn put_padded(number: u32, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10u32.pow(place) % 10) as u8);
    }
}
