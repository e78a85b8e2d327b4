//! Bodies of strangers: of those who have not shown a token, a secret or a signature yet.
//!
//! What they may bring is small and has to come at once, in memory of its own, so that whoever
//! shows a token never waits for them. When more of them than there are places for are in the
//! middle of a body, the one who has been at it the longest makes room: a slow one keeps nobody
//! out, however many of it there are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use tokio::sync::{Semaphore, oneshot};

use super::call::PORTION;
use super::{Call, Problem};

/// Bytes that the body of a stranger may have where nothing else is said.
pub const STRANGERS_BYTES: usize = 64 << 10;
/// Bytes that a configuration may allow.
pub const MOST_BYTES: usize = 1 << 20;
/// Strangers that may be in the middle of a body at a time.
const PLACES: usize = 64;
/// Bodies that may wait for what is made of them, beside those.
const WAITING: usize = 64;
/// How long a body may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The places of strangers, and the memory for what they bring.
pub struct Doorstep {
    there: Mutex<Places>,
    memory: Arc<Semaphore>,
    within: Duration,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// By age; whoever is told has to go.
    taken: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A place, until it is dropped.
struct Place<'a> {
    door: &'a Doorstep,
    number: u64,
}

impl Default for Doorstep {
    fn default() -> Doorstep {
        Doorstep {
            there: Mutex::default(),
            memory: Arc::new(Semaphore::new((PLACES + WAITING) * MOST_BYTES / PORTION)),
            within: WITHIN,
        }
    }
}

impl Doorstep {
    /// Reads the body of a stranger, of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 where it is larger, before anything is read where it says so itself; 408 where it takes
    /// too long; 503 where it was the slowest of too many.
    pub async fn read(&self, call: &mut Call, limit: usize) -> Result<(), Problem> {
        let limit = limit.min(MOST_BYTES);
        let told = call.header(header::CONTENT_LENGTH).parse::<u64>();
        if told.is_ok_and(|told| told > limit as u64) {
            return Err(too_large(limit));
        }
        let (_place, sent_away) = self.enter();
        tokio::select! {
            read = tokio::time::timeout(self.within, call.read_body(limit, &self.memory)) => {
                match read {
                    Ok(Err(problem)) if problem.status == StatusCode::PAYLOAD_TOO_LARGE => {
                        Err(too_large(limit))
                    }
                    Ok(read) => read,
                    Err(_elapsed) => Err(Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        format!(
                            "expected the body within {} s without a token",
                            self.within.as_secs_f64()
                        ),
                    )),
                }
            }
            _ = sent_away => {
                Err(Problem::later("others without a token came later and wait as well", 1))
            }
        }
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let (tell, sent_away) = oneshot::channel();
        let mut there = self.lock();
        let number = there.next;
        there.next += 1;
        if there.taken.len() >= PLACES
            && let Some((_, oldest)) = there.taken.pop_front()
        {
            // One that has gone by itself needs not be told.
            let _ = oldest.send(());
        }
        there.taken.push_back((number, tell));
        drop(there);
        (Place { door: self, number }, sent_away)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut there = self.door.lock();
        there.taken.retain(|(number, _)| *number != self.number);
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("expected a body of at most {limit} bytes without a token, found more"),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    /// A body that begins and never ends.
    fn endless() -> Body {
        let first = stream::once(async { Ok::<_, std::io::Error>("[") });
        Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()))
    }

    #[tokio::test]
    async fn a_body_that_takes_its_time_is_left() {
        let door = Doorstep {
            within: Duration::from_millis(20),
            ..Doorstep::default()
        };
        let mut call = Call::bare(endless());
        let problem = door.read(&mut call, 100).await.unwrap_err();
        assert_eq!(problem.status, StatusCode::REQUEST_TIMEOUT);
        assert!(door.lock().taken.is_empty(), "the place is free again");
    }

    #[tokio::test]
    async fn the_slowest_of_too_many_makes_room() {
        let door = Arc::new(Doorstep::default());
        let mut slow = Vec::new();
        for _ in 0..PLACES {
            let (door, mut call) = (Arc::clone(&door), Call::bare(endless()));
            slow.push(tokio::spawn(async move { door.read(&mut call, 100).await }));
        }
        while door.lock().taken.len() < PLACES {
            tokio::task::yield_now().await;
        }
        let mut quick = Call::bare(Body::from("[]"));
        door.read(&mut quick, 100).await.unwrap();
        assert_eq!(quick.body, "[]");
        let first = slow.remove(0).await.unwrap().unwrap_err();
        assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(door.lock().taken.len(), PLACES - 1);
    }

    #[tokio::test]
    async fn a_body_is_small() {
        let door = Doorstep::default();
        let mut large = Call::bare(Body::from("x".repeat(101)));
        let problem = door.read(&mut large, 100).await.unwrap_err();
        assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(problem.detail.contains("100 bytes"), "{}", problem.detail);
        // One that says so is not read at all.
        let mut told = Call::bare(endless());
        told.headers.insert(header::CONTENT_LENGTH, 101.into());
        let problem = door.read(&mut told, 100).await.unwrap_err();
        assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
