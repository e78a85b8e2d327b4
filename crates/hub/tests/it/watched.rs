//! A store in memory that tells what was committed, and what was waited for.

use std::sync::{Arc, Mutex};

use tahini_store::{
    Backend, Commit, Compacted, Compaction, Dataset, Declared, Head, IndexState, Memory, Outcome,
    Snapshot, StoreError, Ticket,
};

/// One thing that happened to a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: What,
    pub dataset: String,
    /// The rows of the commit.
    pub ids: Vec<String>,
    /// The offset that the commit saves, as it is stored.
    pub offset: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Committed,
    /// Somebody waited until it was durable.
    Durable,
}

#[derive(Default)]
pub struct Watched {
    inner: Memory,
    steps: Steps,
}

type Steps = Arc<Mutex<Vec<Step>>>;

struct WatchedDataset {
    inner: Arc<dyn Dataset>,
    steps: Steps,
}

impl Watched {
    /// What happened since the last call.
    pub fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }

    fn watch(&self, inner: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
        let steps = Arc::clone(&self.steps);
        Arc::new(WatchedDataset { inner, steps })
    }
}

impl Backend for Watched {
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dataset>, StoreError> {
        Ok(self.watch(self.inner.open(name, create)?))
    }

    fn find(&self, name: &str) -> Result<Option<Arc<dyn Dataset>>, StoreError> {
        Ok(self.inner.find(name)?.map(|found| self.watch(found)))
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

impl Dataset for WatchedDataset {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn uncommitted(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.uncommitted()
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        self.inner.roll_back()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.snapshot()
    }

    fn commit(&self, commit: Commit<'_>) -> Result<(Outcome, Ticket), StoreError> {
        let ids = commit
            .rows
            .iter()
            .filter_map(|row| row.id.map(str::to_owned));
        let offset = commit.state.iter().find(|write| write.key == b"offset");
        let offset = offset.and_then(|write| write.value.clone());
        let step = Step {
            what: What::Committed,
            dataset: self.inner.name().to_owned(),
            ids: ids.collect(),
            offset: offset.map(|value| String::from_utf8(value).unwrap()),
        };
        let (outcome, ticket) = self.inner.commit(commit)?;
        self.steps.lock().unwrap().push(step.clone());
        let steps = Arc::clone(&self.steps);
        let wait = move || {
            ticket.wait()?;
            let what = What::Durable;
            steps.lock().unwrap().push(Step { what, ..step });
            Ok(())
        };
        Ok((outcome, Ticket::new(wait)))
    }

    fn compact(&self, compaction: &Compaction<'_>) -> Result<Compacted, StoreError> {
        self.inner.compact(compaction)
    }

    fn indexes(&self) -> Result<Vec<IndexState>, StoreError> {
        self.inner.indexes()
    }

    fn rebuild_index(&self, number: u32) -> Result<bool, StoreError> {
        self.inner.rebuild_index(number)
    }
}
