//! A splitter with a reader behind it.

use std::io::{self, Read};
use std::ops::Range;

use super::opened::Opened;
use super::split::{Layout, SplitError, Splitter};

/// Why the next entity of a reader cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it read is not a stream of entities, or not all of one.
    #[error(transparent)]
    Split(#[from] SplitError),
}

/// The texts of the entities that come from a reader, read as they are asked for.
#[derive(Debug)]
pub struct Elements<R> {
    reader: R,
    splitter: Splitter,
    last: Range<usize>,
    ended: bool,
}

/// What [`Elements::next_opened`] found.
#[derive(Debug)]
pub enum Next<'a> {
    /// One or more entities, opened.
    Opened,
    /// The text of one that is for the parser.
    Element(&'a [u8]),
    /// The end of a stream that is whole.
    End,
}

impl<R: Read> Elements<R> {
    /// The entities of `reader`, whose stream has this layout.
    pub fn new(reader: R, layout: Layout) -> Elements<R> {
        Elements {
            reader,
            splitter: Splitter::new(layout),
            last: 0..0,
            ended: false,
        }
    }

    /// How many entities came so far.
    pub fn complete(&self) -> u64 {
        self.splitter.complete()
    }

    /// The text of the next entity; `None` at the end of a stream that is whole.
    ///
    /// # Errors
    /// When the reader fails, the stream is cut off, or something else than an entity comes.
    pub fn next_element(&mut self) -> Result<Option<&[u8]>, ReadError> {
        while !self.ended {
            if let Some(range) = self.splitter.advance()? {
                self.last = range.clone();
                return Ok(Some(self.splitter.slice(range)));
            }
            self.ended = self.splitter.fill(&mut self.reader)? == 0;
        }
        // After the last chunk nothing whole is left in the buffer.
        self.splitter.finish()?;
        Ok(None)
    }

    /// Opens the next entities, as many as are at hand, into `opened`, which should be empty.
    /// Look at them before the next call: their text stays in [`Elements::buffer`] until then.
    ///
    /// # Errors
    /// As [`Elements::next_element`], after the entities before the fault were given.
    pub fn next_opened(&mut self, opened: &mut Opened) -> Result<Next<'_>, ReadError> {
        while !self.ended {
            loop {
                match self.splitter.open(opened) {
                    Ok(true) => {}
                    Err(error) if opened.is_empty() => return Err(error.into()),
                    // The fault comes again when those before it were looked at.
                    Ok(false) | Err(_) => break,
                }
            }
            if !opened.is_empty() {
                return Ok(Next::Opened);
            }
            if let Some(range) = self.splitter.advance()? {
                self.last = range.clone();
                return Ok(Next::Element(self.splitter.slice(range)));
            }
            self.ended = self.splitter.fill(&mut self.reader)? == 0;
        }
        self.splitter.finish()?;
        Ok(Next::End)
    }

    /// Gives back what the texts of large entities took that were given and looked at, before
    /// something else needs memory for them; [`Elements::buffer`] is another one then.
    pub fn let_go(&mut self) {
        self.splitter.let_go();
        self.last = 0..0;
    }

    /// Where the entity whose text was given last stands in [`Elements::buffer`].
    pub fn last(&self) -> Range<usize> {
        self.last.clone()
    }

    /// The text in which entities were opened; it ends where the reader has got to.
    pub fn buffer(&self) -> &[u8] {
        self.splitter.buffer()
    }

    /// The reader, for what can be told once it was read.
    pub fn into_inner(self) -> R {
        self.reader
    }
}
