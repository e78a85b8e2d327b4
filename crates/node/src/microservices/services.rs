//! The hub's view of the host: where is the service behind a system, and what became of it?

use std::time::Duration;

use jiff::Timestamp;
use tahini_hub::{Cancel, Failure, Services};

use super::host::Host;

impl Services for Host {
    fn url(&self, system: &str, wait: Duration, cancel: &Cancel) -> Result<String, Failure> {
        let url = self.ready_url(system, wait, &|| cancel.is_cancelled());
        url.map_err(|message| match cancel.is_cancelled() {
            true => Failure::cancelled(),
            false => Failure::transient(message),
        })
    }

    fn watch(&self, system: &str) -> Box<dyn Fn() -> Option<String> + Send + Sync> {
        let (host, system, since) = (self.clone(), system.to_owned(), Timestamp::now());
        Box::new(move || host.handle().block_on(host.ended(&system, since)))
    }
}
