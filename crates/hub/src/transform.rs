//! What happens to entities on their way.

use tahini_entity::Batch;

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
}
