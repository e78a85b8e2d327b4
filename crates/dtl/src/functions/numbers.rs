//! Numbers.

use num_bigint::BigInt;
use tahini_entity::Value;

use super::{Arg, Call, Function, Kind, VALUES, eg, optional};
use crate::expr::ItemResult;
use crate::number::{self, Number};

const CAST: &[Arg] = &[optional("FUNCTION", Kind::Default), VALUES];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "decimal",
        args: CAST,
        doc: "Casts numbers and strings to decimals, which are exact. Other values, and strings \
              that are no number, are replaced by FUNCTION, or ignored without it.",
        examples: &[
            eg(r#"["is-decimal", ["decimal", "1.0"]]"#, "true"),
            eg(
                r#"["decimal", ["string", "n/a"], ["list", "x"]]"#,
                r#"["n/a"]"#,
            ),
        ],
        call: Call::Cast(decimal),
    },
    Function {
        name: "float",
        args: CAST,
        doc: "Casts numbers and strings to floats (IEEE 754, 64 bits). Other values, and strings \
              that are no number, are replaced by FUNCTION, or ignored without it.",
        examples: &[
            eg(r#"["float", ["list", "1.0", "one", 2]]"#, "[1.0, 2.0]"),
            eg(r#"["float", ["boolean", false], "one"]"#, "false"),
        ],
        call: Call::Cast(float),
    },
    Function {
        name: "hex",
        args: &[VALUES],
        doc: "The two's complement of integers, in whole bytes, as hexadecimal text. Other values \
              are ignored.",
        examples: &[eg(
            r#"["hex", ["list", 1, 255, -1, "x"]]"#,
            r#"["0x01", "0x00ff", "0xff"]"#,
        )],
        call: Call::Each(hex),
    },
    Function {
        name: "integer",
        args: CAST,
        doc: "Casts to integers: numbers, cut toward zero, strings of digits, and \"0x\" text in \
              two's complement; a datetime gives its nanoseconds since 1970. Other values are \
              replaced by FUNCTION, or ignored without it.",
        examples: &[
            eg(
                r#"["integer", ["list", "1", "~rhttp://x.org/", 124.4]]"#,
                "[1, 124]",
            ),
            eg(
                r#"["integer", ["integer", 0], ["list", "1", "10^2"]]"#,
                "[1, 0]",
            ),
            eg(r#"["integer", ["list", "0x00ff", "0xff"]]"#, "[255, -1]"),
        ],
        call: Call::Cast(integer),
    },
    Function {
        name: "is-decimal",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a decimal.",
        examples: &[
            eg(r#"["is-decimal", 1.0]"#, "false"),
            eg(
                r#"["is-decimal", ["list", ["decimal", "-1.0"], 1]]"#,
                "true",
            ),
        ],
        call: Call::Test(|value| matches!(value, Value::Decimal(_))),
    },
    Function {
        name: "is-float",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a float.",
        examples: &[
            eg(r#"["is-float", 1.0]"#, "true"),
            eg(r#"["is-float", 1]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Float(_))),
    },
    Function {
        name: "is-integer",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is an integer.",
        examples: &[
            eg(r#"["is-integer", 123456789012345678901234567890]"#, "true"),
            eg(r#"["is-integer", ["list", "1", 2]]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Int(_) | Value::BigInt(_))),
    },
];

fn decimal(value: &Value) -> ItemResult {
    Ok(match value {
        Value::String(text) => number::parse_decimal(text).map(Value::decimal),
        other => Number::of(other)
            .and_then(|number| number.to_decimal())
            .map(Value::decimal),
    })
}

fn float(value: &Value) -> ItemResult {
    let number = match value {
        Value::String(text) => number::parse_float(text),
        other => Number::of(other).map(|number| number.to_f64()),
    };
    Ok(number.filter(|number| number.is_finite()).map(Value::float))
}

fn integer(value: &Value) -> ItemResult {
    Ok(match value {
        Value::String(text) => number::parse_integer(text)?,
        Value::Datetime(at) => Some(Value::integer(BigInt::from(at.as_nanosecond()))),
        other => match Number::of(other) {
            Some(number) => number::truncate(number)?,
            None => None,
        },
    })
}

fn hex(value: &Value) -> ItemResult {
    let number = Number::of(value).and_then(|number| number.to_big());
    Ok(number.map(|number| Value::string(number::to_hex(&number))))
}
