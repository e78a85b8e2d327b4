//! Transform functions: statements that build the target entity.

use super::{Call, Function, Kind, any, emits, fails, of, one, optional, pair_end, pairs};
use crate::expr::Action;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "add",
        args: &[one("PROPERTY", Kind::Property), one("VALUES", Kind::Value)],
        doc: "Sets a property of the target, or several when PROPERTY gives a list.",
        examples: &[
            of(r#"["add", "age", 26]"#, "{}", r#"{"age": 26}"#),
            of(
                r#"["add", ["concat", "x-", "_S.key"], "_S.value"]"#,
                r#"{"key": "k", "value": 5}"#,
                r#"{"x-k": 5}"#,
            ),
        ],
        call: Call::Statement(|c, given| {
            let name = c.name(given, 0);
            Action::Add(name, c.expr(given, 1))
        }),
    },
    Function {
        name: "add-if",
        args: &[
            one("PROPERTY", Kind::Property),
            optional("CONDITION", Kind::Function),
            one("VALUES", Kind::Value),
        ],
        doc: "Sets a property when the condition, which sees the value as _, is true; without one, \
              when the value is not null.",
        examples: &[
            of(r#"["add-if", "foo", null]"#, "{}", "{}"),
            of(
                r#"["add-if", "foo", ["gte", "_.", 18], 123]"#,
                "{}",
                r#"{"foo": 123}"#,
            ),
        ],
        call: Call::Statement(|c, given| Action::AddIf {
            name: c.name(given, 0),
            condition: c.optional(given, 1),
            value: c.expr(given, 2),
        }),
    },
    Function {
        name: "case",
        args: &[
            pairs("CONDITION", Kind::Boolean),
            pair_end("THEN", Kind::Transforms),
            optional("ELSE", Kind::Transforms),
        ],
        doc: "Applies the THEN of the first condition that is true, otherwise ELSE.",
        examples: &[of(
            r#"["case", ["gte", "_S.age", 18], ["add", "g", "adult"], ["add", "g", "child"]]"#,
            r#"{"age": 5}"#,
            r#"{"g": "child"}"#,
        )],
        call: Call::Statement(|c, given| Action::Case {
            arms: c.arms(given, 0),
            otherwise: c.transforms(given, 2),
        }),
    },
    Function {
        name: "case-eq",
        args: &[
            one("VALUE", Kind::Value),
            pairs("VALUE_N", Kind::Value),
            pair_end("THEN", Kind::Transforms),
            optional("ELSE", Kind::Transforms),
        ],
        doc: "Applies the THEN of the first VALUE_N that equals VALUE, otherwise ELSE.",
        examples: &[of(
            r#"["case-eq", "_S.c", "NO", ["add", "n", "Norway"], "SE", ["add", "n", "Sweden"]]"#,
            r#"{"c": "SE"}"#,
            r#"{"n": "Sweden"}"#,
        )],
        call: Call::Statement(|c, given| Action::CaseEq {
            value: c.expr(given, 0),
            arms: c.arms(given, 1),
            otherwise: c.transforms(given, 3),
        }),
    },
    Function {
        name: "comment",
        args: &[any("COMMENTS", Kind::Literal)],
        doc: "Does nothing: a place for words, or for statements that are switched off.",
        examples: &[of(r#"["comment", "words", ["add", "a", 1]]"#, "{}", "{}")],
        call: Call::Statement(|_, _| Action::Nothing),
    },
    Function {
        name: "copy",
        args: &[
            one("INCLUDE", Kind::Patterns),
            optional("EXCLUDE", Kind::Patterns),
        ],
        doc: "Copies the source's properties that match INCLUDE and not EXCLUDE, each a name or \
              pattern with * and ?, or a list of them.",
        examples: &[of(
            r#"["copy", ["list", "a*", "b*"], "ab*"]"#,
            r#"{"a": 1, "abc": 2, "b": 3, "c": 4}"#,
            r#"{"a": 1, "b": 3}"#,
        )],
        call: Call::Statement(|c, given| Action::Copy(c.copying(given))),
    },
    Function {
        name: "create",
        args: &[one("VALUES", Kind::Value)],
        doc: "Emits each entity among the values beside the target. They must have an _id that is \
              a string.",
        examples: &[emits(
            r#"["create", ["map", ["dict", "_id", "_.", "of", "_S._id"], "_S.lines"]]"#,
            r#"{"lines": ["a", "b"]}"#,
            r#"[{"_id": "a", "of": "1"}, {"_id": "b", "of": "1"}, {"_id": "1"}]"#,
        )],
        call: Call::Statement(|c, given| Action::Create(c.expr(given, 0))),
    },
    Function {
        name: "create-child",
        args: &[one("VALUES", Kind::Value)],
        doc: "Adds each entity among the values to the target's $children. They must have an _id \
              that is a string.",
        examples: &[of(
            r#"["create-child", "_S.o"]"#,
            r#"{"o": [{"_id": "1"}, {"_id": "2"}]}"#,
            r#"{"$children": [{"_id": "1"}, {"_id": "2"}]}"#,
        )],
        call: Call::Statement(|c, given| {
            c.program.facts.children = true;
            Action::CreateChild(c.expr(given, 0))
        }),
    },
    Function {
        name: "default",
        args: &[one("PROPERTY", Kind::Property), one("VALUES", Kind::Value)],
        doc: "Sets a property of the target unless it has it already.",
        examples: &[
            of(r#"["default", "age", 26]"#, "{}", r#"{"age": 26}"#),
            of(r#"["default", "_id", "other"]"#, "{}", "{}"),
        ],
        call: Call::Statement(|c, given| {
            let name = c.name(given, 0);
            Action::Default(name, c.expr(given, 1))
        }),
    },
    Function {
        name: "discard",
        args: &[optional("UNLESS_CONDITION", Kind::Boolean)],
        doc: "Ends the rule and drops the target unless the condition is true. Nothing reaches the \
              sink, so a copy there stays.",
        examples: &[of(
            r#"["discard", ["gt", "_S.age", 42]]"#,
            r#"{"age": 43}"#,
            "{}",
        )],
        call: Call::Statement(|c, given| Action::Discard(c.optional(given, 0))),
    },
    Function {
        name: "fail!",
        args: &[one("MESSAGE", Kind::String)],
        doc: "Fails the run with this message.",
        examples: &[
            fails(
                r#"["fail!", ["concat", "no price for ", "_S.sku"]]"#,
                r#"{"sku": "A7"}"#,
                "no price for A7",
            ),
            of(
                r#"["if", ["is-null", "_S.price"], ["fail!", "no price"], ["copy", "price"]]"#,
                r#"{"price": 5}"#,
                r#"{"price": 5}"#,
            ),
        ],
        call: Call::Statement(|c, given| Action::Fail(c.expr(given, 0))),
    },
    Function {
        name: "filter",
        args: &[optional("UNLESS_CONDITION", Kind::Boolean)],
        doc: "Ends the rule unless the condition is true. The target is emitted as filtered, so \
              that a dataset deletes its copy.",
        examples: &[of(
            r#"["filter", ["gt", "_S.age", 42]]"#,
            r#"{"age": 43}"#,
            "{}",
        )],
        call: Call::Statement(|c, given| Action::Filter(c.optional(given, 0))),
    },
    Function {
        name: "if",
        args: &[
            one("CONDITION", Kind::Boolean),
            one("THEN", Kind::Transforms),
            optional("ELSE", Kind::Transforms),
        ],
        doc: "Applies THEN when the condition is true, otherwise ELSE; each is a statement or a \
              list of them.",
        examples: &[of(
            r#"["if", ["gt", "_S.age", 18], [["add", "a", 1], ["add", "b", 2]], ["add", "c", 3]]"#,
            r#"{"age": 20}"#,
            r#"{"a": 1, "b": 2}"#,
        )],
        call: Call::Statement(|c, given| Action::If {
            condition: c.expr(given, 0),
            then: c.transforms(given, 1),
            otherwise: c.transforms(given, 2),
        }),
    },
    Function {
        name: "make-ni",
        args: &[
            one("NAMESPACE", Kind::String),
            one("FROM_PROPERTY", Kind::Property),
            optional("TO_PROPERTY", Kind::Property),
        ],
        doc: "Sets a property to the source property's strings as identifiers of a namespace, \
              lists sorted. Without TO_PROPERTY it is called like the source property and \"-ni\". \
              Without any string nothing is set.",
        examples: &[of(
            r#"["make-ni", "soccer", "referee", "ref"]"#,
            r#"{"referee": "john.doe"}"#,
            r#"{"ref": "~:soccer:john.doe"}"#,
        )],
        call: Call::Statement(|c, given| Action::MakeNi {
            namespace: c.expr(given, 0),
            from: c.source_name(given, 1),
            to: given.get(2).is_some().then(|| c.name_arg(given, 2)),
        }),
    },
    Function {
        name: "merge",
        args: &[one("VALUES", Kind::Value)],
        doc: "Copies the properties of each dict among the values to the target, later ones over \
              earlier ones, without those that start with \"_\".",
        examples: &[of(
            r#"["merge", ["list", {"a": 1}, {"a": 2, "_b": 3}]]"#,
            "{}",
            r#"{"a": 2}"#,
        )],
        call: Call::Statement(|c, given| Action::Merge(c.expr(given, 0))),
    },
    Function {
        name: "merge-union",
        args: &[one("VALUES", Kind::Value)],
        doc: "Like \"merge\", but a property that is there already gets the union of its values.",
        examples: &[of(
            r#"["merge-union", ["list", {"a": 1}, {"a": 2, "b": 3}]]"#,
            "{}",
            r#"{"a": [1, 2], "b": 3}"#,
        )],
        call: Call::Statement(|c, given| Action::MergeUnion(c.expr(given, 0))),
    },
    Function {
        name: "remove",
        args: &[one("PROPERTY", Kind::Patterns)],
        doc: "Removes the target's properties that match a name or pattern, or a list of them.",
        examples: &[of(
            r#"[["copy", "*"], ["remove", ["list", "a", "t_*"]]]"#,
            r#"{"a": 1, "t_x": 2, "b": 3}"#,
            r#"{"b": 3}"#,
        )],
        call: Call::Statement(|c, given| Action::Remove(c.patterns(given, 0))),
    },
    Function {
        name: "rename",
        args: &[
            one("PROPERTY1", Kind::Property),
            one("PROPERTY2", Kind::Property),
        ],
        doc: "Copies a property of the source to the target under another name.",
        examples: &[of(
            r#"["rename", "age", "years"]"#,
            r#"{"age": 36}"#,
            r#"{"years": 36}"#,
        )],
        call: Call::Statement(|c, given| {
            c.warn_of_patterns(given);
            Action::Rename {
                from: c.source_name(given, 0),
                to: c.name_arg(given, 1),
            }
        }),
    },
    Function {
        name: "sleep!",
        args: &[one("PERIOD", Kind::Number)],
        doc: "Pauses for that many seconds.",
        examples: &[of(
            r#"["if", ["gt", "_S.calls", 100], ["sleep!", 1]]"#,
            r#"{"calls": 5}"#,
            "{}",
        )],
        call: Call::Statement(|c, given| {
            c.program.facts.sleeps = true;
            Action::Sleep(c.expr(given, 0))
        }),
    },
    Function {
        name: "trip!",
        args: &[one("MESSAGE", Kind::String)],
        doc: "Fails the run with this message and trips the sink dataset's circuit breaker.",
        examples: &[fails(
            r#"["trip!", "too many rows are gone"]"#,
            "{}",
            "too many rows are gone",
        )],
        call: Call::Statement(|c, given| Action::Trip(c.expr(given, 0))),
    },
];
