//! What the node's own figure does not tell apart.
//!
//! | call | what |
//! | --- | --- |
//! | `own evaluate` | microseconds an entity that DTL takes for entities that were opened or read already, three ways |
//! | `own compile` | milliseconds to compile the rules of 300 pipes of the usual size |

use std::io::{self, BufRead};
use std::time::Duration;

use cpu_time::ThreadTime;
use serde_json::{Value as Json, json};
use tahini_dtl::{Context, NoLookup, Options, Program};
use tahini_entity::Batch;
use tahini_entity::json::{Numbers, Opened, Parser};

const RULES: &str = include_str!("../../rules/people.dtl.json");
const PIPE: &str = include_str!("../../rules/pipe.dtl.json");
/// Entities evaluated at a time.
const ROWS: usize = 1000;
const PIPES: usize = 300;

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("evaluate") => evaluate(),
        Some("compile") => {
            compile();
            Ok(())
        }
        _ => Err(io::Error::other("expected evaluate or compile")),
    }
}

/// `evaluate_us`: every expression, with nothing written, since the rules end by discarding the
/// entity. `lines_us`: results written as lines. `encoded_us`: from encoded entities to encoded
/// and hashed ones, as between the pipes of a node.
fn evaluate() -> io::Result<()> {
    let lines: Vec<String> = io::stdin().lock().lines().collect::<io::Result<_>>()?;
    let mut rules: Json = serde_json::from_str(RULES).expect("the rules are JSON");
    let program = compiled(&rules);
    let statements = rules["default"].as_array_mut().expect("a rule is a list");
    statements.push(json!(["discard"]));
    let discarding = compiled(&rules);
    let context = Context::new(Default::default(), &NoLookup);
    let mut parser = Parser::new(Numbers::FLOATS);
    let (mut opened, mut text, mut written) = (Opened::new(), Vec::new(), Vec::new());
    let (mut input, mut out, mut origins) = (Batch::new(), Batch::new(), Vec::new());
    let (mut spent, mut kept) = ([Duration::ZERO; 3], 0);
    for chunk in lines.chunks(ROWS) {
        text.clear();
        written.clear();
        opened.clear();
        text.extend(chunk.iter().flat_map(|line| line.bytes()));
        let mut at = 0;
        while at < text.len() {
            at = opened.open(&text, at).expect("a line is an entity of the usual kind");
        }
        let lines = opened.lines(&text);
        spent[0] += timed(|| {
            let result = discarding.transform_lines(lines, &context, &mut written);
            result.expect("the rules hold");
        });
        assert!(written.is_empty());
        let lines = opened.lines(&text);
        spent[1] += timed(|| {
            let result = program.transform_lines(lines, &context, &mut written);
            result.expect("the rules hold");
        });
        input.clear();
        out.clear();
        origins.clear();
        for line in chunk {
            parser.push_json(&mut input, line.as_bytes()).expect("a line is an entity");
        }
        spent[2] += timed(|| {
            let result = program.transform(&input, &context, &mut out, &mut origins);
            result.expect("the rules hold");
        });
        let wanted = out.iter().filter(|record| !record.meta.filtered).count();
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), wanted);
        kept += wanted;
    }
    let [evaluate, to_lines, encoded] = spent.map(|time| time.as_secs_f64() * 1e6 / lines.len() as f64);
    println!(
        "{{\"entities\": {}, \"kept\": {kept}, \"evaluate_us\": {evaluate:.4}, \"lines_us\": {to_lines:.4}, \"encoded_us\": {encoded:.4}}}",
        lines.len()
    );
    Ok(())
}

fn compiled(rules: &Json) -> Program {
    tahini_dtl::compile(rules, &Options::default()).expect("the rules compile")
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = ThreadTime::now();
    work();
    started.elapsed()
}

fn compile() {
    let rules = serde_json::from_str(PIPE).expect("the rules are JSON");
    let spent = timed(|| {
        for _ in 0..PIPES {
            compiled(&rules);
        }
    });
    println!("{{\"pipes\": {PIPES}, \"ms\": {:.2}}}", spent.as_secs_f64() * 1e3);
}
