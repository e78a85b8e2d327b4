//! Nulls.

use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, of, one, optional, some};
use crate::eval::{Env, Machine, Stop};
use crate::expr::Expr;
use crate::values::{first, is_true, items};
use crate::weight::PARTS_A_STEP;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "coalesce",
        args: &[optional("FUNCTION", Kind::Function), VALUES],
        doc: "The first value that is not null, or the first one for which FUNCTION is true. Null \
              when there is none.",
        examples: &[
            of(
                r#"["coalesce", "_S.tags"]"#,
                r#"{"tags": [null, "a", "b"]}"#,
                r#""a""#,
            ),
            eg(
                r#"["coalesce", ["gt", "_.", 10], ["list", 5, 20, 30]]"#,
                "20",
            ),
            eg(r#"["coalesce", ["list", null, false, 0]]"#, "false"),
        ],
        call: Call::Form(coalesce),
    },
    Function {
        name: "coalesce-args",
        args: &[some("VALUES", Kind::Value)],
        doc: "The first argument that is not null; those after it are not evaluated.",
        examples: &[
            eg(r#"["coalesce-args", null, null, 123, 236]"#, "123"),
            eg(r#"["coalesce-args", null, ["list"], 123]"#, "[]"),
        ],
        call: Call::Form(coalesce_args),
    },
    Function {
        name: "if-null",
        args: &[one("VALUE", Kind::Value), one("FALLBACK", Kind::Value)],
        doc: "VALUE, or FALLBACK when VALUE is null in the sense of \"is-null\".",
        examples: &[
            eg(r#"["if-null", null, 2]"#, "2"),
            eg(r#"["if-null", ["list", null, 123], 2]"#, "2"),
            eg(r#"["if-null", ["list", 1, "12345"], 2]"#, r#"[1, "12345"]"#),
        ],
        call: Call::Form(if_null),
    },
    Function {
        name: "is-not-null",
        args: &[VALUES],
        doc: "False for null, an empty list, and a list whose first item is null; otherwise true.",
        examples: &[
            eg(r#"["is-not-null", ["list", null, 123]]"#, "false"),
            eg(r#"["is-not-null", 0]"#, "true"),
        ],
        call: Call::Test(|value| !value.is_null()),
    },
    Function {
        name: "is-null",
        args: &[VALUES],
        doc: "True for null, an empty list, and a list whose first item is null.",
        examples: &[
            eg(r#"["is-null", ["list"]]"#, "true"),
            eg(r#"["is-null", ["list", 1, null]]"#, "false"),
        ],
        call: Call::Test(Value::is_null),
    },
];

fn coalesce(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[1], env)?;
    m.step(items(&values).len() / PARTS_A_STEP)?;
    for item in items(&values) {
        let found = match &args[0] {
            Expr::Absent => !item.is_null(),
            function => {
                m.step(1)?;
                is_true(&m.eval(function, env.with(item))?)
            }
        };
        if found {
            return Ok(item.clone());
        }
    }
    Ok(Value::Null)
}

fn coalesce_args(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    for arg in args {
        let value = m.eval(arg, env)?;
        if !value.is_null() {
            return Ok(value);
        }
    }
    Ok(Value::Null)
}

fn if_null(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let value = m.eval(&args[0], env)?;
    if first(&value).is_null() {
        m.eval(&args[1], env)
    } else {
        Ok(value)
    }
}
