//! A stream of text into rows of fields.

use std::io::Read;

use tahini_hub::Failure;

use super::dialect::Dialect;
use crate::formats::text::Text;

/// The most bytes that the fields of one row may take together.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;
/// A row's memory beyond this is not kept for the next one.
const KEPT_BYTES: usize = 1 << 20;

/// The fields of a row.
#[derive(Default)]
pub(super) struct Row {
    text: String,
    ends: Vec<usize>,
    /// The line that it begins on, from 1.
    pub(super) line: u64,
    /// Whether a field stood in quotes.
    pub(super) quoted: bool,
}

/// The rows of a text, read as they are asked for.
pub(super) struct Rows<R> {
    text: Option<Text<R>>,
    buffer: String,
    at: usize,
    dialect: Dialect,
    line: u64,
    /// The last row ended with a carriage return, to which a line feed may belong.
    after_return: bool,
}

/// Where in a row the reader is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before the first character of a field.
    Start,
    /// In a field without quotes, or behind the closing one.
    Field,
    /// Between quotes.
    Quoted,
    /// Behind a quote that closes the field, unless another one follows.
    Closing,
}

impl Row {
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        self.ends.clear();
        self.quoted = false;
    }

    fn end_field(&mut self) {
        self.ends.push(self.text.len());
    }

    /// How many fields there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field at `at`, from 0.
    pub(super) fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)?;
        let start = match at {
            0 => 0,
            at => self.ends[at - 1],
        };
        Some(&self.text[start..end])
    }

    /// The fields in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// A line without anything, which is no row.
    fn is_blank(&self) -> bool {
        self.text.is_empty() && self.ends.len() == 1 && !self.quoted
    }
}

impl<R: Read> Rows<R> {
    /// The rows of `text` in that dialect.
    pub(super) fn new(text: Text<R>, dialect: Dialect) -> Rows<R> {
        Rows {
            text: Some(text),
            buffer: String::new(),
            at: 0,
            dialect,
            line: 1,
            after_return: false,
        }
    }

    /// The rows of a text that is at hand.
    pub(super) fn of(text: &str, dialect: Dialect) -> Rows<R> {
        Rows {
            text: None,
            buffer: text.to_owned(),
            at: 0,
            dialect,
            line: 1,
            after_return: false,
        }
    }

    /// The start of the text, about so many bytes of it, and whether that is all.
    ///
    /// # Errors
    /// As [`Rows::next`].
    pub(super) fn look_ahead(&mut self, bytes: usize) -> Result<(&str, bool), Failure> {
        let mut whole = false;
        while !whole && self.buffer.len() < bytes {
            whole = !self.more()?;
        }
        Ok((&self.buffer, whole))
    }

    /// Reads on in this dialect.
    pub(super) fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Reads the next row; `false` at the end. Blank lines are stepped over.
    ///
    /// # Errors
    /// When the text cannot be read; an entity failure when a quote is never closed or the row is
    /// longer than 64 MiB, with its line.
    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, Failure> {
        loop {
            if !self.is_ready()? {
                return Ok(false);
            }
            row.clear();
            row.line = self.line;
            self.read(row)?;
            if !row.is_blank() {
                return Ok(true);
            }
        }
    }

    /// Whether a row begins here.
    fn is_ready(&mut self) -> Result<bool, Failure> {
        loop {
            if self.at == self.buffer.len() && !self.refill()? {
                return Ok(false);
            }
            if !std::mem::take(&mut self.after_return) || self.front() != b'\n' {
                return Ok(true);
            }
            self.at += 1;
        }
    }

    fn read(&mut self, row: &mut Row) -> Result<(), Failure> {
        let (mut state, mut opened) = (State::Start, (self.line, 1));
        loop {
            if self.at == self.buffer.len() && !self.refill()? {
                if state == State::Quoted {
                    return Err(unclosed(opened));
                }
                row.end_field();
                return Ok(());
            }
            if row.text.len() > MAX_ROW_BYTES {
                return Err(too_long(
                    row.line,
                    (state == State::Quoted).then_some(opened),
                ));
            }
            match state {
                State::Start if self.front() == self.dialect.quote => {
                    self.at += 1;
                    row.quoted = true;
                    opened = (self.line, row.len() + 1);
                    state = State::Quoted;
                }
                State::Start if self.dialect.skip_space && self.front() == b' ' => self.at += 1,
                State::Start | State::Field => match self.field(row)? {
                    Some(state_after) => state = state_after,
                    None => return Ok(()),
                },
                State::Quoted => {
                    if self.quoted(row) {
                        state = State::Closing;
                    }
                }
                State::Closing if self.front() == self.dialect.quote => {
                    row.text.push(char::from(self.dialect.quote));
                    self.at += 1;
                    state = State::Quoted;
                }
                State::Closing => state = State::Field,
            }
        }
    }

    /// Reads on outside of quotes; `None` when the row ends.
    fn field(&mut self, row: &mut Row) -> Result<Option<State>, Failure> {
        let rest = &self.buffer.as_bytes()[self.at..];
        let first = self.dialect.delimiter.as_bytes()[0];
        let found = memchr::memchr3(first, b'\n', b'\r', rest);
        let plain = found.unwrap_or(rest.len());
        row.text.push_str(&self.buffer[self.at..self.at + plain]);
        self.at += plain;
        if found.is_none() {
            return Ok(Some(State::Field));
        }
        if self.starts_with_delimiter()? {
            self.at += self.dialect.delimiter.len();
            row.end_field();
            return Ok(Some(State::Start));
        }
        match self.front() {
            b'\n' | b'\r' => {
                self.after_return = self.front() == b'\r';
                self.at += 1;
                self.line += 1;
                row.end_field();
                Ok(None)
            }
            _ => {
                // Only the first byte was that of a delimiter.
                let c = self.buffer[self.at..].chars().next().unwrap_or_default();
                row.text.push(c);
                self.at += c.len_utf8();
                Ok(Some(State::Field))
            }
        }
    }

    /// Reads on between quotes; whether it came to one.
    fn quoted(&mut self, row: &mut Row) -> bool {
        let rest = &self.buffer.as_bytes()[self.at..];
        let found = memchr::memchr(self.dialect.quote, rest);
        let plain = found.unwrap_or(rest.len());
        self.line += memchr::memchr_iter(b'\n', &rest[..plain]).count() as u64;
        row.text.push_str(&self.buffer[self.at..self.at + plain]);
        self.at += plain + usize::from(found.is_some());
        found.is_some()
    }

    /// Whether the delimiter stands here, of which the first byte may be all that was read.
    fn starts_with_delimiter(&mut self) -> Result<bool, Failure> {
        let wanted = self.dialect.delimiter.len();
        while self.buffer.len() - self.at < wanted {
            let rest = &self.buffer[self.at..];
            if !self.dialect.delimiter.starts_with(rest) || !self.more()? {
                return Ok(false);
            }
        }
        let delimiter = self.dialect.delimiter.as_str();
        Ok(self.buffer[self.at..].starts_with(delimiter))
    }

    fn front(&self) -> u8 {
        self.buffer.as_bytes()[self.at]
    }

    /// Reads more behind what is there.
    fn more(&mut self) -> Result<bool, Failure> {
        self.buffer.drain(..self.at);
        self.at = 0;
        match &mut self.text {
            Some(text) => text.fill(&mut self.buffer),
            None => Ok(false),
        }
    }

    /// Reads more when nothing is there.
    fn refill(&mut self) -> Result<bool, Failure> {
        self.at = self.buffer.len();
        self.more()
    }
}

fn unclosed((line, field): (u64, usize)) -> Failure {
    Failure::entity(format!(
        "line {line}, field {field}: expected a quote that closes the field, found the end of the \
         file"
    ))
}

fn too_long(line: u64, opened: Option<(u64, usize)>) -> Failure {
    let mib = MAX_ROW_BYTES >> 20;
    let why = match opened {
        Some((line, field)) => {
            format!("; the quote that opens field {field} on line {line} is perhaps never closed")
        }
        None => String::new(),
    };
    Failure::entity(format!(
        "line {line}: expected a row of at most {mib} MiB, found a longer one{why}"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use super::*;
    use crate::formats::charset::Charset;
    use crate::formats::text::Manners;

    /// Gives a few bytes at a time.
    struct Slow(Cursor<Vec<u8>>, usize);

    impl Read for Slow {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = out.len().min(self.1);
            self.0.read(&mut out[..len])
        }
    }

    fn dialect(delimiter: &str) -> Dialect {
        Dialect {
            delimiter: delimiter.to_owned(),
            ..Dialect::excel()
        }
    }

    fn rows(text: &str, dialect: &Dialect) -> Result<Vec<Vec<String>>, String> {
        let read = |step: usize| {
            let reader = Slow(Cursor::new(text.as_bytes().to_vec()), step);
            let text = Text::new(reader, Charset::utf8(), Manners::default());
            let mut rows = Rows::new(text, dialect.clone());
            let (mut row, mut all) = (Row::default(), Vec::new());
            while rows.next(&mut row).map_err(|failure| failure.message)? {
                all.push(row.fields().map(str::to_owned).collect());
            }
            Ok(all)
        };
        let all = read(1);
        assert_eq!(all, read(7), "the size of pieces changes nothing");
        assert_eq!(all, read(usize::MAX));
        all
    }

    /// What Python's `csv.reader` gives for the same text.
    #[test]
    fn rows_are_those_that_python_reads() {
        for (text, expected) in [
            ("a,b\r\n1,2\r\n", vec![vec!["a", "b"], vec!["1", "2"]]),
            ("a,b\r1,2", vec![vec!["a", "b"], vec!["1", "2"]]),
            ("a,\n,\n", vec![vec!["a", ""], vec!["", ""]]),
            ("\n\na\n\r\n\nb\n", vec![vec!["a"], vec!["b"]]),
            (
                "\"a\"\"b\",\"c\nd\",\"e,f\"\n",
                vec![vec!["a\"b", "c\nd", "e,f"]],
            ),
            ("\"a\r\nb\"\r\nc\r\n", vec![vec!["a\r\nb"], vec!["c"]]),
            ("a\"b,\"c\"d,e\"\"\n", vec![vec!["a\"b", "cd", "e\"\""]]),
            ("\"\"\nx\n", vec![vec![""], vec!["x"]]),
            ("a, \"b\"\n", vec![vec!["a", " \"b\""]]),
            ("\"a\"", vec![vec!["a"]]),
            ("å,æ\nø,😀\n", vec![vec!["å", "æ"], vec!["ø", "😀"]]),
            ("", vec![]),
        ] {
            assert_eq!(rows(text, &dialect(",")).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn delimiters_may_be_any_text() {
        assert_eq!(
            rows("a||b|c||\n", &dialect("||")).unwrap(),
            [["a", "b|c", ""]]
        );
        assert_eq!(rows("a§b¤c§\n", &dialect("§")).unwrap(), [["a", "b¤c", ""]]);
        assert_eq!(rows("a|", &dialect("||")).unwrap(), [["a|"]]);
        let spaced = Dialect {
            skip_space: true,
            ..Dialect::excel()
        };
        assert_eq!(
            rows("a,  \"b,c\", d\n", &spaced).unwrap(),
            [["a", "b,c", "d"]]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_where_it_opens() {
        let failure = rows("a,b\n\"x\ny\",2\n1,\"2\n3\n", &dialect(",")).unwrap_err();
        let expected = "line 4, field 2: expected a quote that closes the field, found the end";
        assert!(failure.starts_with(expected), "{failure}");
    }

    #[test]
    fn a_row_without_end_is_refused_before_it_fills_the_memory() {
        let endless = io::repeat(b'x');
        let text = Text::new(endless, Charset::utf8(), Manners::default());
        let mut rows = Rows::new(text, Dialect::excel());
        let failure = rows.next(&mut Row::default()).unwrap_err().message;
        assert!(
            failure.starts_with("line 1: expected a row of at most 64 MiB"),
            "{failure}"
        );
    }
}
