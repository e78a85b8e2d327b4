//! Statements: the transform functions of a rule.

use serde_json::Value as Json;

use super::{Compiler, Given, describe};
use crate::expr::{Action, Block, Copying, Expr, Name, NameArg, Statement};
use crate::functions::{self, Call};
use crate::namespace::NamePattern;

impl Compiler<'_> {
    /// A list of statements, or a single one.
    pub(crate) fn block(&mut self, json: &Json) -> Block {
        let Json::Array(items) = json else {
            self.error(format!(
                "expected a transform function or a list of them, found {}",
                describe(json)
            ));
            return Block::default();
        };
        if let Some(Json::String(_)) = items.first() {
            return self.statement(json).into_iter().collect();
        }
        let mut block = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            block.extend(self.at(at, |compiler| compiler.statement(item)));
        }
        self.warn_unreachable(&block, items.len());
        block.into()
    }

    /// Statements after an unconditional end are never run.
    fn warn_unreachable(&mut self, block: &[Statement], count: usize) {
        let end = block.iter().position(|statement| {
            matches!(
                statement.action,
                Action::Filter(None) | Action::Discard(None) | Action::Fail(_) | Action::Trip(_)
            )
        });
        let after = end.filter(|end| *end + 1 < block.len() && block.len() == count);
        if let Some(end) = after {
            self.at(end + 1, |compiler| {
                compiler.warning(
                    "expected nothing after a statement that always ends the rule, found this, \
                     which is never run",
                );
            });
        }
    }

    fn statement(&mut self, json: &Json) -> Option<Statement> {
        if self.has_enough() {
            return None;
        }
        let Json::Array(call) = json else {
            self.error(format!(
                "expected a transform function, found {}",
                describe(json)
            ));
            return None;
        };
        let name = match call.first() {
            Some(Json::String(name)) => name,
            Some(Json::Array(_)) => {
                self.error(
                    "expected a transform function, found a list in a list; statements stand in \
                     one list",
                );
                return None;
            }
            other => {
                let found = other.map_or_else(|| "an empty list".to_owned(), describe);
                self.error(format!(
                    "expected a transform function's name, found {found}"
                ));
                return None;
            }
        };
        let Some(function) = functions::transform(name) else {
            if functions::expression(name).is_some() {
                self.error(format!(
                    "expected a transform function, found the function \"{name}\", which gives a \
                     value and changes nothing; write [\"add\", PROPERTY, [\"{name}\", … ]]"
                ));
            } else {
                let help = self.nearest(name, functions::transform_names());
                self.error(format!(
                    "expected a transform function, found \"{name}\"{help}"
                ));
            }
            return None;
        };
        let at = u32::try_from(self.program.paths.len()).expect("statements are few");
        let here = self.here();
        self.program.paths.push(here);
        let given = self.given(function, call)?;
        match function.call {
            Call::Statement(statement) => {
                let mut action = statement(self, &given);
                if self.traces {
                    action = Action::Traced(Box::new(action));
                }
                Some(Statement { at, action })
            }
            _ => None,
        }
    }

    /// The expression of a parameter; absent when it was left out.
    pub(crate) fn expr(&mut self, given: &Given<'_>, parameter: usize) -> Expr {
        match given.get(parameter) {
            Some((at, json)) => {
                let arg = &given.function.args[parameter];
                self.at(at, |compiler| compiler.argument(arg, json))
            }
            None => Expr::Absent,
        }
    }

    /// The expression of an optional parameter.
    pub(crate) fn optional(&mut self, given: &Given<'_>, parameter: usize) -> Option<Expr> {
        given.get(parameter)?;
        Some(self.expr(given, parameter))
    }

    /// The statements of a parameter; none when it was left out.
    pub(crate) fn transforms(&mut self, given: &Given<'_>, parameter: usize) -> Block {
        match given.get(parameter) {
            Some((at, json)) => self.at(at, |compiler| compiler.block(json)),
            None => Block::default(),
        }
    }

    /// The pairs of an expression and statements that start at a parameter.
    pub(crate) fn arms(&mut self, given: &Given<'_>, parameter: usize) -> Box<[(Expr, Block)]> {
        let mut arms = Vec::new();
        for ((a, value), (b, then)) in given.all(parameter).zip(given.all(parameter + 1)) {
            let value = self.at(a, |compiler| compiler.expression(value));
            arms.push((value, self.at(b, |compiler| compiler.block(then))));
        }
        arms.into()
    }

    /// The name that a statement writes.
    pub(crate) fn name(&mut self, given: &Given<'_>, parameter: usize) -> Name {
        match self.name_arg(given, parameter) {
            NameArg::Known(name) => Name::Known(self.program.naming.write(&name)),
            NameArg::Dynamic(expr) => Name::Dynamic(expr),
        }
    }

    /// A name before namespaces.
    pub(crate) fn name_arg(&mut self, given: &Given<'_>, parameter: usize) -> NameArg {
        let Some((at, json)) = given.get(parameter) else {
            return NameArg::Dynamic(Expr::Absent);
        };
        self.at(at, |compiler| {
            let expr = compiler.expression(json);
            match compiler.constant_name(&expr, json) {
                Some(name) => NameArg::Known(name),
                None => NameArg::Dynamic(expr),
            }
        })
    }

    /// The name of a property of the source, before namespaces.
    pub(crate) fn source_name(&mut self, given: &Given<'_>, parameter: usize) -> NameArg {
        let name = self.name_arg(given, parameter);
        if self.in_default() {
            match &name {
                NameArg::Known(name) => self.program.properties.add(name),
                NameArg::Dynamic(_) => self.program.properties.add("*"),
            }
        }
        name
    }

    /// Warns where names look like patterns and are taken as they are.
    pub(crate) fn warn_of_patterns(&mut self, given: &Given<'_>) {
        for parameter in 0..given.function.args.len() {
            let Some((at, Json::String(text))) = given.get(parameter) else {
                continue;
            };
            if text.contains(['*', '?']) {
                let name = given.function.name;
                self.at(at, |compiler| {
                    compiler.warning(format!(
                        "expected a property's name for \"{name}\", which takes no patterns, found \
                         \"{}\", which is the property of exactly this name",
                        super::cut(text)
                    ));
                });
            }
        }
    }

    /// The patterns of a parameter: a string, or strings in a list, written as `["list", …]` or
    /// bare.
    pub(crate) fn patterns(&mut self, given: &Given<'_>, parameter: usize) -> Box<[NamePattern]> {
        let Some((at, json)) = given.get(parameter) else {
            return Box::default();
        };
        self.at(at, |compiler| {
            let mut patterns = Vec::new();
            match json {
                Json::String(_) => compiler.pattern(json, &mut patterns),
                Json::Array(items) => {
                    let call = matches!(items.first(), Some(Json::String(name)) if name == "list");
                    for (at, item) in items.iter().enumerate().skip(usize::from(call)) {
                        compiler.at(at, |compiler| compiler.pattern(item, &mut patterns));
                    }
                }
                other => compiler.error(format!(
                    "expected a property's name or pattern, or a list of them, found {}",
                    describe(other)
                )),
            }
            patterns.into()
        })
    }

    fn pattern(&mut self, json: &Json, patterns: &mut Vec<NamePattern>) {
        match json {
            Json::String(text) => patterns.push(NamePattern::new(text, &self.program.naming)),
            other => self.error(format!(
                "expected a property's name or pattern as a constant string, found {}",
                describe(other)
            )),
        }
    }

    /// What `copy` copies.
    pub(crate) fn copying(&mut self, given: &Given<'_>) -> Copying {
        let include = self.patterns(given, 0);
        if self.in_default() {
            let texts = match given.get(0) {
                Some((_, Json::Array(items)))
                    if items.first().is_some_and(|name| name == "list") =>
                {
                    &items[1..]
                }
                Some((_, Json::Array(items))) => items.as_slice(),
                Some((_, single)) => std::slice::from_ref(single),
                None => &[],
            };
            for text in texts.iter().filter_map(Json::as_str) {
                self.program.properties.add(text);
            }
        }
        Copying {
            include,
            exclude: self.patterns(given, 1),
            slot: self.slot(),
        }
    }
}
