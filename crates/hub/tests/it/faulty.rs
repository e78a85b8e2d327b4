//! A store in memory that fails or waits when a test says so.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tahini_store::{Backend, Dataset, Declared, Head, Memory, StoreError};

use crate::script::PATIENCE;

#[derive(Default)]
pub struct Faulty {
    inner: Memory,
    refused: Mutex<Option<String>>,
    gate: Mutex<Option<Gate>>,
}

/// Where the next opening of a dataset waits.
struct Gate {
    dataset: String,
    reached: SyncSender<()>,
    wait: Receiver<()>,
}

/// The test's side of a store that waits.
pub struct Held {
    reached: Receiver<()>,
    open: SyncSender<()>,
}

impl Faulty {
    /// Refuses to open this dataset from now on, or none with `None`.
    pub fn refuse(&self, dataset: Option<&str>) {
        *self.refused.lock().unwrap() = dataset.map(str::to_owned);
    }

    /// Waits when this dataset is opened the next time.
    pub fn hold(&self, dataset: &str) -> Held {
        let (reached, hear) = sync_channel(1);
        let (open, wait) = sync_channel(1);
        *self.gate.lock().unwrap() = Some(Gate {
            dataset: dataset.to_owned(),
            reached,
            wait,
        });
        Held {
            reached: hear,
            open,
        }
    }
}

impl Held {
    pub fn wait(&self) {
        self.reached.recv_timeout(PATIENCE).unwrap();
    }

    pub fn let_go(&self) {
        self.open.send(()).unwrap();
    }
}

impl Backend for Faulty {
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dataset>, StoreError> {
        let mut gates = self.gate.lock().unwrap();
        let held = gates.take_if(|gate| gate.dataset == name);
        drop(gates);
        if let Some(gate) = held {
            gate.reached.send(()).unwrap();
            gate.wait.recv_timeout(PATIENCE).unwrap();
        }
        if self.refused.lock().unwrap().as_deref() == Some(name) {
            return Err(StoreError::Refused(format!("{name} is out of reach")));
        }
        self.inner.open(name, create)
    }

    fn find(&self, name: &str) -> Result<Option<Arc<dyn Dataset>>, StoreError> {
        self.inner.find(name)
    }

    fn list(&self) -> Result<Vec<Head>, StoreError> {
        self.inner.list()
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove(name)
    }

    fn declare(&self, indexes: Declared) {
        self.inner.declare(indexes);
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}
