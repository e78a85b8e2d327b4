//! Where properties come from, found out from rules alone.

use serde_json::{Value as Json, json};
use tahini_dtl::lineage::{Flow, Layout, Of, Origin, lineage};
use tahini_dtl::{Options, compile};

fn of(rules: Json, options: &Options) -> Layout {
    let rules = match rules {
        Json::Array(_) => json!({"default": rules}),
        rules => rules,
    };
    compile(&rules, options).expect("the rules are right");
    lineage(&rules, options, &Layout::of_source())
}

fn text(origin: &Origin) -> String {
    let of = match &origin.of {
        Of::Source => "_S",
        Of::Dataset(name) => name.as_str(),
    };
    [of.to_owned()]
        .into_iter()
        .chain(origin.path.iter().cloned())
        .collect::<Vec<_>>()
        .join(".")
}

fn texts<'o>(origins: impl IntoIterator<Item = &'o Origin>) -> String {
    origins.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

/// A flow in one line: what is taken; `<` what it is computed from; `?` what decides; `+` what else.
fn told(flow: &Flow) -> String {
    let mut told = texts(&flow.taken);
    let inside = flow.origins();
    let made = texts(inside.difference(&flow.taken));
    for (sign, words) in [
        ("<", made),
        ("?", texts(&flow.when)),
        (
            "+",
            flow.beside
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ] {
        if !words.is_empty() {
            told = format!("{told} {sign} {words}");
        }
    }
    told.trim().to_owned()
}

fn property(layout: &Layout, path: &str) -> String {
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    told(&layout.property(&path))
}

/// Checks properties of what a list of statements makes.
fn check(statements: Json, expected: &[(&str, &str)]) {
    let layout = of(statements.clone(), &Options::default());
    for (path, line) in expected {
        assert_eq!(property(&layout, path), *line, "{path} of {statements}");
    }
}

#[test]
fn statements_take_and_rename() {
    check(
        json!([
            ["copy", "*", "b"],
            ["add", "x", "_S.c.d"],
            ["rename", "e", "f"]
        ]),
        &[
            ("_id", "_S._id"),
            ("a", "_S.a"),
            ("a.deep", "_S.a.deep"),
            ("b", ""),
            ("x", "_S.c.d"),
            ("x.more", "_S.c.d.more"),
            ("f", "_S.e"),
            ("e", "_S.e"),
        ],
    );
    check(
        json!([["copy", "*"], ["remove", "a*"], ["add", "ab", "_S.b"]]),
        &[("a", ""), ("ac", ""), ("ab", "_S.b"), ("c", "_S.c")],
    );
    check(
        json!([
            ["copy", ["list", "a", "b"]],
            ["make-ni", "ns", "a"],
            ["default", "b", "_S.c"]
        ]),
        &[
            ("a", "_S.a"),
            ("a-ni", "< _S.a"),
            ("b", "_S.b _S.c"),
            ("c", ""),
        ],
    );
}

#[test]
fn later_statements_win_and_optional_ones_only_add() {
    check(
        json!([["add", "a", "_S.x"], ["add", "a", "_S.y"]]),
        &[("a", "_S.y")],
    );
    check(
        json!([["add", "a", "_S.x"], ["copy", "*"]]),
        &[("a", "_S.a _S.x")],
    );
    check(
        json!([
            ["add", "a", "_S.x"],
            ["add-if", "a", ["eq", "_.k", "_S.m"], "_S.y"]
        ]),
        &[("a", "_S.x _S.y ? _S.m _S.y.k")],
    );
    check(
        json!([["add", "a", "_S.x"], ["merge", "_S.inner"], ["merge", {"b": 1}]]),
        &[("a", "_S.inner.a _S.x"), ("c", "_S.inner.c"), ("_c", "")],
    );
}

#[test]
fn functions_compute_and_pass() {
    check(
        json!([
            ["add", "up", ["upper", ["concat", "_S.a", "-", "_S.b"]]],
            ["add", "first", ["first", ["sorted", "_.age", "_S.people"]]],
            ["add", "name", ["path", "name", ["first", "_S.people"]]],
            ["add", "names", ["map", ["lower", "_.name"], "_S.people"]],
            ["add", "any", ["path", "_S.key", "_S.people"]],
            [
                "add",
                "old",
                ["filter", ["gt", "_.age", "_S.limit"], "_S.people"]
            ],
            ["add", "when", ["now"]],
            ["add", "one", 1],
            ["add", "of", "_T.up"]
        ]),
        &[
            ("up", "< _S.a _S.b"),
            ("first", "_S.people ? _S.people.age"),
            ("first.name", "_S.people.name ? _S.people.age"),
            ("name", "_S.people.name"),
            ("names", "< _S.people.name"),
            ("any", "_S.people.* ? _S.key"),
            ("old", "_S.people ? _S.limit _S.people.age"),
            ("when", "+ the time"),
            ("one", ""),
            ("of", "< _S.a _S.b"),
        ],
    );
}

#[test]
fn dicts_are_followed_by_their_names() {
    check(
        json!([
            ["add", "d", ["dict", "x", "_S.a", "y", ["upper", "_S.b"]]],
            [
                "add",
                "x",
                ["path", "x", ["dict", "x", "_S.a", "y", "_S.b"]]
            ],
            ["add", "all", ["json", ["dict", "x", "_S.a", "y", "_S.b"]]],
            ["merge", ["dict", "p", "_S.q"]]
        ]),
        &[
            ("d.x", "_S.a"),
            ("d.y", "< _S.b"),
            ("d.z", ""),
            ("x", "_S.a"),
            ("all", "< _S.a _S.b"),
            ("p", "_S.q"),
        ],
    );
}

#[test]
fn conditions_are_told_apart_from_what_a_value_is_made_of() {
    check(
        json!([
            [
                "if",
                ["eq", "_S.kind", "p"],
                ["add", "a", "_S.x"],
                [["add", "a", "_S.y"], ["add", "b", 1]]
            ],
            [
                "case-eq",
                "_S.c",
                "NO",
                ["add", "n", "_S.no"],
                "SE",
                ["add", "n", "_S.se"]
            ],
            ["add", "v", ["if", "_S.flag", "_S.s", "_S.t"]]
        ]),
        &[
            ("a", "_S.x _S.y ? _S.kind"),
            ("b", "? _S.kind"),
            ("n", "_S.no _S.se ? _S.c"),
            ("v", "_S.s _S.t ? _S.flag"),
        ],
    );
    let layout = of(
        json!([
            ["copy", "*"],
            ["filter", ["eq", "_S.kind", "p"]],
            ["if", "_S.z", ["discard", "_S.y"]]
        ]),
        &Options::default(),
    );
    assert_eq!(texts(&layout.filters), "_S.kind _S.y _S.z");
}

#[test]
fn hops_lead_to_the_joined_dataset() {
    let hops = json!(["hops", {"datasets": ["customers c"], "where": ["eq", "_S.customer", "c._id"], "return": "c.name"}]);
    let whole =
        json!(["hops", {"datasets": ["customers c"], "where": ["eq", "_S.customer", "c._id"]}]);
    check(
        json!([
            ["add", "name", ["first", hops]],
            ["add", "customer", ["first", whole]],
            ["add", "city", ["path", "city", ["first", whole]]],
            ["add", "found", ["lookup-entity", "countries", "_S.country"]]
        ]),
        &[
            ("name", "customers.name ? _S.customer customers._id"),
            ("customer", "customers ? _S.customer customers._id"),
            ("customer.zip", "customers.zip ? _S.customer customers._id"),
            ("city", "customers.city ? _S.customer customers._id"),
            ("found.name", "countries.name ? _S.country"),
        ],
    );
}

#[test]
fn chains_recursion_and_subsets_of_hops_are_followed() {
    check(
        json!([["add", "x", ["hops",
            {"datasets": ["orders o"], "where": ["eq", "_S._id", "o.customer"]},
            {"datasets": ["lines l"], "where": ["eq", "_S._id", "l.order"], "return": "l.sku",
             "subsets": {"l": ["eq", "_S.open", true]}}]]]),
        &[(
            "x",
            "lines.sku ? _S._id lines.open lines.order orders._id orders.customer",
        )],
    );
    check(
        json!([["add", "x", ["hops", {"datasets": ["parts p"], "where": ["eq", "_S.parent", "p._id"],
            "recurse": true}]]]),
        &[("x", "parts < _S ? _S.parent parts._id parts.parent")],
    );
    check(
        json!([["add", "x", ["hops", {"datasets": ["parts p"], "where": ["eq", "_S.parent", "p._id"],
            "recurse": true, "exclude_root": true}]]]),
        &[("x.name", "parts.name ? _S.parent parts._id parts.parent")],
    );
}

#[test]
fn applied_rules_are_looked_into() {
    let hops = json!({"datasets": ["lines l"], "where": ["eq", "_S._id", "l.order"]});
    let layout = of(
        json!({
            "default": [["add", "lines", ["apply-hops", "line", hops]], ["add", "own", ["apply", "line", "_S.own"]]],
            "line": [["rename", "n", "number"], ["add", "of", "_P._S.title"], ["add", "top", "_R._S.owner"]]
        }),
        &Options::default(),
    );
    let when = "? _S._id lines.order";
    assert_eq!(property(&layout, "lines.number"), format!("lines.n {when}"));
    assert_eq!(property(&layout, "lines.of"), format!("_S.title {when}"));
    assert_eq!(property(&layout, "lines.top"), format!("_S.owner {when}"));
    assert_eq!(property(&layout, "own.number"), "_S.own.n");
    assert_eq!(property(&layout, "own.n"), "");
}

#[test]
fn a_rule_that_applies_itself_ends_and_what_is_unknown_is_said() {
    let layout = of(
        json!({
            "default": [["add", "tree", ["apply", "node", "_S.tree"]]],
            "node": [["copy", "name"], ["add", "below", ["apply", "node", "_S.below"]]]
        }),
        &Options::default(),
    );
    assert_eq!(property(&layout, "tree.name"), "_S.tree.name");
    assert_eq!(property(&layout, "tree.below.name"), "_S.tree.below.name");
    let deep = format!("tree{}", ".below".repeat(9));
    assert!(
        property(&layout, &deep).ends_with("unknown"),
        "{}",
        property(&layout, &deep)
    );
}

#[test]
fn computed_names_and_created_entities_are_told() {
    let layout = of(
        json!([
            ["add", ["concat", "x-", "_S.key"], "_S.value"],
            ["create", ["dict", "_id", "_S.other", "v", "_S.w"]]
        ]),
        &Options::default(),
    );
    assert_eq!(property(&layout, "anything"), "< _S.key _S.value");
    assert_eq!(
        told(&layout.emitted(&["v".to_owned()])),
        "_S.w < _S.key _S.value"
    );
}

#[test]
fn namespaces_are_added_read_and_removed() {
    let options = Options {
        pipe: "p".to_owned(),
        namespaced_identifiers: true,
        ..Options::default()
    };
    let given = Layout::of_source().with_namespaces(&options);
    assert_eq!(property(&given, "p:name"), "_S.name");
    assert_eq!(property(&given, "name"), "");
    assert_eq!(property(&given, "_id"), "_S._id");
    let rules =
        json!({"default": [["copy", "*"], ["add", "x", "_S.name"], ["add", "crm:y", "_S.crm:z"]]});
    let made = lineage(&rules, &options, &given);
    assert_eq!(property(&made, "p:x"), "_S.*:name");
    assert_eq!(property(&made, "crm:y"), "_S.crm:z");
    assert_eq!(property(&made, "p:other"), "_S.other");
    let bare = made.without_namespaces();
    assert_eq!(property(&bare, "x"), "_S.*:name _S.*:x");
    assert_eq!(property(&bare, "y"), "_S.*:y _S.crm:z");
}

#[test]
fn one_transform_is_given_what_another_one_makes() {
    let options = Options::default();
    let first = of(json!([["rename", "a", "b"], ["copy", "k*"]]), &options);
    let rules = json!({"default": [["copy", "*"], ["add", "c", ["upper", "_S.b"]]]});
    let made = lineage(&rules, &options, &first);
    for (path, line) in [
        ("b", "_S.a"),
        ("c", "< _S.a"),
        ("key", "_S.key"),
        ("a", ""),
        ("x", ""),
    ] {
        assert_eq!(property(&made, path), line, "{path}");
    }
    // The entity as a whole, too: what else was copied is not known.
    let unknown = made.unknown();
    assert_eq!(property(&unknown, "b"), "< _S _S._id _S.a + unknown");
}
