//! Compiled rules.

use tahini_entity::{Batch, Entity, Value};

use crate::{Context, EvalError, Options, Problem};

/// Rules, compiled: immutable, shared between threads, evaluated any number of times.
#[derive(Debug)]
pub struct Program {
    warnings: Vec<Problem>,
}

/// A dataset that rules read beside their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The dataset's id.
    pub dataset: String,
    /// Changes of it should make the pipe process entities again (`track-dependencies`).
    pub tracked: bool,
    /// The dataset must be populated before the pipe may run.
    pub populated: bool,
}

/// An index that joins want: entities of a dataset by the values of an expression.
#[derive(Debug)]
pub struct Index {
    dataset: String,
    fingerprint: String,
}

impl Index {
    /// The dataset's id.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The expression in one stable form: equal fingerprints have equal keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Appends the keys under which `entity` is found; nulls are none.
    pub fn keys(&self, _entity: &Entity, _out: &mut Vec<Value>) {}
}

/// Compiles the `rules` object of a dtl transform.
///
/// # Errors
/// All problems at once; warnings are among them when there is an error too.
pub fn compile(_rules: &serde_json::Value, _options: &Options) -> Result<Program, Vec<Problem>> {
    Ok(Program {
        warnings: Vec::new(),
    })
}

impl Program {
    /// What the author should look at, though the rules run.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The datasets that the rules read, by id.
    pub fn reads(&self) -> &[Read] {
        &[]
    }

    /// The indexes that the rules' joins want.
    pub fn indexes(&self) -> &[Index] {
        &[]
    }

    /// Whether equal entities always give equal results: no `now`, `uuid` or other datasets.
    pub fn is_deterministic(&self) -> bool {
        true
    }

    /// Whether the rules create children (`create-child`): a dataset sink then tracks them.
    pub fn creates_children(&self) -> bool {
        false
    }

    /// Transforms the entities of `batch` in order and appends the results to `out`; `origins`
    /// gets, for each entity appended, its source's position in `batch`. Filtered entities are
    /// emitted with `meta.filtered`.
    ///
    /// # Errors
    /// The first entity that cannot be transformed; the results of those before it are in `out`.
    pub fn transform(
        &self,
        batch: &Batch,
        context: &Context<'_>,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), EvalError> {
        let _ = context;
        for (at, record) in batch.iter().enumerate() {
            out.push(record);
            origins.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}
