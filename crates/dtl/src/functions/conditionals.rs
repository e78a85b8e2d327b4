//! Conditionals.

use tahini_entity::Value;

use super::{Call, Function, Kind, eg, of, one, optional, pair_end, pairs};
use crate::eval::{Env, Machine, Stop};
use crate::expr::Expr;
use crate::values::equal;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "case",
        args: &[
            pairs("CONDITION", Kind::Boolean),
            pair_end("THEN", Kind::Value),
            optional("ELSE", Kind::Value),
        ],
        doc: "The THEN of the first condition that is true; otherwise ELSE, or null without it.",
        examples: &[
            of(
                r#"["case", ["gte", "_S.age", 18], "adult", ["gte", "_S.age", 13], "teenager", "child"]"#,
                r#"{"age": 15}"#,
                r#""teenager""#,
            ),
            eg(r#"["case", false, 1]"#, "null"),
        ],
        call: Call::Form(case),
    },
    Function {
        name: "case-eq",
        args: &[
            one("VALUE", Kind::Value),
            pairs("VALUE_N", Kind::Value),
            pair_end("THEN", Kind::Value),
            optional("ELSE", Kind::Value),
        ],
        doc: "The THEN of the first VALUE_N that equals VALUE; otherwise ELSE, or null without it.",
        examples: &[
            of(
                r#"["case-eq", "_S.c", "NO", "Norway", "SE", "Sweden", "Other"]"#,
                r#"{"c": "SE"}"#,
                r#""Sweden""#,
            ),
            eg(r#"["case-eq", 1, 45, "DK", 46, "SE"]"#, "null"),
        ],
        call: Call::Form(case_eq),
    },
    Function {
        name: "if",
        args: &[
            one("CONDITION", Kind::Boolean),
            one("THEN", Kind::Value),
            optional("ELSE", Kind::Value),
        ],
        doc: "THEN when the condition is true; otherwise ELSE, or null without it.",
        examples: &[
            of(
                r#"["if", ["gt", "_S.age", 42], 1, 2]"#,
                r#"{"age": 43}"#,
                "1",
            ),
            eg(r#"["if", false, 1]"#, "null"),
        ],
        call: Call::Form(choose),
    },
];

fn choose(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let chosen = if m.truth(&args[0], env)? {
        &args[1]
    } else {
        &args[2]
    };
    m.eval(chosen, env)
}

fn case(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let (otherwise, arms) = args.split_last().expect("ELSE always has its place");
    for arm in arms.chunks_exact(2) {
        if m.truth(&arm[0], env)? {
            return m.eval(&arm[1], env);
        }
    }
    m.eval(otherwise, env)
}

fn case_eq(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let value = m.eval(&args[0], env)?;
    let (otherwise, arms) = args[1..].split_last().expect("ELSE always has its place");
    for arm in arms.chunks_exact(2) {
        let other = m.eval(&arm[0], env)?;
        m.weigh(&other)?;
        if equal(&value, &other) {
            return m.eval(&arm[1], env);
        }
    }
    m.eval(otherwise, env)
}
