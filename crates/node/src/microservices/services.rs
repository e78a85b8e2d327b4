//! The hub's view of the host: where is the service behind a system?

use std::time::Duration;

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
}
