//! Standard input, with the line at which it breaks off.

use std::cell::Cell;
use std::io::{self, Read, StdinLock};
use std::rc::Rc;

use anyhow::anyhow;
use tahini_entity::json::{ReadError, SplitError};

/// Standard input, of which the lines are counted.
pub(super) struct Stdin<R = StdinLock<'static>> {
    reader: R,
    at: Line,
}

/// How many lines were read.
#[derive(Clone, Default)]
pub(super) struct Line(Rc<Cell<Count>>);

#[derive(Clone, Copy, Default)]
struct Count {
    breaks: u64,
    /// Something stands behind the last break.
    begun: bool,
}

/// Standard input and where it is.
pub(super) fn stdin() -> (Stdin, Line) {
    counted(io::stdin().lock())
}

fn counted<R>(reader: R) -> (Stdin<R>, Line) {
    let at = Line::default();
    (
        Stdin {
            reader,
            at: at.clone(),
        },
        at,
    )
}

impl<R: Read> Read for Stdin<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        let mut count = self.at.0.get();
        count.breaks += into[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(last) = into[..read].last() {
            count.begun = *last != b'\n';
        }
        self.at.0.set(count);
        Ok(read)
    }
}

impl Line {
    /// The error in words for who wrote the input: where it was cut, the line is known.
    pub(super) fn explain(&self, error: ReadError) -> anyhow::Error {
        let ReadError::Split(SplitError::Truncated {
            expected, complete, ..
        }) = error
        else {
            return error.into();
        };
        let Count { breaks, begun } = self.0.get();
        anyhow!(
            "expected {expected}, found the end of the input in line {}, after {complete} complete \
             entities",
            breaks + u64::from(begun)
        )
    }
}

#[cfg(test)]
mod tests {
    use tahini_entity::json::{Elements, Layout};

    use super::*;

    #[test]
    fn an_input_that_is_cut_tells_its_last_line() {
        for (text, line) in [
            ("{\"_id\":\"1\"}\n{\"_id\":", 2),
            ("{\"_id\":\"1\"}\n\n{\"_id\":\n", 3),
            ("[{\"_id\":\"1\"},", 1),
        ] {
            let (input, at) = counted(text.as_bytes());
            let mut elements = Elements::new(input, Layout::ArrayOrLines);
            assert!(elements.next_element().unwrap().is_some());
            let words = at.explain(elements.next_element().unwrap_err()).to_string();
            let place = format!("in line {line}, after 1 complete");
            assert!(words.contains(&place), "{text}: {words}");
        }
    }
}
