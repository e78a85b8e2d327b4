//! The one async runtime of the process: all sockets belong to it.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Threads of the runtime; they only move bytes.
const WORKERS: usize = 2;

/// The process's runtime, started at the first call. Core threads hand it work and wait on
/// channels; the node's server runs on it too. Calling it also settles which cryptography TLS uses.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // An error means that somebody installed a provider before us, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("tahini-net")
            .enable_all()
            .build()
            .expect("two threads can be started when the process starts")
    })
}
