//! Properties: compiling any JSON ends, running what compiles ends, sorting is an order.

use std::cell::RefCell;
use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Map, Value as Json};
use tahini_dtl::functions::{Chapter, EXPRESSIONS, Function, Kind, Many, TRANSFORMS};
use tahini_dtl::{Options, Segment, compile};
use tahini_entity::json::{Numbers, parse_value};
use tahini_entity::order;

use crate::support::{self, Datasets};

/// Scalars that rules are made of, strange ones among them.
fn scalar() -> impl Strategy<Value = Json> {
    const TEXTS: &[&str] = &[
        "_S.",
        "_S.a",
        "_S.a.b",
        "_T.",
        "_P._S.a",
        "_R._T.a",
        "_B.x",
        "_.",
        "_.a",
        "_X.a",
        "_S",
        "_S.'",
        "_S.'a.b'",
        "_S..",
        "a",
        "",
        "*",
        "a*",
        "::a",
        ":a",
        "n:a",
        "$ids",
        "_id",
        "_deleted",
        "day",
        "%Y",
        "%",
        "Europe/Oslo",
        "murmur3",
        "~rx:y",
        "~:a:b",
        "~t2015-01-01T00:00:00Z",
        "~t",
        "~f1.5",
        "~f1e90000",
        "~bYWJj",
        "x",
        "default",
        "rule",
        "d a",
        "a.x",
        "0x80",
        "1e5",
        "{",
        "å🙂",
    ];
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        prop_oneof![-3i64..12, Just(i64::MAX), Just(i64::MIN), Just(100_000)].prop_map(Json::from),
        prop_oneof![Just(0.5), Just(-2.5), Just(1e300)].prop_map(Json::from),
        prop::sample::select(TEXTS).prop_map(Json::from),
        Just(support::parse("123456789012345678901234567890")),
    ]
}

/// Values for parameters that take no arbitrary literal.
fn fitting(kind: Kind, pick: usize) -> Option<Json> {
    let choose = |choices: &[&str]| Some(Json::from(choices[pick % choices.len()]));
    match kind {
        Kind::Integer => Some(Json::from([0, 1, -1, 3, 1_000_000, i64::MAX][pick % 6])),
        Kind::Number => Some(Json::from([0.0, 1.5, -2.0, 1e300][pick % 4])),
        Kind::String => choose(&["a", "", "*", "-", "Europe/Oslo", "%Y-%m-%d", "murmur3", "å"]),
        Kind::DatePart => choose(&["year", "month", "week", "nanosecond"]),
        Kind::Property => choose(&["a", "_id", "$x", "::a", "n:b", "_deleted"]),
        Kind::Patterns => choose(&["*", "a", "a*", "n:*", "_*", "?"]),
        Kind::Rule => choose(&["rule", "again"]),
        _ => None,
    }
}

/// A call with a fitting number of arguments, mostly of fitting kinds.
fn call_of(function: &Function, pool: Vec<Json>, picks: Vec<usize>) -> Json {
    let mut call = vec![Json::from(function.name)];
    let mut pool = pool.into_iter().zip(picks).cycle();
    for arg in function.args {
        let (_, pick) = pool.next().unwrap();
        let times = match arg.many {
            Many::One | Many::Pairs | Many::PairEnd => 1,
            Many::Optional => pick % 2,
            Many::Any => pick % 4,
            Many::Some => 1 + pick % 3,
        };
        for _ in 0..times {
            let (value, pick) = pool.next().unwrap();
            let keep = value.is_array() && !matches!(arg.kind, Kind::Rule | Kind::Patterns);
            call.push(fitting(arg.kind, pick).filter(|_| !keep).unwrap_or(value));
        }
    }
    Json::Array(call)
}

fn call(
    chapters: &'static [Chapter],
    inner: impl Strategy<Value = Json>,
) -> impl Strategy<Value = Json> {
    let functions: Vec<&Function> = chapters.iter().flat_map(|c| c.functions).collect();
    (
        prop::sample::select(functions),
        prop::collection::vec(inner, 8),
        prop::collection::vec(0usize..100, 8),
    )
        .prop_map(|(function, pool, picks)| call_of(function, pool, picks))
}

/// An expression, mostly a sound one.
fn expression() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(4, 100, 8, |inner| call(EXPRESSIONS, inner))
}

/// A statement, mostly a sound one.
fn statement() -> impl Strategy<Value = Json> {
    prop_oneof![
        expression().prop_map(|json| Json::Array(vec!["add".into(), "r".into(), json])),
        call(TRANSFORMS, expression()),
    ]
}

/// JSON that looks like rules: calls of known functions with anything as arguments.
fn anything() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(5, 60, 5, |inner| {
        const NAMES: &[&str] = &["a", "datasets", "where", "_id"];
        let pair = (prop::sample::select(NAMES), inner.clone());
        prop_oneof![
            3 => call(EXPRESSIONS, inner.clone()),
            1 => call(TRANSFORMS, inner.clone()),
            1 => prop::collection::vec(inner, 0..4).prop_map(Json::Array),
            1 => prop::collection::vec(pair, 0..3).prop_map(|pairs| {
                let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
                Json::Object(pairs.collect::<Map<_, _>>())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn compiling_any_json_ends(json in anything()) {
        let _ = compile(&json, &Options::default());
        let mut rules = Map::new();
        rules.insert("default".to_owned(), json);
        let _ = compile(&Json::Object(rules), &Options::default());
    }

    #[test]
    fn running_what_compiles_ends(
        statements in prop::collection::vec(statement(), 0..5),
        namespaced in any::<bool>(),
        entity in scalar(),
    ) {
        let options = Options {
            namespaced_identifiers: namespaced,
            id_required: false,
            pipe: "pipe".to_owned(),
            ..Options::default()
        };
        let rules_of = |statements: Vec<Json>| {
            let mut rules = Map::new();
            rules.insert("default".to_owned(), Json::Array(statements));
            rules.insert("rule".to_owned(), support::parse(r#"[["copy", "*"], ["add", "a", "_S.a"]]"#));
            rules.insert("again".to_owned(), support::parse(r#"[["if", "_S.", ["add", "a", ["apply", "again", "_S.a"]]]]"#));
            Json::Object(rules)
        };
        // Statements that do not compile are left out, so that some rules remain.
        let compiles = |json: &Json| compile(&rules_of(vec![json.clone()]), &options).is_ok();
        let statements = statements.into_iter().filter(compiles);
        let program = compile(&rules_of(statements.collect()), &options).unwrap();
        let mut source = support::parse(r#"{"_id": "1", "b": [1, {"a": 2}], "n:a": 3}"#);
        source["a"] = entity;
        let result = support::run(&program, &support::batch(&[source]), &Datasets::default(), &RefCell::default());
        // Whatever comes out can be written and read.
        for entity in result.into_iter().flat_map(|(out, _)| out) {
            let text = support::text_of(&entity);
            prop_assert!(parse_value(text.as_bytes(), Numbers::FLOATS).is_ok(), "{}", text);
        }
    }

    #[test]
    fn sorted_is_an_order(values in prop::collection::vec(scalar(), 0..12)) {
        let mut call = vec![Json::from("list")];
        call.extend(values.into_iter().map(|value| Json::Array(vec!["literal".into(), value])));
        let list = Json::Array(call).to_string();
        let sorted = support::value(&format!("[\"sorted\", {list}]"), "{}");
        let again = support::value(&format!("[\"sorted\", [\"reversed\", {list}]]"), "{}");
        let parse = |text: &str| match parse_value(text.as_bytes(), Numbers::FLOATS).unwrap() {
            tahini_entity::Value::List(items) => items,
            other => panic!("{other:?}"),
        };
        let (sorted, again) = (parse(&sorted), parse(&again));
        prop_assert!(sorted.windows(2).all(|pair| order::compare(&pair[0], &pair[1]) != Ordering::Greater));
        prop_assert_eq!(sorted.len(), again.len());
        prop_assert!(sorted.iter().zip(&again).all(|(a, b)| order::eq(a, b)));
    }
}

/// Every part of a document, by the way to it, outermost first.
fn places(json: &Json, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match json {
        Json::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                places(item, &format!("{here}/{at}"), all);
            }
        }
        Json::Object(pairs) => {
            for (name, item) in pairs {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(item, &format!("{here}/{name}"), all);
            }
        }
        _ => {}
    }
}

/// The rules of the documentation's examples, joins among them.
fn documented() -> Vec<Json> {
    let lines = include_str!("../vectors/dtl.jsonl").lines();
    lines
        .chain(include_str!("../vectors/hops.jsonl").lines())
        .map(|line| support::parse(line)["rules"].take())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Rules that were right once, with parts cut out, replaced, doubled and put elsewhere: the
    /// compiler answers, and every problem is at a place that is there.
    #[test]
    fn damaged_rules_are_answered(
        rules in prop::sample::select(documented()),
        damages in prop::collection::vec((0usize..1000, 0usize..1000, 0usize..6, anything()), 1..4),
    ) {
        let mut rules = rules;
        for (at, from, how, other) in damages {
            let mut all = Vec::new();
            places(&rules, "", &mut all);
            let given = rules.pointer(&all[from % all.len()]).unwrap().clone();
            let place = rules.pointer_mut(&all[at % all.len()]).unwrap();
            match (how, &mut *place) {
                (0, Json::Array(items)) => drop(items.pop()),
                (1, Json::Array(items)) => items.push(given),
                (2, Json::Object(pairs)) => {
                    let last = pairs.keys().next_back().cloned().unwrap_or_default();
                    pairs.remove(&last);
                },
                (3, _) => *place = given,
                (4, Json::Array(items)) => items.reverse(),
                _ => *place = other,
            }
        }
        if let Err(problems) = compile(&rules, &Options::default()) {
            prop_assert!(!problems.is_empty());
            let document = Json::Object(Map::from_iter([("rules".to_owned(), rules)]));
            for problem in problems {
                prop_assert!(!problem.message.is_empty());
                let mut place = Some(&document);
                for segment in &problem.path.0 {
                    place = place.and_then(|place| match segment {
                        Segment::Name(name) => place.get(name),
                        Segment::Position(at) => place.get(at),
                    });
                }
                let path = problem.path.to_string();
                // What is missing has no place: its path ends with its name.
                let missing = matches!(problem.path.0.last(), Some(Segment::Name(_)));
                prop_assert!(place.is_some() || missing, "{}: {}", path, problem.message);
            }
        }
    }
}

/// Recursion through every kind of construct ends in the limit, not in the stack.
#[test]
fn recursion_through_anything_hits_the_limit() {
    for expression in [
        r#"["map", ["apply", "again", "_."], "_S."]"#,
        r#"["filter", ["apply", "again", "_."], ["list", "_S."]]"#,
        r#"["map-dict", "_.", ["apply", "again", "_."], {"a": 1}]"#,
        r#"["sorted", ["apply", "again", "_."], ["list", 1, 2]]"#,
        r#"["boolean", ["apply", "again", "_."], "x"]"#,
        r#"["group-by", ["apply", "again", "_."], "_S."]"#,
        r#"["case-eq", ["apply", "again", 1], 2, 3]"#,
        r#"["coalesce", ["apply", "again", "_."], ["list", 1]]"#,
        r#"["path", ["apply", "again", 1], ["dict", "a", 1]]"#,
        r#"["plus", ["apply", "again", 1], 1]"#,
        r#"["if", ["and", ["or", ["apply", "again", 1]]], 1]"#,
    ] {
        let again = format!(r#"[["if", true, ["case", true, [["add", "r", {expression}]]]]]"#);
        let rules =
            format!(r#"{{"default": [["add", "r", ["apply", "again", 1]]], "again": {again}}}"#);
        let program = support::rules(&rules, &Options::default()).unwrap();
        let input = support::batch(&[support::parse(r#"{"_id": "1"}"#)]);
        let result = support::run(&program, &input, &Datasets::default(), &RefCell::default());
        let error = result.expect_err(expression);
        assert!(error.message.contains("levels"), "{expression}: {error}");
    }
}
