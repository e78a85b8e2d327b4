//! Text out of a stream of bytes, piece by piece, with the place of what is no text.

use std::io::{self, BufRead, Read};

use encoding_rs::{DecoderResult, UTF_8, UTF_16BE, UTF_16LE};

use super::charset::{Charset, MARK, Way};
use tahini_hub::Failure;

use crate::http::failure_of;

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// The longest byte order mark.
const LONGEST_MARK: usize = MARK.len();
/// What a null character becomes where it is escaped.
const ESCAPED_NULL: &str = "\\0";

/// What is done about bytes that are no text, and about null characters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// Bytes that are no text become `U+FFFD`, with a warning.
    pub replace: bool,
    /// Null characters become `\0`, a backslash and a zero.
    pub escape_nulls: bool,
}

/// A reader of text.
pub(super) struct Text<R> {
    reader: R,
    charset: Charset,
    manners: Manners,
    decoder: Option<Decoder>,
    raw: Vec<u8>,
    /// Where the text ends that was given so far; both count from 1.
    line: u64,
    column: u64,
    replaced: u64,
    ended: bool,
    /// What is told when the text before it was read.
    broken: Option<Failure>,
}

enum Decoder {
    Single(Vec<char>),
    Streaming(encoding_rs::Decoder),
}

/// Where in a piece of bytes something is no text.
enum Piece {
    Whole,
    Malformed { read: usize },
}

impl<R: Read> Text<R> {
    /// The text of `reader`; a byte order mark at its start goes before `charset`.
    pub(super) fn new(reader: R, charset: Charset, manners: Manners) -> Text<R> {
        Text {
            reader,
            charset,
            manners,
            decoder: None,
            raw: vec![0; CHUNK],
            line: 1,
            column: 1,
            replaced: 0,
            ended: false,
            broken: None,
        }
    }

    /// Appends the next piece of text; `false` at the end.
    ///
    /// # Errors
    /// When the reader fails. An entity failure for bytes that are no text and for null
    /// characters, unless the manners say otherwise, once everything before them was given.
    pub(super) fn fill(&mut self, out: &mut String) -> Result<bool, Failure> {
        let start = out.len();
        loop {
            if let Some(broken) = self.broken.take() {
                self.ended = true;
                return Err(broken);
            }
            if self.ended {
                return Ok(false);
            }
            let len = self.read()?;
            self.decode(len, out);
            self.look_for_nulls(start, out);
            self.count(&out[start..]);
            if out.len() > start {
                return Ok(true);
            }
        }
    }

    /// Reads bytes: at the very start as many as a mark takes, later any number.
    fn read(&mut self) -> Result<usize, Failure> {
        let mut len = 0;
        let enough = match self.decoder {
            None => LONGEST_MARK,
            Some(_) => 1,
        };
        while len < enough && !self.ended {
            let read = self.reader.read(&mut self.raw[len..]);
            match read.map_err(|error| failure_of(&error))? {
                0 => self.ended = true,
                more => len += more,
            }
        }
        Ok(len)
    }

    fn decode(&mut self, len: usize, out: &mut String) {
        let mut from = 0;
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => {
                let (decoder, mark) = Decoder::of(&self.charset, &self.raw[..len]);
                from = mark;
                decoder
            }
        };
        loop {
            match decoder.decode(&self.raw[from..len], self.ended, out) {
                Piece::Whole => break,
                Piece::Malformed { read } => {
                    from += read;
                    self.malformed(out);
                    if self.broken.is_some() {
                        break;
                    }
                }
            }
        }
        self.decoder = Some(decoder);
    }

    fn malformed(&mut self, out: &mut String) {
        if self.manners.replace {
            out.push(char::REPLACEMENT_CHARACTER);
            if self.replaced == 0 {
                tracing::warn!(
                    encoding = self.charset.name(),
                    "bytes that are no text are replaced, which loses what they were"
                );
            }
            self.replaced += 1;
            return;
        }
        // Its place is that of the end of what was decoded, which is not counted yet.
        let name = self.charset.name();
        self.broken = Some(Failure::entity(format!(
            "expected text in the encoding {name}, found bytes that are none; name the right \
             `encoding`, or replace them with `decode_error_strategy`"
        )));
    }

    fn look_for_nulls(&mut self, start: usize, out: &mut String) {
        let Some(at) = memchr::memchr(0, &out.as_bytes()[start..]) else {
            return;
        };
        if self.manners.escape_nulls {
            let escaped = out[start..].replace('\0', ESCAPED_NULL);
            out.truncate(start);
            out.push_str(&escaped);
            return;
        }
        out.truncate(start + at);
        self.broken = Some(Failure::entity(
            "expected text, found a null character; where there are many, `encoding` should be \
             utf-16, else `escape_null_bytes` makes something harmless of them",
        ));
    }

    /// Keeps the place; what is broken happened at the end of what is given.
    fn count(&mut self, given: &str) {
        let lines = memchr::memchr_iter(b'\n', given.as_bytes()).count() as u64;
        let last = match given.rfind('\n') {
            Some(at) => {
                self.column = 1;
                &given[at + 1..]
            }
            None => given,
        };
        self.line += lines;
        self.column += last.chars().count() as u64;
        if let Some(broken) = self.broken.take() {
            let place = format!("line {}, column {}", self.line, self.column);
            self.broken = Some(broken.context(place));
        }
    }
}

impl Decoder {
    /// The decoder of a stream that begins with these bytes, and the length of its mark.
    fn of(charset: &Charset, start: &[u8]) -> (Decoder, usize) {
        let (marked, mark) = match start {
            _ if start.starts_with(&MARK) => (Some(UTF_8), MARK.len()),
            [0xff, 0xfe, ..] => (Some(UTF_16LE), 2),
            [0xfe, 0xff, ..] => (Some(UTF_16BE), 2),
            _ => (None, 0),
        };
        let encoding = match (marked, charset.way()) {
            (Some(encoding), _) => encoding,
            (None, Way::Single(upper)) => return (Decoder::Single(upper.clone()), 0),
            (None, Way::Utf8) => UTF_8,
            (None, Way::Utf16 { big: false }) => UTF_16LE,
            (None, Way::Utf16 { big: true }) => UTF_16BE,
            (None, Way::Other(encoding)) => encoding,
        };
        let decoder = encoding.new_decoder_without_bom_handling();
        (Decoder::Streaming(decoder), mark)
    }

    fn decode(&mut self, bytes: &[u8], last: bool, out: &mut String) -> Piece {
        match self {
            Decoder::Single(upper) => {
                for (at, byte) in bytes.iter().enumerate() {
                    let c = match byte.checked_sub(128) {
                        None => char::from(*byte),
                        Some(at) => upper[usize::from(at)],
                    };
                    if c == char::REPLACEMENT_CHARACTER {
                        return Piece::Malformed { read: at + 1 };
                    }
                    out.push(c);
                }
                Piece::Whole
            }
            Decoder::Streaming(decoder) => {
                let mut from = 0;
                loop {
                    let rest = &bytes[from..];
                    let room = decoder.max_utf8_buffer_length_without_replacement(rest.len());
                    out.reserve(room.unwrap_or(rest.len() * 3 + 8));
                    let (result, read) =
                        decoder.decode_to_string_without_replacement(rest, out, last);
                    from += read;
                    match result {
                        DecoderResult::InputEmpty => return Piece::Whole,
                        DecoderResult::OutputFull => {}
                        DecoderResult::Malformed(..) => return Piece::Malformed { read: from },
                    }
                }
            }
        }
    }
}

/// The same text for readers of bytes, which then are UTF-8; it counts lines.
pub(super) struct Lines<R> {
    text: Text<R>,
    buffer: String,
    at: usize,
    line: u64,
    /// Bytes that may be taken until somebody says that more are welcome.
    left: usize,
    failure: Option<Failure>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(text: Text<R>) -> Lines<R> {
        Lines {
            text,
            buffer: String::new(),
            at: 0,
            line: 1,
            left: usize::MAX,
            failure: None,
        }
    }

    /// The line that was read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// So many more bytes may be read.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.left = bytes;
    }

    /// Whether all of what was allowed was read.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    /// Why the reader failed.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(out.len());
        out[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: Read> BufRead for Lines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::Error::other("too much"));
        }
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            if let Err(failure) = self.text.fill(&mut self.buffer) {
                self.failure = Some(failure);
                return Err(io::Error::other("the text breaks off"));
            }
        }
        let end = self.buffer.len().min(self.at.saturating_add(self.left));
        Ok(&self.buffer.as_bytes()[self.at..end])
    }

    fn consume(&mut self, amount: usize) {
        let taken = &self.buffer.as_bytes()[self.at..self.at + amount];
        self.line += memchr::memchr_iter(b'\n', taken).count() as u64;
        self.at += amount;
        self.left -= amount.min(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, so that every character is cut.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn read(bytes: &[u8], charset: &str, manners: Manners) -> (String, Option<String>) {
        let charset = Charset::of(charset).unwrap();
        let mut text = Text::new(Slow(bytes), charset, manners);
        let mut out = String::new();
        loop {
            match text.fill(&mut out) {
                Ok(true) => {}
                Ok(false) => return (out, None),
                Err(failure) => return (out, Some(failure.message)),
            }
        }
    }

    fn plain(bytes: &[u8], charset: &str) -> String {
        let (text, failure) = read(bytes, charset, Manners::default());
        assert_eq!(failure, None);
        text
    }

    #[test]
    fn text_is_read_in_many_encodings_and_marks_go_first() {
        assert_eq!(plain(b"Bl\xe5b\xe6r", "iso-8859-1"), "Blåbær");
        assert_eq!(plain("blåbær 😀".as_bytes(), "utf-8"), "blåbær 😀");
        assert_eq!(plain(b"\xef\xbb\xbf\xc3\xa5", "iso-8859-1"), "å");
        assert_eq!(plain(b"\xff\xfea\0\xe5\0", "utf-8"), "aå");
        assert_eq!(plain(b"\xfe\xff\0a\xd8\x3d\xde\0", "utf-8"), "a😀");
        assert_eq!(plain(b"a\0b\0", "utf-16"), "ab");
        assert_eq!(plain(b"\x9b\x91\x86", "cp865"), "øæå");
        assert_eq!(plain(b"\x82\xa0", "shift_jis"), "あ");
        assert_eq!(plain(b"", "utf-8"), "");
        assert_eq!(plain(b"a", "utf-8"), "a");
    }

    #[test]
    fn what_is_no_text_is_told_with_its_place_or_replaced() {
        let (text, failure) = read(b"ab\nc\xe5d", "utf-8", Manners::default());
        assert_eq!(text, "ab\nc");
        let failure = failure.unwrap();
        assert!(
            failure.starts_with("line 2, column 2: expected text in the encoding utf-8"),
            "{failure}"
        );
        let replace = Manners {
            replace: true,
            ..Manners::default()
        };
        assert_eq!(
            read(b"c\xe5d\xff", "utf-8", replace),
            ("c\u{fffd}d\u{fffd}".into(), None)
        );
        assert_eq!(read(b"a\xe5", "ascii", replace).0, "a\u{fffd}");
        let (_, cut) = read(b"\xc3", "utf-8", Manners::default());
        assert!(cut.unwrap().starts_with("line 1, column 1"));
    }

    #[test]
    fn null_characters_are_told_or_escaped() {
        let (text, failure) = read(b"a,b\0c", "utf-8", Manners::default());
        assert_eq!(text, "a,b");
        assert!(
            failure
                .unwrap()
                .starts_with("line 1, column 4: expected text, found a null")
        );
        let escape = Manners {
            escape_nulls: true,
            ..Manners::default()
        };
        assert_eq!(read(b"a,b\0c", "utf-8", escape), ("a,b\\0c".into(), None));
    }
}
