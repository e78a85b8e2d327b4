//! What becomes of the columns of a file: the entity's id, its properties, or nothing.

use tahini_entity::{Dict, Entity, Str, Value, is_reserved};
use tahini_hub::Failure;
use tahini_hub::config::Props;

use super::rows::Row;
use crate::formats::names;

/// What a configuration says of columns.
pub(super) struct Wanted {
    /// The columns of the id, in order.
    primary_key: Vec<String>,
    whitelist: Option<Vec<String>>,
    blacklist: Vec<String>,
    preserve_empty_strings: bool,
    /// Where the properties stand, for messages.
    path: String,
}

/// The columns of a file.
pub(super) struct Columns {
    names: Vec<Str>,
    uses: Vec<Use>,
    keys: Vec<usize>,
    preserve_empty_strings: bool,
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Property,
    /// `_deleted`.
    Deleted,
    /// Left out by the configuration, or a reserved name.
    Nothing,
    /// It has no name, so that a value in it would be lost.
    Nameless,
}

impl Wanted {
    /// # Errors
    /// Config, when a property is no list of names.
    pub(super) fn of(props: Props<'_>) -> Result<Wanted, Failure> {
        let primary_key = listed(props, "primary_key")?.unwrap_or_default();
        if primary_key.is_empty() {
            let expected = "the name of the column of the id, or a list of names";
            return Err(props.wrong("primary_key", expected, props.get("primary_key")));
        }
        Ok(Wanted {
            primary_key,
            whitelist: listed(props, "whitelist")?,
            blacklist: listed(props, "blacklist")?.unwrap_or_default(),
            preserve_empty_strings: props.bool("preserve_empty_strings", false)?,
            path: props.path().to_owned(),
        })
    }

    /// The columns of a file, by their names.
    ///
    /// # Errors
    /// Config, when a column of the id is missing or a name occurs twice.
    pub(super) fn columns(&self, names: Vec<Str>) -> Result<Columns, Failure> {
        let uses: Vec<Use> = names.iter().map(|name| self.use_of(name)).collect();
        for (at, name) in names.iter().enumerate() {
            if uses[at] != Use::Nameless && names[..at].contains(name) {
                return Err(Failure::config(format!(
                    "{}: expected columns of different names, found {name:?} twice; name the \
                     columns yourself (`field_names`)",
                    self.path
                )));
            }
        }
        let place = |key: &String| {
            let place = names.iter().position(|name| name == key);
            place.ok_or_else(|| {
                let found: Vec<&str> = names.iter().map(Str::as_str).collect();
                Failure::config(format!(
                    "{}.primary_key: expected the names of columns, found {key:?}, which is none \
                     of {}; names are told apart by case, too",
                    self.path,
                    shown(&found)
                ))
            })
        };
        let keys = self.primary_key.iter().map(place);
        let keys = keys.collect::<Result<Vec<usize>, Failure>>()?;
        Ok(Columns {
            keys,
            names,
            uses,
            preserve_empty_strings: self.preserve_empty_strings,
        })
    }

    fn use_of(&self, name: &str) -> Use {
        let is_in = |list: &[String]| list.iter().any(|listed| listed == name);
        let wanted = self.whitelist.as_ref().is_none_or(|list| is_in(list));
        match name {
            "" => Use::Nameless,
            _ if !wanted || is_in(&self.blacklist) => Use::Nothing,
            "_deleted" => Use::Deleted,
            _ if is_reserved(name) => Use::Nothing,
            _ => Use::Property,
        }
    }
}

/// The names of at most so many columns are shown.
const SHOWN: usize = 20;

fn shown(names: &[&str]) -> String {
    let first: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("{name:?}"))
        .collect();
    let rest = match names.len().checked_sub(SHOWN) {
        Some(rest) if rest > 0 => format!(" and {rest} more"),
        _ => String::new(),
    };
    format!("{}{rest}", first.join(", "))
}

/// The names of columns that a property holds, if it is there.
///
/// # Errors
/// Config, when it is no list of names.
pub(super) fn listed(props: Props<'_>, property: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some(value) = props.get(property) else {
        return Ok(None);
    };
    let wrong = || props.wrong(property, "a list of names", Some(value));
    names(value).map(Some).ok_or_else(wrong)
}

impl Columns {
    /// The entity that a row stands for.
    ///
    /// # Errors
    /// An entity failure with the line and the field, when a column of the id has no value or a
    /// value has no column.
    pub(super) fn entity(&self, row: &Row) -> Result<Entity, Failure> {
        let mut entity = Entity {
            id: Some(self.id(row)?),
            ..Entity::default()
        };
        let mut properties = Dict::new();
        for (at, value) in row.fields().enumerate() {
            match self.uses.get(at) {
                Some(Use::Property) if !value.is_empty() || self.preserve_empty_strings => {
                    properties.push_new(self.names[at].clone(), Value::string(value));
                }
                Some(Use::Deleted) => entity.deleted = value.eq_ignore_ascii_case("true"),
                None | Some(Use::Nameless) if !value.is_empty() => {
                    return Err(self.too_many(row, at));
                }
                _ => {}
            }
        }
        entity.properties = properties;
        Ok(entity)
    }

    fn id(&self, row: &Row) -> Result<Str, Failure> {
        let mut id = Str::new();
        for (count, at) in self.keys.iter().enumerate() {
            let value = row.get(*at).unwrap_or_default();
            if value.is_empty() {
                return Err(Failure::entity(format!(
                    "line {}, field {}: expected a value in the column {:?}, which is (a part of) \
                     the id, found none",
                    row.line,
                    at + 1,
                    self.names[*at]
                )));
            }
            if count > 0 {
                id.push(':');
            }
            id.push_str(value);
        }
        Ok(id)
    }

    fn too_many(&self, row: &Row, at: usize) -> Failure {
        let known = self.uses.iter().filter(|one| **one != Use::Nameless);
        Failure::entity(format!(
            "line {}, field {}: expected no value, as there are {} columns with names, found one; \
             a wrong `delimiter` or `dialect` does this, and `field_names` names more columns",
            row.line,
            at + 1,
            known.count()
        ))
    }
}
