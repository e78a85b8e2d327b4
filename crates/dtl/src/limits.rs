//! How far one evaluation may go. Every limit is an error that names it, never a crash.

use crate::error::EvalClass;
use crate::eval::Stop;

/// How deep expressions may nest in rules, lists and objects counted.
pub const MAX_NESTING: usize = 128;
/// How many errors, and how many warnings, a compilation tells; with more errors it ends.
pub const MAX_PROBLEMS: usize = 1_000;
/// How deep an evaluation may go, applied rules included.
pub const MAX_DEPTH: u32 = 600;
/// How many steps one source entity may take: expressions, list items, and what looking through
/// large values takes.
pub const MAX_STEPS: u64 = 5_000_000;
/// How many items `range`, `tuples` and the like may make.
pub const MAX_LIST: usize = 1_000_000;
/// How many bytes the names may have in all that one `replace` looks for.
pub const MAX_REPLACED: usize = 1024 * 1024;
/// How many names one `replace` looks for at most; preparing that takes the square of their number.
pub const MAX_REPLACED_NAMES: usize = 10_000;
/// How many bytes one string may have.
pub const MAX_STRING: usize = 32 * 1024 * 1024;
/// How many bytes of texts, lists and dicts one source entity's evaluation may make in all, the
/// entities that it creates among them.
pub const MAX_WORK: usize = 64 * 1024 * 1024;
/// How many bytes one emitted entity may have.
pub const MAX_ENTITY: usize = 100 * 1024 * 1024;
/// How many digits an integer may have: what is made can be read again.
pub const MAX_INTEGER_DIGITS: u64 = tahini_entity::json::MAX_DIGITS as u64;
/// How many digits a decimal may have on either side of the point.
pub const MAX_DECIMAL_DIGITS: u64 = 10_000;
/// How many entities one source entity may `create`.
pub const MAX_CREATED: usize = 1_000_000;
/// How often a batch asks for what it missed.
pub const MAX_LOOKUP_ROUNDS: usize = 1_000;
/// How many datasets one spec of a `hops` may join.
pub const MAX_HOPS_DATASETS: usize = 100;
/// How many rows a `hops` may hold at any time.
pub const MAX_HOPS_ROWS: usize = 1_000_000;

/// A limit was reached: what it is and how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub &'static str, pub u64);

impl From<Limit> for Stop {
    fn from(Limit(what, most): Limit) -> Stop {
        Stop::error(
            EvalClass::Limit,
            format!("expected at most {most} {what}, found more"),
        )
    }
}

/// Checks the length of a string that is about to be made.
pub(crate) fn string(len: usize) -> Result<(), Limit> {
    if len > MAX_STRING {
        Err(Limit("bytes in one string", MAX_STRING as u64))
    } else {
        Ok(())
    }
}

/// Checks the length of a list that is about to be made.
pub(crate) fn list(len: usize) -> Result<(), Limit> {
    if len > MAX_LIST {
        Err(Limit("items in one list", MAX_LIST as u64))
    } else {
        Ok(())
    }
}
