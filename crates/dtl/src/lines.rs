//! From an entity's text to the text of its results, without the encoding between.

use tahini_entity::json::{Fields, Line, Raw, write_name, write_record, write_start, write_value};
use tahini_entity::{Batch, Dict, Value};

use crate::context::Context;
use crate::error::EvalError;
use crate::eval::Machine;
use crate::limits::{Limit, MAX_ENTITY};
use crate::plan::{Layout, Part};
use crate::program::Program;
use crate::results::{
    Encoded, End, Reserved, Results, Unwritten, Writer, encode, entity_limit, is_reserved,
};
use crate::scope::{Row, Slot, Target};
use crate::transform::Work;
use crate::weight::has_items;

impl Program {
    /// Whether `transform_lines` can be used: rules that look nothing up.
    pub fn takes_lines(&self) -> bool {
        !self.facts.lookups
    }

    /// Transforms opened entities in order and appends the results that no filter stopped, a line
    /// each: the text that `transform` and `write_record` with `Fields::RESULT` would give. The
    /// limit of an entity's size counts its text here.
    ///
    /// # Errors
    /// The first entity that cannot be transformed; the results of those before it are in `out`.
    pub fn transform_lines<'a>(
        &self,
        lines: impl Iterator<Item = Line<'a>>,
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EvalError> {
        let mut machine = Machine::new(self, context);
        let mut work = Work::default();
        let mut results = Lines {
            out,
            encoded: Vec::new(),
        };
        for (at, line) in lines.enumerate() {
            let row = Row::of_line(line);
            if self.takes(&row) {
                let before = results.out.len();
                if let Err(error) = self.one(&mut machine, &mut work, &row, &mut results, at) {
                    // A part of a line is worse than none.
                    results.out.truncate(before);
                    return Err(error);
                }
            } else if !row.meta.filtered {
                results.pass(&row);
            }
        }
        Ok(())
    }
}

/// Results as lines of text.
struct Lines<'o> {
    out: &'o mut Vec<u8>,
    /// Memory for values that are measured by being encoded.
    encoded: Vec<u8>,
}

impl Results for Lines<'_> {
    fn created(&mut self, dict: &Dict, filtered: bool) -> Result<(), Limit> {
        if filtered {
            return Ok(());
        }
        let mut made = Batch::new();
        let mut writer = Writer::default();
        Encoded {
            writer: &mut writer,
            out: &mut made,
        }
        .created(dict, filtered)?;
        write_record(made.get(0), Fields::RESULT, self.out);
        self.out.push(b'\n');
        Ok(())
    }

    fn target(&mut self, target: &Target<'_>, row: &Row<'_>, end: End) -> Result<(), Unwritten> {
        if end.filtered {
            return Ok(());
        }
        let mut reserved = Reserved::default();
        reserved.carry(target.carried(), row.meta);
        for (name, slot) in target.entries() {
            if is_reserved(name) {
                reserved.take(name, &slot.to_value());
            }
        }
        if !reserved.is_written(end)? {
            return Ok(());
        }
        let start = self.out.len();
        let mut first = self.open(reserved.id(), &reserved);
        for (name, slot) in target.entries() {
            if is_reserved(name) {
                continue;
            }
            write_name(name, std::mem::take(&mut first), self.out);
            match slot {
                Slot::Raw(raw) => raw.write(self.out),
                Slot::Value(value) => self.value(value, start)?,
            }
            entity_limit(self.out.len() - start)?;
        }
        self.close();
        Ok(())
    }

    fn layout(
        &mut self,
        layout: &Layout,
        row: &Row<'_>,
        values: &[Value],
        end: End,
    ) -> Result<(), Unwritten> {
        if end.filtered {
            return Ok(());
        }
        let mut reserved = Reserved::default();
        let own = reserved.lay_out(layout, row, values);
        if own.is_none() && !reserved.is_written(end)? {
            return Ok(());
        }
        let start = self.out.len();
        let is_usual =
            layout.is_usual() && !reserved.meta.deleted && reserved.meta.updated.is_none();
        let mut first = match row.line().and_then(Line::quoted_id) {
            // What most entities have beside their properties: their own `_id`, and nothing else.
            Some(id) if is_usual => {
                self.out.extend_from_slice(b"{\"_id\":");
                self.out.extend_from_slice(id);
                false
            }
            _ => self.open(own.or(reserved.id()), &reserved),
        };
        let keys = layout.shape.keys();
        let mut at = 0;
        while let Some(part) = layout.parts.get(at) {
            let key = &keys[at][usize::from(first)..];
            at += match *part {
                Part::Source(place) => {
                    first = false;
                    self.copy(row, place, layout.runs[at], key)
                }
                Part::Value(place) => {
                    first = false;
                    self.out.extend_from_slice(key);
                    self.value(&values[place], start)?;
                    1
                }
                Part::Id | Part::Deleted => 1,
            };
            entity_limit(self.out.len() - start)?;
        }
        self.close();
        Ok(())
    }
}

impl Lines<'_> {
    /// Begins an entity; tells whether its first property is the first of the object.
    fn open(&mut self, id: Option<&str>, reserved: &Reserved) -> bool {
        write_start(id, &reserved.meta, Fields::RESULT, self.out)
    }

    fn close(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// Copies properties that stand side by side in the source, all of them if their text may
    /// stay as it is, otherwise the first one, whose name `key` is; tells how many. A single one
    /// may have another name than in the source.
    fn copy(&mut self, row: &Row<'_>, first: usize, run: usize, key: &[u8]) -> usize {
        let line = row.line().filter(|_| run > 1);
        match line.and_then(|line| line.run(first, first + run - 1)) {
            Some(text) => {
                if key[0] == b',' {
                    self.out.push(b',');
                }
                self.out.extend_from_slice(text);
                run
            }
            None => {
                self.out.extend_from_slice(key);
                row.raw(first).write(self.out);
                1
            }
        }
    }

    /// Writes a computed value of the entity that begins at `start`.
    fn value(&mut self, value: &Value, start: usize) -> Result<(), Limit> {
        if has_items(value) {
            let left = MAX_ENTITY.saturating_sub(self.out.len() - start);
            self.encoded.clear();
            encode(value, &mut self.encoded, left)?;
            Raw::Encoded(&self.encoded).write(self.out);
        } else {
            write_value(value, self.out);
        }
        Ok(())
    }

    /// Passes an entity on as it is.
    fn pass(&mut self, row: &Row<'_>) {
        let mut first = write_start(row.id, row.meta, Fields::RESULT, self.out);
        for (at, name) in row.shape.names().iter().enumerate() {
            write_name(name, std::mem::take(&mut first), self.out);
            row.raw(at).write(self.out);
        }
        self.close();
    }
}
