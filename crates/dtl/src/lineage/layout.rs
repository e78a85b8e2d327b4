//! An entity or a dict of which only the origins of its properties are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flow::{Flow, Of, Origin, text};
use crate::namespace::{NamePattern, Read, is_bare, qualified, split_name};
use crate::path::has_identifier;
use crate::pattern::Pattern;

/// A property whose name is known.
pub type Named<'a> = (&'a str, &'a Flow);

/// Where the properties of an entity come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub(super) named: BTreeMap<String, Flow>,
    pub(super) others: Vec<Others>,
    /// What decides whether there is an entity: `filter` and `discard`.
    pub filters: BTreeSet<Origin>,
    /// Entities that are emitted beside it.
    pub created: Vec<Flow>,
}

/// Properties that come with a value, by names that are not written in the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Others {
    pub(super) takes: Vec<Take>,
    /// The value that they are properties of; for computed names, what they and their values are
    /// made of.
    pub of: Flow,
    /// How they are called.
    pub spelling: Spelling,
}

/// How properties are called that come with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As they are there.
    Same,
    /// With this namespace where they had none.
    Qualified(String),
    /// Without their namespaces.
    Stripped,
    /// By names that are computed.
    Computed,
}

/// Names that are taken: one of `include`, where there are any, and none of `exclude`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Take {
    pub include: Vec<Called>,
    pub exclude: Vec<Called>,
}

/// A name or pattern, as it is written and as it matches.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub text: String,
    pub pattern: Arc<NamePattern>,
}

impl PartialEq for Called {
    fn eq(&self, other: &Called) -> bool {
        self.text == other.text
    }
}

impl Called {
    /// Exactly this name.
    pub fn exact(name: &str) -> Called {
        Called {
            text: name.to_owned(),
            pattern: Arc::new(NamePattern::Whole(Pattern::Exact(name.into()))),
        }
    }
}

impl Take {
    fn takes(&self, name: &str) -> bool {
        let matches = |all: &[Called]| all.iter().any(|one| one.pattern.matches(name));
        (self.include.is_empty() || matches(&self.include)) && !matches(&self.exclude)
    }

    pub fn without(exclude: Vec<Called>) -> Take {
        Take {
            include: Vec::new(),
            exclude,
        }
    }
}

impl Others {
    /// The flow of a property, if it may be among these.
    fn find(&self, read: &Read) -> Option<Flow> {
        let name = text(read);
        if self.spelling == Spelling::Computed {
            return Some(self.of.clone());
        }
        if !self.takes.iter().all(|take| take.takes(&name)) {
            return None;
        }
        let inner = match (&self.spelling, read) {
            (Spelling::Qualified(own), Read::Exact(name)) => {
                match split_name(name) {
                    (Some(namespace), rest) if namespace == own => Read::Exact(rest.into()),
                    // It had that namespace before.
                    (Some(_), _) => read.clone(),
                    (None, _) if is_bare(name) => read.clone(),
                    (None, _) => return None,
                }
            }
            (Spelling::Stripped, Read::Exact(name)) if !is_bare(name) => match name.contains(':') {
                true => return None,
                false => Read::Any(name.clone()),
            },
            _ => read.clone(),
        };
        Some(self.of.follow(&inner))
    }

    /// The names and patterns that are taken, and those that are not.
    pub fn names(&self) -> (Vec<&str>, Vec<&str>) {
        let mut include: Vec<&str> = Vec::new();
        let mut exclude: Vec<&str> = Vec::new();
        for take in &self.takes {
            include.extend(take.include.iter().map(|one| one.text.as_str()));
            exclude.extend(take.exclude.iter().map(|one| one.text.as_str()));
        }
        if include.is_empty() {
            include.push(super::ANY);
        }
        exclude.sort_unstable();
        exclude.dedup();
        (include, exclude)
    }

    /// Whether a property of this name may be among these.
    pub fn has(&self, name: &str) -> bool {
        self.find(&Read::Exact(name.into())).is_some()
    }
}

impl Layout {
    /// The entities of the source, as they are.
    pub fn of_source() -> Layout {
        Layout::of(&Flow::of(Of::Source, Vec::new()))
    }

    /// All properties of a value.
    pub(super) fn of(flow: &Flow) -> Layout {
        let mut layout = Layout::default();
        layout.take_over(flow, &Take::default());
        layout
    }

    /// What something makes of it that cannot be looked into: all of it may come from anything.
    pub fn unknown(&self) -> Layout {
        let mut of = self.all().computed();
        of.beside.insert(super::Beside::Unknown);
        let mut layout = Layout {
            filters: self.filters.clone(),
            ..Layout::default()
        };
        layout.others.push(Others {
            takes: Vec::new(),
            of,
            spelling: Spelling::Computed,
        });
        layout
    }

    /// The properties whose names are known, in the order of names.
    pub fn named(&self) -> impl Iterator<Item = Named<'_>> {
        self.named.iter().map(|(name, flow)| (name.as_str(), flow))
    }

    /// Properties that come with values, by names that are not known here.
    pub fn others(&self) -> &[Others] {
        &self.others
    }

    /// Everything in it, as one value.
    pub(super) fn all(&self) -> Flow {
        let mut all = Flow::default();
        for flow in self.named.values() {
            all = all.or(flow.clone().computed());
        }
        for others in &self.others {
            all = all.or(others.of.clone());
        }
        all.when.extend(self.filters.iter().cloned());
        all
    }

    /// The flow of a property; nothing where it cannot be there.
    pub(super) fn find(&self, read: &Read) -> Flow {
        if let Read::Exact(name) = read {
            if &**name == super::ANY {
                return self.all();
            }
            if let Some(flow) = self.named.get(&**name) {
                return flow.clone();
            }
        }
        let mut found = Flow::default();
        if let Read::Any(identifier) = read {
            let named = self.named.iter();
            for (_, flow) in named.filter(|(name, _)| has_identifier(name, identifier)) {
                found = found.or(flow.clone());
            }
        }
        for others in &self.others {
            found = others
                .find(read)
                .map_or(found.clone(), |flow| found.or(flow));
        }
        found
    }

    /// Sets a property.
    pub(super) fn set(&mut self, name: &str, flow: Flow) {
        self.hide(&[Called::exact(name)]);
        self.named.insert(name.to_owned(), flow);
    }

    /// Takes properties away.
    pub(super) fn remove(&mut self, patterns: &[Called]) {
        let matches = |name: &str| patterns.iter().any(|one| one.pattern.matches(name));
        self.named.retain(|name, _| !matches(name));
        self.hide(patterns);
    }

    fn hide(&mut self, patterns: &[Called]) {
        for others in &mut self.others {
            if others.spelling == Spelling::Computed {
                continue;
            }
            for one in patterns {
                let known = others
                    .takes
                    .iter()
                    .any(|take| take.include.is_empty() && take.exclude.contains(one));
                if known {
                    continue;
                }
                match others.takes.iter_mut().find(|take| take.include.is_empty()) {
                    Some(take) => take.exclude.push(one.clone()),
                    None => others.takes.push(Take::without(vec![one.clone()])),
                }
            }
        }
    }

    /// Takes over the properties of a value, as far as `take` takes them.
    pub(super) fn take_over(&mut self, flow: &Flow, take: &Take) {
        if let Some(fields) = &flow.fields {
            for (name, inner) in fields.named.iter().filter(|(name, _)| take.takes(name)) {
                let mut inner = inner.clone();
                inner.when.extend(flow.when.iter().cloned());
                // It may be missing there: then what was here stays.
                let known = self.named.remove(name).unwrap_or_default();
                self.set(name, known.or(inner));
            }
            for others in &fields.others {
                let mut others = others.clone();
                others.of.when.extend(flow.when.iter().cloned());
                if *take != Take::default() {
                    others.takes.push(take.clone());
                }
                for (name, known) in &mut self.named {
                    let read = Read::Exact(name.as_str().into());
                    if let Some(flow) = others.find(&read) {
                        *known = std::mem::take(known).or(flow);
                    }
                }
                self.push(others);
            }
        }
        let loose = Flow {
            fields: None,
            ..flow.clone()
        };
        let takes = match *take == Take::default() {
            true => Vec::new(),
            false => vec![take.clone()],
        };
        if !loose.made.is_empty() || !loose.beside.is_empty() {
            self.push(Others {
                takes: Vec::new(),
                of: loose.computed(),
                spelling: Spelling::Computed,
            });
        } else if !loose.taken.is_empty() {
            for (name, known) in self.named.iter_mut().filter(|(name, _)| take.takes(name)) {
                let read = Read::Exact(name.as_str().into());
                *known = std::mem::take(known).or(loose.follow(&read));
            }
            self.push(Others {
                takes,
                of: loose,
                spelling: Spelling::Same,
            });
        }
    }

    /// Adds properties whose names are computed.
    pub(super) fn compute(&mut self, flow: Flow) {
        self.push(Others {
            takes: Vec::new(),
            of: flow.computed(),
            spelling: Spelling::Computed,
        });
    }

    fn push(&mut self, others: Others) {
        if !self.others.contains(&others) {
            self.others.push(others);
        }
    }

    /// Either of the two.
    pub fn joined(self, other: Layout) -> Layout {
        let names: BTreeSet<String> = self
            .named
            .keys()
            .chain(other.named.keys())
            .cloned()
            .collect();
        let named = names.into_iter().map(|name| {
            let read = Read::Exact(name.as_str().into());
            let flow = self.find(&read).or(other.find(&read));
            (name, flow)
        });
        let mut joined = Layout {
            named: named.collect(),
            others: Vec::new(),
            filters: self.filters.union(&other.filters).cloned().collect(),
            created: self.created.clone(),
        };
        for created in &other.created {
            if !joined.created.contains(created) {
                joined.created.push(created.clone());
            }
        }
        let hidden: Vec<Called> = joined
            .named
            .keys()
            .map(|name| Called::exact(name))
            .collect();
        let mut others = Layout {
            others: self.others.into_iter().chain(other.others).collect(),
            ..Layout::default()
        };
        others.hide(&hidden);
        others.others.into_iter().for_each(|one| joined.push(one));
        joined
    }

    /// The same with a namespace at every name that has none.
    pub(super) fn qualified(&self, namespace: &str) -> Layout {
        self.spelled(
            |name| match is_bare(name) || name.contains(':') {
                true => name.to_owned(),
                false => qualified(namespace, name).to_string(),
            },
            &Spelling::Qualified(namespace.to_owned()),
        )
    }

    /// The same behind `remove_namespaces`.
    pub fn without_namespaces(&self) -> Layout {
        self.spelled(|name| split_name(name).1.to_owned(), &Spelling::Stripped)
    }

    fn spelled(&self, name: impl Fn(&str) -> String, spelling: &Spelling) -> Layout {
        let mut layout = Layout {
            filters: self.filters.clone(),
            created: self.created.clone(),
            ..Layout::default()
        };
        for (old, flow) in &self.named {
            let new = name(old);
            let known = layout.named.remove(&new).unwrap_or_default();
            layout.named.insert(new, known.or(flow.clone()));
        }
        let (computed, known): (Vec<Others>, Vec<Others>) = self
            .others
            .iter()
            .cloned()
            .partition(|others| others.spelling == Spelling::Computed);
        computed.into_iter().for_each(|others| layout.push(others));
        if !known.is_empty() {
            let inner = Layout {
                others: known,
                ..Layout::default()
            };
            if *spelling == Spelling::Stripped {
                // Another name may become the same.
                for (name, known) in &mut layout.named {
                    let flow = inner.find(&Read::Any(name.as_str().into()));
                    *known = std::mem::take(known).or(flow);
                }
            }
            let hidden = layout.named.keys().map(|name| Called::exact(name));
            let hidden: Vec<Called> = hidden.collect();
            layout.push(Others {
                takes: Vec::new(),
                of: Flow::dict(inner),
                spelling: spelling.clone(),
            });
            layout.hide(&hidden);
        }
        layout
    }
}
