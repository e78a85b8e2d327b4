//! Commits on a thread of their own: a run reads and transforms what comes next meanwhile.
//!
//! One commit is under way at a time, and nothing overtakes it: whoever wants to commit something
//! else, or to know what the dataset holds, ends it first.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use tahini_entity::Batch;
use tahini_store::{Commit, Dataset, Outcome, Rule, Show, StateWrite, StoreError, Ticket};

use crate::Failure;

/// What is to be committed.
pub(super) struct Order {
    pub(super) rows: Batch,
    pub(super) rule: Rule<'static>,
    pub(super) state: Vec<StateWrite>,
    /// Microseconds since 1970 UTC.
    pub(super) now: i64,
}

/// What came of it; the rows come back, for their memory.
pub(super) struct Done {
    pub(super) rows: Batch,
    pub(super) outcome: Result<(Outcome, Ticket), StoreError>,
}

/// The thread of a run; dropping it waits for the commit under way.
pub(super) struct Committing {
    orders: Option<Sender<Order>>,
    done: Receiver<Done>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
}

impl Committing {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(dataset: &Arc<dyn Dataset>) -> io::Result<Committing> {
        let (orders, taken) = channel::<Order>();
        let (tell, done) = channel();
        let dataset = Arc::clone(dataset);
        let thread = Builder::new().name("commit".to_owned()).spawn(move || {
            for order in taken {
                let outcome = dataset.commit(Commit {
                    rows: &order.rows,
                    rule: order.rule,
                    state: &order.state,
                    populated: false,
                    now: order.now,
                    show: Show::Now,
                    note: None,
                });
                let rows = order.rows;
                if tell.send(Done { rows, outcome }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Committing {
            orders: Some(orders),
            done,
            under_way: false,
            thread: Some(thread),
        })
    }

    /// Begins a commit; the one before was ended.
    pub(super) fn begin(&mut self, order: Order) -> Result<(), Failure> {
        let orders = self.orders.as_ref();
        self.under_way = orders.is_some_and(|orders| orders.send(order).is_ok());
        if self.under_way { Ok(()) } else { Err(lost()) }
    }

    /// Waits for the commit under way; `None` when there is none.
    pub(super) fn end(&mut self) -> Option<Result<Done, Failure>> {
        let under_way = std::mem::take(&mut self.under_way);
        under_way.then(|| self.done.recv().map_err(|_| lost()))
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.orders = None;
        // A panic in the thread was reported when it happened.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread ends early by a panic only.
fn lost() -> Failure {
    Failure::fatal("the commit met a defect in the program; the node's log has the panic")
}

#[cfg(test)]
mod tests {
    use tahini_store::{Compacted, Compaction, IndexState, Snapshot};

    use super::*;

    /// A dataset that refuses what has state, and does not survive a late commit.
    struct Fragile;

    impl Dataset for Fragile {
        fn name(&self) -> &str {
            "fragile"
        }

        fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }

        fn uncommitted(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }

        fn roll_back(&self) -> Result<(), StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }

        fn commit(&self, commit: Commit<'_>) -> Result<(Outcome, Ticket), StoreError> {
            assert!(commit.now < 10, "too late");
            match commit.state.is_empty() {
                true => Ok((Outcome::default(), Ticket::new(|| Ok(())))),
                false => Err(StoreError::Refused("no state".to_owned())),
            }
        }

        fn compact(&self, _rules: &Compaction<'_>) -> Result<Compacted, StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }

        fn indexes(&self) -> Result<Vec<IndexState>, StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }

        fn rebuild_index(&self, _number: u32) -> Result<bool, StoreError> {
            Err(StoreError::Missing("fragile".to_owned()))
        }
    }

    fn order(now: i64, state: Vec<StateWrite>) -> Order {
        Order {
            rows: Batch::new(),
            rule: Rule::IfChanged,
            state,
            now,
        }
    }

    #[test]
    fn each_commit_is_answered_once_and_a_panic_fails_the_run() {
        let dataset: Arc<dyn Dataset> = Arc::new(Fragile);
        let mut committing = Committing::start(&dataset).unwrap();
        assert!(committing.end().is_none(), "nothing was begun");
        committing.begin(order(1, Vec::new())).unwrap();
        assert!(committing.end().unwrap().unwrap().outcome.is_ok());
        assert!(committing.end().is_none());
        let state = vec![StateWrite {
            space: "s".to_owned(),
            key: Vec::new(),
            value: None,
        }];
        committing.begin(order(2, state)).unwrap();
        let refused = committing.end().unwrap().unwrap().outcome;
        assert!(matches!(refused.err(), Some(StoreError::Refused(_))));
        committing.begin(order(10, Vec::new())).unwrap();
        let failure = committing.end().unwrap().err().unwrap();
        assert!(failure.to_string().contains("panic"), "{failure}");
        // The thread is gone; nothing waits for it.
        drop(committing);
    }
}
