//! The table of functions as a manual: for a terminal, as Markdown and as JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::compile::suggest;
use crate::functions::{
    self, Arg, Chapter, EXPRESSIONS, Example, Function, Gives, Kind, Many, TRANSFORMS,
};

/// A row of the table and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The row.
    pub function: &'static Function,
    /// The title of its chapter.
    pub chapter: &'static str,
    /// Whether it changes the target rather than give a value.
    pub is_transform: bool,
}

/// All rows: transform functions first, then by chapter.
pub fn entries() -> impl Iterator<Item = Entry> {
    let of = |chapters: &'static [Chapter], is_transform| {
        chapters.iter().flat_map(move |chapter| {
            chapter.functions.iter().map(move |function| Entry {
                function,
                chapter: chapter.title,
                is_transform,
            })
        })
    };
    of(TRANSFORMS, true).chain(of(EXPRESSIONS, false))
}

/// The rows of a name: none, one, or a transform function and a function that gives a value.
pub fn find(name: &str) -> Vec<Entry> {
    entries()
        .filter(|entry| entry.function.name == name)
        .collect()
}

/// Help for a name that no row has: what stands for a retired one, `; did you mean "upper"?`, or
/// nothing.
pub fn nearest(name: &str) -> String {
    if let Some(instead) = functions::retired(name) {
        return format!("; {instead}");
    }
    suggest::nearest(name, entries().map(|entry| entry.function.name))
}

/// How a call is written: `["split", SEPARATOR?, VALUES]`.
pub fn usage(function: &Function) -> String {
    match functions::signature(function) {
        none if none.is_empty() => format!("[\"{}\"]", function.name),
        parameters => format!("[\"{}\", {parameters}]", function.name),
    }
}

/// What may stand in the place of a parameter, in words.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Value => "an expression",
        Kind::Boolean => "an expression whose truth counts",
        Kind::Integer => "an expression that gives an integer",
        Kind::Number => "an expression that gives a number",
        Kind::String => "an expression that gives a string",
        Kind::Function => "an expression evaluated for each value, which is `_` in it",
        Kind::Default => "an expression for what is not accepted, which is `_` in it",
        Kind::DatePart => "the name of a part of a datetime",
        Kind::Property => "the name of a property, or an expression that gives one or several",
        Kind::Patterns => "a name or pattern of properties, or a list of them",
        Kind::Transforms => "a transform function or a list of them",
        Kind::Rule => "the name of a rule",
        Kind::Hops => "a specification of joins",
        Kind::Literal => "any JSON, not evaluated",
    }
}

/// How often a parameter occurs, in words.
pub fn many(many: Many) -> &'static str {
    match many {
        Many::One => "once",
        Many::Optional => "at most once",
        Many::Any => "any number of times",
        Many::Some => "at least once",
        Many::Pairs => "at least once, each followed by the next one",
        Many::PairEnd => "after each of the one before",
    }
}

/// A row as text for a terminal, without a line end.
pub fn text(entry: Entry) -> String {
    let Entry {
        function, chapter, ..
    } = entry;
    let what = match entry.is_transform {
        true => "changes the target",
        false => "gives a value",
    };
    let mut out = format!("{}\n    {chapter}; {what}\n\n", usage(function));
    for line in wrapped(function.doc, 90) {
        let _ = writeln!(out, "    {line}");
    }
    if !function.args.is_empty() {
        out.push('\n');
    }
    for arg in function.args {
        let _ = writeln!(
            out,
            "    {}: {}, {}",
            arg.name,
            kind(arg.kind),
            many(arg.many)
        );
    }
    for example in function.examples {
        let _ = write!(out, "\n    {}", example.call);
        for (name, given) in givens(example) {
            let _ = write!(out, "\n        with {name} {given}");
        }
        let _ = write!(out, "\n        {}", outcome(example));
    }
    out.trim_end().to_owned()
}

/// What an example is given beside its call.
fn givens(example: &Example) -> Vec<(&'static str, String)> {
    let mut givens = Vec::new();
    if example.source != "{}" {
        givens.push(("the source entity", example.source.to_owned()));
    }
    for part in ["rules", "datasets"] {
        if let Some(found) = parse(example.beside).get(part) {
            givens.push((part, found.to_string()));
        }
    }
    givens
}

fn outcome(example: &Example) -> String {
    match example.gives {
        Gives::Value => format!("→ {}", example.result),
        Gives::Entities => format!("→ the entities {}", example.result),
        Gives::Error => format!("→ fails: {}", example.result),
    }
}

/// A row as JSON.
pub fn json(entry: Entry) -> Json {
    let function = entry.function;
    let arg = |arg: &Arg| {
        json!({
            "name": arg.name,
            "kind": format!("{:?}", arg.kind).to_lowercase(),
            "many": format!("{:?}", arg.many).to_lowercase(),
            "doc": format!("{}, {}", kind(arg.kind), many(arg.many)),
        })
    };
    let example = |example: &Example| {
        let mut json = json!({"call": parse(example.call), "source": parse(example.source)});
        for part in ["rules", "datasets"] {
            if let Some(found) = parse(example.beside).get(part) {
                json[part] = found.clone();
            }
        }
        let (name, result) = match example.gives {
            Gives::Value => ("result", parse(example.result)),
            Gives::Entities => ("entities", parse(example.result)),
            Gives::Error => ("error", example.result.into()),
        };
        json[name] = result;
        json
    };
    json!({
        "name": function.name,
        "is_transform": entry.is_transform,
        "chapter": entry.chapter,
        "usage": usage(function),
        "args": function.args.iter().map(arg).collect::<Vec<_>>(),
        "doc": function.doc,
        "examples": function.examples.iter().map(example).collect::<Vec<_>>(),
    })
}

fn parse(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_default()
}

/// The whole table as a page of Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Functions of DTL\n\n\
         Printed from the table that the compiler reads; every example is a test. `tahini explain \
         NAME` prints one of them, `GET /api/dtl/functions` gives them as JSON.\n\n\
         A parameter with `?` may be left out; `…` stands for any number of times.\n",
    );
    let mut chapter = "";
    for entry in entries() {
        if entry.chapter != chapter {
            chapter = entry.chapter;
            let _ = write!(out, "\n## {chapter}\n");
        }
        let function = entry.function;
        let _ = write!(
            out,
            "\n### {}\n\n`{}`\n\n{}\n",
            function.name,
            usage(function),
            function.doc
        );
        if !function.examples.is_empty() {
            out.push_str("\n```\n");
            for example in function.examples {
                let _ = writeln!(out, "{}", example.call);
                for (name, given) in givens(example) {
                    let _ = writeln!(out, "    with {name} {given}");
                }
                let _ = writeln!(out, "    {}", outcome(example));
            }
            out.push_str("```\n");
        }
    }
    out
}

/// The text in lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
