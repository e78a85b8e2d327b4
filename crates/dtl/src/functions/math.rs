//! Math.
//!
//! The words (\"plus\", \"minus\" …) take the number to calculate with first and go over values;
//! the symbols take two single numbers in their usual order.

use std::sync::Arc;

use bigdecimal::RoundingMode;
use tahini_entity::Value;

use super::{Arg, Call, Function, Kind, VALUES, eg, one, optional};
use crate::expr::{Cost, Item, ItemResult};
use crate::limits::Limit;
use crate::number::{self, Number};
use crate::values::first;

/// Of a division the dividend is to be a number; the other symbols take any value, as documented.
const DIVISION: &[Arg] = &[one("VALUE1", Kind::Number), one("VALUE2", Kind::Value)];
const TWO: &[Arg] = &[one("VALUE1", Kind::Value), one("VALUE2", Kind::Value)];
const DIGITS: &[Arg] = &[optional("DIGITS", Kind::Integer), VALUES];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "%",
        args: DIVISION,
        doc: "The remainder of VALUE1 / VALUE2, with the sign of VALUE2; null when it is 0. Of \
              lists the first values count.",
        examples: &[
            eg(r#"["%", 5, 3]"#, "2"),
            eg(r#"["%", ["list", 5, 8], ["list", 3, -2]]"#, "2"),
        ],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::remainder)),
    },
    Function {
        name: "*",
        args: TWO,
        doc: "VALUE1 * VALUE2. Of lists the first values count.",
        examples: &[
            eg(r#"["*", 2, ["list", 2, 4, 6]]"#, "4"),
            eg(r#"["*", null, 2]"#, "null"),
        ],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::multiply)),
    },
    Function {
        name: "+",
        args: TWO,
        doc: "VALUE1 + VALUE2. Of lists the first values count.",
        examples: &[
            eg(r#"["+", 10, 3]"#, "13"),
            eg(r#"["+", 9223372036854775807, 1]"#, "9223372036854775808"),
        ],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::add)),
    },
    Function {
        name: "-",
        args: TWO,
        doc: "VALUE1 - VALUE2. Of lists the first values count.",
        examples: &[eg(r#"["-", 10, 12]"#, "-2")],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::subtract)),
    },
    Function {
        name: "/",
        args: DIVISION,
        doc: "VALUE1 / VALUE2, a decimal when both are integers; null when VALUE2 is 0. Of lists \
              the first values count.",
        examples: &[eg(r#"["/", 5, 0]"#, "null"), eg(r#"["/", 5.0, 2]"#, "2.5")],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::divide)),
    },
    Function {
        name: "^",
        args: TWO,
        doc: "VALUE1 to the power of VALUE2. Of lists the first values count.",
        examples: &[
            eg(r#"["^", 5, 2]"#, "25"),
            eg(r#"["^", ["list", 2, 8], 3]"#, "8"),
        ],
        call: Call::Costly(Cost::Through, |args| symbol(args, number::power)),
    },
    Function {
        name: "abs",
        args: &[VALUES],
        doc: "The absolute value of each number, of the same type.",
        examples: &[eg(
            r#"["abs", ["list", -2, 4, "x", -2.23]]"#,
            "[2, 4, 2.23]",
        )],
        call: Call::Each(|value| Ok(Number::of(value).map(number::absolute))),
    },
    Function {
        name: "ceil",
        args: DIGITS,
        doc: "The least number not below each number: an integer, or with DIGITS after the point.",
        examples: &[
            eg(r#"["ceil", ["list", 2.2, 4.778, 6]]"#, "[3, 5, 6]"),
            eg(r#"["ceil", 2, 2.299]"#, "2.3"),
        ],
        call: Call::With(|args| rounding(args, RoundingMode::Ceiling)),
    },
    Function {
        name: "cos",
        args: &[VALUES],
        doc: "The cosine of each number, in radians.",
        examples: &[eg(r#"["cos", 0]"#, "1.0")],
        call: Call::Each(|value| real(value, f64::cos)),
    },
    Function {
        name: "divide",
        args: &[one("DIVISOR", Kind::Number), one("DIVIDENDS", Kind::Value)],
        doc: "Each number divided by DIVISOR, a decimal when both are integers; null when DIVISOR \
              is 0. Of a list of divisors the first counts.",
        examples: &[
            eg(r#"["divide", 10, 20.0]"#, "2.0"),
            eg(r#"["divide", 0, 20]"#, "null"),
        ],
        call: Call::With(|args| word(args, number::divide)),
    },
    Function {
        name: "floor",
        args: DIGITS,
        doc: "The greatest number not above each number: an integer, or with DIGITS after the \
              point.",
        examples: &[
            eg(r#"["floor", ["list", 2.2, -4.778, 6]]"#, "[2, -5, 6]"),
            eg(r#"["floor", 2, 2.299]"#, "2.29"),
        ],
        call: Call::With(|args| rounding(args, RoundingMode::Floor)),
    },
    Function {
        name: "minus",
        args: &[one("DECREMENT", Kind::Number), VALUES],
        doc: "Each number less DECREMENT.",
        examples: &[eg(r#"["minus", 1, ["list", 1, "x", 3]]"#, "[0, 2]")],
        call: Call::With(|args| word(args, number::subtract)),
    },
    Function {
        name: "mod",
        args: &[one("DIVISOR", Kind::Number), VALUES],
        doc: "The remainder of each number divided by DIVISOR, with the sign of DIVISOR.",
        examples: &[eg(r#"["mod", 2, ["list", 2, 5, -1]]"#, "[0, 1, 1]")],
        call: Call::With(|args| word(args, number::remainder)),
    },
    Function {
        name: "multiply",
        args: &[one("MULTIPLIER", Kind::Number), VALUES],
        doc: "Each number times MULTIPLIER.",
        examples: &[eg(r#"["multiply", 2, ["list", 2, 4, 6]]"#, "[4, 8, 12]")],
        call: Call::With(|args| word(args, number::multiply)),
    },
    Function {
        name: "plus",
        args: &[one("INCREMENT", Kind::Number), VALUES],
        doc: "Each number plus INCREMENT.",
        examples: &[eg(r#"["plus", 10, ["list", 1, 2.5]]"#, "[11, 12.5]")],
        call: Call::With(|args| word(args, number::add)),
    },
    Function {
        name: "pow",
        args: &[one("EXPONENT", Kind::Number), VALUES],
        doc: "Each number to the power of EXPONENT.",
        examples: &[eg(r#"["pow", 3, 10]"#, "1000")],
        call: Call::With(|args| word(args, number::power)),
    },
    Function {
        name: "round",
        args: DIGITS,
        doc: "The nearest number, of two equally near ones the even one: an integer, or with \
              DIGITS after the point.",
        examples: &[
            eg(
                r#"["round", ["list", 2.2, 3.5, 4.5, -4.5]]"#,
                "[2, 4, 4, -4]",
            ),
            eg(r#"["round", 1, 4.778]"#, "4.8"),
        ],
        call: Call::With(|args| rounding(args, RoundingMode::HalfEven)),
    },
    Function {
        name: "sin",
        args: &[VALUES],
        doc: "The sine of each number, in radians.",
        examples: &[eg(r#"["sin", 0.0]"#, "0.0")],
        call: Call::Each(|value| real(value, f64::sin)),
    },
    Function {
        name: "sqrt",
        args: &[VALUES],
        doc: "The square root of each number; null for negative ones.",
        examples: &[
            eg(r#"["sqrt", ["list", 4, 9, 16]]"#, "[2.0, 3.0, 4.0]"),
            eg(r#"["sqrt", -2]"#, "null"),
        ],
        call: Call::Each(|value| real(value, f64::sqrt)),
    },
    Function {
        name: "tan",
        args: &[VALUES],
        doc: "The tangent of each number, in radians; null where it is undefined.",
        examples: &[
            eg(r#"["tan", 0]"#, "0.0"),
            eg(r#"["tan", 1.5707963267948966]"#, "null"),
        ],
        call: Call::Each(|value| real(value, tangent)),
    },
];

type Operation = fn(Number, Number) -> Result<Value, Limit>;

fn symbol(args: &[Value], operation: Operation) -> Result<Value, Limit> {
    match (Number::of(first(&args[0])), Number::of(first(&args[1]))) {
        (Some(a), Some(b)) => operation(a, b),
        _ => Ok(Value::Null),
    }
}

/// Over values, with the first argument on the right.
fn word(args: &[Value], operation: Operation) -> Result<Item, String> {
    let Some(right) = Number::of(&args[0]) else {
        return match &args[0] {
            Value::Null => Ok(Arc::new(|_| Ok(None))),
            other => Err(format!(
                "expected a number, found {}",
                crate::values::a_kind(other)
            )),
        };
    };
    Ok(Arc::new(move |value: &Value| match Number::of(value) {
        Some(left) => operation(left, right.clone()).map(Some),
        None => Ok(None),
    }))
}

fn rounding(args: &[Value], mode: RoundingMode) -> Result<Item, String> {
    let digits = match &args[0] {
        Value::Null => 0,
        Value::Int(digits) => *digits,
        other => {
            return Err(format!(
                "expected an integer for DIGITS, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    Ok(Arc::new(move |value: &Value| match Number::of(value) {
        Some(number) => number::round(number, digits, mode).map(Some),
        None => Ok(None),
    }))
}

fn real(value: &Value, function: fn(f64) -> f64) -> ItemResult {
    Ok(Number::of(value).map(|number| Value::float(function(number.to_f64()))))
}

/// At odd multiples of π/2 a double's tangent is a huge number that stands for infinity.
fn tangent(radians: f64) -> f64 {
    let tangent = radians.tan();
    if tangent.abs() > 1e15 {
        f64::NAN
    } else {
        tangent
    }
}
