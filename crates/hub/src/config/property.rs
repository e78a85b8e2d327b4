//! One row a configuration property: validation, defaults, the manual and editors read it.

use serde_json::Value as Json;

/// What a property may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text.
    String,
    /// A whole number of at least this much.
    Integer(i64),
    /// Any number of at least 0.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Text or a whole number.
    StringOrInteger,
    /// Text or a list of texts.
    StringOrList,
    /// One of these texts.
    Enum(&'static [&'static str]),
    /// A list of anything.
    List,
    /// A list of texts.
    Strings,
    /// An object of anything.
    Object,
    /// An object with these properties.
    Nested(&'static [Property]),
    /// An object of objects with these properties, by names that anybody chooses.
    Each(&'static [Property]),
    /// A cron expression.
    Cron,
    /// A Jinja template.
    Template,
    /// Anything; the texts in it are Jinja templates, names of properties too.
    Templates,
    /// The id of a system.
    System,
    /// The id of a dataset.
    Dataset,
    /// DTL rules.
    Rules,
    /// Another component of the same role (conditional's alternatives).
    Component,
    /// Anything.
    Any,
}

/// What the node makes of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It does what the manual says.
    Acted,
    /// Nothing, and nothing is missed: it is for people, tools or another product.
    Noted,
    /// Nothing yet; what has it runs all the same, with a warning.
    NotYet,
    /// Nothing yet, and without it other data would flow, or others would get it: what has it does
    /// not run.
    Withheld,
    /// It acts upon these of its values; what has another one does not run.
    Only(&'static [&'static str]),
}

/// One property of a component type.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// The name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// The default as JSON text; `None` when there is none.
    pub default: Option<&'static str>,
    /// Whether it must be there.
    pub required: bool,
    /// One or two sentences for the manual.
    pub doc: &'static str,
    /// What the node makes of it.
    pub used: Use,
}

impl Property {
    /// An optional property without a default.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Property {
        Property {
            name,
            kind,
            default: None,
            required: false,
            doc,
            used: Use::Acted,
        }
    }

    /// A required property.
    pub const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Property {
        Property {
            name,
            kind,
            default: None,
            required: true,
            doc,
            used: Use::Acted,
        }
    }

    /// The same property with a default, written as JSON.
    pub const fn or(mut self, default: &'static str) -> Property {
        self.default = Some(default);
        self
    }

    /// The same property, for people or tools only.
    pub const fn noted(mut self) -> Property {
        self.used = Use::Noted;
        self
    }

    /// The same property, not acted upon yet; what has it runs all the same.
    pub const fn not_yet(mut self) -> Property {
        self.used = Use::NotYet;
        self
    }

    /// The same property, not acted upon yet; what has it does not run.
    pub const fn withheld(mut self) -> Property {
        self.used = Use::Withheld;
        self
    }

    /// The same property, acted upon for these values only.
    pub const fn only(mut self, values: &'static [&'static str]) -> Property {
        self.used = Use::Only(values);
        self
    }

    /// Whether `value` asks for nothing beyond what happens without the property: nothing there,
    /// the default, or something switched off.
    pub fn is_idle(&self, value: &Json) -> bool {
        let switched_off = match value {
            Json::Null => true,
            Json::Bool(flag) => !flag,
            Json::Array(list) => list.is_empty(),
            Json::Object(map) => map.is_empty(),
            _ => false,
        };
        let default = self
            .default
            .and_then(|text| serde_json::from_str(text).ok());
        switched_off || default.is_some_and(|default: Json| default == *value)
    }

    /// What the manual says of it, and what the node does not do yet.
    pub fn describe(&self) -> String {
        match self.used {
            Use::Acted | Use::Noted => self.doc.to_owned(),
            Use::NotYet => format!("{} Not acted upon yet.", self.doc),
            Use::Withheld => format!("{} Not acted upon yet: what has it does not run.", self.doc),
            Use::Only(values) => {
                let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("{} So far only {}.", self.doc, values.join(" and "))
            }
        }
    }
}
