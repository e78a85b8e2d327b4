//! Comparisons.

use std::cmp::Ordering;

use tahini_entity::{Value, order};

use super::{Arg, Call, Function, Kind, eg, of, one};
use crate::expr::Cost;
use crate::limits::Limit;
use crate::values::{equal, first};

const BOTH: &[Arg] = &[one("VALUE1", Kind::Value), one("VALUE2", Kind::Value)];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "eq",
        args: BOTH,
        doc: "True when both are equal. A single value equals a list of just that value; lists are \
              equal when their items are, in order; numbers compare by value whatever their type; \
              null equals null only. Between two datasets of a \"hops\" it is a join, which holds \
              when the sides share a value.",
        examples: &[
            of(r#"["eq", "_S.age", 42]"#, r#"{"age": 42}"#, "true"),
            of(
                r#"["eq", "_S.h", ["list", "a", "b"]]"#,
                r#"{"h": ["b", "a"]}"#,
                "false",
            ),
            eg(r#"["eq", "a", ["list", "a"]]"#, "true"),
            eg(r#"["eq", null, ["list"]]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| {
            Ok(Value::Bool(equal(&args[0], &args[1])))
        }),
    },
    Function {
        name: "gt",
        args: BOTH,
        doc: "True when the first value of VALUE1 is greater than that of VALUE2. Values of \
              different kinds, and nulls, are never greater or less.",
        examples: &[
            of(r#"["gt", "_S.age", 42]"#, r#"{"age": 43}"#, "true"),
            of(r#"["gt", "_S.age", 42]"#, "{}", "false"),
            eg(r#"["gt", "b", 1]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| compare(args, Ordering::is_gt)),
    },
    Function {
        name: "gte",
        args: BOTH,
        doc: "True when the first value of VALUE1 is greater than or equal to that of VALUE2.",
        examples: &[
            eg(r#"["gte", 42, 42.0]"#, "true"),
            eg(r#"["gte", ["list", 1, 9], 2]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| compare(args, Ordering::is_ge)),
    },
    Function {
        name: "lt",
        args: BOTH,
        doc: "True when the first value of VALUE1 is less than that of VALUE2.",
        examples: &[
            eg(
                r#"["lt", "~t2015-01-01", "~t2015-01-01T00:00:01Z"]"#,
                "true",
            ),
            eg(r#"["lt", null, 2]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| compare(args, Ordering::is_lt)),
    },
    Function {
        name: "lte",
        args: BOTH,
        doc: "True when the first value of VALUE1 is less than or equal to that of VALUE2.",
        examples: &[
            eg(r#"["lte", "a", "a"]"#, "true"),
            eg(r#"["lte", 3, 2]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| compare(args, Ordering::is_le)),
    },
    Function {
        name: "neq",
        args: BOTH,
        doc: "True when both are not equal: the inverse of \"eq\".",
        examples: &[
            of(r#"["neq", "_S.age", 42]"#, "{}", "true"),
            eg(r#"["neq", 1, 1.0]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, |args| {
            Ok(Value::Bool(!equal(&args[0], &args[1])))
        }),
    },
];

fn compare(args: &[Value], holds: fn(Ordering) -> bool) -> Result<Value, Limit> {
    Ok(Value::Bool(match (first(&args[0]), first(&args[1])) {
        (Value::Int(a), Value::Int(b)) => holds(a.cmp(b)),
        (a, b) => match (kind(a), kind(b)) {
            (Some(one), Some(other)) => one == other && holds(order::compare(a, b)),
            _ => false,
        },
    }))
}

/// Kinds that have an order among each other.
fn kind(value: &Value) -> Option<u8> {
    Some(match value {
        Value::Null | Value::List(_) | Value::Tuple(_) | Value::Dict(_) => return None,
        Value::Bool(_) => 0,
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Decimal(_) => 1,
        Value::Date(_) | Value::Datetime(_) => 2,
        Value::Uuid(_) => 3,
        Value::Ni(_) => 4,
        Value::Uri(_) => 5,
        Value::String(_) => 6,
        Value::Bytes(_) => 7,
    })
}
