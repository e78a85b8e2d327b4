//! What a pipe would give, at any stage, without writing anything.

use tahini_entity::Batch;

use crate::pipe::{Pipe, World};
use crate::source::{From, Step};
use crate::transform::{apply_all, without_filtered};
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

/// What the entities are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody looks: nothing outside changes by it, so that no transform with `side_effects`
    /// is run.
    Look,
    /// The entities go where the pipe sends them: every transform is run.
    Output,
}

/// What a person is told of the transform at which a look ends; `None` when it sees everything.
pub fn end_of_looking(pipe: &Pipe) -> Option<(usize, String)> {
    let at = pipe.first_side_effect()?;
    let kind = pipe.transforms()[at]["type"].as_str().unwrap_or_default();
    let words = format!(
        "transform {} ({kind}) has `side_effects`, so that only a run of the pipe runs it; where \
         running it changes nothing outside, say so with \"side_effects\": false",
        at + 1
    );
    Some((at, words))
}

/// Entities evaluated at a time.
const ROWS: usize = 100;

/// Reads the pipe's source from `from` and hands each batch, as it stands at `stage`, to `take`,
/// until that answers `false`. The sink is never touched.
///
/// # Errors
/// Config, when a look would have to run a transform with side effects; else what source and
/// transforms say.
pub fn read(
    pipe: &Pipe,
    world: &World,
    (stage, purpose): (Stage, Purpose),
    from: From,
    cancel: &Cancel,
    mut take: impl FnMut(&Batch) -> bool,
) -> Result<(), Failure> {
    let transforms_wanted = matches!(stage, Stage::AfterTransforms | Stage::Sink);
    if transforms_wanted
        && purpose == Purpose::Look
        && let Some((_, why)) = end_of_looking(pipe)
    {
        return Err(Failure::config(format!(
            "pipe {:?} cannot be looked at behind its transforms: {why}. The stage \
             before-transforms can be looked at",
            pipe.id
        )));
    }
    let mut source = pipe.open_source(world, cancel, from)?;
    let mut transforms = Vec::new();
    match stage {
        Stage::Source => {}
        Stage::BeforeTransforms => transforms.extend(pipe.adding_namespaces()),
        Stage::AfterTransforms => {
            transforms.extend(pipe.adding_namespaces());
            transforms.extend(pipe.open_transforms(world, cancel)?);
        }
        Stage::Sink => transforms = pipe.open_way(world, cancel)?,
    }
    loop {
        cancel.check()?;
        let mut current = Batch::new();
        let step = source.next_batch(ROWS, &mut current)?;
        if let Some(outputs) = apply_all(&mut transforms, &current)? {
            current = outputs.batch;
        }
        if stage == Stage::Sink
            && let Some(kept) = without_filtered(&current)
        {
            current = kept;
        }
        if !take(&current) || step == Step::End {
            return Ok(());
        }
    }
}
