//! The cases in `tests/spec`: data that says what the language does.

use tahini_dtl::Options;

use crate::support;

#[test]
fn expressions() {
    let mut count = 0;
    let mut failures = Vec::new();
    for file in [
        include_str!("../spec/lists.jsonl"),
        include_str!("../spec/logic.jsonl"),
        include_str!("../spec/numbers.jsonl"),
        include_str!("../spec/paths.jsonl"),
        include_str!("../spec/strings.jsonl"),
        include_str!("../spec/types.jsonl"),
    ] {
        for line in file.lines() {
            let case = support::parse(line);
            let parts = case.as_array().unwrap();
            let source = if parts.len() == 3 {
                parts[1].to_string()
            } else {
                "{}".to_owned()
            };
            let found = support::try_value(&parts[0].to_string(), &source);
            let found = found.map(|text| support::parse(&text).to_string());
            let expected = parts.last().unwrap().to_string();
            count += 1;
            if found.as_ref() != Ok(&expected) {
                failures.push(format!("{} expected {expected}, found {found:?}", parts[0]));
            }
        }
    }
    println!("{count} cases of expressions, {} failed", failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn statements() {
    for line in include_str!("../spec/statements.jsonl").lines() {
        let case = support::parse(line);
        let parts = case.as_array().unwrap();
        let found = support::outcome(
            &parts[0].to_string(),
            &parts[1].to_string(),
            &Options::default(),
        );
        let expected: Vec<String> = parts[2]
            .as_array()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected, "{}", parts[0]);
    }
}
