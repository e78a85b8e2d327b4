//! Judging a component by the tables: names, types, what must be there, what it refers to.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use tahini_dtl::JsonPath;

use super::known::{Role, systems_for};
use super::model::ComponentKind;
use super::problem::{Problem, Spot};
use super::rows::{METADATA, PIPE, SINK_COMMON, SOURCE_COMMON, SYSTEM_COMMON, TRANSFORM_COMMON};
use super::{Kind, Property, Use, checks, nearest};
use crate::Registry;
use crate::cron::Cron;

/// What the tables say of a component.
#[derive(Debug, Default)]
pub struct Judged {
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Why it cannot run although it is valid.
    pub unsupported: Option<String>,
}

/// What a pipe has to know of a system.
#[derive(Clone, Debug)]
pub struct KnownSystem {
    /// The `type`.
    pub kind: String,
    /// Why it does not run although it is valid.
    pub unsupported: Option<String>,
}

/// All systems by id.
pub type KnownSystems = HashMap<String, KnownSystem>;

/// Judges a resolved component.
pub fn component(
    kind: ComponentKind,
    json: &Json,
    systems: &KnownSystems,
    registry: &Registry,
) -> Judged {
    let mut checker = Checker {
        systems,
        registry,
        judged: Judged::default(),
    };
    let Some(map) = json.as_object() else {
        return checker.judged;
    };
    let root = JsonPath::default();
    match kind {
        ComponentKind::Pipe => checker.pipe(map, &root),
        ComponentKind::System => checker.part(Role::System, json, &root),
        ComponentKind::Metadata => checker.properties(map, &[METADATA], &root, None),
        ComponentKind::Other => return checker.other(map, &root),
    }
    checks::within(kind, map, &mut checker.judged.problems);
    checker.judged
}

/// What is wrong with an object that is no component, by rows.
pub(crate) fn by_rows(map: &Map<String, Json>, rows: &'static [Property]) -> Vec<Problem> {
    let registry = Registry {
        sources: &[],
        sinks: &[],
        transforms: &[],
        systems: &[],
        template: |_| Ok(()),
    };
    let mut checker = Checker {
        systems: &KnownSystems::new(),
        registry: &registry,
        judged: Judged::default(),
    };
    checker.properties(map, &[rows], &JsonPath::default(), None);
    checker.judged.problems
}

/// The kind of component of that `type`.
pub fn kind_of(kind: &str) -> ComponentKind {
    match kind {
        "pipe" => ComponentKind::Pipe,
        "metadata" => ComponentKind::Metadata,
        _ if kind.starts_with("system:") => ComponentKind::System,
        _ => ComponentKind::Other,
    }
}

/// The type that a component of no known type was probably meant to have.
pub fn meant(map: &Map<String, Json>) -> Option<String> {
    let looks_like_a_pipe = map.contains_key("source") || map.contains_key("sink");
    let Some(Json::String(kind)) = map.get("type") else {
        return looks_like_a_pipe.then(|| "pipe".to_owned());
    };
    let names = ["pipe", "metadata"].iter().chain(Role::System.documented());
    let near = nearest(kind, names.copied());
    let prefixed = format!("system:{kind}");
    let system = || {
        let mut names = Role::System.documented().iter().copied();
        names.find(|name| *name == prefixed)
    };
    match near.or_else(system) {
        Some(near) => Some(near.to_owned()),
        None => looks_like_a_pipe.then(|| "pipe".to_owned()),
    }
}

const CHAINED: &[Property] = &[Property::required(
    "transforms",
    Kind::Component,
    "The transforms, in order.",
)];

struct Checker<'a> {
    systems: &'a KnownSystems,
    registry: &'a Registry,
    judged: Judged,
}

impl Checker<'_> {
    fn pipe(&mut self, map: &Map<String, Json>, root: &JsonPath) {
        self.properties(map, &[PIPE], root, None);
        match map.get("source") {
            Some(source) if !source.is_null() => {
                self.part(Role::Source, source, &root.name("source"));
            }
            _ if map.contains_key("short_config") => self.unsupported(
                root.name("short_config"),
                "`short_config` is not supported".to_owned(),
                Some("write a source".to_owned()),
            ),
            _ => self.missing("source", root),
        }
        let transform = root.name("transform");
        match map.get("transform") {
            None | Some(Json::Null) => {}
            Some(Json::Array(list)) => {
                for (at, one) in list.iter().enumerate() {
                    self.part(Role::Transform, one, &transform.at(at));
                }
            }
            Some(one) => self.part(Role::Transform, one, &transform),
        }
        match map.get("sink") {
            None | Some(Json::Null) => {}
            Some(sink) => self.part(Role::Sink, sink, &root.name("sink")),
        }
    }

    /// A component of no known type: that is told, and what else is wrong with it as what it was
    /// probably meant to be.
    fn other(mut self, map: &Map<String, Json>, root: &JsonPath) -> Judged {
        let meant = meant(map);
        let mut problem = match map.get("type") {
            None => Problem::error(root.clone(), "the component has no type"),
            Some(Json::String(kind)) => {
                let message = format!("there is no component type {kind:?}");
                Problem::error(root.name("type"), message)
            }
            Some(other) => Problem::error(
                root.name("type"),
                format!("expected text as type, found {}", found(other)),
            ),
        };
        problem.help = Some(match &meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => {
                "types are \"pipe\", \"metadata\" and those of systems, \"system:…\"".to_owned()
            }
        });
        self.judged.problems.push(problem);
        if let Some(meant) = meant {
            let kind = kind_of(&meant);
            let mut map = map.clone();
            map.insert("type".to_owned(), Json::String(meant));
            let as_meant = component(kind, &Json::Object(map), self.systems, self.registry);
            // What its type means was told.
            let problems = as_meant.problems.into_iter();
            let others = problems.filter(|problem| problem.path != root.name("type"));
            self.judged.problems.extend(others);
        }
        self.judged
    }

    /// Judges a source, transform, sink or system by the row of its type.
    fn part(&mut self, role: Role, json: &Json, path: &JsonPath) {
        let Json::Object(map) = json else {
            let message = format!(
                "expected a {} (an object), found {}",
                role.name(),
                found(json)
            );
            self.error(path.clone(), message);
            return;
        };
        let kind = match map.get("type") {
            Some(Json::String(kind)) => kind.as_str(),
            // A sink that says only how to write, writes a dataset.
            None | Some(Json::Null) if role == Role::Sink => "dataset",
            None | Some(Json::Null) => return self.missing("type", path),
            Some(other) => {
                let message = format!("expected text as type, found {}", found(other));
                return self.error(path.name("type"), message);
            }
        };
        // An alternative could not be chosen: that problem is listed already.
        if kind == "conditional" && role != Role::System {
            if !map.contains_key("alternatives") {
                self.missing("alternatives", path);
            }
            return;
        }
        let (row, common): (Option<&'static [Property]>, _) = match role {
            Role::Source => (
                self.registry.source(kind).map(|row| row.properties),
                SOURCE_COMMON,
            ),
            Role::Sink => (
                self.registry.sink(kind).map(|row| row.properties),
                SINK_COMMON,
            ),
            Role::System => (
                self.registry.system(kind).map(|row| row.properties),
                SYSTEM_COMMON,
            ),
            Role::Transform => (
                self.registry.transform(kind).map(|row| row.properties),
                TRANSFORM_COMMON,
            ),
        };
        // The older way to write a list; it is unfolded before it runs.
        if role == Role::Transform && kind == "chained" {
            return self.properties(map, &[CHAINED, common], path, Some(role));
        }
        match row {
            Some(row) => {
                self.properties(map, &[row, common], path, Some(role));
                self.stands_for(role, kind, map, path);
            }
            None if role.documented().contains(&kind) => self.unsupported(
                path.name("type"),
                format!("the {} type {kind:?} is not supported yet", role.name()),
                None,
            ),
            None => self.no_such_type(role, kind, path),
        }
        // Some types take a system for show only; the row says so.
        let is_shown_only = row.is_some_and(|row| {
            let system = row.iter().find(|property| property.name == "system");
            system.is_some_and(|system| !matches!(system.kind, Kind::System))
        });
        if role != Role::System && !is_shown_only {
            self.system_of(role, kind, map, path);
        }
    }

    /// Judges the transforms that one stands for, at the place of what they come from.
    fn stands_for(&mut self, role: Role, kind: &str, map: &Map<String, Json>, path: &JsonPath) {
        let row = self.registry.transform(kind);
        let Some(stands_for) = row.and_then(|row| row.stands_for) else {
            return;
        };
        if role != Role::Transform {
            return;
        }
        match stands_for(map) {
            Err((place, words)) => self.error(super::build::join(path, &place.0), words),
            Ok(transforms) => {
                let path = path.name("template");
                for (at, one) in transforms.iter().enumerate() {
                    self.part(Role::Transform, one, &path.at(at));
                }
            }
        }
    }

    fn no_such_type(&mut self, role: Role, kind: &str, path: &JsonPath) {
        let registry = self.registry;
        let built: Vec<&str> = match role {
            Role::Source => registry
                .sources
                .iter()
                .flat_map(|t| t.iter())
                .map(|r| r.name)
                .collect(),
            Role::Sink => registry
                .sinks
                .iter()
                .flat_map(|t| t.iter())
                .map(|r| r.name)
                .collect(),
            Role::System => registry
                .systems
                .iter()
                .flat_map(|t| t.iter())
                .map(|r| r.name)
                .collect(),
            Role::Transform => registry
                .transforms
                .iter()
                .flat_map(|t| t.iter())
                .map(|r| r.name)
                .collect(),
        };
        let message = format!("there is no {} type {kind:?}", role.name());
        let mut problem = Problem::error(path.name("type"), message);
        let names = built.iter().chain(role.documented()).copied();
        problem.help = Some(match nearest(kind, names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there are {}", sorted(&built).join(", ")),
        });
        self.judged.problems.push(problem);
    }

    /// Checks the system that a component names: that it exists, fits and is built.
    fn system_of(&mut self, role: Role, kind: &str, map: &Map<String, Json>, path: &JsonPath) {
        let Some(Json::String(id)) = map.get("system") else {
            return;
        };
        let place = path.name("system");
        let Some(system) = self.system(id, &place) else {
            return;
        };
        if let Some(fitting) = systems_for(role, kind)
            && !fitting.contains(&system.kind.as_str())
        {
            let message = format!(
                "{} {kind} {} cannot use {id:?}, which is a {}",
                article(kind),
                role.name(),
                system.kind
            );
            let problem = Problem::error(place, message);
            let problem = problem.with_help(format!("it can use {}", fitting.join(", ")));
            self.judged.problems.push(problem);
        } else if self.registry.system(&system.kind).is_none()
            && Role::System.documented().contains(&system.kind.as_str())
        {
            let kind = &system.kind;
            let message = format!("the system {id:?} is a {kind}, which is not supported yet");
            self.unsupported(place, message, None);
        } else if let Some(why) = system.unsupported {
            self.unsupported(
                place,
                format!("the system {id:?} does not run: {why}"),
                None,
            );
        }
    }

    /// The system `id`; when there is none, that is an error.
    fn system(&mut self, id: &str, place: &JsonPath) -> Option<KnownSystem> {
        if id.contains("$SECRET(") || id.starts_with("system:") {
            return None;
        }
        let known = self.systems.get(id).cloned();
        if known.is_none() {
            let mut problem = Problem::error(place.clone(), format!("there is no system {id:?}"));
            problem.help = nearest(id, self.systems.keys().map(String::as_str))
                .map(|near| format!("did you mean {near:?}?"));
            self.judged.problems.push(problem);
        }
        known
    }

    /// Judges the properties of an object by rows; the first row of a name counts.
    fn properties(
        &mut self,
        map: &Map<String, Json>,
        tables: &[&'static [Property]],
        path: &JsonPath,
        role: Option<Role>,
    ) {
        let rows = || tables.iter().flat_map(|table| table.iter());
        for (name, value) in map {
            match rows().find(|row| row.name == name) {
                Some(row) => self.value(value, row, &path.name(name), role),
                None if name == "$conditional_properties" => {
                    let message = "conditional properties mean nothing inside a transform";
                    let problem = Problem::warning(path.name(name), message).at_name();
                    let help = "use a conditional transform, or a variable";
                    self.judged.problems.push(problem.with_help(help));
                }
                None if is_free(name) => {}
                None => {
                    let message = format!("there is no property {name:?} here; it is ignored");
                    let mut problem = Problem::warning(path.name(name), message).at_name();
                    // A name that is there already was not meant.
                    let names = rows()
                        .map(|row| row.name)
                        .filter(|name| !map.contains_key(*name));
                    problem.help =
                        nearest(name, names).map(|near| format!("did you mean {near:?}?"));
                    self.judged.problems.push(problem);
                }
            }
        }
        let mut done: Vec<&str> = Vec::new();
        for row in rows() {
            if row.required
                && !done.contains(&row.name)
                && map.get(row.name).is_none_or(Json::is_null)
            {
                self.missing(row.name, path);
            }
            done.push(row.name);
        }
    }

    /// Judges one value by its row. Null says the same as nothing; a secret can be of any type.
    fn value(&mut self, value: &Json, row: &'static Property, path: &JsonPath, role: Option<Role>) {
        if value.is_null() || value.as_str().is_some_and(|text| text.contains("$SECRET(")) {
            return;
        }
        let before = self.judged.problems.len();
        self.fits(value, row, path, role);
        if self.judged.problems.len() == before {
            self.acted_upon(value, row, path);
        }
    }

    /// Whether a value is of the kind that its row says.
    fn fits(&mut self, value: &Json, row: &'static Property, path: &JsonPath, role: Option<Role>) {
        match row.kind {
            Kind::Nested(rows) => match value {
                Json::Object(map) => return self.properties(map, &[rows], path, None),
                _ => return self.expected("an object", value, row, path),
            },
            Kind::Each(rows) => {
                if let Json::Object(map) = value {
                    return self.each(map, rows, path);
                }
            }
            Kind::Component => return self.components(value, path, role),
            Kind::Templates => return self.templates(value, path),
            Kind::Template if value.is_string() => return self.templates(value, path),
            Kind::System if row.name != "system" => {
                if let Some(id) = value.as_str() {
                    self.system(id, path);
                    return;
                }
            }
            Kind::Cron => {
                if let Some(text) = value.as_str() {
                    if let Err(message) = Cron::parse(text) {
                        self.error(path.clone(), message);
                    }
                    return;
                }
            }
            Kind::Enum(options) => {
                if let Some(text) = value.as_str() {
                    if !options.contains(&text) {
                        let message =
                            format!("expected one of {}, found {text:?}", options.join(", "));
                        let mut problem = Problem::error(path.clone(), message);
                        problem.help = nearest(text, options.iter().copied())
                            .map(|near| format!("did you mean {near:?}?"));
                        self.judged.problems.push(problem);
                    }
                    return;
                }
            }
            _ => {}
        }
        if let Some(expected) = mismatch(value, row.kind) {
            self.expected(&expected, value, row, path);
        }
    }

    /// Judges objects by rows, whatever they are called.
    fn each(&mut self, map: &Map<String, Json>, rows: &'static [Property], path: &JsonPath) {
        for (name, one) in map {
            let place = path.name(name);
            match one {
                Json::Object(one) => self.properties(one, &[rows], &place, None),
                other => {
                    let message = format!("expected an object, found {}", found(other));
                    self.error(place, message);
                }
            }
        }
    }

    /// Judges the templates in a value.
    fn templates(&mut self, value: &Json, path: &JsonPath) {
        match value {
            Json::String(text) => {
                if let Err(words) = (self.registry.template)(text) {
                    let message = format!("expected a Jinja template, found: {words}");
                    self.error(path.clone(), message);
                }
            }
            Json::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.templates(item, &path.at(at));
                }
            }
            Json::Object(map) => {
                for (name, value) in map {
                    let place = path.name(name);
                    self.templates(&Json::String(name.clone()), &place);
                    self.templates(value, &place);
                }
            }
            _ => {}
        }
    }

    /// Tells of a property that is known and does not do what it says.
    fn acted_upon(&mut self, value: &Json, row: &Property, path: &JsonPath) {
        let name = row.name;
        match row.used {
            Use::Acted | Use::Noted => {}
            Use::NotYet | Use::Withheld if row.is_idle(value) => {}
            Use::NotYet => {
                let message = format!("the property {name:?} is known, and not acted upon yet");
                let problem = Problem::warning(path.clone(), message).at_name();
                self.judged.problems.push(problem);
            }
            Use::Withheld => {
                let why = format!(
                    "the property {name:?} is not acted upon yet, and what flows depends on it"
                );
                let told = self.judged.problems.len();
                self.unsupported(path.clone(), why, None);
                self.judged.problems[told].spot = Spot::Name;
            }
            Use::Only(values) => {
                if let (Some(text), Kind::Enum(options)) = (value.as_str(), row.kind)
                    && options.contains(&text)
                    && !values.contains(&text)
                {
                    let why = format!("{name} {text:?} is not supported yet");
                    let help = format!("{} are", values.join(" and "));
                    self.unsupported(path.clone(), why, Some(help));
                }
            }
        }
    }

    /// One component, a list of them, or an object of them.
    fn components(&mut self, value: &Json, path: &JsonPath, role: Option<Role>) {
        let Some(role) = role else {
            return;
        };
        match value {
            Json::Array(list) => {
                for (at, one) in list.iter().enumerate() {
                    self.part(role, one, &path.at(at));
                }
            }
            Json::Object(map) if !map.contains_key("type") => {
                for (name, one) in map {
                    self.part(role, one, &path.name(name));
                }
            }
            one => self.part(role, one, path),
        }
    }

    fn expected(&mut self, expected: &str, value: &Json, row: &Property, path: &JsonPath) {
        let found = match checks::holds_secrets(row.name) {
            true => type_of(value).to_owned(),
            false => found(value),
        };
        self.error(path.clone(), format!("expected {expected}, found {found}"));
    }

    fn missing(&mut self, name: &str, path: &JsonPath) {
        self.error(path.clone(), format!("the property {name:?} is missing"));
    }

    fn error(&mut self, path: JsonPath, message: String) {
        self.judged.problems.push(Problem::error(path, message));
    }

    fn unsupported(&mut self, path: JsonPath, why: String, help: Option<String>) {
        let mut problem =
            Problem::warning(path, format!("{why}; this pipe or system does not run"));
        problem.help = help;
        self.judged.problems.push(problem);
        self.judged.unsupported.get_or_insert(why);
    }
}

/// Names that are for people or tools, anywhere.
fn is_free(name: &str) -> bool {
    name.starts_with('_')
        || name.starts_with('$')
        || name.starts_with("comment")
        || name.starts_with("description")
        || name == "metadata"
}

/// What was expected, when the value is something else.
fn mismatch(value: &Json, kind: Kind) -> Option<String> {
    let is_integer = |least: i64| match value.as_i64() {
        Some(number) => number >= least,
        None => value.is_u64(),
    };
    let is_texts = || {
        value
            .as_array()
            .is_some_and(|list| list.iter().all(Json::is_string))
    };
    let (fits, expected) = match kind {
        Kind::String | Kind::Cron | Kind::System | Kind::Dataset | Kind::Template => {
            (value.is_string(), "text")
        }
        Kind::Integer(i64::MIN) => (value.is_i64() || value.is_u64(), "a whole number"),
        Kind::Integer(least) => {
            return (!is_integer(least)).then(|| format!("a whole number of at least {least}"));
        }
        Kind::Number => (
            value.as_f64().is_some_and(|number| number >= 0.0),
            "a number of at least 0",
        ),
        Kind::Boolean => (value.is_boolean(), "true or false"),
        Kind::StringOrInteger => (
            value.is_string() || value.is_i64() || value.is_u64(),
            "text or a whole number",
        ),
        Kind::StringOrList => (
            value.is_string() || value.is_array(),
            "text or a list of texts",
        ),
        Kind::Enum(options) => return Some(format!("one of {}", options.join(", "))),
        Kind::List => (value.is_array(), "a list"),
        Kind::Strings => (is_texts(), "a list of texts"),
        Kind::Object | Kind::Nested(_) | Kind::Each(_) | Kind::Rules => {
            (value.is_object(), "an object")
        }
        Kind::Component | Kind::Templates | Kind::Any => (true, ""),
    };
    (!fits).then(|| expected.to_owned())
}

/// The article that stands before a component type, by how it is spoken.
fn article(kind: &str) -> &'static str {
    let spelt = ["http", "ldap", "rdf", "sms", "sql", "xml"];
    let is_spelt = spelt.iter().any(|letters| kind.starts_with(letters));
    let like_you = kind.starts_with("uni") || kind.starts_with("uri");
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']) && !like_you;
    if is_spelt || vowel { "an" } else { "a" }
}

/// A value in a message: its type, and what it says if that is short.
pub fn found(value: &Json) -> String {
    match value {
        Json::Array(_) | Json::Object(_) => type_of(value).to_owned(),
        Json::Null | Json::Bool(_) => value.to_string(),
        _ => {
            let text = value.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{} {}…", type_of(value), &text[..end]),
                None => format!("{} {text}", type_of(value)),
            }
        }
    }
}

fn type_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "the number",
        Json::String(_) => "the text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
