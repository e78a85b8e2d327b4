//! Sets: values are compared as \"eq\" compares them; the results are lists.

use tahini_entity::Value;

use super::{Arg, Call, Function, Kind, eg, one};
use crate::expr::Cost;
use crate::limits::{self, Limit};
use crate::values::{Items, Seen, items};

const BOTH: &[Arg] = &[one("VALUES1", Kind::Value), one("VALUES2", Kind::Value)];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "difference",
        args: BOTH,
        doc: "The values of VALUES1 that are not in VALUES2, in their order, duplicates kept.",
        examples: &[
            eg(
                r#"["difference", ["list", "A", "B"], ["list", "B"]]"#,
                r#"["A"]"#,
            ),
            eg(
                r#"["difference", ["list", "D", "A", "D", "E", "B"], ["list", "A", "B"]]"#,
                r#"["D", "D", "E"]"#,
            ),
        ],
        call: Call::Costly(Cost::Through, |args| keep(args, false)),
    },
    Function {
        name: "intersection",
        args: BOTH,
        doc: "The values of VALUES1 that are in VALUES2 too, in their order, duplicates kept.",
        examples: &[
            eg(r#"["intersection", "B", ["list", "B", "C"]]"#, r#"["B"]"#),
            eg(r#"["intersection", "A", ["list", "B", "C"]]"#, "[]"),
        ],
        call: Call::Costly(Cost::Through, |args| keep(args, true)),
    },
    Function {
        name: "intersects",
        args: BOTH,
        doc: "True when both have a value in common.",
        examples: &[
            eg(
                r#"["intersects", ["list", "A", "B"], ["list", "B", "C"]]"#,
                "true",
            ),
            eg(r#"["intersects", null, ["list", "B"]]"#, "false"),
        ],
        call: Call::Costly(Cost::Through, intersects),
    },
    Function {
        name: "union",
        args: BOTH,
        doc: "The values of VALUES1, then those of VALUES2, each value once.",
        examples: &[
            eg(
                r#"["union", "A", ["list", "B", "C"]]"#,
                r#"["A", "B", "C"]"#,
            ),
            eg(
                r#"["union", ["list", "B", "C", "B"], ["list", "A", "F", "B"]]"#,
                r#"["B", "C", "A", "F"]"#,
            ),
        ],
        call: Call::Costly(Cost::Through, union),
    },
];

fn keep(args: &[Value], common: bool) -> Result<Value, Limit> {
    let others = Seen::of(items(&args[1]));
    let kept = items(&args[0])
        .iter()
        .filter(|item| others.contains(item) == common);
    Ok(Value::List(kept.cloned().collect()))
}

fn intersects(args: &[Value]) -> Result<Value, Limit> {
    let others = Seen::of(items(&args[1]));
    Ok(Value::Bool(
        items(&args[0]).iter().any(|item| others.contains(item)),
    ))
}

fn union(args: &[Value]) -> Result<Value, Limit> {
    let mut seen = Seen::default();
    let all = items(&args[0]).iter().chain(items(&args[1]));
    let all: Items = all.filter(|item| seen.insert(item)).cloned().collect();
    limits::list(all.len())?;
    Ok(Value::List(all))
}
