//! What a transform is given of an entity of the source, when others stand before it.
//!
//! Rules behind other transforms join by what those made of the entity. Where these are rules that
//! depend on the entity alone, an index of the source's dataset can go by what they make of it.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_dtl::{Context, NoLookup, Options, Program, add_namespaces, compile};
use tahini_entity::{Batch, Entity, Record, Value, order};

use crate::config::{dtl_options, trigger_on, without_secrets};

/// The transforms before one. By default there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// What stands before its `_id`.
    prefix: Option<String>,
    adding: Option<Arc<Options>>,
    programs: Vec<Arc<Program>>,
    /// What they were compiled from.
    text: String,
    /// One of them depends on more than the entity: they count as if they left alone what is
    /// joined by.
    unknown: bool,
}

impl Given {
    /// What the first transform of an effective pipe is given.
    pub(super) fn first(pipe: &Map<String, Json>) -> Given {
        if pipe.get("add_namespaces") != Some(&Json::Bool(true)) {
            return Given::default();
        }
        let options = dtl_options(pipe, &Map::new());
        Given {
            text: format!("{} {}", options.identity(), options.property()),
            adding: Some(Arc::new(options)),
            ..Given::default()
        }
    }

    /// What the transform behind `transform` is given.
    pub(super) fn then(&self, pipe: &Map<String, Json>, transform: &Json) -> Given {
        let mut after = self.clone();
        match pure(pipe, transform) {
            Some(program) if !self.unknown => {
                after.programs.push(Arc::new(program));
                after.text.push_str(&transform.to_string());
                let namespaces = (&pipe.get("_id"), pipe.get("namespaces"));
                let flag = pipe.get("namespaced_identifiers");
                after.text.push_str(&format!("{namespaces:?} {flag:?}"));
            }
            _ => after.unknown = true,
        }
        after
    }

    /// The same of entities that have this before their ids.
    pub(super) fn prefixed(&self, prefix: Option<String>) -> Given {
        let mut after = self.clone();
        if let Some(prefix) = prefix {
            after.text.push_str(&format!(" {prefix:?}"));
            after.prefix = Some(prefix);
        }
        after
    }

    /// The same of one of several entities that were merged: rules make something else of it than of
    /// what they became, and count as if they left alone what is joined by.
    pub(super) fn of_member(&self) -> Given {
        let mut after = self.clone();
        after.unknown |= !after.programs.is_empty();
        after
    }

    /// The options by which `add_namespaces` stands before.
    pub(super) fn adding(&self) -> Option<&Options> {
        self.adding.as_deref().filter(|_| !self.is_plain())
    }

    /// Whether it is the entity of the source itself, as far as anybody knows.
    pub(crate) fn is_plain(&self) -> bool {
        let changed = self.adding.is_some() || !self.programs.is_empty();
        self.prefix.is_none() && (self.unknown || !changed)
    }

    /// What tells it from others.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:032x}", order::key(&Value::string(self.text.as_str())))
    }

    /// What becomes of a version; nothing where the transforms fail.
    pub(crate) fn entities(&self, record: Record<'_>) -> Vec<Entity> {
        let mut entity = record.to_entity();
        if let (Some(prefix), Some(id)) = (&self.prefix, &entity.id) {
            entity.id = Some(format!("{prefix}{id}").into());
        }
        if self.unknown {
            return vec![entity];
        }
        if let Some(options) = &self.adding {
            add_namespaces(&mut entity, options);
        }
        if self.programs.is_empty() {
            return vec![entity];
        }
        let mut batch = Batch::new();
        if batch.push_entity(&entity).is_err() {
            return Vec::new();
        }
        let context = Context::new(jiff::Timestamp::UNIX_EPOCH, &NoLookup);
        for program in &self.programs {
            let (mut out, mut origins) = (Batch::new(), Vec::new());
            if program
                .transform(&batch, &context, &mut out, &mut origins)
                .is_err()
            {
                return Vec::new();
            }
            batch = out;
        }
        batch.iter().map(|record| record.to_entity()).collect()
    }
}

/// The rules of a transform, if they make the same of an entity whenever they are asked.
fn pure(pipe: &Map<String, Json>, transform: &Json) -> Option<Program> {
    let rules = transform.get("rules").filter(|rules| rules.is_object())?;
    let own = transform.as_object()?;
    // What a secret stands for is not known here.
    if transform["type"] != "dtl" || without_secrets(rules) != *rules {
        return None;
    }
    let options = Options {
        trigger_on: trigger_on(own).ok()?,
        ..dtl_options(pipe, own)
    };
    compile(rules, &options).ok().filter(is_pure)
}

/// Whether rules make the same of an entity whenever they are asked.
pub(crate) fn is_pure(program: &Program) -> bool {
    program.is_deterministic() && !program.sleeps()
}
