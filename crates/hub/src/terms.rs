//! What a dataset sink's configuration demands of the rows that it is to write.

use std::borrow::Cow;

use tahini_entity::{Batch, Meta, Record};
use tahini_store::{Rule, StoreError};

use crate::builtin::dataset_sink::push_row;
use crate::config::Props;
use crate::{Failure, Pipe};

/// The most bytes of an entity where nothing is configured, as documented.
const MAX_ENTITY_BYTES: u64 = 104_857_600;

/// The demands of one sink.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    max_bytes: u64,
    versions: Versions,
    suppress_filtered: bool,
}

/// Which versions may follow which.
#[derive(Clone, Copy, PartialEq)]
enum Versions {
    Any,
    /// Only what was made from the latest one (`enable_optimistic_locking`).
    Locked,
    /// A second one is an error (`prevent_multiple_versions`).
    One,
    /// A second one is passed over.
    First,
}

impl Terms {
    /// The demands that a sink's effective configuration makes.
    ///
    /// # Errors
    /// Config, when a property has another type than documented, or two exclude each other.
    pub(crate) fn of(props: Props<'_>) -> Result<Terms, Failure> {
        let locked = props.bool("enable_optimistic_locking", false)?;
        let prevented = props.get("prevent_multiple_versions");
        let versions = match prevented.map(|value| (value.as_bool(), value.as_str())) {
            None | Some((Some(false), _)) if locked => Versions::Locked,
            None | Some((Some(false), _)) => Versions::Any,
            Some(_) if locked => {
                return Err(Failure::config(format!(
                    "{}: expected one of enable_optimistic_locking and \
                     prevent_multiple_versions, found both",
                    props.path()
                )));
            }
            Some((Some(true), _)) => Versions::One,
            Some((_, Some("ignore"))) => Versions::First,
            Some(_) => {
                let name = "prevent_multiple_versions";
                return Err(props.wrong(name, "true, false or \"ignore\"", prevented));
            }
        };
        let bytes = props.opt_int("max_entity_bytes_size")?;
        Ok(Terms {
            max_bytes: bytes.map_or(MAX_ENTITY_BYTES, i64::unsigned_abs),
            versions,
            suppress_filtered: props.bool("suppress_filtered", false)?,
        })
    }

    /// The demands of a pipe's sink.
    ///
    /// # Errors
    /// As [`Terms::of`].
    pub(crate) fn of_pipe(pipe: &Pipe) -> Result<Terms, Failure> {
        let nothing = Default::default();
        let sink = pipe.effective["sink"].as_object().unwrap_or(&nothing);
        Terms::of(Props::new("$.sink", sink))
    }

    /// The rule of commits of new rows.
    pub(crate) fn rule(&self) -> Rule<'static> {
        match self.versions {
            Versions::Any => Rule::IfChanged,
            Versions::Locked => Rule::IfUpdatedIs,
            Versions::One => Rule::OnlyNew,
            Versions::First => Rule::KeepFirst,
        }
    }

    /// The rule of commits that delete what did not come.
    pub(crate) fn rule_of_deletions(&self) -> Rule<'static> {
        match self.versions {
            // What is deleted is the latest version, so there is nothing to compare.
            Versions::Locked => Rule::IfChanged,
            _ => self.rule(),
        }
    }

    /// Whether a refusal must stay with the batch that it is about.
    pub(crate) fn one_by_one(&self) -> bool {
        matches!(self.versions, Versions::Locked | Versions::One)
    }

    /// Whether somebody waits for the entities as they were written.
    pub(crate) fn is_locked(&self) -> bool {
        self.versions == Versions::Locked
    }

    /// Whether filtered entities are left out, and what the dataset has of them stays.
    pub(crate) fn suppress_filtered(&self) -> bool {
        self.suppress_filtered
    }

    /// Appends a batch as the dataset stores it: all of it or, after an error, nothing.
    ///
    /// # Errors
    /// Entity, with the entity, when it is larger than allowed.
    pub(crate) fn push(&self, out: &mut Batch, batch: &Batch) -> Result<(), Failure> {
        if self.take_as_it_is(batch) {
            out.push_all(batch);
            return Ok(());
        }
        let before = out.len();
        for record in batch.iter() {
            if record.meta.filtered && self.suppress_filtered {
                continue;
            }
            if let Err(failure) = self.push_one(out, record) {
                out.truncate(before);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// A batch as the dataset stores it, without a copy where it comes like that.
    ///
    /// # Errors
    /// As [`Terms::push`].
    pub(crate) fn rows<'b>(&self, batch: &'b Batch) -> Result<Cow<'b, Batch>, Failure> {
        if self.take_as_it_is(batch) {
            return Ok(Cow::Borrowed(batch));
        }
        let mut rows = Batch::new();
        self.push(&mut rows, batch)?;
        Ok(Cow::Owned(rows))
    }

    fn take_as_it_is(&self, batch: &Batch) -> bool {
        let as_it_is = |meta: &Meta, bytes: usize| {
            !meta.reserved && !meta.filtered && bytes as u64 <= self.max_bytes
        };
        batch.sizes().all(|(meta, bytes)| as_it_is(meta, bytes))
    }

    fn push_one(&self, out: &mut Batch, record: Record<'_>) -> Result<(), Failure> {
        push_row(out, record)?;
        let stored = out.get(out.len() - 1);
        let id = stored.id.unwrap_or_default();
        let bytes = (id.len() + stored.body.len()) as u64;
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let words = format!(
            "expected entity {id:?} to take at most {} bytes in the dataset \
             (`max_entity_bytes_size`), found {bytes}",
            self.max_bytes
        );
        Err(Failure::entity(words).with_entity(record.to_entity()))
    }
}

/// The failure of a refused commit in the words of the property that refuses.
pub(crate) fn refused(terms: &Terms, error: StoreError) -> Failure {
    match (&error, terms.versions) {
        (StoreError::Refused(words), Versions::Locked) => Failure::fatal(format!(
            "{words}; nothing of the batch was written (`enable_optimistic_locking`)"
        )),
        (StoreError::Refused(words), Versions::One) => Failure::fatal(format!(
            "{words}; nothing of the batch was written (`prevent_multiple_versions`)"
        )),
        _ => error.into(),
    }
}
