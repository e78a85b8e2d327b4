//! What a pipe's ends connect to.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::{Cancel, Failure};

/// An open system, shared by all pipes that name it: it owns connections, tokens and limits.
pub trait System: Send + Sync + Any {
    /// The system's id.
    fn id(&self) -> &str;

    /// For the connector that knows the concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// The services that the node hosts; containers and processes implement it in the node.
pub trait Services: Send + Sync {
    /// The base URL of the running service behind a microservice system, waiting at most `wait`
    /// for it to listen. Ends with no slash.
    ///
    /// # Errors
    /// Transient, with the service's state and last log lines.
    fn url(&self, system: &str, wait: Duration, cancel: &Cancel) -> Result<String, Failure>;

    /// Watches the service behind a system from now on. What is returned is asked when a request
    /// broke off, and tells how the service ended meanwhile, if it did.
    fn watch(&self, system: &str) -> Box<dyn Fn() -> Option<String> + Send + Sync> {
        let _ = system;
        Box::new(|| None)
    }
}

/// Finds the systems of the running configuration.
pub trait Systems: Send + Sync {
    /// The open system of that id.
    ///
    /// # Errors
    /// Config, naming the system, when it does not exist or its configuration is invalid.
    fn get(&self, id: &str) -> Result<Arc<dyn System>, Failure>;
}
