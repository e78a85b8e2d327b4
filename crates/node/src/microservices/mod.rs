//! Microservices that the node runs itself: containers or local processes of microservice systems.
//!
//! ```text
//! system config ──▶ ServiceSpec ──▶ Host::apply ──▶ one keeper a service ──▶ Runtime::start ──▶ Instance
//!                                        │                │  waits until it listens, restarts it when it
//!                    Host::ready_url ◀───┴── Snapshot ◀───┘  crashed, stops it when it is no longer wanted
//! ```
//! `Runtime` has two implementations, the container engine (`docker`) and the local process
//! (`process`); everything above them is the same for both: environment, logs, status, restarts.

mod container;
mod docker;
mod due;
mod engine;
mod environment;
mod host;
mod image;
mod keeper;
mod ledger;
mod listening;
mod logs;
mod making;
mod network;
mod output;
mod process;
mod running;
mod runtime;
mod services;
mod sockets;
mod spec;
mod state;
mod table;

pub use docker::DockerRuntime;
pub(crate) use engine::met;
pub use environment::system_url_variable;
pub use host::{Host, HostOptions};
pub use keeper::Pace;
pub use logs::{Line, LineSplitter, Log, Stream};
pub use process::ProcessRuntime;
pub use runtime::{Exit, Instance, Launch, Pulled, Runtime, StartError, Task, Vitals};
pub use spec::{DockerSpec, ProcessSpec, ServiceSpec};
pub use state::{Snapshot, State};
pub use tahini_hub::secrets::Redactor;
