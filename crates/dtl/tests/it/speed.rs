//! A measurement by hand, not a test:
//! `python3 entities.py 200000 > /tmp/e && SPEED=/tmp/e cargo test --release -p tahini-dtl --test it speed -- --ignored --nocapture`

use std::time::Instant;

use tahini_dtl::{Context, NoLookup, Options, compile};
use tahini_entity::Batch;
use tahini_entity::json::{Fields, Numbers, Parser, write_record};

use crate::support;

const RULES: &str = r#"{"default": [
    ["filter", ["and", "_S.active", ["gte", "_S.age", 30]]],
    ["copy", "*", ["list", "note", "zip", "city", "email"]],
    ["rename", "email", "mail"],
    ["add", "full_name", ["concat", "_S.first_name", " ", "_S.last_name"]],
    ["add", "CITY", ["upper", "_S.city"]],
    ["remove", "tags"]
]}"#;

#[test]
#[ignore = "a measurement"]
fn speed() {
    let text = std::fs::read(std::env::var("SPEED").unwrap()).unwrap();
    let lines: Vec<&[u8]> = text
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    let program = compile(&support::parse(RULES), &Options::default()).unwrap();
    let context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &NoLookup);
    let mut parser = Parser::new(Numbers::FLOATS);
    let (mut parse, mut evaluate, mut write) = (0.0, 0.0, 0.0);
    let (mut input, mut out, mut origins, mut json) =
        (Batch::new(), Batch::new(), Vec::new(), Vec::new());
    for chunk in lines.chunks(1000) {
        input.clear();
        out.clear();
        origins.clear();
        json.clear();
        let started = Instant::now();
        for line in chunk {
            parser.push_json(&mut input, line).unwrap();
        }
        let parsed = Instant::now();
        program
            .transform(&input, &context, &mut out, &mut origins)
            .unwrap();
        let evaluated = Instant::now();
        for record in out.iter() {
            write_record(record, Fields::CONTENT, &mut json);
        }
        parse += (parsed - started).as_secs_f64();
        evaluate += (evaluated - parsed).as_secs_f64();
        write += evaluated.elapsed().as_secs_f64();
    }
    let rate = |seconds: f64| lines.len() as f64 / seconds / 1000.0;
    println!(
        "parse {:.0} k/s, evaluate {:.0} k/s, write {:.0} k/s, all {:.0} k/s",
        rate(parse),
        rate(evaluate),
        rate(write),
        rate(parse + evaluate + write)
    );
}
