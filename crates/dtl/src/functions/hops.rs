//! Hops: other datasets.

use serde_json::Value as Json;

use super::{Call, Function, Kind, beside, of, one, some};
use crate::compile::{Compiler, Given, describe};
use crate::expr::Expr;
use crate::hops::Lookups;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "apply-hops",
        args: &[one("RULE_ID", Kind::Rule), some("HOPS_SPEC", Kind::Hops)],
        doc: "Applies a rule to each entity that \"hops\" returns. Dependencies are tracked into \
              the rule, which may use hops itself.",
        examples: &[beside(
            of(
                r#"["apply-hops", "line", {"datasets": ["orders o"], "where": ["eq", "_S._id", "o.customer"]}]"#,
                "{}",
                r#"[{"number": "7"}]"#,
            ),
            r#"{"rules": {"line": [["rename", "_id", "number"]]},
                "datasets": {"orders": [{"_id": "7", "customer": "1"}, {"_id": "8", "customer": "2"}]}}"#,
        )],
        call: Call::Special(|compiler, given| {
            let (at, json) = given.get(0).expect("the number of arguments was checked");
            let rule = compiler.at(at, |compiler| compiler.rule(json, true));
            Expr::ApplyHops(rule, Box::new(compiler.applied_hops(given, 1, rule)))
        }),
    },
    Function {
        name: "hops",
        args: &[some("HOPS_SPEC", Kind::Hops)],
        doc: "Entities of other datasets that are joined with the source entity. A spec names \
              \"datasets\" with aliases and, in \"where\", one \"eq\" for each alias that joins it, \
              and conditions that filter; \"return\" says which alias, or which expression over \
              them, is returned. With \"recurse\" the result is joined again, down to \
              \"max_depth\" (10) and without the entity itself where \"exclude_root\" is true. \
              \"subsets\" takes a part of a dataset, as {ALIAS: [\"eq\", INDEX, VALUE]}. \
              \"track-dependencies\" false leaves the pipe alone when a joined entity changes; \
              \"trace\" on the last spec is a name: under it the execution log tells how many \
              entities one evaluation joined at the most. Several specs form a chain.",
        examples: &[beside(
            of(
                r#"["hops", {"datasets": ["orders o"], "where": ["eq", "_S._id", "o.customer"], "return": "o.total"}]"#,
                "{}",
                "[10, 20]",
            ),
            r#"{"datasets": {"orders": [{"_id": "7", "customer": "1", "total": 10},
                {"_id": "8", "customer": "1", "total": 20}, {"_id": "9", "customer": "2", "total": 30}]}}"#,
        )],
        call: Call::Special(|compiler, given| Expr::Hops(Box::new(compiler.hops(given, 0)))),
    },
    Function {
        name: "lookup-entity",
        args: &[
            one("DATASET_ID", Kind::String),
            one("ENTITY_ID", Kind::String),
        ],
        doc: "The entity with that _id in another dataset, or null. Changes of it do not make the \
              pipe process anything again.",
        examples: &[beside(
            of(
                r#"["path", "name", ["lookup-entity", "countries", "_S.country"]]"#,
                r#"{"country": "NO"}"#,
                r#""Norway""#,
            ),
            r#"{"datasets": {"countries": [{"_id": "NO", "name": "Norway"}]}}"#,
        )],
        call: Call::Special(lookup_entity),
    },
];

fn lookup_entity(compiler: &mut Compiler<'_>, given: &Given<'_>) -> Expr {
    let (at, json) = given.get(0).expect("the number of arguments was checked");
    let dataset = match json {
        Json::String(name) => compiler.dataset(name, false, true),
        other => compiler.at(at, |compiler| {
            let found = describe(other);
            compiler.error(format!(
                "expected a dataset's id as a constant string, found {found}"
            ));
            0
        }),
    };
    let id = compiler.expr(given, 1);
    Expr::Lookup(Box::new(Lookups::Entity { dataset, id }))
}
