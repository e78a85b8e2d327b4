//! The services that a host knows, their ports, and what is wanted of each.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::host::HostOptions;
use super::keeper::Wish;
use super::ledger::Ledger;
use super::logs::Log;
use super::spec::ServiceSpec;
use super::state::{Snapshot, Usage};

/// The services by id, with what all of them share.
pub(super) struct Table {
    pub entries: BTreeMap<String, Entry>,
    /// Why services that a configuration wants are not hosted.
    pub refused: BTreeMap<String, String>,
    pub node_url: Option<String>,
    /// What an earlier life of the node left is taken care of.
    pub tidied: bool,
    pub closed: bool,
}

/// One service.
pub(super) struct Entry {
    pub spec: Arc<ServiceSpec>,
    pub port: u16,
    pub wish: watch::Sender<Wish>,
    pub shown: watch::Receiver<Snapshot>,
    pub log: Arc<Log>,
    pub usage: Arc<Mutex<Usage>>,
    pub task: Option<JoinHandle<()>>,
}

impl Table {
    /// The service, unless it is leaving.
    pub fn wanted(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id).filter(|entry| entry.is_wanted())
    }

    /// Gives the service the port of its config, or else one of its own. It keeps the port over its
    /// restarts, and the node's, since the others know it.
    pub fn assign_port(&mut self, id: &str, options: &HostOptions, ledger: &Ledger) {
        let taken: Vec<u16> = self.entries.values().map(|entry| entry.port).collect();
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let last = || ledger.port(id).filter(|port| !taken.contains(port));
        match fixed_port(&entry.spec, options) {
            Some(port) => entry.port = port,
            None if entry.port == 0 => entry.port = last().unwrap_or_else(|| free_port(&taken)),
            None => {}
        }
        let runtime = match runs_as_process(&entry.spec, options) {
            true => "process",
            false => "docker",
        };
        ledger.note(id, entry.port, runtime);
    }
}

impl Entry {
    /// Whether the configuration wants it.
    pub fn is_wanted(&self) -> bool {
        self.wish.borrow().spec.is_some()
    }

    /// Makes it end.
    pub fn leave(&self) {
        self.wish.send_if_modified(|wish| {
            let wanted = wish.spec.take().is_some();
            wish.on = false;
            wish.turn += u64::from(wanted);
            wanted
        });
    }

    /// Takes the spec that is wanted now. The service is replaced only when what runs would differ.
    pub fn wants(&mut self, spec: Arc<ServiceSpec>, on: bool) {
        self.wish.send_if_modified(|wish| {
            let same = wish.spec.as_ref().is_some_and(|old| old.runs_like(&spec));
            wish.spec = Some(spec.clone());
            if !same || (on && !wish.on) {
                wish.turn += 1;
            }
            wish.on |= on;
            // Its keeper looks again even where nothing is to be replaced: at the schedule, say.
            true
        });
        self.spec = spec;
    }
}

/// Whether the spec is run as a process of this machine, not as a container.
pub(super) fn runs_as_process(spec: &ServiceSpec, options: &HostOptions) -> bool {
    spec.process.is_some() && !(options.prefer_docker && spec.docker.is_some())
}

/// The port that the spec itself names.
pub(super) fn fixed_port(spec: &ServiceSpec, options: &HostOptions) -> Option<u16> {
    spec.process
        .as_ref()
        .filter(|_| runs_as_process(spec, options))?
        .port
}

/// A free port of the loopback address that is not promised to somebody else.
fn free_port(taken: &[u16]) -> u16 {
    let pick = || {
        Some(
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .ok()?
                .local_addr()
                .ok()?
                .port(),
        )
    };
    // Without any free port the start fails with a message of its own.
    (0..100)
        .filter_map(|_| pick())
        .find(|port| !taken.contains(port))
        .unwrap_or(0)
}
