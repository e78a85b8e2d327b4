//! The rules of a full sequence: which request may follow which.

use std::hash::{DefaultHasher, Hash, Hasher};

use tahini_entity::Batch;

use super::{PostError, Push};

/// The active sequence, as far as its last request that was taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sequence {
    pub(super) id: String,
    pub(super) request: String,
    pub(super) state: State,
}

/// How far a sequence is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum State {
    /// Its last request did not come yet.
    #[default]
    Open,
    /// What its last request brought is in, and what did not come is still to be deleted.
    Ends,
    /// All of it was done; what its only request brought (see `digest`), where it had one only.
    Done(String),
}

/// What a request of a full sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The first of a sequence, which replaces the active one.
    First,
    /// The next of the active sequence.
    Next,
    /// The last one again: the poster did not get our answer.
    Repeated,
    /// The last one again, which was broken off when what it brought was in.
    Ends,
}

impl Sequence {
    /// The sequence as it is once `push`, which brought what `digest` tells, was taken.
    pub(super) fn after(push: &Push, digest: String) -> Sequence {
        Sequence {
            id: push.sequence_id.clone().unwrap_or_default(),
            request: push.request_id.clone().unwrap_or_default(),
            state: match push.is_last {
                true => State::Done(digest),
                false => State::Open,
            },
        }
    }

    /// The sequence while `push`, its last request, is half done.
    pub(super) fn ending(push: &Push) -> Sequence {
        Sequence {
            state: State::Ends,
            ..Sequence::after(push, String::new())
        }
    }

    /// Whether it goes on, or its last request is not done.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Done(_))
    }

    /// Reads what `to_bytes` wrote.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Option<Sequence> {
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '\u{0}');
        let state = parts.next()?;
        Some(Sequence {
            state: match state {
                "open" => State::Open,
                "ends" => State::Ends,
                done => State::Done(done.strip_prefix("done ").unwrap_or_default().to_owned()),
            },
            id: parts.next()?.to_owned(),
            request: parts.next()?.to_owned(),
        })
    }

    /// The sequence as it is saved.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let state = match &self.state {
            State::Open => "open",
            State::Ends => "ends",
            State::Done(digest) if digest.is_empty() => "done",
            State::Done(digest) => &format!("done {digest}"),
        };
        let id = self.id.replace('\u{0}', "");
        format!("{state}\u{0}{id}\u{0}{}", self.request).into_bytes()
    }

    /// What `push`, a request of a full sequence, is beside the `known` sequence. `digest` tells
    /// what it brings.
    ///
    /// # Errors
    /// Body, without a `sequence_id`; conflict, when it does not belong where it came.
    pub(super) fn turn(
        known: Option<&Sequence>,
        push: &Push,
        digest: &str,
    ) -> Result<Turn, PostError> {
        let conflict = |words: String| Err(PostError::Conflict(words));
        let id = push.sequence_id.as_deref().unwrap_or_default();
        if id.is_empty() {
            return Err(PostError::Body(
                "expected a `sequence_id` with `is_full=true`, found none".to_owned(),
            ));
        }
        // An id goes out of scope with its last request: whoever uses it again begins anew, unless
        // it is the same request that brings the same.
        let is_known = |known: &Sequence| push.request_id.as_deref() == Some(&known.request);
        let begins_anew = |known: &&Sequence| {
            let brought = matches!(&known.state, State::Done(brought) if brought == digest);
            let is_same = is_known(known) && !digest.is_empty() && brought;
            push.is_first && !known.is_open() && !is_same
        };
        let known = known.filter(|known| known.id == id && !begins_anew(known));
        if let Some(known) = known.filter(|known| is_known(known)) {
            return Ok(match known.state == State::Ends && push.is_last {
                true => Turn::Ends,
                false => Turn::Repeated,
            });
        }
        let previous = push.previous_request_id.as_deref();
        match known.filter(|known| known.is_open()) {
            Some(_) if push.is_first => conflict(format!(
                "expected `is_first` on the first request of sequence {id:?} only, found it again"
            )),
            Some(active) if previous != Some(active.request.as_str()) => conflict(format!(
                "expected `previous_request_id` {:?}, found {:?}",
                active.request,
                previous.unwrap_or_default()
            )),
            Some(_) => Ok(Turn::Next),
            None => match previous {
                Some(previous) => conflict(format!(
                    "expected the first request of a sequence, found one that follows request \
                     {previous:?} of a sequence that is not active"
                )),
                // A sequence of which the beginning is missing would delete what that held.
                None if !push.is_first => conflict(
                    "expected `is_first=true` on the first request of a full sequence, found none"
                        .to_owned(),
                ),
                None => Ok(Turn::First),
            },
        }
    }
}

/// What tells the only request of a sequence from another one with the same ids: what it brings.
/// Empty for other requests.
pub(super) fn digest(push: &Push, rows: &Batch) -> String {
    if !push.is_first || !push.is_last {
        return String::new();
    }
    let mut all = DefaultHasher::new();
    for row in rows.iter() {
        row.hash().hash(&mut all);
        row.meta.updated.hash(&mut all);
    }
    format!("{:016x}", all.finish())
}
