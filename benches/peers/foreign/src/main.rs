//! The peers of the DTL benchmark: the same work as `rules/people.dtl.json`, from NDJSON on
//! stdin to NDJSON on stdout, and the time that evaluation takes by itself.
//!
//! | call | what |
//! | --- | --- |
//! | `foreign by-hand` | a program written for this one task over sonic-rs's values |
//! | `foreign vrl` | the Vector Remap Language over its own values, read and written by serde_json |
//! | `foreign evaluate` | microseconds an entity that VRL takes for values that were read already, without and with writing the results |

mod by_hand;
mod remap;

use std::io::{self, BufRead, BufWriter, Write};
use std::time::Duration;

use cpu_time::ThreadTime;

/// Entities evaluated at a time.
const ROWS: usize = 1000;

fn main() -> io::Result<()> {
    let mut remap = remap::Remap::new();
    match std::env::args().nth(1).as_deref() {
        Some("by-hand") => each_line(by_hand::transform),
        Some("vrl") => each_line(|line, out| remap.transform(line, out)),
        Some("evaluate") => evaluate(&mut remap),
        _ => Err(io::Error::other("expected by-hand, vrl or evaluate")),
    }
}

/// Hands every line of stdin to `transform`, which appends a line, or nothing, to what goes to
/// stdout.
fn each_line(mut transform: impl FnMut(&[u8], &mut Vec<u8>)) -> io::Result<()> {
    let mut input = io::BufReader::with_capacity(1 << 20, io::stdin().lock());
    let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let (mut line, mut out) = (Vec::new(), Vec::new());
    while input.read_until(b'\n', &mut line)? > 0 {
        transform(&line, &mut out);
        output.write_all(&out)?;
        line.clear();
        out.clear();
    }
    output.flush()
}

fn evaluate(remap: &mut remap::Remap) -> io::Result<()> {
    let lines: Vec<String> = io::stdin().lock().lines().collect::<io::Result<_>>()?;
    let (mut spent, mut writing, mut kept) = (Duration::ZERO, Duration::ZERO, 0);
    let (mut wanted, mut out) = (Vec::with_capacity(ROWS), Vec::new());
    for chunk in lines.chunks(ROWS) {
        let mut targets: Vec<_> = chunk.iter().map(|line| remap::parse(line.as_bytes())).collect();
        let started = ThreadTime::now();
        wanted.clear();
        wanted.extend(targets.iter_mut().map(|target| remap.evaluate(target)));
        spent += started.elapsed();
        out.clear();
        let started = ThreadTime::now();
        for (target, _) in targets.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
            kept += 1;
            serde_json::to_writer(&mut out, &target.value)?;
            out.push(b'\n');
        }
        writing += started.elapsed();
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / lines.len() as f64;
    println!(
        "{{\"entities\": {}, \"kept\": {kept}, \"evaluate_us\": {:.4}, \"lines_us\": {:.4}}}",
        lines.len(),
        each(spent),
        each(spent + writing)
    );
    Ok(())
}
