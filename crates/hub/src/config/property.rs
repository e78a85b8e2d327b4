//! One row a configuration property: validation, defaults, the manual and editors read it.

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
    /// A cron expression.
    Cron,
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
        }
    }

    /// The same property with a default, written as JSON.
    pub const fn or(mut self, default: &'static str) -> Property {
        self.default = Some(default);
        self
    }
}
