//! The rules of a full sequence: which request may follow which.

use super::{PostError, Push};

/// The active sequence, as far as its last request that was taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sequence {
    pub(super) id: String,
    pub(super) request: String,
    /// Its last request did not come yet.
    pub(super) open: bool,
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
}

impl Sequence {
    /// The sequence as it is once `push` was taken.
    pub(super) fn after(push: &Push) -> Sequence {
        Sequence {
            id: push.sequence_id.clone().unwrap_or_default(),
            request: push.request_id.clone().unwrap_or_default(),
            open: !push.is_last,
        }
    }

    /// Reads what `to_bytes` wrote.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Option<Sequence> {
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '\u{0}');
        let open = parts.next()? == "open";
        Some(Sequence {
            open,
            id: parts.next()?.to_owned(),
            request: parts.next()?.to_owned(),
        })
    }

    /// The sequence as it is saved.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let state = if self.open { "open" } else { "done" };
        let id = self.id.replace('\u{0}', "");
        format!("{state}\u{0}{id}\u{0}{}", self.request).into_bytes()
    }

    /// What `push`, a request of a full sequence, is beside the `known` sequence.
    ///
    /// # Errors
    /// Body, without a `sequence_id`; conflict, when it does not belong where it came.
    pub(super) fn turn(known: Option<&Sequence>, push: &Push) -> Result<Turn, PostError> {
        let conflict = |words: String| Err(PostError::Conflict(words));
        let id = push.sequence_id.as_deref().unwrap_or_default();
        if id.is_empty() {
            return Err(PostError::Body(
                "expected a `sequence_id` with `is_full=true`, found none".to_owned(),
            ));
        }
        // An id goes out of scope with its last request; whoever uses it again begins anew, and
        // if that was the same request once more, it changes nothing.
        let begins_anew = |known: &&Sequence| push.is_first && !known.open;
        let known = known.filter(|known| known.id == id && !begins_anew(known));
        if known.is_some_and(|known| push.request_id.as_deref() == Some(known.request.as_str())) {
            return Ok(Turn::Repeated);
        }
        let previous = push.previous_request_id.as_deref();
        match known.filter(|known| known.open) {
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
