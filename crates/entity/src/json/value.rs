//! JSON text of one value straight into the storage encoding.

use std::collections::{HashMap, HashSet};

use super::entity_error::{Step, fault};
use super::number::{self, Number, Numbers};
use super::{excerpt, scan, transit};
use crate::Value;
use crate::encoding::{self, MAX_DEPTH, tag};

/// Why a text is not the JSON of one value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct ValueError {
    /// Where in the text, in bytes from 0.
    pub offset: usize,
    /// What was expected and what was found.
    pub message: String,
}

/// Reads one JSON value, tagged strings decoded.
///
/// # Errors
/// When `text` is not exactly one well-formed value.
pub fn parse_value(text: &[u8], numbers: Numbers) -> Result<Value, ValueError> {
    parse(
        text,
        Options {
            numbers,
            transit: true,
        },
    )
}

/// Reads one JSON value, tagged strings kept as plain strings.
///
/// # Errors
/// When `text` is not exactly one well-formed value.
pub fn parse_plain(text: &[u8], numbers: Numbers) -> Result<Value, ValueError> {
    parse(
        text,
        Options {
            numbers,
            transit: false,
        },
    )
}

fn parse(bytes: &[u8], options: Options) -> Result<Value, ValueError> {
    let mut encoded = Vec::new();
    let mut scratch = Scratch::default();
    let read = text(bytes).and_then(|text| {
        let mut reader = Reader::new(text, options, &mut scratch);
        reader.space();
        reader.value(&mut encoded, 1)?;
        reader.end()
    });
    match read {
        Ok(()) => Ok(encoding::decode(&mut encoded.as_slice())),
        Err(fault) => Err(ValueError {
            offset: fault.at,
            message: fault.message,
        }),
    }
}

/// The bytes as text.
pub(super) fn text(bytes: &[u8]) -> Step<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(wrong) => {
            let at = wrong.valid_up_to();
            fault(
                at,
                format!("expected text in UTF-8, found the byte 0x{:02x}", bytes[at]),
            )
        }
    }
}

/// How values are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) numbers: Numbers,
    /// Whether tagged strings are decoded.
    pub(super) transit: bool,
}

/// Memory that is used again from entity to entity.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The last string that had escapes, without them.
    pub(super) unescaped: String,
    pairs: Vec<Pair>,
}

/// Memory of a longer string is given back with the next one, in bytes.
const KEPT: usize = 1 << 20;

/// Where a pair of a dict lies in the encoding.
#[derive(Clone, Copy, Debug)]
struct Pair {
    start: usize,
    name: (usize, usize),
    end: usize,
}

/// A place in a JSON text.
pub(super) struct Reader<'a, 's> {
    text: &'a str,
    pub(super) at: usize,
    options: Options,
    pub(super) scratch: &'s mut Scratch,
}

impl<'a, 's> Reader<'a, 's> {
    pub(super) fn new(text: &'a str, options: Options, scratch: &'s mut Scratch) -> Self {
        scratch.pairs.clear();
        Reader {
            text,
            at: 0,
            options,
            scratch,
        }
    }

    /// The byte at the present place; `None` at the end.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(super) fn space(&mut self) {
        self.at = scan::past_space(self.text.as_bytes(), self.at);
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Step<()> {
        self.space();
        if self.at < self.text.len() {
            self.unexpected("the end")
        } else {
            Ok(())
        }
    }

    /// The text from `start` to the present place.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// What was expected here and what was found.
    #[cold]
    pub(super) fn unexpected<T>(&self, expected: &str) -> Step<T> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.is_empty() {
            return fault(
                self.at,
                format!("expected {expected}, found the end of the JSON text"),
            );
        }
        fault(
            self.at,
            format!("expected {expected}, found {}", excerpt(rest)),
        )
    }

    /// After a name: the colon and the white space around it.
    #[inline]
    pub(super) fn colon(&mut self) -> Step<()> {
        self.space();
        if self.peek() != Some(b':') {
            return self.unexpected("`:` after a name");
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// After an item: true when another one follows, which is then next.
    #[inline]
    pub(super) fn comma(&mut self, close: u8) -> Step<bool> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ if close == b'}' => self.unexpected("`,` or `}`"),
            _ => self.unexpected("`,` or `]`"),
        }
    }

    /// Whether the container that starts here is empty; steps into it, or over it if it is.
    #[inline]
    pub(super) fn is_empty(&mut self, close: u8) -> bool {
        self.at += 1;
        self.space();
        let empty = self.peek() == Some(close);
        if empty {
            self.at += 1;
        }
        empty
    }

    /// Appends the encoding of the value at the present place; tells whether it is or holds a
    /// dict. `depth` is that of a container that starts here, 1 for those of the root.
    #[inline]
    pub(super) fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Step<bool> {
        match self.peek() {
            Some(b'"') => {
                let plain = self.string()?;
                let text = plain.unwrap_or(&self.scratch.unescaped);
                let tagged = self.options.transit && text.as_bytes().first() == Some(&b'~');
                if !tagged || !transit::encode(text, out) {
                    encoding::put_text(out, tag::STRING, text);
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number(out)?,
            Some(b'{') => return self.dict(out, depth),
            Some(b'[') => return self.list(out, depth),
            Some(b't') => self.word("true", tag::TRUE, out)?,
            Some(b'f') => self.word("false", tag::FALSE, out)?,
            Some(b'n') => self.word("null", tag::NULL, out)?,
            _ => return self.unexpected("a JSON value"),
        }
        Ok(false)
    }

    fn word(&mut self, word: &str, tag: u8, out: &mut Vec<u8>) -> Step<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.unexpected("a JSON value");
        }
        self.at += word.len();
        out.push(tag);
        Ok(())
    }

    fn list(&mut self, out: &mut Vec<u8>, depth: usize) -> Step<bool> {
        self.check_depth(depth)?;
        let at = encoding::open(out);
        let mut count = 0;
        let mut dicts = false;
        if !self.is_empty(b']') {
            loop {
                dicts |= self.value(out, depth + 1)?;
                count += 1;
                if !self.comma(b']')? {
                    break;
                }
            }
        }
        encoding::close(out, at, encoding::with_dicts(tag::LIST, dicts), count);
        Ok(dicts)
    }

    fn dict(&mut self, out: &mut Vec<u8>, depth: usize) -> Step<bool> {
        self.check_depth(depth)?;
        let at = encoding::open(out);
        let items = out.len();
        let first = self.scratch.pairs.len();
        if !self.is_empty(b'}') {
            loop {
                let start = out.len();
                let plain = self.name()?;
                let name = plain.unwrap_or(&self.scratch.unescaped);
                encoding::put_name(out, name);
                let name = (out.len() - name.len(), out.len());
                self.colon()?;
                self.value(out, depth + 1)?;
                self.scratch.pairs.push(Pair {
                    start,
                    name,
                    end: out.len(),
                });
                if !self.comma(b'}')? {
                    break;
                }
            }
        }
        let pairs = &self.scratch.pairs[first..];
        let mut count = pairs.len();
        if has_duplicates(pairs, out) {
            count = keep_last(pairs, items, out);
        }
        self.scratch.pairs.truncate(first);
        encoding::close(out, at, tag::DICT, count);
        Ok(true)
    }

    fn check_depth(&self, depth: usize) -> Step<()> {
        if depth > MAX_DEPTH {
            return fault(
                self.at,
                format!("expected values nested at most {MAX_DEPTH} deep, found deeper ones"),
            );
        }
        Ok(())
    }

    /// A name at the present place, as `string` gives it.
    #[inline]
    pub(super) fn name(&mut self) -> Step<Option<&'a str>> {
        if self.peek() != Some(b'"') {
            return self.unexpected("a name in double quotes");
        }
        self.string()
    }

    /// Steps over the string at the present place. `None` means that it has escapes and stands,
    /// without them, in `scratch.unescaped`.
    #[inline]
    pub(super) fn string(&mut self) -> Step<Option<&'a str>> {
        let start = self.at + 1;
        let end = scan::string_special(self.text.as_bytes(), start);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Some(&self.text[start..end]));
        }
        self.unescape(start, end)?;
        Ok(None)
    }

    fn unescape(&mut self, start: usize, first: usize) -> Step<()> {
        let bytes = self.text.as_bytes();
        self.scratch.unescaped.clear();
        self.scratch.unescaped.shrink_to(KEPT);
        let (mut from, mut at) = (start, first);
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    self.scratch.unescaped.push_str(&self.text[from..at]);
                    self.at = at + 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.scratch.unescaped.push_str(&self.text[from..at]);
                    let (char, len) = self.escape(at)?;
                    self.scratch.unescaped.push(char);
                    from = at + len;
                    at = scan::string_special(bytes, from);
                }
                Some(control) => {
                    let found = format!(
                        "expected control characters of a string escaped, found \\u{control:04x}"
                    );
                    return fault(at, found);
                }
                None => {
                    return fault(
                        at,
                        "expected the closing quote of a string, found the end of the JSON text",
                    );
                }
            }
        }
    }

    /// The character of the escape at `at`, and how long the escape is.
    fn escape(&self, at: usize) -> Step<(char, usize)> {
        let char = match self.text.as_bytes().get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(at),
            _ => {
                return fault(
                    at,
                    "expected one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u, found another one",
                );
            }
        };
        Ok((char, 2))
    }

    fn unicode_escape(&self, at: usize) -> Step<(char, usize)> {
        let Some(unit) = self.hex(at + 2) else {
            return fault(at, "expected four hex digits after \\u, found others");
        };
        if let Some(char) = char::from_u32(unit) {
            return Ok((char, 6));
        }
        if unit < 0xdc00
            && self.text.as_bytes()[at + 6..].starts_with(b"\\u")
            && let Some(low @ 0xdc00..0xe000) = self.hex(at + 8)
            && let Some(char) = char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
        {
            return Ok((char, 12));
        }
        fault(
            at,
            format!("expected valid Unicode, found the lone surrogate \\u{unit:04x}"),
        )
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.as_bytes().get(at..at + 4)?;
        digits.iter().try_fold(0, |sum, &digit| {
            Some(sum * 16 + char::from(digit).to_digit(16)?)
        })
    }

    /// Appends the number at the present place.
    #[inline]
    fn number(&mut self, out: &mut Vec<u8>) -> Step<()> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let negative = bytes[start] == b'-';
        let first = start + usize::from(negative);
        let mut at = first;
        let mut sum = 0i64;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            sum = sum.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            at += 1;
        }
        let whole = at - first;
        if whole == 0 || (whole > 1 && bytes[first] == b'0') {
            return self.unexpected("a JSON number");
        }
        if !matches!(bytes.get(at), Some(b'.' | b'e' | b'E')) && whole <= 18 {
            self.at = at;
            encoding::put_int(out, if negative { -sum } else { sum });
            return Ok(());
        }
        self.at = self.number_end(at)?;
        let text = &self.text[start..self.at];
        match number::number(text, self.options.numbers) {
            Ok(Number::Float(float)) => encoding::put_float(out, float),
            Ok(number) => number.encode(out),
            Err(message) => return fault(start, message),
        }
        Ok(())
    }

    /// The end of the number whose whole part ends at `at`.
    fn number_end(&self, mut at: usize) -> Step<usize> {
        let bytes = self.text.as_bytes();
        let digits = |mut at: usize| {
            let from = at;
            while let Some(b'0'..=b'9') = bytes.get(at) {
                at += 1;
            }
            if at == from {
                self.unexpected("a JSON number")
            } else {
                Ok(at)
            }
        };
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = bytes.get(at) {
                at += 1;
            }
            at = digits(at)?;
        }
        Ok(at)
    }
}

/// Dicts up to this many names are searched pair by pair.
const FEW: usize = 8;

fn has_duplicates(pairs: &[Pair], out: &[u8]) -> bool {
    let name = |pair: &Pair| &out[pair.name.0..pair.name.1];
    if pairs.len() <= FEW {
        return (1..pairs.len()).any(|at| {
            pairs[..at]
                .iter()
                .any(|earlier| name(earlier) == name(&pairs[at]))
        });
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    !pairs.iter().all(|pair| seen.insert(name(pair)))
}

/// Writes the pairs, which start at `items`, again: of equal names the last value, in the
/// place of the first. Returns how many are left.
fn keep_last(pairs: &[Pair], items: usize, out: &mut Vec<u8>) -> usize {
    let mut places = HashMap::new();
    let mut kept: Vec<Pair> = Vec::new();
    for pair in pairs {
        match places.entry(&out[pair.name.0..pair.name.1]) {
            std::collections::hash_map::Entry::Occupied(place) => kept[*place.get()] = *pair,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(*pair);
            }
        }
    }
    let bytes: Vec<u8> = kept
        .iter()
        .flat_map(|pair| out[pair.start..pair.end].iter().copied())
        .collect();
    out.truncate(items);
    out.extend_from_slice(&bytes);
    kept.len()
}
