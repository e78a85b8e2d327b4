//! Read transactions of an index that wait for the next reader: beginning one takes a lock that all
//! readers share and a look for every table's place, which is more than most of them look for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use heed::{Env, RoTxn, WithoutTls};

/// So many threads have one each; further ones share theirs, or begin one.
const PLACES: usize = 8;

/// The transactions of one environment. Each sees what was written when it began, and the file
/// keeps that for as long; so all of them go when something is written.
#[derive(Default)]
pub(super) struct Readers {
    places: [Place; PLACES],
    /// How often something was about to be written, or was.
    turns: AtomicU64,
}

/// Threads that write to places of their own do not wait for each other.
#[derive(Default)]
#[repr(align(128))]
struct Place(Mutex<Option<Kept>>);

struct Kept {
    txn: RoTxn<'static, WithoutTls>,
    turn: u64,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PLACES;
}

impl Readers {
    /// Hands a transaction to `look` that sees all that was written before.
    pub fn read<R>(
        &self,
        env: &Env<WithoutTls>,
        look: impl FnOnce(&RoTxn<'_, WithoutTls>) -> heed::Result<R>,
    ) -> heed::Result<R> {
        let Ok(mut place) = self.places[PLACE.with(|own| *own)].0.try_lock() else {
            return look(&env.read_txn()?);
        };
        let turn = self.turns.load(Ordering::Acquire);
        let kept = match place.take().filter(|kept| kept.turn == turn) {
            Some(kept) => kept,
            None => Kept {
                txn: env.clone().static_read_txn()?,
                turn,
            },
        };
        let found = look(&kept.txn);
        if found.is_ok() && self.turns.load(Ordering::Acquire) == turn {
            *place = Some(kept);
        }
        found
    }

    /// Ends those that nobody uses now, and the others when they are done: before something is
    /// written, so that it may use the pages that only they still see, and after it.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
        for place in &self.places {
            if let Ok(mut place) = place.0.try_lock() {
                *place = None;
            }
        }
    }
}
