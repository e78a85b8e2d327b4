//! HTTP: the runtime, the client, and the systems that are web servers.

mod address;
mod body;
mod client;
mod retry;
pub(crate) mod rows;
mod runtime;
mod system;
mod transform;
pub(crate) mod trigger;
pub(crate) mod url;

pub use address::{Base, add_parameter, shown};
pub use body::{Body, failure_of};
pub use client::{Client, Options, Request, Response};
pub use retry::{RetryStrategy, retry_after};
pub use runtime::runtime;
pub use system::{Ask, HttpSystem};
pub(crate) use system::{Place, headers, positive};
pub use transform::HTTP;
pub use url::URL;
