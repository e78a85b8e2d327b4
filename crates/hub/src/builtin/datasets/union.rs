//! The `union_datasets` source: one dataset after the other.

use tahini_entity::{Batch, Record};
use tahini_store::{Seq, Snapshot, StateWrite, View};

use super::{
    CONTINUATION, DATASETS, IF_SOURCE_EMPTY, IGNORE_MISSING, INITIAL, Inputs, REQUIRE, SIGNALS,
};
use crate::config::{Kind, Property};
use crate::places::seq_of;
use crate::registry::SourceDef;
use crate::source::{From, Step};
use crate::{Ctx, Failure, Source};

pub(in crate::builtin) const UNION: SourceDef = SourceDef {
    name: "union_datasets",
    summary: "Reads the changes of several datasets, one dataset after the other.",
    properties: &[
        DATASETS,
        INITIAL,
        IGNORE_MISSING,
        REQUIRE,
        Property::new(
            "include_previous_versions",
            Kind::Boolean,
            "Also gives versions that were superseded.",
        )
        .or("false"),
        Property::new(
            "prefix_ids",
            Kind::Boolean,
            "Puts the dataset and a colon before every `_id`.",
        )
        .or("true"),
        SIGNALS,
        IF_SOURCE_EMPTY,
    ],
    continuation: CONTINUATION,
    open,
};

struct Union {
    inputs: Inputs,
    /// The dataset that is read now.
    at: usize,
    view: View,
    prefix_ids: bool,
}

fn open(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    Ok(Box::new(Union {
        inputs: Inputs::open(ctx, from)?,
        at: 0,
        view: View {
            history: ctx.props.bool("include_previous_versions", false)?,
            deleted: true,
        },
        prefix_ids: ctx.props.bool("prefix_ids", true)?,
    }))
}

impl Union {
    fn give(&self, dataset: &str, record: Record<'_>, out: &mut Batch) {
        let mut meta = record.meta.clone();
        meta.updated = self.inputs.place();
        // It counts in one of the datasets, and nobody could tell which.
        meta.previous = None;
        let prefixed = record.id.filter(|_| self.prefix_ids);
        match prefixed.map(|id| format!("{dataset}:{id}")) {
            None => out.push_encoded(record.id, record.shape, record.body, meta),
            Some(id) => {
                let id = Some(id.as_str());
                meta.hash = None;
                out.push_encoded(id, record.shape, record.body, meta);
            }
        }
    }
}

impl Source for Union {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let Some(input) = self.inputs.all.get_mut(self.at) else {
            return Ok(Step::End);
        };
        let mut read = Batch::new();
        let more = input.read(self.view, limit, &mut read)?;
        let name = input.name.clone();
        for record in read.iter() {
            self.inputs.all[self.at].after = seq_of(&record);
            self.give(&name, record, out);
        }
        if more {
            return Ok(Step::More);
        }
        self.inputs.all[self.at].exhaust();
        self.at += 1;
        Ok(match self.at < self.inputs.all.len() {
            true => Step::More,
            false => Step::End,
        })
    }

    fn view(&self, dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        self.inputs.view(dataset)
    }

    fn again(&mut self, dataset: &str, seqs: &[Seq], out: &mut Batch) -> Result<(), Failure> {
        for record in self.inputs.living(dataset, seqs)?.iter() {
            self.give(dataset, record, out);
        }
        Ok(())
    }

    fn state(&mut self) -> Vec<StateWrite> {
        self.inputs.state()
    }

    fn continues(&self) -> bool {
        self.inputs.continues
    }

    fn distinct(&self) -> bool {
        true
    }

    fn offset(&self) -> Option<tahini_entity::Offset> {
        self.inputs.place()
    }

    fn populated(&self) -> bool {
        self.inputs.populated
    }
}
