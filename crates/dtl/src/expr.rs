//! The compiled form of rules: a compact tree, names resolved, literals decoded.

use std::sync::Arc;

use tahini_entity::{Str, Value};

use crate::eval::{Env, Machine, Stop};
use crate::hops::{Hops, Lookups};
use crate::limits::Limit;
use crate::namespace::{Adding, NamePattern};
use crate::path::Path;

/// What one item gives: `None` when the function ignores it.
pub(crate) type ItemResult = Result<Option<Value>, Limit>;
/// A function over single items.
pub(crate) type ItemFn = fn(&Value) -> ItemResult;
/// A function over single items whose other arguments are known.
pub(crate) type Item = Arc<dyn Fn(&Value) -> ItemResult + Send + Sync>;
/// Makes an item function from the arguments before the last one; an error says in words which
/// of them is wrong, and makes the call null when it is found at run time.
pub(crate) type Prepare = fn(&[Value]) -> Result<Item, String>;
/// A function over all its evaluated arguments; a missing one is `Value::Null`.
pub(crate) type EagerFn = fn(&[Value]) -> Result<Value, Limit>;
/// A function that decides itself what to evaluate; a missing argument is `Expr::Absent`.
pub(crate) type FormFn = fn(&mut Machine<'_>, Env<'_>, &[Expr]) -> Result<Value, Stop>;

/// What a function over all its arguments costs beside its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Nothing that grows with the arguments.
    Flat,
    /// It goes over the items of its arguments once.
    Items,
    /// It looks through its arguments: what is in them at every depth, texts and digits.
    Through,
    /// It goes over items, and the items of its result are new.
    Made,
}

/// An expression.
pub(crate) enum Expr {
    /// An optional argument that was not given; it evaluates to null.
    Absent,
    Const(Value),
    Path(Path),
    Each(ItemFn, Box<Expr>),
    /// The prepared function when its arguments are constants.
    With(Prepare, Option<Item>, Box<[Expr]>),
    /// A cast with an optional expression for what it does not accept.
    Cast(ItemFn, Box<Expr>, Box<Expr>),
    /// A test of the first value.
    Test(fn(&Value) -> bool, Box<Expr>),
    Eager(EagerFn, Cost, Box<[Expr]>),
    Form(FormFn, Box<[Expr]>),
    Apply(u32, Box<Expr>),
    /// The `path` function with constant names, or with an expression for them.
    Follow(Box<[crate::namespace::Read]>, Box<Expr>),
    FollowDynamic(Box<Expr>, Box<Expr>),
    ApplyNs(Box<Adding>, Box<Expr>),
    /// `is-changed`, with the expression over the current and the previous version.
    IsChanged(Box<Expr>),
    Now,
    NewUuid,
    Hops(Box<Hops>),
    ApplyHops(u32, Box<Hops>),
    Lookup(Box<Lookups>),
    /// `ni` of URIs, `ni-collapse` or `ni-expand`: needs the pipe's namespaces.
    Collapse(Prefixed, Box<Expr>),
    /// In programs that explain themselves: the place of the path, and the expression.
    Traced(u32, Box<Expr>),
}

/// What becomes of a URI prefix or a namespace that stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefixed {
    /// `ni`.
    Identifier,
    /// `ni-collapse`.
    Collapsed,
    /// `ni-expand`.
    Expanded,
}

/// The name of a property that a statement writes.
pub(crate) enum Name {
    /// Resolved when it was compiled.
    Known(Str),
    /// A string or a list of strings.
    Dynamic(Expr),
}

/// One statement of a rule.
pub(crate) struct Statement {
    /// Its place in the program's table of paths.
    pub(crate) at: u32,
    pub(crate) action: Action,
}

/// Statements in order.
pub(crate) type Block = Box<[Statement]>;

/// What a statement does.
pub(crate) enum Action {
    Add(Name, Expr),
    AddIf {
        name: Name,
        condition: Option<Expr>,
        value: Expr,
    },
    Default(Name, Expr),
    Copy(Copying),
    Remove(Box<[NamePattern]>),
    Rename {
        from: NameArg,
        to: NameArg,
    },
    MakeNi {
        namespace: Expr,
        from: NameArg,
        to: Option<NameArg>,
    },
    Merge(Expr),
    MergeUnion(Expr),
    If {
        condition: Expr,
        then: Block,
        otherwise: Block,
    },
    Case {
        arms: Box<[(Expr, Block)]>,
        otherwise: Block,
    },
    CaseEq {
        value: Expr,
        arms: Box<[(Expr, Block)]>,
        otherwise: Block,
    },
    Create(Expr),
    CreateChild(Expr),
    Filter(Option<Expr>),
    Discard(Option<Expr>),
    Fail(Expr),
    Trip(Expr),
    Sleep(Expr),
    Nothing,
    /// In programs that explain themselves.
    Traced(Box<Action>),
}

/// A property's name as it is written in the rules, before namespaces.
pub(crate) enum NameArg {
    Known(Str),
    Dynamic(Expr),
}

/// What `copy` copies.
pub(crate) struct Copying {
    pub(crate) include: Box<[NamePattern]>,
    pub(crate) exclude: Box<[NamePattern]>,
    /// The place of its cache: which places of a shape match.
    pub(crate) slot: u32,
}

impl Copying {
    /// Whether a property is copied.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.include.iter().any(|pattern| pattern.matches(name))
            && !self.exclude.iter().any(|pattern| pattern.matches(name))
    }
}

impl Expr {
    /// Whether an optional argument was left out.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Expr::Absent)
    }

    /// The value of a literal.
    pub(crate) fn constant(&self) -> Option<&Value> {
        match self {
            Expr::Const(value) => Some(value),
            _ => None,
        }
    }
}
