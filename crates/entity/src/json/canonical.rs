//! Text that is already what we would write: it can be copied without being read.

use super::scan;
use crate::encoding::MAX_DEPTH;

/// Names of one dict that are compared with each other; a dict with more is read.
const MAX_NAMES: usize = 16;

/// The end of the value at `at` when its text is, byte for byte, what we would write for the
/// value that it stands for (numbers with a point being floats). `None` says nothing more than
/// that it has to be read: it may be in another form, malformed, or cut off. UTF-8 is not checked.
#[inline]
pub(super) fn value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => string(bytes, at),
        b'-' | b'0'..=b'9' => number(bytes, at),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        b'[' => list(bytes, at, depth),
        b'{' => dict(bytes, at, depth),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

/// A string value. Tags whose text has several spellings (dates, decimals, bytes, UUIDs) are left
/// to the reader; the others are written as they were read.
#[inline]
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'~')
        && let Some(b't' | b'f' | b'b' | b'u') = bytes.get(at + 2)
    {
        return None;
    }
    text(bytes, at)
}

/// The end of the quoted text at `at`, whose only escapes are the ones that we write.
#[inline]
pub(super) fn text(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = scan::string_special(bytes, at + 1);
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match bytes.get(at + 1)? {
                b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    at = scan::string_special(bytes, at + 2);
                }
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Digits, point included, of a float whose text is certainly the shortest one: every decimal of
/// 15 digits has a double of its own.
const MAX_FLOAT_DIGITS: usize = 15;
/// Digits of an integer that certainly fits 64 bits.
const MAX_INT_DIGITS: usize = 18;
/// Zeros behind the point of a float that is written without an exponent.
const MAX_ZEROS: usize = 4;

#[inline]
fn number(bytes: &[u8], start: usize) -> Option<usize> {
    let first = start + usize::from(bytes[start] == b'-');
    let at = past_digits(bytes, first);
    let whole = at - first;
    let zero = whole == 1 && bytes[first] == b'0';
    if whole == 0 || (bytes[first] == b'0' && !zero) {
        return None;
    }
    match bytes.get(at)? {
        b'.' => fraction(bytes, first, at, zero, start != first),
        b'e' | b'E' => None,
        _ if whole > MAX_INT_DIGITS || (zero && start != first) => None,
        _ => Some(at),
    }
}

fn fraction(bytes: &[u8], first: usize, point: usize, zero: bool, negative: bool) -> Option<usize> {
    let end = past_digits(bytes, point + 1);
    let digits = &bytes[point + 1..end];
    if digits.is_empty() || end - first > MAX_FLOAT_DIGITS || matches!(bytes.get(end)?, b'e' | b'E')
    {
        return None;
    }
    if digits == b"0" {
        return (!(zero && negative)).then_some(end);
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let plain = !zero || zeros <= MAX_ZEROS;
    (plain && digits.last() != Some(&b'0')).then_some(end)
}

#[inline]
fn past_digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = bytes.get(at) {
        at += 1;
    }
    at
}

fn list(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut at = at + 1;
    if bytes.get(at)? == &b']' {
        return Some(at + 1);
    }
    loop {
        at = value(bytes, at, depth + 1)?;
        match bytes.get(at)? {
            b',' => at += 1,
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn dict(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut at = at + 1;
    if bytes.get(at)? == &b'}' {
        return Some(at + 1);
    }
    let mut names: [&[u8]; MAX_NAMES] = [b""; MAX_NAMES];
    for count in 0..MAX_NAMES {
        if bytes.get(at)? != &b'"' {
            return None;
        }
        let end = text(bytes, at)?;
        let name = &bytes[at..end];
        if names[..count].contains(&name) || bytes.get(end)? != &b':' {
            return None;
        }
        names[count] = name;
        at = value(bytes, end + 1, depth + 1)?;
        match bytes.get(at)? {
            b',' => at += 1,
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
    None
}

/// The end of the value at `at` as far as quotes and brackets tell; what is in it is not looked at.
pub(super) fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        at = match bytes.get(at)? {
            b'"' => past_string(bytes, at + 1)?,
            b'[' | b'{' => {
                depth += 1;
                at + 1
            }
            b']' | b'}' => {
                // A bracket where a value should start is no value.
                depth = depth.checked_sub(1)?;
                at + 1
            }
            _ if depth == 0 => {
                return bytes[at..]
                    .iter()
                    .position(|byte| {
                        matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t')
                    })
                    .map(|len| at + len);
            }
            _ => at + 1,
        };
        if depth == 0 {
            return Some(at);
        }
    }
}

fn past_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = scan::quote_or_backslash(bytes, at);
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            _ if at + 1 < bytes.len() => at += 2,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_canonical(text: &str) -> bool {
        // Something always follows a value inside an entity.
        let bytes = format!("{text},");
        value(bytes.as_bytes(), 0, 1) == Some(text.len())
    }

    #[test]
    fn what_we_would_write_is_told_from_what_has_to_be_read() {
        for text in [
            "0",
            "-1",
            "999999999999999999",
            "0.0",
            "1.5",
            "-0.5",
            "100.0",
            "0.00001",
            "12345678901.25",
            "null",
            "true",
            "false",
            r#""""#,
            r#""é\n\"\\""#,
            r#""~""#,
            r#""~:a:b""#,
            r#""~rx""#,
            r#""~x""#,
            "[]",
            "{}",
            r#"[1,"a",[2]]"#,
            r#"{"a":1,"b":{"a":2}}"#,
        ] {
            assert!(is_canonical(text), "{text}");
        }
        for text in [
            "-0",
            "-0.0",
            "01",
            "1000000000000000000",
            "1.50",
            "1e2",
            "1.5E3",
            "0.000001",
            "1.",
            ".5",
            "-",
            "0.1234567890123456",
            "nul",
            "tru",
            r#""\u0041""#,
            r#""\/""#,
            "\"\t\"",
            r#""~t2024-01-01""#,
            r#""~f1""#,
            r#""~uX""#,
            r#""~bX""#,
            "[ 1]",
            "[1, 2]",
            r#"{"a": 1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"\u0061":1}"#,
            "[1,]",
            "{1:2}",
            "[",
            "{",
            "\"",
        ] {
            assert!(!is_canonical(text), "{text}");
        }
    }
}
