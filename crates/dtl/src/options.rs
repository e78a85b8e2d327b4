//! What a compilation has to know beside the rules.

use tahini_entity::Value;

/// The pipe's properties that the language looks at.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pipe's id; the namespaces default to it.
    pub pipe: String,
    /// The pipe's namespaces; `None` stands for the documented default, the pipe's id.
    pub namespaces: Namespaces,
    /// `namespaced_identifiers`: reading and writing properties is aware of namespaces.
    pub namespaced_identifiers: bool,
    /// `id_required`: emitted entities must have an `_id` that is a string.
    pub id_required: bool,
    /// `trigger_on`: other entities pass through as they are.
    pub trigger_on: Option<TriggerOn>,
    /// What the entities come from; `is-changed` knows an answer for datasets only.
    pub source_kind: SourceKind,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pipe: String::new(),
            namespaces: Namespaces::default(),
            namespaced_identifiers: false,
            id_required: true,
            trigger_on: None,
            source_kind: SourceKind::Other,
        }
    }
}

impl Options {
    /// The namespace of `_id` values: the configured one, or the pipe's id.
    pub fn identity(&self) -> &str {
        self.namespaces.identity.as_deref().unwrap_or(&self.pipe)
    }

    /// The namespace of property names: the configured one, or the pipe's id.
    pub fn property(&self) -> &str {
        self.namespaces.property.as_deref().unwrap_or(&self.pipe)
    }
}

/// A pipe's `namespaces`.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// `namespaces.identity`.
    pub identity: Option<String>,
    /// `namespaces.property`.
    pub property: Option<String>,
    /// Namespaces that stand for URI prefixes, as (namespace, prefix): `ni` collapses URIs to them.
    pub expansions: Vec<(String, String)>,
    /// `ni` of a URI whose prefix no namespace stands for keeps the URI, so that it can be expanded
    /// again; otherwise it gets a namespace of the pipe.
    pub symmetric: bool,
}

/// What the entities of a transform come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// A dataset source: earlier versions are known.
    Dataset,
    /// Any other source.
    #[default]
    Other,
}

/// The `trigger_on` property of a dtl transform.
#[derive(Clone, Debug)]
pub struct TriggerOn {
    /// The property to look at, dots for nested ones; `_trigger` by default.
    pub key: String,
    /// The value it must have; strings may hold `*`.
    pub value: Value,
}
