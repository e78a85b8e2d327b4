//! Lists.

use std::collections::HashMap;

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use tahini_entity::{Dict, Str, Value};

use super::strings::place;
use super::{Call, Function, Kind, VALUES, any, checked, eg, of, one, optional, some, zero};
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Cost, Expr};
use crate::limits::{self, Limit};
use crate::number::{self, Number};
use crate::text;
use crate::values::{self, Items, Seen, first, is_true, items, lift, sequence};
use crate::weight;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "combine",
        args: &[some("VALUES", Kind::Value)],
        doc: "One list of all values of the arguments; lists are taken apart one level.",
        examples: &[
            eg(r#"["combine", null]"#, "[]"),
            eg(
                r#"["combine", 1, ["list", 2, 3, ["list", 4]]]"#,
                "[1, 2, 3, [4]]",
            ),
        ],
        call: Call::Eager(combine),
    },
    Function {
        name: "count",
        args: &[VALUES],
        doc: "How many values there are: the items of a list, 1 for a single value, 0 for null.",
        examples: &[
            eg(r#"["count", ["list", 2, 4, 6]]"#, "3"),
            eg(r#"["count", null]"#, "0"),
            eg(r#"["count", 123]"#, "1"),
        ],
        call: Call::Eager(|args| Ok(Value::Int(items(&args[0]).len() as i64))),
    },
    Function {
        name: "distinct",
        args: &[optional("FUNCTION", Kind::Function), VALUES],
        doc: "The values without duplicates, or without those for which FUNCTION gives a value \
              that it gave before. The first ones stay.",
        examples: &[
            eg(r#"["distinct", ["list", 4, 2, 5, 4, 3]]"#, "[4, 2, 5, 3]"),
            eg(
                r#"["distinct", ["upper", "_."], ["list", "a", "A", "B", "b"]]"#,
                r#"["a", "B"]"#,
            ),
        ],
        call: Call::Form(distinct),
    },
    Function {
        name: "enumerate",
        args: &[optional("START", Kind::Integer), VALUES],
        doc: "A dict with \"key\" and \"value\" for each value; the keys count up from START, or \
              from 0.",
        examples: &[
            eg(r#"["enumerate", 1, "a"]"#, r#"{"key": 1, "value": "a"}"#),
            eg(
                r#"["enumerate", ["list", 17, 32]]"#,
                r#"[{"key": 0, "value": 17}, {"key": 1, "value": 32}]"#,
            ),
        ],
        call: Call::Costly(Cost::Made, enumerate),
    },
    Function {
        name: "filter",
        args: &[one("FUNCTION", Kind::Function), VALUES],
        doc: "The values for which FUNCTION is true.",
        examples: &[
            eg(
                r#"["filter", ["gt", "_.age", 42], ["list", {"age": 30}, {"age": 50}]]"#,
                r#"[{"age": 50}]"#,
            ),
            eg(r#"["filter", ["eq", "_.", "b"], "a"]"#, "null"),
        ],
        call: Call::Form(filter),
    },
    Function {
        name: "first",
        args: &[VALUES],
        doc: "The first value of a list, null of an empty one; a single value is returned as it is.",
        examples: &[
            eg(r#"["first", ["list", "a", "b", "c"]]"#, r#""a""#),
            eg(r#"["first", 123]"#, "123"),
        ],
        call: Call::Eager(|args| Ok(first(&args[0]).clone())),
    },
    Function {
        name: "flatten",
        args: &[VALUES],
        doc: "A new list in which the lists among the values are replaced by their items, one \
              level deep.",
        examples: &[eg(
            r#"["flatten", ["list", ["list", 1, 2], ["list", 3, ["list", 4], 5]]]"#,
            "[1, 2, 3, [4], 5]",
        )],
        call: Call::Costly(Cost::Items, flatten),
    },
    Function {
        name: "group",
        args: &[
            one("KEY_FUNCTION", Kind::Function),
            one("VALUE_FUNCTION", Kind::Function),
            VALUES,
        ],
        doc: "A list of [key, values]: for each key that KEY_FUNCTION gives, what VALUE_FUNCTION \
              gives for its values.",
        examples: &[eg(
            r#"["group", ["upper", "_."], ["lower", "_."], "Hello"]"#,
            r#"[["HELLO", ["hello"]]]"#,
        )],
        call: Call::Form(group),
    },
    Function {
        name: "group-by",
        args: &[
            optional("KEY_FUNCTION", Kind::Function),
            optional("STRING_FUNCTION", Kind::Function),
            VALUES,
        ],
        doc: "A dict of the values by what KEY_FUNCTION gives for them. The names are the keys as \
              tagged JSON text, or what STRING_FUNCTION makes of the keys.",
        examples: &[
            eg(
                r#"["group-by", ["length", "_."], ["list", "phi", "alpha", "rho"]]"#,
                r#"{"3": ["phi", "rho"], "5": ["alpha"]}"#,
            ),
            eg(
                r#"["group-by", ["upper", "_."], ["list", "a"]]"#,
                r#"{"\"A\"": ["a"]}"#,
            ),
            eg(
                r#"["group-by", ["upper", "_."], ["string", "_."], ["list", "a"]]"#,
                r#"{"A": ["a"]}"#,
            ),
        ],
        call: Call::Form(group_by),
    },
    Function {
        name: "in",
        args: &[one("VALUES", Kind::Value), one("ITEMS", Kind::Value)],
        doc: "True when there are VALUES and all of them are among ITEMS.",
        examples: &[
            eg(r#"["in", "a", ["list", "a", "b", "c"]]"#, "true"),
            eg(r#"["in", ["list", "a", "d"], ["list", "a", "b"]]"#, "false"),
            eg(r#"["in", null, ["list", null]]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, is_in),
    },
    Function {
        name: "insert",
        args: &[
            one("INDEX", Kind::Integer),
            one("VALUES", Kind::Value),
            one("OBJECT", Kind::Value),
        ],
        doc: "The values with OBJECT put in before INDEX, which counts from the end when negative.",
        examples: &[
            eg(
                r#"["insert", 1, ["list", 1, 2], ["list", 3, 4]]"#,
                "[1, [3, 4], 2]",
            ),
            eg(r#"["insert", -2, ["list", 1, 2, 3], 4]"#, "[1, 4, 2, 3]"),
        ],
        call: Call::Eager(insert),
    },
    Function {
        name: "is-empty",
        args: &[VALUES],
        doc: "True when there are no values: null or an empty list.",
        examples: &[
            eg(r#"["is-empty", null]"#, "true"),
            eg(r#"["is-empty", ["list", null]]"#, "false"),
        ],
        call: Call::Eager(|args| Ok(Value::Bool(items(&args[0]).is_empty()))),
    },
    Function {
        name: "is-list",
        args: &[VALUES],
        doc: "True when the value is a list.",
        examples: &[
            eg(r#"["is-list", ["list"]]"#, "true"),
            eg(r#"["is-list", "foo:bar"]"#, "false"),
        ],
        call: Call::Eager(|args| Ok(Value::Bool(sequence(&args[0]).is_some()))),
    },
    Function {
        name: "is-not-empty",
        args: &[VALUES],
        doc: "True when there are values: neither null nor an empty list.",
        examples: &[
            eg(r#"["is-not-empty", "a"]"#, "true"),
            eg(r#"["is-not-empty", ["list"]]"#, "false"),
        ],
        call: Call::Eager(|args| Ok(Value::Bool(!items(&args[0]).is_empty()))),
    },
    Function {
        name: "last",
        args: &[VALUES],
        doc: "The last value of a list, null of an empty one; a single value is returned as it is.",
        examples: &[eg(r#"["last", ["list", "a", "b", "c"]]"#, r#""c""#)],
        call: Call::Eager(|args| Ok(items(&args[0]).last().cloned().unwrap_or_default())),
    },
    Function {
        name: "list",
        args: &[any("VALUES", Kind::Value)],
        doc: "A list of the arguments.",
        examples: &[
            eg(r#"["list"]"#, "[]"),
            eg(
                r#"["list", "a", ["list", "b"], null]"#,
                r#"["a", ["b"], null]"#,
            ),
        ],
        call: Call::Form(|m, env, args| {
            let items = m.all(args, env)?;
            m.charge(Value::List(items.into()))
        }),
    },
    Function {
        name: "map",
        args: &[one("FUNCTION", Kind::Function), VALUES],
        doc: "A list of what FUNCTION gives for each value.",
        examples: &[
            eg(
                r#"["map", ["lower", "_."], ["list", "A", "B", 1]]"#,
                r#"["a", "b", null]"#,
            ),
            eg(r#"["map", ["lower", "_."], null]"#, "[]"),
        ],
        call: Call::Form(map),
    },
    Function {
        name: "map-dict",
        args: &[
            one("KEY_FUNCTION", Kind::Function),
            one("VALUE_FUNCTION", Kind::Function),
            VALUES,
        ],
        doc: "Dicts with their names and values replaced by what the functions give for them. A \
              name that becomes no string goes with its value; empty dicts are ignored.",
        examples: &[eg(
            r#"["map-dict", ["upper", "_."], ["plus", 1, "_."], {"a": 1, "b": 2}]"#,
            r#"{"A": 2, "B": 3}"#,
        )],
        call: Call::Form(map_dict),
    },
    Function {
        name: "map-values",
        args: &[one("VALUE_FUNCTION", Kind::Function), VALUES],
        doc: "A list of what VALUE_FUNCTION gives for each value of each dict.",
        examples: &[of(
            r#"["map-values", ["lower", "_."], ["list", "_S.d", 100]]"#,
            r#"{"d": {"k": "A", "l": "B"}}"#,
            r#"["a", "b"]"#,
        )],
        call: Call::Form(map_values),
    },
    Function {
        name: "nth",
        args: &[one("INDEX", Kind::Integer), VALUES],
        doc: "The value at INDEX, counted from 0; null where there is none.",
        examples: &[
            eg(r#"["nth", 1, ["list", "a", "b", "c"]]"#, r#""b""#),
            eg(r#"["nth", 5, ["list", "a"]]"#, "null"),
        ],
        call: Call::Eager(nth),
    },
    Function {
        name: "range",
        args: &[
            one("START", Kind::Integer),
            one("STOP", Kind::Integer),
            checked(optional("STEP", Kind::Integer), zero),
        ],
        doc: "The integers from START to before STOP, STEP apart. Null when an argument is no \
              integer or STEP is 0.",
        examples: &[
            eg(r#"["range", 0, 4]"#, "[0, 1, 2, 3]"),
            eg(r#"["range", 4, 0, -1]"#, "[4, 3, 2, 1]"),
        ],
        call: Call::Eager(range),
    },
    Function {
        name: "reversed",
        args: &[VALUES],
        doc: "The values in the opposite order.",
        examples: &[eg(r#"["reversed", ["list", 1, 3, 2]]"#, "[2, 3, 1]")],
        call: Call::Eager(reversed),
    },
    Function {
        name: "slice",
        args: &[
            one("START", Kind::Integer),
            optional("END", Kind::Integer),
            checked(optional("STRIDE", Kind::Integer), zero),
            VALUES,
        ],
        doc: "The values from START to before END, every STRIDE-th of them. Negative indexes count \
              from the end, a negative STRIDE goes backwards.",
        examples: &[
            eg(
                r#"["slice", 2, -2, 2, ["list", 0, 1, 2, 3, 4, 5, 6]]"#,
                "[2, 4]",
            ),
            eg(r#"["slice", 2, ["list", 0, 1, 2, 3]]"#, "[2, 3]"),
        ],
        call: Call::Eager(slice),
    },
    Function {
        name: "sum",
        args: &[VALUES],
        doc: "The sum of the numbers among the values; 0 when there are none.",
        examples: &[
            eg(r#"["sum", ["list", 2, 4, 6, "x"]]"#, "12"),
            eg(r#"["sum", null]"#, "0"),
        ],
        call: Call::Costly(Cost::Through, sum),
    },
];

fn combine(args: &[Value]) -> Result<Value, Limit> {
    let mut all = Items::new();
    for arg in args {
        limits::list(all.len() + items(arg).len())?;
        if !arg.is_null() {
            values::extend(&mut all, arg.clone());
        }
    }
    Ok(Value::List(all))
}

fn distinct(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[1], env)?;
    let mut seen = Seen::default();
    let mut kept = Items::new();
    for item in items(&values) {
        m.step(1)?;
        let new = match &args[0] {
            Expr::Absent => {
                m.weigh_key(item)?;
                seen.insert(item)
            }
            function => {
                let key = m.eval(function, env.with(item))?;
                m.weigh_key(&key)?;
                seen.insert(&key)
            }
        };
        if new {
            kept.push(item.clone());
        }
    }
    m.charge(Value::List(kept))
}

fn enumerate(args: &[Value]) -> Result<Value, Limit> {
    let start = match first(&args[0]) {
        Value::Null => Value::Int(0),
        start @ (Value::Int(_) | Value::BigInt(_)) => start.clone(),
        _ => return Ok(Value::Null),
    };
    let mut key = start;
    lift(&args[1], |value| {
        if value.is_null() && args[1].is_null() {
            return Ok(None);
        }
        let mut pair = Dict::new();
        let next = number::add(Number::of(&key).expect("keys are integers"), Number::Int(1))?;
        pair.push_new("key", std::mem::replace(&mut key, next));
        pair.push_new("value", value.clone());
        Ok(Some(Value::Dict(pair)))
    })
}

fn filter(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[1], env)?;
    let kept = lift(&values, |item| {
        m.step(1)?;
        let keep = is_true(&m.eval(&args[0], env.with(item))?);
        Ok::<_, Stop>(keep.then(|| item.clone()))
    })?;
    m.charge(kept)
}

fn flatten(args: &[Value]) -> Result<Value, Limit> {
    let mut all = Items::new();
    for item in items(&args[0]) {
        limits::list(all.len() + 1 + sequence(item).map_or(0, <[Value]>::len))?;
        match sequence(item) {
            Some(inner) => all.extend_from_slice(inner),
            None => all.push(item.clone()),
        }
    }
    Ok(Value::List(all))
}

/// Values by key, in the order in which the keys were first seen.
fn grouped(
    m: &mut Machine<'_>,
    env: Env<'_>,
    key: &Expr,
    value: &Expr,
    values: &Value,
) -> Result<Vec<(Value, Items)>, Stop> {
    let mut groups: Vec<(Value, Items)> = Vec::new();
    let mut places = HashMap::new();
    for item in items(values) {
        m.step(1)?;
        let env = env.with(item);
        let key = if key.is_absent() {
            item.clone()
        } else {
            m.eval(key, env)?
        };
        let value = if value.is_absent() {
            item.clone()
        } else {
            m.eval(value, env)?
        };
        m.weigh_key(&key)?;
        // A place in a group, and the group when it is new.
        m.spend(8 * size_of::<Value>())?;
        let place = *places
            .entry(tahini_entity::order::key(&key))
            .or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(value),
            None => groups.push((key, Items::from([value]))),
        }
    }
    Ok(groups)
}

fn group(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[2], env)?;
    let groups = grouped(m, env, &args[0], &args[1], &values)?;
    let pair = |(key, group)| Value::List(Items::from([key, Value::List(group)]));
    Ok(Value::List(groups.into_iter().map(pair).collect()))
}

fn group_by(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[2], env)?;
    let mut named: Vec<Option<(Str, Items)>> = Vec::new();
    let mut places: HashMap<Str, usize> = HashMap::new();
    for (key, group) in grouped(m, env, &args[0], &Expr::Absent, &values)? {
        let name: Option<Str> = match &args[1] {
            Expr::Absent => Some(text::json(&key, true)?),
            function => text::string(first(&m.eval(function, env.with(&key))?))?,
        };
        if let Some(name) = name {
            m.spend(weight::of_text(&name) + size_of::<(Str, Value)>())?;
            // Of keys that become one name, the last one's place counts.
            let before = places.insert(name.clone(), named.len());
            let before = before.and_then(|place| named[place].take());
            let mut all = before.map_or_else(Items::new, |(_, all)| all);
            all.extend(group);
            named.push(Some((name, all)));
        }
    }
    let mut dict = Dict::new();
    for (name, all) in named.into_iter().flatten() {
        dict.push_new(name, Value::List(all));
    }
    Ok(Value::Dict(dict))
}

fn is_in(args: &[Value]) -> Result<Value, Limit> {
    let values = items(&args[0]);
    let all = match values {
        [] => return Ok(Value::Bool(false)),
        [single] => items(&args[1])
            .iter()
            .any(|item| tahini_entity::order::eq(item, single)),
        many => {
            let known = Seen::of(items(&args[1]));
            many.iter().all(|value| known.contains(value))
        }
    };
    Ok(Value::Bool(all))
}

fn insert(args: &[Value]) -> Result<Value, Limit> {
    let Some(index) = index(first(&args[0])) else {
        return Ok(Value::Null);
    };
    let mut all = Items::from(items(&args[1]));
    limits::list(all.len() + 1)?;
    all.insert(place(index, all.len()), args[2].clone());
    Ok(Value::List(all))
}

fn map(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[1], env)?;
    let mut results = Items::with_capacity(items(&values).len());
    for item in items(&values) {
        m.step(1)?;
        results.push(m.eval(&args[0], env.with(item))?);
    }
    m.charge(Value::List(results))
}

fn map_dict(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[2], env)?;
    lift(&values, |item| {
        let Value::Dict(dict) = item else {
            return Ok::<_, Stop>(None);
        };
        let mut mapped = Vec::with_capacity(dict.len());
        for (name, value) in dict.iter() {
            m.step(1)?;
            let name = Value::String(name.clone());
            if let Value::String(name) = m.eval(&args[0], env.with(&name))? {
                mapped.push((name, m.eval(&args[1], env.with(value))?));
            }
        }
        if mapped.is_empty() {
            return Ok(None);
        }
        m.charge(Value::Dict(mapped.into_iter().collect()))
            .map(Some)
    })
}

fn map_values(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let values = m.eval(&args[1], env)?;
    let mut results = Items::new();
    for item in items(&values) {
        if let Value::Dict(dict) = item {
            for (_, value) in dict.iter() {
                m.step(1)?;
                results.push(m.eval(&args[0], env.with(value))?);
            }
        }
    }
    m.charge(Value::List(results))
}

fn nth(args: &[Value]) -> Result<Value, Limit> {
    let Some(index) = index(first(&args[0])) else {
        return Ok(Value::Null);
    };
    let index = usize::try_from(index).ok();
    Ok(index
        .and_then(|index| items(&args[1]).get(index))
        .cloned()
        .unwrap_or_default())
}

fn range(args: &[Value]) -> Result<Value, Limit> {
    let whole = |value: &Value| match first(value) {
        Value::Int(number) => Some(BigInt::from(*number)),
        Value::BigInt(number) => Some(number.as_ref().clone()),
        _ => None,
    };
    let step = match first(&args[2]) {
        Value::Null => Some(BigInt::from(1)),
        _ => whole(&args[2]).filter(|step| !step.is_zero()),
    };
    let (Some(start), Some(stop), Some(step)) = (whole(&args[0]), whole(&args[1]), step) else {
        return Ok(Value::Null);
    };
    let distance = if step.is_positive() {
        stop - &start
    } else {
        &start - stop
    };
    let count = if distance.is_positive() {
        (distance - 1) / step.abs() + 1
    } else {
        BigInt::ZERO
    };
    let count = count.to_usize().unwrap_or(usize::MAX);
    limits::list(count)?;
    let mut next = start;
    let numbers = (0..count).map(|_| {
        let number = Value::integer(next.clone());
        next += &step;
        number
    });
    Ok(Value::List(numbers.collect()))
}

/// An integer that names a place; places are counted in 64 bits, and what is beyond them is
/// beyond every list too.
pub(super) fn index(value: &Value) -> Option<i64> {
    match value {
        Value::Int(index) => Some(*index),
        Value::BigInt(index) => Some(if index.is_negative() {
            i64::MIN
        } else {
            i64::MAX
        }),
        _ => None,
    }
}

fn reversed(args: &[Value]) -> Result<Value, Limit> {
    Ok(match sequence(&args[0]) {
        Some(items) => Value::List(items.iter().rev().cloned().collect()),
        None => args[0].clone(),
    })
}

fn slice(args: &[Value]) -> Result<Value, Limit> {
    let optional = |value: &Value| match first(value) {
        Value::Null => Ok(None),
        value => index(value).map(Some).ok_or(()),
    };
    let (Ok(start), Ok(end), Ok(stride)) =
        (optional(&args[0]), optional(&args[1]), optional(&args[2]))
    else {
        return Ok(Value::Null);
    };
    let stride = stride.unwrap_or(1);
    let all = items(&args[3]);
    let step = usize::try_from(stride.unsigned_abs()).unwrap_or(usize::MAX);
    if stride == 0 {
        return Ok(Value::Null);
    }
    if stride > 0 {
        let from = place(start.unwrap_or(0), all.len());
        let to = end.map_or(all.len(), |end| place(end, all.len()));
        let taken = all.get(from..to).unwrap_or(&[]).iter().step_by(step);
        return Ok(Value::List(taken.cloned().collect()));
    }
    // Backwards, START and END name items rather than the gaps before them.
    let above = |index: i64| match index {
        _ if index < 0 => usize::try_from(index + all.len() as i64 + 1).unwrap_or(0),
        _ => usize::try_from(index)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .min(all.len()),
    };
    let from = start.map_or(all.len(), above);
    let to = end.map_or(0, above);
    let taken = all.get(to..from).unwrap_or(&[]).iter().rev().step_by(step);
    Ok(Value::List(taken.cloned().collect()))
}

fn sum(args: &[Value]) -> Result<Value, Limit> {
    let mut total = Number::Int(0);
    for next in items(&args[0]).iter().filter_map(Number::of) {
        total = Number::of(&number::add(total, next)?).unwrap_or(Number::Int(0));
    }
    Ok(total.into_value())
}
