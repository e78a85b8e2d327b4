//! Waiting for the datasets that a pipe's rules read.

use crate::Failure;
use crate::pipe::{Pipe, World};

/// Lets a run begin only when every dataset that its rules read is populated. What no pipe writes
/// is not waited for: nothing would ever populate it.
///
/// # Errors
/// Waiting, with the dataset that is missing; otherwise when the store cannot be read.
pub(crate) fn wait(pipe: &Pipe, world: &World) -> Result<(), Failure> {
    for read in pipe.reads.iter().filter(|read| read.populated) {
        let dataset = &read.dataset;
        if !world.known.is_written(dataset) {
            continue;
        }
        let populated = match world.store.find(dataset)? {
            Some(found) => found.snapshot()?.head().populated,
            None => false,
        };
        if !populated {
            let help = match pipe.sink_dataset() == Some(dataset) {
                true => {
                    "; a pipe that reads its own sink says `set_initial_offset` \"onload\" there"
                }
                false => "",
            };
            return Err(Failure::waiting(format!(
                "pipe {:?} waits for dataset {dataset:?}, which its rules read and which is not \
                 populated yet{help}",
                pipe.id
            )));
        }
    }
    Ok(())
}
