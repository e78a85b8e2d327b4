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

pub use address::{Base, add_parameter, shown};
pub use body::{Body, failure_of};
pub use client::{Client, Options, Request, Response};
pub use retry::{RetryStrategy, retry_after};
pub use runtime::runtime;
pub use system::{Ask, HttpSystem};
pub(crate) use system::{Place, headers, is_secret, positive};
pub(crate) use tokens::encoded;
pub(crate) use trace::Trace;
pub use trace::{Asked, Came, Told};
pub use transform::HTTP;
pub use url::URL;
