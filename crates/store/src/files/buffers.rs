//! Memory that frames are put together in, shared by the datasets of a store: what each of many kept
//! for itself would add up.

use std::sync::{Mutex, PoisonError};

/// So many are kept; more writers at a time find none and get their own.
const KEPT: usize = 4;
/// A larger one's memory is given back.
const LARGEST: usize = 16 << 20;

/// Buffers that wait for the next frame.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// One to fill, which may hold what was written before.
    pub fn take(&self) -> Vec<u8> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    /// Keeps one for the next frame, unless there are enough or it is unusually large.
    pub fn keep(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && buffer.capacity() <= LARGEST {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, KEPT, LARGEST};

    #[test]
    fn some_memory_is_kept_and_no_more() {
        let buffers = Buffers::default();
        buffers.keep(Vec::with_capacity(LARGEST + 1));
        assert_eq!(buffers.take().capacity(), 0);
        (0..=KEPT).for_each(|_| buffers.keep(Vec::with_capacity(100)));
        let kept = (0..=KEPT).map(|_| buffers.take().capacity());
        assert_eq!(kept.filter(|capacity| *capacity > 0).count(), KEPT);
    }
}
