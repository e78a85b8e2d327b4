//! Rules as JSON Schema (draft 2020-12), made of the table of functions: editors complete and
//! check by it. It takes whatever the compiler takes; what only the compiler can know (names of
//! rules and variables, formats) it leaves to it.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::compile::assign;
use crate::functions::{self, Arg, EXPRESSIONS, Function, Kind, Many, TRANSFORMS};
use crate::manual;

/// The name of the definition of a `rules` object among [`definitions`].
pub const RULES: &str = "dtl.rules";

/// Text that a variable of the environment may give another type.
const ENV: &str = r"^\$ENV\(";
/// Text that stands for a value of another type: a variable, an alias with a property, `$ENV(…)`.
const MEANT: &str = r"^[_$]|^[A-Za-z][^.]*\.";
/// Text that is another type for certain: identifiers, URIs and decimals.
const TAGGED: &str = r"^~([:r]|f-?[0-9]+(\.[0-9]+)?$)";

/// Positions of a call that are described one by one; those after them have one description.
const MOST_POSITIONS: usize = 8;

/// The definitions that rules need, by name; they refer to each other as `#/$defs/NAME`.
pub fn definitions() -> Map<String, Json> {
    let mut all = Map::new();
    let mut put = |name: &str, schema: Json| {
        all.insert(format!("dtl.{name}"), schema);
    };
    put(
        "rules",
        json!({
            "description": "Rules by name; entities start with `default`.",
            "type": ["object", "string"],
            "pattern": ENV,
            "required": ["default"],
            "additionalProperties": refer("statements"),
        }),
    );
    put(
        "statements",
        json!({
            "description": "A transform function, or a list of them.",
            "type": ["array", "string"],
            "if": {"type": "string"},
            "then": {"pattern": ENV},
            "else": {
                "if": starts_with_text(),
                "then": refer("statement"),
                "else": {"items": refer("statement")},
            },
        }),
    );
    put(
        "expression",
        json!({
            "description": "A value, a variable like \"_S.name\", or a call of a function.",
            "if": {"type": "array"},
            "then": refer("call"),
        }),
    );
    put(
        "patterns",
        json!({
            "description": manual::kind(Kind::Patterns),
            "type": ["string", "array"],
            "items": {"type": "string"},
        }),
    );
    put("conditions", conditions());
    put("hops", hops());
    put("statement", calls(true));
    put("call", calls(false));
    all
}

fn refer(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/dtl.{name}")})
}

fn starts_with_text() -> Json {
    json!({"prefixItems": [{"type": "string"}], "minItems": 1})
}

/// Any call of a transform function, or of a function that gives a value.
fn calls(is_transform: bool) -> Json {
    let chapters = if is_transform {
        TRANSFORMS
    } else {
        EXPRESSIONS
    };
    let rows = || chapters.iter().flat_map(|chapter| chapter.functions);
    let names: Vec<&str> = rows().map(|row| row.name).collect();
    let docs: Vec<&str> = rows().map(|row| row.doc).collect();
    let branch = |row: &'static Function| {
        json!({
            "if": {"prefixItems": [{"const": row.name}], "minItems": 1},
            "then": arguments(row),
        })
    };
    json!({
        "type": if is_transform { json!(["array", "string"]) } else { json!("array") },
        "pattern": ENV,
        "minItems": 1,
        "prefixItems": [{"anyOf": [
            {"enum": names, "enumDescriptions": docs},
            {"type": "string", "pattern": ENV},
        ]}],
        "allOf": rows().map(branch).collect::<Vec<_>>(),
    })
}

/// The arguments of one function.
fn arguments(function: &Function) -> Json {
    let counts = counts(function.args);
    let mut positions: Vec<BTreeSet<Takes>> = Vec::new();
    let mut exact = Vec::new();
    for count in &counts.tried {
        match placed(function.args, *count) {
            Some(places) => {
                positions.resize(positions.len().max(places.len()), BTreeSet::new());
                for (all, takes) in positions.iter_mut().zip(&places) {
                    all.insert(*takes);
                }
                exact.push((*count, places));
            }
            // An odd number of what comes in pairs.
            None => exact.push((*count, Vec::new())),
        }
    }
    let is_open = |takes: &BTreeSet<Takes>| takes.len() > 1;
    let by_count =
        positions.iter().any(is_open) || exact.iter().any(|(_, places)| places.is_empty());
    let rest = match counts.most {
        Some(_) => Vec::new(),
        None => positions.split_off(MOST_POSITIONS.min(positions.len())),
    };
    let prefix = prefix(positions.iter().map(any_of));
    let mut schema = json!({
        "description": format!("{}\n\n{}", manual::usage(function), function.doc),
        "prefixItems": prefix,
        "minItems": counts.least + 1,
    });
    if let Some(most) = counts.most {
        schema["maxItems"] = json!(most + 1);
    }
    if !rest.is_empty() {
        let all: BTreeSet<Takes> = rest.into_iter().flatten().collect();
        schema["items"] = any_of(&all);
    }
    if by_count {
        schema["allOf"] = exact.iter().map(of_count).collect();
    }
    schema
}

/// What the arguments are when there are so many; `None` when there cannot be so many.
fn placed(args: &[Arg], count: usize) -> Option<Vec<Takes>> {
    let mut all = vec![None; count];
    for (arg, places) in args.iter().zip(assign(args, count).ok()?) {
        for place in places {
            all[place - 1] = Some(Takes::of(arg));
        }
    }
    all.into_iter().collect()
}

/// What holds of a call with so many arguments.
fn of_count((count, places): &(usize, Vec<Takes>)) -> Json {
    let is_none = places.is_empty() && *count > 0;
    json!({
        "if": {"minItems": count + 1, "maxItems": count + 1},
        "then": match is_none {
            true => json!(false),
            false => json!({"prefixItems": prefix(places.iter().map(|takes| takes.schema()))}),
        },
    })
}

/// The schemas of a function's name and of its arguments.
fn prefix(arguments: impl Iterator<Item = Json>) -> Vec<Json> {
    std::iter::once(json!(true)).chain(arguments).collect()
}

/// How many arguments a function takes.
struct Counts {
    least: usize,
    /// `None` when there is no end to them.
    most: Option<usize>,
    /// Enough of them to see what may stand where.
    tried: Vec<usize>,
}

fn counts(args: &[Arg]) -> Counts {
    let count = |many: Many| args.iter().filter(|arg| arg.many == many).count();
    let pairs = count(Many::Pairs) > 0;
    let least = count(Many::One) + count(Many::Some) + if pairs { 2 } else { 0 };
    let open = pairs || count(Many::Some) + count(Many::Any) > 0;
    let most = least + count(Many::Optional);
    let last = if open {
        most + MOST_POSITIONS + 2
    } else {
        most
    };
    Counts {
        least,
        most: (!open).then_some(most),
        tried: (least..=last).collect(),
    }
}

/// What may stand in a place, as far as a schema can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Takes {
    Expression,
    Integer,
    Number,
    String,
    /// The same, where null can never work.
    SomeString,
    Property,
    DatePart,
    Patterns,
    Statements,
    Rule,
    Hops,
    Anything,
}

impl Takes {
    fn of(arg: &Arg) -> Takes {
        let never_null = arg
            .wrong
            .is_some_and(|wrong| wrong(&tahini_entity::Value::Null).is_some());
        match arg.kind {
            Kind::String if never_null => Takes::SomeString,
            Kind::Value | Kind::Boolean | Kind::Function | Kind::Default => Takes::Expression,
            Kind::Integer => Takes::Integer,
            Kind::Number => Takes::Number,
            Kind::String => Takes::String,
            Kind::Property => Takes::Property,
            Kind::DatePart => Takes::DatePart,
            Kind::Patterns => Takes::Patterns,
            Kind::Transforms => Takes::Statements,
            Kind::Rule => Takes::Rule,
            Kind::Hops => Takes::Hops,
            Kind::Literal => Takes::Anything,
        }
    }

    fn schema(self) -> Json {
        let typed = |types: &[&str], text: Json| {
            let types = [types, &["string", "array"]].concat();
            json!({
                "type": types,
                "allOf": [
                    {"if": {"type": "array"}, "then": refer("call")},
                    {"if": {"type": "string"}, "then": text},
                ],
            })
        };
        let text = json!({"not": {"pattern": TAGGED}});
        match self {
            Takes::Expression => refer("expression"),
            Takes::Integer => typed(&["integer", "null"], json!({"pattern": MEANT})),
            Takes::Number => {
                let number = format!("{MEANT}|^~f");
                typed(&["number", "null"], json!({"pattern": number}))
            }
            Takes::String => typed(&["null"], text),
            Takes::SomeString | Takes::Property => typed(&[], text),
            Takes::DatePart => {
                let parts: Vec<&str> = functions::date_parts().collect();
                typed(&[], json!({"anyOf": [{"enum": parts}, {"pattern": MEANT}]}))
            }
            Takes::Patterns => refer("patterns"),
            Takes::Statements => refer("statements"),
            Takes::Rule => json!({"type": "string"}),
            Takes::Hops => refer("hops"),
            Takes::Anything => json!(true),
        }
    }
}

fn any_of(parts: &BTreeSet<Takes>) -> Json {
    let mut schemas: Vec<Json> = parts.iter().map(|part| part.schema()).collect();
    match schemas.len() {
        0 => json!(true),
        1 => schemas.remove(0),
        _ => json!({"anyOf": schemas}),
    }
}

/// `where`: a condition, or a list of them.
fn conditions() -> Json {
    json!({
        "if": {"type": "array", "not": starts_with_text()},
        "then": {"items": refer("conditions")},
        "else": refer("expression"),
    })
}

fn hops() -> Json {
    let truth =
        |doc: &str| json!({"type": ["boolean", "string"], "pattern": ENV, "description": doc});
    json!({
        "description": manual::kind(Kind::Hops),
        "type": "object",
        "required": ["datasets", "where"],
        "properties": {
            "datasets": {
                "description": "The datasets, each \"DATASET ALIAS\".",
                "type": ["array", "string"],
                "pattern": ENV,
                "minItems": 1,
                "items": {"type": "string"},
            },
            "where": refer("conditions"),
            "return": refer("expression"),
            "recurse": truth("Joins what was found again."),
            "exclude_root": truth("Leaves out what the recursion starts with."),
            "max_depth": {
                "description": "How many levels a recursion goes; 10 unless it is said, null for \
                                no end.",
                "type": ["integer", "null", "string"],
                "pattern": ENV,
                "minimum": 0,
            },
            "track-dependencies": truth("Changes of these datasets make the pipe process again."),
            "trace": {
                "description": "The name under which the execution log tells how many entities \
                                the call joined at the most; on the last spec.",
                "type": "string",
            },
            "subsets": {
                "description": "By alias, the part of its dataset that is looked at.",
                "type": "object",
                "additionalProperties": refer("expression"),
            },
            "prefilters": {
                "description": "The old name of `subsets`.",
                "type": "object",
                "additionalProperties": refer("expression"),
                "deprecated": true,
            },
        },
        "additionalProperties": false,
    })
}
