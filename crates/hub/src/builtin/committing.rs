//! Commits on a thread of their own: a run reads and transforms what comes next meanwhile.
//!
//! One commit is under way at a time, and nothing overtakes it: whoever wants to commit something
//! else, or to know what the dataset holds, ends it first.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use tahini_entity::Batch;
use tahini_store::{Commit, Dataset, Outcome, Rule, StateWrite, StoreError, Ticket};

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
        let taken = self.orders.as_ref().map(|orders| orders.send(order));
        self.under_way = matches!(taken, Some(Ok(())));
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
