//! Why a store refuses.

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The dataset does not exist.
    #[error("expected dataset {0:?} to exist, found none of that name")]
    Missing(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's path.
        what: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written; nothing reads or writes the dataset until it is
    /// restored or deleted.
    #[error("dataset {dataset:?} is damaged: {found}")]
    Damaged {
        /// The dataset's name.
        dataset: String,
        /// The file, the position and the mismatch.
        found: String,
    },
    /// The folder was written by another version of the format.
    #[error("expected store format {expected}, found {found} in {path}")]
    Format {
        /// The file that says so.
        path: String,
        /// The format that this binary writes.
        expected: u32,
        /// The format that was found.
        found: u32,
    },
    /// Another process has the store open.
    #[error("expected {path} to be free, found it in use by another process")]
    InUse {
        /// The store's folder.
        path: String,
    },
    /// The commit was refused as a whole; nothing was written.
    #[error("{0}")]
    Refused(String),
    /// The index engine failed.
    #[error("index of dataset {dataset:?}: {message}")]
    Index {
        /// The dataset's name.
        dataset: String,
        /// The engine's words.
        message: String,
    },
}
