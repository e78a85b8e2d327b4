//! What a commit does with each of its rows: one pure place, shared by the backends.

use tahini_entity::{Offset, Record, hash};

use crate::{Rule, Seq, StateWrite, StoreError};

/// What is known of an id's latest version when a row meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prior {
    pub seq: Seq,
    /// The lower half of the content hash.
    pub hash: u64,
    pub deleted: bool,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is a new version.
    Write,
    /// It leaves everything as it is.
    Leave,
}

/// The half of a content hash that the index keeps for comparison.
pub(crate) fn half(hash: u128) -> u64 {
    hash as u64
}

/// Judges one row, by the `half` of its hash, against the latest version of its id.
///
/// # Errors
/// `Refused` when a rule finds another version than the row expects, or one too many.
pub(crate) fn judge(
    rule: Rule<'_>,
    id: &str,
    record: &Record<'_>,
    hash: u64,
    prior: Option<&Prior>,
) -> Result<Verdict, StoreError> {
    // An index that is built anew from the log computes the hash: it must be the same one.
    debug_assert_eq!(
        hash,
        half(hash::content(
            record.id,
            record.meta.deleted,
            record.shape,
            record.body
        )),
        "expected the hash of entity {id:?} to be that of its content and deleted flag"
    );
    match rule {
        Rule::IfChanged | Rule::OnlyNew | Rule::Always => {}
        Rule::KeepFirst if prior.is_some() => return Ok(Verdict::Leave),
        Rule::KeepFirst => {}
        Rule::IfUpdatedIs => expect_version(id, record, prior)?,
        Rule::UnlessTouched(touched) => {
            if prior.is_some_and(|prior| touched.contains(prior.seq)) {
                return Ok(Verdict::Leave);
            }
        }
    }
    let deleted = record.meta.deleted;
    Ok(match prior {
        None if deleted => Verdict::Leave,
        None => Verdict::Write,
        Some(_) if matches!(rule, Rule::Always) => Verdict::Write,
        Some(prior) if prior.deleted == deleted && prior.hash == hash => Verdict::Leave,
        Some(prior) if matches!(rule, Rule::OnlyNew) => {
            return Err(StoreError::Refused(format!(
                "expected one version of entity {id:?}, found another one beside version {}",
                prior.seq
            )));
        }
        Some(_) => Verdict::Write,
    })
}

fn expect_version(id: &str, record: &Record<'_>, prior: Option<&Prior>) -> Result<(), StoreError> {
    let matches = match (&record.meta.updated, prior) {
        (None, None) => true,
        (Some(Offset::Int(expected)), Some(prior)) => u64::try_from(*expected) == Ok(prior.seq),
        _ => false,
    };
    if matches {
        return Ok(());
    }
    let expected = match &record.meta.updated {
        Some(updated) => format!("version {updated}"),
        None => "no version".to_owned(),
    };
    let found = prior.map_or("none".to_owned(), |prior| format!("version {}", prior.seq));
    Err(StoreError::Refused(format!(
        "expected {expected} of entity {id:?}, found {found}"
    )))
}

/// The id that a row must have to be stored.
///
/// # Errors
/// `Refused` when it is missing or empty.
pub(crate) fn row_id<'a>(at: usize, record: &Record<'a>) -> Result<&'a str, StoreError> {
    match record.id {
        Some(id) if !id.is_empty() => Ok(id),
        Some(_) => Err(StoreError::Refused(format!(
            "expected an id in row {at} of the commit, found an empty one"
        ))),
        None => Err(StoreError::Refused(format!(
            "expected an id in row {at} of the commit, found none"
        ))),
    }
}

/// Checks that state keys can be told apart.
///
/// # Errors
/// `Refused` when a space holds NUL, which is the border between space and key.
pub(crate) fn check_state(state: &[StateWrite]) -> Result<(), StoreError> {
    match state.iter().find(|write| write.space.contains('\0')) {
        None => Ok(()),
        Some(write) => Err(StoreError::Refused(format!(
            "expected a state space without NUL, found {:?}",
            write.space
        ))),
    }
}

/// Refuses what is not possible while commits are held back.
pub(crate) fn held_back(dataset: &str) -> StoreError {
    StoreError::Refused(format!(
        "expected dataset {dataset:?} to hold no changes back, found some: a run that is not \
         finished or a tripped circuit breaker; commit them or roll them back first"
    ))
}

/// Says that a view of what was held back has ended.
pub(crate) fn rolled_back(dataset: &str) -> StoreError {
    StoreError::Refused(format!(
        "expected the changes that dataset {dataset:?} held back to be there, found them rolled back"
    ))
}
