//! Namespaced identifiers.

use std::sync::Arc;

use tahini_entity::Value;

use super::{Call, Function, Kind, VALUES, eg, optional};
use crate::compile::{Compiler, Given};
use crate::expr::{Expr, Item, ItemResult, Prefixed};
use crate::namespace::{qualified, split_ni};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "is-ni",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a namespaced identifier.",
        examples: &[
            eg(r#"["is-ni", ["ni", "foo:bar"]]"#, "true"),
            eg(r#"["is-ni", "foo:bar"]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::Ni(_))),
    },
    Function {
        name: "ni",
        args: &[optional("NAMESPACE", Kind::String), VALUES],
        doc: "Makes namespaced identifiers of strings. Without NAMESPACE the strings are taken as \
              they are, and URIs are collapsed: a prefix that was declared becomes its namespace, \
              any other one a namespace of the pipe (or the URI stays as it is, with \
              `symmetric_namespace_collapse`). Other values are ignored.",
        examples: &[
            eg(
                r#"["ni", "foo", ["list", "bar", "x:y", 1]]"#,
                r#"["~:foo:bar", "~:foo:x:y"]"#,
            ),
            eg(r#"["ni", "bar"]"#, r#""~:bar""#),
            eg(
                r#"["ni", ["uri", "http://example.org/bar"]]"#,
                r#""~:_:bar""#,
            ),
        ],
        call: Call::Special(ni),
    },
    Function {
        name: "ni-collapse",
        args: &[VALUES],
        doc: "Makes namespaced identifiers of URLs, strings or URIs: the longest prefix that was \
              declared becomes its namespace; a URL that has none becomes an identifier as it is. \
              Other values, and what does not begin with http:// or https://, are ignored. \
              Deprecated in favour of `ni`.",
        examples: &[
            eg(
                r#"["ni-collapse", ["list", "http://xmlns.com/foaf/0.1/name", "name", 1]]"#,
                r#"["~:foaf:name"]"#,
            ),
            eg(
                r#"["ni-collapse", "http://example.com/path"]"#,
                r#""~:http://example.com/path""#,
            ),
        ],
        call: Call::Special(|compiler, given| prefixed(compiler, given, Prefixed::Collapsed)),
    },
    Function {
        name: "ni-expand",
        args: &[VALUES],
        doc: "Makes the text of URLs of namespaced identifiers whose namespace stands for a prefix; \
              of others their text. Other values are ignored. Deprecated.",
        examples: &[
            eg(
                r#"["ni-expand", ["list", ["ni", "foaf", "name"], "name"]]"#,
                r#"["http://xmlns.com/foaf/0.1/name"]"#,
            ),
            eg(
                r#"["ni-expand", ["ni", "unknown", "path"]]"#,
                r#""unknown:path""#,
            ),
        ],
        call: Call::Special(|compiler, given| prefixed(compiler, given, Prefixed::Expanded)),
    },
    Function {
        name: "ni-id",
        args: &[VALUES],
        doc: "The part of namespaced identifiers and strings after the first colon, or all of \
              them. Other values are ignored.",
        examples: &[eg(
            r#"["ni-id", ["list", "~:foo:bar", "x:y", "z", 1]]"#,
            r#"["bar", "y", "z"]"#,
        )],
        call: Call::Each(|value| part(value, false)),
    },
    Function {
        name: "ni-ns",
        args: &[VALUES],
        doc: "The part of namespaced identifiers and strings before the first colon, or an empty \
              string. Other values are ignored.",
        examples: &[eg(
            r#"["ni-ns", ["list", "~:foo:bar", "x:y", "z", 1]]"#,
            r#"["foo", "x", ""]"#,
        )],
        call: Call::Each(|value| part(value, true)),
    },
];

fn ni(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let namespace = compiler.expr(given, 0);
    let values = compiler.expr(given, 1);
    match &namespace {
        Expr::Absent => Expr::Collapse(Prefixed::Identifier, Box::new(values)),
        expr => {
            let known = expr
                .constant()
                .map(|value| with_namespace(std::slice::from_ref(value)));
            let item = known.and_then(Result::ok);
            Expr::With(with_namespace, item, [namespace, values].into())
        }
    }
}

fn prefixed(compiler: &mut Compiler<'_>, given: &Given<'_>, how: Prefixed) -> Expr {
    Expr::Collapse(how, Box::new(compiler.expr(given, 0)))
}

fn with_namespace(args: &[Value]) -> Result<Item, String> {
    let Value::String(namespace) = &args[0] else {
        return Err(format!(
            "expected a string for NAMESPACE, found {}",
            crate::values::a_kind(&args[0])
        ));
    };
    let namespace = namespace.clone();
    Ok(Arc::new(move |value: &Value| {
        Ok(value
            .as_str()
            .map(|text| Value::Ni(qualified(&namespace, text))))
    }))
}

fn part(value: &Value, namespace: bool) -> ItemResult {
    Ok(match value {
        Value::Ni(text) | Value::String(text) => {
            let (before, after) = split_ni(text);
            Some(Value::string(if namespace { before } else { after }))
        }
        _ => None,
    })
}
