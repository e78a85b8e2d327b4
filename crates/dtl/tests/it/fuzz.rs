//! No JSON whatever makes the language panic: rules made by chance from the table of functions,
//! documented rules with bytes and parts of them changed, and raw JSON, compiled and run.
//!
//! The short run has a fixed seed. A long one writes each case to a file before it is tried, so
//! that one which ends the process is known too:
//! `FUZZ_SECONDS=600 FUZZ_SEED=7 cargo test --profile ci -p tahini-dtl --test it fuzz -- --nocapture`

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json};
use tahini_dtl::functions::{EXPRESSIONS, Function, Kind, Many, TRANSFORMS};
use tahini_dtl::{Context, Options, compile, compile_traced, steps_json, steps_text};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, Opened, Parser, write_record};

use crate::support::{self, Datasets};

/// Numbers that look like chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `most`.
    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const TEXTS: &[&str] = &[
    "_S.",
    "_S.a",
    "_S.a.b",
    "_S.list",
    "_S.text",
    "_S.when",
    "_T.",
    "_T.r",
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
    "_S.n:a",
    "_S.$ids",
    "_S._updated",
    "a",
    "b",
    "",
    "*",
    "a*",
    "*a?*",
    "?",
    "::a",
    ":a",
    "n:a",
    "$ids",
    "_id",
    "_deleted",
    "$children",
    "day",
    "month",
    "%Y",
    "%",
    "%d.%m.%y %H:%M:%S.%f%z",
    "Europe/Oslo",
    "Mars/Base",
    "murmur3",
    "NO",
    "~rx:y",
    "~:a:b",
    "~t2015-01-01T00:00:00Z",
    "~t9999-12-31",
    "~t",
    "~f1.5",
    "~f1e90000",
    "~bYWJj",
    "~uabc98f65-ddf5-1234-a8f5-82f6d8e601a8",
    "x",
    "default",
    "rule",
    "again",
    "d",
    "d a",
    "a.x",
    "x._id",
    "0x80",
    "1e5",
    "-0",
    "{",
    "[1,[2,{\"a\":null}]]",
    "å🙂",
    "e\u{301}\u{200d}",
    "\u{0}",
    "İ",
    "ŉΐ",
    "tel:+4722222222",
    "-----BEGIN PGP MESSAGE-----\n\nyQ==\n=AAAA\n-----END PGP MESSAGE-----",
    "gAAAAA==",
    "%C3%A5%zz",
]; // fmt: skip

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "100",
    "-100",
    "65536",
    "1000000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "123456789012345678901234567890",
    "0.5",
    "-2.5",
    "1e300",
    "-1e-300",
    "1e400",
    "4.9e-324",
    "1.0",
]; // fmt: skip

fn scalar(chance: &mut Chance) -> Json {
    match chance.below(10) {
        0 => Json::Null,
        1 => Json::from(chance.once_in(2)),
        2..5 => support::parse(chance.of(NUMBERS)),
        _ => Json::from(chance.of(TEXTS)),
    }
}

/// Any JSON, shallow mostly.
fn anything(chance: &mut Chance, depth: usize) -> Json {
    if depth == 0 || chance.once_in(3) {
        return scalar(chance);
    }
    let count = chance.below(5);
    match chance.below(3) {
        0 => call(chance, depth),
        1 => (0..count).map(|_| anything(chance, depth - 1)).collect(),
        _ => {
            const NAMES: &[&str] = &[
                "a", "datasets", "where", "return", "recurse", "subsets", "_id", "default", "",
            ];
            let pairs =
                (0..count).map(|_| ((chance.of(NAMES)).to_owned(), anything(chance, depth - 1)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

/// What may stand in the place of a parameter; now and then something else.
fn argument(chance: &mut Chance, kind: Kind, depth: usize) -> Json {
    if chance.once_in(12) {
        return anything(chance, depth.min(3));
    }
    match kind {
        Kind::Value | Kind::Boolean | Kind::Function | Kind::Default => expression(chance, depth),
        Kind::Integer | Kind::Number if chance.once_in(2) => support::parse(chance.of(NUMBERS)),
        Kind::String | Kind::Property if chance.once_in(2) => Json::from(chance.of(TEXTS)),
        Kind::Integer | Kind::Number | Kind::String | Kind::Property => expression(chance, depth),
        Kind::DatePart => {
            Json::from(chance.of(&["year", "month", "week", "nanosecond", "_S.text"]))
        }
        Kind::Patterns => Json::from(chance.of(&["*", "a*", "n:*", "?", "_id", "*a*b?"])),
        Kind::Rule => Json::from(chance.of(&["rule", "again", "tree"])),
        Kind::Transforms => (0..chance.below(3))
            .map(|_| statement(chance, depth.saturating_sub(1)))
            .collect(),
        Kind::Hops => support::parse(r#"{"datasets": ["d x"], "where": ["eq", "_S.a", "x.k"]}"#),
        Kind::Literal => anything(chance, depth.min(3)),
    }
}

fn call_of(chance: &mut Chance, function: &Function, depth: usize) -> Json {
    let mut call = vec![Json::from(function.name)];
    for arg in function.args {
        let times = match arg.many {
            Many::One | Many::Pairs | Many::PairEnd => 1,
            Many::Optional => chance.below(2),
            Many::Any => chance.below(4),
            Many::Some => 1 + chance.below(3),
        };
        for _ in 0..times {
            call.push(argument(chance, arg.kind, depth.saturating_sub(1)));
        }
    }
    match chance.below(40) {
        0 => drop(call.pop()),
        1 => call.push(scalar(chance)),
        _ => {}
    }
    Json::Array(call)
}

fn call(chance: &mut Chance, depth: usize) -> Json {
    let functions: Vec<&Function> = EXPRESSIONS
        .iter()
        .flat_map(|chapter| chapter.functions)
        .collect();
    let function = chance.of(&functions);
    call_of(chance, function, depth)
}

fn expression(chance: &mut Chance, depth: usize) -> Json {
    if depth == 0 || chance.once_in(4) {
        return scalar(chance);
    }
    // Calls in calls, as deep as rules may be.
    if chance.once_in(300) {
        let levels = 100 + chance.below(40);
        let inner = call(chance, 2);
        return (0..levels).fold(inner, |inner, _| Json::Array(vec!["list".into(), inner]));
    }
    call(chance, depth)
}

fn statement(chance: &mut Chance, depth: usize) -> Json {
    if chance.once_in(2) {
        let name = chance.of(&["r", "a", "n:r", "_id", "$x"]);
        return Json::Array(vec!["add".into(), name.into(), expression(chance, depth)]);
    }
    let functions = TRANSFORMS[0].functions;
    let function = &functions[chance.below(functions.len())];
    // Nobody waits for a fuzzer that sleeps.
    match function.name {
        "sleep!" => expression(chance, 1),
        _ => call_of(chance, function, depth),
    }
}

/// Rules with statements made by chance; those that do not compile are left out mostly, so that
/// something remains to run.
fn made(chance: &mut Chance, options: &Options) -> Json {
    let mut rules = Map::new();
    let depth = 1 + chance.below(5);
    let count = 1 + chance.below(5);
    let keep_all = chance.once_in(8);
    let mut statements = Vec::new();
    for _ in 0..count {
        let one = statement(chance, depth);
        if keep_all || compile(&with_rules(vec![one.clone()]), options).is_ok() {
            statements.push(one);
        }
    }
    rules.extend(
        with_rules(statements)
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    Json::Object(rules)
}

fn with_rules(statements: Vec<Json>) -> Json {
    let mut rules = support::parse(
        r#"{"rule": [["copy", "*"], ["add", "a", "_S.a"], ["add", "p", "_P._T.r"]],
            "again": [["if", "_S.", ["add", "a", ["apply", "again", "_S.a"]]]],
            "tree": [["if", ["is-list", "_S."], ["add", "r", ["apply", "tree", "_S."]], ["add", "s", ["list", "_S.", "_P."]]]]}"#,
    );
    rules["default"] = Json::Array(statements);
    rules
}

/// A documented text with some bytes changed; `None` when that is no JSON any more.
fn mutated(chance: &mut Chance, text: &str) -> Option<Json> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + chance.below(6) {
        let at = chance.below(bytes.len());
        match chance.below(5) {
            0 => bytes[at] = b"0123456789[]{}\",:.-_*%~ant"[chance.below(26)],
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"9[]{}\"'.:"[chance.below(9)]),
            3 => {
                let end = (at + chance.below(30)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = chance.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => bytes[at] ^= 1 << chance.below(7),
        }
        if bytes.is_empty() {
            return None;
        }
    }
    serde_json::from_slice(&bytes).ok()
}

/// Entities of several kinds, one of them with a value made by chance.
fn entities(chance: &mut Chance) -> Vec<Json> {
    let mut plain = support::parse(
        r#"{"_id": "1", "a": {"b": [1, "2", null], "a": {"a": 3}}, "list": [3, 1, {"a": 1}, [2], "x"], "text": "Åse, 1-2",
            "when": "~t2015-07-28T09:46:00Z", "n:a": "~:n:x", "m:a": [1, "~f1.50"], "x": "~bYWJj"}"#,
    );
    let mut other = plain.clone();
    other["_id"] = "n:2".into();
    other["a"] = anything(chance, 3);
    plain["big"] = support::parse(chance.of(NUMBERS));
    vec![plain, other]
}

/// Compiles rules in every way and runs what compiles in every way, with a small budget.
fn tried(chance: &mut Chance, rules: &Json, options: &Options, datasets: &Datasets) -> bool {
    let Ok(program) = compile(rules, options) else {
        let _ = compile_traced(rules, options).map(drop);
        return false;
    };
    // What a source cannot bring is no entity.
    let mut input = Batch::new();
    let mut parser = Parser::new(Numbers::FLOATS);
    for entity in entities(chance) {
        let _ = parser.push_json(&mut input, entity.to_string().as_bytes());
    }
    let looks = Cell::new(0);
    let stopped = || {
        looks.set(looks.get() + 1);
        looks.get() > 60
    };
    let mut context = Context::new("2024-02-29T12:30:00.5Z".parse().unwrap(), datasets);
    context.stopped = Some(&stopped);
    let (mut out, mut origins) = (Batch::new(), Vec::new());
    let result = program.transform(&input, &context, &mut out, &mut origins);
    assert_eq!(out.len(), origins.len());
    let mut text = Vec::new();
    for record in out.iter() {
        text.clear();
        write_record(record, Fields::ALL, &mut text);
        // Whatever comes out can be written and read.
        parser.push_json(&mut Batch::new(), &text).unwrap();
    }
    if result.is_ok() && program.is_deterministic() && !program.sleeps() && looks.get() < 4 {
        context.stopped = None;
        support::ways_agree(&program, &input, &context);
        context.stopped = Some(&stopped);
    }
    looks.set(0);
    let lines = support::lines_of(&input, Fields::ALL);
    let mut opened = Opened::new();
    let mut at = 0;
    while at < lines.len() {
        match opened.open(lines.as_bytes(), at) {
            Some(end) => at = end + 1,
            None => break,
        }
    }
    let _ = program.transform_lines(opened.lines(lines.as_bytes()), &context, &mut Vec::new());
    if chance.once_in(3) {
        looks.set(0);
        let traced = compile_traced(rules, options).expect("it compiled before");
        for explained in traced.explain(&input, &context) {
            let _ = (
                steps_json(&explained.steps),
                steps_text(&explained.steps, rules),
            );
        }
    }
    true
}

/// Says which case it was when one panics, and keeps it where a long run may end the process.
struct Told<'t>(&'t str, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}: {}", self.1, self.0);
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_json_makes_the_language_panic() {
    let seconds = number_of("FUZZ_SECONDS");
    let seed = number_of("FUZZ_SEED").unwrap_or(1);
    let documented: Vec<String> = include_str!("../vectors/dtl.jsonl")
        .lines()
        .chain(include_str!("../vectors/hops.jsonl").lines())
        .map(|line| support::parse(line)["rules"].to_string())
        .collect();
    let datasets = Datasets::from_json(&support::parse(
        r#"{"d": [{"_id": "1", "k": 1, "next": "2"}, {"_id": "2", "k": ["x", 1]}], "persons": [{"_id": "1"}]}"#,
    ));
    let kept = std::env::temp_dir().join(format!("tahini-fuzz-{seed}.json"));
    let begun = Instant::now();
    let (mut tries, mut ran) = (0u64, 0u64);
    loop {
        let done = match seconds {
            Some(seconds) => begun.elapsed() > Duration::from_secs(seconds),
            None => tries >= 2_500,
        };
        if done {
            break;
        }
        tries += 1;
        let case = seed.wrapping_mul(1_000_003).wrapping_add(tries);
        let mut chance = Chance(case);
        let options = Options {
            namespaced_identifiers: chance.once_in(3),
            id_required: chance.once_in(2),
            pipe: "pipe".to_owned(),
            ..Options::default()
        };
        let rules = match chance.below(6) {
            0 => {
                let text = &documented[chance.below(documented.len())];
                mutated(&mut chance, text).unwrap_or(Json::Null)
            }
            1 => anything(&mut chance, 6),
            _ => made(&mut chance, &options),
        };
        let text = rules.to_string();
        if seconds.is_some() {
            std::fs::write(&kept, format!("{case} {text}")).unwrap();
        }
        let _told = Told(&text, case);
        let took = Instant::now();
        ran += u64::from(tried(&mut chance, &rules, &options, &datasets));
        if seconds.is_some() && took.elapsed() > Duration::from_secs(5) {
            println!("{:.1} s, {case}: {text:.600}", took.elapsed().as_secs_f64());
        }
    }
    println!("{tries} rules, {ran} of them ran");
    assert!(
        ran * 3 > tries,
        "{ran} of {tries} ran: the generator makes too little that compiles"
    );
}
