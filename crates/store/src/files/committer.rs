//! A thread that makes commits durable while their writers go on, and writes indexes when idle.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dataset::OpenDataset;

/// How long a dataset must be quiet before its index is written.
const IDLE: Duration = Duration::from_secs(1);

/// The thread's handle; dropping it stops the thread.
pub(crate) struct Committer {
    sender: Mutex<Option<Sender<Weak<OpenDataset>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    pub fn start() -> std::io::Result<Committer> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("store-sync".to_owned());
        let thread = thread.spawn(move || run(&receiver))?;
        Ok(Committer {
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A way to tell the thread that a dataset was written to.
    pub fn sender(&self) -> Option<Sender<Weak<OpenDataset>>> {
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Datasets may outlive the store and hold senders; the thread ends with the last of them.
        drop(thread);
    }
}

fn run(receiver: &Receiver<Weak<OpenDataset>>) {
    let mut restless: HashMap<usize, (Weak<OpenDataset>, Instant)> = HashMap::new();
    loop {
        let wait = if restless.is_empty() {
            Duration::from_secs(3600)
        } else {
            IDLE / 2
        };
        match receiver.recv_timeout(wait) {
            Ok(first) => {
                let mut written = HashMap::from([(first.as_ptr() as usize, first)]);
                while let Ok(next) = receiver.try_recv() {
                    written.insert(next.as_ptr() as usize, next);
                }
                for (key, dataset) in written {
                    if let Some(open) = dataset.upgrade() {
                        open.sync();
                        restless.insert(key, (dataset, Instant::now()));
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        restless.retain(|_, (dataset, since)| {
            if since.elapsed() < IDLE {
                return true;
            }
            if let Some(open) = dataset.upgrade() {
                open.rest();
            }
            false
        });
    }
}
