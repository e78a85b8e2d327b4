//! Expressions: literals, variables, calls.

use serde_json::Value as Json;
use tahini_entity::json::{self, Numbers, transit};
use tahini_entity::{Str, Value};

use super::{Compiler, cut};
use crate::analysis::Why;
use crate::expr::Expr;
use crate::path::{self, Path, Root};

/// The variables that every rule knows.
const VARIABLES: [&str; 6] = ["_S", "_T", "_P", "_R", "_B", "_"];

/// Whether a text is names with dots between them, as a path of an alias is.
fn looks_like_path(text: &str) -> bool {
    let is_name = |name: &str| {
        let first = name.chars().next();
        first.is_some_and(|first| first.is_alphabetic() || "_$".contains(first))
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || "_-$:".contains(c))
    };
    !text.starts_with('_') && text.contains('.') && text.split('.').all(is_name)
}

impl Compiler<'_> {
    /// An expression; in a program that explains itself, one that notes its step.
    pub(crate) fn expression(&mut self, json: &Json) -> Expr {
        let expr = self.plain_expression(json);
        if !self.traces || matches!(expr, Expr::Const(_) | Expr::Absent) {
            return expr;
        }
        let at = u32::try_from(self.program.traced.len()).expect("expressions are few");
        let here = self.here();
        self.program.traced.push(here);
        Expr::Traced(at, Box::new(expr))
    }

    fn plain_expression(&mut self, json: &Json) -> Expr {
        if self.has_enough() {
            return Expr::Absent;
        }
        match json {
            Json::Array(call) => self.call(call),
            Json::String(text) => self.text(text),
            Json::Object(_) => {
                if let Some(found) = self.variable_inside(json) {
                    let found = cut(&found);
                    self.warning(format!(
                        "expected plain values in a dict literal, found \"{found}\", which stays \
                         a string; a dict of values is written [\"dict\", KEY, VALUE, … ]"
                    ));
                }
                Expr::Const(self.literal(json))
            }
            other => Expr::Const(self.literal(other)),
        }
    }

    /// A value that is not evaluated.
    pub(crate) fn literal(&self, json: &Json) -> Value {
        json::from_config(json, Numbers::FLOATS)
    }

    fn text(&mut self, text: &str) -> Expr {
        match self.variable(text) {
            Some(expr) => expr,
            None => {
                if VARIABLES.contains(&text) {
                    self.warning(format!(
                        "expected \"{text}.\" for the variable, found \"{text}\", which is a \
                         string"
                    ));
                }
                self.warn_of_alias(text);
                Expr::Const(transit::decode(text))
            }
        }
    }

    /// Warns, inside hops, of a string that would be a path if its first name were an alias.
    fn warn_of_alias(&mut self, text: &str) {
        if self.scope.known_aliases().next().is_none() || !looks_like_path(text) {
            return;
        }
        let head = text.split('.').next().unwrap_or_default();
        let help = self.nearest(head, self.scope.known_aliases());
        let aliases: Vec<&str> = self.scope.known_aliases().take(10).collect();
        self.warning(format!(
            "expected one of the aliases {}, found \"{head}\", with which \"{}\" is a string{help}; a \
             string that looks like this is written [\"literal\", … ]",
            aliases.join(", "),
            cut(text)
        ));
    }

    /// A path, when the text starts with a variable and a dot.
    fn variable(&mut self, text: &str) -> Option<Expr> {
        let (head, tail) = text.split_once('.')?;
        if let Some(alias) = self.scope.aliases.iter().rposition(|alias| alias == head) {
            let alias = u16::try_from(alias).expect("aliases are few");
            return Some(self.path(Root::Alias(alias), tail));
        }
        if !VARIABLES.contains(&head) {
            let mut letters = head.chars();
            let like_one = letters.next() == Some('_')
                && letters
                    .next()
                    .is_some_and(|letter| letter.is_ascii_uppercase())
                && letters.next().is_none();
            if like_one {
                self.error(format!(
                    "expected one of the variables _S, _T, _P, _R, _B and _, found \"{head}\" in \
                     \"{}\"; a string that looks like this is written [\"literal\", … ]",
                    cut(text)
                ));
                return Some(Expr::Absent);
            }
            let upper = head.to_ascii_uppercase();
            if head != upper && VARIABLES.contains(&upper.as_str()) {
                self.warning(format!(
                    "expected \"{upper}.\" for the variable, found \"{head}.\", with which \"{}\" \
                     is a string",
                    cut(text)
                ));
            }
            return None;
        }
        Some(match head {
            "_S" => match self.scope.source_alias {
                Some(alias) => self.path(Root::Alias(alias), tail),
                None => self.path(Root::Source(0), tail),
            },
            "_T" => self.path(Root::Target(0), tail),
            "_B" => self.path(Root::Parameters, tail),
            "_P" => self.parent(tail),
            "_R" => self.root(tail),
            _ => {
                if !self.scope.function {
                    self.warning(
                        "expected \"_.\" inside a function expression, found it elsewhere, where \
                         it is null",
                    );
                }
                self.path(Root::Current, tail)
            }
        })
    }

    fn parent(&mut self, tail: &str) -> Expr {
        let here = self.here();
        let rule = self.scope.rule;
        self.parents.push((rule, here));
        let mut up = 1u16;
        let mut rest = tail;
        loop {
            match rest.split_once('.').unwrap_or((rest, "")) {
                ("_P", after) if up < u16::MAX => {
                    up += 1;
                    rest = after;
                }
                ("_S", after) => return self.path(Root::Source(up), after),
                ("_T", after) => return self.path(Root::Target(up), after),
                _ => return self.path(Root::Parent(up), rest),
            }
        }
    }

    fn root(&mut self, tail: &str) -> Expr {
        match tail.split_once('.').unwrap_or((tail, "")) {
            ("_S", after) => self.path(Root::OuterSource, after),
            ("_T", after) => self.path(Root::OuterTarget, after),
            _ => self.path(Root::Outer, tail),
        }
    }

    fn path(&mut self, root: Root, tail: &str) -> Expr {
        let names = if tail.is_empty() {
            Ok(Vec::new())
        } else {
            path::split(tail)
        };
        match names {
            Ok(names) => {
                let elements = path::elements(&names, &self.program.naming);
                let reads_source = matches!(root, Root::Source(_) | Root::OuterSource);
                let slot = if reads_source && !elements.is_empty() {
                    self.slot()
                } else {
                    0
                };
                self.note_path(root, &names);
                Expr::Path(Path {
                    root,
                    elements,
                    slot,
                })
            }
            Err(words) => {
                self.error(format!("{words}; a property with dots is quoted: _S.'a.b'"));
                Expr::Absent
            }
        }
    }

    /// Notes what a path reads of the source entity. A version's bookkeeping makes results
    /// depend on more than the content.
    fn note_path(&mut self, root: Root, names: &[String]) {
        let bookkeeping = names.first().is_some_and(|name| {
            matches!(name.as_str(), "_updated" | "_previous" | "_ts" | "_hash")
        });
        if bookkeeping && matches!(root, Root::Source(_) | Root::OuterSource) {
            self.depends_on(Why::Versions);
        }
        let of_entity = match root {
            // What an applied rule gets was read by whoever applies it.
            Root::Source(0) => self.in_default(),
            // The rule above may be the default one.
            Root::Source(_) | Root::OuterSource => true,
            Root::Current => self.scope.entity,
            // As dicts, these hold the whole source; other names in them than _S are not there.
            Root::Parent(_) | Root::Outer => names.is_empty(),
            Root::Target(_) | Root::OuterTarget | Root::Parameters | Root::Alias(_) => false,
        };
        match names.first() {
            _ if !of_entity => {}
            Some(name) => self.program.properties.add(name),
            None => self.program.properties.add("*"),
        }
    }

    /// A string in a literal that would be a path elsewhere.
    fn variable_inside(&self, json: &Json) -> Option<String> {
        match json {
            Json::String(text) => {
                let head = text.split_once('.')?.0;
                let known =
                    VARIABLES.contains(&head) || self.scope.aliases.iter().any(|a| a == head);
                known.then(|| text.clone())
            }
            Json::Array(items) => items.iter().find_map(|item| self.variable_inside(item)),
            Json::Object(pairs) => pairs.values().find_map(|item| self.variable_inside(item)),
            _ => None,
        }
    }

    /// A property's name or names, as a statement writes them.
    pub(crate) fn constant_name(&mut self, expr: &Expr, json: &Json) -> Option<Str> {
        match expr.constant()? {
            Value::String(name) => Some(name.clone()),
            Value::List(_) => None,
            _ => {
                let found = super::describe(json);
                self.error(format!("expected a property's name, found {found}"));
                None
            }
        }
    }
}
