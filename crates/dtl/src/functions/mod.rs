//! The table of the language's functions: a chapter a file, a row a function.
//!
//! The compiler's checks, the printed manual and the first tests all read these rows.

mod boolean_logic;
mod booleans;
mod bytes;
mod comparisons;
mod conditionals;
mod dates;
mod dictionaries;
mod encryption;
mod hops;
mod json;
mod lists;
mod math;
mod misc;
mod namespaced_identifiers;
mod nulls;
mod numbers;
mod openpgp;
mod ordering;
mod phonenumbers;
mod public_keys;
mod sets;
mod strings;
mod time;
mod transforms;
mod uris;
mod uuids;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::compile::{Compiler, Given};
use tahini_entity::Value;

use crate::expr::{Action, Cost, EagerFn, Expr, FormFn, ItemFn, Prepare};

/// A chapter of the table.
#[derive(Debug)]
pub struct Chapter {
    /// Its title.
    pub title: &'static str,
    /// Its functions, in the order of their names.
    pub functions: &'static [Function],
}

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// Its name, as it stands first in a call.
    pub name: &'static str,
    /// Its parameters.
    pub args: &'static [Arg],
    /// What it does.
    pub doc: &'static str,
    /// Calls and what they give.
    pub examples: &'static [Example],
    pub(crate) call: Call,
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its name in the manual.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// How often.
    pub many: Many,
    /// Whether a secret of the node may stand there: a key or passphrase, and what is encrypted.
    pub secret: bool,
    /// What is wrong with a literal that is of the right kind and can never work.
    pub(crate) wrong: Option<fn(&Value) -> Option<String>>,
}

/// What may stand in the place of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An expression that gives null, a value or a list of values.
    Value,
    /// An expression whose truth counts.
    Boolean,
    /// An expression that gives an integer.
    Integer,
    /// An expression that gives a number.
    Number,
    /// A string, or an expression that gives one.
    String,
    /// An expression evaluated for each value, which it sees as `_`.
    Function,
    /// An expression for what the function does not accept, which it sees as `_`.
    Default,
    /// The name of a part of a datetime, or an expression that gives one.
    DatePart,
    /// The name of a property, or an expression that gives one or several.
    Property,
    /// Names or patterns of properties, constant.
    Patterns,
    /// A transform function or a list of them.
    Transforms,
    /// The name of a rule.
    Rule,
    /// A specification of joins.
    Hops,
    /// Any JSON, not evaluated.
    Literal,
}

/// How often a parameter occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// Exactly once.
    One,
    /// Once or not at all.
    Optional,
    /// Any number of times.
    Any,
    /// At least once.
    Some,
    /// In pairs with the next parameter, at least one pair.
    Pairs,
    /// The second one of a pair.
    PairEnd,
}

/// A call and what it gives.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// The call, as JSON.
    pub call: &'static str,
    /// The source entity's properties, as JSON; `{}` when the call does not look at it.
    pub source: &'static str,
    /// What comes of it, as JSON, or the words of an error.
    pub result: &'static str,
    /// What `result` is.
    pub gives: Gives,
    /// What the call needs beside it, as JSON: `rules` by name and entities of `datasets` by name.
    pub beside: &'static str,
}

/// What the result of an example is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// The value, or for transform functions the target's properties.
    Value,
    /// All emitted entities in order, with their `_id`; the source entity's is "1".
    Entities,
    /// An error: `result` is what it says.
    Error,
}

/// The time at which examples are evaluated: `now`.
pub const EXAMPLE_NOW: &str = "2024-02-29T12:30:00.5Z";

/// The shape of a function's implementation.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    /// Over the values one by one; lifted over lists.
    Each(ItemFn),
    /// The same, made from the arguments before the values.
    With(Prepare),
    /// The same, with an optional expression for what it does not accept.
    Cast(ItemFn),
    /// True or false of the first value.
    Test(fn(&tahini_entity::Value) -> bool),
    /// Over all evaluated arguments, at no cost that grows with them.
    Eager(EagerFn),
    /// Over all evaluated arguments, at this cost.
    Costly(Cost, EagerFn),
    /// Decides itself what to evaluate.
    Form(FormFn),
    /// Decides itself how to compile.
    Special(fn(&mut Compiler<'_>, &Given<'_>) -> Expr),
    /// Changes the target.
    Statement(fn(&mut Compiler<'_>, &Given<'_>) -> Action),
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Call::Each(_) => "Each",
            Call::With(_) => "With",
            Call::Cast(_) => "Cast",
            Call::Test(_) => "Test",
            Call::Eager(_) => "Eager",
            Call::Costly(..) => "Costly",
            Call::Form(_) => "Form",
            Call::Special(_) => "Special",
            Call::Statement(_) => "Statement",
        })
    }
}

impl Kind {
    /// Whether an ordinary expression may stand there.
    pub(crate) fn is_value(self) -> bool {
        use Kind::{Boolean, DatePart, Default, Function, Integer, Number, String, Value};
        matches!(
            self,
            Value | Boolean | DatePart | Integer | Number | String | Function | Default
        )
    }
}

/// A parameter that occurs once.
const fn one(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::One,
        secret: false,
        wrong: None,
    }
}

/// A parameter whose literals are checked.
const fn checked(arg: Arg, wrong: fn(&Value) -> Option<String>) -> Arg {
    Arg {
        wrong: Some(wrong),
        ..arg
    }
}

/// What a step must not be.
fn zero(value: &Value) -> Option<String> {
    matches!(value, Value::Int(0)).then(|| "expected a step other than 0, found 0".to_owned())
}

/// A key or passphrase.
const fn key(name: &'static str) -> Arg {
    Arg {
        secret: true,
        ..one(name, Kind::String)
    }
}

/// A parameter that may be left out.
const fn optional(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::Optional,
        secret: false,
        wrong: None,
    }
}

/// A parameter that occurs any number of times.
const fn any(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::Any,
        secret: false,
        wrong: None,
    }
}

/// A parameter that occurs at least once.
const fn some(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::Some,
        secret: false,
        wrong: None,
    }
}

/// The first parameter of pairs.
const fn pairs(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::Pairs,
        secret: false,
        wrong: None,
    }
}

/// The second parameter of pairs.
const fn pair_end(name: &'static str, kind: Kind) -> Arg {
    Arg {
        name,
        kind,
        many: Many::PairEnd,
        secret: false,
        wrong: None,
    }
}

/// The usual last parameter.
const VALUES: Arg = one("VALUES", Kind::Value);

/// Values that nobody reads from the result: they may be secrets.
const ENCRYPTED: Arg = Arg {
    secret: true,
    ..VALUES
};

/// A call that does not look at the source entity.
const fn eg(call: &'static str, result: &'static str) -> Example {
    of(call, "{}", result)
}

/// A call that looks at the source entity.
const fn of(call: &'static str, source: &'static str, result: &'static str) -> Example {
    Example {
        call,
        source,
        result,
        gives: Gives::Value,
        beside: "{}",
    }
}

/// A call that emits other entities beside the target.
const fn emits(call: &'static str, source: &'static str, result: &'static str) -> Example {
    Example {
        gives: Gives::Entities,
        ..of(call, source, result)
    }
}

/// A call that fails with these words.
const fn fails(call: &'static str, source: &'static str, words: &'static str) -> Example {
    Example {
        gives: Gives::Error,
        ..of(call, source, words)
    }
}

/// The same example with other rules or datasets beside it.
const fn beside(example: Example, beside: &'static str) -> Example {
    Example { beside, ..example }
}

/// The transform functions: they change the target and give no value.
pub const TRANSFORMS: &[Chapter] = &[Chapter {
    title: "Transform functions",
    functions: transforms::FUNCTIONS,
}];

/// The functions that give a value.
pub const EXPRESSIONS: &[Chapter] = &[
    Chapter {
        title: "Boolean logic",
        functions: boolean_logic::FUNCTIONS,
    },
    Chapter {
        title: "Booleans",
        functions: booleans::FUNCTIONS,
    },
    Chapter {
        title: "Bytes",
        functions: bytes::FUNCTIONS,
    },
    Chapter {
        title: "Comparisons",
        functions: comparisons::FUNCTIONS,
    },
    Chapter {
        title: "Conditionals",
        functions: conditionals::FUNCTIONS,
    },
    Chapter {
        title: "Date and time",
        functions: dates::FUNCTIONS,
    },
    Chapter {
        title: "Dictionaries",
        functions: dictionaries::FUNCTIONS,
    },
    Chapter {
        title: "Encryption",
        functions: encryption::FUNCTIONS,
    },
    Chapter {
        title: "Encryption: pairs of keys",
        functions: public_keys::FUNCTIONS,
    },
    Chapter {
        title: "Hops",
        functions: hops::FUNCTIONS,
    },
    Chapter {
        title: "JSON",
        functions: json::FUNCTIONS,
    },
    Chapter {
        title: "Lists",
        functions: lists::FUNCTIONS,
    },
    Chapter {
        title: "Lists: order",
        functions: ordering::FUNCTIONS,
    },
    Chapter {
        title: "Math",
        functions: math::FUNCTIONS,
    },
    Chapter {
        title: "Miscellaneous",
        functions: misc::FUNCTIONS,
    },
    Chapter {
        title: "Namespaced identifiers",
        functions: namespaced_identifiers::FUNCTIONS,
    },
    Chapter {
        title: "Nulls",
        functions: nulls::FUNCTIONS,
    },
    Chapter {
        title: "Numbers",
        functions: numbers::FUNCTIONS,
    },
    Chapter {
        title: "Phone numbers",
        functions: phonenumbers::FUNCTIONS,
    },
    Chapter {
        title: "Sets",
        functions: sets::FUNCTIONS,
    },
    Chapter {
        title: "Strings",
        functions: strings::FUNCTIONS,
    },
    Chapter {
        title: "URIs",
        functions: uris::FUNCTIONS,
    },
    Chapter {
        title: "UUIDs",
        functions: uuids::FUNCTIONS,
    },
];

type Names = HashMap<&'static str, &'static Function>;

static EXPRESSION_NAMES: LazyLock<Names> = LazyLock::new(|| names(EXPRESSIONS));
static TRANSFORM_NAMES: LazyLock<Names> = LazyLock::new(|| names(TRANSFORMS));

fn names(chapters: &'static [Chapter]) -> Names {
    let functions = chapters.iter().flat_map(|chapter| chapter.functions);
    functions
        .map(|function| (function.name, function))
        .collect()
}

/// The function of that name that gives a value.
pub fn expression(name: &str) -> Option<&'static Function> {
    EXPRESSION_NAMES.get(name).copied()
}

/// The transform function of that name.
pub fn transform(name: &str) -> Option<&'static Function> {
    TRANSFORM_NAMES.get(name).copied()
}

/// The names of the functions that give a value.
pub(crate) fn expression_names() -> impl Iterator<Item = &'static str> {
    EXPRESSION_NAMES.keys().copied()
}

/// The names of the transform functions.
pub(crate) fn transform_names() -> impl Iterator<Item = &'static str> {
    TRANSFORM_NAMES.keys().copied()
}

/// Help for functions that the language had once.
pub(crate) fn retired(name: &str) -> Option<&'static str> {
    Some(match name {
        "lookup" => "it is retired; write [\"lookup-entity\", DATASET_ID, ENTITY_ID]",
        "reference" => "it is retired; write [\"ni\", … ]",
        _ => return None,
    })
}

/// The parameters of a function as the manual prints them: `SEPARATOR?, VALUES`.
pub fn signature(function: &Function) -> String {
    let mut parts = Vec::new();
    for arg in function.args {
        parts.push(match arg.many {
            Many::One | Many::Pairs => arg.name.to_owned(),
            Many::Optional => format!("{}?", arg.name),
            Many::Any => format!("{} …", arg.name),
            Many::Some | Many::PairEnd => format!("{}, …", arg.name),
        });
    }
    parts.join(", ")
}

/// The names of the parts of a datetime.
pub(crate) fn date_parts() -> impl Iterator<Item = &'static str> {
    time::PARTS.into_iter()
}
