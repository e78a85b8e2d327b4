//! What happens to entities on their way.

use tahini_dtl::Joined;
use tahini_entity::Batch;
use tahini_entity::json::Opened;

use crate::Failure;

/// An open transform in the middle of a run.
pub trait Transform: Send {
    /// Turns `input` into any number of entities, appended to `out` in order. `origins` gets, for
    /// each entity appended, the position in `input` that it came from.
    ///
    /// # Errors
    /// An entity failure carries the entity at fault.
    fn apply(
        &mut self,
        input: &Batch,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), Failure>;

    /// Called once, when everything was read and has gone through.
    ///
    /// # Errors
    /// What makes the run as a whole a failure.
    fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// What it has joined so far, if it joins.
    fn joined(&self) -> Option<Joined> {
        None
    }

    /// The most entities that one evaluation of a `hops` with `trace` joined so far, by that name;
    /// a name may come several times.
    fn traced_hops(&self) -> Vec<(&str, u64)> {
        Vec::new()
    }

    /// `apply` from text to text: the results of the entities that were opened in `buffer`,
    /// without those that a filter stopped, appended a line each. `None`, and nothing done, where
    /// a transform needs entities that were read.
    fn apply_lines(
        &mut self,
        _opened: &Opened,
        _buffer: &[u8],
        _out: &mut Vec<u8>,
    ) -> Option<Result<(), Failure>> {
        None
    }
}

/// The batch without its filtered entities; `None` when it has none.
pub(crate) fn without_filtered(batch: &Batch) -> Option<Batch> {
    if !batch.iter().any(|record| record.meta.filtered) {
        return None;
    }
    let mut kept = Batch::new();
    let wanted = batch.iter().filter(|record| !record.meta.filtered);
    wanted.for_each(|record| kept.push(record));
    Some(kept)
}

/// What became of a batch, with the position in it that each entity came from.
pub struct Outputs {
    /// The entities.
    pub batch: Batch,
    origins: Vec<u32>,
}

impl Outputs {
    /// The position in the input that the entity at `at` came from.
    pub(crate) fn origin(&self, at: usize) -> usize {
        self.origins.get(at).map_or(0, |origin| *origin as usize)
    }
}

/// The positions that entities came from, through several transforms.
pub mod origins {
    use tahini_entity::Batch;

    /// Every entity of a batch comes from itself.
    pub fn all(batch: &Batch) -> Vec<u32> {
        (0u32..).take(batch.len()).collect()
    }

    /// What `origins`, positions in a batch of which `before` tells the same, go back to.
    pub fn of(origins: &[u32], before: &[u32]) -> Vec<u32> {
        let back = |at: &u32| before.get(*at as usize).copied().unwrap_or(0);
        origins.iter().map(back).collect()
    }
}

/// Puts a batch through the transforms, one after the other; `None` when there are none.
///
/// # Errors
/// The first one of a transform; a fault's position is that of the entity in `input`.
pub fn apply_all(
    transforms: &mut [Box<dyn Transform>],
    input: &Batch,
) -> Result<Option<Outputs>, Failure> {
    let mut current: Option<Outputs> = None;
    for transform in transforms {
        let (mut batch, mut origins) = (Batch::new(), Vec::new());
        let before = current.as_ref().map_or(input, |outputs| &outputs.batch);
        let applied = transform.apply(before, &mut batch, &mut origins);
        if let Some(outputs) = &current {
            applied.map_err(|failure| failure.from_before(&outputs.origins))?;
            origins = self::origins::of(&origins, &outputs.origins);
        } else {
            applied?;
        }
        current = Some(Outputs { batch, origins });
    }
    Ok(current)
}
