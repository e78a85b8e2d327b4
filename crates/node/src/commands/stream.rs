//! Entities from stdin through a pipe's transforms to stdout, as they come.

use anyhow::anyhow;
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Fields, Layout, Next, Numbers, Opened, Parser, write_record};
use tahini_hub::pipe::World;
use tahini_hub::{Cancel, Failure, Pipe, Transform};

use crate::say;

/// Entities transformed at a time.
const ROWS: usize = 1000;

/// Takes entities from text to text where the transform can do that and they are of the usual
/// kind, and through batches otherwise.
pub(super) fn pump(pipe: &Pipe, world: &World) -> anyhow::Result<()> {
    let mut pump = Pump {
        transforms: pipe.open_way(world, &Cancel::new())?,
        parser: Parser::new(Numbers::default()),
        batch: Batch::new(),
        first: 0,
        text: Vec::new(),
    };
    let (input, line) = super::stdin::stdin();
    let mut elements = Elements::new(input, Layout::ArrayOrLines);
    let mut opened = Opened::new();
    let mut by_lines = pump.transforms.len() == 1;
    loop {
        let next = match by_lines {
            true => elements.next_opened(&mut opened),
            false => elements.next_element().map(|element| match element {
                Some(element) => Next::Element(element),
                None => Next::End,
            }),
        };
        match next {
            Ok(Next::Element(element)) => pump.take(element)?,
            Ok(Next::Opened) => {
                by_lines = pump.lines(&opened, elements.buffer())?;
                opened.clear();
            }
            Ok(Next::End) => return pump.flush(),
            Err(error) => {
                pump.flush()?;
                return Err(line.explain(error));
            }
        }
    }
}

/// Transforms and the entities on their way to them.
struct Pump {
    transforms: Vec<Box<dyn Transform>>,
    parser: Parser,
    batch: Batch,
    /// The position in the input of the first entity of the batch.
    first: u64,
    text: Vec<u8>,
}

impl Pump {
    /// Takes the text of one entity.
    fn take(&mut self, element: &[u8]) -> anyhow::Result<()> {
        if self.batch.is_empty() {
            self.first = self.parser.position();
        }
        if let Err(error) = self.parser.push_json(&mut self.batch, element) {
            self.flush()?;
            return Err(error.into());
        }
        if self.batch.len() >= ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes opened entities; false when the transform wants entities that were read.
    fn lines(&mut self, opened: &Opened, buffer: &[u8]) -> anyhow::Result<bool> {
        self.flush()?;
        self.text.clear();
        let result = self.transforms[0].apply_lines(opened, buffer, &mut self.text);
        let Some(result) = result else {
            for line in opened.lines(buffer) {
                self.take(line.text())?;
            }
            return Ok(false);
        };
        say::bytes(&self.text);
        let first = self.parser.position();
        self.parser.pass(opened.len() as u64);
        result.map_err(|failure| placed(&failure, first))?;
        Ok(true)
    }

    /// Transforms and prints what was taken so far, without what a filter stopped; where an entity
    /// fails, what came before it.
    fn flush(&mut self) -> anyhow::Result<()> {
        let (mut current, mut wrong) = (None, None);
        for transform in &mut self.transforms {
            let mut out = Batch::new();
            let input = current.as_ref().unwrap_or(&self.batch);
            // A later transform fails for an earlier entity.
            let applied = transform.apply(input, &mut out, &mut Vec::new());
            wrong = applied.err().or(wrong);
            current = Some(out);
        }
        self.text.clear();
        let last = current.as_ref().unwrap_or(&self.batch);
        for record in last.iter().filter(|record| !record.meta.filtered) {
            write_record(record, Fields::RESULT, &mut self.text);
            self.text.push(b'\n');
        }
        say::bytes(&self.text);
        self.batch.clear();
        wrong.map_or(Ok(()), |failure| Err(placed(&failure, self.first)))
    }
}

/// A failure with the place of its batch in the input.
fn placed(failure: &Failure, first: u64) -> anyhow::Error {
    anyhow!("{failure} (the batch begins at entity {first} of the input)")
}
