//! Where the properties of what rules make come from, found out without running them.
//!
//! The rules are walked once with values of which nothing is known but their origins. A value
//! taken as it is can be followed further ("`customer.name` of what a `hops` returned"); one that a
//! function computes has come from everything that the function looked at. Branches count as if all
//! of them were taken, and their conditions are told apart from what the value is made of. Names
//! and shapes that only an entity could tell are `*`: that is said, and never guessed.
//!
//! ```text
//! flow.rs   a value: its origins        layout.rs  an entity or dict: its properties
//! rules.rs  statements                  value.rs   expressions        join.rs  hops
//! ```

mod flow;
mod join;
mod layout;
mod rules;
mod value;

use serde_json::Value as Json;

pub use flow::{Beside, Flow, Of, Origin};
pub use layout::{Layout, Named, Others, Spelling};

use crate::Options;
use crate::namespace::Naming;

/// What stands for a name that is not known.
pub const ANY: &str = "*";

/// What rules make of entities of which `given` says where their properties come from. The rules
/// are such as [`compile`](crate::compile) takes; of others the answer is as good as they are.
pub fn lineage(rules: &Json, options: &Options, given: &Layout) -> Layout {
    let mut walk = rules::Walk::new(rules, options);
    let made = walk.default(given);
    match &options.trigger_on {
        // Other entities pass as they are.
        Some(_) => made.joined(given.clone()),
        None => made,
    }
}

impl Layout {
    /// The same behind `add_namespaces`.
    pub fn with_namespaces(&self, options: &Options) -> Layout {
        self.qualified(options.property())
    }

    /// The flow of a property, by the names on the way to it: what is in it of others' properties,
    /// where names were taken over as they are, is found, too.
    pub fn property(&self, path: &[String]) -> Flow {
        let plain = Naming::of(&Options::default());
        let mut names = path.iter().map(|name| flow::read(name, &plain));
        let Some(first) = names.next() else {
            return self.all();
        };
        names.fold(self.find(&first), |flow, name| flow.follow(&name))
    }

    /// The same in everything that the rules emit, the entities created beside it included.
    pub fn emitted(&self, path: &[String]) -> Flow {
        let plain = Naming::of(&Options::default());
        let mut all = self.property(path);
        for created in &self.created {
            let names = path.iter().map(|name| flow::read(name, &plain));
            all = all.or(names.fold(created.clone(), |flow, name| flow.follow(&name)));
        }
        all
    }

    /// Whether what the rules emit may have a property of this name.
    pub fn has(&self, name: &str) -> bool {
        let own = self.named.contains_key(name);
        let of = |flow: &Flow| {
            let loose = !flow.taken.is_empty() || !flow.made.is_empty();
            loose || flow.fields.as_ref().is_some_and(|fields| fields.has(name))
        };
        own || self.others.iter().any(|others| others.has(name)) || self.created.iter().any(of)
    }
}
