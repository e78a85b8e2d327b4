//! What compiling may take, in time and memory: real pipes, and rules that nobody would write.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tahini_dtl::limits::{MAX_HOPS_DATASETS, MAX_NESTING, MAX_PROBLEMS};
use tahini_dtl::{Options, Problem, Program, compile};

use crate::limits::{busy, within};
use crate::support;

const MEMORY: u64 = 256 * 1024 * 1024;

/// Compiles within generous bounds: the promises are those of an optimised build.
#[track_caller]
fn compiled(rules: &Json) -> Result<Program, Vec<Problem>> {
    let started = busy();
    let result = compile(rules, &Options::default());
    within(started, 20, 3, MEMORY);
    result
}

/// A pipe as large as those of real projects: some eighty statements in six rules, with joins.
fn real_size(at: usize) -> Json {
    let mut rules = Map::new();
    let line = |rule: usize, n: usize| match n % 6 {
        0 => json!([
            "add",
            format!("p{n}"),
            ["concat", "_S.first", " ", "_S.last", format!("{at}")]
        ]),
        1 => json!([
            "if",
            ["and", ["is-not-null", "_S.a"], ["gt", "_S.n", n]],
            [[
                "add",
                "x",
                ["upper", ["coalesce", ["list", "_S.a", "_S.b"]]]
            ]],
            ["remove", "x*"]
        ]),
        2 => json!(["rename", format!("q{n}"), format!("r{n}")]),
        3 => json!([
            "add",
            "lines",
            [
                "map",
                ["dict", "id", "_._id", "sum", ["*", "_.n", "_.price"]],
                [
                    "sorted",
                    "_.n",
                    ["filter", ["neq", "_.kind", "x"], "_S.lines"]
                ]
            ]
        ]),
        4 => json!([
            "add",
            format!("d{n}"),
            [
                "datetime-format",
                "Europe/Oslo",
                "%Y-%m-%d",
                ["datetime-parse", "%d.%m.%Y", "_S.date"]
            ]
        ]),
        _ if rule == 0 => {
            json!(["add", "customer", ["hops", {"datasets": [format!("customers-{at} c")],
            "where": [["eq", "_S.customer", "c._id"]], "return": ["list", "c.name", "c.city"]}]])
        }
        _ => json!(["copy", "*", ["list", "_*", "tmp-*"]]),
    };
    for rule in 0..6 {
        let name = if rule == 0 {
            "default".to_owned()
        } else {
            format!("rule{rule}")
        };
        let mut statements: Vec<Json> = (0..13).map(|n| line(rule, n)).collect();
        if rule < 5 {
            statements.push(json!([
                "add",
                "sub",
                ["apply", format!("rule{}", rule + 1), "_S.sub"]
            ]));
        }
        if rule == 0 {
            statements.pop();
            statements.push(json!(["add", "sub", ["apply", "rule1", "_S.sub"]]));
        }
        rules.insert(name, json!(statements));
    }
    Json::Object(rules)
}

/// An optimised build takes less than 100 ms for them; what is bound here is another order of
/// growth. They are all kept, as a node keeps them.
#[test]
fn three_hundred_real_pipes() {
    let pipes: Vec<Json> = (0..300).map(real_size).collect();
    let started = busy();
    let programs: Vec<Program> = pipes
        .iter()
        .map(|rules| compile(rules, &Options::default()).unwrap())
        .collect();
    within(started, 20, 2, MEMORY);
    assert!(programs.iter().all(|program| program.reads().len() == 1));
}

#[test]
fn rules_as_deep_as_they_may_be() {
    // The object of rules, the list of statements and the statement are three of the levels.
    let deep = |levels: usize| (0..levels - 3).fold(json!(1), |inner, _| json!(["list", inner]));
    let rules = |levels: usize| json!({"default": [["add", "x", deep(levels)]]});
    compiled(&rules(MAX_NESTING)).unwrap();
    let problems = compiled(&rules(MAX_NESTING + 1)).unwrap_err();
    assert!(
        problems[0].message.contains("nested at most"),
        "{problems:?}"
    );
    let ifs = (0..MAX_NESTING - 4).fold(json!(["add", "x", 1]), |inner, _| {
        json!(["if", true, inner])
    });
    compiled(&json!({"default": [ifs]})).unwrap();
    // Each of these doubles the work of whoever looks at one part twice.
    let twice = (0..MAX_NESTING - 4).fold(json!("_S.a"), |inner, _| json!(["if", inner, 1, 2]));
    compiled(&json!({"default": [["add", "x", twice]]})).unwrap();
}

#[test]
fn long_literals_and_calls() {
    let numbers: Vec<usize> = (0..100_000).collect();
    let names: Map<String, Json> = numbers
        .iter()
        .map(|n| (format!("n{n}"), json!(n)))
        .collect();
    let call = |name: &str, args: &[Json]| {
        let mut call = vec![json!(name)];
        call.extend_from_slice(args);
        Json::Array(call)
    };
    let pairs: Vec<Json> = numbers.iter().map(|n| json!(n.to_string())).collect();
    for value in [
        json!(["literal", numbers]),
        json!(["literal", names]),
        json!(["replace", ["literal", names], "_S.a"]),
        call("list", &pairs),
        call("dict", &pairs),
        call("concat", &vec![json!("_S.a"); 100_000]),
        call("case-eq", &pairs),
        call("list", &vec![json!(["now"]); 100_000]),
        call("list", &vec![json!("_S"); 100_000]),
        json!(["matches", "*a?".repeat(50_000), "_S.a"]),
        json!(["datetime-parse", "%Y-%m-%d ".repeat(20_000), "_S.a"]),
        json!(format!("_S{}", ".a".repeat(100_000))),
    ] {
        let rules = json!({"default": [["add", "x", value]]});
        if let Err(problems) = compiled(&rules) {
            panic!("{:.60}: {}", rules.to_string(), problems[0]);
        }
    }
    let copies: Vec<Json> = (0..100_000).map(|n| json!(format!("n{n}*"))).collect();
    compiled(
        &json!({"default": [["copy", call("list", &copies)], ["remove", call("list", &copies)]]}),
    )
    .unwrap();
}

#[test]
fn ten_thousand_rules() {
    let rule = |at: usize| {
        json!([[
            "add",
            "x",
            ["apply", format!("r{}", (at + 1) % 10_000), "_P._S.x"]
        ]])
    };
    let mut rules: Map<String, Json> = (0..10_000).map(|at| (format!("r{at}"), rule(at))).collect();
    rules.insert(
        "default".to_owned(),
        json!([["add", "x", ["apply", "r0", "_S."]]]),
    );
    compiled(&Json::Object(rules.clone())).unwrap();
    // None of them is there.
    for rule in rules.values_mut() {
        *rule = json!([["add", "x", ["apply", "r-1", "_S."]]]);
    }
    let problems = compiled(&Json::Object(rules)).unwrap_err();
    assert_eq!(
        problems
            .iter()
            .filter(|p| p.message.contains("name of a rule"))
            .count(),
        MAX_PROBLEMS
    );
    assert!(
        problems[0].message.contains("did you mean"),
        "{}",
        problems[0]
    );
}

#[test]
fn many_problems() {
    let misspelt = |count: usize| vec![json!(["add", "x", ["uper", "_S.a"]]); count];
    let problems = compiled(&json!({"default": misspelt(100_000)})).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS);
    assert!(
        problems[0].message.contains("did you mean \"upper\""),
        "{}",
        problems[0]
    );
    let warned = vec![json!(["add", "x", "_S"]); 100_000];
    let program = compiled(&json!({"default": warned})).unwrap();
    assert_eq!(program.warnings().len(), MAX_PROBLEMS);
    let zones = vec![json!(["add", "x", ["datetime-parse", "Europe/Olso", "%Y", "_S.a"]]); 20_000];
    assert_eq!(
        compiled(&json!({"default": zones})).unwrap_err().len(),
        MAX_PROBLEMS
    );
}

#[test]
fn many_joins() {
    let join = |at: usize| {
        json!(["add", "x", ["hops", {"datasets": [format!("d{at} a"), format!("e{at} b")],
            "where": [["eq", "_S.x", "a.x"], ["eq", ["lower", "a.y"], ["lower", "b.y"]]]}]])
    };
    let joins: Vec<Json> = (0..1_000).map(join).collect();
    let program = compiled(&json!({"default": joins})).unwrap();
    assert_eq!(
        (program.reads().len(), program.indexes().len()),
        (2_000, 2_000)
    );
    let aliases: Vec<String> = (0..MAX_HOPS_DATASETS)
        .map(|at| format!("d a{at}"))
        .collect();
    let chain: Vec<Json> = (0..MAX_HOPS_DATASETS)
        .map(|at| match at {
            0 => json!(["eq", "_S.x", "a0.x"]),
            _ => json!(["eq", format!("a{}.x", at - 1), format!("a{at}.x")]),
        })
        .collect();
    let rules = |aliases: &[String], chain: &[Json]| {
        let hops = json!(["hops", {"datasets": aliases, "where": chain}]);
        json!({"default": [["add", "x", hops]]})
    };
    compiled(&rules(&aliases, &chain)).unwrap();
    let more = [aliases, vec!["d z".to_owned()]].concat();
    let problems = compiled(&rules(&more, &chain)).unwrap_err();
    assert!(
        problems[0].message.contains("at most 100 datasets"),
        "{}",
        problems[0]
    );
}

/// The documentation's rules, many times over, in one rule: nothing grows with the square.
#[test]
fn documented_rules_repeated() {
    let lines = include_str!("../vectors/dtl.jsonl").lines();
    let mut statements = Vec::new();
    for line in lines {
        let rules = support::parse(line)["rules"].take();
        let alone = rules.as_object().is_some_and(|rules| rules.len() == 1);
        if alone && compile(&rules, &Options::default()).is_ok() {
            statements.extend(rules["default"].as_array().cloned().unwrap_or_default());
        }
    }
    let statements: Vec<Json> = statements
        .iter()
        .filter(|s| s.is_array())
        .cloned()
        .collect();
    assert!(statements.len() > 300, "{}", statements.len());
    let time = |times: usize| {
        let all: Vec<Json> = statements
            .iter()
            .cycle()
            .take(times * statements.len())
            .cloned()
            .collect();
        let rules = json!({"default": all});
        let started = busy();
        let _ = compile(&rules, &Options::default());
        busy().saturating_sub(started)
    };
    let (once, often) = (time(2), time(20));
    assert!(
        often < 40 * once + Duration::from_millis(500),
        "{once:?} {often:?}"
    );
}
