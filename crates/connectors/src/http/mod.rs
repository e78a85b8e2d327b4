//! HTTP: the runtime, the client, and the systems that are web servers.

mod address;
mod auth;
mod body;
mod client;
mod digest;
mod retry;
pub(crate) mod rows;
mod runtime;
mod system;
mod tokens;
mod trace;
mod transform;
pub(crate) mod trigger;
pub(crate) mod url;

pub(crate) use address::is_near;
pub use address::{Base, add_parameter, encode, shown};
pub use body::{Body, failure_of};
pub use client::{Client, Options, Request, Response};
pub use retry::{RetryStrategy, retry_after};
pub use runtime::runtime;
pub use system::{Ask, HttpSystem};
pub(crate) use system::{Place, headers, is_secret, positive};
pub(crate) use tokens::{encoded, keep, locked};
pub(crate) use trace::Trace;
pub use trace::{Asked, Came, Told};
pub use transform::HTTP;
pub use url::URL;

use tahini_hub::{Class, Failure};

/// Encoded bytes after which a step of a source is over even if fewer entities came than it may
/// take.
pub(crate) const STEP_BYTES: usize = 16 * 1024 * 1024;

/// What a read fails with. Whatever the status, the pump may read again: `max_read_retries` is for
/// every read error.
pub(crate) fn read_refused(mut failure: Failure) -> Failure {
    if failure.class == Class::Entity {
        failure.class = Class::Transient;
    }
    failure
}
