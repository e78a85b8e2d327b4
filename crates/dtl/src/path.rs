//! Property paths: `_S.orders.amount`, from a variable through properties to values.

use tahini_entity::{Dict, Value};

use crate::namespace::{Naming, Read, is_bare, split_name};
use crate::values::{self, Items};
use crate::weight;

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// `_S` of the context that many parents up.
    Source(u16),
    /// `_T` of the context that many parents up.
    Target(u16),
    /// `_P`, that many parents up, as a dict.
    Parent(u16),
    /// `_R._S`.
    OuterSource,
    /// `_R._T`.
    OuterTarget,
    /// `_R` as a dict.
    Outer,
    /// `_B`.
    Parameters,
    /// `_`.
    Current,
    /// An alias of the `hops` around it.
    Alias(u16),
}

/// A compiled path.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) root: Root,
    pub(crate) elements: Box<[Read]>,
    /// The place of this path's cache: where its first property stands in a shape.
    pub(crate) slot: u32,
}

/// Splits the text after a variable's dot into elements; `'…'` quotes one, `''` inside it is one
/// quote.
///
/// # Errors
/// What is wrong with the text, in words.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut elements = Vec::new();
    let mut rest = text;
    loop {
        let (element, after) = match rest.strip_prefix('\'') {
            Some(quoted) => unquote(quoted)?,
            None => match rest.split_once('.') {
                Some((element, after)) => (element.to_owned(), Some(after)),
                None => (rest.to_owned(), None),
            },
        };
        if element.is_empty() {
            return Err(format!(
                "expected a property's name between the dots, found nothing in \"{text}\""
            ));
        }
        elements.push(element);
        match after {
            Some(after) => rest = after,
            None => return Ok(elements),
        }
    }
}

fn unquote(quoted: &str) -> Result<(String, Option<&str>), String> {
    let mut element = String::new();
    let mut rest = quoted;
    loop {
        let Some((text, after)) = rest.split_once('\'') else {
            return Err(format!(
                "expected a closing ' in the path, found none in \"'{quoted}\""
            ));
        };
        element.push_str(text);
        match after.chars().next() {
            Some('\'') => {
                element.push('\'');
                rest = &after[1..];
            }
            Some('.') => return Ok((element, Some(&after[1..]))),
            None => return Ok((element, None)),
            Some(_) => {
                return Err(format!(
                    "expected a dot or the end after the closing ', found \"{after}\""
                ));
            }
        }
    }
}

/// What following a path took.
pub(crate) struct Walked {
    /// How many parts of values were looked at.
    pub(crate) parts: usize,
    /// How many bytes the lists take that were made on the way.
    pub(crate) bytes: usize,
    /// How many parts may be looked at; whoever counts more gives up, for it is an error then.
    pub(crate) most: usize,
}

impl Walked {
    /// Counts a value that is compared with others; false when that is too much.
    fn compares(&mut self, value: &Value) -> bool {
        let parts = weight::parts(value, self.most).unwrap_or(usize::MAX);
        self.parts = self.parts.saturating_add(parts.saturating_mul(COMPARED));
        self.parts <= self.most
    }
}

/// As how many parts a part counts that is compared with those of other values.
const COMPARED: usize = 4;

/// Follows `elements` from a value: through dicts, and through the items of lists. Missing
/// properties give null from a dict and nothing from a list's item.
pub(crate) fn follow(value: &Value, elements: &[Read], walked: &mut Walked) -> Value {
    let mut here = value.clone();
    for element in elements {
        walked.parts += 1;
        here = match &here {
            Value::Dict(dict) => match find(dict, element, walked) {
                Some(found) => found,
                None => return Value::Null,
            },
            Value::List(items) | Value::Tuple(items) => {
                let found = each(items, element, walked);
                if found.is_empty() {
                    return Value::List(found);
                }
                Value::List(found)
            }
            _ => return Value::Null,
        };
    }
    here
}

/// What a name reads from the dicts among the items of a list.
fn each(items: &[Value], element: &Read, walked: &mut Walked) -> Items {
    let mut found = Items::new();
    walked.parts += items.len();
    for item in items {
        let Value::Dict(dict) = item else { continue };
        if let Some(value) = find(dict, element, walked) {
            values::extend(&mut found, value);
        }
        if walked.parts > walked.most {
            break;
        }
    }
    walked.bytes += size_of_val(found.as_slice());
    found
}

fn find(dict: &Dict, element: &Read, walked: &mut Walked) -> Option<Value> {
    walked.parts += dict.len() / 2;
    match element {
        Read::Exact(name) => dict.get(name).cloned(),
        Read::Any(identifier) => {
            walked.parts += dict.len() / 2;
            let named = dict
                .iter()
                .filter(|(name, _)| has_identifier(name, identifier));
            gather(named.map(|(_, value)| value.clone()), walked)
        }
    }
}

/// Whether a property's name, in any namespace, has this identifier.
pub(crate) fn has_identifier(name: &str, identifier: &str) -> bool {
    !is_bare(name) && split_name(name).1 == identifier
}

/// What an unqualified name reads: one property's value as it is, the union of several.
pub(crate) fn gather(mut found: impl Iterator<Item = Value>, walked: &mut Walked) -> Option<Value> {
    let first = found.next()?;
    let Some(second) = found.next() else {
        return Some(first);
    };
    let mut all = Items::new();
    for value in [first, second].into_iter().chain(found) {
        if !walked.compares(&value) {
            return None;
        }
        if !value.is_null() {
            values::extend(&mut all, value);
        }
    }
    walked.bytes += size_of_val(all.as_slice());
    Some(Value::List(values::distinct(all)))
}

/// Compiles the names of a path.
pub(crate) fn elements(names: &[String], naming: &Naming) -> Box<[Read]> {
    names
        .iter()
        .map(|name| naming.read(&name.as_str().into()))
        .collect()
}

/// The property names of a path given as a value: a string or a list of strings; whatever is
/// no string is ignored.
pub(crate) fn dynamic(value: &Value, naming: &Naming) -> Vec<Read> {
    let names = values::items(value).iter().filter_map(|name| match name {
        Value::String(name) => Some(name),
        _ => None,
    });
    names.map(|name| naming.read(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_split_at_dots_outside_quotes() {
        for (text, expected) in [
            ("a", vec!["a"]),
            ("a.b", vec!["a", "b"]),
            ("foo.'john.doe''s'.bar", vec!["foo", "john.doe's", "bar"]),
            ("'a.b'", vec!["a.b"]),
            ("crm:name.x", vec!["crm:name", "x"]),
            ("o'hara", vec!["o'hara"]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        for text in ["", "a.", ".a", "a..b", "'a", "'a'b", "''"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
