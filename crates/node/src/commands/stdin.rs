//! An input of entities, with the line and the column of whatever is wrong in it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, StdinLock};
use std::rc::Rc;

use anyhow::anyhow;
use tahini_entity::json::{Elements, EntityError, Layout, ReadError, SplitError};

/// An input, of which the lines are counted.
pub(super) struct Input<R> {
    reader: R,
    at: Lines,
}

/// Where the lines of an input begin, as far as it was read.
#[derive(Clone, Default)]
pub(super) struct Lines(Rc<RefCell<Breaks>>);

/// Line breaks: those of the last two reads one by one, those before them by number.
#[derive(Default)]
struct Breaks {
    /// Bytes read.
    bytes: u64,
    /// Something stands behind the last break.
    begun: bool,
    earlier: u64,
    /// Where the last one of the earlier ones stands.
    last_earlier: Option<u64>,
    /// Where those that are kept stand, in order; of the last read from `recent` on.
    kept: Vec<u64>,
    recent: usize,
    /// Where the reads begin whose breaks are kept, and the last one of them.
    kept_from: u64,
    recent_from: u64,
}

/// A place in an input, both from 1; columns count characters.
struct Place {
    line: u64,
    column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The entities of standard input, and where they stand.
pub(super) fn stdin() -> (Elements<Input<StdinLock<'static>>>, Lines) {
    counted(io::stdin().lock())
}

/// The entities of any reader, and where they stand.
pub(super) fn counted<R: Read>(reader: R) -> (Elements<Input<R>>, Lines) {
    let at = Lines::default();
    let input = Input {
        reader,
        at: at.clone(),
    };
    (Elements::new(input, Layout::ArrayOrLines), at)
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        self.at.0.borrow_mut().add(&into[..read]);
        Ok(read)
    }
}

impl Breaks {
    fn add(&mut self, text: &[u8]) {
        let Some(last) = text.last() else {
            return;
        };
        self.begun = *last != b'\n';
        self.earlier += self.recent as u64;
        if let Some(last) = self.recent.checked_sub(1) {
            self.last_earlier = Some(self.kept[last]);
        }
        self.kept.drain(..self.recent);
        self.recent = self.kept.len();
        (self.kept_from, self.recent_from) = (self.recent_from, self.bytes);
        let from = self.bytes;
        let breaks = memchr::memchr_iter(b'\n', text).map(|at| from + at as u64);
        self.kept.extend(breaks);
        self.bytes += text.len() as u64;
    }

    /// How many breaks stand before byte `at` of the buffer, and where the last one does.
    fn before(&self, buffer: &[u8], at: usize) -> (u64, Option<u64>) {
        let base = self.bytes - buffer.len() as u64;
        let place = base + at as u64;
        if place < self.kept_from {
            // All that was not looked at yet is in the buffer.
            let known = usize::try_from(self.kept_from - base).unwrap_or(buffer.len());
            let behind = memchr::memchr_iter(b'\n', &buffer[at..known]).count() as u64;
            let last = memchr::memrchr(b'\n', &buffer[..at]);
            return (self.earlier - behind, last.map(|last| base + last as u64));
        }
        let before = self.kept.partition_point(|known| *known < place);
        let last = before.checked_sub(1).map(|last| self.kept[last]);
        (self.earlier + before as u64, last.or(self.last_earlier))
    }
}

impl Lines {
    /// The line of byte `at` of `buffer`, which ends where the input was read to.
    pub(super) fn line(&self, buffer: &[u8], at: usize) -> u64 {
        self.0.borrow().before(buffer, at).0 + 1
    }

    fn place(&self, buffer: &[u8], at: usize) -> Place {
        let at = at.min(buffer.len());
        let breaks = self.0.borrow();
        let base = breaks.bytes - buffer.len() as u64;
        let (before, last) = breaks.before(buffer, at);
        let begin = last.map_or(0, |last| last + 1);
        // Of what is gone already, bytes are counted.
        let gone = base.saturating_sub(begin);
        let there = usize::try_from(begin.saturating_sub(base)).unwrap_or(at);
        let starts = buffer[there.min(at)..at].iter();
        let starts = starts.filter(|byte| (**byte & 0xc0) != 0x80).count();
        Place {
            line: before + 1,
            column: gone + starts as u64 + 1,
        }
    }

    /// What is wrong with an entity that begins at byte `start` of `buffer`, in words for who wrote
    /// the input.
    pub(super) fn wrong(&self, error: &EntityError, buffer: &[u8], start: usize) -> anyhow::Error {
        let place = self.place(buffer, start + error.offset);
        let entity = match &error.id {
            Some(id) => format!(" (entity {id:?})"),
            None => String::new(),
        };
        anyhow!("{place} of the input{entity}: {}", error.message)
    }

    /// What is wrong with the input as a whole, in words for who wrote it. `buffer` is what the
    /// splitter has of it.
    pub(super) fn explain(&self, error: ReadError, buffer: &[u8]) -> anyhow::Error {
        let (bytes, lines) = {
            let breaks = self.0.borrow();
            let lines = breaks.earlier + breaks.kept.len() as u64 + u64::from(breaks.begun);
            (breaks.bytes, lines)
        };
        let base = bytes - buffer.len() as u64;
        let at = |at: u64| self.place(buffer, usize::try_from(at - base).unwrap_or(usize::MAX));
        match error {
            ReadError::Split(SplitError::Truncated {
                expected, complete, ..
            }) => anyhow!(
                "expected {expected}, found the end of the input in line {lines}, after {complete} \
                 complete entities"
            ),
            ReadError::Split(SplitError::Syntax {
                expected,
                at: place,
                found,
                ..
            }) => anyhow!(
                "{} of the input: expected {}, found {found}",
                at(place),
                expected.trim_end_matches(',')
            ),
            ReadError::Split(SplitError::TooLarge { at: place, .. }) => {
                anyhow!("{} of the input: {error}", at(place))
            }
            error => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tahini_entity::Batch;
    use tahini_entity::json::{Numbers, Parser};

    use super::*;

    /// What is said of a text that is read in pieces of so many bytes.
    fn complaint(text: &str, piece: usize) -> String {
        struct Pieces<'a>(&'a [u8], usize);
        impl Read for Pieces<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let most = self.1.min(into.len());
                self.0.read(&mut into[..most])
            }
        }
        let (mut elements, at) = counted(Pieces(text.as_bytes(), piece));
        let (mut parser, mut batch) = (Parser::new(Numbers::default()), Batch::new());
        loop {
            match elements.next_element() {
                Ok(Some(_)) => {}
                Ok(None) => return String::new(),
                Err(error) => return at.explain(error, elements.buffer()).to_string(),
            }
            let (buffer, last) = (elements.buffer(), elements.last());
            at.line(buffer, last.start);
            if let Err(error) = parser.push_json(&mut batch, &buffer[last.clone()]) {
                return at.wrong(&error, buffer, last.start).to_string();
            }
        }
    }

    #[test]
    fn an_input_that_is_cut_tells_its_last_line() {
        for (text, line) in [
            ("{\"_id\":\"1\"}\n{\"_id\":", 2),
            ("{\"_id\":\"1\"}\n\n{\"_id\":\n", 3),
            ("[{\"_id\":\"1\"},", 1),
        ] {
            let words = complaint(text, 1 << 20);
            let place = format!("in line {line}, after 1 complete");
            assert!(words.contains(&place), "{text}: {words}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_line_and_column() {
        for (text, expected) in [
            (
                "{\"_id\":\"å\"}\n\n {\"_id\":\"å\",\"n\":}\n",
                "line 3, column 17 of the input (entity \"å\"): expected a JSON value, found `}`",
            ),
            (
                "{\"_id\":\"1\"}\n {\"_id\":\"2\",\n\"n\" 5}\n",
                "line 3, column 5 of the input (entity \"2\"): expected",
            ),
            (
                "[{\"_id\":\"1\"},\n  {\"_id\":\"2\"},\n  5]",
                "line 3, column 3 of the input: expected an entity, which is a JSON object, found",
            ),
            (
                "{\"_id\":\"1\"}\n5",
                "line 2, column 1 of the input: expected an entity",
            ),
        ] {
            for piece in [1 << 20, 7, 1] {
                let words = complaint(text, piece);
                assert!(words.starts_with(expected), "by {piece}: {words}");
            }
        }
    }
}
