//! What a pipe would give, at any stage, without writing anything.

use tahini_entity::Batch;

use crate::pipe::{Pipe, World};
use crate::source::{From, Step};
use crate::{Cancel, Failure};

/// Where on its way through the pipe an entity is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As the source gives it.
    Source,
    /// Before the first transform.
    BeforeTransforms,
    /// After the last transform.
    AfterTransforms,
    /// As the sink would get it.
    Sink,
}

impl Stage {
    /// The stage of that name; the singular forms are taken too.
    pub fn of(name: &str) -> Option<Stage> {
        match name {
            "source" => Some(Stage::Source),
            "before-transforms" | "before-transform" => Some(Stage::BeforeTransforms),
            "after-transforms" | "after-transform" => Some(Stage::AfterTransforms),
            "sink" => Some(Stage::Sink),
            _ => None,
        }
    }
}

/// Entities evaluated at a time.
const ROWS: usize = 100;

/// Reads the pipe's source from `from` and hands each batch, as it stands at `stage`, to `take`,
/// until that answers `false`. The sink is never touched.
pub fn read(
    pipe: &Pipe,
    world: &World,
    stage: Stage,
    from: From,
    cancel: &Cancel,
    mut take: impl FnMut(&Batch) -> bool,
) -> Result<(), Failure> {
    let mut source = pipe.open_source(world, cancel, from)?;
    let mut transforms = match stage {
        Stage::Source | Stage::BeforeTransforms => Vec::new(),
        Stage::AfterTransforms | Stage::Sink => pipe.open_transforms(world, cancel)?,
    };
    loop {
        cancel.check()?;
        let mut current = Batch::new();
        let step = source.next_batch(ROWS, &mut current)?;
        for transform in &mut transforms {
            let mut out = Batch::new();
            transform.apply(&current, &mut out, &mut Vec::new())?;
            current = out;
        }
        if stage == Stage::Sink && current.iter().any(|record| record.meta.filtered) {
            let mut kept = Batch::new();
            let wanted = current.iter().filter(|record| !record.meta.filtered);
            wanted.for_each(|record| kept.push(record));
            current = kept;
        }
        if !take(&current) || step == Step::End {
            return Ok(());
        }
    }
}
