//! `tahini microservice`: services of one's own, written and checked.

mod check;
mod new;

use crate::cli::{Microservice, MicroserviceCommand};

/// Writes a service, or checks one.
pub fn microservice(options: &Microservice) -> anyhow::Result<u8> {
    match &options.command {
        MicroserviceCommand::New(options) => new::new(options),
        MicroserviceCommand::Check(options) => check::check(options),
    }
}
