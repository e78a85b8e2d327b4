//! What compaction may remove: the rules, and what came of them.

use crate::{Seq, StoreError};

/// What one compaction removes. The default removes nothing.
///
/// Compaction only ever takes an id's oldest versions: what stays of it is the newest part of its
/// history, or nothing. Numbers never change; `_previous` of the oldest version that stays goes on
/// naming the one that is gone. What `latest`, `unseen`, `state` and views without history show
/// stays as it was, but for ids that are removed as a whole: those are unknown from then on, also
/// to older snapshots, and begin anew when they are written again.
///
/// No rule but `erase` removes what a living snapshot needs to answer.
#[derive(Clone, Copy)]
pub struct Compaction<'a> {
    /// How many versions of each id stay at least, its newest ones; `None`: all of them.
    /// 0 also removes the latest version once it is older than `older_than`, which must be set.
    pub keep_versions: Option<u32>,
    /// Microseconds since 1970 UTC: a version whose `_ts` is this or later stays.
    pub older_than: Option<i64>,
    /// Microseconds since 1970 UTC: an id is removed with all its versions when its latest one is
    /// deleted and has a `_ts` before this.
    pub deleted_before: Option<i64>,
    /// The first version that some reader has not read yet: this one and newer ones stay and do
    /// not count as newer versions, so that the reader finds the dataset as it would have found
    /// it before. `None` where nobody reads.
    pub keep_from: Option<Seq>,
    /// Ids of which only the latest version stays, whatever `keep_versions` says. Held back by
    /// `keep_from` like all rules, and harmless to repeat.
    pub retract: &'a [&'a str],
    /// Ids that are removed with all their versions at once, whoever reads. They are gone from the
    /// disk when the compaction has finished; repeating finishes one that was interrupted.
    pub erase: &'a [&'a str],
    /// A file of the log is written anew when at least this share of its versions can go, between
    /// 0 (any at all) and 1. Until then what could go is still there.
    pub least_dead: f64,
    /// The index is freed of half-empty pages when the dataset is quiet, and not before this ends:
    /// that is a copy of all of it.
    pub index_later: bool,
    /// Asked often; when it says yes the compaction ends early, and the next one goes on.
    pub stop: &'a dyn Fn() -> bool,
}

impl Default for Compaction<'_> {
    fn default() -> Self {
        Compaction {
            keep_versions: None,
            older_than: None,
            deleted_before: None,
            keep_from: None,
            retract: &[],
            erase: &[],
            least_dead: 0.4,
            index_later: false,
            stop: &|| false,
        }
    }
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Versions that were removed from the log.
    pub versions: u64,
    /// Ids that were removed as a whole; their versions leave the log now or with a later
    /// compaction.
    pub ids: u64,
    /// Whether all was done that the rules ask for, and it was not stopped before.
    pub finished: bool,
}

/// The rules as they apply to one pass over a dataset.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    keep: Option<u32>,
    older_than: i64,
    deleted_before: i64,
    /// Versions from here on stay, and do not count as newer ones.
    pub until: Seq,
}

impl Line {
    /// The rules in a dataset where snapshots stand at `oldest` and later.
    ///
    /// # Errors
    /// `Refused` when no version has to stay and no time is given either.
    pub fn new(rules: &Compaction<'_>, oldest: Seq) -> Result<Line, StoreError> {
        if rules.keep_versions == Some(0) && rules.older_than.is_none() {
            return Err(StoreError::Refused(
                "expected a time threshold where no version has to be kept, found none; \
                 set `older_than` or keep at least 1"
                    .to_owned(),
            ));
        }
        Ok(Line {
            keep: rules.keep_versions,
            older_than: rules.older_than.unwrap_or(i64::MAX),
            deleted_before: rules.deleted_before.unwrap_or(i64::MIN),
            until: rules.keep_from.unwrap_or(Seq::MAX).min(oldest),
        })
    }

    /// How many versions stay at least; `None` where history does.
    pub fn keep(&self) -> Option<u32> {
        self.keep
    }

    /// Whether a version goes that is not the latest and has `newer` versions of its id after it
    /// and before `until`.
    pub fn goes(&self, seq: Seq, ts: i64, newer: u32) -> bool {
        let surplus = self.keep.is_some_and(|keep| newer >= keep.max(1));
        surplus && seq < self.until && ts < self.older_than
    }

    /// Whether an id goes as a whole whose latest version this is.
    pub fn expires(&self, seq: Seq, ts: i64, deleted: bool) -> bool {
        let trimmed = self.keep == Some(0) && ts < self.older_than;
        seq < self.until && (trimmed || (deleted && ts < self.deleted_before))
    }

    /// Before which `_ts` ids may expire, and before which no more will, if any may.
    pub fn expires_before(&self) -> Option<(i64, i64)> {
        let trimmed = (self.keep == Some(0)).then_some(self.older_than);
        let deleted = Some(self.deleted_before).filter(|ts| *ts > i64::MIN);
        match (trimmed, deleted) {
            (Some(one), Some(two)) => Some((one.max(two), one.min(two))),
            (one, two) => one.or(two).map(|ts| (ts, ts)),
        }
    }
}
