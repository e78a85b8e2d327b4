//! How changes of joined entities lead back to the source.

use tahini_dtl::{Dependencies, Options, Side, To, compile};

use crate::support;

fn dependencies(rules: &str) -> Dependencies {
    let options = Options::default();
    let program = compile(&support::parse(rules), &options);
    let program = program.unwrap_or_else(|problems| panic!("{rules}: {problems:?}"));
    program.dependencies().clone()
}

/// Each step as `dataset.own-key > place.key`, in the order of the aliases.
fn steps(found: &Dependencies) -> Vec<String> {
    let side = |side: &Side| match side {
        Side::Id => "_id".to_owned(),
        Side::Index(index) => index.fingerprint().replace("_.", "").replace('"', ""),
    };
    let places = found.places.iter().flat_map(|place| {
        place.back.iter().map(move |back| {
            let to = match back.to {
                To::Source => "source",
                To::Place(at) => &found.places[at].dataset,
            };
            if let (To::Place(at), Side::Index(index)) = (back.to, &back.there) {
                assert_eq!(index.dataset(), found.places[at].dataset);
            }
            let (own, there) = (side(&back.own), side(&back.there));
            format!("{}.{own} > {to}.{there}", place.dataset)
        })
    });
    places.collect()
}

#[track_caller]
fn check(rules: &str, expected: &[&str]) {
    let found = dependencies(rules);
    assert_eq!(steps(&found), expected, "{rules}");
    assert_eq!(found.untracked, [], "{rules}");
}

/// Rules whose default rule adds what this `hops` or `apply-hops` gives.
fn adding(call: &str) -> String {
    format!(r#"{{"default": [["add", "x", {call}]]}}"#)
}

#[test]
fn a_join_is_gone_back_by_its_other_side() {
    for (spec, expected) in [
        (
            r#"{"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"]}"#,
            &["a.j > source.k"][..],
        ),
        (
            r#"{"datasets": ["a a"], "where": ["eq", "a._id", "_S._id"]}"#,
            &["a._id > source._id"],
        ),
        (
            r#"{"datasets": ["a a"], "where": [["eq", ["lower", "_S.k"], ["upper", "a.j"]]]}"#,
            &["a.[upper,j] > source.[lower,k]"],
        ),
        // Through another alias, in the order of the joins and against it.
        (
            r#"{"datasets": ["a a", "b b"], "where": [["eq", "_S.k", "a._id"], ["eq", "a.p", "b.q"]]}"#,
            &["a._id > source.k", "b.q > a.p"],
        ),
        (
            r#"{"datasets": ["b b", "a a"], "where": [["eq", "a.p", "b.q"], ["eq", "_S.k", "a._id"]]}"#,
            &["b.q > a.p", "a._id > source.k"],
        ),
        // What the rule that is applied to everything is called from outside.
        (
            r#"{"datasets": ["a a"], "where": ["eq", "_R._S.k", "a.j"]}"#,
            &["a.j > source.k"],
        ),
    ] {
        check(&adding(&format!(r#"["hops", {spec}]"#)), expected);
    }
}

#[test]
fn chains_and_recursion_lead_through_what_they_return() {
    let a = r#"{"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"]}"#;
    let b = r#"{"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]}"#;
    check(
        &adding(&format!(r#"["hops", {a}, {b}]"#)),
        &["a.j > source.k", "b._id > a.p"],
    );
    let up = r#"{"datasets": ["a a"], "where": ["eq", "_S.p", "a._id"], "recurse": true"#;
    check(
        &adding(&format!(r#"["hops", {up}}}]"#)),
        &["a._id > source.p", "a._id > a.p"],
    );
    check(
        &adding(&format!(r#"["hops", {up}}}, {b}]"#)),
        &[
            "a._id > source.p",
            "a._id > a.p",
            "b._id > source.p",
            "b._id > a.p",
        ],
    );
    check(
        &adding(&format!(r#"["hops", {up}, "exclude_root": true}}, {b}]"#)),
        &["a._id > source.p", "a._id > a.p", "b._id > a.p"],
    );
    // In a chain the parent of what is joined is what the rule is applied to.
    let parent = r#"{"datasets": ["b b"], "where": ["eq", "_P._S.q", "b._id"]}"#;
    check(
        &format!(
            r#"{{"default": [["add", "x", ["apply-hops", "r",
                {{"datasets": ["z z"], "where": ["eq", "_S.k", "z.j"]}}]]],
                "r": [["add", "y", ["hops", {a}, {parent}]]]}}"#
        ),
        &["z.j > source.k", "a.j > z.k", "b._id > z.q"],
    );
    // Inside what is returned.
    check(
        &adding(
            r#"["hops", {"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"], "return":
                ["hops", {"datasets": ["b b"], "where": ["eq", "a.p", "b._id"]}]}]"#,
        ),
        &["a.j > source.k", "b._id > a.p"],
    );
}

#[test]
fn applied_rules_know_what_they_are_applied_to() {
    let rules = |inner: &str| {
        format!(
            r#"{{"default": [["add", "x", ["apply-hops", "r",
                {{"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"]}}]]],
                "r": [["add", "y", ["apply-hops", "s",
                {{"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]}}]]],
                "s": [["add", "z", ["hops", {{"datasets": ["c c"], "where": {inner}}}]]]}}"#
        )
    };
    for (inner, last) in [
        (r#"["eq", "_S.w", "c._id"]"#, "c._id > b.w"),
        (r#"["eq", "_P._S.w", "c._id"]"#, "c._id > a.w"),
        (r#"["eq", "_P._P._S.w", "c._id"]"#, "c._id > source.w"),
        (r#"["eq", "_R._S.w", "c._id"]"#, "c._id > source.w"),
    ] {
        check(&rules(inner), &["a.j > source.k", "b._id > a.p", last]);
    }
    // Applied to itself, and from two places.
    check(
        r#"{"default": [["add", "x", ["apply-hops", "r",
                {"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"]}]]],
            "r": [["add", "y", ["apply-hops", "r",
                {"datasets": ["a b"], "where": ["eq", "_S.p", "b._id"]}]]]}"#,
        &["a.j > source.k", "a._id > a.p", "a._id > a.p"],
    );
}

#[test]
fn what_need_not_be_tracked_is_on_the_way_all_the_same() {
    let found = dependencies(&adding(
        r#"["hops", {"datasets": ["a a"], "where": ["eq", "_S.k", "a.j"], "track-dependencies": false},
            {"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]}]"#,
    ));
    assert_eq!(steps(&found), ["a.j > source.k", "b._id > a.p"]);
    assert_eq!(found.datasets(), ["b"]);
    // Nothing is said of joins that nobody wants to be followed.
    let found = dependencies(&adding(
        r#"["hops", {"datasets": ["a a"], "where": ["eq", "_T.k", "a.j"], "track-dependencies": false}]"#,
    ));
    assert_eq!((found.datasets(), found.untracked.len()), (vec![], 0));
}

#[test]
fn what_cannot_be_followed_is_told_with_its_place() {
    let chain = r#"{"datasets": ["b b"], "where": ["eq", "_S.p", "b._id"]}"#;
    for (spec, lost, why) in [
        (r#"["eq", "_T.k", "a.j"]"#, "[2][1].where", "_T"),
        (
            r#"["eq", ["tuples", "_S.k", "_R._T.l"], ["tuples", "a.j", "a.i"]]"#,
            "[2][1].where",
            "_T",
        ),
        (
            r#"[["eq", 1, 1], ["eq", ["plus", "_S.k", "_R._S.k"], "a.j"]]"#,
            "[2][1].where[1]",
            "several",
        ),
        (
            r#"["eq", ["list", "_S.k", ["now"]], "a.j"]"#,
            "[2][1].where",
            "more than the entity",
        ),
    ] {
        let spec = format!(r#"{{"datasets": ["a a"], "where": {spec}}}"#);
        let rules = adding(&format!(r#"["hops", {spec}, {chain}]"#));
        let found = dependencies(&rules);
        // Neither is what is joined behind it.
        assert_eq!(
            (steps(&found), found.datasets()),
            (vec![], vec![]),
            "{rules}"
        );
        let told: Vec<(&str, String)> = found
            .untracked
            .iter()
            .map(|lost| (lost.dataset.as_str(), lost.path.to_string()))
            .collect();
        assert_eq!(
            told,
            [("a", format!("$.rules.default[0]{lost}"))],
            "{rules}"
        );
        assert!(
            found.untracked[0].why.contains(why),
            "{rules}: {}",
            found.untracked[0].why
        );
    }
}

#[test]
fn what_goes_item_by_item_is_known() {
    let goes = |key: &str| {
        let spec = format!(r#"{{"datasets": ["a a"], "where": ["eq", {key}, "a.j"]}}"#);
        let found = dependencies(&adding(&format!(r#"["hops", {spec}]"#)));
        match &found.places[0].back[0].there {
            Side::Index(index) => index.goes_item_by_item(),
            Side::Id => panic!("{key} is no id"),
        }
    };
    for key in [
        r#""_S.p""#,
        r#""_S.p.q""#,
        r#""_S.$ids""#,
        r#"["upper", "_S.p"]"#,
        r#"["map", ["upper", "_."], "_S.p"]"#,
        r#"["map", "_.q", "_S.p"]"#,
        r#"["filter", ["neq", "_.", "N/A"], "_S.p"]"#,
        r#"["filter", ["is-null", "_."], "_S.p"]"#,
        r#"["distinct", "_S.p"]"#,
        r#"["filter", ["neq", "_.", ""], ["upper", "_S.p"]]"#,
        r#"["distinct", ["map", ["concat", "x", "_."], ["filter", ["is-not-null", "_."], "_S.p"]]]"#,
    ] {
        assert!(goes(key), "{key}");
    }
    for key in [
        r#"["first", "_S.p"]"#,
        r#"["last", "_S.p"]"#,
        r#"["count", "_S.p"]"#,
        r#"["if-null", "_S.p", "x"]"#,
        r#"["concat", "x", "_S.p"]"#,
        r#"["concat", "_S.p", "_S.q"]"#,
        // A null of one of those that were merged counts only beside what others have.
        r#"["map", ["if-null", "_.", "x"], "_S.p"]"#,
        r#"["map", ["concat", "x", "_."], "_S.p"]"#,
        r#"["map", ["is-null", "_."], ["distinct", "_S.p"]]"#,
        // Which one stays depends on the others.
        r#"["distinct", ["upper", "_."], "_S.p"]"#,
        // It looks at more than the items.
        r#"["filter", ["eq", "_.", "_S.q"], "_S.p"]"#,
        r#"["map", ["concat", "_.", "_S.q"], "_S.p"]"#,
        r#"["map", ["upper", "_."], ["first", "_S.p"]]"#,
    ] {
        assert!(!goes(key), "{key}");
    }
}
