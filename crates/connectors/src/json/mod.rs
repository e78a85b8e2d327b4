//! Entities as JSON over HTTP: the pull protocol (source) and the push protocol (sink).

mod push;
mod sink;
mod source;
mod upstream;

pub use sink::PUSH;
pub(crate) use sink::{array, fingerprint};
pub use source::{BINARY, PULL};
pub use upstream::Upstream;
