//! Boolean logic.

use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, optional, some};
use crate::eval::{Env, Machine, Stop};
use crate::expr::Expr;
use crate::values::{is_true, sequence};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "all",
        args: &[optional("FUNCTION", Kind::Function), VALUES],
        doc: "True when every value is true, or when FUNCTION is true for every value. An empty \
              list is true, null is false.",
        examples: &[
            eg(r#"["all", ["list", 1, 2, 3]]"#, "true"),
            eg(r#"["all", ["gt", "_.", 2], ["list", 4, 5, 6]]"#, "true"),
            eg(r#"["all", ["lt", "_.", 2], ["list", 1, 3, 5]]"#, "false"),
        ],
        call: Call::Form(all),
    },
    Function {
        name: "and",
        args: &[some("CONDITION", Kind::Boolean)],
        doc: "True when every condition is true; stops at the first one that is not.",
        examples: &[
            eg(r#"["and", ["gt", 3, 2], ["eq", "a", "a"]]"#, "true"),
            eg(r#"["and", true, null]"#, "false"),
        ],
        call: Call::Form(and),
    },
    Function {
        name: "any",
        args: &[optional("FUNCTION", Kind::Function), VALUES],
        doc: "True when at least one value is true, or when FUNCTION is true for at least one.",
        examples: &[
            eg(r#"["any", ["gt", "_.", 5], ["list", 4, 6, 8]]"#, "true"),
            eg(r#"["any", ["lt", "_.", 2], ["list", 6, 7, 8]]"#, "false"),
        ],
        call: Call::Form(any),
    },
    Function {
        name: "not",
        args: &[some("CONDITION", Kind::Boolean)],
        doc: "False when every condition is true, otherwise true: the inverse of \"and\".",
        examples: &[
            eg(r#"["not", ["eq", 1, 2]]"#, "true"),
            eg(r#"["not", true, false]"#, "true"),
            eg(r#"["not", 0]"#, "false"),
        ],
        call: Call::Form(not),
    },
    Function {
        name: "or",
        args: &[some("CONDITION", Kind::Boolean)],
        doc: "True when at least one condition is true; stops at the first one that is.",
        examples: &[
            eg(r#"["or", ["eq", 1, 2], ["eq", 2, 2]]"#, "true"),
            eg(r#"["or", null, ["list"]]"#, "false"),
        ],
        call: Call::Form(or),
    },
];

fn conjunction(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<bool, Stop> {
    for arg in args {
        if !m.truth(arg, env)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn and(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    conjunction(m, env, args).map(Value::Bool)
}

fn not(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    conjunction(m, env, args).map(|truth| Value::Bool(!truth))
}

fn or(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    for arg in args {
        if m.truth(arg, env)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// The first of the values whose truth is `wanted`.
fn has(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr], wanted: bool) -> Result<bool, Stop> {
    let values = m.eval(&args[1], env)?;
    let items = sequence(&values).unwrap_or(std::slice::from_ref(&values));
    for item in items {
        m.step(1)?;
        let truth = match &args[0] {
            Expr::Absent => is_true(item),
            function => m.truth(function, env.with(item))?,
        };
        if truth == wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn all(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    has(m, env, args, false).map(|found| Value::Bool(!found))
}

fn any(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    has(m, env, args, true).map(Value::Bool)
}
