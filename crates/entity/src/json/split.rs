//! Cutting a stream of JSON into the texts of its entities, without reading what is in them.

use std::io::{self, Read};
use std::ops::Range;

use super::opened::Opened;
use super::{EXCERPT, excerpt, scan};

/// The largest text of one entity, in bytes: room for one of the 100 MiB that a dataset takes by
/// default, with its quotes and escapes.
pub const MAX_ENTITY_BYTES: usize = 128 << 20;

/// How much `Splitter::fill` asks a reader for, in bytes.
const CHUNK: usize = 256 * 1024;

/// More memory than this is given back once it is not needed any more.
const KEPT: usize = 8 << 20;

/// What a stream may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One JSON array of entities.
    Array,
    /// One JSON array, or one entity alone.
    ArrayOrObject,
    /// Any number of entities, one after another, usually one a line (NDJSON).
    Lines,
    /// One JSON array, or entities one after another.
    ArrayOrLines,
}

impl Layout {
    fn expected(self) -> &'static str {
        match self {
            Layout::Array => "a JSON array of entities",
            Layout::ArrayOrObject => "a JSON array of entities or a single entity",
            Layout::Lines => "a JSON object on each line",
            Layout::ArrayOrLines => "a JSON array of entities, or a JSON object on each line",
        }
    }

    fn takes_array(self) -> bool {
        self != Layout::Lines
    }

    fn takes_lines(self) -> bool {
        matches!(self, Layout::Lines | Layout::ArrayOrLines)
    }
}

/// Why a stream is not made of entities, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The stream is something else: an error object, an HTML page, nothing at all.
    #[error("expected {expected}, found {found}")]
    Root {
        /// What the layout asks for.
        expected: &'static str,
        /// What there is, with its first 80 bytes.
        found: String,
    },
    /// Something between the entities is wrong, or an element is not a JSON object.
    #[error("expected {expected} at byte {at}, after {complete} complete entities, found {found}")]
    Syntax {
        /// What should have come.
        expected: &'static str,
        /// The place in the stream, in bytes from 0.
        at: u64,
        /// How many entities came before.
        complete: u64,
        /// What came, its first 80 bytes.
        found: String,
    },
    /// The input ended too early.
    #[error(
        "expected {expected}, found the end of the input after {bytes} bytes \
         and {complete} complete entities: the answer was cut off"
    )]
    Truncated {
        /// What was still to come.
        expected: &'static str,
        /// How many bytes came.
        bytes: u64,
        /// How many entities came whole.
        complete: u64,
    },
    /// An entity is larger than `MAX_ENTITY_BYTES`.
    #[error(
        "expected entities of at most {MAX_ENTITY_BYTES} bytes, found a larger one at byte {at}, \
         after {complete} complete entities"
    )]
    TooLarge {
        /// Where it starts.
        at: u64,
        /// How many entities came before.
        complete: u64,
    },
}

/// Cuts a stream into entities as its bytes arrive; it holds the bytes that were fed and not
/// taken yet, and nothing else.
///
/// Feed a chunk, take elements until there are none, feed the next; at the end of the input
/// take the rest and call `finish`, which alone can tell that the stream was whole. That an
/// element is an object and where it ends is found here; whether it is well-formed is for the
/// parser to find, so that a wrong entity does not end the stream.
#[derive(Debug)]
pub struct Splitter {
    layout: Layout,
    buffer: Vec<u8>,
    /// Bytes of the stream before `buffer`.
    base: u64,
    /// The next byte of `buffer` to look at.
    at: usize,
    state: State,
    in_array: bool,
    complete: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing but white space came so far.
    Root,
    /// In the array, before an element; `]` may only come instead of the first one.
    Element { first: bool },
    /// In the array, behind an element.
    Behind,
    /// Between the objects of a stream without an array.
    Between,
    /// Inside the element that starts at `start` of `buffer`.
    Inside {
        start: usize,
        depth: u32,
        in_string: bool,
    },
    /// Behind the end: white space only.
    End,
    /// Something else came; this is what should have come instead.
    Wrong { expected: &'static str },
    /// Something else came before anything else.
    WrongRoot,
}

impl Splitter {
    /// A splitter for a stream of this layout.
    pub fn new(layout: Layout) -> Splitter {
        Splitter {
            layout,
            buffer: Vec::new(),
            base: 0,
            at: 0,
            state: State::Root,
            in_array: false,
            complete: 0,
        }
    }

    /// How many entities were taken.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Adds the next bytes of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.forget_taken();
        self.buffer.extend_from_slice(chunk);
    }

    /// Adds the next bytes of the stream from a reader, at most 256 KiB; 0 means its end.
    ///
    /// # Errors
    /// Those of the reader; the bytes before them are kept.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.forget_taken();
        let len = self.buffer.len();
        self.buffer.resize(len + CHUNK, 0);
        let read = loop {
            match from.read(&mut self.buffer[len..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer
            .truncate(len + read.as_ref().copied().unwrap_or(0));
        read
    }

    /// The text of the next entity; `None` when that needs more bytes, or there are no more.
    ///
    /// # Errors
    /// When something else than an entity comes; the stream is then of no more use.
    pub fn next_element(&mut self) -> Result<Option<&[u8]>, SplitError> {
        Ok(self.advance()?.map(|range| self.slice(range)))
    }

    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Says that the input has ended; returns how many entities there were.
    ///
    /// # Errors
    /// When the stream was cut off, or something else than an entity came last.
    pub fn finish(&mut self) -> Result<u64, SplitError> {
        self.advance()?;
        let expected = match self.state {
            State::End | State::Between => return Ok(self.complete),
            State::Root if self.layout.takes_lines() => return Ok(self.complete),
            State::Wrong { .. } | State::WrongRoot => return Err(self.wrong()),
            State::Root => {
                let expected = self.layout.expected();
                return Err(SplitError::Root {
                    expected,
                    found: "nothing".to_owned(),
                });
            }
            State::Element { first: true } | State::Behind => "the closing `]` of the JSON array",
            State::Element { first: false } => "another entity",
            State::Inside { .. } => "the rest of an entity",
        };
        let bytes = self.base + self.buffer.len() as u64;
        Err(SplitError::Truncated {
            expected,
            bytes,
            complete: self.complete,
        })
    }

    /// Gives the memory of a large entity back that was taken; what was given of the buffer before
    /// means nothing then.
    pub(super) fn let_go(&mut self) {
        if self.buffer.capacity() > KEPT {
            self.forget_taken();
        }
    }

    fn forget_taken(&mut self) {
        let taken = match self.state {
            State::Inside { start, .. } => start,
            _ => self.at,
        };
        if taken == 0 {
            return;
        }
        self.buffer.drain(..taken);
        if self.buffer.capacity() > KEPT && self.buffer.len() < CHUNK {
            // A large entity is behind us.
            self.buffer.shrink_to(CHUNK);
        }
        self.base += taken as u64;
        self.at -= taken;
        if let State::Inside { start, .. } = &mut self.state {
            *start = 0;
        }
    }

    /// The place of the next element in the buffer.
    pub(super) fn advance(&mut self) -> Result<Option<Range<usize>>, SplitError> {
        let Some(start) = self.next_start()? else {
            return Ok(None);
        };
        let end = self.element_end();
        if end.unwrap_or(self.buffer.len()) - start > MAX_ENTITY_BYTES {
            let at = self.base + start as u64;
            return Err(SplitError::TooLarge {
                at,
                complete: self.complete,
            });
        }
        if end.is_some() {
            self.complete += 1;
        }
        Ok(end.map(|end| start..end))
    }

    /// Opens the next element, if it is all there and of the usual kind.
    pub(super) fn open(&mut self, opened: &mut Opened) -> Result<bool, SplitError> {
        let Some(start) = self.next_start()? else {
            return Ok(false);
        };
        let Some(end) = opened.open(&self.buffer, start) else {
            return Ok(false);
        };
        self.at = end;
        self.state = self.behind();
        self.complete += 1;
        Ok(true)
    }

    /// The bytes that the places of opened elements refer to, until the next `fill` or `feed`.
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// Where the next element starts in the buffer.
    fn next_start(&mut self) -> Result<Option<usize>, SplitError> {
        loop {
            if let State::Inside { start, .. } = self.state {
                return Ok(Some(start));
            }
            self.at = scan::past_space(&self.buffer, self.at);
            let Some(&byte) = self.buffer.get(self.at) else {
                return Ok(None);
            };
            self.state = match (self.state, byte) {
                (State::Root, 0xef) if self.base == 0 && self.at == 0 => {
                    if !self.skip_mark() {
                        return Ok(None);
                    }
                    continue;
                }
                (State::Root, b'[') if self.layout.takes_array() => {
                    self.in_array = true;
                    State::Element { first: true }
                }
                (State::Root, b'{') if self.layout != Layout::Array => self.element(),
                (State::Root, _) => State::WrongRoot,
                (State::Element { .. } | State::Between, b'{') => self.element(),
                (State::Element { first: true }, b']') | (State::Behind, b']') => State::End,
                (State::Behind, b',') => State::Element { first: false },
                (State::Element { .. } | State::Between, _) => State::Wrong {
                    expected: "an entity, which is a JSON object,",
                },
                (State::Behind, _) => State::Wrong {
                    expected: "`,` or `]`",
                },
                (State::End, _) => State::Wrong {
                    expected: "the end of the input",
                },
                (wrong @ (State::Wrong { .. } | State::WrongRoot), _) => {
                    // The message shows 80 bytes and whether there are more, however they came.
                    if self.buffer.len() - self.at <= EXCERPT {
                        return Ok(None);
                    }
                    self.state = wrong;
                    return Err(self.wrong());
                }
                (State::Inside { .. }, _) => unreachable!("an element was found above"),
            };
            if !matches!(self.state, State::Wrong { .. } | State::WrongRoot) {
                self.at += 1;
            }
        }
    }

    /// The state at the opening brace of an element.
    fn element(&self) -> State {
        State::Inside {
            start: self.at,
            depth: 1,
            in_string: false,
        }
    }

    /// Steps over a byte order mark; false when it is not all there yet.
    fn skip_mark(&mut self) -> bool {
        if self.buffer.len() < 3 && [0xef, 0xbb, 0xbf].starts_with(&self.buffer) {
            return false;
        }
        if self.buffer.starts_with(&[0xef, 0xbb, 0xbf]) {
            self.at = 3;
        } else {
            self.state = State::WrongRoot;
        }
        true
    }

    /// The end of the element at hand and the state behind it; `None` when it is not all there.
    fn element_end(&mut self) -> Option<usize> {
        let State::Inside {
            start,
            mut depth,
            mut in_string,
        } = self.state
        else {
            unreachable!("called inside an element only");
        };
        let bytes = self.buffer.as_slice();
        let mut at = self.at;
        loop {
            if in_string {
                at = scan::quote_or_backslash(bytes, at);
                match bytes.get(at) {
                    Some(b'"') => {
                        in_string = false;
                        at += 1;
                    }
                    Some(_) if at + 1 < bytes.len() => at += 2,
                    _ => break,
                }
                continue;
            }
            match bytes.get(at) {
                None => break,
                Some(b'"') => in_string = true,
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => {
                    depth -= 1;
                    if depth == 0 {
                        self.at = at + 1;
                        self.state = self.behind();
                        return Some(at + 1);
                    }
                }
                Some(_) => {}
            }
            at += 1;
        }
        self.at = at;
        self.state = State::Inside {
            start,
            depth,
            in_string,
        };
        None
    }

    /// The state behind an element.
    fn behind(&self) -> State {
        if self.in_array {
            State::Behind
        } else if self.layout.takes_lines() {
            State::Between
        } else {
            State::End
        }
    }

    fn wrong(&self) -> SplitError {
        let rest = &self.buffer[self.at..];
        match self.state {
            State::Wrong { expected } => SplitError::Syntax {
                expected,
                at: self.base + self.at as u64,
                complete: self.complete,
                found: excerpt(rest),
            },
            _ => SplitError::Root {
                expected: self.layout.expected(),
                found: format!("{}: {}", kind(rest), excerpt(rest)),
            },
        }
    }
}

/// What a text seems to be, by its first byte.
fn kind(text: &[u8]) -> &'static str {
    match text.first() {
        Some(b'{') => "a JSON object",
        Some(b'[') => "a JSON array",
        Some(b'"') => "a JSON string",
        Some(b'<') => "markup, perhaps an HTML page",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(0x1f) => "binary content, perhaps compressed",
        _ => "other text",
    }
}
