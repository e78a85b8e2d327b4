//! Jinja templates in configurations, as `docs/guide/rest.md` describes them: undefined variables
//! are errors, and how much a template may do is limited.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use minijinja::value::Object;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value as Seen};
use tahini_entity::Dict;
use tahini_hub::Failure;

use super::filters;
use super::values::seen;

/// Steps that rendering one template may take.
const FUEL: u64 = 1_000_000;
/// How deep a template may nest.
const RECURSION: usize = 100;

/// The compiled templates of one operation.
pub(super) struct Templates {
    env: Environment<'static>,
    count: usize,
}

/// Text of a configuration: as it stands, or a template.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// Nothing in it is for Jinja.
    Plain(String),
    /// A template.
    Template(Template),
}

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    name: String,
    /// Where it stands in the configuration.
    path: String,
    variables: HashSet<String>,
    /// The property of the entity that is all of it, if it is no more than that.
    property: Option<String>,
}

impl Text {
    /// Whether the template looks at the variable.
    pub(super) fn uses(&self, variable: &str) -> bool {
        match self {
            Text::Plain(_) => false,
            Text::Template(template) => template.variables.contains(variable),
        }
    }
}

impl Templates {
    /// No templates yet, with everything that templates may call.
    pub(super) fn new(world: filters::World) -> Templates {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(RECURSION);
        env.set_unknown_method_callback(filters::method);
        env.set_formatter(|out, state, value| {
            if is_absent(value) {
                return Err(Error::from(ErrorKind::UndefinedError));
            }
            if let Some(text) = filters::printed(value) {
                return out.write_str(&text).map_err(Error::from);
            }
            minijinja::escape_formatter(out, state, value)
        });
        env.add_test("defined", |value: &Seen| {
            !value.is_undefined() && !is_absent(value)
        });
        env.add_test("undefined", |value: &Seen| {
            value.is_undefined() || is_absent(value)
        });
        filters::add(&mut env, world);
        Templates { env, count: 0 }
    }

    /// Compiles the text at `path` of a configuration.
    ///
    /// # Errors
    /// Config, where it is no well-formed template.
    pub(super) fn text(&mut self, source: &str, path: &str) -> Result<Text, Failure> {
        if !is_template(source) {
            return Ok(Text::Plain(source.to_owned()));
        }
        self.count += 1;
        let name = self.count.to_string();
        self.env
            .add_template_owned(name.clone(), source.to_owned())
            .map_err(|error| {
                Failure::config(format!(
                    "{path}: expected a Jinja template, found {source:?}: {}",
                    words(&error)
                ))
            })?;
        let template = self.env.get_template(&name);
        let variables = template.map_or_else(
            |_| HashSet::new(),
            |template| template.undeclared_variables(false),
        );
        Ok(Text::Template(Template {
            name,
            path: path.to_owned(),
            variables,
            property: property(source),
        }))
    }

    /// What is wrong with a template.
    ///
    /// # Errors
    /// In words, where it is no well-formed one.
    pub(super) fn check(&self, source: &str) -> Result<(), String> {
        if !is_template(source) {
            return Ok(());
        }
        match self.env.template_from_str(source) {
            Ok(_) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }

    /// What the text says of an entity where it is no more than one of its properties, text or a
    /// whole number; `None` where it has to be rendered.
    pub(super) fn at_once(text: &Text, scope: &Scope, entity: &Dict) -> Option<String> {
        let Text::Template(template) = text else {
            return None;
        };
        let name = template.property.as_deref()?;
        if scope.named.iter().any(|(known, _)| *known == name) {
            return None;
        }
        match entity.get(name)? {
            tahini_entity::Value::String(text) => Some(text.to_string()),
            tahini_entity::Value::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// What the text says under these variables.
    ///
    /// # Errors
    /// Entity, with the place of the template and what was wrong, never with values.
    pub(super) fn render(&self, text: &Text, scope: &Scope) -> Result<String, Failure> {
        match self.try_render(text, scope) {
            Ok(text) => Ok(text),
            Err((path, error)) => Err(Failure::entity(format!(
                "{path}: the template cannot be rendered: {}",
                words(&error)
            ))),
        }
    }

    /// The same, where a variable that is not there makes the whole text empty.
    pub(super) fn render_or_empty(&self, text: &Text, scope: &Scope) -> Result<String, Failure> {
        match self.try_render(text, scope) {
            Err((_, error)) if is_undefined(&error) => Ok(String::new()),
            Err(_) => self.render(text, scope),
            Ok(text) => Ok(text),
        }
    }

    fn try_render<'t>(&self, text: &'t Text, scope: &Scope) -> Result<String, (&'t str, Error)> {
        let template = match text {
            Text::Plain(text) => return Ok(text.clone()),
            Text::Template(template) => template,
        };
        let path = template.path.as_str();
        let compiled = self
            .env
            .get_template(&template.name)
            .map_err(|error| (path, error))?;
        compiled
            .render(Seen::from_object(scope.clone()))
            .map_err(|error| (path, error))
    }
}

/// Whether there is anything for Jinja in a text.
fn is_template(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| source.contains(mark))
}

/// The name in `{{ name }}` or `{{ entity.name }}`.
fn property(source: &str) -> Option<String> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let name = inner.strip_prefix("entity.").unwrap_or(inner);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_word = matches!(
        name,
        "none" | "None" | "true" | "True" | "false" | "False" | "not" | "loop" | "self"
    );
    (is_name && !is_word).then(|| name.to_owned())
}

fn is_undefined(error: &Error) -> bool {
    error.kind() == ErrorKind::UndefinedError
}

/// An error in words, without the template's source.
fn words(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let line = error.line().filter(|line| *line > 1);
    let line = line.map(|line| format!(" (line {line})"));
    let help = is_undefined(error)
        .then_some("; `is defined` asks whether a variable is there, `default` stands in for it");
    let out_of_fuel = error.kind() == ErrorKind::OutOfFuel;
    let limit = out_of_fuel.then(|| format!(" (the limit is {FUEL} steps)"));
    format!(
        "{}{}{}{}{}",
        error.kind(),
        detail.unwrap_or_default(),
        line.unwrap_or_default(),
        limit.unwrap_or_default(),
        help.unwrap_or_default()
    )
}

/// The variables that a template sees.
#[derive(Clone, Default)]
pub(super) struct Scope {
    named: Vec<(&'static str, Seen)>,
    /// An entity whose properties are variables, too, where no other has their name.
    own: Option<Dict>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.named.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Scope {
    /// Binds a variable.
    pub(super) fn set(&mut self, name: &'static str, value: Seen) {
        match self.named.iter_mut().find(|(known, _)| *known == name) {
            Some(place) => place.1 = value,
            None => self.named.push((name, value)),
        }
    }

    /// Takes a variable away.
    pub(super) fn unset(&mut self, name: &str) {
        self.named.retain(|(known, _)| *known != name);
    }

    /// The same variables, and those of an entity: itself as `entity`, and all of its properties.
    pub(super) fn with_entity(&self, entity: &Dict) -> Scope {
        let mut scope = self.clone();
        scope.set("entity", seen(&tahini_entity::Value::Dict(entity.clone())));
        scope.own = Some(entity.clone());
        scope
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Seen) -> Option<Seen> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Seen> {
        if let Some((_, value)) = self.named.iter().find(|(name, _)| *name == key) {
            return Some(value.clone());
        }
        if let Some(value) = self.own.as_ref().and_then(|own| own.get(key)) {
            return Some(seen(value));
        }
        PREVIOUS.contains(&key).then(|| Seen::from_object(Absent))
    }
}

/// Variables of the page before: of the first page they are not defined, and neither is anything
/// in them, so that templates can ask for either.
const PREVIOUS: &[&str] = &[
    "previous_body",
    "previous_headers",
    "previous_params",
    "previous_request_headers",
];

/// What is not there, whatever is asked of it.
#[derive(Debug)]
struct Absent;

impl Object for Absent {
    fn get_value(self: &Arc<Self>, _: &Seen) -> Option<Seen> {
        Some(Seen::from_object(Absent))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
}

/// Whether the value is one of what is not there.
pub(super) fn is_absent(value: &Seen) -> bool {
    value.downcast_object_ref::<Absent>().is_some()
}

#[cfg(test)]
mod tests {
    use tahini_entity::json::{Numbers, parse_plain};

    use super::*;

    fn dict(text: &str) -> Dict {
        match parse_plain(text.as_bytes(), Numbers::FLOATS).unwrap() {
            tahini_entity::Value::Dict(dict) => dict,
            other => panic!("{other:?}"),
        }
    }

    fn render(source: &str) -> Result<String, String> {
        let mut templates = Templates::new(filters::World::default());
        let text = templates.text(source, "$.x").map_err(|f| f.message)?;
        let mut scope = Scope::default();
        let body = dict(
            r#"{"n": 3, "f": 1.5, "t": "a b", "z": null, "list": [1, "x"], "yes": true,
                "paging": {"next": {"link": "https://h/x?after=1", "after": "7"}},
                "Å": "å/ø", "items": 4}"#,
        );
        scope.set("body", seen(&tahini_entity::Value::Dict(body)));
        let scope = scope.with_entity(&dict(r#"{"_id": "e1", "id": 12, "body": "hidden"}"#));
        templates.render(&text, &scope).map_err(|f| f.message)
    }

    /// What Jinja2 gives for the same templates was taken down by hand from its documentation and
    /// the public connectors that rely on it.
    #[test]
    fn templates_say_what_jinja2_says() {
        for (source, expected) in [
            ("men/{{ id }}/x", "men/12/x"),
            ("{{ _id }}", "e1"),
            ("{{ entity['id'] + 1 }}", "13"),
            ("{{ body.n + body.f }}", "4.5"),
            ("{{ body.yes }}", "True"),
            (
                "{{ body.paging.next.link.split('?')[0]~'?after='~body.paging.next.after }}",
                "https://h/x?after=7",
            ),
            ("{{ [body.n, id]|join('-') }}", "3-12"),
            ("{{ [body.n|int + 1, 2] | max }}", "4"),
            ("{{ 20|int*body.n }}", "60"),
            (
                "{{ '2024-05-01T12:00'|truncate(10, True, '') }}",
                "2024-05-01",
            ),
            (
                "{{ 'one two three'|truncate(length=9, end='…', leeway=0) }}",
                "one two…",
            ),
            ("{{ ''|default('d', true) }}", "d"),
            ("{{ body.t|upper }}{{ body.t|capitalize }}", "A BA b"),
            ("{{ body.t|urlencode }}", "a%20b"),
            ("{{ body.list|tojson }}", "[1, \"x\"]"),
            (
                "{{ body.list|length }}{{ body.list[1] }}{{ body.list|first }}",
                "2x1",
            ),
            (
                "{% for one in body.list %}{{ loop.index }}{{ one }},{% endfor %}",
                "11,2x,",
            ),
            ("{% if body.z is none %}none{% endif %}", "none"),
            ("{{ nothing|default('d') }}", "d"),
            (
                "{% if previous_params.Page is not defined %}1{% else %}2{% endif %}",
                "1",
            ),
            (
                "{% if previous_body is defined %}1{% else %}2{% endif %}",
                "2",
            ),
            ("{{ previous_params.Page|default(1) }}", "1"),
            ("{{ body['Å'] }}", "å/ø"),
            ("{{ ('0:' + body.t) | bytes | base64_encode }}", "MDphIGI="),
            ("{{ 'MDphIGI=' | base64_decode }}", "0:a b"),
            (
                "{{ (1738756240000 * 1000 * 1000) | datetime | datetime_format }}",
                "2025-02-05T11:50:40Z",
            ),
            (
                "{{ (now() + timedelta(hours=48)).strftime('%Y-%m-%d') }}",
                "2024-05-03",
            ),
            ("{{ '%02d'|format(body.n) }}", "03"),
            ("{{ '{}-{}'.format(1, 2) }}", "1-2"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
    }

    /// The list in the guide.
    #[test]
    fn differences_from_jinja2_are_these() {
        for (source, expected) in [
            // `None` in Jinja2.
            ("[{{ body.z }}]", "[]"),
            // The method of the dict in Jinja2.
            ("{{ body.items }}", "4"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
        }
        // Jinja2 formats; the filter `format` does so here, too.
        let words = render("{{ '%02d' % body.n }}").unwrap_err();
        assert!(words.contains("% operator"), "{words}");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for source in [
            "{{ nothing }}",
            "{{ nothing.more }}",
            "{{ body.nothing }}",
            "{{ nothing|upper }}",
            "{% if nothing %}x{% endif %}",
            "{% for one in nothing %}{% endfor %}",
            "{{ previous_body.x }}",
            "{{ body.nothing ~ 'x' }}",
        ] {
            let words = render(source).unwrap_err();
            assert!(words.starts_with("$.x: the template"), "{source}: {words}");
            assert!(words.contains("undefined"), "{source}: {words}");
        }
    }

    #[test]
    fn what_is_one_property_needs_no_rendering() {
        let mut templates = Templates::new(filters::World::default());
        let entity = dict(r#"{"id": 7, "t": " a ", "f": 1.5, "n": null, "body": "b", "none": 1}"#);
        let mut scope = Scope::default();
        scope.set("body", Seen::from("the answer"));
        let whole = scope.with_entity(&entity);
        for (source, expected) in [
            ("{{ id }}", Some("7")),
            ("{{entity.t}}", Some(" a ")),
            ("{{ f }}", None),
            ("{{ n }}", None),
            ("{{ body }}", None),
            ("{{ none }}", None),
            ("{{ gone }}", None),
            ("{{ id }}{{ id }}", None),
            ("{{ id + 1 }}", None),
        ] {
            let text = templates.text(source, "$.x").unwrap();
            let at_once = Templates::at_once(&text, &scope, &entity);
            assert_eq!(at_once.as_deref(), expected, "{source}");
            if let Some(said) = at_once {
                assert_eq!(said, templates.render(&text, &whole).unwrap(), "{source}");
            }
        }
    }

    #[test]
    fn a_template_that_runs_away_is_stopped() {
        let source =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        let words = render(source).unwrap_err();
        assert!(words.contains("1000000 steps"), "{words}");
    }

    #[test]
    fn text_that_is_no_template_is_a_config_failure() {
        let words = render("{{ open").unwrap_err();
        assert!(words.contains("expected a Jinja template"), "{words}");
    }
}
