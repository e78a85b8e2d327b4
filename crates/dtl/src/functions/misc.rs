//! Miscellaneous.

use std::sync::Arc;

use num_bigint::BigInt;
use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, any, eg, one, optional};
use crate::analysis::Why;
use crate::compile::{Compiler, Given};
use crate::expr::{Cost, Expr, Item};
use crate::hops::Lookups;
use crate::limits::{self, Limit};
use crate::murmur3;
use crate::options::SourceKind;
use crate::values::{Items, items};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "completeness",
        args: &[
            one("VIA_DATASET_ID", Kind::String),
            one("DATASET_ID", Kind::String),
        ],
        doc: "The completeness of a dataset as another dataset knows it, a datetime; null when it \
              knows none.",
        examples: &[eg(r#"["completeness", "orders", "customers"]"#, "null")],
        call: Call::Special(completeness),
    },
    Function {
        name: "hash128",
        args: &[
            one("ALGORITHM", Kind::String),
            optional("SEED", Kind::Integer),
            VALUES,
        ],
        doc: "The 128-bit hash of strings and bytes, as an integer. ALGORITHM is \"murmur3\"; SEED, \
              of 32 bits, defaults to 0. Other values are ignored.",
        examples: &[eg(
            r#"["hash128", "murmur3", ["list", "abc", 1]]"#,
            "[79267961763742113019008347020647561319]",
        )],
        call: Call::With(hash128),
    },
    Function {
        name: "is-changed",
        args: &[one("FUNCTION", Kind::Function)],
        doc: "Whether FUNCTION gives another value for the previous version of the source entity; \
              true when either version is deleted, null when there is no previous version or the \
              source is no dataset.",
        examples: &[eg(r#"["is-changed", "_.name"]"#, "null")],
        call: Call::Special(is_changed),
    },
    Function {
        name: "literal",
        args: &[one("VALUE", Kind::Literal)],
        doc: "The argument as it is, not evaluated.",
        examples: &[
            eg(r#"["literal", "_S.foo"]"#, r#""_S.foo""#),
            eg(
                r#"["literal", ["upper", "hello"]]"#,
                r#"["upper", "hello"]"#,
            ),
        ],
        call: Call::Special(|compiler, given| compiler.expr(given, 0)),
    },
    Function {
        name: "tuples",
        args: &[any("VALUES", Kind::Value)],
        doc: "Every combination of one value of each argument, as a list of tuples. Nulls are \
              ignored. Good as a join's composite key.",
        examples: &[
            eg(r#"["tuples"]"#, "[]"),
            eg(
                r#"["tuples", ["list", 1, 2], ["list", 3, null, 4]]"#,
                "[[1, 3], [1, 4], [2, 3], [2, 4]]",
            ),
        ],
        call: Call::Costly(Cost::Made, tuples),
    },
];

fn completeness(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    compiler.program.facts.lookups = true;
    compiler.depends_on(Why::Datasets);
    let (via, of) = (compiler.expr(given, 0), compiler.expr(given, 1));
    Expr::Lookup(Box::new(Lookups::Completeness { via, of }))
}

fn is_changed(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let function = compiler.of_entity(given, 0);
    if compiler.options.source_kind != SourceKind::Dataset {
        return Expr::Const(Value::Null);
    }
    compiler.program.facts.lookups = true;
    compiler.depends_on(Why::Versions);
    Expr::IsChanged(Box::new(function))
}

fn hash128(args: &[Value]) -> Result<Item, String> {
    match &args[0] {
        Value::String(name) if name == "murmur3" => {}
        Value::String(name) => {
            return Err(format!(
                "expected \"murmur3\" for ALGORITHM, found \"{name}\""
            ));
        }
        other => {
            return Err(format!(
                "expected \"murmur3\" for ALGORITHM, found {}",
                crate::values::a_kind(other)
            ));
        }
    }
    let seed = match &args[1] {
        Value::Null => 0,
        Value::Int(seed) if u32::try_from(*seed).is_ok() => *seed as u32,
        Value::Int(_) | Value::BigInt(_) => {
            return Err(format!(
                "expected a SEED from 0 to {}, found {}",
                u32::MAX,
                crate::text::string(&args[1])
                    .ok()
                    .flatten()
                    .unwrap_or_default()
            ));
        }
        other => {
            return Err(format!(
                "expected an integer for SEED, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    Ok(Arc::new(move |value: &Value| {
        let bytes = match value {
            Value::String(text) => text.as_bytes(),
            Value::Bytes(bytes) => bytes,
            _ => return Ok(None),
        };
        Ok(Some(Value::integer(BigInt::from(murmur3::hash(
            bytes, seed,
        )))))
    }))
}

fn tuples(args: &[Value]) -> Result<Value, Limit> {
    let mut rows: Vec<Items> = if args.is_empty() {
        Vec::new()
    } else {
        vec![Items::new()]
    };
    for arg in args {
        let values: Vec<&Value> = items(arg).iter().filter(|value| !value.is_null()).collect();
        limits::list(
            rows.len()
                .saturating_mul(values.len())
                .saturating_mul(args.len()),
        )?;
        let longer = |row: &Items| {
            let row = row.clone();
            values.iter().map(move |value| {
                let mut row = row.clone();
                row.push((*value).clone());
                row
            })
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    Ok(Value::List(rows.into_iter().map(Value::Tuple).collect()))
}
