//! Dictionaries.

use serde_json::Value as Json;
use tahini_entity::{Dict, Str, Value};

use super::{Call, Function, Kind, VALUES, any, beside, eg, of, one};
use crate::compile::{Compiler, Given};
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Cost, Expr};
use crate::limits::{self, Limit};
use crate::namespace::{Adding, strip_value};
use crate::path;
use crate::values::{Items, first, items, lift, sequence};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "apply",
        args: &[one("RULE_ID", Kind::Rule), VALUES],
        doc: "Applies a rule to each value, which is its _S, and returns what the rule makes. \
              Values that the rule filters away are left out. The rule must not use hops: \
              \"apply-hops\" is for that.",
        examples: &[beside(
            of(
                r#"["apply", "line", "_S.lines"]"#,
                r#"{"lines": [{"n": 1, "x": 2}, {"n": 3}]}"#,
                r#"[{"number": 1}, {"number": 3}]"#,
            ),
            r#"{"rules": {"line": [["rename", "n", "number"]]}}"#,
        )],
        call: Call::Special(|compiler, given| {
            let (at, json) = given.get(0).expect("the number of arguments was checked");
            let rule = compiler.at(at, |compiler| compiler.rule(json, false));
            Expr::Apply(rule, Box::new(compiler.expr(given, 1)))
        }),
    },
    Function {
        name: "apply-ns",
        args: &[one("NAMESPACE_OR_CONFIG", Kind::Literal), VALUES],
        doc: "Adds a namespace to the names of dicts and to the value of _id. The first argument is \
              the namespace, or a dict with property_namespace, identity_namespace, \
              skip_underscore, skip_dollar and recursive; the namespaces default to the pipe's, \
              the others to true.",
        examples: &[eg(
            r#"["apply-ns", "my", {"_id": "1", "foo": 1, "$bar": {"baz": 2}}]"#,
            r#"{"_id": "my:1", "my:foo": 1, "$bar": {"baz": 2}}"#,
        )],
        call: Call::Special(apply_ns),
    },
    Function {
        name: "dict",
        args: &[any("ITEMS or KEY, VALUE", Kind::Value)],
        doc: "A dict: empty without arguments, of [key, value] lists from one argument, of keys and \
              values in turn from more. The last of equal keys wins; a key that is no string is \
              ignored with its value.",
        examples: &[
            eg(r#"["dict"]"#, "{}"),
            eg(
                r#"["dict", ["list", "X", 123, ["list", "A", 1]]]"#,
                r#"{"A": 1}"#,
            ),
            eg(
                r#"["dict", "a", ["upper", "a"], ["lower", "B"], "B"]"#,
                r#"{"a": "A", "b": "B"}"#,
            ),
        ],
        call: Call::Special(dict),
    },
    Function {
        name: "has-key",
        args: &[one("KEY", Kind::Value), VALUES],
        doc: "Whether the dict, or the first item of a list, has the key; null when that is no \
              dict.",
        examples: &[
            eg(r#"["has-key", "a", {"a": 1}]"#, "true"),
            eg(r#"["has-key", "a", ["list", 123, {"a": 1}]]"#, "null"),
        ],
        call: Call::Costly(Cost::Items, has_key),
    },
    Function {
        name: "is-dict",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a dict.",
        examples: &[
            of(r#"["is-dict", "_S."]"#, "{}", "true"),
            eg(r#"["is-dict", ["list", 123, {"a": 1}]]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Dict(_))),
    },
    Function {
        name: "items",
        args: &[one("DICTS", Kind::Value)],
        doc: "A list of [key, value] for everything in the dicts.",
        examples: &[eg(
            r#"["items", ["list", "X", {"A": 1, "B": 2}]]"#,
            r#"[["A", 1], ["B", 2]]"#,
        )],
        call: Call::Costly(Cost::Made, |args| {
            each(&args[0], |name, value| {
                Value::List(Items::from([Value::String(name.clone()), value.clone()]))
            })
        }),
    },
    Function {
        name: "key-values",
        args: &[one("DICTS", Kind::Value)],
        doc: "A list of dicts with \"key\" and \"value\" for everything in the dicts; a single dict \
              with one key gives a single one.",
        examples: &[
            eg(
                r#"["key-values", {"hello": "world"}]"#,
                r#"{"key": "hello", "value": "world"}"#,
            ),
            eg(
                r#"["key-values", ["list", {"A": 1}, 123]]"#,
                r#"[{"key": "A", "value": 1}]"#,
            ),
        ],
        call: Call::Costly(Cost::Made, key_values),
    },
    Function {
        name: "keys",
        args: &[one("DICTS", Kind::Value)],
        doc: "A list of all keys of the dicts.",
        examples: &[eg(
            r#"["keys", ["list", {"A": 1, "B": 2}, {"A": 1}]]"#,
            r#"["A", "B", "A"]"#,
        )],
        call: Call::Costly(Cost::Items, |args| {
            each(&args[0], |name, _| Value::String(name.clone()))
        }),
    },
    Function {
        name: "path",
        args: &[one("PROPERTY_PATH", Kind::Value), VALUES],
        doc: "Follows property names, one or a list of them, from each value, through lists, and \
              returns what stands at the end. Names that are no strings are ignored.",
        examples: &[
            eg(
                r#"["path", "age", ["list", {"age": 23}, {"age": 24}]]"#,
                "[23, 24]",
            ),
            eg(r#"["path", ["list", 1, "age"], {"age": 24}]"#, "24"),
            eg(r#"["path", "foo", {"bar": 123}]"#, "null"),
        ],
        call: Call::Special(follow),
    },
    Function {
        name: "strip-ns",
        args: &[VALUES],
        doc: "Removes the namespaces from the names of dicts, at every depth.",
        examples: &[eg(
            r#"["strip-ns", {"a:b": 1, "c:d": {"e:f": 2}}]"#,
            r#"{"b": 1, "d": {"f": 2}}"#,
        )],
        call: Call::Form(strip_ns),
    },
    Function {
        name: "values",
        args: &[one("DICTS", Kind::Value)],
        doc: "A list of all values of the dicts.",
        examples: &[eg(
            r#"["values", ["list", {"A": 1, "B": 2}, "X"]]"#,
            "[1, 2]",
        )],
        call: Call::Costly(Cost::Items, |args| each(&args[0], |_, value| value.clone())),
    },
];

fn each(value: &Value, make: impl Fn(&Str, &Value) -> Value) -> Result<Value, Limit> {
    let mut all = Items::new();
    for item in items(value) {
        if let Value::Dict(dict) = item {
            limits::list(all.len() + dict.len())?;
            all.extend(dict.iter().map(|(name, value)| make(name, value)));
        }
    }
    Ok(Value::List(all))
}

fn key_values(args: &[Value]) -> Result<Value, Limit> {
    let all = each(&args[0], |name, value| {
        let mut pair = Dict::new();
        pair.push_new("key", Value::String(name.clone()));
        pair.push_new("value", value.clone());
        Value::Dict(pair)
    })?;
    Ok(match (sequence(&args[0]), &all) {
        (None, Value::List(pairs)) if pairs.len() == 1 => pairs[0].clone(),
        _ => all,
    })
}

fn has_key(args: &[Value]) -> Result<Value, Limit> {
    Ok(match (first(&args[0]), first(&args[1])) {
        (Value::String(key), Value::Dict(dict)) => Value::Bool(dict.get(key).is_some()),
        (_, Value::Dict(_)) => Value::Bool(false),
        _ => Value::Null,
    })
}

fn dict(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let args = compiler.arguments(given);
    match args.len() {
        1 => Expr::Eager(from_items, Cost::Items, args.into()),
        count if count % 2 == 1 => {
            compiler.error(format!(
                "expected no arguments, one list of pairs, or keys and values in turn for \
                 \"dict\", found {count} arguments"
            ));
            Expr::Absent
        }
        _ => Expr::Form(from_pairs, args.into()),
    }
}

fn from_items(args: &[Value]) -> Result<Value, Limit> {
    let pairs = items(&args[0])
        .iter()
        .filter_map(|item| match sequence(item)? {
            [Value::String(name), value] => Some((name.clone(), value.clone())),
            _ => None,
        });
    Ok(Value::Dict(pairs.collect()))
}

fn from_pairs(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let mut pairs = Vec::with_capacity(args.len() / 2);
    for pair in args.chunks_exact(2) {
        let (key, value) = (m.eval(&pair[0], env)?, m.eval(&pair[1], env)?);
        if let Value::String(name) = first(&key) {
            pairs.push((name.clone(), value));
        }
    }
    m.charge(Value::Dict(pairs.into_iter().collect()))
}

fn strip_ns(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let value = m.eval(&args[0], env)?;
    m.rebuild(&value)?;
    lift(&value, |value| match value {
        Value::Dict(_) => Ok(Some(strip_value(value, false))),
        _ => Ok(None),
    })
}

fn follow(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let names = compiler.expr(given, 0);
    let values = Box::new(compiler.expr(given, 1));
    match names.constant() {
        Some(names) => {
            let elements = path::dynamic(names, &compiler.program.naming);
            Expr::Follow(elements.into(), values)
        }
        None => Expr::FollowDynamic(Box::new(names), values),
    }
}

fn apply_ns(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let mut adding = Adding {
        property: Some(compiler.program.naming.property.clone()),
        identity: Some(compiler.program.naming.identity.clone()),
        skip_underscore: true,
        skip_dollar: true,
        recursive: true,
    };
    let (at, json) = given.get(0).expect("the number of arguments was checked");
    compiler.at(at, |compiler| match json {
        Json::String(namespace) => {
            adding.property = Some(namespace.as_str().into());
            adding.identity = Some(namespace.as_str().into());
        }
        Json::Object(config) => {
            for (name, value) in config {
                let namespace = value.as_str().map(Str::from);
                match (name.as_str(), value) {
                    ("property_namespace", Json::Null | Json::String(_)) => {
                        adding.property = namespace;
                    }
                    ("identity_namespace", Json::Null | Json::String(_)) => {
                        adding.identity = namespace;
                    }
                    ("skip_underscore", Json::Bool(skip)) => adding.skip_underscore = *skip,
                    ("skip_dollar", Json::Bool(skip)) => adding.skip_dollar = *skip,
                    ("recursive", Json::Bool(recursive)) => adding.recursive = *recursive,
                    _ => compiler.under(name, |compiler| {
                        compiler.error(format!(
                            "expected property_namespace, identity_namespace (strings or null), \
                             skip_underscore, skip_dollar or recursive (booleans), found \
                             \"{name}\" with {}",
                            crate::compile::describe(value)
                        ));
                    }),
                }
            }
        }
        other => compiler.error(format!(
            "expected a namespace or a dict of options, found {}",
            crate::compile::describe(other)
        )),
    });
    Expr::ApplyNs(Box::new(adding), Box::new(compiler.expr(given, 1)))
}
