//! Datasets: append-only change logs with a latest-version index. Knows nothing of pipes.
//!
//! [`Backend`], [`Dataset`] and [`Snapshot`] are the promise; [`Memory`] keeps it for tests and
//! `Files` keeps it on disk.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compaction;
mod content;
mod dataset;
mod error;
mod files;
mod indexes;
mod keys;
mod memory;
mod rule;

pub use compaction::{Compacted, Compaction};
pub use dataset::{
    Backend, Backup, Commit, Dataset, Head, Limit, Note, Outcome, Past, Rule, Seq, Show, Snapshot,
    StateRows, StateWrite, Ticket, View,
};
pub use error::StoreError;
pub use files::{Disk, DiskFile, Files, Options, RealDisk, StoreLock, Verified, syncs};
pub use indexes::{Ask, Declared, Hit, IndexDef, IndexState, Keys};
pub use memory::Memory;
