//! Lists in order: values of different types have one order among each other.

use std::cmp::Ordering;

use tahini_entity::{Value, order};

use super::{Arg, Call, Function, Kind, VALUES, eg, optional};
use crate::eval::{Env, Machine, Stop};
use crate::expr::Expr;
use crate::values::{Items, items, sequence};

const ARGS: &[Arg] = &[optional("FUNCTION", Kind::Function), VALUES];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "max",
        args: ARGS,
        doc: "The greatest value, or the one for which FUNCTION gives the greatest; the first one \
              of equals.",
        examples: &[
            eg(r#"["max", ["list", "b", 2, "a", 3]]"#, r#""b""#),
            eg(
                r#"["max", "_.n", ["list", {"n": 1}, {"n": 7}]]"#,
                r#"{"n": 7}"#,
            ),
        ],
        call: Call::Form(|m, env, args| extreme(m, env, args, Ordering::Greater)),
    },
    Function {
        name: "min",
        args: ARGS,
        doc: "The least value, or the one for which FUNCTION gives the least; the first one of \
              equals.",
        examples: &[
            eg(r#"["min", ["list", 4, 2, 5, 3]]"#, "2"),
            eg(r#"["min", ["list", {"x": 1}, "b", "a"]]"#, r#""a""#),
        ],
        call: Call::Form(|m, env, args| extreme(m, env, args, Ordering::Less)),
    },
    Function {
        name: "sorted",
        args: ARGS,
        doc: "The values in ascending order, or in that of what FUNCTION gives for them; equals \
              keep their order.",
        examples: &[
            eg(
                r#"["sorted", ["list", "b", 2, {"x": 1}, "a", 4]]"#,
                r#"[2, 4, "a", "b", {"x": 1}]"#,
            ),
            eg(
                r#"["sorted", "_.age", ["list", {"age": 30}, {"age": 20}]]"#,
                r#"[{"age": 20}, {"age": 30}]"#,
            ),
        ],
        call: Call::Form(|m, env, args| sorted(m, env, args, false)),
    },
    Function {
        name: "sorted-descending",
        args: ARGS,
        doc: "The values in descending order, or in that of what FUNCTION gives for them; equals \
              keep their order.",
        examples: &[eg(
            r#"["sorted-descending", ["list", 4, 2, 5, 4, 3]]"#,
            "[5, 4, 4, 3, 2]",
        )],
        call: Call::Form(|m, env, args| sorted(m, env, args, true)),
    },
];

/// What the values are ordered by, one key for each; `None` when they are their own keys.
fn keys(
    m: &mut Machine<'_>,
    env: Env<'_>,
    function: &Expr,
    values: &[Value],
) -> Result<Option<Vec<Value>>, Stop> {
    m.step(values.len())?;
    let mut keys = Vec::new();
    if !function.is_absent() {
        keys.reserve_exact(values.len());
        for value in values {
            keys.push(m.eval(function, env.with(value))?);
        }
    }
    // Sorting looks at each key as often as the number of keys can be halved.
    let times = values.len().max(2).ilog2() as usize;
    let compared = if function.is_absent() { values } else { &keys };
    for key in compared {
        for _ in 0..times {
            m.weigh(key)?;
        }
    }
    Ok((!function.is_absent()).then_some(keys))
}

fn extreme(
    m: &mut Machine<'_>,
    env: Env<'_>,
    args: &[Expr],
    wanted: Ordering,
) -> Result<Value, Stop> {
    let all = m.eval(&args[1], env)?;
    let all = items(&all);
    let keys = keys(m, env, &args[0], all)?;
    let keys = keys.as_deref().unwrap_or(all);
    let mut best = 0;
    for at in 1..all.len() {
        if order::compare(&keys[at], &keys[best]) == wanted {
            best = at;
        }
    }
    Ok(all.get(best).cloned().unwrap_or_default())
}

fn sorted(
    m: &mut Machine<'_>,
    env: Env<'_>,
    args: &[Expr],
    descending: bool,
) -> Result<Value, Stop> {
    let all = m.eval(&args[1], env)?;
    let Some(values) = sequence(&all) else {
        return Ok(all);
    };
    let keys = keys(m, env, &args[0], values)?;
    let keys = keys.as_deref().unwrap_or(values);
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&a, &b| match descending {
        true => order::compare(&keys[b], &keys[a]),
        false => order::compare(&keys[a], &keys[b]),
    });
    let sorted: Items = places.into_iter().map(|at| values[at].clone()).collect();
    m.charge(Value::List(sorted))
}
