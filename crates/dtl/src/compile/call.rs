//! Calls: finding the function, and which argument is which.

use serde_json::Value as Json;
use tahini_entity::Value;

use super::{Compiler, describe};
use crate::analysis::Why;
use crate::expr::{Cost, Expr};
use crate::functions::{self, Arg, Call, Function, Kind, Many};

/// The arguments of a call as they stand in the JSON, and which parameter each one is.
pub(crate) struct Given<'j> {
    pub(crate) function: &'static Function,
    /// The whole call; arguments start at 1.
    json: &'j [Json],
    /// For each parameter, the positions of its arguments.
    places: Vec<Vec<usize>>,
}

impl<'j> Given<'j> {
    /// The one argument of a parameter, with its position; `None` when it was left out.
    pub(crate) fn get(&self, parameter: usize) -> Option<(usize, &'j Json)> {
        let at = *self.places.get(parameter)?.first()?;
        Some((at, &self.json[at]))
    }

    /// All arguments of a parameter with their positions.
    pub(crate) fn all(&self, parameter: usize) -> impl Iterator<Item = (usize, &'j Json)> + '_ {
        let places = self.places.get(parameter).into_iter().flatten();
        places.map(|&at| (at, &self.json[at]))
    }
}

/// Which argument belongs to which parameter. Optional parameters are filled from the left.
///
/// # Errors
/// What was expected, in words.
pub(crate) fn assign(args: &[Arg], given: usize) -> Result<Vec<Vec<usize>>, String> {
    let count = |many: Many| args.iter().filter(|arg| arg.many == many).count();
    let (ones, optional) = (count(Many::One), count(Many::Optional));
    let pairs = count(Many::Pairs) > 0;
    let least = ones + count(Many::Some) + if pairs { 2 } else { 0 };
    let open = pairs || count(Many::Some) + count(Many::Any) > 0;
    if given < least || (!open && given > ones + optional) {
        return Err(match (open, optional) {
            (true, _) => format!("at least {}", arguments(least)),
            (false, 0) => arguments(ones),
            (false, _) if ones + optional == least + 1 => {
                format!("{least} or {}", arguments(ones + optional))
            }
            (false, _) => format!("{least} to {}", arguments(ones + optional)),
        });
    }
    let mut places = vec![Vec::new(); args.len()];
    let mut next = 1;
    let mut spare = given - least;
    for (parameter, arg) in args.iter().enumerate() {
        match arg.many {
            Many::One => {
                places[parameter].push(next);
                next += 1;
            }
            Many::Optional if pairs => {
                places[parameter].extend((next..=given).take(1));
            }
            Many::Optional if spare > 0 => {
                places[parameter].push(next);
                next += 1;
                spare -= 1;
            }
            Many::Optional | Many::PairEnd => {}
            Many::Any | Many::Some => {
                places[parameter].extend(next..=given);
                next = given + 1;
            }
            Many::Pairs => {
                while next < given {
                    places[parameter].push(next);
                    places[parameter + 1].push(next + 1);
                    next += 2;
                }
            }
        }
    }
    Ok(places)
}

fn arguments(count: usize) -> String {
    match count {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        _ => format!("{count} arguments"),
    }
}

impl Compiler<'_> {
    /// Matches the arguments of a call; notes the error when their number is wrong.
    pub(crate) fn given<'j>(
        &mut self,
        function: &'static Function,
        json: &'j [Json],
    ) -> Option<Given<'j>> {
        match assign(function.args, json.len() - 1) {
            Ok(places) => Some(Given {
                function,
                json,
                places,
            }),
            Err(expected) => {
                self.error(format!(
                    "expected {expected} for \"{}\" ({}), found {}",
                    function.name,
                    functions::signature(function),
                    json.len() - 1
                ));
                None
            }
        }
    }

    /// A call in the place of an expression.
    pub(crate) fn call(&mut self, json: &[Json]) -> Expr {
        let name = match json.first() {
            Some(Json::String(name)) => name,
            Some(other) => {
                self.error(format!(
                    "expected a function's name first in the list, found {}; a list of values is \
                     written [\"list\", … ]",
                    describe(other)
                ));
                return Expr::Absent;
            }
            None => {
                self.error(
                    "expected a function's name first in the list, found an empty list; it is \
                     written [\"list\"]",
                );
                return Expr::Absent;
            }
        };
        let Some(function) = functions::expression(name) else {
            self.unknown_function(name);
            return Expr::Absent;
        };
        let Some(given) = self.given(function, json) else {
            // The arguments are looked at all the same, for their own problems.
            if function.args.iter().all(|arg| arg.kind.is_value()) {
                for (at, arg) in json.iter().enumerate().skip(1) {
                    self.at(at, |compiler| compiler.function_expression(arg));
                }
            }
            return Expr::Absent;
        };
        self.note_facts(function);
        match function.call {
            Call::Special(special) => special(self, &given),
            Call::Statement(_) => Expr::Absent,
            call => self.plain_call(call, &given),
        }
    }

    fn unknown_function(&mut self, name: &str) {
        if functions::transform(name).is_some() {
            self.error(format!(
                "expected a function that gives a value, found the transform function \"{name}\""
            ));
            return;
        }
        if let Some(instead) = functions::retired(name) {
            self.error(format!(
                "expected a known function, found \"{name}\"; {instead}"
            ));
            return;
        }
        let help = self.nearest(name, functions::expression_names());
        self.error(format!("expected a known function, found \"{name}\"{help}"));
    }

    fn note_facts(&mut self, function: &Function) {
        match function.name {
            "now" => self.depends_on(Why::Now),
            "encrypt-pgp" | "encrypt-pki" => self.depends_on(Why::Random),
            _ => {}
        }
    }

    fn plain_call(&mut self, call: Call, given: &Given<'_>) -> Expr {
        let before = self.errors();
        let mut args = self.arguments(given);
        let sound = self.errors() == before;
        match call {
            Call::Each(item) => Expr::Each(item, Box::new(args.remove(0))),
            Call::Test(test) => Expr::Test(test, Box::new(args.remove(0))),
            Call::Cast(item) => {
                let otherwise = args.remove(0);
                Expr::Cast(item, Box::new(otherwise), Box::new(args.remove(0)))
            }
            Call::With(prepare) => {
                let known: Option<Vec<Value>> = args[..args.len() - 1]
                    .iter()
                    .map(|arg| match arg {
                        Expr::Absent => Some(Value::Null),
                        other => other
                            .constant()
                            .map(|value| crate::values::first(value).clone()),
                    })
                    .collect();
                let mut item = None;
                if let Some(known) = known.filter(|_| sound) {
                    match prepare(&known) {
                        Ok(prepared) => item = Some(prepared),
                        Err(words) => self.refused(given, &words),
                    }
                }
                Expr::With(prepare, item, args.into())
            }
            Call::Eager(call) => Expr::Eager(call, Cost::Flat, args.into()),
            Call::Costly(cost, call) => Expr::Eager(call, cost, args.into()),
            Call::Form(form) => Expr::Form(form, args.into()),
            Call::Special(_) | Call::Statement(_) => Expr::Absent,
        }
    }

    /// Notes what a function does not take, at the argument whose parameter the words name, or at
    /// the only one that it can be.
    fn refused(&mut self, given: &Given<'_>, words: &str) {
        let parameters = given.function.args.iter().enumerate();
        let named = parameters.filter(|(_, arg)| words.contains(arg.name));
        let mut argument = named.filter_map(|(at, _)| given.get(at)).next();
        if given.function.args.len() == 2 {
            argument = argument.or(given.get(0));
        }
        match argument {
            None => self.error(words),
            Some((at, json)) => {
                let found = match words.contains("found") {
                    true => String::new(),
                    false => format!(", found {}", describe(json)),
                };
                self.at(at, |compiler| compiler.error(format!("{words}{found}")));
            }
        }
    }

    /// The arguments in the order of the parameters; a missing optional one is absent, repeated
    /// ones follow each other, pairs alternate.
    pub(crate) fn arguments(&mut self, given: &Given<'_>) -> Vec<Expr> {
        let mut args = Vec::new();
        for (parameter, arg) in given.function.args.iter().enumerate() {
            match arg.many {
                Many::PairEnd => {}
                Many::Pairs => {
                    let end = &given.function.args[parameter + 1];
                    for ((a, first), (b, second)) in
                        given.all(parameter).zip(given.all(parameter + 1))
                    {
                        args.push(self.at(a, |compiler| compiler.argument(arg, first)));
                        args.push(self.at(b, |compiler| compiler.argument(end, second)));
                    }
                }
                Many::One | Many::Optional => args.push(match given.get(parameter) {
                    Some((at, json)) => self.at(at, |compiler| compiler.argument(arg, json)),
                    None => Expr::Absent,
                }),
                Many::Any | Many::Some => {
                    for (at, json) in given.all(parameter) {
                        args.push(self.at(at, |compiler| compiler.argument(arg, json)));
                    }
                }
            }
        }
        args
    }

    /// One argument, checked against its kind when it is a literal.
    pub(crate) fn argument(&mut self, arg: &Arg, json: &Json) -> Expr {
        let expr = match arg.kind {
            Kind::Function | Kind::Default => self.function_expression(json),
            Kind::Literal => Expr::Const(self.literal(json)),
            _ => self.expression(json),
        };
        let expected = match (arg.kind, expr.constant()) {
            (_, None | Some(Value::Null)) => return expr,
            (Kind::Integer, Some(value)) => {
                let fits = matches!(value, Value::Int(_) | Value::BigInt(_) | Value::List(_));
                (!fits).then_some("an integer")
            }
            (Kind::Number, Some(value)) => {
                let fits = crate::number::Number::of(value).is_some() || value.kind() == "list";
                (!fits).then_some("a number")
            }
            (Kind::String, Some(value)) => {
                (!matches!(value, Value::String(_))).then_some("a string")
            }
            (Kind::DatePart, Some(value)) => {
                let name = value.as_str().unwrap_or_default();
                if !functions::date_parts().any(|part| part == name) {
                    let help = self.nearest(name, functions::date_parts());
                    let parts: Vec<&str> = functions::date_parts().collect();
                    let (found, parts) = (describe(json), parts.join(", "));
                    self.error(format!("expected one of {parts}, found {found}{help}"));
                }
                None
            }
            _ => None,
        };
        if let Some(expected) = expected {
            self.error(format!(
                "expected {expected} for {}, found {}",
                arg.name,
                describe(json)
            ));
        } else if let Some(words) = arg.wrong.zip(expr.constant()).and_then(|(f, v)| f(v)) {
            self.error(words);
        }
        expr
    }

    /// The expression of a parameter in which `_` is a version of the source entity.
    pub(crate) fn of_entity(&mut self, given: &Given<'_>, parameter: usize) -> Expr {
        let Some((at, json)) = given.get(parameter) else {
            return Expr::Absent;
        };
        self.scoped(
            |scope| (scope.function, scope.entity) = (true, true),
            |compiler| compiler.at(at, |compiler| compiler.expression(json)),
        )
    }

    /// An expression in which `_` is known.
    pub(crate) fn function_expression(&mut self, json: &Json) -> Expr {
        self.scoped(
            |scope| (scope.function, scope.entity) = (true, false),
            |compiler| compiler.expression(json),
        )
    }
}
