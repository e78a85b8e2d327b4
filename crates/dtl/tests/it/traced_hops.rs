//! `trace` of `hops`: how many entities one evaluation joined at the most.

use std::cell::Cell;

use tahini_dtl::{Context, Options, Program, compile};
use tahini_entity::Batch;

use crate::support::{self, Datasets};

/// People by their team, and what they own.
fn datasets() -> Datasets {
    Datasets::from_json(&support::parse(
        r#"{"people": [
                {"_id": "a", "team": "1"}, {"_id": "b", "team": "1", "boss": "a"},
                {"_id": "c", "team": "2", "boss": "a"}, {"_id": "d", "boss": "c"}],
            "things": [
                {"_id": "t", "owner": "a"}, {"_id": "u", "owner": "a"}, {"_id": "v", "owner": "b"}]}"#,
    ))
}

fn program(rules: &str) -> Program {
    compile(&support::parse(rules), &Options::default()).unwrap_or_else(|p| panic!("{p:?}"))
}

/// What is counted by name when batches of entities with these ids go through.
fn counted(rules: &str, batches: &[&[&str]]) -> Vec<(String, u64)> {
    let (program, datasets) = (program(rules), datasets());
    let cells = vec![Cell::default(); program.traced_hops().len()];
    let mut context = Context::new("2024-01-01T00:00:00Z".parse().unwrap(), &datasets);
    context.traced_hops = Some(&cells);
    for ids in batches {
        let entities: Vec<_> = ids
            .iter()
            .map(|id| serde_json::json!({"_id": id}))
            .collect();
        let input = support::batch(&entities);
        // What fails was counted up to there.
        let _ = program.transform(&input, &context, &mut Batch::new(), &mut Vec::new());
    }
    let names = program.traced_hops().iter().cloned();
    names.zip(cells.iter().map(Cell::get)).collect()
}

#[track_caller]
fn expect(rules: &str, batches: &[&[&str]], expected: &[(&str, u64)]) {
    let found = counted(rules, batches);
    let found: Vec<(&str, u64)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(found, expected, "{rules}");
}

/// A rule that adds what `hops` with these specs gives.
fn adds(specs: &str) -> String {
    format!(r#"{{"default": [["add", "x", ["hops", {specs}]]]}}"#)
}

const MEMBERS: &str = r#""datasets": ["people p"], "where": ["eq", "_S._id", "p.team"]"#;

#[test]
fn the_most_of_all_entities_and_batches_counts() {
    let rules = adds(&format!(r#"{{{MEMBERS}, "trace": "members"}}"#));
    expect(&rules, &[], &[("members", 0)]);
    expect(&rules, &[&["3"]], &[("members", 0)]);
    expect(&rules, &[&["2"]], &[("members", 1)]);
    expect(&rules, &[&["1"]], &[("members", 2)]);
    expect(&rules, &[&["2", "1", "2"], &["3"]], &[("members", 2)]);
    expect(&rules, &[&["2"], &["1"], &["2"]], &[("members", 2)]);
    assert!(program(&rules).warnings().is_empty());
}

#[test]
fn a_call_without_a_name_counts_nothing() {
    assert!(counted(&adds(&format!("{{{MEMBERS}}}")), &[&["1"]]).is_empty());
}

#[test]
fn every_row_counts_for_each_alias() {
    let rules = adds(
        r#"{"datasets": ["people p", "things t"], "trace": "things",
            "where": [["eq", "_S._id", "p.team"], ["eq", "t.owner", "p._id"]]}"#,
    );
    // Two things of one member, one of the other.
    expect(&rules, &[&["1"]], &[("things", 6)]);
}

#[test]
fn all_specs_and_levels_of_a_call_count_together() {
    let things = r#""datasets": ["things t"], "where": ["eq", "_S._id", "t.owner"]"#;
    let chain = adds(&format!(r#"{{{MEMBERS}}}, {{{things}, "trace": "both"}}"#));
    expect(&chain, &[&["1"]], &[("both", 5)]);
    let below = adds(
        r#"{"datasets": ["people p"], "where": ["eq", "_S._id", "p.boss"], "recurse": true,
            "trace": "below"}"#,
    );
    expect(&below, &[&["c", "a"]], &[("below", 3)]);
}

/// Each evaluation counts by itself, and so does each call in another one.
#[test]
fn calls_in_each_other_are_told_apart() {
    let things = r#"["hops", {"datasets": ["things t"], "where": ["eq", "p._id", "t.owner"],
        "trace": "things"}]"#;
    let rules = adds(&format!(
        r#"{{{MEMBERS}, "trace": "members", "return": {things}}}"#
    ));
    expect(&rules, &[&["1"]], &[("members", 2), ("things", 2)]);
    // Those without a name count for nobody.
    let rules = adds(&format!(
        r#"{{{MEMBERS}, "trace": "members", "return": {}}}"#,
        things.replace(r#""trace": "things""#, r#""track-dependencies": true"#)
    ));
    expect(&rules, &[&["1"]], &[("members", 2)]);
    // A rule that is at work several times, and joins two below "a" and one below "c" meanwhile.
    let rules = r#"{"default": [["add", "x", ["apply-hops", "below",
            {"datasets": ["people p"], "where": ["eq", "_S._id", "p._id"]}]]],
        "below": [["add", "x", ["hops", {"datasets": ["people p"], "trace": "below",
            "where": ["eq", "_S._id", "p.boss"], "return": ["apply-hops", "below",
                {"datasets": ["people q"], "where": ["eq", "p._id", "q._id"]}]}]]]}"#;
    expect(rules, &[&["a"]], &[("below", 2)]);
    let rules = format!(
        r#"{{"default": [["add", "x", ["apply-hops", "things", {{{MEMBERS}, "trace": "m"}}]]],
            "things": [["add", "x", ["hops", {{"datasets": ["things t"], "trace": "t",
                "where": ["eq", "_S._id", "t.owner"]}}]]]}}"#
    );
    let mut found = counted(&rules, &[&["1"]]);
    found.sort();
    assert_eq!(found, [("m".to_owned(), 2), ("t".to_owned(), 2)]);
}

#[test]
fn what_an_entity_joined_before_it_failed_counts() {
    let rules = format!(
        r#"{{"default": [["add", "x", ["hops", {{{MEMBERS}, "trace": "members"}}]], ["fail!", "no"]]}}"#
    );
    expect(&rules, &[&["1", "2"]], &[("members", 2)]);
}

/// An entity is evaluated until all that it looks for is known; what it would do without that is
/// not counted.
#[test]
fn rounds_that_miss_something_count_nothing() {
    let rules = r#"{"default": [["if", ["is-null", ["lookup-entity", "people", "a"]],
        ["add", "x", ["hops", {"datasets": ["people p"], "where": ["eq", "_S._id", "p._id"],
            "trace": "never"}]]]]}"#;
    expect(rules, &[&["a"]], &[("never", 0)]);
}

#[test]
fn a_name_that_does_not_stand_last_is_told() {
    let rules = adds(&format!(r#"{{{MEMBERS}, "trace": "m"}}, {{{MEMBERS}}}"#));
    let program = program(&rules);
    let warnings: Vec<String> = program.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let place = "$.rules.default[0][2][1].trace: ";
    assert!(warnings[0].starts_with(place), "{warnings:?}");
    assert!(program.traced_hops().is_empty());
}
