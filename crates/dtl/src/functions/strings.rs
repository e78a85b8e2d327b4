//! Strings.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use tahini_entity::{Str, Value};

use super::lists::index;
use super::{Call, Function, Kind, VALUES, eg, of, one, optional, some};
use crate::eval::{Env, Machine, Stop};
use crate::expr::{Cost, Expr, Item, ItemResult};
use crate::limits::{self, Limit, MAX_LIST, MAX_REPLACED, MAX_REPLACED_NAMES};
use crate::pattern::Pattern;
use crate::text;
use crate::values::{Items, first, items, sequence};
use crate::weight::PARTS_A_STEP;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "concat",
        args: &[some("VALUES", Kind::Value)],
        doc: "All strings of the arguments in one string. Values that are no strings are ignored.",
        examples: &[
            of(
                r#"["concat", "Hello ", "_S.name", "!"]"#,
                r#"{"name": "John"}"#,
                r#""Hello John!""#,
            ),
            eg(
                r#"["concat", "a", ["list", "b", "c"], "d", 123, ["list", "!"]]"#,
                r#""abcd!""#,
            ),
            eg(r#"["concat", 123, 3.14]"#, r#""""#),
        ],
        call: Call::Costly(Cost::Through, concat),
    },
    Function {
        name: "is-string",
        args: &[VALUES],
        doc: "True when the value, or the first item of a list, is a string.",
        examples: &[
            eg(r#"["is-string", "foo:bar"]"#, "true"),
            eg(r#"["is-string", ["list", 1, "foo:bar"]]"#, "false"),
        ],
        call: Call::Test(|value| matches!(value, Value::String(_))),
    },
    Function {
        name: "join",
        args: &[one("SEPARATOR", Kind::String), VALUES],
        doc: "The strings among the values in one string, with SEPARATOR between them.",
        examples: &[eg(
            r#"["join", "-", ["list", "a", "b", 123, "c"]]"#,
            r#""a-b-c""#,
        )],
        call: Call::Costly(Cost::Through, join),
    },
    Function {
        name: "length",
        args: &[VALUES],
        doc: "The number of characters of each string. Values that are no strings are ignored.",
        examples: &[
            eg(r#"["length", ["list", "", "a", "bb", 3]]"#, "[0, 1, 2]"),
            eg(r#"["length", "blåbær"]"#, "6"),
        ],
        call: Call::Each(|value| {
            Ok(value
                .as_str()
                .map(|text| Value::Int(text.chars().count() as i64)))
        }),
    },
    Function {
        name: "ljust",
        args: &[
            one("WIDTH", Kind::Integer),
            one("FILL_CHARACTER", Kind::String),
            VALUES,
        ],
        doc: "Fills strings on the right up to WIDTH characters; longer ones stay. Null when WIDTH \
              is no integer or FILL_CHARACTER no single character.",
        examples: &[
            eg(r#"["ljust", 10, "0", "123"]"#, r#""1230000000""#),
            eg(
                r#"["ljust", 2, " ", ["list", "a", "abc", 1]]"#,
                r#"["a ", "abc"]"#,
            ),
        ],
        call: Call::With(|args| justify(args, true)),
    },
    Function {
        name: "lower",
        args: &[VALUES],
        doc: "Lower-cases strings. Values that are no strings are ignored.",
        examples: &[eg(r#"["lower", ["list", "A", "Å", 1]]"#, r#"["a", "å"]"#)],
        call: Call::Each(lower),
    },
    Function {
        name: "lstrip",
        args: &[optional("CHARACTERS", Kind::String), VALUES],
        doc: "Removes CHARACTERS, or white space, from the start of strings.",
        examples: &[
            eg(
                r#"["lstrip", ["list", " ab ", "cd "]]"#,
                r#"["ab ", "cd "]"#,
            ),
            eg(r#"["lstrip", "xy", "xy456yx"]"#, r#""456yx""#),
        ],
        call: Call::With(|args| strip(args, true, false)),
    },
    Function {
        name: "matches",
        args: &[one("PATTERN", Kind::String), VALUES],
        doc: "True when there are values and all of them are strings that match PATTERN, in which \
              \"*\" stands for any text and \"?\" for one character.",
        examples: &[
            eg(
                r#"["matches", "a*p*a", ["list", "alpha", "alpaca"]]"#,
                "true",
            ),
            eg(r#"["matches", "*", null]"#, "false"),
            eg(r#"["matches", "*", ["list", "a", 1]]"#, "false"),
        ],
        call: Call::Form(matches),
    },
    Function {
        name: "replace",
        args: &[
            one("OLD_STRING or REPLACEMENTS", Kind::Value),
            optional("NEW_STRING", Kind::String),
            VALUES,
        ],
        doc: "Replaces every OLD_STRING in strings by NEW_STRING, or every name of the dict \
              REPLACEMENTS by its value, in one pass in which longer names win.",
        examples: &[
            eg(r#"["replace", ":", ".", "10:20:30"]"#, r#""10.20.30""#),
            eg(
                r#"["replace", ["dict", "a", "b", "b", "a"], "abc"]"#,
                r#""bac""#,
            ),
        ],
        call: Call::With(replace),
    },
    Function {
        name: "rjust",
        args: &[
            one("WIDTH", Kind::Integer),
            one("FILL_CHARACTER", Kind::String),
            VALUES,
        ],
        doc: "Fills strings on the left up to WIDTH characters; longer ones stay. Null when WIDTH \
              is no integer or FILL_CHARACTER no single character.",
        examples: &[eg(r#"["rjust", 5, "0", "123"]"#, r#""00123""#)],
        call: Call::With(|args| justify(args, false)),
    },
    Function {
        name: "rstrip",
        args: &[optional("CHARACTERS", Kind::String), VALUES],
        doc: "Removes CHARACTERS, or white space, from the end of strings.",
        examples: &[eg(
            r#"["rstrip", "xy", ["list", "123xyx", 1]]"#,
            r#"["123"]"#,
        )],
        call: Call::With(|args| strip(args, false, true)),
    },
    Function {
        name: "split",
        args: &[optional("SEPARATOR", Kind::String), VALUES],
        doc: "The parts of strings between SEPARATORs, or between white space without it, in one \
              list. An empty SEPARATOR splits into characters.",
        examples: &[
            eg(
                r#"["split", "-", ["list", "a-b", "c-d", "e"]]"#,
                r#"["a", "b", "c", "d", "e"]"#,
            ),
            eg(r#"["split", "", "abc"]"#, r#"["a", "b", "c"]"#),
            eg(r#"["split", " a  b "]"#, r#"["a", "b"]"#),
        ],
        call: Call::Costly(Cost::Made, split),
    },
    Function {
        name: "string",
        args: &[VALUES],
        doc: "Casts to strings: lists and dicts as JSON text, bytes as UTF-8, other types as their \
              bare text. Nulls are ignored.",
        examples: &[
            eg(
                r#"["string", ["list", 1, null, 124.4, {"b": 2, "a": 1}]]"#,
                r#"["1", "124.4", "{\"a\": 1, \"b\": 2}"]"#,
            ),
            eg(r#"["string", "~rhttp://x.org/"]"#, r#""http://x.org/""#),
        ],
        call: Call::Each(|value| Ok(text::string(value)?.map(Value::String))),
    },
    Function {
        name: "strip",
        args: &[optional("CHARACTERS", Kind::String), VALUES],
        doc: "Removes CHARACTERS, or white space, from both ends of strings.",
        examples: &[eg(
            r#"["strip", ["list", " ab ", "cd ", 1]]"#,
            r#"["ab", "cd"]"#,
        )],
        call: Call::With(|args| strip(args, true, true)),
    },
    Function {
        name: "substring",
        args: &[
            one("START_INDEX", Kind::Integer),
            optional("END_INDEX", Kind::Integer),
            VALUES,
        ],
        doc: "The characters of strings from START_INDEX to before END_INDEX, or to the end. \
              Negative indexes count from the end.",
        examples: &[
            eg(r#"["substring", 2, 4, "abcdef"]"#, r#""cd""#),
            eg(r#"["substring", -3, -1, "abcdef"]"#, r#""de""#),
        ],
        call: Call::With(substring),
    },
    Function {
        name: "upper",
        args: &[VALUES],
        doc: "Upper-cases strings. Values that are no strings are ignored.",
        examples: &[
            eg(r#"["upper", "ada"]"#, r#""ADA""#),
            eg(r#"["upper", 1]"#, "null"),
        ],
        call: Call::Each(upper),
    },
];

/// A function over strings; everything else is ignored.
fn over_strings(
    call: impl Fn(&Str) -> Result<Str, Limit> + Send + Sync + 'static,
) -> Result<Item, String> {
    Ok(Arc::new(move |value: &Value| match value {
        Value::String(text) => call(text).map(|text| Some(Value::String(text))),
        _ => Ok(None),
    }))
}

fn strings(value: &Value) -> impl Iterator<Item = &Str> {
    items(value).iter().filter_map(|item| match item {
        Value::String(text) => Some(text),
        _ => None,
    })
}

fn concat(args: &[Value]) -> Result<Value, Limit> {
    let mut len = 0;
    for arg in args {
        len += match arg {
            Value::String(text) => text.len(),
            other => strings(other).map(|text| text.len()).sum(),
        };
    }
    limits::string(len)?;
    let mut all = Str::with_capacity(len);
    for arg in args {
        match arg {
            Value::String(text) => all.push_str(text),
            other => strings(other).for_each(|text| all.push_str(text)),
        }
    }
    Ok(Value::String(all))
}

fn join(args: &[Value]) -> Result<Value, Limit> {
    let Value::String(separator) = first(&args[0]) else {
        return Ok(Value::Null);
    };
    let mut all = Str::new();
    for (at, text) in strings(&args[1]).enumerate() {
        limits::string(all.len() + separator.len() + text.len())?;
        if at > 0 {
            all.push_str(separator);
        }
        all.push_str(text);
    }
    Ok(Value::String(all))
}

fn lower(value: &Value) -> ItemResult {
    Ok(value.as_str().map(|text| {
        match text
            .bytes()
            .any(|b| !b.is_ascii() || b.is_ascii_uppercase())
        {
            true => Value::string(text.to_lowercase()),
            false => value.clone(),
        }
    }))
}

fn upper(value: &Value) -> ItemResult {
    Ok(match value {
        // In place: no other text could grow.
        Value::String(text) if text.is_ascii() => Some(Value::String(text.to_ascii_uppercase())),
        Value::String(text) => {
            let upper = text.to_uppercase();
            limits::string(upper.len())?;
            Some(Value::string(upper))
        }
        _ => None,
    })
}

/// How many fill characters are written at once.
const SOME: usize = 256;

fn justify(args: &[Value], left: bool) -> Result<Item, String> {
    let Some(width) = index(&args[0]) else {
        let found = crate::values::a_kind(&args[0]);
        return Err(format!("expected an integer for WIDTH, found {found}"));
    };
    let width = usize::try_from(width).unwrap_or(0);
    let fill = match &args[1] {
        Value::String(text) if text.chars().count() == 1 => text.clone(),
        Value::String(text) => {
            return Err(format!(
                "expected a single character for FILL_CHARACTER, found \"{text}\""
            ));
        }
        other => {
            return Err(format!(
                "expected a character for FILL_CHARACTER, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    over_strings(move |text| {
        let missing = width.saturating_sub(text.chars().count());
        if missing == 0 {
            return Ok(text.clone());
        }
        limits::string(
            text.len()
                .saturating_add(missing.saturating_mul(fill.len())),
        )?;
        let mut filled = Str::with_capacity(text.len() + missing * fill.len());
        if left {
            filled.push_str(text);
        }
        let some = fill.repeat(missing.min(SOME));
        for _ in 0..missing / SOME {
            filled.push_str(&some);
        }
        filled.push_str(&some[..missing % SOME * fill.len()]);
        if !left {
            filled.push_str(text);
        }
        Ok(filled)
    })
}

fn strip(args: &[Value], start: bool, end: bool) -> Result<Item, String> {
    let characters: Option<Vec<char>> = match &args[0] {
        Value::Null => None,
        Value::String(text) => {
            let mut characters: Vec<char> = text.chars().collect();
            characters.sort_unstable();
            characters.dedup();
            Some(characters)
        }
        other => {
            return Err(format!(
                "expected a string of characters, found {}",
                crate::values::a_kind(other)
            ));
        }
    };
    over_strings(move |text| {
        let taken = |c: char| match &characters {
            Some(characters) => characters.binary_search(&c).is_ok(),
            None => c.is_whitespace(),
        };
        let mut stripped = text.as_str();
        if start {
            stripped = stripped.trim_start_matches(taken);
        }
        if end {
            stripped = stripped.trim_end_matches(taken);
        }
        Ok(match stripped.len() == text.len() {
            true => text.clone(),
            false => stripped.into(),
        })
    })
}

fn matches(m: &mut Machine<'_>, env: Env<'_>, args: &[Expr]) -> Result<Value, Stop> {
    let (patterns, values) = (m.eval(&args[0], env)?, m.eval(&args[1], env)?);
    let Some(text) = strings(&patterns).next() else {
        return Ok(Value::Bool(false));
    };
    m.step(text.len() / PARTS_A_STEP)?;
    let pattern = Pattern::new(text);
    let values = items(&values);
    for item in values {
        let Some(text) = item.as_str() else {
            return Ok(Value::Bool(false));
        };
        m.step(pattern.effort(text) / PARTS_A_STEP)?;
        if !pattern.matches(text) {
            return Ok(Value::Bool(false));
        }
    }
    m.step(values.len() / PARTS_A_STEP)?;
    Ok(Value::Bool(!values.is_empty()))
}

fn replace(args: &[Value]) -> Result<Item, String> {
    let mut pairs: Vec<(Str, Str)> = Vec::new();
    match (&args[0], &args[1]) {
        (Value::Dict(dict), Value::Null) => {
            for (old, new) in dict.iter() {
                if let (false, Value::String(new)) = (old.is_empty(), new) {
                    pairs.push((old.clone(), new.clone()));
                }
            }
        }
        (Value::String(old), Value::String(new)) if old.is_empty() => {
            return spread(new.clone());
        }
        (Value::String(old), Value::String(new)) => pairs.push((old.clone(), new.clone())),
        (a, b) => {
            return Err(format!(
                "expected a dict of replacements or two strings, found {} and {}",
                crate::values::a_kind(a),
                crate::values::a_kind(b)
            ));
        }
    }
    match pairs.as_slice() {
        [(old, new)] => {
            let (old, new) = (old.clone(), new.clone());
            over_strings(move |text| {
                rewritten(
                    text,
                    text.match_indices(&*old)
                        .map(|(at, _)| (at, old.len(), &*new)),
                )
            })
        }
        _ => replace_many(pairs),
    }
}

/// Replaces names of a dict: at each place the longest one that stands there, in a time that does
/// not grow with their number.
fn replace_many(pairs: Vec<(Str, Str)>) -> Result<Item, String> {
    let bytes: usize = pairs.iter().map(|(old, _)| old.len()).sum();
    if bytes > MAX_REPLACED {
        let limit = Limit("bytes of names to replace", MAX_REPLACED as u64);
        return Ok(Arc::new(move |_: &Value| Err(limit)));
    }
    if pairs.len() > MAX_REPLACED_NAMES {
        let limit = Limit("names to replace", MAX_REPLACED_NAMES as u64);
        return Ok(Arc::new(move |_: &Value| Err(limit)));
    }
    let names = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(pairs.iter().map(|(old, _)| old.as_bytes()))
        .map_err(|error| format!("expected names that can be looked for: {error}"))?;
    over_strings(move |text| {
        let found = names.find_iter(text);
        rewritten(
            text,
            found.map(|found| (found.start(), found.len(), &*pairs[found.pattern()].1)),
        )
    })
}

/// A text with others put in the place of parts of it: where, how many bytes, and what.
fn rewritten<'t>(
    text: &Str,
    parts: impl Iterator<Item = (usize, usize, &'t str)>,
) -> Result<Str, Limit> {
    let (mut out, mut from) = (String::new(), 0);
    for (at, len, new) in parts {
        limits::string(out.len() + (at - from) + new.len())?;
        out.push_str(&text[from..at]);
        out.push_str(new);
        from = at + len;
    }
    if from == 0 {
        return Ok(text.clone());
    }
    limits::string(out.len() + text.len() - from)?;
    out.push_str(&text[from..]);
    Ok(out.into())
}

/// An empty text stands between all characters, and at both ends.
fn spread(new: Str) -> Result<Item, String> {
    over_strings(move |text| {
        limits::string((text.len() + 1).saturating_mul(new.len() + 1))?;
        Ok(text.replace("", &new))
    })
}

fn split(args: &[Value]) -> Result<Value, Limit> {
    let separator = match first(&args[0]) {
        Value::Null => None,
        Value::String(text) => Some(text),
        _ => return Ok(Value::Null),
    };
    if args[1].is_null() {
        return Ok(Value::Null);
    }
    let mut parts = Items::new();
    for text in strings(&args[1]) {
        // One more than there may be, so that it is noticed.
        let most = MAX_LIST + 1 - parts.len();
        match separator.map(Str::as_str) {
            None => parts.extend(text.split_whitespace().map(Value::string).take(most)),
            Some("") => parts.extend(text.chars().map(letter).take(most)),
            Some(separator) => parts.extend(text.split(separator).map(Value::string).take(most)),
        }
        limits::list(parts.len())?;
    }
    let ignored = sequence(&args[1]).is_none() && parts.is_empty() && args[1].as_str().is_none();
    Ok(if ignored {
        Value::Null
    } else {
        Value::List(parts)
    })
}

fn letter(letter: char) -> Value {
    Value::string(&*letter.encode_utf8(&mut [0; 4]))
}

fn substring(args: &[Value]) -> Result<Item, String> {
    let place_of = |value: &Value, name: &str| {
        index(value).ok_or_else(|| {
            let found = crate::values::a_kind(value);
            format!("expected an integer for {name}, found {found}")
        })
    };
    let start = place_of(&args[0], "START_INDEX")?;
    let end = match &args[1] {
        Value::Null => None,
        end => Some(place_of(end, "END_INDEX")?),
    };
    over_strings(move |text| {
        let count = text.chars().count();
        let from = place(start, count);
        let to = end.map_or(count, |end| place(end, count));
        Ok(text
            .chars()
            .skip(from)
            .take(to.saturating_sub(from))
            .collect())
    })
}

/// The place that an index means among `count` things; negative ones count from the end.
pub(super) fn place(index: i64, count: usize) -> usize {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let place = if index < 0 {
        index.saturating_add(count).max(0)
    } else {
        index.min(count)
    };
    usize::try_from(place).expect("it is between 0 and the count")
}
