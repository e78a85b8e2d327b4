//! The body of an answer: bytes from the runtime to a blocking reader, never more than a few
//! chunks of them in memory.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tahini_hub::{Cancel, Class, Failure};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Chunks that may wait for the reader.
const CHUNKS_WAITING: usize = 4;
/// From this size on a chunk waits for the reader before more is read from the socket.
const CHUNK_BYTES: usize = 256 * 1024;
/// How often a waiting thread looks whether its run was stopped.
pub(super) const CANCEL_POLL: Duration = Duration::from_millis(50);

enum Item {
    Chunk(Bytes),
    /// The body came to the end that its framing promised.
    End,
    Broken(Failure),
}

/// The runtime's side of a body.
pub(super) struct Feed {
    items: SyncSender<Item>,
    room: Arc<Semaphore>,
}

/// The reader's side of a body. Dropping it closes the socket unless the body was read to its end.
pub struct Body {
    items: Receiver<Item>,
    room: Arc<Semaphore>,
    /// Of the chunk that `Read` is in the middle of, what is left.
    rest: Bytes,
    done: bool,
    /// The request, as messages name it.
    what: String,
    cancel: Cancel,
    /// What else there is to know when the body breaks off.
    explain: Option<Explain>,
    _task: Task,
}

/// Tells what became of the peer, when it is known.
pub(super) type Explain = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// A task of the runtime that ends when its owner goes away.
pub(super) struct Task(pub(super) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Both ends of a body's way before its task exists.
pub(super) fn feed() -> (Feed, impl FnOnce(String, Task, Cancel) -> Body) {
    // The semaphore keeps chunks waiting, so a send into the channel itself never does; one more
    // place is for the end.
    let (sender, items) = sync_channel(CHUNKS_WAITING + 1);
    let room = Arc::new(Semaphore::new(CHUNKS_WAITING));
    let feed = Feed {
        items: sender,
        room: Arc::clone(&room),
    };
    let body = move |what, task, cancel| Body {
        items,
        room,
        rest: Bytes::new(),
        done: false,
        what,
        cancel,
        explain: None,
        _task: task,
    };
    (feed, body)
}

impl Feed {
    /// Carries the answer's body to the reader; `idle` is the longest silence between two chunks,
    /// not counting the time in which the reader is behind.
    pub(super) async fn carry(self, mut response: reqwest::Response, idle: Duration) {
        let expected = (!response.headers().contains_key("content-encoding"))
            .then(|| response.content_length())
            .flatten();
        let mut received = 0u64;
        let mut pending = BytesMut::new();
        let last = loop {
            tokio::select! {
                biased;
                permit = self.room.acquire(), if !pending.is_empty() => {
                    match permit {
                        Ok(permit) => permit.forget(),
                        Err(_closed) => return,
                    }
                    if self.items.send(Item::Chunk(pending.split().freeze())).is_err() {
                        return;
                    }
                }
                next = timeout(idle, response.chunk()), if pending.len() < CHUNK_BYTES => {
                    match next {
                        Ok(Ok(Some(bytes))) => {
                            received += bytes.len() as u64;
                            pending.extend_from_slice(&bytes);
                        }
                        Ok(Ok(None)) => break Item::End,
                        Ok(Err(error)) => break Item::Broken(cut(received, expected, &error)),
                        Err(_elapsed) => break Item::Broken(silent(received, expected, idle)),
                    }
                }
            }
        };
        if !pending.is_empty() {
            match self.room.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_closed) => return,
            }
            if self.items.send(Item::Chunk(pending.freeze())).is_err() {
                return;
            }
        }
        // A reader that went away does not care how the body ended.
        let _ = self.items.send(last);
    }
}

fn of(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |expected| format!(" of {expected}"))
}

fn cut(received: u64, expected: Option<u64>, error: &reqwest::Error) -> Failure {
    let mut failure = Failure::transient(format!(
        "expected the whole body, found the answer broken off after {received}{} bytes: {}",
        of(expected),
        super::client::reasons(error),
    ));
    failure.reached = true;
    failure
}

fn silent(received: u64, expected: Option<u64>, idle: Duration) -> Failure {
    let mut failure = Failure::transient(format!(
        "expected more of the body within {} s, found silence after {received}{} bytes; \
         a higher read_timeout on the system waits longer",
        idle.as_secs_f64(),
        of(expected),
    ));
    failure.reached = true;
    failure
}

/// A failure of a connection, with what became of the peer behind its words.
pub(super) fn explained(mut failure: Failure, explain: Option<&Explain>) -> Failure {
    let unexplained = failure.class == Class::Transient && failure.status.is_none();
    if let Some(words) = explain
        .filter(|_| unexplained)
        .and_then(|explain| explain())
    {
        failure.message = format!("{}; {words}", failure.message);
    }
    failure
}

impl Body {
    /// The next bytes, in whatever portions they came; `None` at the end that the body's framing
    /// promised.
    ///
    /// # Errors
    /// Transient, when the body breaks off or stays silent for too long, with how many bytes came
    /// of how many. Cancelled, at most a moment after the run was stopped.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        if self.done {
            return Ok(None);
        }
        loop {
            self.cancel.check()?;
            match self.items.recv_timeout(CANCEL_POLL) {
                Ok(Item::Chunk(bytes)) => {
                    self.room.add_permits(1);
                    return Ok(Some(bytes));
                }
                Ok(Item::End) => {
                    self.done = true;
                    return Ok(None);
                }
                Ok(Item::Broken(failure)) => {
                    let failure = explained(failure, self.explain.as_ref());
                    return Err(failure.context(&self.what));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::transient(
                        "expected more of the body, found that its transfer had ended",
                    )
                    .context(&self.what));
                }
            }
        }
    }

    /// The same body, whose breaking off is explained by this.
    pub(super) fn explained_by(self, explain: Explain) -> Body {
        Body {
            explain: Some(explain),
            ..self
        }
    }

    /// The request that this answers, as messages name it: method and address without secrets.
    pub fn request(&self) -> &str {
        &self.what
    }

    /// The first `limit` bytes of the body, or all of it when it is shorter.
    ///
    /// # Errors
    /// As `next_chunk`.
    pub fn read_up_to(&mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while all.len() < limit {
            let Some(chunk) = self.next_chunk()? else {
                break;
            };
            all.extend_from_slice(&chunk[..chunk.len().min(limit - all.len())]);
        }
        Ok(all)
    }
}

impl Read for Body {
    /// Reads as `next_chunk` does; the error holds the `Failure`, see [`failure_of`].
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let Some(mut chunk) = self.next_chunk().map_err(io::Error::other)? else {
            return Ok(0);
        };
        let taken = chunk.len().min(out.len());
        out[..taken].copy_from_slice(&chunk.split_to(taken));
        self.rest = chunk;
        Ok(taken)
    }
}

/// The failure that a read from a [`Body`] stands for.
pub fn failure_of(error: &io::Error) -> Failure {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Failure>())
    {
        Some(failure) => failure.clone(),
        None => Failure::transient(error.to_string()),
    }
}
