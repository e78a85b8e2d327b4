//! What is wrong with rules is said at once, with the place and a suggestion.

use serde_json::{Value as Json, json};
use tahini_dtl::{Options, Severity, compile};

use crate::support;

/// The problems of rules, as "path: message", errors only.
fn errors(rules: &str) -> Vec<String> {
    match compile(&support::parse(rules), &Options::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(ToString::to_string)
            .collect(),
    }
}

fn warnings(rules: &str) -> Vec<String> {
    let program = compile(&support::parse(rules), &Options::default()).unwrap();
    program.warnings().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn one_error(rules: &str, path: &str, words: &[&str]) {
    let found = errors(rules);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("{path}: ")), "{found:?}");
    for word in words {
        assert!(found[0].contains(word), "{word} in {found:?}");
    }
}

/// The one thing that is wrong with an expression.
#[track_caller]
fn one_error_in(call: &str, words: &str) {
    let found = errors(&format!("{{\"default\": [[\"add\", \"r\", {call}]]}}"));
    let words = words.replace("\\\"", "\"");
    assert!(
        found.len() == 1 && found[0].contains(&words),
        "{call}: {found:?}"
    );
}

#[test]
fn all_problems_are_found_at_once() {
    let rules = r#"{"default": [
        ["copyy", "*"],
        ["add", "a", ["uper", "_S.x"]],
        ["add", "b", ["if", ["eq", 1], "_X.y", "_S.a..b"]],
        ["filter", ["gt", "_S.a"]]
    ]}"#;
    let found = errors(rules);
    let places: Vec<&str> = found
        .iter()
        .map(|error| error.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "$.rules.default[0]",
            "$.rules.default[1][2]",
            "$.rules.default[2][2][1]",
            "$.rules.default[2][2][2]",
            "$.rules.default[2][2][3]",
            "$.rules.default[3][1]",
        ],
        "{found:#?}"
    );
    assert!(found[0].ends_with("did you mean \"copy\"?"), "{}", found[0]);
    assert!(
        found[1].ends_with("did you mean \"upper\"?"),
        "{}",
        found[1]
    );
}

#[test]
fn rules_must_be_an_object_with_default() {
    one_error(
        "[]",
        "$.rules",
        &["an object of named rules", "a list of 0 items"],
    );
    one_error(r#"{"other": []}"#, "$.rules", &["\"default\"", "\"other\""]);
    one_error(r#"{"default": 5}"#, "$.rules.default", &["the number 5"]);
    one_error(
        r#"{"default": [5]}"#,
        "$.rules.default[0]",
        &["a transform function"],
    );
    one_error(
        r#"{"default": [[["add", "a", 1]]]}"#,
        "$.rules.default[0]",
        &["a list in a list"],
    );
    one_error(
        r#"{"default": [["upper", "_S.a"]]}"#,
        "$.rules.default[0]",
        &["[\"add\", PROPERTY, [\"upper\", … ]]"],
    );
    one_error(
        r#"{"default": [["add", "a", ["copy", "b"]]]}"#,
        "$.rules.default[0][2]",
        &["the transform function \"copy\""],
    );
}

#[test]
fn arguments_are_counted_and_checked() {
    for (call, words) in [
        (
            r#"["upper"]"#,
            "expected 1 argument for \"upper\" (VALUES), found 0",
        ),
        (r#"["upper", 1, 2]"#, "expected 1 argument"),
        (
            r#"["split"]"#,
            "expected 1 or 2 arguments for \"split\" (SEPARATOR?, VALUES), found 0",
        ),
        (r#"["slice", 1]"#, "expected 2 to 4 arguments"),
        (r#"["concat"]"#, "expected at least 1 argument"),
        (r#"["case", true]"#, "expected at least 2 arguments"),
        (r#"["now", 1]"#, "expected no arguments"),
        (r#"["dict", 1, 2, 3]"#, "found 3 arguments"),
        (
            r#"["plus", "one", 1]"#,
            "expected a number for INCREMENT, found the string \"one\"",
        ),
        (
            r#"["ljust", 1.5, "x", "y"]"#,
            "expected an integer for WIDTH, found the number 1.5",
        ),
        (
            r#"["ljust", 2, "xy", "y"]"#,
            "expected a single character for FILL_CHARACTER, found \"xy\"",
        ),
        (r#"["join", 5, "_S.x"]"#, "expected a string for SEPARATOR"),
        (
            r#"["hash128", "md5", "_S.d"]"#,
            "expected \"murmur3\" for ALGORITHM, found \"md5\"",
        ),
        (
            r#"["apply", "nix", "_S.d"]"#,
            "expected the name of a rule, found \"nix\"",
        ),
        (
            r#"["apply-ns", 5, "_S.d"]"#,
            "expected a namespace or a dict of options",
        ),
        (r#"["lookup", "d", "i"]"#, "lookup-entity"),
        (
            r#"["phonenumber-parse", "Norway", "1"]"#,
            "expected two capital letters of a country such as NO",
        ),
        (
            r#"["phonenumber-format", "e165", "~rtel:+4722222222"]"#,
            "expected e164, rfc3966",
        ),
        (
            r#"["encrypt-pki", "k", "a"]"#,
            "expected an RSA public key in PEM format",
        ),
        (
            r#"["decrypt-pki", "k", "~bAAEC"]"#,
            "expected an RSA private key in PEM format",
        ),
        (
            r#"["encrypt-pgp", "k", "a"]"#,
            "expected a PGP PUBLIC KEY BLOCK",
        ),
        (
            r#"["decrypt-pgp", "k", "p", "a"]"#,
            "expected a PGP PRIVATE KEY BLOCK",
        ),
        ("[]", "an empty list; it is written [\\\"list\\\"]"),
        ("[1, 2]", "a list of values is written"),
        (r#""_S.'a""#, "expected a closing '"),
        (
            r#""_Q.a""#,
            "expected one of the variables _S, _T, _P, _R, _B and _, found \"_Q\"",
        ),
        (r#""_P._S.a""#, "_P only in rules that are applied"),
    ] {
        one_error_in(call, words);
    }
}

#[test]
fn literals_that_can_never_work_are_told() {
    for (call, words) in [
        (
            r#"["datetime-plus", "days", 1, "_S.d"]"#,
            "did you mean \"day\"?",
        ),
        (r#"["datetime-parse", "%Q", "_S.d"]"#, "found \"%Q\""),
        (
            r#"["datetime-parse", "Europe/Olso", "%Y", "_S.d"]"#,
            "found \"Europe/Olso\"; did you mean \"Europe/Oslo\"?",
        ),
        (
            r#"["datetime-shift", "UTC", "Europe/Olso", "_S.d"]"#,
            "found \"Europe/Olso\"; did you mean \"Europe/Oslo\"?",
        ),
        (
            r#"["datetime-format", "%Y-%m-%D", "_S.d"]"#,
            "found \"%D\"; did you mean \"%d\"?",
        ),
        (
            r#"["datetime-plus", "year", 1000000000000000000000000000000, "_S.d"]"#,
            "expected a VALUE between the years 1 and 9999, found 1000000",
        ),
        (
            r#"["hash128", "murmur3", 4294967296, "_S.d"]"#,
            "expected a SEED from 0 to 4294967295, found 4294967296",
        ),
        (
            r#"["hash128", "murmur3", -1, "_S.d"]"#,
            "expected a SEED from 0 to 4294967295, found -1",
        ),
        (
            r#"["range", 0, 4, 0]"#,
            "expected a step other than 0, found 0",
        ),
        (
            r#"["slice", 0, 1, 0, "_S.d"]"#,
            "expected a step other than 0, found 0",
        ),
    ] {
        one_error_in(call, words);
    }
}

#[test]
fn statements_check_their_arguments() {
    for (statement, words) in [
        (r#"["copy", 5]"#, "a property's name or pattern"),
        (
            r#"["copy", ["list", "a", ["upper", "b"]]]"#,
            "as a constant string",
        ),
        (
            r#"["add", 5, 1]"#,
            "expected a property's name, found the number 5",
        ),
        (r#"["add", "a"]"#, "expected 2 arguments"),
        (
            r#"["fail!", 5]"#,
            "expected a string for MESSAGE, found the number 5",
        ),
        (
            r#"["trip!", true]"#,
            "expected a string for MESSAGE, found true",
        ),
        (
            r#"["if", true, "add"]"#,
            "expected a transform function or a list of them",
        ),
        (
            r#"["case", true, ["upper", "x"]]"#,
            "a transform function, found the function",
        ),
    ] {
        let found = errors(&format!("{{\"default\": [{statement}]}}"));
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{statement}: {found:?}"
        );
    }
}

#[test]
fn hops_are_checked() {
    for (spec, words) in [
        (r#"{"where": []}"#, "expected a list of datasets"),
        (r#"{"datasets": ["d"], "where": []}"#, "\"DATASET ALIAS\""),
        (
            r#"{"datasets": ["d _S"], "where": []}"#,
            "does not start with _",
        ),
        (r#"{"datasets": ["d a"]}"#, "expected \"where\""),
        (
            r#"{"datasets": ["d a"], "where": ["eq", "a.x", 1]}"#,
            "joins every alias",
        ),
        (
            r#"{"datasets": ["d a", "e b"], "where": ["eq", "_S.x", "a.x"]}"#,
            "found none for \"b\"",
        ),
        (
            r#"{"datasets": ["d a"], "where": ["eq", "_S.x", "a.x"], "return": "b"}"#,
            "an alias",
        ),
        (r#"5"#, "expected an object with \"datasets\""),
        (
            r#"{"datasets": ["d a"], "where": ["eq", "_S.x", "a.x"], "subsets": {"b": 1}}"#,
            "expected an alias of \"datasets\", found \"b\"",
        ),
    ] {
        let found = errors(&format!(
            "{{\"default\": [[\"add\", \"r\", [\"hops\", {spec}]]]}}"
        ));
        assert!(
            !found.is_empty() && found[0].contains(words),
            "{spec}: {found:?}"
        );
    }
}

#[test]
fn applying_a_rule_with_hops_needs_apply_hops() {
    let hops = r#"["hops", {"datasets": ["d a"], "where": ["eq", "_S.x", "a.x"]}]"#;
    let rules = format!(
        r#"{{"default": [["add", "r", ["apply", "x", "_S.y"]]], "x": [["add", "h", {hops}]]}}"#
    );
    one_error(&rules, "$.rules.default[0][2][1]", &["apply-hops"]);
}

#[test]
fn warnings_leave_the_rules_running() {
    for (rules, words) in [
        (
            r#"{"default": [], "lost": []}"#,
            "$.rules.lost: expected every rule to be applied",
        ),
        (
            r#"{"default": [["filter"], ["add", "a", 1]]}"#,
            "$.rules.default[1]: expected nothing",
        ),
        (
            r#"{"default": [["add", "a", "_S"]]}"#,
            "expected \"_S.\" for the variable",
        ),
        (
            r#"{"default": [["add", "a", "_s.name"]]}"#,
            "expected \"_S.\" for the variable, found \"_s.\"",
        ),
        (
            r#"{"default": [["add", "a", "_.x"]]}"#,
            "inside a function expression",
        ),
        (
            r#"{"default": [["add", "a", {"b": "_S.x"}]]}"#,
            "stays a string",
        ),
        (
            r#"{"default": [["add", "a", ["hops", {"datasets": ["d a"], "where": [
                ["eq", "_S.x", "a.x"], ["eq", "_S.y", "a.y"]]}]]]}"#,
            "[\"tuples\", … ]",
        ),
        (
            r#"{"default": [["add", "a", ["hops", {"datasets": ["d a"], "recurs": true,
                "where": ["eq", "_S.x", "a.x"]}]]]}"#,
            "did you mean \"recurse\"?",
        ),
        (
            r#"{"default": [["rename", "a*", "b"]]}"#,
            "$.rules.default[0][1]: expected a property's name for \"rename\", which takes no \
             patterns, found \"a*\"",
        ),
    ] {
        let found = warnings(rules);
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{rules}: {found:?}"
        );
    }
    assert_eq!(warnings(r#"{"default": [["copy", "*"]]}"#), [""; 0]);
}

/// A spec's place in the rules, and strings in it that look like paths of an alias.
#[test]
fn unknown_aliases_in_hops_are_told() {
    let spec = "$.rules.default[0][2][1]";
    for (hops, path, words) in [
        (
            r#""datasets": ["orders order"], "where": [["eq", "_S._id", "order.customer"],
                ["eq", "ordr.type", "x"]]"#,
            ".where[1][1]",
            "expected one of the aliases order, found \"ordr\", with which \"ordr.type\" is a \
             string; did you mean \"order\"?",
        ),
        (
            r#""datasets": ["orders o"], "where": ["eq", "_S.order", "o._id"], "return": "oo._id""#,
            ".return",
            "found \"oo\", with which \"oo._id\" is a string; did you mean \"o\"?",
        ),
        (
            r#""datasets": ["orders o"], "where": ["eq", "_S.order", "o._id"],
                "subsets": {"o": ["eq", "oo.type", "x"]}"#,
            ".subsets.o[1]",
            "found \"oo\"",
        ),
        (
            r#""datasets": ["orders o", "lines line"], "where": [["eq", "_S.order", "o._id"],
                ["eq", "o.n", ["concat", "line.n", "lin.m"]]]"#,
            ".where[1][2][2]",
            "expected one of the aliases line, o, found \"lin\"",
        ),
    ] {
        let rules = format!(r#"{{"default": [["add", "r", ["hops", {{{hops}}}]]]}}"#);
        let found = warnings(&rules);
        // The same expression may be looked at as an index and as what it is.
        assert!(
            !found.is_empty()
                && found
                    .iter()
                    .all(|one| one.starts_with(&format!("{spec}{path}: ")))
                && found[0].contains(words),
            "{hops}: {found:#?}"
        );
        assert_eq!(found.len(), 1, "{found:#?}");
    }
    // Where nothing joins because of it, both are told.
    let unjoined = r#"{"default": [["add", "r", ["hops", {"datasets": ["orders order"],
        "where": ["eq", "_S._id", "ordr.customer"]}]]]}"#;
    let problems = compile(&support::parse(unjoined), &Options::default()).unwrap_err();
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), 2, "{words:#?}");
    for part in ["joins every alias", "did you mean \"order\"?"] {
        let told = words.iter().any(|one| one.contains(part));
        assert!(told, "{part} in {words:#?}");
    }
}

#[test]
fn other_strings_in_hops_are_strings() {
    for text in [
        "active",
        "http://a.org/b",
        "1.5",
        "Mr. Smith",
        "%d.%m.%Y",
        "o.a",
        "_S.b",
    ] {
        let rules = format!(
            r#"{{"default": [["add", "r", ["hops", {{"datasets": ["d o"],
                "where": [["eq", "_S.k", "o.k"], ["eq", "o.v", "{text}"]]}}]]]}}"#
        );
        let found = warnings(&rules);
        let about_aliases = found.iter().filter(|one| one.contains("aliases")).count();
        assert_eq!(about_aliases, 0, "{text}: {found:?}");
    }
    let quoted = r#"{"default": [["add", "r", ["hops", {"datasets": ["d o"],
        "where": [["eq", "_S.k", "o.k"], ["eq", "o.v", ["literal", "a.b"]]]}]]]}"#;
    assert_eq!(warnings(quoted), [""; 0]);
}

#[test]
fn paths_quote_names_that_are_not_plain() {
    let rules = r#"{"default": [["add", "r", ["apply", "a b", 1]]], "a b": [["nix"]]}"#;
    one_error(rules, "$.rules[\"a b\"][0]", &["nix"]);
}

#[test]
fn what_rules_read_is_known() {
    let rules = support::parse(
        r#"{"default": [
            ["add", "a", ["hops", {"datasets": ["orders o", "lines l"], "track-dependencies": false,
                "where": [["eq", "_S._id", "o.customer"], ["eq", "o._id", "l.order"]]}]],
            ["add", "b", ["hops", {"datasets": ["orders x"], "where": ["eq", "_S.k", "x.customer"]}]],
            ["add", "c", ["lookup-entity", "codes", "_S.code"]]
        ]}"#,
    );
    let program = compile(&rules, &Options::default()).unwrap();
    let reads: Vec<(&str, bool)> = program
        .reads()
        .iter()
        .map(|read| (read.dataset.as_str(), read.tracked))
        .collect();
    assert_eq!(
        reads,
        [("orders", true), ("lines", false), ("codes", false)]
    );
    let indexes: Vec<(&str, &str)> = program
        .indexes()
        .iter()
        .map(|index| (index.dataset(), index.fingerprint()))
        .collect();
    assert_eq!(
        indexes,
        [("orders", "\"_.customer\""), ("lines", "\"_.order\"")]
    );
    assert!(!program.is_deterministic());
}

#[test]
fn determinism_is_known() {
    for (expression, deterministic) in [
        (r#"["upper", "_S.a"]"#, true),
        (r#"["uuid", "_S.a"]"#, true),
        (r#"["uuid"]"#, false),
        (r#"["now"]"#, false),
        (r#""_S._ts""#, false),
        (r#""_S.x._ts""#, true),
    ] {
        let rules = support::parse(&format!(
            "{{\"default\": [[\"add\", \"r\", {expression}]]}}"
        ));
        let program = compile(&rules, &Options::default()).unwrap();
        assert_eq!(program.is_deterministic(), deterministic, "{expression}");
    }
}

#[test]
fn nesting_is_limited() {
    let mut deep = Json::from(1);
    for _ in 0..10_000 {
        deep = Json::Array(vec![deep]);
    }
    let mut rules = Json::Object(serde_json::Map::new());
    rules["default"] = deep;
    let problems = compile(&rules, &Options::default()).unwrap_err();
    assert!(
        problems[0].message.contains("at most 128 levels"),
        "{problems:?}"
    );
    // Dropping a document this deep would overflow the stack; taking it apart does not.
    let mut rest = rules;
    while let Some(inner) = first_child(&mut rest) {
        rest = inner;
    }
}

fn first_child(json: &mut Json) -> Option<Json> {
    match json {
        Json::Array(items) => items.pop(),
        Json::Object(pairs) => pairs.values_mut().next().map(Json::take),
        _ => None,
    }
}

#[test]
fn what_a_function_refuses_is_said_at_its_argument() {
    for (call, place, words) in [
        (
            r#"["phonenumber-format", "bogus", "x"]"#,
            1,
            "found the string \"bogus\"",
        ),
        (
            r#"["phonenumber-parse", "no", "x"]"#,
            1,
            "found the string \"no\"",
        ),
        (r#"["ljust", 5, "ab", "x"]"#, 2, "found"),
        (r#"["encrypt-pki", "nokey", "x"]"#, 1, "found other text"),
    ] {
        let rules = format!("{{\"default\": [[\"add\", \"r\", {call}]]}}");
        one_error(&rules, &format!("$.rules.default[0][2][{place}]"), &[words]);
    }
}

#[test]
fn hops_properties_are_of_their_kind() {
    let spec = |property: &str| {
        format!(
            r#"{{"default": [["add", "r", ["hops", {{"datasets": ["P a"], {property},
                "where": ["eq", "_S.x", "a._id"]}}]]]}}"#
        )
    };
    for (property, name, expected) in [
        (r#""recurse": "yes""#, "recurse", "true or false"),
        (r#""exclude_root": 1"#, "exclude_root", "true or false"),
        (
            r#""track-dependencies": "no""#,
            "track-dependencies",
            "true or false",
        ),
        (r#""trace": 5"#, "trace", "a name"),
        (r#""subsets": []"#, "subsets", "an object"),
    ] {
        let path = format!("$.rules.default[0][2][1].{name}");
        one_error(&spec(property), &path, &["expected", expected, "found"]);
    }
    let subset = r#"{"a": ["eq", "_S.value", 1]}"#;
    let old = warnings(&spec(&format!("\"prefilters\": {subset}")));
    assert!(old.len() == 1 && old[0].contains("subsets"), "{old:?}");
    let both = format!("\"prefilters\": {subset}, \"subsets\": {subset}");
    one_error(
        &spec(&both),
        "$.rules.default[0][2][1].prefilters",
        &["beside"],
    );
}

#[test]
fn rules_that_nest_too_deeply_are_named() {
    let deep = (0..200).fold(json!(1), |inner, _| json!(["upper", inner]));
    let rules = json!({"default": [["add", "a", 1], ["add", "b", deep]]});
    let problems = compile(&rules, &Options::default()).err().unwrap();
    assert_eq!(problems.len(), 1);
    let found = problems[0].to_string();
    assert!(found.starts_with("$.rules.default[1][2][1][1]"), "{found}");
}
