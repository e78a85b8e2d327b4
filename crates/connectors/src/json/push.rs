//! The chain of requests that the JSON push protocol is made of.

/// The requests of one run, linked: each names the one before it that the receiver accepted.
///
/// A request that failed and is sent again keeps its id and its link, because the receiver may
/// have accepted it and only its answer was lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    sequence: String,
    full: bool,
    /// The last request that the receiver accepted.
    accepted: Option<String>,
    /// The request that failed last, and a fingerprint of what it carried.
    failed: Option<(String, u128)>,
    /// How many ids were given out.
    count: u64,
}

impl Chain {
    /// A chain for a run; `sequence` is unique to it.
    pub(super) fn new(sequence: String, full: bool) -> Chain {
        Chain {
            sequence,
            full,
            ..Chain::default()
        }
    }

    /// Whether this is a full sequence.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The id for a request that carries what `content` is the fingerprint of.
    pub(super) fn request_id(&mut self, content: u128) -> String {
        match &self.failed {
            Some((id, failed)) if *failed == content => id.clone(),
            _ => {
                self.count += 1;
                self.count.to_string()
            }
        }
    }

    /// The query parameters of the request `id`.
    pub(super) fn parameters(&self, id: &str, last: bool) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("sequence_id", self.sequence.clone()),
            ("is_full", self.full.to_string()),
            ("request_id", id.to_owned()),
        ];
        match &self.accepted {
            Some(before) => parameters.push(("previous_request_id", before.clone())),
            None if self.full => parameters.push(("is_first", "true".to_owned())),
            None => {}
        }
        if last && self.full {
            parameters.push(("is_last", "true".to_owned()));
        }
        parameters
    }

    /// The receiver accepted the request.
    pub(super) fn accept(&mut self, id: String) {
        self.accepted = Some(id);
        self.failed = None;
    }

    /// The request failed, or its answer was lost.
    pub(super) fn fail(&mut self, id: String, content: u128) {
        self.failed = Some((id, content));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chain: &Chain, id: &str, last: bool) -> String {
        let pairs = chain
            .parameters(id, last)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("&")
    }

    #[test]
    fn a_full_sequence_has_a_first_and_a_last_request() {
        let mut chain = Chain::new("s".to_owned(), true);
        let first = chain.request_id(10);
        assert_eq!(
            text(&chain, &first, false),
            "sequence_id=s&is_full=true&request_id=1&is_first=true"
        );
        chain.accept(first);
        let last = chain.request_id(0);
        assert_eq!(
            text(&chain, &last, true),
            "sequence_id=s&is_full=true&request_id=2&previous_request_id=1&is_last=true"
        );
    }

    #[test]
    fn an_incremental_sequence_has_neither_flag() {
        let mut chain = Chain::new("s".to_owned(), false);
        let first = chain.request_id(10);
        assert_eq!(
            text(&chain, &first, false),
            "sequence_id=s&is_full=false&request_id=1"
        );
        chain.accept(first);
        let last = chain.request_id(0);
        assert_eq!(
            text(&chain, &last, true),
            "sequence_id=s&is_full=false&request_id=2&previous_request_id=1"
        );
    }

    #[test]
    fn the_same_content_again_is_the_same_request_and_other_content_another_one() {
        let mut chain = Chain::new("s".to_owned(), true);
        chain.accept("0".to_owned());
        let batch = chain.request_id(10);
        chain.fail(batch.clone(), 10);
        assert_eq!(chain.request_id(10), batch);
        chain.fail(batch.clone(), 10);
        let single = chain.request_id(11);
        assert_ne!(single, batch);
        assert!(text(&chain, &single, false).contains("previous_request_id=0"));
        chain.accept(single);
        assert_ne!(chain.request_id(10), batch);
    }
}
