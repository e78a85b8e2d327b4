//! Entities as rows of a table.

use std::sync::Arc;

use tahini_entity::{Record, Shape, Value, encoding};
use tahini_hub::Failure;
use tahini_hub::config::Props;

use super::csv::COLUMNS;
use super::names;

/// The columns of a table, and where the entities that come have them.
pub(super) struct Table {
    columns: Vec<String>,
    /// The shape of the last entity; most have the same one.
    shape: Option<Arc<Shape>>,
    places: Vec<Option<usize>>,
}

impl Table {
    /// The table with the columns of a sink.
    ///
    /// # Errors
    /// Config, when there are none.
    pub(super) fn of(props: Props<'_>) -> Result<Table, Failure> {
        let wrong = || {
            let expected = "a list of at least one name of a property";
            props.wrong(COLUMNS, expected, props.get(COLUMNS))
        };
        let list = props.get(COLUMNS).filter(|found| found.is_array());
        let columns = list.and_then(names).filter(|names| !names.is_empty());
        let columns = columns.ok_or_else(wrong)?;
        Ok(Table {
            places: vec![None; columns.len()],
            columns,
            shape: None,
        })
    }

    /// The names of the columns.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values of an entity in the columns, null where it has none.
    pub(super) fn row(&mut self, record: Record<'_>) -> Vec<Value> {
        let is_known = self.shape.as_ref();
        if is_known.is_none_or(|known| !Arc::ptr_eq(known, record.shape)) {
            let place = |name: &String| record.shape.position(name);
            self.places = self.columns.iter().map(place).collect();
            self.shape = Some(Arc::clone(record.shape));
        }
        let mut rest = record.body;
        let names = record.shape.names().iter();
        let values: Vec<&[u8]> = names.map(|_| encoding::take(&mut rest)).collect();
        let columns = self.columns.iter().zip(&self.places);
        columns
            .map(|(name, place)| match place {
                Some(at) => encoding::decode(&mut &*values[*at]),
                None => reserved(name, record),
            })
            .collect()
    }
}

/// A field that stands beside an entity's properties.
fn reserved(name: &str, record: Record<'_>) -> Value {
    let integer = |number: u64| i64::try_from(number).map_or(Value::Null, Value::Int);
    match name {
        "_id" => record.id.map_or(Value::Null, Value::string),
        "_deleted" => Value::Bool(record.meta.deleted),
        "_updated" => match &record.meta.updated {
            Some(offset) => Value::string(offset.to_string()),
            None => Value::Null,
        },
        "_previous" => record.meta.previous.map_or(Value::Null, integer),
        "_ts" if record.meta.ts != 0 => Value::Int(record.meta.ts),
        "_hash" => Value::string(format!("{:032x}", record.hash())),
        _ => Value::Null,
    }
}
