//! Rows of text, fields between delimiters: the `csv` source and what a `csv_endpoint` publishes.
//!
//! Reading and writing follow Python's `csv` module, which is what such files are mostly held
//! against (`docs/decisions/formats.md`).

mod columns;
mod dialect;
mod rows;
mod sink;
mod source;
mod writer;

pub use sink::{COLUMNS, SINK};
pub use source::SOURCE;
pub use writer::Csv;
