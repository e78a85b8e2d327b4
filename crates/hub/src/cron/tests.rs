//! Tables of expressions, as data.

use serde_json::Value as Json;

use super::*;

fn table(text: &str) -> Vec<Json> {
    match serde_json::from_str(text).unwrap() {
        Json::Array(rows) => rows,
        other => panic!("expected a list, found {other}"),
    }
}

fn text<'a>(row: &'a Json, name: &str) -> &'a str {
    row[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {row}"))
}

#[test]
fn next_moments() {
    for row in table(include_str!("../../tests/data/cron/next.json")) {
        let expression = text(&row, "cron");
        let cron = Cron::parse(expression).unwrap();
        let mut time: Timestamp = text(&row, "after").parse().unwrap();
        for expected in row["next"].as_array().unwrap() {
            let next = cron.next_after(time);
            let printed = next.map(|next| next.to_string());
            assert_eq!(
                printed.as_deref(),
                expected.as_str(),
                "{expression} after {time}"
            );
            let Some(next) = next else { break };
            time = next;
        }
    }
}

#[test]
fn refused_with_a_reason() {
    for row in table(include_str!("../../tests/data/cron/refused.json")) {
        let expression = text(&row, "cron");
        match Cron::parse(expression) {
            Ok(_) => panic!("{expression} should be refused"),
            Err(why) => {
                for part in row["says"].as_array().unwrap() {
                    assert!(why.contains(part.as_str().unwrap()), "{expression}: {why}");
                }
            }
        }
    }
}

#[test]
fn the_same_days_written_differently() {
    let from: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for same in [
        ["0 0 * * 5L", "0 0 * * L5", "0 0 ? * FRIL", "0 0 * * fril"],
        ["0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "@weekly"],
        [
            "0 0 * * 1-5",
            "0 0 * * MON-FRI",
            "0 0 * * 1,2,3,4,5",
            "0 0 ? * mon-fri *",
        ],
        [
            "0 0 * * 5-7",
            "0 0 * * FRI-SUN",
            "0 0 * * 0,5,6",
            "0 0 * * FRI,SAT,SUN",
        ],
        [
            "0 0 * * 1/2",
            "0 0 * * 1,3,5",
            "0 0 * * MON/2",
            "0 0 * * 1-6/2",
        ],
        [
            "0 0 1 JAN-DEC/3 *",
            "0 0 1 1,4,7,10 *",
            "0 0 1 */3 ?",
            "0 0 1 1/3 * *",
        ],
    ] {
        let moments = |expression: &str| {
            let cron = Cron::parse(expression).unwrap();
            let mut time = from;
            let mut moments = Vec::new();
            for _ in 0..40 {
                time = cron.next_after(time).unwrap();
                moments.push(time);
            }
            moments
        };
        let first = moments(same[0]);
        for other in &same[1..] {
            assert_eq!(moments(other), first, "{} and {other}", same[0]);
        }
    }
}
