//! Entities from stdin through a pipe's transforms to stdout, as they come.

use anyhow::anyhow;
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Next, Numbers, Opened, Parser, write_record};
use tahini_hub::pipe::World;
use tahini_hub::{Cancel, Failure, Pipe, Transform, origins};

use super::rules::Rules;
use super::stdin::Lines;
use crate::say;

/// Entities transformed at a time.
const ROWS: usize = 1000;

/// Takes entities from text to text where the transform can do that and they are of the usual
/// kind, and through batches otherwise.
pub(super) fn pump(pipe: &Pipe, world: &World, rules: &Rules) -> anyhow::Result<()> {
    let (mut elements, at) = super::stdin::stdin();
    let mut pump = Pump {
        transforms: pipe.open_way(world, &Cancel::new())?,
        parser: Parser::new(Numbers::default()),
        batch: Batch::new(),
        lines: Vec::new(),
        at,
        rules,
        text: Vec::new(),
    };
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
            Ok(Next::Element(_)) => {
                let last = elements.last();
                pump.take(elements.buffer(), last.start, last.end)?;
            }
            Ok(Next::Opened) => {
                by_lines = pump.lines(&opened, elements.buffer())?;
                opened.clear();
            }
            Ok(Next::End) => return pump.flush(),
            Err(error) => {
                pump.flush()?;
                return Err(pump.at.explain(error, elements.buffer()));
            }
        }
    }
}

/// Transforms and the entities on their way to them.
struct Pump<'r> {
    transforms: Vec<Box<dyn Transform>>,
    parser: Parser,
    batch: Batch,
    /// The line of the input in which each entity of the batch begins.
    lines: Vec<u64>,
    at: Lines,
    rules: &'r Rules,
    text: Vec<u8>,
}

impl Pump<'_> {
    /// Takes the entity whose text stands there in the buffer.
    fn take(&mut self, buffer: &[u8], start: usize, end: usize) -> anyhow::Result<()> {
        if let Err(error) = self.parser.push_json(&mut self.batch, &buffer[start..end]) {
            self.flush()?;
            return Err(self.at.wrong(&error, buffer, start));
        }
        self.lines.push(self.at.line(buffer, start));
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
            for (at, line) in opened.lines(buffer).enumerate() {
                let start = opened.start(at).unwrap_or_default();
                self.take(buffer, start, start + line.text().len())?;
            }
            return Ok(false);
        };
        say::bytes(&self.text);
        self.parser.pass(opened.len() as u64);
        result.map_err(|failure| {
            let at = failure.fault.as_ref().map(|fault| fault.position);
            let start = at.and_then(|at| opened.start(at)).unwrap_or_default();
            self.told(&failure, self.at.line(buffer, start))
        })?;
        Ok(true)
    }

    /// Transforms and prints what was taken so far, without what a filter stopped; where an entity
    /// fails, what came before it.
    fn flush(&mut self) -> anyhow::Result<()> {
        let (mut current, mut wrong) = (None, None);
        let mut came = origins::all(&self.batch);
        for transform in &mut self.transforms {
            let (mut out, mut from) = (Batch::new(), Vec::new());
            let input = current.as_ref().unwrap_or(&self.batch);
            // A later transform fails for an earlier entity.
            let applied = transform.apply(input, &mut out, &mut from);
            wrong = applied
                .err()
                .map(|failure| failure.from_before(&came))
                .or(wrong);
            (current, came) = (Some(out), origins::of(&from, &came));
        }
        self.text.clear();
        let last = current.as_ref().unwrap_or(&self.batch);
        for record in last.iter().filter(|record| !record.meta.filtered) {
            write_record(record, Fields::RESULT, &mut self.text);
            self.text.push(b'\n');
        }
        say::bytes(&self.text);
        self.batch.clear();
        let lines = std::mem::take(&mut self.lines);
        wrong.map_or(Ok(()), |failure| {
            let at = failure.fault.as_ref().map_or(0, |fault| fault.position);
            Err(self.told(&failure, lines.get(at).copied().unwrap_or(1)))
        })
    }

    /// A failure in words for who wrote rules and input; `line` is the entity's.
    fn told(&self, failure: &Failure, line: u64) -> anyhow::Error {
        match &failure.fault {
            Some(fault) => anyhow!(self.rules.told(fault, line)),
            None => anyhow!("{failure}"),
        }
    }
}
