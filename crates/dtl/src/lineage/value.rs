//! Expressions.

use serde_json::Value as Json;

use super::flow::{Beside, Flow, Of};
use super::layout::Layout;
use super::rules::Walk;
use crate::compile::assign;
use crate::functions::{self, Function, Kind};
use crate::path;

/// Functions that give values that they were given, or parts of lists, as they are. What else they
/// are given decides which.
const PASSING: &[&str] = &[
    "coalesce",
    "coalesce-args",
    "combine",
    "distinct",
    "filter",
    "first",
    "flatten",
    "if-null",
    "insert",
    "intersection",
    "last",
    "list",
    "max",
    "min",
    "nth",
    "reversed",
    "slice",
    "sorted",
    "sorted-descending",
    "union",
];

impl<'r> Walk<'r> {
    /// Where the value of an expression comes from.
    pub(super) fn value(&mut self, json: &'r Json) -> Flow {
        if !self.goes_on() {
            return Flow::beside(Beside::Unknown);
        }
        match json {
            Json::Array(call) => self.call(call),
            Json::String(text) => self.variable(text).unwrap_or_default(),
            _ => Flow::default(),
        }
    }

    /// The same, where `_` is `current`.
    pub(super) fn with_current(&mut self, current: Flow, json: &'r Json) -> Flow {
        let before = std::mem::replace(&mut self.current, current);
        let flow = self.value(json);
        self.current = before;
        flow
    }

    /// Whether a text is a path, and no string.
    pub(super) fn is_variable(&self, text: &str) -> bool {
        let Some((head, _)) = text.split_once('.') else {
            return false;
        };
        let known = self.aliases.iter().any(|(alias, _)| alias == head);
        known || matches!(head, "_S" | "_T" | "_P" | "_R" | "_B" | "_")
    }

    fn variable(&mut self, text: &str) -> Option<Flow> {
        if !self.is_variable(text) {
            return None;
        }
        let (head, tail) = text.split_once('.')?;
        let alias = self.aliases.iter().rfind(|(alias, _)| alias == head);
        if let Some((_, flow)) = alias {
            return Some(self.follow(flow.clone(), tail));
        }
        Some(match head {
            "_S" => {
                let source = self.source(0);
                self.follow(source, tail)
            }
            "_T" => self.of_target(0, tail),
            "_P" => self.of_parent(tail),
            "_R" => self.of_outermost(tail),
            "_B" => Flow::beside(Beside::Parameters),
            _ => {
                let current = self.current.clone();
                self.follow(current, tail)
            }
        })
    }

    /// `_S`, so many parents up.
    pub(super) fn source(&self, up: usize) -> Flow {
        if let Some(entity) = self.part_of.as_ref().filter(|_| up == 0) {
            return entity.clone();
        }
        let frame = self.frames.len().checked_sub(up + 1);
        let source = frame.map(|at| self.frames[at].source.clone());
        source.unwrap_or_else(|| Flow::beside(Beside::Unknown))
    }

    fn of_target(&mut self, up: usize, tail: &str) -> Flow {
        let Some(at) = self.frames.len().checked_sub(up + 1) else {
            return Flow::beside(Beside::Unknown);
        };
        let target = Flow::dict(self.frames[at].target.clone());
        self.follow(target, tail)
    }

    fn of_parent(&mut self, tail: &str) -> Flow {
        let (mut up, mut rest) = (1, tail);
        loop {
            match rest.split_once('.').unwrap_or((rest, "")) {
                ("_P", after) if up < self.frames.len() => {
                    up += 1;
                    rest = after;
                }
                ("_S", after) => {
                    let source = self.source(up);
                    return self.follow(source, after);
                }
                ("_T", after) => return self.of_target(up, after),
                _ => return self.source(up).computed(),
            }
        }
    }

    fn of_outermost(&mut self, tail: &str) -> Flow {
        let up = self.frames.len().saturating_sub(1);
        match tail.split_once('.').unwrap_or((tail, "")) {
            ("_S", after) => {
                let source = self.source(up);
                self.follow(source, after)
            }
            ("_T", after) => self.of_target(up, after),
            _ => self.source(up).computed(),
        }
    }

    /// The names of a path's text, from a value.
    fn follow(&self, flow: Flow, tail: &str) -> Flow {
        if tail.is_empty() {
            return flow;
        }
        let Ok(names) = path::split(tail) else {
            return Flow::beside(Beside::Unknown);
        };
        let reads = names
            .iter()
            .map(|name| self.naming.read(&name.as_str().into()));
        reads.fold(flow, |flow, read| flow.follow(&read))
    }

    fn call(&mut self, call: &'r [Json]) -> Flow {
        let Some(name) = call.first().and_then(Json::as_str) else {
            return Flow::default();
        };
        let Some(function) = functions::expression(name) else {
            return Flow::beside(Beside::Unknown);
        };
        let Ok(places) = assign(function.args, call.len() - 1) else {
            return Flow::beside(Beside::Unknown);
        };
        match name {
            "hops" => self.hops(&call[1..]),
            "apply-hops" => {
                let joined = self.hops(call.get(2..).unwrap_or_default());
                self.applied(&call[1], joined)
            }
            "apply" => {
                let value = self.value(&call[2]);
                self.applied(&call[1], value)
            }
            "lookup-entity" => {
                let dataset = call[1].as_str().unwrap_or(super::ANY);
                let found = Flow::of(Of::Dataset(dataset.to_owned()), Vec::new());
                found.decided_by(self.value(&call[2]))
            }
            "path" => self.path(&call[1], &call[2]),
            "dict" => self.dict(&call[1..]),
            "literal" => Flow::default(),
            "map" => {
                let values = self.value(&call[2]);
                let when = values.when.clone();
                let mut mapped = self.with_current(values, &call[1]);
                mapped.when.extend(when);
                mapped
            }
            "values" => self.value(&call[1]).anywhere(),
            "if" | "case" | "case-eq" => self.chosen(function, call, &places),
            "difference" => {
                let less = self.value(&call[2]);
                self.value(&call[1]).decided_by(less)
            }
            "is-changed" => {
                let source = self.source(0);
                self.with_current(source, &call[1]).computed()
            }
            "now" => Flow::beside(Beside::Time),
            "uuid" if call.len() == 1 => Flow::beside(Beside::Chance),
            "completeness" => {
                let asked = self.arguments(function, call, &places);
                asked.computed().or(Flow::beside(Beside::Completeness))
            }
            _ if PASSING.contains(&name) => self.arguments(function, call, &places),
            _ => {
                let all = self.arguments(function, call, &places);
                // What decides about an argument is part of what is computed from it.
                all.computed()
            }
        }
    }

    /// All values that a function is given. What it is given to choose among them, decides.
    fn arguments(
        &mut self,
        function: &'static Function,
        call: &'r [Json],
        places: &[Vec<usize>],
    ) -> Flow {
        let of_kind = |wanted: fn(Kind) -> bool| -> Vec<&'r Json> {
            let parameters = function.args.iter().zip(places);
            let parameters = parameters.filter(|(arg, _)| wanted(arg.kind));
            let places = parameters.flat_map(|(_, places)| places);
            places.map(|at| &call[*at]).collect()
        };
        let is_function = |kind: Kind| matches!(kind, Kind::Function | Kind::Default);
        let is_choice = |kind: Kind| matches!(kind, Kind::Integer | Kind::Boolean);
        let is_value = |kind: Kind| {
            kind.is_value()
                && !matches!(
                    kind,
                    Kind::Function | Kind::Default | Kind::Integer | Kind::Boolean
                )
        };
        let mut all = Flow::default();
        for json in of_kind(is_value) {
            all = all.or(self.value(json));
        }
        let mut decides = Flow::default();
        for json in of_kind(is_function) {
            decides = decides.or(self.with_current(all.clone(), json));
        }
        for json in of_kind(is_choice) {
            decides = decides.or(self.value(json));
        }
        let passes = PASSING.contains(&function.name);
        match passes {
            true => all.decided_by(decides),
            false => all.or(decides),
        }
    }

    /// One of several values, by conditions.
    fn chosen(&mut self, function: &Function, call: &'r [Json], places: &[Vec<usize>]) -> Flow {
        let values = |parameter: usize| -> Vec<&'r Json> {
            let places = places.get(parameter).into_iter().flatten();
            places.map(|at| &call[*at]).collect()
        };
        let (conditions, results): (Vec<usize>, Vec<usize>) = match function.name {
            "if" => (vec![0], vec![1, 2]),
            "case" => (vec![0], vec![1, 2]),
            _ => (vec![0, 1], vec![2, 3]),
        };
        let mut flow = Flow::default();
        for json in results.into_iter().flat_map(&values) {
            flow = flow.or(self.value(json));
        }
        for json in conditions.into_iter().flat_map(&values) {
            let condition = self.value(json);
            flow = flow.decided_by(condition);
        }
        flow
    }

    fn path(&mut self, names: &'r Json, value: &'r Json) -> Flow {
        let flow = self.value(value);
        match self.constant_names(names) {
            Some(names) => {
                let reads = names
                    .iter()
                    .map(|name| self.naming.read(&name.as_str().into()));
                reads.fold(flow, |flow, read| flow.follow(&read))
            }
            None => {
                let names = self.value(names);
                flow.anywhere().decided_by(names)
            }
        }
    }

    fn dict(&mut self, items: &'r [Json]) -> Flow {
        if let [pairs] = items {
            return self.value(pairs).computed();
        }
        let mut layout = Layout::default();
        for pair in items.chunks_exact(2) {
            let value = self.value(&pair[1]);
            match &pair[0] {
                Json::String(name) if !self.is_variable(name) => layout.set(name, value),
                name => {
                    let name = self.value(name);
                    layout.compute(value.or(name));
                }
            }
        }
        Flow::dict(layout)
    }

    /// What a rule makes of each of some values.
    fn applied(&mut self, rule: &Json, values: Flow) -> Flow {
        let when = values.when.clone();
        let name = rule.as_str().unwrap_or_default();
        let made = self.rule(name, values, Layout::default());
        let filters = made.filters.clone();
        let mut flow = Flow::dict(made);
        flow.when.extend(when);
        flow.when.extend(filters);
        flow
    }
}
