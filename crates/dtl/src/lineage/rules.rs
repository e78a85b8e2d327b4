//! The statements of rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::flow::{Beside, Flow, Origin};
use super::layout::{Called, Layout, Take};
use crate::compile::assign;
use crate::functions;
use crate::namespace::{NamePattern, Naming, Read, is_bare};
use crate::options::Options;

/// Expressions and statements that are looked at; of what is behind them nothing is known.
const MOST: u32 = 200_000;
/// Rules applied inside each other that are looked into.
const DEPTH: usize = 8;

/// A walk through rules.
pub(super) struct Walk<'r> {
    rules: Option<&'r Map<String, Json>>,
    pub(super) naming: Naming,
    pub(super) frames: Vec<Frame>,
    /// The aliases of `hops` around, the innermost last.
    pub(super) aliases: Vec<(String, Flow)>,
    /// `_`.
    pub(super) current: Flow,
    /// What `_S` is inside `subsets`.
    pub(super) part_of: Option<Flow>,
    /// What decides whether the statements at work are carried out.
    guards: Vec<Flow>,
    steps: u32,
}

/// A rule at work, or a spec of a chain of `hops`.
pub(super) struct Frame {
    pub(super) source: Flow,
    pub(super) target: Layout,
    /// It is a rule; otherwise only `_S` means something.
    pub(super) is_rule: bool,
}

impl<'r> Walk<'r> {
    pub(super) fn new(rules: &'r Json, options: &Options) -> Walk<'r> {
        Walk {
            rules: rules.as_object(),
            naming: Naming::of(options),
            frames: Vec::new(),
            aliases: Vec::new(),
            current: Flow::default(),
            part_of: None,
            guards: Vec::new(),
            steps: 0,
        }
    }

    /// Whether more is to be looked at.
    pub(super) fn goes_on(&mut self) -> bool {
        self.steps += 1;
        self.steps <= MOST
    }

    /// What the default rule makes.
    pub(super) fn default(&mut self, given: &Layout) -> Layout {
        let id = given.find(&Read::Exact("_id".into()));
        let mut target = Layout {
            filters: given.filters.clone(),
            ..Layout::default()
        };
        target.set("_id", id);
        self.rule("default", Flow::dict(given.clone()), target)
    }

    /// What a rule makes of a value.
    pub(super) fn rule(&mut self, name: &str, source: Flow, target: Layout) -> Layout {
        let body = self.rules.and_then(|rules| rules.get(name));
        let nested = self.frames.iter().filter(|frame| frame.is_rule).count();
        let Some(body) = body.filter(|_| nested < DEPTH && self.steps <= MOST) else {
            return Layout::of(&source.or(Flow::beside(Beside::Unknown)));
        };
        let aliases = std::mem::take(&mut self.aliases);
        let current = std::mem::take(&mut self.current);
        let part_of = self.part_of.take();
        let guards = std::mem::take(&mut self.guards);
        self.frames.push(Frame {
            source,
            target,
            is_rule: true,
        });
        self.block(body);
        let frame = self.frames.pop().expect("it was put there");
        (self.aliases, self.current) = (aliases, current);
        (self.part_of, self.guards) = (part_of, guards);
        frame.target
    }

    /// The target of the rule at work.
    fn target(&mut self) -> &mut Layout {
        let at = self.frames.iter().rposition(|frame| frame.is_rule);
        &mut self.frames[at.expect("statements stand in rules")].target
    }

    pub(super) fn block(&mut self, json: &'r Json) {
        let Json::Array(items) = json else { return };
        match items.first() {
            Some(Json::String(_)) => self.statement(items),
            _ => {
                for item in items {
                    if let Json::Array(call) = item {
                        self.statement(call);
                    }
                }
            }
        }
    }

    fn statement(&mut self, call: &'r [Json]) {
        if !self.goes_on() {
            return self.target().compute(Flow::beside(Beside::Unknown));
        }
        let name = call.first().and_then(Json::as_str).unwrap_or_default();
        let given = functions::transform(name);
        let places = given.and_then(|function| assign(function.args, call.len() - 1).ok());
        let Some(places) = places else { return };
        let arg = |parameter: usize| -> Option<&'r Json> {
            Some(&call[*places.get(parameter)?.first()?])
        };
        let nothing = &Json::Null;
        match name {
            "add" => self.add(arg(0).unwrap_or(nothing), arg(1).unwrap_or(nothing)),
            "add-if" => self.add_if(arg),
            "default" => {
                let before = self.target().clone();
                self.add(arg(0).unwrap_or(nothing), arg(1).unwrap_or(nothing));
                self.or_else(before);
            }
            "copy" => {
                let take = Take {
                    include: self.patterns(arg(0)),
                    exclude: self.patterns(arg(1)),
                };
                self.copy(&take);
            }
            "remove" => {
                let patterns = self.patterns(arg(0));
                self.target().remove(&patterns);
            }
            "rename" => {
                let flow = self.property_of_source(arg(0).unwrap_or(nothing));
                self.set(arg(1).unwrap_or(nothing), flow);
            }
            "make-ni" => self.make_ni(arg),
            "merge" | "merge-union" => {
                let value = self.value(arg(0).unwrap_or(nothing));
                let value = self.guarded(value);
                let own = Take::without(vec![self.called("_*")]);
                self.target().take_over(&value, &own);
            }
            "create" => {
                let value = self.value(arg(0).unwrap_or(nothing));
                let value = self.guarded(value);
                self.target().created.push(value);
            }
            "create-child" => self.create_child(arg(0).unwrap_or(nothing)),
            "filter" | "discard" => self.filter(arg(0)),
            "if" => {
                let condition = self.value(arg(0).unwrap_or(nothing));
                self.branches(condition, &[arg(1), arg(2)]);
            }
            "case" | "case-eq" => self.case(name, call, &places),
            _ => {}
        }
    }

    fn add_if(&mut self, arg: impl Fn(usize) -> Option<&'r Json>) {
        let nothing = &Json::Null;
        let value = self.value(arg(2).unwrap_or(nothing));
        let condition = match arg(1) {
            Some(condition) => self.with_current(value.clone(), condition),
            None => value.clone(),
        };
        let before = self.target().clone();
        self.set(arg(0).unwrap_or(nothing), value.decided_by(condition));
        self.or_else(before);
    }

    fn create_child(&mut self, value: &'r Json) {
        let value = self.value(value);
        let value = self.guarded(value);
        let known = self.target().find(&Read::Exact("$children".into()));
        self.target().set("$children", known.or(value));
    }

    fn filter(&mut self, condition: Option<&'r Json>) {
        let condition = condition.map(|json| self.value(json)).unwrap_or_default();
        let condition = self.guarded(condition.computed());
        let decides: BTreeSet<Origin> = condition.made.into_iter().chain(condition.when).collect();
        self.target().filters.extend(decides);
    }

    fn case(&mut self, name: &str, call: &'r [Json], places: &[Vec<usize>]) {
        let first = usize::from(name == "case-eq");
        let mut condition = Flow::default();
        if first == 1 {
            condition = self.value(&call[1]);
        }
        let all = |parameter: usize| -> Vec<&'r Json> {
            let places = places.get(parameter).into_iter().flatten();
            places.map(|at| &call[*at]).collect()
        };
        for json in all(first) {
            condition = condition.or(self.value(json));
        }
        let mut arms: Vec<Option<&Json>> = all(first + 1).into_iter().map(Some).collect();
        arms.push(all(first + 2).first().copied());
        self.branches(condition, &arms);
    }

    /// Carries out each branch on what was there before, and joins what they leave.
    fn branches(&mut self, condition: Flow, arms: &[Option<&'r Json>]) {
        self.guards.push(condition.computed());
        let before = self.target().clone();
        let mut after: Option<Layout> = None;
        for arm in arms {
            self.target().clone_from(&before);
            if let Some(block) = arm {
                self.block(block);
            }
            let left = self.target().clone();
            after = Some(match after {
                Some(known) => known.joined(left),
                None => left,
            });
        }
        self.guards.pop();
        if let Some(after) = after {
            *self.target() = after;
        }
    }

    /// What is there now, or what was there before.
    fn or_else(&mut self, before: Layout) {
        let now = std::mem::take(self.target());
        *self.target() = before.joined(now);
    }

    fn add(&mut self, name: &'r Json, value: &'r Json) {
        let value = self.value(value);
        self.set(name, value);
    }

    /// Sets the property of a name that a statement writes.
    fn set(&mut self, name: &'r Json, flow: Flow) {
        let flow = self.guarded(flow);
        match self.constant_names(name) {
            Some(names) => {
                for name in names {
                    let name = self.naming.write(&name.as_str().into());
                    self.target().set(&name, flow.clone());
                }
            }
            None => {
                let names = self.value(name);
                self.target().compute(flow.or(names));
            }
        }
    }

    /// A value, with what decides whether the statement at work is carried out.
    fn guarded(&self, mut flow: Flow) -> Flow {
        for guard in &self.guards {
            flow = flow.decided_by(guard.clone());
        }
        flow
    }

    /// Names that are written in the rules as they are: one, or a list of them.
    pub(super) fn constant_names(&self, json: &Json) -> Option<Vec<String>> {
        match json {
            Json::String(text) => (!self.is_variable(text)).then(|| vec![text.clone()]),
            Json::Array(items) if items.first().is_some_and(|head| head == "list") => {
                let names = items[1..].iter().map(|item| match item {
                    Json::String(text) if !self.is_variable(text) => Some(text.clone()),
                    _ => None,
                });
                names.collect()
            }
            _ => None,
        }
    }

    fn property_of_source(&mut self, name: &'r Json) -> Flow {
        let source = self.source(0);
        match self.constant_names(name) {
            Some(names) => {
                let reads = names
                    .iter()
                    .map(|name| self.naming.read(&name.as_str().into()));
                let flows = reads.map(|read| source.follow(&read));
                flows.fold(Flow::default(), Flow::or)
            }
            None => {
                let names = self.value(name);
                source.anywhere().decided_by(names)
            }
        }
    }

    fn make_ni(&mut self, arg: impl Fn(usize) -> Option<&'r Json>) {
        let nothing = &Json::Null;
        let from = arg(1).unwrap_or(nothing);
        let flow = self.property_of_source(from).computed();
        let namespace = arg(0).map(|json| self.value(json)).unwrap_or_default();
        let flow = flow.or(namespace.computed());
        match arg(2) {
            Some(to) => self.set(to, flow),
            None => match self.constant_names(from) {
                Some(names) => {
                    let flow = self.guarded(flow);
                    for name in names {
                        let to = self.naming.write(&format!("{name}-ni").as_str().into());
                        self.target().set(&to, flow.clone());
                    }
                }
                None => self.target().compute(flow),
            },
        }
    }

    /// Copies properties of the source: those that are named are known.
    fn copy(&mut self, take: &Take) {
        let source = self.guarded(self.source(0));
        let exact: Option<Vec<String>> = take
            .include
            .iter()
            .map(|one| exact_name(&one.text, &self.naming))
            .collect();
        match exact {
            Some(names) if take.exclude.is_empty() => {
                for name in names {
                    let flow = source.follow(&Read::Exact(name.as_str().into()));
                    self.target().set(&name, flow);
                }
            }
            _ => {
                // As they are: an entity is no value that was computed.
                self.target().take_over(&source, take);
            }
        }
    }

    fn called(&self, text: &str) -> Called {
        Called {
            text: text.to_owned(),
            pattern: Arc::new(NamePattern::new(text, &self.naming)),
        }
    }

    /// Patterns: a string, or strings in a list.
    fn patterns(&self, json: Option<&Json>) -> Vec<Called> {
        match json {
            Some(Json::String(text)) => vec![self.called(text)],
            Some(Json::Array(items)) => {
                let call = items.first().is_some_and(|head| head == "list");
                let items = items.iter().skip(usize::from(call));
                let texts = items.filter_map(Json::as_str);
                texts.map(|text| self.called(text)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The one name that a pattern stands for, if it is none.
fn exact_name(text: &str, naming: &Naming) -> Option<String> {
    if text.contains(['*', '?']) {
        return None;
    }
    if !naming.on || is_bare(text) {
        return Some(text.to_owned());
    }
    match naming.read(&text.into()) {
        Read::Exact(name) => Some(name.to_string()),
        Read::Any(_) => None,
    }
}
