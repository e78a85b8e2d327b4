//! The store's tests: one contract for all backends, and what only the disk can do to us.
#![allow(clippy::unwrap_used)]

mod backup;
mod compaction;
mod contract;
mod crash;
mod doubt;
mod ends;
mod format;
mod gate;
mod hold;
mod index_memory;
mod keyed;
mod large;
mod lying_disk;
mod model;
mod recovery;
mod rows;
