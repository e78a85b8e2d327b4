//! A value of which only its origins are known.

use std::collections::BTreeSet;
use std::fmt;

use super::{ANY, Layout};
use crate::namespace::{Naming, Read};

/// Names on the way to a property that are told, at most; behind them it is `*`.
const DEPTH: usize = 12;

/// What a property belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    /// The entities that the pipe's source gives.
    Source,
    /// The entities of a dataset that the rules look into.
    Dataset(String),
}

/// A property, or an entity as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Whose it is.
    pub of: Of,
    /// The names on the way to it; without any, the entity as a whole. `*` stands for names that
    /// are not known, `*:name` for a name in whatever namespace.
    pub path: Vec<String>,
}

/// What a value depends on that is no property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Beside {
    /// `now`.
    Time,
    /// `uuid`.
    Chance,
    /// Parameters of the pipe (`_B`).
    Parameters,
    /// The completeness of a dataset.
    Completeness,
    /// Something that cannot be told from the rules.
    Unknown,
}

/// Where a value comes from. Without any origin it is a constant of the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// It is one of these, or a list of them, as they are.
    pub taken: BTreeSet<Origin>,
    /// It is computed from these.
    pub made: BTreeSet<Origin>,
    /// These decide whether it is there, or which one it is: conditions and joins.
    pub when: BTreeSet<Origin>,
    /// What else it depends on.
    pub beside: BTreeSet<Beside>,
    /// It is a dict, or a list of dicts, that the rules make: its properties.
    pub fields: Option<Box<Layout>>,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Beside::Time => "the time",
            Beside::Chance => "chance",
            Beside::Parameters => "parameters",
            Beside::Completeness => "completeness",
            Beside::Unknown => "unknown",
        })
    }
}

impl Origin {
    /// A name of it.
    fn follow(&self, read: &Read) -> Origin {
        let name = text(read);
        let mut path = self.path.clone();
        if path.len() >= DEPTH {
            path.truncate(DEPTH);
            path[DEPTH - 1] = ANY.to_owned();
        } else if path.last().is_none_or(|last| last != ANY) {
            path.push(name);
        }
        Origin {
            of: self.of.clone(),
            path,
        }
    }
}

/// A name as origins tell it.
pub(super) fn text(read: &Read) -> String {
    match read {
        Read::Exact(name) => name.to_string(),
        Read::Any(name) => format!("*:{name}"),
    }
}

/// What a name as origins tell it reads.
pub(super) fn read(name: &str, plain: &Naming) -> Read {
    match name.strip_prefix("*:") {
        Some(name) => Read::Any(name.into()),
        None => plain.read(&name.into()),
    }
}

impl Flow {
    /// The value of an origin as it is.
    pub(super) fn of(of: Of, path: Vec<String>) -> Flow {
        Flow {
            taken: BTreeSet::from([Origin { of, path }]),
            ..Flow::default()
        }
    }

    pub(super) fn beside(what: Beside) -> Flow {
        Flow {
            beside: BTreeSet::from([what]),
            ..Flow::default()
        }
    }

    pub(super) fn dict(layout: Layout) -> Flow {
        Flow {
            fields: Some(Box::new(layout)),
            ..Flow::default()
        }
    }

    /// Either of the two, or both in a list.
    pub(super) fn or(mut self, other: Flow) -> Flow {
        self.taken.extend(other.taken);
        self.made.extend(other.made);
        self.when.extend(other.when);
        self.beside.extend(other.beside);
        self.fields = match (self.fields, other.fields) {
            (Some(one), Some(two)) => Some(Box::new(one.joined(*two))),
            (one, two) => one.or(two),
        };
        self
    }

    /// Everything that it is made of.
    pub fn origins(&self) -> BTreeSet<Origin> {
        let mut all: BTreeSet<Origin> = self.taken.union(&self.made).cloned().collect();
        if let Some(fields) = &self.fields {
            all.extend(fields.all().origins());
        }
        all
    }

    /// What a function computes from it.
    pub(super) fn computed(self) -> Flow {
        let inside = self.fields.as_ref().map(|fields| fields.all());
        let mut made = Flow {
            made: self.origins(),
            when: self.when,
            beside: self.beside,
            ..Flow::default()
        };
        if let Some(inside) = inside {
            made.when.extend(inside.when);
            made.beside.extend(inside.beside);
        }
        made
    }

    /// The same, where another value decides about it.
    pub(super) fn decided_by(mut self, other: Flow) -> Flow {
        self.when.extend(other.origins());
        self.when.extend(other.when);
        self.beside.extend(other.beside);
        self
    }

    /// What stands under a name in it.
    pub(super) fn follow(&self, read: &Read) -> Flow {
        let taken = self.taken.iter().map(|origin| origin.follow(read));
        let flow = Flow {
            taken: taken.collect(),
            made: self.made.clone(),
            when: self.when.clone(),
            beside: self.beside.clone(),
            fields: None,
        };
        match &self.fields {
            Some(fields) => flow.or(fields.find(read)),
            None => flow,
        }
    }

    /// What stands under a name in it that is not known.
    pub(super) fn anywhere(&self) -> Flow {
        let inside = self.fields.as_ref().map(|fields| fields.all());
        let mut flow = self.follow(&Read::Exact(ANY.into()));
        flow.fields = None;
        match inside {
            Some(inside) => flow.or(inside),
            None => flow,
        }
    }

    /// Whether nothing but the rules themselves says what it is.
    pub fn is_constant(&self) -> bool {
        self.origins().is_empty() && self.beside.is_empty()
    }

    /// Whether something of it cannot be told from the rules.
    pub fn is_unknown(&self) -> bool {
        self.beside.contains(&Beside::Unknown)
    }
}
