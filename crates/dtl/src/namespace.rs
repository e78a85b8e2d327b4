//! Namespaces: how names are read and written when `namespaced_identifiers` is on, and how a pipe
//! adds and removes them at its ends.

use tahini_entity::{Dict, Entity, Str, Value};

use crate::Options;
use crate::pattern::Pattern;

/// The namespaces of one pipe, as the compiler and the evaluation use them.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    /// `namespaced_identifiers`.
    pub(crate) on: bool,
    pub(crate) identity: Str,
    pub(crate) property: Str,
}

/// What a name in a path or a statement stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Exactly this property.
    Exact(Str),
    /// The properties with this identifier, whatever their namespace.
    Any(Str),
}

impl Naming {
    pub(crate) fn of(options: &Options) -> Naming {
        Naming {
            on: options.namespaced_identifiers,
            identity: options.identity().into(),
            property: options.property().into(),
        }
    }

    /// The name under which a property is written.
    pub(crate) fn write(&self, name: &Str) -> Str {
        if !self.on || is_bare(name) {
            return name.clone();
        }
        if let Some(plain) = name.strip_prefix("::") {
            return plain.into();
        }
        match name.strip_prefix(':') {
            Some(own) => qualified(&self.property, own),
            None if name.contains(':') => name.clone(),
            None => qualified(&self.property, name),
        }
    }

    /// What a name means when a property is read.
    pub(crate) fn read(&self, name: &Str) -> Read {
        if !self.on || is_bare(name) {
            return Read::Exact(name.clone());
        }
        if let Some(plain) = name.strip_prefix("::") {
            return Read::Exact(plain.into());
        }
        match name.strip_prefix(':') {
            Some(own) => Read::Exact(qualified(&self.property, own)),
            None if name.contains(':') => Read::Exact(name.clone()),
            None => Read::Any(name.clone()),
        }
    }

    /// The value of `_id` as it is written: strings take the identity namespace.
    pub(crate) fn identity(&self, value: Value) -> Value {
        if !self.on {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.identify(&text)),
            Value::List(items) => {
                Value::List(items.into_iter().map(|item| self.identity(item)).collect())
            }
            other => other,
        }
    }

    fn identify(&self, text: &str) -> Str {
        if let Some(plain) = text.strip_prefix("::") {
            return plain.into();
        }
        match text.strip_prefix(':') {
            Some(own) => qualified(&self.identity, own),
            None if text.contains(':') => text.into(),
            None => qualified(&self.identity, text),
        }
    }

    /// The namespace that an `_id` without one is in, where namespaces are on.
    pub(crate) fn own_identity(&self) -> Option<&str> {
        self.on.then_some(self.identity.as_str())
    }

    /// What `_S.$ids` reads where the entity has none: its `_id` as a namespaced identifier.
    pub(crate) fn ids_of(&self, id: &str) -> Value {
        Value::List([Value::Ni(self.identify(id))].into_iter().collect())
    }
}

/// Names that take no namespace: they start with `_` or `$`.
pub(crate) fn is_bare(name: &str) -> bool {
    name.starts_with(['_', '$'])
}

/// `namespace:identifier`.
pub(crate) fn qualified(namespace: &str, identifier: &str) -> Str {
    let mut name = Str::with_capacity(namespace.len() + 1 + identifier.len());
    name.push_str(namespace);
    name.push(':');
    name.push_str(identifier);
    name
}

/// Splits a property's name at its last colon; without one the namespace is `None`.
pub(crate) fn split_name(name: &str) -> (Option<&str>, &str) {
    match name.rsplit_once(':') {
        Some((namespace, identifier)) => (Some(namespace), identifier),
        None => (None, name),
    }
}

/// A pattern over property names, aware of namespaces when they are on.
#[derive(Clone, Debug)]
pub(crate) enum NamePattern {
    /// Over the whole name.
    Whole(Pattern),
    /// Over the identifier, in every namespace; `all` also takes names without an identifier part
    /// of their own (`_id`, `$ids`).
    AnyNamespace(Pattern),
    /// Over namespace and identifier, each by itself.
    Both(Pattern, Pattern),
}

impl NamePattern {
    pub(crate) fn new(text: &str, naming: &Naming) -> NamePattern {
        if !naming.on || is_bare(text) {
            return NamePattern::Whole(Pattern::new(text));
        }
        if let Some(plain) = text.strip_prefix("::") {
            return match plain.rsplit_once(':') {
                Some((namespace, name)) => {
                    NamePattern::Both(Pattern::new(namespace), Pattern::new(name))
                }
                None => NamePattern::Both(Pattern::new(""), Pattern::new(plain)),
            };
        }
        if let Some(own) = text.strip_prefix(':') {
            return NamePattern::Both(
                Pattern::Exact(naming.property.as_str().into()),
                Pattern::new(own),
            );
        }
        match text.rsplit_once(':') {
            Some((namespace, name)) => {
                NamePattern::Both(Pattern::new(namespace), Pattern::new(name))
            }
            None => NamePattern::AnyNamespace(Pattern::new(text)),
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            NamePattern::Whole(pattern) => pattern.matches(name),
            NamePattern::AnyNamespace(pattern) if is_bare(name) => pattern.matches(name),
            NamePattern::AnyNamespace(pattern) => pattern.matches(split_name(name).1),
            NamePattern::Both(namespace, pattern) => {
                let (found, identifier) = split_name(name);
                namespace.matches(found.unwrap_or("")) && pattern.matches(identifier)
            }
        }
    }
}

/// What `apply-ns` and a pipe's `add_namespaces` add.
#[derive(Clone, Debug)]
pub(crate) struct Adding {
    pub(crate) property: Option<Str>,
    pub(crate) identity: Option<Str>,
    pub(crate) skip_underscore: bool,
    pub(crate) skip_dollar: bool,
    pub(crate) recursive: bool,
}

impl Adding {
    /// A dict with its names, and its `_id`'s value, qualified.
    pub(crate) fn dict(&self, dict: &Dict) -> Dict {
        dict.iter()
            .map(|(name, value)| (self.name(name), self.property(name, value)))
            .collect()
    }

    fn name(&self, name: &Str) -> Str {
        match &self.property {
            Some(namespace) if !self.is_skipped(name) && !name.contains(':') => {
                qualified(namespace, name)
            }
            _ => name.clone(),
        }
    }

    fn property(&self, name: &str, value: &Value) -> Value {
        match (value, &self.identity) {
            (Value::String(id), Some(namespace)) if name == "_id" && !id.contains(':') => {
                Value::String(qualified(namespace, id))
            }
            _ if self.is_skipped(name) => value.clone(),
            _ => self.value(value),
        }
    }

    /// Names that are left as they are, and so is what is under them.
    fn is_skipped(&self, name: &str) -> bool {
        (self.skip_underscore && name.starts_with('_'))
            || (self.skip_dollar && name.starts_with('$'))
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::Dict(dict) if self.recursive => Value::Dict(self.dict(dict)),
            Value::List(items) if self.recursive => {
                Value::List(items.iter().map(|item| self.value(item)).collect())
            }
            other => other.clone(),
        }
    }
}

/// Without the namespaces of its names, at every depth; of several names that become one, the
/// last wins.
pub(crate) fn strip_dict(dict: &Dict, values: bool) -> Dict {
    dict.iter()
        .map(|(name, value)| (Str::from(strip_name(name)), strip_value(value, values)))
        .collect()
}

fn strip_name(name: &str) -> &str {
    split_name(name).1
}

/// Strips the names of dicts in a value and, when asked, namespaced identifiers themselves.
pub(crate) fn strip_value(value: &Value, values: bool) -> Value {
    match value {
        Value::Dict(dict) => Value::Dict(strip_dict(dict, values)),
        Value::List(items) => {
            Value::List(items.iter().map(|item| strip_value(item, values)).collect())
        }
        Value::Ni(text) if values => Value::Ni(split_ni(text).1.into()),
        other => other.clone(),
    }
}

/// Splits a namespaced identifier at its first colon: the identifier may hold more of them.
pub(crate) fn split_ni(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or(("", text))
}

/// Adds the pipe's namespaces to an entity, as `add_namespaces` asks: to `_id` and to every
/// property's name that has none, at every depth.
pub fn add_namespaces(entity: &mut Entity, options: &Options) {
    let adding = Adding {
        property: Some(options.property().into()),
        identity: Some(options.identity().into()),
        skip_underscore: true,
        skip_dollar: true,
        recursive: true,
    };
    if let Some(id) = entity.id.take() {
        entity.id = Some(match id.contains(':') {
            true => id,
            false => qualified(options.identity(), &id),
        });
    }
    entity.properties = adding.dict(&entity.properties);
}

/// Removes namespaces from an entity, as `remove_namespaces` asks: from `_id`, from property
/// names at every depth, and from namespaced identifiers, which stay what they are.
pub fn remove_namespaces(entity: &mut Entity) {
    if let Some(id) = entity.id.take() {
        entity.id = Some(split_ni(&id).1.into());
    }
    entity.properties = strip_dict(&entity.properties, true);
}
