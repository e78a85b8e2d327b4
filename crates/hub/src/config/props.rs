//! Reading typed properties out of effective configuration.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::Failure;

/// An object of effective configuration, with the JSON path that errors name.
#[derive(Clone, Copy, Debug)]
pub struct Props<'a> {
    path: &'a str,
    map: &'a Map<String, Json>,
}

impl<'a> Props<'a> {
    /// The object at `path`, for example `$.source`.
    pub fn new(path: &'a str, map: &'a Map<String, Json>) -> Props<'a> {
        Props { path, map }
    }

    /// The object itself.
    pub fn map(&self) -> &'a Map<String, Json> {
        self.map
    }

    /// The path of the object.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// A property that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Json> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The text of `name`.
    ///
    /// # Errors
    /// Config, when it is missing or not text.
    pub fn str(&self, name: &str) -> Result<&'a str, Failure> {
        self.opt_str(name)?
            .ok_or_else(|| self.wrong(name, "text", None))
    }

    /// The text of `name`, if it is there.
    pub fn opt_str(&self, name: &str) -> Result<Option<&'a str>, Failure> {
        self.typed(name, "text", Json::as_str)
    }

    /// The flag `name`; `default` when it is not there.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool, Failure> {
        Ok(self
            .typed(name, "true or false", Json::as_bool)?
            .unwrap_or(default))
    }

    /// The whole number `name`, if it is there.
    pub fn opt_int(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.typed(name, "a whole number", Json::as_i64)
    }

    /// The whole number `name`; `default` when it is not there.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Failure> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// The number of seconds `name`, at least 0, if it is there.
    pub fn opt_seconds(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.typed(name, "a number of seconds", |value| {
            Duration::try_from_secs_f64(value.as_f64()?).ok()
        })
    }

    /// The list `name`, if it is there.
    pub fn opt_list(&self, name: &str) -> Result<Option<&'a Vec<Json>>, Failure> {
        self.typed(name, "a list", Json::as_array)
    }

    /// The datasets that the list `name` names; none where it is not there.
    pub(crate) fn datasets(&self, name: &str) -> Result<Vec<&'a str>, Failure> {
        let list = self.opt_list(name)?.map_or(&[][..], Vec::as_slice);
        let names: Option<Vec<&str>> = list.iter().map(Json::as_str).collect();
        names.ok_or_else(|| self.wrong(name, "a list of datasets", self.get(name)))
    }

    /// The object `name`, if it is there.
    pub fn opt_object(&self, name: &str) -> Result<Option<&'a Map<String, Json>>, Failure> {
        self.typed(name, "an object", Json::as_object)
    }

    /// A config failure about the property `name`.
    pub fn wrong(&self, name: &str, expected: &str, found: Option<&Json>) -> Failure {
        let found = found.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        Failure::config(format!(
            "{}.{name}: expected {expected}, found {found}",
            self.path
        ))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(name, expected, Some(value))),
            },
        }
    }
}
