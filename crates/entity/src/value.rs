//! The one value type: everything that a property of an entity can hold.

use std::collections::HashMap;
use std::sync::Arc;

use bigdecimal::BigDecimal;
use ecow::{EcoString, EcoVec};
use num_bigint::BigInt;

use crate::Datetime;

/// Text that clones without copying and keeps up to 15 bytes in place.
pub type Str = EcoString;

/// A value of an entity's property, at any depth.
///
/// Integers have no limit: those that fit an `i64` are always `Int`, the others always `BigInt`,
/// so that equal integers have one form. Floats are never NaN or infinite: those become null on
/// entry. `1`, `1.0` and the decimal `1.0` are three different values that compare equal.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Absent or JSON `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// An integer outside the range of `Int`.
    BigInt(Arc<BigInt>),
    /// A finite IEEE 754 double; −0.0 is stored as 0.0.
    Float(f64),
    /// A decimal of any precision; its scale is kept (`1.0` and `1.00` differ in content).
    Decimal(Arc<BigDecimal>),
    /// UTF-8 text.
    String(Str),
    /// Binary content (`~b`).
    Bytes(EcoVec<u8>),
    /// A calendar date (`~t2015-12-31`), years 1 to 9999.
    Date(jiff::civil::Date),
    /// An instant with nanoseconds (`~t2015-12-31T00:00:00Z`), years 1 to 9999.
    Datetime(Datetime),
    /// A UUID (`~u`).
    Uuid(uuid::Uuid),
    /// A namespaced identifier (`~:ns:id`), stored without the tag.
    Ni(Str),
    /// A URI (`~r`), stored without the tag.
    Uri(Str),
    /// A list.
    List(EcoVec<Value>),
    /// A tuple: a composite key. It has no wire form of its own and is written as a list.
    Tuple(EcoVec<Value>),
    /// A dictionary with ordered keys.
    Dict(Dict),
}

impl Value {
    /// Text as a value.
    pub fn string(text: impl Into<Str>) -> Value {
        Value::String(text.into())
    }

    /// An integer of any size in its one form.
    pub fn integer(number: BigInt) -> Value {
        match i64::try_from(&number) {
            Ok(small) => Value::Int(small),
            Err(_) => Value::BigInt(Arc::new(number)),
        }
    }

    /// A double in its one form: NaN and the infinities become null, −0.0 becomes 0.0.
    pub fn float(number: f64) -> Value {
        if number.is_finite() {
            Value::Float(number + 0.0)
        } else {
            Value::Null
        }
    }

    /// A decimal of any precision.
    pub fn decimal(number: BigDecimal) -> Value {
        Value::Decimal(Arc::new(number))
    }

    /// The text of a string value; `None` for every other kind.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The kind's name as error messages print it: `string`, `integer`, `list` …
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) | Value::BigInt(_) => "integer",
            Value::Float(_) => "float",
            Value::Decimal(_) => "decimal",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Date(_) => "date",
            Value::Datetime(_) => "datetime",
            Value::Uuid(_) => "uuid",
            Value::Ni(_) => "namespaced identifier",
            Value::Uri(_) => "uri",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
        }
    }
}

/// A dictionary: names to values, in the order in which names were first set.
#[derive(Clone, Debug, Default)]
pub struct Dict(EcoVec<(Str, Value)>);

impl Dict {
    /// An empty dictionary.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// Whether both are the same pairs in the same memory.
    pub fn is_shared_with(&self, other: &Dict) -> bool {
        std::ptr::eq(self.0.as_slice(), other.0.as_slice())
    }

    /// Sets `name` to `value`; a known name keeps its place.
    pub fn set(&mut self, name: impl Into<Str>, value: Value) {
        let name = name.into();
        match self.0.iter().position(|(known, _)| *known == name) {
            Some(at) => self.0.make_mut()[at].1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds a name that is known to be new; the caller vouches for that.
    pub fn push_new(&mut self, name: impl Into<Str>, value: Value) {
        self.0.push((name.into(), value));
    }

    /// Takes `name` out and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Str, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Keeps the pairs that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.0.retain(|(name, value)| keep(name, value));
    }
}

/// Up to how many names a dict under construction is searched one by one.
const FEW: usize = 32;

impl FromIterator<(Str, Value)> for Dict {
    /// Later pairs of the same name win and keep the first one's place.
    fn from_iter<I: IntoIterator<Item = (Str, Value)>>(pairs: I) -> Dict {
        let mut dict = Dict::new();
        let mut places: HashMap<Str, usize> = HashMap::new();
        for (name, value) in pairs {
            if dict.len() < FEW {
                dict.set(name, value);
                continue;
            }
            // Looking for each name among all the others would take the square of their number.
            if places.is_empty() {
                let known = dict.0.iter().enumerate();
                places.extend(known.map(|(at, (name, _))| (name.clone(), at)));
            }
            match places.get(&name) {
                Some(&at) => dict.0.make_mut()[at].1 = value,
                None => {
                    places.insert(name.clone(), dict.len());
                    dict.0.push((name, value));
                }
            }
        }
        dict
    }
}
