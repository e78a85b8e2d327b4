//! What the language does with values everywhere: truth, lists, equality.

use std::collections::HashSet;

use ecow::EcoVec;
use tahini_entity::{Value, order};

/// The items of a list.
pub(crate) type Items = EcoVec<Value>;

/// A value's kind with its article, for messages: `an integer`, `null`.
pub(crate) fn a_kind(value: &Value) -> String {
    match value.kind() {
        null @ "null" => null.to_owned(),
        bytes @ "bytes" => bytes.to_owned(),
        integer @ "integer" => format!("an {integer}"),
        kind => format!("a {kind}"),
    }
}

/// Only false, null and the empty list are false.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::List(items) | Value::Tuple(items) => !items.is_empty(),
        _ => true,
    }
}

/// A value's items: a list's own, none of null, otherwise the value alone.
pub(crate) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Null => &[],
        Value::List(items) | Value::Tuple(items) => items,
        other => std::slice::from_ref(other),
    }
}

/// The items of a list or tuple; `None` for everything else.
pub(crate) fn sequence(value: &Value) -> Option<&[Value]> {
    match value {
        Value::List(items) | Value::Tuple(items) => Some(items),
        _ => None,
    }
}

/// The first item of a list, or the value itself; null for an empty list.
pub(crate) fn first(value: &Value) -> &Value {
    static NULL: Value = Value::Null;
    match value {
        Value::List(items) | Value::Tuple(items) => items.first().unwrap_or(&NULL),
        other => other,
    }
}

/// Appends a value's items, or the value itself; null is appended.
pub(crate) fn extend(all: &mut Items, value: Value) {
    match value {
        Value::List(items) | Value::Tuple(items) if all.is_empty() => *all = items,
        Value::List(items) | Value::Tuple(items) => all.extend_from_slice(&items),
        other => all.push(other),
    }
}

/// The equality of `eq`: both sides as lists, compared item by item; null equals null only.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => a.is_null() && b.is_null(),
        _ => {
            let (a, b) = (items(a), items(b));
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| order::eq(a, b))
        }
    }
}

/// A set of values by the equality of `eq`.
#[derive(Default)]
pub(crate) struct Seen {
    few: Vec<Value>,
    many: HashSet<u128>,
}

/// From how many values on a set hashes them.
const MANY: usize = 8;

impl Seen {
    pub(crate) fn of(values: &[Value]) -> Seen {
        let mut seen = Seen::default();
        for value in values {
            seen.insert(value);
        }
        seen
    }

    pub(crate) fn contains(&self, value: &Value) -> bool {
        if self.many.is_empty() {
            self.few.iter().any(|known| order::eq(known, value))
        } else {
            self.many.contains(&order::key(value))
        }
    }

    /// Adds a value; false when it was there.
    pub(crate) fn insert(&mut self, value: &Value) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(order::key(value));
        }
        if self.contains(value) {
            return false;
        }
        self.few.push(value.clone());
        if self.few.len() > MANY {
            self.many = self.few.drain(..).map(|value| order::key(&value)).collect();
        }
        true
    }
}

/// The items without duplicates, the first ones in their order.
pub(crate) fn distinct(items: Items) -> Items {
    let mut seen = Seen::default();
    items.into_iter().filter(|item| seen.insert(item)).collect()
}

/// A function that ignores some values, lifted over lists: a list gives a list of what it did
/// not ignore, a single value its result or null.
pub(crate) fn lift<E>(
    value: &Value,
    mut call: impl FnMut(&Value) -> Result<Option<Value>, E>,
) -> Result<Value, E> {
    match value {
        Value::List(items) | Value::Tuple(items) => {
            let mut results = Items::with_capacity(items.len());
            for item in items {
                if let Some(result) = call(item)? {
                    results.push(result);
                }
            }
            Ok(Value::List(results))
        }
        single => Ok(call(single)?.unwrap_or_default()),
    }
}
