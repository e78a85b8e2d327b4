//! What a table for entities has to look like: the `schema_definition` of SQL sinks, from a sample.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use tahini_entity::{Batch, Entity, Value};

/// Entities that are looked at where nobody says how many.
pub const SAMPLE: u64 = 1_000;

/// Columns for entities, found by looking at some.
#[derive(Default)]
pub struct TableDefinition {
    entities: u64,
    columns: BTreeMap<String, Column>,
    order: Vec<String>,
}

/// What is known of one column.
#[derive(Default)]
struct Column {
    /// Entities that have a value there.
    present: u64,
    /// Entities in which it is the `_id`.
    same_as_id: u64,
    kind: Option<ColumnKind>,
    /// The least and most, in characters, bytes or as a number.
    span: Option<(i128, i128)>,
    /// Digits before and behind the point.
    digits: (i64, i64),
}

#[derive(Clone, Copy, PartialEq)]
enum ColumnKind {
    Boolean,
    Integer,
    Decimal,
    Float,
    Binary,
    Date,
    Datetime,
    Uuid,
    String,
}

impl TableDefinition {
    /// Looks at the entities of a batch until there are `most` in all; deleted ones tell nothing.
    pub fn observe(&mut self, batch: &Batch, most: u64) {
        let left = usize::try_from(most.saturating_sub(self.entities)).unwrap_or(usize::MAX);
        let living = batch.iter().filter(|record| !record.meta.deleted);
        living
            .take(left)
            .for_each(|record| self.take(&record.to_entity()));
    }

    /// How many entities were looked at.
    pub fn entities(&self) -> u64 {
        self.entities
    }

    /// The names of the columns, in the order in which they were met.
    pub fn keys(&self) -> Json {
        json!(self.order)
    }

    /// The columns as a `schema_definition`.
    pub fn columns(&self, key_is_id: bool) -> Json {
        let key = self.key(key_is_id);
        let columns = self.order.iter().map(|name| {
            let column = &self.columns[name];
            column.to_json(name, self.entities, key == Some(name))
        });
        Json::Array(columns.collect())
    }

    /// The column that tells entities apart: the `_id`, or another one that always holds the same.
    fn key(&self, is_id: bool) -> Option<&String> {
        let same = |name: &&String| {
            name.as_str() != "_id" && self.columns[*name].same_as_id == self.entities
        };
        let id = || self.order.iter().find(|name| name.as_str() == "_id");
        match is_id {
            true => id(),
            false => self.order.iter().find(same).or_else(id),
        }
    }

    fn take(&mut self, entity: &Entity) {
        self.entities += 1;
        let id = entity.id.clone().unwrap_or_default();
        self.column("_id").take(&Value::String(id.clone()), &id);
        for (name, value) in entity.properties.iter() {
            if !name.starts_with(['_', '$']) {
                self.column(name).take(value, &id);
            }
        }
    }

    fn column(&mut self, name: &str) -> &mut Column {
        if !self.columns.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.columns.entry(name.to_owned()).or_default()
    }
}

impl Column {
    fn take(&mut self, value: &Value, id: &str) {
        let Some(kind) = ColumnKind::of(value) else {
            return;
        };
        self.present += 1;
        self.same_as_id += u64::from(value.as_str() == Some(id));
        let joined = self.kind.map_or(kind, |known| known.join(kind));
        if self
            .kind
            .is_some_and(|known| known.is_text() != joined.is_text())
        {
            // The sizes of numbers are none of texts.
            self.span = None;
        }
        self.kind = Some(joined);
        if let Value::Decimal(number) = value {
            let (digits, scale) = number.as_bigint_and_scale();
            let length = digits.to_string().trim_start_matches('-').len() as i64;
            let before = (length - scale).max(1);
            self.digits = (self.digits.0.max(before), self.digits.1.max(scale));
        }
        let Some(size) = size(value, joined) else {
            return;
        };
        let (least, most) = self.span.unwrap_or((size, size));
        self.span = Some((least.min(size), most.max(size)));
    }

    fn to_json(&self, name: &str, entities: u64, is_key: bool) -> Json {
        let kind = self.kind.unwrap_or(ColumnKind::String);
        let mut column = Map::new();
        let mut set = |name: &str, value: Json| column.insert(name.to_owned(), value);
        set("source_property", json!(name));
        set("name", json!(name));
        set("type", json!(kind.name()));
        let what = match kind {
            ColumnKind::String | ColumnKind::Binary => Some("size"),
            ColumnKind::Integer => Some("value"),
            _ => None,
        };
        if let (Some(what), Some((least, most))) = (what, self.span) {
            set(&format!("min_{what}"), number(least));
            set(&format!("max_{what}"), number(most));
        }
        if kind == ColumnKind::Decimal {
            let (before, behind) = self.digits;
            set("precision", json!(before + behind));
            set("scale", json!(behind));
        }
        set("allow_null", json!(self.present < entities));
        set("primary_key", json!(is_key));
        set("index", json!(false));
        Json::Object(column)
    }
}

impl ColumnKind {
    /// The kind of column that a value needs; null needs none. What has no column of its own is
    /// written as JSON text.
    fn of(value: &Value) -> Option<ColumnKind> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => ColumnKind::Boolean,
            Value::Int(_) | Value::BigInt(_) => ColumnKind::Integer,
            Value::Float(_) => ColumnKind::Float,
            Value::Decimal(_) => ColumnKind::Decimal,
            Value::Bytes(_) => ColumnKind::Binary,
            Value::Date(_) => ColumnKind::Date,
            Value::Datetime(_) => ColumnKind::Datetime,
            Value::Uuid(_) => ColumnKind::Uuid,
            Value::String(_) | Value::Ni(_) | Value::Uri(_) => ColumnKind::String,
            Value::List(_) | Value::Tuple(_) | Value::Dict(_) => ColumnKind::String,
        })
    }

    /// The kind that takes values of both.
    fn join(self, other: ColumnKind) -> ColumnKind {
        use ColumnKind::{Date, Datetime, Decimal, Float, Integer, String};
        match (self, other) {
            (one, two) if one == two => one,
            (Integer, Decimal) | (Decimal, Integer) => Decimal,
            (Integer | Decimal, Float) | (Float, Integer | Decimal) => Float,
            (Date, Datetime) | (Datetime, Date) => Datetime,
            _ => String,
        }
    }

    fn is_text(self) -> bool {
        matches!(self, ColumnKind::String | ColumnKind::Binary)
    }

    fn name(self) -> &'static str {
        match self {
            ColumnKind::Boolean => "boolean",
            ColumnKind::Integer => "integer",
            ColumnKind::Decimal => "decimal",
            ColumnKind::Float => "float",
            ColumnKind::Binary => "binary",
            ColumnKind::Date => "date",
            ColumnKind::Datetime => "datetime",
            ColumnKind::Uuid => "uuid",
            ColumnKind::String => "string",
        }
    }
}

/// How large a value is in a column of that kind.
fn size(value: &Value, kind: ColumnKind) -> Option<i128> {
    let length = |bytes: usize| i128::try_from(bytes).ok();
    match (value, kind) {
        (Value::Int(number), ColumnKind::Integer) => Some(i128::from(*number)),
        (Value::BigInt(number), ColumnKind::Integer) => i128::try_from(number.as_ref()).ok(),
        (Value::Bytes(bytes), ColumnKind::Binary) => length(bytes.len()),
        (Value::String(text) | Value::Ni(text) | Value::Uri(text), ColumnKind::String) => {
            length(text.chars().count())
        }
        (other, ColumnKind::String) => {
            let mut text = Vec::new();
            tahini_entity::json::write_value(other, &mut text);
            length(String::from_utf8_lossy(&text).chars().count())
        }
        _ => None,
    }
}

fn number(number: i128) -> Json {
    serde_json::from_str(&number.to_string()).unwrap_or(Json::Null)
}
